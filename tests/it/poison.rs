//! Bad records of every kind, one among a thousand good ones: all the good ones are applied, every bad one is a dead letter
//! with all that it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::dead_letter::DeadLetters;
use cdc_sink::decode::{Decoder, Options, Registry, Row, ScanError, Scanned, SchemaId};
use cdc_sink::generate::{Encoding, Generator, Shape, UNAVAILABLE, Workload};
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::record::Records;
use cdc_sink::schema::{TableSchema, is_metadata};
use cdc_sink::sink::Sink as _;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::source::mock::MockCluster;
use cdc_sink::source::properties::Connection;
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, ScriptedSource};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use rstest::rstest;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::generated::expected;

/// Good records to a bad one.
const GOOD: usize = 1000;

/// A bad record.
#[derive(Debug, Clone)]
struct Poison {
    kind: String,
    record: LoggedRecord,
}

/// Kinds that were thought of, for JSON. Those without a key get one of a row that there is not.
fn picked() -> Vec<Poison> {
    let list: Vec<Value> =
        serde_json::from_str(&crate::repository_file("tests/fixtures/poison.json")).unwrap();
    let bytes = |entry: &Value, name: &str| match (&entry[name], &entry[format!("{name}_b64")]) {
        (Value::String(text), _) => Some(text.clone().into_bytes()),
        (_, Value::String(text)) => Some(STANDARD.decode(text).unwrap()),
        _ => None,
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|entry| {
            let headers = entry["headers"].as_array().cloned().unwrap_or_default();
            let key = bytes(entry, "key").unwrap_or_else(|| br#"{"id":900001}"#.to_vec());
            let headers =
                headers.iter().map(|h| (text(&h[0]), Some(text(&h[1]).into_bytes()))).collect();
            let value = bytes(entry, "value");
            let record =
                LoggedRecord { offset: 0, timestamp_ms: Some(1), key: Some(key), value, headers };
            Poison { kind: text(&entry["kind"]), record }
        })
        .collect()
}

/// What becomes of a good record that is damaged in one place: at many places, in many ways.
fn damaged(good: &LoggedRecord) -> Vec<Poison> {
    let mut damaged = Vec::new();
    let mut add = |kind: String, key: Option<Vec<u8>>, value: Option<Vec<u8>>| {
        let record = LoggedRecord { key, value, ..good.clone() };
        damaged.push(Poison { kind, record });
    };
    let (key, value) = (good.key.as_ref().unwrap(), good.value.as_ref().unwrap());
    let step = |length: usize| (length / 40).max(1);
    for at in (0..value.len()).step_by(step(value.len())) {
        add(format!("value cut off at {at}"), Some(key.clone()), Some(value[..at].to_vec()));
        for byte in [0x00, 0xFF, b'"', b'{', b'9'] {
            let mut other = value.clone();
            other[at] = byte;
            add(format!("byte {byte} in the value at {at}"), Some(key.clone()), Some(other));
        }
        let without = [&value[..at], &value[at + 1..]].concat();
        add(format!("no byte in the value at {at}"), Some(key.clone()), Some(without));
    }
    for at in 0..key.len() {
        add(format!("key cut off at {at}"), Some(key[..at].to_vec()), Some(value.clone()));
    }
    if let Ok(envelope) = serde_json::from_slice::<Value>(value) {
        let payload = if envelope["payload"].is_object() { "/payload" } else { "" };
        let row = envelope.pointer(&format!("{payload}/after")).unwrap().as_object().unwrap();
        let rows = row.keys().map(|column| format!("{payload}/after/{column}"));
        let fields = ["op", "after", "before", "source"].map(|name| format!("{payload}/{name}"));
        let deep = "[".repeat(50_000);
        for field in rows.chain(fields) {
            for bad in [
                "null",
                "\"x\"",
                "-1e999",
                "[[]]",
                r#"{"a":{}}"#,
                "true",
                "123456789012345678901",
                &deep,
            ] {
                let mut other = envelope.clone();
                *other.pointer_mut(&field).unwrap() = Value::String("@".into());
                let other = other.to_string().replace("\"@\"", bad);
                let bad: String = bad.chars().take(10).collect();
                add(format!("{bad} as {field}"), Some(key.clone()), Some(other.into_bytes()));
            }
        }
    }
    damaged
}

/// True when a table with `schema` cannot take the record.
fn rejects(registry: &Arc<Registry>, schema: &Arc<TableSchema>, record: &LoggedRecord) -> bool {
    let mut decoder = Decoder::new(options(), Some(Arc::clone(registry)), Some(Arc::clone(schema)));
    let mut records = Records::new("shop.public.customers".into(), 0, 0);
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    records.push(0, None, record.key.as_deref(), record.value.as_deref(), headers);
    let record = records.get(0).unwrap();
    let change = loop {
        match decoder.scan(&record) {
            Ok(Scanned::Change(change)) => break change,
            Ok(Scanned::Skipped(_) | Scanned::Truncate { .. }) => return false,
            Err(ScanError::Reject(_) | ScanError::KeyChanged(_)) => return true,
            Err(ScanError::NeedsSchema(id)) => {
                // Asked for again and again: another concern.
                if futures::executor::block_on(decoder.fetch_schema(id)).is_err() {
                    return false;
                }
            }
        }
    };
    let Some(row) = Row::of(record, &change) else { return false };
    match decoder.table_schema(&[row]) {
        Ok(wanted) if wanted == *schema => {
            !decoder.columns(&[row], schema).unwrap().rejects.is_empty()
        }
        // It would change the table.
        _ => false,
    }
}

fn options() -> Options {
    Options { placeholder: UNAVAILABLE.to_owned(), ..Options::default() }
}

fn workload(encoding: Encoding, changes: usize) -> Workload {
    Workload {
        seed: 5,
        tables: vec![Shape::Customers],
        rows: 500,
        changes: u64::try_from(changes).unwrap(),
        encoding,
        add_column_after: None,
        ..Workload::default()
    }
}

fn registry(workload: &Workload) -> Arc<Registry> {
    let subjects = workload.subjects().into_iter().map(|subject| subject.schema);
    Registry::preloaded((1..).map(SchemaId).zip(subjects))
}

/// The records of a workload, and the rows they end in.
fn good(workload: &Workload) -> (Vec<LoggedRecord>, Generator) {
    let mut generator = Generator::new(workload);
    let records = generator.by_ref().map(|record| LoggedRecord {
        offset: 0,
        timestamp_ms: Some(record.timestamp_ms),
        key: Some(record.key),
        value: record.value,
        headers: record.headers.iter().map(|(n, v)| ((*n).to_owned(), Some(v.to_vec()))).collect(),
    });
    let records = records.collect();
    (records, generator)
}

/// A good record of a row that no other record is about: a change that a later one supersedes is not looked at.
fn stranger(encoding: Encoding) -> LoggedRecord {
    let (mut records, _) = good(&Workload { rows: 100_000, ..workload(encoding, 0) });
    records.pop().unwrap()
}

/// A mock cluster for the dead letters, and a table that was fed.
struct Fed {
    sink: MemorySink,
    progress: Progress,
    _cluster: MockCluster,
    servers: String,
}

/// Feeds `records` until all are in or `stop` says so; `limit` is how many in a row may be dead letters, none when they have no
/// place.
async fn feed(
    records: Vec<LoggedRecord>,
    registry: Arc<Registry>,
    limit: Option<usize>,
    stop: CancellationToken,
) -> Fed {
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("dead", 1).unwrap();
    let servers = cluster.servers().to_owned();
    let connection = Connection::new(&servers, &BTreeMap::new(), |_| None).unwrap();
    let at = TopicPartition { topic: "shop.public.customers".into(), partition: 0 };
    let records = (0..).zip(records).map(|(offset, record)| LoggedRecord { offset, ..record });
    let logs = Arc::new([(at, Log::new(records.collect(), 0))].into());
    let source = ScriptedSource::new(logs, Vec::new(), Acknowledged::default());
    let sink = MemorySink::default();
    let pipeline_options = pipeline::Options {
        limits: Limits {
            rows: 20_000,
            bytes: usize::MAX,
            age: Duration::from_secs(5),
            idle: Duration::from_millis(200),
        },
        buffer_bytes: 1 << 30,
        once: true,
        partitions: crate::sources::partitions(1),
        dead_letters: limit
            .map(|_| Arc::new(DeadLetters::default().to_topic(&connection, "dead").unwrap())),
        dead_letter_limit: limit.unwrap_or_default(),
        max_record_bytes: usize::MAX,
    };
    let open = |topic: &Arc<str>| {
        let decoder = Decoder::new(options(), Some(Arc::clone(&registry)), None);
        let (name, sink) = (Arc::clone(topic), sink.clone());
        let (missing_value, truncates) = (MissingValue::Null, Truncates::Apply);
        Ok(TableSetup { name, sink, decoder, missing_value, truncates })
    };
    let clock = Clock::from_fn(|| 0);
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, health);
    let progress = pipeline::run(source, open, pipeline_options, progress, stop).await.unwrap();
    Fed { sink, progress, _cluster: cluster, servers }
}

