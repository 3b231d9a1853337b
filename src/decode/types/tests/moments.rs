//! Dates and times in every form.

use super::*;

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
