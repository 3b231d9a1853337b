//! The first stage for JSON: the schema is compared and stepped over, the envelope's few fields are read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::json::{Cursor, Malformed, integer};
use super::writer::Kind;
use super::{Operation, Reject, Skip};

/// The place of a part in a record's bytes.
type Place = Range<usize>;

/// Most schemas of one topic that are kept by their bytes.
const MAX_SCHEMAS: usize = 256;

/// The part of an envelope that the first stage needs.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// The operation's code.
    pub(super) code: Option<Place>,
    /// The row before; none when null or absent.
    pub(super) before: Option<Place>,
    /// The row after; none when null or absent.
    pub(super) after: Option<Place>,
    /// The block that tells where in the source's log the change is.
    pub(super) source: Option<Place>,
    /// When the source committed, microseconds since the epoch.
    pub(super) source_micros: Option<i64>,
    /// Names seen, for telling what a record without a schema is.
    seen: u32,
}

macro_rules! seen {
    ($($name:ident = $bit:expr),* $(,)?) => { $(const $name: u32 = 1 << $bit;)* };
}

seen! {
    SOURCE = 0, TS = 1, STATUS = 2, ID = 3, EVENT_COUNT = 4, DATA_COLLECTIONS = 5, DDL = 6,
    TABLE_CHANGES = 7, AGGREGATE_TYPE = 8, TYPE = 9, OTHER = 10, OP = 11, SPEC_VERSION = 12,
}

impl Envelope {
    /// Reads the envelope at the cursor.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        let mut more = cursor.open_object()?;
        while more {
            let name = cursor.name()?;
            match name.raw {
                b"after" => envelope.after = once(envelope.after.is_some(), row(cursor)?)?,
                b"before" => envelope.before = once(envelope.before.is_some(), row(cursor)?)?,
                b"op" => {
                    let place = cursor.skip()?;
                    envelope.code = once(envelope.code.is_some(), Some(place))?;
                    envelope.seen |= OP;
                }
                b"source" => {
                    // A row's own column of that name is no block.
                    let block = cursor.peek()? == b'{';
                    let place = cursor.skip()?;
                    envelope.source_micros = source_micros(cursor.slice(place.clone()));
                    envelope.source = once(envelope.seen & SOURCE != 0, Some(place))?;
                    envelope.seen |= if block { SOURCE } else { OTHER };
                }
                other => {
                    envelope.seen |= bit(other);
                    cursor.skip()?;
                }
            }
            more = cursor.next_field()?;
        }
        Ok(envelope)
    }

    /// What a record without a schema is. Connect writes every field of a struct, so a look-alike row of a user
    /// must have all the names to be taken for one of Debezium's own records.
    pub(super) fn kind(&self) -> Kind {
        let has = |bits: u32| self.seen & bits == bits;
        if has(OP | SOURCE) {
            Kind::Envelope
        } else if has(STATUS | ID | EVENT_COUNT | DATA_COLLECTIONS) {
            Kind::Skipped(Skip::Transaction)
        } else if has(SOURCE | DDL | TABLE_CHANGES) {
            Kind::Skipped(Skip::SchemaChange)
        } else if has(AGGREGATE_TYPE | TYPE | ID) {
            Kind::Skipped(Skip::Notification)
        } else if self.seen == TS && self.after.is_none() && self.before.is_none() {
            Kind::Skipped(Skip::Heartbeat)
        } else if has(SPEC_VERSION) {
            Kind::Other
        } else {
            Kind::Row { named: false }
        }
    }

    /// The operation, read from the bytes the envelope is in.
    pub(super) fn operation(&self, bytes: &[u8]) -> Result<Operation, Reject> {
        let code = self.code.clone().and_then(|place| bytes.get(place)).unwrap_or_default();
        let code = code.strip_prefix(b"\"").and_then(|code| code.strip_suffix(b"\""));
        operation(code.and_then(|code| std::str::from_utf8(code).ok()).unwrap_or_default())
    }
}

/// The operation of a code.
pub(super) fn operation(code: &str) -> Result<Operation, Reject> {
    Operation::from_code(code).ok_or_else(|| {
        let known: String = code.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        Reject::new("unknown_operation", format!("operation {known:?} is none of c, r, u, d, t, m"))
    })
}

fn bit(name: &[u8]) -> u32 {
    match name {
        b"ts_ms" | b"ts_us" | b"ts_ns" => TS,
        b"status" => STATUS,
        b"id" => ID,
        b"event_count" => EVENT_COUNT,
        b"data_collections" => DATA_COLLECTIONS,
        b"ddl" => DDL,
        b"tableChanges" => TABLE_CHANGES,
        b"aggregate_type" => AGGREGATE_TYPE,
        b"type" => TYPE,
        b"specversion" => SPEC_VERSION,
        _ => OTHER,
    }
}

fn once(again: bool, value: Option<Place>) -> Result<Option<Place>, Malformed> {
    if again { Err(Malformed("a field of the envelope comes twice")) } else { Ok(value) }
}

