//! What is not there: every broker, or topics.

use std::time::Instant;

use tracing::{info, warn};

use super::Reader;
use crate::source::Event;

impl Reader {
    /// Tells when no broker answers, and when one does again.
    pub(super) fn note_brokers(&mut self, answering: bool, now: Instant) {
        let Some(waiting) = self.brokers.told(answering, now) else { return };
        match &waiting {
            Some(waiting) => warn!(reason = waiting.reason, "waiting for the brokers"),
            None => info!("the brokers answer again"),
        }
        self.outbox.push_back(Event::Waiting(waiting));
    }

    /// Looks for topics that are not there, and tells of them.
    pub(super) fn serve_missing(&mut self, now: Instant) {
        if let Some(topics) = self.client.topics.answer()
            && let Some(missing) = self.missing.told(topics.as_ref(), now)
        {
            if !missing.is_empty() {
                warn!(?missing, "topics are not there, or may not be described; waiting for them");
            }
            self.outbox.push_back(Event::Missing(missing));
        }
        if self.missing.is_due(now) {
            self.client.topics.ask(());
        }
    }
}
