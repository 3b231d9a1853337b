//! A member of the group: the source that a pipeline reads.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_sink::error::Error;
use cdc_sink::position::{Position, TopicPartition};
use cdc_sink::record::Records;
use cdc_sink::sink::Committed;
use cdc_sink::source::scripted::Logs;
use cdc_sink::source::{Event, Source, Start};
use fastrand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::chance::chance;
use super::group::{Group, Order};
use super::process::Process;
use super::store::World;

/// How long a member that was stopped goes on with what it has before it hears of the group.
const DEAF: Duration = Duration::from_secs(2);
/// How often a member looks for news.
const TICK: Duration = Duration::from_millis(97);
/// Records of a chunk, at most.
const CHUNK: usize = 8;
/// Milliseconds between chunks, at most.
const PACE: u64 = 2500;

/// An acknowledgement: how much had changed in the store by then, and what was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Acknowledgement {
    pub(super) clock: usize,
    pub(super) topic: String,
    pub(super) position: Position,
}

/// What was acknowledged in a history.
pub(super) type Acknowledged = Arc<Mutex<Vec<Acknowledgement>>>;

/// Where a partition stands.
#[derive(Debug, Clone, Copy)]
enum State {
    Offered,
    Reading { next: i64, ended: bool },
    Failed,
}

type Starts = HashMap<TopicPartition, Start>;

/// The source of one process.
pub(super) struct Membership {
    world: Arc<World>,
    group: Arc<Group>,
    process: Arc<Process>,
    logs: Logs,
    rng: Rng,
    orders: mpsc::Receiver<Order>,
    states: BTreeMap<TopicPartition, State>,
    offers: Vec<(Vec<TopicPartition>, oneshot::Receiver<Starts>)>,
    held: HashSet<TopicPartition>,
    ready: VecDeque<Event>,
    next_delivery: Instant,
    acknowledged: Acknowledged,
}

impl Membership {
    pub(super) fn new(
        world: &Arc<World>,
        group: &Arc<Group>,
        process: &Arc<Process>,
        logs: &Logs,
        acknowledged: &Acknowledged,
    ) -> Self {
        Self {
            orders: group.join(process),
            rng: chance(world.seed, &["member", &process.name]),
            world: Arc::clone(world),
            group: Arc::clone(group),
            process: Arc::clone(process),
            logs: Arc::clone(logs),
            states: BTreeMap::new(),
            offers: Vec::new(),
            held: HashSet::new(),
            ready: VecDeque::new(),
            next_delivery: Instant::now(),
            acknowledged: Arc::clone(acknowledged),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Assign(partitions) => {
                self.states.extend(partitions.iter().map(|at| (at.clone(), State::Offered)));
                self.offer(partitions);
            }
            Order::Revoke(partitions, done) => self.forget(partitions, done),
            Order::Lost(partitions) => {
                let (done, _) = oneshot::channel();
                self.forget(partitions, done);
            }
        }
    }

    fn offer(&mut self, partitions: Vec<TopicPartition>) {
        let (start, answer) = oneshot::channel();
        self.ready.push_back(Event::Assigned { partitions: partitions.clone(), start });
        self.offers.push((partitions, answer));
    }

    fn forget(&mut self, partitions: Vec<TopicPartition>, done: oneshot::Sender<()>) {
        self.states.retain(|at, _| !partitions.contains(at));
        self.held.retain(|at| !partitions.contains(at));
        for (offered, _) in &mut self.offers {
            offered.retain(|at| !partitions.contains(at));
        }
        self.ready.push_back(Event::Revoked { partitions, done });
    }

