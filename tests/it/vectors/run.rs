//! One case in one encoding through the pipeline: into a table in memory, in Delta or in Iceberg, in batches cut one
//! way.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::cli::setup::{self, Tables};
use cdc_sink::clock::Clock;
use cdc_sink::config::{Config, Options};
use cdc_sink::dead_letter::DeadLetters;
use cdc_sink::decode::Registry;
use cdc_sink::names::Naming;
use cdc_sink::pipeline::{self, Partitions, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::memory::{MemorySink, TextRow, text_rows};
use cdc_sink::sink::{Sink, lake};
use cdc_sink::source::Event;
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, ScriptedSource, Step};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::case::{Case, Encoding, Restart};
use super::encode::{Encoded, Encoder, Life, declarations};
use super::registry;
use crate::sources::{Course, Passed};

/// A run that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Memory,
    Delta,
    Iceberg3,
    Iceberg2,
}

impl Target {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Delta => "delta",
            Self::Iceberg3 => "iceberg",
            Self::Iceberg2 => "iceberg2",
        }
    }
}

/// How the records come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// All in one batch.
    Batch,
    /// A commit after each.
    Each,
    /// The first so many, and then all again, as after a restart of the connector; a commit after each.
    Replay(usize),
}

/// A case in one encoding, into one target, delivered one way.
pub(super) struct Run<'a> {
    pub(super) case: &'a Case,
    pub(super) encoding: Encoding,
    pub(super) target: Target,
    pub(super) delivery: Delivery,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Rows by topic; a table that was not made is absent.
    pub(super) rows: BTreeMap<Arc<str>, Vec<TextRow>>,
    /// Types of the own table's columns, as Arrow has them.
    pub(super) types: BTreeMap<String, String>,
    /// Why the own table halted.
    pub(super) halted: Option<String>,
    /// Commits of the own table since the last start.
    pub(super) commits: u64,
    pub(super) registry_requests: usize,
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (encoding, target) = (self.encoding.name(), self.target.name());
        write!(f, "{}_{encoding}_{target}_{:?}", self.case.id, self.delivery)
    }
}

