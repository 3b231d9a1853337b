//! `status`: what a running instance is doing.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin::{RunState, Status, TableStatus};
use crate::error::{Error, Result};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Where the instance serves its pages
    #[arg(long, env = "CDC_SINK_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9187")]
    listen: SocketAddr,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the instance and prints what it says; exit code 1 when a table halted.
pub(super) async fn run(args: StatusArgs) -> Result<ExitCode> {
    let failed = |what: &str, e: reqwest::Error| {
        Error::unavailable(format!("cannot {what} the instance at {}", args.listen))
            .because(e)
            .hint("is it running, and is --listen its address?")
    };
    let answer = reqwest::Client::new()
        .get(format!("http://{}/status", args.listen))
        .timeout(Duration::from_secs(10))
        .send()
        .await
        .map_err(|e| failed("ask", e))?;
    let status: Status = answer.json().await.map_err(|e| failed("understand", e))?;
    let mut out = std::io::stdout().lock();
    let text = if args.json {
        serde_json::to_string_pretty(&status)
            .map_err(|e| Error::internal("cannot write the status").because(e))?
    } else {
        text(&status)
    };
    writeln!(out, "{text}").ok();
    let halted = status.tables.iter().any(|table| table.state.state == RunState::Halted);
    Ok(if halted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(status: &Status) -> String {
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut out = format!("cdc-sink {}, {ready}, since {}\n", status.version, status.started);
    let source = &status.source;
    if let Some(reason) = &source.waiting {
        let since = source.waiting_since.map(|since| format!(" since {since}")).unwrap_or_default();
        out.push_str(&format!("WAITING{since}: {reason}\n"));
    }
    for topic in &source.missing_topics {
        out.push_str(&format!("topic {topic} is not there, or may not be described\n"));
    }
    let width = status.tables.iter().map(|table| table.state.table.len()).max().unwrap_or(5).max(5);
    out.push_str(&format!(
        "{:width$}  {:8} {:>12} {:>10} {:>14} {:>12}  last commit\n",
        "table", "state", "lag records", "stale s", "rows merged", "dead letters"
    ));
    for table in &status.tables {
        out.push_str(&row(table, width));
    }
    out
}

fn row(table: &TableStatus, width: usize) -> String {
    let state = &table.state;
    let stale = table.staleness_seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
    let commit = state.last_commit.as_ref().map_or_else(
        || "-".to_owned(),
        |commit| {
            let versions =
                commit.versions.iter().map(|(format, version)| format!("{format} {version}"));
            format!("{} ({})", commit.time, versions.collect::<Vec<_>>().join(", "))
        },
    );
    let word = match state.state {
        RunState::Running if state.waiting.is_some() => "waiting",
        RunState::Running => "running",
        RunState::Halted => "HALTED",
    };
    let mut row = format!(
        "{:width$}  {word:8} {:>12} {stale:>10} {:>14} {:>12}  {commit}\n",
        state.table, table.lag_records, state.rows_merged, state.dead_letters
    );
    if !state.skipped.is_empty() {
        let skipped = state.skipped.iter().map(|(kind, records)| format!("{kind} {records}"));
        let skipped = skipped.collect::<Vec<_>>().join(", ");
        row.push_str(&format!("{:width$}  passed over: {skipped}\n", ""));
    }
    if let Some(reason) = state.reason.as_ref().or(state.waiting.as_ref()) {
        row.push_str(&format!("{:width$}  why: {reason}\n", ""));
    }
    row
}
