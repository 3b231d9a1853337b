use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::clock::Clock;

/// A server on a free port with a clock the test moves.
struct Fixture {
    url: String,
    address: SocketAddr,
    health: Arc<Health>,
    now: Arc<AtomicI64>,
    stop: CancellationToken,
    server: JoinSet<()>,
}

async fn start(beat_limit: Duration) -> Fixture {
    // The recorder of the process, so that gauges set by a handler's thread are seen; tests share it.
    static METRICS: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    let metrics = METRICS.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap());
    let now = Arc::new(AtomicI64::new(1_000_000_000));
    let clock = Arc::clone(&now);
    let clock = Clock::from_fn(move || clock.load(Ordering::Relaxed));
    let health = Arc::new(Health::new(clock, beat_limit));
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let mut server = JoinSet::new();
    server.spawn(serve(listener, Arc::clone(&health), metrics.clone(), stop.clone()));
    Fixture { url: format!("http://{address}"), address, health, now, stop, server }
}

impl Fixture {
    async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

fn orders() -> TableState {
    TableState {
        table: "pg_shop.orders".into(),
        topic: "pg.shop.orders".into(),
        state: RunState::Running,
        reason: None,
        waiting: None,
        partitions: vec![
            PartitionStatus { partition: 0, position: Some(90), high_watermark: Some(100) },
            PartitionStatus { partition: 1, position: None, high_watermark: Some(5) },
        ],
        last_commit: Some(LastCommit {
            time: instant(999_000_000),
            versions: BTreeMap::from([("delta".to_owned(), 7)]),
        }),
        source_time: Some(instant(998_500_000)),
        rows_merged: 12,
        dead_letters: 1,
        skipped: BTreeMap::from([("heartbeat".to_owned(), 3)]),
    }
}

#[tokio::test]
async fn liveness_is_the_age_of_the_heartbeat() {
    let server = start(Duration::from_millis(150)).await;
    assert_eq!(server.get("/livez").await, (200, "ok\n".into()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (code, body) = server.get("/livez").await;
    assert_eq!(code, 503);
    assert!(body.starts_with("the pipeline has not ticked for 0 s"), "{body}");
    server.health.beat();
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn readiness_begins_with_the_group_and_ends_with_the_shutdown() {
    let server = start(Duration::from_secs(30)).await;
    assert_eq!(server.get("/readyz").await, (503, "the consumer group is not joined yet\n".into()));
    server.health.joined();
    assert_eq!(server.get("/readyz").await, (200, "ok\n".into()));
    server.health.stopping();
    assert_eq!(server.get("/readyz").await, (503, "shutting down\n".into()));
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn status_comes_back_as_it_was_told() {
    let server = start(Duration::from_secs(30)).await;
    server.health.table(orders());
    let (code, body) = server.get("/status").await;
    assert_eq!(code, 200);
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!(status, server.health.status());
    let table = &status.tables[0];
    assert_eq!((table.state.clone(), table.lag_records), (orders(), 10));
    assert_eq!(table.staleness_seconds, Some(1.5));
    assert_eq!(status.started, instant(1_000_000_000));

    // What an operator's jq sees.
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["tables"][0]["state"], "running");
    assert_eq!(json["tables"][0]["partitions"][0]["position"], 90);
    assert_eq!(json["tables"][0]["last_commit"]["time"], "1970-01-01T00:16:39Z");
    assert_eq!(json["tables"][0]["last_commit"]["versions"]["delta"], 7);

    server.health.forget_table("pg_shop.orders");
    assert_eq!(server.health.status().tables, []);
}

#[tokio::test]
async fn a_table_without_lag_is_not_stale() {
    let server = start(Duration::from_secs(30)).await;
    let mut state = orders();
    state.partitions[0].position = Some(100);
    server.health.table(state.clone());
    assert_eq!(server.health.status().tables[0].staleness_seconds, Some(0.0));
    state.source_time = None;
    server.health.table(state);
    assert_eq!(server.health.status().tables[0].staleness_seconds, None);
}

#[tokio::test]
async fn a_scrape_works_out_ages_and_forgets_what_was_given_away() {
    let server = start(Duration::from_secs(30)).await;
    let mut state = orders();
    state.table = "pg_shop.scraped".into();
    state.topic = "pg.shop.scraped".into();
    state.state = RunState::Halted;
    state.waiting = Some("the store does not answer".into());
    server.health.table(state.clone());
    let (_, first) = server.get("/metrics").await;
    for line in [
        r#"cdc_sink_lag_records{topic="pg.shop.scraped",partition="0"} 10"#,
        r#"cdc_sink_stored_offset{topic="pg.shop.scraped",partition="0"} 90"#,
        r#"cdc_sink_staleness_seconds{table="pg_shop.scraped"} 1.5"#,
        r#"cdc_sink_table_halted{table="pg_shop.scraped"} 1"#,
        r#"cdc_sink_table_waiting{table="pg_shop.scraped"} 1"#,
        r#"cdc_sink_last_commit_timestamp_seconds{table="pg_shop.scraped"} 999"#,
    ] {
        assert!(first.lines().any(|shown| shown == line), "not shown: {line}\n{first}");
    }
    assert!(!first.contains(r#"{topic="pg.shop.scraped",partition="1"}"#), "{first}");

    // The pipeline is stuck and says nothing more: the age grows all the same.
    server.now.fetch_add(60_000_000, Ordering::Relaxed);
    let (_, second) = server.get("/metrics").await;
    assert!(second.contains(r#"cdc_sink_staleness_seconds{table="pg_shop.scraped"} 61.5"#));

    state.partitions.clear();
    server.health.table(state);
    let (_, third) = server.get("/metrics").await;
    let gone = r#"cdc_sink_lag_records{topic="pg.shop.scraped",partition="0"} 0"#;
    assert!(third.contains(gone), "{third}");
}

#[tokio::test]
async fn a_source_that_waits_and_topics_that_are_not_there_are_told() {
    let server = start(Duration::from_secs(30)).await;
    // One of the test's own: these series have no label to tell them from another test's.
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = || {
        metrics::with_local_recorder(&recorder, || server.health.record_gauges());
        recorder.handle().render()
    };
    let missing_topics = ["pg.shop.gone".to_owned()].into();
    let (waiting, waiting_since) = (Some("no broker answers".into()), Some(instant(1_001_000_000)));
    server.health.source(SourceState { waiting, waiting_since, missing_topics });
    let waits = shown();
    for line in ["cdc_sink_source_waiting 1", "cdc_sink_missing_topics 1"] {
        assert!(waits.lines().any(|shown| shown == line), "not shown: {line}\n{waits}");
    }
    let json: serde_json::Value = serde_json::from_str(&server.get("/status").await.1).unwrap();
    assert_eq!(json["source"]["waiting"], "no broker answers");
    assert_eq!(json["source"]["waiting_since"], "1970-01-01T00:16:41Z");
    assert_eq!(json["source"]["missing_topics"][0], "pg.shop.gone");
    server.health.source(SourceState::default());
    let goes_on = shown();
    for line in ["cdc_sink_source_waiting 0", "cdc_sink_missing_topics 0"] {
        assert!(goes_on.lines().any(|shown| shown == line), "not shown: {line}\n{goes_on}");
    }
}

#[tokio::test]
async fn metrics_say_their_format_and_nothing_can_be_changed() {
    let server = start(Duration::from_secs(30)).await;
    let response = reqwest::get(format!("{}/metrics", server.url)).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let post = reqwest::Client::new().post(format!("{}/status", server.url)).send().await.unwrap();
    assert_eq!(post.status().as_u16(), 405);
    let (code, body) = server.get("/etc/passwd").await;
    assert_eq!((code, body.as_str()), (404, "there are /metrics, /livez, /readyz and /status\n"));
}

#[tokio::test]
async fn silent_clients_neither_starve_others_nor_hold_up_the_shutdown() {
    let server = start(Duration::from_secs(30)).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS / 2 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop.cancel();
    tokio::time::timeout(DRAIN_TIME * 2, server.server.join_all()).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    let mut byte = [0];
    assert!(matches!(silent[0].read(&mut byte).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_huge_request_head_is_refused() {
    let server = start(Duration::from_secs(30)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"GET /status HTTP/1.1\r\nx: ").await.unwrap();
    // The server may close while this is on its way; what it answers is what counts.
    let _sent = client.write_all(&vec![b'a'; 2 * HEAD_BYTES]).await;
    let mut answer = Vec::new();
    let _read = client.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431") || answer.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_taken_address_is_said() {
    let server = start(Duration::from_secs(30)).await;
    let error = bind(server.address).await.unwrap_err();
    let text = error.report();
    assert!(text.starts_with(&format!("cannot listen on {} for", server.address)), "{text}");
    assert!(text.ends_with("(give a free address of this machine with --listen)"), "{text}");
}
