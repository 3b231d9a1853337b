//! `demo`: everything embedded. A Kafka cluster inside the process, generated changes, the real pipeline, tables on the
//! local disk, and a second pipeline into tables in memory that the result is compared with.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::display::Display;
use super::log;
use super::setup::{self, Tables};
use crate::admin::Health;
use crate::change::{MissingValue, Truncates};
use crate::clock::Clock;
use crate::config::{Config, Format, Options};
use crate::decode::{Registry, SchemaId};
use crate::error::{Error, Result};
use crate::generate::{Encoding, Generated, Generator, Workload};
use crate::pipeline::{self, Progress, TableSetup};
use crate::position::TopicPartition;
use crate::shutdown;
use crate::sink::memory::{MemorySink, text_rows};
use crate::sink::{Committed, lake};
use crate::source::mock::{Feeder, MockCluster, Produced};
use crate::source::{Event, KafkaSource, Source};

/// Partitions of each topic.
const PARTITIONS: i32 = 2;
/// Consumer groups: the one that keeps the tables, and the mirror.
const GROUPS: usize = 2;
/// Changes a second without `--once`.
const CALM_RATE: u64 = 1000;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Changes to generate after the initial snapshot; without --once they go on for ever
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    events: u64,
    /// Where all randomness comes from: the same seed gives the same rows
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder for the tables; it must be new, empty, or of an earlier demo, which is removed
    #[arg(long, value_name = "DIR", default_value = "cdc-sink-demo")]
    dir: PathBuf,
    /// Table format [default: both]
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    to: Option<Vec<Format>>,
    /// Iceberg format version of the tables
    #[arg(long, value_name = "2|3", default_value_t = 3)]
    format_version: u8,
    /// Stop when every generated change is committed
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    log: log::LogArgs,
}

/// Runs the demo, tells what it wrote, and checks it.
pub(super) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let screen = log::start(&args.log)?;
    let clock = Clock::system();
    let workload = workload(&args, &clock);
    let generator = Generator::new(&workload);
    let topics: Vec<Arc<str>> = generator.topics().map(Arc::clone).collect();
    let cluster = MockCluster::start(1)?;
    for topic in &topics {
        cluster.create_topic(topic, PARTITIONS)?;
    }
    let config = config(&args, cluster.servers(), &topics)?;
    let subjects = workload.subjects().into_iter().map(|subject| subject.schema);
    let registry = Registry::preloaded((1..).map(SchemaId).zip(subjects));
    let tables = Tables::open(&config, Some(registry), clock.clone()).await?;
    let memory = topics.iter().map(|topic| (Arc::clone(topic), MemorySink::default())).collect();
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(120)));
    let display = Display::start(&screen, Arc::clone(&health));
    let stop = CancellationToken::new();
    let demo = Demo { args: &args, config: &config, tables: &tables, memory, clock, stop };
    let started = Instant::now();
    let outcome = tokio::select! {
        outcome = demo.play(&cluster, generator, health) => outcome,
        interrupted = shutdown::watch(demo.stop.clone()) => {
            interrupted?;
            return Ok(ExitCode::from(shutdown::INTERRUPTED));
        }
    };
    let took = started.elapsed();
    display.finish();
    let (produced, progress) = outcome?;
    let mut out = String::new();
    demo.tell(&mut out, produced, &progress, took);
    let same = demo.compare(&mut out, &topics).await?;
    demo.tell_queries(&mut out, &topics)?;
    std::io::stdout().write_all(out.as_bytes()).ok();
    Ok(if same && progress.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn workload(args: &DemoArgs, clock: &Clock) -> Workload {
    Workload {
        seed: args.seed,
        start_micros: clock.now_micros(),
        rows: (args.events / 20).max(100),
        changes: if args.once { args.events } else { u64::MAX },
        partitions: PARTITIONS,
        encoding: Encoding::Avro,
        add_column_after: Some(args.events / 2),
        ..Workload::default()
    }
}

fn config(args: &DemoArgs, servers: &str, topics: &[Arc<str>]) -> Result<Config> {
    let folder = fresh_folder(&args.dir)?;
    Options {
        brokers: Some(servers.to_owned()),
        topics: Some(topics.iter().map(ToString::to_string).collect()),
        to: Some(args.to.clone().unwrap_or_else(|| vec![Format::Delta, Format::Iceberg])),
        warehouse: Some(folder.to_string_lossy().into_owned()),
        format_version: Some(args.format_version),
        ..Options::default()
    }
    .validate()
}

/// The folder, emptied if an earlier demo filled it.
fn fresh_folder(folder: &Path) -> Result<PathBuf> {
    let failed = |what: &str, e: std::io::Error| {
        Error::invalid(format!("option dir: cannot {what} {}", folder.display())).because(e)
    };
    let mark = folder.join(".cdc-sink-demo");
    if folder.exists() {
        let mut entries = std::fs::read_dir(folder).map_err(|e| failed("read", e))?;
        if !mark.exists() && entries.next().is_some() {
            return Err(Error::invalid(format!(
                "option dir: {} is not empty and not of an earlier demo",
                folder.display()
            )));
        }
        std::fs::remove_dir_all(folder).map_err(|e| failed("empty", e))?;
    }
    std::fs::create_dir_all(folder).map_err(|e| failed("make", e))?;
    std::fs::write(&mark, "tables of `cdc-sink demo`\n").map_err(|e| failed("write to", e))?;
    folder.canonicalize().map_err(|e| failed("find", e))
}

struct Demo<'a> {
    args: &'a DemoArgs,
    config: &'a Config,
    tables: &'a Tables,
    memory: BTreeMap<Arc<str>, MemorySink>,
    clock: Clock,
    stop: CancellationToken,
}

