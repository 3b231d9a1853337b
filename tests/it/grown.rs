//! Topics whose partitions grew: a row's changes are in several partitions, which come in any order, and the table holds
//! what the source holds.

mod together;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options};
use cdc_sink::error::Error;
use cdc_sink::generate::UNAVAILABLE;
use cdc_sink::pipeline::{self, Partitions, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::Sink;
use cdc_sink::sink::lake::{LakeSink, read};
use cdc_sink::sink::memory::{MemorySink, TextRow, text_rows};
use cdc_sink::source::Event;
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, ScriptedSource, Step};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::batches::{logs, options};
use crate::sources::{Course, Passed, partitions};

const KEYS: i64 = 9;

/// A database's log, as its `source` blocks tell it.
#[derive(Debug, Clone, Copy)]
enum Database {
    Postgres,
    /// Its files start over at the change of this number, an hour later.
    MySql {
        rebuilt: Option<usize>,
    },
}

impl Database {
    fn source(self, at: usize) -> Value {
        let place = i64::try_from(at).unwrap();
        match self {
            // Every other transaction is written before the one that commits before it.
            Self::Postgres => json!({
                "name": "db",
                "lsn": 1000 + place - 4 * (place % 2),
                "sequence": format!("[\"{}\",\"{}\"]", 900 + place, 1000 + place),
            }),
            Self::MySql { rebuilt } => {
                let from = rebuilt.filter(|from| *from <= at);
                let first = if from.is_some() { 1 } else { 999_998 };
                let place = place - i64::try_from(from.unwrap_or(0)).unwrap();
                let file = format!("binlog.{:06}", first + place / 3);
                json!({"name": "db", "file": file, "pos": place % 3 * 100, "row": 0})
            }
        }
    }
}

impl Database {
    /// The change at which its log starts over, if that is among the first `changes`.
    fn rebuilt(self, changes: usize) -> usize {
        match self {
            Self::MySql { rebuilt: Some(from) } if from < changes => from,
            _ => 0,
        }
    }
}

/// What happened at the source.
#[derive(Debug, Clone)]
struct History {
    /// Milliseconds from one record to the next.
    step: i64,
    database: Database,
    changes: Vec<Change>,
    /// The changes at which the topic got its second and its third partition.
    grown: [usize; 2],
    /// The connector started again after so many changes and wrote as many of them again.
    again: Option<(usize, usize)>,
    /// The first partition is read after the others, by others: the halves of key changes are not waited for so long.
    apart: bool,
    /// Rows come to keys that other rows had: large values that are left out may be lost or of another row.
    reuses: bool,
}

/// A change of one row.
#[derive(Debug, Clone, Copy)]
struct Change {
    id: i64,
    /// None for a delete.
    value: Option<i64>,
    /// The row gets this key with it, and leaves out the large value.
    to: Option<i64>,
}

fn change(id: i64, value: Option<i64>) -> Change {
    Change { id, value, to: None }
}

/// What the source holds after `changes`: value and large value by key.
fn fold(changes: &[Change]) -> BTreeMap<i64, (i64, i64)> {
    let mut rows: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for Change { id, value, to } in changes {
        match (value, to) {
            (None, _) => drop(rows.remove(id)),
            (Some(value), None) => {
                let row = rows.entry(*id).or_insert((*value, *value));
                *row = (*value, if gives(*value) { *value } else { row.1 });
            }
            (Some(value), Some(to)) => {
                let (_, large) = rows.remove(id).unwrap();
                rows.insert(*to, (*value, large));
            }
        }
    }
    rows
}

/// How many partitions there are when the change of this number is written.
fn partitions_at(grown: [usize; 2], number: usize) -> i64 {
    1 + i64::try_from(grown.iter().filter(|grown| **grown <= number).count()).unwrap()
}

/// True when an update to this value has the row's large value.
fn gives(value: i64) -> bool {
    value % 4 == 0
}

type Logs = BTreeMap<TopicPartition, Vec<LoggedRecord>>;

fn at(partition: i64) -> TopicPartition {
    let partition = i32::try_from(partition).unwrap();
    TopicPartition { topic: "db.public.t".into(), partition }
}

