//! The source against librdkafka's mock brokers. Joining a group there takes some seconds, so tests share what they can
//! and run side by side.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use rstest::rstest;

mod anew;
mod away;
mod names;
mod unowned;

use super::*;
use crate::error::Kind;
use crate::position::TopicId;
use crate::source::mock::MockCluster;
use crate::source::{Event, Source, Start, Waiting};
use crate::testing::needed;

const PATIENCE: Duration = Duration::from_secs(40);

fn id(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

fn options(cluster: &MockCluster, group: &str, topics: &str) -> KafkaOptions {
    options_at(cluster.servers(), group, topics)
}

fn options_at(servers: &str, group: &str, topics: &str) -> KafkaOptions {
    let properties = BTreeMap::from(
        [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "300")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let topics = Topics::parse([topics]).unwrap();
    let mut options = KafkaOptions::new(servers, group, topics, &properties, |_| None).unwrap();
    options.metadata_refresh = Duration::from_millis(500);
    options.watermarks = Duration::from_millis(500);
    options
}

fn produce(servers: &str, topic: &str, partition: i32, values: impl Iterator<Item = String>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for value in values {
        let record =
            BaseRecord::<str, str>::to(topic).partition(partition).key("k").payload(&value);
        producer.send(record).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

/// A pipeline that keeps nothing but positions.
struct Reader {
    source: KafkaSource,
    stored: HashMap<TopicPartition, Start>,
    seen: HashMap<TopicPartition, Vec<i64>>,
    assigned: Vec<TopicPartition>,
    revocations: usize,
    reached: HashMap<TopicPartition, i64>,
    high: HashMap<TopicPartition, i64>,
    counts: HashMap<Arc<str>, i32>,
    failed: Vec<(TopicPartition, Error)>,
    /// Every wait for the brokers that was told, and its end.
    waits: Vec<Option<Waiting>>,
    missing: BTreeSet<String>,
    topic_ids: HashSet<Option<TopicId>>,
    /// Kinds of events, in order, of what tests look at.
    order: Vec<&'static str>,
}

impl Reader {
    fn new(options: KafkaOptions) -> Self {
        Self {
            source: KafkaSource::start(options).unwrap(),
            stored: HashMap::new(),
            seen: HashMap::new(),
            assigned: Vec::new(),
            revocations: 0,
            reached: HashMap::new(),
            high: HashMap::new(),
            counts: HashMap::new(),
            failed: Vec::new(),
            waits: Vec::new(),
            missing: BTreeSet::new(),
            topic_ids: HashSet::new(),
            order: Vec::new(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Assigned { partitions, start } => {
                let at =
                    |id: &TopicPartition| self.stored.get(id).copied().unwrap_or(Start::Beginning);
                let starts = partitions.iter().map(|id| (id.clone(), at(id))).collect();
                start.send(starts).unwrap();
                self.assigned.extend(partitions);
            }
            Event::Revoked { partitions, done } => {
                self.assigned.retain(|id| !partitions.contains(id));
                self.revocations += 1;
                done.send(()).unwrap_or_default();
            }
            Event::Records(records) => {
                self.order.push("records");
                self.topic_ids.insert(records.topic_id());
                let id = id(records.topic(), records.partition());
                assert!(self.assigned.contains(&id), "{id} is not ours");
                let reached = self.reached.get(&id).copied().unwrap_or_default();
                assert!(
                    records.iter().all(|r| r.offset >= reached),
                    "{id} was at {reached} already"
                );
                self.seen.entry(id).or_default().extend(records.iter().map(|r| r.offset));
            }
            Event::Reached { partition, position } => {
                self.reached.insert(partition, position);
            }
            Event::Watermarks { partition, high, .. } => {
                self.order.push("watermarks");
                self.high.insert(partition, high);
            }
            Event::PartitionFailed { partition, error } => self.failed.push((partition, error)),
            Event::Partitions { topic, count } => {
                assert!(self.assigned.iter().any(|id| id.topic == topic && id.partition < count));
                self.counts.insert(topic, count);
            }
            Event::Waiting(waiting) => self.waits.push(waiting),
            Event::Missing(topics) => self.missing = topics,
            Event::Failed(error) => panic!("{}", error.report()),
        }
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < until,
                "{:?} {:?} {:?}",
                self.assigned,
                self.reached,
                self.failed
            );
            if let Ok(event) =
                tokio::time::timeout(Duration::from_millis(100), self.source.next()).await
            {
                self.take(event);
            }
        }
    }

    async fn run_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if let Ok(event) = tokio::time::timeout(left, self.source.next()).await {
                self.take(event);
            }
        }
    }

    fn reached(&self, id: &TopicPartition, position: i64) -> bool {
        self.reached.get(id) == Some(&position)
    }
}

fn committed(cluster: &MockCluster, group: &str, id: &TopicPartition) -> Offset {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.servers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&id.topic, id.partition);
    let list = consumer.committed_offsets(list, PATIENCE).unwrap();
    list.find_partition(&id.topic, id.partition).unwrap().offset()
}

