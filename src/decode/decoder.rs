//! The decoder of one topic: both stages, and the schema that its rows need.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::avro;
use super::envelope::{Envelope, Payload, Unwrapper, end, operation};
use super::flattened::{AddedNames, Notes};
use super::json::Cursor;
use super::key::{KeyForms, KeyPlan};
use super::placeholder::Placeholder;
use super::registry::Registry;
use super::rows::{Filler, Route, json_row};
use super::writer::{Kind, Layout, Writer};
use super::{
    Change, Columns, Moved, Operation, Options, Reject, Row, RowRef, ScanError, Scanned, SchemaId,
    Skip, WriterId,
};
use crate::change::{Keyless, SnapshotRecord};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::schema::TableSchema;

mod describe;
mod drops;
mod keyless;
mod keys;
mod origin;
mod outbox;
mod rename;
mod table;
mod trace;

pub use describe::SourceColumn;
use keyless::{appended, matched};
use keys::{NEW_KEY, OLD_KEY, no_key};
pub use origin::SourceTable;
use rename::Fate;
use trace::Trace;

/// How the topic of Debezium's signalling table ends, if the table has its usual name. Its rows tell the connector what to
/// do, and the connector marks its incremental snapshots in it.
const SIGNALS: &str = ".debezium_signal";

/// The number of the writer of JSON without a schema, of rows and of keys.
const UNTOLD: usize = 0;
/// The number of the writer of rows in JSON without an envelope and without a schema.
const UNTOLD_ROW: usize = 1;

/// Decodes the records of one topic, which feeds one table.
#[derive(Debug)]
pub struct Decoder {
    options: Options,
    registry: Option<Arc<Registry>>,
    placeholder: Placeholder,
    added: AddedNames,
    schema: Option<Arc<TableSchema>>,
    /// Writers whose columns `schema` has.
    covered: HashSet<WriterId>,
    writers: Vec<Writer>,
    values: Unwrapper,
    /// For an outbox's events, which have other schemas than rows.
    events: Unwrapper,
    key_writers: Vec<Writer>,
    keys: Unwrapper,
    /// The key's columns, as the table has them or the first key did.
    key: Option<KeyPlan>,
    /// Whether changes have keys: settled by the table's schema, before there is one by the first change.
    keyed: Option<bool>,
    /// The table turned out to have a key when changes had none, or the reverse.
    torn: bool,
    /// How each key writer writes the columns of `key`, as far as known.
    key_forms: Vec<Option<KeyForms>>,
    avro: HashMap<SchemaId, Fetched>,
    /// What becomes of columns that the source renames or drops.
    fate: Fate,
    /// Of a topic with flattened rows: whether tombstones are the only deletes. Else they follow a delete.
    tombstones_are_deletes: Option<bool>,
    trace: Trace,
}

/// A schema of the registry, and the writers made from it.
#[derive(Debug)]
struct Fetched {
    schema: Arc<avro::Schema>,
    value: Option<usize>,
    event: Option<usize>,
    key: Option<usize>,
    /// It is the schema of envelopes of a table that the topic is not named after.
    named_otherwise: bool,
}

/// What the first stage reads of an envelope, whatever its encoding.
#[derive(Debug)]
struct Heading {
    operation: Operation,
    before: Option<Range<usize>>,
    after: Option<Range<usize>>,
    source: Option<Range<usize>>,
    source_micros: Option<i64>,
    /// True for a row without an envelope, of which an update may be a create that nothing tells.
    flattened: bool,
}

impl Decoder {
    /// A decoder for a table with `schema`, or for one that does not exist yet.
    pub fn new(
        options: Options,
        registry: Option<Arc<Registry>>,
        schema: Option<Arc<TableSchema>>,
    ) -> Self {
        let mut decoder = Self {
            placeholder: Placeholder::new(&options.placeholder),
            added: AddedNames::new(&options.added_prefix),
            trace: Trace::new(options.source_position),
            options,
            registry,
            schema: None,
            covered: HashSet::new(),
            // In the order of `UNTOLD` and `UNTOLD_ROW`.
            writers: vec![Writer::untold(), Writer::untold()],
            values: Unwrapper::default(),
            events: Unwrapper::default(),
            key_writers: vec![Writer::untold()],
            keys: Unwrapper::default(),
            key: None,
            keyed: None,
            torn: false,
            key_forms: Vec::new(),
            avro: HashMap::new(),
            fate: Fate::default(),
            tombstones_are_deletes: None,
        };
        schema.into_iter().for_each(|schema| decoder.set_schema(schema));
        decoder
    }

