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

const YEARS: &str = "year_out_of_range";
const INFINITE: &str = "infinite";
const DIGITS: &str = "too_many_digits";
const PRECISE: &str = "too_precise";
const INTEGER: &str = "integer_out_of_range";
const CLOCK: &str = "time_out_of_range";
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
#[case("tMSzV6V5O4X2dd3AAAAAAA==", "decimal(38,0)", DIGITS)]
// Eighteen bytes, the first two only a sign.
#[case("//////////////////////+c", "decimal(5,2)", "Decimal(-100)")]
#[case("AP//////////", "decimal(20,0)", "Decimal(18446744073709551615)")]
#[case("AP//////////", "decimal(19,0)", DIGITS)]
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
#[case("1.234", PRECISE)]
#[case("0.00001", PRECISE)]
#[case("1e-400", PRECISE)]
#[case("1e30", DIGITS)]
#[case("123456789012345678901234567890123456789012", DIGITS)]
#[case("1.5000000000000000000000000000000000000000000000000000", "Decimal(150)")]
#[case("12.", "Decimal(1200)")]
#[case("x", MISMATCH)]
#[case("-", MISMATCH)]
#[case("NAN", "not_a_number")]
#[case("POSITIVE_INFINITY", INFINITE)]
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
#[case("2018-07-13T12:23:45.4567891Z", PRECISE)]
#[case("2016-12-31T23:59:60Z", "leap_second")]
#[case("infinity", INFINITE)]
#[case("-infinity", INFINITE)]
#[case("+21016-11-04T06:51:30.123456Z", YEARS)]
#[case("-4713-12-31T23:59:59.999999Z", YEARS)]
#[case("-", MISMATCH)]
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
    assert_eq!(integer((1 << 53) + 1), Err(DIGITS));
}

