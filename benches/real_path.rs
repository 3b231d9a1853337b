//! The real path: `cdc-sink --once` from a real Kafka (and registry) to tables on a real MinIO.
//!
//! ```text
//! tests/stack/stack install && tests/stack/stack start all
//! eval "$(tests/stack/stack env)" && cargo bench --bench real_path [-- FILTER]
//! ```
//!
//! A million changes of customers lie in one partition. What is told is the time of the whole process, from its start with
//! the joining of a consumer group to its end, and what of two cores it used; a run over an empty topic says what of
//! that is not the path.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may panic, and prints what it finds"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use cdc_sink::generate::{Encoding, Generated, Generator, Mix, Shape, Workload};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const CHANGES: u64 = 1_000_000;
const RECORDS_IN_FLIGHT: &str = "200000";

/// Where the servers are, as `tests/stack/stack env` says.
struct Servers {
    brokers: String,
    registry: String,
    catalog: String,
    s3: String,
    bucket: String,
    access_key: String,
    secret_key: String,
    region: String,
}

impl Servers {
    fn from_env() -> Option<Self> {
        let get = |name: &str| std::env::var(format!("CDC_SINK_TEST_{name}")).ok();
        Some(Self {
            brokers: get("BROKERS")?,
            registry: get("REGISTRY")?,
            catalog: get("ICEBERG_REST")?,
            s3: get("S3")?,
            bucket: get("S3_BUCKET")?,
            access_key: get("S3_ACCESS_KEY")?,
            secret_key: get("S3_SECRET_KEY")?,
            region: get("S3_REGION")?,
        })
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let Some(servers) = Servers::from_env() else {
        println!(
            "real_path: not run, no servers: start them with tests/stack/stack start, and eval what its env says"
        );
        return;
    };
    let run = std::process::id();
    for encoding in [Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro] {
        let name = format!("{encoding:?}").to_lowercase();
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let prefix = format!("bench{run}{name}");
        let empty = fill(&servers, &workload(&format!("{prefix}empty"), encoding, 0));
        let full = fill(&servers, &workload(&prefix, encoding, CHANGES));
        for to in ["delta", "iceberg", "delta,iceberg"] {
            let place = format!("{prefix}-{}", to.replace(',', "-"));
            let idle = sink(&servers, &empty, to, &format!("{place}-idle"));
            let took = sink(&servers, &full, to, &place);
            runtime().block_on(drop_tables(&servers, [&empty, &full]));
            let rate = CHANGES as f64 / took.wall.saturating_sub(idle.wall).as_secs_f64();
            let per_core = CHANGES as f64 / took.cpu.saturating_sub(idle.cpu).as_secs_f64();
            println!(
                "{name:15} to {to:14} {:6.2} s, {:5.2} s of them start and end; {rate:8.0} changes/s, {per_core:8.0} per second of a core",
                took.wall.as_secs_f64(),
                idle.wall.as_secs_f64(),
            );
        }
        let topics = [empty.as_str(), full.as_str()];
        runtime().block_on(admin(&servers).delete_topics(&topics, &AdminOptions::new())).unwrap();
    }
}

fn workload(prefix: &str, encoding: Encoding, changes: u64) -> Workload {
    Workload {
        prefix: prefix.to_owned(),
        tables: vec![Shape::Customers],
        rows: 1,
        changes,
        encoding,
        mix: Mix { moves: 0, ..Mix::default() },
        add_column_after: None,
        ..Workload::default()
    }
}

/// Produces the workload's records into a new topic; its name.
fn fill(servers: &Servers, workload: &Workload) -> String {
    let ids: Vec<u32> = match workload.encoding {
        Encoding::Avro => runtime().block_on(register(servers, workload)),
        _ => Vec::new(),
    };
    let generator = Generator::new(workload).with_schema_ids(&ids);
    let topic = generator.topics().next().unwrap().to_string();
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    runtime().block_on(admin(servers).create_topics([&new], &AdminOptions::new())).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &servers.brokers)
        .set("queue.buffering.max.messages", RECORDS_IN_FLIGHT)
        .set("linger.ms", "20")
        .create()
        .unwrap();
    for generated in generator {
        send(&producer, &generated);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    topic
}

fn send(producer: &BaseProducer, generated: &Generated) {
    let mut record = BaseRecord::to(&generated.topic).partition(0).key(&generated.key);
    if let Some(value) = &generated.value {
        record = record.payload(value);
    }
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(10));
        record = back;
    }
    producer.poll(Duration::ZERO);
}

async fn register(servers: &Servers, workload: &Workload) -> Vec<u32> {
    let client = reqwest::Client::new();
    let mut ids = Vec::new();
    for (number, subject) in workload.subjects().into_iter().enumerate() {
        let url = format!("{}/subjects/{}-{number}/versions", servers.registry, workload.prefix);
        let body = serde_json::json!({ "schema": subject.schema });
        let answer = client.post(url).json(&body).send().await.unwrap().error_for_status().unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        ids.push(answer.get("id").and_then(serde_json::Value::as_u64).unwrap().try_into().unwrap());
    }
    ids
}

/// Forgets the topics' tables in the catalog: the next ones are elsewhere.
async fn drop_tables(servers: &Servers, topics: [&String; 2]) {
    for topic in topics {
        let (schema, name) = topic.rsplit_once('.').unwrap();
        let namespace = schema.replace('.', "_");
        let url = format!("{}/v1/namespaces/{namespace}/tables/{name}", servers.catalog);
        reqwest::Client::new().delete(url).send().await.unwrap();
    }
}

struct Took {
    wall: Duration,
    cpu: Duration,
}

/// Runs the binary over the topic, until everything in it is committed.
fn sink(servers: &Servers, topic: &str, to: &str, place: &str) -> Took {
    let (started, cpu) = (Instant::now(), children());
    let status = Command::new(env!("CARGO_BIN_EXE_cdc-sink"))
        .args(["--topics", topic, "--group", place, "--brokers", &servers.brokers, "--once"])
        .args(["--registry", &servers.registry, "--catalog", &servers.catalog, "--to", to])
        .args(["--warehouse", &format!("s3://{}/{place}", servers.bucket)])
        .args(["--listen", "127.0.0.1:0", "--log", "warn"])
        .env("AWS_ENDPOINT_URL", &servers.s3)
        .env("AWS_REGION", &servers.region)
        .env("AWS_ACCESS_KEY_ID", &servers.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &servers.secret_key)
        .status()
        .unwrap();
    assert!(status.success(), "cdc-sink over {topic} ended with {status}");
    Took { wall: started.elapsed(), cpu: children().saturating_sub(cpu) }
}

/// The processor time of children that ended, from `/proc/self/stat` (fields 16 and 17, proc(5), in hundredths of a second).
fn children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(13).take(2);
    Duration::from_millis(fields.map(|field| field.parse::<u64>().unwrap() * 10).sum())
}

fn admin(servers: &Servers) -> AdminClient<rdkafka::client::DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &servers.brokers).create().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
