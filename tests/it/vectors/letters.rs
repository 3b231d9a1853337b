//! The dead letters of all runs: one topic of a cluster in the process, read once at the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cdc_sink::dead_letter::DeadLetters;
use cdc_sink::source::mock::MockCluster;
use cdc_sink::source::properties::Connection;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const TOPIC: &str = "dead";

/// Where dead letters go.
pub(super) struct Letters {
    cluster: MockCluster,
    pub(super) sent: Arc<DeadLetters>,
}

impl Letters {
    pub(super) fn start() -> Self {
        let cluster = MockCluster::start(1).unwrap();
        cluster.create_topic(TOPIC, 1).unwrap();
        let connection = Connection::new(cluster.servers(), &BTreeMap::new(), |_| None).unwrap();
        let sent = Arc::new(DeadLetters::default().to_topic(&connection, TOPIC).unwrap());
        Self { cluster, sent }
    }

    /// `reason@partition:offset` by table.
    pub(super) fn read(&self) -> HashMap<String, Vec<String>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.servers())
            .set("group.id", "vectors")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut reasons: HashMap<String, Vec<String>> = HashMap::new();
        loop {
            match consumer.poll(Duration::from_secs(10)) {
                Some(Ok(message)) => {
                    let headers = message.headers().unwrap();
                    let text = |name: &str| {
                        let header = headers.iter().find(|header| header.key == name).unwrap();
                        String::from_utf8(header.value.unwrap().to_vec()).unwrap()
                    };
                    let letter = format!(
                        "{}@{}:{}",
                        text("cdc_sink.reason"),
                        text("__connect.errors.partition"),
                        text("__connect.errors.offset")
                    );
                    reasons.entry(text("cdc_sink.table")).or_default().push(letter);
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => panic!("{error}"),
                None => panic!("the dead letters cannot be read"),
            }
        }
        reasons
    }
}
