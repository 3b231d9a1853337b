use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use super::*;
use crate::decode::DeclaredType;
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
fn decode(decoder: &mut Decoder, records: &[(&str, &str)]) -> crate::error::Result<Columns> {
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
                moved: change.old_key.is_some(),
                key: Some(key.as_bytes()),
                source_micros: change.source_micros,
                partition: 3,
                offset: 7,
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
    assert_eq!(scan(&mut decoder, None, None), Ok(Scanned::Skipped(Skip::KeylessTombstone)));
    let key = Some(r#"{"id":1}"#);
    for (value, expected) in [
        ("{}", "not_an_envelope"),
        ("\"\"", "not_an_envelope"),
        ("[]", "not_an_envelope"),
        ("", "malformed_json"),
        ("{", "malformed_json"),
        (r#"{"status":"BEGIN","id":1}"#, "not_an_envelope"),
        (r#"{"op":"x","source":{},"after":{}}"#, "unknown_operation"),
        (r#"{"op":"t","source":{},"after":null}"#, "truncate_unsupported"),
        (r#"{"op":"u","source":{},"after":null}"#, "no_row"),
        (r#"{"op":"c","source":{},"after":{"id":1}} x"#, "malformed_json"),
        (r#"{"op":"c","source":{},"after":{"id":1},"after":{"id":2}}"#, "malformed_json"),
    ] {
        assert_eq!(reason(scan(&mut decoder, key, Some(value))), expected, "{value}");
    }
    assert_eq!(reason(scan(&mut decoder, None, Some(&bare("c", "{}")))), "no_key");
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
fn a_key_is_the_same_in_every_form() {
    let mut decoder = Decoder::new(options(), None, None);
    let value = bare("d", "null");
    let plain = change(&mut decoder, r#"{"org":"a","id":1}"#, &value).key;
    let spaced = change(&mut decoder, "{ \"id\" : 1 , \"org\" : \"\\u0061\" }", &value).key;
    let schema = r#"{"type":"struct","fields":[{"type":"string","field":"org"},{"type":"int16","field":"id"}]}"#;
    let wrapped = format!(r#"{{"schema":{schema},"payload":{{"org":"a","id":1}}}}"#);
    let wrapped = change(&mut decoder, &wrapped, &value).key;
    assert_eq!((plain, plain), (spaced, wrapped));
    assert_ne!(plain, change(&mut decoder, r#"{"org":"a","id":2}"#, &value).key);
    for key in [r#"{"org":"a"}"#, r#"{"org":"a","id":1,"more":2}"#, "1", r#"{"org":"a","org":"a"}"#]
    {
        assert_eq!(reason(scan(&mut decoder, Some(key), Some(&value))), "key_mismatch", "{key}");
    }
    assert_eq!(
        reason(scan(&mut decoder, Some(r#"{"org":"a","id":null}"#), Some(&value))),
        "null_key"
    );
}

#[test]
fn a_declared_key_is_read_from_rows_that_have_none() {
    let declared_key = vec!["id".to_owned()];
    let declared = vec![("id".to_owned(), "long".parse().unwrap())];
    let options = Options { declared_key, declared, ..options() };
    let mut decoder = Decoder::new(options, None, None);
    let created = match scan(&mut decoder, None, Some(&bare("c", r#"{"v":"x","id":5}"#))) {
        Ok(Scanned::Change(change)) => change.key,
        other => panic!("{other:?}"),
    };
    assert_eq!(created, change(&mut decoder, r#"{"id":5}"#, &bare("d", "null")).key);
    let moved = r#"{"op":"u","source":{},"before":{"id":5},"after":{"id":6}}"#;
    assert_eq!(reason(scan(&mut decoder, None, Some(moved))), "key_changed");
}

#[test]
fn placeholders_are_holes_only_where_they_may_be() {
    let after = format!(r#"{{"id":1,"big":"{PLACEHOLDER}","l":["{PLACEHOLDER}"]}}"#);
    let key = r#"{"id":1}"#;
    let mut decoder = Decoder::new(options(), None, None);
    let read = decode(&mut decoder, &[(key, &bare("r", &after))]).unwrap();
    assert_eq!(read.unavailable, []);
    assert_eq!(column(&read.rows, "big").as_string::<i32>().value(0), PLACEHOLDER);
    let update = decode(&mut decoder, &[(key, &bare("u", &after))]).unwrap();
    assert_eq!(update.unavailable, [(0, 1), (0, 2)]);
    assert!(column(&update.rows, "big").is_null(0) && column(&update.rows, "l").is_null(0));
    assert_eq!(column(&update.rows, "l").as_list::<i32>().values().len(), 0);
}

#[test]
fn a_rejected_row_leaves_its_neighbours_alone() {
    let mut decoder = Decoder::new(options(), None, None);
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
