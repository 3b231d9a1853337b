//! A budget that is full ends reading of every partition at once, and all are read on once there is room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{Batch, MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options};
use cdc_sink::error::Result;
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::record::Records;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::sink::{Committed, Merged, Sink};
use cdc_sink::source::{Event, Source, Start};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::pipeline::run;
use crate::sinks::{Store, Stored};

const TOPICS: usize = 60;
const CHUNKS: i64 = 6;
const CHUNK_RECORDS: i64 = 10;
/// Of a chunk, about.
const CHUNK_BYTES: usize = 10 * 1100;
/// Not all of the topics' first chunks fit.
const BUDGET: usize = CHUNK_BYTES * TOPICS / 3;

/// Topics that give a chunk in turn, as long as they are not held.
struct Topics {
    ready: Vec<Event>,
    starting: Option<oneshot::Receiver<HashMap<TopicPartition, Start>>>,
    next: BTreeMap<TopicPartition, i64>,
    turn: usize,
    held: BTreeSet<TopicPartition>,
    delivered: Arc<AtomicUsize>,
}

impl Topics {
    fn new(delivered: Arc<AtomicUsize>) -> Self {
        let names = (0..TOPICS).map(|number| format!("db.public.t{number:02}"));
        let at = |topic: String| TopicPartition { topic: topic.into(), partition: 0 };
        let next: BTreeMap<_, _> = names.map(|name| (at(name), 0)).collect();
        let (start, starting) = oneshot::channel();
        let assigned = Event::Assigned { partitions: next.keys().cloned().collect(), start };
        let (ready, held) = (vec![assigned], BTreeSet::new());
        Self { ready, starting: Some(starting), next, turn: 0, held, delivered }
    }

    /// The next chunk of the topic whose turn it is, or that it has ended.
    fn take_turn(&mut self) -> Option<Event> {
        let end = CHUNKS * CHUNK_RECORDS;
        for _ in 0..TOPICS {
            self.turn = (self.turn + 1) % TOPICS;
            let (at, next) = self.next.iter_mut().nth(self.turn).unwrap();
            if self.held.contains(at) || *next > end {
                continue;
            }
            if *next == end {
                *next += 1;
                return Some(Event::Reached { partition: at.clone(), position: end });
            }
            let mut records = Records::new(Arc::clone(&at.topic), 0, *next);
            for offset in *next..*next + CHUNK_RECORDS {
                let key = format!(r#"{{"id":{offset}}}"#);
                let text = "x".repeat(1000);
                let value = format!(
                    r#"{{"before":null,"after":{{"id":{offset},"text":"{text}"}},"source":{{"ts_ms":1}},"op":"c"}}"#
                );
                records.push(offset, Some(1), Some(key.as_bytes()), Some(value.as_bytes()), []);
            }
            *next += CHUNK_RECORDS;
            records.shrink_to_fit();
            self.delivered.fetch_add(records.bytes(), Ordering::Relaxed);
            return Some(Event::Records(records));
        }
        None
    }
}

impl Source for Topics {
    async fn next(&mut self) -> Event {
        if let Some(event) = self.ready.pop() {
            return event;
        }
        if let Some(starting) = &mut self.starting {
            starting.await.unwrap();
            self.starting = None;
            let high = CHUNKS * CHUNK_RECORDS;
            let told =
                |at: &TopicPartition| Event::Watermarks { partition: at.clone(), low: 0, high };
            self.ready.extend(self.next.keys().map(told));
        }
        loop {
            if let Some(event) = self.ready.pop().or_else(|| self.take_turn()) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn acknowledge(&mut self, _topic: &str, _committed: &Committed) {}

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        match held {
            true => self.held.insert(partition.clone()),
            false => self.held.remove(partition),
        };
    }

    fn read_again(&mut self, _: Vec<TopicPartition>) {}

    async fn close(self) {}
}

/// A store that does not answer until this is true.
#[derive(Debug, Clone)]
struct Slow(watch::Receiver<bool>);

impl Store for Slow {
    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged> {
        self.0.wait_for(|open| *open).await.unwrap();
        sink.merge(batch).await
    }
}

#[test]
fn a_full_budget_holds_every_partition_at_once() {
    run(async {
        let delivered = Arc::new(AtomicUsize::new(0));
        let source = Topics::new(Arc::clone(&delivered));
        let (opening, open) = watch::channel(false);
        let sinks: BTreeMap<_, _> =
            source.next.keys().map(|at| (Arc::clone(&at.topic), MemorySink::default())).collect();
        let setup = |topic: &Arc<str>| {
            let declared = vec![("id".to_owned(), "long".parse().unwrap())];
            let decoder = Decoder::new(Options { declared, ..Options::default() }, None, None);
            Ok(TableSetup {
                name: Arc::clone(topic),
                sink: Stored { sink: sinks[topic].clone(), store: Slow(open.clone()) },
                decoder,
                missing_value: MissingValue::Null,
                truncates: Truncates::Apply,
            })
        };
        let limits = Limits {
            rows: usize::MAX,
            bytes: usize::MAX,
            age: Duration::from_secs(10),
            idle: Duration::from_secs(1),
        };
        let options = pipeline::Options {
            limits,
            buffer_bytes: BUDGET,
            once: true,
            partitions: crate::sources::partitions(1),
            dead_letters: None,
            dead_letter_limit: 0,
            max_record_bytes: usize::MAX,
        };
        let clock = Clock::from_fn(|| 0);
        let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
        let progress = Progress::new(clock, Arc::clone(&health));
        let stop = CancellationToken::new();
        let look = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let held_at = delivered.load(Ordering::Relaxed);
            let most = BUDGET + 2 * CHUNK_BYTES;
            assert!((BUDGET / 2..most).contains(&held_at), "{held_at} of {BUDGET} bytes were read");
            opening.send(true).unwrap();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            panic!("it does not end: {:#?}", health.status());
        };
        let progress = tokio::select! {
            progress = pipeline::run(source, setup, options, progress, stop) => progress.unwrap(),
            () = look => unreachable!(),
        };
        assert!(progress.is_complete(), "{:?}", progress.tables());
        let rows = usize::try_from(CHUNKS * CHUNK_RECORDS).unwrap();
        assert!(sinks.values().all(|sink| sink.rows().len() == rows));
    });
}
