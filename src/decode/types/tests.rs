use rstest::rstest;

use super::*;

fn described(ty: ConnectType, name: &str, parameters: &[(&str, &str)]) -> Described {
    let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let name = (!name.is_empty()).then(|| name.to_owned());
    Described { ty, name, parameters: parameters.collect() }
}

#[rstest]
#[case(ConnectType::Int32, "", "int")]
#[case(ConnectType::Int64, "", "long")]
#[case(ConnectType::Boolean, "", "boolean")]
#[case(ConnectType::Float32, "", "float")]
#[case(ConnectType::Float64, "", "double")]
#[case(ConnectType::String, "", "string")]
#[case(ConnectType::Bytes, "", "bytes")]
#[case(ConnectType::Bytes, "io.debezium.data.Bits", "bytes")]
#[case(ConnectType::String, "io.debezium.data.Uuid", "string")]
#[case(ConnectType::String, "io.debezium.data.Json", "string")]
#[case(ConnectType::String, "io.debezium.data.Enum", "string")]
#[case(ConnectType::String, "io.debezium.data.EnumSet", "string")]
#[case(ConnectType::String, "io.debezium.data.Xml", "string")]
#[case(ConnectType::String, "io.debezium.data.Ltree", "string")]
#[case(ConnectType::String, "of.a.later.version", "string")]
#[case(ConnectType::Int32, "io.debezium.time.Date", "date")]
#[case(ConnectType::Int32, "org.apache.kafka.connect.data.Date", "date")]
#[case(ConnectType::Int32, "io.debezium.time.Time", "time")]
#[case(ConnectType::Int64, "io.debezium.time.MicroTime", "time")]
#[case(ConnectType::Int32, "org.apache.kafka.connect.data.Time", "time")]
#[case(ConnectType::Int64, "io.debezium.time.Timestamp", "timestamp")]
#[case(ConnectType::Int64, "io.debezium.time.MicroTimestamp", "timestamp")]
#[case(ConnectType::Int64, "org.apache.kafka.connect.data.Timestamp", "timestamp")]
#[case(ConnectType::String, "io.debezium.time.ZonedTimestamp", "timestamptz")]
#[case(ConnectType::String, "io.debezium.time.ZonedTime", "string")]
#[case(ConnectType::Int32, "io.debezium.time.Year", "int")]
#[case(ConnectType::Int64, "io.debezium.time.MicroDuration", "long")]
#[case(ConnectType::String, "io.debezium.time.Interval", "string")]
#[case(ConnectType::String, "io.debezium.time.IsoDate", "date")]
#[case(ConnectType::Struct, "io.debezium.data.VariableScaleDecimal", "string")]
#[case(ConnectType::Struct, "io.debezium.data.SparseDoubleVector", "string")]
#[case(ConnectType::Struct, "io.debezium.data.SparseVector", "string")]
#[case(ConnectType::Struct, "io.debezium.data.geometry.Point", "bytes")]
#[case(ConnectType::Struct, "io.debezium.data.geometry.Geometry", "bytes")]
#[case(ConnectType::Struct, "io.debezium.data.geometry.Geography", "bytes")]
#[case(ConnectType::Struct, "io.debezium.data.geometry.Circle", "string")]
#[case(ConnectType::Struct, "io.debezium.time.StructuredDate", "date")]
#[case(ConnectType::Struct, "io.debezium.time.StructuredTime", "time")]
#[case(ConnectType::Struct, "io.debezium.time.StructuredTimestamp", "timestamp")]
#[case(ConnectType::Struct, "io.debezium.time.StructuredZonedTimestamp", "timestamptz")]
#[case(ConnectType::Struct, "io.debezium.time.StructuredZonedTime", "string")]
#[case(ConnectType::Struct, "io.debezium.time.StructuredDuration", "string")]
#[case(ConnectType::Struct, "of.a.later.version", "string")]
#[case(ConnectType::Struct, "", "string")]
#[case(ConnectType::Map, "", "string")]
fn a_connect_type_has_its_column(
    #[case] ty: ConnectType,
    #[case] name: &str,
    #[case] column: &str,
) {
    assert_eq!(type_name(&described(ty, name, &[]).map(Times::OfDay).ty), column);
}

