//! The captured records, as `tests/fixtures/README.md` describes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cdc_sink::decode::{Options, Registry, SchemaId};
use cdc_sink::record::Records;
use serde_json::Value;

/// The captures are of these.
pub(crate) const DATABASES: [&str; 3] = ["postgres", "mysql", "mariadb"];

/// Types of columns that JSON without a schema does not tell.
pub(crate) const DECLARED: [(&str, &str); 2] = [("big_bytes", "bytes"), ("n", "decimal(10,2)")];

/// Records of one topic, in an order that keeps each partition's.
pub(crate) type Topics = BTreeMap<String, Vec<Records>>;

/// A file of the captures.
pub(crate) fn fixture(name: &str) -> String {
    let path = crate::REPOSITORY.join("tests/fixtures/captures").join(format!("{name}.zst"));
    let bytes =
        std::fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    String::from_utf8(zstd::decode_all(&*bytes).unwrap()).unwrap()
}

/// The records of a capture by topic.
pub(crate) fn topics(name: &str) -> Topics {
    let mut topics = Topics::new();
    for line in fixture(&format!("{name}.jsonl")).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let bytes = |name: &str| match (&line[name], &line[format!("{name}_b64")]) {
            (Value::String(text), _) => Some(text.as_bytes().to_vec()),
            (_, Value::String(base64)) => Some(STANDARD.decode(base64).unwrap()),
            _ => None,
        };
        let headers: Vec<(String, Vec<u8>)> = match &line["headers"] {
            Value::Array(headers) => headers
                .iter()
                .map(|header| {
                    let value = STANDARD.decode(header[1].as_str().unwrap()).unwrap();
                    (header[0].as_str().unwrap().to_owned(), value)
                })
                .collect(),
            _ => Vec::new(),
        };
        let topic = line["topic"].as_str().unwrap();
        let partition = i32::try_from(line["partition"].as_i64().unwrap()).unwrap();
        let offset = line["offset"].as_i64().unwrap();
        let mut records = Records::new(topic.into(), partition, offset);
        let headers = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
        assert!(records.push(
            offset,
            None,
            bytes("key").as_deref(),
            bytes("value").as_deref(),
            headers
        ));
        topics.entry(topic.to_owned()).or_default().push(records);
    }
    topics
}

/// The registry of a database's Avro records.
pub(crate) fn registry(database: &str) -> Arc<Registry> {
    let answers: Value =
        serde_json::from_str(&fixture(&format!("{database}-avro-schemas.json"))).unwrap();
    let answers = answers["schemas_by_id"].as_object().unwrap().iter();
    Registry::preloaded(answers.map(|(id, answer)| {
        (SchemaId(id.parse().unwrap()), answer["schema"].as_str().unwrap().to_owned())
    }))
}

/// How captured records are decoded.
pub(crate) fn options(declared: &[(&str, &str)]) -> Options {
    let declared = declared.iter().map(|(name, ty)| ((*name).to_owned(), ty.parse().unwrap()));
    Options {
        placeholder: "__debezium_unavailable_value".into(),
        added_prefix: "__".into(),
        declared: declared.collect(),
        ..Options::default()
    }
}
