//! What is asked of the brokers: watermarks, and to keep offsets.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use super::group::Group;
use crate::position::TopicPartition;

/// A round of questions for watermarks takes no longer.
pub(super) const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition with its oldest and its next offset.
pub(super) type Watermarks = (TopicPartition, i64, i64);

/// A partition with the next offset to read.
pub(super) type Next = (TopicPartition, i64);

/// The watermarks of `partitions`, as far as they are told. Two requests to each broker serve all its partitions. The
/// next offset is the last stable one, as the client reads committed records only.
pub(super) fn watermarks(
    consumer: &BaseConsumer<Group>,
    partitions: Vec<TopicPartition>,
) -> Vec<Watermarks> {
    let until = Instant::now() + WATERMARKS_TIMEOUT;
    let query = |offset: Offset| {
        let list = list_at(partitions.iter().map(|id| (id, offset)))?;
        consumer.offsets_for_times(list, until.saturating_duration_since(Instant::now()))
    };
    let both = query(Offset::Beginning).and_then(|low| Ok((low, query(Offset::End)?)));
    let (low, high) = match both {
        Ok(both) => both,
        Err(error) => {
            debug!(%error, "the brokers do not tell the offsets of partitions");
            return Vec::new();
        }
    };
    let offset = |list: &TopicPartitionList, id: &TopicPartition| {
        let element = list.find_partition(&id.topic, id.partition)?;
        match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Some(offset),
            _ => None,
        }
    };
    let known = |id| Some((offset(&low, &id)?, offset(&high, &id)?)).map(|(l, h)| (id, l, h));
    partitions.into_iter().filter_map(known).collect()
}

/// Commits offsets to the group; gives back those that were not taken, as in the middle of a rebalance. Waits for the
/// coordinator, as long as librdkafka does.
pub(super) fn commit(consumer: &BaseConsumer<Group>, offsets: Vec<Next>) -> Vec<Next> {
    let list = list_at(offsets.iter().map(|(id, next)| (id, Offset::Offset(*next))));
    match list.and_then(|list| consumer.commit(&list, CommitMode::Sync)) {
        Ok(()) => {
            debug!(partitions = offsets.len(), "offsets acknowledged");
            Vec::new()
        }
        Err(error) => {
            debug!(%error, "offsets not acknowledged; the tables know them");
            offsets
        }
    }
}

/// A list of partitions, each at an offset.
pub(super) fn list_at<'a>(
    partitions: impl Iterator<Item = (&'a TopicPartition, Offset)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (id, offset) in partitions {
        list.add_partition_offset(&id.topic, id.partition, offset)?;
    }
    Ok(list)
}