impl History {
    /// The logs once the first `changes` were written.
    fn logs(&self, changes: usize) -> Logs {
        let mut logs = Logs::new();
        let mut written = 0;
        let all: Vec<usize> = match self.again {
            Some((after, back)) if after <= changes => {
                // Of a server that is no more nothing is read again.
                let from = after.saturating_sub(back).max(self.database.rebuilt(after));
                (0..after).chain(from..changes).collect()
            }
            _ => (0..changes).collect(),
        };
        for (sent, number) in (0..).zip(all) {
            let rebuilt = self.database.rebuilt(number + 1) > 0;
            let timestamp = 1_700_000_000_000 + sent * self.step + i64::from(rebuilt) * 3_600_000;
            written = written.max(number);
            let partitions = partitions_at(self.grown, written);
            let Change { id, value, to } = self.changes[number];
            let row = |id: i64, value: i64, large: &str| json!({"id": id, "value": value, "large": large});
            let before = fold(&self.changes[..number]).get(&id).map(|(value, _)| *value);
            let before_row = before.map(|value| row(id, value, UNAVAILABLE));
            let delete = ("d", id, before_row.clone(), None);
            let written = match (before, value, to) {
                (_, Some(value), Some(to)) => {
                    vec![delete, ("c", to, None, Some(row(to, value, UNAVAILABLE)))]
                }
                (_, None, _) => vec![delete],
                (None, Some(value), None) => {
                    vec![("c", id, None, Some(row(id, value, &value.to_string())))]
                }
                (Some(_), Some(value), None) => {
                    let large = value.to_string();
                    let large = if gives(value) { large.as_str() } else { UNAVAILABLE };
                    vec![("u", id, before_row, Some(row(id, value, large)))]
                }
            };
            for (op, id, before, after) in written {
                let log = logs.entry(at(id % partitions)).or_default();
                let envelope = json!({
                    "before": before, "after": after, "op": op,
                    "source": self.database.source(number),
                });
                let halves = if op == "d" {
                    ("newkey", to)
                } else {
                    ("oldkey", Some(self.changes[number].id))
                };
                let header = halves.1.filter(|_| to.is_some()).map(|other| {
                    (
                        format!("__debezium.{}", halves.0),
                        Some(json!({"id": other}).to_string().into()),
                    )
                });
                let mut push = |value: Option<Vec<u8>>, headers| {
                    log.push(LoggedRecord {
                        offset: i64::try_from(log.len()).unwrap(),
                        timestamp_ms: Some(timestamp),
                        key: Some(json!({"id": id}).to_string().into()),
                        value,
                        headers,
                    });
                };
                push(Some(envelope.to_string().into()), header.into_iter().collect());
                if op == "d" {
                    push(None, Vec::new());
                }
            }
        }
        logs
    }

    /// Key, value and the large value, which most updates leave out; without it where it is not certain.
    fn rows(&self) -> Vec<Vec<String>> {
        let rows = fold(&self.changes).into_iter().map(|(id, (value, large))| [id, value, large]);
        let rows = rows.map(|row| row.map(|number| number.to_string()).to_vec());
        rows.map(|row| self.certain(row)).collect()
    }

    fn certain(&self, mut row: Vec<String>) -> Vec<String> {
        row.truncate(if self.reuses { 2 } else { 3 });
        row
    }

    /// What a table has of them.
    fn told_rows(&self, rows: &[TextRow]) -> Vec<Vec<String>> {
        let text = |row: &TextRow, column| row.get(column).cloned().unwrap_or_default();
        let rows = rows.iter().map(|row| ["id", "value", "large"].map(|column| text(row, column)));
        let mut rows: Vec<_> = rows.map(|row| self.certain(row.to_vec())).collect();
        rows.sort();
        rows
    }
}

fn history() -> impl Strategy<Value = History> {
    let value = prop_oneof![1 => Just(None), 3 => (0..1000_i64).prop_map(Some)];
    let database = prop_oneof![
        Just(Database::Postgres),
        Just(Database::MySql { rebuilt: None }),
        (1..60_usize).prop_map(|at| Database::MySql { rebuilt: Some(at) }),
    ];
    let to = prop_oneof![3 => Just(None), 1 => (0..KEYS).prop_map(Some)];
    let changes = prop::collection::vec((0..KEYS, value, to), 2..60);
    let again = prop::option::of((1..60_usize, 1..20_usize));
    let step = prop_oneof![Just(1), Just(40_000)];
    (database, changes, 1..40_usize, 0..30_usize, again, step, any::<[bool; 2]>()).prop_map(
        |(database, drawn, second, third, again, step, [apart, reuses])| {
            let mut changes: Vec<Change> = Vec::new();
            for (id, value, to) in drawn {
                let rows = fold(&changes);
                let is_used = changes.iter().any(|earlier| {
                    earlier.to.is_some() && (earlier.id == id || earlier.to == Some(id))
                });
                if is_used && !reuses && !rows.contains_key(&id) {
                    continue;
                }
                let value = value.or_else(|| (!rows.contains_key(&id)).then_some(0));
                let partitions = partitions_at([second, second + third], changes.len());
                let is_in_first = |id: i64| id % partitions == 0;
                let moves = |to: &i64| {
                    let is_apart = apart && is_in_first(id) != is_in_first(*to);
                    let is_taken =
                        changes.iter().any(|earlier| earlier.id == *to || earlier.to == Some(*to));
                    let is_free = if reuses { !rows.contains_key(to) } else { !is_taken };
                    rows.contains_key(&id) && !is_apart && is_free && again.is_none()
                };
                let to = to.filter(moves).filter(|_| value.is_some());
                changes.push(Change { id, value, to });
            }
            let again = again.map(|(after, back)| (after.min(changes.len()), back));
            History {
                step,
                database,
                changes,
                grown: [second, second + third],
                again,
                apart,
                reuses,
            }
        },
    )
}

