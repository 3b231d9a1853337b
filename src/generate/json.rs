//! Records as Kafka Connect's `JsonConverter` writes them, with the schema embedded or without.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::envelope::{DATABASE, Envelope, Image, Layout, SCHEMA, SNAPSHOT_VALUES, VERSION};
use super::shape::{Kind, SourceColumn};
use super::value::{Cell, UNAVAILABLE, decimal_bytes, key_cell};

/// The parts of a table's records that are always the same.
#[derive(Debug)]
pub(super) struct JsonTable {
    layout: Layout,
    /// What stands before a key's and a value's payload, and after both.
    key_start: String,
    value_start: String,
    end: &'static str,
    /// `"name":` of each column.
    names: Vec<String>,
    /// The `source` block up to `ts_ms`, and what follows its `ts_ns`.
    source_start: String,
    source_end: String,
}

impl JsonTable {
    /// The constant parts for the topic `<prefix>.public.<table>`.
    pub(super) fn new(layout: Layout, prefix: &str, with_schema: bool) -> Self {
        let wrap = |schema: String| format!("{{\"schema\":{schema},\"payload\":");
        let name = layout.shape.name();
        let topic = format!("{prefix}.{SCHEMA}.{name}");
        let columns = layout.shape.columns(layout.widened);
        Self {
            layout,
            key_start: if with_schema { wrap(key_schema(layout, &topic)) } else { String::new() },
            value_start: if with_schema {
                wrap(value_schema(layout, &topic))
            } else {
                String::new()
            },
            end: if with_schema { "}" } else { "" },
            names: columns.iter().map(|column| format!("\"{}\":", column.name)).collect(),
            source_start: format!(
                "\"source\":{{\"version\":\"{VERSION}\",\"connector\":\"postgresql\",\"name\":\"{prefix}\",\"ts_ms\":"
            ),
            source_end: format!(",\"schema\":\"{SCHEMA}\",\"table\":\"{name}\",\"txId\":"),
        }
    }

    /// Appends the key of the row `id`.
    pub(super) fn key(&self, id: i64, scratch: &mut String, out: &mut Vec<u8>) {
        push(out, &self.key_start);
        self.bare_key(id, scratch, out);
        push(out, self.end);
    }

    /// Appends the key without its schema, as the headers of a key change have it in every encoding.
    pub(super) fn bare_key(&self, id: i64, scratch: &mut String, out: &mut Vec<u8>) {
        let mut mark = b'{';
        for (column, name) in self.layout.shape.key_columns().iter().zip(&self.names) {
            out.push(mark);
            push(out, name);
            write_cell(key_cell(column, id, scratch), out);
            mark = b',';
        }
        out.push(b'}');
    }

    /// Appends the envelope.
    pub(super) fn value(&self, envelope: &Envelope, scratch: &mut String, out: &mut Vec<u8>) {
        push(out, &self.value_start);
        push(out, "{\"before\":");
        self.image(envelope.before.as_ref(), scratch, out);
        push(out, ",\"after\":");
        self.image(envelope.after.as_ref(), scratch, out);
        out.push(b',');
        self.source(envelope, out);
        push(out, ",\"transaction\":null,\"op\":\"");
        push(out, envelope.operation.code());
        push(out, "\",\"ts_ms\":");
        integer(envelope.processed_nanos / 1_000_000, out);
        push(out, ",\"ts_us\":");
        integer(envelope.processed_nanos / 1000, out);
        push(out, ",\"ts_ns\":");
        integer(envelope.processed_nanos, out);
        out.push(b'}');
        push(out, self.end);
    }

    fn image(&self, image: Option<&Image>, scratch: &mut String, out: &mut Vec<u8>) {
        let Some(image) = image else {
            return push(out, "null");
        };
        let mut names = self.names.iter();
        let mut mark = b'{';
        image.visit(self.layout, scratch, |_, cell| {
            out.push(mark);
            push(out, names.next().map_or("", String::as_str));
            write_cell(cell, out);
            mark = b',';
        });
        out.push(b'}');
    }

