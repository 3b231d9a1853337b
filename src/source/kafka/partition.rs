//! One assigned partition: its queue, and how far it was read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tracing::warn;

use super::calls::Known;
use super::control::Control;
use super::group::Group;
use super::trouble::{Anew, Trouble};
use crate::error::Error;
use crate::position::{TopicId, TopicPartition};
use crate::record::Records;
use crate::source::{Event, Start};

/// Records in one chunk at most.
const CHUNK_RECORDS: usize = 4096;

/// An assigned partition with its own queue.
pub(super) struct Partition {
    pub(super) id: TopicPartition,
    queue: PartitionQueue<Group>,
    /// Set by librdkafka's threads when the queue is no longer empty.
    ready: Arc<AtomicBool>,
    /// The table's position at the start, until the log is known to be the one that has it.
    stored: Option<i64>,
    /// The id of the topic that is read, by whomever it was read before.
    topic_id: Option<TopicId>,
    /// Kafka's timestamp of the newest record that was read, by whomever.
    newest_ms: Option<i64>,
    /// What was known of the log when it was last found to be the one that was read before.
    known: Option<Known>,
    /// The same as of the question that is open, and whether it is one after the log.
    asked: Option<(Option<Known>, bool)>,
    /// The position after what was delivered; none before the first record of a start at the beginning.
    next: Option<i64>,
    /// Reading waits for the first watermarks, but not past this.
    gate: Option<Instant>,
    /// The end was seen since the assignment, so that librdkafka's `eof_offset` is of this assignment.
    caught_up: bool,
    /// An end told by the statistics, not yet believed.
    end: Option<End>,
    /// The position after the last record that was delivered; `next` may be further, past a gap at the end.
    delivered: Option<i64>,
    reported: Option<i64>,
    failure: Failure,
}

/// An end of the log as the statistics tell it. Whether everything below was delivered they do not tell: in a rebalance
/// librdkafka drops what waits in the queue and fetches it again later. So the end is reached only when the queue was
/// seen empty and the statistics then tell the same end again, with no rebalance in between.
struct End {
    position: i64,
    queue_was_empty: bool,
}

/// Whether the partition can be read on.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    None,
    /// Not to be told before the watermarks are known, or the time is over.
    Pending(String, Instant),
    Told,
}

/// What a turn brought.
pub(super) struct Turn {
    pub(super) events: Vec<Event>,
    pub(super) trouble: Option<Trouble>,
}