/// A dead letter: key, value, headers.
type Letter = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

/// The first `count` dead letters, and those that come within a moment after them.
fn letters(servers: &str, count: usize) -> Vec<Letter> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "check");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("dead", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut letters = Vec::new();
    loop {
        let wait = if letters.len() < count { 10_000 } else { 500 };
        let Some(message) = consumer.poll(Duration::from_millis(wait)) else { break };
        let message = message.unwrap();
        let headers = message.headers().unwrap().iter();
        let headers = headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
        let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        letters.push((bytes(message.key()), bytes(message.payload()), headers));
    }
    letters
}

#[rstest]
#[case(Encoding::Json, 120)]
#[case(Encoding::JsonWithSchema, 50)]
#[case(Encoding::Avro, 40)]
#[tokio::test(flavor = "multi_thread")]
async fn bad_records_cost_no_good_one(#[case] encoding: Encoding, #[case] kinds: usize) {
    let small = workload(encoding, 0);
    let registry = registry(&small);
    let (first, _) = good(&small);
    let schema = feed(first.clone(), Arc::clone(&registry), Some(0), CancellationToken::new())
        .await
        .sink
        .schema()
        .unwrap();
    let mut poisons = match encoding {
        Encoding::Json => picked(),
        Encoding::JsonWithSchema | Encoding::Avro => Vec::new(),
    };
    let taken = poisons.iter().filter(|poison| !rejects(&registry, &schema, &poison.record));
    let taken: Vec<&str> = taken.map(|poison| poison.kind.as_str()).collect();
    assert!(taken.is_empty(), "the table takes {taken:?}");
    // Evenly out of those that the table cannot take.
    let mut damaged = damaged(&stranger(encoding));
    damaged.retain(|poison| rejects(&registry, &schema, &poison.record));
    let wanted = kinds.saturating_sub(poisons.len());
    assert!(damaged.len() >= wanted, "{} of {wanted}", damaged.len());
    poisons.extend(damaged.iter().step_by((damaged.len() / wanted).max(1)).cloned());
    let distinct: BTreeSet<&str> = poisons.iter().map(|poison| poison.kind.as_str()).collect();
    assert!(distinct.len() >= kinds, "{} of {kinds}", distinct.len());

    let (good, generator) = good(&workload(encoding, poisons.len() * GOOD * 9 / 10));
    let step = good.len() / poisons.len();
    assert!(step >= GOOD, "one to {step}");
    let (mut records, mut places, mut bad) = (Vec::new(), Vec::new(), poisons.iter());
    for (place, record) in good.into_iter().enumerate() {
        if place % step == step / 2
            && let Some(poison) = bad.next()
        {
            places.push(records.len());
            records.push(poison.record.clone());
        }
        records.push(record);
    }
    assert_eq!(bad.count(), 0);
    let fed = feed(records.clone(), registry, Some(10), CancellationToken::new()).await;
    assert!(fed.progress.is_complete(), "{:?}", fed.progress.tables());

    let mut rows = fed.sink.rows();
    for row in &mut rows {
        row.retain(|column, _| !is_metadata(column));
    }
    rows.sort();
    let wanted = expected(&generator, Shape::Customers);
    assert_eq!(rows.len(), wanted.len());
    let other = rows.iter().zip(&wanted).find(|(row, wanted)| row != wanted);
    assert_eq!(other, None, "a row, and what the source has");
    let letters = letters(&fed.servers, poisons.len());
    let mut offsets: Vec<usize> = letters.iter().map(|letter| complete(letter, &records)).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, places);
}

