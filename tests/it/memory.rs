//! Memory stays flat, however many records cannot be used: a process of its own reads a long topic and says what it takes.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::dead_letter::DeadLetters;
use cdc_sink::decode::{Decoder, Options};
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::record::Records;
use cdc_sink::sink::Committed;
use cdc_sink::sink::lake::LakeOptions;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::source::mock::MockCluster;
use cdc_sink::source::properties::Connection;
use cdc_sink::source::{Event, Source, Start};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::batches;

/// Set in the process that reads.
const READS: &str = "CDC_SINK_TEST_READS";
const RECORDS: i64 = 300_000;
/// Of so many records one is bad, and large: kept, those of the last two thirds alone would be 12 MiB.
const ONE_IN: i64 = 1000;
const BAD_BYTES: usize = 64 << 10;
const CHUNK: i64 = 500;
/// What the process may grow by, KiB, once it has seen a third of the topic.
const GROWTH_KIB: u64 = 8 << 10;

enum State {
    Away,
    Offered(oneshot::Receiver<HashMap<TopicPartition, Start>>),
    Reading,
    Read,
}

/// A topic whose records are made as they are read.
struct Made {
    at: TopicPartition,
    state: State,
    held: bool,
    next: i64,
    /// The most memory that was taken, KiB, at thirds of the topic.
    taken: Arc<Mutex<Vec<u64>>>,
}

impl Made {
    fn chunk(&mut self) -> Records {
        let mut records = Records::new(Arc::clone(&self.at.topic), self.at.partition, self.next);
        for offset in self.next..self.next + CHUNK {
            let key = format!(r#"{{"id":{}}}"#, offset % 499);
            let value = match offset % ONE_IN {
                7 => "[".repeat(BAD_BYTES),
                _ => format!(
                    r#"{{"before":null,"after":{{"id":{},"text":"{offset:0>200}"}},"source":{{"ts_ms":1}},"op":"u"}}"#,
                    offset % 499
                ),
            };
            records.push(offset, Some(1), Some(key.as_bytes()), Some(value.as_bytes()), []);
        }
        self.next += CHUNK;
        if self.next % (RECORDS / 3) == 0 {
            self.taken.lock().unwrap().push(peak_kib());
        }
        records
    }
}

impl Source for Made {
    async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Away => {
                    let (start, answer) = oneshot::channel();
                    self.state = State::Offered(answer);
                    return Event::Assigned { partitions: vec![self.at.clone()], start };
                }
                State::Offered(answer) => {
                    answer.await.unwrap();
                    self.state = State::Reading;
                    let partition = self.at.clone();
                    return Event::Watermarks { partition, low: 0, high: RECORDS };
                }
                State::Reading if self.held => tokio::time::sleep(Duration::from_millis(1)).await,
                State::Reading if self.next < RECORDS => return Event::Records(self.chunk()),
                State::Reading => {
                    self.state = State::Read;
                    return Event::Reached { partition: self.at.clone(), position: RECORDS };
                }
                State::Read => return std::future::pending().await,
            }
        }
    }

    fn acknowledge(&mut self, _topic: &str, _committed: &Committed) {}

    fn hold(&mut self, _partition: &TopicPartition, held: bool) {
        self.held = held;
    }

    fn read_again(&mut self, _: Vec<TopicPartition>) {}

    async fn close(self) {}
}

/// The most memory that this process ever had, KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn bad_records_do_not_pile_up() {
    if std::env::var_os(READS).is_some() {
        return read();
    }
    let reader = Command::new(std::env::current_exe().unwrap())
        .args(["memory::bad_records_do_not_pile_up", "--exact", "--nocapture"])
        .env(READS, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&reader.stdout);
    assert!(reader.status.success(), "{told}\n{}", String::from_utf8_lossy(&reader.stderr));
    let taken = told.lines().find_map(|line| line.split_once("taken: ")).unwrap().1;
    let taken: Vec<u64> = taken.split(' ').map(|kib| kib.parse().unwrap()).collect();
    assert!(taken[2] < taken[0] + GROWTH_KIB, "KiB at thirds of the topic: {taken:?}");
}

/// What the process does: reads the topic to its end, the bad records to both places for dead letters.
#[expect(clippy::print_stdout, reason = "this is how the process tells")]
fn read() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let at = TopicPartition { topic: "db.public.t".into(), partition: 0 };
    let source = Made { at, state: State::Away, held: false, next: 0, taken: Arc::clone(&taken) };
    let folder = tempfile::tempdir().unwrap();
    let [delta, _] = batches::logs(3);
    let lake =
        LakeOptions { partition_by: String::new(), ..batches::options(&folder, vec![delta]) };
    let cluster = MockCluster::start(1).unwrap();
    cluster.create_topic("dead", 1).unwrap();
    let connection = Connection::new(cluster.servers(), &BTreeMap::new(), |_| None).unwrap();
    let dead_letters = DeadLetters::default().to_topic(&connection, "dead").unwrap().to_table(lake);
    let limits = Limits {
        rows: 10_000,
        bytes: usize::MAX,
        age: Duration::from_secs(60),
        idle: Duration::from_secs(1),
    };
    let options = pipeline::Options {
        limits,
        buffer_bytes: 32 << 20,
        once: true,
        partitions: crate::sources::partitions(1),
        dead_letters: Some(Arc::new(dead_letters)),
        dead_letter_limit: 10,
        max_record_bytes: usize::MAX,
    };
    let sink = MemorySink::default();
    let declared = vec![("id".to_owned(), "long".parse().unwrap())];
    let open = |topic: &Arc<str>| {
        let options = Options { declared: declared.clone(), ..Options::default() };
        let (name, sink) = (Arc::clone(topic), sink.clone());
        let decoder = Decoder::new(options, None, None);
        Ok(TableSetup {
            name,
            sink,
            decoder,
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        })
    };
    let clock = Clock::from_fn(|| 0);
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, health);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stop = CancellationToken::new();
    let progress = runtime.block_on(pipeline::run(source, open, options, progress, stop)).unwrap();
    assert!(progress.is_complete(), "{:?}", progress.tables());
    let dead: u64 = progress.tables().values().map(|table| table.dead_letters).sum();
    assert_eq!(i64::try_from(dead).unwrap(), RECORDS / ONE_IN);
    assert_eq!(sink.rows().len(), 499);
    let taken = taken.lock().unwrap();
    println!("taken: {} {} {}", taken[0], taken[1], taken[2]);
}