#[rstest]
#[case(ConnectType::Int64, "io.debezium.time.MicroTime")]
#[case(ConnectType::Int32, "org.apache.kafka.connect.data.Time")]
#[case(ConnectType::String, "io.debezium.time.IsoTime")]
fn a_time_that_elapsed_is_a_number(#[case] ty: ConnectType, #[case] name: &str) {
    assert_eq!(described(ty, name, &[]).map(Times::Elapsed).ty, ColumnType::Int64);
}

#[rstest]
#[case(ConnectType::Int64, "io.debezium.time.MicroTime", ColumnType::Time, ColumnType::Time)]
#[case(ConnectType::Int64, "io.debezium.time.MicroTime", ColumnType::Int64, ColumnType::Int64)]
#[case(ConnectType::Struct, VARIABLE, ColumnType::String, ColumnType::String)]
#[case(ConnectType::Int64, "", ColumnType::String, ColumnType::Int64)]
fn a_column_that_is_there_keeps_its_type(
    #[case] ty: ConnectType,
    #[case] name: &str,
    #[case] table: ColumnType,
    #[case] expected: ColumnType,
) {
    let column = Column::new("c", table, true);
    let mapped = described(ty, name, &[]).map(Times::Elapsed);
    assert_eq!(mapped.in_column(Some(&column)), expected);
}

#[test]
fn every_rule_is_found_by_what_it_is_for() {
    for (index, rule) in rules().iter().enumerate() {
        let same = |other: &&TypeRule| {
            other.name == rule.name && other.connect_type() == rule.connect_type()
        };
        assert_eq!(rules().iter().filter(same).count(), 1, "{} is there twice", rule.name);
        assert!(!rule.sources.is_empty() && !rule.columns().is_empty(), "{}", rule.name);
        let named_after = rules().iter().skip(index).any(|later| !later.name.is_empty());
        assert!(!rule.name.is_empty() || !named_after, "rules without a name come last");
    }
}

fn array(element: Described) -> ConnectType {
    ConnectType::Array(Box::new(element))
}

#[rstest]
#[case(Described::plain(ConnectType::Int32), "list<int>")]
#[case(described(ConnectType::Struct, "io.debezium.data.VariableScaleDecimal", &[]), "list<string>")]
#[case(described(ConnectType::Struct, "io.debezium.data.geometry.Point", &[]), "list<bytes>")]
#[case(Described::plain(array(Described::plain(ConnectType::Int32))), "string")]
fn an_array_is_a_list_of_its_elements_column(#[case] element: Described, #[case] column: &str) {
    assert_eq!(type_name(&Described::plain(array(element.clone())).map(Times::OfDay).ty), column);
    let vector = Described {
        name: Some("io.debezium.data.FloatVector".into()),
        ..Described::plain(array(element))
    };
    assert_eq!(type_name(&vector.map(Times::OfDay).ty), column);
}

#[rstest]
#[case("2", Some("10"), "decimal(10,2)")]
#[case("0", Some("38"), "decimal(38,0)")]
// Postgres' money has no precision.
#[case("2", None, "decimal(38,2)")]
// A scale above the precision: numeric(2,5).
#[case("5", Some("2"), "decimal(5,5)")]
// numeric(5,-2), as it is and as Postgres' connector writes it.
#[case("-2", Some("5"), "decimal(7,0)")]
#[case("2046", Some("5"), "decimal(7,0)")]
#[case("10", Some("65"), "string")]
#[case("-10", Some("38"), "string")]
// BIGINT UNSIGNED.
#[case("0", Some("20"), "decimal(20,0)")]
fn a_decimal_has_its_column(
    #[case] scale: &str,
    #[case] precision: Option<&str>,
    #[case] column: &str,
) {
    let mut parameters = vec![("scale", scale)];
    parameters.extend(precision.map(|precision| ("connect.decimal.precision", precision)));
    let mapped = described(ConnectType::Bytes, DECIMAL, &parameters).map(Times::OfDay);
    assert_eq!(type_name(&mapped.ty), column);
}

