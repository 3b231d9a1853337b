//! Writers that share a table take turns.
//!
//! Who has just committed knows the table and can commit again at once; who lost has to read first what the winner did. Left
//! to themselves, the winner wins for as long as there is something to commit, and the partitions of the other fall behind. So
//! a writer that is not alone begins each attempt with reading, and leaves as much time after a commit as that takes.

use std::time::Duration;

use tokio::time::Instant;

/// Who has seen no commit of another's for so long has the table to itself.
const ALONE: Duration = Duration::from_secs(60);
/// The longest time that is left to others.
const LONGEST: Duration = Duration::from_secs(5);

/// What a writer knows of those it shares a table with.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// When it last found a commit of another's.
    met: Option<Instant>,
    /// When its last commit was in.
    committed: Option<Instant>,
    /// What its last attempt took that began with reading.
    attempt: Duration,
}

impl Crowd {
    /// A commit of another's was found.
    pub(super) fn met(&mut self, now: Instant) {
        self.met = Some(now);
    }

    /// A commit of its own is in.
    pub(super) fn committed(&mut self, now: Instant) {
        self.committed = Some(now);
    }

    /// An attempt that began with reading is over.
    pub(super) fn attempted(&mut self, took: Duration) {
        self.attempt = took;
    }

    /// True when nobody else has committed of late, as far as is known.
    pub(super) fn is_alone(&self, now: Instant) -> bool {
        self.met.is_none_or(|met| now.duration_since(met) > ALONE)
    }

    /// How long its next batch waits.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        match self.committed {
            Some(committed) if !self.is_alone(now) => {
                self.attempt.min(LONGEST).saturating_sub(now.duration_since(committed))
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Times are milliseconds: when another's commit was found, when the own was in, what an attempt takes; at 100 seconds.
    #[rstest]
    #[case::never_a_commit_of_another(None, Some(99_900), 800, 0)]
    #[case::none_for_a_minute(Some(39_000), Some(99_900), 800, 0)]
    #[case::no_commit_yet(Some(99_000), None, 800, 0)]
    #[case::time_is_left_to_others(Some(99_000), Some(99_900), 800, 700)]
    #[case::time_has_passed(Some(99_000), Some(99_100), 800, 0)]
    #[case::no_attempt_after_reading(Some(99_000), Some(99_900), 0, 0)]
    #[case::never_for_ever(Some(99_000), Some(100_000), 90_000, 5000)]
    #[tokio::test(start_paused = true)]
    async fn who_is_not_alone_waits_after_a_commit(
        #[case] met: Option<u64>,
        #[case] committed: Option<u64>,
        #[case] attempt: u64,
        #[case] wait: u64,
    ) {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let crowd = Crowd {
            met: met.map(at),
            committed: committed.map(at),
            attempt: Duration::from_millis(attempt),
        };
        assert_eq!(crowd.wait(at(100_000)), Duration::from_millis(wait));
    }
}
