//! `run`: keep tables equal to their topics.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::display::Display;
use super::log;
use super::naming::Named;
use super::setup::{self, Tables};
use crate::admin::{self, Health};
use crate::clock::Clock;
use crate::config::{Config, ConfigFile, Options};
use crate::decode::{Registry, SchemaHistory};
use crate::error::Result;
use crate::metrics;
use crate::pipeline::{self, Progress};
use crate::retry;
use crate::shutdown;
use crate::source::{Followed, KafkaOptions, KafkaSource, follow};

/// The pipeline's loop waits for nothing longer than this.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(120);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    log: log::LogArgs,
}

/// Runs until everything is committed (`--once`) or a signal comes.
pub(super) async fn run(args: RunArgs) -> Result<ExitCode> {
    let file = args.file.config.as_deref().map(Options::from_file).transpose()?;
    let config = args.options.over(file.unwrap_or_default()).validate()?;
    let screen = log::start(&args.log)?;
    let clock = Clock::system();
    let metrics = metrics::install()?;
    let health = Arc::new(Health::new(clock.clone(), HEARTBEAT_LIMIT));
    let listener = admin::bind(config.listen).await?;
    tracing::info!(
        topics = config.topics.join(","),
        warehouse = config.warehouse,
        listen = %config.listen,
        "starting"
    );
    let served = CancellationToken::new();
    let pages = admin::serve(listener, Arc::clone(&health), metrics, served.clone());
    let stop = CancellationToken::new();
    let display = Display::start(&screen, Arc::clone(&health));
    let outcome = tokio::select! {
        outcome = keep(&config, clock, Arc::clone(&health), stop.clone()) => outcome,
        interrupted = shutdown::watch(stop) => {
            interrupted?;
            return Ok(ExitCode::from(shutdown::INTERRUPTED));
        }
        () = pages => Err(crate::error::Error::internal("the admin pages ended")),
    };
    served.cancel();
    display.finish();
    let progress = outcome?;
    summarise(&progress);
    Ok(if progress.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn keep(
    config: &Config,
    clock: Clock,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<Progress> {
    let progress = Progress::new(clock.clone(), Arc::clone(&health));
    let registry = setup::registry(config)?;
    let kafka = setup::kafka(config)?;
    let opening = open(config, registry.clone(), &kafka, clock);
    let tables = tokio::select! {
        opened = opening => opened?,
        never = stay_alive(&health) => match never {},
        () = stop.cancelled() => return Ok(progress),
    };
    let dead_letters = tables.dead_letters(&kafka.connection)?;
    let options = setup::pipeline(config, setup::partitions(&kafka), dead_letters);
    let history = Arc::new(SchemaHistory::default());
    let (tables, changes) = match config.schema_history.as_slice() {
        [] => (tables, None),
        topics => (tables.with_history(Arc::clone(&history)), Some(follow(&kafka, topics)?)),
    };
    let tables = Arc::new(tables);
    let source = KafkaSource::start(kafka.clone())?;
    let source = Named::new(source, Arc::clone(&tables), kafka, config.once);
    tokio::select! {
        done = pipeline::run(source, |topic| tables.setup(topic), options, progress, stop) => done,
        never = learn(&history, config.schema_history.len(), changes, registry) => match never {},
    }
}

/// Takes in what the schema-change topics say. What cannot be read is passed over: the rename that it told of is a new
/// column then.
async fn learn(
    history: &SchemaHistory,
    topics: usize,
    changes: Option<mpsc::Receiver<Followed>>,
    registry: Option<Arc<Registry>>,
) -> Infallible {
    if let Some(mut changes) = changes {
        let mut ends = 0;
        while let Some(next) = changes.recv().await {
            match next {
                Followed::Value(value) => take_change(history, &value, registry.as_ref()).await,
                Followed::End => ends += 1,
            }
            if ends == topics {
                history.reach_end();
            }
        }
    }
    std::future::pending().await
}

async fn take_change(history: &SchemaHistory, value: &[u8], registry: Option<&Arc<Registry>>) {
    let mut waits = retry::waits();
    while let Err(error) = history.take(value, registry).await {
        tracing::warn!(error = error.report(), "cannot take in a schema change");
        match waits.next().filter(|_| error.is_retryable()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}

async fn open(
    config: &Config,
    registry: Option<Arc<Registry>>,
    kafka: &KafkaOptions,
    clock: Clock,
) -> Result<Tables> {
    let copies = setup::copies(config)?;
    let tables = Tables::open(config, registry, clock).await?.with_copies(copies);
    tables.check_store().await?;
    tables.owned(kafka).await
}

/// A run that waits for a catalog or a store is no run that is stuck.
async fn stay_alive(health: &Health) -> Infallible {
    loop {
        health.beat();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn summarise(progress: &Progress) {
    for (topic, table) in progress.tables() {
        tracing::info!(
            table = &*table.name,
            topic = &**topic,
            records = table.consumed,
            upserts = table.upserts,
            deletes = table.deletes,
            dead_letters = table.dead_letters,
            commits = table.commits,
            halted = table.halted.as_deref(),
            "table"
        );
    }
}
