//! Sinks: where batches are merged. The contract every sink keeps, and the receipt of a commit.

pub mod delta;
pub mod iceberg;
pub mod lake;
pub mod memory;
pub mod orphans;
mod seal;
pub mod storage;

use crate::change::{Batch, Departed, Moves, Origin};
use crate::error::Result;
use crate::key::Key;
use crate::position::{OffsetRange, Position, TopicId};
use crate::row_source::RowSource;
use crate::schema::TableSchema;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The receipt of a table commit. Only a sink can make one, and Kafka offsets are acknowledged only with one: what
/// is acknowledged before it is durable does not compile.
///
/// ```compile_fail
/// let receipt = cdc_sink::sink::Committed { ranges: vec![], position: Default::default(), versions: Default::default() };
/// ```
#[derive(Debug, Clone)]
pub struct Committed {
    ranges: Vec<OffsetRange>,
    position: Position,
    versions: BTreeMap<String, i64>,
}

impl Committed {
    fn new(ranges: Vec<OffsetRange>, position: Position, versions: BTreeMap<String, i64>) -> Self {
        Self { ranges, position, versions }
    }

    /// The ranges that the commit covers.
    pub fn ranges(&self) -> &[OffsetRange] {
        &self.ranges
    }

    /// The position stored in the table with the commit.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The table version after the commit, by format (`delta`, `iceberg`, `memory`).
    pub fn versions(&self) -> &BTreeMap<String, i64> {
        &self.versions
    }
}

/// How a merge ended.
#[derive(Debug)]
#[must_use]
pub enum Merged {
    /// The batch is in the table.
    Committed(Committed),
    /// The stored position is not where the batch starts: another owner committed. Nothing of the batch was
    /// committed by this call; read the position again and start from there.
    Fenced {
        /// The position stored in the table.
        stored: Position,
    },
    /// The table has columns that the batch does not know: another owner changed its schema. Nothing of the batch was
    /// committed; make the batch anew for the table's schema.
    Outdated,
    /// The table has later changes of some keys, from other partitions ([`crate::source_position`]), or a row of
    /// [`Batch::amended`] is another one now. Nothing of the batch was committed; make it anew without them, but for values
    /// that the rows were not given so far.
    Stale {
        /// The keys, those of [`Batch::asked`] among them, and what the rows tell that they have; none without a row.
        keys: Vec<(Key, Option<RowSource>)>,
        /// As [`Batch::coming`] tells them.
        coming: Vec<Key>,
    },
    /// A row of [`Batch::begun`] begins at a key at which the table has another one, from before it and from another
    /// partition, in a table that notes key changes: what that row leaves to its next key would be lost. Nothing of the
    /// batch was committed; wait until it is gone, or make the batch anew without [`Batch::begun`].
    Occupied,
    /// The batch is strict and has holes whose row is nowhere, or takes out matched rows that are not there. Nothing of
    /// it was committed; make it anew without them.
    Missing {
        /// Rows that are not there; of matched rows as often as rows are missing.
        absent: Vec<Origin>,
    },
}

/// One table.
///
/// A merge is atomic: a reader sees all of a batch or nothing, and the batch's ranges are stored with its rows. It is a
/// compare-and-set on the position: a batch that does not start at the stored position is fenced. Merging the same
/// batch again after an error of kind unavailable is safe, whether or not the first attempt reached the table.
///
/// A merge notes in the table where the rows of [`Batch::departures`] lay, and drops the notes of its
/// [`Batch::arrivals`]. How many notes a table keeps, and for how long, is bounded. It notes [`Batch::snapshot`] too.
#[trait_variant::make(Send)]
pub trait Sink {
    /// Reads the stored position from the table, not from memory; empty when the table does not exist.
    async fn position(&mut self) -> Result<Position>;

    /// Reads from the table, not from memory, what it notes, and which of `keys` have a row; nothing when it does not
    /// exist.
    async fn departed(&mut self, keys: &[Key]) -> Result<Departed>;

    /// The table's schema, when the table exists.
    fn schema(&self) -> Option<Arc<TableSchema>>;

    /// Names of the columns that the table is partitioned by.
    fn partition_columns(&self) -> Vec<String>;

    /// The id of the topic that was read into the table, by this deployment, as of the last [`Self::position`].
    fn topic_id(&self) -> Option<TopicId>;

    /// Kafka's timestamp of the newest record that was read of each partition, as of the last [`Self::position`].
    fn timestamps_ms(&self) -> BTreeMap<i32, i64>;

    /// The key changes that the table notes for what comes late of their rows, as of the last time that it was read.
    fn moves(&self) -> Moves;

    /// Merges `batch` by key, creating the table or adding columns where the batch's schema asks for it.
    async fn merge(&mut self, batch: &Batch) -> Result<Merged>;
}
