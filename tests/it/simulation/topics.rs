//! The topics of a history, and what their tables must hold at any position.
//!
//! The records come from the generator, with placeholders. The fold comes from the same history without them: a row is what
//! the source says it is, and no value has to be looked for. Each partition is folded by itself, as a key's records are
//! all in one, by the sink that is the model. Where topics grew they are not: what a position has of all partitions is
//! folded in the order in which the source wrote it, and a value is null whose change is not below the position.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cdc_sink::batch::{Buffer, Given, Outcome};
use cdc_sink::change::MissingValue;
use cdc_sink::decode::{Decoder, Options, Registry, ScanError, Scanned};
use cdc_sink::generate::{Encoding, Generated, Generator, Mix, UNAVAILABLE, Workload};
use cdc_sink::position::{Position, TopicPartition};
use cdc_sink::record::Records;
use cdc_sink::schema::{OFFSET_COLUMN, PARTITION_COLUMN};
use cdc_sink::sink::memory::{MemorySink, TextRow};
use cdc_sink::sink::{Merged, Sink as _};
use cdc_sink::source::scripted::{Log, LoggedRecord, Logs};
use uuid::Uuid;

use super::setup::{Growth, Setup};
use crate::pipeline::{logs_of, registry_of};

/// The columns of the key; the other tables' have a part of them.
const KEY: [&str; 3] = ["event_id", "warehouse", "sku"];

/// Rows by key, as text.
pub(super) type Rows = BTreeMap<String, TextRow>;

/// The key of a row, as text.
pub(super) fn key_of(row: &TextRow) -> String {
    let parts = KEY.iter().filter_map(|column| row.get(*column));
    parts.map(String::as_str).collect::<Vec<_>>().join("/")
}

pub(super) struct Topics {
    pub(super) logs: Logs,
    pub(super) registry: Arc<Registry>,
    /// The same records with every value in them.
    whole: Logs,
    /// Of topics that grew.
    order: Option<BTreeMap<Arc<str>, Order>>,
}

/// The partition and the place there of every record, in the order in which they were written.
type Order = Vec<(i32, usize)>;

impl Topics {
    pub(super) fn new(seed: u64, setup: &Setup) -> Self {
        let (partitions, changes) = (setup.partitions, setup.changes);
        let mut workload = Workload {
            seed,
            tables: setup.shapes.clone(),
            rows: 12,
            changes,
            partitions,
            encoding: Encoding::Avro,
            mix: Mix { creates: 250, updates: 500, deletes: 150, moves: 100 },
            placeholder_percent: 60,
            // Halves of key changes in two partitions wait for one another, but not longer than an instance may be away.
            placeholders_in_moves: partitions == 1,
            add_column_after: Some(changes / 2),
            ..Workload::default()
        };
        let registry = registry_of(&workload);
        let records = || grow(Generator::new(&workload), setup.grown);
        let (logs, order) = (logs_of(records()), setup.grown.map(|_| order(records())));
        workload.placeholder_percent = 0;
        Self { logs, registry, whole: logs_of(Generator::new(&workload)), order }
    }

    pub(super) fn decoder(&self) -> Decoder {
        let source_position = self.order.is_some();
        let placeholder = UNAVAILABLE.to_owned();
        let options = Options { source_position, placeholder, ..Options::default() };
        Decoder::new(options, Some(Arc::clone(&self.registry)), None)
    }

    pub(super) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.logs.keys().map(|at| Arc::clone(&at.topic)).collect()
    }

    /// True when the topic grew and not all of it is below `position`. A row that was deleted and made again has the values
    /// of before then, where its create is not read so far and a later change that is leaves them out.
    pub(super) fn awaits(&self, topic: &str, position: &Position) -> bool {
        let mut logs = self.logs.iter().filter(|(at, _)| *at.topic == *topic);
        let is_behind = |(at, log): (&TopicPartition, &Log)| {
            let last = log.records().last();
            last.is_some_and(|last| position.get(at.partition).is_none_or(|end| end <= last.offset))
        };
        self.order.is_some() && logs.any(is_behind)
    }

    /// What the table of `topic` must hold in the end.
    pub(super) async fn last(&self, topic: &str) -> Rows {
        let logs = self.logs.iter().filter(|(at, _)| *at.topic == *topic);
        let end = logs.map(|(at, log)| (at.partition, log.high())).collect();
        self.folds(topic, &[end]).await.pop().unwrap()
    }

    /// What the table of `topic` must hold at each of `positions`.
    pub(super) async fn folds(&self, topic: &str, positions: &[Position]) -> Vec<Rows> {
        if let Some(order) = self.order.as_ref().and_then(|order| order.get(topic)) {
            let mut folds = Vec::with_capacity(positions.len());
            for position in positions {
                folds.push(self.fold_in_order(topic, order, position).await);
            }
            return folds;
        }
        let mut folded: BTreeMap<(i32, i64), Rows> = BTreeMap::new();
        for (at, log) in self.whole.iter().filter(|(at, _)| *at.topic == *topic) {
            let offsets: BTreeSet<i64> =
                positions.iter().filter_map(|position| position.get(at.partition)).collect();
            let mut fold = Fold::new(self.decoder(), MissingValue::Halt);
            for offset in offsets {
                fold.go_to(at, log, offset).await;
                let rows = fold.sink.rows().into_iter().map(|row| (key_of(&row), row));
                folded.insert((at.partition, offset), rows.collect());
            }
        }
        let rows = |position: &Position| {
            let parts = position.iter().filter_map(|at| folded.get(&at));
            parts.flat_map(Clone::clone).collect()
        };
        positions.iter().map(rows).collect()
    }
}

