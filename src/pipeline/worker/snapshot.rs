//! Initial snapshots that are taken again: what a worker has to know of them and of its topic.

use super::Worker;
use crate::batch::Outcome;
use crate::change::{InitialSnapshot, SnapshotRecord};
use crate::decode::Change;
use crate::error::Result;
use crate::record::Record;
use crate::retry;
use crate::sink::Sink;

impl<S: Sink + Send + Sync> Worker<S> {
    /// Reads from the table where it is in an initial snapshot, where that is of use.
    pub(super) async fn read_snapshot(&mut self) -> Result<InitialSnapshot> {
        let mut waits = retry::waits();
        while self.decoder.follows_snapshots() && !self.leaves_empty() {
            match self.sink.departed(&[]).await {
                Ok(departed) => {
                    self.go_on().await;
                    return Ok(departed.snapshot);
                }
                Err(error) => {
                    self.wait_out(&error, "read the table's notes", &mut waits).await?;
                }
            }
        }
        Ok(InitialSnapshot::Unknown)
    }

    /// A change; the end of an initial snapshot is one only in a topic of one partition: of several, each has a part of it.
    pub(super) async fn change(
        &mut self,
        record: &Record<'_>,
        mut change: Change,
    ) -> Result<Outcome> {
        if change.snapshot == SnapshotRecord::Last && self.partitions().await? != 1 {
            let Record { topic, partition, offset, .. } = record;
            tracing::warn!(
                table = &*self.name,
                "record {topic}[{partition}]@{offset} ends an initial snapshot, but its topic has several partitions: \
                 rows that the snapshot does not have stay (option unconfirmed-rows)"
            );
            change.snapshot = SnapshotRecord::None;
        }
        Ok(self.traced(record, change))
    }
}
