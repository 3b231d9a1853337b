//! Records as Confluent's `AvroConverter` writes them: a zero byte, the schema's id, Avro.

use super::envelope::{DATABASE, Envelope, Image, Layout, SCHEMA, SNAPSHOT_VALUES, VERSION};
use super::shape::{Kind, SourceColumn};
use super::value::{Cell, UNAVAILABLE, decimal_bytes, key_cell, thousandths};

/// A schema that a registry must serve for the records to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The subject: the topic with `-key` or `-value`.
    pub name: String,
    /// The Avro schema.
    pub schema: String,
}

/// The parts of a table's records that are always the same.
#[derive(Debug)]
pub(super) struct AvroTable {
    layout: Layout,
    prefix: String,
    /// The schema id of keys.
    pub(super) key_id: u32,
    /// The schema id of values.
    pub(super) value_id: u32,
}

impl AvroTable {
    /// The constant parts for the topic `<prefix>.public.<table>`.
    pub(super) fn new(layout: Layout, prefix: &str, key_id: u32, value_id: u32) -> Self {
        Self { layout, prefix: prefix.to_owned(), key_id, value_id }
    }

    /// Appends the key of the row `id`.
    pub(super) fn key(&self, id: i64, scratch: &mut String, out: &mut Vec<u8>) {
        frame(self.key_id, out);
        for column in self.layout.shape.key_columns() {
            write_cell(key_cell(column, id, scratch), column, out);
        }
    }

    /// Appends the envelope.
    pub(super) fn value(&self, envelope: &Envelope, scratch: &mut String, out: &mut Vec<u8>) {
        frame(self.value_id, out);
        self.image(envelope.before.as_ref(), scratch, out);
        self.image(envelope.after.as_ref(), scratch, out);
        self.source(envelope, scratch, out);
        long(0, out); // no transaction block
        bytes(envelope.operation.code().as_bytes(), out);
        for divisor in [1_000_000, 1000, 1] {
            some_long(envelope.processed_nanos / divisor, out);
        }
    }

    fn image(&self, image: Option<&Image>, scratch: &mut String, out: &mut Vec<u8>) {
        long(i64::from(image.is_some()), out);
        if let Some(image) = image {
            image.visit(self.layout, scratch, |column, cell| write_cell(cell, column, out));
        }
    }

    fn source(&self, envelope: &Envelope, scratch: &mut String, out: &mut Vec<u8>) {
        let source = &envelope.source;
        for text in [VERSION, "postgresql", &self.prefix] {
            bytes(text.as_bytes(), out);
        }
        long(source.commit_micros / 1000, out);
        long(0, out);
        bytes(source.snapshot.as_bytes(), out);
        bytes(DATABASE.as_bytes(), out);
        sequence(source.committed_lsn, source.lsn, scratch);
        long(1, out);
        bytes(scratch.as_bytes(), out);
        some_long(source.commit_micros, out);
        some_long(source.commit_micros * 1000, out);
        bytes(SCHEMA.as_bytes(), out);
        bytes(self.layout.shape.name().as_bytes(), out);
        some_long(source.transaction, out);
        some_long(source.lsn, out);
        for _absent in ["xmin", "origin", "origin_lsn"] {
            long(0, out);
        }
    }
}

/// `["committed","lsn"]`, as the connector writes its place in the log.
fn sequence(committed: Option<i64>, lsn: i64, out: &mut String) {
    out.clear();
    if let Some(committed) = committed {
        out.push_str("[\"");
        out.push_str(itoa::Buffer::new().format(committed));
        out.push('"');
    } else {
        out.push_str("[null");
    }
    out.push_str(",\"");
    out.push_str(itoa::Buffer::new().format(lsn));
    out.push_str("\"]");
}

