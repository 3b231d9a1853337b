//! The reading thread: one loop over the group's queue, the partitions' queues and what the pipeline asks.

mod absent;
mod failing;
mod name;
mod offers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use self::name::Nameless;
use super::KafkaOptions;
use super::brokers::Brokers;
use super::calls::{self, Watermarks};
use super::client::Client;
use super::control::Control;
use super::group::{Rebalanced, Told};
use super::missing::Missing;
use super::partition::Partition;
use super::plan::Plan;
use super::trouble::{Trouble, broken, made_anew, out_of_range};
use super::unowned::{self, Unowned};
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::metrics::{self, Rebalance};
use crate::position::TopicPartition;
use crate::source::{Event, Start};

/// Partitions that memory is divided for before the brokers were asked.
const PARTITIONS_ASSUMED: usize = 16;
/// How long the brokers may take to list their topics at the start.
const METADATA_WAIT: Duration = Duration::from_secs(3);
/// Offset commits are sent no more often.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);
/// Partitions without a start are offered again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Partition queues are polled this often though librdkafka did not say that there is something.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a rebalance the statistics may tell of the time before it for so long.
const ENDS_ARE_OLD_FOR: Duration = Duration::from_secs(3);

/// Partitions that were offered to the pipeline and have no start yet.
struct Offer {
    partitions: Vec<TopicPartition>,
    state: OfferState,
}

enum OfferState {
    Open(oneshot::Receiver<HashMap<TopicPartition, Start>>),
    Again(Instant),
}

/// Partitions that are taken away once `done`, or at the deadline.
struct Leaving {
    assigned: Vec<TopicPartition>,
    done: oneshot::Receiver<()>,
    deadline: Instant,
}

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

/// The thread's state.
pub(super) struct Reader {
    options: KafkaOptions,
    control: Arc<Control>,
    events: mpsc::Sender<Event>,
    client: Client,
    plan: Plan,
    watermarks_due: Instant,
    /// Ends told by the statistics are ignored until then.
    ends_from: Instant,
    /// The numbers of topics' partitions that were handed over.
    counts: HashMap<Arc<str>, i32>,
    partitions: Vec<Partition>,
    /// Where the next round over the partitions begins, so that none starves.
    turn: usize,
    looked: Instant,
    offers: Vec<Offer>,
    leaving: Vec<Leaving>,
    outbox: VecDeque<Event>,
    acknowledged: Instant,
    /// The client is to be made anew for so many partitions, once none is assigned.
    redivide: Option<usize>,
    unowned: Unowned,
    brokers: Brokers,
    missing: Missing,
    /// Fenced: waits for its name.
    nameless: Option<Nameless>,
    logged: HashMap<String, (Instant, u32)>,
    failed: bool,
}