impl Run<'_> {
    /// The topic, which no other run has.
    pub(super) fn topic(&self) -> Arc<str> {
        let own = self.to_string().to_lowercase().replace(['(', ')'], "");
        self.case.topic.replace("{t}", &own).into()
    }

    /// The name of the own table in metrics and dead letters.
    pub(super) fn table(&self) -> String {
        Naming::parse(Naming::DEFAULT).unwrap().table(&self.topic()).to_string()
    }

    pub(super) async fn go(
        &self,
        folder: &Path,
        letters: &Arc<DeadLetters>,
    ) -> Result<Outcome, String> {
        let went = AssertUnwindSafe(self.through(folder, letters)).catch_unwind();
        match tokio::time::timeout(DEADLINE, went).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("it panics".to_owned()),
            Err(_) => Err("it does not come to an end".to_owned()),
        }
    }

    async fn through(&self, folder: &Path, letters: &Arc<DeadLetters>) -> Result<Outcome, String> {
        let mut encoder = Encoder::new(self.case, self.encoding, self.topic());
        let lives = self.delivered(encoder.lives());
        let config = self.config(folder)?;
        let served = match self.case.registry_misses {
            None => None,
            Some(misses) => Some(registry::serve(encoder.schemas(), misses).await),
        };
        let registry = match &served {
            None => encoder.registry(),
            Some(served) => Registry::new(&served.address, None).map_err(|e| e.report())?,
        };
        let mut sinks: BTreeMap<Arc<str>, MemorySink> = BTreeMap::new();
        let mut logs: BTreeMap<TopicPartition, Vec<LoggedRecord>> = BTreeMap::new();
        let mut outcome = Outcome::default();
        let starts: Vec<Option<Restart>> = lives.iter().map(|life| life.start).collect();
        for (number, life) in lives.into_iter().enumerate() {
            if life.start == Some(Restart::Recreated) {
                logs.clear();
            }
            let script = append(&mut logs, life.records);
            for at in logs.keys() {
                sinks.entry(Arc::clone(&at.topic)).or_default();
            }
            let killed = starts.get(number + 1) == Some(&Some(Restart::Killed));
            let process = Process {
                config: &config,
                registry: Arc::clone(&registry),
                letters: config.dead_letters.topic.is_some().then(|| Arc::clone(letters)),
                logs: logs.clone(),
                script,
                killed,
            };
            let tables = process.tables().await?;
            let progress = match self.target {
                Target::Memory => {
                    let open = |topic: &Arc<str>| {
                        let TableSetup { name, decoder, missing_value, truncates, .. } =
                            tables.setup(topic)?;
                        let sink = sinks[topic].clone();
                        Ok(TableSetup { name, sink, decoder, missing_value, truncates })
                    };
                    process.run(open).await?
                }
                _ => process.run(|topic: &Arc<str>| tables.setup(topic)).await?,
            };
            if let Some(table) = progress.and_then(|p| p.tables().get(&self.topic()).cloned()) {
                (outcome.halted, outcome.commits) = (table.halted, table.commits);
            }
            outcome.rows.clear();
            for (topic, sink) in &sinks {
                match self.target {
                    Target::Memory => outcome.take(self, topic, sink),
                    _ => {
                        let lake = tables.lake(topic).map_err(|e| e.report())?;
                        for (_, batches) in lake::read(&lake).await.map_err(|e| e.report())? {
                            outcome.take_batches(self, topic, &batches);
                        }
                    }
                }
            }
        }
        outcome.registry_requests = served.map_or(0, |served| served.requests());
        Ok(outcome)
    }

    /// The product's configuration of the run.
    fn config(&self, folder: &Path) -> Result<Config, String> {
        let mut table = self.case.table.clone();
        if self.encoding == Encoding::Bare
            || self.case.send.iter().any(|send| send.encoding == Some(Encoding::Bare))
        {
            let mut types = declarations(self.case);
            types
                .extend(table.get("types").and_then(Value::as_object).cloned().unwrap_or_default());
            table.insert("types".into(), types.into());
        }
        let (format, version) = match self.target {
            Target::Delta => ("delta", 3),
            Target::Memory | Target::Iceberg3 => ("iceberg", 3),
            Target::Iceberg2 => ("iceberg", 2),
        };
        let warehouse = folder.join(self.topic().rsplit('.').next().unwrap_or_default());
        let rows = if self.delivery == Delivery::Batch { 1_000_000 } else { 1 };
        let mut options = json!({
            "brokers": "none", "topics": ["*"], "registry": "http://none", "dead-letters": "dead",
            "warehouse": warehouse, "to": [format], "format-version": version,
            "batch-rows": rows, "batch-age": "1h", "batch-idle": "1h", "once": true,
            "tables": {&*self.topic(): table},
        });
        options.as_object_mut().unwrap().extend(self.case.options.clone());
        let options: Options =
            serde_json::from_value(options).map_err(|e| format!("options: {e}"))?;
        options.validate().map_err(|e| e.report())
    }

    fn delivered(&self, lives: Vec<Life>) -> Vec<Life> {
        let Delivery::Replay(first) = self.delivery else { return lives };
        let mut records: Vec<Encoded> = lives.into_iter().flat_map(|life| life.records).collect();
        records.iter_mut().for_each(|sent| sent.offset = None);
        let again = records.clone();
        records.truncate(first);
        records.extend(again);
        vec![Life { start: None, records }]
    }
}

/// Adds records to their logs; a script that delivers all logs, the new records in their order.
fn append(
    logs: &mut BTreeMap<TopicPartition, Vec<LoggedRecord>>,
    records: Vec<Encoded>,
) -> Vec<Step> {
    let mut order = Vec::new();
    for Encoded { topic, partition, offset, mut record } in records {
        let at = TopicPartition { topic, partition };
        let log = logs.entry(at.clone()).or_default();
        let next = log.last().map_or(0, |last| last.offset + 1);
        record.offset = offset.unwrap_or(next).max(next);
        log.push(record);
        order.push(Step::Deliver(at, 1));
    }
    let mut script = vec![Step::Assign(logs.keys().cloned().collect())];
    script.append(&mut order);
    script
}

