//! Types that a person declares for columns: for JSON without a schema what nothing else tells, else another column
//! than the table of types has.

use std::fmt;
use std::str::FromStr;

use super::{Encoding, Form, MAX_PRECISION, Mapped, Unit, list_of};
use crate::error::Error;
use crate::schema::ColumnType;

/// A column's type as a person declares it, together with the form its values have in JSON without a schema.
///
/// Written `boolean`, `int`, `long`, `ulong`, `float`, `double`, `decimal(10,2)`, `numeric`, `string`, `uuid`, `json`,
/// `bytes`, `bytes(hex)`, `bytes(base64url)`, `geometry`, `date`, `date(iso)`, `time(micros)`, `time(iso)`,
/// `duration(micros)`, `timestamp(micros)`, `timestamp(iso)`, `timestamptz`, `list<long>`; `millis` and `nanos` are
/// the other units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredType {
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// 64-bit integer without a sign, which the connector writes as one with a sign; stored as a decimal.
    UnsignedLong,
    /// 32-bit float.
    Float,
    /// 64-bit float.
    Double,
    /// Exact decimal, in base64 as Debezium writes it, with its own scale, or as a number; stored as text when it has
    /// more than 38 digits.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// A decimal with its own scale, stored as text.
    Numeric,
    /// Text.
    String,
    /// A UUID, stored as text.
    Uuid,
    /// A JSON document, stored as text.
    Json,
    /// Bytes, written so.
    Bytes(Encoding),
    /// A geometry in well-known binary with its reference system, stored as bytes.
    Geometry,
    /// Days since the epoch.
    Date,
    /// A date in ISO 8601.
    IsoDate,
    /// A number of this unit since midnight.
    Time(Unit),
    /// A time in ISO 8601.
    IsoTime,
    /// A number of this unit that elapsed, below zero and beyond a day as well; stored as microseconds.
    Duration(Unit),
    /// A number of this unit since the epoch, on a clock without a zone.
    Timestamp(Unit),
    /// A timestamp in ISO 8601, on a clock without a zone.
    IsoTimestamp,
    /// An instant, written in ISO 8601.
    TimestampTz,
    /// A list.
    List(Box<Self>),
}

const SCALARS: [(&str, DeclaredType); 28] = [
    ("boolean", DeclaredType::Boolean),
    ("int", DeclaredType::Int),
    ("long", DeclaredType::Long),
    ("ulong", DeclaredType::UnsignedLong),
    ("float", DeclaredType::Float),
    ("double", DeclaredType::Double),
    ("numeric", DeclaredType::Numeric),
    ("string", DeclaredType::String),
    ("uuid", DeclaredType::Uuid),
    ("json", DeclaredType::Json),
    ("bytes", DeclaredType::Bytes(Encoding::Base64)),
    ("bytes(hex)", DeclaredType::Bytes(Encoding::Hex)),
    ("bytes(base64url)", DeclaredType::Bytes(Encoding::Base64UrlSafe)),
    ("geometry", DeclaredType::Geometry),
    ("date", DeclaredType::Date),
    ("date(iso)", DeclaredType::IsoDate),
    ("time(millis)", DeclaredType::Time(Unit::Millis)),
    ("time(micros)", DeclaredType::Time(Unit::Micros)),
    ("time(nanos)", DeclaredType::Time(Unit::Nanos)),
    ("time(iso)", DeclaredType::IsoTime),
    ("duration(millis)", DeclaredType::Duration(Unit::Millis)),
    ("duration(micros)", DeclaredType::Duration(Unit::Micros)),
    ("duration(nanos)", DeclaredType::Duration(Unit::Nanos)),
    ("timestamp(millis)", DeclaredType::Timestamp(Unit::Millis)),
    ("timestamp(micros)", DeclaredType::Timestamp(Unit::Micros)),
    ("timestamp(nanos)", DeclaredType::Timestamp(Unit::Nanos)),
    ("timestamp(iso)", DeclaredType::IsoTimestamp),
    ("timestamptz", DeclaredType::TimestampTz),
];