    /// The table's schema as committed: at the start, and after each commit that changes it.
    pub fn set_schema(&mut self, schema: Arc<TableSchema>) {
        self.key = KeyPlan::of_table(&schema, &self.options);
        let keyed = !schema.key().is_empty();
        self.torn |= self.keyed.is_some_and(|before| before != keyed);
        self.keyed = Some(keyed);
        self.key_forms.clear();
        self.covered.clear();
        self.fate.begin_anew();
        self.trace.take_schema(&schema);
        self.schema = Some(schema);
    }

    /// True when changes are of rows that equal the row before, as the table has no key.
    pub fn matches_rows(&self) -> bool {
        self.keyed == Some(false) && self.options.keyless == Keyless::Match
    }

    /// The first stage: what the record is, and for a change its operation, key and where its row lies.
    pub fn scan(&mut self, record: &Record<'_>) -> Result<Scanned, ScanError> {
        if record.topic.ends_with(SIGNALS) {
            return Ok(Scanned::Skipped(Skip::Signal));
        }
        if self.options.outbox.is_some() {
            self.scan_outbox(record)
        } else {
            self.scan_record(record)
        }
    }

    fn scan_record(&mut self, record: &Record<'_>) -> Result<Scanned, ScanError> {
        let Some(value) = record.value else { return self.tombstone(record) };
        match framed(value)? {
            Some((id, at)) => self.scan_avro(record, value, id, at),
            None => self.scan_json(record, value),
        }
    }

    fn scan_json(&mut self, record: &Record<'_>, value: &[u8]) -> Result<Scanned, ScanError> {
        let (writers, added) = (&mut self.writers, &self.added);
        let payload = self
            .values
            .payload(value, |schema| Ok(learn(writers, Writer::of_value(schema, added)?)))?;
        let mut cursor = Cursor::new(value, payload.at);
        if cursor.null()? {
            end(cursor, payload)?;
            return self.tombstone(record);
        }
        let writer = payload.schema.unwrap_or(UNTOLD);
        let told = self.writers.get(writer).map_or(Kind::Untold, |writer| writer.kind);
        if let Kind::Skipped(skip) = told {
            return Ok(Scanned::Skipped(skip));
        }
        if matches!(told, Kind::Event | Kind::Other) || cursor.peek()? != b'{' {
            return Err(foreign().into());
        }
        if let Kind::Row { named } = told {
            return self.scan_row(record, value, writer, (payload, named));
        }
        let (envelope, row) = (Envelope::read(&mut cursor)?, payload.at);
        end(cursor, payload)?;
        match if told == Kind::Untold { envelope.kind() } else { told } {
            // A row of this one column has it for its key; a heartbeat's key is another.
            Kind::Skipped(Skip::Heartbeat) if self.holds_its_key(record, value, writer, row)? => {
                return self.scan_row(record, value, writer, (payload, false));
            }
            Kind::Skipped(skip) => return Ok(Scanned::Skipped(skip)),
            Kind::Envelope => {}
            Kind::Row { named } => {
                return self.scan_row(record, value, writer, (payload, named));
            }
            Kind::Untold | Kind::Event | Kind::Other => return Err(foreign().into()),
        }
        let operation = envelope.operation(value)?;
        let object = |place: &Range<usize>| value.get(place.start) == Some(&b'{');
        let Envelope { before, after, source, source_micros, .. } = envelope;
        let (before, after) = (before.filter(object), after.filter(object));
        let flattened = false;
        let heading = Heading { operation, before, after, source, source_micros, flattened };
        self.change(record, value, writer, &heading)
    }

