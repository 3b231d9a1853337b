//! A Delta table's log: reading and replaying it, the conditional put of a commit, checkpoints.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use delta_kernel::Snapshot;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;
use deltalake::kernel::{Add, Snapshot as DeltaSnapshot};
use deltalake::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::checkpoints::cleanup_expired_logs_for;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use regex::Regex;
use uuid::Uuid;

use super::protocol::{Metadata, Protocol};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::sink::storage::{self, Location};

/// What the kernel says of a log without a file.
const NO_FILES: &str = "No files in log segment";

/// What the kernel says of a log that is listed again and lacks the version that it had.
const NO_VERSION: &str = "LogSegment end version";

/// What the kernel says of a log whose newest checkpoint is not listed.
const NO_CHECKPOINT: &str = "Had a _last_checkpoint hint but didn't find any checkpoints";

/// Names of commits.
pub(super) static COMMIT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(\d{20})\.json$").ok());

/// The log of the table at a location.
#[derive(Debug)]
pub(super) struct Log {
    location: Location,
    store: LogStoreRef,
}

/// What a replay of the log tells.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) version: i64,
    /// The version of the newest checkpoint, 0 when there is none.
    pub(super) checkpoint: i64,
    pub(super) protocol: Protocol,
    pub(super) metadata: Metadata,
    pub(super) adds: Vec<Add>,
    /// Versions of application transactions by application id.
    pub(super) transactions: HashMap<String, i64>,
}

/// What became of a conditional put.
#[must_use]
pub(super) enum Put {
    /// The commit is in the log.
    Done,
    /// It may be there or not: whoever asks has to read the log. Even "already exists" can be the answer to the second
    /// attempt at a request whose first answer was lost.
    Unclear(Error),
}

impl Log {
    pub(super) fn new(location: Location) -> Self {
        let root = Arc::clone(location.store());
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&root), location.path().clone()));
        let store = default_logstore(prefixed, root, location.url(), &StorageConfig::default());
        Self { location, store }
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// True when there is a table: its log holds a version or a checkpoint of one.
    pub(super) async fn exists(&self) -> Result<bool> {
        let is_version = |meta: &ObjectMeta| {
            meta.location
                .filename()
                .is_some_and(|name| name.starts_with(|first: char| first.is_ascii_digit()))
        };
        let mut listed = self.location.store().list(Some(&self.folder()));
        while let Some(meta) = listed.try_next().await.map_err(|e| self.unlisted(e))? {
            if is_version(&meta) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Versions above `version` that have a commit in the log, ascending. Any version from -1 on.
    pub(super) async fn versions_after(&self, version: i64) -> Result<Vec<i64>> {
        let folder = self.folder();
        // Sorts after the commit `version` and before what belongs to the next.
        let after = folder.clone().join(match version {
            0.. => format!("{version:020}.json"),
            _ => "0".to_owned(),
        });
        let listed = self.location.store().list_with_offset(Some(&folder), &after);
        let listed: Vec<_> = listed.try_collect().await.map_err(|e| self.unlisted(e))?;
        let number = |path: &Path| -> Option<i64> {
            let name = COMMIT.as_ref()?.captures(path.filename()?)?;
            name.get(1)?.as_str().parse().ok()
        };
        let mut versions: Vec<i64> =
            listed.iter().filter_map(|meta| number(&meta.location)).collect();
        versions.retain(|found| *found > version);
        versions.sort_unstable();
        Ok(versions)
    }

    pub(super) fn folder(&self) -> Path {
        self.location.path().clone().join("_delta_log")
    }

    pub(super) fn unlisted(&self, error: object_store::Error) -> Error {
        storage::failed(format!("cannot list the Delta log of {}", self.location.url()), error)
    }

    /// The commit of a version; none when there is none.
    pub(super) async fn read(&self, version: i64) -> Result<Option<Bytes>> {
        let what =
            || format!("cannot read version {version} of the Delta log of {}", self.location.url());
        let version = number(version)?;
        self.store.read_commit_entry(version).await.map_err(|e| failed(what(), e))
    }

    /// Puts a commit where none is: one request, whose retries by the store's client are what make answers unclear.
    pub(super) async fn put(&self, version: i64, commit: Vec<u8>) -> Result<Put> {
        let what = || {
            format!("cannot write version {version} of the Delta log of {}", self.location.url())
        };
        let bytes = CommitOrBytes::LogBytes(commit.into());
        let put = self.store.write_commit_entry(number(version)?, bytes, Uuid::nil()).await;
        failpoint::reach(Point::K6);
        Ok(match put {
            Ok(()) => Put::Done,
            Err(TransactionError::VersionAlreadyExists(_)) => {
                Put::Unclear(Error::unavailable(what()))
            }
            Err(e) => Put::Unclear(failed(what(), e.into())),
        })
    }

    /// Protocol and metadata of the newest version, and nothing else of it.
    pub(super) async fn head(&self) -> Result<(Protocol, Metadata)> {
        let what = || format!("cannot read the Delta log of {}", self.location.url());
        let newest = DeltaSnapshot::try_new(self.store.as_ref(), None)
            .await
            .map_err(|e| failed(what(), e))?;
        let unreadable = |e: serde_json::Error| Error::data(what()).because(e);
        let protocol = convert(newest.protocol()).map_err(unreadable)?;
        Ok((protocol, convert(newest.metadata()).map_err(unreadable)?))
    }

    /// Replays the log up to its newest version.
    pub(super) async fn replay(&self) -> Result<Replay> {
        self.check().await?;
        let what = || format!("cannot replay the Delta log of {}", self.location.url());
        let engine = self.store.engine(None);
        let root = self.location.url().clone();
        let replay = move || -> Result<_, delta_kernel::Error> {
            let snapshot = Snapshot::builder_for(root).build(engine.as_ref())?;
            let schema = Arc::clone(&delta_kernel::actions::LOG_TXN_SCHEMA);
            let mut transactions = HashMap::new();
            for batch in snapshot.log_segment().read_actions(engine.as_ref(), schema)? {
                let batch: RecordBatch =
                    ArrowEngineData::try_from_engine_data(batch?.actions)?.into();
                collect_transactions(&batch, &mut transactions);
            }
            Ok((snapshot, transactions))
        };
        let (snapshot, transactions) = tokio::task::spawn_blocking(replay)
            .await
            .map_err(|e| Error::internal(what()).because(e))?
            .map_err(|e| failed(what(), e.into()))?;
        let files = DeltaSnapshot::try_new(self.store.as_ref(), Some(snapshot.version()))
            .await
            .map_err(|e| failed(what(), e))?;
        #[expect(deprecated, reason = "the only way to the tags, and nothing has replaced it")]
        let adds = files
            .file_views(self.store.as_ref(), None)
            .map_ok(|file| file.add_action())
            .try_collect()
            .await
            .map_err(|e| failed(what(), e))?;
        let unreadable = |e: serde_json::Error| Error::data(what()).because(e);
        Ok(Replay {
            version: version(snapshot.version())?,
            checkpoint: version(snapshot.log_segment().checkpoint_version.unwrap_or_default())?,
            protocol: convert(files.protocol()).map_err(unreadable)?,
            metadata: convert(files.metadata()).map_err(unreadable)?,
            adds,
            transactions,
        })
    }

    /// Writes a checkpoint of a version.
    pub(super) async fn checkpoint(&self, version: i64) -> Result<()> {
        let what =
            || format!("cannot write a checkpoint of version {version} of {}", self.location.url());
        let at = number(version)?;
        let engine = self.store.engine(None);
        let root = self.location.url().clone();
        let checkpoint = move || -> Result<_, delta_kernel::Error> {
            let snapshot = Snapshot::builder_for(root).at_version(at).build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None).map(|_| ())
        };
        tokio::task::spawn_blocking(checkpoint)
            .await
            .map_err(|e| Error::internal(what()).because(e))?
            .map_err(|e| failed(what(), e.into()))?;
        self.note_checkpoint(version).await
    }

    /// Deletes commits and checkpoints that are older than `cutoff_millis` and not needed for a version since.
    pub(super) async fn clean(&self, version: i64, cutoff_millis: i64) -> Result<usize> {
        cleanup_expired_logs_for(number(version)?, self.store.as_ref(), cutoff_millis, None)
            .await
            .map_err(|e| {
                failed(format!("cannot clean the Delta log of {}", self.location.url()), e)
            })
    }
}

