//! Waiting for what does not answer, and saying so.

use std::sync::Arc;
use std::time::Duration;

use super::{Message, Report, Worker};
use crate::error::{Error, Result};
use crate::metrics;
use crate::sink::Sink;

impl<S: Sink + Send + Sync> Worker<S> {
    /// Waits before the next attempt when the failure may pass, else gives the error back.
    pub(super) async fn wait_out(
        &mut self,
        error: &Error,
        attempted: &str,
        waits: &mut (impl Iterator<Item = Duration> + Send),
    ) -> Result<()> {
        let wait = waits.next().filter(|_| error.is_retryable());
        let Some(wait) = wait else {
            return Err(Error::new(error.kind(), error.report()));
        };
        let (table, retry_in) = (&*self.name, format!("{wait:.1?}"));
        tracing::warn!(table, error = error.report(), retry_in, "cannot {attempted}; trying again");
        self.wait(error, wait).await;
        Ok(())
    }

    /// Says what is waited for, and waits.
    pub(super) async fn wait(&mut self, error: &Error, wait: Duration) {
        metrics::retried(error.kind());
        self.waiting = true;
        let (topic, reason) = (Arc::clone(&self.topic), Some(error.report()));
        self.report(Report::Waiting { topic, reason }).await;
        self.pause(wait).await;
    }

    /// Says that what was waited for is there.
    pub(super) async fn go_on(&mut self) {
        if std::mem::take(&mut self.waiting) {
            let topic = Arc::clone(&self.topic);
            self.report(Report::Waiting { topic, reason: None }).await;
        }
    }

    /// True when nothing more comes, as the process ends.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.backlog.back(), Some(Message::Finish))
    }

    /// True when the process ends and nothing is to be committed before: what is waited for is of no use then.
    pub(super) fn leaves_empty(&mut self) -> bool {
        self.leaving |= self.is_last() && self.buffer.is_empty();
        self.leaving
    }

    /// Waits, and meanwhile lets go of partitions that are revoked. Shorter when the process ends.
    pub(super) async fn pause(&mut self, wait: Duration) {
        let until = tokio::time::Instant::now() + wait;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, self.mailbox.recv()).await {
            match message {
                Message::Revoked { partitions, done } => {
                    self.forget(&partitions);
                    self.report_settled().await;
                    done.send(()).ok();
                }
                Message::Finish => {
                    self.backlog.push_back(Message::Finish);
                    return;
                }
                other => self.backlog.push_back(other),
            }
        }
    }

    /// Partitions are lost while earlier messages wait: what those say of them counts no more.
    fn forget(&mut self, lost: &[i32]) {
        self.assigned.retain(|partition, _| !lost.contains(partition));
        for message in &mut self.backlog {
            if let Message::Assigned { partitions, .. } = message {
                partitions.retain(|partition| !lost.contains(partition));
            }
        }
    }
}
