//! The data path: one loop from events of the source to the tables, one worker per table.
//!
//! ```text
//! source ─► event ─► route by topic ─► worker: scan ─► buffer ─► (due) assemble ─► dead letters ─► merge ─┐
//!    ▲                                                                                                    │
//!    └───────────── acknowledge ◄── receipt ◄──────────────────────────────────────────── Committed ◄─────┘
//! ```
//!
//! The loop owns the source and routes; it never waits for a table. A worker owns its table's buffer and sink; what
//! goes wrong there stops that table alone. A table that is slow is not read on: its partitions are held until
//! its worker has caught up.

mod others;
mod progress;
mod rejects;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use progress::{PartitionProgress, Progress, TableProgress};
use worker::{Mailbox, Message, Policy, Report, Worker};

use crate::batch::Limits;
use crate::change::{MissingValue, Truncates};
use crate::dead_letter::DeadLetters;
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::metrics;
use crate::position::TopicPartition;
use crate::record::Records;
use crate::sink::Sink;
use crate::source::{Event, Source, Start};

/// Chunks queued for a worker at which its partitions are held.
const HOLD_AT: usize = 8;
/// Chunks queued for a worker at which its partitions are read again.
const RELEASE_AT: usize = 2;
/// Messages a worker's mailbox takes: more than a source can deliver between a hold and its effect.
const MAILBOX: usize = 1024;
/// How often the loop goes round when nothing comes.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a stopping pipeline waits for its tables' last commits.
const DRAIN: Duration = Duration::from_secs(60);
/// The same, when all that is left are tables whose servers do not answer.
const UNANSWERED: Duration = Duration::from_secs(10);
/// How long a run until the end waits for a first partition.
const FIRST_ASSIGNMENT: Duration = Duration::from_secs(60);

/// Tells how many partitions a topic has now; 0 when there is no such topic.
#[derive(Clone)]
pub struct Partitions(Arc<Ask>);

type Ask = dyn Fn(&str) -> BoxFuture<'static, Result<usize>> + Send + Sync;

impl Partitions {
    /// Partitions as `ask` tells them.
    pub fn new(
        ask: impl Fn(&str) -> BoxFuture<'static, Result<usize>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    async fn of(&self, topic: &str) -> Result<usize> {
        (self.0)(topic).await
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Partitions")
    }
}

/// How a pipeline runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// When a table's batch is due.
    pub limits: Limits,
    /// Bytes of records that all tables may buffer together.
    pub buffer_bytes: usize,
    /// Stop when everything that was in the topics at the start is committed.
    pub once: bool,
    /// Tells the number of partitions that a topic has now.
    pub partitions: Partitions,
    /// Where records go that are no changes; without it a table halts at the first one.
    pub dead_letters: Option<Arc<DeadLetters>>,
    /// Dead letters of one table in a row, at most: with more, the table halts.
    pub dead_letter_limit: usize,
    /// Bytes of a record's key, value and headers, at most: a larger one is rejected as it is.
    pub max_record_bytes: usize,
}

/// What a worker needs to keep one table.
#[derive(Debug)]
pub struct TableSetup<S> {
    /// The table's name, for logs and metrics.
    pub name: Arc<str>,
    /// Where its batches are merged.
    pub sink: S,
    /// Decodes its topic's records.
    pub decoder: Decoder,
    /// What becomes of changes that leave out values which are nowhere.
    pub missing_value: MissingValue,
    /// What becomes of truncates.
    pub truncates: Truncates,
}

