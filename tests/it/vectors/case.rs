//! What a section's file says: cases, the records they send and what must come of them. `tests/README.md` explains
//! the words.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// JSON with its schema.
    Wrapped,
    /// JSON without a schema; types of columns are declared.
    Bare,
    /// Avro with a registry.
    Avro,
}

impl Encoding {
    pub(super) const ALL: [Self; 3] = [Self::Wrapped, Self::Bare, Self::Avro];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wrapped => "wrapped",
            Self::Bare => "bare",
            Self::Avro => "avro",
        }
    }
}

/// A file: a section of the vectors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) section: String,
    pub(super) title: String,
    /// Columns of cases that do not say.
    #[serde(default)]
    columns: String,
    #[serde(default = "postgresql")]
    connector: String,
    /// True when cases also go to tables of Delta and Iceberg.
    #[serde(default)]
    lake: bool,
    pub(super) cases: Vec<Case>,
}

fn postgresql() -> String {
    "postgresql".into()
}

/// A vector.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) id: String,
    /// The vector in words.
    #[expect(dead_code, reason = "for who reads the file")]
    says: String,
    /// What the vector said otherwise, and why this is right.
    pub(super) corrected: Option<String>,
    /// What is missing for the case to pass.
    pub(super) pending: Option<Pending>,
    /// The only encodings that the vector is about, and why.
    only: Option<Only>,
    pub(super) lake: Option<bool>,
    /// The table's columns as Connect types; the key's are marked.
    #[serde(default)]
    pub(super) columns: String,
    /// The key's fields, where they are not columns.
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) connector: String,
    /// The topic, `{t}` standing for a name of its own.
    #[serde(default = "topic")]
    pub(super) topic: String,
    /// Options of the table, as in the configuration file.
    #[serde(default)]
    pub(super) table: Map<String, Value>,
    /// Other options, as in the configuration file.
    #[serde(default)]
    pub(super) options: Map<String, Value>,
    /// Types to declare for JSON without a schema where the columns' own do not say; an empty one is left to inference.
    #[serde(default)]
    pub(super) declare: BTreeMap<String, String>,
    /// How key headers are written.
    #[serde(default)]
    pub(super) headers_as: HeadersAs,
    /// False for `connect.meta.data=false`.
    #[serde(default = "yes")]
    pub(super) meta: bool,
    /// The registry answers by HTTP, at first that it has no such schema, so many times.
    pub(super) registry_misses: Option<u32>,
    #[serde(default)]
    pub(super) send: Vec<Send>,
    /// Tests that show the vector in place of records: `file::name`, and why records cannot.
    pub(super) shown_by: Option<ShownBy>,
    /// Why a replay changes the outcome.
    pub(super) no_replay: Option<String>,
    /// Why the outcome depends on where batches end: it is delivered as one batch.
    pub(super) one_batch: Option<String>,
    /// Why the outcome depends on where batches end: it is delivered record by record.
    pub(super) each_alone: Option<String>,
    #[serde(default)]
    expect: Expect,
    /// What comes out instead, by encoding.
    #[serde(default)]
    expect_in: BTreeMap<Encoding, Expect>,
}

fn topic() -> String {
    "vectors.public.{t}".into()
}

fn yes() -> bool {
    true
}

/// A value that is there, if only as null.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Pending {
    Everywhere(String),
    In(BTreeMap<Encoding, String>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    encodings: Vec<Encoding>,
    #[expect(dead_code, reason = "for who reads the file")]
    because: String,
}

/// Tests that show a vector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShownBy {
    /// Path of the file and name of the function.
    pub(super) tests: Vec<(String, String)>,
    #[expect(dead_code, reason = "for who reads the file")]
    because: String,
}

/// What happens to the process between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Restart {
    /// It is killed, with what it has not committed.
    Killed,
    /// It ends and starts again.
    Ended,
    /// It ends, and when it starts again the topic has only what is sent from then on.
    Recreated,
}

/// How the key structs in headers are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum HeadersAs {
    /// Text, as Connect's simple converter has it.
    #[default]
    Text,
    /// JSON with its schema.
    Wrapped,
    /// Framed Avro.
    Avro,
}

