use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use super::*;
use crate::decode::{DeclaredType, Evolution, InvalidValue};
use crate::error::Kind as ErrorKind;
use crate::record::Records;
use crate::schema::{Column, ColumnType};

const PLACEHOLDER: &str = "__debezium_unavailable_value";

fn options() -> Options {
    Options { placeholder: PLACEHOLDER.into(), ..Options::default() }
}

fn record(key: Option<&str>, value: Option<&str>) -> Records {
    let mut records = Records::new("t".into(), 3, 0);
    assert!(records.push(7, None, key.map(str::as_bytes), value.map(str::as_bytes), []));
    records
}

fn with_headers<'h>(
    key: &[u8],
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
) -> Records {
    let mut records = Records::new("t".into(), 3, 0);
    assert!(records.push(7, None, Some(key), value, headers));
    records
}

fn scan(
    decoder: &mut Decoder,
    key: Option<&str>,
    value: Option<&str>,
) -> Result<Scanned, ScanError> {
    decoder.scan(&record(key, value).get(0).unwrap())
}

fn change(decoder: &mut Decoder, key: &str, value: &str) -> Change {
    match scan(decoder, Some(key), Some(value)) {
        Ok(Scanned::Change(change)) => change,
        other => panic!("no change: {other:?}"),
    }
}

fn reason(result: Result<Scanned, ScanError>) -> &'static str {
    match result {
        Err(ScanError::Reject(reject)) => reject.reason,
        other => panic!("no reject: {other:?}"),
    }
}