fn stored(raw: Raw<'_>, declared: &str) -> Result<String, &'static str> {
    let Mapped { ty, form } = declared.parse::<DeclaredType>().unwrap().map();
    stored_as(raw, &form, &ty)
}

fn stored_as(raw: Raw<'_>, form: &Form, ty: &ColumnType) -> Result<String, &'static str> {
    match store(raw, form, ty, &mut Vec::new()) {
        Ok(stored) => Ok(format!("{stored:?}")),
        Err(misfit) => Err(misfit.reason),
    }
}

const VARIABLE: &str = "io.debezium.data.VariableScaleDecimal";

/// A value of a told type in the column that the table of types gives it, or that is declared.
fn told(
    raw: Raw<'_>,
    described: &Described,
    declared: Option<&str>,
) -> Result<String, &'static str> {
    let mapped = described.map(Times::OfDay);
    let mapped = match declared {
        Some(declared) => declared.parse::<DeclaredType>().unwrap().over(&mapped).unwrap(),
        None => mapped,
    };
    stored_as(raw, &mapped.form, &mapped.ty)
}

const YEARS: &str = "year_out_of_range";
const INFINITE: &str = "infinite";
const DIGITS: &str = "too_many_digits";
const PRECISE: &str = "too_precise";
const INTEGER: &str = "integer_out_of_range";
const CLOCK: &str = "time_out_of_range";
const MISMATCH: &str = "type_mismatch";

#[rstest]
#[case(1_529_507_596_945_104, "timestamp(micros)", "Int64(1529507596945104)")]
#[case(-1_047_174_587_392, "timestamp(millis)", "Int64(-1047174587392000)")]
#[case(1_529_507_596_945_104_000, "timestamp(nanos)", "Int64(1529507596945104)")]
#[case(1_529_507_596_945_104_001, "timestamp(nanos)", PRECISE)]
// Postgres' infinities, in every mode.
#[case(i64::MAX, "timestamp(micros)", INFINITE)]
#[case(i64::MIN, "timestamp(micros)", INFINITE)]
#[case(9_223_372_036_825_200_000, "timestamp(micros)", INFINITE)]
#[case(-9_223_372_036_832_400_000, "timestamp(micros)", INFINITE)]
#[case(9_223_372_036_825_200, "timestamp(millis)", INFINITE)]
#[case(-9_223_372_036_832_400, "timestamp(millis)", INFINITE)]
#[case(9_223_372_036_825_200_000, "timestamp(millis)", INFINITE)]
#[case(-9_223_372_036_832_400_000, "timestamp(millis)", INFINITE)]
#[case(9_223_372_036_825_200_001, "timestamp(millis)", YEARS)]
#[case(i64::MAX, "timestamp(nanos)", INFINITE)]
#[case(i64::MIN, "timestamp(nanos)", INFINITE)]
#[case(253_402_300_799_999_999, "timestamp(micros)", "Int64(253402300799999999)")]
#[case(253_402_300_800_000_000, "timestamp(micros)", YEARS)]
#[case(-62_135_596_800_000_000, "timestamp(micros)", "Int64(-62135596800000000)")]
#[case(-62_135_596_800_000_001, "timestamp(micros)", YEARS)]
#[case(17109, "date", "Int32(17109)")]
#[case(2_932_896, "date", "Int32(2932896)")]
#[case(-719_162, "date", "Int32(-719162)")]
#[case(-2_147_472_692, "date", INFINITE)]
#[case(2_146_033_979, "date", INFINITE)]
#[case(2_146_033_978, "date", YEARS)]
#[case(-2_147_472_691, "date", INFINITE)]
#[case(-622_191_233, "date", INFINITE)]
#[case(86_399_999_999, "time(micros)", "Int64(86399999999)")]
#[case(86_400_000_000, "time(micros)", CLOCK)]
#[case(86_400_000, "time(millis)", CLOCK)]
#[case(-1, "time(micros)", CLOCK)]
#[case(3_723_004, "time(millis)", "Int64(3723004000)")]
#[case(i64::MAX, "long", "Int64(9223372036854775807)")]
#[case(2_147_483_648, "int", INTEGER)]
#[case(1, "boolean", "Boolean(true)")]
#[case(2, "boolean", INTEGER)]
#[case(1, "string", MISMATCH)]
#[case(5, "decimal(5,2)", "Decimal(500)")]
#[case(-3_020_399_000_000, "duration(micros)", "Int64(-3020399000000)")]
#[case(-1, "ulong", "Decimal(18446744073709551615)")]
#[case(i64::MAX, "ulong", "Decimal(9223372036854775807)")]
#[case(123, "numeric", "Text(\"123\")")]
fn integers(#[case] value: i64, #[case] ty: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Integer(value), ty).unwrap_or_else(str::to_owned), expected);
}

#[test]
fn floats_are_read_at_their_own_width() {
    let text = |raw, ty| stored(raw, ty).unwrap_or_else(str::to_owned);
    assert_eq!(text(Raw::Number("3.1"), "float"), format!("Float32({:?})", 3.1_f32));
    assert_eq!(text(Raw::Number("3.1"), "double"), "Float64(3.1)");
    assert_eq!(text(Raw::Number("-0.0"), "double"), "Float64(-0.0)");
    assert_eq!(text(Raw::Integer(1), "double"), "Float64(1.0)");
    for name in ["NaN", "Infinity", "-Infinity"] {
        assert!(text(Raw::Text(name), "double").starts_with("Float64("), "{name}");
        assert!(text(Raw::Text(name), "float").starts_with("Float32("), "{name}");
        assert_eq!(text(Raw::Text(name), "string"), format!("Text({name:?})"));
    }
    for other in ["nan", "inf", "1.5", ""] {
        assert_eq!(text(Raw::Text(other), "double"), MISMATCH, "{other}");
    }
    // A narrow float in a wide column is the narrow one's value.
    let wide = stored_as(Raw::Number("3.1"), &Form::Float, &ColumnType::Float64);
    assert_eq!(wide.unwrap(), format!("Float64({:?})", f64::from(3.1_f32)));
    // An integer in a floating-point column only when it stays what it is.
    let integer = |value| stored_as(Raw::Integer(value), &Form::Integer, &ColumnType::Float64);
    assert_eq!(integer(1 << 53).as_deref(), Ok("Float64(9007199254740992.0)"));
    assert_eq!(integer((1 << 53) + 1), Err(DIGITS));
}

#[rstest]
// A point without a reference system is its well-known binary as it came.
#[case(
    r#"{"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAPA/","srid":null}"#,
    "0101000000000000000000f03f000000000000f03f"
)]
#[case(r#"{"x":1.0,"y":1.0,"wkb":null,"srid":null}"#, "0101000000000000000000f03f000000000000f03f")]
#[case(
    r#"{"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAPA/","srid":4326}"#,
    "0101000020e6100000000000000000f03f000000000000f03f"
)]
// Big-endian.
#[case(
    r#"{"wkb":"AAAAAAE/8AAAAAAAAD/wAAAAAAAA","srid":4326,"extensions":{"type":"path"}}"#,
    "0020000001000010e63ff00000000000003ff0000000000000"
)]
fn geometries(#[case] json: &str, #[case] hex: &str) {
    let point = described(ConnectType::Struct, "io.debezium.data.geometry.Geometry", &[]);
    let Mapped { ty, form } = point.map(Times::OfDay);
    let mut scratch = Vec::new();
    let stored = store(Raw::Json(json), &form, &ty, &mut scratch).unwrap();
    let Stored::Bytes(bytes) = stored else { panic!("{stored:?}") };
    assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex);
    assert_eq!(told(Raw::Json(json), &point, Some("json")), Ok(format!("Text({json:?})")));
}