impl Demo<'_> {
    /// Generates, keeps the tables, and mirrors them in memory, until everything is committed.
    async fn play(
        &self,
        cluster: &MockCluster,
        generator: Generator,
        health: Arc<Health>,
    ) -> Result<(u64, Progress)> {
        let reach = Reach::default();
        let partitions = setup::partitions(&setup::kafka(self.config)?);
        let options = || pipeline::Options {
            partitions: partitions.clone(),
            limits: self.config.limits,
            buffer_bytes: self.config.memory / 4,
            once: false,
            dead_letters: None,
            dead_letter_limit: self.config.dead_letter_limit,
            max_record_bytes: self.config.max_record_bytes,
        };
        let source = |group: &str| -> Result<Tracked> {
            let config = Config { group: group.to_owned(), ..self.config.clone() };
            let source = KafkaSource::start(setup::kafka(&config)?)?;
            Ok(Tracked { source, group: group.to_owned(), reach: reach.clone() })
        };
        let progress = Progress::new(self.clock.clone(), health);
        let (stop, setup) = (self.stop.clone(), |topic: &Arc<str>| self.tables.setup(topic));
        let lake = pipeline::run(source("demo")?, setup, options(), progress, stop);
        let unseen = Arc::new(Health::new(self.clock.clone(), Duration::from_secs(120)));
        let progress = Progress::new(self.clock.clone(), unseen);
        let (stop, setup) = (self.stop.clone(), |topic: &Arc<str>| self.mirror_setup(topic));
        let mirror = pipeline::run(source("mirror")?, setup, options(), progress, stop);
        let feeder = cluster.feeder(reach.watch())?;
        let produce = async {
            let produced = self.produce(feeder, generator, &reach).await;
            self.stop.cancel();
            produced
        };
        let (lake, mirror, produced) = tokio::join!(lake, mirror, produce);
        let (lake, mirror, produced) = (lake?, mirror?, produced?);
        if !mirror.is_complete() {
            return Err(Error::internal("the mirror in memory is not complete"));
        }
        Ok((produced, lake))
    }

    fn mirror_setup(&self, topic: &Arc<str>) -> Result<TableSetup<MemorySink>> {
        let sink = self.memory.get(topic).cloned().unwrap_or_default();
        Ok(TableSetup {
            name: format!("mirror of {topic}").into(),
            sink,
            decoder: self.tables.decoder(topic)?,
            missing_value: MissingValue::default(),
            truncates: Truncates::default(),
        })
    }

    /// Produces every record, and returns once both pipelines have read them.
    async fn produce(
        &self,
        mut feeder: Feeder,
        mut generator: Generator,
        reach: &Reach,
    ) -> Result<u64> {
        let mut ends: HashMap<TopicPartition, i64> = HashMap::new();
        let mut produced = 0;
        let started = tokio::time::Instant::now();
        while !self.stop.is_cancelled() {
            if !self.args.once {
                generator.not_before(self.clock.now_micros());
                let due = started + Duration::from_micros(produced * 1_000_000 / CALM_RATE);
                tokio::time::sleep_until(due).await;
            }
            let Some(record) = generator.next() else { break };
            let at =
                TopicPartition { topic: Arc::clone(&record.topic), partition: record.partition };
            send(&mut feeder, &at, &record).await?;
            *ends.entry(at).or_default() += 1;
            produced += 1;
        }
        feeder.flush().await?;
        reach.wait_for(&ends).await;
        Ok(produced)
    }

    fn tell(&self, out: &mut String, produced: u64, progress: &Progress, took: Duration) {
        let rate = produced as f64 / took.as_secs_f64();
        out.push_str(&format!(
            "\n{produced} records in {:.1} s ({rate:.0} records/s, generated, read, merged and mirrored in one process)\n\n",
            took.as_secs_f64()
        ));
        for table in progress.tables().values() {
            out.push_str(&format!(
                "  {}: {} commits, {} rows written, {} deleted, from {} records\n",
                table.name, table.commits, table.upserts, table.deletes, table.consumed
            ));
            if !table.skipped.is_empty() {
                let skipped = table.skipped.iter().map(|(kind, n)| format!("{n} {kind}"));
                let skipped = skipped.collect::<Vec<_>>().join(", ");
                out.push_str(&format!("    passed over: {skipped}\n"));
            }
            if let Some(reason) = &table.halted {
                out.push_str(&format!("    HALTED: {reason}\n"));
            }
        }
    }

    /// Reads every table back in each of its formats and compares it with the one in memory.
    async fn compare(&self, out: &mut String, topics: &[Arc<str>]) -> Result<bool> {
        out.push_str("\nread back and compared with the tables in memory:\n");
        let mut same = true;
        for topic in topics {
            let lake = self.tables.lake(topic)?;
            let expected = self.memory.get(topic).map(MemorySink::rows).unwrap_or_default();
            for (format, batches) in lake::read(&lake).await? {
                let mut rows = Vec::new();
                for batch in &batches {
                    rows.extend(text_rows(batch)?);
                }
                rows.sort();
                let verdict = if rows == expected { "equal" } else { "DIFFERENT" };
                same &= rows == expected;
                out.push_str(&format!(
                    "  {} ({format}): {} rows, {verdict}\n",
                    lake.name,
                    rows.len()
                ));
            }
        }
        Ok(same)
    }

    fn tell_queries(&self, out: &mut String, topics: &[Arc<str>]) -> Result<()> {
        out.push_str("\nquery them with DuckDB:\n");
        for topic in topics {
            let lake = self.tables.lake(topic)?;
            let folder = lake.location.url().path().trim_end_matches('/').to_owned();
            if self.config.to.contains(&Format::Delta) {
                out.push_str(&format!(
                    "  duckdb -c \"INSTALL delta; LOAD delta; SELECT * FROM delta_scan('{folder}') LIMIT 10\"\n"
                ));
            }
            if self.config.to.contains(&Format::Iceberg) {
                let below = if self.config.to.len() > 1 { "/_iceberg" } else { "" };
                out.push_str(&format!(
                    "  duckdb -c \"INSTALL iceberg; LOAD iceberg; SELECT * FROM iceberg_scan('{folder}{below}') LIMIT 10\"\n"
                ));
            }
        }
        Ok(())
    }
}