/// Runs until the source ends, `stop` is cancelled, or (with [`Options::once`]) everything is committed. `open` makes
/// the setup of a topic's table when its first partition is assigned. Fails when the source failed; tables that
/// halted are told by the returned progress.
pub async fn run<So, Si>(
    mut source: So,
    open: impl Fn(&Arc<str>) -> Result<TableSetup<Si>>,
    options: Options,
    progress: Progress,
    stop: CancellationToken,
) -> Result<Progress>
where
    So: Source,
    Si: Sink + Send + Sync + 'static,
{
    metrics::buffer_limit(options.buffer_bytes);
    let (reports, mut inbox) = mpsc::channel(MAILBOX);
    let mut router = Router {
        open,
        policy: Policy::new(&options),
        progress,
        reports,
        workers: BTreeMap::new(),
        tasks: JoinSet::new(),
        replies: JoinSet::new(),
        holds_all: false,
    };
    let nothing_assigned = tokio::time::sleep(FIRST_ASSIGNMENT);
    tokio::pin!(nothing_assigned);
    let outcome = loop {
        router.progress.beat();
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            Some(report) = inbox.recv() => router.on_report(&mut source, report),
            Some(_) = router.replies.join_next() => {}
            () = &mut nothing_assigned, if options.once && router.progress.is_idle() => {
                break Err(Error::invalid("no partition was assigned: no topic matches, or other instances have them all")
                    .hint("check option topics and option group"));
            }
            // Room that nobody reports, as that of partitions that were lost, is found here.
            () = tokio::time::sleep(HEARTBEAT) => router.release(&mut source),
            event = source.next() => tokio::select! {
                biased;
                done = router.on_event(&mut source, event) => if let Err(error) = done {
                    break Err(error);
                },
                () = stop.cancelled() => break Ok(()),
            },
        }
        if router.is_fenced() {
            break Err(Error::fenced("every table belongs to another deployment")
                .hint("what was logged of each says to which, and what can be done"));
        }
        // What is lost may leave the rest unfinished: its worker tells before it answers.
        if options.once && router.replies.is_empty() && router.progress.reached_ends() {
            break Ok(());
        }
    };
    router.progress.stopping();
    failpoint::reach(Point::K13);
    // At the ends nobody waits for the process: the last commits may take as long as any other.
    let told = outcome.is_err().then(Instant::now);
    router.drain(&mut source, &mut inbox, told, &stop).await;
    failpoint::reach(Point::K13b);
    source.close().await;
    outcome.map(|()| router.progress)
}

struct Router<F> {
    open: F,
    policy: Policy,
    progress: Progress,
    reports: mpsc::Sender<Report>,
    workers: BTreeMap<Arc<str>, Handle>,
    tasks: JoinSet<()>,
    replies: JoinSet<()>,
    /// Every partition was held, as the tables together buffer more than they may.
    holds_all: bool,
}

/// The router's side of a worker.
struct Handle {
    mailbox: Mailbox,
    queued: usize,
    held: HashSet<i32>,
    halted: bool,
    /// It halted because its table belongs to another deployment.
    fenced: bool,
    /// It waits for a server that does not answer.
    waiting: bool,
}