#[rstest]
#[case("2", b"", "[0]")]
#[case("7", b"\x40", "[64]")]
#[case("24", b"\x01\x02\x03", "[1, 2, 3]")]
#[case("64", b"\0\0\0\0\0\0\0\x80", "[0, 0, 0, 0, 0, 0, 0, 128]")]
#[case("9", b"\x01", "[1, 0]")]
#[case("2147483647", b"\x01", "[1]")]
fn bits_have_the_bytes_of_their_length(
    #[case] length: &str,
    #[case] bits: &[u8],
    #[case] expected: &str,
) {
    use base64::Engine;
    let described = described(ConnectType::Bytes, "io.debezium.data.Bits", &[("length", length)]);
    let expected = Ok(format!("Bytes({expected})"));
    assert_eq!(told(Raw::Bytes(bits), &described, None), expected);
    let text = base64::engine::general_purpose::STANDARD.encode(bits);
    assert_eq!(told(Raw::Text(&text), &described, None), expected);
}

#[rstest]
#[case("bytes", "AP8Q")]
#[case("bytes(base64url)", "AP8Q")]
#[case("bytes(hex)", "00ff10")]
fn bytes_written_as_text_are_bytes_when_declared(#[case] declared: &str, #[case] text: &str) {
    let told = told(Raw::Text(text), &Described::plain(ConnectType::String), Some(declared));
    assert_eq!(told.as_deref(), Ok("Bytes([0, 255, 16])"));
}

