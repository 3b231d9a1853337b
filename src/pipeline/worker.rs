//! One table's worker: takes its topic's records, merges them when they are due, and halts alone.

mod fenced;
mod history;
mod order;
mod positions;
mod scan;
mod snapshot;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::others::Others;
use super::rejects::Rejects;
use super::{Options, Partitions, TableSetup};
use crate::batch::{Assembled, Buffer, Given, Limits, Tally, Wait};
use crate::change::{Batch, InitialSnapshot, MissingValue, Truncates};
use crate::dead_letter::DeadLetters;
use crate::decode::{Decoder, Skip};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::metrics;
use crate::position::Position;
use crate::record::Records;
use crate::retry;
use crate::sink::{Committed, Merged, Sink};
use crate::source::Start;

/// The sending half of a worker's queue.
pub(super) type Mailbox = mpsc::Sender<Message>;

/// What the router tells a worker.
#[derive(Debug)]
pub(super) enum Message {
    /// Partitions were gained; the answer says where to start.
    Assigned { partitions: Vec<i32>, start: oneshot::Sender<Vec<(i32, Start)>> },
    /// Partitions were lost; answered when nothing more will be committed for them.
    Revoked { partitions: Vec<i32>, done: oneshot::Sender<()> },
    /// Records of one partition.
    Records(Records),
    /// The topic has so many partitions.
    Partitions(i32),
    /// The end of a partition's log.
    Reached { partition: i32, position: i64 },
    /// The table cannot go on.
    Halt(Error),
    /// Commit what is buffered, then end.
    Finish,
}

/// What a worker tells the router.
#[derive(Debug)]
pub(super) enum Report {
    /// A chunk left the mailbox, taken in or dropped.
    Handled { topic: Arc<str>, skipped: Skips },
    /// Everything below `position` was taken in; nothing below `settled` waits for a commit.
    Reached { topic: Arc<str>, partition: i32, position: i64, settled: i64 },
    /// The table committed.
    Committed { topic: Arc<str>, committed: Committed, summary: Summary },
    /// So many records turned out to be nothing for the table, without a commit.
    PassedOver { topic: Arc<str>, records: usize },
    /// The table waits for a server that does not answer, and why it thinks so; or does so no more.
    Waiting { topic: Arc<str>, reason: Option<String> },
    /// The table went back: its partitions are to be read again from where it says.
    RolledBack { topic: Arc<str>, partitions: Vec<i32> },
    /// The table cannot go on without a person; `fenced` when it belongs to another deployment.
    Halted { topic: Arc<str>, error: String, fenced: bool },
}

/// Records that were passed over, by kind.
pub(super) type Skips = BTreeMap<Skip, u64>;

/// What went into a commit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Summary {
    /// Records consumed.
    pub consumed: usize,
    /// Rows written.
    pub upserts: usize,
    /// Keys deleted.
    pub deletes: usize,
    /// Changes superseded within the batch.
    pub collapsed: usize,
    /// Changes of rows of which the table has a later one.
    pub stale: usize,
    /// Records that are nothing for a table.
    pub skipped: usize,
    /// Records that emptied the table.
    pub truncates: usize,
    /// Records sent to the dead letters.
    pub dead_letters: usize,
    /// When the source committed the newest change, microseconds since the epoch.
    pub newest_source_micros: Option<i64>,
    /// How long the merge took.
    pub took: Duration,
}

impl Summary {
    fn of(tally: Tally, assembled: &Assembled<'_>) -> Self {
        Self {
            consumed: tally.consumed,
            upserts: assembled.batch.keys.len(),
            deletes: assembled.batch.deletes.len(),
            collapsed: assembled.collapsed,
            stale: assembled.stale,
            skipped: tally.skipped,
            truncates: tally.truncates,
            dead_letters: assembled.rejected.len(),
            newest_source_micros: assembled.batch.newest_source_micros,
            took: Duration::ZERO,
        }
    }
}

/// What all workers share.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    limits: Limits,
    buffer_bytes: usize,
    buffered: Arc<AtomicUsize>,
    partitions: Partitions,
    dead_letters: Option<Arc<DeadLetters>>,
    dead_letter_limit: usize,
    max_record_bytes: usize,
}

