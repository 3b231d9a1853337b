//! The table of dead letters: every letter complete and once, whoever writes it and however often, for readers of any make.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{Batch, MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::dead_letter::{DeadLetters, Letter};
use cdc_sink::decode::{self, Decoder, Reject};
use cdc_sink::error::{Error, Result};
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::{Position, TopicPartition};
use cdc_sink::record::Records;
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, read};
use cdc_sink::sink::memory::{MemorySink, TextRow, text_rows};
use cdc_sink::sink::{Merged, Sink};
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, Logs, ScriptedSource};
use cdc_sink::table::index::Budget;
use rstest::rstest;
use rstest_reuse::{apply, template};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::batches;
use crate::readers;
use crate::sinks::{Store, Stored};

#[template]
#[rstest]
#[case::delta(3, &[0])]
#[case::iceberg_v2(2, &[1])]
#[case::iceberg_v3(3, &[1])]
#[case::both(3, &[0, 1])]
#[case::both_the_other_way(3, &[1, 0])]
#[tokio::test(flavor = "multi_thread")]
async fn formats(#[case] version: u8, #[case] formats: &[usize]) {}

/// A table of dead letters in a folder.
fn lake(folder: &tempfile::TempDir, version: u8, formats: &[usize]) -> LakeOptions {
    let all = batches::logs(version);
    let logs: Vec<LogSetup> = formats.iter().map(|at| all[*at].clone()).collect();
    LakeOptions { partition_by: String::new(), ..batches::options(folder, logs) }
}

/// The table's rows, the same in every format, by topic, partition and offset; each is there once.
async fn rows(lake: &LakeOptions) -> BTreeMap<(String, i32, i64), TextRow> {
    let mut formats = Vec::new();
    for (format, batches) in read(lake).await.unwrap() {
        let mut found = BTreeMap::new();
        for row in batches.iter().flat_map(|batch| text_rows(batch).unwrap()) {
            let number = |name: &str| row[name].parse::<i64>().unwrap();
            let partition = i32::try_from(number("partition")).unwrap();
            let place = (row["topic"].clone(), partition, number("offset"));
            assert!(found.insert(place.clone(), row).is_none(), "{format} has {place:?} twice");
        }
        formats.push(found);
    }
    assert_eq!(formats.len(), lake.logs.len());
    assert!(formats.windows(2).all(|pair| pair[0] == pair[1]), "{formats:?}");
    formats.swap_remove(0)
}

fn reject(reason: &'static str) -> Reject {
    Reject { reason, message: format!("value: {reason}") }
}

/// Records of one partition that cannot be used.
fn records(topic: &str, offsets: std::ops::Range<i64>) -> Records {
    let mut records = Records::new(topic.into(), 1, offsets.start);
    for offset in offsets {
        records.push(offset, Some(5), None, Some(&offset.to_le_bytes()), []);
    }
    records
}

fn letters<'a>(records: &'a Records, reject: &'a Reject) -> Vec<Letter<'a>> {
    records.iter().map(|record| Letter { record, reject, table: "shop.t" }).collect()
}

#[apply(formats)]
async fn a_letter_is_complete_for_every_reader(#[case] version: u8, #[case] formats: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, version, formats);
    let headers = [("a", Some(&b"\x01"[..])), ("a", None), ("b", Some(&b""[..]))];
    let mut one = Records::new("shop.public.a".into(), 3, 0);
    one.push(77, Some(1_700_000_000_123), Some(b"\xff\x00key"), Some(b"{\"half\xc3"), headers);
    let mut two = Records::new("shop.public.b".into(), 0, 0);
    // The source's clock is none: no reader knows such a year.
    two.push(1 << 40, Some(i64::MAX / 1000), None, Some(b""), []);
    let mut three = Records::new("shop.public.c".into(), 0, 0);
    three.push(0, None, Some(b""), None, []);
    let reason = reject("bad_json");
    let all: Vec<Letter<'_>> =
        [&one, &two, &three].into_iter().flat_map(|records| letters(records, &reason)).collect();
    DeadLetters::default().to_table(lake.clone()).write(&all).await.unwrap();

    let common = json!({"table": "shop.t", "reason": "bad_json", "error": "value: bad_json", "at": "2023-11-14T22:13:20Z"});
    let row = |own: Value| {
        let mut row = common.clone();
        row.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        row
    };
    let expected = [
        row(json!({
            "topic": "shop.public.a", "partition": "3", "offset": "77", "timestamp": "2023-11-14T22:13:20.123Z",
            "key": "ff006b6579", "value": "7b2268616c66c3", "header_names": "[a, a, b]", "header_values": "[01, , ]",
        })),
        row(json!({
            "topic": "shop.public.b", "partition": "0", "offset": "1099511627776", "value": "",
            "header_names": "[]", "header_values": "[]",
        })),
        row(json!({
            "topic": "shop.public.c", "partition": "0", "offset": "0", "key": "",
            "header_names": "[]", "header_values": "[]",
        })),
    ];
    let found: Vec<Value> = rows(&lake).await.into_values().map(|row| json!(row)).collect();
    assert_eq!(found, expected);
    for (reader, rows) in readers::read(&lake) {
        let rows: Vec<Value> = rows.into_iter().map(|row| json!(text(&row))).collect();
        assert_eq!(rows, expected, "{reader}");
    }
}

/// A row of a reader, its timestamps written as ours are.
fn text(row: &Value) -> BTreeMap<String, String> {
    let own = |(name, value): (&String, &Value)| {
        let value = value.as_str().unwrap();
        (name.clone(), value.replace("123000Z", "123Z"))
    };
    row.as_object().unwrap().iter().map(own).collect()
}

/// Two instances write to the table at the same time; what both have, as one took over the other's partition, is there once.
#[apply(formats)]
async fn instances_write_beside_one_another(#[case] version: u8, #[case] formats: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, version, formats);
    let write = |topic: &'static str, offsets: std::ops::Range<i64>| {
        let lake = lake.clone();
        async move {
            let instance = DeadLetters::default().to_table(lake);
            for from in offsets.step_by(10) {
                let (records, reason) = (records(topic, from..from + 15), reject("bad_json"));
                instance.write(&letters(&records, &reason)).await.unwrap();
            }
        }
    };
    tokio::join!(write("a", 0..80), write("b", 0..80), write("a", 40..120));
    let found: BTreeSet<(String, i32, i64)> = rows(&lake).await.into_keys().collect();
    let place = |topic: &str, offset| (topic.to_owned(), 1, offset);
    let expected = (0..125).map(|at| place("a", at)).chain((0..85).map(|at| place("b", at)));
    assert_eq!(found, expected.collect());
}