impl Topics {
    /// What is below `position`, as if it were one partition, in the order in which it was written.
    async fn fold_in_order(&self, topic: &str, order: &Order, position: &Position) -> Rows {
        let (mut records, mut places) = (Vec::new(), Vec::new());
        for (partition, place) in order {
            let at = TopicPartition { topic: topic.into(), partition: *partition };
            let record = &self.logs[&at].records()[*place];
            if position.get(*partition).is_some_and(|end| record.offset < end) {
                let offset = i64::try_from(records.len()).unwrap();
                places.push((*partition, record.offset));
                records.push(LoggedRecord { offset, ..record.clone() });
            }
        }
        let count = i64::try_from(records.len()).unwrap();
        let mut fold = Fold::new(self.decoder(), MissingValue::Null);
        let at = TopicPartition { topic: topic.into(), partition: 0 };
        fold.go_to(&at, &Log::new(records, 0), count).await;
        let in_place = |mut row: TextRow| {
            let number: usize = row[OFFSET_COLUMN].parse().unwrap();
            let (partition, offset) = places[number];
            row.insert(PARTITION_COLUMN.into(), partition.to_string());
            row.insert(OFFSET_COLUMN.into(), offset.to_string());
            (key_of(&row), row)
        };
        fold.sink.rows().into_iter().map(in_place).collect()
    }
}

/// The records as they are when their topics had fewer partitions at first. Kafka's timestamps are in the order in which
/// they were written then, and a tombstone is in its delete's partition.
fn grow(records: Generator, growth: Option<Growth>) -> impl Iterator<Item = Generated> {
    let (mut newest, mut is_before) = (0, true);
    records.enumerate().map(move |(number, mut record)| {
        if let Some(Growth { from, after }) = growth {
            newest = record.timestamp_ms.max(newest);
            record.timestamp_ms = newest;
            is_before = number < after || (is_before && record.value.is_none());
            if is_before {
                record.partition %= from;
            }
        }
        record
    })
}

fn order(records: impl Iterator<Item = Generated>) -> BTreeMap<Arc<str>, Order> {
    let mut counts: BTreeMap<(Arc<str>, i32), usize> = BTreeMap::new();
    let mut order: BTreeMap<Arc<str>, Order> = BTreeMap::new();
    for Generated { topic, partition, .. } in records {
        let count = counts.entry((Arc::clone(&topic), partition)).or_default();
        order.entry(topic).or_default().push((partition, *count));
        *count += 1;
    }
    order
}

/// One partition, folded up to an offset.
struct Fold {
    decoder: Decoder,
    missing_value: MissingValue,
    sink: MemorySink,
    next: i64,
    /// Up to where the sink has it; behind when there was nothing to merge since.
    stored: i64,
}

impl Fold {
    fn new(decoder: Decoder, missing_value: MissingValue) -> Self {
        Self { decoder, missing_value, sink: MemorySink::default(), next: 0, stored: 0 }
    }

    async fn go_to(&mut self, at: &TopicPartition, log: &Log, offset: i64) {
        let mut records = Records::new(Arc::clone(&at.topic), at.partition, self.next);
        let part = log.records().iter();
        for record in part.filter(|record| (self.next..offset).contains(&record.offset)) {
            let headers = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            assert!(records.push(record.offset, record.timestamp_ms, key, value, headers));
        }
        let mut outcomes = Vec::new();
        for record in records.iter() {
            outcomes.push(loop {
                match self.decoder.scan(&record) {
                    Ok(Scanned::Change(change)) => break Outcome::Change(change),
                    Ok(Scanned::Skipped(_)) => break Outcome::Skipped,
                    Err(ScanError::NeedsSchema(id)) => {
                        self.decoder.fetch_schema(id).await.unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            });
        }
        let mut buffer = Buffer::default();
        buffer.start_at([(at.partition, self.stored)]);
        buffer.push(records, outcomes, Instant::now());
        buffer.reach(at.partition, offset);
        self.next = offset;
        if !buffer.has_changes() {
            return;
        }
        self.stored = offset;
        let given = Given { missing_value: self.missing_value, ..Given::default() };
        let id = Uuid::from_u128(u128::from(offset.unsigned_abs()));
        let assembled = buffer.assemble(&mut self.decoder, id, &given).unwrap();
        let merged = self.sink.merge(&assembled.batch).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
        self.decoder.set_schema(self.sink.schema().unwrap());
    }
}
