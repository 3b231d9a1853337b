//! One case in one encoding through the pipeline: into a table in memory, in Delta or in Iceberg, in batches cut one
//! way.

use std::collections::{BTreeMap, BTreeSet};
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
use cdc_sink::pipeline::{self, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::memory::{MemorySink, TextRow, text_rows};
use cdc_sink::sink::{Sink, lake};
use cdc_sink::source::scripted::{Acknowledged, Log, LoggedRecord, ScriptedSource, Step};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::case::{Case, Encoding};
use super::encode::{Encoded, Encoder, declarations};
use super::registry;

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
        let records = self.delivered(encoder.records());
        let config = self.config(folder)?;
        let mut server = None;
        let registry = match self.case.registry_misses {
            None => encoder.registry(),
            Some(misses) => {
                let served = registry::serve(encoder.schemas(), misses).await;
                let registry = Registry::new(&served.address, None).map_err(|e| e.report())?;
                server = Some(served);
                registry
            }
        };
        let clock = Clock::from_fn(|| 1_700_000_000_000_000);
        let tables = Tables::open(&config, Some(registry), clock.clone()).await;
        let tables = tables.map_err(|e| e.report())?;
        let (logs, script) = self.script(records);
        let topics: BTreeSet<Arc<str>> = logs.keys().map(|at| Arc::clone(&at.topic)).collect();
        let source = ScriptedSource::new(Arc::new(logs), script, Acknowledged::default());
        let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
        let progress = Progress::new(clock, health);
        let letters = config.dead_letters.is_some().then(|| Arc::clone(letters));
        let options = setup::pipeline(&config, letters);
        let stop = CancellationToken::new();
        let mut outcome = Outcome::default();
        let progress = if self.target == Target::Memory {
            let sinks: BTreeMap<Arc<str>, MemorySink> =
                topics.iter().map(|topic| (Arc::clone(topic), MemorySink::default())).collect();
            let open = |topic: &Arc<str>| {
                let TableSetup { name, decoder, missing_value, .. } = tables.setup(topic)?;
                Ok(TableSetup { name, sink: sinks[topic].clone(), decoder, missing_value })
            };
            let ended = pipeline::run(source, open, options, progress, stop).await;
            for (topic, sink) in &sinks {
                outcome.take(self, topic, sink);
            }
            ended
        } else {
            let open = |topic: &Arc<str>| tables.setup(topic);
            let ended = pipeline::run(source, open, options, progress, stop).await;
            for topic in &topics {
                let read = tables.lake(topic).map_err(|e| e.report())?;
                let read = lake::read(&read).await.map_err(|e| e.report())?;
                for (_, batches) in read {
                    outcome.take_batches(self, topic, &batches);
                }
            }
            ended
        };
        let progress = progress.map_err(|e| e.report())?;
        let topic = self.topic();
        outcome.halted = progress.tables().get(&topic).and_then(|table| table.halted.clone());
        outcome.registry_requests = server.map_or(0, |server| server.requests());
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

    fn delivered(&self, records: Vec<Encoded>) -> Vec<Encoded> {
        let Delivery::Replay(first) = self.delivery else { return records };
        let again = |sent: &Encoded| Encoded {
            topic: Arc::clone(&sent.topic),
            partition: sent.partition,
            offset: None,
            record: sent.record.clone(),
        };
        let mut replayed: Vec<Encoded> = records.iter().take(first).map(again).collect();
        replayed.extend(records.iter().map(again));
        replayed
    }

    /// Logs of all partitions, and a script that delivers their records in the order of the case.
    fn script(&self, records: Vec<Encoded>) -> (BTreeMap<TopicPartition, Log>, Vec<Step>) {
        let mut logs: BTreeMap<TopicPartition, Vec<LoggedRecord>> = BTreeMap::new();
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
        (logs.into_iter().map(|(at, records)| (at, Log::new(records, 0))).collect(), script)
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