/// How the logs are read: parts of partitions in any order, and where batches end.
#[derive(Debug, Clone)]
struct Reading {
    steps: Vec<(i64, usize)>,
    batch_rows: usize,
    /// The source does not tell so soon how many partitions there are.
    untold: bool,
}

impl Course for Reading {
    fn pass(&mut self, event: Event) -> Option<Event> {
        (!self.untold || !matches!(event, Event::Partitions { .. })).then_some(event)
    }
}

fn reading() -> impl Strategy<Value = Reading> {
    let steps = prop::collection::vec((0..3_i64, 1..20_usize), 0..30);
    (steps, 1..30_usize, any::<bool>()).prop_map(|(steps, batch_rows, untold)| Reading {
        steps,
        batch_rows,
        untold,
    })
}

/// A process that reads the logs to their ends, of a topic with these partitions now. `told`: that the topic had grown is
/// known by the option alone. `missing_value`: what becomes of values that are nowhere.
async fn attempt<S: Sink + Send + Sync + 'static>(
    logs: Logs,
    partitions: Partitions,
    reading: &Reading,
    (told, missing_value): (bool, MissingValue),
    sink: impl Fn() -> S,
) -> Progress {
    let clock = Clock::from_fn(|| 0);
    let assign = Step::Assign(logs.keys().cloned().collect());
    let steps =
        reading.steps.iter().map(|(partition, count)| Step::Deliver(at(*partition), *count));
    let logs = logs.into_iter().map(|(at, records)| (at, Log::new(records, 0))).collect();
    let script = [assign].into_iter().chain(steps);
    let source = ScriptedSource::new(Arc::new(logs), script, Acknowledged::default());
    let source = Passed { source, course: reading.clone() };
    let limits = Limits {
        rows: reading.batch_rows,
        bytes: usize::MAX,
        age: Duration::from_secs(3600),
        idle: Duration::from_secs(3600),
    };
    let options = pipeline::Options {
        limits,
        buffer_bytes: 1 << 20,
        once: true,
        partitions,
        dead_letters: None,
        dead_letter_limit: 0,
        max_record_bytes: usize::MAX,
    };
    let open = |topic: &Arc<str>| {
        let options = Options {
            source_position: told,
            placeholder: UNAVAILABLE.to_owned(),
            ..Options::default()
        };
        Ok(TableSetup {
            name: Arc::clone(topic),
            sink: sink(),
            decoder: Decoder::new(options, None, None),
            missing_value,
            truncates: Truncates::Apply,
        })
    };
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, health);
    let ended = pipeline::run(source, open, options, progress, CancellationToken::new()).await;
    ended.unwrap()
}

/// The same, of which nothing is left.
async fn process<S: Sink + Send + Sync + 'static>(
    logs: Logs,
    partitions: Partitions,
    reading: &Reading,
    known: (bool, MissingValue),
    sink: impl Fn() -> S,
) -> Progress {
    let progress = attempt(logs, partitions, reading, known, sink).await;
    assert!(progress.is_complete(), "{:?}", progress.tables());
    progress
}

/// A history without changes so far.
fn grown_at(grown: [usize; 2]) -> History {
    History {
        step: 1,
        database: Database::Postgres,
        changes: Vec::new(),
        grown,
        again: None,
        apart: false,
        reuses: false,
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test);
}

/// Up to the last one that has records.
fn count(logs: &Logs) -> usize {
    logs.last_key_value().map_or(1, |(last, _)| usize::try_from(last.partition + 1).unwrap())
}