impl Policy {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            limits: options.limits,
            buffer_bytes: options.buffer_bytes,
            buffered: Arc::default(),
            partitions: options.partitions.clone(),
            dead_letters: options.dead_letters.clone(),
            dead_letter_limit: options.dead_letter_limit,
            max_record_bytes: options.max_record_bytes,
        }
    }

    /// Counts what is on its way to a worker, until it takes it.
    pub(super) fn queue(&self, bytes: usize) {
        self.buffered.fetch_add(bytes, Ordering::Relaxed);
    }

    /// True when the tables together buffer more than they may.
    pub(super) fn is_over_budget(&self) -> bool {
        self.buffered.load(Ordering::Relaxed) >= self.buffer_bytes
    }

    /// True when tables should merge early so that the budget is not reached.
    fn is_near_budget(&self) -> bool {
        self.buffered.load(Ordering::Relaxed) >= self.buffer_bytes / 2
    }
}

/// Whether a partition was read to the end of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not since it was assigned.
    Unknown,
    /// Nothing came since.
    Reached,
    /// It was, until then.
    Left(Instant),
}

/// Keeps one table.
pub(super) struct Worker<S> {
    topic: Arc<str>,
    name: Arc<str>,
    sink: S,
    decoder: Decoder,
    missing_value: MissingValue,
    truncates: Truncates,
    policy: Policy,
    mailbox: mpsc::Receiver<Message>,
    /// Messages taken from the mailbox while waiting, still to be handled in order.
    backlog: VecDeque<Message>,
    reports: mpsc::Sender<Report>,
    /// Partitions that are read; when each was last read to its end, and whether it is at its end now.
    assigned: BTreeMap<i32, End>,
    buffer: Buffer,
    others: Others,
    /// Where the table is in an initial snapshot.
    snapshot: InitialSnapshot,
    rejects: Rejects,
    /// Passed over in the present chunk.
    skipped: Skips,
    halted: bool,
    /// It was told that it waits for a server.
    waiting: bool,
    /// The process ends before a record could be taken in: what follows it is not taken in either.
    leaving: bool,
    /// Since when rows are waited for: whose values changes leave out, or that have still to leave a key.
    lacking: Option<Instant>,
}

impl<S: Sink + Send + Sync> Worker<S> {
    pub(super) fn new(
        topic: Arc<str>,
        setup: TableSetup<S>,
        policy: Policy,
        mailbox: mpsc::Receiver<Message>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        Self {
            topic,
            name: setup.name,
            sink: setup.sink,
            decoder: setup.decoder,
            missing_value: setup.missing_value,
            truncates: setup.truncates,
            rejects: Rejects::new(policy.dead_letters.clone(), policy.dead_letter_limit),
            policy,
            mailbox,
            backlog: VecDeque::new(),
            reports,
            assigned: BTreeMap::new(),
            buffer: Buffer::default(),
            others: Others::default(),
            snapshot: InitialSnapshot::default(),
            skipped: Skips::new(),
            halted: false,
            waiting: false,
            leaving: false,
            lacking: None,
        }
    }

    /// The worker's life: until it is told to finish, or nobody is left to tell it.
    pub(super) async fn run(mut self) {
        while let Some(message) = self.next().await {
            let outcome = match message {
                Some(Message::Finish) => {
                    let last = self.merge(Wait::Always).await;
                    self.halt_on(last).await;
                    return;
                }
                Some(message) => self.on_message(message).await,
                None => Ok(()),
            };
            self.halt_on(outcome).await;
            if !self.halted && self.is_due() {
                let over = self.policy.is_over_budget();
                let wait = if over { Wait::Short } else { Wait::Bounded(self.read_to_ends()) };
                let merged = self.merge(wait).await;
                self.halt_on(merged).await;
            }
        }
    }