/// Checks that a dead letter is one of `records` with all that it was, and why; which one.
fn complete((key, value, headers): &Letter, records: &[LoggedRecord]) -> usize {
    let header = |name: &str| {
        let found = headers.iter().rfind(|(known, _)| known == name);
        let value = found.and_then(|(_, value)| value.clone());
        String::from_utf8(value.unwrap_or_else(|| panic!("no {name}"))).unwrap()
    };
    let offset: usize = header("__connect.errors.offset").parse().unwrap();
    let record = &records[offset];
    assert_eq!((key, value), (&record.key, &record.value));
    assert!(headers.starts_with(&record.headers));
    assert_eq!(header("__connect.errors.topic"), "shop.public.customers");
    assert_eq!(header("__connect.errors.partition"), "0");
    assert!(!header("cdc_sink.reason").is_empty());
    assert!(header("__connect.errors.exception.message").len() > 10);
    offset
}

/// Something is wrong with all records from some point on: the table halts, and says so, before its dead letters are many.
#[rstest]
#[case(10, false)]
#[case(11, true)]
#[tokio::test(flavor = "multi_thread")]
async fn bad_records_in_a_row_halt_the_table(#[case] in_a_row: usize, #[case] halts: bool) {
    let workload = workload(Encoding::Json, 0);
    let (mut records, _) = good(&workload);
    let bad = LoggedRecord { value: Some(b"{".to_vec()), ..records[0].clone() };
    let (place, count) = (records.len() / 2, records.len());
    records.splice(place..place, std::iter::repeat_n(bad, in_a_row));
    let fed = feed(records, registry(&workload), Some(10), CancellationToken::new()).await;
    let tables = format!("{:?}", fed.progress.tables());
    assert_eq!(fed.progress.is_complete(), !halts, "{tables}");
    assert_eq!(tables.contains("more than 10 records in a row"), halts, "{tables}");
    let letters = letters(&fed.servers, if halts { 0 } else { in_a_row });
    assert_eq!(letters.len(), if halts { 0 } else { in_a_row });
    assert_eq!(fed.sink.rows().len(), if halts { 0 } else { count });
}

