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
    /// `<prefix>_<schema or database>`.
    pub namespace: String,
    /// The table's name.
    pub name: String,
}

impl TableId {
    /// The table of topic `<prefix>.<schema or database>.<table>`. What is no letter, digit, `_` or `-` is written
    /// `_xHH` (its bytes in hexadecimal), and so is a first `_`, as engines hide such folders.
    pub fn of_topic(topic: &str) -> Self {
        let parts: Vec<&str> = topic.split('.').collect();
        let (namespace, name) = match parts.as_slice() {
            [prefix @ .., schema, table] if !prefix.is_empty() => {
                (format!("{}_{}", safe(&prefix.join(".")), safe_inner(schema)), safe(table))
            }
            [schema, table] => (safe(schema), safe(table)),
            _ => ("default".to_owned(), safe(topic)),
        };
        Self { namespace: shortened(namespace), name: shortened(name) }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// Tables by topic, each kept for one topic only.
#[derive(Debug, Default)]
pub struct Registrar {
    topics: Mutex<HashMap<TableId, Arc<str>>>,
}

impl Registrar {
    /// The table of `topic`; an error when another topic has it already, whatever the case of its letters.
    pub fn claim(&self, topic: &Arc<str>) -> Result<TableId> {
        let table = TableId::of_topic(topic);
        let folded =
            TableId { namespace: table.namespace.to_lowercase(), name: table.name.to_lowercase() };
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = topics.entry(folded).or_insert_with(|| Arc::clone(topic));
        if owner != topic {
            return Err(Error::invalid(format!(
                "topics {owner} and {topic} would both feed the table {table}"
            ))
            .hint("leave one of them out of option topics"));
        }
        Ok(table)
    }
}

/// A name that starts a path segment.
fn safe(name: &str) -> String {
    match name.strip_prefix('_') {
        Some(rest) => format!("x_x5f{}", safe_inner(rest)),
        None if name.is_empty() => "x_x".to_owned(),
        None => safe_inner(name),
    }
}

fn safe_inner(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let looks_escaped = c == '_' && name.get(at..).is_some_and(|rest| rest.starts_with("_x"));
        if (c.is_ascii_alphanumeric() || c == '-' || c == '_') && !looks_escaped {
            out.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("_x{byte:02x}"));
            }
        }
    }
    out
}

/// A long name is cut and told apart by a hash of the whole.
fn shortened(name: String) -> String {
    match name.get(..LONGEST) {
        None => name,
        Some(start) => {
            let hash = blake3::hash(name.as_bytes()).to_hex();
            format!("{start}_{}", hash.get(..16).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(topic: &str) -> String {
        TableId::of_topic(topic).to_string()
    }

    #[test]
    fn a_topic_names_its_table() {
        assert_eq!(table("shop.public.orders"), "shop_public.orders");
        assert_eq!(table("eu.shop.public.order_items"), "eu_x2eshop_public.order_items");
        assert_eq!(table("orders"), "default.orders");
        assert_eq!(table("shop.public.Mixed Case"), "shop_public.Mixed_x20Case");
        assert_eq!(table("shop.public._delta_log"), "shop_public.x_x5fdelta_log");
        assert_eq!(table("shop.public.a_xb"), "shop_public.a_x5fxb");
    }

    #[test]
    fn one_table_has_one_topic() {
        let registrar = Registrar::default();
        let claim = |topic: &str| registrar.claim(&topic.into());
        assert!(claim("a.b_c.t").is_ok());
        assert!(claim("a.b_c.t").is_ok());
        let error = claim("a_b.c.t").unwrap_err().report();
        assert!(error.contains("a.b_c.t") && error.contains("a_b.c.t"), "{error}");
        assert!(claim("a.b_c.T").is_err());
    }
}
