//! Keys, and the other key of a key change.

use super::*;

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
    for key in ["1", r#"{"org":"a","org":"a"}"#, r#"{"name":"a"}"#, r#"{"org":"a","name":1}"#] {
        assert_eq!(reason(scan(&mut decoder, Some(key), Some(&value))), "key_mismatch", "{key}");
    }
    assert_eq!(
        reason(scan(&mut decoder, Some(r#"{"org":"a","id":null}"#), Some(&value))),
        "null_key"
    );
}

/// As if the primary key had changed at the source; other keys with wrong columns are bad records.
#[test]
fn a_key_that_the_table_could_have_has_changed() {
    let mut decoder = Decoder::new(options(), None, None);
    change(&mut decoder, r#"{"org":"a","id":1}"#, &bare("d", "null"));
    let told = r#"{"schema":{"type":"struct","fields":[{"type":"string","field":"id"}]},"payload":{"id":"1"}}"#;
    for (key, names) in [
        (r#"{"org":"a"}"#, "org"),
        (r#"{"id":1,"more":2,"org":"a"}"#, "id, more, org"),
        (told, "id"),
    ] {
        let expected = format!("its columns were org, id and are {names} now");
        let scanned = scan(&mut decoder, Some(key), Some(&bare("d", "null")));
        assert_eq!(scanned, Err(ScanError::KeyChanged(expected)));
        assert_eq!(scan(&mut decoder, Some(key), None), scanned);
    }
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
fn the_other_key_of_a_key_change_is_read_in_every_form() {
    let mut decoder = Decoder::new(options(), None, None);
    let other = change(&mut decoder, r#"{"id":1}"#, &bare("d", "null")).key;
    let schema = r#"{"type":"struct","fields":[{"type":"int32","field":"id"}]}"#;
    let wrapped = format!(r#"{{"schema":{schema},"payload":{{"id":1}}}}"#);
    let halves =
        [("__debezium.oldkey", bare("c", r#"{"id":2}"#)), ("__debezium.newkey", bare("d", "null"))];
    for (header, expected) in [
        (r#"{"id":1}"#, Some(other)),
        (r#"{ "id" : 1 }"#, Some(other)),
        (&wrapped, Some(other)),
        ("Struct{id=1}", None),
        ("", None),
    ] {
        let moved = halves.each_ref().map(|(name, value)| {
            let headers = [(*name, Some(header.as_bytes()))];
            let records = with_headers(br#"{"id":2}"#, Some(value.as_bytes()), headers);
            match decoder.scan(&records.get(0).unwrap()) {
                Ok(Scanned::Change(change)) => change.moved,
                other => panic!("{header}: {other:?}"),
            }
        });
        assert_eq!(moved[0].map(|moved| moved.other), expected, "{header}");
        assert_eq!(moved[0], moved[1], "both halves have one source");
    }
}

#[test]
fn key_columns_that_the_row_lacks_come_from_the_key() {
    let mut decoder = Decoder::new(options(), None, None);
    let columns =
        decode(&mut decoder, &[(r#"{"org":"a","id":4}"#, &bare("c", r#"{"v":1,"id":4}"#))]);
    let columns = columns.unwrap();
    assert_eq!(columns.rejects, []);
    assert_eq!(column(&columns.rows, "org").as_string::<i32>().value(0), "a");
}
