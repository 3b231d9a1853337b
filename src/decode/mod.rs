//! Decoding in two stages: a record is scanned once for what the path needs at once (operation, key, source time,
//! writer schema, where its row is), and its columns are decoded only when its batch is written, if it survived.

use std::fmt;

use crate::change::Operation;
use crate::key::Key;

/// A writer schema known to a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriterId(pub u32);

/// Where a row's after-image lies in its record's value, and which schema it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRef {
    /// The schema that wrote it.
    pub writer: WriterId,
    /// Offset of its first byte in the record's value.
    pub start: u32,
    /// Offset after its last byte.
    pub end: u32,
}

/// A record's change of one row, its columns not decoded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What happened: create, read, update or delete.
    pub operation: Operation,
    /// The row's key.
    pub key: Key,
    /// The row; none for a delete.
    pub row: Option<RowRef>,
    /// The key the row had before, when this is the second half of a key change (`__debezium.oldkey`).
    pub old_key: Option<Key>,
    /// When the source committed, microseconds since the epoch.
    pub source_micros: Option<i64>,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// A change of a row. A tombstone is a delete.
    Change(Change),
    /// Nothing for a table: a heartbeat and the like.
    Skipped(Skip),
}

/// Records that are recognised and passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// A connector's heartbeat.
    Heartbeat,
    /// A transaction boundary.
    Transaction,
    /// A schema-change record.
    SchemaChange,
    /// A notification.
    Notification,
    /// A logical decoding message.
    Message,
    /// A tombstone without a key.
    KeylessTombstone,
}

/// Why a record is no change: what goes with it to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// A stable word for metrics and headers.
    pub reason: &'static str,
    /// A sentence without the record's values: field, what was expected, what was found.
    pub message: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Reject {}
