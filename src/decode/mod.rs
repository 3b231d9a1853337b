//! Decoding in two stages: a record is scanned once for what the path needs at once (operation, key, source time,
//! writer schema, where its row is), and its columns are decoded only when its batch is written, if it survived.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::change::{Keyless, Operation, SnapshotRecord, Unconfirmed};
use crate::key::Key;
use crate::record::{Headers, Record};
use crate::schema::ColumnType;
use crate::source_position::SourcePosition;

mod avro;
mod cells;
mod decoder;
mod envelope;
mod evolve;
mod flattened;
mod history;
mod infer;
mod json;
mod key;
mod outbox;
mod placeholder;
mod registry;
mod rows;
mod types;
mod writer;

pub use decoder::{Decoder, SourceColumn, SourceTable};
pub use evolve::{Evolution, TypeConflict};
pub use history::SchemaHistory;
pub use outbox::Outbox;
pub use registry::{Auth, Registry};
pub use types::{
    Database, DeclaredType, Encoding, InvalidValue, Modes, SourceType, TypeRule, Unit, rules,
};

/// A writer schema known to a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriterId(pub u32);

impl WriterId {
    /// Its place among the decoder's writers.
    fn number(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

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
    /// The row; none for a delete, but for one that is itself a row in a table without a key.
    pub row: Option<RowRef>,
    /// The row before, where rows are matched by it ([`Keyless::Match`]).
    pub before: Option<RowRef>,
    /// The other half, when this is half of a key change.
    pub moved: Option<Moved>,
    /// When the source committed, microseconds since the epoch.
    pub source_micros: Option<i64>,
    /// Which of an initial snapshot's records it is, where rows that such a one does not have are deleted
    /// ([`Unconfirmed::Delete`]).
    pub snapshot: SnapshotRecord,
}

/// The other half of a key change. Debezium writes a change of a row's key as a delete of the old key (header
/// `__debezium.newkey`) and a create of the new one (header `__debezium.oldkey`); nothing orders the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The key of the other half: the new one for a delete, the old one for a create.
    pub other: Key,
    /// A digest of the envelope's `source` block, which is the same in both halves and in no other change; the same in
    /// every process. None where a record has no such block.
    pub source: Option<u64>,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// A change of a row. A tombstone is a delete.
    Change(Change),
    /// Nothing for a table: a heartbeat and the like.
    Skipped(Skip),
    /// Every row of the table was deleted; `alone` when the topic has the records of no other table.
    Truncate {
        /// False when the topic is not named after the table, or its keys tell tables apart.
        alone: bool,
    },
}

/// Records that are recognised and passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// A tombstone without a key, or of a table whose rows have another key or none.
    KeylessTombstone,
    /// A change or delete of an outbox's row, which takes no event back.
    OutboxRow,
    /// A row of Debezium's signalling table.
    Signal,
    /// A truncate that is to be passed over.
    Truncate,
}

impl Skip {
    /// The kind as metrics and `status` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Transaction => "transaction",
            Self::SchemaChange => "schema_change",
            Self::Notification => "notification",
            Self::Message => "message",
            Self::KeylessTombstone => "keyless_tombstone",
            Self::OutboxRow => "outbox_row",
            Self::Signal => "signal",
            Self::Truncate => "truncate",
        }
    }
}

/// Why a record is no change: what goes with it to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// A stable word for metrics and headers.
    pub reason: &'static str,
    /// A sentence without the record's values: field, what was expected, what was found.
    pub message: String,
}

impl Reject {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<json::Malformed> for Reject {
    fn from(malformed: json::Malformed) -> Self {
        Self::new("malformed_json", malformed.0)
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Reject {}

/// What decoding of one topic depends on besides its records.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The connector's `unavailable.value.placeholder`; nothing is one when it is empty.
    pub placeholder: String,
    /// The table's name, for metrics.
    pub table: Arc<str>,
    /// Columns are stored as [`ColumnType::for_delta`] has them.
    pub for_delta: bool,
    /// Types of columns: what JSON without a schema does not tell, or another than the schema's.
    pub declared: Vec<(String, DeclaredType)>,
    /// The key's columns, for records whose Kafka key is null or one bare value.
    pub declared_key: Vec<String>,
    /// The declared key is taken from rows whatever the Kafka key is.
    pub key_in_rows: bool,
    /// What the records of a table are that has no key and no declared one.
    pub keyless: Keyless,
    /// The prefix of fields and headers that Debezium's `ExtractNewRecordState` adds.
    pub added_prefix: String,
    /// What becomes of values that their column's type does not have.
    pub invalid: InvalidValue,
    /// The same for single columns.
    pub invalid_columns: Vec<(String, InvalidValue)>,
    /// Schemas of the registry may be named after other tables than their records are of.
    pub any_schema_name: bool,
    /// What happens when a column of the source gets another type.
    pub evolution: Evolution,
    /// The topic has events of an outbox.
    pub outbox: Option<Outbox>,
    /// Changes are traced from the first one on, whatever the topic's partitions ([`Decoder::is_tracing`]).
    pub source_position: bool,
    /// What becomes of rows that another initial snapshot does not have.
    pub unconfirmed: Unconfirmed,
}

impl Options {
    /// The declaration of a column.
    fn declared(&self, column: &str) -> Option<types::Mapped> {
        Some(self.adapt(self.declaration(column)?.map()))
    }

