//! Whether the log's files are what was written: a position that is one digit off would skip records.
//!
//! Commits have their checksum in themselves. A checkpoint's is a tag in `_last_checkpoint`, which is where writers may note
//! what they like of it (Delta protocol, "Last Checkpoint File"). What others wrote has none and is taken as it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde_json::{Value, json};

use super::commit;
use super::log::{COMMIT, Log};
use crate::error::{Error, Result};
use crate::sink::storage;

/// Commits read at a time.
const READS: usize = 16;
/// How often a checkpoint is looked at that is not what its tag says, and how long after the last time.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// The tag with a checkpoint's CRC-32.
const TAG: &str = "cdc-sink.crc32";
/// The file that names the newest checkpoint.
const HINT: &str = "_last_checkpoint";

impl Log {
    /// Fails when the newest checkpoint, or a commit since, is not what was written.
    pub(super) async fn check(&self) -> Result<()> {
        let store = Arc::clone(self.location().store());
        let listed: Vec<_> =
            store.list(Some(&self.folder())).try_collect().await.map_err(|e| self.unlisted(e))?;
        let (checkpoint, since) = needed(&listed);
        if let Some(version) = checkpoint {
            self.check_checkpoint(version).await?;
        }
        stream::iter(since)
            .map(|version| self.check_commit(version))
            .buffer_unordered(READS)
            .try_collect()
            .await
    }

    async fn check_commit(&self, version: i64) -> Result<()> {
        let Some(bytes) = self.read(version).await? else { return Ok(()) };
        commit::check(&bytes)
            .map_err(|e| e.context(format_args!("version {version} of {}", self.location().url())))
    }

    async fn check_checkpoint(&self, version: i64) -> Result<()> {
        for _ in 0..LOOKS {
            if self.checkpoint_is_whole(version).await? {
                return Ok(());
            }
            // Somebody may be writing it anew, and comes to the tag after it.
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(Error::data(format!(
            "the checkpoint of version {version} of {} is damaged: its checksum does not match",
            self.location().url()
        ))
        .hint("remove it and _last_checkpoint if the commits before it are still there, or bring it back from a copy"))
    }

    async fn checkpoint_is_whole(&self, version: i64) -> Result<bool> {
        let hint = self.get(&self.folder().join(HINT)).await?;
        let hint = hint.and_then(|hint| serde_json::from_slice::<Value>(&hint).ok());
        let Some(hint) = hint.filter(|hint| hint.get("version") == Some(&json!(version))) else {
            return Ok(true);
        };
        let Some(told) = hint.get("tags").and_then(|tags| tags.get(TAG)?.as_str()) else {
            return Ok(true);
        };
        let bytes = self.get(&self.checkpoint_file(version)).await?;
        Ok(bytes.is_none_or(|bytes| told == sum(&bytes)))
    }

    /// Notes the checksum of a checkpoint that was just written. Nothing is lost without.
    pub(super) async fn note_checkpoint(&self, version: i64) -> Result<()> {
        let place = self.folder().join(HINT);
        let hint = self.get(&place).await?;
        let hint = hint.and_then(|hint| serde_json::from_slice::<Value>(&hint).ok());
        let Some(Value::Object(mut hint)) = hint else { return Ok(()) };
        // Somebody may have written a newer one, or one of another kind.
        let is_newest = hint.get("version") == Some(&json!(version));
        let Some(bytes) = self.get(&self.checkpoint_file(version)).await?.filter(|_| is_newest)
        else {
            return Ok(());
        };
        hint.remove("checksum");
        hint.insert("tags".to_owned(), json!({ TAG: sum(&bytes) }));
        let text = Value::Object(hint).to_string();
        let put = self.location().store().put(&place, text.into()).await;
        put.map(|_| ()).map_err(|e| storage::failed(format!("cannot write {place}"), e))
    }

    fn checkpoint_file(&self, version: i64) -> Path {
        self.folder().join(format!("{version:020}.checkpoint.parquet"))
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let failed = |e| storage::failed(format!("cannot read {path}"), e);
        match self.location().store().get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }
}

/// The newest checkpoint, and the commits since.
fn needed(listed: &[ObjectMeta]) -> (Option<i64>, Vec<i64>) {
    let names = || listed.iter().filter_map(|meta| meta.location.filename());
    let number = |name: &str| name.get(..20)?.parse::<i64>().ok();
    let checkpoint = names().filter(|name| name.contains(".checkpoint")).filter_map(number).max();
    let commits =
        names().filter(|name| COMMIT.as_ref().is_some_and(|commit| commit.is_match(name)));
    (checkpoint, commits.filter_map(number).filter(|version| Some(*version) > checkpoint).collect())
}

fn sum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}
