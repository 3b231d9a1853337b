//! Rows without an envelope, as Debezium's `ExtractNewRecordState` leaves them: what its added fields and headers say.
//!
//! Such a record is told from a foreign one by what only a flattened row has: a schema named `….Value` (Debezium's name
//! for a row), an added field, or a key that the row itself holds with the same values. A schema of another name, or
//! none, proves nothing.

use super::envelope::{operation, wrapped};
use super::json::Cursor;
use super::key::scalar;
use super::types::Raw;
use super::{Operation, Reject};
use crate::record::Record;

/// The field of the rewrite modes, whatever the prefix.
const DELETED: &str = "__deleted";

/// Fields of the envelope that can be added, by their own names.
const OF_ENVELOPE: [&str; 4] = ["op", "ts_ms", "ts_us", "ts_ns"];
/// Fields of a source block, over all connectors.
const OF_SOURCE: [&str; 36] = [
    "version",
    "connector",
    "name",
    "ts_ms",
    "ts_us",
    "ts_ns",
    "snapshot",
    "db",
    "sequence",
    "schema",
    "table",
    "collection",
    "keyspace_name",
    "txId",
    "lsn",
    "xmin",
    "origin",
    "origin_lsn",
    "server_id",
    "gtid",
    "file",
    "pos",
    "row",
    "thread",
    "query",
    "scn",
    "commit_scn",
    "lcr_position",
    "rs_id",
    "ssn",
    "redo_thread",
    "user_name",
    "change_lsn",
    "commit_lsn",
    "event_serial_no",
    "ord",
];
/// Fields of a transaction block.
const OF_TRANSACTION: [&str; 3] = ["id", "total_order", "data_collection_order"];

/// What an added field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// That the row is gone.
    Deleted,
    /// The operation's code.
    Operation,
    /// When the source committed.
    SourceTime(Precision),
    /// What the table does not need.
    Other,
}

/// The unit of a source time, coarse to fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Precision {
    Millis,
    Micros,
    Nanos,
}

/// The names that the transformation gives to what it adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddedNames {
    prefix: String,
}

impl AddedNames {
    /// Names with a prefix (`add.fields.prefix`, `add.headers.prefix`). An empty one tells nothing from a column.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What the field says; none for a column of the source.
    pub(super) fn of(&self, name: &str) -> Option<Added> {
        if name == DELETED {
            return Some(Added::Deleted);
        }
        let name = name.strip_prefix(&self.prefix).filter(|_| !self.prefix.is_empty())?;
        match name {
            "op" => return Some(Added::Operation),
            "source_ts_ms" => return Some(Added::SourceTime(Precision::Millis)),
            "source_ts_us" => return Some(Added::SourceTime(Precision::Micros)),
            "source_ts_ns" => return Some(Added::SourceTime(Precision::Nanos)),
            _ => {}
        }
        let known = match (name.strip_prefix("source_"), name.strip_prefix("transaction_")) {
            (Some(name), _) => OF_SOURCE.contains(&name),
            (_, Some(name)) => OF_TRANSACTION.contains(&name),
            _ => OF_ENVELOPE.contains(&name) || OF_SOURCE.contains(&name),
        };
        known.then_some(Added::Other)
    }

    /// The operation in a record's headers (`add.headers=op`), in any form that Connect's converters give it.
    pub(super) fn operation_header<'a>(&self, record: &Record<'a>) -> Option<&'a str> {
        let is_operation =
            |name: &str| !self.prefix.is_empty() && name.strip_prefix(&self.prefix) == Some("op");
        let (_, value) = record.headers().find(|(name, _)| is_operation(name))?;
        let value = value?;
        let value = match wrapped(value) {
            Ok(Some((_, payload))) => value.get(payload)?,
            _ => value,
        };
        let text = value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
        std::str::from_utf8(text.unwrap_or(value)).ok()
    }
}

/// What the added fields of one row say together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    /// True with any field of the transformation.
    pub(super) any: bool,
    /// True for a row that is gone.
    pub(super) deleted: bool,
    operation: Option<Operation>,
    /// When the source committed, microseconds since the epoch.
    pub(super) source_micros: Option<i64>,
    precision: Option<Precision>,
}

impl Notes {
    /// Reads the row at the cursor, an object, for what was added to it.
    pub(super) fn read(cursor: &mut Cursor<'_>, names: &AddedNames) -> Result<Self, Reject> {
        let mut notes = Self::default();
        let mut more = cursor.open_object()?;
        while more {
            let name = cursor.name()?;
            let added = std::str::from_utf8(name.raw).ok().and_then(|name| names.of(name));
            match added {
                Some(added) if !matches!(cursor.peek()?, b'{' | b'[') => {
                    notes.take(added, scalar(cursor)?.as_raw())?;
                }
                _ => {
                    cursor.skip()?;
                }
            }
            more = cursor.next_field()?;
        }
        Ok(notes)
    }

    /// Takes in the value of an added field. `__deleted` is text in Debezium, a boolean after some transformations.
    pub(super) fn take(&mut self, added: Added, value: Raw<'_>) -> Result<(), Reject> {
        self.any = true;
        match (added, value) {
            (Added::Deleted, Raw::Boolean(deleted)) => self.deleted = deleted,
            (Added::Deleted, Raw::Text(text)) => self.deleted = text.eq_ignore_ascii_case("true"),
            (Added::Operation, Raw::Text(code)) => self.operation = Some(operation(code)?),
            (Added::SourceTime(precision), Raw::Integer(time))
                if self.precision.is_none_or(|known| known < precision) =>
            {
                self.precision = Some(precision);
                self.source_micros = match precision {
                    Precision::Millis => time.checked_mul(1000),
                    Precision::Micros => Some(time),
                    Precision::Nanos => Some(time.div_euclid(1000)),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// The operation; an update when nothing tells, as that is what a row without more may be.
    pub(super) fn operation(&self, header: Option<&str>) -> Result<Operation, Reject> {
        if self.deleted {
            return Ok(Operation::Delete);
        }
        match (self.operation, header) {
            (Some(operation), _) => Ok(operation),
            (None, Some(code)) => operation(code),
            (None, None) => Ok(Operation::Update),
        }
    }
}
