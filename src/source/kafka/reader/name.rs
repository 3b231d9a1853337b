//! The name of a static member (`group.instance.id`), when the brokers say that it is another's.

use std::time::{Duration, Instant};

use tracing::warn;

use super::super::calls;
use super::Reader;
use crate::error::Error;

/// The brokers are asked this often who has the name.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Beyond the session, a name of which nobody keeps the session goes within this time.
const GRACE: Duration = Duration::from_secs(3);

/// A fenced member.
pub(super) struct Nameless {
    failure: Error,
    look_at: Instant,
    /// Whoever has the name by then keeps its session. None until the client that was fenced is given up: it would keep
    /// the session that it may have.
    until: Option<Instant>,
}

impl Reader {
    /// Its name is another's, as the brokers say. With partitions assigned it is so. A member without any may have fenced
    /// itself: who was cut off has lost everything and joins again, and an offset that was on its way in the old session
    /// does it. A name that this member took back at once would fence its rival, so it waits to see if there is one.
    pub(super) fn fenced(&mut self, failure: Error, now: Instant) {
        if self.nameless.is_some() {
            return;
        }
        if !self.partitions.is_empty() {
            return self.fail(failure);
        }
        let reason = failure.report();
        warn!(reason, "fenced while nothing is read; joining again once the name is free");
        self.offers.clear();
        self.leaving.clear();
        self.redivide = None;
        self.nameless = Some(Nameless { failure, look_at: now, until: None });
    }

    /// Joins again once nobody has the name; fails when somebody keeps it.
    pub(super) fn serve_nameless(&mut self, now: Instant) {
        let Some(mut nameless) = self.nameless.take_if(|nameless| nameless.look_at <= now) else {
            return;
        };
        let connection = &self.options.connection;
        let Some(until) = nameless.until else {
            nameless.until = Some(now + connection.session_timeout() + GRACE);
            self.nameless = Some(nameless);
            return self.reconnect().unwrap_or_else(|error| self.fail(error));
        };
        let (group, name) = (&self.options.group, connection.member_name().unwrap_or_default());
        match calls::is_member(&self.client.consumer, group, name) {
            Some(false) => self.subscribe().unwrap_or_else(|error| self.fail(error)),
            Some(true) if until <= now => self.fail(nameless.failure),
            _ => {
                nameless.look_at = now + LOOK_EVERY;
                self.nameless = Some(nameless);
            }
        }
    }
}
