//! From a column as its database declares it to what Debezium's connector writes for it, and with the table of types to
//! the type that is declared for it: JSON without a schema then becomes what records with one become.

use std::collections::BTreeMap;

use super::{ConnectType, DECIMAL, DeclaredType, Described, Encoding, Times};
use crate::error::{Error, Result};

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
}

/// A column's type as its database declares it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceType {
    /// The name without parameters: Postgres' `typname`, of a domain the type below it, of an array its element's;
    /// MySQL's `DATA_TYPE`.
    pub name: String,
    /// The first number in parentheses: a length, a precision, or the digits of fractions of a second.
    pub length: Option<i64>,
    /// The second one.
    pub scale: Option<i64>,
    /// An array of this.
    pub is_array: bool,
    /// Postgres' enums.
    pub is_enum: bool,
    /// MySQL's integers.
    pub is_unsigned: bool,
}

/// The options of a connector that say how values are written, by Debezium's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes(BTreeMap<&'static str, String>);

/// Each option with the values that it may have, the connectors' own choice first.
const OPTIONS: [(&str, &[&str]); 7] = [
    ("decimal.handling.mode", &["precise", "double", "string"]),
    (
        "time.precision.mode",
        &[
            "",
            "adaptive",
            "adaptive_time_microseconds",
            "connect",
            "isostring",
            "microseconds",
            "nanoseconds",
        ],
    ),
    ("binary.handling.mode", &["bytes", "base64", "base64-url-safe", "hex"]),
    ("hstore.handling.mode", &["json", "map"]),
    ("interval.handling.mode", &["numeric", "string"]),
    ("bigint.unsigned.handling.mode", &["long", "precise"]),
    ("money.fraction.digits", &["2", "0", "1", "3", "4"]),
];

impl Modes {
    /// Reads options `NAME=VALUE`.
    pub fn parse<S: AsRef<str>>(options: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut modes = BTreeMap::new();
        for option in options {
            let option = option.as_ref();
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let known = OPTIONS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                let names: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
                Error::invalid(format!("option connector-option: {name} changes no type"))
                    .hint(format!("one of {}, with =VALUE", names.join(", ")))
            })?;
            if value.is_empty() || !known.1.contains(&value) {
                let values: Vec<&str> = known.1.iter().copied().filter(|v| !v.is_empty()).collect();
                return Err(Error::invalid(format!(
                    "option connector-option: {name} cannot be {value:?}"
                ))
                .hint(format!("one of {}", values.join(", "))));
            }
            modes.insert(known.0, value.to_owned());
        }
        Ok(Self(modes))
    }

    fn get(&self, name: &str) -> &str {
        let default = OPTIONS.iter().find(|(known, _)| *known == name);
        let default = default.and_then(|(_, values)| values.first()).copied().unwrap_or_default();
        self.0.get(name).map_or(default, String::as_str)
    }

    /// The value of `time.precision.mode`, which connectors choose differently.
    fn time(&self, database: Database) -> &str {
        match (self.get("time.precision.mode"), database) {
            ("", Database::Postgres) => "adaptive",
            ("", Database::MySql) => "adaptive_time_microseconds",
            (mode, _) => mode,
        }
    }
}

impl DeclaredType {
    /// The type to declare for a column of a database; none for a column that the connector leaves out, or whose values
    /// cannot be declared.
    pub fn of_source(database: Database, source: &SourceType, modes: &Modes) -> Option<Self> {
        let described = describe(database, source, modes)?;
        let binary =
            (described.name.as_deref() == Some(BINARY)).then(|| modes.get("binary.handling.mode"));
        match binary {
            // What records with a schema become text for is text here as well: nothing is decoded unasked.
            Some("bytes") => return Some(list(source, Self::Bytes(Encoding::Base64))),
            Some(_) => return Some(list(source, Self::String)),
            None => {}
        }
        if database == Database::MySql && source.name == "bigint" && source.is_unsigned {
            // The connector writes what is above 2^63-1 below zero, and only the declaration can tell.
            let is_long = modes.get("bigint.unsigned.handling.mode") == "long";
            return if is_long {
                Some(Self::UnsignedLong)
            } else {
                Self::of(&decimal(20, 0), Times::Elapsed)
            };
        }
        let times = match database {
            Database::Postgres => Times::OfDay,
            Database::MySql => Times::Elapsed,
        };
        Self::of(&described, times)
    }
}

