//! How the memory for reading is divided, and the consumer's configuration.
//!
//! librdkafka's limit is one per partition when each has its own queue. It counts keys and values, to which about as much
//! comes for the bookkeeping of small records; and it may be overshot by what one fetch brings, which is limited as it is
//! packed: JSON is some eight times as large unpacked. The limit is fixed for the life of a client, so it is divided by the partitions that there are when the
//! client is made; when far more are assigned, the client is made anew.

use rdkafka::ClientConfig;

use super::KafkaOptions;

/// Chunks that wait between the reading thread and the pipeline at most.
pub(super) const CHUNKS: usize = 8;

/// Bytes in memory for a byte of a small record.
const RECORD_OVERHEAD: u64 = 2;
/// Bytes in memory for a byte of a packed batch.
const PACKED: u64 = 8;

/// Bytes of one answer, and of one batch once it is unpacked, at most. Brokers give a batch whole however large it is, so
/// one beyond this would be asked for without end; their own limit is mostly a tenth of it. Not the most that there can
/// be: the first bytes of another protocol's answer ("HTTP") are a larger length, which is told as what it is.
const ANSWER: u64 = 1024 * MIB;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The memory for reading, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The number of partitions it is good for.
    pub(super) partitions: usize,
    /// Bytes of one chunk.
    pub(super) chunk: usize,
    /// Bytes of one partition's queue, KiB.
    queue_kib: u64,
    /// Bytes of one partition in a fetch.
    partition_fetch: u64,
    /// Bytes of one fetch.
    fetch: u64,
}

impl Plan {
    /// A quarter for chunks, an eighth for fetches under way, the rest for queues. Below the smallest workable
    /// sizes the budget is overshot.
    pub(super) fn new(memory: u64, partitions: usize) -> Self {
        let partitions = partitions.max(1);
        let count = u64::try_from(partitions).unwrap_or(u64::MAX);
        let chunk = (memory / 4 / (CHUNKS as u64 + 1)).clamp(64 * KIB, MIB);
        let share = (memory / 2 / count).clamp(256 * KIB, 16 * MIB);
        Self {
            partitions,
            chunk: usize::try_from(chunk).unwrap_or(usize::MAX),
            queue_kib: share / 2 / RECORD_OVERHEAD / KIB,
            partition_fetch: share / 2 / PACKED,
            fetch: (memory / 8).clamp(MIB, 50 * MIB),
        }
    }

    /// True when the queues of `partitions` would take far more than planned.
    pub(super) fn is_outgrown_by(&self, partitions: usize) -> bool {
        partitions > self.partitions.saturating_mul(2) && self.queue_kib > 64
    }

    /// The consumer's configuration.
    pub(super) fn consumer(&self, options: &KafkaOptions) -> ClientConfig {
        let refresh = options.metadata_refresh.as_millis();
        let session = options.connection.session_timeout().as_millis();
        let mut config = options.connection.consumer();
        config
            .set("group.id", &options.group)
            .set("session.timeout.ms", session.to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("allow.auto.create.topics", "false")
            .set("enable.partition.eof", "true")
            .set("topic.metadata.refresh.interval.ms", refresh.to_string())
            .set("statistics.interval.ms", "1000")
            .set("queued.min.messages", "100000")
            // A queue that was full is soon read: the default of a second would be the pace of reading.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", self.queue_kib.to_string())
            .set("fetch.message.max.bytes", self.partition_fetch.to_string())
            .set("fetch.max.bytes", self.fetch.to_string())
            .set("receive.message.max.bytes", ANSWER.to_string())
            .set("topic.blacklist", options.topics.blacklist());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_stay_within_the_budget() {
        for partitions in [1, 3, 64, 500] {
            let memory = 256 * MIB;
            let plan = Plan::new(memory, partitions);
            let queue = plan.queue_kib * KIB * RECORD_OVERHEAD + plan.partition_fetch * PACKED;
            let queues = partitions as u64 * queue;
            let chunks = (CHUNKS as u64 + 1) * plan.chunk as u64;
            assert!(queues + chunks + plan.fetch <= memory, "{partitions}: {plan:?}");
        }
        assert!(Plan::new(256 * MIB, 10).is_outgrown_by(21));
        assert!(!Plan::new(256 * MIB, 10).is_outgrown_by(20));
        assert!(!Plan::new(MIB, 10).is_outgrown_by(100), "already the smallest");
    }
}
