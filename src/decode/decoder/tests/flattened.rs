//! Rows without an envelope.

use rstest::rstest;

use super::*;
use crate::decode::Registry;

fn options() -> Options {
    Options { added_prefix: "__".into(), ..super::options() }
}

/// What the record is: its operation, the moment of its source, and the names and values of its columns.
fn outcome(decoder: &mut Decoder, records: &Records) -> String {
    let record = records.get(0).unwrap();
    let change = match decoder.scan(&record) {
        Ok(Scanned::Change(change)) => change,
        Ok(Scanned::Skipped(skip)) => return format!("skipped {skip:?}"),
        Ok(Scanned::Truncate { .. }) => return "truncate".to_owned(),
        Err(ScanError::Reject(reject)) => return format!("rejected {}", reject.reason),
        Err(other) => panic!("{other:?}"),
    };
    let mut text = change.operation.code().to_owned();
    if let Some(at) = change.source_micros {
        text.push_str(&format!(" at {at}"));
    }
    if change.row.is_some() && change.moved.is_some() {
        text.push_str(" moved");
    }
    let Some(row) = Row::of(record, &change) else { return text };
    let schema = decoder.table_schema(&[row]).unwrap();
    let columns = decoder.columns(&[row], &schema).unwrap();
    if let Some((_, reject)) = columns.rejects.first() {
        return format!("row rejected {}", reject.reason);
    }
    let rows = &columns.rows;
    for (field, values) in rows.schema().fields().iter().zip(rows.columns()) {
        if !crate::schema::is_metadata(field.name()) {
            let value = arrow::util::display::array_value_to_string(values, 0).unwrap();
            text.push_str(&format!(" {}={value}", field.name()));
        }
    }
    if !columns.unavailable.is_empty() {
        text.push_str(&format!(" unavailable {:?}", columns.unavailable));
    }
    text
}

const KEY: &str = r#"{"id":1}"#;

