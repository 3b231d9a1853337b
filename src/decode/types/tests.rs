use rstest::rstest;

use super::*;

fn described(ty: ConnectType, name: &str, parameters: &[(&str, &str)]) -> Described {
    let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let name = (!name.is_empty()).then(|| name.to_owned());
    Described { ty, name, parameters: parameters.collect() }
}

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";

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
fn a_connect_type_has_its_column(
    #[case] ty: ConnectType,
    #[case] name: &str,
    #[case] column: &str,
) {
    assert_eq!(type_name(&described(ty, name, &[]).map().unwrap().ty), column);
}

#[rstest]
#[case("2", Some("10"), "decimal(10,2)")]
#[case("0", Some("38"), "decimal(38,0)")]
// Postgres' money has no precision.
#[case("2", None, "decimal(38,2)")]
// A scale above the precision: numeric(2,5).
#[case("5", Some("2"), "decimal(5,5)")]
fn a_decimal_has_its_column(
    #[case] scale: &str,
    #[case] precision: Option<&str>,
    #[case] column: &str,
) {
    let mut parameters = vec![("scale", scale)];
    parameters.extend(precision.map(|precision| ("connect.decimal.precision", precision)));
    let mapped = described(ConnectType::Bytes, DECIMAL, &parameters).map().unwrap();
    assert_eq!(type_name(&mapped.ty), column);
}

#[rstest]
#[case(described(ConnectType::Bytes, DECIMAL, &[("scale", "10"), ("connect.decimal.precision", "65")]))]
#[case(described(ConnectType::Bytes, DECIMAL, &[("scale", "2046"), ("connect.decimal.precision", "5")]))]
#[case(described(ConnectType::Bytes, DECIMAL, &[("scale", "-2"), ("connect.decimal.precision", "5")]))]
#[case(described(ConnectType::Bytes, DECIMAL, &[]))]
#[case(described(ConnectType::Struct, "io.debezium.data.VariableScaleDecimal", &[]))]
#[case(described(ConnectType::Struct, "io.debezium.data.geometry.Point", &[]))]
#[case(described(ConnectType::Map, "", &[]))]
#[case(Described::plain(ConnectType::Array(Box::new(Described::plain(ConnectType::Array(
    Box::new(Described::plain(ConnectType::Int32))
))))))]
fn what_no_column_holds_is_named(#[case] described: Described) {
    assert!(!described.map().unwrap_err().is_empty());
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

const RANGE: &str = "out_of_range";
const MISMATCH: &str = "type_mismatch";

#[rstest]
#[case("MDk=", "decimal(10,2)", "Decimal(12345)")]
#[case("nA==", "decimal(10,2)", "Decimal(-100)")]
#[case("AeIT", "decimal(38,2)", "Decimal(123411)")]
#[case("/h3t", "decimal(38,2)", "Decimal(-123411)")]
#[case("AA==", "decimal(5,0)", "Decimal(0)")]
#[case("", "decimal(5,0)", "Decimal(0)")]
#[case(
    "SztMqFqGxHoJiiI//////w==",
    "decimal(38,0)",
    "Decimal(99999999999999999999999999999999999999)"
)]
#[case("tMSzV6V5O4X2dd3AAAAAAA==", "decimal(38,0)", RANGE)]
// Eighteen bytes, the first two only a sign.
#[case("//////////////////////+c", "decimal(5,2)", "Decimal(-100)")]
#[case("AP//////////", "decimal(20,0)", "Decimal(18446744073709551615)")]
#[case("AP//////////", "decimal(19,0)", RANGE)]
#[case("not base64!", "decimal(5,2)", MISMATCH)]
fn decimals_in_base64(#[case] text: &str, #[case] ty: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Text(text), ty).unwrap_or_else(str::to_owned), expected);
}

#[rstest]
#[case("123.45", "Decimal(12345)")]
#[case("-0.05", "Decimal(-5)")]
#[case("1.2345e2", "Decimal(12345)")]
#[case("12E+1", "Decimal(12000)")]
#[case("1.10000", "Decimal(110)")]
#[case("0e-400", "Decimal(0)")]
#[case("1.234", RANGE)]
#[case("1e30", RANGE)]
#[case("1e999999999999", MISMATCH)]
fn decimals_as_numbers_are_exact(#[case] number: &str, #[case] expected: &str) {
    assert_eq!(
        stored(Raw::Number(number), "decimal(10,2)").unwrap_or_else(str::to_owned),
        expected
    );
}

