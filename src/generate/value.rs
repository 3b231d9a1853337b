//! Values: every one is computed from its row's seed and its version, none is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike as _, Timelike as _};
use fastrand::Rng;

use super::shape::{Kind, SourceColumn, Text};

/// Debezium's mark of a value that the server's log does not carry.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// A value as a table must hold it in the end.
///
/// Without a schema the records tell only JSON's types: a decimal is then the base64 text of its bytes, a date or a
/// timestamp a number, a timestamp with time zone a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL's null.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer of any width.
    Int(i64),
    /// A double.
    Float(f64),
    /// An exact decimal.
    Decimal {
        /// All its digits.
        unscaled: i128,
        /// How many of them are after the point.
        scale: u8,
    },
    /// Text.
    String(String),
    /// Days since the epoch.
    Date(i32),
    /// Microseconds since the epoch on a clock without a zone.
    Timestamp(i64),
    /// Microseconds since the epoch, an instant.
    TimestampTz(i64),
}

/// A value on its way into a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A double, in thousandths.
    Thousandths(i64),
    /// A decimal's unscaled value.
    Decimal(i64),
    /// An instant: microseconds since the epoch, and Debezium's text of it.
    Zoned {
        micros: i64,
        text: &'a str,
    },
    Text(&'a str),
    Unavailable,
}

/// What a value is computed from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) seed: u64,
    pub(super) column: u64,
    pub(super) version: u16,
}

impl Origin {
    fn rng(self) -> Rng {
        let place = self.column << 16 | u64::from(self.version);
        let mut bits = self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ bits >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Rng::with_seed(bits ^ bits >> 32)
    }
}

/// 2025-01-01, the first instant of values.
const FIRST_MICROS: i64 = 1_735_689_600_000_000;
const FIRST_DAY: i64 = 20_089;
const YEAR_MICROS: i64 = 365 * 86_400 * 1_000_000;

/// The value of a column that is not of the key; texts are composed in `scratch`.
pub(super) fn cell<'s>(column: &SourceColumn, origin: Origin, scratch: &'s mut String) -> Cell<'s> {
    let mut rng = origin.rng();
    if column.nullable && rng.u8(..4) == 0 {
        return Cell::Null;
    }
    match column.kind {
        Kind::Int32 => Cell::Int(rng.i64(0..1000)),
        Kind::Int64 => Cell::Int(rng.i64(1000..5_000_000)),
        Kind::Bool => Cell::Bool(rng.bool()),
        Kind::Double => Cell::Thousandths(rng.i64(-1000..100_000)),
        Kind::Decimal { .. } => Cell::Decimal(rng.i64(-10_000..10_000_000)),
        Kind::Date => Cell::Int(FIRST_DAY + rng.i64(0..365)),
        Kind::MicroTimestamp => Cell::Int(FIRST_MICROS + rng.i64(0..YEAR_MICROS)),
        Kind::ZonedTimestamp => {
            let micros = FIRST_MICROS + rng.i64(0..YEAR_MICROS);
            scratch.clear();
            zoned(micros, scratch);
            Cell::Zoned { micros, text: scratch }
        }
        Kind::Text(text) => {
            scratch.clear();
            compose(text, &mut rng, scratch);
            Cell::Text(scratch)
        }
        Kind::Json => {
            scratch.clear();
            payload(&mut rng, scratch);
            Cell::Text(scratch)
        }
    }
}

/// The value of a key column of the row `id`.
pub(super) fn key_cell<'s>(column: &SourceColumn, id: i64, scratch: &'s mut String) -> Cell<'s> {
    scratch.clear();
    match column.kind {
        Kind::Text(Text::Warehouse) => {
            let city = usize::try_from(id).ok().and_then(|id| CITIES.get(id % CITIES.len()));
            scratch.push_str("warehouse ");
            scratch.push_str(city.copied().unwrap_or_default());
            Cell::Text(scratch)
        }
        Kind::Text(_) => {
            scratch.push_str("SKU-");
            padded(id, 12, scratch);
            Cell::Text(scratch)
        }
        _ => Cell::Int(id),
    }
}

/// What the server logs in place of a NOT NULL column it does not know: the type's zero.
pub(super) fn zero(kind: Kind) -> Cell<'static> {
    match kind {
        Kind::Bool => Cell::Bool(false),
        Kind::Double => Cell::Thousandths(0),
        Kind::Decimal { .. } => Cell::Decimal(0),
        Kind::ZonedTimestamp => Cell::Zoned { micros: 0, text: "1970-01-01T00:00:00.000000Z" },
        Kind::Text(_) => Cell::Text(""),
        Kind::Json => Cell::Text("{}"),
        Kind::Int32 | Kind::Int64 | Kind::Date | Kind::MicroTimestamp => Cell::Int(0),
    }
}

