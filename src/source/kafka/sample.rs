//! A look at the oldest records of topics, outside of the consumer group: nothing is joined, nothing acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaOptions;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::record::Records;
use crate::source::quiet::Quiet;

/// Once every partition's end was seen, nothing more is waited for longer.
const IDLE: Duration = Duration::from_secs(1);
/// How long a poll waits.
const POLL: Duration = Duration::from_millis(100);

impl ConsumerContext for Quiet {}

/// Up to `records` of the oldest records of each topic, by topic; topics without any are there as well. Takes no longer
/// than about `wait`, and blocks meanwhile. Fails when the brokers do not answer within it.
pub fn sample(
    options: &KafkaOptions,
    records: usize,
    wait: Duration,
) -> Result<BTreeMap<Arc<str>, Vec<Records>>> {
    let until = Instant::now() + wait;
    let mut config = Plan::new(options.memory, 1).consumer(options);
    config.set("statistics.interval.ms", "0");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(|error| {
        Error::invalid("cannot make a Kafka consumer from the given properties").because(error)
    })?;
    let partitions = partitions(&consumer, options, wait)?;
    let failed = |error| Error::unavailable("cannot read from Kafka").because(error);
    let mut list = TopicPartitionList::new();
    let mut sampled: BTreeMap<Arc<str>, Vec<Records>> = BTreeMap::new();
    for (topic, partition) in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).map_err(failed)?;
        sampled.entry(Arc::clone(topic)).or_default();
    }
    consumer.assign(&list).map_err(failed)?;
    let memory = usize::try_from(options.memory).unwrap_or(usize::MAX);
    let (mut ends, mut bytes, mut last) = (0, 0, Instant::now());
    let is_full = |sampled: &BTreeMap<_, Vec<_>>| sampled.values().all(|own| own.len() >= records);
    while Instant::now() < until && bytes < memory && !is_full(&sampled) {
        match consumer.poll(POLL) {
            None if ends >= partitions.len() && last.elapsed() >= IDLE => break,
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(message)) => {
                last = Instant::now();
                let Some(own) = sampled.get_mut(message.topic()) else { continue };
                if own.len() < records
                    && let Some(record) = record(&message)
                {
                    bytes += record.bytes();
                    own.push(record);
                }
            }
        }
    }
    Ok(sampled)
}

/// The partitions of the topics that are read.
fn partitions(
    consumer: &BaseConsumer<Quiet>,
    options: &KafkaOptions,
    wait: Duration,
) -> Result<Vec<(Arc<str>, i32)>> {
    let metadata = consumer.fetch_metadata(None, wait).map_err(|error| {
        let brokers = options.connection.brokers();
        Error::unavailable(format!("the brokers at {brokers} do not answer")).because(error)
    })?;
    let mut found = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| options.topics.matches(topic.name())) {
        let name: Arc<str> = topic.name().into();
        found.extend(topic.partitions().iter().map(|one| (Arc::clone(&name), one.id())));
    }
    Ok(found)
}

fn record(message: &BorrowedMessage<'_>) -> Option<Records> {
    let offset = message.offset();
    let mut records = Records::new(message.topic().into(), message.partition(), offset);
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.map(|header| (header.key, header.value));
    let timestamp = message.timestamp().to_millis();
    records.push(offset, timestamp, message.key(), message.payload(), headers).then_some(records)
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
    async fn the_oldest_records_are_read_without_a_group() {
        let cluster = MockCluster::start(1).unwrap();
        for topic in ["a.one", "a.two", "a.none", "b"] {
            cluster.create_topic(topic, 2).unwrap();
        }
        let (_reader, read) = watch::channel(HashMap::new());
        let mut feeder = cluster.feeder(read).unwrap();
        for (topic, partition, count) in [("a.one", 0, 5), ("a.one", 1, 5), ("a.two", 1, 1)] {
            for value in 0..count {
                let to = TopicPartition { topic: topic.into(), partition };
                let value = [b'0' + value];
                let record = Produced {
                    key: Some(b"k"),
                    value: Some(&value),
                    headers: &[("h", b"v")],
                    timestamp_ms: Some(7),
                };
                feeder.send(&to, record).await.unwrap();
            }
        }
        feeder.flush().await.unwrap();
        let topics = Topics::parse(["a.*"]).unwrap();
        let none = |_: &str| None;
        let options =
            KafkaOptions::new(cluster.servers(), "g", topics, &BTreeMap::new(), none).unwrap();
        let read = move || sample(&options, 6, Duration::from_secs(20));
        let sampled = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
        let counts: Vec<_> =
            sampled.iter().map(|(topic, records)| (&**topic, records.len())).collect();
        assert_eq!(counts, [("a.none", 0), ("a.one", 6), ("a.two", 1)]);
        let record = sampled["a.two"][0].get(0).unwrap();
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"0"[..])));
        assert_eq!(record.headers().next(), Some(("h", Some(&b"v"[..]))));
    }
}
