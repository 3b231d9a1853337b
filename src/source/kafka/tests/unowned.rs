//! Partitions that a static member gave back, and nobody took.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use super::*;

/// While `a` gives half of its partitions to `b`, another process comes in its name: the broker tells it what `a` kept,
/// and divides nothing. Sooner than the next rebalance somebody reads the other half.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_static_member_gave_back_when_it_ended_is_read_by_others() {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let topic = format!("cdc-sink-test-{}.unowned", std::process::id());
    let admin = ClientConfig::new().set("bootstrap.servers", &servers).create();
    let admin: AdminClient<_> = admin.unwrap();
    let patience = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let new = NewTopic::new(&topic, 4, TopicReplication::Fixed(1));
    for created in admin.create_topics([&new], &patience).await.unwrap() {
        created.unwrap();
    }
    (0..4).for_each(|partition| produce(&servers, &topic, partition, numbers(1)));
    let member = |name: &str| {
        let mut options = options_at(&servers, &topic, &topic);
        let properties = [
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "300"),
            ("group.instance.id", name),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        options.connection =
            Connection::new(&servers, &BTreeMap::from(properties), |_| None).unwrap();
        Reader::new(options)
    };
    let reached = |r: &Reader| r.reached.values().filter(|at| **at == 1).count();
    let mut a = member("a");
    a.until(|r| reached(r) == 4).await;
    let mut b = member("b");
    // Long enough for `a` to be told of the rebalance, and short of the time in which it must have given partitions back.
    b.run_for(Duration::from_secs(3)).await;
    assert_eq!((reached(&b), a.revocations), (0, 0));
    let mut again = member("a");
    again.until(|r| reached(r) == 2).await;
    b.until(|r| reached(r) == 2).await;
    let mut all: Vec<_> = again.reached.keys().chain(b.reached.keys()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:?}");
    again.source.close().await;
    b.source.close().await;
    drop(a);
    admin.delete_topics(&[&*topic], &patience).await.unwrap();
}
