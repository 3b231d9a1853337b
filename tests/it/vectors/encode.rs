//! From a record's description to its bytes, in each encoding.

use std::sync::Arc;

use cdc_sink::decode::{Registry, SchemaId};
use cdc_sink::source::scripted::LoggedRecord;
use serde_json::{Map, Value, json};

use super::case::{Case, Encoding, Framing, HeadersAs, Restart, Send};
use super::schema::{Schema, Type, fields, from_base64};

/// When the first record's change was made, milliseconds since the epoch.
const START_MS: i64 = 1_700_000_000_000;

const SNAPSHOT: &str = "snapshot string? data.Enum default='\"false\"' \
    allowed='true,first,first_in_data_collection,last_in_data_collection,last,false,incremental'";

/// Writes the records of one run, and keeps the schemas that they were written with.
pub(super) struct Encoder<'a> {
    case: &'a Case,
    encoding: Encoding,
    topic: Arc<str>,
    /// Avro schemas; their numbers are their places, from 1.
    schemas: Vec<String>,
    sent: i64,
}

/// A record, and where it goes.
#[derive(Clone)]
pub(super) struct Encoded {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Its offset comes from the case, or from its place.
    pub(super) offset: Option<i64>,
    pub(super) record: LoggedRecord,
}

/// What comes between two starts of the process.
pub(super) struct Life {
    /// How the one before ended.
    pub(super) start: Option<Restart>,
    pub(super) records: Vec<Encoded>,
}

/// A value of Connect with its schema.
struct Told {
    schema: Schema,
    value: Value,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(case: &'a Case, encoding: Encoding, topic: Arc<str>) -> Self {
        Self { case, encoding, topic, schemas: Vec::new(), sent: 0 }
    }

    /// All records of the case, by the life of the process in which they come.
    pub(super) fn lives(&mut self) -> Vec<Life> {
        let case = self.case;
        let mut lives = vec![Life { start: None, records: Vec::new() }];
        for send in &case.send {
            if send.restart.is_some() {
                lives.push(Life { start: send.restart, records: Vec::new() });
                continue;
            }
            let Some(Life { records, .. }) = lives.last_mut() else { break };
            match send.times {
                None => records.push(self.record(send)),
                Some(times) => {
                    for n in 0..times {
                        let mut numbered = send.clone();
                        let topic = numbered.topic.as_ref();
                        numbered.topic = topic.map(|topic| topic.replace("{n}", &n.to_string()));
                        let parts = [
                            &mut numbered.before,
                            &mut numbered.after,
                            &mut numbered.row,
                            &mut numbered.key,
                        ];
                        parts.into_iter().flatten().for_each(|value| number(value, n));
                        records.push(self.record(&numbered));
                    }
                }
            }
        }
        lives
    }

    /// The schemas by their numbers.
    pub(super) fn schemas(&self) -> impl Iterator<Item = (SchemaId, String)> {
        (1..).map(SchemaId).zip(self.schemas.iter().cloned())
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Registry::preloaded(self.schemas())
    }

    fn record(&mut self, send: &Send) -> Encoded {
        self.sent += 1;
        let topic = send.topic.as_deref();
        let topic = topic.map_or_else(|| Arc::clone(&self.topic), |topic| name(topic, &self.topic));
        let mut headers = Vec::new();
        let key = self.key(send, &topic, &mut headers);
        let value = self.value(send, &topic, &mut headers);
        let changes = [("__debezium.newkey", &send.new_key), ("__debezium.oldkey", &send.old_key)];
        for (header, key) in changes {
            if let Some(key) = key {
                headers.push((header.to_owned(), Some(self.key_header(key, &topic))));
            }
        }
        let given = send.headers.iter();
        headers.extend(given.map(|(name, text)| (name.clone(), Some(text.clone().into_bytes()))));
        let timestamp_ms = Some(START_MS + self.sent * 1000 + send.later_ms);
        let record = LoggedRecord { offset: 0, timestamp_ms, key, value, headers };
        Encoded { topic, partition: send.partition, offset: send.offset, record }
    }

    fn columns(&self, send: &Send) -> Vec<(String, Schema)> {
        fields(send.columns.as_deref().unwrap_or(&self.case.columns))
    }

    fn key_schema(&self, send: &Send, topic: &str) -> Schema {
        let key_columns = || {
            let columns = self.columns(send).into_iter();
            columns.filter(|(_, schema)| schema.key).collect()
        };
        let columns = self.case.key.as_deref().map_or_else(key_columns, fields);
        Schema::of(&format!("{}.Key", send.named.as_deref().unwrap_or(topic)), columns)
    }

