//! Events of an outbox, whatever their bytes are.

use proptest::prelude::*;

use super::super::*;
use crate::decode::{Outbox, Row};
use crate::record::Records;

/// Bytes close to what Connect's converters write, and any.
fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    let likely = prop::sample::select(vec![
        "null",
        "\"text\"",
        "\"",
        "7",
        "{\"a\":1}",
        "{\"schema\":null,\"payload\":\"x\"}",
        "{\"schema\":{\"type\":\"string\"},\"payload\":\"x\"}",
        "{\"schema\":{\"type\":\"string\"},\"payload\":7}",
        "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"int32\",\"field\":\"a\"}]},\"payload\":{\"a\":1}}",
        "{\"schema\":{\"type\":\"struct\",\"fields\":[]},\"payload\":[]}",
        "{\"op\":\"c\",\"source\":{},\"after\":{\"id\":1}}",
    ]);
    prop_oneof![
        4 => likely.prop_map(|text| Some(text.as_bytes().to_vec())),
        2 => prop::collection::vec(any::<u8>(), 0..12).prop_map(Some),
        1 => Just(None),
    ]
}

proptest! {
    /// An event is a row with its id, or it is rejected; one that is neither would be lost.
    #[test]
    fn an_event_is_a_row_or_rejected(key in bytes(), value in bytes(), id in bytes(), header in bytes(), whole in any::<bool>()) {
        let declared = if whole { vec![("payload".to_owned(), "bytes".parse().unwrap())] } else { Vec::new() };
        let outbox = Some(Outbox::new(&["type".to_owned()]).unwrap());
        let mut decoder = Decoder::new(Options { declared, outbox, ..Options::default() }, None, None);
        let mut records = Records::new("t".into(), 0, 0);
        let headers = [("id", id.as_deref()), ("type", header.as_deref())];
        records.push(0, Some(1), key.as_deref(), value.as_deref(), headers);
        let record = records.get(0).unwrap();
        let is_event = id.is_some();
        let Ok(Scanned::Change(change)) = decoder.scan(&record) else { return Ok(()) };
        prop_assert!(!is_event || change.operation == Operation::Create);
        let row = Row::of(record, &change).unwrap();
        let Ok(schema) = decoder.table_schema(&[row]) else { return Ok(()) };
        let columns = decoder.columns(&[row], &schema).unwrap();
        prop_assert_eq!(columns.rows.num_rows(), 1);
        if is_event && columns.rejects.is_empty() {
            let ids = columns.rows.column_by_name("event_id").unwrap();
            prop_assert!(ids.is_valid(0));
        }
    }
}
