//! Dead letters: records that no table can take, in a Kafka topic of their own, with what is needed to replay them.
//!
//! Key, value and headers are the original bytes. Added after them are headers that Kafka Connect's tools know
//! (`__connect.errors.…`) and ours (`cdc_sink.…`); a record that comes for the second time has two sets, the last of
//! which is the newest. The topic has its own retention: the timestamp is the time of the dead letter.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::decode::Reject;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::source::properties::Connection;
use crate::source::quiet::Quiet;

/// A dead letter is in the topic within this time, or was not taken.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Where in Connect's words a record fails.
const STAGE: &str = "VALUE_CONVERTER";

/// The dead letter topic.
pub struct DeadLetters {
    topic: String,
    config: ClientConfig,
    timeout: Duration,
    /// None when the last one met an error that it does not forget.
    producer: Mutex<Option<FutureProducer<Quiet>>>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Makes the producer; no broker is waited for.
    pub fn new(connection: &Connection, topic: impl Into<String>) -> Result<Self> {
        Self::with_timeout(connection, topic.into(), DELIVERY_TIMEOUT)
    }

    fn with_timeout(connection: &Connection, topic: String, timeout: Duration) -> Result<Self> {
        let mut config = connection.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            // Sources are often packed: unpacked, the same record might be too large for the topic.
            .set("compression.type", "zstd")
            // The topic's limit decides, not the client's.
            .set("message.max.bytes", "100000000")
            .set("queue.buffering.max.kbytes", "204800")
            .set("message.timeout.ms", timeout.as_millis().to_string());
        let producer = Mutex::new(Some(produce(&config)?));
        Ok(Self { topic, config, timeout, producer })
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes `record`, rejected for `table`; returns when it is durable. May write it twice when the brokers'
    /// answer is lost.
    ///
    /// # Errors
    /// Unavailable: the record is not known to be there, hold and call again. Refused: it never will be, as it is
    /// too large or may not be written; going on without it would lose it.
    pub async fn send(&self, record: &Record<'_>, reject: &Reject, table: &str) -> Result<()> {
        let headers = headers_of(record, reject, table);
        let mut letter = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        letter.key = record.key;
        letter.payload = record.value;
        let producer = self.producer()?;
        let sent = producer.send(letter, self.timeout).await;
        let Err((error, _)) = sent else { return Ok(()) };
        // The client goes on refusing a topic that was once denied, and does nothing after a fatal error.
        let denied = error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed);
        if denied || producer.client().fatal_error().is_some() {
            self.producer.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        Err(self.explain(&error, record))
    }

    fn producer(&self) -> Result<FutureProducer<Quiet>> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = producer.as_ref() {
            return Ok(producer.clone());
        }
        Ok(producer.insert(produce(&self.config)?).clone())
    }

    fn explain(&self, error: &KafkaError, record: &Record<'_>) -> Error {
        let Record { topic, partition, offset, .. } = record;
        let what = format!(
            "cannot write the dead letter of {topic}[{partition}] offset {offset} to topic {}",
            self.topic
        );
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                Error::refused(format!("{what}: its {size} bytes are too large for the topic"))
                    .hint("raise max.message.bytes of the dead letter topic")
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => Error::refused(what).hint("allow the user to write to the dead letter topic"),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => Error::unavailable(what).hint("make the dead letter topic"),
            _ => Error::unavailable(what),
        }
        .because(error.clone())
    }
}

fn produce(config: &ClientConfig) -> Result<FutureProducer<Quiet>> {
    config.create_with_context(Quiet).map_err(|error| {
        Error::invalid("cannot make a Kafka producer for dead letters from the given properties")
            .because(error)
    })
}

