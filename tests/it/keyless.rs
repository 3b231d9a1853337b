//! Tables without a primary key: every record is a row, once; or the columns that the configuration names are the key;
//! or a change is of a row that equals the row before.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{Batch, Keyless, MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options};
use cdc_sink::key::contents;
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::{OffsetRange, TopicPartition};
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, read};
use cdc_sink::sink::memory::text_rows;
use cdc_sink::sink::{Merged, Sink};
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, Logs, ScriptedSource};
use cdc_sink::table::physical;
use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;
use rstest::rstest;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
    let count = logs.len();
    let pipeline_options = pipeline::Options {
        limits,
        buffer_bytes: 1 << 20,
        once: true,
        partitions: crate::sources::partitions(count),
        dead_letters: None,
        dead_letter_limit: 0,
        max_record_bytes: usize::MAX,
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
    // Without any row there never was a table.
    formats.pop().unwrap_or_default()
}

/// A table whose rows are matched, and how its records are decoded.
fn matched(folder: &tempfile::TempDir, logs: &[LogSetup]) -> (LakeOptions, Options) {
    let lake = lake(folder, logs);
    let physical = physical::Options { match_rows: true, ..lake.physical.clone() };
    (LakeOptions { physical, ..lake }, Options { keyless: Keyless::Match, ..Options::default() })
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

/// What a source without keys does: rows are told by their content, of which there are few.
#[derive(Debug, Clone)]
enum Step {
    Insert(u8),
    /// One of the rows that are there.
    Update(usize, u8),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u8).prop_map(Step::Insert),
        2 => (any::<usize>(), 0..4_u8).prop_map(|(at, row)| Step::Update(at, row)),
        2 => any::<usize>().prop_map(Step::Delete),
    ]
}

