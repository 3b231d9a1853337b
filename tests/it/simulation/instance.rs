//! One instance of the program: the pipeline, with sinks on the shared store and the group's member as its source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use cdc_sink::admin::{Health, RunState};
use cdc_sink::batch::Limits;
use cdc_sink::change::{MissingValue, Truncates};
use cdc_sink::pipeline::{self, Partitions, Progress, TableSetup};
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::iceberg::Catalog;
use cdc_sink::sink::lake::LakeSink;
use cdc_sink::source::Source as _;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::member::{Acknowledged, Membership};
use super::process::Process;
use super::store::World;
use super::tables::Tables;
use super::topics::Topics;

/// What an instance is started with.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) world: Arc<World>,
    pub(super) group: Arc<Group>,
    pub(super) topics: Arc<Topics>,
    pub(super) tables: Tables,
    pub(super) acknowledged: Acknowledged,
    pub(super) limits: Limits,
    started: Arc<Mutex<u32>>,
}

/// A running instance.
pub(super) struct Instance {
    pub(super) process: Arc<Process>,
    health: Arc<Health>,
    stop: CancellationToken,
    tasks: JoinSet<Option<Progress>>,
    task: AbortHandle,
}

impl Cluster {
    pub(super) fn new(
        world: &Arc<World>,
        group: &Arc<Group>,
        topics: &Arc<Topics>,
        tables: Tables,
        limits: Limits,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            group: Arc::clone(group),
            topics: Arc::clone(topics),
            tables,
            acknowledged: Acknowledged::default(),
            limits,
            started: Arc::new(Mutex::new(0)),
        }
    }

    /// Starts an instance that was never there before.
    pub(super) fn start(&self) -> Instance {
        let number = {
            let mut started = self.started.lock().unwrap();
            *started += 1;
            *started
        };
        let process = Arc::new(Process::new(number));
        self.world.trace.say(format!("{} starts", process.name));
        let logs = &self.topics.logs;
        let source = Membership::new(&self.world, &self.group, &process, logs, &self.acknowledged);
        let clock = self.tables.clock.clone();
        let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(3600)));
        let progress = Progress::new(clock, Arc::clone(&health));
        let counts = logs.keys().fold(BTreeMap::<_, usize>::new(), |mut counts, at| {
            *counts.entry(at.topic.to_string()).or_default() += 1;
            counts
        });
        let options = pipeline::Options {
            limits: self.limits,
            buffer_bytes: 1 << 20,
            once: false,
            partitions: Partitions::new(move |topic| {
                let count = counts[topic];
                Box::pin(async move { Ok(count) })
            }),
            dead_letters: None,
            dead_letter_limit: 0,
            max_record_bytes: usize::MAX,
        };
        let stop = CancellationToken::new();
        let (cluster, own, token) = (self.clone(), Arc::clone(&process), stop.clone());
        let mut tasks = JoinSet::new();
        let task = tasks.spawn(async move {
            let run = async {
                let Some(catalogs) = cluster.catalogs(&own, &token).await else {
                    source.close().await;
                    return None;
                };
                let open = |topic: &Arc<str>| Ok(cluster.table(&own, &catalogs[topic], topic));
                pipeline::run(source, open, options, progress, token).await.ok()
            };
            tokio::select! {
                biased;
                () = own.crash.notified() => None,
                progress = run => progress,
            }
        });
        Instance { process, health, stop, tasks, task }
    }

    /// The catalog for each topic's table; none when the process is told to stop before.
    async fn catalogs(
        &self,
        process: &Arc<Process>,
        stop: &CancellationToken,
    ) -> Option<BTreeMap<Arc<str>, Arc<Catalog>>> {
        let mut catalogs = BTreeMap::new();
        for topic in self.topics.topics() {
            let catalog = self.tables.catalog(&self.world, process, &topic);
            let catalog = stop.run_until_cancelled(catalog).await?;
            catalogs.insert(topic, catalog.unwrap());
        }
        Some(catalogs)
    }

    fn table(
        &self,
        process: &Arc<Process>,
        catalog: &Arc<Catalog>,
        topic: &Arc<str>,
    ) -> TableSetup<LakeSink> {
        let options = self.tables.of(&self.world, process, catalog, topic);
        TableSetup {
            name: Arc::clone(&options.name),
            sink: LakeSink::new(options),
            decoder: self.topics.decoder(),
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        }
    }
}

impl Instance {
    /// Tables that have halted, and why.
    pub(super) fn halted(&self) -> Vec<(String, String)> {
        let tables = self.health.status().tables.into_iter().map(|table| table.state);
        let halted = tables.filter(|table| table.state == RunState::Halted);
        halted.map(|table| (table.table, table.reason.unwrap_or_default())).collect()
    }

    /// True when everything of the partition, which ends at `high`, is in its table as far as this instance knows.
    pub(super) fn has_settled(&self, at: &TopicPartition, high: i64) -> bool {
        self.health.status().tables.iter().any(|table| {
            let partitions = &table.state.partitions;
            *table.state.topic == *at.topic
                && partitions
                    .iter()
                    .any(|p| p.partition == at.partition && p.position == Some(high))
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Tells it to stop (SIGTERM).
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// How it ended; none when it died.
    pub(super) async fn ended(mut self) -> Option<Progress> {
        self.tasks.join_next().await.unwrap().unwrap()
    }
}
