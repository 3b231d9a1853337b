//! Avro as Kafka Connect's converters write it: schemas, and reading values with the schema that wrote them.
//!
//! A schema is read here and not by a library because what Connect adds to it (`connect.name` and the like) is what
//! tells a timestamp from a number, and because a logical type that a library refuses is a plain value to Debezium.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Reject;
use super::types::Raw;

mod meaning;
mod plan;
mod render;

pub(super) use plan::{KeyLayout, RowLayout, Values};

/// Depth to which values may be nested.
const MAX_DEPTH: usize = 64;

/// An Avro schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
}

/// A node's number in its schema.
pub(super) type NodeId = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    shape: Shape,
    /// What the schema says about the type besides its shape.
    notes: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record { name: String, fields: Vec<(String, NodeId)> },
}

/// Bytes that are no value of their schema, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(&'static str);

impl From<Broken> for Reject {
    fn from(broken: Broken) -> Self {
        Self::new("malformed_avro", broken.0)
    }
}

impl Schema {
    /// Reads a schema; `references` are schemas that it names, each after those that it names itself.
    pub(super) fn parse(text: &str, references: &[String]) -> Result<Self, String> {
        let mut parser = Parser::default();
        for reference in references {
            let value: Value =
                serde_json::from_str(reference).map_err(|error| error.to_string())?;
            parser.node(&value, "")?;
        }
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let root = parser.node(&value, "")?;
        Ok(Self { nodes: parser.nodes, root })
    }

    /// The name of the record that its values are.
    pub(super) fn name(&self) -> Option<&str> {
        self.record_name(self.present(self.root)?)
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    fn shape(&self, id: NodeId) -> Result<&Shape, Broken> {
        self.nodes.get(id).map(|node| &node.shape).ok_or(Broken("a schema without an end"))
    }

    /// The fields of a record.
    fn fields(&self, id: NodeId) -> Option<&[(String, NodeId)]> {
        match &self.node(id)?.shape {
            Shape::Record { fields, .. } => Some(fields),
            _ => None,
        }
    }

    /// The value that starts at `at` as JSON text.
    pub(super) fn json(&self, bytes: &[u8], at: usize) -> Result<String, Broken> {
        let mut reader = Reader::new(bytes, at);
        let node = reader.branch(self, self.root)?;
        reader.json(self, node)
    }

    /// Where the value that starts at `at` has its first field, once it is known that it is not null.
    pub(super) fn enter(&self, bytes: &[u8], at: usize) -> Result<Option<usize>, Broken> {
        let mut reader = Reader::new(bytes, at);
        let node = reader.branch(self, self.root)?;
        Ok((*self.shape(node)? != Shape::Null).then_some(reader.at))
    }

    /// True when a value may be null.
    fn is_optional(&self, id: NodeId) -> bool {
        let null = |id: &NodeId| self.node(*id).is_some_and(|node| node.shape == Shape::Null);
        match self.node(id).map(|node| &node.shape) {
            Some(Shape::Union(branches)) => branches.iter().any(null),
            _ => null(&id),
        }
    }

    /// The one branch of a union that is not null; the node itself when it is no union.
    fn present(&self, id: NodeId) -> Option<NodeId> {
        let Shape::Union(branches) = &self.node(id)?.shape else { return Some(id) };
        let mut present = branches
            .iter()
            .copied()
            .filter(|branch| self.node(*branch).is_some_and(|node| node.shape != Shape::Null));
        present.next().filter(|_| present.next().is_none())
    }
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, NodeId>,
}

impl Parser {
    fn push(&mut self, shape: Shape, notes: Map<String, Value>) -> NodeId {
        self.nodes.push(Node { shape, notes });
        self.nodes.len() - 1
    }

