//! A Kafka cluster inside the process: librdkafka's mock brokers, for `cdc-sink demo` and for tests.
//!
//! It speaks Kafka's protocol on local ports, so everything but the broker is the product. Its limits: a partition keeps
//! its newest 5 MiB or 100,000 records and forgets older ones silently; partitions cannot be added; a rebalance takes 3 to
//! 5 seconds; aborted transactions are delivered; nothing is on disk. A [`Feeder`] therefore never runs further ahead
//! of the reader than the cluster keeps: it is told what was read and waits.

use std::collections::HashMap;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster as Brokers;
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, DeliveryResult, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::watch;

use super::quiet::Quiet;
use crate::error::{Error, Result};
use crate::position::TopicPartition;

/// Bytes of one partition that are sure to be kept.
const KEPT_BYTES: u64 = 4 * 1024 * 1024;
/// Records of one partition that are sure to be kept.
const KEPT_RECORDS: i64 = 90_000;

type Brought = Brokers<'static, DefaultProducerContext>;
type Task = Box<dyn FnOnce(&Brought) + Send>;

/// The brokers; they end when this is dropped.
#[derive(Debug)]
pub struct MockCluster {
    servers: String,
    tasks: mpsc::Sender<Task>,
}

impl MockCluster {
    /// Starts `brokers` of them.
    pub fn start(brokers: i32) -> Result<Self> {
        let (tasks, task) = mpsc::channel::<Task>();
        let (started, start) = mpsc::sync_channel(1);
        // The native handle stays on one thread.
        let serve = move || match Brokers::new(brokers) {
            Ok(cluster) => {
                if started.send(Ok(cluster.bootstrap_servers())).is_ok() {
                    task.iter().for_each(|task| task(&cluster));
                }
            }
            Err(error) => drop(started.send(Err(error))),
        };
        thread::Builder::new()
            .name("mock-kafka".into())
            .spawn(serve)
            .map_err(|error| Error::internal("a thread cannot be started").because(error))?;
        match start.recv() {
            Ok(Ok(servers)) => Ok(Self { servers, tasks }),
            Ok(Err(error)) => Err(failed("start").because(error)),
            Err(_) => Err(failed("start")),
        }
    }

    /// The bootstrap servers.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let topic = topic.to_owned();
        let what = format!("make topic {topic}");
        self.with(move |cluster| cluster.create_topic(&topic, partitions, 1))?
            .map_err(|error| failed(&what).because(error))
    }

    /// Calls `f` with librdkafka's handle, to inject what tests need.
    pub fn with<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Brokers<'static, DefaultProducerContext>) -> R + Send + 'static,
    ) -> Result<R> {
        let (answer, answered) = mpsc::sync_channel(1);
        let task = Box::new(move |cluster: &Brought| drop(answer.send(f(cluster))));
        self.tasks.send(task).map_err(|_| failed("reach"))?;
        answered.recv().map_err(|_| failed("reach"))
    }

    /// A producer that stays within what the cluster keeps. `read` tells the next offset that its reader needs, of
    /// each partition; one that is absent was not read at all.
    pub fn feeder(&self, read: watch::Receiver<HashMap<TopicPartition, i64>>) -> Result<Feeder> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("linger.ms", "5")
            .set("enable.idempotence", "true")
            .create_with_context(Deliveries::default())
            .map_err(|error| failed("make a producer for").because(error))?;
        Ok(Feeder { producer, read, sent: HashMap::new() })
    }
}

fn failed(what: &str) -> Error {
    Error::internal(format!("cannot {what} the embedded Kafka cluster"))
}

/// One record to produce.
#[derive(Debug, Clone, Copy)]
pub struct Produced<'a> {
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Name and value pairs.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Milliseconds since the epoch; none is now.
    pub timestamp_ms: Option<i64>,
}

/// Produces no faster than its reader reads. The only producer of its partitions.
pub struct Feeder {
    producer: ThreadedProducer<Deliveries>,
    read: watch::Receiver<HashMap<TopicPartition, i64>>,
    sent: HashMap<TopicPartition, Sent>,
}

/// Notes the first record that did not get there.
#[derive(Debug, Default)]
struct Deliveries {
    failed: OnceLock<KafkaError>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // Only the first one is kept.
            self.failed.set(error.clone()).unwrap_or_default();
        }
    }
}