impl Partition {
    /// Takes the partition's records out of the consumer's common queue; before it is assigned, so that none gets
    /// into that one. None when librdkafka does not know the partition.
    pub(super) fn split(
        consumer: &Arc<BaseConsumer<Group>>,
        control: &Arc<Control>,
        id: TopicPartition,
        start: Start,
        gate: Instant,
    ) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(&id.topic, id.partition)?;
        let ready = Arc::new(AtomicBool::new(true));
        let (flag, waker) = (Arc::clone(&ready), Arc::clone(control));
        queue.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            waker.wake();
        });
        let (next, known, topic_id) = match start {
            Start::At { position, newest_ms, topic_id } => {
                let known = newest_ms.map(|newest_ms| Known { position, newest_ms });
                (Some(position), known, topic_id)
            }
            Start::Beginning => (None, None, None),
        };
        Some(Self {
            id,
            queue,
            ready,
            next,
            gate: Some(gate),
            stored: next,
            topic_id,
            newest_ms: known.map(|known| known.newest_ms),
            known,
            asked: None,
            caught_up: false,
            end: None,
            delivered: next,
            reported: None,
            failure: Failure::None,
        })
    }

    /// What tells the log from another one, if that is to be asked: at the start, and once more was read. A topic that is
    /// deleted and made again meanwhile is read on by librdkafka as if it were the same.
    pub(super) fn ask(&mut self) -> Option<Known> {
        let read = self.delivered.zip(self.newest_ms);
        let now = read.map(|(position, newest_ms)| Known { position, newest_ms });
        let is_new = now.map(|now| now.position) != self.known.map(|known| known.position);
        let asks = self.known.filter(|_| self.gate.is_some() || is_new);
        self.asked = Some((now, asks.is_some()));
        asks
    }

    /// Watermarks were told, and `is_another` when that was asked: why reading must not go on, if it must not. Ids decide
    /// where both are known.
    pub(super) fn told(
        &mut self,
        is_another: Option<bool>,
        topic_id: Option<TopicId>,
    ) -> Option<Anew> {
        // An answer to what was asked before the partition was assigned says nothing.
        let (now, asked) = self.asked.take()?;
        let read = self.topic_id.zip(topic_id);
        match read {
            Some((read, found)) if read != found => return Some(Anew::Id { read, found }),
            None if is_another == Some(true) => return Some(Anew::Newer),
            _ => {}
        }
        self.topic_id = self.topic_id.or(topic_id);
        if !asked || is_another.is_some() || read.is_some() {
            self.known = now.or(self.known);
            self.gate = None;
        }
        None
    }

    /// Takes the position that the table had at the start, once, when the log is known to be the one that has it. None when
    /// something was read since.
    pub(super) fn confirmed(&mut self) -> Option<i64> {
        let stored = self.stored.take_if(|_| self.gate.is_none())?;
        (self.delivered == Some(stored)).then_some(stored)
    }

    /// Takes the end that the statistics tell; it is reached when they told it before.
    pub(super) fn note_end(&mut self, position: i64) -> Option<Event> {
        if !self.caught_up || self.reported.is_some_and(|reported| reported >= position) {
            return None;
        }
        match self.end.take() {
            Some(End { position: same, queue_was_empty: true }) if same == position => {
                self.reached(position)
            }
            _ => {
                self.end = Some(End { position, queue_was_empty: false });
                self.ready.store(true, Ordering::Release);
                None
            }
        }
    }

    /// The group rebalances: what the statistics told before says nothing any more.
    pub(super) fn forget_end(&mut self) {
        self.end = None;
    }

    /// Where reading goes on; none at the beginning.
    pub(super) fn at(&self) -> Option<i64> {
        self.next
    }

    /// Stops reading for good; the reason is told later, by [`Self::failure_due`].
    pub(super) fn fail(&mut self, reason: String, tell_at: Instant) {
        self.failure = Failure::Pending(reason, tell_at);
    }

    /// Stops reading for good and tells why, unless that was told before.
    pub(super) fn end(&mut self, error: Error) -> Option<Event> {
        let told = std::mem::replace(&mut self.failure, Failure::Told);
        let partition = self.id.clone();
        (told != Failure::Told).then_some(Event::PartitionFailed { partition, error })
    }

    /// True while a failure waits to be told.
    pub(super) fn is_failing(&self) -> bool {
        matches!(self.failure, Failure::Pending(..))
    }

    /// Takes the reason of a failure, once: when its time came, or at once when the watermarks are known.
    pub(super) fn failure_due(&mut self, watermarks_known: bool, now: Instant) -> Option<String> {
        match &self.failure {
            Failure::Pending(_, tell_at) if watermarks_known || *tell_at <= now => {
                match std::mem::replace(&mut self.failure, Failure::Told) {
                    Failure::Pending(reason, _) => Some(reason),
                    Failure::None | Failure::Told => None,
                }
            }
            _ => None,
        }
    }

    /// True when polling the queue may bring something. `any` polls without librdkafka's hint.
    pub(super) fn wants_turn(&mut self, any: bool, now: Instant) -> bool {
        if self.failure != Failure::None || self.gate.is_some_and(|until| now < until) {
            return false;
        }
        any || self.ready.load(Ordering::Acquire)
    }

    /// Reads the queue until it is empty or a chunk of `bytes` is full.
    pub(super) fn turn(&mut self, group: &Group, bytes: usize) -> Turn {
        self.ready.store(false, Ordering::Release);
        let mut events = Vec::new();
        let mut chunk: Option<Records> = None;
        let mut trouble = None;
        let full = |chunk: &Records| chunk.len() >= CHUNK_RECORDS || chunk.bytes() >= bytes;
        loop {
            if chunk.as_ref().is_some_and(full) {
                self.ready.store(true, Ordering::Release);
                break;
            }
            let mut newest_ms = None;
            let outcome = match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) if self.is_past_due(message.offset()) => {
                    let reason = format!("offset {} came after the end was told", message.offset());
                    trouble = Some(Trouble::Broken(RDKafkaErrorCode::BadMessage, reason));
                    break;
                }
                Some(Ok(message)) => {
                    let from = self.next.unwrap_or_else(|| message.offset());
                    let records = chunk.get_or_insert_with(|| {
                        Records::new(Arc::clone(&self.id.topic), self.id.partition, from)
                            .of_topic(self.topic_id)
                    });
                    newest_ms = message.timestamp().to_millis();
                    append(records, &message)
                }
                Some(Err(error)) => Err(error),
            };
            match outcome {
                Ok(true) => {
                    self.newest_ms = self.newest_ms.max(newest_ms);
                    self.next = chunk.as_ref().map(Records::next);
                    self.delivered = self.next;
                    self.end = None;
                }
                Ok(false) => {
                    let reason = "a record larger than 4 GiB came".to_owned();
                    trouble = Some(Trouble::Broken(RDKafkaErrorCode::BadMessage, reason));
                    break;
                }
                Err(KafkaError::PartitionEOF(_)) => {
                    self.caught_up = true;
                    events.extend(chunk.take().map(complete));
                    events.extend(self.next.and_then(|next| self.reached(next)));
                }
                Err(error) => {
                    // Records may follow it, of which the queue tells nothing more.
                    self.ready.store(true, Ordering::Release);
                    trouble = Some(Trouble::of(error, group.reason()));
                    break;
                }
            }
        }
        events.extend(chunk.map(complete));
        let is_empty = !self.ready.load(Ordering::Acquire) && trouble.is_none();
        if let Some(end) = self.end.as_mut().filter(|_| is_empty) {
            end.queue_was_empty = true;
        }
        Turn { events, trouble }
    }

    /// True for a record that was never delivered though a later position was told as reached.
    fn is_past_due(&self, offset: i64) -> bool {
        self.next.is_some_and(|next| offset < next)
            && self.delivered.is_none_or(|delivered| offset >= delivered)
    }

    fn reached(&mut self, position: i64) -> Option<Event> {
        if self.reported.is_some_and(|reported| reported >= position) {
            return None;
        }
        self.reported = Some(position);
        self.next = self.next.max(Some(position));
        Some(Event::Reached { partition: self.id.clone(), position })
    }
}

fn complete(mut chunk: Records) -> Event {
    chunk.shrink_to_fit();
    Event::Records(chunk)
}

/// Copies a message into `chunk`; false when it does not fit.
fn append(chunk: &mut Records, message: &BorrowedMessage<'_>) -> Result<bool, KafkaError> {
    let headers = message.headers();
    let count = headers.map_or(0, Headers::count);
    let headers = (0..count).filter_map(|index| {
        let headers = headers?;
        // The client panics on a header whose name is no UTF-8. The record goes on without it.
        let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        if header.is_err() {
            let (topic, partition) = (message.topic(), message.partition());
            warn!(topic, partition, offset = message.offset(), "a header has no readable name");
        }
        header.ok().flatten().map(|header| (header.key, header.value))
    });
    Ok(chunk.push(
        message.offset(),
        message.timestamp().to_millis(),
        message.key(),
        message.payload(),
        headers,
    ))
}
