//! The command line: one file per command; errors are printed once, here, and become exit codes.

mod demo;
mod display;
mod log;
mod maintain;
mod naming;
mod offsets;
mod plan;
mod run;
pub mod setup;
mod status;
mod types_from;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Kind, Result};

const EXAMPLES: &str = "\
Examples:
  Try it without any server (a Kafka cluster inside the process, tables on the local disk):
    cdc-sink demo --once

  Keep Delta tables on S3 equal to every table of a Postgres schema:
    cdc-sink --brokers kafka:9092 --topics 'shop.public.*' --to delta --warehouse s3://lake

  Delta and Iceberg at once, one copy of the data, Avro, an Iceberg REST catalog:
    cdc-sink --brokers kafka:9092 --topics 'shop.*.*' --registry http://registry:8080/apis/ccompat/v7 \\
             --to delta --to iceberg --catalog http://catalog:8181 --warehouse s3://lake

  What the tables of a schema would get, and what of it is lost, before anything is written:
    cdc-sink plan --brokers kafka:9092 --topics 'shop.public.*'

  The types of a source database's columns, declared for records in JSON without a schema:
    cdc-sink plan --types-from postgres://reader@db/shop --topic-prefix shop --topics 'shop.public.*' > types.toml

  What a running instance is doing:
    cdc-sink status

  A table halted because retention deleted records before they were read; go on behind them:
    cdc-sink offsets accept-gap --topic shop.public.orders --partition 0 --reason 'outage of May' --config cdc-sink.toml

  Every night, remove what attempts at commits left behind in the tables' folders:
    cdc-sink maintain --config cdc-sink.toml

SIGTERM and SIGINT: what is buffered is committed and the group is left, within 75 seconds; within 25 where all that is
left waits for a server that does not answer. What was not committed is read again by the next start. A second signal
ends the process at once.

Exit codes: 0 done, 1 a table or the run failed, 2 wrong usage or configuration, 3 fenced by another owner,
130 second signal.";

/// Debezium topics in, Delta Lake and Apache Iceberg tables out
///
/// Reads Debezium's change records from Kafka (JSON or Avro) and keeps one lake table per topic equal to its source
/// table, exactly once: the position in Kafka is part of every table commit.
#[derive(Debug, Parser)]
#[command(name = "cdc-sink", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep tables equal to their topics (what happens without a command)
    Run(Box<run::RunArgs>),
    /// Everything embedded: generated changes, a Kafka cluster inside the process, tables on the local disk
    Demo(demo::DemoArgs),
    /// What tables would get, column by column, before anything is written; with --types what each type becomes
    Plan(Box<plan::PlanArgs>),
    /// What a running instance is doing, table by table
    Status(status::StatusArgs),
    /// The positions that tables store
    Offsets(offsets::OffsetsArgs),
    /// Remove files from the tables' folders that no version of a table refers to
    ///
    /// Attempts at commits that did not get into the table leave files behind: after a crash, a lost race, a commit that a
    /// catalog refused. They cost space and nothing else. This removes those that are older than --orphans-older-than, in
    /// all tables of the warehouse that belong to this deployment (with --brokers: consumer group and cluster; without: the
    /// consumer group), in both formats at once. It may run while instances write the tables, at any time.
    ///
    /// It never removes what a version needs that can still be read, in any format, nor files that are young or whose
    /// names neither cdc-sink nor an Iceberg catalog gives: those it counts. Snapshots and log files expire by themselves,
    /// when instances commit; what only they referred to is removed here, once nothing does.
    ///
    /// Prints a line for each table. Takes the same options as `run`; needs no Kafka. Exit code 0 when all of that is
    /// done, 1 when a table could not be looked at (the others are), 3 when a table that --tables names is another
    /// deployment's.
    Maintain(Box<maintain::MaintainArgs>),
}

/// Parses the command line, runs the command and tells how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or_else(|| Command::Run(Box::new(cli.run)));
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| crate::error::Error::internal("cannot start the runtime").because(e))
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(command));
            // What still runs in the background is not waited for: everything durable is done.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            writeln!(std::io::stderr(), "cdc-sink: {}", error.report()).ok();
            ExitCode::from(match error.kind() {
                Kind::Invalid => 2,
                Kind::Fenced => 3,
                _ => 1,
            })
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(*args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Plan(args) => plan::run(*args).await,
        Command::Status(args) => status::run(args).await,
        Command::Offsets(args) => offsets::run(args).await,
        Command::Maintain(args) => maintain::run(*args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
