//! Values that are no scalars, as Connect's JSON converter writes them, so that a column is the same from either.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Broken, MAX_DEPTH, NodeId, Reader, Schema, Shape};
use crate::decode::types::Raw;

impl Reader<'_> {
    /// Reads a value of a node that is no union, and gives it as JSON text.
    pub(super) fn json(&mut self, schema: &Schema, id: NodeId) -> Result<String, Broken> {
        let mut json = String::new();
        self.write(schema, id, &mut json, MAX_DEPTH)?;
        Ok(json)
    }

    fn write(
        &mut self,
        schema: &Schema,
        id: NodeId,
        json: &mut String,
        depth: usize,
    ) -> Result<(), Broken> {
        let depth = depth.checked_sub(1).ok_or(Broken("values are nested too deeply"))?;
        let id = self.branch(schema, id)?;
        if let Some(raw) = self.scalar(schema, id)? {
            scalar(raw, json);
            return Ok(());
        }
        match schema.shape(id)? {
            Shape::Record { fields, .. } => self.write_record(schema, fields, json, depth),
            Shape::Array(item) if schema.is_map_entry(*item) => {
                self.write_items(json, ['[', ']'], |reader, json| {
                    let fields = schema.fields(*item).unwrap_or_default();
                    let mut open = '[';
                    for (_, field) in fields {
                        json.push(open);
                        open = ',';
                        reader.write(schema, *field, json, depth)?;
                    }
                    json.push(']');
                    Ok(())
                })
            }
            Shape::Array(item) => self.write_items(json, ['[', ']'], |reader, json| {
                reader.write(schema, *item, json, depth)
            }),
            Shape::Map(value) => self.write_items(json, ['{', '}'], |reader, json| {
                let name = std::str::from_utf8(reader.sized()?);
                text(name.map_err(|_| Broken("text that is not UTF-8"))?, json);
                json.push(':');
                reader.write(schema, *value, json, depth)
            }),
            _ => Err(Broken("a value of no shape")),
        }
    }

    fn write_record(
        &mut self,
        schema: &Schema,
        fields: &[(String, NodeId)],
        json: &mut String,
        depth: usize,
    ) -> Result<(), Broken> {
        json.push('{');
        for (index, (name, field)) in fields.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            text(name, json);
            json.push(':');
            self.write(schema, *field, json, depth)?;
        }
        json.push('}');
        Ok(())
    }

    fn write_items(
        &mut self,
        json: &mut String,
        [open, close]: [char; 2],
        mut item: impl FnMut(&mut Self, &mut String) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        json.push(open);
        let mut first = true;
        while let Some(count) = self.block()? {
            for _ in 0..count {
                if !std::mem::take(&mut first) {
                    json.push(',');
                }
                item(self, json)?;
            }
        }
        json.push(close);
        Ok(())
    }
}

fn scalar(raw: Raw<'_>, json: &mut String) {
    let float = |value: f64, shortest: String| match value {
        value if value.is_nan() => "\"NaN\"".to_owned(),
        f64::INFINITY => "\"Infinity\"".to_owned(),
        f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        _ => shortest,
    };
    match raw {
        Raw::Null => json.push_str("null"),
        Raw::Boolean(value) => json.push_str(if value { "true" } else { "false" }),
        Raw::Integer(value) => json.push_str(&value.to_string()),
        Raw::Float(value) => json.push_str(&float(value.into(), format!("{value:?}"))),
        Raw::Double(value) => json.push_str(&float(value, format!("{value:?}"))),
        Raw::Text(value) => text(value, json),
        Raw::Bytes(value) => {
            json.push('"');
            STANDARD.encode_string(value, json);
            json.push('"');
        }
        Raw::Number(value) | Raw::Json(value) => json.push_str(value),
    }
}

fn text(text: &str, json: &mut String) {
    json.push_str(&Value::from(text).to_string());
}