    fn node(&mut self, value: &Value, namespace: &str) -> Result<NodeId, String> {
        match value {
            Value::String(name) => self.named(name, namespace, Map::new()),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.node(branch, namespace));
                let branches = branches.collect::<Result<Vec<_>, _>>()?;
                Ok(self.push(Shape::Union(branches), Map::new()))
            }
            Value::Object(object) => self.object(object, namespace),
            _ => Err("a type is neither a name, a union nor an object".to_owned()),
        }
    }

    /// A primitive type, or one that was defined before.
    fn named(
        &mut self,
        name: &str,
        namespace: &str,
        notes: Map<String, Value>,
    ) -> Result<NodeId, String> {
        let shape = match name {
            "null" => Shape::Null,
            "boolean" => Shape::Boolean,
            "int" => Shape::Int,
            "long" => Shape::Long,
            "float" => Shape::Float,
            "double" => Shape::Double,
            "bytes" => Shape::Bytes,
            "string" => Shape::String,
            name => {
                let known =
                    self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
                return known.copied().ok_or_else(|| format!("unknown type {name}"));
            }
        };
        Ok(self.push(shape, notes))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<NodeId, String> {
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(nested) => return self.node(nested, namespace),
            None => return Err("an object without a type".to_owned()),
        };
        let notes = || {
            let structure =
                ["type", "name", "namespace", "fields", "symbols", "items", "values", "doc"];
            let notes = object.iter().filter(|(name, _)| !structure.contains(&name.as_str()));
            notes.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
        };
        let part = |name: &str| object.get(name).ok_or_else(|| format!("{kind} without {name}"));
        match kind {
            "array" => {
                let items = self.node(part("items")?, namespace)?;
                Ok(self.push(Shape::Array(items), notes()))
            }
            "map" => {
                let values = self.node(part("values")?, namespace)?;
                Ok(self.push(Shape::Map(values), notes()))
            }
            "record" | "error" | "enum" | "fixed" => {
                let name = part("name")?.as_str().unwrap_or_default();
                let own = object.get("namespace").and_then(Value::as_str);
                let full = full_name(name, own.unwrap_or(namespace));
                let shape = match kind {
                    "enum" => Shape::Enum(strings(part("symbols")?)?),
                    "fixed" => {
                        let size =
                            part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                        Shape::Fixed(size.ok_or("fixed without a size")?)
                    }
                    _ => Shape::Record { name: full.clone(), fields: Vec::new() },
                };
                // Named before its fields are read, which may name it.
                let id = self.push(shape, notes());
                self.names.insert(full.clone(), id);
                if !matches!(kind, "enum" | "fixed") {
                    let space = full.rsplit_once('.').map_or("", |(space, _)| space);
                    let read = self.record_fields(part("fields")?, space)?;
                    if let Some(Node { shape: Shape::Record { fields, .. }, .. }) =
                        self.nodes.get_mut(id)
                    {
                        *fields = read;
                    }
                }
                Ok(id)
            }
            name => self.named(name, namespace, notes()),
        }
    }

    fn record_fields(
        &mut self,
        fields: &Value,
        space: &str,
    ) -> Result<Vec<(String, NodeId)>, String> {
        let fields = fields.as_array().ok_or("the fields of a record are no array")?;
        let field = |field: &Value| {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field without a name")?;
            let ty = field.get("type").ok_or_else(|| format!("field {name} without a type"))?;
            Ok((name.to_owned(), self.node(ty, space)?))
        };
        fields.iter().map(field).collect()
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        return name.to_owned();
    }
    format!("{namespace}.{name}")
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    let strings = value.as_array().ok_or("symbols are no array")?.iter();
    strings.map(|symbol| Ok(symbol.as_str().ok_or("a symbol is no text")?.to_owned())).collect()
}

