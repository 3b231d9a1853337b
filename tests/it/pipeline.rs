//! The sentence "what the source holds is what the table holds" for the whole pipeline: any delivery, any rebalance,
//! lost answers, crashes at any event, and two owners that each believe the partitions to be theirs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{Batch, MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options, Registry, SchemaId};
use cdc_sink::error::{Error, Result};
use cdc_sink::generate::{Encoding, Generated, Generator, Mix, Shape, UNAVAILABLE, Workload};
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::schema::is_metadata;
use cdc_sink::sink::memory::{MemorySink, TextRow};
use cdc_sink::sink::{Merged, Sink};
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, Logs, ScriptedSource, Step};
use cdc_sink::source::{Event, Source};
use proptest::prelude::*;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::generated::expected;
use crate::sinks::{Store, Stored};
use crate::sources::{Course, Passed};

pub(crate) const PARTITIONS: i32 = 3;

/// What goes wrong with one merge.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The store does not answer and has nothing.
    Before,
    /// The store has the batch, and the answer is lost.
    After,
}

/// A store with faults: one for each merge, none left means none any more.
#[derive(Debug, Clone)]
struct Faulty(Arc<Mutex<VecDeque<Option<Fault>>>>);

impl Store for Faulty {
    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged> {
        let lost = || Error::unavailable("the store does not answer");
        let fault = self.0.lock().unwrap().pop_front().flatten();
        match fault {
            None => sink.merge(batch).await,
            Some(Fault::Before) => Err(lost()),
            Some(Fault::After) => match sink.merge(batch).await? {
                Merged::Committed(_) => Err(lost()),
                other => Ok(other),
            },
        }
    }
}

/// Tells when so many events have come, which are the last.
struct Crashing {
    events_left: usize,
    crash: Arc<Notify>,
}

impl Course for Crashing {
    fn is_over(&mut self) -> bool {
        if self.events_left == 0 {
            self.crash.notify_one();
        }
        self.events_left == 0
    }

    fn pass(&mut self, event: Event) -> Option<Event> {
        self.events_left -= 1;
        Some(event)
    }
}

/// A generated history as logs, and what its table must hold.
pub(crate) struct World {
    pub(crate) logs: Logs,
    registry: Arc<Registry>,
    pub(crate) expected: Vec<TextRow>,
}

impl World {
    /// A topic of such values without a schema, one list for each partition.
    pub(crate) fn bare(partitions: &[&[(Option<i64>, &str)]]) -> Self {
        let at = |partition| TopicPartition { topic: "shop.public.t".into(), partition };
        let logs = (0..).zip(partitions).map(|(p, values)| (at(p), bare_log(values)));
        let logs = Arc::new(logs.collect());
        Self { logs, registry: Registry::preloaded([]), expected: Vec::new() }
    }

    /// The same with some of its partitions: what one of several instances reads.
    pub(crate) fn part(&self, partitions: impl Fn(i32) -> bool) -> Self {
        let logs = self.logs.iter().filter(|(at, _)| partitions(at.partition));
        let logs = logs.map(|(at, log)| (at.clone(), log.clone())).collect();
        Self {
            logs: Arc::new(logs),
            registry: Arc::clone(&self.registry),
            expected: self.expected.clone(),
        }
    }
}

/// The schemas of a workload's records.
pub(crate) fn registry_of(workload: &Workload) -> Arc<Registry> {
    let subjects = workload.subjects().into_iter().map(|subject| subject.schema);
    Registry::preloaded((1..).map(SchemaId).zip(subjects))
}

/// What is left of a generator's records, as logs.
pub(crate) fn logs_of(generated: impl IntoIterator<Item = Generated>) -> Logs {
    let mut records: BTreeMap<TopicPartition, Vec<LoggedRecord>> = BTreeMap::new();
    for record in generated {
        let at = TopicPartition { topic: record.topic, partition: record.partition };
        let log = records.entry(at).or_default();
        let headers = record.headers.iter();
        log.push(LoggedRecord {
            // Every seventh offset is a control record's.
            offset: i64::try_from(log.len() + log.len() / 7).unwrap(),
            timestamp_ms: Some(record.timestamp_ms),
            key: Some(record.key),
            value: record.value,
            headers: headers.map(|(n, v)| ((*n).to_owned(), Some(v.to_vec()))).collect(),
        });
    }
    Arc::new(records.into_iter().map(|(at, records)| (at, Log::new(records, 1))).collect())
}

pub(crate) fn world(seed: u64, encoding: Encoding) -> World {
    let workload = Workload {
        seed,
        tables: vec![Shape::Orders],
        rows: 20,
        changes: 300,
        partitions: PARTITIONS,
        encoding,
        mix: Mix { moves: 90, ..Mix::default() },
        placeholder_percent: 60,
        placeholders_in_moves: true,
        add_column_after: Some(150),
        ..Workload::default()
    };
    let mut generator = Generator::new(&workload);
    let logs = logs_of(&mut generator);
    World { logs, registry: registry_of(&workload), expected: expected(&generator, Shape::Orders) }
}

