//! Types that a person declares for columns of JSON without a schema.

use std::fmt;
use std::str::FromStr;

use super::{Form, Mapped, Unit};
use crate::error::Error;
use crate::schema::{ColumnType, ListElement};

/// A column's type as a person declares it, together with the unit its numbers have on the wire.
///
/// Written `boolean`, `int`, `long`, `float`, `double`, `decimal(10,2)`, `string`, `uuid`, `json`, `bytes`, `date`,
/// `time(millis)`, `time(micros)`, `timestamp(millis)`, `timestamp(micros)`, `timestamptz`, `list<long>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredType {
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// 32-bit float.
    Float,
    /// 64-bit float.
    Double,
    /// Exact decimal, in base64 as Debezium writes it or as a number.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// Text.
    String,
    /// A UUID, stored as text.
    Uuid,
    /// A JSON document, stored as text.
    Json,
    /// Bytes in base64.
    Bytes,
    /// Days since the epoch.
    Date,
    /// A number of this unit since midnight.
    Time(Unit),
    /// A number of this unit since the epoch, on a clock without a zone.
    Timestamp(Unit),
    /// An instant, written in ISO 8601.
    TimestampTz,
    /// A list.
    List(Box<Self>),
}

const SCALARS: [(&str, DeclaredType); 17] = [
    ("boolean", DeclaredType::Boolean),
    ("int", DeclaredType::Int),
    ("long", DeclaredType::Long),
    ("float", DeclaredType::Float),
    ("double", DeclaredType::Double),
    ("string", DeclaredType::String),
    ("uuid", DeclaredType::Uuid),
    ("json", DeclaredType::Json),
    ("bytes", DeclaredType::Bytes),
    ("date", DeclaredType::Date),
    ("time(millis)", DeclaredType::Time(Unit::Millis)),
    ("time(micros)", DeclaredType::Time(Unit::Micros)),
    ("time(nanos)", DeclaredType::Time(Unit::Nanos)),
    ("timestamp(millis)", DeclaredType::Timestamp(Unit::Millis)),
    ("timestamp(micros)", DeclaredType::Timestamp(Unit::Micros)),
    ("timestamp(nanos)", DeclaredType::Timestamp(Unit::Nanos)),
    ("timestamptz", DeclaredType::TimestampTz),
];

impl DeclaredType {
    /// The column that holds it and the form it has on the wire.
    pub(in crate::decode) fn map(&self) -> Mapped {
        let (ty, form) = match self {
            Self::Boolean => (ColumnType::Boolean, Form::Boolean),
            Self::Int => (ColumnType::Int32, Form::Integer),
            Self::Long => (ColumnType::Int64, Form::Integer),
            Self::Float => (ColumnType::Float32, Form::Float),
            Self::Double => (ColumnType::Float64, Form::Double),
            Self::Decimal { precision, scale } => (
                ColumnType::Decimal { precision: *precision, scale: *scale },
                Form::Decimal { scale: *scale },
            ),
            Self::String | Self::Uuid => (ColumnType::String, Form::Text),
            Self::Json => (ColumnType::String, Form::Json),
            Self::Bytes => (ColumnType::Binary, Form::Bytes),
            Self::Date => (ColumnType::Date, Form::Days),
            Self::Time(unit) => (ColumnType::Time, Form::TimeOfDay(*unit)),
            Self::Timestamp(unit) => (ColumnType::Timestamp, Form::Instant(*unit)),
            Self::TimestampTz => (ColumnType::TimestampTz, Form::Zoned),
            Self::List(element) => {
                let Mapped { ty, form } = element.map();
                (ColumnType::List(Box::new(ListElement { id: 0, ty })), Form::List(Box::new(form)))
            }
        };
        Mapped { ty, form }
    }
}

impl FromStr for DeclaredType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if let Some((_, scalar)) = SCALARS.iter().find(|(name, _)| *name == text) {
            return Ok(scalar.clone());
        }
        if let Some(element) = text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
            return match element.parse()? {
                Self::List(_) => Err(Error::invalid("a list of lists is not supported")),
                element => Ok(Self::List(Box::new(element))),
            };
        }
        decimal(text).ok_or_else(|| {
            let names: Vec<&str> = SCALARS.iter().map(|(name, _)| *name).collect();
            Error::invalid(format!("unknown column type {text:?}"))
                .hint(format!("one of {}, decimal(10,2), list<long>", names.join(", ")))
        })
    }
}

fn decimal(text: &str) -> Option<DeclaredType> {
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    ((1..=38).contains(&precision) && scale <= precision)
        .then_some(DeclaredType::Decimal { precision, scale })
}

impl fmt::Display for DeclaredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::List(element) => write!(f, "list<{element}>"),
            scalar => {
                let found = SCALARS.iter().find(|(_, other)| other == scalar);
                f.write_str(found.map_or("", |(name, _)| name))
            }
        }
    }
}
