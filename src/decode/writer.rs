//! Writer schemas: what a record's own schema says about its columns.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::avro;
use super::flattened::AddedNames;
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
    /// A row without an envelope, or a foreign record that looks like one; `named` when its schema has the name of a
    /// row of Debezium's.
    Row { named: bool },
    /// Anything else: a foreign record.
    Other,
}

/// A column as a writer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// The column's name.
    pub(super) name: String,
    /// Its type and form, or the name of a type that no column holds.
    pub(super) mapped: Result<Mapped, String>,
    /// True for a field that was added to a flattened row: no column.
    pub(super) added: bool,
}

impl Field {
    /// A column of the source.
    pub(super) fn new(name: String, described: &Described) -> Self {
        Self { name, mapped: described.map(), added: false }
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
    pub(super) fn of_value(schema: &[u8], added: &AddedNames) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let kind = match schema.ty.as_str() {
            "struct" => kind(schema.name.as_deref(), |name| schema.child(name).is_some()),
            _ => Kind::Other,
        };
        let mut fields = match kind {
            Kind::Envelope => schema.child("after").map(Connect::columns).unwrap_or_default(),
            Kind::Row { .. } => schema.columns(),
            Kind::Skipped(_) | Kind::Untold | Kind::Other => Vec::new(),
        };
        if matches!(kind, Kind::Row { .. }) {
            mark_added(&mut fields, added);
        }
        Ok(Self { kind, fields, layout: Layout::Json })
    }

    /// The schema of a record's key, from the JSON form of a Connect schema.
    pub(super) fn of_key(schema: &[u8]) -> Result<Self, Reject> {
        let schema = parse(schema)?;
        let fields = if schema.ty == "struct" {
            schema.columns()
        } else {
            vec![Field::new(String::new(), &schema.described())]
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
        let column =
            |child: &Self| Field::new(child.field.clone().unwrap_or_default(), &child.described());
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