fn content(row: u8) -> String {
    let x = ["1.5", r#""NaN""#, "-0.0", "null"][usize::from(row)];
    format!(r#"{{"x":{x},"t":{}}}"#, if row == 3 { "null" } else { r#""same""# })
}

/// The records of some steps, and the rows that there are after them.
fn history(steps: &[Step]) -> (Vec<String>, Vec<u8>) {
    let mut rows: Vec<u8> = Vec::new();
    let mut records = Vec::new();
    for step in steps {
        match step {
            Step::Insert(row) => {
                rows.push(*row);
                records.push(envelope("c", "null", &content(*row)));
            }
            Step::Update(at, row) if !rows.is_empty() => {
                let at = at % rows.len();
                records.push(envelope("u", &content(rows[at]), &content(*row)));
                rows[at] = *row;
            }
            Step::Delete(at) if !rows.is_empty() => {
                let row = rows.swap_remove(at % rows.len());
                records.push(envelope("d", &content(row), "null"));
            }
            Step::Update(..) | Step::Delete(_) => {}
        }
    }
    (records, rows)
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]
    /// In batches of three records, by three processes one after the other, in both formats.
    #[test]
    fn a_matched_table_has_the_rows_of_its_source(
        steps in prop::collection::vec(step(), 1..40), cuts in (0..100_usize, 0..100_usize)
    ) {
        let (records, mut expected) = history(&steps);
        let records: Vec<Record<'_>> =
            records.iter().map(|value| (None, Some(value.as_str()))).collect();
        if records.is_empty() {
            return Ok(());
        }
        let folder = tempfile::tempdir().unwrap();
        let (lake, mut options) = matched(&folder, &batches::logs(3)[..]);
        options.declared = vec![("x".into(), "double".parse().unwrap()), ("t".into(), "string".parse().unwrap())];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut ends = [cuts.0 % (records.len() + 1), cuts.1 % (records.len() + 1), records.len()];
        ends.sort_unstable();
        let rows = runtime.block_on(async {
            for end in ends {
                assert_eq!(process(&logs(&[&records[..end]]), &lake, &options).await, None);
            }
            rows(&lake).await
        });
        let mut rows: Vec<&str> = rows.iter().map(|row| row.split_once(' ').unwrap().1).collect();
        rows.sort_unstable();
        expected.sort_unstable();
        let text = |row: &u8| ["t=same x=1.5", "t=same x=NaN", "t=same x=-0.0", ""][usize::from(*row)];
        let mut expected: Vec<&str> = expected.iter().map(text).collect();
        expected.sort_unstable();
        assert_eq!(rows, expected);
    }
}

#[rstest]
#[case::two_partitions(&["c1", "c1"], "several partitions")]
#[case::a_row_that_is_not_there(&["c1 d2"], "no_such_row")]
#[case::no_row_before(&["c1 u-"], "no_before")]
#[tokio::test]
async fn what_cannot_be_matched_is_told(#[case] partitions: &[&str], #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (lake, options) = matched(&folder, &batches::logs(3));
    let value = |code: &str| match code {
        "c1" => envelope("c", "null", r#"{"x":1}"#),
        "d2" => envelope("d", r#"{"x":2}"#, "null"),
        _ => envelope("u", "null", r#"{"x":1}"#),
    };
    let values: Vec<Vec<String>> =
        partitions.iter().map(|codes| codes.split(' ').map(value).collect()).collect();
    let records: Vec<Vec<Record<'_>>> = values
        .iter()
        .map(|values| values.iter().map(|v| (None, Some(v.as_str()))).collect())
        .collect();
    let records: Vec<&[Record<'_>]> = records.iter().map(Vec::as_slice).collect();
    let halted = process(&logs(&records), &lake, &options).await.unwrap();
    assert!(halted.contains(expected), "{halted}");
}

#[tokio::test]
async fn a_value_that_did_not_change_is_that_of_the_row_before() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, mut options) = matched(&folder, &batches::logs(3));
    options.placeholder = "unchanged".into();
    let values = [
        envelope("c", "null", r#"{"x":1,"t":"long"}"#),
        envelope("u", r#"{"x":1,"t":"long"}"#, r#"{"x":2,"t":"unchanged"}"#),
        envelope("u", r#"{"x":2,"t":"long"}"#, r#"{"x":3,"t":"unchanged"}"#),
    ];
    let records: Vec<Record<'_>> = values.iter().map(|v| (None, Some(v.as_str()))).collect();
    for count in [2, 3] {
        assert_eq!(process(&logs(&[&records[..count]]), &lake, &options).await, None);
    }
    assert_eq!(rows(&lake).await, ["u t=long x=3"]);
}

#[tokio::test]
async fn a_table_of_every_record_is_not_taken_for_one_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, options) = matched(&folder, &batches::logs(3));
    let appended = LakeOptions {
        physical: physical::Options { match_rows: false, ..lake.physical.clone() },
        ..lake.clone()
    };
    let row = r#"{"x":1}"#;
    let values =
        [envelope("c", "null", row), envelope("d", row, "null"), envelope("c", "null", row)];
    let records: Vec<Record<'_>> = values.iter().map(|v| (None, Some(v.as_str()))).collect();
    assert_eq!(process(&logs(&[&records[..2]]), &appended, &Options::default()).await, None);
    let halted = process(&logs(&[&records]), &lake, &options).await.unwrap();
    assert!(halted.contains("a row for every record"), "{halted}");
}

/// A batch of matched rows: those that come, and those that go.
fn batch(from: i64, rows: &[i32], deletes: &[i32]) -> Batch {
    let columns = vec![Column::new("x", ColumnType::Int32, true)];
    let schema = Arc::new(TableSchema::create(columns, Vec::new()));
    let made = |rows: &[i32]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(rows.to_vec())),
            Arc::new(StringArray::from(vec!["c"; rows.len()])),
            Arc::new(TimestampMicrosecondArray::from(vec![5; rows.len()]).with_timezone("UTC")),
            Arc::new(Int32Array::from(vec![0; rows.len()])),
            Arc::new(Int64Array::from(vec![from; rows.len()])),
        ];
        RecordBatch::try_new(schema.arrow(), columns).unwrap()
    };
    let ranges = vec![OffsetRange { partition: 0, from, to: from + 1 }];
    let keys = contents(schema.columns(), &made(rows)).unwrap();
    Batch {
        deletes: contents(schema.columns(), &made(deletes)).unwrap(),
        matched: true,
        ..Batch::of_rows(Uuid::new_v4(), ranges, Arc::clone(&schema), made(rows), keys)
    }
}

#[rstest]
#[case::delta(0)]
#[case::iceberg(1)]
#[tokio::test]
async fn instances_take_over_from_one_another(#[case] format: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (lake, _) = matched(&folder, &batches::logs(3)[format..=format]);
    let mut instances = [LakeSink::new(lake.clone()), LakeSink::new(lake.clone())];
    let batches: [(&[i32], &[i32]); 6] = [
        (&[7, 7, 7, 8], &[]),
        (&[], &[7]),
        (&[7, 8], &[7, 7]),
        (&[7], &[7, 8]),
        (&[9], &[7]),
        (&[9, 7], &[9, 8]),
    ];
    for (at, (rows, deletes)) in (0..).zip(batches) {
        let instance = &mut instances[usize::try_from(at).unwrap() % 2];
        instance.position().await.unwrap();
        let merged = instance.merge(&batch(at, rows, deletes)).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{at}: {merged:?}");
    }
    assert_eq!(rows(&lake).await, ["c x=7", "c x=9"]);
    let merged = instances[0].merge(&batch(6, &[], &[7, 7, 5])).await.unwrap();
    let Merged::Missing { absent } = merged else { panic!("{merged:?}") };
    assert_eq!(absent.len(), 2);
}
