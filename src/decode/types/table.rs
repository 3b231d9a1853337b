//! The table of types, as data: a rule for each Connect type and semantic name that Debezium writes.

use std::sync::LazyLock;

use super::{
    ConnectType, DECIMAL, Described, Form, MAX_PRECISION, Mapped, Structured, Times, Unit, list_of,
};
use crate::schema::ColumnType;

/// A Connect type without what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Physical {
    Boolean,
    Int32,
    Int64,
    Float32,
    Float64,
    Bytes,
    String,
    Array,
    Map,
    Struct,
}

impl Physical {
    fn of(ty: &ConnectType) -> Self {
        match ty {
            ConnectType::Boolean => Self::Boolean,
            ConnectType::Int32 => Self::Int32,
            ConnectType::Int64 => Self::Int64,
            ConnectType::Float32 => Self::Float32,
            ConnectType::Float64 => Self::Float64,
            ConnectType::Bytes => Self::Bytes,
            ConnectType::String => Self::String,
            ConnectType::Array(_) => Self::Array,
            ConnectType::Map => Self::Map,
            ConnectType::Struct => Self::Struct,
        }
    }

    /// The name that Connect's JSON schemas have.
    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float",
            Self::Float64 => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Array => "array",
            Self::Map => "map",
            Self::Struct => "struct",
        }
    }
}

/// Where a rule leads.
#[derive(Debug)]
enum To {
    /// Always to this column.
    Column(ColumnType, Form),
    /// To a decimal of the parameters' precision and scale, to text when that has more than 38 digits.
    Decimal,
    /// To bytes, as many as the parameter `length` needs.
    Bits,
    /// To a time of day, or to a number where the source's times are elapsed times.
    Clock(Form),
    /// To a number for a kind that is a number of microseconds, to text else.
    Duration,
    /// To a list of what the element's rule says, which is told as one of these; to JSON text when that is a list.
    List(ColumnType),
}

/// A row of the table of types: what a connector writes, and the column that holds it.
#[derive(Debug)]
pub struct TypeRule {
    /// The semantic name; empty for types without one, and for names that are not in the table.
    pub name: &'static str,
    physical: Physical,
    to: To,
    /// The types of databases that come so.
    pub sources: &'static str,
    /// How the value is kept, where the column's type does not tell.
    pub kept: &'static str,
    /// What of the source's value is lost, by the connector or here; empty when nothing is.
    pub loses: &'static str,
    /// The same where the source is MySQL or MariaDB; empty when it is not another.
    pub loses_mysql: &'static str,
    /// Values that the column does not have: the policy for invalid values says what becomes of them.
    pub refuses: &'static str,
}

fn rule(name: &'static str, physical: Physical, to: To, sources: &'static str) -> TypeRule {
    TypeRule { name, physical, to, sources, kept: "", loses: "", loses_mysql: "", refuses: "" }
}

impl TypeRule {
    fn kept(self, kept: &'static str) -> Self {
        Self { kept, ..self }
    }

    fn loses(self, loses: &'static str) -> Self {
        Self { loses, ..self }
    }

    fn in_mysql(self, loses_mysql: &'static str) -> Self {
        Self { loses_mysql, ..self }
    }

    fn but(self, refuses: &'static str) -> Self {
        Self { refuses, ..self }
    }

    /// Values that its column does not have; a number has every time.
    pub(in crate::decode) fn refuses(&self, as_number: bool) -> &'static str {
        match &self.to {
            To::Clock(Form::TimeOfDay(Unit::Millis | Unit::Micros)) if as_number => "",
            To::Clock(_) if as_number => FRACTIONS,
            _ => self.refuses,
        }
    }

    /// The Connect type's name, as in Connect's JSON schemas.
    pub fn connect_type(&self) -> &'static str {
        self.physical.name()
    }

    /// Examples of the column: one, or one for each choice that the rule has.
    pub fn columns(&self) -> Vec<ColumnType> {
        match &self.to {
            To::Column(ty, _) => vec![ty.clone()],
            To::Decimal => {
                vec![ColumnType::Decimal { precision: 38, scale: 2 }, ColumnType::String]
            }
            To::Bits => vec![ColumnType::Binary],
            To::Clock(_) => vec![ColumnType::Time, ColumnType::Int64],
            To::Duration => vec![ColumnType::Int64, ColumnType::String],
            To::List(element) if self.name.is_empty() => {
                vec![list_of(element.clone()), ColumnType::String]
            }
            To::List(element) => vec![list_of(element.clone())],
        }
    }
}