impl Reader {
    /// Makes the client; what is wrong with its configuration is told now.
    pub(super) fn open(
        options: KafkaOptions,
        control: Arc<Control>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self> {
        let plan = Plan::new(options.memory, PARTITIONS_ASSUMED);
        let client = Client::new(&options, &control, &plan)?;
        let now = Instant::now();
        let unowned = Unowned::new(&options, now);
        let brokers = Brokers::new(options.connection.brokers());
        let missing = Missing::new(&options, now);
        Ok(Self {
            options,
            control,
            events,
            client,
            plan,
            watermarks_due: now,
            ends_from: now,
            counts: HashMap::new(),
            partitions: Vec::new(),
            turn: 0,
            looked: now,
            offers: Vec::new(),
            leaving: Vec::new(),
            outbox: VecDeque::new(),
            acknowledged: now,
            redivide: None,
            unowned,
            brokers,
            missing,
            nameless: None,
            logged: HashMap::new(),
            failed: false,
        })
    }

    /// The thread's life.
    pub(super) fn run(mut self) {
        self.control.serve_from(thread::current());
        if let Err(error) = self.fit_plan().and_then(|()| self.subscribe()) {
            self.fail(error);
        }
        while self.step() == Flow::Go {}
        self.close();
    }

    fn subscribe(&self) -> Result<()> {
        self.client.consumer.subscribe(&self.options.topics.subscription()).map_err(|error| {
            Error::invalid(format!(
                "cannot subscribe to the topics of group {}",
                self.options.group
            ))
            .because(error)
        })
    }

    /// Divides the memory by the partitions that there are, if they are many. Brokers that do not answer are not
    /// waited for: the division is looked at again at each assignment.
    fn fit_plan(&mut self) -> Result<()> {
        let Ok(metadata) = self.client.consumer.fetch_metadata(None, METADATA_WAIT) else {
            return Ok(());
        };
        let topics = metadata.topics().iter().filter(|t| self.options.topics.matches(t.name()));
        let partitions = topics.map(|topic| topic.partitions().len()).sum();
        if self.plan.is_outgrown_by(partitions) { self.divide(partitions) } else { Ok(()) }
    }

    /// Makes the client anew, with memory for `partitions`. No partition may be assigned.
    fn divide(&mut self, partitions: usize) -> Result<()> {
        self.plan = Plan::new(self.options.memory, partitions);
        self.reconnect()?;
        info!(partitions, "reading memory was divided anew");
        Ok(())
    }

    /// Makes the client anew, which joins nothing yet. No partition may be assigned.
    fn reconnect(&mut self) -> Result<()> {
        let client = Client::new(&self.options, &self.control, &self.plan)?;
        std::mem::replace(&mut self.client, client).discard(self.options.close_wait);
        Ok(())
    }

    /// One round; short unless there is nothing to do.
    fn step(&mut self) -> Flow {
        let now = Instant::now();
        if self.control.is_closing() || self.events.is_closed() {
            return Flow::Stop;
        }
        self.serve_group(now);
        self.serve_read_again();
        self.serve_offers(now);
        self.serve_leaving(now);
        self.serve_redivide();
        self.serve_nameless(now);
        self.serve_unowned(now);
        self.serve_missing(now);
        self.serve_watermarks(now);
        self.acknowledge(now);
        let mut busy = self.send();
        if self.failed {
            return if self.outbox.is_empty() { Flow::Stop } else { self.rest(false) };
        }
        if self.outbox.is_empty() {
            busy |= self.read(now);
            busy |= self.send();
        }
        self.rest(busy)
    }

    /// Waits for a wake-up: by librdkafka, by the pipeline, or by the clock for what has neither.
    fn rest(&self, busy: bool) -> Flow {
        if !busy {
            let waiting = !self.offers.is_empty() || !self.leaving.is_empty();
            let nap = if waiting || !self.outbox.is_empty() { 5 } else { 50 };
            thread::park_timeout(Duration::from_millis(nap));
        }
        Flow::Go
    }

    /// Serves the group's own queue: rebalances, errors, statistics.
    fn serve_group(&mut self, now: Instant) {
        let consumer = Arc::clone(&self.client.consumer);
        for _ in 0..8 {
            match consumer.poll(Duration::ZERO) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.trouble(&error, &consumer.context().reason(), now),
                Some(Ok(message)) => {
                    let topic = message.topic();
                    self.fail(Error::internal(format!(
                        "a record of {topic}[{}] came outside its partition's queue",
                        message.partition()
                    )));
                }
            }
        }
        // Rebalances first: librdkafka tells of one before it tells the statistics of the time after.
        for step in consumer.context().rebalances() {
            self.distrust_ends(now);
            self.unowned.rebalanced(now);
            match step {
                Rebalanced::Assigned(partitions) => self.assigned(partitions),
                Rebalanced::Revoked { partitions, lost } => self.revoked(&partitions, lost, now),
            }
        }
        let told = consumer.context().told();
        self.tell_counts(told.as_ref());
        if let Some(told) = &told {
            self.note_brokers(told.answering, now);
        }
        let ends = told.filter(|_| self.ends_from <= now).map(|told| told.ends);
        for partition in self.partitions.iter_mut().filter(|_| self.leaving.is_empty()) {
            let id = (partition.id.topic.to_string(), partition.id.partition);
            if let Some(end) = ends.as_ref().and_then(|ends| ends.get(&id)) {
                self.outbox.extend(partition.note_end(*end));
            }
        }
    }

    /// Hands over how many partitions topics have that are read, where that is new.
    fn tell_counts(&mut self, told: Option<&Told>) {
        let Some(told) = told else { return };
        for topic in self.partitions.iter().map(|partition| &partition.id.topic) {
            let Some(count) = told.partitions.get(&**topic).copied() else { continue };
            if self.counts.get(topic).is_none_or(|known| *known < count) {
                self.counts.insert(Arc::clone(topic), count);
                let topic = Arc::clone(topic);
                self.outbox.push_back(Event::Partitions { topic, count });
            }
        }
    }

    fn distrust_ends(&mut self, now: Instant) {
        self.ends_from = now + ENDS_ARE_OLD_FOR;
        self.partitions.iter_mut().for_each(Partition::forget_end);
    }

