//! The oldest and the next offset of partitions, asked from the brokers on a thread of its own.
//!
//! Two requests to each broker serve all its partitions. The next offset is the last stable one, as the client reads
//! committed records only.

use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use super::control::Control;
use super::group::Group;
use crate::error::{Error, Result};
use crate::position::TopicPartition;

/// A round of questions takes no longer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A partition with its oldest and its next offset.
pub(super) type Watermarks = (TopicPartition, i64, i64);

/// The asking thread. One round at a time.
pub(super) struct Asker {
    questions: mpsc::SyncSender<Vec<TopicPartition>>,
    answers: mpsc::Receiver<Vec<Watermarks>>,
    asked: bool,
}

impl Asker {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(
        consumer: Weak<BaseConsumer<Group>>,
        control: Arc<Control>,
    ) -> Result<Self> {
        let (questions, question) = mpsc::sync_channel::<Vec<TopicPartition>>(1);
        let (answer, answers) = mpsc::sync_channel(1);
        let work = move || {
            while let Ok(partitions) = question.recv() {
                let Some(consumer) = consumer.upgrade() else { return };
                let watermarks = ask(&consumer, &partitions).unwrap_or_else(|error| {
                    debug!(%error, "the brokers do not tell the offsets of partitions");
                    Vec::new()
                });
                drop(consumer);
                if answer.send(watermarks).is_err() {
                    return;
                }
                control.wake();
            }
        };
        thread::Builder::new()
            .name("kafka-watermarks".into())
            .spawn(work)
            .map_err(|error| Error::internal("a thread cannot be started").because(error))?;
        Ok(Self { questions, answers, asked: false })
    }

    /// Asks for `partitions`; false while the last question is open.
    pub(super) fn ask(&mut self, partitions: Vec<TopicPartition>) -> bool {
        if self.asked || partitions.is_empty() {
            return false;
        }
        self.asked = self.questions.try_send(partitions).is_ok();
        self.asked
    }

    /// The answer, when one came: empty when the brokers did not give one.
    pub(super) fn answer(&mut self) -> Option<Vec<Watermarks>> {
        let answer = self.answers.try_recv().ok()?;
        self.asked = false;
        Some(answer)
    }
}

fn ask(
    consumer: &BaseConsumer<Group>,
    partitions: &[TopicPartition],
) -> KafkaResult<Vec<Watermarks>> {
    let until = Instant::now() + TIMEOUT;
    let query = |offset: Offset| {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for id in partitions {
            list.add_partition_offset(&id.topic, id.partition, offset)?;
        }
        consumer.offsets_for_times(list, until.saturating_duration_since(Instant::now()))
    };
    let (low, high) = (query(Offset::Beginning)?, query(Offset::End)?);
    let offset = |list: &TopicPartitionList, id: &TopicPartition| {
        let element = list.find_partition(&id.topic, id.partition)?;
        match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Some(offset),
            _ => None,
        }
    };
    let known = |id: &TopicPartition| Some((id.clone(), offset(&low, id)?, offset(&high, id)?));
    Ok(partitions.iter().filter_map(known).collect())
}
