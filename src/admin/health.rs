//! What the pipeline tells about itself, and what `/livez`, `/readyz`, `/status` and the gauges of `/metrics` make
//! of it. Telling is cheap: an atomic for the heartbeat, a short lock for a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::metrics;

/// What `/status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of cdc-sink that runs.
    pub version: String,
    /// When it started.
    pub started: DateTime<Utc>,
    /// When this was answered.
    pub now: DateTime<Utc>,
    /// What `/readyz` says.
    pub ready: bool,
    /// How the source is.
    #[serde(default)]
    pub source: SourceState,
    /// Every table, by name.
    pub tables: Vec<TableStatus>,
}

/// What the pipeline knows of its source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// For whom it waits as nobody answers, and goes on by itself once somebody does; none while nothing is waited for.
    pub waiting: Option<String>,
    /// Since when.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Topics that are to be read, or were read, and are not there: deleted, not made yet, or such that the user may not
    /// describe.
    pub missing_topics: BTreeSet<String>,
}

/// A table in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    /// What the pipeline told.
    #[serde(flatten)]
    pub state: TableState,
    /// Records that are not in the table yet, over the partitions whose end is known.
    pub lag_records: i64,
    /// How old the newest change in the table is while records wait, seconds; 0 when none does, none when the
    /// table has no change with a source time.
    pub staleness_seconds: Option<f64>,
}

/// What the pipeline knows of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableState {
    /// The table's name.
    pub table: String,
    /// The topic that feeds it.
    pub topic: String,
    /// Whether it runs.
    pub state: RunState,
    /// Why it halted, for an operator; none while it runs.
    pub reason: Option<String>,
    /// What it waits for that does not answer, and goes on by itself once it does; none while nothing is waited for.
    #[serde(default)]
    pub waiting: Option<String>,
    /// The partitions of the topic that this instance reads.
    pub partitions: Vec<PartitionStatus>,
    /// The last commit of this instance.
    pub last_commit: Option<LastCommit>,
    /// When the source committed the newest change in the table.
    pub source_time: Option<DateTime<Utc>>,
    /// Rows that this process inserted, updated or deleted in it.
    pub rows_merged: u64,
    /// Records that this process put aside.
    pub dead_letters: u64,
    /// Records of the topic that this process passed over, by kind: a heartbeat, a logical decoding message and the like.
    #[serde(default)]
    pub skipped: BTreeMap<String, u64>,
}

/// Whether a table runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Records are merged as they come.
    Running,
    /// It waits for a person; nothing is merged and no offset moves.
    Halted,
}

/// How far one partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The partition's number.
    pub partition: i32,
    /// The next offset to read as stored in the table; none before its first commit.
    pub position: Option<i64>,
    /// The offset that the next committed record will get; none until the broker was asked.
    pub high_watermark: Option<i64>,
}

/// A table commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCommit {
    /// When it was made.
    pub time: DateTime<Utc>,
    /// The table version it made, by format (`delta`, `iceberg`).
    pub versions: BTreeMap<String, i64>,
}

impl TableState {
    fn lag_records(&self) -> i64 {
        self.partitions.iter().filter_map(PartitionStatus::lag_records).sum()
    }

    fn staleness_seconds(&self, now: DateTime<Utc>) -> Option<f64> {
        let source_time = self.source_time?;
        let waiting = self.lag_records() > 0;
        let age = now.signed_duration_since(source_time).num_milliseconds().max(0);
        Some(if waiting { age as f64 / 1e3 } else { 0.0 })
    }
}

impl PartitionStatus {
    fn lag_records(&self) -> Option<i64> {
        Some(self.high_watermark?.saturating_sub(self.position?).max(0))
    }
}

