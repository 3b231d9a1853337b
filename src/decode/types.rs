//! The one table from what a connector says about a value (Kafka Connect type, semantic name, parameters) to the
//! column that holds it, and the exact conversion of one into the other.
//!
//! A value is stored as the source had it or not at all: what does not fit is a [`Misfit`], never rounded, clamped
//! or replaced.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::schema::{ColumnType, ListElement};

mod declared;
mod moment;

pub use declared::DeclaredType;

/// The digits a table's decimal can have.
const MAX_PRECISION: u32 = 38;

/// Name prefix of Kafka Connect's own logical types.
const CONNECT: &str = "org.apache.kafka.connect.data.";
/// Name prefix of Debezium's temporal types.
const TIME: &str = "io.debezium.time.";

/// A Kafka Connect type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectType {
    Boolean,
    /// int8, int16 and int32.
    Int32,
    Int64,
    Float32,
    Float64,
    Bytes,
    String,
    Array(Box<Described>),
    Map,
    Struct,
}

/// A Connect type with its semantic name and the parameters of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) ty: ConnectType,
    pub(super) name: Option<String>,
    pub(super) parameters: BTreeMap<String, String>,
}

/// How a value is written on the wire, as far as its column's type does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Integer,
    Float,
    Double,
    Text,
    /// Text that is JSON: a struct the connector renders has its own placeholder.
    Json,
    Bytes,
    /// Two's complement, big-endian, of the value times ten to the power of `scale`.
    Decimal {
        scale: u8,
    },
    Days,
    TimeOfDay(Unit),
    Instant(Unit),
    Zoned,
    IsoDate,
    IsoTime,
    IsoTimestamp,
    List(Box<Self>),
}

/// The unit of a number that is a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a second.
    Millis,
    /// Millionths of a second.
    Micros,
    /// Billionths of a second.
    Nanos,
}

/// The column for a value, and how the value is written on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) ty: ColumnType,
    pub(super) form: Form,
}

