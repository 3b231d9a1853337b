//! What the pipeline asks of the reading thread: held partitions, offsets to acknowledge, the end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;

use super::group::lock;
use crate::position::TopicPartition;

/// Shared by the source's handle and its thread.
#[derive(Debug, Default)]
pub(super) struct Control {
    held: Mutex<HashSet<TopicPartition>>,
    acknowledged: Mutex<HashMap<TopicPartition, i64>>,
    again: Mutex<Vec<TopicPartition>>,
    closing: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Control {
    /// Names the thread that [`Self::wake`] wakes.
    pub(super) fn serve_from(&self, thread: Thread) {
        // A second call names the same thread.
        drop(self.thread.set(thread));
    }

    /// Lets the thread look again at once. Cheap, and never blocks.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn hold(&self, partition: &TopicPartition, held: bool) {
        let mut set = lock(&self.held);
        if held {
            set.insert(partition.clone());
        } else if set.remove(partition) {
            drop(set);
            self.wake();
        }
    }

    /// Forgets holds of partitions that went away.
    pub(super) fn release(&self, partitions: &[TopicPartition]) {
        let mut set = lock(&self.held);
        for partition in partitions {
            set.remove(partition);
        }
    }

    /// Asked before each turn of a partition, so that a hold ends a round over all of them.
    pub(super) fn is_held(&self, partition: &TopicPartition) -> bool {
        lock(&self.held).contains(partition)
    }

    /// Asks for a new start of partitions.
    pub(super) fn read_again(&self, partitions: Vec<TopicPartition>) {
        lock(&self.again).extend(partitions);
        self.wake();
    }

    /// Takes the partitions that shall be started anew.
    pub(super) fn to_read_again(&self) -> Vec<TopicPartition> {
        std::mem::take(&mut *lock(&self.again))
    }

    /// Notes the next offset of a partition; only the newest is kept.
    pub(super) fn acknowledge(&self, partition: TopicPartition, next: i64) {
        lock(&self.acknowledged).insert(partition, next);
    }

    /// Notes the next offset of a partition again, unless a newer one came.
    pub(super) fn acknowledge_again(&self, partition: TopicPartition, next: i64) {
        lock(&self.acknowledged).entry(partition).or_insert(next);
    }

    /// Takes what was acknowledged of the partitions `owned`, and forgets the rest: it is for others to commit.
    pub(super) fn acknowledged(
        &self,
        owned: &HashSet<&TopicPartition>,
    ) -> Vec<(TopicPartition, i64)> {
        let all = std::mem::take(&mut *lock(&self.acknowledged));
        all.into_iter().filter(|(id, _)| owned.contains(id)).collect()
    }

    /// Takes what was acknowledged of `partitions` alone.
    pub(super) fn acknowledged_of(
        &self,
        partitions: &[TopicPartition],
    ) -> Vec<(TopicPartition, i64)> {
        let mut all = lock(&self.acknowledged);
        partitions.iter().filter_map(|id| all.remove_entry(id)).collect()
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}