    /// The next message, or `Some(None)` when the batch is due first.
    async fn next(&mut self) -> Option<Option<Message>> {
        if let Some(message) = self.backlog.pop_front() {
            return Some(Some(message));
        }
        match self.buffer.deadline(&self.policy.limits).filter(|_| !self.halted) {
            None => self.mailbox.recv().await.map(Some),
            Some(deadline) => tokio::select! {
                biased;
                message = self.mailbox.recv() => message.map(Some),
                () = tokio::time::sleep_until(deadline.into()) => Some(None),
            },
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Assigned { partitions, start } => {
                let assigned =
                    if self.halted { Ok(Vec::new()) } else { self.assign(&partitions).await };
                let starts = match &assigned {
                    Ok(starts) if !self.halted => starts.clone(),
                    // What is read for a table that halts is dropped.
                    _ => partitions.iter().map(|p| (*p, Start::Beginning)).collect(),
                };
                start.send(starts).ok();
                assigned?;
            }
            Message::Revoked { partitions, done } => {
                self.merge(Wait::Always).await?;
                self.revoke(&partitions);
                // Halves of key changes may be without their other half again.
                self.report_positions().await;
                done.send(()).ok();
            }
            Message::Records(records) => self.take(records).await?,
            Message::Partitions(count) => self.take_partitions(count),
            Message::Reached { partition, position } => {
                let takes = !self.halted && !self.leaving;
                if let Some(end) = self.assigned.get_mut(&partition).filter(|_| takes) {
                    *end = End::Reached;
                    self.buffer.reach(partition, position);
                    self.report_reached(partition, position).await;
                }
            }
            Message::Halt(error) => {
                self.merge(Wait::Always).await?;
                return Err(error);
            }
            Message::Finish => {}
        }
        Ok(())
    }

    /// Reads from the table where the partitions start.
    async fn assign(&mut self, partitions: &[i32]) -> Result<Vec<(i32, Start)>> {
        if partitions.iter().any(|partition| self.assigned.contains_key(partition)) {
            self.revoke(partitions);
        }
        let stored = self.read_position().await?;
        self.snapshot = self.read_snapshot().await?;
        self.assigned.extend(partitions.iter().map(|partition| (*partition, End::Unknown)));
        self.take_schema();
        let known = partitions.iter().filter_map(|p| Some((*p, stored.get(*p)?)));
        self.buffer.start_at(known.clone());
        // Said now: of a partition that is at its end nothing more may ever come.
        for (partition, position) in known {
            self.report_reached(partition, position).await;
        }
        let (topic_id, timestamps) = (self.sink.topic_id(), self.sink.timestamps_ms());
        let start = |p: &i32| match (stored.get(*p), timestamps.get(p).copied()) {
            (None, _) => (*p, Start::Beginning),
            (Some(position), newest_ms) => (*p, Start::At { position, topic_id, newest_ms }),
        };
        Ok(partitions.iter().map(start).collect())
    }

    async fn read_position(&mut self) -> Result<Position> {
        let mut waits = retry::waits();
        loop {
            match self.sink.position().await {
                Ok(position) => {
                    self.go_on().await;
                    return Ok(position);
                }
                Err(error) => {
                    self.wait_out(&error, "read the table's position", &mut waits).await?;
                    if self.leaves_empty() {
                        return Ok(Position::default());
                    }
                }
            }
        }
    }

