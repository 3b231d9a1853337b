//! Topics that are deleted and made again, and what tells that.

use super::*;
use crate::clock::Clock;
use crate::source::offsets;

/// A topic on a real broker that can be made anew.
struct Topic {
    name: String,
    servers: String,
    admin: AdminClient<rdkafka::client::DefaultClientContext>,
    producer: BaseProducer,
}

impl Topic {
    async fn create(servers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers);
        let topic = Self {
            name: format!("cdc-sink-test-{}.anew", std::process::id()),
            servers: servers.to_owned(),
            admin: config.create().unwrap(),
            producer: config.create().unwrap(),
        };
        topic.make().await;
        topic
    }

    async fn make(&self) {
        let new = NewTopic::new(&self.name, 1, TopicReplication::Fixed(1));
        let patience = AdminOptions::new();
        while self.admin.create_topics([&new], &patience).await.unwrap()[0].is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn delete(&self) {
        self.admin.delete_topics(&[&*self.name], &AdminOptions::new()).await.unwrap();
    }

    /// Sends a record of each timestamp.
    fn send(&self, timestamps: std::ops::Range<i64>) {
        for timestamp in timestamps {
            let record = BaseRecord::<str, str>::to(&self.name).payload("1").timestamp(timestamp);
            self.producer.send(record).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    async fn id(&self) -> TopicId {
        let connection = Connection::new(&self.servers, &BTreeMap::new(), |_| None).unwrap();
        offsets(connection, self.name.clone(), 0).await.unwrap().topic_id.unwrap()
    }

    fn reader(&self, group: &str, start: Start) -> Reader {
        let group = format!("{}{group}", self.name);
        let mut reader = Reader::new(options_at(&self.servers, &group, &self.name));
        reader.stored.insert(id(&self.name, 0), start);
        reader
    }
}

/// A topic that is made anew is another one, though it has more records than were read before.
#[tokio::test]
async fn a_topic_made_anew_is_not_read_on() {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let topic = Topic::create(&servers).await;
    let (now, at) = (Clock::system().now_millis() - 120_000, id(&topic.name, 0));
    topic.send(now..now + 5);
    let old = topic.id().await;
    let start = |position, topic_id, newest_ms| Start::At { position, topic_id, newest_ms };
    let mut same = topic.reader("a", start(3, None, Some(now + 2)));
    same.until(|r| r.reached(&at, 5)).await;
    assert_eq!((&same.seen[&at][..], same.failed.len()), (&[3, 4][..], 0));
    assert_eq!(same.topic_ids, HashSet::from([Some(old)]));
    same.stored.insert(at.clone(), start(5, Some(old), Some(now + 4)));

    topic.delete().await;
    topic.make().await;
    topic.send(now + 60_000..now + 60_030);
    let new = topic.id().await;
    assert_ne!(new, old);
    // By its id, whatever its timestamps are; and where that is not known by its timestamps.
    for (group, start, why) in [
        ("b", start(5, Some(old), Some(now + 100_000)), new.to_string()),
        ("c", start(5, None, Some(now + 4)), "are newer".to_owned()),
    ] {
        let mut another = topic.reader(group, start);
        another.until(|r| !r.failed.is_empty()).await;
        let report = another.failed[0].1.report();
        assert!(report.contains("from offset 5"), "{report}");
        assert!(report.contains(&why), "{report}");
        assert!(!another.seen.contains_key(&at), "{:?}", another.seen);
        another.source.close().await;
    }
    // Of the same id, it is read on whatever its timestamps are.
    let mut known = topic.reader("d", start(5, Some(new), Some(now + 4)));
    known.until(|r| r.reached(&at, 30)).await;
    known.source.close().await;
    // Who was reading it meanwhile notices a little later.
    same.until(|r| !r.failed.is_empty()).await;
    assert!(same.failed[0].1.report().contains(&old.to_string()), "{:?}", same.failed);
    same.source.close().await;
    topic.delete().await;
}
