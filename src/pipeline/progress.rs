//! How far the pipeline is: per partition what was taken in, what is stored in the table, and what there is.
//!
//! The router alone writes it; metrics and the status page are told from here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::worker::{Skips, Summary};
use crate::admin::{
    Health, LastCommit, PartitionStatus, RunState, SourceState, TableState, instant,
};
use crate::clock::Clock;
use crate::metrics::{self, RecordOutcome};
use crate::position::TopicPartition;
use crate::sink::Committed;
use crate::source::Waiting;

/// How far the pipeline is.
#[derive(Debug)]
pub struct Progress {
    clock: Clock,
    health: Arc<Health>,
    tables: BTreeMap<Arc<str>, TableProgress>,
    partitions: BTreeMap<TopicPartition, PartitionProgress>,
    source: SourceState,
    incomplete: bool,
}

/// How far one table is.
#[derive(Debug, Clone, Default)]
pub struct TableProgress {
    /// The table's name.
    pub name: Arc<str>,
    /// Why the table halted, if it did.
    pub halted: Option<String>,
    /// What it waits for that does not answer, if it does.
    pub waiting: Option<String>,
    /// Commits since the start.
    pub commits: u64,
    /// The versions the last of them made, by format.
    pub versions: BTreeMap<String, i64>,
    /// Records consumed.
    pub consumed: u64,
    /// Rows written.
    pub upserts: u64,
    /// Keys deleted.
    pub deletes: u64,
    /// Changes that were passed over, as the table had a later one of their row from another partition.
    pub stale: u64,
    /// Records sent to the dead letters.
    pub dead_letters: u64,
    /// Records that were passed over, by kind.
    pub skipped: BTreeMap<&'static str, u64>,
    /// When the last commit was made, microseconds since the epoch.
    pub committed_micros: Option<i64>,
    /// When the source committed the newest change in the table, microseconds since the epoch.
    pub source_micros: Option<i64>,
}

/// How far one partition is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// True while this instance reads it.
    pub assigned: bool,
    /// The position after what was taken in.
    pub taken: Option<i64>,
    /// The position up to which everything is in the table, or is nothing for it.
    pub settled: Option<i64>,
    /// The next offset a record will get.
    pub high: Option<i64>,
    /// Where the log ended when the partition was assigned.
    pub end: Option<i64>,
}

impl Progress {
    /// Nothing is known yet.
    pub fn new(clock: Clock, health: Arc<Health>) -> Self {
        let (tables, partitions) = (BTreeMap::new(), BTreeMap::new());
        let source = SourceState::default();
        Self { clock, health, tables, partitions, source, incomplete: false }
    }

    /// Tables by topic.
    pub fn tables(&self) -> &BTreeMap<Arc<str>, TableProgress> {
        &self.tables
    }

    /// Partitions that are or were read.
    pub fn partitions(&self) -> &BTreeMap<TopicPartition, PartitionProgress> {
        &self.partitions
    }

    /// True when every table is in order and committed all it took in.
    pub fn is_complete(&self) -> bool {
        !self.incomplete && self.tables.values().all(|table| table.halted.is_none())
    }

    /// True when no partition is assigned.
    pub(super) fn is_idle(&self) -> bool {
        !self.partitions.values().any(|partition| partition.assigned)
    }

    /// True when everything that was there at the start was taken in; halted tables are not waited for.
    pub(super) fn reached_ends(&self) -> bool {
        let mut assigned = self.partitions.iter().filter(|(_, p)| p.assigned).peekable();
        assigned.peek().is_some()
            && assigned.all(|(at, p)| {
                let halted = self.tables.get(&at.topic).is_some_and(|t| t.halted.is_some());
                halted || p.end.is_some_and(|end| p.taken.max(p.settled) >= Some(end))
            })
    }

    /// The pipeline's loop went round.
    pub(super) fn beat(&self) {
        self.health.beat();
    }

    pub(super) fn stopping(&self) {
        self.health.stopping();
    }

