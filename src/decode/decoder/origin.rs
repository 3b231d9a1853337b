//! Which table a record is of: its `source` block says it, and its topic and its schema are named after it.

use serde::Deserialize;
use serde_json::Value;

use super::{Decoder, Heading, framed};
use crate::change::{Operation, SnapshotRecord, Unconfirmed};
use crate::decode::writer::Layout;
use crate::decode::{Reject, ScanError, SchemaId};
use crate::record::Record;

/// What comes first in the names of key columns that tell one table of a topic from another: Debezium's routers, which
/// put several tables into one topic, add them (`__dbz__physicalTableIdentifier`, `__dbz__sourceIdentifier`).
const ROUTED: &str = "__dbz__";
/// The end of the name of an envelope's schema; what comes before is the table's.
const ENVELOPE: &str = ".Envelope";
/// A part of the names of TimescaleDB's chunks, whose records are routed to the topic of their table.
const CHUNKS: &str = "_timescaledb_internal";

/// The table that an envelope's `source` block names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SourceTable {
    /// The connector's `topic.prefix`.
    #[serde(rename = "name")]
    pub prefix: String,
    db: Option<String>,
    schema: Option<String>,
    /// The table; none for what is of no table, as a message in the log.
    pub table: Option<String>,
    snapshot: Option<Value>,
}

impl SourceTable {
    fn read(source: &str) -> Option<Self> {
        serde_json::from_str(source).ok()
    }

    fn of_envelope(envelope: &Value) -> Option<Self> {
        let payload = envelope.get("schema").and_then(|_| envelope.get("payload"));
        Self::deserialize(payload.unwrap_or(envelope).get("source")?).ok()
    }

    /// The table's schema, and its database; connectors name topics after one of them.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        [&self.schema, &self.db].into_iter().flatten().map(String::as_str)
    }

    /// True when `name` is the table's, as Debezium names a topic: after the server, the schema or database, the table.
    fn has_name(&self, name: &str) -> bool {
        let Some(table) = &self.table else { return true };
        self.schemas()
            .map(|schema| format!("{}.{schema}.{table}", self.prefix))
            .any(|own| same(&own, name))
    }

    /// True when `name` is of a table of the same connector.
    fn is_neighbour(&self, name: &str) -> bool {
        let (own, name) = (parts(&self.prefix), parts(name));
        name.len() > own.len() && name.starts_with(&own) && !name.contains(&plain(CHUNKS))
    }
}

/// True when one of two names is the other, or ends with the other: routers add and leave out what comes first.
fn same(one: &str, other: &str) -> bool {
    let (one, other) = (parts(one), parts(other));
    one.ends_with(&other) || other.ends_with(&one)
}

/// The parts of a dotted name, each without what Debezium replaces: what it puts in its place depends on its options.
fn parts(name: &str) -> Vec<String> {
    name.split('.').map(plain).collect()
}

/// A name's letters and digits; what `_u` and four hexadecimal digits stand for is left out like any other sign.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    let mut rest = name;
    while let Some(sign) = rest.chars().next() {
        let escaped = rest.strip_prefix("_u").and_then(|code| code.get(..4)).filter(|code| {
            code.bytes().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase())
        });
        let length = if escaped.is_some() { 6 } else { sign.len_utf8() };
        plain.extend(Some(sign).filter(char::is_ascii_alphanumeric));
        rest = rest.get(length..).unwrap_or_default();
    }
    plain.make_ascii_lowercase();
    plain
}

impl Decoder {
    /// The table that the record's source block names; none when there is no such block. For single records: it reads
    /// all of one.
    pub fn source_table(&self, record: &Record<'_>) -> Result<Option<SourceTable>, ScanError> {
        let Some(value) = record.value else { return Ok(None) };
        let envelope: Option<Value> = match framed(value)? {
            Some((id, at)) => {
                let fetched = self.avro.get(&id).ok_or(ScanError::NeedsSchema(id))?;
                let json = fetched.schema.json(value, at).map_err(Reject::from)?;
                serde_json::from_str(&json).ok()
            }
            None => serde_json::from_slice(value).ok(),
        };
        Ok(envelope.as_ref().and_then(SourceTable::of_envelope))
    }

    /// The table that the heading's `source` block names, as far as it does.
    fn origin(&self, value: &[u8], writer: usize, heading: &Heading) -> Option<SourceTable> {
        let place = heading.source.clone()?;
        match &self.writers.get(writer)?.layout {
            Layout::AvroRow(layout) => {
                SourceTable::read(&layout.plan().source(value, place.start)?)
            }
            _ => SourceTable::read(std::str::from_utf8(value.get(place)?).ok()?),
        }
    }

    /// False when the topic has, or may have, records of other tables than the one that a record is of.
    pub(super) fn is_alone(
        &self,
        topic: &str,
        value: &[u8],
        writer: usize,
        heading: &Heading,
    ) -> bool {
        let origin = self.origin(value, writer, heading);
        !self.is_routed() && origin.is_none_or(|origin| origin.has_name(topic))
    }

