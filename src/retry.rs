//! Retrying: how long to wait before the next attempt, and how to wait.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Waits between attempts: doubling from a quarter of a second to half a minute, with jitter, without end. A
/// failure that lasts is retried at the longest wait until it is over or the process is told to stop.
pub fn waits() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
        .build()
}
