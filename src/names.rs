//! From a topic's name to its table's: safe in paths and identifiers, and told apart from every other topic's.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// The longest namespace or table name, bytes.
const LONGEST: usize = 200;

/// A table's place: a namespace (a folder of the warehouse, a catalog's namespace) and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// Its namespace.
    pub namespace: String,
    /// The table's name.
    pub name: String,
}

impl TableId {
    /// The table that is named `<namespace>.<name>`, both of letters, digits, `_` and `-`, and of at most 200 bytes.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("{text:?} is no name of a table")).hint(
                "write namespace.table, of ASCII letters, digits, _ and -, each starting with a letter or digit",
            )
        };
        let is_good = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(is_plain)
                && part.len() <= LONGEST
        };
        match text.split_once('.') {
            Some((namespace, name)) if is_good(namespace) && is_good(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// A part of a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Prefix,
    Schema,
    Table,
    Topic,
}

/// Where a topic's name `<prefix>.<schema or database>.<table>` is split, as each part may have dots of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Split {
    /// Place of the dot before the schema.
    schema: usize,
    /// Place of the dot before the table.
    table: usize,
}

impl Split {
    /// Ways of splitting one name that are looked at: all that a name of nine dots has.
    pub const MOST: usize = 36;

    /// Every way to split a name, the last two dots first; none when it has fewer.
    pub fn all(topic: &str) -> impl Iterator<Item = Self> {
        let dots = move || topic.rmatch_indices('.').map(|(at, _)| at);
        dots().flat_map(move |table| {
            dots().filter(move |at| *at < table).map(move |schema| Self { schema, table })
        })
    }

    /// Where a topic's name is split when it is made of these: Debezium writes `_` for what no topic's name may have.
    /// None when they do not spell it, as when a router named the topic.
    pub fn told(topic: &str, prefix: &str, schema: &str, table: &str) -> Option<Self> {
        let [prefix, schema, table] = [prefix, schema, table].map(in_topic);
        let split = Self { schema: prefix.len(), table: prefix.len() + 1 + schema.len() };
        (format!("{prefix}.{schema}.{table}") == topic).then_some(split)
    }

    /// Prefix, schema and table.
    fn parts(self, topic: &str) -> (Option<&str>, Option<&str>, &str) {
        let table = topic.get(self.table + 1..).unwrap_or(topic);
        (topic.get(..self.schema), topic.get(self.schema + 1..self.table), table)
    }
}

/// A part as it is in a topic's name.
fn in_topic(part: &str) -> String {
    let mut name = String::with_capacity(part.len());
    for c in part.chars() {
        if is_plain(c) || c == '.' {
            name.push(c);
        } else {
            name.extend(std::iter::repeat_n('_', c.len_utf16()));
        }
    }
    name
}

/// How tables are named after their topics.
///
/// The name is the topic's: what a router sends into one topic belongs to one table whatever its source blocks say. They
/// tell only where the name is split ([`Split::told`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    namespace: Vec<Piece>,
    name: Vec<Piece>,
}

impl Naming {
    /// What is done without a template.
    pub const DEFAULT: &str = "{prefix}_{schema}.{table}";

