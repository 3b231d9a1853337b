//! The topics of a history, and what their tables must hold at any position.
//!
//! The records come from the generator, with placeholders. The fold comes from the same history without them: a row is what
//! the source says it is, and no value has to be looked for. Each partition is folded by itself, as a key's records are
//! all in one, by the sink that is the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cdc_sink::batch::{Buffer, Given, Outcome};
use cdc_sink::change::MissingValue;
use cdc_sink::decode::{Decoder, Options, Registry, ScanError, Scanned};
use cdc_sink::generate::{Encoding, Generator, Mix, Shape, UNAVAILABLE, Workload};
use cdc_sink::position::{Position, TopicPartition};
use cdc_sink::record::Records;
use cdc_sink::sink::memory::{MemorySink, TextRow};
use cdc_sink::sink::{Merged, Sink as _};
use cdc_sink::source::scripted::{Log, Logs};
use uuid::Uuid;

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
}

impl Topics {
    pub(super) fn new(seed: u64, shapes: Vec<Shape>, partitions: i32, changes: u64) -> Self {
        let mut workload = Workload {
            seed,
            tables: shapes,
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
        let logs = logs_of(&mut Generator::new(&workload));
        workload.placeholder_percent = 0;
        Self { logs, registry, whole: logs_of(&mut Generator::new(&workload)) }
    }

    pub(super) fn decoder(&self) -> Decoder {
        let options = Options { placeholder: UNAVAILABLE.to_owned(), ..Options::default() };
        Decoder::new(options, Some(Arc::clone(&self.registry)), None)
    }

    pub(super) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.logs.keys().map(|at| Arc::clone(&at.topic)).collect()
    }

    /// What the table of `topic` must hold in the end.
    pub(super) async fn last(&self, topic: &str) -> Rows {
        let logs = self.logs.iter().filter(|(at, _)| *at.topic == *topic);
        let end = logs.map(|(at, log)| (at.partition, log.high())).collect();
        self.folds(topic, &[end]).await.pop().unwrap()
    }

    /// What the table of `topic` must hold at each of `positions`.
    pub(super) async fn folds(&self, topic: &str, positions: &[Position]) -> Vec<Rows> {
        let mut folded: BTreeMap<(i32, i64), Rows> = BTreeMap::new();
        for (at, log) in self.whole.iter().filter(|(at, _)| *at.topic == *topic) {
            let offsets: BTreeSet<i64> =
                positions.iter().filter_map(|position| position.get(at.partition)).collect();
            let mut fold =
                Fold { decoder: self.decoder(), sink: MemorySink::default(), next: 0, stored: 0 };
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

/// One partition, folded up to an offset.
struct Fold {
    decoder: Decoder,
    sink: MemorySink,
    next: i64,
    /// Up to where the sink has it; behind when there was nothing to merge since.
    stored: i64,
}

impl Fold {
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
        let given = Given { missing_value: MissingValue::Halt, ..Given::default() };
        let id = Uuid::from_u128(u128::from(offset.unsigned_abs()));
        let assembled = buffer.assemble(&mut self.decoder, id, &given).unwrap();
        let merged = self.sink.merge(&assembled.batch).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
        self.decoder.set_schema(self.sink.schema().unwrap());
    }
}
