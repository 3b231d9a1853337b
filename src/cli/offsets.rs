//! `offsets`: what a person does about the positions that tables store.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::RecordBatch;
use uuid::Uuid;

use super::log;
use super::setup::{self, Tables};
use crate::change::Batch;
use crate::clock::Clock;
use crate::config::{ConfigFile, Options};
use crate::error::{Error, Result};
use crate::position::OffsetRange;
use crate::sink::{Merged, Sink};
use crate::source::{self, Offsets};

/// Arguments of `offsets`.
#[derive(Debug, clap::Args)]
pub(super) struct OffsetsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Let a halted table go on behind records that its topic no longer has
    ///
    /// Moves the position that the table stores; rows are not touched. What the lost records said is missing from the
    /// table until another initial snapshot brings it. The commit says what was accepted and why
    /// (`cdc-sink.audit` in Delta's commitInfo and in Iceberg's snapshot summary). Takes the same options as `run`, so that
    /// it finds the same table; restart the instance that reads the topic afterwards.
    AcceptGap(Box<AcceptGapArgs>),
}

/// Arguments of `offsets accept-gap`.
#[derive(Debug, clap::Args)]
struct AcceptGapArgs {
    /// The topic
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// Its partition
    #[arg(long, value_name = "N")]
    partition: i32,
    /// Where to go on [default: the oldest offset that the partition has]
    #[arg(long, value_name = "OFFSET")]
    position: Option<i64>,
    /// Why, for whoever reads the table's history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    log: log::LogArgs,
}

/// Does it, and prints what was done.
pub(super) async fn run(args: OffsetsArgs) -> Result<ExitCode> {
    let Command::AcceptGap(args) = args.command;
    let done = accept_gap(*args).await?;
    writeln!(std::io::stdout(), "{done}").ok();
    Ok(ExitCode::SUCCESS)
}

async fn accept_gap(args: AcceptGapArgs) -> Result<String> {
    let AcceptGapArgs { topic, partition, position, reason, mut options, file, log } = args;
    let file = file.config.as_deref().map(Options::from_file).transpose()?;
    options.topics = Some(vec![topic.clone()]);
    let config = options.over(file.unwrap_or_default()).validate()?;
    log::start(&log)?;
    let kafka = setup::kafka(&config)?;
    let topic: Arc<str> = topic.into();
    let tables = Tables::open(&config, setup::registry(&config)?, Clock::system()).await?;
    let tables = tables.owned(&kafka).await?;
    if !tables.is_named(&topic) {
        tables.name(&kafka, &BTreeSet::from([Arc::clone(&topic)])).await?;
    }
    let setup = tables.setup(&topic)?;
    let (table, mut sink) = (setup.name, setup.sink);
    let stored = sink.position().await?.get(partition);
    let (Some(from), Some(schema)) = (stored, sink.schema()) else {
        return Err(Error::invalid(format!(
            "table {table} has no position of {topic}[{partition}]: it is read from its beginning"
        )));
    };
    let connection = kafka.connection.clone();
    let Offsets { low, high, topic_id } =
        source::offsets(connection, topic.to_string(), partition).await?;
    let to = position.unwrap_or(low);
    if to <= from || to > high {
        return Err(Error::invalid(format!(
            "cannot move table {table} from offset {from} of {topic}[{partition}] to {to}"
        ))
        .hint(format!("the topic has offsets from {low} to {high} (not included)")));
    }
    let gap = format!("offsets {from} to {to} (not included) of {topic}[{partition}]");
    let rows = RecordBatch::new_empty(schema.arrow());
    let ranges = vec![OffsetRange { partition, from, to }];
    let batch = Batch {
        topic_id,
        audit: Some(format!("accepted as lost: {gap}: {reason}")),
        ..Batch::of_rows(Uuid::new_v4(), ranges, schema, rows, Vec::new())
    };
    match sink.merge(&batch).await? {
        Merged::Committed(committed) => {
            let versions = committed.versions().iter();
            let versions: Vec<_> = versions.map(|(format, v)| format!("{format} {v}")).collect();
            let versions = versions.join(", ");
            Ok(format!("table {table} goes on behind {gap} ({versions}); restart its instance"))
        }
        Merged::Fenced { .. }
        | Merged::Outdated
        | Merged::Stale { .. }
        | Merged::Occupied
        | Merged::Missing { .. } => Err(Error::unavailable(format!(
            "table {table} was written meanwhile by an instance that runs: it did not halt"
        ))),
    }
}