/// Every rule; those without a name come last and hold for names that are not in the table.
pub fn rules() -> &'static [TypeRule] {
    &RULES
}

const YEARS: &str = "infinity, years before 1 and after 9999";
const YEARS_AND_NANOS: &str = "infinity, years before 1 and after 9999, fractions of a microsecond";
const MILLIS: &str = "the connector cuts to milliseconds (time.precision.mode=connect)";
const ZERO: &str = "zero dates (0000-00-00): the connector writes null, or the default of a column that is NOT NULL";
const ELAPSED: &str = "the connector writes null for times below 00:00:00 and beyond a day";
const ELAPSED_MILLIS: &str = "the connector cuts to milliseconds, and writes null for times below 00:00:00 and beyond a \
                              day (time.precision.mode=connect)";
const FAR: &str = "the connector writes null for years before 1677 and after 2262 (time.precision.mode=nanoseconds)";
const COMMA: &str =
    "a comma in a label: the connector writes a backslash before it while streaming";
const CLOCK: &str =
    "in Iceberg alone 24:00:00; none where the column is a long (with Delta, MySQL, MariaDB)";
const MICROS: &str = "microseconds since midnight";
const FRACTIONS: &str = "fractions of a microsecond";
const NANOS: &str = "fractions of a microsecond; in Iceberg alone 24:00:00";
const AS_JSON: &str = "as JSON text";
const EWKB: &str =
    "well-known binary, with its reference system inside when it has one (PostGIS' extended form)";

fn text(name: &'static str, sources: &'static str) -> TypeRule {
    rule(name, Physical::String, To::Column(ColumnType::String, Form::Text), sources)
}

fn plain(physical: Physical, ty: ColumnType, form: Form, sources: &'static str) -> TypeRule {
    rule("", physical, To::Column(ty, form), sources)
}

fn structured(
    name: &'static str,
    ty: ColumnType,
    form: Structured,
    sources: &'static str,
) -> TypeRule {
    rule(name, Physical::Struct, To::Column(ty, Form::Structured(form)), sources)
}

fn json(name: &'static str, sources: &'static str) -> TypeRule {
    rule(name, Physical::Struct, To::Column(ColumnType::String, Form::Json), sources).kept(AS_JSON)
}

fn geometry(name: &'static str, sources: &'static str) -> TypeRule {
    rule(name, Physical::Struct, To::Column(ColumnType::Binary, Form::Geometry), sources).kept(EWKB)
}

fn instant(name: &'static str, unit: Unit, sources: &'static str) -> TypeRule {
    let to = To::Column(ColumnType::Timestamp, Form::Instant(unit));
    rule(name, Physical::Int64, to, sources).but(YEARS).in_mysql(ZERO)
}

fn clock(name: &'static str, physical: Physical, unit: Unit, sources: &'static str) -> TypeRule {
    rule(name, physical, To::Clock(Form::TimeOfDay(unit)), sources).kept(MICROS).but(CLOCK)
}

fn date(name: &'static str, sources: &'static str) -> TypeRule {
    let to = To::Column(ColumnType::Date, Form::Days);
    rule(name, Physical::Int32, to, sources).but(YEARS).in_mysql(ZERO)
}

use ColumnType as C;
use Physical as P;

static RULES: LazyLock<Vec<TypeRule>> = LazyLock::new(|| {
    let mut rules = temporal();
    rules.extend(named());
    rules.extend(unnamed());
    rules
});

