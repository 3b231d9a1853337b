//! How far the table's partitions are: what the router is told, and what a chunk has to go on from.

use std::sync::Arc;

use super::{Report, Worker};
use crate::error::Error;
use crate::record::Records;
use crate::sink::Sink;

impl<S: Sink + Send + Sync> Worker<S> {
    /// What is wrong with a chunk that does not start where its partition was taken in to. It is not merged over what was
    /// never read.
    pub(super) fn gap_before(&self, records: &Records) -> Option<Error> {
        let (topic, partition, from) = (&self.topic, records.partition(), records.from());
        let to = self.buffer.taken_to(partition).filter(|to| *to < from)?;
        let what =
            format!("{topic}[{partition}] was read from offset {from} on, after offset {to}");
        Some(Error::internal(what).hint("start again: it is read from where the table is"))
    }

    /// Reports every partition: what was taken in may be settled by now, without another record and without a commit.
    pub(super) async fn report_positions(&self) {
        for (partition, position) in self.buffer.position().iter() {
            self.report_reached(partition, position).await;
        }
    }

    /// Reports nothing as taken in that waits for a commit: some of it may have to wait for more.
    pub(super) async fn report_settled(&self) {
        for (partition, position) in self.buffer.position().iter() {
            let position = self.buffer.first_of(partition).unwrap_or(position);
            self.report_reached(partition, position).await;
        }
    }

    /// Everything below `position` was taken in, but for what waits: half of a key change for the other, or changes for
    /// rows.
    pub(super) async fn report_reached(&self, partition: i32, position: i64) {
        let settled = self.buffer.first_of(partition).unwrap_or(position);
        let waits = self.buffer.open_from(partition).into_iter();
        let waits = waits.chain(self.lacking.map(|_| settled));
        let position = waits.fold(position, i64::min);
        let topic = Arc::clone(&self.topic);
        self.report(Report::Reached { topic, partition, position, settled }).await;
    }
}
