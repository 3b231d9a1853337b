//! How records of a schema are read: worked out once per schema, followed for every record.

use std::ops::Range;
use std::sync::Arc;

use super::{Broken, MAX_DEPTH, NodeId, Reader, Schema, Shape};
use crate::decode::Reject;
use crate::decode::Row;
use crate::decode::flattened::{Added, AddedNames, Notes};
use crate::decode::key::Scalar;
use crate::decode::outbox::PAYLOAD;
use crate::decode::rows::{Elements, Filler, Route, RouteField, Target, homeless, is_partial};
use crate::decode::types::{Form, Raw, Times};
use crate::decode::writer::{Field, Kind, Layout, Writer, kind, mark_added, times};

/// How a value is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) struct Plan {
    schema: Arc<Schema>,
    /// The value's fields in their order.
    parts: Vec<(Part, NodeId)>,
    /// True when the value is a row without an envelope.
    flattened: bool,
}

/// How a row is read: its fields in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) struct RowLayout {
    plan: Plan,
    fields: Vec<NodeId>,
}

/// How a key is read: its fields in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) struct KeyLayout {
    schema: Arc<Schema>,
    fields: Vec<NodeId>,
}

/// A field of an envelope or of a flattened row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Before,
    After,
    Operation,
    /// Its fields: for each the factor to microseconds when it is the time of the commit.
    Source(Vec<(Option<i64>, NodeId)>),
    /// What was added to a flattened row.
    Added(Added),
    Other,
}

/// What the first stage reads of a value. A row without an envelope is its own `after`.
#[derive(Debug, Default)]
pub(in crate::decode) struct Head<'a> {
    pub(in crate::decode) code: Option<&'a str>,
    pub(in crate::decode) before: Option<Range<usize>>,
    pub(in crate::decode) after: Option<Range<usize>>,
    pub(in crate::decode) source: Option<Range<usize>>,
    pub(in crate::decode) source_micros: Option<i64>,
    pub(in crate::decode) notes: Notes,
}

impl Writer {
    /// The writer of values of an Avro schema.
    pub(in crate::decode) fn of_avro_value(schema: &Arc<Schema>, added: &AddedNames) -> Self {
        let node = schema.present(schema.root).unwrap_or(schema.root);
        let record = schema.fields(node);
        let root = record.unwrap_or_default();
        let has = |name: &str| root.iter().any(|(own, _)| own == name);
        let kind = match record {
            Some(_) => kind(schema.record_name(node), has),
            None => Kind::Other,
        };
        let after = || {
            let (_, node) = root.iter().find(|(name, _)| name == "after")?;
            schema.fields(schema.present(*node)?)
        };
        let flattened = matches!(kind, Kind::Row { .. });
        let columns = match kind {
            Kind::Envelope => after().unwrap_or_default(),
            Kind::Row { .. } => root,
            Kind::Skipped(_) | Kind::Untold | Kind::Event | Kind::Other => &[],
        };
        let part = |name: &str, node| match flattened {
            true => added.of(name).map_or(Part::Other, Part::Added),
            false => part(schema, name, node),
        };
        let parts = root.iter().map(|(name, node)| (part(name, *node), *node)).collect();
        let plan = Plan { schema: Arc::clone(schema), parts, flattened };
        let nodes = columns.iter().map(|(_, node)| *node).collect();
        let layout = Layout::AvroRow(RowLayout { plan, fields: nodes });
        let source = root.iter().find(|(name, _)| name == "source");
        let source = source.and_then(|(_, node)| schema.record_name(schema.present(*node)?));
        let times = times(source);
        let mut fields = fields(schema, columns, times);
        if flattened {
            mark_added(&mut fields, added);
        }
        Self { kind, times, fields, layout }
    }

    /// The writer of an outbox's events of an Avro schema: a record's fields are columns.
    pub(in crate::decode) fn of_avro_event(schema: &Arc<Schema>) -> Self {
        let times = Times::default();
        let root = schema.present(schema.root).unwrap_or(schema.root);
        let Some(columns) = schema.fields(root) else {
            let whole = [(PAYLOAD.to_owned(), schema.root)];
            let layout = KeyLayout { schema: Arc::clone(schema), fields: vec![schema.root] };
            return Self::of_event(fields(schema, &whole, times), Layout::AvroKey(layout));
        };
        let parts = columns.iter().map(|(_, node)| (Part::Other, *node)).collect();
        let plan = Plan { schema: Arc::clone(schema), parts, flattened: true };
        let nodes = columns.iter().map(|(_, node)| *node).collect();
        let layout = Layout::AvroRow(RowLayout { plan, fields: nodes });
        Self::of_event(fields(schema, columns, times), layout)
    }

