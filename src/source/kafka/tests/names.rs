//! What becomes of a static member whose name another takes.

use super::*;

/// Two instances under one name: the broker lets the newer one go on, and the older one must stop.
#[tokio::test]
async fn a_name_that_is_taken_over_ends_the_source() {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let topic = format!("cdc-sink-test-{}.name", std::process::id());
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    producer.send(BaseRecord::<str, str>::to(&topic).payload("1")).unwrap();
    producer.flush(PATIENCE).unwrap();
    let start = || {
        let mut properties = BTreeMap::new();
        properties.insert("group.instance.id".to_owned(), "one".to_owned());
        let topics = Topics::parse([&topic]).unwrap();
        let options = KafkaOptions::new(&servers, &topic, topics, &properties, |_| None).unwrap();
        Reader::new(options)
    };
    let mut older = start();
    older.until(|r| r.reached(&id(&topic, 0), 1)).await;
    let mut newer = start();
    newer.stored.insert(id(&topic, 0), Start::at(1));
    let ended = async {
        loop {
            match older.source.next().await {
                Event::Failed(error) => return error,
                event => older.take(event),
            }
        }
    };
    let (error, ()) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(ended, newer.until(|r| r.reached(&id(&topic, 0), 1)))
    })
    .await
    .unwrap();
    assert_eq!(error.kind(), Kind::Fenced, "{}", error.report());
    newer.source.close().await;
    older.source.close().await;
}

/// The name of a member without partitions is taken: for a moment, as by its own offsets after it was cut off, or for good.
#[rstest]
#[case::for_a_moment(Duration::from_secs(2), true)]
#[case::for_good(Duration::from_secs(15), false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_member_without_partitions_waits_for_its_name(
    #[case] taken_for: Duration,
    #[case] joins: bool,
) {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let topic = format!("cdc-sink-test-{}.fenced-{joins}", std::process::id());
    let client = |properties: &[(&str, &str)]| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &servers);
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config
    };
    let producer: BaseProducer = client(&[]).create().unwrap();
    producer.send(BaseRecord::<str, str>::to(&topic).payload("1")).unwrap();
    producer.flush(PATIENCE).unwrap();
    let start = |name: Option<&str>| {
        let short = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
        let named = name.map(|name| ("group.instance.id", name));
        let properties = short.into_iter().chain(named);
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let topics = Topics::parse([&topic]).unwrap();
        let options =
            KafkaOptions::new(&servers, &topic, topics, &properties.collect(), |_| None).unwrap();
        Reader::new(options)
    };
    let mut reading = start(None);
    reading.until(|r| r.reached(&id(&topic, 0), 1)).await;
    let mut idle = start(Some("one"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rival = client(&[
        ("group.id", &topic),
        ("group.instance.id", "one"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", "6000"),
    ]);
    let subscribed = topic.clone();
    let rival = tokio::task::spawn_blocking(move || {
        let rival: BaseConsumer = rival.create().unwrap();
        rival.subscribe(&[&subscribed]).unwrap();
        let until = Instant::now() + taken_for;
        while Instant::now() < until {
            drop(rival.poll(Duration::from_millis(100)));
        }
    });
    if joins {
        rival.await.unwrap();
        reading.source.close().await;
        let reached = idle.until(|r| r.reached(&id(&topic, 0), 1));
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    } else {
        let ended = async {
            loop {
                if let Event::Failed(error) = idle.source.next().await {
                    return error;
                }
            }
        };
        let error = tokio::time::timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(error.kind(), Kind::Fenced, "{}", error.report());
        assert!(!rival.is_finished(), "it was told too late");
        rival.await.unwrap();
        reading.source.close().await;
    }
    idle.source.close().await;
}

/// A member that ends leaves its group, so that others need not wait for its session; a static one stays, so that nothing
/// moves until it is back.
#[rstest]
#[case::others_leave(None, 12)]
#[case::static_ones_stay(Some("one"), 2)]
#[tokio::test(flavor = "multi_thread")]
async fn members_leave_when_they_end(#[case] name: Option<&str>, #[case] times: usize) {
    let Some(servers) = needed("CDC_SINK_TEST_BROKERS") else { return };
    let topic = format!("cdc-sink-test-{}.leave-{times}", std::process::id());
    produce(&servers, &topic, 0, numbers(1));
    let mut config = ClientConfig::new();
    let asks: BaseConsumer = config.set("bootstrap.servers", &servers).create().unwrap();
    let properties = name.map(|name| ("group.instance.id".to_owned(), name.to_owned()));
    let properties: BTreeMap<_, _> = properties.into_iter().collect();
    for time in 0..times {
        let group = format!("{topic}-{time}");
        let topics = Topics::parse([&topic]).unwrap();
        let options = KafkaOptions::new(&servers, &group, topics, &properties, |_| None).unwrap();
        let mut reader = Reader::new(options);
        reader.until(|r| r.reached(&id(&topic, 0), 1)).await;
        reader.source.close().await;
        let groups = asks.fetch_group_list(Some(&group), PATIENCE).unwrap();
        let members = groups.groups()[0].members().len();
        assert_eq!(members, usize::from(name.is_some()), "time {time}");
    }
}