impl DeclaredType {
    /// The column that holds it and the form it has in JSON without a schema.
    pub(in crate::decode) fn map(&self) -> Mapped {
        let (ty, form) = match self {
            Self::Boolean => (ColumnType::Boolean, Form::Boolean),
            Self::Int => (ColumnType::Int32, Form::Integer),
            Self::Long => (ColumnType::Int64, Form::Integer),
            Self::UnsignedLong => (ColumnType::Decimal { precision: 20, scale: 0 }, Form::Unsigned),
            Self::Float => (ColumnType::Float32, Form::Float),
            Self::Double => (ColumnType::Float64, Form::Double),
            Self::Decimal { precision, scale } => {
                let ty = match u32::from(*precision) {
                    0..=MAX_PRECISION => {
                        ColumnType::Decimal { precision: *precision, scale: *scale }
                    }
                    _ => ColumnType::String,
                };
                (ty, Form::Decimal { scale: (*scale).into() })
            }
            Self::Numeric => (ColumnType::String, Form::Variable),
            Self::String | Self::Uuid => (ColumnType::String, Form::Text),
            Self::Json => (ColumnType::String, Form::Json),
            Self::Bytes(Encoding::Base64) => (ColumnType::Binary, Form::Bytes),
            Self::Bytes(encoding) => (ColumnType::Binary, Form::Encoded(*encoding)),
            Self::Geometry => (ColumnType::Binary, Form::Geometry),
            Self::Date => (ColumnType::Date, Form::Days),
            Self::IsoDate => (ColumnType::Date, Form::IsoDate),
            Self::Time(unit) => (ColumnType::Time, Form::TimeOfDay(*unit)),
            Self::IsoTime => (ColumnType::Time, Form::IsoTime),
            Self::Duration(unit) => (ColumnType::Int64, Form::TimeOfDay(*unit)),
            Self::Timestamp(unit) => (ColumnType::Timestamp, Form::Instant(*unit)),
            Self::IsoTimestamp => (ColumnType::Timestamp, Form::IsoTimestamp),
            Self::TimestampTz => (ColumnType::TimestampTz, Form::Zoned),
            Self::List(element) => {
                let Mapped { ty, form } = element.map();
                (list_of(ty), Form::List(Box::new(form)))
            }
        };
        Mapped { ty, form }
    }

    /// The column for values that a writer's schema describes, as declared; none when such values cannot be kept so.
    pub(in crate::decode) fn over(&self, told: &Mapped) -> Option<Mapped> {
        let Mapped { ty, form } = self.map();
        let form = match (self, &told.form) {
            (Self::List(element), Form::List(inner)) => {
                let ColumnType::List(told) = &told.ty else { return None };
                let inner = Mapped { ty: told.ty.clone(), form: (**inner).clone() };
                let Mapped { ty, form } = element.over(&inner)?;
                return Some(Mapped { ty: list_of(ty), form: Form::List(Box::new(form)) });
            }
            (
                Self::Decimal { .. } | Self::Numeric | Self::String,
                Form::Decimal { .. } | Form::Variable,
            )
            | (Self::Decimal { .. } | Self::Long | Self::Double, Form::Integer)
            | (Self::Double, Form::Float)
            | (Self::Time(_) | Self::Duration(_), Form::TimeOfDay(_) | Form::IsoTime)
            | (Self::Bytes(_), Form::Bytes) => told.form.clone(),
            (Self::UnsignedLong, Form::Integer) => Form::Unsigned,
            (Self::Decimal { .. }, Form::Text) => Form::Digits,
            (Self::Bytes(encoding), Form::Text) => Form::Encoded(*encoding),
            (Self::String | Self::Json, form) if is_json(form) => Form::Json,
            (Self::IsoDate | Self::IsoTimestamp, Form::Text) => form,
            _ if ty == told.ty => told.form.clone(),
            _ => return None,
        };
        Some(Mapped { ty, form })
    }
}

/// True for what comes as an object or array.
fn is_json(form: &Form) -> bool {
    matches!(form, Form::Json | Form::Geometry | Form::Structured(_) | Form::List(_))
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
    (precision > 0 && scale <= precision).then_some(DeclaredType::Decimal { precision, scale })
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