    /// The writer of keys of an Avro schema.
    pub(in crate::decode) fn of_avro_key(schema: &Arc<Schema>) -> Self {
        let bare = [(String::new(), schema.root)];
        let columns = schema.fields(schema.root).unwrap_or(&bare);
        let nodes = columns.iter().map(|(_, node)| *node).collect();
        let layout = Layout::AvroKey(KeyLayout { schema: Arc::clone(schema), fields: nodes });
        let times = Times::default();
        Self { kind: Kind::Other, times, fields: fields(schema, columns, times), layout }
    }
}

fn fields(schema: &Schema, columns: &[(String, NodeId)], times: Times) -> Vec<Field> {
    let field = |(name, node): &(String, NodeId)| {
        let optional = schema.is_optional(*node);
        Field { optional, ..Field::new(name.clone(), schema.described(*node), times) }
    };
    columns.iter().map(field).collect()
}

fn part(schema: &Schema, name: &str, node: NodeId) -> Part {
    match name {
        "before" => Part::Before,
        "after" => Part::After,
        "op" => Part::Operation,
        "source" => {
            let fields = schema.present(node).and_then(|node| schema.fields(node));
            let factor = |name: &str| match name {
                "ts_us" => Some(1),
                "ts_ms" => Some(1000),
                _ => None,
            };
            let fields = fields.unwrap_or_default().iter();
            Part::Source(fields.map(|(name, node)| (factor(name), *node)).collect())
        }
        _ => Part::Other,
    }
}

impl Plan {
    /// Reads the value that starts at `at`, none when it is null, and checks that nothing follows it.
    pub(in crate::decode) fn read<'a>(
        &'a self,
        bytes: &'a [u8],
        at: usize,
    ) -> Result<Option<Head<'a>>, Reject> {
        let schema = &*self.schema;
        let mut reader = Reader::new(bytes, at);
        let root = reader.branch(schema, schema.root)?;
        if *schema.shape(root)? == Shape::Null {
            reader.finish()?;
            return Ok(None);
        }
        let body = reader.at;
        let mut head = Head::default();
        for (part, node) in &self.parts {
            let node = reader.branch(schema, *node)?;
            let start = reader.at;
            let null = *schema.shape(node)? == Shape::Null;
            match part {
                Part::Operation => {
                    if let Some(Raw::Text(code)) = reader.scalar(schema, node)? {
                        head.code = Some(code);
                        continue;
                    }
                }
                Part::Added(added) => {
                    if let Some(raw) = reader.scalar(schema, node)? {
                        head.notes.take(*added, raw)?;
                        continue;
                    }
                }
                Part::Source(fields) if !null => {
                    head.source_micros = source(&mut reader, schema, fields)?;
                    head.source = Some(start..reader.at);
                    continue;
                }
                _ => {}
            }
            if null {
                continue;
            }
            reader.skip(schema, node, MAX_DEPTH)?;
            match part {
                Part::Before => head.before = Some(start..reader.at),
                Part::After => head.after = Some(start..reader.at),
                Part::Operation | Part::Source(_) | Part::Added(_) | Part::Other => {}
            }
        }
        if self.flattened {
            head.after = Some(body..reader.at);
        }
        reader.finish()?;
        Ok(Some(head))
    }
}

impl Plan {
    /// The envelope's `source` block, which starts at `at`, as JSON.
    pub(in crate::decode) fn source(&self, bytes: &[u8], at: usize) -> Option<String> {
        let (_, node) = self.parts.iter().find(|(part, _)| matches!(part, Part::Source(_)))?;
        Reader::new(bytes, at).json(&self.schema, self.schema.present(*node)?).ok()
    }
}