    fn key(&mut self, send: &Send, topic: &str, headers: &mut Headers) -> Option<Vec<u8>> {
        if let Some(raw) = &send.raw_key {
            return Some(raw.clone().into_bytes());
        }
        let encoding = send.key_as.unwrap_or(self.encoding);
        if let Some(bare) = &send.bare_key {
            let schema = Schema::parse(send.bare_key_type.as_deref().unwrap_or("string"));
            let told = Told { schema, value: bare.clone() };
            return Some(self.encode(&told, encoding, Framing::Confluent, None));
        }
        let schema = self.key_schema(send, topic);
        let row = [&send.key, &send.after, &send.before, &send.row].into_iter().flatten().next();
        let Some(Value::Object(row)) = row.filter(|_| !send.keyless && !schema.fields().is_empty())
        else {
            return None;
        };
        let in_key = |name: &String| schema.fields().iter().any(|(field, _)| field == name);
        let value = row.iter().filter(|(name, _)| in_key(name));
        let value = value.map(|(name, value)| (name.clone(), value.clone()));
        let told = Told { value: Value::Object(value.collect()), schema };
        let key = self.encode(&told, encoding, send.framing, Some(("__key_schema_id", headers)));
        Some(key)
    }

    /// A key struct in a header.
    fn key_header(&mut self, key: &Value, topic: &str) -> Vec<u8> {
        let schema = self.key_schema(&Send::default(), topic);
        let told = Told { value: key.clone(), schema };
        let encoding = match self.case.headers_as {
            HeadersAs::Text => Encoding::Bare,
            HeadersAs::Wrapped => Encoding::Wrapped,
            HeadersAs::Avro => Encoding::Avro,
        };
        self.encode(&told, encoding, Framing::Confluent, None)
    }

    fn value(&mut self, send: &Send, topic: &str, headers: &mut Headers) -> Option<Vec<u8>> {
        let encoding = send.encoding.unwrap_or(self.encoding);
        let mut bytes = if let Some(raw) = &send.raw {
            raw.repeat(send.raw_times.unwrap_or(1)).into_bytes()
        } else if let Some(raw) = &send.raw_base64 {
            from_base64(raw)
        } else {
            let told = self.told(send, topic)?;
            if told.value.is_null() && encoding == Encoding::Avro {
                return None;
            }
            match &send.schema_of {
                Some(columns) => self.with_schema_of(columns, &told),
                None => {
                    let header = Some(("__value_schema_id", headers));
                    self.encode(&told, encoding, send.framing, header)
                }
            }
        };
        bytes.truncate(bytes.len() - send.cut);
        bytes.extend_from_slice(send.append.as_bytes());
        Some(bytes)
    }

    /// The record's value; none for a tombstone.
    fn told(&self, send: &Send, topic: &str) -> Option<Told> {
        let named = send.named.as_deref().unwrap_or(topic);
        let required = || Schema::of(&format!("{named}.Value"), self.columns(send));
        let row_schema = || required().optional();
        if send.tombstone {
            None
        } else if send.null_row {
            Some(Told { schema: row_schema(), value: Value::Null })
        } else if let Some(row) = &send.row {
            Some(Told { schema: required(), value: row.clone() })
        } else if let Some(value) = &send.value {
            let schema = Schema::parse(
                send.schema.as_deref().unwrap_or_else(|| panic!("no schema: {send:?}")),
            );
            Some(Told { schema, value: value.clone() })
        } else {
            Some(self.envelope(send, topic, &row_schema()))
        }
    }

