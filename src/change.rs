//! Changes: what a record does to one row, and the collapsed, decoded batch that a sink merges.

use arrow::array::RecordBatch;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

use crate::key::Key;
use crate::position::OffsetRange;
use crate::schema::TableSchema;

/// Debezium's operation (its `Envelope.Operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `c`: a row was inserted.
    Create,
    /// `r`: a row was read by the initial snapshot or a later one.
    Read,
    /// `u`: a row was updated.
    Update,
    /// `d`, or a tombstone: a row was deleted.
    Delete,
    /// `t`: a table was emptied.
    Truncate,
    /// `m`: a message in the log, no row.
    Message,
}

impl Operation {
    /// The operation of Debezium's code; codes are compared without case, as Debezium does.
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "c" | "C" => Self::Create,
            "r" | "R" => Self::Read,
            "u" | "U" => Self::Update,
            "d" | "D" => Self::Delete,
            "t" | "T" => Self::Truncate,
            "m" | "M" => Self::Message,
            _ => return None,
        })
    }

    /// Debezium's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Read => "r",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Truncate => "t",
            Self::Message => "m",
        }
    }
}

/// A value that the record did not carry (Debezium's unavailable-value placeholder): it is the value that the row
/// `from` has in the table at the start of the batch. Of several holes for one value the last counts whose row is in
/// the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Index of the row in [`Batch::rows`].
    pub row: usize,
    /// Index of the column in [`Batch::schema`].
    pub column: usize,
    /// The key of the row that has the value: the row's own, or the old one when the change moved the key.
    pub from: Key,
    /// True when the value in [`Batch::rows`] is the right one if the table has no row `from`; else it is null there.
    pub supplied: bool,
}

/// What becomes of a change that leaves out a value when the row that has it is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MissingValue {
    /// The value is null, counted and warned of.
    #[default]
    Null,
    /// Its record goes to the dead letters.
    DeadLetter,
    /// The table halts.
    Halt,
}

/// What becomes of a record that empties the table at the source (TRUNCATE).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Truncates {
    /// It empties the table when its topic has one partition. With several it has no order among the rows of the
    /// others: the table halts.
    #[default]
    Apply,
    /// It is passed over, and counted.
    Ignore,
    /// The table halts.
    Halt,
}

/// Changes of one table, collapsed to one per key and decoded into columns.
///
/// Keys are unique over `keys` and `deletes` together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Identifies the batch in the table's log; stays the same over retries.
    pub id: Uuid,
    /// The stretches of the topic's partitions that the batch covers, one per partition.
    pub ranges: Vec<OffsetRange>,
    /// The schema that `rows` has and the table shall have.
    pub schema: Arc<TableSchema>,
    /// True when the table is emptied first.
    pub truncates: bool,
    /// The new versions of rows, all columns of `schema` in its order.
    pub rows: RecordBatch,
    /// The key of each row of `rows`.
    pub keys: Vec<Key>,
    /// Keys whose row is deleted.
    pub deletes: Vec<Key>,
    /// Values to take from the table.
    pub holes: Vec<Hole>,
    /// True when holes whose row is not in the table must not become null: the batch is not merged then
    /// ([`crate::sink::Merged::Missing`]).
    pub strict: bool,
    /// Values that changes left out and whose row is nowhere, known before the table was asked: null in `rows`.
    pub missing: usize,
    /// When the source committed the newest change, microseconds since the epoch.
    pub newest_source_micros: Option<i64>,
}

impl Batch {
    /// True when it changes no row.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.deletes.is_empty() && !self.truncates
    }

    /// The holes whose value is nowhere: `found` tells for each hole whether the table has its row.
    pub fn unfilled(&self, found: impl IntoIterator<Item = bool>) -> Vec<&Hole> {
        let mut filled = HashSet::new();
        let mut open = Vec::new();
        for (hole, found) in self.holes.iter().zip(found) {
            if found || hole.supplied {
                filled.insert((hole.row, hole.column));
            } else {
                open.push(hole);
            }
        }
        open.retain(|hole| !filled.contains(&(hole.row, hole.column)));
        open
    }
}
