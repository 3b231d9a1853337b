//! The table is not where the batch starts.

use std::sync::Arc;

use super::{Report, Worker};
use crate::error::Result;
use crate::position::Position;
use crate::sink::Sink;

impl<S: Sink + Send + Sync> Worker<S> {
    /// What another owner committed first is dropped; the rest goes on from there.
    pub(super) async fn on_fenced(&mut self, stored: &Position) -> Result<()> {
        self.take_schema();
        let Some(position) = self.buffer.position_over(stored)? else {
            return self.go_back().await;
        };
        tracing::warn!(
            table = &*self.name,
            "another owner committed first; going on from the table's position"
        );
        self.rebase(&position);
        self.snapshot = self.read_snapshot().await?;
        self.report_positions().await;
        Ok(())
    }

    /// Somebody rolled the table back, and its position with it: what came since is read again.
    async fn go_back(&mut self) -> Result<()> {
        let partitions: Vec<i32> = self.assigned.keys().copied().collect();
        tracing::warn!(
            table = &*self.name,
            "the table was rolled back; reading again from its position"
        );
        self.revoke(&partitions);
        self.report(Report::RolledBack { topic: Arc::clone(&self.topic), partitions }).await;
        Ok(())
    }
}