fn list(source: &SourceType, element: DeclaredType) -> DeclaredType {
    if source.is_array { DeclaredType::List(Box::new(element)) } else { element }
}

/// Stands for bytes, whose form depends on an option.
const BINARY: &str = "binary";

fn plain(ty: ConnectType) -> Described {
    Described::plain(ty)
}

fn named(ty: ConnectType, name: &str) -> Described {
    Described { name: Some(name.to_owned()), ..Described::plain(ty) }
}

fn debezium(ty: ConnectType, name: &str) -> Described {
    named(ty, &format!("io.debezium.{name}"))
}

fn with(described: Described, parameters: &[(&str, i64)]) -> Described {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.to_string()));
    Described { parameters: parameters.collect(), ..described }
}

fn decimal(precision: i64, scale: i64) -> Described {
    let parameters = [("scale", scale), ("connect.decimal.precision", precision)];
    with(named(ConnectType::Bytes, DECIMAL), &parameters)
}

fn binary() -> Described {
    named(ConnectType::Bytes, BINARY)
}

/// What the connector writes for a column; none where it leaves the column out.
fn describe(database: Database, source: &SourceType, modes: &Modes) -> Option<Described> {
    let described = match database {
        Database::Postgres => postgres(source, modes)?,
        Database::MySql => mysql(source, modes)?,
    };
    if !source.is_array {
        return Some(described);
    }
    // The connector knows no arrays of these.
    let unknown = ["money", "name", "interval", "bit", "varbit", "xml", "point", "refcursor"];
    if unknown.contains(&source.name.as_str()) {
        return None;
    }
    if described.name.as_deref() == Some(BINARY) {
        return Some(described);
    }
    Some(plain(ConnectType::Array(Box::new(described))))
}

/// Postgres' types by their names in `pg_type`.
#[rustfmt::skip]
fn postgres(source: &SourceType, modes: &Modes) -> Option<Described> {
    use ConnectType as C;
    let digits = source.length.unwrap_or(6);
    let time = modes.time(Database::Postgres);
    Some(match source.name.as_str() {
        _ if source.is_enum => debezium(C::String, "data.Enum"),
        "bool" => plain(C::Boolean),
        "int2" | "int4" => plain(C::Int32),
        "int8" | "oid" => plain(C::Int64),
        "float4" => plain(C::Float32),
        "float8" => plain(C::Float64),
        "numeric" => number(source, modes),
        "money" => money(modes),
        "bit" | "varbit" if source.length == Some(1) => plain(C::Boolean),
        "bit" | "varbit" => with(debezium(C::Bytes, "data.Bits"), &[("length", source.length.unwrap_or_else(|| i64::from(i32::MAX)))]),
        "bytea" => binary(),
        "text" | "varchar" | "bpchar" | "char" | "name" | "citext" | "isbn" => plain(C::String),
        "inet" | "cidr" | "macaddr" | "macaddr8" => plain(C::String),
        "int4range" | "int8range" | "numrange" | "tsrange" | "tstzrange" | "daterange" => plain(C::String),
        "json" | "jsonb" => debezium(C::String, "data.Json"),
        "xml" => debezium(C::String, "data.Xml"),
        "uuid" => debezium(C::String, "data.Uuid"),
        "ltree" => debezium(C::String, "data.Ltree"),
        "tsvector" => debezium(C::String, "data.Tsvector"),
        "hstore" if modes.get("hstore.handling.mode") == "map" => plain(C::Map),
        "hstore" => debezium(C::String, "data.Json"),
        "date" => date(time),
        "time" => clock(time, digits),
        "timetz" => debezium(C::String, "time.ZonedTime"),
        "timestamp" => instant(time, digits),
        "timestamptz" => debezium(C::String, "time.ZonedTimestamp"),
        "interval" if modes.get("interval.handling.mode") == "string" => debezium(C::String, "time.Interval"),
        "interval" => debezium(C::Int64, "time.MicroDuration"),
        "point" => debezium(C::Struct, "data.geometry.Point"),
        "box" | "lseg" | "path" | "polygon" | "geometry" => debezium(C::Struct, "data.geometry.Geometry"),
        "geography" => debezium(C::Struct, "data.geometry.Geography"),
        "circle" => debezium(C::Struct, "data.geometry.Circle"),
        "line" => debezium(C::Struct, "data.geometry.Line"),
        "vector" => debezium(C::Array(Box::new(plain(C::Float64))), "data.DoubleVector"),
        "halfvec" => debezium(C::Array(Box::new(plain(C::Float32))), "data.FloatVector"),
        "sparsevec" => debezium(C::Struct, "data.SparseDoubleVector"),
        _ => return None,
    })
}

