//! Sources: where records come from. Everything from outside comes as one stream of events: records, partitions
//! gained and lost, ends reached. The pipeline drives a source like this:
//!
//! ```text
//! loop { match source.next().await { Assigned → reply with stored positions, Records → route to the table, … } }
//! ```

mod cluster;
mod kafka;
pub mod mock;
mod native;
mod partitions;
pub mod properties;
pub mod quiet;
pub mod scripted;
mod topics;

pub use cluster::cluster_id;
pub use kafka::{Followed, KafkaOptions, KafkaSource, follow, sample};
pub use partitions::{Offsets, PartitionCounts, offsets};
pub use topics::{TopicPattern, Topics};

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::error::Error;
use crate::position::{TopicId, TopicPartition};
use crate::record::Records;
use crate::sink::Committed;

/// Where reading of a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the table's stored position, with what tells the log from that of a topic that was made anew. The partition of
    /// such a one cannot be read on.
    At {
        /// The offset.
        position: i64,
        /// The id of the topic that was read: one with another id is another one.
        topic_id: Option<TopicId>,
        /// Where ids are not known: the timestamp of the newest record that was read, milliseconds since the epoch. A log
        /// with only newer ones, some of them below the position, is another one.
        newest_ms: Option<i64>,
    },
    /// At the oldest record: nothing of the partition was ever committed.
    Beginning,
}

impl Start {
    /// At a stored position, with nothing known of the log.
    pub fn at(position: i64) -> Self {
        Self::At { position, topic_id: None, newest_ms: None }
    }
}

/// A source to which nobody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Since when.
    pub since: Instant,
    /// For whom, and why as far as that is known.
    pub reason: String,
}

/// What a source reports.
#[derive(Debug)]
pub enum Event {
    /// Partitions were gained, told topic by topic, as a table may take long to answer. Reading of one starts once
    /// `start` got an answer for it. Those without an answer, all of them when it is dropped, stay unread and come
    /// again in another event of this kind.
    Assigned {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Takes where to start, read from the tables.
        start: oneshot::Sender<HashMap<TopicPartition, Start>>,
    },
    /// Partitions were lost, or are about to be. What is buffered for them belongs to their next owner.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// To be answered when nothing more will be committed for them.
        done: oneshot::Sender<()>,
    },
    /// Records of one partition, in offset order, following what was delivered before.
    Records(Records),
    /// Every record of the partition up to `position` was delivered: the end of the log, where no record may have
    /// that offset (control records and compaction leave gaps).
    Reached {
        /// The partition.
        partition: TopicPartition,
        /// The position after the last record, past gaps.
        position: i64,
    },
    /// How many partitions a topic has, of which some are assigned: told once that is known, and when there are more.
    Partitions {
        /// The topic.
        topic: Arc<str>,
        /// Its partitions.
        count: i32,
    },
    /// Offsets a partition has, for lag: asked from the broker from time to time and at assignment.
    Watermarks {
        /// The partition.
        partition: TopicPartition,
        /// The oldest offset there is.
        low: i64,
        /// The next offset a committed record will get (the last stable offset).
        high: i64,
    },
    /// One partition cannot be read on: its table halts, others go on. An offset out of range is an example.
    PartitionFailed {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: Error,
    },
    /// The source waits, and goes on by itself; or none when it does not any longer.
    Waiting(Option<Waiting>),
    /// Topics that are to be read and are not there; told when they are others than before. Those of which partitions
    /// are assigned may be among them.
    Missing(BTreeSet<String>),
    /// The source failed as a whole and gives no more events.
    Failed(Error),
}

/// A stream of records with a consumer group's life cycle.
#[trait_variant::make(Send)]
pub trait Source {
    /// The next event; cancellation safe.
    async fn next(&mut self) -> Event;

    /// Tells Kafka how far a topic's table is. Takes the receipt of a table commit; never blocks; losing it is
    /// harmless, as the table knows its position.
    fn acknowledge(&mut self, topic: &str, committed: &Committed);

    /// Stops (`true`) or resumes reading of a partition; what was fetched already is kept. Takes effect soon, so a
    /// few records may still come.
    fn hold(&mut self, partition: &TopicPartition, held: bool);

    /// Starts partitions anew whose table went back: they come again in an event of kind `Assigned`. What was delivered
    /// of them before it is no longer wanted.
    fn read_again(&mut self, partitions: Vec<TopicPartition>);

    /// Leaves the group and frees what the source holds, within a bounded time.
    async fn close(self);
}