    pub(super) fn opened(&mut self, topic: &Arc<str>, name: &Arc<str>) {
        self.table(topic).name = Arc::clone(name);
        self.tell(topic);
    }

    pub(super) fn assigned(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let progress = PartitionProgress { assigned: true, ..PartitionProgress::default() };
            self.partitions.insert(partition.clone(), progress);
        }
        self.health.joined();
        self.rebalanced(partitions);
    }

    pub(super) fn revoked(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
        self.rebalanced(partitions);
    }

    fn rebalanced(&self, partitions: &[TopicPartition]) {
        metrics::partitions_assigned(self.partitions.len());
        for topic in partitions.iter().map(|p| &p.topic).collect::<BTreeSet<_>>() {
            self.tell(topic);
        }
    }

    pub(super) fn watermarks(&mut self, at: &TopicPartition, high: i64) {
        if let Some(partition) = self.partitions.get_mut(at) {
            partition.high = Some(high);
            // A log that ends before the position it is read from is another one: its end says nothing.
            if partition.taken.is_none_or(|taken| taken <= high) {
                partition.end.get_or_insert(high);
            }
            self.tell(&at.topic);
        }
    }

    /// Everything below `position` was taken in; nothing below `settled` waits for a commit.
    pub(super) fn taken(&mut self, topic: &Arc<str>, partition: i32, position: i64, settled: i64) {
        let at = TopicPartition { topic: Arc::clone(topic), partition };
        if let Some(progress) = self.partitions.get_mut(&at) {
            progress.taken = Some(position);
            progress.high = progress.high.max(Some(position));
            if progress.settled < Some(settled) {
                progress.settled = Some(settled);
                self.tell(topic);
            }
        }
    }

    pub(super) fn committed(&mut self, topic: &Arc<str>, committed: &Committed, summary: &Summary) {
        let now = self.clock.now_micros();
        let table = self.table(topic);
        table.commits += 1;
        table.versions.clone_from(committed.versions());
        table.consumed += count(summary.consumed);
        table.upserts += count(summary.upserts);
        table.deletes += count(summary.deletes);
        table.stale += count(summary.stale);
        table.dead_letters += count(summary.dead_letters);
        table.committed_micros = Some(now);
        table.source_micros = table.source_micros.max(summary.newest_source_micros);
        let applied = summary.upserts + summary.deletes + summary.truncates;
        metrics::truncated(&table.name, count(summary.truncates));
        for (outcome, records) in [
            (RecordOutcome::Applied, applied),
            (RecordOutcome::Collapsed, summary.collapsed),
            (RecordOutcome::Stale, summary.stale),
            (RecordOutcome::Filtered, summary.skipped),
            (RecordOutcome::DeadLetter, summary.dead_letters),
        ] {
            metrics::records_settled(&table.name, outcome, count(records));
        }
        metrics::batch_merged(&table.name, count(applied), summary.took);
        for range in committed.ranges() {
            let at = TopicPartition { topic: Arc::clone(topic), partition: range.partition };
            if let Some(partition) = self.partitions.get_mut(&at) {
                partition.settled = partition.settled.max(Some(range.to));
            }
        }
        self.tell(topic);
    }

    /// Records were passed over.
    pub(super) fn skipped(&mut self, topic: &Arc<str>, skips: &Skips) {
        let Some(table) = self.tables.get_mut(topic).filter(|_| !skips.is_empty()) else { return };
        for (skip, records) in skips {
            *table.skipped.entry(skip.name()).or_default() += records;
            metrics::records_skipped(skip.name(), *records);
        }
        self.tell(topic);
    }

    /// So many records are settled without a commit.
    pub(super) fn passed_over(&mut self, topic: &Arc<str>, records: usize) {
        if let Some(table) = self.tables.get_mut(topic) {
            table.consumed += count(records);
            metrics::records_settled(&table.name, RecordOutcome::Filtered, count(records));
        }
    }

    pub(super) fn halted(&mut self, topic: &Arc<str>, reason: String) {
        let table = self.table(topic);
        table.halted.get_or_insert(reason);
        table.waiting = None;
        self.tell(topic);
    }

    /// The table waits for a server that does not answer, or does so no more.
    pub(super) fn waiting(&mut self, topic: &Arc<str>, reason: Option<String>) {
        self.table(topic).waiting = reason;
        self.tell(topic);
    }

    /// The source waits, or does so no more.
    pub(super) fn source_waiting(&mut self, waiting: Option<Waiting>) {
        let since = |waiting: &Waiting| {
            let lasted = Instant::now().saturating_duration_since(waiting.since).as_micros();
            let lasted = i64::try_from(lasted).unwrap_or(i64::MAX);
            instant(self.clock.now_micros().saturating_sub(lasted))
        };
        self.source.waiting_since = waiting.as_ref().map(since);
        self.source.waiting = waiting.map(|waiting| waiting.reason);
        self.health.source(self.source.clone());
    }

    /// Those topics are not there, and no others.
    pub(super) fn missing(&mut self, topics: BTreeSet<String>) {
        let before = std::mem::replace(&mut self.source.missing_topics, topics);
        self.health.source(self.source.clone());
        for topic in self.tables.keys() {
            if before.contains(&**topic) != self.source.missing_topics.contains(&**topic) {
                self.tell(topic);
            }
        }
    }

    /// What the table waits for, if it does.
    fn waits_for(&self, topic: &str, table: &TableProgress) -> Option<String> {
        if table.halted.is_some() || !self.source.missing_topics.contains(topic) {
            return table.waiting.clone();
        }
        Some(format!(
            "topic {topic} is not there any more: it was deleted, or its user may no longer describe it. What was read of \
             it is in the table; one that is made again is another log, and is not read on by number"
        ))
    }

    /// The table of a topic, which goes by the topic's name until it is opened.
    fn table(&mut self, topic: &Arc<str>) -> &mut TableProgress {
        self.tables.entry(Arc::clone(topic)).or_insert_with(|| TableProgress {
            name: Arc::clone(topic),
            ..TableProgress::default()
        })
    }

    /// Not everything that was taken in could be committed.
    pub(super) fn incomplete(&mut self) {
        self.incomplete = true;
    }

    /// Tells the status page how the topic's table is.
    fn tell(&self, topic: &Arc<str>) {
        let Some(table) = self.tables.get(topic) else { return };
        let partitions = self.partitions.iter().filter(|(at, _)| at.topic == *topic);
        let commit =
            |micros| LastCommit { time: instant(micros), versions: table.versions.clone() };
        self.health.table(TableState {
            table: table.name.to_string(),
            topic: topic.to_string(),
            state: if table.halted.is_some() { RunState::Halted } else { RunState::Running },
            reason: table.halted.clone(),
            waiting: self.waits_for(topic, table),
            partitions: partitions
                .map(|(at, progress)| PartitionStatus {
                    partition: at.partition,
                    position: progress.settled,
                    high_watermark: progress.high,
                })
                .collect(),
            last_commit: table.committed_micros.map(commit),
            source_time: table.source_micros.map(instant),
            rows_merged: table.upserts + table.deletes,
            dead_letters: table.dead_letters,
            skipped: table.skipped.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
        });
    }
}

fn count(records: usize) -> u64 {
    u64::try_from(records).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_cannot_be_opened_is_told() {
        let clock = Clock::from_fn(|| 0);
        let health = Arc::new(Health::new(clock.clone(), std::time::Duration::from_secs(1)));
        let mut progress = Progress::new(clock, Arc::clone(&health));
        for topic in ["a.b.c", "a.b.d"] {
            progress.halted(&topic.into(), format!("{topic} has a type that is none"));
        }
        let told = health.status().tables;
        let told: Vec<_> =
            told.iter().map(|table| (&*table.state.table, table.state.state)).collect();
        assert_eq!(told, [("a.b.c", RunState::Halted), ("a.b.d", RunState::Halted)]);
    }
}