#[rstest]
#[case(ConnectType::Int64, "", "ulong", Raw::Integer(-1), "Decimal(18446744073709551615)")]
#[case(ConnectType::Int32, "", "long", Raw::Integer(-1), "Int64(-1)")]
#[case(ConnectType::String, "", "decimal(10,2)", Raw::Text("12.5"), "Decimal(1250)")]
#[case(ConnectType::String, "", "decimal(10,2)", Raw::Text("NAN"), "not_a_number")]
#[case(ConnectType::Map, "", "json", Raw::Json(r#"{"a":null}"#), r#"Text("{\"a\":null}")"#)]
#[case(ConnectType::Int64, "io.debezium.time.MicroTime", "duration(micros)", Raw::Integer(-1), "Int64(-1)")]
fn a_declared_type_wins_over_the_schemas(
    #[case] ty: ConnectType,
    #[case] name: &str,
    #[case] declared: &str,
    #[case] raw: Raw<'_>,
    #[case] expected: &str,
) {
    let told = told(raw, &described(ty, name, &[]), Some(declared));
    assert_eq!(told.unwrap_or_else(str::to_owned), expected);
}

#[rstest]
#[case(ConnectType::String, "date")]
#[case(ConnectType::Int64, "int")]
#[case(ConnectType::Float64, "decimal(10,2)")]
#[case(ConnectType::Bytes, "string")]
fn a_declared_type_that_cannot_be_is_none(#[case] ty: ConnectType, #[case] declared: &str) {
    let mapped = Described::plain(ty).map(Times::OfDay);
    assert_eq!(declared.parse::<DeclaredType>().unwrap().over(&mapped), None);
}

/// The nearest value that the column has, as text.
fn nearest(raw: Raw<'_>, declared: &str) -> String {
    let Mapped { ty, form } = declared.parse::<DeclaredType>().unwrap().map();
    match store(raw, &form, &ty, &mut Vec::new()) {
        Err(Misfit { invalid: true, nearest: Some(nearest), .. }) => format!("{nearest:?}"),
        other => format!("{other:?}"),
    }
}

#[rstest]
#[case(Raw::Integer(-2_147_472_692), "date", "Int32(2932896)")]
#[case(Raw::Integer(-2_147_472_691), "date", "Int32(-719162)")]
#[case(Raw::Integer(-622_191_232), "date", "Int32(2932896)")]
#[case(Raw::Integer(2_146_033_979), "date", "Int32(2932896)")]
#[case(Raw::Integer(-625_821_272), "date", "Int32(-719162)")]
#[case(Raw::Integer(-735_000), "date", "Int32(-719162)")]
#[case(Raw::Text("+292269055-12-03Z"), "date(iso)", "Int32(-719162)")]
#[case(Raw::Integer(9_223_372_036_825_200_000), "timestamp(micros)", "Int64(253402300799999999)")]
#[case(Raw::Integer(i64::MIN), "timestamp(nanos)", "Int64(-62135596800000000)")]
#[case(Raw::Integer(1_529_507_596_945_104_999), "timestamp(nanos)", "Int64(1529507596945104)")]
#[case(Raw::Text("-infinity"), "timestamptz", "Int64(-62135596800000000)")]
#[case(Raw::Text("2018-06-20T13:37:03.1234567Z"), "timestamptz", "Int64(1529501823123456)")]
#[case(Raw::Integer(86_400_000_000), "time(micros)", "Int64(86399999999)")]
#[case(Raw::Integer(1 << 40), "int", "Int32(2147483647)")]
#[case(Raw::Number("-1e30"), "decimal(5,2)", "Decimal(-99999)")]
#[case(Raw::Number("1.239"), "decimal(5,2)", "Decimal(123)")]
fn the_nearest_value_is_told(#[case] raw: Raw<'_>, #[case] ty: &str, #[case] expected: &str) {
    assert_eq!(nearest(raw, ty), expected);
}