/// A scalar as it was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    /// A JSON number that is no 64-bit integer.
    Number(&'a str),
    Float(f32),
    Double(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A scalar as a table stores it; dates, times and timestamps are integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stored<'a> {
    Boolean(bool),
    Int32(i32),
    Int64(i64),
    Float32(f32),
    Float64(f64),
    Decimal(i128),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// Why a value cannot be stored: a reject's reason, and its explanation without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) reason: &'static str,
    pub(super) what: &'static str,
}

impl Misfit {
    pub(super) const fn range(what: &'static str) -> Self {
        Self { reason: "out_of_range", what }
    }

    pub(super) const fn mismatch(what: &'static str) -> Self {
        Self { reason: "type_mismatch", what }
    }
}

impl Described {
    /// A type without a semantic name.
    pub(super) fn plain(ty: ConnectType) -> Self {
        Self { ty, name: None, parameters: BTreeMap::new() }
    }

    /// The column for values of this type, or why there is none.
    pub(super) fn map(&self) -> Result<Mapped, String> {
        if let Some(name) = &self.name
            && let Some(mapped) = self.map_named(name)?
        {
            return Ok(mapped);
        }
        Ok(match &self.ty {
            ConnectType::Boolean => mapped(ColumnType::Boolean, Form::Boolean),
            ConnectType::Int32 => mapped(ColumnType::Int32, Form::Integer),
            ConnectType::Int64 => mapped(ColumnType::Int64, Form::Integer),
            ConnectType::Float32 => mapped(ColumnType::Float32, Form::Float),
            ConnectType::Float64 => mapped(ColumnType::Float64, Form::Double),
            ConnectType::Bytes => mapped(ColumnType::Binary, Form::Bytes),
            ConnectType::String => mapped(ColumnType::String, Form::Text),
            ConnectType::Array(element) => {
                let element = element.map()?;
                if matches!(element.form, Form::List(_)) {
                    return Err("an array of arrays".to_owned());
                }
                let ty = ColumnType::List(Box::new(ListElement { id: 0, ty: element.ty }));
                mapped(ty, Form::List(Box::new(element.form)))
            }
            ConnectType::Map => return Err(self.unsupported("a map")),
            ConnectType::Struct => return Err(self.unsupported("a struct")),
        })
    }

    /// What a semantic name adds; nothing for names that leave the physical type as it is.
    fn map_named(&self, name: &str) -> Result<Option<Mapped>, String> {
        use ConnectType as C;
        let ty = &self.ty;
        Ok(Some(match (name, ty) {
            (_, C::Bytes) if name.strip_prefix(CONNECT) == Some("Decimal") => self.decimal()?,
            ("io.debezium.data.Json", C::String) => mapped(ColumnType::String, Form::Json),
            (_, C::Struct | C::Map) => return Err(self.unsupported("a struct")),
            _ => {
                let (connect, short) = match (name.strip_prefix(CONNECT), name.strip_prefix(TIME)) {
                    (Some(short), _) => (true, short),
                    (_, Some(short)) => (false, short),
                    _ => return Ok(None),
                };
                let unit = match (connect, short) {
                    (true, _) => Unit::Millis,
                    (false, _) if short.starts_with("Micro") => Unit::Micros,
                    (false, _) if short.starts_with("Nano") => Unit::Nanos,
                    (false, _) => Unit::Millis,
                };
                match (short, ty) {
                    ("Date", C::Int32) => mapped(ColumnType::Date, Form::Days),
                    ("Time" | "MicroTime" | "NanoTime", C::Int32 | C::Int64) => {
                        mapped(ColumnType::Time, Form::TimeOfDay(unit))
                    }
                    ("Timestamp" | "MicroTimestamp" | "NanoTimestamp", C::Int64) => {
                        mapped(ColumnType::Timestamp, Form::Instant(unit))
                    }
                    ("ZonedTimestamp", C::String) => mapped(ColumnType::TimestampTz, Form::Zoned),
                    ("IsoDate", C::String) => mapped(ColumnType::Date, Form::IsoDate),
                    ("IsoTime", C::String) => mapped(ColumnType::Time, Form::IsoTime),
                    ("IsoTimestamp", C::String) => {
                        mapped(ColumnType::Timestamp, Form::IsoTimestamp)
                    }
                    _ => return Ok(None),
                }
            }
        }))
    }

    /// Without a precision (Postgres' money) any decimal of the scale may come. A scale above the precision holds
    /// values below one; it becomes the precision.
    fn decimal(&self) -> Result<Mapped, String> {
        let number =
            |name: &str| self.parameters.get(name).and_then(|text| text.parse::<i64>().ok());
        let scale = number("scale").ok_or_else(|| self.unsupported("without a scale"))?;
        let precision = number("connect.decimal.precision");
        let digits = precision.unwrap_or_else(|| i64::from(MAX_PRECISION)).max(scale);
        let (Ok(precision), Ok(scale)) = (u8::try_from(digits), u8::try_from(scale)) else {
            return Err(format!("a decimal of scale {scale}"));
        };
        if precision == 0 || u32::from(precision) > MAX_PRECISION {
            return Err(format!("a decimal of {precision} digits, more than {MAX_PRECISION}"));
        }
        Ok(mapped(ColumnType::Decimal { precision, scale }, Form::Decimal { scale }))
    }

    fn unsupported(&self, what: &str) -> String {
        self.name.clone().unwrap_or_else(|| what.to_owned())
    }
}

fn mapped(ty: ColumnType, form: Form) -> Mapped {
    Mapped { ty, form }
}

/// A column's type, for messages.
pub(super) fn type_name(ty: &ColumnType) -> String {
    let name = match ty {
        ColumnType::Boolean => "boolean",
        ColumnType::Int32 => "int",
        ColumnType::Int64 => "long",
        ColumnType::Float32 => "float",
        ColumnType::Float64 => "double",
        ColumnType::Decimal { precision, scale } => return format!("decimal({precision},{scale})"),
        ColumnType::String => "string",
        ColumnType::Binary => "bytes",
        ColumnType::Date => "date",
        ColumnType::Time => "time",
        ColumnType::Timestamp => "timestamp",
        ColumnType::TimestampTz => "timestamptz",
        ColumnType::List(element) => return format!("list<{}>", type_name(&element.ty)),
    };
    name.to_owned()
}

impl Form {
    /// How a value of a column is written when no schema and no declaration says so. None when it is ambiguous.
    pub(super) fn of_column(ty: &ColumnType) -> Option<Self> {
        Some(match ty {
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Int32 | ColumnType::Int64 => Self::Integer,
            ColumnType::Float32 => Self::Float,
            ColumnType::Float64 => Self::Double,
            ColumnType::Decimal { scale, .. } => Self::Decimal { scale: *scale },
            ColumnType::String => Self::Text,
            ColumnType::Binary => Self::Bytes,
            ColumnType::Date => Self::Days,
            ColumnType::TimestampTz => Self::Zoned,
            ColumnType::Time | ColumnType::Timestamp => return None,
            ColumnType::List(element) => Self::List(Box::new(Self::of_column(&element.ty)?)),
        })
    }
}

/// True when a column of type `table` holds every value of a writer's column of type `writer` exactly.
pub(super) fn holds(table: &ColumnType, writer: &ColumnType) -> bool {
    use ColumnType as C;
    match (table, writer) {
        (C::Int64, C::Int32)
        | (C::Float64, C::Float32 | C::Int32)
        | (C::Int32 | C::Int64, C::Boolean) => true,
        // The same column is an integer in an initial snapshot and a boolean afterwards (MySQL's BOOLEAN).
        (C::Boolean, C::Int32) => true,
        (C::Decimal { precision: p, scale: s }, C::Decimal { precision, scale }) => {
            scale <= s && precision.saturating_sub(*scale) <= p.saturating_sub(*s)
        }
        (C::List(table), C::List(writer)) => holds(&table.ty, &writer.ty),
        (table, writer) => table.same_as(writer),
    }
}

/// The value as a column of type `ty` stores it. `raw` is not null. `scratch` takes decoded bytes.
pub(super) fn store<'a>(
    raw: Raw<'a>,
    form: &Form,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    match form {
        Form::Integer => store_integer(raw, ty),
        Form::Text | Form::Json => match raw {
            Raw::Text(text) => Ok(Stored::Text(text)),
            _ => Err(Misfit::mismatch("expected text")),
        },
        Form::Boolean => store_boolean(raw, ty),
        Form::Float | Form::Double => store_float(raw, form, ty),
        Form::Bytes => Ok(Stored::Bytes(bytes(raw, scratch)?)),
        Form::Decimal { scale } => store_decimal(raw, *scale, ty, scratch),
        Form::Days => moment::days(integer(raw)?).map(Stored::Int32),
        Form::TimeOfDay(unit) => moment::time(integer(raw)?, *unit, ty).map(Stored::Int64),
        Form::Instant(unit) => moment::instant(integer(raw)?, *unit).map(Stored::Int64),
        Form::Zoned => moment::zoned(text(raw)?).map(Stored::Int64),
        Form::IsoDate => moment::iso_date(text(raw)?).map(Stored::Int32),
        Form::IsoTime => moment::iso_time(text(raw)?).map(Stored::Int64),
        Form::IsoTimestamp => moment::iso_timestamp(text(raw)?).map(Stored::Int64),
        Form::List(_) => Err(Misfit::mismatch("expected an array")),
    }
}