#[tokio::test]
async fn reading_starts_where_the_tables_are_and_new_topics_join() {
    let cluster = MockCluster::start(1).unwrap();
    for topic in ["shop.a", "shop.b", "other"] {
        cluster.create_topic(topic, 2).unwrap();
        produce(cluster.servers(), topic, 0, numbers(100));
    }
    let mut reader = Reader::new(options(&cluster, "g", "shop.*,^extra[0-9]$"));
    reader.stored.insert(id("shop.a", 0), Start::at(60));
    reader.stored.insert(id("shop.b", 0), Start::at(5000));
    reader.until(|r| r.reached(&id("shop.a", 0), 100) && !r.failed.is_empty()).await;
    reader.until(|r| r.reached(&id("shop.a", 1), 0)).await;

    assert_eq!(reader.seen[&id("shop.a", 0)], (60..100).collect::<Vec<_>>());
    assert_eq!(reader.order[0], "watermarks", "watermarks come before records");
    reader.until(|r| r.counts.get("shop.a") == Some(&2)).await;
    assert_eq!(reader.high[&id("shop.a", 0)], 100);
    let (failed, error) = &reader.failed[0];
    assert_eq!((failed, error.kind()), (&id("shop.b", 0), Kind::Data));
    let report = error.report();
    for part in ["shop.b[0]", "offset 5000", "from 0 to 100"] {
        assert!(report.contains(part), "{report}");
    }

    // Where the table is, Kafka is told at the start; but not of a position that the log does not have.
    let (shop_a, shop_b) = (id("shop.a", 0), id("shop.b", 0));
    reader.until(|_| committed(&cluster, "g", &shop_a) == Offset::Offset(60)).await;
    assert_eq!(committed(&cluster, "g", &shop_b), Offset::Invalid);

    // A topic that appears later, and acknowledged offsets, which only ever are those of partitions we own.
    cluster.create_topic("extra1", 1).unwrap();
    produce(cluster.servers(), "extra1", 0, numbers(10));
    reader.source.control.acknowledge(id("shop.a", 0), 80);
    reader.source.control.acknowledge(id("other", 0), 7);
    reader.until(|r| r.reached(&id("extra1", 0), 10)).await;
    assert!(!reader.assigned.contains(&id("other", 0)));
    // Refused during the rebalance, and sent again.
    reader.until(|_| committed(&cluster, "g", &shop_a) == Offset::Offset(80)).await;
    assert_eq!(committed(&cluster, "g", &id("other", 0)), Offset::Invalid);

    // What is acknowledged last is in the group when the source is closed, and closing takes its time at most.
    reader.source.control.acknowledge(id("shop.a", 0), 100);
    let began = Instant::now();
    reader.source.close().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(committed(&cluster, "g", &id("shop.a", 0)), Offset::Offset(100));
}

#[tokio::test]
async fn a_held_partition_and_a_slow_reader_lose_nothing_and_starve_nobody() {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("t", 2).unwrap();
    let value = |number: usize| format!("{number:01000}");
    produce(cluster.servers(), "t", 0, (0..3000).map(value));
    produce(cluster.servers(), "t", 1, (0..3000).map(value));
    let mut options = options(&cluster, "g", "t");
    options.memory = 1024 * 1024;
    let mut reader = Reader::new(options);
    // Until the channel and the queues are full, and longer than the session.
    reader.until(|r| !r.assigned.is_empty()).await;
    reader.source.hold(&id("t", 0), true);
    tokio::time::sleep(Duration::from_secs(7)).await;
    reader.until(|r| r.reached(&id("t", 1), 3000)).await;
    assert_eq!(reader.seen[&id("t", 1)], (0..3000).collect::<Vec<_>>());
    assert!(!reader.seen.contains_key(&id("t", 0)));
    reader.source.hold(&id("t", 0), false);
    reader.until(|r| r.reached(&id("t", 0), 3000)).await;
    assert_eq!(reader.seen[&id("t", 0)], (0..3000).collect::<Vec<_>>());
    reader.source.close().await;
}

