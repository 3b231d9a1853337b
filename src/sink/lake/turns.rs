//! How many tables of a process do at once what takes memory, threads and connections.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tables that are opened at once: a Delta log is replayed by a library that takes a thread and megabytes for each.
const OPENING: usize = 8;
/// Batches that are merged at once. Each has rows in memory twice, as such and encoded, and a few connections.
const MERGING: usize = 32;

/// The turns of all tables of a process; clones share them.
#[derive(Debug, Clone)]
pub struct Turns {
    opening: Arc<Semaphore>,
    merging: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            opening: Arc::new(Semaphore::new(OPENING)),
            merging: Arc::new(Semaphore::new(MERGING)),
        }
    }
}

impl Turns {
    /// Waits for a turn to open a table, which is kept as long as what this gives.
    pub(super) async fn to_open(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.opening).acquire_owned().await.ok()
    }

    /// Waits for a turn to merge a batch. Whoever has it may wait for one to open a table, and not the other way round.
    pub(super) async fn to_merge(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.merging).acquire_owned().await.ok()
    }
}