/// One process: reads the logs by `script` into a sink, until everything is committed or `events` have come.
pub(crate) async fn process<S: Sink + Send + Sync + 'static>(
    world: &World,
    script: Vec<Step>,
    sink: impl Fn() -> S,
    acknowledged: &Acknowledged,
    events: Option<usize>,
) {
    if let Some(progress) = told(world, script, sink, acknowledged, events).await {
        assert!(progress.is_complete(), "{:?}", progress.tables());
        // A lag that stays would be told of what is in the table.
        let behind = progress.partitions().iter().find(|(_, p)| p.settled != p.high);
        assert_eq!(behind, None);
    }
}

/// The same, with what the pipeline tells in the end; none after a crash.
async fn told<S: Sink + Send + Sync + 'static>(
    world: &World,
    script: Vec<Step>,
    sink: impl Fn() -> S,
    acknowledged: &Acknowledged,
    events: Option<usize>,
) -> Option<Progress> {
    let crash = Arc::new(Notify::new());
    let course = Crashing { events_left: events.unwrap_or(usize::MAX), crash: Arc::clone(&crash) };
    let source = ScriptedSource::new(Arc::clone(&world.logs), script, acknowledged.clone());
    let source = Passed { source, course };
    tokio::select! {
        biased;
        () = crash.notified() => None,
        progress = told_by(world, source, sink) => Some(progress),
    }
}

/// What the pipeline tells in the end when it reads `source`.
pub(crate) async fn told_by<S: Sink + Send + Sync + 'static>(
    world: &World,
    source: impl Source,
    sink: impl Fn() -> S,
) -> Progress {
    let clock = Clock::from_fn(|| 0);
    let options = pipeline::Options {
        limits: Limits {
            rows: 40,
            bytes: usize::MAX,
            age: Duration::from_secs(5),
            idle: Duration::from_secs(1),
        },
        buffer_bytes: 1 << 20,
        once: true,
        partitions: crate::sources::partitions(world.logs.len()),
        dead_letters: None,
        dead_letter_limit: 0,
        max_record_bytes: usize::MAX,
    };
    let open = |topic: &Arc<str>| {
        let options = Options { placeholder: UNAVAILABLE.to_owned(), ..Options::default() };
        let decoder = Decoder::new(options, Some(Arc::clone(&world.registry)), None);
        Ok(TableSetup {
            name: Arc::clone(topic),
            sink: sink(),
            decoder,
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        })
    };
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, Arc::clone(&health));
    let stop = CancellationToken::new();
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(3600)) => {
            panic!("the pipeline does not come to an end: {:#?}", health.status());
        }
        progress = pipeline::run(source, open, options, progress, stop) => progress.unwrap(),
    }
}

fn assert_equal(world: &World, sink: &Stored<Faulty>) {
    let mut rows = sink.sink.rows();
    for row in &mut rows {
        row.retain(|column, _| !is_metadata(column));
    }
    rows.sort();
    assert_eq!(sink.sink.missing_values(), 0);
    let missing: Vec<_> = world.expected.iter().filter(|row| !rows.contains(row)).take(3).collect();
    let extra: Vec<_> = rows.iter().filter(|row| !world.expected.contains(row)).take(3).collect();
    assert!(rows == world.expected, "missing {missing:#?}\nthere instead {extra:#?}");
}

pub(crate) fn step() -> impl Strategy<Value = (u8, i32, usize)> {
    (0u8..6, 0..PARTITIONS, 1usize..60)
}

pub(crate) fn script(world: &World, steps: &[(u8, i32, usize)]) -> Vec<Step> {
    let topic = &world.logs.keys().next().unwrap().topic;
    let at = |partition| TopicPartition { topic: Arc::clone(topic), partition };
    let step = |(kind, partition, count): &(u8, i32, usize)| match kind {
        0 => Step::Assign(vec![at(*partition), at((*partition + 1) % PARTITIONS)]),
        1 => Step::Revoke(vec![at(*partition)]),
        _ => Step::Deliver(at(*partition), *count),
    };
    steps.iter().map(step).collect()
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(Fault::Before)), 1 => Just(Some(Fault::After))]
}

pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test);
}