impl<F, Si> Router<F>
where
    F: Fn(&Arc<str>) -> Result<TableSetup<Si>>,
    Si: Sink + Send + Sync + 'static,
{
    async fn on_event(&mut self, source: &mut impl Source, event: Event) -> Result<()> {
        match event {
            Event::Assigned { partitions, start } => self.assign(partitions, start).await,
            Event::Revoked { partitions, done } => self.revoke(partitions, done).await,
            Event::Records(records) => self.route(source, records).await,
            Event::Reached { partition, position } => {
                let message = Message::Reached { partition: partition.partition, position };
                self.send(&partition.topic, message).await;
            }
            Event::Partitions { topic, count } => {
                self.send(&topic, Message::Partitions(count)).await;
            }
            Event::Watermarks { partition, low: _, high } => {
                self.progress.watermarks(&partition, high);
            }
            Event::PartitionFailed { partition, error } => {
                self.send(&partition.topic, Message::Halt(error)).await;
            }
            Event::Waiting(waiting) => self.progress.source_waiting(waiting),
            Event::Missing(topics) => self.progress.missing(topics),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// The tables, not the consumer group, know where to start.
    async fn assign(
        &mut self,
        partitions: Vec<TopicPartition>,
        start: oneshot::Sender<HashMap<TopicPartition, Start>>,
    ) {
        let mut answers = Vec::new();
        for (topic, numbers) in by_topic(&partitions) {
            let (reply, answer) = oneshot::channel();
            if let Err(error) = self.ensure_worker(&topic) {
                // What is read for a table that halts is dropped.
                tracing::error!(topic = &*topic, error = error.report(), "the table halts");
                self.progress.halted(&topic, error.report());
                reply.send(numbers.into_iter().map(|p| (p, Start::Beginning)).collect()).ok();
            } else {
                self.send(&topic, Message::Assigned { partitions: numbers, start: reply }).await;
            }
            answers.push((topic, answer));
        }
        self.progress.assigned(&partitions);
        self.replies.spawn(async move {
            let mut starts = HashMap::new();
            for (topic, answer) in answers {
                for (partition, at) in answer.await.unwrap_or_default() {
                    starts.insert(TopicPartition { topic: Arc::clone(&topic), partition }, at);
                }
            }
            start.send(starts).ok();
        });
    }

    async fn revoke(&mut self, partitions: Vec<TopicPartition>, done: oneshot::Sender<()>) {
        let mut answers = Vec::new();
        for (topic, numbers) in by_topic(&partitions) {
            if let Some(worker) = self.workers.get_mut(&topic) {
                worker.held.retain(|held| !numbers.contains(held));
            }
            let (reply, answer) = oneshot::channel();
            self.send(&topic, Message::Revoked { partitions: numbers, done: reply }).await;
            answers.push(answer);
        }
        self.progress.revoked(&partitions);
        self.replies.spawn(async move {
            for answer in answers {
                answer.await.ok();
            }
            done.send(()).ok();
        });
    }

    async fn route(&mut self, source: &mut impl Source, records: Records) {
        let (topic, partition) = (Arc::clone(records.topic()), records.partition());
        let Some(worker) = self.workers.get_mut(&topic) else {
            source.hold(&TopicPartition { topic, partition }, true);
            return;
        };
        metrics::records_received(&topic, records.len());
        worker.queued += 1;
        self.policy.queue(records.bytes());
        let over = self.policy.is_over_budget();
        let behind = worker.queued >= HOLD_AT || over;
        if (behind || worker.halted) && worker.held.insert(partition) {
            source.hold(&TopicPartition { topic: Arc::clone(&topic), partition }, true);
        }
        self.send(&topic, Message::Records(records)).await;
        if over {
            self.hold_all(source);
        }
    }

    /// Reads nothing more of any partition: else each of them would bring a chunk before it is held.
    fn hold_all(&mut self, source: &mut impl Source) {
        if std::mem::replace(&mut self.holds_all, true) {
            return;
        }
        for id in self.progress.partitions().keys() {
            if let Some(worker) = self.workers.get_mut(&id.topic)
                && worker.held.insert(id.partition)
            {
                source.hold(id, true);
            }
        }
    }

    fn on_report(&mut self, source: &mut impl Source, report: Report) {
        match report {
            Report::Handled { topic, skipped } => {
                self.progress.skipped(&topic, &skipped);
                if let Some(worker) = self.workers.get_mut(&topic) {
                    worker.queued = worker.queued.saturating_sub(1);
                }
            }
            Report::Reached { topic, partition, position, settled } => {
                self.progress.taken(&topic, partition, position, settled);
            }
            Report::Committed { topic, committed, summary } => {
                source.acknowledge(&topic, &committed);
                self.progress.committed(&topic, &committed, &summary);
            }
            Report::PassedOver { topic, records } => self.progress.passed_over(&topic, records),
            Report::Waiting { topic, reason } => {
                if let Some(worker) = self.workers.get_mut(&topic) {
                    worker.waiting = reason.is_some();
                }
                self.progress.waiting(&topic, reason);
            }
            Report::RolledBack { topic, partitions } => {
                let of_topic = |partition| TopicPartition { topic: Arc::clone(&topic), partition };
                source.read_again(partitions.into_iter().map(of_topic).collect());
            }
            Report::Halted { topic, error, fenced } => {
                self.progress.halted(&topic, error);
                if let Some(worker) = self.workers.get_mut(&topic) {
                    worker.halted = true;
                    worker.fenced = fenced;
                }
            }
        }
        self.release(source);
    }

    /// True when there are tables and all of them belong to another deployment.
    fn is_fenced(&self) -> bool {
        !self.workers.is_empty() && self.workers.values().all(|worker| worker.fenced)
    }

    /// Reads on where workers have caught up and the budget allows it.
    fn release(&mut self, source: &mut impl Source) {
        if self.policy.is_over_budget() {
            return;
        }
        self.holds_all = false;
        for (topic, worker) in &mut self.workers {
            if worker.halted || worker.queued > RELEASE_AT {
                continue;
            }
            for partition in worker.held.drain() {
                source.hold(&TopicPartition { topic: Arc::clone(topic), partition }, false);
            }
        }
    }

    fn ensure_worker(&mut self, topic: &Arc<str>) -> Result<()> {
        if self.workers.contains_key(topic) {
            return Ok(());
        }
        let setup = (self.open)(topic)?;
        self.progress.opened(topic, &setup.name);
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let worker = Worker::new(
            Arc::clone(topic),
            setup,
            self.policy.clone(),
            messages,
            self.reports.clone(),
        );
        self.tasks.spawn(worker.run());
        let handle = Handle {
            mailbox,
            queued: 0,
            held: HashSet::new(),
            halted: false,
            fenced: false,
            waiting: false,
        };
        self.workers.insert(Arc::clone(topic), handle);
        Ok(())
    }

    async fn send(&self, topic: &Arc<str>, message: Message) {
        if let Some(worker) = self.workers.get(topic) {
            // A worker ends only when its mailbox is dropped, or by a bug that the drain reports.
            worker.mailbox.send(message).await.ok();
        }
    }

    fn on_ended(&mut self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            tracing::error!(error = %error, "a table's worker ended by a bug");
            self.progress.incomplete();
        }
    }

    async fn abandon(&mut self) {
        tracing::warn!("not every table could commit in time; what is left is read again");
        self.progress.incomplete();
        self.tasks.shutdown().await;
    }

    /// Lets every worker commit what it has, within a bounded time from when the process was `told` to end.
    async fn drain(
        &mut self,
        source: &mut impl Source,
        inbox: &mut mpsc::Receiver<Report>,
        mut told: Option<Instant>,
        stop: &CancellationToken,
    ) {
        for worker in self.workers.values() {
            let mailbox = worker.mailbox.clone();
            self.replies.spawn(async move {
                mailbox.send(Message::Finish).await.ok();
            });
        }
        loop {
            self.progress.beat();
            if stop.is_cancelled() {
                told.get_or_insert_with(Instant::now);
            }
            if told.is_some_and(|told| self.is_late(told.elapsed())) {
                self.abandon().await;
                break;
            }
            tokio::select! {
                biased;
                Some(report) = inbox.recv() => self.on_report(source, report),
                ended = self.tasks.join_next() => match ended {
                    None => break,
                    Some(ended) => self.on_ended(ended),
                },
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
        }
        while let Ok(report) = inbox.try_recv() {
            self.on_report(source, report);
        }
    }

    /// True when the last commits are not waited for any longer.
    fn is_late(&self, since: Duration) -> bool {
        let at_work = self.workers.values().filter(|worker| !worker.mailbox.is_closed());
        let limit = if at_work.clone().all(|worker| worker.waiting) { UNANSWERED } else { DRAIN };
        since >= limit && at_work.count() > 0
    }
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(Arc::clone(&partition.topic)).or_default().push(partition.partition);
    }
    topics
}
