//! What is asked of the brokers: watermarks, and to keep offsets.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupInfo;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;
use uuid::Uuid;

use super::group::Group;
use crate::failpoint::{self, Point};
use crate::position::{TopicId, TopicPartition};
use crate::source::native::topic_ids;

/// A round of questions for watermarks takes no longer.
pub(super) const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Topics, and the members of the group, are told within this time.
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// What is known of a log: below `position` no record is newer than `newest_ms`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) position: i64,
    pub(super) newest_ms: i64,
}

/// A partition, and what its log is to be told by from another one, if it is to be.
pub(super) type Asked = (TopicPartition, Option<Known>);

/// What a partition has.
pub(super) struct Watermarks {
    pub(super) id: TopicPartition,
    /// The oldest offset.
    pub(super) low: i64,
    /// The next offset.
    pub(super) high: i64,
    /// The log is not the one that is known, of which nothing is left. None when that was not asked or not answered.
    pub(super) is_another: Option<bool>,
    /// The id that the topic has now, where the brokers tell it.
    pub(super) topic_id: Option<TopicId>,
}

/// A partition with the next offset to read.
pub(super) type Next = (TopicPartition, i64);

/// The watermarks of partitions, as far as they are told. Two requests to each broker serve all its partitions, two more
/// those whose log is to be told from another one, and one to any broker tells the topics' ids. The next offset is the last stable one, as the client reads committed
/// records only.
pub(super) fn watermarks(consumer: &BaseConsumer<Group>, asked: &[Asked]) -> Vec<Watermarks> {
    let until = Instant::now() + WATERMARKS_TIMEOUT;
    let query = |offset: &dyn Fn(&Asked) -> Option<Offset>| {
        let at = asked.iter().filter_map(|asked| Some((&asked.0, offset(asked)?)));
        consumer.offsets_for_times(list_at(at)?, until.saturating_duration_since(Instant::now()))
    };
    let both = query(&|_| Some(Offset::Beginning))
        .and_then(|low| Ok((low, query(&|_| Some(Offset::End))?)));
    let (low, high) = match both {
        Ok(both) => both,
        Err(error) => {
            debug!(%error, "the brokers do not tell the offsets of partitions");
            return Vec::new();
        }
    };
    let (mut first, mut newer) = (None, None);
    if asked.iter().any(|(_, known)| known.is_some()) {
        first = query(&|(_, known)| known.map(|_| Offset::Offset(0))).ok();
        let after = |known: Known| Offset::Offset(known.newest_ms.saturating_add(1));
        newer = query(&|(_, known)| known.map(after)).ok();
    }
    let topics: BTreeSet<&str> = asked.iter().map(|(id, _)| &*id.topic).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let wait = until.saturating_duration_since(Instant::now());
    let ids = topic_ids(consumer.client(), &topics, wait).unwrap_or_default();
    let told = |asked: &Asked| {
        let (id, known) = asked;
        let (first, newer) = (found(first.as_ref(), id), found(newer.as_ref(), id));
        let is_another = known.and_then(|known| is_another(known, first, newer));
        let (low, high) = (offset(found(Some(&low), id)?)?, offset(found(Some(&high), id)?)?);
        let topic_id = ids.get(&*id.topic).copied();
        Some(Watermarks { id: id.clone(), low, high, is_another, topic_id })
    };
    asked.iter().filter_map(told).collect()
}

/// True when the first record of a log is newer than all that was read before, though it is below the position: `first`
/// is the offset of the first record, `newer` that of the first one that is newer. None when these are not known. Records
/// of aborted transactions are never read, so that some of them may be newer as well, but hardly the first one there is.
fn is_another(known: Known, first: Option<Offset>, newer: Option<Offset>) -> Option<bool> {
    Some(match (first?, newer?) {
        (Offset::Offset(first), Offset::Offset(newer)) => first == newer && newer < known.position,
        _ => false,
    })
}

/// What a list tells of a partition, unless that is an error.
fn found(list: Option<&TopicPartitionList>, id: &TopicPartition) -> Option<Offset> {
    let element = list?.find_partition(&id.topic, id.partition)?;
    element.error().ok().map(|()| element.offset())
}