fn integer(raw: Raw<'_>) -> Result<i64, Misfit> {
    match raw {
        Raw::Integer(value) => Ok(value),
        _ => Err(Misfit::mismatch("expected a 64-bit integer")),
    }
}

fn text(raw: Raw<'_>) -> Result<&str, Misfit> {
    match raw {
        Raw::Text(text) => Ok(text),
        _ => Err(Misfit::mismatch("expected text")),
    }
}

fn bytes<'a>(raw: Raw<'a>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Misfit> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        Raw::Text(text) => {
            scratch.clear();
            STANDARD
                .decode_vec(text, scratch)
                .map_err(|_| Misfit::mismatch("expected bytes in base64"))?;
            Ok(scratch)
        }
        _ => Err(Misfit::mismatch("expected bytes")),
    }
}

fn store_integer(raw: Raw<'_>, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    let value = match raw {
        Raw::Boolean(value) => i64::from(value),
        raw => integer(raw)?,
    };
    match ty {
        ColumnType::Int64 => Ok(Stored::Int64(value)),
        ColumnType::Int32 => i32::try_from(value)
            .map(Stored::Int32)
            .map_err(|_| Misfit::range("an integer of more than 32 bits")),
        ColumnType::Boolean => match value {
            0 | 1 => Ok(Stored::Boolean(value == 1)),
            _ => Err(Misfit::range("an integer other than 0 and 1 in a boolean column")),
        },
        ColumnType::Float64 => exact_double(value).map(Stored::Float64),
        _ => Err(Misfit::mismatch("an integer in a column of another type")),
    }
}

/// Integers that a double holds exactly: up to 53 bits.
fn exact_double(value: i64) -> Result<f64, Misfit> {
    if value.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS {
        Ok(value as f64)
    } else {
        Err(Misfit::range("an integer of more than 53 bits in a floating-point column"))
    }
}

fn store_boolean(raw: Raw<'_>, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    match (raw, ty) {
        (Raw::Boolean(value), ColumnType::Boolean) => Ok(Stored::Boolean(value)),
        (Raw::Boolean(value), ColumnType::Int32) => Ok(Stored::Int32(value.into())),
        (Raw::Boolean(value), ColumnType::Int64) => Ok(Stored::Int64(value.into())),
        (Raw::Integer(_), _) => store_integer(raw, ty),
        _ => Err(Misfit::mismatch("expected a boolean")),
    }
}