/// Dates, times and durations.
#[rustfmt::skip]
fn temporal() -> Vec<TypeRule> {
    vec![
        date("io.debezium.time.Date", "date"),
        date("org.apache.kafka.connect.data.Date", "date"),
        clock("io.debezium.time.Time", P::Int32, Unit::Millis, "time(0) to time(3)"),
        clock("io.debezium.time.MicroTime", P::Int64, Unit::Micros, "time"),
        clock("io.debezium.time.NanoTime", P::Int64, Unit::Nanos, "time, where time.precision.mode=nanoseconds").but(NANOS),
        clock("org.apache.kafka.connect.data.Time", P::Int32, Unit::Millis, "time").loses(MILLIS).in_mysql(ELAPSED_MILLIS),
        clock("org.apache.kafka.connect.data.Time", P::Int64, Unit::Millis, "time").loses(MILLIS).in_mysql(ELAPSED_MILLIS),
        instant("io.debezium.time.Timestamp", Unit::Millis, "timestamp(0) to timestamp(3), datetime(0) to datetime(3)"),
        instant("io.debezium.time.MicroTimestamp", Unit::Micros, "timestamp, datetime(4) to datetime(6)"),
        instant("io.debezium.time.NanoTimestamp", Unit::Nanos, "timestamp, datetime2(7)").but(YEARS_AND_NANOS).loses(FAR).in_mysql("zero dates (0000-00-00), years before 1677 and after 2262: the connector writes null (time.precision.mode=nanoseconds)"),
        instant("org.apache.kafka.connect.data.Timestamp", Unit::Millis, "timestamp, datetime").loses(MILLIS).in_mysql("the connector cuts to milliseconds (time.precision.mode=connect); zero dates become null or the column's default"),
        rule("io.debezium.time.ZonedTimestamp", P::String, To::Column(C::TimestampTz, Form::Zoned), "timestamptz; MySQL's timestamp").but(YEARS_AND_NANOS).in_mysql(ZERO),
        text("io.debezium.time.ZonedTime", "timetz").loses("the connector converts to UTC; the offset is gone"),
        rule("io.debezium.time.IsoDate", P::String, To::Column(C::Date, Form::IsoDate), "date, where time.precision.mode=isostring").but(YEARS).in_mysql(ZERO),
        rule("io.debezium.time.IsoTime", P::String, To::Clock(Form::IsoTime), "time, where time.precision.mode=isostring").kept(MICROS).but(NANOS).loses("24:00:00 becomes 00:00:00 in the connector").in_mysql(ELAPSED),
        rule("io.debezium.time.IsoTimestamp", P::String, To::Column(C::Timestamp, Form::IsoTimestamp), "timestamp, where time.precision.mode=isostring").but(YEARS_AND_NANOS).in_mysql(ZERO),
        structured("io.debezium.time.StructuredDate", C::Date, Structured::Date, "date, where time.precision.mode=structured").but("infinity, years before 1 and after 9999, days that are none (2024-00-15)"),
        rule("io.debezium.time.StructuredTime", P::Struct, To::Clock(Form::Structured(Structured::Time)), "time, where time.precision.mode=structured").kept(MICROS).but(NANOS),
        structured("io.debezium.time.StructuredTimestamp", C::Timestamp, Structured::Timestamp, "timestamp, where time.precision.mode=structured").but(YEARS_AND_NANOS),
        structured("io.debezium.time.StructuredZonedTime", C::String, Structured::ZonedTime, "timetz, where time.precision.mode=structured").kept("as ISO 8601 text with its offset"),
        structured("io.debezium.time.StructuredZonedTimestamp", C::TimestampTz, Structured::ZonedTimestamp, "timestamptz, where time.precision.mode=structured").loses("the instant is kept, not the zone it was written in").but(YEARS_AND_NANOS),
        rule("io.debezium.time.StructuredDuration", P::Struct, To::Duration, "interval, MySQL's time, where time.precision.mode=structured")
            .kept("microseconds for times, else ISO 8601 text"),
        rule("io.debezium.time.Year", P::Int32, To::Column(C::Int32, Form::Integer), "year").loses("0000: the connector writes 2000 in an initial snapshot and 1900 while streaming"),
        rule("io.debezium.time.MicroDuration", P::Int64, To::Column(C::Int64, Form::Integer), "interval, where interval.handling.mode=numeric")
            .kept("microseconds").loses("the connector counts a month as 30.4375 days (interval.handling.mode=string does not)"),
        rule("io.debezium.time.NanoDuration", P::Int64, To::Column(C::Int64, Form::Integer), "interval")
            .kept("nanoseconds").loses("the connector counts a month as 30.4375 days"),
        text("io.debezium.time.Interval", "interval, where interval.handling.mode=string").kept("as ISO 8601 text"),
    ]
}