#[test]
fn iso_strings() {
    let text = |text, form, ty: ColumnType| {
        stored_as(Raw::Text(text), &form, &ty).unwrap_or_else(str::to_owned)
    };
    assert_eq!(text("2016-11-04Z", Form::IsoDate, ColumnType::Date), "Int32(17109)");
    for infinite in [
        "+292278994-08-16Z",
        "+292278994-08-17Z",
        "+292269055-12-02Z",
        "+5877611-06-21Z",
        "-5877611-06-22Z",
    ] {
        assert_eq!(text(infinite, Form::IsoDate, ColumnType::Date), INFINITE);
    }
    assert_eq!(text("-0044-03-15Z", Form::IsoDate, ColumnType::Date), YEARS);
    assert_eq!(text("24:00:00Z", Form::IsoTime, ColumnType::Time), CLOCK);
    assert_eq!(text("24:00:00Z", Form::IsoTime, ColumnType::Int64), "Int64(86400000000)");
    assert_eq!(text("-838:59:59Z", Form::IsoTime, ColumnType::Int64), "Int64(-3020399000000)");
    assert_eq!(text("04:05:11.789Z", Form::IsoTime, ColumnType::Time), "Int64(14711789000)");
    let stamp = text("2019-07-09T02:28:57.123456Z", Form::IsoTimestamp, ColumnType::Timestamp);
    assert_eq!(stamp, "Int64(1562639337123456)");
    for infinite in [
        "+294247-01-10T04:00:25.2Z",
        "-290308-12-21T19:59:27.6Z",
        "+292278994-08-16T23:00:00Z",
        "-292275055-05-16T23:00:00Z",
    ] {
        assert_eq!(text(infinite, Form::IsoTimestamp, ColumnType::Timestamp), INFINITE);
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

#[rstest]
#[case(r#"{"scale":4,"value":"AYr3"}"#, None, r#"Text("10.1111")"#)]
#[case(r#"{"scale":0,"value":"AA=="}"#, None, r#"Text("0")"#)]
#[case(r#"{"scale":-3,"value":"ew=="}"#, None, r#"Text("123000")"#)]
#[case(r#"{"scale":2,"value":"/w=="}"#, None, r#"Text("-0.01")"#)]
#[case(r#"{"value":"AYr3","scale":4}"#, Some("decimal(10,4)"), "Decimal(101111)")]
#[case(r#"{"scale":4,"value":"AYr3"}"#, Some("decimal(10,2)"), PRECISE)]
#[case(r#"{"scale":-3,"value":"ew=="}"#, Some("decimal(10,2)"), "Decimal(12300000)")]
#[case(r#"{"scale":0,"value":"AYr3"}"#, Some("decimal(5,2)"), DIGITS)]
#[case(r#"{"scale":2000000000,"value":"AYr3"}"#, Some("decimal(5,2)"), PRECISE)]
#[case(r#"{"scale":-2000000000,"value":"AYr3"}"#, Some("decimal(5,2)"), DIGITS)]
#[case(r#"{"scale":-2000000000,"value":"AYr3"}"#, None, MISMATCH)]
#[case(r#"{"scale":4}"#, None, MISMATCH)]
fn decimals_with_their_own_scale(
    #[case] json: &str,
    #[case] declared: Option<&str>,
    #[case] expected: &str,
) {
    let variable = described(ConnectType::Struct, VARIABLE, &[]);
    assert_eq!(told(Raw::Json(json), &variable, declared).unwrap_or_else(str::to_owned), expected);
}

/// Bytes of a decimal as a connector writes them.
fn unscaled(text: &str) -> Vec<u8> {
    text.parse::<num_bigint::BigInt>().unwrap().to_signed_bytes_be()
}

#[rstest]
#[case(
    "12345678901234567890123456789012345678901234567890123450123456789",
    10,
    65,
    "1234567890123456789012345678901234567890123456789012345.0123456789"
)]
#[case("-1", 10, 65, "-0.0000000001")]
#[case("0", 30, 65, "0.000000000000000000000000000000")]
fn decimals_of_more_than_38_digits_are_text(
    #[case] value: &str,
    #[case] scale: i32,
    #[case] precision: i32,
    #[case] expected: &str,
) {
    let (scale, precision) = (scale.to_string(), precision.to_string());
    let parameters = [("scale", scale.as_str()), ("connect.decimal.precision", precision.as_str())];
    let described = described(ConnectType::Bytes, DECIMAL, &parameters);
    let bytes = unscaled(value);
    assert_eq!(told(Raw::Bytes(&bytes), &described, None), Ok(format!("Text({expected:?})")));
}

#[rstest]
#[case("12.50", r#"Text("12.50")"#)]
#[case("-1250", r#"Text("-1250")"#)]
#[case("12345", r#"Text("12345")"#)]
#[case("NaN", r#"Text("NaN")"#)]
// Bytes in base64, whose scale nothing tells; some of them look like a number.
#[case("AYr3", MISMATCH)]
#[case("1234", MISMATCH)]
#[case("1e+2", MISMATCH)]
#[case("", MISMATCH)]
fn a_decimal_without_a_scale_is_no_text(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Text(text), "numeric").unwrap_or_else(str::to_owned), expected);
}

#[rstest]
#[case("decimal(45,10)", "A34R1gA=", r#"Text("1.5000000000")"#)]
#[case("decimal(65,30)", "Eu7C6zhpr2TfYAAAAA==", r#"Text("1.500000000000000000000000000000")"#)]
#[case("decimal(45,0)", "1234", r#"Text("-2658824")"#)]
#[case("decimal(45,10)", "12.34", MISMATCH)]
fn a_declared_decimal_of_any_precision_is_exact(
    #[case] ty: &str,
    #[case] base64: &str,
    #[case] expected: &str,
) {
    assert_eq!(stored(Raw::Text(base64), ty).unwrap_or_else(str::to_owned), expected);
}

