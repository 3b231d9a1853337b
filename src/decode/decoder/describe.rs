//! What a decoder knows of its columns' sources, for a person who wants to know before anything is written.

use super::{Decoder, UNTOLD};
use crate::decode::outbox::EVENT_ID;
use crate::decode::types::{ConnectType, Described, Times};

/// A column as its source has it, and what the table of types says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// The column's name.
    pub name: String,
    /// Connect's type, the semantic name, the parameters; the source's own type where the connector tells it.
    pub source: String,
    /// The type that is declared for it.
    pub declared: Option<String>,
    /// How its values are kept, where the column's type does not tell.
    pub kept: &'static str,
    /// What of its values is lost; empty when nothing is.
    pub loses: &'static str,
    /// Values that the column does not have; empty when it has all.
    pub refuses: &'static str,
    /// The same for a column of plain numbers.
    pub refuses_as_number: &'static str,
}

/// Parameter with the source's own type, which connectors add when they are told to.
const SOURCE_TYPE: &str = "__debezium.source.column.type";

impl Decoder {
    /// The columns of the schemas that records came with so far, of the newest schema first; none for JSON without.
    pub fn sources(&self) -> Vec<SourceColumn> {
        let mut columns: Vec<SourceColumn> = Vec::new();
        if let Some(outbox) = &self.options.outbox {
            let text = Described::plain(ConnectType::String);
            columns.extend([EVENT_ID].into_iter().chain(outbox.columns()).map(|name| {
                SourceColumn {
                    source: outbox.source(name),
                    ..self.source_column(name, &text, Times::OfDay)
                }
            }));
        }
        for writer in self.writers.iter().skip(UNTOLD + 1).rev() {
            for field in writer.fields.iter().filter(|field| !field.added) {
                if !columns.iter().any(|column| column.name == field.name) {
                    columns.push(self.source_column(&field.name, &field.described, writer.times));
                }
            }
        }
        columns
    }

    fn source_column(&self, name: &str, described: &Described, times: Times) -> SourceColumn {
        let declared = self.options.declaration(name).map(ToString::to_string);
        let rule = described.rule();
        SourceColumn {
            name: name.to_owned(),
            source: source(described),
            kept: rule.map_or("", |rule| rule.kept),
            loses: if declared.is_some() { "" } else { loses(described, times) },
            refuses: match &declared {
                Some(declared) if declared.starts_with("decimal") => {
                    "numbers with more digits than that, NaN, infinity"
                }
                _ => refuses(described, false),
            },
            refuses_as_number: refuses(described, true),
            declared,
        }
    }
}

/// What is lost of values of a type. Types without a semantic name lose nothing but where the source's own type, or
/// that it is not known, gives reason to say so.
fn loses(described: &Described, times: Times) -> &'static str {
    let Some(rule) = described.rule() else { return "" };
    if times == Times::Elapsed && !rule.loses_mysql.is_empty() {
        return rule.loses_mysql;
    }
    let own = described.parameters.get(SOURCE_TYPE).map(|own| own.to_uppercase());
    let own_has = |words: &[&str], unknown: bool| {
        own.as_ref().map_or(unknown, |own| words.iter().any(|word| own.contains(word)))
    };
    let is_said = match &described.ty {
        _ if !rule.name.is_empty() => true,
        ConnectType::Int64 => own_has(&["BIGINT UNSIGNED", "SERIAL"], times == Times::Elapsed),
        ConnectType::String => own_has(&["BYTEA"], false),
        ConnectType::Float64 => own_has(&["NUMERIC", "DECIMAL", "MONEY"], false),
        ConnectType::Array(element) => {
            let inner = loses(element, times);
            return if inner.is_empty() { rule.loses } else { inner };
        }
        _ => false,
    };
    if is_said { rule.loses } else { "" }
}

fn refuses(described: &Described, as_number: bool) -> &'static str {
    match &described.ty {
        ConnectType::Array(element) => refuses(element, as_number),
        _ => described.rule().map_or("", |rule| rule.refuses(as_number)),
    }
}

/// `numeric: bytes org.apache.kafka.connect.data.Decimal (scale 2)`
fn source(described: &Described) -> String {
    let mut text = match described.parameters.get(SOURCE_TYPE) {
        Some(own) => format!("{}: ", own.to_lowercase()),
        None => String::new(),
    };
    match &described.ty {
        ConnectType::Array(element) => text.push_str(&format!("array of {}", source(element))),
        _ => text.push_str(described.rule().map_or("", |rule| rule.connect_type())),
    }
    if let Some(name) = &described.name {
        text.push_str(&format!(" {name}"));
    }
    let shown = |name: &&String| !name.starts_with("__debezium.") && *name != "allowed";
    let parameters: Vec<String> = described
        .parameters
        .iter()
        .filter(|(name, _)| shown(name))
        .map(|(name, value)| format!("{} {value}", name.rsplit('.').next().unwrap_or(name)))
        .collect();
    if !parameters.is_empty() {
        text.push_str(&format!(" ({})", parameters.join(", ")));
    }
    text
}
