//! What a worker has to do with the schema-change topic: wait for it, and say what came of it and of dropped columns.

use std::time::{Duration, Instant};

use super::{Worker, now};
use crate::metrics;
use crate::schema::{Column, TableSchema};
use crate::sink::Sink;

/// How long a batch waits for the schema-change topic to tell whether columns were renamed: connectors write there before
/// they write rows, so what is late is late by little.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether the topic told.
const POLL: Duration = Duration::from_millis(200);

impl<S: Sink + Send + Sync> Worker<S> {
    /// Waits a moment for what the schema-change topic has to tell, and after `until` does without it.
    pub(super) async fn await_history(&mut self, until: Instant) {
        if now() < until {
            let assigned = self.assigned.len();
            self.pause(POLL).await;
            if self.assigned.len() != assigned {
                self.rebase(&self.buffer.start_position());
            }
            return;
        }
        metrics::rename_unknown(&self.name, 1);
        tracing::warn!(
            table = &*self.name,
            "columns are new and others are gone, and the schema-change topic does not tell whether they were renamed; \
             they become new columns (check option schema-history)"
        );
        self.decoder.give_up_on_history();
    }

    /// Says which columns the last commit renamed or dropped.
    pub(super) fn tell_columns(&self, before: Option<&TableSchema>) {
        let (Some(before), Some(after)) = (before, self.sink.schema()) else { return };
        let mut renamed = 0;
        for column in after.columns() {
            let old = before.columns().iter().find(|old| old.id == column.id);
            if let Some(old) = old.filter(|old| old.name != column.name) {
                renamed += 1;
                let (table, from, to) = (&*self.name, &*old.name, &*column.name);
                tracing::info!(table, from, to, "a column was renamed");
            }
        }
        metrics::columns_renamed(&self.name, renamed);
        let is_gone = |old: &&Column| after.columns().iter().all(|column| column.id != old.id);
        for Column { name, .. } in before.columns().iter().filter(is_gone) {
            let table = &*self.name;
            tracing::info!(
                table,
                column = name,
                "a column was dropped that the source has no more"
            );
        }
    }
}
