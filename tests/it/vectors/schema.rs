//! Kafka Connect schemas in one line of text, and what the converters make of them: the JSON of `JsonConverter` and
//! the Avro of Confluent's `AvroConverter`.
//!
//! A type is `int32`, `string?` (optional), `int64 time.MicroTimestamp`, `bytes connect.Decimal scale=2`,
//! `array<string?>`, `map<string,string?>`, `struct{a int32, b string?}`. `time.`, `data.`, `geometry.` and `connect.` stand for
//! the packages of Debezium's and Connect's semantic types; their structs need no fields. `key` marks a column of the
//! key, `default=` gives a default, `version=` a version; any other `name=value` is a parameter.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// What the short names of packages stand for.
const PACKAGES: [(&str, &str); 4] = [
    ("time.", "io.debezium.time."),
    ("data.", "io.debezium.data."),
    ("geometry.", "io.debezium.data.geometry."),
    ("connect.", "org.apache.kafka.connect.data."),
];

/// The fields of structs that a semantic name tells.
const STRUCTS: [(&str, &str); 10] = [
    ("data.VariableScaleDecimal", "scale int32, value bytes"),
    ("data.SparseDoubleVector", "dimensions int16, vector map<int16,float64>"),
    ("data.SparseVector", "dimensions int16, vector map<int16,float64>"),
    ("geometry.Point", "x float64, y float64, wkb bytes?, srid int32?"),
    ("geometry.Geometry", "wkb bytes, srid int32?"),
    ("geometry.Geography", "wkb bytes, srid int32?"),
    ("geometry.Circle", "center struct? geometry.Point, radius float64"),
    (
        "time.StructuredTimestamp",
        "year int32?, month int32?, day int32?, hour int32?, minute int32?, second int32?, nanos int32?, \
         specialValue string?, precision int32?",
    ),
    (
        "time.StructuredZonedTimestamp",
        "year int32?, month int32?, day int32?, hour int32?, minute int32?, second int32?, nanos int32?, \
         offsetSeconds int32?, zoneId string?, specialValue string?, precision int32?",
    ),
    ("time.StructuredDate", "year int32?, month int32?, day int32?, specialValue string?"),
];

/// A Connect schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schema {
    pub(super) ty: Type,
    pub(super) name: Option<String>,
    version: Option<u32>,
    parameters: BTreeMap<String, String>,
    pub(super) optional: bool,
    default: Option<Value>,
    pub(super) key: bool,
}

/// A Connect type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    /// By its name in JSON: `int8` to `int64`, `float`, `double`, `boolean`, `string`, `bytes`.
    Scalar(&'static str),
    Array(Box<Schema>),
    Map(Box<Schema>, Box<Schema>),
    Struct(Vec<(String, Schema)>),
}