/// Actions come newest first: the first of an application counts.
fn collect_transactions(batch: &RecordBatch, transactions: &mut HashMap<String, i64>) {
    let Some(actions) = batch.column_by_name("txn").and_then(|column| column.as_struct_opt())
    else {
        return;
    };
    let (Some(ids), Some(versions)) =
        (actions.column_by_name("appId"), actions.column_by_name("version"))
    else {
        return;
    };
    let (Some(ids), Some(versions)) =
        (ids.as_string_opt::<i32>(), versions.as_primitive_opt::<Int64Type>())
    else {
        return;
    };
    for (id, version) in ids.iter().zip(versions.iter()) {
        if let (Some(id), Some(version)) = (id, version) {
            transactions.entry(id.to_owned()).or_insert(version);
        }
    }
}

fn convert<A: serde::Serialize, B: serde::de::DeserializeOwned>(
    action: &A,
) -> Result<B, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(action)?)
}

fn number(version: i64) -> Result<u64> {
    u64::try_from(version)
        .map_err(|e| Error::internal(format!("{version} is no Delta version")).because(e))
}

fn version(number: u64) -> Result<i64> {
    i64::try_from(number)
        .map_err(|e| Error::data(format!("{number} is no Delta version")).because(e))
}

/// An error of the Delta libraries by what the caller does about it.
fn failed(what: String, error: DeltaTableError) -> Error {
    Error::new(kind(&error), what).because(error)
}

fn kind(error: &DeltaTableError) -> Kind {
    if let Some(asked) = storage::asked(error) {
        return storage::kind(asked);
    }
    match error {
        DeltaTableError::ObjectStore { source } => storage::kind(source),
        DeltaTableError::KernelError(error) => kernel_kind(error),
        DeltaTableError::NotATable(what) if what.ends_with(NO_FILES) => Kind::Unavailable,
        _ => Kind::Data,
    }
}

fn kernel_kind(error: &delta_kernel::Error) -> Kind {
    use delta_kernel::Error as Kernel;
    match error {
        Kernel::Backtraced { source, .. } => kernel_kind(source),
        Kernel::ObjectStore(source) => storage::kind(source),
        // A log file can be cleaned away between the listing and the read.
        Kernel::IOError(_) | Kernel::FileNotFound(_) | Kernel::Reqwest(_) => Kind::Unavailable,
        // Nothing is replayed but a log of which a file was just seen: a list that lacks it is behind.
        Kernel::Generic(what) if what == NO_FILES || what.starts_with(NO_VERSION) => {
            Kind::Unavailable
        }
        Kernel::InvalidCheckpoint(what) if what.starts_with(NO_CHECKPOINT) => Kind::Unavailable,
        Kernel::Unsupported(_) => Kind::Refused,
        _ => Kind::Data,
    }
}