    /// The group gave partitions: takes them, and asks where to start before any is read.
    fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        // This completes the rebalance. The partitions themselves are added when their start is known.
        if let Err(error) = self.client.consumer.incremental_assign(&TopicPartitionList::new()) {
            warn!(%error, "an assignment could not be completed");
        }
        if partitions.is_empty() {
            return;
        }
        info!(partitions = partitions.len(), "partitions assigned");
        metrics::rebalanced(Rebalance::Assigned);
        partitions.iter().for_each(|id| self.missing.want(&id.topic));
        let offered = self.offers.iter().map(|offer| offer.partitions.len()).sum::<usize>();
        let total = self.partitions.len() + offered + partitions.len();
        if self.plan.is_outgrown_by(total) {
            self.client.consumer.unsubscribe();
            self.redivide = Some(total);
        } else {
            self.offer(partitions);
        }
    }

    /// Joins the group again with the memory divided anew, once everything was given back.
    fn serve_redivide(&mut self) {
        if !self.partitions.is_empty() || !self.leaving.is_empty() {
            return;
        }
        if let Some(partitions) = self.redivide.take()
            && let Err(error) = self.divide(partitions).and_then(|()| self.subscribe())
        {
            self.fail(error);
        }
    }

    /// The group takes partitions away: they are no longer read from here on, and given back once the pipeline has
    /// ended what it does with them.
    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool, now: Instant) {
        for offer in &mut self.offers {
            offer.partitions.retain(|id| !partitions.contains(id));
        }
        self.offers.retain(|offer| !offer.partitions.is_empty());
        let assigned = self.take_out(partitions);
        if lost {
            // Of them nothing can be acknowledged any more: an attempt would only fence this member.
            drop(self.control.acknowledged_of(partitions));
        }
        let (answer, done) = oneshot::channel();
        let wait =
            if lost || partitions.is_empty() { Duration::ZERO } else { self.options.revoke_wait };
        if !partitions.is_empty() {
            info!(partitions = partitions.len(), lost, "partitions revoked");
            metrics::rebalanced(Rebalance::Revoked);
            let partitions = partitions.to_vec();
            self.outbox.push_back(Event::Revoked { partitions, done: answer });
        }
        self.leaving.push(Leaving { assigned, done, deadline: now + wait });
    }

    /// Partitions that are read no longer, of those named; what waits of them to be handed over is dropped.
    fn take_out(&mut self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        self.outbox.retain(|event| match event {
            Event::Records(records) => !partitions
                .iter()
                .any(|id| id.partition == records.partition() && id.topic == *records.topic()),
            Event::Reached { partition, .. } | Event::Watermarks { partition, .. } => {
                !partitions.contains(partition)
            }
            _ => true,
        });
        let named = |partition: &mut Partition| partitions.contains(&partition.id);
        self.partitions.extract_if(.., named).map(|partition| partition.id).collect()
    }

    /// Gives partitions back that nothing more will be committed for.
    fn serve_leaving(&mut self, now: Instant) {
        for mut leaving in std::mem::take(&mut self.leaving) {
            let late = leaving.deadline <= now;
            if !late && leaving.done.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                self.leaving.push(leaving);
                continue;
            }
            // Sent before the partitions are given back, and not waited for: the next owner asks the tables.
            let offsets = self.control.acknowledged_of(&leaving.assigned);
            let list = calls::list_at(offsets.iter().map(|(id, next)| (id, Offset::Offset(*next))));
            if !offsets.is_empty()
                && let Err(error) =
                    list.and_then(|list| self.client.consumer.commit(&list, CommitMode::Async))
            {
                debug!(%error, "offsets not acknowledged; the tables know them");
            }
            let list = calls::list_at(leaving.assigned.iter().map(|id| (id, Offset::Invalid)));
            if let Err(error) =
                list.and_then(|list| self.client.consumer.incremental_unassign(&list))
            {
                warn!(%error, "partitions could not be given back");
            }
            self.distrust_ends(now);
        }
    }

    /// Asks for watermarks and hands them over; tells failures that waited for them.
    fn serve_watermarks(&mut self, now: Instant) {
        let free = !self.client.watermarks.is_busy() && self.outbox.is_empty();
        if free && self.watermarks_due <= now && !self.partitions.is_empty() {
            let partitions = self.partitions.iter_mut();
            let asked = partitions.map(|partition| (partition.id.clone(), partition.ask()));
            self.client.watermarks.ask(asked.collect());
            self.watermarks_due = now + self.options.watermarks;
        }
        let answer = self.client.watermarks.answer().unwrap_or_default();
        let known: HashMap<_, _> = answer.into_iter().map(|told| (told.id.clone(), told)).collect();
        for partition in self.partitions.iter_mut().filter(|_| !known.is_empty()) {
            let Some(told) = known.get(&partition.id) else { continue };
            let &Watermarks { low, high, is_another, topic_id, .. } = told;
            let id = partition.id.clone();
            self.outbox.push_back(Event::Watermarks { partition: id.clone(), low, high });
            if let Some(anew) = partition.told(is_another, topic_id) {
                let error = made_anew(&id, partition.at(), anew);
                self.outbox.extend(partition.end(error));
            } else if let Some(stored) =
                partition.confirmed().filter(|at| (low..=high).contains(at))
            {
                // Whoever committed it may have ended before Kafka was told, and no record may come for long.
                self.control.acknowledge_again(id, stored);
            }
        }
        for partition in self.partitions.iter_mut().filter(|p| p.is_failing()) {
            let watermarks = known.get(&partition.id).map(|told| (told.low, told.high));
            if let Some(reason) = partition.failure_due(watermarks.is_some(), now) {
                let error = out_of_range(&partition.id, partition.at(), watermarks, &reason);
                let partition = partition.id.clone();
                self.outbox.push_back(Event::PartitionFailed { partition, error });
            }
        }
    }

    /// Looks for partitions that nobody has, and makes the group divide them again.
    fn serve_unowned(&mut self, now: Instant) {
        let Some(helper) = &mut self.client.standing else { return };
        let again = helper.answer().is_some_and(|standing| self.unowned.told(standing, now));
        if self.unowned.is_due(now) {
            helper.ask(());
        }
        if again {
            unowned::join_for_a_moment(&self.options, &self.plan);
        }
    }

    /// Commits to Kafka what was acknowledged since the last time.
    fn acknowledge(&mut self, now: Instant) {
        if now.duration_since(self.acknowledged) >= ACKNOWLEDGE_EVERY {
            self.acknowledged = now;
            self.commit();
        }
    }

    /// Commits to Kafka what was acknowledged, and again what was not taken the last time.
    fn commit(&mut self) {
        for (id, next) in self.client.commits.answer().unwrap_or_default() {
            self.control.acknowledge_again(id, next);
        }
        if !self.client.commits.is_busy() {
            let owned = self.partitions.iter().map(|partition| &partition.id);
            let leaving = self.leaving.iter().flat_map(|leaving| &leaving.assigned);
            let offsets = self.control.acknowledged(&owned.chain(leaving).collect());
            if !offsets.is_empty() {
                failpoint::reach(Point::K8);
                self.client.commits.ask(offsets);
            }
        }
    }

    /// Hands over what waits, as far as there is room. True when something went.
    fn send(&mut self) -> bool {
        let mut sent = false;
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => sent = true,
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    break;
                }
                Err(TrySendError::Closed(_)) => break,
            }
        }
        sent
    }

    /// Gives every partition that is not held a turn, until the channel is full.
    fn read(&mut self, now: Instant) -> bool {
        let any = now.duration_since(self.looked) >= LOOK_EVERY;
        if any {
            self.looked = now;
        }
        let consumer = Arc::clone(&self.client.consumer);
        let count = self.partitions.len();
        let mut busy = false;
        for _ in 0..count {
            self.turn = (self.turn + 1) % count;
            let Some(partition) = self.partitions.get_mut(self.turn) else { break };
            if !partition.wants_turn(any, now) || self.control.is_held(&partition.id) {
                continue;
            }
            let turn = partition.turn(consumer.context(), self.plan.chunk);
            busy |= !turn.events.is_empty();
            self.outbox.extend(turn.events);
            match turn.trouble {
                None => {}
                Some(Trouble::Passing(error, reason)) => self.trouble(&error, &reason, now),
                Some(Trouble::OutOfRange(reason)) => {
                    partition.fail(reason, now + calls::WATERMARKS_TIMEOUT);
                    self.watermarks_due = now;
                }
                Some(Trouble::Broken(code, reason)) => {
                    let error = broken(&partition.id, code, &reason);
                    self.outbox.extend(partition.end(error));
                }
            }
            self.send();
            if !self.outbox.is_empty() {
                break;
            }
        }
        busy
    }

    /// Leaves the group, unless it is a static member: last offsets, partitions back, then the client, all within the time
    /// for closing.
    fn close(mut self) {
        let begin = Instant::now();
        let wait = self.options.close_wait;
        let (offsets_until, until) = (begin + wait.mul_f32(0.4), begin + wait.mul_f32(0.8));
        self.offers.clear();
        loop {
            self.commit();
            if !self.client.commits.is_busy() || !self.step_closing(offsets_until) {
                break;
            }
        }
        if self.options.connection.member_name().is_none() {
            self.client.consumer.unsubscribe();
            while !self.partitions.is_empty() && self.step_closing(until) {}
        }
        self.partitions.clear();
        self.client.discard((begin + wait.mul_f32(0.9)).saturating_duration_since(Instant::now()));
    }

    /// Serves the group though nobody takes events any more; false when the time is over.
    fn step_closing(&mut self, until: Instant) -> bool {
        let now = Instant::now();
        self.serve_group(now);
        self.outbox.clear();
        for leaving in &mut self.leaving {
            leaving.deadline = now;
        }
        self.serve_leaving(now);
        thread::park_timeout(Duration::from_millis(5));
        now < until
    }
}
