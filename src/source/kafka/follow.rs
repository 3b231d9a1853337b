//! Whole topics from their oldest record on, outside of the consumer group: for topics that are no table's but are read
//! beside the tables' own.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::KafkaOptions;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::source::quiet::Quiet;

/// Memory for what is fetched: these topics are small.
const MEMORY: u64 = 8 * 1024 * 1024;
/// Values that wait for their reader at most.
const WAITING: usize = 64;
/// How long a poll waits.
const POLL: Duration = Duration::from_millis(200);
/// How long brokers may take to tell a topic's partitions, and how often a topic that is not there is asked for.
const ASK: Duration = Duration::from_secs(5);

/// What comes of topics that are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A record's value.
    Value(Vec<u8>),
    /// All that was in one of the topics has come; once for each.
    End,
}

/// Reads all of `topics`: gives every value, and then those that come. A topic that is not there is waited for. Ends
/// when the receiver is dropped.
pub fn follow(options: &KafkaOptions, topics: &[String]) -> Result<mpsc::Receiver<Followed>> {
    let (sender, followed) = mpsc::channel(WAITING);
    for topic in topics {
        let mut config = Plan::new(MEMORY, 1).consumer(options);
        config.set("statistics.interval.ms", "0").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(|error| {
            Error::invalid("cannot make a Kafka consumer from the given properties").because(error)
        })?;
        let (topic, sender) = (topic.clone(), sender.clone());
        thread::Builder::new()
            .name("kafka-follow".into())
            .spawn(move || read(&consumer, &topic, &sender))
            .map_err(|error| Error::internal("a thread cannot be started").because(error))?;
    }
    Ok(followed)
}

fn read(consumer: &BaseConsumer<Quiet>, topic: &str, followed: &mpsc::Sender<Followed>) {
    let (mut asked, mut open) = (None::<Instant>, None::<HashSet<i32>>);
    while !followed.is_closed() {
        if open.is_none() && asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            open = assign(consumer, topic);
            if open.is_none() && asked.is_none() {
                warn!(topic, "the topic is not there yet, or the brokers do not answer");
            }
            asked = Some(Instant::now());
        }
        let next = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(message)) => message.payload().map(|value| Followed::Value(value.to_vec())),
            Some(Err(KafkaError::PartitionEOF(partition))) => open.as_mut().and_then(|open| {
                (open.remove(&partition) && open.is_empty()).then_some(Followed::End)
            }),
            Some(Err(error)) => {
                debug!(%error, topic, "reading goes on by itself");
                None
            }
        };
        if let Some(next) = next
            && followed.blocking_send(next).is_err()
        {
            return;
        }
    }
}

/// Begins to read a topic: its partitions; none when it is not known.
fn assign(consumer: &BaseConsumer<Quiet>, topic: &str) -> Option<HashSet<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK).ok()?;
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    let partitions: HashSet<i32> = partitions.map(MetadataPartition::id).collect();
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).ok()?;
    }
    (list.count() > 0 && consumer.assign(&list).is_ok()).then_some(partitions)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use tokio::sync::watch;

    use super::*;
    use crate::position::TopicPartition;
    use crate::source::Topics;
    use crate::source::mock::{MockCluster, Produced};

    #[tokio::test]
    async fn topics_are_read_from_their_start_and_on() {
        let cluster = MockCluster::start(1).unwrap();
        for topic in ["one", "two", "other"] {
            cluster.create_topic(topic, 1).unwrap();
        }
        let (_reader, read) = watch::channel(HashMap::new());
        let mut feeder = cluster.feeder(read).unwrap();
        let mut send = async |topic: &str, value: &[u8]| {
            let to = TopicPartition { topic: topic.into(), partition: 0 };
            let record =
                Produced { key: None, value: Some(value), headers: &[], timestamp_ms: None };
            feeder.send(&to, record).await.unwrap();
            feeder.flush().await.unwrap();
        };
        for (topic, value) in [("one", b"1"), ("other", b"0"), ("one", b"2")] {
            send(topic, value).await;
        }
        let topics = Topics::parse(["other"]).unwrap();
        let none = |_: &str| None;
        let options =
            KafkaOptions::new(cluster.servers(), "g", topics, &BTreeMap::new(), none).unwrap();
        let topics = ["one", "two", "three"].map(str::to_owned);
        let mut followed = follow(&options, &topics).unwrap();
        let mut next = async || {
            let next = tokio::time::timeout(Duration::from_secs(30), followed.recv());
            next.await.unwrap().unwrap()
        };
        let mut found = vec![next().await, next().await, next().await, next().await];
        let at = |found: &[Followed], wanted: &Followed| found.iter().position(|f| f == wanted);
        let value = |value: &[u8]| Followed::Value(value.to_vec());
        assert!(at(&found, &value(b"1")) < at(&found, &value(b"2")));
        found.retain(|followed| *followed == Followed::End);
        assert_eq!(found.len(), 2);
        cluster.create_topic("three", 2).unwrap();
        assert_eq!(next().await, Followed::End);
        for (topic, sent) in [("two", b"3"), ("one", b"4"), ("three", b"5")] {
            send(topic, sent).await;
            assert_eq!(next().await, value(sent));
        }
    }
}