fn bare(op: &str, after: &str) -> String {
    format!(r#"{{"before":null,"after":{after},"source":{{"ts_ms":1,"ts_us":1234}},"op":"{op}"}}"#)
}

/// Scans and decodes records of a topic whose table does not exist yet.
fn decode(decoder: &mut Decoder, records: &[(&str, &str)]) -> Result<Columns> {
    let mut kept = Vec::new();
    for (key, value) in records {
        let change = change(decoder, key, value);
        kept.push((change, *key, *value));
    }
    let rows: Vec<Row<'_>> = kept
        .iter()
        .filter_map(|(change, key, value)| {
            let row = change.row?;
            Some(Row {
                bytes: &value.as_bytes()[row.start as usize..row.end as usize],
                writer: row.writer,
                operation: change.operation,
                moved: change.moved.is_some(),
                key: Some(key.as_bytes()),
                headers: crate::record::Headers::default(),
                source_micros: change.source_micros,
                partition: 3,
                offset: 7,
                source_position: None,
            })
        })
        .collect();
    let schema = decoder.table_schema(&rows)?;
    decoder.columns(&rows, &schema)
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a arrow::array::ArrayRef {
    rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"))
}

#[test]
fn a_row_without_schema_is_inferred() {
    let mut decoder = Decoder::new(options(), None, None);
    let after = r#"{"id":9007199254740993,"name":"a\u00fc\ud83d\ude00","x":1.5,"ok":true,"gone":null,"l":["a",null]}"#;
    let columns =
        decode(&mut decoder, &[(r#"{"id":9007199254740993}"#, &bare("c", after))]).unwrap();
    let rows = &columns.rows;
    assert_eq!(columns.rejects, []);
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(
        names,
        ["id", "name", "x", "ok", "l", "_cdc_op", "_cdc_ts", "_cdc_partition", "_cdc_offset"]
    );
    assert_eq!(column(rows, "id").as_primitive::<Int64Type>().value(0), 9_007_199_254_740_993);
    assert_eq!(column(rows, "name").as_string::<i32>().value(0), "aü😀");
    assert_eq!(column(rows, "_cdc_ts").as_primitive::<TimestampMicrosecondType>().value(0), 1234);
    assert_eq!(column(rows, "_cdc_partition").as_primitive::<Int32Type>().value(0), 3);
    let list = column(rows, "l").as_list::<i32>().value(0);
    assert_eq!((list.len(), list.is_null(1)), (2, true));
}

#[test]
fn declared_types_win() {
    let declared = [("price", "decimal(10,2)"), ("day", "date"), ("at", "timestamp(millis)")];
    let declared =
        declared.map(|(name, ty)| (name.to_owned(), ty.parse::<DeclaredType>().unwrap()));
    let mut decoder = Decoder::new(Options { declared: declared.into(), ..options() }, None, None);
    let after = r#"{"id":"k","price":"MDk=","day":17109,"at":1529507596945}"#;
    let columns = decode(&mut decoder, &[(r#"{"id":"k"}"#, &bare("c", after))]).unwrap();
    let rows = &columns.rows;
    assert_eq!(column(rows, "price").as_primitive::<Decimal128Type>().value(0), 12345);
    assert_eq!(column(rows, "day").as_primitive::<Date32Type>().value(0), 17109);
    let at = column(rows, "at").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(at.value(0), 1_529_507_596_945_000);
}

#[test]
fn what_nobody_told_keeps_its_digits() {
    let rows = [
        r#"{"id":1,"a":1,"b":18446744073709551616,"c":{"x":[1]},"d":[],"e":[1,"x"],"f":null,"g":1.10}"#,
        r#"{"id":2,"a":1.5,"b":1,"c":null,"d":null,"e":[[1],[2]],"f":null,"g":2}"#,
    ];
    let values: Vec<String> = rows.iter().map(|after| bare("c", after)).collect();
    let records = [(r#"{"id":1}"#, values[0].as_str()), (r#"{"id":2}"#, values[1].as_str())];
    let columns = decode(&mut Decoder::new(options(), None, None), &records).unwrap();
    assert_eq!(columns.rejects, []);
    let text = |name: &str, row| {
        let column = column(&columns.rows, name).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let of = |name: &str| [text(name, 0), text(name, 1)];
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of("a"), [some("1"), some("1.5")]);
    assert_eq!(of("b"), [some("18446744073709551616"), some("1")]);
    assert_eq!(of("c"), [some(r#"{"x":[1]}"#), None]);
    assert_eq!(of("e"), [some(r#"[1,"x"]"#), some("[[1],[2]]")]);
    assert_eq!(of("g"), [some("1.10"), some("2")]);
    // Columns without a value that tells wait.
    assert!(columns.rows.column_by_name("d").is_none());
    assert!(columns.rows.column_by_name("f").is_none());
}

#[rstest::rstest]
#[case(InvalidValue::DeadLetter, InvalidValue::DeadLetter, None)]
#[case(InvalidValue::DeadLetter, InvalidValue::Null, Some(None))]
#[case(InvalidValue::Null, InvalidValue::Clamp, Some(Some(2_932_896)))]
fn an_invalid_value_follows_its_columns_policy(
    #[case] general: InvalidValue,
    #[case] own: InvalidValue,
    #[case] expected: Option<Option<i32>>,
) {
    let declared = [("day", "date"), ("days", "list<date>"), ("kind", "int")];
    let options = Options {
        declared: declared.map(|(name, ty)| (name.to_owned(), ty.parse().unwrap())).into(),
        invalid: general,
        invalid_columns: vec![("day".into(), own), ("days".into(), own)],
        ..options()
    };
    let after = r#"{"id":1,"day":-2147472692,"days":[17109,-2147472692]}"#;
    let row = bare("c", after);
    let mut decoder = Decoder::new(options, None, None);
    let columns = decode(&mut decoder, &[(r#"{"id":1}"#, &row)]).unwrap();
    let Some(expected) = expected else {
        assert_eq!(columns.rejects[0].1.reason, "infinite");
        return;
    };
    assert_eq!(columns.rejects, []);
    let day = |column: &arrow::array::ArrayRef, row| {
        let days = column.as_primitive::<Date32Type>();
        days.is_valid(row).then(|| days.value(row))
    };
    assert_eq!(day(column(&columns.rows, "day"), 0), expected);
    let list = column(&columns.rows, "days").as_list::<i32>().value(0);
    assert_eq!((day(&list, 0), day(&list, 1)), (Some(17109), expected));
    // A value of another type is not invalid, it is wrong.
    let wrong = bare("c", r#"{"id":1,"kind":"x"}"#);
    let columns = decode(&mut decoder, &[(r#"{"id":1}"#, &wrong)]).unwrap();
    assert_eq!(columns.rejects[0].1.reason, "type_mismatch");
}

#[test]
fn a_column_may_change_to_decimals_with_their_own_scale() {
    let wrapped = |ty: &str, v: &str| {
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"struct","field":"after","fields":[{{"type":"int32","field":"id"}},{ty}]}},{{"type":"struct","field":"source"}},{{"type":"string","field":"op"}}]}},"payload":{{"after":{{"id":1,"v":{v}}},"source":{{}},"op":"c"}}}}"#
        )
    };
    let fixed = r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"5"},"field":"v"}"#;
    let free = r#"{"type":"struct","name":"io.debezium.data.VariableScaleDecimal","field":"v"}"#;
    let key = r#"{"id":1}"#;
    let values = [
        wrapped(fixed, r#""MDk=""#),
        wrapped(free, r#"{"scale":1,"value":"GQ=="}"#),
        wrapped(free, r#"{"scale":3,"value":"GQ=="}"#),
    ];
    let records: Vec<_> = values.iter().map(|value| (key, value.as_str())).collect();
    let columns = decode(&mut Decoder::new(options(), None, None), &records).unwrap();
    let v = column(&columns.rows, "v").as_primitive::<Decimal128Type>();
    assert_eq!((v.value(0), v.value(1)), (12345, 250));
    assert_eq!(columns.rejects.len(), 1);
    assert_eq!((columns.rejects[0].0, columns.rejects[0].1.reason), (2, "too_precise"));
    // The other way round: the column is text.
    let columns = decode(&mut Decoder::new(options(), None, None), &[records[1], records[0]]);
    let columns = columns.unwrap();
    let v = column(&columns.rows, "v").as_string::<i32>();
    assert_eq!((v.value(0), v.value(1)), ("2.5", "123.45"));
}

#[test]
fn records_that_are_no_change_are_told_apart() {
    let mut decoder = Decoder::new(options(), None, None);
    let mut skipped = |value: &str| match scan(&mut decoder, Some(r#"{"id":1}"#), Some(value)) {
        Ok(Scanned::Skipped(skip)) => skip,
        other => panic!("not skipped: {other:?}"),
    };
    assert_eq!(skipped(r#"{"ts_ms":1}"#), Skip::Heartbeat);
    let end = r#"{"status":"END","id":"1","ts_ms":1,"event_count":1,"data_collections":[]}"#;
    assert_eq!(skipped(end), Skip::Transaction);
    assert_eq!(skipped(r#"{"source":{},"ddl":"x","tableChanges":[]}"#), Skip::SchemaChange);
    assert_eq!(skipped(r#"{"op":"m","source":{},"message":{}}"#), Skip::Message);
    let notification = r#"{"id":"1","type":"STARTED","aggregate_type":"Initial Snapshot"}"#;
    assert_eq!(skipped(notification), Skip::Notification);
    let truncate = r#"{"op":"t","source":{},"before":null,"after":null}"#;
    assert_eq!(scan(&mut decoder, None, Some(truncate)), Ok(Scanned::Truncate { alone: true }));
    assert_eq!(scan(&mut decoder, None, None), Ok(Scanned::Skipped(Skip::KeylessTombstone)));
    let key = Some(r#"{"id":1}"#);
    for (value, expected) in [
        ("{}", "not_an_envelope"),
        ("\"\"", "not_an_envelope"),
        ("[]", "not_an_envelope"),
        ("", "malformed_json"),
        ("{", "malformed_json"),
        (r#"{"status":"BEGIN","id":2}"#, "not_an_envelope"),
        (r#"{"op":"x","source":{},"after":{}}"#, "unknown_operation"),
        (r#"{"op":"t","source":{},"after":{"id":1}}"#, "unsupported_truncate"),
        (r#"{"op":"u","source":{},"after":null}"#, "no_row"),
        (r#"{"op":"c","source":{},"after":{"id":1}} x"#, "malformed_json"),
        (r#"{"op":"c","source":{},"after":{"id":1},"after":{"id":2}}"#, "malformed_json"),
    ] {
        assert_eq!(reason(scan(&mut decoder, key, Some(value))), expected, "{value}");
    }
    assert_eq!(reason(scan(&mut decoder, None, Some(&bare("c", "{}")))), "no_key");
}

#[tokio::test]
async fn a_null_in_avro_is_a_tombstone() {
    let key = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}"#;
    let row = r#"{"type":"record","name":"Value","fields":[{"name":"id","type":"long"}]}"#;
    let source = r#"{"type":"record","name":"Source","fields":[{"name":"ts_ms","type":"long"}]}"#;
    let envelope = format!(
        r#"["null",{{"type":"record","name":"Envelope","fields":[{{"name":"before","type":["null",{row}]}},{{"name":"after","type":["null","Value"]}},{{"name":"source","type":{source}}},{{"name":"op","type":"string"}}]}}]"#
    );
    let schemas = [(SchemaId(1), key.to_owned()), (SchemaId(2), envelope)];
    let mut decoder = Decoder::new(options(), Some(Registry::preloaded(schemas)), None);
    decoder.fetch_schema(SchemaId(1)).await.unwrap();
    decoder.fetch_schema(SchemaId(2)).await.unwrap();
    for (value, operation) in [
        (&[0, 0, 0, 0, 2, 0][..], Operation::Delete),
        (&[0, 0, 0, 0, 2, 2, 0, 2, 6, 8, 2, b'c'], Operation::Create),
    ] {
        let records = with_headers(&[0, 0, 0, 0, 1, 6], Some(value), []);
        match decoder.scan(&records.get(0).unwrap()) {
            Ok(Scanned::Change(change)) => assert_eq!(change.operation, operation),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_signalling_table_is_no_table() {
    let mut decoder = Decoder::new(options(), None, None);
    let mut records = Records::new("p.public.debezium_signal".into(), 0, 0);
    let value = bare("c", r#"{"id":"x","type":"snapshot-window-open","data":null}"#);
    assert!(records.push(0, None, Some(br#"{"id":"x"}"#), Some(value.as_bytes()), []));
    let scanned = decoder.scan(&records.get(0).unwrap());
    assert_eq!(scanned, Ok(Scanned::Skipped(Skip::Signal)));
}

#[test]
fn nulls_of_all_kinds_are_tombstones() {
    let mut decoder = Decoder::new(options(), None, None);
    let key = r#"{"id":1}"#;
    let schema = r#"{"type":"struct","fields":[],"optional":true}"#;
    let wrapped = format!(r#"{{"schema":{schema},"payload":null}}"#);
    for value in [None, Some("null"), Some(r#"{"schema":null,"payload":null}"#), Some(&wrapped)] {
        let scanned = scan(&mut decoder, Some(key), value);
        assert!(
            matches!(
                scanned,
                Ok(Scanned::Change(Change { operation: Operation::Delete, row: None, .. }))
            ),
            "{value:?}: {scanned:?}"
        );
    }
}

#[test]
fn a_rejected_row_leaves_its_neighbours_alone() {
    let declared = [("n", "long"), ("l", "list<long>")];
    let declared = declared.map(|(name, ty)| (name.to_owned(), ty.parse().unwrap()));
    let options = Options { declared: declared.into(), ..options() };
    let mut decoder = Decoder::new(options, None, None);
    let rows = [
        r#"{"id":1,"n":1,"t":"a","l":[1]}"#,
        r#"{"id":2,"n":"x","l":[1,2]}"#,
        r#"{"id":3,"n":3,"l":[1,"x"]}"#,
        r#"{"id":4,"n":4,"n":4}"#,
        r#"{"id":5,"n":5,"t":"e","l":[5]}"#,
    ];
    let values: Vec<String> = rows.iter().map(|after| bare("c", after)).collect();
    let records: Vec<(&str, &str)> =
        values.iter().map(|value| (r#"{"id":1}"#, value.as_str())).collect();
    let columns = decode(&mut decoder, &records).unwrap();
    let rejects: Vec<_> =
        columns.rejects.iter().map(|(row, reject)| (*row, reject.reason)).collect();
    assert_eq!(rejects, [(1, "type_mismatch"), (2, "type_mismatch"), (3, "duplicate_field")]);
    let n = column(&columns.rows, "n").as_primitive::<Int64Type>();
    assert_eq!((n.value(0), n.value(4)), (1, 5));
    assert_eq!(column(&columns.rows, "l").as_list::<i32>().value(4).len(), 1);
}

#[test]
fn a_changed_type_halts_and_a_new_column_is_added() {
    let key = r#"{"id":1}"#;
    let wrapped = |ty: &str, value: &str| {
        let row = format!(
            r#"{{"type":"struct","fields":[{{"type":"int32","field":"id"}},{{"type":"{ty}","optional":true,"field":"v"}}]"#
        );
        format!(
            r#"{{"schema":{{"type":"struct","name":"x.Envelope","fields":[{row},"field":"before"}},{row},"field":"after"}},{{"type":"struct","fields":[],"field":"source"}},{{"type":"string","field":"op"}}]}},"payload":{{"before":null,"after":{{"id":1,"v":{value}}},"source":{{}},"op":"c"}}}}"#
        )
    };
    let mut decoder = Decoder::new(options(), None, None);
    let first = decode(&mut decoder, &[(key, &wrapped("int32", "1"))]).unwrap();
    assert_eq!(column(&first.rows, "v").as_primitive::<Int32Type>().value(0), 1);
    let schema = Arc::new(TableSchema::create(
        vec![
            Column::new("id", ColumnType::Int32, false),
            Column::new("v", ColumnType::Int32, true),
        ],
        vec!["id".into()],
    ));
    let mut decoder = Decoder::new(options(), None, Some(Arc::clone(&schema)));
    decode(&mut decoder, &[(key, &wrapped("int16", "1"))]).unwrap();
    assert!(Arc::ptr_eq(&decoder.table_schema(&[]).unwrap(), &schema));
    let error = decode(&mut decoder, &[(key, &wrapped("int64", "1"))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(
        error.to_string().contains("column v is int in the table and long in the topic"),
        "{error}"
    );
}

#[test]
fn rows_without_schema_relax_columns_and_declarations_widen_them() {
    let column = |name: &str, ty, nullable| Column::new(name, ty, nullable);
    let columns = vec![
        column("id", ColumnType::Int64, false),
        column("a", ColumnType::String, false),
        column("b", ColumnType::String, false),
        column("n", ColumnType::Int32, true),
    ];
    let schema = Arc::new(TableSchema::create(columns, vec!["id".into()]));
    let options = Options {
        declared: vec![("n".into(), "long".parse().unwrap())],
        evolution: Evolution { widen: true, ..Evolution::default() },
        ..options()
    };
    let mut decoder = Decoder::new(options, None, Some(schema));
    let mut nullable = |rows: &[(&str, &str)]| {
        let rows: Vec<_> = rows.iter().map(|(id, after)| (*id, bare("c", after))).collect();
        let rows: Vec<_> = rows.iter().map(|(id, value)| (*id, value.as_str())).collect();
        let columns = decode(&mut decoder, &rows).unwrap();
        assert!(columns.rejects.is_empty());
        let found = columns.rows.schema();
        assert_eq!(found.field_with_name("n").unwrap().data_type(), &ColumnType::Int64.arrow());
        ["id", "a", "b"].map(|name| found.field_with_name(name).unwrap().is_nullable())
    };
    let (one, two) = (r#"{"id":1}"#, r#"{"id":2}"#);
    let whole = (one, r#"{"id":1,"a":"x","b":"y","n":6000000000}"#);
    assert_eq!(nullable(&[whole]), [false, false, false]);
    assert_eq!(nullable(&[whole, (two, r#"{"b":"y","id":2}"#)]), [false, true, false]);
    assert_eq!(nullable(&[(two, r#"{"id":2,"a":"x","b":null}"#), whole]), [false, false, true]);
}

#[test]
fn json_with_and_without_schema_may_alternate() {
    let key = r#"{"id":1}"#;
    let fields = r#"[{"type":"int64","field":"id"},{"type":"double","optional":true,"field":"x"}]"#;
    let schema = format!(
        r#"{{"type":"struct","name":"x.Envelope","fields":[{{"type":"struct","fields":{fields},"field":"after"}},{{"type":"struct","field":"source"}},{{"type":"string","field":"op"}}]}}"#
    );
    let wrapped = |after: &str| format!(r#"{{"schema":{schema},"payload":{}}}"#, bare("u", after));
    let values = [
        wrapped(r#"{"id":1,"x":1.5}"#),
        bare("u", r#"{"id":1,"x":2.5}"#),
        wrapped(r#"{"id":1,"x":"NaN"}"#),
    ];
    let records: Vec<(&str, &str)> = values.iter().map(|value| (key, value.as_str())).collect();
    let mut decoder = Decoder::new(options(), None, None);
    let columns = decode(&mut decoder, &records).unwrap();
    assert_eq!(columns.rejects, []);
    let x = column(&columns.rows, "x").as_primitive::<arrow::datatypes::Float64Type>();
    assert_eq!((x.value(0), x.value(1), x.value(2).is_nan()), (1.5, 2.5, true));
}

#[test]
fn a_schema_with_delta_keeps_times_as_numbers() {
    let schema = |delta: bool| {
        let declared = vec![("at".to_owned(), "time(millis)".parse().unwrap())];
        let mut decoder =
            Decoder::new(Options { for_delta: delta, declared, ..options() }, None, None);
        let columns =
            decode(&mut decoder, &[(r#"{"id":1}"#, &bare("c", r#"{"id":1,"at":1000}"#))]).unwrap();
        assert_eq!(columns.rejects, []);
        column(&columns.rows, "at").data_type().clone()
    };
    assert_eq!(schema(true), arrow::datatypes::DataType::Int64);
    assert_eq!(schema(false), ColumnType::Time.arrow());
}

#[test]
fn names_that_tables_do_not_tell_apart_halt() {
    for (row, part) in [
        (r#"{"id":1,"Id":2}"#, "upper and lower case"),
        (r#"{"id":1,"ID":2}"#, "upper and lower case"),
    ] {
        let mut decoder = Decoder::new(options(), None, None);
        let error = decode(&mut decoder, &[(r#"{"id":1}"#, &bare("c", row))]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains(part), "{error}");
    }
}

mod avro_records;
mod flattened;
mod keys;
mod outbox;
mod placeholders;