#[tokio::test]
async fn two_members_share_the_partitions_and_each_record_has_one_reader() {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("t", 4).unwrap();
    share(cluster.servers(), "t").await;
}

#[tokio::test]
async fn two_members_share_the_partitions_of_a_real_broker() {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let topic = format!("cdc-sink-test-{}.shared", std::process::id());
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let patience = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let new = NewTopic::new(&topic, 4, TopicReplication::Fixed(1));
    admin.create_topics([&new], &patience).await.unwrap();
    share(&servers, &topic).await;
    admin.delete_topics(&[&topic], &patience).await.unwrap();
}

/// Two members share four partitions of `topic`, then one leaves.
async fn share(servers: &str, topic: &str) {
    for partition in 0..4 {
        produce(servers, topic, partition, numbers(50));
    }
    let all: Vec<_> = (0..4).map(|partition| id(topic, partition)).collect();
    let mut first = Reader::new(options_at(servers, topic, topic));
    first.until(|r| all.iter().all(|id| r.reached(id, 50))).await;
    let mut second = Reader::new(options_at(servers, topic, topic));
    for id in &all {
        first.stored.insert(id.clone(), Start::at(50));
        second.stored.insert(id.clone(), Start::at(50));
    }
    let until = Instant::now() + PATIENCE;
    while (first.assigned.len(), second.assigned.len()) != (2, 2) {
        assert!(Instant::now() < until, "{:?} {:?}", first.assigned, second.assigned);
        tokio::join!(
            first.run_for(Duration::from_millis(100)),
            second.run_for(Duration::from_millis(100))
        );
    }
    assert!(second.seen.is_empty(), "{:?}", second.seen);
    for partition in 0..4 {
        produce(servers, topic, partition, numbers(10));
    }
    let read = |r: &Reader| r.assigned.iter().all(|id| r.reached(id, 60));
    let (a, b) = tokio::join!(
        async {
            first.until(read).await;
            first
        },
        async {
            second.until(read).await;
            second
        },
    );
    first = a;
    second = b;
    let new = 50..60;
    for id in &all {
        let of = |r: &Reader| -> Vec<i64> {
            let seen = r.seen.get(id).into_iter().flatten().copied();
            seen.filter(|offset| new.contains(offset)).collect()
        };
        let owner = if first.assigned.contains(id) { &first } else { &second };
        let other = if first.assigned.contains(id) { &second } else { &first };
        assert_eq!(of(owner), new.clone().collect::<Vec<_>>());
        assert_eq!(of(other), Vec::<i64>::new());
    }
    // The one that stays takes over what the other leaves.
    second.source.close().await;
    first.stored = all.iter().map(|id| (id.clone(), Start::at(60))).collect();
    first.until(|r| r.assigned.len() == 4 && all.iter().all(|id| r.reached(id, 60))).await;
    first.source.close().await;
}

