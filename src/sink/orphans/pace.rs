//! Says now and then how far long work is.

use std::time::Duration;

use tokio::time::Instant;

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// When the next line is due.
#[derive(Debug)]
pub(in crate::sink) struct Pace<'a> {
    table: &'a str,
    told: Instant,
}

impl<'a> Pace<'a> {
    pub(super) fn new(table: &'a str) -> Self {
        Self { table, told: Instant::now() }
    }

    /// Work goes on: `done` of what it counts are done, of `total` where that is known.
    pub(in crate::sink) fn step(&mut self, work: &str, done: u64, total: Option<u64>) {
        if self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        tracing::info!(table = self.table, done, total, "{work}");
    }
}