    /// What is buffered for lost partitions belongs to their next owner.
    fn revoke(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.assigned.remove(partition);
        }
        self.rebase(&self.buffer.start_position());
    }

    /// The same for partitions that were lost meanwhile.
    async fn let_go(&mut self) {
        self.rebase(&self.buffer.start_position());
        self.report_positions().await;
    }

    /// Rebuilds the buffer from `position`, for the partitions that are still assigned.
    fn rebase(&mut self, position: &Position) {
        let position = position.iter().filter(|(p, _)| self.assigned.contains_key(p)).collect();
        self.keep(self.buffer.rebased(&position, now()));
    }

    /// Until when every partition is known to have been read to its end; not while messages wait.
    fn read_to_ends(&self) -> Option<Instant> {
        if !self.mailbox.is_empty() || !self.backlog.is_empty() {
            return None;
        }
        let end = |end: &End| match end {
            End::Unknown => None,
            End::Reached => Some(now()),
            End::Left(at) => Some(*at),
        };
        self.assigned.values().map(end).min().flatten()
    }

    /// Goes on with `buffer` in place of the present one.
    fn keep(&mut self, buffer: Buffer) {
        self.account(self.buffer.bytes(), buffer.bytes());
        self.buffer = buffer;
    }

    /// Scans a chunk into the buffer.
    async fn take(&mut self, mut records: Records) -> Result<()> {
        failpoint::reach(Point::K1);
        let (partition, queued) = (records.partition(), records.bytes());
        let takes = !self.halted && !self.leaving && self.assigned.contains_key(&partition);
        let mut failed = self.gap_before(&records).filter(|_| takes);
        let mut position = None;
        if takes && failed.is_none() {
            let mut outcomes = Vec::with_capacity(records.len());
            for index in 0..records.len() {
                match self.outcome(&records, index).await {
                    Ok(Some(outcome)) => outcomes.push(outcome),
                    left => {
                        failed = left.err();
                        records.truncate(index);
                        break;
                    }
                }
            }
            if let Some(end) = self.assigned.get_mut(&partition) {
                if *end == End::Reached {
                    *end = End::Left(now());
                }
                let (before, waiting) = (self.buffer.bytes(), self.buffer.has_open());
                self.buffer.push(records, outcomes, now());
                self.account(before, self.buffer.bytes());
                if waiting {
                    self.report_positions().await;
                }
                position = self.buffer.taken_to(partition);
            }
        }
        if let Some(position) = position {
            self.report_reached(partition, position).await;
        }
        self.account(queued, 0);
        let skipped = std::mem::take(&mut self.skipped);
        self.report(Report::Handled { topic: Arc::clone(&self.topic), skipped }).await;
        let Some(error) = failed else { return Ok(()) };
        self.merge(Wait::Always).await?;
        Err(error)
    }

    fn is_due(&self) -> bool {
        let early = self.policy.is_near_budget() && self.buffer.has_grown();
        let over = self.policy.is_over_budget() && !self.buffer.is_empty();
        early || over || self.buffer.is_due(&self.policy.limits, now())
    }

    /// Merges what is buffered, however often it takes; `wait` says what of a key change's half.
    async fn merge(&mut self, wait: Wait) -> Result<()> {
        let mut given = Given { missing_value: self.missing_value, ..Given::default() };
        let history_until = now() + history::WAIT;
        while !self.halted && !self.buffer.is_empty() {
            let started = self.ask_around(wait).await?;
            let end = self.buffer.cut(wait, started);
            let part = self.part(&end, &given, started);
            let buffer = part.as_ref().unwrap_or(&self.buffer);
            if buffer.is_empty() {
                self.buffer.rest(started);
                return Ok(());
            }
            if !buffer.has_changes() && self.sink.schema().is_none() {
                return self.pass_over(part).await;
            }
            given.end_at(&end).snapshot = self.snapshot;
            given.awaits_rows = self.awaits_rows(wait, started);
            let assembled = buffer.assemble(&mut self.decoder, Uuid::new_v4(), &given);
            if assembled.is_err() && self.decoder.awaits_history() {
                drop(assembled);
                self.await_history(history_until).await;
                continue;
            }
            let (assembled, before) = (assembled?, self.sink.schema());
            if assembled.lacks_rows {
                drop(assembled);
                self.await_rows(started).await;
                return Ok(());
            }
            self.tell_lost(assembled.lost);
            let mut summary = Summary::of(buffer.tally(), &assembled);
            failpoint::reach(Point::K2);
            self.rejects.bury(&self.name, buffer, &assembled.rejected).await?;
            let batch = assembled.batch;
            if batch.is_empty() && summary.dead_letters == 0 && given.stale.is_empty() {
                self.settle(&end, summary.consumed).await;
                return Ok(());
            }
            match self.merge_batch(&batch).await? {
                None => self.let_go().await,
                Some(Merged::Committed(committed)) => {
                    failpoint::reach(Point::K15b);
                    summary.took = started.elapsed();
                    let topic = Arc::clone(&self.topic);
                    let report = Report::Committed { topic, committed, summary };
                    self.go_on_after(&end, batch.snapshot, report).await;
                    self.tell_columns(before.as_deref());
                    return Ok(());
                }
                Some(Merged::Fenced { stored }) => {
                    given.absent.clear();
                    self.on_fenced(&stored).await?;
                }
                Some(Merged::Outdated) => self.take_schema(),
                Some(Merged::Missing { absent }) => {
                    for key in absent {
                        *given.absent.entry(key).or_default() += 1;
                    }
                }
                Some(Merged::Stale { keys, coming }) => given.take_stale(&batch, keys, coming),
                Some(Merged::Occupied) => {
                    self.await_rows(started).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What is below `end`, where that is not all as it is in the buffer.
    fn part(&self, end: &Position, given: &Given, now: Instant) -> Option<Buffer> {
        let part = (*end != self.buffer.position()).then(|| self.buffer.until(end, now));
        let buffer = part.as_ref().unwrap_or(&self.buffer);
        let moves = self.decoder.is_tracing().then(|| self.sink.moves());
        moves.and_then(|moves| buffer.passed_on(&moves, given)).or(part)
    }

    /// The table has what is below `end`.
    async fn go_on_after(&mut self, end: &Position, snapshot: InitialSnapshot, report: Report) {
        let waited = self.buffer.has_open() || self.lacking.is_some();
        self.keep(self.buffer.after(end, now()));
        self.rejects.settle();
        self.snapshot = snapshot;
        self.lacking = None;
        self.take_schema();
        self.report(report).await;
        if waited {
            self.report_positions().await;
        }
    }

    /// No table yet, and no change to make one for. There is no position then that says what was passed over: it is
    /// read, and its dead letters are sent, again after a restart.
    async fn pass_over(&mut self, part: Option<Buffer>) -> Result<()> {
        let buffer = part.as_ref().unwrap_or(&self.buffer);
        let rejected = buffer.rejected();
        self.rejects.bury(&self.name, buffer, &rejected).await?;
        self.rejects.settle();
        let (end, records) = (buffer.position(), buffer.tally().consumed - rejected.len());
        self.settle(&end, records).await;
        Ok(())
    }

    /// What is below `end` is nothing for the table.
    async fn settle(&mut self, end: &Position, records: usize) {
        self.keep(self.buffer.without(end, now()));
        self.lacking = None;
        self.report(Report::PassedOver { topic: Arc::clone(&self.topic), records }).await;
        self.report_positions().await;
    }

    /// Merges a batch; none when partitions of it were lost while waiting for another attempt.
    async fn merge_batch(&mut self, batch: &Batch) -> Result<Option<Merged>> {
        let mut waits = retry::waits();
        loop {
            match self.sink.merge(batch).await {
                Ok(merged) => {
                    self.go_on().await;
                    return Ok(Some(merged));
                }
                Err(error) => self.wait_out(&error, "merge a batch", &mut waits).await?,
            }
            if batch.ranges.iter().any(|range| !self.assigned.contains_key(&range.partition)) {
                self.go_on().await;
                return Ok(None);
            }
        }
    }

    async fn halt_on(&mut self, outcome: Result<()>) {
        let Err(error) = outcome else { return };
        metrics::error(error.kind());
        let fenced = error.kind() == Kind::Fenced;
        let error = error.report();
        tracing::error!(table = &*self.name, topic = &*self.topic, error, "the table halts");
        self.halted = true;
        self.keep(Buffer::default());
        let topic = Arc::clone(&self.topic);
        self.report(Report::Halted { topic, error, fenced }).await;
    }

    async fn report(&self, report: Report) {
        // The router is gone only when the process ends.
        self.reports.send(report).await.ok();
    }

    fn account(&self, before: usize, after: usize) {
        self.policy.buffered.fetch_add(after, Ordering::Relaxed);
        let total = self.policy.buffered.fetch_sub(before, Ordering::Relaxed);
        metrics::buffered(total.saturating_sub(before));
    }
}

/// The time on the runtime's clock, which tests stop and wind.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
