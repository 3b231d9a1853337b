//! A source in memory that follows a script, for tests of what drives sources.
//!
//! It keeps the promises of Kafka and uses its freedoms: partitions go and come back at any moment, what was delivered is
//! delivered again from where the tables say, chunks have any size, offsets have gaps, a held partition is quiet.
//! After the script everything left is delivered, so every run reaches the end of every log.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Event, Source, Start};
use crate::error::Error;
use crate::position::{Position, TopicId, TopicPartition};
use crate::record::Records;
use crate::sink::Committed;

/// Records in a chunk once the script is over.
const CHUNK: usize = 16;

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRecord {
    /// Its offset; greater than the one before.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Name and value pairs.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What a partition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    records: Vec<LoggedRecord>,
    low: i64,
    high: i64,
    topic_id: Option<TopicId>,
}

impl Log {
    /// A log of `records`, in the order of their offsets, that ends `gap` offsets after the last one.
    pub fn new(records: Vec<LoggedRecord>, gap: i64) -> Self {
        let ordered = records.iter().zip(records.iter().skip(1)).all(|(a, b)| a.offset < b.offset);
        assert!(ordered && gap >= 0, "a log's offsets grow");
        let low = records.first().map_or(0, |record| record.offset);
        let high = records.last().map_or(0, |record| record.offset + 1) + gap;
        Self { records, low, high, topic_id: None }
    }

    /// The same in a topic with this id.
    pub fn of_topic(self, topic_id: Option<TopicId>) -> Self {
        Self { topic_id, ..self }
    }

    /// The position after everything, past gaps.
    pub fn high(&self) -> i64 {
        self.high
    }

    /// The records, in order.
    pub fn records(&self) -> &[LoggedRecord] {
        &self.records
    }
}

/// The logs of all partitions. Sources of one cluster share them.
pub type Logs = Arc<BTreeMap<TopicPartition, Log>>;

/// What happens next. A step that cannot happen, as a delivery of a partition that is held, is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Partitions are gained.
    Assign(Vec<TopicPartition>),
    /// Partitions are lost.
    Revoke(Vec<TopicPartition>),
    /// The next records of a partition come, at most so many.
    Deliver(TopicPartition, usize),
}

/// What was acknowledged to a [`ScriptedSource`] and its successors.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(Arc<Mutex<BTreeMap<TopicPartition, i64>>>);

impl Acknowledged {
    /// The next offset of each partition that was acknowledged.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes `position` of `topic`. What goes backwards or past the log's end is a bug of the caller.
    fn note(&self, logs: &Logs, topic: &str, position: &Position) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, log) in logs.iter().filter(|(id, _)| *id.topic == *topic) {
            let Some(next) = position.get(id.partition) else { continue };
            assert!(
                next <= log.high,
                "{id}: {next} was acknowledged, the log ends at {}",
                log.high
            );
            let before = noted.insert(id.clone(), next);
            assert!(
                before.is_none_or(|before| before <= next),
                "{id}: {next} was acknowledged after {before:?}"
            );
        }
    }
}

/// Where a partition stands.
#[derive(Debug)]
enum State {
    /// Somebody else's.
    Away,
    /// Offered, without a start so far.
    Offered,
    /// Read up to this position.
    Reading { next: i64, ended: bool },
    /// Started where the log has no offset.
    Failed,
}

/// Partitions that were offered, and the answer.
type Offer = (Vec<TopicPartition>, oneshot::Receiver<HashMap<TopicPartition, Start>>);

/// A source that follows a script.
#[derive(Debug)]
pub struct ScriptedSource {
    logs: Logs,
    script: VecDeque<Step>,
    states: BTreeMap<TopicPartition, State>,
    offers: Vec<Offer>,
    /// Partitions that were taken away, until the pipeline is done with them.
    leaving: Vec<(Vec<TopicPartition>, oneshot::Receiver<()>)>,
    held: HashSet<TopicPartition>,
    ready: VecDeque<Event>,
    acknowledged: Acknowledged,
}