#[rstest]
// Nothing but the row: its key is in it.
#[case(r#"{"id":1,"v":"x"}"#, "u id=1 v=x")]
#[case(r#"{"v":"x"}"#, "rejected not_an_envelope")]
#[case(r#"{"id":2,"v":"x"}"#, "rejected not_an_envelope")]
#[case(r#"{"after.id":1,"op":"c"}"#, "rejected not_an_envelope")]
#[case(r#"{"id":1,"specversion":"1.0","data":"x"}"#, "rejected not_an_envelope")]
#[case(r#"{"id":1,"ts_ms":5}"#, "u id=1 ts_ms=5")]
// A row of its own columns that look like an envelope's.
#[case(r#"{"id":1,"op":"add","source":"web","after":null}"#, "u id=1 op=add source=web")]
#[case(r#"{"id":1,"schema":"public"}"#, "u id=1 schema=public")]
// A placeholder may be in any row that may be an update.
#[case(r#"{"id":1,"v":"__debezium_unavailable_value"}"#, "u id=1 v= unavailable [(0, 1)]")]
#[case(
    r#"{"id":1,"v":"__debezium_unavailable_value","__op":"c"}"#,
    "c id=1 v=__debezium_unavailable_value"
)]
// Added fields are no columns; other names with the prefix are.
#[case(r#"{"id":1,"v":"x","__op":"c","__table":"t","__lsn":7,"__deleted":"false"}"#, "c id=1 v=x")]
#[case(r#"{"id":1,"__v":3,"__op":"r","__transaction_id":"5","__row":{}}"#, "r id=1 __v=3")]
#[case(r#"{"v":"x","__op":"u"}"#, "u id=1 v=x")]
#[case(r#"{"id":1,"__op":null,"v":"x"}"#, "u id=1 v=x")]
#[case(r#"{"id":1,"__op":"x"}"#, "rejected unknown_operation")]
#[case(r#"{"id":1,"__op":"t"}"#, "rejected unsupported_truncate")]
#[case(r#"{"id":1,"__source_ts_ms":2,"__op":"u"}"#, "u at 2000 id=1")]
#[case(r#"{"id":1,"__source_ts_ns":3999,"__source_ts_ms":2,"__ts_ms":9}"#, "u at 3 id=1")]
// Deletes that are rewritten to rows.
#[case(r#"{"id":1,"v":"","__deleted":"true"}"#, "d")]
#[case(r#"{"id":0,"v":"","__deleted":true,"__op":"d"}"#, "d")]
#[case(r#"{"id":1,"v":"x","__deleted":false}"#, "u id=1 v=x")]
// Deletes that are tombstones.
#[case("null", "d")]
#[case(r#"{"schema":null,"payload":null}"#, "d")]
#[case(r#"{"id":1,"v":"x"} x"#, "rejected malformed_json")]
fn a_row_in_json_is_told_from_a_foreign_record(#[case] value: &str, #[case] expected: &str) {
    let mut decoder = Decoder::new(options(), None, None);
    assert_eq!(outcome(&mut decoder, &record(Some(KEY), Some(value))), expected);
    // With a null schema, as some writers wrap it.
    let wrapped = format!(r#"{{"schema":null,"payload":{value}}}"#);
    if !value.contains("schema") && !value.ends_with('x') {
        let mut decoder = Decoder::new(options(), None, None);
        assert_eq!(outcome(&mut decoder, &record(Some(KEY), Some(&wrapped))), expected);
    }
}

#[rstest]
#[case("x.Value", "", r#"{"id":1,"v":null}"#, "u id=1 v=")]
#[case("other", "", r#"{"id":1,"v":"x"}"#, "u id=1 v=x")]
#[case("other", "", r#"{"id":2,"v":"x"}"#, "rejected not_an_envelope")]
#[case("x.Envelope", "", r#"{"id":1,"v":"x"}"#, "rejected not_an_envelope")]
#[case(
    "other",
    r#",{"type":"string","optional":true,"field":"__op"},{"type":"int64","optional":true,"field":"__source_ts_us"}"#,
    r#"{"id":2,"v":"x","__op":"c","__source_ts_us":6}"#,
    "c at 6 id=2 v=x"
)]
#[case(
    "x.Value",
    r#",{"type":"string","optional":true,"field":"__deleted"}"#,
    r#"{"id":1,"v":"","__deleted":"true"}"#,
    "d"
)]
#[case("x.Value", "", "null", "d")]
fn a_row_in_json_with_its_schema(
    #[case] name: &str,
    #[case] added: &str,
    #[case] value: &str,
    #[case] expected: &str,
) {
    let columns = r#"{"type":"int64","field":"id"},{"type":"string","optional":true,"field":"v"}"#;
    let fields = format!("{columns}{added}");
    let schema = format!(r#"{{"type":"struct","name":"{name}","fields":[{fields}]}}"#);
    let wrapped = format!(r#"{{"schema":{schema},"payload":{value}}}"#);
    let mut decoder = Decoder::new(options(), None, None);
    assert_eq!(outcome(&mut decoder, &record(Some(KEY), Some(&wrapped))), expected);
}

#[rstest]
#[case("c", "c id=2 v=x")]
#[case("\"r\"", "r id=2 v=x")]
#[case(r#"{"schema":{"type":"string"},"payload":"u"}"#, "u id=2 v=x")]
#[case("d", "d")]
fn an_operation_may_be_in_a_header(#[case] header: &str, #[case] expected: &str) {
    let mut decoder = Decoder::new(options(), None, None);
    let headers =
        [("__debezium.context.taskId", Some(&b"0"[..])), ("__op", Some(header.as_bytes()))];
    let records = with_headers(KEY.as_bytes(), Some(br#"{"id":2,"v":"x"}"#), headers);
    assert_eq!(outcome(&mut decoder, &records), expected);
}

#[test]
fn a_foreign_record_settles_no_key() {
    let mut decoder = Decoder::new(options(), None, None);
    let foreign = record(Some(r#"{"other":1}"#), Some(r#"{"id":1}"#));
    assert_eq!(outcome(&mut decoder, &foreign), "rejected not_an_envelope");
    assert_eq!(outcome(&mut decoder, &record(Some(KEY), Some(r#"{"id":1}"#))), "u id=1");
}

#[test]
fn a_heartbeat_is_no_row_of_one_column() {
    let mut decoder = Decoder::new(options(), None, None);
    let beat = record(Some(r#"{"serverName":"x"}"#), Some(r#"{"ts_ms":1}"#));
    assert_eq!(outcome(&mut decoder, &beat), "skipped Heartbeat");
    let row = record(Some(r#"{"ts_ms":1}"#), Some(r#"{"ts_ms":1}"#));
    assert_eq!(outcome(&mut decoder, &row), "u ts_ms=1");
}

#[test]
fn a_key_that_is_one_value_needs_its_name() {
    let row = record(Some("1"), Some(r#"{"id":1,"v":"x"}"#));
    let mut decoder = Decoder::new(options(), None, None);
    assert_eq!(outcome(&mut decoder, &row), "rejected not_an_envelope");
    let named = Options { declared_key: vec!["id".into()], ..options() };
    let mut decoder = Decoder::new(named, None, None);
    assert_eq!(outcome(&mut decoder, &row), "u id=1 v=x");
}

#[test]
fn a_moved_row_takes_what_it_lacks_from_its_old_key() {
    let mut decoder = Decoder::new(options(), None, None);
    let headers = [("__debezium.oldkey", Some(&br#"{"id":7}"#[..]))];
    let records = with_headers(KEY.as_bytes(), Some(br#"{"id":1,"v":"x"}"#), headers);
    assert_eq!(outcome(&mut decoder, &records), "u moved id=1 v=x");
}

#[test]
fn another_prefix_is_an_option_and_none_switches_them_off() {
    let value = r#"{"id":1,"op":"c","cdc_op":"r","cdc_lsn":5,"__deleted":"false"}"#;
    for (prefix, expected) in [
        ("cdc_", "r id=1 op=c"),
        ("__", "u id=1 op=c cdc_op=r cdc_lsn=5"),
        ("", "u id=1 op=c cdc_op=r cdc_lsn=5"),
    ] {
        let options = Options { added_prefix: prefix.into(), ..options() };
        let mut decoder = Decoder::new(options, None, None);
        assert_eq!(outcome(&mut decoder, &record(Some(KEY), Some(value))), expected, "{prefix}");
    }
}

#[test]
fn a_row_in_avro() {
    let field = |name: &str, ty: &str| format!(r#"{{"name":"{name}","type":{ty}}}"#);
    let schema = |name: &str, fields: &[String]| {
        let fields = fields.join(",");
        format!(r#"{{"type":"record","name":"{name}","namespace":"t","fields":[{fields}]}}"#)
    };
    let (id, v) = (field("id", "\"long\""), field("v", r#"["null","string"]"#));
    let added = [
        field("__deleted", r#"["null","string"]"#),
        field("__op", r#"["null","string"]"#),
        field("__row", r#"["null",{"type":"array","items":"int"}]"#),
        field("__source_ts_ms", r#"["null","long"]"#),
    ];
    let all = [&[id.clone(), v.clone()][..], &added].concat();
    let schemas = [
        (1, schema("Key", std::slice::from_ref(&id))),
        (2, schema("Value", &all)),
        (3, schema("Other", &[id.clone(), v])),
    ];
    let registry = Registry::preloaded(schemas.map(|(id, schema)| (SchemaId(id), schema)));
    let mut decoder = Decoder::new(options(), Some(registry), None);
    for id in 1..=3 {
        futures::executor::block_on(decoder.fetch_schema(SchemaId(id))).unwrap();
    }
    let key = [0, 0, 0, 0, 1, 2];
    let x = [2, 2, b'x'];
    let row = |rest: &[u8]| [&[0, 0, 0, 0, 2, 2][..], &x, rest].concat();
    for (value, expected) in [
        (row(&[2, 10, b'f', b'a', b'l', b's', b'e', 2, 2, b'c', 0, 2, 4]), "c at 2000 id=1 v=x"),
        (row(&[2, 8, b't', b'r', b'u', b'e', 2, 2, b'd', 2, 2, 6, 0, 0]), "d"),
        (row(&[0, 0, 0, 0]), "u id=1 v=x"),
        (row(&[0, 0, 0]), "rejected malformed_avro"),
        ([&[0, 0, 0, 0, 3, 2][..], &x].concat(), "u id=1 v=x"),
        ([&[0, 0, 0, 0, 3, 4][..], &x].concat(), "rejected not_an_envelope"),
    ] {
        let records = with_headers(&key, Some(&value), []);
        assert_eq!(outcome(&mut decoder, &records), expected, "{value:?}");
    }
}