/// Names of scalar types, and what JSON schemas call them.
const SCALARS: [(&str, &str); 9] = [
    ("int8", "int8"),
    ("int16", "int16"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("float32", "float"),
    ("float64", "double"),
    ("boolean", "boolean"),
    ("string", "string"),
    ("bytes", "bytes"),
];

impl Schema {
    fn new(ty: Type) -> Self {
        let (name, version, default) = (None, None, None);
        Self {
            ty,
            name,
            version,
            parameters: BTreeMap::new(),
            optional: false,
            default,
            key: false,
        }
    }

    /// A struct of `fields`, required.
    pub(super) fn of(name: &str, fields: Vec<(String, Self)>) -> Self {
        Self { name: Some(name.to_owned()), ..Self::new(Type::Struct(fields)) }
    }

    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    pub(super) fn version(self, version: u32) -> Self {
        Self { version: Some(version), ..self }
    }

    /// The schema that `text` describes.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let open = text.find(['<', '{', ' ', '?']).unwrap_or(text.len());
        let (word, rest) = text.split_at(open);
        let (inner, rest) = match rest.chars().next() {
            Some('<' | '{') => bracketed(rest),
            _ => ("", rest),
        };
        let words = split(rest, ' ');
        let short = words.iter().find(|word| is_name(word)).map(|word| word.trim_end_matches('?'));
        let ty = match word {
            "array" => Type::Array(Box::new(Self::parse(inner))),
            "map" => match split(inner, ',').as_slice() {
                [key, value] => Type::Map(Box::new(Self::parse(key)), Box::new(Self::parse(value))),
                _ => panic!("a map has two types: {text}"),
            },
            "struct" => {
                let known = STRUCTS.iter().find(|(name, _)| Some(*name) == short);
                Type::Struct(fields(known.map_or(inner, |(_, fields)| fields)))
            }
            scalar => match SCALARS.iter().find(|(name, _)| *name == scalar) {
                Some((_, json)) => Type::Scalar(json),
                None => panic!("no Connect type: {text}"),
            },
        };
        let mut schema = Self { name: short.map(full_name), ..Self::new(ty) };
        schema.version = schema.name.as_ref().map(|_| 1);
        for word in words {
            schema.optional |= word.ends_with('?');
            match word.split_once('=') {
                Some(("default", value)) => schema.default = Some(scalar_value(unquoted(value))),
                Some(("version", value)) => schema.version = value.parse().ok(),
                Some((name, value)) => {
                    schema.parameters.insert(name.to_owned(), unquoted(value).to_owned());
                }
                None if word == "key" => schema.key = true,
                None if word == "?" || is_name(word) => {}
                None => panic!("{word:?} says nothing about a type: {text}"),
            }
        }
        schema
    }

    pub(super) fn fields(&self) -> &[(String, Self)] {
        match &self.ty {
            Type::Struct(fields) => fields,
            _ => &[],
        }
    }

    /// The schema in JSON, as `JsonConverter` writes it.
    pub(super) fn json(&self, field: Option<&str>) -> Value {
        let mut out = Map::new();
        let ty = match &self.ty {
            Type::Scalar(name) => name,
            Type::Array(items) => {
                out.insert("items".into(), items.json(None));
                "array"
            }
            Type::Map(keys, values) => {
                out.insert("keys".into(), keys.json(None));
                out.insert("values".into(), values.json(None));
                "map"
            }
            Type::Struct(fields) => {
                let fields = fields.iter().map(|(name, schema)| schema.json(Some(name)));
                out.insert("fields".into(), fields.collect());
                "struct"
            }
        };
        out.insert("type".into(), ty.into());
        out.insert("optional".into(), self.optional.into());
        let version = self.version.map(Value::from);
        let parameters = (!self.parameters.is_empty()).then(|| json!(self.parameters));
        let name = self.name.as_deref().map(Value::from);
        for (member, value) in [
            ("name", name),
            ("version", version),
            ("parameters", parameters),
            ("default", self.default.clone()),
            ("field", field.map(Value::from)),
        ] {
            out.extend(value.map(|value| (member.to_owned(), value)));
        }
        Value::Object(out)
    }

    /// The schema in Avro, as `AvroData` makes it; without `meta`, as it does with `connect.meta.data=false`.
    pub(super) fn avro(&self, meta: bool) -> Value {
        self.avro_of(meta, &mut BTreeSet::new())
    }

    fn avro_of(&self, meta: bool, known: &mut BTreeSet<String>) -> Value {
        let plain = self.avro_plain(meta, known);
        if !self.optional {
            return plain;
        }
        if self.has_default() { json!([plain, "null"]) } else { json!(["null", plain]) }
    }

    fn has_default(&self) -> bool {
        self.default.as_ref().is_some_and(|default| !default.is_null())
    }

    fn avro_plain(&self, meta: bool, known: &mut BTreeSet<String>) -> Value {
        let mut out = Map::new();
        let ty: Value = match &self.ty {
            Type::Scalar("int8" | "int16" | "int32") => "int".into(),
            Type::Scalar("int64") => "long".into(),
            Type::Scalar(other) => (*other).into(),
            Type::Array(items) => {
                out.insert("items".into(), items.avro_of(meta, known));
                "array".into()
            }
            Type::Map(keys, values) if keys.ty == Type::Scalar("string") => {
                out.insert("values".into(), values.avro_of(meta, known));
                "map".into()
            }
            Type::Map(keys, values) => {
                let entry = json!({
                    "type": "record", "name": "MapEntry", "namespace": "io.confluent.connect.avro",
                    "fields": [
                        {"name": "key", "type": keys.avro_of(meta, known)},
                        {"name": "value", "type": values.avro_of(meta, known)},
                    ],
                });
                out.insert("items".into(), entry);
                "array".into()
            }
            Type::Struct(fields) => {
                let name =
                    self.name.as_deref().unwrap_or("io.confluent.connect.avro.ConnectDefault");
                if !known.insert(name.to_owned()) {
                    return name.into();
                }
                let (namespace, short) = name.rsplit_once('.').unwrap_or(("", name));
                out.insert("name".into(), short.into());
                out.insert("namespace".into(), namespace.into());
                let fields =
                    fields.iter().map(|(name, schema)| schema.avro_field(name, meta, known));
                out.insert("fields".into(), fields.collect());
                "record".into()
            }
        };
        if meta {
            self.avro_meta(&mut out);
        }
        self.avro_decimal(&mut out);
        if out.is_empty() {
            return ty;
        }
        out.insert("type".into(), ty);
        Value::Object(out)
    }

    fn avro_field(&self, name: &str, meta: bool, known: &mut BTreeSet<String>) -> Value {
        let mut field = json!({"name": name, "type": self.avro_of(meta, known)});
        match &self.default {
            Some(default) => field["default"] = default.clone(),
            None if self.optional => field["default"] = Value::Null,
            None => {}
        }
        field
    }

    fn avro_meta(&self, out: &mut Map<String, Value>) {
        if let Type::Scalar(narrow @ ("int8" | "int16")) = self.ty {
            out.insert("connect.type".into(), narrow.into());
        }
        if let Some(name) = &self.name {
            out.insert("connect.name".into(), name.as_str().into());
        }
        if let Some(version) = self.version {
            out.insert("connect.version".into(), version.into());
        }
        if !self.parameters.is_empty() {
            out.insert("connect.parameters".into(), json!(self.parameters));
        }
        if let Some(default) = &self.default {
            out.insert("connect.default".into(), default.clone());
        }
    }

    fn avro_decimal(&self, out: &mut Map<String, Value>) {
        let logical = match self.name.as_deref().and_then(|n| n.strip_prefix(PACKAGES[3].1)) {
            Some("Date") => "date",
            Some("Time") => "time-millis",
            Some("Timestamp") => "timestamp-millis",
            Some("Decimal") => {
                let number = |name: &str| self.parameters.get(name)?.parse::<i64>().ok();
                let scale = number("scale").unwrap_or_default();
                let precision = number("connect.decimal.precision").unwrap_or(64);
                out.insert("scale".into(), scale.into());
                out.insert("precision".into(), precision.into());
                if !(0..=precision).contains(&scale) {
                    return;
                }
                "decimal"
            }
            _ => return,
        };
        out.insert("logicalType".into(), logical.into());
    }

    /// Appends `value` in JSON: every field of its structs in their order, null where it says nothing, as Connect does.
    pub(super) fn write_json(&self, value: &Value, out: &mut String) {
        match (&self.ty, value) {
            (_, Value::Object(lexeme)) if lexeme.contains_key("lexeme") => {
                out.push_str(lexeme["lexeme"].as_str().unwrap());
            }
            (Type::Struct(fields), Value::Object(given)) => {
                let unknown = given.keys().find(|name| !fields.iter().any(|(f, _)| f == *name));
                assert!(unknown.is_none(), "no field {unknown:?} in {fields:?}");
                for (at, (name, schema)) in fields.iter().enumerate() {
                    out.push(if at == 0 { '{' } else { ',' });
                    out.push_str(&Value::from(name.as_str()).to_string());
                    out.push(':');
                    let value = given.get(name).unwrap_or(&Value::Null);
                    assert!(schema.optional || !value.is_null(), "{name} is required");
                    schema.write_json(value, out);
                }
                out.push_str(if fields.is_empty() { "{}" } else { "}" });
            }
            (Type::Array(items), Value::Array(values)) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    items.write_json(value, out);
                }
                out.push(']');
            }
            (_, value) => out.push_str(&value.to_string()),
        }
    }

    /// Appends `value` in Avro; it is in the form that JSON has it in.
    pub(super) fn write_avro(&self, value: &Value, out: &mut Vec<u8>) {
        if self.optional {
            let null_first = !self.has_default();
            long(i64::from(value.is_null() != null_first), out);
            if value.is_null() {
                return;
            }
        }
        match (&self.ty, value) {
            (Type::Scalar("boolean"), Value::Bool(value)) => out.push(u8::from(*value)),
            (Type::Scalar("float"), value) => out.extend(float32(value).to_le_bytes()),
            (Type::Scalar("double"), value) => out.extend(float64(value).to_le_bytes()),
            (Type::Scalar("string"), Value::String(text)) => bytes(text.as_bytes(), out),
            (Type::Scalar("bytes"), Value::String(text)) => bytes(&from_base64(text), out),
            (Type::Scalar(_), Value::Number(number)) => long(number.as_i64().unwrap(), out),
            (Type::Array(items), Value::Array(values)) => {
                block(values.len(), out, |at, out| items.write_avro(&values[at], out));
            }
            (Type::Map(_, values), Value::Object(entries)) => {
                let entries: Vec<_> = entries.iter().collect();
                block(entries.len(), out, |at, out| {
                    bytes(entries[at].0.as_bytes(), out);
                    values.write_avro(entries[at].1, out);
                });
            }
            (Type::Map(keys, values), Value::Array(pairs)) => {
                block(pairs.len(), out, |at, out| {
                    keys.write_avro(&pairs[at][0], out);
                    values.write_avro(&pairs[at][1], out);
                });
            }
            (Type::Struct(fields), Value::Object(given)) => {
                for (name, schema) in fields {
                    schema.write_avro(given.get(name).unwrap_or(&Value::Null), out);
                }
            }
            (ty, value) => panic!("{value} is no {ty:?}"),
        }
    }

    /// How a person declares a column of this type for JSON without a schema; none where there is no word for it.
    pub(super) fn declared(&self) -> Option<String> {
        let short = self.name.as_deref().and_then(|name| {
            let (word, package) =
                PACKAGES.iter().rev().find(|(_, package)| name.starts_with(package))?;
            Some(format!("{word}{}", name.strip_prefix(package)?))
        });
        let parameter = |name: &str| self.parameters.get(name).map(String::as_str);
        Some(match (short.as_deref(), &self.ty) {
            (Some("connect.Decimal"), _) => {
                let precision = parameter("connect.decimal.precision").unwrap_or("38");
                format!("decimal({precision},{})", parameter("scale")?)
            }
            (Some("time.Date" | "connect.Date"), _) => "date".into(),
            (Some("time.Time" | "connect.Time"), _) => "time(millis)".into(),
            (Some("time.MicroTime"), _) => "time(micros)".into(),
            (Some("time.NanoTime"), _) => "time(nanos)".into(),
            (Some("time.Timestamp" | "connect.Timestamp"), _) => "timestamp(millis)".into(),
            (Some("time.MicroTimestamp"), _) => "timestamp(micros)".into(),
            (Some("time.NanoTimestamp"), _) => "timestamp(nanos)".into(),
            (Some("time.ZonedTimestamp"), _) => "timestamptz".into(),
            (Some("data.Uuid"), _) => "uuid".into(),
            (Some("data.Json"), _) => "json".into(),
            (_, Type::Scalar("boolean")) => "boolean".into(),
            (_, Type::Scalar("int8" | "int16" | "int32")) => "int".into(),
            (_, Type::Scalar("int64")) => "long".into(),
            (_, Type::Scalar("float")) => "float".into(),
            (_, Type::Scalar("double")) => "double".into(),
            (_, Type::Scalar("bytes")) => "bytes".into(),
            (_, Type::Scalar(_)) => "string".into(),
            (_, Type::Array(items)) => format!("list<{}>", items.declared()?),
            _ => return None,
        })
    }
}