impl ScriptedSource {
    /// A source of `logs` that does `script` and then delivers what is left. `acknowledged` outlives it, so that a
    /// restarted pipeline is held to what was acknowledged before.
    pub fn new(
        logs: Logs,
        script: impl IntoIterator<Item = Step>,
        acknowledged: Acknowledged,
    ) -> Self {
        let states = logs.keys().map(|id| (id.clone(), State::Away)).collect();
        Self {
            logs,
            script: script.into_iter().collect(),
            states,
            offers: Vec::new(),
            leaving: Vec::new(),
            held: HashSet::new(),
            ready: VecDeque::new(),
            acknowledged,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Assign(partitions) => {
                self.wait_for_leaving(&partitions).await;
                self.assign(partitions);
            }
            Step::Revoke(partitions) => self.revoke(&partitions),
            Step::Deliver(partition, count) => {
                self.settle().await;
                self.deliver(&partition, count);
            }
        }
    }

    /// Waits until the pipeline is done with what was taken away before; a partition has one owner.
    async fn wait_for_leaving(&mut self, partitions: &[TopicPartition]) {
        let ours = |leaving: &[TopicPartition]| leaving.iter().any(|id| partitions.contains(id));
        while let Some(at) = self.leaving.iter().position(|(leaving, _)| ours(leaving)) {
            if let Some((_, done)) = self.leaving.get_mut(at) {
                // An answer and a dropped channel both say that nothing more is committed.
                done.await.unwrap_or_default();
            }
            self.leaving.remove(at);
        }
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) {
        let mut gained = Vec::new();
        for id in partitions {
            if let Some(state @ State::Away) = self.states.get_mut(&id) {
                *state = State::Offered;
                gained.push(id);
            }
        }
        self.offer(gained);
    }

    fn offer(&mut self, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        let (start, answer) = oneshot::channel();
        self.ready.push_back(Event::Assigned { partitions: partitions.clone(), start });
        for topic in partitions.iter().map(|id| Arc::clone(&id.topic)).collect::<BTreeSet<_>>() {
            let own = self.logs.keys().filter(|id| id.topic == topic).map(|id| id.partition);
            let count = own.max().map_or(0, |last| last + 1);
            self.ready.push_back(Event::Partitions { topic, count });
        }
        self.offers.push((partitions, answer));
    }

    fn revoke(&mut self, partitions: &[TopicPartition]) {
        let (answer, done) = oneshot::channel();
        let mut lost = Vec::new();
        for id in partitions {
            match self.states.get_mut(id) {
                None | Some(State::Away) => {}
                Some(state) => {
                    *state = State::Away;
                    lost.push(id.clone());
                }
            }
        }
        self.held.retain(|id| !lost.contains(id));
        for (offered, _) in &mut self.offers {
            offered.retain(|id| !lost.contains(id));
        }
        if !lost.is_empty() {
            self.leaving.push((lost.clone(), done));
            self.ready.push_back(Event::Revoked { partitions: lost, done: answer });
        }
    }

    /// Waits for the answers to all offers; what got none is offered again.
    async fn settle(&mut self) {
        while let Some((partitions, answer)) = self.offers.last_mut() {
            let starts = answer.await.unwrap_or_default();
            let partitions = std::mem::take(partitions);
            self.offers.pop();
            let (given, left): (Vec<_>, Vec<_>) =
                partitions.into_iter().partition(|id| starts.contains_key(id));
            for id in given {
                self.start(&id, starts.get(&id).copied());
            }
            if !left.is_empty() {
                self.offer(left);
                tokio::time::sleep(Duration::from_millis(1)).await;
                return;
            }
        }
    }