    /// Names by a template, such as [`Self::DEFAULT`]: a namespace, a dot and a name, made of letters, digits, `_`,
    /// `-` and the parts of topic `<prefix>.<schema or database>.<table>`, of which the prefix may have dots, or the
    /// whole `{topic}`. A part that a topic lacks is left out with the text after it.
    pub fn parse(template: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::invalid(format!("option table-name: {what} in {template:?}"))
                .hint(format!("write it like the default, {}", Self::DEFAULT))
        };
        let (namespace, name) =
            template.split_once('.').ok_or_else(|| bad("no dot between namespace and table"))?;
        let (namespace, name) = (pieces(namespace), pieces(name));
        let (Some(namespace), Some(name)) = (namespace, name) else {
            return Err(bad(
                "something that is neither a letter, a digit, _, - nor {prefix}, {schema}, {table} or {topic}",
            ));
        };
        let tells = |piece: &Piece| matches!(piece, Piece::Table | Piece::Topic);
        if !namespace.iter().chain(&name).any(tells) {
            return Err(bad(
                "neither {table} nor {topic}, so that all topics would have one table",
            ));
        }
        Ok(Self { namespace, name })
    }

    /// The table of a topic whose name is split at its last two dots. What is no letter, digit, `_` or `-` is written `_xHH` (its bytes in hexadecimal); what
    /// would then start with `_` gets `x_xff` in front, as engines hide such folders.
    pub fn table(&self, topic: &str) -> TableId {
        match (Split::all(topic).next(), topic.split_once('.')) {
            (Some(split), _) => self.table_at(topic, split),
            (None, Some((schema, table))) => self.named(topic, (None, Some(schema), table)),
            (None, None) => self.named(topic, (None, None, topic)),
        }
    }

    /// The table of a topic whose name is split so.
    pub fn table_at(&self, topic: &str, split: Split) -> TableId {
        self.named(topic, split.parts(topic))
    }

    /// True when it makes a difference where a topic's name is split.
    pub fn is_ambiguous(&self, topic: &str) -> bool {
        let mut tables =
            Split::all(topic).take(Split::MOST).map(|split| self.table_at(topic, split));
        let first = tables.next();
        tables.any(|table| first.as_ref() != Some(&table))
    }

    fn named(
        &self,
        topic: &str,
        (prefix, schema, table): (Option<&str>, Option<&str>, &str),
    ) -> TableId {
        let part = |piece: &Piece| match piece {
            Piece::Text(_) => None,
            Piece::Prefix => prefix,
            Piece::Schema => schema,
            Piece::Table => Some(table),
            Piece::Topic => Some(topic),
        };
        let expand = |pieces: &[Piece]| {
            let mut out = String::new();
            let mut left_out = false;
            for piece in pieces {
                match piece {
                    Piece::Text(text) if !left_out => out.push_str(text),
                    Piece::Text(_) => {}
                    other => {
                        out.push_str(part(other).unwrap_or_default());
                        left_out = part(other).is_none();
                    }
                }
            }
            out
        };
        let namespace = match expand(&self.namespace) {
            empty if empty.is_empty() && schema.is_none() => "default".to_owned(),
            namespace => namespace,
        };
        TableId { namespace: safe(&namespace), name: safe(&expand(&self.name)) }
    }
}

/// The pieces of a part of a template; none when there is something else in it.
fn pieces(template: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (text, after) = rest.split_once('{').unwrap_or((rest, ""));
        if !text.chars().all(is_plain) {
            return None;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        if text.len() == rest.len() {
            break;
        }
        let (name, after) = after.split_once('}')?;
        pieces.push(match name {
            "prefix" => Piece::Prefix,
            "schema" => Piece::Schema,
            "table" => Piece::Table,
            "topic" => Piece::Topic,
            _ => return None,
        });
        rest = after;
    }
    (!pieces.is_empty()).then_some(pieces)
}

/// Tables by topic, each kept for one topic only.
#[derive(Debug, Default)]
pub struct Registrar {
    topics: Mutex<HashMap<TableId, Arc<str>>>,
}

impl Registrar {
    /// Keeps `table` for `topic`; an error when another topic has it already, whatever the case of its letters.
    pub fn claim(&self, topic: &Arc<str>, table: TableId) -> Result<TableId> {
        let folded =
            TableId { namespace: table.namespace.to_lowercase(), name: table.name.to_lowercase() };
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = topics.entry(folded).or_insert_with(|| Arc::clone(topic));
        if owner != topic {
            return Err(Error::invalid(format!(
                "topics {owner} and {topic} would both feed the table {table}"
            ))
            .hint(
                "leave one of them out of option topics, or name its table by tables.<topic>.name",
            ));
        }
        Ok(table)
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// A name for paths and identifiers. Different texts have different names.
fn safe(text: &str) -> String {
    let name = escaped(text);
    // No text has a byte ff.
    let name = if name.is_empty() || name.starts_with('_') { format!("x_xff{name}") } else { name };
    // A long name is cut and told apart by a hash of the whole.
    match name.get(..LONGEST) {
        Some(start) if name.len() > LONGEST => {
            let hash = blake3::hash(name.as_bytes()).to_hex();
            format!("{start}_{}", hash.get(..16).unwrap_or_default())
        }
        _ => name,
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if is_plain(c) && !text.get(at..).is_some_and(looks_escaped) {
            out.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("_x{byte:02x}"));
            }
        }
    }
    out
}

fn looks_escaped(text: &str) -> bool {
    let digits = text.strip_prefix("_x").unwrap_or_default().bytes().take(2);
    digits.filter(u8::is_ascii_hexdigit).count() == 2
}

#[cfg(test)]
mod tests;