fn offset(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Commits offsets to the group; gives back those that were not taken, as in the middle of a rebalance. Waits for the
/// coordinator, as long as librdkafka does.
pub(super) fn commit(consumer: &BaseConsumer<Group>, offsets: Vec<Next>) -> Vec<Next> {
    let list = list_at(offsets.iter().map(|(id, next)| (id, Offset::Offset(*next))));
    match list.and_then(|list| consumer.commit(&list, CommitMode::Sync)) {
        Ok(()) => {
            failpoint::reach(Point::K9);
            debug!(partitions = offsets.len(), "offsets acknowledged");
            Vec::new()
        }
        Err(error) => {
            debug!(%error, "offsets not acknowledged; the tables know them");
            offsets
        }
    }
}

/// The topics that there are, as far as the user may describe them. None when the brokers do not tell.
pub(super) fn topics(consumer: &BaseConsumer<Group>) -> Option<HashSet<String>> {
    match consumer.fetch_metadata(None, TOLD_WITHIN) {
        Ok(metadata) => {
            let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
            let there = metadata.topics().iter().filter(|topic| topic.error() != Some(unknown));
            Some(there.map(|topic| topic.name().to_owned()).collect())
        }
        Err(error) => {
            debug!(%error, "the brokers do not tell their topics");
            None
        }
    }
}

/// True when the group has a static member of this name; its id is then the name and a UUID, joined by a dash
/// (Kafka's `ClassicGroup.generateMemberId`). None when the brokers do not tell.
pub(super) fn is_member(consumer: &BaseConsumer<Group>, group: &str, name: &str) -> Option<bool> {
    match consumer.fetch_group_list(Some(group), TOLD_WITHIN) {
        Ok(list) => {
            let mut members = list.groups().iter().flat_map(GroupInfo::members);
            Some(members.any(|member| has_name(member.id(), name)))
        }
        Err(error) => {
            debug!(%error, "the brokers do not tell the members of the group");
            None
        }
    }
}

/// True for the id of the static member of this name.
pub(super) fn has_name(id: &str, name: &str) -> bool {
    let uuid = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    uuid.is_some_and(|uuid| Uuid::try_parse(uuid).is_ok())
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::its_own("a-b-6f2a1c1e-9a3b-4f7e-8d2c-0123456789ab", "a-b", true)]
    #[case::a_longer_one("a-b-6f2a1c1e-9a3b-4f7e-8d2c-0123456789ab", "a", false)]
    #[case::without_a_name("cdc-sink-6f2a1c1e-9a3b-4f7e-8d2c-0123456789ab", "a", false)]
    fn a_static_member_is_told_by_its_id(#[case] id: &str, #[case] name: &str, #[case] is: bool) {
        assert_eq!(has_name(id, name), is);
    }

    /// Of a log that was read up to 5: the offsets of its first record, and of the first one that is newer than all of
    /// those that were read.
    #[rstest]
    #[case::nothing_new(Some(Offset::Offset(0)), Some(Offset::End), Some(false))]
    #[case::new_ones(Some(Offset::Offset(0)), Some(Offset::Offset(5)), Some(false))]
    #[case::old_ones_deleted(Some(Offset::Offset(5)), Some(Offset::Offset(5)), Some(false))]
    #[case::old_ones_and_more_deleted(
        Some(Offset::Offset(9)),
        Some(Offset::Offset(9)),
        Some(false)
    )]
    #[case::an_aborted_transaction_among_them(
        Some(Offset::Offset(0)),
        Some(Offset::Offset(3)),
        Some(false)
    )]
    #[case::made_anew(Some(Offset::Offset(0)), Some(Offset::Offset(0)), Some(true))]
    #[case::made_anew_and_compacted(Some(Offset::Offset(2)), Some(Offset::Offset(2)), Some(true))]
    #[case::made_anew_and_empty(Some(Offset::End), Some(Offset::End), Some(false))]
    #[case::not_told(Some(Offset::Offset(0)), None, None)]
    fn a_log_with_newer_records_alone_is_another(
        #[case] first: Option<Offset>,
        #[case] newer: Option<Offset>,
        #[case] expected: Option<bool>,
    ) {
        let known = Known { position: 5, newest_ms: 100 };
        assert_eq!(is_another(known, first, newer), expected);
    }
}
