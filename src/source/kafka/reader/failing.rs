//! What goes wrong with the client: it passes, the client is made anew, or the source ends.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::warn;

use super::Reader;
use crate::error::Error;
use crate::source::Event;

/// The same trouble is logged no more often.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// A member that has no partition and is fenced joins anew so often, before it is taken to have a rival.
const JOINS_ANEW: u32 = 3;

impl Reader {
    /// Trouble that passes is logged now and then; a fatal error of the client ends the source.
    pub(super) fn trouble(&mut self, error: &KafkaError, reason: &str, now: Instant) {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            let what = format!("group {} cannot be read on: {reason}", self.options.group);
            let fenced = *code == RDKafkaErrorCode::FencedInstanceId;
            if fenced && self.joins_anew() {
                warn!(%error, reason, "fenced while no partition is assigned; joining anew");
                return;
            }
            let failure = if fenced { Error::fenced(what) } else { Error::refused(what) };
            self.fail(failure.because(error.clone()));
            return;
        }
        let entry = self.logged.entry(error.to_string()).or_insert((now, 0));
        if entry.1 == 0 || now.duration_since(entry.0) >= LOG_EVERY {
            warn!(%error, reason, seen = entry.1 + 1, "kafka trouble; trying on");
            entry.0 = now;
        }
        entry.1 = entry.1.saturating_add(1);
    }

    /// Who was cut off has lost everything and joins again; an offset that was on its way in the old name fences it then,
    /// though it has no rival. The client is of no use any more. False when it has partitions: then somebody took its name.
    fn joins_anew(&mut self) -> bool {
        if self.redivide.is_none() {
            if !self.partitions.is_empty() || self.joined_anew == JOINS_ANEW {
                return false;
            }
            self.joined_anew += 1;
            self.offers.clear();
            self.redivide = Some(self.plan.partitions);
        }
        true
    }

    pub(super) fn fail(&mut self, error: Error) {
        if !self.failed {
            self.failed = true;
            self.outbox.push_back(Event::Failed(error));
        }
    }
}