    fn source(&self, envelope: &Envelope, out: &mut Vec<u8>) {
        let source = &envelope.source;
        push(out, &self.source_start);
        integer(source.commit_micros / 1000, out);
        push(out, ",\"snapshot\":\"");
        push(out, source.snapshot);
        push(out, "\",\"db\":\"");
        push(out, DATABASE);
        push(out, "\",\"sequence\":\"[");
        if let Some(lsn) = source.committed_lsn {
            push(out, "\\\"");
            integer(lsn, out);
            push(out, "\\\"");
        } else {
            push(out, "null");
        }
        push(out, ",\\\"");
        integer(source.lsn, out);
        push(out, "\\\"]\",\"ts_us\":");
        integer(source.commit_micros, out);
        push(out, ",\"ts_ns\":");
        integer(source.commit_micros * 1000, out);
        push(out, &self.source_end);
        integer(source.transaction, out);
        push(out, ",\"lsn\":");
        integer(source.lsn, out);
        push(out, ",\"xmin\":null,\"origin\":null,\"origin_lsn\":null}");
    }
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn integer(number: i64, out: &mut Vec<u8>) {
    push(out, itoa::Buffer::new().format(number));
}

fn write_cell(cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Null => push(out, "null"),
        Cell::Bool(value) => push(out, if value { "true" } else { "false" }),
        Cell::Int(value) => integer(value, out),
        Cell::Thousandths(value) => double(value, out),
        Cell::Decimal(unscaled) => {
            let mut text = [0; 12];
            let length = STANDARD.encode_slice(decimal_bytes(&unscaled.to_be_bytes()), &mut text);
            out.push(b'"');
            out.extend(text.iter().take(length.unwrap_or_default()));
            out.push(b'"');
        }
        Cell::Text(text) | Cell::Zoned { text, .. } => quoted(text, out),
        Cell::Unavailable => quoted(UNAVAILABLE, out),
    }
}

/// Appends a double as Java writes it: the shortest text, but never without a fraction.
fn double(thousandths: i64, out: &mut Vec<u8>) {
    if thousandths < 0 {
        out.push(b'-');
    }
    let size = thousandths.unsigned_abs();
    push(out, itoa::Buffer::new().format(size / 1000));
    let fraction = size % 1000;
    push(out, ".");
    for digit in [fraction / 100, fraction / 10 % 10, fraction % 10] {
        out.push(b'0' + digit.to_le_bytes()[0]);
    }
    for _ in 0..2 {
        out.pop_if(|digit| *digit == b'0');
    }
}

/// Appends a JSON string as Jackson does: escapes only where it must, and above the basic plane.
fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(is_special)
        && let Some((plain, special)) = rest.split_at_checked(at)
    {
        push(out, plain);
        let mut letters = special.chars();
        if let Some(letter) = letters.next() {
            escaped(letter, out);
        }
        rest = letters.as_str();
    }
    push(out, rest);
    out.push(b'"');
}

/// True for a byte that starts a letter to be escaped.
fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\' || byte >= 0xf0
}

fn escaped(letter: char, out: &mut Vec<u8>) {
    match letter {
        '"' => push(out, "\\\""),
        '\\' => push(out, "\\\\"),
        '\n' => push(out, "\\n"),
        '\r' => push(out, "\\r"),
        '\t' => push(out, "\\t"),
        _ => {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                push(out, &format!("\\u{unit:04X}"));
            }
        }
    }
}

fn key_schema(layout: Layout, topic: &str) -> String {
    let fields = fields(layout.shape.key_columns());
    format!(
        "{{\"type\":\"struct\",\"fields\":[{fields}],\"optional\":false,\"name\":\"{topic}.Key\"}}"
    )
}

