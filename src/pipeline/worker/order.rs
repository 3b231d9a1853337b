//! Whether the partitions' order is enough, or the source's log is asked as well (see [`crate::source_position`]).

use std::time::Instant;

use super::{End, Worker};
use crate::batch::{Outcome, Wait};
use crate::decode::Change;
use crate::record::Record;
use crate::sink::Sink;

impl<S: Sink + Send + Sync> Worker<S> {
    /// Takes the number of the topic's partitions as the brokers tell it.
    pub(super) fn take_partitions(&mut self, count: i32) {
        let begins = self.decoder.take_partitions(count);
        self.trace(begins);
    }

    /// Asks whether the topic has more partitions, after the last record of the batch was read and before it is merged: what
    /// another instance merged may be later than the batch then, though nobody reads the new partitions yet. When the
    /// brokers do not tell, the batch is merged without.
    pub(super) async fn look_for_growth(&mut self) {
        if !self.decoder.rests_on_partitions() {
            return;
        }
        match self.policy.partitions.of(&self.topic).await {
            Ok(count) => self.take_partitions(i32::try_from(count).unwrap_or(i32::MAX)),
            Err(error) => tracing::debug!(error = error.report(), "cannot look for new partitions"),
        }
    }

    /// Takes the schema that the table has now, which rows are made for from here on, and the numbers of partitions that
    /// were assigned.
    pub(super) fn take_schema(&mut self) {
        if let Some(schema) = self.sink.schema() {
            self.decoder.set_schema(schema);
            self.decoder.keep_columns(self.sink.partition_columns());
        }
        let last = self.assigned.last_key_value().map(|(partition, _)| *partition);
        let begins = last.is_some_and(|partition| self.decoder.take_partition(partition));
        self.trace(begins);
    }

    /// What the scan made of a record that is a change.
    pub(super) fn traced(&mut self, record: &Record<'_>, change: Change) -> Outcome {
        match self.decoder.is_tracing() {
            false => Outcome::Change(change),
            true => Outcome::Traced(Box::new((change, self.decoder.source_position(record)))),
        }
    }

    /// True while a value that a change leaves out may still come, with its row, from another partition: before it is taken
    /// for one that is nowhere. When the process ends, that is while others read partitions, or some are behind.
    pub(super) fn awaits_rows(&self, wait: Wait, now: Instant) -> bool {
        let since = self.lacking.unwrap_or(now);
        let are_all_here = self.decoder.partitions() == self.assigned.len();
        let are_at_ends = self.assigned.values().all(|end| *end == End::Reached);
        let is_all = wait == Wait::Always && are_all_here && are_at_ends;
        self.decoder.is_tracing() && !is_all && wait.goes_on(since, since, now)
    }

    /// Lets the batch be tried again, with what came until then.
    pub(super) async fn await_rows(&mut self, now: Instant) {
        if self.lacking.replace(self.lacking.unwrap_or(now)).is_none() {
            tracing::info!(
                table = &*self.name,
                "changes leave out values of rows that are nowhere so far; waiting for other partitions"
            );
        }
        self.buffer.rest(now);
        self.report_positions().await;
    }

    /// Says that what came late of rows is passed over.
    pub(super) fn tell_lost(&self, rows: usize) {
        if rows > 0 {
            tracing::warn!(
                table = &*self.name,
                rows,
                "changes came late of rows that are on the way to another primary key and did not come there in time; values \
                 that only they have are lost to those rows"
            );
        }
    }

    fn trace(&mut self, begins: bool) {
        if begins {
            tracing::warn!(
                table = &*self.name,
                topic = &*self.topic,
                "the topic has more partitions than its table was made with: where a row has changes in two of them, \
                 the source's log tells which is the later one (column _cdc_source)"
            );
        }
        if self.decoder.is_tracing() {
            let decoder = &mut self.decoder;
            self.buffer.trace(|record| decoder.source_position(record));
        }
    }
}
