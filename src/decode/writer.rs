//! Writer schemas: what a record's own schema says about its columns.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::avro;
use super::flattened::AddedNames;
use super::outbox::PAYLOAD;
use super::types::{ConnectType, Described, Mapped, Times};
use super::{Reject, Skip};

/// What records of a schema are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Debezium's envelope of a row.
    Envelope,
    /// A record that is passed over.
    Skipped(Skip),
    /// No schema tells, the record itself must.
    Untold,
    /// A row without an envelope, or a foreign record that looks like one; `named` when its schema has the name of a
    /// row of Debezium's.
    Row { named: bool },
    /// An event of an outbox.
    Event,
    /// Anything else: a foreign record.
    Other,
}

/// A column as a writer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// The column's name.
    pub(super) name: String,
    /// Its type, as the writer has it.
    pub(super) described: Described,
    /// The column for it, as the table of types says.
    pub(super) mapped: Mapped,
    /// True when it may be null.
    pub(super) optional: bool,
    /// True for a field that was added to a flattened row: no column.
    pub(super) added: bool,
}

impl Field {
    /// A column of the source.
    pub(super) fn new(name: impl Into<String>, described: Described, times: Times) -> Self {
        let mapped = described.map(times);
        Self { name: name.into(), mapped, described, optional: true, added: false }
    }
}

/// Tells the fields that were added to a flattened row from its columns.
pub(super) fn mark_added(fields: &mut [Field], names: &AddedNames) {
    for field in fields {
        field.added = names.of(&field.name).is_some();
    }
}

/// How a writer's bytes are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    Json,
    AvroRow(avro::RowLayout),
    AvroKey(avro::KeyLayout),
    /// Bytes that are one value as they are, text or binary.
    Whole,
    /// One value in JSON.
    JsonValue,
}

/// The schema of rows or of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) kind: Kind,
    /// What times of its source are.
    pub(super) times: Times,
    /// Columns of the row or key. A key that is one bare value has one column with an empty name.
    pub(super) fields: Vec<Field>,
    pub(super) layout: Layout,
}

impl Writer {
    /// The writer of JSON without a schema.
    pub(super) fn untold() -> Self {
        Self {
            kind: Kind::Untold,
            times: Times::default(),
            fields: Vec::new(),
            layout: Layout::Json,
        }
    }

    /// The schema of a record's value, from the JSON form of a Connect schema.
    pub(super) fn of_value(schema: &[u8], added: &AddedNames) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let kind = match schema.ty.as_str() {
            "struct" => kind(schema.name.as_deref(), |name| schema.child(name).is_some()),
            _ => Kind::Other,
        };
        let times = times(schema.child("source").and_then(|source| source.name.as_deref()));
        let mut fields = match kind {
            Kind::Envelope => {
                schema.child("after").map(|after| after.columns(times)).unwrap_or_default()
            }
            Kind::Row { .. } => schema.columns(times),
            Kind::Skipped(_) | Kind::Untold | Kind::Event | Kind::Other => Vec::new(),
        };
        if matches!(kind, Kind::Row { .. }) {
            mark_added(&mut fields, added);
        }
        Ok(Self { kind, times, fields, layout: Layout::Json })
    }

    /// The schema of an outbox's event, from the JSON form of a Connect schema: a struct's fields are columns.
    pub(super) fn of_event_schema(schema: &[u8]) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let times = Times::default();
        Ok(match schema.ty.as_str() {
            "struct" => Self::of_event(schema.columns(times), Layout::Json),
            _ => {
                let field = Field::new(PAYLOAD, schema.described(), times);
                Self::of_event(vec![field], Layout::JsonValue)
            }
        })
    }

    /// The schema of a record's key, from the JSON form of a Connect schema.
    pub(super) fn of_key(schema: &[u8]) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let fields = if schema.ty == "struct" {
            schema.columns(Times::default())
        } else {
            vec![Field::new("", schema.described(), Times::default())]
        };
        Ok(Self { kind: Kind::Other, times: Times::default(), fields, layout: Layout::Json })
    }

    /// The column named `name`.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// What a value's schema is for, by its name and then by its fields.
pub(super) fn kind(name: Option<&str>, has: impl Fn(&str) -> bool) -> Kind {
    let short = name.and_then(|name| name.rsplit('.').next()).unwrap_or_default();
    match short {
        "Heartbeat" => return Kind::Skipped(Skip::Heartbeat),
        "TransactionMetadataValue" => return Kind::Skipped(Skip::Transaction),
        "SchemaChangeValue" => return Kind::Skipped(Skip::SchemaChange),
        "Notification" => return Kind::Skipped(Skip::Notification),
        "MessageValue" => return Kind::Skipped(Skip::Message),
        _ => {}
    }
    if has("specversion") {
        Kind::Other
    } else if has("op") && has("after") && has("source") {
        Kind::Envelope
    } else if short == "Envelope" {
        Kind::Other
    } else {
        Kind::Row { named: short == "Value" }
    }
}

/// What times of a source are, by the name of its block in the envelope.
pub(super) fn times(source: Option<&str>) -> Times {
    match source {
        Some("io.debezium.connector.mysql.Source" | "io.debezium.connector.mariadb.Source") => {
            Times::Elapsed
        }
        _ => Times::OfDay,
    }
}

/// A Connect schema in JSON.
#[derive(Deserialize)]
struct Connect {
    #[serde(rename = "type")]
    ty: String,
    name: Option<String>,
    #[serde(default)]
    parameters: Option<BTreeMap<String, String>>,
    #[serde(default)]
    fields: Vec<Self>,
    items: Option<Box<Self>>,
    field: Option<String>,
    #[serde(default)]
    optional: bool,
}

fn parse(schema: &[u8]) -> Result<Connect, Reject> {
    serde_json::from_slice(schema).map_err(|error| {
        Reject::new("malformed_schema", format!("the schema in the record cannot be read: {error}"))
    })
}

impl Connect {
    fn child(&self, name: &str) -> Option<&Self> {
        self.fields.iter().find(|child| child.field.as_deref() == Some(name))
    }

    fn columns(&self, times: Times) -> Vec<Field> {
        let column = |child: &Self| {
            let name = child.field.clone().unwrap_or_default();
            Field { optional: child.optional, ..Field::new(name, child.described(), times) }
        };
        self.fields.iter().map(column).collect()
    }

    fn described(&self) -> Described {
        let ty = match self.ty.as_str() {
            "boolean" => ConnectType::Boolean,
            "int8" | "int16" | "int32" => ConnectType::Int32,
            "int64" => ConnectType::Int64,
            "float" | "float32" => ConnectType::Float32,
            "double" | "float64" => ConnectType::Float64,
            "bytes" => ConnectType::Bytes,
            "string" => ConnectType::String,
            "array" => match &self.items {
                Some(items) => ConnectType::Array(Box::new(items.described())),
                None => ConnectType::Struct,
            },
            "map" => ConnectType::Map,
            _ => ConnectType::Struct,
        };
        let parameters = self.parameters.clone().unwrap_or_default();
        Described { ty, name: self.name.clone(), parameters }
    }
}
