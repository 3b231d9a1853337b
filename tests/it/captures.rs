//! The captured records, as `tests/fixtures/README.md` describes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cdc_sink::decode::{Options, Registry, SchemaId};
use cdc_sink::record::Records;
use cdc_sink::source::scripted::LoggedRecord;
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

/// A record as it was captured.
pub(crate) struct Captured {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Captured {
    fn parse(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap();
        let bytes = |name: &str| match (&line[name], &line[format!("{name}_b64")]) {
            (Value::String(text), _) => Some(text.as_bytes().to_vec()),
            (_, Value::String(base64)) => Some(STANDARD.decode(base64).unwrap()),
            _ => None,
        };
        let header = |header: &Value| {
            let value = STANDARD.decode(header[1].as_str().unwrap()).unwrap();
            (header[0].as_str().unwrap().to_owned(), Some(value))
        };
        Self {
            topic: line["topic"].as_str().unwrap().to_owned(),
            partition: i32::try_from(line["partition"].as_i64().unwrap()).unwrap(),
            offset: line["offset"].as_i64().unwrap(),
            timestamp_ms: line["timestamp"].as_i64(),
            key: bytes("key"),
            value: bytes("value"),
            headers: line["headers"].as_array().into_iter().flatten().map(header).collect(),
        }
    }

    /// The record as a source in memory has it.
    pub(crate) fn logged(&self) -> LoggedRecord {
        LoggedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.clone(),
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// The records of a capture.
pub(crate) fn captured(name: &str) -> Vec<Captured> {
    fixture(&format!("{name}.jsonl")).lines().map(Captured::parse).collect()
}

/// The records of a capture by topic.
pub(crate) fn topics(name: &str) -> Topics {
    let mut topics = Topics::new();
    for record in captured(name) {
        let Captured { topic, partition, offset, .. } = &record;
        let mut records = Records::new(topic.as_str().into(), *partition, *offset);
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        assert!(records.push(*offset, None, key, value, headers));
        topics.entry(topic.clone()).or_default().push(records);
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