async fn send(feeder: &mut Feeder, at: &TopicPartition, record: &Generated) -> Result<()> {
    let headers: Vec<(&str, &[u8])> =
        record.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    let produced = Produced {
        key: Some(&record.key),
        value: record.value.as_deref(),
        headers: &headers,
        timestamp_ms: Some(record.timestamp_ms),
    };
    feeder.send(at, produced).await
}

/// How far each group has read each partition.
#[derive(Debug, Clone)]
struct Reach {
    groups: Arc<Mutex<BTreeMap<String, HashMap<TopicPartition, i64>>>>,
    slowest: watch::Sender<HashMap<TopicPartition, i64>>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { groups: Arc::default(), slowest: watch::Sender::new(HashMap::new()) }
    }
}

impl Reach {
    fn watch(&self) -> watch::Receiver<HashMap<TopicPartition, i64>> {
        self.slowest.subscribe()
    }

    /// `group` has read `at` up to `next`.
    fn read(&self, group: &str, at: TopicPartition, next: i64) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.entry(group.to_owned()).or_default().insert(at.clone(), next);
        let everyone = groups.values().filter_map(|read| read.get(&at).copied());
        let slowest = everyone.clone().min().filter(|_| everyone.count() == GROUPS);
        if let Some(slowest) = slowest {
            self.slowest.send_modify(|read| {
                read.insert(at, slowest);
            });
        }
    }

    /// Returns once every group has read up to `ends`.
    async fn wait_for(&self, ends: &HashMap<TopicPartition, i64>) {
        let there = |read: &HashMap<TopicPartition, i64>| {
            ends.iter().all(|(at, end)| read.get(at).is_some_and(|next| next >= end))
        };
        // The sender is `self`, so it is there.
        self.watch().wait_for(there).await.ok();
    }
}

/// A source that tells how far it has read.
#[derive(Debug)]
struct Tracked {
    source: KafkaSource,
    group: String,
    reach: Reach,
}

impl Source for Tracked {
    async fn next(&mut self) -> Event {
        let event = self.source.next().await;
        if let Event::Records(records) = &event {
            let topic = Arc::clone(records.topic());
            let at = TopicPartition { topic, partition: records.partition() };
            self.reach.read(&self.group, at, records.next());
        }
        event
    }

    fn acknowledge(&mut self, topic: &str, committed: &Committed) {
        self.source.acknowledge(topic, committed);
    }

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        self.source.hold(partition, held);
    }

    fn read_again(&mut self, partitions: Vec<TopicPartition>) {
        self.source.read_again(partitions);
    }

    async fn close(self) {
        self.source.close().await;
    }
}