    /// Takes the answers that have come; what got none is offered again.
    fn settle(&mut self) {
        let mut open = Vec::new();
        for (partitions, mut answer) in std::mem::take(&mut self.offers) {
            let starts = match answer.try_recv() {
                Ok(starts) => starts,
                Err(oneshot::error::TryRecvError::Empty) => {
                    open.push((partitions, answer));
                    continue;
                }
                Err(oneshot::error::TryRecvError::Closed) => Starts::new(),
            };
            let (given, left): (Vec<_>, Vec<_>) =
                partitions.into_iter().partition(|at| starts.contains_key(at));
            given.into_iter().for_each(|at| self.start(&at, starts[&at]));
            if !left.is_empty() {
                self.offer(left);
            }
        }
        self.offers.extend(open);
    }

    fn start(&mut self, at: &TopicPartition, start: Start) {
        let high = self.logs[at].high();
        let next = match start {
            Start::Beginning => 0,
            Start::At { position, .. } => position,
        };
        self.world.trace.say(format!("{}: reads {at} from {next}", self.process.name));
        let partition = at.clone();
        self.ready.push_back(Event::Watermarks { partition: partition.clone(), low: 0, high });
        let state = if next <= high {
            State::Reading { next, ended: false }
        } else {
            let error = Error::data(format!("cannot read {at} from offset {next}"));
            self.ready.push_back(Event::PartitionFailed { partition, error });
            State::Failed
        };
        self.states.insert(at.clone(), state);
    }

    /// Brings the next records of some partition.
    fn deliver(&mut self) {
        let readable = |(at, state): &(&TopicPartition, &State)| {
            matches!(state, State::Reading { ended: false, .. }) && !self.held.contains(*at)
        };
        let open: Vec<_> = self.states.iter().filter(readable).map(|(at, _)| at.clone()).collect();
        let Some(at) = self.rng.choice(open) else { return };
        let count = self.rng.usize(1..=CHUNK);
        let (log, Some(State::Reading { next, ended })) =
            (&self.logs[&at], self.states.get_mut(&at))
        else {
            return;
        };
        let mut chunk = Records::new(Arc::clone(&at.topic), at.partition, *next);
        for record in log.records().iter().filter(|record| record.offset >= *next).take(count) {
            let headers = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            chunk.push(record.offset, record.timestamp_ms, key, value, headers);
        }
        *next = chunk.next();
        if !chunk.is_empty() {
            self.ready.push_back(Event::Records(chunk));
        }
        if log.records().last().is_none_or(|record| record.offset < *next) {
            (*ended, *next) = (true, log.high());
            self.ready.push_back(Event::Reached { partition: at, position: log.high() });
        }
    }
}

impl Source for Membership {
    async fn next(&mut self) -> Event {
        loop {
            self.process.running().await;
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let now = Instant::now();
            let deaf = self.process.thawed_at().is_some_and(|thawed| now < thawed + DEAF);
            if !deaf && let Ok(order) = self.orders.try_recv() {
                self.obey(order);
                continue;
            }
            self.settle();
            if now >= self.next_delivery {
                self.next_delivery = now + Duration::from_millis(self.rng.u64(50..PACE));
                self.deliver();
            }
            if self.ready.is_empty() {
                sleep_until(self.next_delivery.min(now + TICK)).await;
            }
        }
    }

    fn acknowledge(&mut self, topic: &str, committed: &Committed) {
        self.acknowledged.lock().unwrap().push(Acknowledgement {
            clock: self.world.bucket.clock(),
            topic: topic.to_owned(),
            position: committed.position().clone(),
        });
    }

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        if held {
            self.held.insert(partition.clone());
        } else {
            self.held.remove(partition);
        }
    }

    fn read_again(&mut self, partitions: Vec<TopicPartition>) {
        self.world.counters.count("read again");
        let owned =
            |at: &TopicPartition| matches!(self.states.get(at), Some(State::Reading { .. }));
        let again: Vec<_> = partitions.into_iter().filter(owned).collect();
        self.states.extend(again.iter().map(|at| (at.clone(), State::Offered)));
        self.offer(again);
    }

    async fn close(self) {
        self.group.leave(&self.process.name);
    }
}
