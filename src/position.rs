//! Positions: the next offset to read, per partition of one topic.
//!
//! A table is fed by one topic, so a table's position is a map from partition to next offset. A range
//! `[from, to)` is a stretch of the log, not a count of records: compaction, transaction markers and aborted
//! records leave gaps, and a gap is not a loss.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
