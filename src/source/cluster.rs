//! Which Kafka cluster it is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::properties::Connection;
use super::quiet;
use crate::error::{Error, Result};

/// How long the brokers may take to answer.
const WAIT: Duration = Duration::from_secs(10);
/// Events of the client that are looked at for the reason of its silence.
const EVENTS: usize = 16;

/// Keeps what the client said last of its trouble.
#[derive(Debug, Default)]
struct Reason(Mutex<String>);

impl ClientContext for Reason {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        quiet::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down comes after the reason of it.
        let says_why = error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown);
        if says_why || known.is_empty() {
            reason.clone_into(&mut known);
        }
    }
}

impl ConsumerContext for Reason {}

/// The id that the cluster has of its own; an unavailable error when the brokers do not tell it.
pub async fn cluster_id(connection: Connection) -> Result<String> {
    let what = format!("the brokers {} do not tell their cluster's id", connection.brokers());
    let client = connection.client();
    let ask = move || -> Result<_, KafkaError> {
        let consumer: BaseConsumer<Reason> = client.create_with_context(Reason::default())?;
        let id = consumer.client().fetch_cluster_id(WAIT);
        if id.is_none() {
            for _ in 0..EVENTS {
                consumer.poll(Duration::ZERO);
            }
        }
        let reason = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((id, reason))
    };
    let answer = tokio::task::spawn_blocking(ask)
        .await
        .map_err(|error| Error::internal("a thread that asks the brokers ended").because(error))?;
    match answer {
        Ok((Some(id), _)) => Ok(id),
        Ok((None, reason)) => Err(Error::unavailable(format!("{what}: {reason}"))),
        Err(error) => Err(Error::unavailable(what).because(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::source::mock::MockCluster;

    #[tokio::test]
    async fn clusters_tell_their_ids() {
        let cluster = MockCluster::start(1).unwrap();
        let connection = || Connection::new(cluster.servers(), &BTreeMap::new(), |_| None).unwrap();
        let id = cluster_id(connection()).await.unwrap();
        assert!(!id.is_empty());
        assert_eq!(cluster_id(connection()).await.unwrap(), id);
    }

    #[tokio::test]
    async fn why_brokers_are_silent_is_told() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let connection = Connection::new(&address, &BTreeMap::new(), |_| None).unwrap();
        let error = cluster_id(connection).await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.report().contains("refused"), "{}", error.report());
    }
}
