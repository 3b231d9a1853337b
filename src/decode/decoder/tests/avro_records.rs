//! Records in Avro.

use super::*;
use crate::decode::Registry;

const KEY: &str = r#"{"type":"record","name":"Key","namespace":"t","fields":[{"name":"id","type":"long"},{"name":"org","type":"string"}]}"#;
const VALUE: &str = r#"{"type":"record","name":"Envelope","namespace":"t","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"org","type":"string"},{"name":"id","type":"long"},
        {"name":"n","type":["int","null"],"default":5},
        {"name":"price","type":["null",{"type":"bytes","connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2","connect.decimal.precision":"10"}}]},
        {"name":"tags","type":["null",{"type":"array","items":["null","string"]}]},
        {"name":"free","type":["null",{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}]}
    ]}]},
    {"name":"after","type":["null","Value"]},
    {"name":"source","type":{"type":"record","name":"Source","namespace":"s","fields":[{"name":"ts_ms","type":"long"},{"name":"db","type":"string"},{"name":"ts_us","type":["null","long"]}]}},
    {"name":"op","type":"string"}]}"#;

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len() * 2).unwrap()], text.as_bytes()].concat()
}

fn framed(id: u8, body: &[Vec<u8>]) -> Vec<u8> {
    [vec![0, 0, 0, 0, id], body.concat()].concat()
}

fn key(id: u8, org: &str) -> Vec<u8> {
    framed(1, &[vec![id * 2], text(org)])
}

fn row(id: u8, org: &str, rest: &[Vec<u8>]) -> Vec<u8> {
    [text(org), vec![id * 2], rest.concat()].concat()
}

/// n = 5, price = 123.45, tags = [null, "x"], free = null.
fn full() -> Vec<Vec<u8>> {
    vec![vec![0, 10], vec![2, 4, 0x30, 0x39], vec![2, 4, 0], vec![2, 2, b'x', 0], vec![0]]
}

fn envelope(before: &[u8], after: &[u8], op: &str, micros: bool) -> Vec<u8> {
    let image = |row: &[u8]| if row.is_empty() { vec![0] } else { [&[2], row].concat() };
    let micros = if micros { vec![2, 6] } else { vec![0] };
    framed(2, &[image(before), image(after), vec![4], text("db"), micros, text(op)])
}

fn decoder() -> Decoder {
    let schemas = [(1, KEY), (2, VALUE)].map(|(id, schema)| (SchemaId(id), schema.to_owned()));
    let mut decoder = Decoder::new(options(), Some(Registry::preloaded(schemas)), None);
    for id in [1, 2] {
        futures::executor::block_on(decoder.fetch_schema(SchemaId(id))).unwrap();
    }
    decoder
}

fn scan(decoder: &mut Decoder, key: &[u8], value: &[u8]) -> Result<Change, ScanError> {
    let records = with_headers(key, Some(value), []);
    decoder.scan(&records.get(0).unwrap()).map(|scanned| match scanned {
        Scanned::Change(change) => change,
        other => panic!("no change: {other:?}"),
    })
}

fn columns(decoder: &mut Decoder, key: &[u8], value: &[u8]) -> Columns {
    let change = scan(decoder, key, value).unwrap();
    let records = with_headers(key, Some(value), []);
    let row = Row::of(records.get(0).unwrap(), &change).unwrap();
    let schema = decoder.table_schema(&[row]).unwrap();
    decoder.columns(&[row], &schema).unwrap()
}

#[test]
fn a_row_is_decoded_with_the_schema_that_wrote_it() {
    let mut decoder = decoder();
    let (before, after) = (row(1, "b", &full()), row(1, "a", &full()));
    let value = envelope(&before, &after, "u", true);
    let change = scan(&mut decoder, &key(1, "a"), &value).unwrap();
    assert_eq!((change.operation, change.source_micros), (Operation::Update, Some(3)));
    let columns = columns(&mut decoder, &key(1, "a"), &value);
    assert_eq!(columns.rejects, []);
    let rows = &columns.rows;
    assert!(column(rows, "free").is_null(0));
    assert_eq!(column(rows, "org").as_string::<i32>().value(0), "a");
    assert_eq!(column(rows, "n").as_primitive::<Int32Type>().value(0), 5);
    assert_eq!(column(rows, "price").as_primitive::<Decimal128Type>().value(0), 12345);
    let tags = column(rows, "tags").as_list::<i32>().value(0);
    assert!(tags.is_null(0));
    assert_eq!(tags.as_string::<i32>().value(1), "x");
}