/// The instant `micros` after the epoch.
pub fn instant(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// The handle that the pipeline and the HTTP side share.
#[derive(Debug)]
pub struct Health {
    clock: Clock,
    started: DateTime<Utc>,
    /// Heartbeats are milliseconds from here on a clock that only goes forward.
    base: Instant,
    beat: AtomicU64,
    beat_limit: Duration,
    joined: AtomicBool,
    stopping: AtomicBool,
    source: Mutex<SourceState>,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    states: BTreeMap<String, TableState>,
    /// Partitions whose gauges were shown, so that those given away can be reported as such.
    shown: BTreeSet<(String, i32)>,
}

impl Health {
    /// A process that has just started. It counts as stuck when its loop does not tick for `beat_limit`, which must
    /// be longer than anything the loop waits for.
    pub fn new(clock: Clock, beat_limit: Duration) -> Self {
        Self {
            started: instant(clock.now_micros()),
            clock,
            base: Instant::now(),
            beat: AtomicU64::new(0),
            beat_limit,
            joined: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            source: Mutex::default(),
            tables: Mutex::default(),
        }
    }

    /// The pipeline's loop went round.
    pub fn beat(&self) {
        let millis = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(millis, Ordering::Relaxed);
    }

    /// The consumer group was joined: partitions were assigned, possibly none.
    pub fn joined(&self) {
        self.joined.store(true, Ordering::Relaxed);
    }

    /// The process shuts down.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The source is as `state` says now.
    pub fn source(&self, state: SourceState) {
        *self.lock_source() = state;
    }

    /// The table is as `state` says now.
    pub fn table(&self, state: TableState) {
        self.lock().states.insert(state.table.clone(), state);
    }

    /// This instance serves the table no more.
    pub fn forget_table(&self, table: &str) {
        if self.lock().states.remove(table).is_some() {
            metrics::table_staleness(table, 0.0);
            metrics::table_halted(table, false);
            metrics::table_waiting(table, false);
        }
    }

    /// What `/status` answers now.
    pub fn status(&self) -> Status {
        let now = instant(self.clock.now_micros());
        let table = |state: &TableState| TableStatus {
            lag_records: state.lag_records(),
            staleness_seconds: state.staleness_seconds(now),
            state: state.clone(),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now,
            ready: self.ready().is_ok(),
            source: self.lock_source().clone(),
            tables: self.lock().states.values().map(table).collect(),
        }
    }

    /// Whether the loop ticks, or for how long it has not.
    pub(super) fn live(&self) -> Result<(), String> {
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        let age = self.base.elapsed().saturating_sub(beat);
        if age <= self.beat_limit {
            return Ok(());
        }
        Err(format!(
            "the pipeline has not ticked for {} s, the limit is {} s",
            age.as_secs(),
            self.beat_limit.as_secs()
        ))
    }

    /// Whether records are read, or why not.
    pub(super) fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        if !self.joined.load(Ordering::Relaxed) {
            return Err("the consumer group is not joined yet".to_owned());
        }
        Ok(())
    }

    /// Sets the gauges that say how the tables are. Done at each scrape, so `/metrics` and `/status` agree, and ages
    /// grow when the pipeline is stuck.
    pub(super) fn record_gauges(&self) {
        let source = self.lock_source().clone();
        metrics::source_waiting(source.waiting.is_some());
        metrics::topics_missing(source.missing_topics.len());
        let now = instant(self.clock.now_micros());
        let mut tables = self.lock();
        let mut shown = BTreeSet::new();
        for state in tables.states.values() {
            metrics::table_halted(&state.table, state.state == RunState::Halted);
            metrics::table_waiting(&state.table, state.waiting.is_some());
            if let Some(seconds) = state.staleness_seconds(now) {
                metrics::table_staleness(&state.table, seconds);
            }
            if let Some(commit) = &state.last_commit {
                let source = state.source_time.map(|time| time.timestamp_micros());
                metrics::table_committed(&state.table, commit.time.timestamp_micros(), source);
            }
            for at in &state.partitions {
                if let (Some(position), Some(high)) = (at.position, at.high_watermark) {
                    metrics::partition_progress(&state.topic, at.partition, position, high);
                    shown.insert((state.topic.clone(), at.partition));
                }
            }
        }
        for (topic, partition) in tables.shown.difference(&shown) {
            metrics::partition_released(topic, *partition);
        }
        tables.shown = shown;
    }

    fn lock_source(&self) -> MutexGuard<'_, SourceState> {
        // The same: it is replaced as a whole.
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic elsewhere leaves whole table states behind: they are only ever replaced.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