/// Fields as `name type, name type`.
pub(super) fn fields(text: &str) -> Vec<(String, Schema)> {
    let field = |text: &str| {
        let text = text.trim();
        let (name, ty) = match text.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            Some(quoted) => quoted,
            None => text.split_once(' ').unwrap_or_else(|| panic!("no type: {text}")),
        };
        (name.to_owned(), Schema::parse(ty))
    };
    split(text, ',').into_iter().map(field).collect()
}

/// A scalar of JSON, or text.
fn scalar_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn unquoted(text: &str) -> &str {
    text.trim_matches('\'')
}

fn is_name(word: &str) -> bool {
    word.contains('.') && !word.contains('=')
}

fn full_name(short: &str) -> String {
    match PACKAGES.iter().find_map(|(word, package)| Some((package, short.strip_prefix(word)?))) {
        Some((package, name)) => format!("{package}{name}"),
        None => short.to_owned(),
    }
}

/// What is in the brackets that `text` starts with, and what comes after them.
fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '<' | '{' => depth += 1,
            '>' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let (inner, rest) = text.split_at(at);
            return (inner.split_at(1).1, rest.split_at(1).1);
        }
    }
    panic!("brackets that are not closed: {text}")
}

/// The parts between separators that are in no brackets and no quotes; empty ones are left out.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut quoted) = (0, false);
    let mut at_separator = |c: char| {
        match c {
            '\'' => quoted = !quoted,
            '<' | '{' => depth += 1,
            '>' | '}' => depth -= 1,
            _ => {}
        }
        c == separator && depth == 0 && !quoted
    };
    let mut parts: Vec<&str> = text.split(&mut at_separator).collect();
    parts.retain(|part| !part.trim().is_empty());
    parts
}

pub(super) fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(text).unwrap_or_else(|e| panic!("{text:?} is no base64: {e}"))
}

fn float32(value: &Value) -> f32 {
    value.to_string().trim_matches('"').parse().unwrap()
}

fn float64(value: &Value) -> f64 {
    value.to_string().trim_matches('"').parse().unwrap()
}

/// Appends a zig-zag variable-length integer.
pub(super) fn long(number: i64, out: &mut Vec<u8>) {
    let mut bits = (number << 1 ^ number >> 63).cast_unsigned();
    while bits >= 0x80 {
        out.push(bits.to_le_bytes()[0] | 0x80);
        bits >>= 7;
    }
    out.push(bits.to_le_bytes()[0]);
}

fn bytes(data: &[u8], out: &mut Vec<u8>) {
    long(i64::try_from(data.len()).unwrap(), out);
    out.extend_from_slice(data);
}

/// Appends an array or map as one block.
fn block(count: usize, out: &mut Vec<u8>, mut item: impl FnMut(usize, &mut Vec<u8>)) {
    if count > 0 {
        long(i64::try_from(count).unwrap(), out);
        (0..count).for_each(|at| item(at, out));
    }
    long(0, out);
}
