//! Dead letters in a Kafka topic of their own.
//!
//! Key, value and headers are the original bytes. Added after them are headers that Kafka Connect's tools know
//! (`__connect.errors.…`) and ours (`cdc_sink.…`); a record that comes for the second time has two sets, the last of
//! which is the newest. The topic has its own retention: the timestamp is the time of the dead letter.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::Letter;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::retry;
use crate::source::properties::Connection;
use crate::source::quiet::Quiet;

/// A dead letter is in the topic within this time, or was not taken.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Dead letters that wait for the brokers' answer at once; what their bytes may be, the client's own queue says.
const IN_FLIGHT: usize = 1000;
/// Where in Connect's words a record fails.
const STAGE: &str = "VALUE_CONVERTER";

/// The dead letter topic.
pub(super) struct Topic {
    name: String,
    config: ClientConfig,
    timeout: Duration,
    /// None when the last one met an error that it does not forget.
    producer: Mutex<Option<FutureProducer<Quiet>>>,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Topic {
    /// Makes the producer; no broker is waited for.
    pub(super) fn new(connection: &Connection, name: impl Into<String>) -> Result<Self> {
        Self::with_timeout(connection, name.into(), DELIVERY_TIMEOUT)
    }

    fn with_timeout(connection: &Connection, name: String, timeout: Duration) -> Result<Self> {
        let mut config = connection.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            // Sources are often packed: unpacked, the same record might be too large for the topic.
            .set("compression.type", "zstd")
            // The topic's limit decides, not the client's.
            .set("message.max.bytes", "1000000000")
            // One that is larger than the queue never gets in; together they are what a batch has.
            .set("queue.buffering.max.kbytes", "1048576")
            .set("message.timeout.ms", timeout.as_millis().to_string());
        let producer = Mutex::new(Some(produce(&config)?));
        Ok(Self { name, config, timeout, producer })
    }

    /// Writes `letters`; returns when all are durable. Those that the brokers do not take are sent again until they do;
    /// one may be there twice when the brokers' answer was lost.
    ///
    /// # Errors
    /// Refused: a letter never will be there, as it is too large or may not be written.
    pub(super) async fn write(&self, letters: &[Letter<'_>]) -> Result<()> {
        let left = Mutex::new(letters.to_vec());
        let left = || left.lock().unwrap_or_else(PoisonError::into_inner);
        retry::hold("the topic of dead letters", || async {
            let mut sending = std::mem::take(&mut *left()).into_iter();
            let mut sent = FuturesOrdered::new();
            let mut failed = None;
            loop {
                for letter in sending.by_ref().take(IN_FLIGHT.saturating_sub(sent.len())) {
                    sent.push_back(async move { (letter, self.send(&letter).await) });
                }
                let Some((letter, sent)) = sent.next().await else { break };
                let Err(error) = sent else { continue };
                if !error.is_retryable() {
                    return Err(error);
                }
                left().push(letter);
                failed.get_or_insert(error);
            }
            failed.map_or(Ok(()), Err)
        })
        .await
    }

    /// Writes one letter. Unavailable: it is not known to be there.
    async fn send(&self, letter: &Letter<'_>) -> Result<()> {
        let Letter { record, .. } = letter;
        let mut message = FutureRecord::<[u8], [u8]>::to(&self.name).headers(headers_of(letter));
        message.key = record.key;
        message.payload = record.value;
        let producer = self.producer()?;
        let sent = producer.send(message, self.timeout).await;
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
            self.name
        );
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                let size = record.bytes();
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

fn headers_of(letter: &Letter<'_>) -> OwnedHeaders {
    let Letter { record, reject, table } = letter;
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
    use rdkafka::message::{Headers, OwnedMessage};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{Message, Offset, TopicPartitionList};

    use super::*;
    use crate::decode::Reject;
    use crate::error::Kind;
    use crate::record::Records;
    use crate::source::mock::MockCluster;

    static REJECT: Reject = Reject { reason: "bad_json", message: String::new() };

    fn letter(records: &Records) -> Letter<'_> {
        Letter { record: records.get(0).unwrap(), reject: &REJECT, table: "t" }
    }

    fn topic(servers: &str, timeout: Duration) -> Topic {
        let connection = Connection::new(servers, &BTreeMap::new(), |_| None).unwrap();
        Topic::with_timeout(&connection, "dead".to_owned(), timeout).unwrap()
    }

    /// A reader of the dead letters from the first one on.
    fn reader(cluster: &MockCluster) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.servers())
            .set("group.id", "check")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("dead", 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        consumer
    }

    fn next(consumer: &BaseConsumer) -> OwnedMessage {
        loop {
            if let Some(message) = consumer.poll(Duration::from_secs(10)) {
                return message.unwrap().detach();
            }
        }
    }

    #[tokio::test]
    async fn a_dead_letter_is_the_record_and_why() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("dead", 1).unwrap();
        let topic = topic(cluster.servers(), DELIVERY_TIMEOUT);
        let (key, value) = (&b"\xff\x00key"[..], &b"{\"half\xc3"[..]);
        let own = [("a", Some(&b"\x01"[..])), ("a", None), ("b", Some(&b""[..]))];
        let mut records = Records::new("shop.public.orders".into(), 3, 0);
        records.push(77, Some(5), Some(key), Some(value), own);
        let reject = Reject { message: "value: not JSON".to_owned(), ..REJECT.clone() };
        let mut tombstone = Records::new(Arc::from("t"), 0, 0);
        tombstone.push(1, None, None, None, []);
        let first = Letter { reject: &reject, table: "shop_public.orders", ..letter(&records) };
        topic.write(&[first, letter(&tombstone)]).await.unwrap();

        let consumer = reader(&cluster);
        let message = next(&consumer);
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
        let message = next(&consumer);
        assert_eq!((message.key(), message.payload()), (None, None));
    }

