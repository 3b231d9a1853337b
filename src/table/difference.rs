//! What a second format's log, left behind by a crash or an outage, lacks of this table.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::files::read_footer;
use super::physical::Table;
use super::plan::{CommitPlan, Counts, DataFile, Deletion, LiveFile, TableState, Unnamed};
use crate::error::{Error, Result};
use crate::position::OffsetRange;

/// Footers read at once.
const CONCURRENT_READS: usize = 8;

impl Table {
    /// The one commit that brings a log at `behind` to this table's state; none when it is there already.
    ///
    /// A file may be both in `added` and in `deletions` of this plan: it enters with deleted rows. Statistics that are
    /// not known are read from the files. A data error when `behind` has what this table never had: someone else
    /// committed there.
    pub async fn difference(
        &self,
        behind: &TableState,
        now_millis: i64,
    ) -> Result<Option<CommitPlan>> {
        let ranges = self.ranges_since(behind)?;
        let mut missing: Vec<LiveFile> = Vec::new();
        let mut deletions = Vec::new();
        let mut counts = Counts::default();
        let mut live: Vec<&LiveFile> = self.files().collect();
        live.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        for live in live {
            match behind.files.get(&live.file.path) {
                None => missing.push(live.clone()),
                Some(old) if old.deleted == live.deleted => {}
                Some(old) if old.deleted.is_subset(&live.deleted) => {
                    counts.deleted += live.deleted.len() - old.deleted.len();
                    deletions.push(deletion(old, live));
                }
                Some(_) => return Err(self.foreign(behind, "it has deletes that are not ours")),
            }
        }
        let gone = |old: &&LiveFile| !self.numbers.contains_key(&old.file.path);
        let removed: Vec<LiveFile> = behind.files.values().filter(gone).cloned().collect();
        counts.deleted += removed.iter().map(LiveFile::rows).sum::<u64>();
        counts.inserted = missing.iter().map(LiveFile::rows).sum();
        let schema_changed = behind.schema != self.schema;
        let same_files = missing.is_empty() && deletions.is_empty() && removed.is_empty();
        if same_files && !schema_changed && ranges.is_empty() {
            return Ok(None);
        }
        let added = self.with_statistics(missing, &mut deletions).await?;
        // A log that is at our position has the newest batch: it would take the plan for one that is in it.
        let new_batch = self.last_batch().filter(|_| !ranges.is_empty());
        Ok(Some(CommitPlan {
            batch_id: new_batch.unwrap_or_else(Uuid::new_v4),
            ranges,
            position: self.position().clone(),
            schema: Arc::clone(self.schema()),
            schema_changed,
            added,
            deletions,
            removed,
            notes: self.notes.clone(),
            owner: None,
            audit: None,
            counts,
            newest_source_micros: None,
            now_millis,
            unnamed: Unnamed::since(now_millis),
        }))
    }

    /// What the log behind has not seen of every partition.
    fn ranges_since(&self, behind: &TableState) -> Result<Vec<OffsetRange>> {
        for (partition, stored) in behind.position.iter() {
            if self.position().get(partition).is_none_or(|ours| ours < stored) {
                return Err(self.foreign(behind, "its stored position is ahead"));
            }
        }
        let ranges = self.position().iter().filter_map(|(partition, to)| {
            let from = behind.position.get(partition);
            (from != Some(to)).then(|| OffsetRange {
                partition,
                from: from.unwrap_or(0).min(to),
                to,
            })
        });
        Ok(ranges.collect())
    }

    /// The files to add, with statistics; their deleted rows go to `deletions`.
    async fn with_statistics(
        &self,
        missing: Vec<LiveFile>,
        deletions: &mut Vec<Deletion>,
    ) -> Result<Vec<Arc<DataFile>>> {
        let described = missing.into_iter().map(|live| async move {
            if !live.file.stats.is_empty() {
                return Ok::<_, Error>(live);
            }
            let (path, size) = (&live.file.path, live.file.size);
            let read = read_footer(&self.location, self.schema(), path, size).await?;
            let file = DataFile { partition: live.file.partition.clone(), ..read };
            Ok(LiveFile { file: Arc::new(file), deleted: live.deleted })
        });
        let described: BTreeMap<String, LiveFile> = futures::stream::iter(described)
            .buffer_unordered(CONCURRENT_READS)
            .map_ok(|live| (live.file.path.clone(), live))
            .try_collect()
            .await?;
        for live in described.values().filter(|live| !live.deleted.is_empty()) {
            let new = LiveFile { file: Arc::clone(&live.file), deleted: Arc::default() };
            deletions.push(deletion(&new, live));
        }
        Ok(described.into_values().map(|live| live.file).collect())
    }

    fn foreign(&self, behind: &TableState, why: &str) -> Error {
        Error::data(format!(
            "the second log of table {} at version {} cannot be brought up: {why}",
            self.location.url(),
            behind.version
        ))
        .hint("another writer committed to it: restore the version before, or drop that log")
    }
}

fn deletion(before: &LiveFile, after: &LiveFile) -> Deletion {
    Deletion {
        file: Arc::clone(&after.file),
        before: Arc::clone(&before.deleted),
        after: Arc::clone(&after.deleted),
    }
}
