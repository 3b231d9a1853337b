//! The commit plan: what one batch does to a table's files, in no format's terms.
//!
//! The physical layer makes it, every publisher turns the same plan into one atomic commit of its own format.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::Error;
use crate::position::{OffsetRange, Position};
use crate::schema::TableSchema;
use crate::table::notes::Notes;
use crate::table::partition::Partitioning;

/// How long files may wait for the commit that names them. Until then no version does, and whoever collects orphans
/// takes them for some once they are older than an hour, at the least ([`crate::sink::orphans`]).
const LONGEST_UNNAMED: Duration = Duration::from_secs(15 * 60);

/// Since when there may be files that wait for the commit that names them.
#[derive(Debug, Clone, Copy)]
pub struct Unnamed {
    millis: i64,
    at: Instant,
}

impl Unnamed {
    /// Since now, which is this wall time.
    pub fn since(now_millis: i64) -> Self {
        Self { millis: now_millis, at: Instant::now() }
    }

    /// True when they must not be committed any more: somebody may be removing them. What waited is written again.
    ///
    /// Asks both clocks. One stands still while the machine sleeps, the other one is set.
    pub fn too_long(&self, now_millis: i64) -> bool {
        let waited = Duration::from_millis(now_millis.abs_diff(self.millis));
        waited.max(self.at.elapsed()) > LONGEST_UNNAMED
    }
}

/// A value of a column, for statistics and partition values.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub enum Scalar {
    /// Of a boolean column.
    Boolean(bool),
    /// Of an integer column, a date (days), or a time or timestamp (microseconds).
    Int(i64),
    /// Of a float column.
    Float(f64),
    /// Of a decimal column: the unscaled value.
    Decimal(i128),
    /// Of a text column.
    String(String),
    /// Of a bytes column.
    Binary(Vec<u8>),
}

/// Statistics of one column in one data file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnStats {
    /// Bytes on disk.
    pub compressed_bytes: u64,
    /// Values, nulls included.
    pub values: u64,
    /// Nulls.
    pub nulls: u64,
    /// A bound that no value is below: the smallest value, text and bytes possibly cut short.
    pub min: Option<Scalar>,
    /// A bound that no value is above: the largest value, text and bytes possibly cut short and raised.
    pub max: Option<Scalar>,
}

/// A data file: a Parquet file of row versions.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Path relative to the table's root, `/`-separated, no escapes beyond the partition directories' own.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Rows, deleted ones included.
    pub rows: u64,
    /// Values of the table's partition fields, in their order; none for null.
    pub partition: Vec<Option<Scalar>>,
    /// Statistics by field id.
    pub stats: BTreeMap<i32, ColumnStats>,
    /// Where row groups start, bytes.
    pub split_offsets: Vec<i64>,
}

impl DataFile {
    /// A file of which nothing is known but where it is and its bytes.
    pub(super) fn bare(path: &str, size: u64) -> Self {
        let path = path.to_owned();
        let (partition, stats, split_offsets) = Default::default();
        Self { path, size, rows: 0, partition, stats, split_offsets }
    }
}

/// A data file that is part of the current table version, with the rows that are deleted in it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFile {
    /// The file. Statistics may be empty when it was read back from a log.
    pub file: Arc<DataFile>,
    /// Positions of deleted rows.
    pub deleted: Arc<RoaringTreemap>,
}

impl LiveFile {
    /// Rows that are not deleted; 0 when the log does not tell the file's rows.
    pub fn rows(&self) -> u64 {
        self.file.rows.saturating_sub(self.deleted.len())
    }
}

/// The complete set of deleted positions of a file after the commit.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The data file.
    pub file: Arc<DataFile>,
    /// Deleted positions before the commit.
    pub before: Arc<RoaringTreemap>,
    /// Deleted positions after the commit: `before` and more, but never all rows (see [`CommitPlan::removed`]).
    pub after: Arc<RoaringTreemap>,
}