fn frame(id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

/// Appends a zig-zag variable-length integer.
fn long(number: i64, out: &mut Vec<u8>) {
    let mut bits = (number << 1 ^ number >> 63).cast_unsigned();
    while bits >= 0x80 {
        out.push(bits.to_le_bytes()[0] | 0x80);
        bits >>= 7;
    }
    out.push(bits.to_le_bytes()[0]);
}

fn some_long(number: i64, out: &mut Vec<u8>) {
    long(1, out);
    long(number, out);
}

fn bytes(data: &[u8], out: &mut Vec<u8>) {
    long(i64::try_from(data.len()).unwrap_or(i64::MAX), out);
    out.extend_from_slice(data);
}

fn write_cell(cell: Cell<'_>, column: &SourceColumn, out: &mut Vec<u8>) {
    if column.nullable {
        long(i64::from(cell != Cell::Null), out);
    }
    match cell {
        Cell::Null => {}
        Cell::Bool(value) => out.push(u8::from(value)),
        Cell::Int(value) => long(value, out),
        Cell::Thousandths(value) => out.extend_from_slice(&thousandths(value).to_le_bytes()),
        Cell::Decimal(unscaled) => bytes(decimal_bytes(&unscaled.to_be_bytes()), out),
        Cell::Text(text) | Cell::Zoned { text, .. } => bytes(text.as_bytes(), out),
        Cell::Unavailable => bytes(UNAVAILABLE.as_bytes(), out),
    }
}

/// The subject of a table's keys.
pub(super) fn key_subject(layout: Layout, prefix: &str) -> Subject {
    let topic = format!("{prefix}.{SCHEMA}.{}", layout.shape.name());
    let fields = fields(layout.shape.key_columns());
    Subject {
        schema: format!(
            "{{\"type\":\"record\",\"name\":\"Key\",\"namespace\":\"{topic}\",\"fields\":[{fields}],\
             \"connect.name\":\"{topic}.Key\"}}"
        ),
        name: format!("{topic}-key"),
    }
}

/// The subject of a table's values.
pub(super) fn value_subject(layout: Layout, prefix: &str) -> Subject {
    let topic = format!("{prefix}.{SCHEMA}.{}", layout.shape.name());
    let columns = fields(layout.shape.columns(layout.widened));
    let row = format!(
        "{{\"type\":\"record\",\"name\":\"Value\",\"fields\":[{columns}],\"connect.name\":\"{topic}.Value\"}}"
    );
    let transaction = "{\"type\":\"record\",\"name\":\"block\",\"namespace\":\"event\",\"fields\":[\
        {\"name\":\"id\",\"type\":\"string\"},{\"name\":\"total_order\",\"type\":\"long\"},\
        {\"name\":\"data_collection_order\",\"type\":\"long\"}],\"connect.version\":1,\"connect.name\":\"event.block\"}";
    let envelope = [
        optional_field("before", &row),
        optional_field("after", "\"Value\""),
        format!("{{\"name\":\"source\",\"type\":{}}}", source_schema()),
        optional_field("transaction", transaction),
        required_field("op", "\"string\""),
        optional_field("ts_ms", "\"long\""),
        optional_field("ts_us", "\"long\""),
        optional_field("ts_ns", "\"long\""),
    ]
    .join(",");
    Subject {
        schema: format!(
            "{{\"type\":\"record\",\"name\":\"Envelope\",\"namespace\":\"{topic}\",\"fields\":[{envelope}],\
             \"connect.version\":2,\"connect.name\":\"{topic}.Envelope\"}}"
        ),
        name: format!("{topic}-value"),
    }
}

fn source_schema() -> String {
    let snapshot = format!(
        "{{\"name\":\"snapshot\",\"type\":[{{\"type\":\"string\",\"connect.version\":1,\
         \"connect.parameters\":{{\"allowed\":\"{SNAPSHOT_VALUES}\"}},\"connect.default\":\"false\",\
         \"connect.name\":\"io.debezium.data.Enum\"}},\"null\"],\"default\":\"false\"}}"
    );
    let fields = [
        required_field("version", "\"string\""),
        required_field("connector", "\"string\""),
        required_field("name", "\"string\""),
        required_field("ts_ms", "\"long\""),
        snapshot,
        required_field("db", "\"string\""),
        optional_field("sequence", "\"string\""),
        optional_field("ts_us", "\"long\""),
        optional_field("ts_ns", "\"long\""),
        required_field("schema", "\"string\""),
        required_field("table", "\"string\""),
        optional_field("txId", "\"long\""),
        optional_field("lsn", "\"long\""),
        optional_field("xmin", "\"long\""),
        optional_field("origin", "\"string\""),
        optional_field("origin_lsn", "\"long\""),
    ]
    .join(",");
    format!(
        "{{\"type\":\"record\",\"name\":\"Source\",\"namespace\":\"io.debezium.connector.postgresql\",\
         \"fields\":[{fields}],\"connect.version\":1,\"connect.name\":\"io.debezium.connector.postgresql.Source\"}}"
    )
}

fn required_field(name: &str, ty: &str) -> String {
    format!("{{\"name\":\"{name}\",\"type\":{ty}}}")
}

fn optional_field(name: &str, ty: &str) -> String {
    format!("{{\"name\":\"{name}\",\"type\":[\"null\",{ty}],\"default\":null}}")
}

fn fields(columns: &[SourceColumn]) -> String {
    let field = |column: &SourceColumn| {
        let ty = column_type(column.kind);
        if column.nullable {
            optional_field(column.name, &ty)
        } else {
            required_field(column.name, &ty)
        }
    };
    columns.iter().map(field).collect::<Vec<_>>().join(",")
}

fn column_type(kind: Kind) -> String {
    let semantic = |ty: &str, name: &str| {
        format!("{{\"type\":\"{ty}\",\"connect.version\":1,\"connect.name\":\"{name}\"}}")
    };
    match kind {
        Kind::Int32 => "\"int\"".to_owned(),
        Kind::Int64 => "\"long\"".to_owned(),
        Kind::Bool => "\"boolean\"".to_owned(),
        Kind::Double => "\"double\"".to_owned(),
        Kind::Text(_) => "\"string\"".to_owned(),
        Kind::Json => semantic("string", "io.debezium.data.Json"),
        Kind::Date => semantic("int", "io.debezium.time.Date"),
        Kind::MicroTimestamp => semantic("long", "io.debezium.time.MicroTimestamp"),
        Kind::ZonedTimestamp => semantic("string", "io.debezium.time.ZonedTimestamp"),
        Kind::Decimal { precision, scale } => format!(
            "{{\"type\":\"bytes\",\"scale\":{scale},\"precision\":{precision},\"connect.version\":1,\
             \"connect.parameters\":{{\"scale\":\"{scale}\",\"connect.decimal.precision\":\"{precision}\"}},\
             \"connect.name\":\"org.apache.kafka.connect.data.Decimal\",\"logicalType\":\"decimal\"}}"
        ),
    }
}