    fn declaration(&self, column: &str) -> Option<&DeclaredType> {
        self.declared.iter().find(|(name, _)| name == column).map(|(_, declared)| declared)
    }

    /// The column for what a writer's schema describes as `mapped`: as it is declared, and as this table's formats
    /// store it.
    fn told(&self, column: &str, mapped: &types::Mapped) -> Result<types::Mapped, Reject> {
        match self.declaration(column) {
            None => Ok(self.adapt(mapped.clone())),
            Some(declared) => declared.over(mapped).map(|mapped| self.adapt(mapped)).ok_or_else(|| {
                let ty = types::type_name(&mapped.ty);
                Reject::new(
                    "declared_type",
                    format!("column {column} is declared {declared}, which the topic's {ty} cannot be read as"),
                )
            }),
        }
    }

    /// The column as this table's formats store it.
    fn adapt(&self, mapped: types::Mapped) -> types::Mapped {
        let ty = if self.for_delta { mapped.ty.for_delta() } else { mapped.ty };
        types::Mapped { ty, ..mapped }
    }

    /// What becomes of a column's invalid values.
    pub fn invalid_value(&self, column: &str) -> InvalidValue {
        let own = self.invalid_columns.iter().find(|(name, _)| name == column);
        own.map_or(self.invalid, |(_, policy)| *policy)
    }

    /// How values of a table's column are written when no schema tells.
    fn form(&self, column: &str, ty: &ColumnType) -> Option<types::Form> {
        match self.declared(column) {
            Some(declared) => Some(declared.form),
            None => types::Form::of_column(ty),
        }
    }
}

/// The number under which a registry keeps a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a record was not scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanError {
    /// The record is no change and never will be: it goes to the dead letters.
    Reject(Reject),
    /// The record's schema must be fetched first ([`Decoder::fetch_schema`]); then it is scanned again.
    NeedsSchema(SchemaId),
    /// The key's columns are not the table's any more: rows cannot be told by them. The message says which.
    KeyChanged(String),
}

impl From<Reject> for ScanError {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl From<json::Malformed> for ScanError {
    fn from(malformed: json::Malformed) -> Self {
        Self::Reject(malformed.into())
    }
}

/// A row whose columns are to be decoded.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The row's bytes: the part of its record's value that [`RowRef`] says.
    pub bytes: &'a [u8],
    /// The schema that wrote it.
    pub writer: WriterId,
    /// What happened: create, read or update.
    pub operation: Operation,
    /// True when the change moved the row's key (there is [`Change::moved`]).
    pub moved: bool,
    /// The record's key, for key columns that the row does not have.
    pub key: Option<&'a [u8]>,
    /// The record's headers, for columns of an outbox's events.
    pub headers: Headers<'a>,
    /// When the source committed, microseconds since the epoch.
    pub source_micros: Option<i64>,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Where the change comes from, in a table that is traced.
    pub source_position: Option<&'a SourcePosition>,
}

impl<'a> Row<'a> {
    /// The row of a record's change, not traced; none for a delete.
    pub fn of(record: Record<'a>, change: &Change) -> Option<Self> {
        Self::at(change.row?, record, change)
    }

    /// The row before a record's change; none where rows are not matched by it.
    pub fn before(record: Record<'a>, change: &Change) -> Option<Self> {
        Self::at(change.before?, record, change)
    }

    fn at(at: RowRef, record: Record<'a>, change: &Change) -> Option<Self> {
        let (start, end) = (usize::try_from(at.start).ok()?, usize::try_from(at.end).ok()?);
        Some(Self {
            bytes: record.value.unwrap_or_default().get(start..end)?,
            writer: at.writer,
            operation: change.operation,
            moved: change.moved.is_some(),
            key: record.key,
            headers: record.headers(),
            source_micros: change.source_micros,
            partition: record.partition,
            offset: record.offset,
            source_position: None,
        })
    }
}

/// Decoded rows, one for each row that was given.
#[derive(Debug, Clone)]
pub struct Columns {
    /// All columns of the table's schema, metadata columns included.
    pub rows: RecordBatch,
    /// Row and column of every value that the source did not send because it did not change; null in `rows`.
    pub unavailable: Vec<(usize, usize)>,
    /// Rows that cannot be stored, and why. What `rows` has for them means nothing.
    pub rejects: Vec<(usize, Reject)>,
}