#[rstest]
#[case(1_529_507_596_945_104, "timestamp(micros)", "Int64(1529507596945104)")]
#[case(-1_047_174_587_392, "timestamp(millis)", "Int64(-1047174587392000)")]
#[case(1_529_507_596_945_104_000, "timestamp(nanos)", "Int64(1529507596945104)")]
#[case(1_529_507_596_945_104_001, "timestamp(nanos)", RANGE)]
// Postgres' infinities, in every mode.
#[case(i64::MAX, "timestamp(micros)", RANGE)]
#[case(i64::MIN, "timestamp(micros)", RANGE)]
#[case(9_223_372_036_825_200_000, "timestamp(micros)", RANGE)]
#[case(-9_223_372_036_832_400_000, "timestamp(micros)", RANGE)]
#[case(9_223_372_036_825_200, "timestamp(millis)", RANGE)]
#[case(9_223_372_036_825_200_000, "timestamp(millis)", RANGE)]
#[case(253_402_300_799_999_999, "timestamp(micros)", "Int64(253402300799999999)")]
#[case(253_402_300_800_000_000, "timestamp(micros)", RANGE)]
#[case(-62_135_596_800_000_000, "timestamp(micros)", "Int64(-62135596800000000)")]
#[case(-62_135_596_800_000_001, "timestamp(micros)", RANGE)]
#[case(17109, "date", "Int32(17109)")]
#[case(2_932_896, "date", "Int32(2932896)")]
#[case(-719_162, "date", "Int32(-719162)")]
#[case(-2_147_472_692, "date", RANGE)]
#[case(2_146_033_979, "date", RANGE)]
#[case(-622_191_233, "date", RANGE)]
#[case(86_399_999_999, "time(micros)", "Int64(86399999999)")]
#[case(86_400_000_000, "time(micros)", RANGE)]
#[case(86_400_000, "time(millis)", RANGE)]
#[case(-1, "time(micros)", RANGE)]
#[case(3_723_004, "time(millis)", "Int64(3723004000)")]
#[case(i64::MAX, "long", "Int64(9223372036854775807)")]
#[case(2_147_483_648, "int", RANGE)]
#[case(1, "boolean", "Boolean(true)")]
#[case(2, "boolean", RANGE)]
#[case(1, "string", MISMATCH)]
#[case(5, "decimal(5,2)", "Decimal(500)")]
fn integers(#[case] value: i64, #[case] ty: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Integer(value), ty).unwrap_or_else(str::to_owned), expected);
}

#[test]
fn a_time_beyond_a_day_fits_a_column_of_integers() {
    let stored = stored_as(
        Raw::Integer(-3_020_399_000_000),
        &Form::TimeOfDay(Unit::Micros),
        &ColumnType::Int64,
    );
    assert_eq!(stored.as_deref(), Ok("Int64(-3020399000000)"));
}

#[rstest]
#[case("2018-06-20T13:37:03Z", "Int64(1529501823000000)")]
#[case("2024-02-29T10:34:56.123456Z", "Int64(1709202896123456)")]
#[case("2024-02-29T10:34:56.1Z", "Int64(1709202896100000)")]
#[case("1936-10-25T22:10:12.608Z", "Int64(-1047174587392000)")]
// Connectors that keep the offset: the same instant.
#[case("2018-07-13T12:23:45.456+11:00", "Int64(1531445025456000)")]
#[case("2018-07-13T12:23:45.4560000+11:00", "Int64(1531445025456000)")]
#[case("2018-07-13T12:23:45.4567891Z", RANGE)]
#[case("2016-12-31T23:59:60Z", RANGE)]
#[case("infinity", RANGE)]
#[case("-infinity", RANGE)]
#[case("+21016-11-04T06:51:30.123456Z", RANGE)]
#[case("-4713-12-31T23:59:59.999999Z", RANGE)]
#[case("2023-02-29T00:00:00Z", MISMATCH)]
#[case("2024-02-29T24:00:00Z", MISMATCH)]
#[case("2024-02-29", MISMATCH)]
fn timestamps_with_an_offset(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Text(text), "timestamptz").unwrap_or_else(str::to_owned), expected);
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
    assert_eq!(integer((1 << 53) + 1), Err(RANGE));
}

#[test]
fn iso_strings() {
    let text = |text, form, ty: ColumnType| {
        stored_as(Raw::Text(text), &form, &ty).unwrap_or_else(str::to_owned)
    };
    assert_eq!(text("2016-11-04Z", Form::IsoDate, ColumnType::Date), "Int32(17109)");
    assert_eq!(text("+292278994-08-16Z", Form::IsoDate, ColumnType::Date), MISMATCH);
    assert_eq!(text("04:05:11.789Z", Form::IsoTime, ColumnType::Time), "Int64(14711789000)");
    let stamp = text("2019-07-09T02:28:57.123456Z", Form::IsoTimestamp, ColumnType::Timestamp);
    assert_eq!(stamp, "Int64(1562639337123456)");
    let far = text("+294247-01-10T04:00:25.2Z", Form::IsoTimestamp, ColumnType::Timestamp);
    assert!([RANGE, MISMATCH].contains(&far.as_str()), "{far}");
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
        "list<long>",
        "list<decimal(38,0)>",
    ] {
        assert_eq!(text.parse::<DeclaredType>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "integer",
        "decimal(39,2)",
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
