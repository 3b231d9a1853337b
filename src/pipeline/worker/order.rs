//! Whether the partitions' order is enough, or the source's log is asked as well (see [`crate::source_position`]).

use std::time::Instant;

use super::{End, Worker, now};
use crate::batch::{Outcome, Wait};
use crate::decode::Change;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::retry;
use crate::sink::Sink;

/// What is attempted.
const ASK: &str = "ask for the topic's partitions";

impl<S: Sink + Send + Sync> Worker<S> {
    /// Takes the number of the topic's partitions as the brokers tell it.
    pub(super) fn take_partitions(&mut self, count: i32) {
        let begins = self.decoder.take_partitions(count);
        self.trace(begins);
    }

    /// Asks, before a batch is merged, what it depends on besides its records: the brokers and, of key changes, the table.
    /// When it was.
    pub(super) async fn ask_around(&mut self, wait: Wait) -> Result<Instant> {
        self.check_order().await?;
        let asked = now();
        let Self { others, sink, buffer, decoder, .. } = self;
        others.ask(sink, buffer, decoder, wait, asked).await?;
        Ok(asked)
    }

    /// Asks how many partitions the topic has, after the last record of a batch was read and before it is merged: what
    /// another instance merged may be later than the batch once the topic grew, though nobody reads the new partitions
    /// yet, and a new table notes how many there were. A topic that is no more gets no new ones. Fails when rows are matched
    /// by the row before and the topic's order is not one: a delete may come before its row then.
    async fn check_order(&mut self) -> Result<()> {
        let (rests, matches) = (self.decoder.rests_on_partitions(), self.decoder.matches_rows());
        if !rests && !matches {
            return Ok(());
        }
        let assigned = self.assigned.len();
        let count = self.partitions_or_none().await?;
        if self.assigned.len() < assigned {
            self.let_go().await;
        }
        if rests && count > 0 {
            self.take_partitions(i32::try_from(count).unwrap_or(i32::MAX));
        }
        if !matches || count <= 1 {
            return Ok(());
        }
        Err(Error::data(format!(
            "topic {} has several partitions, but rows without a key can be matched (option keyless) only in the order of one",
            self.topic
        ))
        .hint(
            "give the topic one partition, name columns that identify rows (identity), or take every record for a row \
             (keyless = \"append\")",
        ))
    }

    /// How many partitions the topic has now. When there is no such topic, or the brokers do not tell, that is waited for.
    pub(super) async fn partitions(&mut self) -> Result<usize> {
        let mut waits = retry::waits();
        loop {
            let count = self.partitions_or_none().await?;
            if count > 0 {
                return Ok(count);
            }
            let error = Error::unavailable(format!("there is no topic {}", self.topic));
            self.wait_out(&error, ASK, &mut waits).await?;
        }
    }

    /// The same; 0 when there is no such topic.
    async fn partitions_or_none(&mut self) -> Result<usize> {
        let mut waits = retry::waits();
        loop {
            match self.policy.partitions.of(&self.topic).await {
                Ok(count) => {
                    self.go_on().await;
                    return Ok(count);
                }
                Err(error) => self.wait_out(&error, ASK, &mut waits).await?,
            }
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

    /// True while what other partitions have of rows may still come: a value that a change leaves out, before it is taken for
    /// one that is nowhere, or the end of the row that a new one's key has. When the process ends, that is while others read
    /// partitions, or some are behind.
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
                "changes need what other partitions have of rows and is not in the table so far; waiting for those"
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
