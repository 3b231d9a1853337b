//! Both stages of an outbox's events.

use std::borrow::Cow;
use std::ops::Range;

use super::{Decoder, framed, learn, no_key, row_ref};
use crate::change::SnapshotRecord;
use crate::decode::avro;
use crate::decode::envelope::{Payload, end};
use crate::decode::json::Cursor;
use crate::decode::key::{KeyPlan, Scalar};
use crate::decode::outbox::{self, AGGREGATE_ID, EVENT_ID, PAYLOAD, json_string};
use crate::decode::rows::{Filler, Route, RouteField, Target, homeless, json_cell, json_row};
use crate::decode::types::{ConnectType, DeclaredType, Form, Mapped, Raw};
use crate::decode::writer::{Layout, Writer};
use crate::decode::{Change, Operation, Reject, Row, RowRef, ScanError, Scanned, SchemaId, Skip};
use crate::record::Record;
use crate::schema::{ColumnType, TableSchema};

impl Decoder {
    /// The first stage for a topic with events of an outbox. A record without an event's id is one of the outbox's own
    /// rows, as the connector captured it: what was inserted is an event, whatever becomes of the row.
    pub(super) fn scan_outbox(&mut self, record: &Record<'_>) -> Result<Scanned, ScanError> {
        if let Some(id) = outbox::event_id(record.headers()) {
            return self.event(record, id);
        }
        let inserted =
            |change: &Change| matches!(change.operation, Operation::Create | Operation::Read);
        match self.scan_record(record) {
            Ok(Scanned::Change(change)) if !inserted(&change) => {
                Ok(Scanned::Skipped(Skip::OutboxRow))
            }
            Ok(Scanned::Truncate { .. }) => Ok(Scanned::Skipped(Skip::OutboxRow)),
            Err(ScanError::Reject(reject)) if reject.reason == super::foreign().reason => {
                Err(no_event_id().into())
            }
            scanned => scanned,
        }
    }

    fn event(&mut self, record: &Record<'_>, id: &[u8]) -> Result<Scanned, ScanError> {
        let id = self.scanned_text(id)?.ok_or_else(no_event_id)?;
        // What cannot be read shall be known before the batch is written.
        let headers = self.options.outbox.iter().flat_map(|outbox| &outbox.headers);
        let texts: Vec<&[u8]> = headers
            .filter_map(|name| outbox::header(record.headers(), name))
            .chain(record.key)
            .collect();
        for text in texts {
            self.scanned_text(text)?;
        }
        if !*self.keyed.get_or_insert(true) {
            let what = "the table has no key, and an event of an outbox needs one for its id";
            return Err(Reject::new("key_mismatch", what).into());
        }
        if self.key.is_none() {
            let mapped = Mapped { ty: ColumnType::String, form: Form::Text };
            self.key = Some(KeyPlan::of_fields(vec![(EVENT_ID.to_owned(), mapped)])?);
        }
        let key = self.key.as_mut().ok_or_else(no_key)?.of_text(EVENT_ID, &id)?;
        let row = match record.value {
            Some(value) => self.event_value(value)?,
            None => self.no_payload()?,
        };
        Ok(Scanned::Change(Change {
            operation: Operation::Create,
            key,
            row: Some(row),
            before: None,
            moved: None,
            source_micros: record.timestamp_ms.and_then(|millis| millis.checked_mul(1000)),
            snapshot: SnapshotRecord::None,
        }))
    }

    /// Where the event is in its record's value.
    fn event_value(&mut self, value: &[u8]) -> Result<RowRef, ScanError> {
        let as_it_is = matches!(self.options.declaration(PAYLOAD), Some(DeclaredType::Bytes(_)));
        match framed(value) {
            Ok(Some((id, at))) if !as_it_is => self.avro_event(value, id, at),
            Err(reject) if !as_it_is => Err(reject.into()),
            _ => Ok(self.plain_event(value, as_it_is)?),
        }
    }

    fn avro_event(&mut self, value: &[u8], id: SchemaId, at: usize) -> Result<RowRef, ScanError> {
        let fetched = self.avro.get_mut(&id).ok_or(ScanError::NeedsSchema(id))?;
        let (schema, writers) = (&fetched.schema, &mut self.writers);
        let number =
            *fetched.event.get_or_insert_with(|| learn(writers, Writer::of_avro_event(schema)));
        let Some(first) = schema.enter(value, at).map_err(Reject::from)? else {
            return Ok(self.no_payload()?);
        };
        let start = match self.writers.get(number).map(|writer| &writer.layout) {
            Some(Layout::AvroRow(layout)) => {
                layout.plan().read(value, at)?;
                first
            }
            Some(Layout::AvroKey(layout)) => {
                whole(layout, value, at)?;
                at
            }
            _ => return Err(no_key().into()),
        };
        Ok(row_ref(number, Some(&(start..value.len())))?)
    }