/// A float's decimal text is read at its own width: read as a double and narrowed, or the reverse, it may change.
fn store_float(raw: Raw<'_>, form: &Form, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    const EXPECTED: Misfit = Misfit::mismatch("expected a number");
    let narrow = *form == Form::Float;
    let (single, double) = match raw {
        Raw::Float(value) => (value, f64::from(value)),
        Raw::Double(value) => (f32::NAN, value),
        Raw::Integer(value) if narrow => (value as f32, f64::from(value as f32)),
        Raw::Integer(value) => (f32::NAN, value as f64),
        Raw::Number(text) | Raw::Text(text) => {
            let named = matches!(text, "NaN" | "Infinity" | "-Infinity");
            if matches!(raw, Raw::Text(_)) && !named {
                return Err(EXPECTED);
            }
            if narrow {
                let value: f32 = text.parse().map_err(|_| EXPECTED)?;
                (value, f64::from(value))
            } else {
                (f32::NAN, text.parse().map_err(|_| EXPECTED)?)
            }
        }
        Raw::Boolean(_) | Raw::Bytes(_) | Raw::Null => return Err(EXPECTED),
    };
    match ty {
        ColumnType::Float64 => Ok(Stored::Float64(double)),
        ColumnType::Float32 if narrow && !matches!(raw, Raw::Double(_)) => {
            Ok(Stored::Float32(single))
        }
        _ => Err(Misfit::mismatch("a floating-point number in a column of another type")),
    }
}

fn store_decimal<'a>(
    raw: Raw<'a>,
    scale: u8,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    let ColumnType::Decimal { precision, scale: stored } = ty else {
        return Err(Misfit::mismatch("a decimal in a column of another type"));
    };
    let unscaled = match raw {
        Raw::Integer(value) => rescale(i128::from(value), 0, *stored)?,
        Raw::Number(text) => lexeme(text, *stored)?,
        raw => rescale(big_endian(bytes(raw, scratch)?)?, scale, *stored)?,
    };
    if unscaled.unsigned_abs() >= 10_u128.pow(u32::from(*precision)) {
        return Err(DIGITS);
    }
    Ok(Stored::Decimal(unscaled))
}

const DIGITS: Misfit = Misfit::range("a decimal with more digits than its column has");

/// Ten to the power of the difference of two scales; never down, which would round.
fn rescale(unscaled: i128, from: u8, to: u8) -> Result<i128, Misfit> {
    let up = to.checked_sub(from).ok_or(DIGITS)?;
    10_i128.checked_pow(u32::from(up)).and_then(|power| unscaled.checked_mul(power)).ok_or(DIGITS)
}

/// A two's complement number, most significant byte first. No byte at all is zero.
pub(super) fn big_endian(bytes: &[u8]) -> Result<i128, Misfit> {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut bytes = bytes;
    while let Some((first, rest)) = bytes.split_first()
        && bytes.len() > 16
    {
        if *first != sign {
            return Err(DIGITS);
        }
        bytes = rest;
    }
    let mut wide = [sign; 16];
    let start = 16 - bytes.len();
    wide.get_mut(start..).ok_or(DIGITS)?.copy_from_slice(bytes);
    let value = i128::from_be_bytes(wide);
    if (value < 0) == (sign != 0) { Ok(value) } else { Err(DIGITS) }
}

/// A JSON number times ten to the power of `scale`, when that is an integer.
fn lexeme(text: &str, scale: u8) -> Result<i128, Misfit> {
    const NOT: Misfit = Misfit::mismatch("expected a decimal number");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| NOT)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let negative = whole.starts_with('-');
    let mut digits = whole.trim_start_matches('-').bytes().chain(fraction.bytes());
    let mut value = digits.try_fold(0_i128, |value, digit| {
        let digit = i128::from(digit.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(NOT)?);
        value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(DIGITS)
    })?;
    let places = i32::try_from(fraction.len()).map_err(|_| DIGITS)?;
    let shift = i32::from(scale).saturating_add(exponent).saturating_sub(places);
    if value != 0 {
        let power = 10_i128.checked_pow(shift.unsigned_abs());
        value = match (shift >= 0, power) {
            (true, Some(power)) => value.checked_mul(power).ok_or(DIGITS)?,
            (false, Some(power)) if value % power == 0 => value / power,
            _ => return Err(DIGITS),
        };
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests;
