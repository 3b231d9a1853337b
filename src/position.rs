//! Positions: the next offset to read, per partition of one topic.
//!
//! A table is fed by one topic, so a table's position is a map from partition to next offset. A range
//! `[from, to)` is a stretch of the log, not a count of records: compaction, transaction markers and aborted
//! records leave gaps, and a gap is not a loss.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// The id that Kafka gave a topic when it was made; another topic of the same name has another one (KIP-516). As text it is
/// what Kafka's own tools show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// Of the halves of a UUID; none for a topic without one, which Kafka tells by zeros.
    pub fn new(high: u64, low: u64) -> Option<Self> {
        let id = (u128::from(high) << 64) | u128::from(low);
        (id != 0).then(|| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl From<TopicId> for String {
    fn from(id: TopicId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for TopicId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| format!("{text} is not the id of a topic"))
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A stretch of one partition's log: `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The partition's number.
    pub partition: i32,
    /// The position the range starts from.
    pub from: i64,
    /// The position after it.
    pub to: i64,
}

/// The next offset to read of each partition of one topic. A partition that is absent was never committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(BTreeMap<i32, i64>);

impl Position {
    /// The next offset of `partition`, if any was ever committed.
    pub fn get(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition).copied()
    }

    /// Sets the next offset of `partition`.
    pub fn set(&mut self, partition: i32, next: i64) {
        self.0.insert(partition, next);
    }

    /// Every partition with its next offset, by partition number.
    pub fn iter(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.0.iter().map(|(partition, next)| (*partition, *next))
    }

    /// True when no partition was ever committed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The position after `ranges`, or the first range that does not start here: the compare of the
    /// compare-and-set that every table commit is. A partition never committed may start anywhere.
    pub fn advance(&self, ranges: &[OffsetRange]) -> Result<Self, OffsetRange> {
        let mut next = self.clone();
        for range in ranges {
            let starts_here = self.get(range.partition).is_none_or(|stored| stored == range.from);
            if !starts_here || range.to < range.from {
                return Err(*range);
            }
            next.set(range.partition, range.to);
        }
        Ok(next)
    }
}

impl FromIterator<(i32, i64)> for Position {
    fn from_iter<I: IntoIterator<Item = (i32, i64)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kafka's `Uuid.toString` has it.
    #[test]
    fn the_id_of_a_topic_is_what_tools_of_kafka_show() {
        let id = TopicId::new(0x6f2a_1c1e_9a3b_4f7e, 0x8d2c_0123_4567_89ab).unwrap();
        assert_eq!(id.to_string(), "byocHpo7T36NLAEjRWeJqw");
        assert_eq!(TopicId::try_from(id.to_string()), Ok(id));
        assert_eq!(TopicId::new(0, 0), None);
        assert!(TopicId::try_from("bm9uZQ".to_owned()).unwrap_err().contains("bm9uZQ"));
    }

    #[test]
    fn a_range_must_start_at_the_stored_position() {
        let stored: Position = [(0, 5)].into_iter().collect();
        let range = |partition, from, to| OffsetRange { partition, from, to };
        assert_eq!(stored.advance(&[range(0, 5, 9)]).unwrap().get(0), Some(9));
        assert_eq!(stored.advance(&[range(0, 4, 9)]), Err(range(0, 4, 9)));
        assert_eq!(stored.advance(&[range(0, 6, 9)]), Err(range(0, 6, 9)));
        assert_eq!(stored.advance(&[range(1, 7, 9)]).unwrap().get(1), Some(9));
    }
}
