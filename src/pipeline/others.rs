//! Key changes whose other half is not read here: what the table tells of them.

use std::time::{Duration, Instant};

use crate::batch::{Buffer, Wait};
use crate::decode::Decoder;
use crate::error::Result;
use crate::sink::Sink;

/// How often the table is asked while half of a key change waits.
const EVERY: Duration = Duration::from_secs(1);

/// Asks the table.
#[derive(Debug, Default)]
pub(super) struct Others {
    asked: Option<Instant>,
}

impl Others {
    /// Tells the buffer, before a batch of it is cut, what may end the wait for the other half of a key change. When the
    /// table cannot be read, the wait goes on.
    pub(super) async fn ask<S: Sink>(
        &mut self,
        sink: &mut S,
        buffer: &mut Buffer,
        decoder: &mut Decoder,
        wait: Wait,
        now: Instant,
    ) -> Result<()> {
        if wait == Wait::Always {
            return Ok(());
        }
        buffer.look_at_creates(decoder, wait, now)?;
        let lately = self.asked.is_some_and(|asked| now < asked + EVERY);
        if lately || !buffer.has_held() {
            return Ok(());
        }
        self.asked = Some(now);
        match sink.departed(&buffer.needy_keys()).await {
            Ok(departed) => buffer.learn(&departed),
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = error.report(), "cannot look for notes of key changes");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
