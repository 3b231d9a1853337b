//! How many partitions a topic has now. Asked rarely, so by a client that is made for the question.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::properties::Connection;
use super::quiet::Quiet;
use crate::error::{Error, Result};

/// How long the brokers may take to answer.
const WAIT: Duration = Duration::from_secs(10);

/// The number of partitions of `topic`; an unavailable error when the brokers do not tell it.
pub async fn partitions(connection: Connection, topic: String) -> Result<usize> {
    let what = format!("the brokers do not tell the partitions of topic {topic}");
    let ask = move || {
        let consumer: BaseConsumer<Quiet> = connection.client().create_with_context(Quiet)?;
        let metadata = consumer.fetch_metadata(Some(&topic), WAIT)?;
        let found = metadata.topics().iter().find(|told| told.name() == topic);
        Ok(found.filter(|told| told.error().is_none()).map_or(0, |told| told.partitions().len()))
    };
    let answer: Result<_, rdkafka::error::KafkaError> = tokio::task::spawn_blocking(ask)
        .await
        .map_err(|error| Error::internal("a thread that asks the brokers ended").because(error))?;
    match answer {
        Ok(0) => Err(Error::unavailable(what)),
        Ok(count) => Ok(count),
        Err(error) => Err(Error::unavailable(what).because(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::source::mock::MockCluster;

    #[tokio::test]
    async fn a_topic_has_the_partitions_that_it_was_made_with() {
        let cluster = MockCluster::start(1).unwrap();
        for (topic, count) in [("one", 1), ("three", 3)] {
            cluster.create_topic(topic, count).unwrap();
            let connection =
                Connection::new(cluster.servers(), &BTreeMap::new(), |_| None).unwrap();
            let found = partitions(connection, topic.to_owned()).await.unwrap();
            assert_eq!(i32::try_from(found), Ok(count));
        }
    }
}
