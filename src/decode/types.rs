//! The one table from what a connector says about a value (Kafka Connect type, semantic name, parameters) to the
//! column that holds it, and the exact conversion of one into the other.
//!
//! [`table`] has the table itself, a rule for each type that Debezium writes; everything that tells about types reads
//! it there. A value is stored as the source had it or not at all: what does not fit is a [`Misfit`], which the
//! configured [`InvalidValue`] policy may turn into a null or the nearest value that fits, never silently.

use std::collections::BTreeMap;

use crate::schema::{Column, ColumnType, ListElement};

mod compound;
mod decimal;
mod declared;
mod moment;
mod policy;
mod source;
mod table;
mod values;

pub(super) use decimal::is_exact_double;
pub use declared::DeclaredType;
pub use policy::InvalidValue;
pub use source::{Database, Modes, SourceType};
pub use table::{TypeRule, rules};
pub(super) use values::store;

/// The name of Connect's decimals.
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// The digits a table's decimal can have.
const MAX_PRECISION: u32 = 38;

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

/// What a source's TIME is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Times {
    /// A time of day.
    #[default]
    OfDay,
    /// A time that elapsed, below zero and beyond a day as well: MySQL's and MariaDB's.
    Elapsed,
}

/// How a value is written on the wire, as far as its column's type does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Integer,
    /// A 64-bit integer whose first bit is no sign.
    Unsigned,
    Float,
    Double,
    /// A number whose type nobody told.
    Number,
    Text,
    /// Text that is JSON, or a value that is kept as JSON text.
    Json,
    /// Text, or any other value whose type nobody told, as text.
    Any,
    Bytes,
    /// Bytes written as text.
    Encoded(Encoding),
    /// Bits in bytes, the least significant first, leading zeros left out; `width` bytes hold all.
    Bits {
        width: usize,
    },
    /// Two's complement, big-endian, of the value times ten to the power of `scale`.
    Decimal {
        scale: i32,
    },
    /// A decimal's digits.
    Digits,
    /// A decimal with its own scale (`VariableScaleDecimal`).
    Variable,
    Days,
    TimeOfDay(Unit),
    Instant(Unit),
    Zoned,
    IsoDate,
    IsoTime,
    IsoTimestamp,
    /// A date or time as a struct of its parts (`time.precision.mode=structured`).
    Structured(Structured),
    /// A struct of a geometry in well-known binary and its reference system.
    Geometry,
    List(Box<Self>),
}

/// How bytes are written as text (`binary.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two digits a byte.
    Hex,
    /// Base64.
    Base64,
    /// Base64 with `-` and `_`.
    Base64UrlSafe,
}

/// Which parts a structured date or time has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Structured {
    Date,
    Time,
    Timestamp,
    ZonedTime,
    ZonedTimestamp,
    /// Years, months, days and so on: ISO 8601 text.
    Duration,
    /// Hours, minutes and so on: a number of microseconds.
    Elapsed,
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

/// A value as it was read.
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
    /// An object or array, as Connect's JSON.
    Json(&'a str),
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Misfit {
    pub(super) reason: &'static str,
    pub(super) what: &'static str,
    /// True for a value of the right type that the column's type does not have.
    pub(super) invalid: bool,
    /// The nearest value that the column's type has.
    pub(super) nearest: Option<Stored<'static>>,
}

impl Mapped {
    /// The type that values take in a column that is there already: decimals and times are kept as the column has
    /// them, and values that do not fit are refused one by one.
    pub(super) fn in_column(self, column: Option<&Column>) -> ColumnType {
        match (&self.form, column.map(|column| &column.ty)) {
            (Form::Variable, Some(ty @ ColumnType::Decimal { .. }))
            | (
                Form::Variable | Form::Decimal { .. } | Form::Unsigned,
                Some(ty @ ColumnType::String),
            )
            | (Form::TimeOfDay(_) | Form::IsoTime, Some(ty @ ColumnType::Time)) => ty.clone(),
            _ => self.ty,
        }
    }
}

impl Misfit {
    /// A value that is not of the column's type.
    pub(super) const fn mismatch(what: &'static str) -> Self {
        Self::new("type_mismatch", what)
    }

    /// A value that must not be there.
    pub(super) const fn new(reason: &'static str, what: &'static str) -> Self {
        Self { reason, what, invalid: false, nearest: None }
    }

    /// A value that the column's type does not have.
    pub(super) const fn invalid(reason: &'static str, what: &'static str) -> Self {
        Self { reason, what, invalid: true, nearest: None }
    }

    /// The same, with the nearest value that the type has.
    pub(super) const fn near(self, nearest: Stored<'static>) -> Self {
        Self { nearest: Some(nearest), ..self }
    }
}

impl Described {
    /// A type without a semantic name.
    pub(super) fn plain(ty: ConnectType) -> Self {
        Self { ty, name: None, parameters: BTreeMap::new() }
    }

    fn number(&self, parameter: &str) -> Option<i64> {
        self.parameters.get(parameter)?.parse().ok()
    }
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
            ColumnType::Float64 => Self::Number,
            ColumnType::Decimal { scale, .. } => Self::Decimal { scale: (*scale).into() },
            ColumnType::String => Self::Any,
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

fn list_of(element: ColumnType) -> ColumnType {
    ColumnType::List(Box::new(ListElement { id: 0, ty: element }))
}

#[cfg(test)]
mod tests;