fn faulty(faults: Vec<Option<Fault>>) -> Stored<Faulty> {
    let store = Faulty(Arc::new(Mutex::new(faults.into())));
    Stored { sink: MemorySink::default(), store }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Crashes at any event, restarts, rebalances, lost answers: in the end the table holds what the source holds.
    #[test]
    fn nothing_is_lost_or_doubled_by_crashes_and_rebalances(
        seed in 0u64..1000,
        lives in prop::collection::vec((prop::collection::vec(step(), 0..30), 0usize..60), 0..4),
        faults in prop::collection::vec(fault(), 0..12),
    ) {
        run(async {
            let world = world(seed, Encoding::Avro);
            let sink = faulty(faults);
            let acknowledged = Acknowledged::default();
            for (steps, events) in lives {
                let script = script(&world, &steps);
                process(&world, script, || sink.clone(), &acknowledged, Some(events)).await;
            }
            process(&world, Vec::new(), || sink.clone(), &acknowledged, None).await;
            assert_equal(&world, &sink);
        });
    }

    /// Two processes that both have every partition, as a zombie and its successor do: the table's compare-and-set
    /// is all that keeps them apart.
    #[test]
    fn two_owners_do_no_harm(
        seed in 0u64..1000,
        steps in prop::collection::vec(step(), 0..30),
        others in prop::collection::vec(step(), 0..30),
        faults in prop::collection::vec(fault(), 0..12),
    ) {
        run(async {
            // Small records: where memory is short, halves are not waited for as long.
            let world = world(seed, Encoding::Avro);
            let sink = faulty(faults);
            let (one, other) = (Acknowledged::default(), Acknowledged::default());
            tokio::join!(
                process(&world, script(&world, &steps), || sink.clone(), &one, None),
                process(&world, script(&world, &others), || sink.clone(), &other, None),
            );
            // Both may have ended without a partition that the script gave to nobody.
            process(&world, Vec::new(), || sink.clone(), &Acknowledged::default(), None).await;
            assert_equal(&world, &sink);
        });
    }
}

/// Heartbeats and transactions may match the pattern of topics.
#[test]
fn a_topic_without_a_change_makes_no_table_and_halts_none() {
    run(async {
        let at = TopicPartition { topic: "shop.transaction".into(), partition: 0 };
        let begin = br#"{"status":"BEGIN","id":"571:1","event_count":null,"data_collections":null,"ts_ms":1}"#;
        let record = |offset| LoggedRecord {
            offset,
            timestamp_ms: Some(1),
            key: Some(br#"{"id":"571:1"}"#.to_vec()),
            value: Some(begin.to_vec()),
            headers: Vec::new(),
        };
        let world = World {
            logs: Arc::new([(at, Log::new((0..90).map(record).collect(), 1))].into()),
            registry: Registry::preloaded([]),
            expected: Vec::new(),
        };
        let sink = faulty(Vec::new());
        process(&world, Vec::new(), || sink.clone(), &Acknowledged::default(), None).await;
        assert_eq!(sink.sink.version(), 0);
    });
}

/// A log of records with bare JSON values, keyed by `id` where there is one.
fn bare_log(values: &[(Option<i64>, &str)]) -> Log {
    let record = |(offset, (id, value)): (i64, &(Option<i64>, &str))| LoggedRecord {
        offset,
        timestamp_ms: Some(1),
        key: id.map(|id| format!(r#"{{"id":{id}}}"#).into_bytes()),
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    Log::new((0..).zip(values).map(record).collect(), 1)
}

const TRUNCATE: &str = r#"{"before":null,"after":null,"source":{"ts_ms":1},"op":"t"}"#;

pub(crate) fn row(operation: &str, id: i64, name: &str) -> String {
    format!(
        r#"{{"before":null,"after":{{"id":{id},"name":"{name}"}},"source":{{"ts_ms":1}},"op":"{operation}"}}"#
    )
}

fn truncated_world(partitions: i32) -> World {
    let (one, two, three) = (row("c", 1, "a"), row("c", 2, "b"), row("c", 3, "c"));
    let again = row("c", 1, "A");
    let values =
        [(Some(1), &*one), (Some(2), &two), (None, TRUNCATE), (Some(1), &again), (Some(3), &three)];
    let empty: &[_] = &[];
    let logs: Vec<_> = (0..partitions).map(|p| if p == 0 { &values } else { empty }).collect();
    World::bare(&logs)
}

/// Rows before a truncate go, wherever a batch ends; rows after it stay.
#[test]
fn a_truncate_empties_the_table_of_what_came_before() {
    for cut in 1..5 {
        run(async {
            let world = truncated_world(1);
            let sink = faulty(Vec::new());
            let at = TopicPartition { topic: "shop.public.t".into(), partition: 0 };
            let script = vec![
                Step::Assign(vec![at.clone()]),
                Step::Deliver(at.clone(), cut),
                Step::Revoke(vec![at]),
            ];
            process(&world, script, || sink.clone(), &Acknowledged::default(), None).await;
            let names: Vec<_> = sink
                .sink
                .rows()
                .iter()
                .map(|row| (row["id"].clone(), row["name"].clone()))
                .collect();
            let expected =
                [("1", "A"), ("3", "c")].map(|(id, name)| (id.to_owned(), name.to_owned()));
            assert_eq!(names, expected, "cut after {cut}");
        });
    }
}

#[test]
fn a_truncate_among_several_partitions_halts_the_table() {
    run(async {
        let world = truncated_world(2);
        let sink = faulty(Vec::new());
        let progress = told(&world, Vec::new(), || sink.clone(), &Acknowledged::default(), None)
            .await
            .unwrap();
        let halted = progress.tables().values().next().unwrap().halted.clone().unwrap();
        assert!(
            halted.contains("shop.public.t[0]@2") && halted.contains("option truncate"),
            "{halted}"
        );
        assert_eq!(sink.sink.rows().len(), 2, "what came before is in the table");
    });
}
