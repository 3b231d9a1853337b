//! Partitions of the topics that no member of the group has, though the group is at rest.
//!
//! A static member that ends while it gives partitions back, and is soon there again, gets what it had from the broker
//! (`ClassicGroup`: the name is known, and the strategy is the same) without a rebalance. So nobody takes what it gave
//! back, until something else divides the partitions again. Here a member without a name does: it joins, and leaves.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupInfo;
use tracing::{debug, warn};

use super::KafkaOptions;
use super::calls::{TOLD_WITHIN, has_name};
use super::group::Group;
use super::plan::Plan;

/// Whoever joins to make the group divide its partitions leaves after this, or when it has got some.
const JOINED_FOR: Duration = Duration::from_secs(10);
/// Each time that it did not help, the next one comes after twice the time, so many times.
const DOUBLINGS: u32 = 7;

/// A group at rest, as a static member of it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Partitions of the topics that no member has.
    unowned: usize,
    /// How many members come before this one when something is to be done.
    rank: u32,
}

/// What is asked of the brokers. None when they do not tell, or the group is dividing its partitions.
pub(super) fn standing(
    consumer: &BaseConsumer<Group>,
    options: &KafkaOptions,
    name: &str,
) -> Option<Standing> {
    let metadata = consumer.fetch_metadata(None, TOLD_WITHIN).ok()?;
    let groups = consumer.fetch_group_list(Some(&options.group), TOLD_WITHIN).ok()?;
    let group = groups.groups().first().filter(|group| group.state() == "Stable")?;
    let owned = owned(group)?;
    let topics = metadata.topics().iter().filter(|topic| options.topics.matches(topic.name()));
    let partitions =
        topics.flat_map(|topic| topic.partitions().iter().map(|p| (topic.name(), p.id())));
    let unowned = partitions.filter(|(topic, id)| !owned.contains(&((*topic).to_owned(), *id)));
    let mine = group.members().iter().find(|member| has_name(member.id(), name))?;
    let before = group.members().iter().filter(|member| member.id() < mine.id()).count();
    Some(Standing { unowned: unowned.count(), rank: u32::try_from(before).unwrap_or(u32::MAX) })
}

fn owned(group: &GroupInfo) -> Option<HashSet<(String, i32)>> {
    let mut owned = HashSet::new();
    for member in group.members() {
        owned.extend(assignment(member.assignment().unwrap_or_default())?);
    }
    Some(owned)
}

/// Partitions of a member, as Kafka writes them (`ConsumerProtocolAssignment`): a version, then for each topic its name
/// and its partitions. A member that has not been told anything has no bytes.
fn assignment(mut bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(count)?;
        *bytes = rest;
        Some(taken)
    }
    fn int(bytes: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
    }
    fn short(bytes: &mut &[u8]) -> Option<i16> {
        Some(i16::from_be_bytes(take(bytes, 2)?.try_into().ok()?))
    }
    let mut found = Vec::new();
    if bytes.is_empty() {
        return Some(found);
    }
    let bytes = &mut bytes;
    short(bytes)?;
    for _ in 0..int(bytes)? {
        let length = usize::try_from(short(bytes)?).ok()?;
        let topic = String::from_utf8(take(bytes, length)?.to_vec()).ok()?;
        for _ in 0..int(bytes)? {
            found.push((topic.clone(), int(bytes)?));
        }
    }
    Some(found)
}

/// When the brokers are asked, and when something is done about what they tell.
#[derive(Debug)]
pub(super) struct Unowned {
    every: Duration,
    /// Topics and partitions that are new are found by the group itself within this time.
    patience: Duration,
    due: Instant,
    since: Option<Instant>,
    done: u32,
}

impl Unowned {
    pub(super) fn new(options: &KafkaOptions, now: Instant) -> Self {
        let every = options.connection.session_timeout() / 2;
        let patience = options.metadata_refresh + every;
        Self { every, patience, due: now + every, since: None, done: 0 }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// The group divided its partitions.
    pub(super) fn rebalanced(&mut self, now: Instant) {
        self.since = None;
        self.due = now + self.every;
    }

    /// Takes what the brokers told. True when the group is to be made to divide its partitions again.
    pub(super) fn told(&mut self, standing: Option<Standing>, now: Instant) -> bool {
        self.due = now + self.every;
        let Some(standing) = standing.filter(|standing| standing.unowned > 0) else {
            self.done = if standing.is_some() { 0 } else { self.done };
            self.since = None;
            return false;
        };
        let since = *self.since.get_or_insert(now);
        let patience = (self.patience * 2_u32.pow(self.done)) + self.every * standing.rank;
        if now.duration_since(since) < patience {
            return false;
        }
        warn!(
            partitions = standing.unowned,
            "no member of the group has partitions that it should read; making it divide them again"
        );
        self.done = (self.done + 1).min(DOUBLINGS);
        self.since = None;
        true
    }
}

/// Joins the group for a moment, without a name, and reads nothing. Waits for nobody.
pub(super) fn join_for_a_moment(options: &KafkaOptions, plan: &Plan) {
    let mut config = plan.consumer(options);
    config.remove("group.instance.id");
    let topics: Vec<String> = options.topics.subscription().into_iter().map(Into::into).collect();
    let work = move || {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let consumer: BaseConsumer = match config.create() {
            Ok(consumer) => consumer,
            Err(error) => return debug!(%error, "the group was not joined for a moment"),
        };
        if let Err(error) = consumer.subscribe(&topics) {
            return debug!(%error, "the group was not joined for a moment");
        }
        let until = Instant::now() + JOINED_FOR;
        while Instant::now() < until && !consumer.assignment().is_ok_and(|got| got.count() > 0) {
            drop(consumer.poll(Duration::from_millis(100)));
        }
    };
    if let Err(error) = thread::Builder::new().name("kafka-rejoin".into()).spawn(work) {
        warn!(%error, "a thread cannot be started");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            bytes.extend(partitions.iter().flat_map(|partition| partition.to_be_bytes()));
        }
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn an_assignment_is_read_or_refused() {
        let whole = bytes(&[("a.b", &[0, 7]), ("c", &[])]);
        let expected = vec![("a.b".to_owned(), 0), ("a.b".to_owned(), 7)];
        assert_eq!(assignment(&whole), Some(expected));
        assert_eq!(assignment(&[]), Some(Vec::new()));
        for end in 1..whole.len() - 4 {
            assert_eq!(assignment(&whole[..end]), None, "{end} bytes");
        }
    }

    /// Looks come every second; what nobody has is waited for during five.
    #[test]
    fn what_nobody_has_is_waited_for_longer_each_time() {
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        let mut unowned =
            Unowned { every: second, patience: 5 * second, due: begin, since: None, done: 0 };
        let some = |rank| Some(Standing { unowned: 2, rank });
        let mut acted = Vec::new();
        for at in 0..30 {
            if unowned.told(some(1), begin + at * second) {
                acted.push(at);
            }
        }
        // After 5 and 1 for its rank, then after 10 and 1.
        assert_eq!(acted, [6, 18]);
        assert!(!unowned.told(None, begin + 30 * second));
        assert!(!unowned.told(some(0), begin + 50 * second), "the brokers did not tell meanwhile");
        assert!(!unowned.told(Some(Standing { unowned: 0, rank: 0 }), begin + 51 * second));
        assert!(!unowned.told(some(0), begin + 52 * second));
        assert!(unowned.told(some(0), begin + 57 * second), "all was well meanwhile");
        unowned.rebalanced(begin + 70 * second);
        assert!(!unowned.is_due(begin + 70 * second) && unowned.is_due(begin + 71 * second));
    }
}