    fn scan_avro(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        id: SchemaId,
        at: usize,
    ) -> Result<Scanned, ScanError> {
        let number = self.avro_value(id, record.topic)?;
        let Some(writer) = self.writers.get(number) else { return Err(foreign().into()) };
        let (named, layout) = match (writer.kind, &writer.layout) {
            (Kind::Skipped(skip), _) => return Ok(Scanned::Skipped(skip)),
            (Kind::Envelope, Layout::AvroRow(layout)) => (None, layout),
            (Kind::Row { named }, Layout::AvroRow(layout)) => (Some(named), layout),
            _ => return Err(foreign().into()),
        };
        let Some(head) = layout.plan().read(value, at)? else { return self.tombstone(record) };
        if let (Some(named), Some(row)) = (named, head.after.clone()) {
            let notes = head.notes;
            return self.flattened(record, value, number, (row, notes, named));
        }
        let heading = Heading {
            operation: operation(head.code.unwrap_or_default())?,
            before: head.before,
            after: head.after,
            source: head.source,
            source_micros: head.source_micros,
            flattened: false,
        };
        self.check_name(id, value, number, &heading)?;
        self.change(record, value, number, &heading)
    }

    /// A row in JSON without an envelope, or a foreign record.
    fn scan_row(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        writer: usize,
        (payload, named): (Payload, bool),
    ) -> Result<Scanned, ScanError> {
        let mut cursor = Cursor::new(value, payload.at);
        let row = Cursor::new(value, payload.at).skip()?;
        let notes = Notes::read(&mut cursor, &self.added)?;
        end(cursor, payload)?;
        let writer = if writer == UNTOLD { UNTOLD_ROW } else { writer };
        self.flattened(record, value, writer, (row, notes, named))
    }

    /// The change that a flattened row is, when it is one.
    fn flattened(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        writer: usize,
        (row, notes, named): (Range<usize>, Notes, bool),
    ) -> Result<Scanned, ScanError> {
        let header = self.added.operation_header(record);
        let told = named || notes.any || header.is_some();
        if !told && !self.holds_its_key(record, value, writer, row.start)? {
            return Err(foreign().into());
        }
        let operation = notes.operation(header)?;
        let row = Some(row);
        let (before, after) = match operation {
            Operation::Delete => (row, None),
            _ => (None, row),
        };
        let source_micros = notes.source_micros;
        if operation == Operation::Delete {
            self.tombstones_are_deletes = Some(false);
        } else {
            self.tombstones_are_deletes.get_or_insert(true);
        }
        let (source, flattened) = (None, true);
        let heading = Heading { operation, before, after, source, source_micros, flattened };
        self.change(record, value, writer, &heading)
    }

    fn tombstone(&mut self, record: &Record<'_>) -> Result<Scanned, ScanError> {
        let key = match record.key {
            Some(key) if self.keyed != Some(false) && !self.options.key_in_rows => {
                self.record_key(key)?
            }
            _ => None,
        };
        let Some(key) = key else { return Ok(Scanned::Skipped(Skip::KeylessTombstone)) };
        let other = match self.tombstones_are_deletes {
            Some(true) => self.header_key(record, NEW_KEY)?,
            Some(false) | None => None,
        };
        let moved = other.map(|other| Moved { other, source: None });
        Ok(Scanned::Change(Change {
            operation: Operation::Delete,
            key,
            row: None,
            before: None,
            moved,
            source_micros: None,
            snapshot: SnapshotRecord::None,
        }))
    }

    fn change(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        writer: usize,
        heading: &Heading,
    ) -> Result<Scanned, ScanError> {
        let operation = heading.operation;
        let of_row = !matches!(operation, Operation::Message | Operation::Truncate);
        if of_row && !self.is_keyed(record)? {
            return Ok(Scanned::Change(match self.options.keyless {
                Keyless::Append => appended(record, writer, heading)?,
                Keyless::Match => matched(record, writer, heading)?,
            }));
        }
        let row = match operation {
            Operation::Message => return Ok(Scanned::Skipped(Skip::Message)),
            Operation::Truncate => {
                let alone = self.is_alone(record.topic, value, writer, heading);
                return Ok(truncate(heading, alone)?);
            }
            Operation::Delete => None,
            Operation::Create | Operation::Read | Operation::Update => {
                Some(row_ref(writer, heading.after.as_ref())?)
            }
        };
        let key = match record.key {
            Some(key) if !self.options.key_in_rows => self.record_key(key)?,
            _ => None,
        };
        let key = match key {
            Some(key) => key,
            None => self.image_key(value, writer, heading)?,
        };
        let other = match operation {
            Operation::Create => self.header_key(record, OLD_KEY)?,
            Operation::Update if heading.flattened => self.header_key(record, OLD_KEY)?,
            Operation::Delete => self.header_key(record, NEW_KEY)?,
            _ => None,
        };
        let source = || heading.source.clone().and_then(|place| value.get(place));
        let moved = other.map(|other| Moved { other, source: source().map(digest) });
        let snapshot = self.snapshot_record(record.topic, value, writer, heading);
        let (before, source_micros) = (None, heading.source_micros);
        Ok(Scanned::Change(Change { operation, key, row, before, moved, source_micros, snapshot }))
    }

