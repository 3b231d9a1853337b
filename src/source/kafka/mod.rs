//! Kafka: a consumer group on a thread of its own.
//!
//! ```text
//!  librdkafka ──► one queue per partition ──► reading thread ──► bounded channel ──► KafkaSource::next
//!       ▲  rebalances, errors, statistics ───────┘   ▲
//!       └── assign, unassign, commit ────────────────┴── holds, acknowledgements, close
//! ```
//!
//! The thread owns the consumer and never blocks for long: a full channel means that partition queues are not polled
//! while the group's own queue still is, so the group stays whole and nothing fetched is thrown away. Offsets to
//! start from come from the tables with the answer to [`Event::Assigned`] and are set in the assignment, never
//! sought: a seek right after an assignment fails, and reading has begun elsewhere by then.

mod brokers;
mod calls;
mod client;
mod control;
mod follow;
mod group;
mod helper;
mod missing;
mod partition;
mod plan;
mod reader;
mod sample;
mod trouble;
mod unowned;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use self::control::Control;
pub use self::follow::{Followed, follow};
use self::plan::CHUNKS;
use self::reader::Reader;
pub use self::sample::sample;
use super::properties::Connection;
use super::topics::Topics;
use super::{Event, Source};
use crate::error::{Error, Result};
use crate::position::TopicPartition;
use crate::sink::Committed;

/// How Kafka is read.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// How the cluster is reached.
    pub connection: Connection,
    /// The consumer group's name.
    pub group: String,
    /// The topics that are read.
    pub topics: Topics,
    /// Memory for what is fetched and not yet handed over, bytes.
    pub memory: u64,
    /// How often new topics and partitions are looked for.
    pub metadata_refresh: Duration,
    /// How often the offsets of partitions are asked for.
    pub watermarks: Duration,
    /// How long a partition that is taken away is kept for the commit under way. Others of the group wait as long.
    pub revoke_wait: Duration,
    /// How long [`Source::close`] may take.
    pub close_wait: Duration,
}

impl KafkaOptions {
    /// Memory for what is fetched when nothing else is said.
    pub const DEFAULT_MEMORY: u64 = 256 * 1024 * 1024;
    /// A new topic is read within this time.
    pub const DEFAULT_METADATA_REFRESH: Duration = Duration::from_secs(30);
    /// Fresh enough for lag, and two requests to each broker.
    pub const DEFAULT_WATERMARKS: Duration = Duration::from_secs(5);
    /// Most commits end within it; those that do not are fenced by the tables.
    pub const DEFAULT_REVOKE_WAIT: Duration = Duration::from_secs(20);
    /// Half of the time that most supervisors give a process to end.
    pub const DEFAULT_CLOSE_WAIT: Duration = Duration::from_secs(15);

    /// The defaults for these brokers, this group and these topics. `properties` are of librdkafka;
    /// `${env:NAME}` in them is resolved by `env`.
    pub fn new(
        brokers: &str,
        group: &str,
        topics: Topics,
        properties: &BTreeMap<String, String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        if group.trim().is_empty() {
            return Err(
                Error::invalid("the consumer group has no name").hint("name it with --group")
            );
        }
        Ok(Self {
            connection: Connection::new(brokers, properties, env)?,
            group: group.to_owned(),
            topics,
            memory: Self::DEFAULT_MEMORY,
            metadata_refresh: Self::DEFAULT_METADATA_REFRESH,
            watermarks: Self::DEFAULT_WATERMARKS,
            revoke_wait: Self::DEFAULT_REVOKE_WAIT,
            close_wait: Self::DEFAULT_CLOSE_WAIT,
        })
    }
}

/// A member of a consumer group.
///
/// A broker that does not answer is waited for, from the start on; only what cannot heal ends the source. Dropping it
/// without [`Source::close`] leaves the group too, in the background.
#[derive(Debug)]
pub struct KafkaSource {
    events: mpsc::Receiver<Event>,
    control: Arc<Control>,
    thread: Option<thread::JoinHandle<()>>,
    close_wait: Duration,
    ended: bool,
}

impl KafkaSource {
    /// Starts reading; the first event comes when the group has assigned partitions. Does not wait for a broker.
    pub fn start(options: KafkaOptions) -> Result<Self> {
        let (sender, events) = mpsc::channel(CHUNKS);
        let control = Arc::new(Control::default());
        let close_wait = options.close_wait;
        let reader = Reader::open(options, Arc::clone(&control), sender)?;
        let thread = thread::Builder::new()
            .name("kafka-reader".into())
            .spawn(move || reader.run())
            .map_err(|error| Error::internal("a thread cannot be started").because(error))?;
        Ok(Self { events, control, thread: Some(thread), close_wait, ended: false })
    }
}

impl Source for KafkaSource {
    async fn next(&mut self) -> Event {
        if self.ended {
            return std::future::pending().await;
        }
        let event = self.events.recv().await.unwrap_or_else(|| {
            Event::Failed(Error::internal("the thread that reads Kafka has ended"))
        });
        self.control.wake();
        match &event {
            Event::Failed(_) => self.ended = true,
            Event::Revoked { partitions, .. } => self.control.release(partitions),
            _ => {}
        }
        event
    }

    fn acknowledge(&mut self, topic: &str, committed: &Committed) {
        let topic: Arc<str> = Arc::from(topic);
        for (partition, next) in committed.position().iter() {
            let id = TopicPartition { topic: Arc::clone(&topic), partition };
            self.control.acknowledge(id, next);
        }
    }

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        self.control.hold(partition, held);
    }

    fn read_again(&mut self, partitions: Vec<TopicPartition>) {
        self.control.read_again(partitions);
    }

    async fn close(mut self) {
        // Whoever waits for an answer to an event hears that none will come.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        self.control.close();
        let until = Instant::now() + self.close_wait;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= until {
                warn!("the consumer group was not left in time; it will notice by itself");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.control.close();
    }
}

#[cfg(test)]
mod tests;