impl Cell<'_> {
    /// The value a table must hold, by what the records tell of its type.
    pub(super) fn value(self, kind: Kind, schema: bool) -> Value {
        match (self, kind) {
            (Self::Null | Self::Unavailable, _) => Value::Null,
            (Self::Bool(value), _) => Value::Boolean(value),
            (Self::Int(days), Kind::Date) if schema => {
                Value::Date(i32::try_from(days).unwrap_or(0))
            }
            (Self::Int(micros), Kind::MicroTimestamp) if schema => Value::Timestamp(micros),
            (Self::Int(value), _) => Value::Int(value),
            (Self::Thousandths(value), _) => Value::Float(thousandths(value)),
            (Self::Decimal(unscaled), Kind::Decimal { scale, .. }) if schema => {
                Value::Decimal { unscaled: unscaled.into(), scale }
            }
            (Self::Decimal(unscaled), _) => {
                Value::String(STANDARD.encode(decimal_bytes(&unscaled.to_be_bytes())))
            }
            (Self::Zoned { micros, .. }, _) if schema => Value::TimestampTz(micros),
            (Self::Zoned { text, .. } | Self::Text(text), _) => Value::String(text.to_owned()),
        }
    }
}

/// The double that is this many thousandths.
#[expect(clippy::cast_precision_loss, reason = "generated doubles are small")]
pub(super) fn thousandths(value: i64) -> f64 {
    value as f64 / 1000.0
}

/// The shortest big-endian two's complement of a number's bytes, as Java's `BigInteger` writes it.
pub(super) fn decimal_bytes(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest
        && let [second, ..] = tail
        && (*first == 0 && *second < 0x80 || *first == 0xff && *second >= 0x80)
    {
        rest = tail;
    }
    rest
}

/// Appends an instant as Debezium's `ZonedTimestamp`: `2025-03-01T12:00:00.123456Z`.
fn zoned(micros: i64, out: &mut String) {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    padded(i64::from(time.year()), 4, out);
    for (mark, part) in [
        ('-', time.month()),
        ('-', time.day()),
        ('T', time.hour()),
        (':', time.minute()),
        (':', time.second()),
    ] {
        out.push(mark);
        padded(i64::from(part), 2, out);
    }
    out.push('.');
    padded(i64::from(time.timestamp_subsec_micros()), 6, out);
    out.push('Z');
}

/// Appends a number with leading zeros.
fn padded(number: i64, width: usize, out: &mut String) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    for _ in digits.len()..width {
        out.push('0');
    }
    out.push_str(digits);
}

const FIRST_NAMES: &[&str] = &[
    "James",
    "Mary",
    "Zoë",
    "Patricia",
    "Jürgen",
    "Linda",
    "Michael",
    "Barbara",
    "François",
    "Susan",
    "David",
    "Jessica",
    "Wei",
    "Sarah",
    "Thomas",
    "Karen",
];
const LAST_NAMES: &[&str] = &[
    "Smith",
    "Johnson",
    "O'Brien",
    "Brown",
    "Müller",
    "Garcia",
    "Miller",
    "Davis",
    "Rodríguez",
    "Martinez",
    "Nakamura",
    "Lopez",
    "Gonzalez",
    "Wilson",
    "Anderson",
    "Thomas",
];
const CITIES: &[&str] = &[
    "Berlin",
    "Zürich",
    "New York",
    "London",
    "São Paulo",
    "Tokyo",
    "Lisbon",
    "Warsaw",
    "Madrid",
    "Austin",
];
const WORDS: &[&str] = &[
    "click",
    "view",
    "cart",
    "checkout",
    "search",
    "page",
    "item",
    "recommend",
    "user",
    "session",
    "mobile",
    "desktop",
    "campaign",
    "coupon",
    "banner",
    "scroll",
    "hover",
    "purchase",
    "refund",
    "signup",
];
const STATUSES: &[&str] = &["NEW", "PAID", "PICKING", "SHIPPED", "DELIVERED", "CANCELLED"];
const CURRENCIES: &[&str] = &["EUR", "USD", "CHF", "GBP"];
const COUNTRIES: &[&str] = &["DE", "US", "CH", "GB", "BR", "JP", "PT"];