/// A record.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Send {
    /// No record: the process starts again here.
    pub(super) restart: Option<Restart>,
    /// The operation's code: the value is an envelope.
    pub(super) op: Option<String>,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
    /// A logical decoding message, for the operation `m`.
    pub(super) message: Option<Value>,
    /// A null value.
    pub(super) tombstone: bool,
    /// A flattened row, of the topic's columns.
    pub(super) row: Option<Value>,
    /// A null struct in place of a flattened row.
    pub(super) null_row: bool,
    /// Any other value, with its schema.
    #[serde(deserialize_with = "present")]
    pub(super) value: Option<Value>,
    pub(super) schema: Option<String>,
    /// The value's bytes, as text or as base64.
    pub(super) raw: Option<String>,
    pub(super) raw_base64: Option<String>,
    /// The value's bytes repeated so often.
    pub(super) raw_times: Option<usize>,

    /// The key's values; those of the row when it is not said.
    pub(super) key: Option<Value>,
    pub(super) keyless: bool,
    /// The key's bytes.
    pub(super) raw_key: Option<String>,
    /// A key that is one value, with its type.
    pub(super) bare_key: Option<Value>,
    pub(super) bare_key_type: Option<String>,
    /// Headers with text.
    pub(super) headers: BTreeMap<String, String>,
    /// The headers of a key change.
    pub(super) old_key: Option<Value>,
    pub(super) new_key: Option<Value>,

    /// Columns of this record, in place of the case's.
    pub(super) columns: Option<String>,
    pub(super) connector: Option<String>,
    /// Fields of the source block.
    pub(super) source: Map<String, Value>,
    /// Names of fields that envelope and source block do not have.
    pub(super) without: Vec<String>,
    /// Fields that the envelope has beside its own.
    pub(super) extra: Map<String, Value>,
    /// The envelope's fields in reverse.
    pub(super) reversed: bool,
    pub(super) transaction: Option<Value>,

    /// Encodings of value and key, in place of the run's.
    #[serde(rename = "as")]
    pub(super) encoding: Option<Encoding>,
    pub(super) key_as: Option<Encoding>,
    /// The number of another topic's schema with these columns is written in place of the own.
    pub(super) schema_of: Option<String>,
    /// Its schemas are named after this and not after the topic.
    pub(super) named: Option<String>,
    pub(super) framing: Framing,
    /// So many bytes are cut from the value's end.
    pub(super) cut: usize,
    /// Text after the value.
    pub(super) append: String,

    pub(super) topic: Option<String>,
    pub(super) partition: i32,
    pub(super) offset: Option<i64>,
    /// By how much later the record was written than by its place among the others, milliseconds.
    pub(super) later_ms: i64,
    /// The record comes so many times, `{n}` in its texts being the time.
    pub(super) times: Option<u32>,
}

/// How an Avro datum tells its schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Framing {
    /// A zero and four bytes.
    #[default]
    Confluent,
    /// A one and a GUID.
    Guid,
    /// A zero and eight bytes.
    Apicurio,
    /// In a header, as Confluent's newer serializers may do.
    Header,
}

/// What must come out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expect {
    /// The table's rows as readers see them; metadata columns only where a row names them. Not said: no table.
    pub(super) rows: Option<Vec<Map<String, Value>>>,
    /// The number of rows, where they are many.
    pub(super) count: Option<usize>,
    /// The number of rows in all tables together.
    pub(super) total: Option<usize>,
    /// Commits of the table since the last start.
    pub(super) commits: Option<u64>,
    /// Rows of tables of other topics.
    pub(super) tables: BTreeMap<String, Vec<Map<String, Value>>>,
    /// Types of columns.
    pub(super) types: BTreeMap<String, Value>,
    /// Reasons of dead letters, all of them or none with `@partition:offset`.
    pub(super) dead_letters: Vec<String>,
    /// Records that were recognised and passed over.
    pub(super) filtered: Option<u64>,
    /// A part of the reason for which the table halts.
    pub(super) halts: Option<String>,
    /// Values of metrics of the table, `name{label=value}`.
    pub(super) metrics: BTreeMap<String, f64>,
    /// What the registry was asked for, how often.
    pub(super) registry_requests: Option<usize>,
}

impl Section {
    /// The section of a file, its defaults filled into the cases.
    pub(super) fn parse(text: &str, file: &str) -> Self {
        let mut section: Self =
            serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let Self { columns, connector, lake, cases, .. } = &mut section;
        for case in cases {
            if case.columns.is_empty() {
                case.columns.clone_from(columns);
            }
            if case.connector.is_empty() {
                case.connector.clone_from(connector);
            }
            case.lake.get_or_insert(*lake);
        }
        section
    }
}

impl Case {
    pub(super) fn encodings(&self) -> Vec<Encoding> {
        match &self.only {
            Some(only) => only.encodings.clone(),
            None => Encoding::ALL.to_vec(),
        }
    }

    pub(super) fn expect(&self, encoding: Encoding) -> &Expect {
        self.expect_in.get(&encoding).unwrap_or(&self.expect)
    }

    pub(super) fn pending(&self, encoding: Encoding) -> Option<&str> {
        match self.pending.as_ref()? {
            Pending::Everywhere(what) => Some(what),
            Pending::In(what) => what.get(&encoding).map(String::as_str),
        }
    }
}