/// Everything else that has a semantic name.
#[rustfmt::skip]
fn named() -> Vec<TypeRule> {
    vec![
        rule(DECIMAL, P::Bytes, To::Decimal, "numeric(p,s), decimal(p,s), money; bigint unsigned where bigint.unsigned.handling.mode=precise")
            .kept("decimal(p,s), exact; text when it has more than 38 digits; a negative scale makes decimal(p+|s|,0); decimal(38,s) without a precision (money)"),
        rule("io.debezium.data.VariableScaleDecimal", P::Struct, To::Column(C::String, Form::Variable), "numeric without precision, Oracle's number and float")
            .kept("its digits as text, exact; a decimal when one is declared for the column")
            .loses("the connector drops NaN and trailing zeros"),
        rule("io.debezium.data.Bits", P::Bytes, To::Bits, "bit(n), bit varying(n)")
            .kept("bytes, the least significant first, as many as n bits need").loses("of bit varying the connector drops leading zeros"),
        text("io.debezium.data.Enum", "enum").in_mysql(COMMA),
        text("io.debezium.data.EnumSet", "set").kept("labels separated by commas").in_mysql(COMMA),
        rule("io.debezium.data.Json", P::String, To::Column(C::String, Form::Json), "json, jsonb, hstore").kept("as text, byte for byte"),
        text("io.debezium.data.Xml", "xml"),
        text("io.debezium.data.Uuid", "uuid").kept("as text, in the source's spelling"),
        text("io.debezium.data.Ltree", "ltree"),
        text("io.debezium.data.Tsvector", "tsvector"),
        rule("io.debezium.data.DoubleVector", P::Array, To::List(C::Float64), "vector"),
        rule("io.debezium.data.FloatVector", P::Array, To::List(C::Float32), "halfvec; MySQL's and MariaDB's vector"),
        json("io.debezium.data.SparseDoubleVector", "sparsevec"),
        json("io.debezium.data.SparseVector", "sparsevec, by Debezium 3.0"),
        geometry("io.debezium.data.geometry.Point", "point"),
        geometry("io.debezium.data.geometry.Geometry", "geometry; box, lseg, path, polygon").loses("extensions: which of Postgres' own shapes it is"),
        geometry("io.debezium.data.geometry.Geography", "geography").loses("extensions"),
        json("io.debezium.data.geometry.Circle", "circle"),
        json("io.debezium.data.geometry.Line", "line"),
    ]
}

/// Types without a semantic name, or with one that is not in the table.
#[rustfmt::skip]
fn unnamed() -> Vec<TypeRule> {
    vec![
        plain(P::Boolean, C::Boolean, Form::Boolean, "boolean, bit(1); tinyint(1) in some modes"),
        plain(P::Int32, C::Int32, Form::Integer, "int8, int16, int32: smallint, integer; tinyint to int").kept("integers of 8, 16 and 32 bits alike, so that none must widen later"),
        plain(P::Int64, C::Int64, Form::Integer, "bigint, oid, int unsigned, bigint unsigned").loses("bigint unsigned wraps above 2^63-1 in the connector's default mode: declare ulong, or set bigint.unsigned.handling.mode=precise"),
        plain(P::Float32, C::Float32, Form::Float, "real, float").in_mysql("the connector's initial snapshot has six digits of a float"),
        plain(P::Float64, C::Float64, Form::Double, "double precision; decimals where decimal.handling.mode=double").loses("decimals lose digits where decimal.handling.mode=double"),
        plain(P::Bytes, C::Binary, Form::Bytes, "bytea, binary, varbinary, blob"),
        plain(P::String, C::String, Form::Text, "text, varchar, char, citext, inet, cidr, macaddr, ranges; decimals where decimal.handling.mode=string; bytes where binary.handling.mode is hex or base64").loses("where binary.handling.mode is base64, Postgres' connector writes null for a large value that did not change"),
        rule("", P::Array, To::List(C::String), "arrays").kept("a list of the element's column; an array of arrays as JSON text").loses("Postgres' arrays of several dimensions come as nulls from the connector"),
        rule("", P::Map, To::Column(C::String, Form::Json), "hstore, where hstore.handling.mode=map").kept(AS_JSON),
        rule("", P::Struct, To::Column(C::String, Form::Json), "structs of types that are not in this table").kept(AS_JSON),
    ]
}

