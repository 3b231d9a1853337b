//! What a worker makes of each record as it comes.

use std::time::Duration;

use super::Worker;
use crate::batch::Outcome;
use crate::change::Truncates;
use crate::decode::{Reject, ScanError, Scanned, SchemaId, Skip};
use crate::error::{Error, Kind, Result};
use crate::record::{Record, Records};
use crate::retry;
use crate::sink::Sink;

/// How often a writer schema that the registry does not know is asked for before its record is rejected.
const SCHEMA_ATTEMPTS: usize = 6;

impl<S: Sink + Send + Sync> Worker<S> {
    /// What a record is for the table; none when the process ends before that is known, an error when the table must
    /// halt before it.
    pub(super) async fn outcome(
        &mut self,
        records: &Records,
        index: usize,
    ) -> Result<Option<Outcome>> {
        let mut waits = retry::waits().enumerate();
        let reject = loop {
            let Some(record) = records.get(index) else { return Ok(Some(Outcome::Skipped)) };
            if let Some(reject) = self.too_large(&record) {
                break reject;
            }
            let id = match self.decoder.scan(&record) {
                Ok(Scanned::Change(change)) => return self.change(&record, change).await.map(Some),
                Ok(Scanned::Skipped(skip)) => return Ok(Some(self.skip(skip))),
                Ok(Scanned::Truncate { alone }) => {
                    return self.truncate(&record, alone).await.map(Some);
                }
                Err(ScanError::Reject(reject)) => break reject,
                Err(ScanError::NeedsSchema(id)) => id,
                Err(ScanError::KeyChanged(what)) => return Err(key_changed(&record, &what)),
            };
            if let Some(reject) = self.fetch_schema(id, &mut waits).await? {
                break reject;
            }
            if self.leaving {
                return Ok(None);
            }
        };
        if let Some(record) = records.get(index) {
            self.rejects.check(&record, &reject)?;
        }
        Ok(Some(Outcome::Rejected(reject)))
    }

    /// Decoding takes a few times a record's size at once, whatever the memory is.
    fn too_large(&self, record: &Record<'_>) -> Option<Reject> {
        let (size, limit) = (record.bytes(), self.policy.max_record_bytes);
        (size > limit).then(|| Reject {
            reason: "too_large",
            message: format!(
                "its {size} bytes are more than the {limit} of option max-record-bytes"
            ),
        })
    }

    fn skip(&mut self, skip: Skip) -> Outcome {
        *self.skipped.entry(skip).or_default() += 1;
        Outcome::Skipped
    }

    /// What becomes of a truncate. Its order is known against the records of its own partition only, so it is applied
    /// where the topic has no other. That is asked for each time, as topics grow.
    async fn truncate(&mut self, record: &Record<'_>, alone: bool) -> Result<Outcome> {
        let Record { topic, partition, offset, .. } = record;
        let halt = |why: &str| {
            Error::data(format!(
                "record {topic}[{partition}]@{offset} empties the table (TRUNCATE), {why}"
            ))
            .hint("set option truncate to ignore to pass over it; if rows are to go, delete them from the table by hand")
        };
        match self.truncates {
            Truncates::Ignore => return Ok(self.skip(Skip::Truncate)),
            Truncates::Halt => return Err(halt("and option truncate says to halt then")),
            Truncates::Apply if !alone => {
                return Err(halt("and the topic may hold records of other tables"));
            }
            Truncates::Apply => {}
        }
        match self.partitions().await? {
            1 => Ok(Outcome::Truncate),
            _ => Err(halt("and has no order among the records of the topic's other partitions")),
        }
    }

    /// Asks the registry for a writer schema. An unknown one is asked for again, as registries replicate; after that
    /// its record is rejected. A process that ends waits for none: what is before the record can be committed.
    async fn fetch_schema(
        &mut self,
        id: SchemaId,
        waits: &mut (impl Iterator<Item = (usize, Duration)> + Send),
    ) -> Result<Option<Reject>> {
        match self.decoder.fetch_schema(id).await {
            Ok(()) => {
                self.go_on().await;
                Ok(None)
            }
            Err(error) => {
                let (attempt, wait) = waits.next().unwrap_or_default();
                match error.kind() {
                    Kind::Unavailable => {}
                    Kind::Data if attempt < SCHEMA_ATTEMPTS => {}
                    Kind::Data => {
                        self.go_on().await;
                        let message = error.report();
                        return Ok(Some(Reject { reason: "unknown_schema", message }));
                    }
                    _ => return Err(error),
                }
                tracing::warn!(
                    table = &*self.name,
                    error = error.report(),
                    "waiting for a writer schema"
                );
                self.wait(&error, wait).await;
                self.leaving = self.is_last();
                Ok(None)
            }
        }
    }
}

fn key_changed(record: &Record<'_>, what: &str) -> Error {
    let Record { topic, partition, offset, .. } = record;
    Error::data(format!("record {topic}[{partition}]@{offset} has another key than the table: {what}")).hint(
        "make the table anew under another name from a new initial snapshot, or keep the old key with option identity of the topic",
    )
}