    /// The event in JSON, with or without its schema, or in a form that nothing tells.
    fn plain_event(&mut self, value: &[u8], as_it_is: bool) -> Result<RowRef, Reject> {
        let writers = &mut self.writers;
        let learned = |schema: &[u8]| Ok(learn(writers, Writer::of_event_schema(schema)?));
        // What cannot be unwrapped is the event itself.
        let payload = self.events.payload(value, learned).ok();
        let place = match payload.filter(|payload| payload.wrapped) {
            Some(payload) => in_wrap(value, payload)?,
            None => 0..value.len(),
        };
        let bytes = value.get(place.clone()).unwrap_or_default();
        if bytes == b"null" {
            return self.no_payload();
        }
        if let Some(Payload { schema: Some(writer), .. }) = payload {
            return row_ref(writer, Some(&place));
        }
        let (ty, layout) = if json_string(bytes).is_some() {
            (ConnectType::String, Layout::JsonValue)
        } else if as_it_is {
            (ConnectType::Bytes, Layout::Whole)
        } else if std::str::from_utf8(bytes).is_ok() {
            (ConnectType::String, Layout::Whole)
        } else {
            let what = "the event is neither Avro, JSON nor text: declare column payload as bytes";
            return Err(Reject::new("undeclared_type", what));
        };
        let writer = learn(&mut self.writers, Writer::of_untold_event(Some(ty), layout));
        row_ref(writer, Some(&place))
    }

    fn no_payload(&mut self) -> Result<RowRef, Reject> {
        let writer = learn(&mut self.writers, Writer::of_untold_event(None, Layout::Whole));
        row_ref(writer, Some(&(0..0)))
    }

    /// The text that a key or a header is, in the first stage.
    fn scanned_text(&mut self, bytes: &[u8]) -> Result<Option<String>, ScanError> {
        if let Some((id, _)) = framed(bytes)? {
            self.avro_key(id)?;
        }
        Ok(self.text(bytes)?.map(Cow::into_owned))
    }

    fn text<'a>(&self, bytes: &'a [u8]) -> Result<Option<Cow<'a, str>>, Reject> {
        let Some((id, at)) = framed(bytes)? else { return outbox::text(bytes) };
        let writer = self.avro.get(&id).and_then(|fetched| fetched.key);
        let writer = writer.and_then(|number| self.key_writers.get(number)).ok_or_else(no_key)?;
        let is_bare = writer.fields.first().is_some_and(|field| field.name.is_empty());
        let Layout::AvroKey(layout) = &writer.layout else { return Err(no_key()) };
        if !is_bare {
            return Err(Reject::new("unsupported_key", "a key or header that is no single value"));
        }
        let value = whole(layout, bytes, at)?;
        let text = outbox::as_text(value.as_ref().map_or(Raw::Null, Scalar::as_raw))?;
        Ok(text.map(Cow::Owned))
    }

    /// The second stage: an event's columns.
    pub(super) fn event_row(
        &self,
        filler: &mut Filler<'_>,
        index: usize,
        row: &Row<'_>,
        (layout, route): (&Layout, &Route),
        schema: &TableSchema,
    ) -> Result<(), Reject> {
        match (layout, route.fields.first()) {
            (Layout::AvroRow(layout), _) => layout.read(filler, index, row, route)?,
            (Layout::Json, _) => json_row(filler, index, row, route)?,
            (_, None | Some(RouteField { target: Target::Nowhere, .. })) => {}
            (layout, Some(RouteField { target: Target::Column(column, form), .. })) => {
                event_cell(filler, index, row, layout, (*column, form))?;
            }
            (_, Some(RouteField { name, target })) => return Err(homeless(name, Some(target))),
        }
        let headers = self.options.outbox.iter().flat_map(|outbox| &outbox.headers);
        let headers = headers.map(|name| (name.as_str(), outbox::header(row.headers, name)));
        let own = [(EVENT_ID, outbox::event_id(row.headers)), (AGGREGATE_ID, row.key)];
        for (name, bytes) in own.into_iter().chain(headers) {
            let text = bytes.map_or(Ok(None), |bytes| self.text(bytes))?;
            if let (Some(text), Some(column)) = (text, schema.index_of(name)) {
                filler.put(index, column, &Form::Text, Raw::Text(&text), false)?;
            }
        }
        Ok(())
    }
}

/// Puts an event that is one value.
fn event_cell(
    filler: &mut Filler<'_>,
    index: usize,
    row: &Row<'_>,
    layout: &Layout,
    (column, form): (usize, &Form),
) -> Result<(), Reject> {
    match layout {
        Layout::JsonValue => json_cell(filler, index, row.bytes, (column, form)),
        Layout::AvroKey(layout) => {
            let value = whole(layout, row.bytes, 0)?;
            let raw = value.as_ref().map_or(Raw::Null, Scalar::as_raw);
            filler.put(index, column, form, raw, false)
        }
        _ => match std::str::from_utf8(row.bytes) {
            Ok(text) if *form != Form::Bytes => {
                filler.put(index, column, form, Raw::Text(text), false)
            }
            _ => filler.put(index, column, form, Raw::Bytes(row.bytes), false),
        },
    }
}

/// The place of a payload that is wrapped together with a schema.
fn in_wrap(value: &[u8], payload: Payload) -> Result<Range<usize>, Reject> {
    let mut cursor = Cursor::new(value, payload.at);
    let place = cursor.skip()?;
    end(cursor, payload)?;
    Ok(place)
}

/// The one value that Avro bytes are.
fn whole<'a>(
    layout: &'a avro::KeyLayout,
    bytes: &'a [u8],
    at: usize,
) -> Result<Option<Scalar<'a>>, Reject> {
    let mut values = layout.values(bytes, at);
    let value = values.next()?;
    values.finish()?;
    Ok(value)
}

fn no_event_id() -> Reject {
    Reject::new(
        "no_event_id",
        "the record is no event of an outbox, which has a header named id, and no row of one",
    )
}