/// What of a partition the cluster must still keep.
#[derive(Debug, Default)]
struct Sent {
    next: i64,
    /// Sizes of the records from the reader's position to `next`.
    sizes: std::collections::VecDeque<u64>,
    bytes: u64,
}

impl std::fmt::Debug for Feeder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feeder").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Feeder {
    /// Produces one record; waits while the reader is too far behind. An error when the reader is gone.
    pub async fn send(&mut self, to: &TopicPartition, record: Produced<'_>) -> Result<()> {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers: usize =
            record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let size = length(record.key) + length(record.value) + headers + 100;
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        self.wait_for_room(to, size).await?;
        while !self.try_send(to, record)? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let sent = self.sent.entry(to.clone()).or_default();
        sent.next += 1;
        sent.bytes += size;
        sent.sizes.push_back(size);
        Ok(())
    }

    async fn wait_for_room(&mut self, to: &TopicPartition, size: u64) -> Result<()> {
        loop {
            let read = self.read.borrow_and_update().get(to).copied().unwrap_or(0);
            let sent = self.sent.entry(to.clone()).or_default();
            let kept = |sent: &Sent| i64::try_from(sent.sizes.len()).unwrap_or(i64::MAX);
            while sent.next - kept(sent) < read
                && let Some(size) = sent.sizes.pop_front()
            {
                sent.bytes -= size;
            }
            let fits = sent.bytes + size <= KEPT_BYTES && kept(sent) < KEPT_RECORDS;
            if fits || sent.sizes.is_empty() {
                return Ok(());
            }
            self.read.changed().await.map_err(|_| {
                Error::unavailable(format!(
                    "nobody reads {to} of the embedded Kafka cluster any more"
                ))
            })?;
        }
    }

    fn check(&self) -> Result<()> {
        match self.producer.context().failed.get() {
            None => Ok(()),
            Some(error) => Err(failed("produce to").because(error.clone())),
        }
    }

    fn try_send(&self, to: &TopicPartition, record: Produced<'_>) -> Result<bool> {
        self.check()?;
        let mut base = BaseRecord::<[u8], [u8]>::to(&to.topic).partition(to.partition);
        base.key = record.key;
        base.payload = record.value;
        base.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in record.headers {
                headers = headers.insert(Header { key, value: Some(*value) });
            }
            base.headers = Some(headers);
        }
        match self.producer.send(base) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => {
                Err(Error::internal(format!("cannot produce to {to}")).because(error))
            }
        }
    }

    /// Waits until everything is in the cluster. An error when something is not.
    pub async fn flush(&self) -> Result<()> {
        for _ in 0..600 {
            if self.producer.in_flight_count() == 0 {
                return self.check();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(failed("flush what was produced to"))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};

    use super::*;

    #[tokio::test]
    async fn a_feeder_waits_for_its_reader() {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic("t", 2).unwrap();
        let (reader, read) = watch::channel(HashMap::new());
        let mut feeder = cluster.feeder(read).unwrap();
        let [slow, other] = [0, 1].map(|partition| TopicPartition { topic: "t".into(), partition });
        let value = vec![b'x'; 1000];
        let record = Produced {
            key: None,
            value: Some(&value),
            headers: &[("h", b"v")],
            timestamp_ms: Some(7),
        };
        let soon = Duration::from_millis(200);
        let mut sent = 0;
        while tokio::time::timeout(soon, feeder.send(&slow, record)).await.is_ok() {
            sent += 1;
        }
        assert!((3000..5000).contains(&sent), "{sent} records of 1,000 bytes in 4 MiB");
        tokio::time::timeout(soon, feeder.send(&other, record)).await.unwrap().unwrap();
        reader.send(HashMap::from([(slow.clone(), 1000)])).unwrap();
        let mut more = 0;
        while tokio::time::timeout(soon, feeder.send(&slow, record)).await.is_ok() {
            more += 1;
        }
        assert!((990..=1010).contains(&more), "{more} records in the place of 1,000");
        feeder.flush().await.unwrap();
        drop(reader);
        assert!(feeder.send(&slow, record).await.unwrap_err().is_retryable());

        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", cluster.servers()).create().unwrap();
        let kept = client.fetch_watermarks("t", 0, Duration::from_secs(5)).unwrap();
        assert!(kept.0 <= 1000 && kept.1 == sent + more, "{kept:?}");
    }
}