/// A place in Avro bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ENDED: Broken = Broken("the bytes end within a value");

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Checks that every byte was read.
    pub(super) fn finish(self) -> Result<(), Broken> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(Broken("bytes follow the value")) }
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let end = self.at.checked_add(count).ok_or(ENDED)?;
        let taken = self.bytes.get(self.at..end).ok_or(ENDED)?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let rest = self.bytes.get(self.at..).ok_or(ENDED)?;
        let array = *rest.first_chunk::<N>().ok_or(ENDED)?;
        self.at += N;
        Ok(array)
    }

    /// A number in zigzag form, least significant seven bits first.
    #[inline]
    fn long(&mut self) -> Result<i64, Broken> {
        let mut value = 0_u64;
        let mut shift = 0;
        loop {
            let byte = *self.bytes.get(self.at).ok_or(ENDED)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(Broken("a number of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let half = i64::try_from(value >> 1).unwrap_or(i64::MAX);
                return Ok(if value & 1 == 0 { half } else { !half });
            }
            shift += 7;
        }
    }

    #[inline]
    fn size(&mut self) -> Result<usize, Broken> {
        usize::try_from(self.long()?).map_err(|_| Broken("a negative length"))
    }

    #[inline]
    fn sized(&mut self) -> Result<&'a [u8], Broken> {
        let size = self.size()?;
        self.take(size)
    }

    /// The branch of a union that comes next, or the node itself.
    #[inline]
    fn branch(&mut self, schema: &Schema, id: NodeId) -> Result<NodeId, Broken> {
        let Shape::Union(branches) = schema.shape(id)? else { return Ok(id) };
        let branch = self.size()?;
        branches.get(branch).copied().ok_or(Broken("a branch that its union does not have"))
    }

    /// A scalar of a node that is no union; none when it is no scalar, and nothing is read then.
    #[inline]
    fn scalar<'s>(&mut self, schema: &'s Schema, id: NodeId) -> Result<Option<Raw<'s>>, Broken>
    where
        'a: 's,
    {
        Ok(Some(match schema.shape(id)? {
            Shape::Null => Raw::Null,
            Shape::Boolean => match self.array::<1>()? {
                [0] => Raw::Boolean(false),
                [1] => Raw::Boolean(true),
                _ => return Err(Broken("a boolean that is neither 0 nor 1")),
            },
            Shape::Int | Shape::Long => Raw::Integer(self.long()?),
            Shape::Float => Raw::Float(f32::from_le_bytes(self.array()?)),
            Shape::Double => Raw::Double(f64::from_le_bytes(self.array()?)),
            Shape::Bytes => Raw::Bytes(self.sized()?),
            Shape::Fixed(size) => Raw::Bytes(self.take(*size)?),
            Shape::String => {
                let text = std::str::from_utf8(self.sized()?);
                Raw::Text(text.map_err(|_| Broken("text that is not UTF-8"))?)
            }
            Shape::Enum(symbols) => {
                let symbol = symbols.get(self.size()?);
                Raw::Text(symbol.ok_or(Broken("a symbol that its enum does not have"))?)
            }
            Shape::Array(_) | Shape::Map(_) | Shape::Union(_) | Shape::Record { .. } => {
                return Ok(None);
            }
        }))
    }

    /// Steps over a value.
    fn skip(&mut self, schema: &Schema, id: NodeId, depth: usize) -> Result<(), Broken> {
        match schema.shape(id)? {
            Shape::Null => {}
            Shape::Boolean => drop(self.take(1)?),
            Shape::Int | Shape::Long | Shape::Enum(_) => drop(self.long()?),
            Shape::Float => drop(self.take(4)?),
            Shape::Double => drop(self.take(8)?),
            Shape::Bytes | Shape::String => drop(self.sized()?),
            Shape::Fixed(size) => drop(self.take(*size)?),
            _ if depth == 0 => return Err(Broken("values are nested too deeply")),
            Shape::Union(_) => {
                let branch = self.branch(schema, id)?;
                self.skip(schema, branch, depth - 1)?;
            }
            Shape::Record { fields, .. } => {
                for (_, field) in fields {
                    self.skip(schema, *field, depth - 1)?;
                }
            }
            Shape::Array(item) => {
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        self.skip(schema, *item, depth - 1)?;
                    }
                }
            }
            Shape::Map(value) => {
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        self.sized()?;
                        self.skip(schema, *value, depth - 1)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The number of items in the next block of an array or map; none at its end.
    fn block(&mut self) -> Result<Option<usize>, Broken> {
        let count = self.long()?;
        if count < 0 {
            self.size()?;
        }
        let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        // An item takes a byte at least, so a count beyond the bytes is a lie that would take for ever.
        if count > self.bytes.len().saturating_sub(self.at) {
            return Err(ENDED);
        }
        Ok((count > 0).then_some(count))
    }
}

#[cfg(test)]
mod tests;