/// MySQL's and MariaDB's types by their names in `information_schema`.
#[rustfmt::skip]
fn mysql(source: &SourceType, modes: &Modes) -> Option<Described> {
    use ConnectType as C;
    let digits = source.length.unwrap_or(0);
    let time = modes.time(Database::MySql);
    Some(match source.name.as_str() {
        "tinyint" | "smallint" | "mediumint" => plain(C::Int32),
        "int" if source.is_unsigned => plain(C::Int64),
        "int" => plain(C::Int32),
        "bigint" => plain(C::Int64),
        "decimal" => number(source, modes),
        // Of a float with two numbers, or with more than 24 bits, the connector makes a double.
        "float" if source.scale.is_some() || source.length.is_some_and(|bits| bits > 24) => plain(C::Float64),
        "float" => plain(C::Float32),
        "double" => plain(C::Float64),
        "bit" if digits <= 1 => plain(C::Boolean),
        "bit" => with(debezium(C::Bytes, "data.Bits"), &[("length", digits)]),
        "year" => debezium(C::Int32, "time.Year"),
        "date" => date(time),
        "time" => clock(time, digits),
        "datetime" => instant(time, digits),
        "timestamp" => debezium(C::String, "time.ZonedTimestamp"),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => plain(C::String),
        "inet4" | "inet6" => plain(C::String),
        "enum" => debezium(C::String, "data.Enum"),
        "set" => debezium(C::String, "data.EnumSet"),
        "json" => debezium(C::String, "data.Json"),
        "uuid" => debezium(C::String, "data.Uuid"),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => binary(),
        "vector" => debezium(C::Array(Box::new(plain(C::Float32))), "data.FloatVector"),
        "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometry"
        | "geomcollection" | "geometrycollection" => debezium(C::Struct, "data.geometry.Geometry"),
        _ => return None,
    })
}

fn number(source: &SourceType, modes: &Modes) -> Described {
    match (modes.get("decimal.handling.mode"), source.length) {
        ("double", _) => plain(ConnectType::Float64),
        ("string", _) => plain(ConnectType::String),
        (_, None) => debezium(ConnectType::Struct, "data.VariableScaleDecimal"),
        (_, Some(precision)) => decimal(precision, source.scale.unwrap_or(0)),
    }
}

fn money(modes: &Modes) -> Described {
    match modes.get("decimal.handling.mode") {
        "double" => plain(ConnectType::Float64),
        "string" => plain(ConnectType::String),
        _ => {
            let digits = modes.get("money.fraction.digits").parse().unwrap_or(2);
            with(named(ConnectType::Bytes, DECIMAL), &[("scale", digits)])
        }
    }
}

fn date(mode: &str) -> Described {
    match mode {
        "isostring" => debezium(ConnectType::String, "time.IsoDate"),
        _ => debezium(ConnectType::Int32, "time.Date"),
    }
}

fn clock(mode: &str, digits: i64) -> Described {
    match mode {
        "isostring" => debezium(ConnectType::String, "time.IsoTime"),
        "connect" => named(ConnectType::Int32, "org.apache.kafka.connect.data.Time"),
        "nanoseconds" => debezium(ConnectType::Int64, "time.NanoTime"),
        "adaptive" if digits <= 3 => debezium(ConnectType::Int32, "time.Time"),
        _ => debezium(ConnectType::Int64, "time.MicroTime"),
    }
}