    /// True when rows are deleted that an initial snapshot does not have: [`Change::snapshot`] is told then.
    pub fn follows_snapshots(&self) -> bool {
        self.options.unconfirmed == Unconfirmed::Delete
    }

    /// Which of an initial snapshot's records one is; none of them unless that is asked for and the topic has the
    /// records of one table.
    pub(super) fn snapshot_record(
        &self,
        topic: &str,
        value: &[u8],
        writer: usize,
        heading: &Heading,
    ) -> SnapshotRecord {
        if !self.follows_snapshots() || heading.operation != Operation::Read || self.is_routed() {
            return SnapshotRecord::None;
        }
        let origin = self.origin(value, writer, heading);
        origin.filter(|origin| origin.has_name(topic)).map_or(SnapshotRecord::None, |origin| {
            match origin.snapshot.as_ref().and_then(Value::as_str) {
                Some("first" | "first_in_data_collection") => SnapshotRecord::First,
                Some("true") => SnapshotRecord::Within,
                Some("last" | "last_in_data_collection") => SnapshotRecord::Last,
                _ => SnapshotRecord::None,
            }
        })
    }

    /// True when columns of the key tell tables of the topic apart.
    fn is_routed(&self) -> bool {
        let key = self.key.iter().flat_map(|key| &key.columns);
        key.into_iter().any(|column| column.name.starts_with(ROUTED))
    }

    /// True when the name of an envelope's schema is not that of the topic: only its records tell whether it is theirs.
    pub(super) fn is_named_otherwise(&self, schema: Option<&str>, topic: &str) -> bool {
        let table = schema.and_then(|name| name.strip_suffix(ENVELOPE));
        !self.options.any_schema_name && table.is_some_and(|table| !same(table, topic))
    }

    /// Rejects a record whose schema is named after another table of its connector than the record's own: a registry
    /// that keeps schemas under two kinds of numbers (Apicurio: `globalId` and `contentId`) was asked for the other.
    pub(super) fn check_name(
        &self,
        id: SchemaId,
        value: &[u8],
        writer: usize,
        heading: &Heading,
    ) -> Result<(), Reject> {
        let Some(fetched) = self.avro.get(&id).filter(|fetched| fetched.named_otherwise) else {
            return Ok(());
        };
        let name = fetched.schema.name().unwrap_or_default();
        let table = name.strip_suffix(ENVELOPE).unwrap_or(name);
        let origin = self.origin(value, writer, heading);
        match origin.filter(|own| !own.has_name(table) && own.is_neighbour(table)) {
            None => Ok(()),
            Some(SourceTable { table: own, .. }) => Err(Reject::new(
                "schema_mismatch",
                format!(
                    "schema {id} of the registry is {name}, and the record is of table {}: the registry may take the \
                     number for one of another kind (Apicurio's globalId and contentId); if the name is right, set \
                     option any-schema-name of the topic",
                    own.unwrap_or_default()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::own("s.public.t", "s.public.t", true)]
    #[case::without_server("s.public.t", "public.t", true)]
    #[case::table_alone("s.public.t", "t", true)]
    #[case::more_in_front("s.public.t", "lake.s.public.t", true)]
    #[case::another("s.public.t", "s.public.u", false)]
    #[case::another_schema("s.public.t", "s.private.t", false)]
    #[case::end_of_a_part("s.public.t", "s.public.at", false)]
    #[case::replaced("s.public.Mixed Case-Tbl", "s.public.Mixed_Case-Tbl", true)]
    #[case::as_avro("s-1.public.Mixed_Case-Tbl", "s_1.public.Mixed_Case_Tbl", true)]
    #[case::unicode("s.public.na\u{ef}ve-t", "s.public.na_u00efve_u002dt", true)]
    #[case::digit_first("s.public.1abc", "s.public._1abc", true)]
    fn names_are_compared_by_what_no_option_of_debezium_changes(
        #[case] one: &str,
        #[case] other: &str,
        #[case] expected: bool,
    ) {
        assert_eq!((same(one, other), same(other, one)), (expected, expected));
    }

    #[rstest]
    #[case::own("s.public.t", (true, true))]
    #[case::of_the_database("s.shop.t", (true, true))]
    #[case::another("s.public.u", (false, true))]
    #[case::another_server("z.public.u", (false, false))]
    #[case::chosen_by_hand("com.acme.Orders", (false, false))]
    #[case::chunk("s._timescaledb_internal._hyper_1_1_chunk", (false, false))]
    fn a_name_is_the_tables_or_a_neighbours_or_neither(
        #[case] name: &str,
        #[case] expected: (bool, bool),
    ) {
        let source = r#"{"name":"s","db":"shop","schema":"public","table":"t","lsn":1}"#;
        let origin = SourceTable::read(source).unwrap();
        assert_eq!((origin.has_name(name), origin.is_neighbour(name)), expected);
    }
}
