//! What an Avro type means: the Connect type it came from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Node, NodeId, Schema, Shape};
use crate::decode::types::{ConnectType, Described};

/// The precision that Connect's converter writes when there is none.
const NO_PRECISION: &str = "64";

impl Schema {
    /// The name of a record: Connect's, or its own.
    pub(super) fn record_name(&self, id: NodeId) -> Option<&str> {
        let node = self.node(id)?;
        let own = match &node.shape {
            Shape::Record { name, .. } => Some(name.as_str()),
            _ => None,
        };
        node.notes.get("connect.name").and_then(Value::as_str).or(own)
    }

    /// True for the record that an entry of a map is whose keys are not text.
    pub(super) fn is_map_entry(&self, id: NodeId) -> bool {
        let noted = |node: &Node| {
            node.notes.get("connect.internal.type").and_then(Value::as_str) == Some("MapEntry")
        };
        self.node(id).is_some_and(noted)
            || self.record_name(id) == Some("io.confluent.connect.avro.MapEntry")
    }

    /// The Connect type of a node, null aside.
    pub(super) fn described(&self, id: NodeId) -> Described {
        let id = self.present(id).unwrap_or(id);
        let Some(node) = self.node(id) else { return Described::plain(ConnectType::Struct) };
        let ty = match &node.shape {
            Shape::Boolean => ConnectType::Boolean,
            Shape::Int => ConnectType::Int32,
            Shape::Long => ConnectType::Int64,
            Shape::Float => ConnectType::Float32,
            Shape::Double => ConnectType::Float64,
            Shape::Bytes | Shape::Fixed(_) => ConnectType::Bytes,
            Shape::String | Shape::Enum(_) => ConnectType::String,
            Shape::Map(_) => ConnectType::Map,
            Shape::Array(item) if self.is_map_entry(*item) => ConnectType::Map,
            Shape::Array(item) => ConnectType::Array(Box::new(self.described(*item))),
            Shape::Null | Shape::Union(_) | Shape::Record { .. } => ConnectType::Struct,
        };
        let (name, parameters) = notes(node);
        let own =
            || matches!(ty, ConnectType::Struct).then(|| self.record_name(id).map(str::to_owned));
        let name = name.or_else(|| own().flatten());
        Described { ty, name, parameters }
    }
}

/// The semantic name and its parameters: Connect's own, or those that the logical type stands for.
fn notes(node: &Node) -> (Option<String>, BTreeMap<String, String>) {
    let text = |name: &str| match node.notes.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let logical = text("logicalType");
    let name = text("connect.name").or_else(|| {
        let name = match logical.as_deref()? {
            "decimal" => "org.apache.kafka.connect.data.Decimal",
            "date" => "org.apache.kafka.connect.data.Date",
            "time-millis" => "org.apache.kafka.connect.data.Time",
            "time-micros" => "io.debezium.time.MicroTime",
            "timestamp-millis" => "org.apache.kafka.connect.data.Timestamp",
            "timestamp-micros" => "io.debezium.time.MicroTimestamp",
            _ => return None,
        };
        Some(name.to_owned())
    });
    let mut parameters = BTreeMap::new();
    match node.notes.get("connect.parameters") {
        Some(Value::Object(object)) => {
            for (name, value) in object {
                parameters.extend(value.as_str().map(|value| (name.clone(), value.to_owned())));
            }
        }
        _ => {
            parameters.extend(text("scale").map(|scale| ("scale".to_owned(), scale)));
            let precision = text("precision").filter(|precision| precision != NO_PRECISION);
            parameters
                .extend(precision.map(|digits| ("connect.decimal.precision".to_owned(), digits)));
        }
    }
    if logical.as_deref() == Some("decimal") && !parameters.contains_key("scale") {
        parameters.insert("scale".to_owned(), text("scale").unwrap_or_else(|| "0".to_owned()));
    }
    (name, parameters)
}
