//! Values that a record leaves out.

use super::*;

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

/// Decodes one row, as the change of a row whose key moved or not.
fn decode_moved(options: Options, after: &str, operation: Operation, moved: bool) -> Columns {
    let mut decoder = Decoder::new(options, None, None);
    change(&mut decoder, r#"{"id":1}"#, &bare("c", after));
    let row = Row {
        bytes: after.as_bytes(),
        writer: WriterId(0),
        operation,
        moved,
        key: None,
        headers: crate::record::Headers::default(),
        source_micros: None,
        partition: 0,
        offset: 0,
        source_position: None,
    };
    let schema = decoder.table_schema(&[row]).unwrap();
    decoder.columns(&[row], &schema).unwrap()
}

#[test]
fn every_form_of_the_placeholder_is_a_hole() {
    let declared = [
        ("bytes", "bytes"),
        ("json", "json"),
        ("ints", "list<int>"),
        ("longs", "list<long>"),
        ("blobs", "list<bytes>"),
        ("floats", "list<float>"),
        ("days", "list<date>"),
        ("moments", "list<timestamp(millis)>"),
    ];
    let declared = declared.map(|(name, ty)| (name.to_owned(), ty.parse().unwrap()));
    let options = Options { declared: declared.into(), ..options() };
    let numbers: Vec<String> = PLACEHOLDER.bytes().map(|byte| byte.to_string()).collect();
    let (numbers, floats) = (numbers.join(","), numbers.join(".0,") + ".0");
    let base64 = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
    let hex = "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565";
    let after = format!(
        r#"{{"id":1,"text":"{PLACEHOLDER}","bytes":"{base64}","json":"{{\"{PLACEHOLDER}\":\"{PLACEHOLDER}\"}}","ints":[{numbers}],"longs":[{numbers}],"blobs":["{base64}"],"uuids":["b68a35a7-17ad-35b3-af2a-ae46edb4545a"],"hex":"{hex}","map":{{"{PLACEHOLDER}":"{PLACEHOLDER}"}},"floats":[{floats}],"days":[{numbers}],"moments":[{numbers}]}}"#
    );
    let all: Vec<(usize, usize)> = (1..=12).map(|column| (0, column)).collect();
    let holes =
        |operation, moved| decode_moved(options.clone(), &after, operation, moved).unavailable;
    assert_eq!(holes(Operation::Update, false), all);
    assert_eq!(holes(Operation::Create, true), all);
    assert_eq!(holes(Operation::Create, false), []);
    assert_eq!(holes(Operation::Read, false), []);
    // Part of the text, or a list of more, is a value.
    let other = format!(
        r#"{{"id":1,"text":"{PLACEHOLDER}.","l":["{PLACEHOLDER}","x"],"ints":[95,95],"longs":[{numbers},1],"map":{{"{PLACEHOLDER}":"x"}}}}"#
    );
    assert_eq!(decode_moved(options.clone(), &other, Operation::Update, false).unavailable, []);
    let own = Options { placeholder: "hex:00ff".into(), ..options.clone() };
    let own = decode_moved(own, r#"{"id":1,"bytes":"AP8="}"#, Operation::Update, false);
    assert_eq!(own.unavailable, [(0, 1)]);
    let none = Options { placeholder: String::new(), ..options };
    assert_eq!(
        decode_moved(none, r#"{"id":1,"bytes":""}"#, Operation::Update, false).unavailable,
        []
    );
}
