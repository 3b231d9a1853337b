//! A generator of records as Debezium's PostgreSQL connector writes them: an initial snapshot, then creates, updates
//! and deletes with their tombstones, changes of keys, placeholders for large values that did not change, and a
//! column that is added half-way.
//!
//! Everything comes from the [`Workload`]: equal workloads give equal bytes. The generator knows the rows that each
//! table must hold in the end ([`Generator::expected_rows`]). It streams: of a row it keeps 24 bytes, the values are
//! computed again whenever they are written. No I/O, no clock.

mod avro;
mod envelope;
mod history;
mod json;
mod shape;
#[cfg(test)]
mod tests;
mod value;
mod workload;

use std::sync::Arc;

use bytes::Bytes;

pub use avro::Subject;
pub use shape::Shape;
pub use value::{UNAVAILABLE, Value};
pub use workload::{Encoding, Mix, Workload};

use avro::AvroTable;
use envelope::{Image, Layout, SCHEMA};
use history::{Happening, History, Moved};
use json::JsonTable;

use crate::schema::Column;

/// Header of a delete whose row lives on under another key.
const NEW_KEY: &str = "__debezium.newkey";
/// Header of a create whose row had another key.
const OLD_KEY: &str = "__debezium.oldkey";

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key: Vec<u8>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values of the headers, in order.
    pub headers: Vec<(&'static str, Bytes)>,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// An iterator over the records of a [`Workload`].
#[derive(Debug)]
pub struct Generator {
    history: History,
    encoding: Encoding,
    tables: Vec<TableEncoders>,
    /// Headers that every record has.
    context: [(&'static str, Bytes); 4],
    scratch: String,
    value_size: usize,
}

#[derive(Debug)]
struct TableEncoders {
    topic: Arc<str>,
    narrow: Encoders,
    wide: Encoders,
}

#[derive(Debug)]
struct Encoders {
    json: JsonTable,
    avro: AvroTable,
}

impl TableEncoders {
    fn encoders(&self, layout: Layout) -> &Encoders {
        if layout.widened { &self.wide } else { &self.narrow }
    }
}

impl Generator {
    /// A generator at its start.
    pub fn new(workload: &Workload) -> Self {
        let mut ids = 1..;
        let mut next_id = || ids.next().unwrap_or_default();
        let tables = workload.tables.iter().map(|shape| {
            let key_id = next_id();
            let value_id = next_id();
            let wide_id = if workload.add_column_after.is_some() { next_id() } else { value_id };
            let encoders = |widened: bool, value_id: u32| {
                let layout = Layout { shape: *shape, widened };
                let with_schema = workload.encoding == Encoding::JsonWithSchema;
                Encoders {
                    json: JsonTable::new(layout, &workload.prefix, with_schema),
                    avro: AvroTable::new(layout, &workload.prefix, key_id, value_id),
                }
            };
            TableEncoders {
                topic: format!("{}.{SCHEMA}.{}", workload.prefix, shape.name()).into(),
                narrow: encoders(false, value_id),
                wide: encoders(true, wide_id),
            }
        });
        Self {
            tables: tables.collect(),
            history: History::new(workload),
            encoding: workload.encoding,
            context: context(workload),
            scratch: String::new(),
            value_size: 0,
        }
    }

    /// Uses these schema ids: what a registry answered for each of [`Workload::subjects`], in that order. Ids that
    /// are missing stay as they are.
    #[must_use]
    pub fn with_schema_ids(mut self, ids: &[u32]) -> Self {
        let replace = |id: &mut u32| {
            let place = usize::try_from(*id).ok().and_then(|id| id.checked_sub(1));
            if let Some(new) = place.and_then(|place| ids.get(place)) {
                *id = *new;
            }
        };
        for table in &mut self.tables {
            for encoders in [&mut table.narrow, &mut table.wide] {
                replace(&mut encoders.avro.key_id);
                replace(&mut encoders.avro.value_id);
            }
        }
        self
    }

    /// Makes the source commit nothing before `micros` (since the epoch) from now on, so that records can keep up
    /// with a clock. Without it time passes by some 20 microseconds per change.
    pub fn not_before(&mut self, micros: i64) {
        self.history.not_before(micros);
    }

    /// The topics, in the workload's order of tables.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tables.iter().map(|table| &table.topic)
    }

    /// The columns that a sink must have made of a table, without its metadata columns: those that the records up to
    /// now have, with the types that they tell.
    pub fn columns(&self, shape: Shape) -> Vec<Column> {
        let keys = shape.key_columns().len();
        let columns =
            self.table(shape).map_or(&[][..], |table| shape.columns(table.layout.widened));
        let column = |(place, column): (usize, &shape::SourceColumn)| {
            column.lake_column(place < keys, self.has_schema())
        };
        columns.iter().enumerate().map(column).collect()
    }

    /// The rows that a table must hold, in no order, once all records are applied. Before the end the generator may be
    /// up to two records ahead of what it gave: a change may be more than one record.
    pub fn expected_rows(&self, shape: Shape) -> impl Iterator<Item = Vec<Value>> {
        let table = self.table(shape);
        let layout = Layout { shape, widened: table.is_some_and(|table| table.layout.widened) };
        let schema = self.has_schema();
        table.into_iter().flat_map(history::Table::rows).map(move |row| {
            let mut values = Vec::with_capacity(shape.columns(layout.widened).len());
            Image::whole(*row).visit(layout, &mut String::new(), |column, cell| {
                values.push(cell.value(column.kind, schema));
            });
            values
        })
    }

    fn table(&self, shape: Shape) -> Option<&history::Table> {
        self.history.tables().iter().find(|table| table.layout.shape == shape)
    }

    fn has_schema(&self) -> bool {
        self.encoding != Encoding::Json
    }

    fn encode(&mut self, happening: &Happening) -> Option<Generated> {
        let table = self.tables.get(happening.table)?;
        let Encoders { json, avro } = table.encoders(happening.layout);
        let is_avro = self.encoding == Encoding::Avro;
        let scratch = &mut self.scratch;
        let mut key = Vec::with_capacity(32);
        if is_avro {
            avro.key(happening.id, scratch, &mut key);
        } else {
            json.key(happening.id, scratch, &mut key);
        }
        let mut value = None;
        if let Some(envelope) = &happening.envelope {
            let mut out = Vec::with_capacity(self.value_size);
            if is_avro {
                avro.value(envelope, scratch, &mut out);
            } else {
                json.value(envelope, scratch, &mut out);
            }
            self.value_size = self.value_size.max(out.len());
            value = Some(out);
        }
        let mut headers = Vec::with_capacity(self.context.len() + 1);
        if let Some(moved) = happening.moved {
            let (name, id) = match moved {
                Moved::To(id) => (NEW_KEY, id),
                Moved::From(id) => (OLD_KEY, id),
            };
            let mut other = Vec::new();
            json.bare_key(id, scratch, &mut other);
            headers.push((name, other.into()));
        }
        headers.extend(self.context.iter().cloned());
        Some(Generated {
            topic: Arc::clone(&table.topic),
            partition: happening.partition,
            key,
            value,
            headers,
            timestamp_ms: happening.processed_nanos / 1_000_000 + 50,
        })
    }
}

impl Iterator for Generator {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        let happening = self.history.next()?;
        self.encode(&happening)
    }
}

/// The headers that Debezium adds to every record.
fn context(workload: &Workload) -> [(&'static str, Bytes); 4] {
    let run = uuid::Builder::from_random_bytes(u128::from(workload.seed).to_be_bytes()).into_uuid();
    [
        ("__debezium.context.connectorLogicalName", workload.prefix.clone().into()),
        ("__debezium.context.taskId", Bytes::from_static(b"0")),
        ("__debezium.context.connectorName", Bytes::from_static(b"postgresql")),
        ("__debezium.context.runId", run.to_string().into()),
    ]
}