fn instant(mode: &str, digits: i64) -> Described {
    match mode {
        "isostring" => debezium(ConnectType::String, "time.IsoTimestamp"),
        "connect" => named(ConnectType::Int64, "org.apache.kafka.connect.data.Timestamp"),
        "nanoseconds" => debezium(ConnectType::Int64, "time.NanoTimestamp"),
        "adaptive" | "adaptive_time_microseconds" if digits <= 3 => {
            debezium(ConnectType::Int64, "time.Timestamp")
        }
        _ => debezium(ConnectType::Int64, "time.MicroTimestamp"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A type as SQL has it: `numeric(10,2)[]`.
    fn source(sql: &str) -> SourceType {
        let (sql, is_array) = sql.strip_suffix("[]").map_or((sql, false), |sql| (sql, true));
        let (sql, is_unsigned) =
            sql.strip_suffix(" unsigned").map_or((sql, false), |sql| (sql, true));
        let (name, numbers) = sql.split_once('(').unwrap_or((sql, ""));
        let mut numbers = numbers.trim_end_matches(')').split(',').map(|n| n.parse().ok());
        let (length, scale) = (numbers.next().flatten(), numbers.next().flatten());
        let is_enum = name == "mood";
        SourceType { name: name.into(), length, scale, is_array, is_enum, is_unsigned }
    }

    fn declared(database: Database, sql: &str, options: &[&str]) -> String {
        let modes = Modes::parse(options).unwrap();
        let declared = DeclaredType::of_source(database, &source(sql), &modes);
        declared.map_or_else(|| "-".to_owned(), |declared| declared.to_string())
    }

    #[rstest]
    #[case("boolean", &["bool", "bit(1)"])]
    #[case("int", &["int2", "int4"])]
    #[case("long", &["int8", "oid", "interval"])]
    #[case("float", &["float4"])]
    #[case("double", &["float8"])]
    #[case("decimal(10,2)", &["numeric(10,2)"])]
    #[case("decimal(10,0)", &["numeric(10)"])]
    #[case("decimal(45,10)", &["numeric(45,10)"])]
    #[case("decimal(5,5)", &["numeric(3,5)"])]
    #[case("decimal(5,-2)", &["numeric(5,-2)"])]
    #[case("decimal(38,2)", &["money"])]
    #[case("numeric", &["numeric"])]
    #[case("string", &["text", "varchar(40)", "bpchar(6)", "name", "citext", "inet", "int4range", "xml", "uuid", "timetz", "ltree", "tsvector", "mood"])]
    #[case("json", &["json", "jsonb", "hstore", "circle", "line", "sparsevec"])]
    #[case("bytes", &["bytea"])]
    #[case("bits(8)", &["bit(8)", "varbit(8)"])]
    #[case("date", &["date"])]
    #[case("time(micros)", &["time", "time(4)"])]
    #[case("time(millis)", &["time(3)", "time(0)"])]
    #[case("timestamp(micros)", &["timestamp", "timestamp(6)"])]
    #[case("timestamp(millis)", &["timestamp(3)", "timestamp(0)"])]
    #[case("timestamptz", &["timestamptz", "timestamptz(3)"])]
    #[case("geometry", &["point", "box", "polygon", "geometry", "geography"])]
    #[case("list<double>", &["vector(3)", "float8[]"])]
    #[case("list<float>", &["halfvec(3)", "float4[]"])]
    #[case("list<int>", &["int4[]"])]
    #[case("list<decimal(10,2)>", &["numeric(10,2)[]"])]
    #[case("list<numeric>", &["numeric[]"])]
    #[case("list<string>", &["text[]", "uuid[]", "mood[]", "inet[]"])]
    #[case("list<timestamp(millis)>", &["timestamp(3)[]"])]
    #[case("list<bytes>", &["bytea[]"])]
    #[case("-", &["int4multirange", "pg_lsn", "pair", "money[]", "interval[]", "varbit(3)[]"])]
    fn postgres_columns(#[case] expected: &str, #[case] types: &[&str]) {
        for sql in types {
            assert_eq!(declared(Database::Postgres, sql, &[]), expected, "{sql}");
        }
    }

    #[rstest]
    #[case("int", &["tinyint(1)", "tinyint unsigned", "smallint", "mediumint unsigned", "int", "year"])]
    #[case("long", &["int unsigned", "bigint"])]
    #[case("ulong", &["bigint unsigned"])]
    #[case("decimal(18,4)", &["decimal(18,4)"])]
    #[case("decimal(65,30)", &["decimal(65,30)"])]
    #[case("float", &["float"])]
    #[case("double", &["double", "float(7,3)"])]
    #[case("boolean", &["bit(1)"])]
    #[case("bits(9)", &["bit(9)"])]
    #[case("date", &["date"])]
    #[case("duration(micros)", &["time", "time(3)", "time(6)"])]
    #[case("timestamp(millis)", &["datetime", "datetime(3)"])]
    #[case("timestamp(micros)", &["datetime(6)"])]
    #[case("timestamptz", &["timestamp", "timestamp(6)"])]
    #[case("string", &["varchar(5)", "longtext", "enum", "set", "uuid", "inet6"])]
    #[case("json", &["json"])]
    #[case("bytes", &["binary(4)", "longblob"])]
    #[case("geometry", &["point", "multipolygon", "geomcollection"])]
    #[case("list<float>", &["vector(3)"])]
    #[case("-", &["of_a_later_version"])]
    fn mysql_columns(#[case] expected: &str, #[case] types: &[&str]) {
        for sql in types {
            assert_eq!(declared(Database::MySql, sql, &[]), expected, "{sql}");
        }
    }

    #[rstest]
    #[case("decimal.handling.mode=string", &[("numeric(10,2)", "string"), ("money", "string"), ("numeric[]", "list<string>")])]
    #[case("decimal.handling.mode=double", &[("numeric(10,2)", "double"), ("numeric", "double")])]
    #[case("time.precision.mode=connect", &[("time", "time(millis)"), ("timestamp", "timestamp(millis)"), ("date", "date")])]
    #[case("time.precision.mode=isostring", &[("time", "time(iso)"), ("timestamp(3)", "timestamp(iso)"), ("date", "date(iso)")])]
    #[case("time.precision.mode=nanoseconds", &[("time(3)", "time(nanos)"), ("timestamp", "timestamp(nanos)")])]
    #[case("time.precision.mode=microseconds", &[("time(3)", "time(micros)"), ("timestamp(3)", "timestamp(micros)")])]
    #[case("binary.handling.mode=hex", &[("bytea", "string"), ("bytea[]", "list<string>")])]
    #[case("interval.handling.mode=string", &[("interval", "string")])]
    #[case("hstore.handling.mode=map", &[("hstore", "json")])]
    #[case("money.fraction.digits=0", &[("money", "decimal(38,0)")])]
    fn options_of_the_connector(#[case] option: &str, #[case] expected: &[(&str, &str)]) {
        for (sql, expected) in expected {
            assert_eq!(declared(Database::Postgres, sql, &[option]), *expected, "{option} {sql}");
        }
    }

    #[rstest]
    #[case("snapshot.mode=never", "changes no type")]
    #[case("decimal.handling.mode=exact", "precise, double, string")]
    #[case("decimal.handling.mode", "precise, double, string")]
    fn other_options_are_refused(#[case] option: &str, #[case] expected: &str) {
        let error = Modes::parse([option]).unwrap_err().report();
        assert!(error.contains(expected), "{error}");
    }

    /// What is declared is what the table of types has for what the connector writes.
    #[rstest]
    #[case(Database::Postgres, "numeric(38,10)", Times::OfDay)]
    #[case(Database::Postgres, "numeric(3,5)", Times::OfDay)]
    #[case(Database::Postgres, "numeric(45,10)", Times::OfDay)]
    #[case(Database::Postgres, "bit(9)", Times::OfDay)]
    #[case(Database::Postgres, "time(3)", Times::OfDay)]
    #[case(Database::Postgres, "timestamp[]", Times::OfDay)]
    #[case(Database::Postgres, "point", Times::OfDay)]
    #[case(Database::MySql, "time(6)", Times::Elapsed)]
    #[case(Database::MySql, "decimal(65,30)", Times::Elapsed)]
    fn both_ways_lead_to_the_same(
        #[case] database: Database,
        #[case] sql: &str,
        #[case] times: Times,
    ) {
        let modes = Modes::parse::<&str>([]).unwrap();
        let described = describe(database, &source(sql), &modes).unwrap();
        let declared = DeclaredType::of_source(database, &source(sql), &modes).unwrap();
        assert_eq!(declared.map(), described.map(times));
    }
}