    /// False when the table has no key. A table that does not exist yet gets one when its first change has.
    fn is_keyed(&mut self, record: &Record<'_>) -> Result<bool, ScanError> {
        if let Some(keyed) = self.keyed {
            return Ok(keyed);
        }
        let keyed = match record.key {
            _ if !self.options.declared_key.is_empty() => true,
            Some(key) => self.record_key(key)?.is_some(),
            None => false,
        };
        self.keyed = Some(keyed);
        Ok(keyed)
    }

    /// Fetches the schema that a record needs, and keeps it.
    ///
    /// Fails with [`crate::error::Kind::Unavailable`] when the registry does not answer, with
    /// [`crate::error::Kind::Data`] when it answers that there is no such schema or the schema cannot be used.
    pub async fn fetch_schema(&mut self, id: SchemaId) -> Result<()> {
        let registry = self.registry.as_ref().ok_or_else(|| {
            Error::invalid(format!("a record was written with schema {id} of a registry"))
                .hint("give the registry's address")
        })?;
        let text = registry.get(id).await?;
        let schema = avro::Schema::parse(&text.schema, &text.references).map_err(|error| {
            Error::data(format!("schema {id} of the registry cannot be read: {error}"))
        })?;
        let fetched = Fetched {
            schema: Arc::new(schema),
            value: None,
            event: None,
            key: None,
            named_otherwise: false,
        };
        self.avro.entry(id).or_insert(fetched);
        Ok(())
    }

    /// The writer of values of a schema.
    fn avro_value(&mut self, id: SchemaId, topic: &str) -> Result<usize, ScanError> {
        let fetched = self.avro.get(&id).ok_or(ScanError::NeedsSchema(id))?;
        if let Some(known) = fetched.value {
            return Ok(known);
        }
        let named_otherwise = self.is_named_otherwise(fetched.schema.name(), topic);
        let writer = Writer::of_avro_value(&fetched.schema, &self.added);
        let number = learn(&mut self.writers, writer);
        if let Some(fetched) = self.avro.get_mut(&id) {
            (fetched.value, fetched.named_otherwise) = (Some(number), named_otherwise);
        }
        Ok(number)
    }

    /// The writer of keys of a schema.
    fn avro_key(&mut self, id: SchemaId) -> Result<usize, ScanError> {
        let fetched = self.avro.get_mut(&id).ok_or(ScanError::NeedsSchema(id))?;
        let (schema, writers) = (&fetched.schema, &mut self.key_writers);
        Ok(*fetched.key.get_or_insert_with(|| learn(writers, Writer::of_avro_key(schema))))
    }

    fn writer(&self, id: WriterId) -> Result<&Writer> {
        self.writers
            .get(id.number())
            .ok_or_else(|| Error::internal("a row of a writer that is not known"))
    }