/// A commit's letters have a bound; what is more makes another commit.
#[tokio::test]
async fn many_letters_are_several_commits() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = lake(&folder, 3, &[0]);
    lake.physical.index = Budget::new(8 << 20);
    let (records, reason) = (records("a", 0..50_000), reject("bad_json"));
    DeadLetters::default().to_table(lake.clone()).write(&letters(&records, &reason)).await.unwrap();
    assert_eq!(rows(&lake).await.len(), 50_000);
    let mut sink = LakeSink::new(lake);
    assert_eq!(sink.position().await.unwrap(), Position::default());
    let commits = std::fs::read_dir(folder.path().join("db_public/t/_delta_log")).unwrap();
    let commits =
        commits.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "json"));
    // The table's making, and three.
    assert_eq!(commits.count(), 4);
}

/// A store that takes only so many more batches.
#[derive(Debug, Clone)]
struct Dying(Arc<AtomicUsize>);

impl Store for Dying {
    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged> {
        let less = |left: usize| left.checked_sub(1);
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => sink.merge(batch).await,
            Err(_) => Err(Error::refused("the process is killed")),
        }
    }
}

/// Every fifth record cannot be used: as JSON, or only once its columns are decoded, for which a key's last one counts.
fn log(records: i64) -> Logs {
    let record = |offset: i64| {
        let id = offset % 7;
        let row = match offset % 10 {
            4 => "{".to_owned(),
            9 => format!(
                r#"{{"before":null,"after":{{"id":{id},"n":"no number"}},"source":{{"ts_ms":1}},"op":"u"}}"#
            ),
            _ => format!(
                r#"{{"before":null,"after":{{"id":{id},"n":{offset}}},"source":{{"ts_ms":1}},"op":"u"}}"#
            ),
        };
        LoggedRecord {
            offset,
            timestamp_ms: Some(1),
            key: Some(format!(r#"{{"id":{id}}}"#).into_bytes()),
            value: Some(row.into_bytes()),
            headers: Vec::new(),
        }
    };
    let at = TopicPartition { topic: "db.public.t".into(), partition: 0 };
    Arc::new([(at, Log::new((0..records).map(record).collect(), 0))].into())
}

/// Bytes of a record that these processes decode at most.
const MAX_RECORD_BYTES: usize = 300;

/// A process that reads the log; batches have `batch` records.
async fn process(
    logs: &Logs,
    sink: &Stored<Dying>,
    batch: usize,
    dead_letters: DeadLetters,
) -> Progress {
    let limits = Limits {
        rows: batch,
        bytes: usize::MAX,
        age: Duration::from_secs(5),
        idle: Duration::from_millis(10),
    };
    let options = pipeline::Options {
        limits,
        buffer_bytes: 1 << 20,
        once: true,
        partitions: crate::sources::partitions(1),
        dead_letters: Some(Arc::new(dead_letters)),
        dead_letter_limit: 10,
        max_record_bytes: MAX_RECORD_BYTES,
    };
    let declared = [("id", "long"), ("n", "long")];
    let declared = declared.map(|(name, ty)| (name.to_owned(), ty.parse().unwrap()));
    let open = |topic: &Arc<str>| {
        let options = decode::Options { declared: declared.to_vec(), ..decode::Options::default() };
        Ok(TableSetup {
            name: Arc::clone(topic),
            sink: sink.clone(),
            decoder: Decoder::new(options, None, None),
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        })
    };
    let clock = Clock::from_fn(|| 0);
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, health);
    let source = ScriptedSource::new(Arc::clone(logs), Vec::new(), Acknowledged::default());
    pipeline::run(source, open, options, progress, CancellationToken::new()).await.unwrap()
}

/// Killed between the dead letters and the table's commit, the next process makes other batches of the same records.
#[apply(formats)]
async fn a_crash_before_the_commit_doubles_no_letter(
    #[case] version: u8,
    #[case] formats: &[usize],
) {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, version, formats);
    let logs = log(200);
    let sink = Stored { sink: MemorySink::default(), store: Dying(Arc::default()) };
    for (commits, batch) in [(0, 48), (1, 32), (0, 64), (100, 80)] {
        sink.store.0.store(commits, Ordering::SeqCst);
        let before = sink.sink.version();
        let dead_letters = DeadLetters::default().to_table(lake.clone());
        let progress = process(&logs, &sink, batch, dead_letters).await;
        assert_eq!(progress.is_complete(), commits == 100, "{:?}", progress.tables());
        assert!(commits == 100 || sink.sink.version() == before + i64::try_from(commits).unwrap());
    }
    let found: BTreeSet<i64> = rows(&lake).await.into_keys().map(|(_, _, offset)| offset).collect();
    // Of those that fail late, the ones that a later change of their key superseded in every batch were never looked at.
    let early = (0..200).filter(|offset| offset % 10 == 4).collect::<BTreeSet<i64>>();
    assert!(found.is_superset(&early), "{found:?}");
    assert!(found.iter().all(|offset| offset % 5 == 4), "{found:?}");
    assert!(found.len() > early.len(), "{found:?}");
    let last = |id: i64| (0..200).rev().find(|at| at % 7 == id && at % 5 != 4).unwrap();
    let rows: BTreeMap<String, String> =
        sink.sink.rows().into_iter().map(|row| (row["id"].clone(), row["n"].clone())).collect();
    let expected = (0..7).map(|id| (id.to_string(), last(id).to_string()));
    assert_eq!(rows, expected.collect());
}

