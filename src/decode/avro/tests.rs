use super::*;
use crate::decode::types::{Times, type_name};

fn parse(text: &str) -> Schema {
    Schema::parse(text, &[]).unwrap()
}

fn column(ty: &str) -> String {
    let schema = parse(ty);
    type_name(&schema.described(schema.root).map(Times::OfDay).ty)
}

#[test]
fn a_type_means_what_connect_notes() {
    for (ty, expected) in [
        (r#"["null","int"]"#, "int"),
        (r#"["string","null"]"#, "string"),
        (r#"{"type":"int","connect.type":"int16"}"#, "int"),
        (
            r#"["null",{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}]"#,
            "timestamp",
        ),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "timestamp"),
        (r#"{"type":"int","logicalType":"date"}"#, "date"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#, "decimal(10,2)"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":10}"#, "decimal(10,0)"),
        // Connect's converter writes 64 for a decimal without a precision, Postgres' money for one.
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":64,"scale":2,"connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2"}}"#,
            "decimal(38,2)",
        ),
        (r#"{"type":"bytes","logicalType":"decimal","precision":64,"scale":2}"#, "decimal(38,2)"),
        (r#"{"type":"enum","name":"e","symbols":["a"]}"#, "string"),
        (r#"{"type":"array","items":["null","long"]}"#, "list<long>"),
        (r#"{"type":{"type":"string"}}"#, "string"),
        (r#"{"type":"map","values":"int"}"#, "string"),
        (r#"{"type":"record","name":"a.b.C","fields":[]}"#, "string"),
        (r#"["null","int","string"]"#, "string"),
        (r#"{"type":"record","name":"io.debezium.data.geometry.Point","fields":[]}"#, "bytes"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":2046}"#, "decimal(7,0)"),
    ] {
        assert_eq!(column(ty), expected, "{ty}");
    }
}

#[test]
fn what_is_no_scalar_is_json_as_connect_writes_it() {
    let schema = parse(
        r#"{"type":"record","name":"R","fields":[
            {"name":"a","type":["null","bytes"]},
            {"name":"b","type":{"type":"map","values":["null","string"]}},
            {"name":"c","type":{"type":"array","items":{"type":"record","name":"E","connect.internal.type":"MapEntry","fields":[{"name":"key","type":"int"},{"name":"value","type":"double"}]}}},
            {"name":"d","type":{"type":"array","items":"float"}},
            {"name":"e","type":"boolean"}
        ]}"#,
    );
    let double = |value: f64| value.to_le_bytes().to_vec();
    let bytes = [
        vec![2, 4, 0, 0xff],
        vec![4, 2, b'k', 2, 4, b'"', b'\n', 2, b'n', 0, 0],
        [vec![4, 2], double(10.0), vec![22], double(f64::NAN), vec![0]].concat(),
        [vec![2], 0.1_f32.to_le_bytes().to_vec(), vec![0]].concat(),
        vec![1],
    ]
    .concat();
    let mut reader = Reader::new(&bytes, 0);
    assert_eq!(
        reader.json(&schema, schema.root).as_deref(),
        Ok(
            r#"{"a":"AP8=","b":{"k":"\"\n","n":null},"c":[[1,10.0],[11,"NaN"]],"d":[0.1],"e":true}"#
        )
    );
    assert_eq!(reader.finish(), Ok(()));
    let (_, vector) = &schema.fields(schema.root).unwrap()[2];
    assert_eq!(schema.described(*vector).ty, crate::decode::types::ConnectType::Map);
}

#[test]
fn names_are_found_in_their_namespace_and_in_references() {
    let inner =
        r#"{"type":"record","name":"Inner","namespace":"n","fields":[{"name":"x","type":"long"}]}"#;
    let outer = r#"{"type":"record","name":"n.Outer","fields":[{"name":"a","type":["null","Inner"]},{"name":"b","type":"n.Inner"}]}"#;
    assert!(Schema::parse(outer, &[]).is_err());
    let schema = Schema::parse(outer, &[inner.to_owned()]).unwrap();
    let fields = schema.fields(schema.root).unwrap();
    assert_eq!(schema.present(fields[0].1), Some(fields[1].1));
    // A type may name itself.
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    let list = parse(list);
    assert_eq!(list.present(list.fields(0).unwrap()[0].1), Some(0));
}

#[test]
fn numbers_are_read_to_their_ends() {
    let long = |bytes: &[u8]| Reader::new(bytes, 0).long();
    for (bytes, value) in [
        (&b"\x00"[..], 0),
        (b"\x01", -1),
        (b"\x02", 1),
        (b"\x80\x01", 64),
        (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", i64::MAX),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", i64::MIN),
    ] {
        assert_eq!(long(bytes), Ok(value));
    }
    for broken in [
        &b""[..],
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        assert!(long(broken).is_err(), "{broken:?}");
    }
}

#[test]
fn a_lie_about_a_size_ends_the_reading() {
    let array = parse(r#"{"type":"array","items":"null"}"#);
    let skip = |bytes: &[u8]| Reader::new(bytes, 0).skip(&array, array.root, MAX_DEPTH);
    assert!(skip(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00").is_err());
    assert!(skip(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00").is_err());
    let text = parse(r#""string""#);
    for bytes in [&b"\x01"[..], b"\x04a", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01a"] {
        assert!(Reader::new(bytes, 0).scalar(&text, text.root).is_err(), "{bytes:?}");
    }
    assert!(Reader::new(b"\x02\xff", 0).scalar(&text, text.root).is_err());
}

#[test]
fn nesting_does_not_take_the_stack() {
    let list =
        parse(r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#);
    let deep = [b"\x02".repeat(1_000_000), b"\x00".to_vec()].concat();
    let skipped = Reader::new(&deep, 0).skip(&list, list.root, MAX_DEPTH);
    assert_eq!(skipped, Err(Broken("values are nested too deeply")));
    assert!(Schema::parse(&("[".repeat(10_000) + &"]".repeat(10_000)), &[]).is_err());
}

#[test]
fn blocks_may_tell_their_size() {
    let array = parse(r#"{"type":"array","items":"int"}"#);
    // Two blocks: one item with the block's size, two items without.
    let bytes = b"\x01\x02\x06\x04\x08\x0a\x00";
    let mut reader = Reader::new(bytes, 0);
    reader.skip(&array, array.root, MAX_DEPTH).unwrap();
    assert_eq!(reader.finish(), Ok(()));
}