#[test]
fn a_negative_scale_is_exact() {
    let of = |scale: &str, bytes: &[u8], declared| {
        let parameters = [("scale", scale), ("connect.decimal.precision", "5")];
        told(Raw::Bytes(bytes), &described(ConnectType::Bytes, DECIMAL, &parameters), declared)
    };
    assert_eq!(of("-2", &unscaled("123"), None).as_deref(), Ok("Decimal(12300)"));
    let postgres = unscaled(&format!("12300{}", "0".repeat(2046)));
    assert_eq!(of("2046", &postgres, None).as_deref(), Ok("Decimal(12300)"));
    assert_eq!(of("2046", &postgres, Some("string")).as_deref(), Ok(r#"Text("12300")"#));
    assert_eq!(of("2046", &unscaled("1"), None), Err(PRECISE));
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
#[case("StructuredDate", r#"{"year":2016,"month":11,"day":4,"specialValue":null}"#, "Int32(17109)")]
#[case("StructuredDate", r#"{"year":null,"specialValue":"POSITIVE_INFINITY"}"#, INFINITE)]
#[case("StructuredDate", r#"{"year":-43,"month":3,"day":15}"#, YEARS)]
#[case("StructuredDate", r#"{"year":2024,"month":0,"day":15}"#, "no_such_day")]
#[case("StructuredDate", r#"{"year":0,"month":0,"day":0}"#, "no_such_day")]
#[case(
    "StructuredTime",
    r#"{"hour":4,"minute":5,"second":11,"nanos":789000000}"#,
    "Int64(14711789000)"
)]
#[case(
    "StructuredTime",
    r#"{"hour":4,"minute":5,"second":11,"picoseconds":789000000000}"#,
    "Int64(14711789000)"
)]
#[case("StructuredTime", r#"{"hour":24,"minute":0,"second":0,"nanos":0}"#, CLOCK)]
#[case("StructuredTimestamp", r#"{"year":2018,"month":6,"day":20,"hour":15,"minute":13,"second":16,"nanos":945104000,"precision":6}"#, "Int64(1529507596945104)")]
#[case(
    "StructuredTimestamp",
    r#"{"year":2018,"month":6,"day":20,"hour":15,"minute":13,"second":16,"nanos":945104001}"#,
    PRECISE
)]
#[case("StructuredTimestamp", r#"{"specialValue":"NEGATIVE_INFINITY"}"#, INFINITE)]
#[case("StructuredZonedTimestamp", r#"{"year":2018,"month":7,"day":13,"hour":12,"minute":23,"second":45,"picoseconds":456000000000,"offsetSeconds":39600,"zoneId":"+11:00"}"#, "Int64(1531445025456000)")]
#[case(
    "StructuredZonedTime",
    r#"{"hour":4,"minute":41,"second":12,"nanos":123456000,"offsetSeconds":-25200}"#,
    r#"Text("04:41:12.123456-07:00")"#
)]
#[case(
    "StructuredZonedTime",
    r#"{"hour":24,"minute":0,"second":0,"nanos":0,"offsetSeconds":0}"#,
    r#"Text("24:00:00Z")"#
)]
#[case(
    "StructuredDuration",
    r#"{"years":1,"months":2,"days":3,"hours":4,"minutes":5,"seconds":6,"nanos":780000000}"#,
    r#"Text("P1Y2M3DT4H5M6.78S")"#
)]
#[case("StructuredDuration", r#"{"seconds":0}"#, r#"Text("PT0S")"#)]
#[case(
    "StructuredDuration",
    r#"{"days":-1,"seconds":-1,"nanos":-500000000}"#,
    r#"Text("P-1DT-1.5S")"#
)]
fn dates_and_times_in_parts(#[case] name: &str, #[case] json: &str, #[case] expected: &str) {
    let described = described(ConnectType::Struct, &format!("io.debezium.time.{name}"), &[]);
    assert_eq!(told(Raw::Json(json), &described, None).unwrap_or_else(str::to_owned), expected);
}

#[test]
fn an_elapsed_time_in_parts_is_a_number() {
    let kind = [("io.debezium.time.duration.kind", "elapsed-time")];
    let described = described(ConnectType::Struct, "io.debezium.time.StructuredDuration", &kind);
    let json = r#"{"hours":-838,"minutes":-59,"seconds":-59,"picoseconds":0}"#;
    assert_eq!(told(Raw::Json(json), &described, None).as_deref(), Ok("Int64(-3020399000000)"));
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