/// One life of the process.
pub(crate) struct Process<'a> {
    pub(crate) config: &'a Config,
    pub(crate) registry: Arc<Registry>,
    pub(crate) letters: Option<Arc<DeadLetters>>,
    pub(crate) logs: BTreeMap<TopicPartition, Vec<LoggedRecord>>,
    pub(crate) script: Vec<Step>,
    /// It is killed once everything was delivered.
    pub(crate) killed: bool,
}

impl Process<'_> {
    pub(crate) async fn tables(&self) -> Result<Tables, String> {
        let tables = Tables::open(self.config, Some(Arc::clone(&self.registry)), clock()).await;
        tables.map_err(|e| e.report())
    }

    /// Runs to the end; how far it came, if it was not killed.
    pub(crate) async fn run<S>(
        self,
        open: impl Fn(&Arc<str>) -> cdc_sink::error::Result<TableSetup<S>>,
    ) -> Result<Option<Progress>, String>
    where
        S: Sink + Send + Sync + 'static,
    {
        let left = self.logs.values().map(Vec::len).sum();
        let topics: Vec<_> = self.logs.keys().map(|at| Arc::clone(&at.topic)).collect();
        let partitions = Partitions::new(move |topic| {
            std::future::ready(Ok(topics.iter().filter(|own| ***own == *topic).count())).boxed()
        });
        let logs = self.logs.into_iter().map(|(at, records)| (at, Log::new(records, 0)));
        let source =
            ScriptedSource::new(Arc::new(logs.collect()), self.script, Acknowledged::default());
        let killed = Arc::new(Notify::new());
        let left = if self.killed { left } else { usize::MAX };
        let source = Passed { source, course: Mortal { left, killed: Arc::clone(&killed) } };
        let progress = Progress::new(clock(), Arc::new(Health::new(clock(), DEADLINE)));
        let options = setup::pipeline(self.config, partitions, self.letters);
        tokio::select! {
            biased;
            () = killed.notified() => Ok(None),
            ended = pipeline::run(source, open, options, progress, CancellationToken::new()) => {
                ended.map(Some).map_err(|e| e.report())
            }
        }
    }
}

fn clock() -> Clock {
    Clock::from_fn(|| 1_700_000_000_000_000)
}

/// Tells when so many records have come and more are asked for.
struct Mortal {
    left: usize,
    killed: Arc<Notify>,
}

impl Course for Mortal {
    fn is_over(&mut self) -> bool {
        if self.left == 0 {
            self.killed.notify_one();
        }
        self.left == 0
    }

    fn pass(&mut self, event: Event) -> Option<Event> {
        if let Event::Records(records) = &event {
            self.left = self.left.saturating_sub(records.len());
        }
        Some(event)
    }
}

impl Outcome {
    fn take(&mut self, run: &Run<'_>, topic: &Arc<str>, sink: &MemorySink) {
        let Some(schema) = sink.schema() else { return };
        if *topic == run.topic() {
            let types = schema.columns().iter().map(|c| (c.name.clone(), c.ty.arrow().to_string()));
            self.types = types.collect();
        }
        self.rows.insert(Arc::clone(topic), sink.rows());
    }

    fn take_batches(
        &mut self,
        run: &Run<'_>,
        topic: &Arc<str>,
        batches: &[arrow::array::RecordBatch],
    ) {
        let rows = self.rows.entry(Arc::clone(topic)).or_default();
        for batch in batches {
            if *topic == run.topic() {
                let schema = batch.schema();
                let types = schema.fields().iter();
                self.types = types.map(|f| (f.name().clone(), f.data_type().to_string())).collect();
            }
            rows.extend(text_rows(batch).unwrap());
        }
    }
}