#[test]
fn an_explicit_null_is_no_default_and_milliseconds_do() {
    let mut decoder = decoder();
    let after = row(1, "a", &[vec![2], vec![0], vec![0], vec![0]]);
    let value = envelope(&[], &after, "c", false);
    assert_eq!(scan(&mut decoder, &key(1, "a"), &value).unwrap().source_micros, Some(2000));
    let columns = columns(&mut decoder, &key(1, "a"), &value);
    assert_eq!(columns.rejects, []);
    assert!(column(&columns.rows, "n").is_null(0) && column(&columns.rows, "tags").is_null(0));
}

#[test]
fn a_decimal_with_its_own_scale_is_text() {
    let mut decoder = decoder();
    let after = row(1, "a", &[vec![2], vec![0], vec![0], vec![2, 8, 2, 1]]);
    let columns = columns(&mut decoder, &key(1, "a"), &envelope(&[], &after, "c", true));
    assert_eq!(columns.rejects, []);
    assert_eq!(column(&columns.rows, "free").as_string::<i32>().value(0), "0.0001");
}

#[test]
fn a_key_is_the_same_in_avro_and_json() {
    let mut decoder = decoder();
    let delete = envelope(&row(1, "a", &full()), &[], "d", true);
    let avro = scan(&mut decoder, &key(1, "a"), &delete).unwrap().key;
    assert_eq!(scan(&mut decoder, br#"{"id":1,"org":"a"}"#, &delete).unwrap().key, avro);
    assert_eq!(scan(&mut decoder, br#"{"org":"a","id":1}"#, &delete).unwrap().key, avro);
    assert_ne!(scan(&mut decoder, &key(2, "a"), &delete).unwrap().key, avro);
    // Apicurio's older frame: the number has eight bytes.
    let long = [&[0, 0, 0, 0, 0, 0, 0, 0, 1][..], &key(1, "a")[5..]].concat();
    assert_eq!(scan(&mut decoder, &long, &delete).unwrap().key, avro);
}

#[test]
fn columns_of_the_key_may_be_in_any_order() {
    let column = |name: &str, ty| Column::new(name, ty, false);
    let columns = vec![column("org", ColumnType::String), column("id", ColumnType::Int64)];
    let schema = TableSchema::create(columns, vec!["org".into(), "id".into()]);
    let mut decoder = decoder();
    decoder.set_schema(Arc::new(schema));
    let delete = envelope(&row(1, "a", &full()), &[], "d", true);
    let avro = scan(&mut decoder, &key(1, "a"), &delete).unwrap().key;
    assert_eq!(scan(&mut decoder, br#"{"org":"a","id":1}"#, &delete).unwrap().key, avro);
}

#[test]
fn frames_that_cannot_be_read_are_told_apart() {
    let mut decoder = decoder();
    let value = envelope(&[], &row(1, "a", &full()), "c", true);
    let unknown = [&[0, 0, 0, 0, 9][..], &value[5..]].concat();
    assert_eq!(
        scan(&mut decoder, &key(1, "a"), &unknown),
        Err(ScanError::NeedsSchema(SchemaId(9)))
    );
    let error = futures::executor::block_on(decoder.fetch_schema(SchemaId(9))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let reason = |decoder: &mut Decoder, key: &[u8], value: &[u8]| match scan(decoder, key, value) {
        Err(ScanError::Reject(reject)) => reject.reason,
        other => panic!("{other:?}"),
    };
    let longer = [&value[..], &[0]].concat();
    for (key, value, expected) in [
        (key(1, "a"), longer, "malformed_avro"),
        (key(1, "a"), value[..value.len() - 1].to_vec(), "malformed_avro"),
        (key(1, "a"), vec![1; 20], "unsupported_framing"),
        (key(1, "a"), vec![0, 1], "unsupported_framing"),
        // The schema of the key is none of an envelope, nor is this the row of the key.
        (key(1, "a"), key(2, "a"), "not_an_envelope"),
        ([key(1, "a"), vec![0]].concat(), value.clone(), "malformed_avro"),
    ] {
        assert_eq!(reason(&mut decoder, &key, &value), expected);
    }
}
