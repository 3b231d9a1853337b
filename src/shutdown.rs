//! From signals to one cancellation token.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Exit code after a second signal.
pub const INTERRUPTED: u8 = 130;

/// Cancels `token` at the first SIGTERM or SIGINT; returns at the second, when the process shall end at once.
pub async fn watch(token: CancellationToken) -> Result<()> {
    let listen =
        |kind| signal(kind).map_err(|e| Error::internal("cannot listen for signals").because(e));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if !token.is_cancelled() {
            tracing::info!("stopping: committing what is buffered; a second signal ends at once");
        }
        token.cancel();
    }
    Ok(())
}