fn value_schema(layout: Layout, topic: &str) -> String {
    let columns = fields(layout.shape.columns(layout.widened));
    let row = |field: &str| {
        format!(
            "{{\"type\":\"struct\",\"fields\":[{columns}],\"optional\":true,\"name\":\"{topic}.Value\",\"field\":\"{field}\"}}"
        )
    };
    let transaction =
        [("string", "id"), ("int64", "total_order"), ("int64", "data_collection_order")]
            .map(|(ty, name)| plain_field(ty, false, name))
            .join(",");
    let times = ["ts_ms", "ts_us", "ts_ns"].map(|name| plain_field("int64", true, name)).join(",");
    format!(
        "{{\"type\":\"struct\",\"fields\":[{},{},{},{{\"type\":\"struct\",\"fields\":[{transaction}],\"optional\":true,\
         \"name\":\"event.block\",\"version\":1,\"field\":\"transaction\"}},{},{times}],\"optional\":false,\
         \"name\":\"{topic}.Envelope\",\"version\":2}}",
        row("before"),
        row("after"),
        source_schema(),
        plain_field("string", false, "op"),
    )
}

fn source_schema() -> String {
    let snapshot = format!(
        "{{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\"version\":1,\
         \"parameters\":{{\"allowed\":\"{SNAPSHOT_VALUES}\"}},\"default\":\"false\",\"field\":\"snapshot\"}}"
    );
    let fields = [
        plain_field("string", false, "version"),
        plain_field("string", false, "connector"),
        plain_field("string", false, "name"),
        plain_field("int64", false, "ts_ms"),
        snapshot,
        plain_field("string", false, "db"),
        plain_field("string", true, "sequence"),
        plain_field("int64", true, "ts_us"),
        plain_field("int64", true, "ts_ns"),
        plain_field("string", false, "schema"),
        plain_field("string", false, "table"),
        plain_field("int64", true, "txId"),
        plain_field("int64", true, "lsn"),
        plain_field("int64", true, "xmin"),
        plain_field("string", true, "origin"),
        plain_field("int64", true, "origin_lsn"),
    ]
    .join(",");
    format!(
        "{{\"type\":\"struct\",\"fields\":[{fields}],\"optional\":false,\
         \"name\":\"io.debezium.connector.postgresql.Source\",\"version\":1,\"field\":\"source\"}}"
    )
}

fn plain_field(ty: &str, optional: bool, name: &str) -> String {
    format!("{{\"type\":\"{ty}\",\"optional\":{optional},\"field\":\"{name}\"}}")
}

fn fields(columns: &[SourceColumn]) -> String {
    columns.iter().map(column_schema).collect::<Vec<_>>().join(",")
}

fn column_schema(column: &SourceColumn) -> String {
    let SourceColumn { name, nullable, kind } = *column;
    let semantic = |ty: &str, semantic: &str| {
        format!(
            "{{\"type\":\"{ty}\",\"optional\":{nullable},\"name\":\"{semantic}\",\"version\":1,\"field\":\"{name}\"}}"
        )
    };
    match kind {
        Kind::Int32 => plain_field("int32", nullable, name),
        Kind::Int64 => plain_field("int64", nullable, name),
        Kind::Bool => plain_field("boolean", nullable, name),
        Kind::Double => plain_field("double", nullable, name),
        Kind::Text(_) => plain_field("string", nullable, name),
        Kind::Json => semantic("string", "io.debezium.data.Json"),
        Kind::Date => semantic("int32", "io.debezium.time.Date"),
        Kind::MicroTimestamp => semantic("int64", "io.debezium.time.MicroTimestamp"),
        Kind::ZonedTimestamp => semantic("string", "io.debezium.time.ZonedTimestamp"),
        Kind::Decimal { precision, scale } => format!(
            "{{\"type\":\"bytes\",\"optional\":{nullable},\"name\":\"org.apache.kafka.connect.data.Decimal\",\"version\":1,\
             \"parameters\":{{\"scale\":\"{scale}\",\"connect.decimal.precision\":\"{precision}\"}},\"field\":\"{name}\"}}"
        ),
    }
}