#[test]
fn a_number_that_nobody_told_keeps_its_digits() {
    for text in ["1.5", "0.1", "1.0", "-2.5E-10", "1.7976931348623157E308", "3.141592653589793"] {
        assert!(is_exact_double(text), "{text}");
    }
    for text in ["1.50", "10.00", "123456789012345678.123", "0.1234567890123456789", "1e400"] {
        assert!(!is_exact_double(text), "{text}");
    }
    let number = |raw| stored_as(raw, &Form::Number, &ColumnType::Float64);
    assert_eq!(number(Raw::Number("10.50")).as_deref(), Ok("Float64(10.5)"));
    assert_eq!(number(Raw::Number("123456789012345678.123")), Err(DIGITS));
    assert_eq!(number(Raw::Integer(i64::MAX)), Err(DIGITS));
    let text = |raw| stored_as(raw, &Form::Any, &ColumnType::String);
    assert_eq!(text(Raw::Number("1.50")).as_deref(), Ok(r#"Text("1.50")"#));
    assert_eq!(text(Raw::Integer(-7)).as_deref(), Ok(r#"Text("-7")"#));
    assert_eq!(text(Raw::Boolean(true)).as_deref(), Ok(r#"Text("true")"#));
    assert_eq!(text(Raw::Json("[1,{}]")).as_deref(), Ok(r#"Text("[1,{}]")"#));
    assert_eq!(text(Raw::Json("[1,{]")), Err("malformed_json"));
}

#[test]
fn declared_types_are_written_as_they_are_read() {
    for text in [
        "boolean",
        "int",
        "decimal(10,2)",
        "time(millis)",
        "timestamp(micros)",
        "timestamptz",
        "uuid",
        "ulong",
        "numeric",
        "bytes(hex)",
        "geometry",
        "duration(micros)",
        "timestamp(iso)",
        "list<long>",
        "list<decimal(38,0)>",
    ] {
        assert_eq!(text.parse::<DeclaredType>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "integer",
        "decimal(0,0)",
        "decimal(5,6)",
        "decimal",
        "timestamp",
        "list<list<int>>",
        "list<>",
    ] {
        assert!(text.parse::<DeclaredType>().is_err(), "{text}");
    }
}

#[test]
fn a_table_holds_what_it_holds_exactly() {
    let ty = |text: &str| text.parse::<DeclaredType>().unwrap().map().ty;
    for (table, writer) in [
        ("long", "int"),
        ("double", "float"),
        ("decimal(12,2)", "decimal(10,2)"),
        ("decimal(12,4)", "decimal(10,2)"),
        ("boolean", "int"),
        ("int", "boolean"),
        ("timestamp(millis)", "timestamp(micros)"),
        ("list<long>", "list<int>"),
        ("string", "uuid"),
    ] {
        assert!(holds(&ty(table), &ty(writer)), "{table} {writer}");
    }
    for (table, writer) in [
        ("int", "long"),
        ("float", "double"),
        ("double", "long"),
        ("decimal(10,2)", "decimal(10,3)"),
        ("decimal(11,3)", "decimal(10,2)"),
        ("decimal(10,2)", "decimal(11,2)"),
        ("string", "int"),
        ("timestamp(micros)", "timestamptz"),
        ("date", "timestamp(micros)"),
        ("list<int>", "list<long>"),
        ("long", "decimal(5,0)"),
    ] {
        let expected = (table, writer) == ("decimal(11,3)", "decimal(10,2)");
        assert_eq!(holds(&ty(table), &ty(writer)), expected, "{table} {writer}");
    }
}

mod decimals;
mod moments;
