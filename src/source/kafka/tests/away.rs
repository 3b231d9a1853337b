//! Brokers and topics that are not there.

use super::*;

#[tokio::test]
async fn brokers_that_are_away_are_told_until_one_answers() {
    let cluster = MockCluster::start(2).unwrap();
    cluster.create_topic("t", 1).unwrap();
    produce(cluster.servers(), "t", 0, numbers(5));
    let down = |broker| cluster.with(move |c| c.broker_down(broker)).unwrap().unwrap();
    let up = |broker| cluster.with(move |c| c.broker_up(broker)).unwrap().unwrap();
    let mut reader = Reader::new(options(&cluster, "g", "t"));
    reader.until(|r| r.reached(&id("t", 0), 5)).await;
    assert_eq!(reader.waits, []);
    reader.stored.insert(id("t", 0), Start::at(5));

    let gone = Instant::now();
    (1..=2).for_each(down);
    reader.until(|r| !r.waits.is_empty()).await;
    let waiting = reader.waits.remove(0).unwrap();
    let address = cluster.servers().split(',').next().unwrap().split(':').next().unwrap();
    assert!(waiting.reason.starts_with("no broker answers of "), "{}", waiting.reason);
    assert!(waiting.reason.contains(&format!("{address}:")), "{}", waiting.reason);
    assert!(waiting.since >= gone && waiting.since.duration_since(gone) < gone.elapsed());
    // It is told once.
    reader.run_for(Duration::from_secs(3)).await;
    assert_eq!(reader.waits, []);

    (1..=2).for_each(up);
    reader.until(|r| !r.waits.is_empty()).await;
    assert_eq!(reader.waits, [None]);
    produce(cluster.servers(), "t", 0, numbers(5));
    reader.until(|r| r.reached(&id("t", 0), 10)).await;
    reader.source.close().await;
}

#[tokio::test]
async fn a_topic_that_is_named_is_missing_until_it_is_made() {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("there", 1).unwrap();
    let mut reader = Reader::new(options(&cluster, "g", "there,late,pattern.*"));
    reader.until(|r| r.missing == BTreeSet::from(["late".to_owned()])).await;
    cluster.create_topic("late", 1).unwrap();
    produce(cluster.servers(), "late", 0, numbers(5));
    reader.until(|r| r.missing.is_empty() && r.reached(&id("late", 0), 5)).await;
    reader.source.close().await;
}

/// The mock brokers cannot delete a topic.
#[rstest]
#[case::that_is_named("named", "")]
#[case::of_a_pattern("pattern", ".*")]
#[tokio::test]
async fn a_topic_that_is_deleted_is_missing(#[case] name: &str, #[case] rest: &str) {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let prefix = format!("cdc-sink-test-{}.gone-{name}", std::process::id());
    let topic = if rest.is_empty() { prefix.clone() } else { format!("{prefix}.a") };
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let patience = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
    admin.create_topics([&new], &patience).await.unwrap();
    produce(&servers, &topic, 0, numbers(5));
    let mut reader = Reader::new(options_at(&servers, &prefix, &format!("{prefix}{rest}")));
    reader.until(|r| r.reached(&id(&topic, 0), 5)).await;
    assert_eq!(reader.missing, BTreeSet::new());
    admin.delete_topics(&[&*topic], &patience).await.unwrap();
    reader.until(|r| r.missing.contains(&topic)).await;
    assert!(reader.failed.is_empty(), "{:?}", reader.failed);
    reader.source.close().await;
}
