//! How many partitions a topic has now, and which offsets they have.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::native::topic_ids;
use super::properties::Connection;
use super::quiet::Quiet;
use crate::error::{Error, Result};
use crate::position::TopicId;

/// How long the brokers may take to answer.
const WAIT: Duration = Duration::from_secs(10);
/// Questions at once, each of which has a thread: a thousand tables may ask together.
const QUESTIONS: usize = 4;

/// Asks the brokers, by a client that is made for the first question and kept.
#[derive(Clone)]
pub struct PartitionCounts {
    connection: Connection,
    client: Arc<OnceLock<BaseConsumer<Quiet>>>,
    questions: Arc<Semaphore>,
}

impl PartitionCounts {
    /// Of topics that are reached by `connection`.
    pub fn new(connection: Connection) -> Self {
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        Self { connection, client: Arc::default(), questions }
    }

    /// The number of partitions of `topic`, 0 when there is no such topic; an unavailable error when the brokers do not
    /// tell it.
    pub async fn of(self, topic: String) -> Result<usize> {
        let what = format!("the brokers do not tell the partitions of topic {topic}");
        let turn = timeout(WAIT, Arc::clone(&self.questions).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Error::unavailable(format!("{what}: earlier questions are not answered")));
        };
        let ask = move || {
            let _turn = turn;
            self.ask(&topic)
        };
        let answer = tokio::task::spawn_blocking(ask).await.map_err(|error| {
            Error::internal("a thread that asks the brokers ended").because(error)
        })?;
        answer.map_err(|error| Error::unavailable(what).because(error))
    }

    fn ask(&self, topic: &str) -> KafkaResult<usize> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let made = self.connection.client().create_with_context(Quiet)?;
                self.client.get_or_init(|| made)
            }
        };
        let metadata = client.fetch_metadata(Some(topic), WAIT)?;
        let Some(told) = metadata.topics().iter().find(|told| told.name() == topic) else {
            return Ok(0);
        };
        match told.error() {
            None => Ok(told.partitions().len()),
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(0),
            Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        }
    }
}

/// Which offsets a partition has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// The oldest one.
    pub low: i64,
    /// The next one it will get.
    pub high: i64,
    /// The topic's id, where the brokers tell it.
    pub topic_id: Option<TopicId>,
}

/// The offsets of a partition; an unavailable error when the brokers do not tell.
pub async fn offsets(connection: Connection, topic: String, partition: i32) -> Result<Offsets> {
    let what = format!("the brokers do not tell the offsets of {topic}[{partition}]");
    let ask = move || {
        let consumer: BaseConsumer<Quiet> = connection.client().create_with_context(Quiet)?;
        let (low, high) = consumer.fetch_watermarks(&topic, partition, WAIT)?;
        let ids = topic_ids(consumer.client(), &[&topic], WAIT).unwrap_or_default();
        Ok(Offsets { low, high, topic_id: ids.get(&topic).copied() })
    };
    let answer: KafkaResult<_> = tokio::task::spawn_blocking(ask)
        .await
        .map_err(|error| Error::internal("a thread that asks the brokers ended").because(error))?;
    answer.map_err(|error| Error::unavailable(what).because(error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::source::mock::MockCluster;

    #[tokio::test]
    async fn a_topic_has_the_partitions_that_it_was_made_with() {
        let cluster = MockCluster::start(1).unwrap();
        let connection = Connection::new(cluster.servers(), &BTreeMap::new(), |_| None).unwrap();
        let counts = PartitionCounts::new(connection);
        for (topic, count) in [("one", 1), ("three", 3)] {
            cluster.create_topic(topic, count).unwrap();
            let found = counts.clone().of(topic.to_owned()).await.unwrap();
            assert_eq!(i32::try_from(found), Ok(count));
        }
        assert_eq!(counts.clone().of("none".to_owned()).await.unwrap(), 0);
        let all = (0..200).map(|_| counts.clone().of("three".to_owned()));
        for found in futures::future::join_all(all).await {
            assert_eq!(found.unwrap(), 3);
        }
        assert_eq!(counts.questions.available_permits(), QUESTIONS);
    }
}
