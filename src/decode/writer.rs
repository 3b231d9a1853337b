//! Writer schemas: what a record's own schema says about its columns.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::avro;
use super::types::{ConnectType, Described, Mapped};
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
    /// Anything else: a row without an envelope, a foreign record.
    Other,
}

/// A column as a writer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// The column's name.
    pub(super) name: String,
    /// Its type and form, or the name of a type that no column holds.
    pub(super) mapped: Result<Mapped, String>,
}

/// How a writer's bytes are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    Json,
    AvroRow(avro::RowLayout),
    AvroKey(avro::KeyLayout),
}

/// The schema of rows or of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) kind: Kind,
    /// Columns of the row or key. A key that is one bare value has one column with an empty name.
    pub(super) fields: Vec<Field>,
    pub(super) layout: Layout,
}

impl Writer {
    /// The writer of JSON without a schema.
    pub(super) fn untold() -> Self {
        Self { kind: Kind::Untold, fields: Vec::new(), layout: Layout::Json }
    }

    /// The schema of a record's value, from the JSON form of a Connect schema.
    pub(super) fn of_value(schema: &[u8]) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let kind = kind(schema.name.as_deref(), |name| schema.child(name).is_some());
        let after = schema.child("after").map(Connect::columns).unwrap_or_default();
        Ok(Self { kind, fields: after, layout: Layout::Json })
    }

    /// The schema of a record's key, from the JSON form of a Connect schema.
    pub(super) fn of_key(schema: &[u8]) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let fields = if schema.ty == "struct" {
            schema.columns()
        } else {
            vec![Field { name: String::new(), mapped: schema.described().map() }]
        };
        Ok(Self { kind: Kind::Other, fields, layout: Layout::Json })
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
    let envelope = has("op") && has("after") && has("source") && !has("specversion");
    if envelope { Kind::Envelope } else { Kind::Other }
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

    fn columns(&self) -> Vec<Field> {
        let column = |child: &Self| Field {
            name: child.field.clone().unwrap_or_default(),
            mapped: child.described().map(),
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