    #[tokio::test]
    async fn what_the_caller_does_about_a_failure_is_in_its_kind() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("dead", 1).unwrap();
        let topic_of = |timeout| topic(cluster.servers(), timeout);
        let topic = topic_of(DELIVERY_TIMEOUT);
        let mut records = Records::new(Arc::from("t"), 0, 0);
        records.push(9, None, None, Some(b"secret row"), []);
        let letter = letter(&records);
        let fail = |error: RDKafkaRespErr| {
            cluster.with(move |c| c.request_errors(RDKafkaApiKey::Produce, &[error])).unwrap();
        };
        fail(RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
        let error = topic.write(&[letter]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        let report = error.report();
        assert!(report.contains("t[0] offset 9") && report.contains("too large"), "{report}");
        assert!(!report.contains("secret"), "{report}");

        fail(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        let error = topic.write(&[letter]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{}", error.report());

        topic.write(&[letter]).await.unwrap();

        let hasty = topic_of(Duration::from_secs(1));
        cluster.with(|c| c.broker_down(1)).unwrap().unwrap();
        let error = hasty.send(&letter).await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.report());
        cluster.with(|c| c.broker_up(1)).unwrap().unwrap();
        hasty.write(&[letter]).await.unwrap();
    }

    /// Records at offsets from 0 on.
    fn many(count: i64) -> Records {
        let mut records = Records::new(Arc::from("t"), 0, 0);
        for offset in 0..count {
            records.push(offset, None, None, Some(&offset.to_le_bytes()), []);
        }
        records
    }

    fn all(records: &Records) -> Vec<Letter<'_>> {
        records.iter().map(|record| Letter { record, reject: &REJECT, table: "t" }).collect()
    }

    #[tokio::test]
    async fn letters_do_not_wait_for_one_another() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("dead", 1).unwrap();
        let round_trip = Duration::from_millis(200);
        cluster.with(move |c| c.broker_round_trip_time(1, round_trip)).unwrap().unwrap();
        let topic = topic(cluster.servers(), DELIVERY_TIMEOUT);
        let records = many(200);
        let started = std::time::Instant::now();
        topic.write(&all(&records)).await.unwrap();
        // One by one, they would take 40 s.
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn every_letter_is_there_whatever_the_brokers_answered_before() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("dead", 1).unwrap();
        let topic = topic(cluster.servers(), Duration::from_secs(1));
        let records = many(20);
        cluster.with(|c| c.broker_down(1)).unwrap().unwrap();
        let letters = all(&records);
        let up = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cluster.with(|c| c.broker_up(1)).unwrap().unwrap();
        };
        let (written, ()) = tokio::join!(topic.write(&letters), up);
        written.unwrap();
        let consumer = reader(&cluster);
        let mut there = std::collections::BTreeSet::new();
        while there.len() < letters.len() {
            there.insert(next(&consumer).payload().unwrap().to_vec());
        }
    }
}
