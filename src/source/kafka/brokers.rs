//! Whether any broker answers, as librdkafka's statistics tell it.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::source::Waiting;

/// A connection that was closed is made anew within this time, as is that of a broker that restarts.
const PATIENCE: Duration = Duration::from_secs(5);

/// The brokers together.
#[derive(Debug)]
pub(super) struct Brokers {
    /// As they were given.
    names: String,
    /// Since when none answers.
    silent: Option<Instant>,
    /// Why one could not be reached, the last time that the client told.
    reason: Option<String>,
    told: bool,
}

impl Brokers {
    pub(super) fn new(names: &str) -> Self {
        Self { names: names.to_owned(), silent: None, reason: None, told: false }
    }

    /// Takes an error of the client, and its reason, when it is one of reaching a broker.
    pub(super) fn failed(&mut self, error: &KafkaError, reason: &str) {
        let is_of_one = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SSL
            )
        );
        if is_of_one && !reason.is_empty() {
            self.reason = Some(reason.to_owned());
        }
    }

    /// Takes whether one answers. Gives what is to be told of it: that they are waited for, or none when that is over.
    pub(super) fn told(&mut self, answering: bool, now: Instant) -> Option<Option<Waiting>> {
        if answering {
            (self.silent, self.reason) = (None, None);
            return std::mem::take(&mut self.told).then_some(None);
        }
        let since = *self.silent.get_or_insert(now);
        if self.told || now.duration_since(since) < PATIENCE {
            return None;
        }
        self.told = true;
        let what = format!("no broker answers of {}", self.names);
        let reason = match &self.reason {
            None => what,
            Some(reason) => format!("{what}: {reason}"),
        };
        Some(Some(Waiting { since, reason }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_waited_for_when_none_answered_for_a_while() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut brokers = Brokers::new("a:1,b:1");
        let transport = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        let all = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        let mut told = Vec::new();
        for (at, answering) in [
            // A restart, then a real outage, and another one.
            (0, false),
            (3, false),
            (4, true),
            (10, false),
            (11, false),
            (15, false),
            (16, false),
            (40, true),
            (41, true),
            (50, false),
            (55, false),
            (56, true),
        ] {
            if at == 11 {
                brokers.failed(&transport, "a:1/1: connection refused");
                brokers.failed(&all, "2/2 brokers are down");
            }
            if let Some(waiting) = brokers.told(answering, begin + at * second) {
                told.push((at, waiting.map(|w| ((w.since - begin).as_secs(), w.reason))));
            }
        }
        let waits = |since, why: &str| Some((since, format!("no broker answers of a:1,b:1{why}")));
        let expected = [
            (15, waits(10, ": a:1/1: connection refused")),
            (40, None),
            (55, waits(50, "")),
            (56, None),
        ];
        assert_eq!(told, expected);
    }
}