fn pick(words: &[&'static str], rng: &mut Rng) -> &'static str {
    words.get(rng.usize(..words.len())).copied().unwrap_or_default()
}

fn compose(text: Text, rng: &mut Rng, out: &mut String) {
    match text {
        Text::FirstName => out.push_str(pick(FIRST_NAMES, rng)),
        Text::LastName => out.push_str(pick(LAST_NAMES, rng)),
        Text::FullName => {
            out.push_str(pick(FIRST_NAMES, rng));
            out.push(' ');
            out.push_str(pick(LAST_NAMES, rng));
        }
        Text::Email => {
            out.push_str(pick(WORDS, rng));
            out.push('.');
            out.push_str(pick(WORDS, rng));
            padded(rng.i64(0..100_000), 0, out);
            out.push_str("@example.com");
        }
        Text::Phone => {
            out.push_str("+49");
            padded(rng.i64(0..1_000_000_000), 9, out);
        }
        Text::OrderNumber => {
            out.push_str("ORD-2025-");
            padded(rng.i64(0..1_000_000_000), 9, out);
        }
        Text::Status => out.push_str(pick(STATUSES, rng)),
        Text::Currency => out.push_str(pick(CURRENCIES, rng)),
        Text::Street => {
            padded(rng.i64(1..1000), 0, out);
            out.push(' ');
            out.push_str(pick(WORDS, rng));
            out.push_str(" Street");
        }
        Text::City => out.push_str(pick(CITIES, rng)),
        Text::Zip => padded(rng.i64(0..100_000), 5, out),
        Text::Country => out.push_str(pick(COUNTRIES, rng)),
        Text::Notes => notes(rng, out),
        Text::Word | Text::Warehouse | Text::Sku => out.push_str(pick(WORDS, rng)),
        Text::Session => {
            hex(rng.u64(..), out);
            hex(rng.u64(..), out);
        }
    }
}

/// Free text, now and then with what a parser trips over.
fn notes(rng: &mut Rng, out: &mut String) {
    for word in 0..rng.u8(..10) {
        if word > 0 {
            out.push(' ');
        }
        out.push_str(pick(WORDS, rng));
    }
    out.push_str(match rng.u8(..32) {
        0 => " \"call first\"\nthen deliver",
        1 => " C:\\dock\\4\t\u{1f}",
        2 => " 😀 漢字",
        3 => " null",
        _ => "",
    });
}

/// About 1 KB of JSON text.
fn payload(rng: &mut Rng, out: &mut String) {
    out.push('{');
    let mut place = 0;
    while out.len() < 960 {
        out.push_str(if place > 0 { ",\"" } else { "\"" });
        out.push_str(pick(WORDS, rng));
        out.push('_');
        padded(place, 0, out);
        out.push_str("\":");
        member(rng, out);
        place += 1;
    }
    out.push('}');
}

fn member(rng: &mut Rng, out: &mut String) {
    match rng.u8(..5) {
        0 => padded(rng.i64(0..1_000_000), 0, out),
        1 => {
            out.push('"');
            out.push_str(pick(WORDS, rng));
            out.push(' ');
            out.push_str(pick(WORDS, rng));
            out.push('"');
        }
        2 => {
            out.push_str("{\"id\":\"");
            hex(rng.u64(..), out);
            out.push_str("\",\"ok\":");
            out.push_str(if rng.bool() { "true}" } else { "false}" });
        }
        3 => {
            out.push('[');
            padded(rng.i64(0..100), 0, out);
            out.push(',');
            padded(rng.i64(0..1000), 0, out);
            out.push(']');
        }
        _ => {
            out.push_str("\"https://shop.example.com/");
            out.push_str(pick(WORDS, rng));
            out.push('/');
            padded(rng.i64(0..100_000), 0, out);
            out.push('"');
        }
    }
}

fn hex(bits: u64, out: &mut String) {
    for byte in bits.to_be_bytes() {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_take_the_fewest_bytes_that_keep_the_sign() {
        for (number, bytes) in [
            (0_i64, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0, 0x80]),
            (-1, vec![0xff]),
            (-128, vec![0x80]),
            (-129, vec![0xff, 0x7f]),
            (i64::MIN, vec![0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(decimal_bytes(&number.to_be_bytes()), bytes, "{number}");
        }
    }

    #[test]
    fn an_instant_is_written_with_six_digits() {
        let mut text = String::new();
        zoned(1_709_210_096_000_456, &mut text);
        assert_eq!(text, "2024-02-29T12:34:56.000456Z");
    }
}