/// Without a place for it the first bad record halts the table; what came before it is in the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_without_a_place_to_go_halts_the_table() {
    let workload = workload(Encoding::Json, 0);
    let (mut records, _) = good(&workload);
    let (place, bad) =
        (records.len() / 2, LoggedRecord { value: Some(b"{".to_vec()), ..records[0].clone() });
    records.insert(place, bad);
    let fed = feed(records, registry(&workload), None, CancellationToken::new()).await;
    let halted = fed.progress.tables().values().find_map(|table| table.halted.clone()).unwrap();
    let told = format!("record shop.public.customers[0]@{place} cannot be used: malformed_json");
    assert!(halted.contains(&told) && halted.contains("option dead-letters"), "{halted}");
    assert_eq!(fed.sink.rows().len(), place);
}

/// The registry does not answer for an hour: nothing is a dead letter, nothing halts, and nothing is passed over.
#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_is_waited_for() {
    let workload = workload(Encoding::Avro, 0);
    let (records, generator) = good(&workload);
    let gone = Registry::new("http://127.0.0.1:1/", None).unwrap();
    let stop = CancellationToken::new();
    let hour = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        stop.cancel();
    };
    let (fed, ()) = tokio::join!(feed(records.clone(), gone, Some(10), stop.clone()), hour);
    let tables: Vec<_> = fed.progress.tables().values().collect();
    assert!(
        tables.iter().all(|table| table.halted.is_none() && table.dead_letters == 0),
        "{tables:?}"
    );
    assert_eq!((tables.len(), fed.sink.version()), (1, 0));
    assert!(letters(&fed.servers, 0).is_empty());
    let fed = feed(records, registry(&workload), Some(10), CancellationToken::new()).await;
    assert_eq!(fed.sink.rows().len(), expected(&generator, Shape::Customers).len());
}
