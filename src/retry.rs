//! Retrying: how long to wait before the next attempt, and how to wait.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};

use crate::error::{Error, Result};
use crate::metrics;

/// Waits between attempts: doubling from a quarter of a second to half a minute, with jitter, without end. A
/// failure that lasts is retried at the longest wait until it is over or the process is told to stop.
pub fn waits() -> impl Iterator<Item = Duration> + Send {
    backoff().build()
}

/// Waits after lost races: short ones, as waiting longer wins none, with jitter, so that losers do not meet again. Without
/// end.
pub fn races() -> impl Iterator<Item = Duration> + Send {
    backoff()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(250))
        .build()
}

/// Makes an attempt again, as long as it fails because something outside is unavailable, and says so; `waiting_for`
/// names that. For what nothing can go on without.
pub async fn hold<T, F>(waiting_for: &str, attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    attempt
        .retry(backoff())
        .when(Error::is_retryable)
        .notify(|error, wait| {
            metrics::retried(error.kind());
            let retry_in = format!("{wait:.1?}");
            tracing::warn!(error = error.report(), retry_in, "waiting for {waiting_for}");
        })
        .await
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_unavailable_is_waited_for_and_nothing_else() {
        let attempts = AtomicU32::new(0);
        let answer = hold("the store", || async {
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0..5 => Err(Error::unavailable("down")),
                _ => Ok("up"),
            }
        });
        assert_eq!(answer.await.unwrap(), "up");
        let refused = hold("the store", || async {
            attempts.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Error::refused("no"))
        });
        assert!(refused.await.is_err());
        assert_eq!(attempts.into_inner(), 7);
    }
}
