//! What librdkafka calls back: rebalances, statistics, errors. Everything is only noted here; the reading thread acts on it.
//!
//! The callbacks run on that thread, inside `poll`. A rebalance is complete once `incremental_assign` or
//! `incremental_unassign` was called, which may be later: until then the group waits, heartbeats go on and the queue can
//! still be polled. So nothing ever blocks in a callback.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use serde::Deserialize;
use tracing::{debug, warn};

use crate::failpoint::{self, Point};
use crate::position::TopicPartition;
use crate::source::quiet::log;

/// The callbacks of one consumer.
pub(super) struct Group {
    rebalances: Mutex<Vec<Rebalanced>>,
    told: Mutex<Option<Told>>,
    reason: Mutex<String>,
    closing: AtomicBool,
    /// Dropped after the native client: whoever waits for the other end knows that the consumer is gone.
    _gone: mpsc::Sender<()>,
}

/// A step of a rebalance, cooperative: partitions added or taken away. May be empty.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked { partitions: Vec<TopicPartition>, lost: bool },
}

/// What librdkafka's statistics told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The end of each partition, past gaps.
    pub(super) ends: HashMap<(String, i32), i64>,
    /// The number of each topic's partitions, as far as it is known.
    pub(super) partitions: HashMap<String, i32>,
    /// A broker is connected and has let the client in.
    pub(super) answering: bool,
}

impl Group {
    /// The context, and what is disconnected when the consumer is gone.
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (gone, when_gone) = mpsc::channel();
        let group = Self {
            rebalances: Mutex::default(),
            told: Mutex::default(),
            reason: Mutex::default(),
            closing: AtomicBool::new(false),
            _gone: gone,
        };
        (group, when_gone)
    }

    /// Takes the rebalance steps since the last call.
    pub(super) fn rebalances(&self) -> Vec<Rebalanced> {
        std::mem::take(&mut *lock(&self.rebalances))
    }

    /// Takes what the statistics tell, if some came since the last call.
    pub(super) fn told(&self) -> Option<Told> {
        lock(&self.told).take()
    }

    /// Takes what librdkafka said about the error that `poll` just returned.
    pub(super) fn reason(&self) -> String {
        std::mem::take(&mut *lock(&self.reason))
    }

    /// From here on nobody polls but the consumer's own `drop`, which must not be made to wait.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => *lock(&self.told) = Some(statistics.into_told()),
            Err(error) => warn!(%error, "statistics of the kafka client cannot be read"),
        }
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        reason.clone_into(&mut lock(&self.reason));
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let revoked = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => false,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => true,
            code => {
                warn!(?code, "the consumer group reported an error in a rebalance");
                return;
            }
        };
        if self.closing.load(Ordering::SeqCst) {
            // An assignment that comes this late is not taken: assigning now never returns.
            if revoked && let Err(error) = consumer.incremental_unassign(list) {
                debug!(%error, "partitions could not be given back while closing");
            }
            return;
        }
        if revoked {
            failpoint::reach(Point::K11);
        }
        let partitions = partitions_of(list);
        lock(&self.rebalances).push(if revoked {
            Rebalanced::Revoked { partitions, lost: consumer.assignment_lost() }
        } else {
            Rebalanced::Assigned(partitions)
        });
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let mut topics: HashMap<String, Arc<str>> = HashMap::new();
    list.elements()
        .iter()
        .map(|element| {
            let topic = topics
                .entry(element.topic().to_owned())
                .or_insert_with(|| Arc::from(element.topic()));
            TopicPartition { topic: Arc::clone(topic), partition: element.partition() }
        })
        .collect()
}

/// A poisoned lock holds plain data that is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The little that is read of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    brokers: HashMap<String, BrokerStatistics>,
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    source: String,
    state: String,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    partition: i32,
    eof_offset: i64,
    /// The brokers have not told of the partition so far.
    #[serde(default)]
    unknown: bool,
}

impl Statistics {
    fn into_told(self) -> Told {
        // One is librdkafka's own, and always up.
        let brokers = self.brokers.values().filter(|broker| broker.source != "internal");
        let answering = brokers.map(|b| &*b.state).any(|state| matches!(state, "UP" | "REAUTH"));
        let mut told = Told { answering, ..Told::default() };
        for (topic, statistics) in self.topics {
            // One more, by the number -1, is librdkafka's own.
            let partitions = statistics.partitions.into_values().filter(|p| p.partition >= 0);
            let (mut count, mut complete) = (0, true);
            for partition in partitions {
                (count, complete) = (count + 1, complete && !partition.unknown);
                if partition.eof_offset >= 0 {
                    told.ends.insert((topic.clone(), partition.partition), partition.eof_offset);
                }
            }
            if complete && count > 0 {
                told.partitions.insert(topic, count);
            }
        }
        told
    }
}