/// When the source committed: microseconds if they are there, else milliseconds.
fn source(
    reader: &mut Reader<'_>,
    schema: &Schema,
    fields: &[(Option<i64>, NodeId)],
) -> Result<Option<i64>, Broken> {
    let mut found = None;
    for (factor, node) in fields {
        let Some(factor) = factor else {
            reader.skip(schema, *node, MAX_DEPTH)?;
            continue;
        };
        let node = reader.branch(schema, *node)?;
        match reader.scalar(schema, node)? {
            Some(Raw::Integer(value)) if found.is_none() || *factor == 1 => {
                found = value.checked_mul(*factor);
            }
            Some(_) => {}
            None => reader.skip(schema, node, MAX_DEPTH)?,
        }
    }
    Ok(found)
}

impl RowLayout {
    /// How the envelope around the row is read.
    pub(in crate::decode) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The values of a row that starts at `at`.
    pub(in crate::decode) fn values<'a>(&'a self, bytes: &'a [u8], at: usize) -> Values<'a> {
        Values { schema: &self.plan.schema, fields: &self.fields, reader: Reader::new(bytes, at) }
    }

    /// Decodes a row, whose fields go where `route` says, one for one.
    pub(in crate::decode) fn read(
        &self,
        filler: &mut Filler<'_>,
        index: usize,
        row: &Row<'_>,
        route: &Route,
    ) -> Result<(), Reject> {
        let schema = &*self.plan.schema;
        let partial = is_partial(row);
        let mut reader = Reader::new(row.bytes, 0);
        for (node, RouteField { name, target }) in self.fields.iter().zip(&route.fields) {
            let node = reader.branch(schema, *node)?;
            let Target::Column(column, form) = target else {
                if matches!(target, Target::Nowhere) {
                    reader.skip(schema, node, MAX_DEPTH)?;
                } else if *schema.shape(node)? != Shape::Null {
                    return Err(homeless(name, Some(target)));
                }
                continue;
            };
            match reader.scalar(schema, node)? {
                Some(raw) => filler.put(index, *column, form, raw, partial)?,
                None => match (schema.shape(node)?, form) {
                    (Shape::Array(item), Form::List(_)) => {
                        filler.put_list(index, *column, form, partial, |elements| {
                            list(&mut reader, schema, *item, elements)
                        })?;
                    }
                    _ => {
                        let json = reader.json(schema, node)?;
                        filler.put(index, *column, form, Raw::Json(&json), partial)?;
                    }
                },
            }
        }
        Ok(reader.finish()?)
    }
}

fn list(
    reader: &mut Reader<'_>,
    schema: &Schema,
    item: NodeId,
    elements: &mut Elements<'_>,
) -> Result<(), Reject> {
    while let Some(count) = reader.block()? {
        for _ in 0..count {
            let node = reader.branch(schema, item)?;
            match reader.scalar(schema, node)? {
                Some(raw) => elements.put(raw)?,
                None => elements.put(Raw::Json(&reader.json(schema, node)?))?,
            }
        }
    }
    Ok(())
}

impl KeyLayout {
    /// The key's values; the first is at `at`.
    pub(in crate::decode) fn values<'a>(&'a self, bytes: &'a [u8], at: usize) -> Values<'a> {
        Values { schema: &self.schema, fields: &self.fields, reader: Reader::new(bytes, at) }
    }
}

/// A record's values, one after the other.
#[derive(Debug)]
pub(in crate::decode) struct Values<'a> {
    schema: &'a Schema,
    fields: &'a [NodeId],
    reader: Reader<'a>,
}

impl<'a> Values<'a> {
    /// The next field's value.
    pub(in crate::decode) fn next(&mut self) -> Result<Option<Scalar<'a>>, Reject> {
        let Some((node, rest)) = self.fields.split_first() else { return Ok(None) };
        self.fields = rest;
        let node = self.reader.branch(self.schema, *node)?;
        if let Some(raw) = self.reader.scalar(self.schema, node)? {
            return Ok(Some(Scalar::Plain(raw)));
        }
        Ok(Some(Scalar::Json(self.reader.json(self.schema, node)?.into())))
    }

    /// Checks that nothing follows.
    pub(in crate::decode) fn finish(self) -> Result<(), Reject> {
        Ok(self.reader.finish()?)
    }
}
