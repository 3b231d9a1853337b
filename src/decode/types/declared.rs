//! Types that a person declares for columns: for JSON without a schema what nothing else tells, else another column
//! than the table of types has.

use std::fmt;
use std::str::FromStr;

use super::table::{bits_width, real_scale};
use super::{
    ConnectType, DECIMAL, Described, Encoding, Form, MAX_PRECISION, Mapped, Times, Unit, list_of,
};
use crate::error::Error;
use crate::schema::ColumnType;

/// A column's type as a person declares it, together with the form its values have in JSON without a schema.
///
/// Written `boolean`, `int`, `long`, `ulong`, `float`, `double`, `decimal(10,2)`, `numeric`, `string`, `uuid`, `json`,
/// `bytes`, `bytes(hex)`, `bytes(base64url)`, `bits(8)`, `geometry`, `date`, `date(iso)`, `time(micros)`, `time(iso)`,
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
        /// Digits in all; those that a negative scale stands for aside.
        precision: u16,
        /// Digits after the point; below zero as many zeros before it.
        scale: i16,
    },
    /// A decimal with its own scale, stored as text. Text that may be base64 is refused.
    Numeric,
    /// Text.
    String,
    /// A UUID, stored as text.
    Uuid,
    /// A JSON document, stored as text.
    Json,
    /// Bytes, written so.
    Bytes(Encoding),
    /// So many bits in bytes, the least significant first; stored as bytes, as many as these bits need.
    Bits(u32),
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
    /// The declaration with which JSON without a schema gives what the table of types gives for this type; none where
    /// there is no such declaration.
    pub(in crate::decode) fn of(described: &Described, times: Times) -> Option<Self> {
        if described.name.as_deref() == Some(DECIMAL) {
            return Self::decimal_of(described);
        }
        if let (ConnectType::Array(element), Mapped { form: Form::List(_), .. }) =
            (&described.ty, described.map(times))
        {
            return Some(Self::List(Box::new(Self::of(element, times)?)));
        }
        let Mapped { ty, form } = described.map(times);
        Some(match (form, ty) {
            (Form::Boolean, _) => Self::Boolean,
            (Form::Integer, ColumnType::Int32) => Self::Int,
            (Form::Integer, _) => Self::Long,
            (Form::Float, _) => Self::Float,
            (Form::Double, _) => Self::Double,
            (Form::Text, _) => Self::String,
            (Form::Json, _) => Self::Json,
            (Form::Bytes, _) => Self::Bytes(Encoding::Base64),
            (Form::Bits { .. }, _) => Self::Bits(u32::try_from(described.number("length")?).ok()?),
            (Form::Variable, _) => Self::Numeric,
            (Form::Days, _) => Self::Date,
            (Form::TimeOfDay(unit), ColumnType::Time) => Self::Time(unit),
            (Form::TimeOfDay(unit), _) => Self::Duration(unit),
            (Form::Instant(unit), _) => Self::Timestamp(unit),
            (Form::Zoned, _) => Self::TimestampTz,
            (Form::IsoDate, _) => Self::IsoDate,
            (Form::IsoTime, ColumnType::Time) => Self::IsoTime,
            (Form::IsoTimestamp, _) => Self::IsoTimestamp,
            (Form::Geometry, _) => Self::Geometry,
            _ => return None,
        })
    }

    fn decimal_of(described: &Described) -> Option<Self> {
        let scale = i16::try_from(real_scale(described.number("scale")?)).ok()?;
        let precision =
            described.number("connect.decimal.precision").unwrap_or_else(|| MAX_PRECISION.into());
        // A scale above the precision holds values below one.
        let precision = u16::try_from(precision).ok()?.max(u16::try_from(scale).unwrap_or(0));
        Some(Self::Decimal { precision, scale })
    }

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
                let zeros = scale.min(&0).unsigned_abs();
                let column = match (u8::try_from(precision + zeros), u8::try_from(*scale.max(&0))) {
                    (Ok(precision), Ok(scale)) if u32::from(precision) <= MAX_PRECISION => {
                        ColumnType::Decimal { precision, scale }
                    }
                    _ => ColumnType::String,
                };
                (column, Form::Decimal { scale: (*scale).into() })
            }
            Self::Numeric => (ColumnType::String, Form::Variable),
            Self::String | Self::Uuid => (ColumnType::String, Form::Text),
            Self::Json => (ColumnType::String, Form::Json),
            Self::Bytes(Encoding::Base64) => (ColumnType::Binary, Form::Bytes),
            Self::Bytes(encoding) => (ColumnType::Binary, Form::Encoded(*encoding)),
            Self::Bits(bits) => {
                (ColumnType::Binary, Form::Bits { width: bits_width((*bits).into()) })
            }
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
        decimal(text).or_else(|| bits(text)).ok_or_else(|| {
            let names: Vec<&str> = SCALARS.iter().map(|(name, _)| *name).collect();
            Error::invalid(format!("unknown column type {text:?}"))
                .hint(format!("one of {}, decimal(10,2), bits(8), list<long>", names.join(", ")))
        })
    }
}

fn decimal(text: &str) -> Option<DeclaredType> {
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let is_one = (1..=1000).contains(&precision)
        && (-1000..=1000).contains(&scale)
        && u16::try_from(scale).is_ok_and(|scale| scale <= precision) | (scale < 0);
    is_one.then_some(DeclaredType::Decimal { precision, scale })
}

fn bits(text: &str) -> Option<DeclaredType> {
    let bits = text.strip_prefix("bits(")?.strip_suffix(')')?.trim().parse().ok()?;
    (bits > 0).then_some(DeclaredType::Bits(bits))
}

impl fmt::Display for DeclaredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Bits(bits) => write!(f, "bits({bits})"),
            scalar => {
                let found = SCALARS.iter().find(|(_, other)| other == scalar);
                f.write_str(found.map_or("", |(name, _)| name))
            }
        }
    }
}