    fn envelope(&self, send: &Send, topic: &str, row: &Schema) -> Told {
        let op = send.op.as_deref().unwrap_or_else(|| panic!("what is sent? {send:?}"));
        let source = self.source(send, op, topic);
        let order = "id string, total_order int64, data_collection_order int64";
        let ms = START_MS + self.sent * 1000 + 500;
        let rows = [("before", &send.before), ("after", &send.after)];
        let rows = rows
            .map(|(name, row_value)| (name, row.clone(), row_value.clone().unwrap_or(Value::Null)));
        let transaction = Schema::of("event.block", fields(order)).version(1).optional();
        let mut parts: Vec<(&str, Schema, Value)> = Vec::new();
        if op != "m" {
            parts.extend(rows);
        }
        parts.push(("source", source.schema, source.value));
        parts.push(("transaction", transaction, send.transaction.clone().unwrap_or(Value::Null)));
        parts.push(("op", Schema::parse("string"), op.into()));
        parts.push(("ts_ms", Schema::parse("int64?"), ms.into()));
        let name = match &send.message {
            Some(message) => {
                let schema = Schema::of(
                    "io.debezium.connector.postgresql.Message",
                    fields("prefix string, content bytes?"),
                );
                parts.push(("message", schema, message.clone()));
                "io.debezium.connector.postgresql.MessageValue".to_owned()
            }
            None => {
                parts.push(("ts_us", Schema::parse("int64?"), (ms * 1000).into()));
                parts.push(("ts_ns", Schema::parse("int64?"), (ms * 1_000_000).into()));
                format!("{}.Envelope", send.named.as_deref().unwrap_or(topic))
            }
        };
        parts.retain(|(name, _, _)| !send.without.iter().any(|without| without == name));
        parts.extend(
            send.extra.iter().map(|(name, value)| (&**name, guessed(value), value.clone())),
        );
        if send.reversed {
            parts.reverse();
        }
        let value = parts.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone()));
        let value = Value::Object(value.collect());
        let parts = parts.into_iter().map(|(name, schema, _)| (name.to_owned(), schema));
        Told { schema: Schema::of(&name, parts.collect()).version(2), value }
    }

    /// The number of the change: both halves of a key change are one.
    fn event(&self, send: &Send) -> i64 {
        let both = key_change(send);
        let first = self.case.send.iter().position(|other| key_change(other) == both);
        match first.filter(|_| both.is_some()) {
            Some(first) => i64::try_from(first).unwrap() + 1,
            None => self.sent,
        }
    }

    fn source(&self, send: &Send, op: &str, topic: &str) -> Told {
        let event = self.event(send);
        let connector = send.connector.as_deref().unwrap_or(&self.case.connector);
        let ms = START_MS + event * 1000;
        let lsn = 1000 + 10 * event;
        let mut places = topic.split('.').rev();
        let (table, schema) =
            (places.next().unwrap_or_default(), places.next().unwrap_or_default());
        let mut value = json!({
            "version": "3.6.1.Final", "connector": connector, "name": "vectors", "ts_ms": ms,
            "snapshot": if op == "r" { "true" } else { "false" },
            "db": if connector == "postgresql" { "shop" } else { schema },
            "ts_us": ms * 1000, "ts_ns": ms * 1_000_000, "table": table,
        });
        let (own, fields_of_connector) = if connector == "postgresql" {
            (
                json!({
                    "sequence": format!("[\"{}\",\"{lsn}\"]", lsn - 5), "schema": schema,
                    "txId": 700 + event, "lsn": lsn,
                }),
                "sequence string?, ts_us int64?, ts_ns int64?, schema string, table string, txId int64?, \
                 lsn int64?, xmin int64?, origin string?, origin_lsn int64?",
            )
        } else {
            (
                json!({"server_id": 1, "file": "binlog.000003", "pos": lsn, "row": 0}),
                "sequence string?, ts_us int64?, ts_ns int64?, table string?, server_id int64, gtid string?, \
                 file string, pos int64, row int32, thread int64?, query string?",
            )
        };
        let all = "version string, connector string, name string, ts_ms int64";
        let mut fields = fields(&format!("{all}, {SNAPSHOT}, db string, {fields_of_connector}"));
        let block = value.as_object_mut().unwrap();
        for (name, value) in own.as_object().unwrap().iter().chain(&send.source) {
            block.insert(name.clone(), value.clone());
            if !fields.iter().any(|(field, _)| field == name) {
                fields.push((name.clone(), guessed(value)));
            }
        }
        let has = |name: &String| !send.without.iter().any(|without| without == name);
        block.retain(|name, _| has(name));
        fields.retain(|(name, _)| has(name));
        let name = format!("io.debezium.connector.{connector}.Source");
        Told { schema: Schema::of(&name, fields).version(1), value }
    }

    /// The bytes of a value. `header` is where its schema may be told, by a header's name.
    fn encode(
        &mut self,
        told: &Told,
        encoding: Encoding,
        framing: Framing,
        header: Option<(&str, &mut Headers)>,
    ) -> Vec<u8> {
        let mut text = String::new();
        match encoding {
            Encoding::Wrapped => {
                told.schema.write_json(&told.value, &mut text);
                let schema = told.schema.json(None);
                format!("{{\"schema\":{schema},\"payload\":{text}}}").into_bytes()
            }
            Encoding::Bare => {
                told.schema.write_json(&told.value, &mut text);
                text.into_bytes()
            }
            Encoding::Avro => {
                let id = self.schema_id(&told.schema);
                let mut out = match (framing, header) {
                    (Framing::Confluent, _) => [&[0], &id.to_be_bytes()[..]].concat(),
                    (Framing::Apicurio, _) => [&[0], &u64::from(id).to_be_bytes()[..]].concat(),
                    (Framing::Guid, _) => [&[1][..], &[0; 12], &id.to_be_bytes()].concat(),
                    (Framing::Header, Some((name, headers))) => {
                        let told = [&[0], &id.to_be_bytes()[..]].concat();
                        headers.push((name.to_owned(), Some(told)));
                        Vec::new()
                    }
                    (Framing::Header, None) => panic!("no header can tell a schema here"),
                };
                told.schema.write_avro(&told.value, &mut out);
                out
            }
        }
    }

    /// Avro of `told` that says it was written with the schema of another topic with `columns`.
    fn with_schema_of(&mut self, columns: &str, told: &Told) -> Vec<u8> {
        let mut other = told.schema.clone();
        let row = Schema::of("vectors.public.another.Value", fields(columns)).optional();
        if let Type::Struct(parts) = &mut other.ty {
            let rows = parts.iter_mut().filter(|(name, _)| name == "before" || name == "after");
            rows.for_each(|(_, schema)| schema.clone_from(&row));
        }
        other.name = Some("vectors.public.another.Envelope".to_owned());
        let id = self.schema_id(&other);
        let mut out = [&[0], &id.to_be_bytes()[..]].concat();
        told.schema.write_avro(&told.value, &mut out);
        out
    }

    fn schema_id(&mut self, schema: &Schema) -> u32 {
        let text = schema.avro(self.case.meta).to_string();
        let at = self.schemas.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.schemas.push(text);
            self.schemas.len() - 1
        });
        u32::try_from(at + 1).unwrap()
    }
}

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A topic's name, `{t}` being the last part of the run's own.
pub(super) fn name(topic: &str, own: &str) -> Arc<str> {
    let last = own.rsplit('.').next().unwrap_or_default();
    topic.replace("{t}", last).into()
}