    fn start(&mut self, id: &TopicPartition, start: Option<Start>) {
        let (Some(log), Some(start)) = (self.logs.get(id), start) else { return };
        let (low, high) = (log.low, log.high);
        let next = match start {
            Start::Beginning => low,
            Start::At { position, .. } => position,
        };
        self.ready.push_back(Event::Watermarks { partition: id.clone(), low, high });
        let is_anew = match (start, log.records.first()) {
            (Start::At { topic_id: Some(read), .. }, _) if log.topic_id.is_some() => {
                log.topic_id != Some(read)
            }
            (Start::At { position, newest_ms: Some(newest_ms), .. }, Some(first)) => {
                first.offset < position && first.timestamp_ms > Some(newest_ms)
            }
            _ => false,
        };
        let state = if (low.min(high)..=high).contains(&next) && !is_anew {
            State::Reading { next, ended: false }
        } else {
            let error = Error::data(format!("cannot read {id} from offset {next}"));
            self.ready.push_back(Event::PartitionFailed { partition: id.clone(), error });
            State::Failed
        };
        self.states.insert(id.clone(), state);
    }

    fn deliver(&mut self, id: &TopicPartition, count: usize) {
        let (Some(log), Some(State::Reading { next, ended })) =
            (self.logs.get(id), self.states.get_mut(id))
        else {
            return;
        };
        if *ended || self.held.contains(id) {
            return;
        }
        let chunk = Records::new(Arc::clone(&id.topic), id.partition, *next);
        let mut chunk = chunk.of_topic(log.topic_id);
        for record in log.records.iter().filter(|record| record.offset >= *next).take(count) {
            let headers =
                record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            chunk.push(record.offset, record.timestamp_ms, key, value, headers);
        }
        *next = chunk.next();
        if !chunk.is_empty() {
            self.ready.push_back(Event::Records(chunk));
        }
        if !log.records.iter().any(|record| record.offset >= *next) {
            *ended = true;
            *next = log.high;
            let reached = Event::Reached { partition: id.clone(), position: log.high };
            self.ready.push_back(reached);
        }
    }

    /// What happens after the script: every partition is assigned and read to its end.
    fn rest(&mut self) -> Vec<Step> {
        let away: Vec<_> = self.states.iter().filter(|(_, s)| matches!(s, State::Away)).collect();
        if !away.is_empty() {
            return vec![Step::Assign(away.into_iter().map(|(id, _)| id.clone()).collect())];
        }
        let readable = |id: &TopicPartition, state: &State| {
            let unread = matches!(state, State::Offered | State::Reading { ended: false, .. });
            unread && !self.held.contains(id)
        };
        let left = self.states.iter().filter(|(id, state)| readable(id, state));
        left.map(|(id, _)| Step::Deliver(id.clone(), CHUNK)).collect()
    }
}