/// Reads the history, with a process that is told that the topic has grown or one that sees it.
async fn read_all<S: Sink + Send + Sync + 'static>(
    history: &History,
    told: bool,
    [first, second]: &[Reading; 2],
    sink: impl Fn() -> S,
) {
    // Everything is read in the end: nothing is nowhere, unless changes of rows that are deleted come again.
    let missing = match history.apart || history.reuses || history.again.is_some() {
        true => MissingValue::Null,
        false => MissingValue::Halt,
    };
    if !told {
        let grown = history.grown[0].min(history.changes.len());
        let logs = history.logs(grown);
        process(logs.clone(), partitions(count(&logs)), first, (false, missing), &sink).await;
    }
    let logs = history.logs(history.changes.len());
    let partitions = || partitions(count(&logs));
    if history.apart {
        let mut first = logs.clone();
        first.remove(&at(0));
        // Each by itself, but for halves of key changes.
        let moves = history.changes.iter().any(|change| change.to.is_some());
        let last = if moves { Logs::new() } else { first.split_off(&at(2)) };
        for part in [last, first].into_iter().filter(|part| !part.is_empty()) {
            process(part, partitions(), second, (told, missing), &sink).await;
        }
    }
    process(logs.clone(), partitions(), second, (told, missing), &sink).await;
}

/// A new table notes how many there were: with what the source tells, that may come too late.
#[rstest]
#[case::that_tell_at_last(2, Some(2))]
#[case::that_have_no_such_topic_any_more(0, None)]
fn a_table_is_made_once_brokers_were_asked(#[case] told: usize, #[case] noted: Option<i32>) {
    run(async {
        let changes = vec![change(1, Some(1)), change(2, Some(2))];
        let history = History { changes, ..grown_at([0, 9]) };
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let brokers = Partitions::new(move |_| {
            let lost = || Error::unavailable("the brokers do not answer");
            let silent = counted.fetch_add(1, Ordering::Relaxed) < 3;
            Box::pin(std::future::ready(if silent { Err(lost()) } else { Ok(told) }))
        });
        let sink = MemorySink::default();
        let reading = Reading { steps: Vec::new(), batch_rows: 9, untold: true };
        process(history.logs(2), brokers, &reading, (false, MissingValue::Halt), || sink.clone())
            .await;
        assert_eq!(history.told_rows(&sink.rows()), history.rows());
        assert_eq!(sink.schema().unwrap().partitions(), noted);
        assert!(asked.load(Ordering::Relaxed) > 3);
    });
}

/// Keys move between the partitions that there were, too, while nobody reads the new ones so far.
#[test]
fn a_growth_is_known_before_anything_is_merged_that_was_written_since() {
    run(async {
        let changes = [(1, 1), (4, 1), (4, 2), (4, 3)].map(|(id, v)| change(id, Some(v))).into();
        let history = History { changes, ..grown_at([0, 3]) };
        let sink = MemorySink::default();
        let reading = Reading { steps: vec![(1, 9), (0, 9)], batch_rows: 1, untold: false };
        process(history.logs(2), partitions(2), &reading, (false, MissingValue::Halt), || {
            sink.clone()
        })
        .await;
        let logs = history.logs(4);
        assert_eq!(count(&logs), 2, "the third one has no records");
        let progress =
            process(logs, partitions(3), &reading, (false, MissingValue::Halt), || sink.clone())
                .await;
        let stale: Vec<_> = progress.tables().values().map(|table| table.stale).collect();
        assert_eq!(stale, [1], "the second change of row 4");
        assert_eq!(history.told_rows(&sink.rows()), history.rows());
    });
}

/// The row has moved on when what its old partition has of it is read.
#[test]
fn a_value_that_comes_late_follows_its_row_to_another_key() {
    run(async {
        let (made, given) = (change(3, Some(1)), change(3, Some(4)));
        let moved = Change { id: 3, value: Some(6), to: Some(5) };
        let changes = vec![made, given, moved, change(5, Some(7))];
        let history = History { changes, apart: true, ..grown_at([2, 9]) };
        let readings =
            [1, 9].map(|batch_rows| Reading { steps: Vec::new(), batch_rows, untold: true });
        let sink = MemorySink::default();
        read_all(&history, true, &readings, || sink.clone()).await;
        assert_eq!(history.told_rows(&sink.rows()), [["5", "7", "4"]]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_is_the_source_whatever_partition_is_read_first(
        history in history(),
        told: bool,
        readings in [reading(), reading()],
    ) {
        run(async {
            let sink = MemorySink::default();
            read_all(&history, told, &readings, || sink.clone()).await;
            assert_eq!(history.told_rows(&sink.rows()), history.rows());
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_lake_table_is_the_source_whatever_partition_is_read_first(
        history in history(),
        told: bool,
        readings in [reading(), reading()],
        iceberg_first: bool,
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let mut logs = logs(3).to_vec();
            if iceberg_first {
                logs.reverse();
            }
            let options = options(&folder, logs);
            read_all(&history, told, &readings, || LakeSink::new(options.clone())).await;
            for (format, batches) in read(&options).await.unwrap() {
                let rows = batches.iter().flat_map(|batch: &RecordBatch| text_rows(batch).unwrap());
                assert_eq!(history.told_rows(&rows.collect::<Vec<_>>()), history.rows(), "{format}");
            }
        });
    }
}
