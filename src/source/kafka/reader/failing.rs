//! What goes wrong with the client: it passes, the client is made anew, or the source ends.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::warn;

use super::Reader;
use crate::error::Error;
use crate::source::Event;

/// The same trouble is logged no more often.
const LOG_EVERY: Duration = Duration::from_secs(30);
impl Reader {
    /// Trouble that passes is logged now and then; a fatal error of the client ends the source.
    pub(super) fn trouble(&mut self, error: &KafkaError, reason: &str, now: Instant) {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            let what = format!("group {} cannot be read on: {reason}", self.options.group);
            if *code == RDKafkaErrorCode::FencedInstanceId {
                self.fenced(Error::fenced(what).because(error.clone()), now);
            } else {
                self.fail(Error::refused(what).because(error.clone()));
            }
            return;
        }
        self.brokers.failed(error, reason);
        let entry = self.logged.entry(error.to_string()).or_insert((now, 0));
        if entry.1 == 0 || now.duration_since(entry.0) >= LOG_EVERY {
            warn!(%error, reason, seen = entry.1 + 1, "kafka trouble; trying on");
            entry.0 = now;
        }
        entry.1 = entry.1.saturating_add(1);
    }

    pub(super) fn fail(&mut self, error: Error) {
        if !self.failed {
            self.failed = true;
            self.outbox.push_back(Event::Failed(error));
        }
    }
}