/// Puts the number in for `{n}`; a text that is just that becomes the number.
fn number(value: &mut Value, n: u32) {
    match value {
        Value::String(text) if text == "{n}" => *value = n.into(),
        Value::String(text) => *text = text.replace("{n}", &n.to_string()),
        Value::Object(members) => members.values_mut().for_each(|member| number(member, n)),
        _ => {}
    }
}

/// An optional type for a field that no schema knows.
fn guessed(value: &Value) -> Schema {
    Schema::parse(match value {
        Value::Number(_) => "int64?",
        Value::Bool(_) => "boolean?",
        _ => "string?",
    })
}

/// Options of the table that declare the types of columns which JSON without a schema does not tell.
pub(super) fn declarations(case: &Case) -> Map<String, Value> {
    let all = case.send.iter().filter_map(|send| send.columns.as_deref()).chain([&*case.columns]);
    let mut types = Map::new();
    for (name, schema) in all.flat_map(fields) {
        types.extend(schema.declared().map(|ty| (name, ty.into())));
    }
    if let Some(key) = &case.key {
        types.extend(
            fields(key).into_iter().filter_map(|(name, ty)| Some((name, ty.declared()?.into()))),
        );
    }
    for (name, ty) in &case.declare {
        if ty.is_empty() {
            types.remove(name);
        } else {
            types.insert(name.clone(), ty.as_str().into());
        }
    }
    types
}

/// The old and the new key of a key change.
fn key_change(send: &Send) -> Option<(Value, Value)> {
    let key = |row: &Option<Value>, like: &Value| {
        let row = row.as_ref()?.as_object()?;
        let columns = like.as_object()?.keys();
        Some(columns.map(|name| (name.clone(), row[name].clone())).collect::<Value>())
    };
    match (&send.old_key, &send.new_key) {
        (Some(old), _) => Some((old.clone(), key(&send.after, old)?)),
        (None, Some(new)) => Some((key(&send.before, new)?, new.clone())),
        (None, None) => None,
    }
}