#[inline]
fn row(cursor: &mut Cursor<'_>) -> Result<Option<Place>, Malformed> {
    Ok(if cursor.null()? { None } else { Some(cursor.skip()?) })
}

/// When the source committed: microseconds if they are in its block, else milliseconds.
#[inline]
fn source_micros(block: &[u8]) -> Option<i64> {
    let micros = number_of(block, &TS_US);
    micros.or_else(|| number_of(block, &TS_MS).and_then(|millis| millis.checked_mul(1000)))
}

static TS_US: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"ts_us\":"));
static TS_MS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"ts_ms\":"));

/// The integer of a field of `block`, an object, found by the field's name and its colon: no value of valid JSON holds
/// these bytes, its quotes would be escaped.
#[inline]
fn number_of(block: &[u8], name: &Finder<'_>) -> Option<i64> {
    let place = name.find(block)? + name.needle().len();
    integer(Cursor::new(block, place).scalar().ok()?)
}

/// Where a payload starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    /// Its first byte.
    pub(super) at: usize,
    /// The schema it comes with; none when it comes alone.
    pub(super) schema: Option<usize>,
    /// True when it is wrapped together with a schema, which may be null.
    pub(super) wrapped: bool,
}

/// Finds payloads, knowing schemas by their bytes: those of the last record, which are compared first, and earlier
/// ones.
#[derive(Debug, Default)]
pub(super) struct Unwrapper {
    /// The last record's bytes up to its payload.
    prefix: Vec<u8>,
    last: usize,
    known: HashMap<Box<[u8]>, usize>,
}

impl Unwrapper {
    /// Finds the payload of `bytes`; `learn` makes a number for a schema seen for the first time.
    pub(super) fn payload(
        &mut self,
        bytes: &[u8],
        learn: impl FnOnce(&[u8]) -> Result<usize, Reject>,
    ) -> Result<Payload, Reject> {
        if !self.prefix.is_empty() && bytes.starts_with(&self.prefix) {
            return Ok(Payload { at: self.prefix.len(), schema: Some(self.last), wrapped: true });
        }
        if is_bare(bytes) {
            return Ok(BARE);
        }
        let Some((schema, payload)) = wrapped(bytes)? else { return Ok(BARE) };
        let schema_bytes = bytes.get(schema.clone()).unwrap_or_default();
        if !schema_bytes.starts_with(b"{") && schema_bytes != b"null" {
            return Ok(BARE); // A row with these two columns.
        }
        if schema_bytes == b"null" {
            return Ok(Payload { at: payload.start, schema: None, wrapped: true });
        }
        let number = match self.known.get(schema_bytes) {
            Some(number) => *number,
            None => {
                let number = learn(schema_bytes)?;
                if self.known.len() >= MAX_SCHEMAS {
                    self.known.clear();
                }
                self.known.insert(schema_bytes.into(), number);
                number
            }
        };
        if schema.start < payload.start {
            self.prefix.clear();
            self.prefix.extend_from_slice(bytes.get(..payload.start).unwrap_or_default());
            self.last = number;
        }
        Ok(Payload { at: payload.start, schema: Some(number), wrapped: true })
    }

    /// Finds the payload of bytes that were met before.
    pub(super) fn find(&self, bytes: &[u8]) -> Result<Payload, Malformed> {
        let Some((schema, payload)) = wrapped(bytes)? else { return Ok(BARE) };
        let schema = bytes.get(schema).and_then(|schema| self.known.get(schema)).copied();
        Ok(Payload { at: payload.start, schema, wrapped: true })
    }
}

const BARE: Payload = Payload { at: 0, schema: None, wrapped: false };

/// True when the first field's name is plainly neither of the two of a wrapped payload.
fn is_bare(bytes: &[u8]) -> bool {
    let name = bytes.strip_prefix(b"{\"").unwrap_or_default();
    name.first().is_some_and(|first| !matches!(first, b's' | b'p' | b'\\'))
}

/// The places of schema and payload when `bytes` is an object of just these two.
pub(super) fn wrapped(bytes: &[u8]) -> Result<Option<(Place, Place)>, Malformed> {
    let mut cursor = Cursor::new(bytes, 0);
    if cursor.peek()? != b'{' || !cursor.open_object()? {
        return Ok(None);
    }
    let (mut schema, mut payload) = (None, None);
    loop {
        match cursor.name()?.raw {
            b"schema" if schema.is_none() => schema = Some(cursor.skip()?),
            b"payload" if payload.is_none() => payload = Some(cursor.skip()?),
            _ => return Ok(None),
        }
        if !cursor.next_field()? {
            return Ok(schema.zip(payload));
        }
    }
}

/// Checks that nothing follows the payload but the end of what wraps it.
pub(super) fn end(mut cursor: Cursor<'_>, payload: Payload) -> Result<(), Malformed> {
    if payload.wrapped {
        while cursor.next_field()? {
            cursor.name()?;
            cursor.skip()?;
        }
    }
    cursor.finish()
}
