//! The schema-change topic comes after the rows that it explains: they wait, but not for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options, SchemaHistory};
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, ScriptedSource};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn record(offset: i64, row: &Value) -> LoggedRecord {
    let value = json!({"before": null, "after": row, "source": {}, "op": "c"});
    LoggedRecord {
        offset,
        timestamp_ms: None,
        key: Some(json!({"id": row["id"]}).to_string().into_bytes()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
    }
}

fn change(ddl: &str, columns: &[&str]) -> Vec<u8> {
    let columns: Vec<Value> = columns.iter().map(|name| json!({"name": name})).collect();
    let table = json!({"type": "ALTER", "id": "\"shop\".\"t\"", "table": {"columns": columns}});
    json!({"source": {"name": "my"}, "ddl": ddl, "tableChanges": [table]}).to_string().into_bytes()
}

#[rstest]
#[case::it_is_late(3, &[("id", "1"), ("x", "one")])]
#[case::it_is_too_late(30, &[("a", "one"), ("id", "1")])]
#[tokio::test(start_paused = true)]
async fn rows_wait_for_what_tells_of_a_rename(
    #[case] seconds: u64,
    #[case] first: &[(&str, &str)],
) {
    let topic: Arc<str> = "my.shop.t".into();
    let rows = [json!({"id": 1, "a": "one"}), json!({"id": 2, "x": "two"})];
    let records = (0..).zip(&rows).map(|(offset, row)| record(offset, row)).collect();
    let partition = TopicPartition { topic: Arc::clone(&topic), partition: 0 };
    let logs = Arc::new(BTreeMap::from([(partition, Log::new(records, 0))]));
    let source = ScriptedSource::new(logs, vec![], Acknowledged::default());
    let history = Arc::new(SchemaHistory::default());
    history.take(&change("CREATE TABLE t", &["id", "a"]), None).await.unwrap();
    history.reach_end();
    let limits = Limits {
        rows: 1,
        bytes: usize::MAX,
        age: Duration::from_secs(1),
        idle: Duration::from_secs(1),
    };
    let options = pipeline::Options {
        limits,
        buffer_bytes: 1 << 20,
        once: true,
        dead_letters: None,
        dead_letter_limit: 0,
        max_record_bytes: usize::MAX,
        partitions: crate::sources::partitions(1),
    };
    let sink = MemorySink::default();
    let open = |topic: &Arc<str>| {
        let decoder = Decoder::new(Options::default(), None, None);
        Ok(TableSetup {
            name: Arc::clone(topic),
            sink: sink.clone(),
            decoder: decoder.with_history(Arc::clone(&history), Arc::clone(topic)),
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        })
    };
    let clock = Clock::from_fn(|| 0);
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let (progress, started) = (Progress::new(clock, health), Instant::now());
    let tell = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let renamed = change("ALTER TABLE t CHANGE a x text", &["id", "x"]);
        history.take(&renamed, None).await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = pipeline::run(source, open, options, progress, CancellationToken::new()) => {
            assert!(done.unwrap().is_complete());
        }
        () = tell => {}
    }
    // The topic comes first or the patience ends, and nothing waits on.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let rows: Vec<BTreeMap<String, String>> = sink.rows();
    let own = |row: &BTreeMap<String, String>| {
        let own = row.iter().filter(|(name, _)| !name.starts_with("_cdc"));
        own.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    let mut rows: Vec<_> = rows.iter().map(own).collect();
    rows.sort_by_key(|row| row.iter().find(|(name, _)| name == "id").cloned());
    let texts = |row: &[(&str, &str)]| {
        row.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let expected: Vec<Vec<(String, String)>> =
        vec![texts(first), texts(&[("id", "2"), ("x", "two")])];
    assert_eq!(rows, expected);
}