/// However good it is: decoding takes a few times its size. Up to the limit a record is as any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_over_the_limit_is_a_complete_letter() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, 3, &[0]);
    let record = |offset: i64, bytes: usize| {
        let key = format!(r#"{{"id":{offset}}}"#);
        let row = format!(
            r#"{{"before":null,"after":{{"id":{offset},"n":1}},"source":{{"ts_ms":1}},"op":"c"}}"#
        );
        let filling = " ".repeat(bytes - key.len() - row.len());
        LoggedRecord {
            offset,
            timestamp_ms: Some(1),
            key: Some(key.into_bytes()),
            value: Some((filling + &row).into_bytes()),
            headers: Vec::new(),
        }
    };
    let sizes = [MAX_RECORD_BYTES, MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES];
    let records: Vec<LoggedRecord> =
        (0..).zip(sizes).map(|(offset, bytes)| record(offset, bytes)).collect();
    let large = records[1].value.clone().unwrap();
    let at = TopicPartition { topic: "db.public.t".into(), partition: 0 };
    let logs: Logs = Arc::new([(at, Log::new(records, 0))].into());
    let sink =
        Stored { sink: MemorySink::default(), store: Dying(Arc::new(AtomicUsize::new(100))) };
    let progress = process(&logs, &sink, 100, DeadLetters::default().to_table(lake.clone())).await;
    assert!(progress.is_complete(), "{:?}", progress.tables());
    let ids: BTreeSet<String> = sink.sink.rows().into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, ["0", "2"].map(str::to_owned).into());
    let letters = rows(&lake).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[&("db.public.t".to_owned(), 0, 1)];
    let hex: String = large.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&letter["reason"], &letter["value"]), (&"too_large".to_owned(), &hex));
    assert!(letter["error"].contains("301 bytes"), "{}", letter["error"]);
}