/// What one commit does. Every publisher must make it atomic, and must refuse it (conflict) when the table is no
/// longer at the version the plan was made on.
#[derive(Debug, Clone)]
pub struct CommitPlan {
    /// The batch's id. The publisher stores it in the commit and recognises its own commit by it.
    pub batch_id: Uuid,
    /// The ranges of the batch; `from` equals the stored position, the new position is `to`.
    pub ranges: Vec<OffsetRange>,
    /// The position after the commit, all partitions of the topic.
    pub position: Position,
    /// The schema after the commit.
    pub schema: Arc<TableSchema>,
    /// True when `schema` differs from the table's: it is changed in the same commit.
    pub schema_changed: bool,
    /// Data files added; already written.
    pub added: Vec<Arc<DataFile>>,
    /// Files whose deleted positions grow. A file may be in `added` as well when a log that is behind is brought up:
    /// it enters the table with these rows deleted.
    pub deletions: Vec<Deletion>,
    /// Files that lose their last rows: dropped from the table, with the positions that were deleted before.
    pub removed: Vec<LiveFile>,
    /// The notes after the commit.
    pub notes: Notes,
    /// The deployment that the table belongs to from this commit on, where that is new.
    pub owner: Option<Arc<str>>,
    /// What a person did by it, to be read in the table's history.
    pub audit: Option<String>,
    /// Counts for the commit's metrics.
    pub counts: Counts,
    /// When the source committed the newest change, microseconds since the epoch.
    pub newest_source_micros: Option<i64>,
    /// Wall time of the commit, milliseconds since the epoch.
    pub now_millis: i64,
    /// Since when its data files are written. A publisher does not send a commit whose files have waited too long.
    pub unnamed: Unnamed,
}

impl CommitPlan {
    /// Fails when its files have waited too long. To be asked right before the commit is sent.
    pub fn check_age(&self) -> Result<(), Error> {
        if self.unnamed.too_long(self.now_millis) {
            let batch = self.batch_id;
            return Err(Error::unavailable(format!(
                "the files of batch {batch} were written too long ago to be committed; they are written again"
            )));
        }
        Ok(())
    }
}

/// Rows a commit touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// New keys.
    pub inserted: u64,
    /// Keys that had a row and get another version.
    pub updated: u64,
    /// Keys whose row is deleted.
    pub deleted: u64,
}

/// A table version as one format's log tells it.
#[derive(Debug, Clone)]
pub struct TableState {
    /// The Delta version, or the Iceberg snapshot's sequence number.
    pub version: i64,
    /// The schema, with field ids.
    pub schema: Arc<TableSchema>,
    /// How the table is partitioned.
    pub partitioning: Arc<Partitioning>,
    /// The stored position.
    pub position: Position,
    /// The batch that made the newest commit of ours that can be told.
    pub last_batch: Option<Uuid>,
    /// The notes that it left.
    pub notes: Notes,
    /// The deployment that the table belongs to; none before its first commit.
    pub owner: Option<Arc<str>>,
    /// Live data files by path.
    pub files: BTreeMap<String, LiveFile>,
}

/// How a publisher's commit ended. After any answer but a plain yes the publisher reads the table and looks for the batch
/// id before it tells.
#[derive(Debug)]
#[must_use]
pub enum Published {
    /// The plan is in the table; the version it made (Delta version or Iceberg sequence number).
    Committed {
        /// The table version.
        version: i64,
        /// True when the table told it, the answer having been lost.
        found: bool,
    },
    /// Another commit came first; the plan is not in the table. Refresh, plan again.
    Conflict,
    /// It is not in the table, but may still get there, or the table cannot be read. Nothing else may be committed
    /// before that is decided: publishing the same batch again finds out.
    Unknown(Error),
}

#[cfg(test)]
impl Published {
    /// Why nobody can tell whether the plan is in the table.
    pub(crate) fn unknown(self) -> Error {
        match self {
            Self::Unknown(error) => error,
            other => panic!("{other:?}"),
        }
    }
}
