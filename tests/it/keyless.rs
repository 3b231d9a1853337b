//! Tables without a primary key: every record is a row, once; or the columns that the configuration names are the key.

use std::sync::Arc;
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options};
use cdc_sink::pipeline::{self, Partitions, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, read};
use cdc_sink::sink::memory::text_rows;
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, Logs, ScriptedSource};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use crate::batches;

const TOPIC: &str = "db.public.t";

/// Key and value of a record.
type Record<'a> = (Option<&'a str>, Option<&'a str>);

fn envelope(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"ts_ms":1,"ts_us":1000}},"op":"{op}","ts_ms":2}}"#
    )
}

/// The records of each partition, as logs.
fn logs(partitions: &[&[Record<'_>]]) -> Logs {
    let log = |records: &&[Record<'_>]| {
        let record = |(offset, (key, value)): (i64, &Record<'_>)| LoggedRecord {
            offset,
            timestamp_ms: Some(1),
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: Vec::new(),
        };
        Log::new((0..).zip(*records).map(record).collect(), 0)
    };
    let at = |partition| TopicPartition { topic: TOPIC.into(), partition };
    Arc::new((0..).map(at).zip(partitions.iter().map(log)).collect())
}

/// One process: reads the logs to their end. The error of the table when it halted.
async fn process(logs: &Logs, lake: &LakeOptions, options: &Options) -> Option<String> {
    let clock = Clock::from_fn(|| 0);
    let limits = Limits {
        rows: 3,
        bytes: usize::MAX,
        age: Duration::from_secs(5),
        idle: Duration::from_millis(10),
    };
    let pipeline_options = pipeline::Options {
        limits,
        buffer_bytes: 1 << 20,
        once: true,
        partitions: Partitions::new(|_| Box::pin(std::future::ready(Ok(1)))),
        dead_letters: None,
        dead_letter_limit: 0,
    };
    let open = |topic: &Arc<str>| {
        Ok(TableSetup {
            name: Arc::clone(topic),
            sink: LakeSink::new(lake.clone()),
            decoder: Decoder::new(options.clone(), None, None),
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        })
    };
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, health);
    let source = ScriptedSource::new(Arc::clone(logs), Vec::new(), Acknowledged::default());
    let stop = CancellationToken::new();
    let progress = pipeline::run(source, open, pipeline_options, progress, stop).await.unwrap();
    progress.tables().values().find_map(|table| table.halted.clone())
}

/// The table's rows, the same in every format, as `_cdc_op` and the source's columns.
async fn rows(lake: &LakeOptions) -> Vec<String> {
    let mut formats = Vec::new();
    for (_, batches) in read(lake).await.unwrap() {
        let mut rows = Vec::new();
        for mut row in batches.iter().flat_map(|batch| text_rows(batch).unwrap()) {
            let op = row.remove("_cdc_op").unwrap();
            row.retain(|name, _| !name.starts_with("_cdc_"));
            let columns: Vec<String> = row.iter().map(|(n, v)| format!("{n}={v}")).collect();
            rows.push(format!("{op} {}", columns.join(" ")));
        }
        rows.sort();
        formats.push(rows);
    }
    assert!(formats.windows(2).all(|pair| pair[0] == pair[1]), "{formats:?}");
    formats.swap_remove(0)
}

fn lake(folder: &tempfile::TempDir, logs: &[LogSetup]) -> LakeOptions {
    LakeOptions { partition_by: String::new(), ..batches::options(folder, logs.to_vec()) }
}

#[rstest]
#[case::delta(&[0])]
#[case::iceberg(&[1])]
#[case::both(&[0, 1])]
#[tokio::test]
async fn every_record_is_a_row_once(#[case] formats: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let all = batches::logs(3);
    let setups: Vec<LogSetup> = formats.iter().map(|at| all[*at].clone()).collect();
    let lake = lake(&folder, &setups);
    let row = r#"{"x":1,"t":"a"}"#;
    let (create, update) = (envelope("c", "null", row), envelope("u", row, r#"{"x":2,"t":"a"}"#));
    let delete = envelope("d", row, "null");
    let create: Record<'_> = (None, Some(&create));
    let first = [create, create, (None, Some(&update)), (None, Some(&delete)), (None, None)];
    let second = [create];
    // Half of the log, then all of it, then nothing new: as after restarts.
    for (one, other) in [(&first[..2], &second[..0]), (&first, &second), (&first, &second)] {
        assert_eq!(process(&logs(&[one, other]), &lake, &Options::default()).await, None);
    }
    assert_eq!(
        rows(&lake).await,
        ["c t=a x=1", "c t=a x=1", "c t=a x=1", "d t=a x=1", "u t=a x=2"]
    );
}

#[tokio::test]
async fn a_table_that_gets_a_key_later_goes_on_taking_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &batches::logs(3));
    let create = envelope("c", "null", r#"{"x":1}"#);
    let records: [Record<'_>; 3] =
        [(None, Some(&create)), (Some(r#"{"x":1}"#), Some(&create)), (Some(r#"{"x":1}"#), None)];
    for count in [1, 3, 3] {
        assert_eq!(process(&logs(&[&records[..count]]), &lake, &Options::default()).await, None);
    }
    assert_eq!(rows(&lake).await, ["c x=1", "c x=1"]);
}

#[tokio::test]
async fn a_key_is_not_given_up_for_records_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &batches::logs(3));
    let create = envelope("c", "null", r#"{"x":1}"#);
    let records: [Record<'_>; 2] = [(Some(r#"{"x":1}"#), Some(&create)), (None, Some(&create))];
    let halted = process(&logs(&[&records]), &lake, &Options::default()).await.unwrap();
    assert!(halted.contains("db.public.t[0]@1") && halted.contains("no_key"), "{halted}");
    assert_eq!(rows(&lake).await, ["c x=1"]);
}

#[rstest]
#[case::without_keys(None)]
#[case::with_other_keys(Some(r#"{"t":"a"}"#))]
#[tokio::test]
async fn named_columns_identify_rows(#[case] key: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &batches::logs(3));
    let identity = vec!["x".to_owned(), "y".to_owned()];
    let options = Options { declared_key: identity, key_in_rows: true, ..Options::default() };
    let row = |x: i64, t: &str| format!(r#"{{"t":"{t}","x":{x},"y":"k"}}"#);
    let values = [
        envelope("c", "null", &row(1, "a")),
        envelope("c", "null", &row(2, "a")),
        envelope("c", "null", &row(1, "b")),
        envelope("d", &row(2, "a"), "null"),
        envelope("u", &row(1, "b"), &row(1, "c")),
    ];
    let mut records: Vec<Record<'_>> =
        values.iter().map(|value| (key, Some(value.as_str()))).collect();
    records.insert(4, (key, None));
    for count in [2, 6, 6] {
        assert_eq!(process(&logs(&[&records[..count]]), &lake, &options).await, None);
    }
    assert_eq!(rows(&lake).await, ["u t=c x=1 y=k"]);
}

#[rstest]
#[case::a_fraction(r#"{"x":1.5}"#, "which identifies no row")]
#[case::a_null(r#"{"x":null}"#, "must be declared")]
#[case::not_there(r#"{"y":1}"#, "the row has no column x")]
#[tokio::test]
async fn an_identity_that_is_none_is_told(#[case] row: &str, #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, &batches::logs(3));
    let options =
        Options { declared_key: vec!["x".into()], key_in_rows: true, ..Options::default() };
    let create = envelope("c", "null", row);
    let halted = process(&logs(&[&[(None, Some(&create))]]), &lake, &options).await.unwrap();
    assert!(halted.contains(expected), "{halted}");
}