/// The table of dead letters is another's: that is said, and what was read is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_no_table_of_dead_letters_halts() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, 3, &[0]);
    let mut theirs = LakeSink::new(lake.clone());
    let schema = Arc::new(batches::schema());
    let merged = theirs.merge(&batches::batch(&schema, 0, &[(1, Some("a"))])).await.unwrap();
    assert!(matches!(merged, Merged::Committed(_)));
    let sink =
        Stored { sink: MemorySink::default(), store: Dying(Arc::new(AtomicUsize::new(100))) };
    let progress = process(&log(20), &sink, 100, DeadLetters::default().to_table(lake)).await;
    let halted = progress.tables().values().find_map(|table| table.halted.clone()).unwrap();
    assert!(halted.contains("dead letters do not fit their table"), "{halted}");
    assert_eq!(sink.sink.version(), 0);
}

/// The workers of many tables share it, each waiting for its turn.
#[tokio::test(flavor = "multi_thread")]
async fn tables_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder, 3, &[0]);
    let shared = Arc::new(DeadLetters::default().to_table(lake.clone()));
    let mut workers = tokio::task::JoinSet::new();
    for table in 0..20 {
        let shared = Arc::clone(&shared);
        workers.spawn(async move {
            for from in [0, 5] {
                let records = records(&format!("t{table}"), from..from + 5);
                shared.write(&letters(&records, &reject("bad_json"))).await.unwrap();
            }
        });
    }
    workers.join_all().await;
    assert_eq!(rows(&lake).await.len(), 200);
}