#[tokio::test]
async fn a_cluster_that_is_down_is_waited_for() {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("t", 1).unwrap();
    produce(cluster.servers(), "t", 0, numbers(5));
    cluster.with(|c| c.broker_down(1)).unwrap().unwrap();
    let mut options = options(&cluster, "g", "t");
    options.close_wait = Duration::from_secs(3);
    let mut reader = Reader::new(options);
    reader.run_for(Duration::from_secs(2)).await;
    assert!(reader.assigned.is_empty());
    cluster.with(|c| c.broker_up(1)).unwrap().unwrap();
    reader.until(|r| r.reached(&id("t", 0), 5)).await;
    // Down again: nothing ends, and closing is bounded though no broker answers.
    cluster.with(|c| c.broker_down(1)).unwrap().unwrap();
    reader.run_for(Duration::from_secs(1)).await;
    reader.source.control.acknowledge(id("t", 0), 5);
    let began = Instant::now();
    reader.source.close().await;
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_topic_that_may_not_be_read_fails_alone() {
    let cluster = MockCluster::start(1).unwrap();
    for topic in ["good", "bad"] {
        cluster.create_topic(topic, 1).unwrap();
        produce(cluster.servers(), topic, 0, numbers(5));
    }
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.with(move |c| c.topic_error("bad", denied)).unwrap().unwrap();
    let mut reader = Reader::new(options(&cluster, "g", "*"));
    reader.until(|r| r.reached(&id("good", 0), 5)).await;
    reader.source.close().await;
    // Errors of one request pass.
    let not_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.with(move |c| c.request_errors(RDKafkaApiKey::Fetch, &[not_leader; 3])).unwrap();
    let mut reader = Reader::new(options(&cluster, "g2", "good"));
    reader.until(|r| r.reached(&id("good", 0), 5)).await;
    assert!(reader.failed.is_empty());
    reader.source.close().await;
}

#[tokio::test]
async fn what_a_rebalance_drops_from_a_queue_is_not_passed_over() {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("t", 2).unwrap();
    let both = [id("t", 0), id("t", 1)];
    both.iter().for_each(|id| produce(cluster.servers(), "t", id.partition, numbers(5)));
    let mut first = Reader::new(options(&cluster, "g", "t"));
    first.until(|r| both.iter().all(|id| r.reached(id, 5))).await;
    for id in &both {
        first.source.hold(id, true);
        produce(cluster.servers(), "t", id.partition, numbers(5));
    }
    // Time for the records to come into the queues, and for the statistics to tell of them.
    first.run_for(Duration::from_millis(2500)).await;

    let _second = Reader::new(options(&cluster, "g", "t"));
    let (revoked, done) = loop {
        match first.source.next().await {
            Event::Revoked { partitions, done } => break (partitions, done),
            event => first.take(event),
        }
    };
    // The queues are empty now, and are not filled before the answer.
    both.iter().for_each(|id| first.source.hold(id, false));
    first.run_for(Duration::from_millis(1500)).await;
    first.assigned.retain(|id| !revoked.contains(id));
    done.send(()).unwrap();
    let kept = first.assigned[0].clone();
    first.until(|r| r.reached(&kept, 10)).await;
    assert_eq!(first.seen[&kept], (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_offer_without_an_answer_comes_again() {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("t", 2).unwrap();
    produce(cluster.servers(), "t", 0, numbers(5));
    produce(cluster.servers(), "t", 1, numbers(5));
    let mut source = KafkaSource::start(options(&cluster, "g", "t")).unwrap();
    let Event::Assigned { mut partitions, start } = source.next().await else { panic!() };
    partitions.sort();
    assert_eq!(partitions, [id("t", 0), id("t", 1)]);
    start.send(HashMap::from([(id("t", 0), Start::Beginning)])).unwrap();
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut reached = Vec::new();
    while reached.len() < 2 {
        match tokio::time::timeout_at(until, source.next()).await.unwrap() {
            Event::Assigned { partitions, start } => {
                assert_eq!((&partitions[..], &reached[..]), (&[id("t", 1)][..], &[id("t", 0)][..]));
                start.send(HashMap::from([(id("t", 1), Start::at(3))])).unwrap();
            }
            Event::Reached { partition, position } => {
                assert_eq!(position, 5);
                reached.push(partition);
            }
            Event::Records(records) => {
                let first = if records.partition() == 0 { 0 } else { 3 };
                assert_eq!(records.get(0).unwrap().offset, first);
            }
            _ => {}
        }
    }
    drop(source);
}

#[tokio::test]
async fn many_more_partitions_than_memory_was_divided_for() {
    let cluster = MockCluster::start(1).unwrap();
    let topic = |name: &str, partitions| {
        cluster.create_topic(name, partitions).unwrap();
        (0..partitions)
            .for_each(|partition| produce(cluster.servers(), name, partition, numbers(1)));
    };
    topic("t1", 2);
    let mut options = options(&cluster, "g", "t*");
    options.memory = 16 * 1024 * 1024;
    let mut reader = Reader::new(options);
    let all = |topic: &'static str, count| (0..count).map(move |partition| id(topic, partition));
    reader.until(|r| all("t1", 2).all(|id| r.reached(&id, 1))).await;
    reader.stored.extend(all("t1", 2).map(|id| (id, Start::at(1))));
    topic("t2", 40);
    reader.until(|r| all("t2", 40).all(|id| r.reached(&id, 1))).await;
    reader.until(|r| r.assigned.len() == 42).await;
    assert_eq!(reader.revocations, 1, "everything was given back once");
    assert_eq!(reader.seen.values().map(Vec::len).sum::<usize>(), 42);
    reader.source.close().await;
}

#[test]
fn options_show_no_secret_and_refuse_what_is_missing() {
    let topics = || Topics::parse(["t"]).unwrap();
    let none = BTreeMap::new();
    assert!(KafkaOptions::new("", "g", topics(), &none, |_| None).is_err());
    assert!(KafkaOptions::new("localhost:9092", " ", topics(), &none, |_| None).is_err());
    let secret = BTreeMap::from([("sasl.password".to_owned(), "${env:P}".to_owned())]);
    let options =
        KafkaOptions::new("localhost:9092", "g", topics(), &secret, |_| Some("canary".into()));
    assert!(!format!("{:?}", options.unwrap()).contains("canary"));
}

/// What the mock brokers cannot do: transactions, deleted records, more partitions. Needs a broker that nobody minds.
#[tokio::test]
async fn gaps_and_growth_on_a_real_broker() {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let prefix = format!("cdc-sink-test-{}", std::process::id());
    let (gaps, cut) = (format!("{prefix}.gaps"), format!("{prefix}.cut"));
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let patience = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let topic = |name| NewTopic::new(name, 1, TopicReplication::Fixed(1));
    admin.create_topics([&topic(&gaps), &topic(&cut)], &patience).await.unwrap();

    let transaction = |id: &str| -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .set("transactional.id", format!("{prefix}-{id}"))
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer
    };
    let send = |producer: &BaseProducer, topic: &str, count: usize| {
        for number in numbers(count) {
            producer.send(BaseRecord::<str, str>::to(topic).payload(&number)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    };
    // 0..10 and a marker, 11..16 aborted and a marker, 17..20 open.
    let producer = transaction("a");
    send(&producer, &gaps, 10);
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &gaps, 5);
    producer.abort_transaction(PATIENCE).unwrap();
    let open = transaction("b");
    send(&open, &gaps, 3);
    send(&ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap(), &cut, 10);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&cut, 0, Offset::Offset(6)).unwrap();
    admin.delete_records(&list, &patience).await.unwrap();

    let mut reader = Reader::new(options_at(&servers, &prefix, &format!("{prefix}.*")));
    reader.stored.insert(id(&cut, 0), Start::at(2));
    reader.until(|r| r.reached(&id(&gaps, 0), 17) && !r.failed.is_empty()).await;
    assert_eq!(reader.seen[&id(&gaps, 0)], (0..10).collect::<Vec<_>>());
    assert_eq!(reader.high[&id(&gaps, 0)], 17, "the last stable offset");
    let report = reader.failed[0].1.report();
    assert!(report.contains("offset 2") && report.contains("from 6 to 10"), "{report}");

    open.commit_transaction(PATIENCE).unwrap();
    reader.until(|r| r.reached(&id(&gaps, 0), 21)).await;
    assert_eq!(reader.seen[&id(&gaps, 0)][10..], [17, 18, 19]);

    // New partitions are told, and read from their beginning.
    reader.until(|r| r.counts.get(&*gaps) == Some(&1)).await;
    let more = NewPartitions::new(&gaps, 3);
    admin.create_partitions([&more], &patience).await.unwrap();
    reader.until(|r| r.reached(&id(&gaps, 2), 0)).await;
    reader.until(|r| r.counts.get(&*gaps) == Some(&3)).await;
    let began = Instant::now();
    reader.source.close().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    // At the end of the log, past the gap, and at the beginning of one that lost its first records.
    let mut reader = Reader::new(options_at(&servers, &prefix, &format!("{prefix}.*")));
    reader.stored.insert(id(&gaps, 0), Start::at(21));
    reader.until(|r| r.reached(&id(&gaps, 0), 21) && r.reached(&id(&cut, 0), 10)).await;
    assert!(!reader.seen.contains_key(&id(&gaps, 0)));
    assert_eq!(reader.seen[&id(&cut, 0)], [6, 7, 8, 9]);
    reader.source.close().await;
    admin.delete_topics(&[&gaps, &cut], &patience).await.unwrap();
}