fn headers_of(record: &Record<'_>, reject: &Reject, table: &str) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in record.headers() {
        headers = headers.insert(Header { key, value });
    }
    let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
    let added: [(&str, &str); 9] = [
        ("__connect.errors.topic", record.topic),
        ("__connect.errors.partition", &partition),
        ("__connect.errors.offset", &offset),
        ("__connect.errors.stage", STAGE),
        ("__connect.errors.exception.class.name", "cdc_sink.Reject"),
        ("__connect.errors.exception.message", &reject.message),
        ("cdc_sink.reason", reject.reason),
        ("cdc_sink.table", table),
        ("cdc_sink.version", env!("CARGO_PKG_VERSION")),
    ];
    for (key, value) in added {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Headers;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{Message, Offset, TopicPartitionList};

    use super::*;
    use crate::error::Kind;
    use crate::record::Records;
    use crate::source::mock::MockCluster;

    const REJECT: Reject = Reject { reason: "bad_json", message: String::new() };

    fn record(records: &Records) -> Record<'_> {
        records.get(0).unwrap()
    }

    fn letters(servers: &str) -> DeadLetters {
        let connection = Connection::new(servers, &BTreeMap::new(), |_| None).unwrap();
        DeadLetters::new(&connection, "dead").unwrap()
    }

    #[tokio::test]
    async fn a_dead_letter_is_the_record_and_why() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("dead", 1).unwrap();
        let letters = letters(cluster.servers());
        let (key, value) = (&b"\xff\x00key"[..], &b"{\"half\xc3"[..]);
        let own = [("a", Some(&b"\x01"[..])), ("a", None), ("b", Some(&b""[..]))];
        let mut records = Records::new("shop.public.orders".into(), 3, 0);
        records.push(77, Some(5), Some(key), Some(value), own);
        let reject = Reject { message: "value: not JSON".to_owned(), ..REJECT };
        letters.send(&record(&records), &reject, "shop_public.orders").await.unwrap();
        let mut tombstone = Records::new(Arc::from("t"), 0, 0);
        tombstone.push(1, None, None, None, []);
        letters.send(&record(&tombstone), &reject, "t").await.unwrap();

        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.servers())
            .set("group.id", "check")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("dead", 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let next = || loop {
            if let Some(message) = consumer.poll(Duration::from_secs(10)) {
                return message.unwrap().detach();
            }
        };
        let message = next();
        assert_eq!((message.key(), message.payload()), (Some(key), Some(value)));
        let headers = message.headers().unwrap();
        let all: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
        assert_eq!(all[..3], own);
        let text = |name: &str| {
            let header = headers.iter().find(|header| header.key == name).unwrap();
            String::from_utf8(header.value.unwrap().to_vec()).unwrap()
        };
        assert_eq!(text("__connect.errors.topic"), "shop.public.orders");
        assert_eq!(text("__connect.errors.partition"), "3");
        assert_eq!(text("__connect.errors.offset"), "77");
        assert_eq!(text("__connect.errors.exception.message"), "value: not JSON");
        assert_eq!(text("cdc_sink.reason"), "bad_json");
        assert_eq!(text("cdc_sink.table"), "shop_public.orders");
        let message = next();
        assert_eq!((message.key(), message.payload()), (None, None));
    }

    #[tokio::test]
    async fn what_the_caller_does_about_a_failure_is_in_its_kind() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("dead", 1).unwrap();
        let letters = letters(cluster.servers());
        let mut records = Records::new(Arc::from("t"), 0, 0);
        records.push(9, None, None, Some(b"secret row"), []);
        let fail = |error: RDKafkaRespErr| {
            cluster.with(move |c| c.request_errors(RDKafkaApiKey::Produce, &[error])).unwrap();
        };
        fail(RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
        let error = letters.send(&record(&records), &REJECT, "t").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        let report = error.report();
        assert!(report.contains("t[0] offset 9") && report.contains("too large"), "{report}");
        assert!(!report.contains("secret"), "{report}");

        fail(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        let error = letters.send(&record(&records), &REJECT, "t").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{}", error.report());

        letters.send(&record(&records), &REJECT, "t").await.unwrap();

        let connection = Connection::new(cluster.servers(), &BTreeMap::new(), |_| None).unwrap();
        let hasty = Duration::from_secs(1);
        let letters = DeadLetters::with_timeout(&connection, "dead".to_owned(), hasty).unwrap();
        cluster.with(|c| c.broker_down(1)).unwrap().unwrap();
        let error = letters.send(&record(&records), &REJECT, "t").await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.report());
        cluster.with(|c| c.broker_up(1)).unwrap().unwrap();
        while letters.send(&record(&records), &REJECT, "t").await.is_err() {}
    }
}