    /// The second stage: the columns of `rows`, as `schema` has them; all that the rows have is in it
    /// ([`Self::table_schema`]).
    pub fn columns(&mut self, rows: &[Row<'_>], schema: &TableSchema) -> Result<Columns> {
        self.decode(rows, schema, false)
    }

    /// The same of rows that supply single values to others, which `schema` was made for.
    pub fn supplies(&mut self, rows: &[Row<'_>], schema: &TableSchema) -> Result<Columns> {
        self.decode(rows, schema, true)
    }

    fn decode(
        &mut self,
        rows: &[Row<'_>],
        schema: &TableSchema,
        supplies: bool,
    ) -> Result<Columns> {
        let bytes: usize = rows.iter().map(|row| row.bytes.len()).sum();
        if i32::try_from(bytes).is_err() {
            return Err(Error::internal("more than 2 GiB of rows to decode at once"));
        }
        let mut filler = Filler::new(schema, &self.options, &self.placeholder, rows.len());
        let mut routes: Vec<(WriterId, Route)> = Vec::new();
        let mut at = 0;
        for (index, row) in rows.iter().enumerate() {
            if routes.get(at).is_none_or(|(id, _)| *id != row.writer) {
                at = match routes.iter().position(|(id, _)| *id == row.writer) {
                    Some(known) => known,
                    None => {
                        routes.push((row.writer, self.route(row.writer, schema, supplies)?));
                        routes.len() - 1
                    }
                };
            }
            let Some((_, route)) = routes.get(at) else { continue };
            let Writer { kind, layout, .. } = self.writer(row.writer)?;
            let outcome = match layout {
                layout if *kind == Kind::Event => {
                    self.event_row(&mut filler, index, row, (layout, route), schema)
                }
                Layout::AvroRow(layout) => layout.read(&mut filler, index, row, route),
                _ => json_row(&mut filler, index, row, route),
            };
            let outcome = outcome.and_then(|()| self.fill_key(&mut filler, index, row, schema));
            filler.end_row(index, row, outcome);
        }
        filler.finish()
    }

    fn route(&self, id: WriterId, schema: &TableSchema, supplies: bool) -> Result<Route> {
        if is_untold(id.number()) {
            let added = (id.number() == UNTOLD_ROW).then(|| self.added.clone());
            return Ok(Route { added, ..Route::of_table(schema, &self.options) });
        }
        Route::of_writer(self.writer(id)?, schema, &self.options, supplies)
    }
}

/// True for the writers of rows in JSON without a schema.
fn is_untold(writer: usize) -> bool {
    writer <= UNTOLD_ROW
}

fn narrow(place: usize) -> Result<u32, Reject> {
    u32::try_from(place).map_err(|_| Reject::new("too_large", "a record of more than 4 GiB"))
}

/// The schema and the body of bytes that are framed: a zero byte and the schema's number, as Confluent's converters
/// write it, or Apicurio's older ones, whose number has eight bytes. No number is zero.
pub(super) fn framed(bytes: &[u8]) -> Result<Option<(SchemaId, usize)>, Reject> {
    match bytes {
        [0, 0, 0, 0, 0, a, b, c, d, ..] => {
            Ok(Some((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), 9)))
        }
        [0, a, b, c, d, ..] => Ok(Some((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), 5))),
        [0 | 1, ..] => Err(Reject::new(
            "unsupported_framing",
            "neither JSON nor framed with a schema's number",
        )),
        _ => Ok(None),
    }
}

fn digest(source: &[u8]) -> u64 {
    let mut hash = [0; 8];
    blake3::Hasher::new().update(source).finalize_xof().fill(&mut hash);
    u64::from_le_bytes(hash)
}

/// The number of an equal writer, or of this one from now on.
fn learn(writers: &mut Vec<Writer>, writer: Writer) -> usize {
    match writers.iter().position(|known| *known == writer) {
        Some(known) => known,
        None => {
            writers.push(writer);
            writers.len() - 1
        }
    }
}

fn row_ref(writer: usize, row: Option<&Range<usize>>) -> Result<RowRef, Reject> {
    let row = row.ok_or_else(|| Reject::new("no_row", "the change has no row"))?;
    Ok(RowRef {
        writer: WriterId(narrow(writer)?),
        start: narrow(row.start)?,
        end: narrow(row.end)?,
    })
}

fn foreign() -> Reject {
    Reject::new(
        "not_an_envelope",
        "the record is no envelope of Debezium, and nothing tells that it is a flattened row (a schema named Value, an \
         added field such as __op, or its key among its columns)",
    )
}

/// A truncate has no row. What has the same code and a row is a range of deleted rows, which only Cassandra has.
fn truncate(heading: &Heading, alone: bool) -> Result<Scanned, Reject> {
    if heading.before.is_some() || heading.after.is_some() {
        return Err(Reject::new("unsupported_truncate", "a truncate with a row is not known"));
    }
    Ok(Scanned::Truncate { alone })
}

#[cfg(test)]
mod tests;