impl Described {
    /// The row of the table for this type.
    pub(in crate::decode) fn rule(&self) -> Option<&'static TypeRule> {
        let physical = Physical::of(&self.ty);
        let named =
            |name: &str| RULES.iter().find(|rule| rule.name == name && rule.physical == physical);
        self.name.as_deref().and_then(named).or_else(|| named(""))
    }

    /// The column for values of this type, and how they are written.
    pub(in crate::decode) fn map(&self, times: Times) -> Mapped {
        let text = |form| Mapped { ty: ColumnType::String, form };
        let Some(rule) = self.rule() else { return text(Form::Json) };
        match &rule.to {
            To::Column(ty, form) => Mapped { ty: ty.clone(), form: form.clone() },
            To::Decimal => self.decimal(),
            To::Bits => {
                let width = self.number("length").map_or(0, bits_width);
                Mapped { ty: ColumnType::Binary, form: Form::Bits { width } }
            }
            To::Clock(form) => Mapped { ty: times.column(), form: form.clone() },
            To::Duration => match self.parameters.get(DURATION_KIND).map(String::as_str) {
                Some("elapsed-time") => {
                    Mapped { ty: ColumnType::Int64, form: Form::Structured(Structured::Elapsed) }
                }
                _ => text(Form::Structured(Structured::Duration)),
            },
            To::List(_) => match &self.ty {
                ConnectType::Array(element) => match element.map(times) {
                    Mapped { form: Form::List(_), .. } => text(Form::Json),
                    Mapped { ty, form } => {
                        Mapped { ty: list_of(ty), form: Form::List(Box::new(form)) }
                    }
                },
                _ => text(Form::Json),
            },
        }
    }

    /// A scale above the precision holds values below one; it becomes the precision. A negative one comes as it is, or
    /// from Postgres, which has eleven bits for it, as 2048 more.
    fn decimal(&self) -> Mapped {
        let scale = self.number("scale").and_then(|scale| i32::try_from(scale).ok()).unwrap_or(0);
        let form = Form::Decimal { scale };
        let real = i32::try_from(real_scale(scale.into())).unwrap_or(scale);
        let digits = match self.number("connect.decimal.precision") {
            Some(digits) => digits.max(i64::from(real)) + i64::from(real.min(0).unsigned_abs()),
            None => i64::from(MAX_PRECISION),
        };
        let limit = u8::try_from(MAX_PRECISION).unwrap_or(u8::MAX);
        match (u8::try_from(digits), u8::try_from(real.max(0))) {
            (Ok(precision), Ok(scale))
                if (1..=limit).contains(&precision) && scale <= precision =>
            {
                Mapped { ty: ColumnType::Decimal { precision, scale }, form }
            }
            _ => Mapped { ty: ColumnType::String, form },
        }
    }
}

/// The largest scale that Postgres' numeric can be declared with.
const MAX_POSTGRES_SCALE: i64 = 1000;

/// The scale that the source declared: Postgres has eleven bits for it, of which the connector takes a negative one for
/// one that is 2048 more.
pub(super) fn real_scale(scale: i64) -> i64 {
    if scale > MAX_POSTGRES_SCALE { scale - 2048 } else { scale }
}

/// Bytes that hold so many bits; none where a bit string may have any number of them.
pub(super) fn bits_width(bits: i64) -> usize {
    let some = Some(bits).filter(|bits| (1..i64::from(i32::MAX)).contains(bits));
    let width =
        some.and_then(|bits| usize::try_from(bits.div_euclid(8) + i64::from(bits % 8 != 0)).ok());
    width.unwrap_or(0).min(MAX_BITS_WIDTH)
}

/// Bytes of a bit string that are filled up with zeros at most.
const MAX_BITS_WIDTH: usize = 1 << 16;
/// The parameter that tells what a structured duration is.
const DURATION_KIND: &str = "io.debezium.time.duration.kind";

impl Times {
    fn column(self) -> ColumnType {
        match self {
            Self::OfDay => ColumnType::Time,
            Self::Elapsed => ColumnType::Int64,
        }
    }
}