impl Source for ScriptedSource {
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            // A step is forgotten only once it is done: the call may be cancelled while it waits.
            if let Some(step) = self.script.front().cloned() {
                self.step(step).await;
                self.script.pop_front();
                continue;
            }
            let rest = self.rest();
            if rest.is_empty() {
                return std::future::pending().await;
            }
            self.script.extend(rest);
        }
    }

    fn acknowledge(&mut self, topic: &str, committed: &Committed) {
        self.acknowledged.note(&self.logs, topic, committed.position());
    }

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        if held {
            self.held.insert(partition.clone());
        } else {
            self.held.remove(partition);
        }
    }

    fn read_again(&mut self, partitions: Vec<TopicPartition>) {
        let mut again = Vec::new();
        for id in partitions {
            if let Some(state @ (State::Reading { .. } | State::Failed)) = self.states.get_mut(&id)
            {
                *state = State::Offered;
                again.push(id);
            }
        }
        self.offer(again);
    }

    async fn close(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(partition: i32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition }
    }

    fn logs() -> Logs {
        let record = |offset: i64| LoggedRecord {
            offset,
            timestamp_ms: None,
            key: Some(offset.to_le_bytes().to_vec()),
            value: None,
            headers: Vec::new(),
        };
        let log = || Log::new((0..50).map(|n| record(n * 3 + 5)).collect(), 2);
        Arc::new(BTreeMap::from([(id(0), log()), (id(1), log())]))
    }

    /// Reads until both ends are reached; starts where `stored` says.
    async fn drain(
        source: &mut ScriptedSource,
        stored: &mut HashMap<TopicPartition, Start>,
    ) -> Vec<(i32, i64)> {
        let mut seen = Vec::new();
        let mut reached = HashSet::new();
        while reached.len() < 2 {
            match source.next().await {
                Event::Assigned { partitions, start } => {
                    let at =
                        |id: &TopicPartition| stored.get(id).copied().unwrap_or(Start::Beginning);
                    start.send(partitions.iter().map(|id| (id.clone(), at(id))).collect()).unwrap();
                }
                Event::Records(records) => {
                    seen.extend(records.iter().map(|r| (r.partition, r.offset)));
                    stored.insert(id(records.partition()), Start::at(records.next()));
                }
                Event::Reached { partition, position } => {
                    assert_eq!(position, 49 * 3 + 6 + 2);
                    reached.insert(partition);
                }
                Event::Revoked { done, .. } => done.send(()).unwrap(),
                Event::Watermarks { low, high, .. } => assert_eq!((low, high), (5, 155)),
                Event::Partitions { count, .. } => assert_eq!(count, 2),
                event => panic!("{event:?}"),
            }
        }
        seen
    }

    #[tokio::test]
    async fn everything_comes_once_whatever_the_script_when_the_position_is_kept() {
        let script = [
            Step::Deliver(id(0), 3),
            Step::Assign(vec![id(0)]),
            Step::Deliver(id(0), 3),
            Step::Assign(vec![id(0), id(1)]),
            Step::Deliver(id(1), 60),
            Step::Revoke(vec![id(0), id(1)]),
            Step::Revoke(vec![id(0)]),
            Step::Assign(vec![id(1)]),
        ];
        let mut source = ScriptedSource::new(logs(), script, Acknowledged::default());
        let seen = drain(&mut source, &mut HashMap::new()).await;
        for partition in 0..2 {
            let offsets: Vec<_> =
                seen.iter().filter(|(p, _)| *p == partition).map(|(_, o)| *o).collect();
            assert_eq!(offsets, (0..50).map(|n| n * 3 + 5).collect::<Vec<_>>());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_partition_is_quiet_and_an_offer_without_an_answer_comes_again() {
        let mut source = ScriptedSource::new(logs(), [], Acknowledged::default());
        let Event::Assigned { start, .. } = source.next().await else { panic!() };
        drop(start);
        let Event::Partitions { count: 2, .. } = source.next().await else { panic!() };
        let Event::Assigned { partitions, start } = source.next().await else { panic!() };
        source.hold(&id(0), true);
        start.send(partitions.into_iter().map(|id| (id, Start::Beginning)).collect()).unwrap();
        let mut partitions = HashSet::new();
        while let Ok(event) = tokio::time::timeout(Duration::from_secs(1), source.next()).await {
            if let Event::Records(records) = event {
                partitions.insert(records.partition());
            }
        }
        assert_eq!(partitions, HashSet::from([1]));
        source.hold(&id(0), false);
        assert!(matches!(source.next().await, Event::Records(_)));
    }

    #[tokio::test]
    async fn a_start_that_the_log_does_not_have_fails_the_partition() {
        let mut source = ScriptedSource::new(logs(), [], Acknowledged::default());
        let Event::Assigned { start, .. } = source.next().await else { panic!() };
        start.send(HashMap::from([(id(0), Start::at(4)), (id(1), Start::at(155))])).unwrap();
        let mut failed = Vec::new();
        let mut reached = Vec::new();
        while reached.is_empty() {
            match source.next().await {
                Event::PartitionFailed { partition, .. } => failed.push(partition),
                Event::Reached { partition, .. } => reached.push(partition),
                _ => {}
            }
        }
        assert_eq!((failed, reached), (vec![id(0)], vec![id(1)]));
    }

    #[test]
    #[should_panic(expected = "3 was acknowledged after Some(4)")]
    fn acknowledging_backwards_is_caught() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(&logs(), "t", &[(0, 4)].into_iter().collect());
        acknowledged.note(&logs(), "t", &[(0, 3)].into_iter().collect());
    }

    #[test]
    #[should_panic(expected = "156 was acknowledged")]
    fn acknowledging_past_the_end_is_caught() {
        Acknowledged::default().note(&logs(), "t", &[(0, 156)].into_iter().collect());
    }
}
