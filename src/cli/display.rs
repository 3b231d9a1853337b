//! The progress display: one line on a terminal, a log line from time to time elsewhere.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::log::Screen;
use crate::admin::{Health, RunState, Status};

/// How often the line on a terminal is drawn anew.
const REFRESH: Duration = Duration::from_millis(250);
/// How often a line is logged where nobody watches.
const LINE: Duration = Duration::from_secs(30);

/// Draws until it is finished.
#[derive(Debug)]
pub(super) struct Display {
    bar: Option<ProgressBar>,
    task: JoinSet<()>,
}

impl Display {
    /// Starts to draw what `health` tells.
    pub(super) fn start(screen: &Screen, health: Arc<Health>) -> Self {
        let bar = screen.display().map(|display| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            display.add(
                ProgressBar::new_spinner()
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())),
            )
        });
        let mut task = JoinSet::new();
        task.spawn(draw(bar.clone(), health));
        Self { bar, task }
    }

    /// Takes the line away.
    pub(super) fn finish(mut self) {
        self.task.abort_all();
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn draw(bar: Option<ProgressBar>, health: Arc<Health>) {
    let every = if bar.is_some() { REFRESH } else { LINE };
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    let mut before = 0;
    loop {
        ticks.tick().await;
        let status = health.status();
        let merged = merged(&status);
        let rate = (merged - before) as f64 / every.as_secs_f64();
        before = merged;
        let line = line(&status, rate);
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => tracing::info!("{line}"),
        }
    }
}

fn merged(status: &Status) -> u64 {
    status.tables.iter().map(|table| table.state.rows_merged).sum()
}

fn line(status: &Status, rate: f64) -> String {
    let tables = &status.tables;
    let halted = tables.iter().filter(|table| table.state.state == RunState::Halted).count();
    let lag: i64 = tables.iter().map(|table| table.lag_records).sum();
    let stale = tables.iter().filter_map(|table| table.staleness_seconds).fold(0.0, f64::max);
    let mut line = format!(
        "{} tables, {} rows merged, {rate:.0} rows/s, lag {} records, {stale:.0} s stale",
        tables.len(),
        HumanCount(merged(status)),
        HumanCount(u64::try_from(lag).unwrap_or_default()),
    );
    if halted > 0 {
        line.push_str(&format!(", {halted} HALTED"));
    }
    line
}
