//! What is buffered for a table, when it is due, and the collapse to one change per key.
//!
//! Records are kept as the chunks they came in; of each change only its scan is kept beside. A key's changes form a
//! chain, last to first: the last one decides what becomes of the row, earlier ones supply what the last one does
//! not carry.

mod assemble;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

pub use assemble::{Assembled, Rejected};

use crate::change::Operation;
use crate::decode::{Change, Reject};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::position::{OffsetRange, Position};
use crate::record::{Record, Records};

/// When a table's batch is due. The first limit reached counts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records.
    pub rows: usize,
    /// Bytes of records.
    pub bytes: usize,
    /// Time since the first record of the batch.
    pub age: Duration,
    /// Time since the last record: a quiet table is merged without waiting for the age.
    pub idle: Duration,
}

/// Records that are counted and passed over, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records taken in.
    pub consumed: usize,
    /// Records that are nothing for a table.
    pub skipped: usize,
    /// Records that were rejected by the scan.
    pub rejected: usize,
}

/// The changes of one table since its last commit.
#[derive(Debug, Default)]
pub struct Buffer {
    chunks: Vec<Records>,
    changes: Vec<Buffered>,
    last: HashMap<Key, u32, foldhash::fast::RandomState>,
    rejects: Vec<(RecordRef, Reject)>,
    ranges: BTreeMap<i32, OffsetRange>,
    tally: Tally,
    bytes: usize,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
}

/// Where a record lies: chunk and place in it.
#[derive(Debug, Clone, Copy)]
struct RecordRef {
    chunk: u32,
    entry: u32,
}

#[derive(Debug, Clone, Copy)]
struct Buffered {
    record: RecordRef,
    change: Change,
    /// The change of the same key before this one.
    previous: Option<u32>,
}

/// What the scan made of a record.
#[derive(Debug)]
pub enum Outcome {
    /// A change of a row.
    Change(Change),
    /// Nothing for a table.
    Skipped,
    /// No change can be made of it.
    Rejected(Reject),
}

impl Buffer {
    /// A buffer that takes over at `position`: the ranges of its partitions start there.
    pub fn start_at(&mut self, position: impl IntoIterator<Item = (i32, i64)>) {
        for (partition, from) in position {
            self.ranges.insert(partition, OffsetRange { partition, from, to: from });
        }
    }

    /// Takes a chunk with what the scan made of each of its records, in order. Records below the position of their
    /// partition were taken before and are left out.
    pub fn push(&mut self, records: Records, outcomes: Vec<Outcome>, now: Instant) {
        let Ok(chunk) = u32::try_from(self.chunks.len()) else { return };
        let range = self.ranges.entry(records.partition()).or_insert_with(|| {
            let from = records.get(0).map_or_else(|| records.next(), |record| record.offset);
            OffsetRange { partition: records.partition(), from, to: from }
        });
        let (taken_to, consumed) = (range.to, self.tally.consumed);
        range.to = range.to.max(records.next());
        for (entry, (record, outcome)) in (0..).zip(records.iter().zip(outcomes)) {
            if record.offset < taken_to {
                continue;
            }
            self.tally.consumed += 1;
            let at = RecordRef { chunk, entry };
            match outcome {
                Outcome::Change(change) => self.take_change(at, change),
                Outcome::Skipped => self.tally.skipped += 1,
                Outcome::Rejected(reject) => {
                    self.tally.rejected += 1;
                    self.rejects.push((at, reject));
                }
            }
        }
        if self.tally.consumed == consumed {
            return; // Nothing refers to the chunk; kept, it would wait for a merge that does not come.
        }
        self.bytes += records.bytes();
        self.chunks.push(records);
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
    }

    fn take_change(&mut self, record: RecordRef, change: Change) {
        let Ok(index) = u32::try_from(self.changes.len()) else { return };
        let previous = self.last.insert(change.key, index);
        self.changes.push(Buffered { record, change, previous });
    }

    /// Moves the end of a partition's range past a gap at the end of the log.
    pub fn reach(&mut self, partition: i32, position: i64) {
        if let Some(range) = self.ranges.get_mut(&partition) {
            range.to = range.to.max(position);
        }
    }

    /// True when nothing was taken in since the last commit, gaps aside.
    pub fn is_empty(&self) -> bool {
        self.tally.consumed == 0
    }

    /// True with at least one change of a row.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records taken in, by kind.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The position after everything taken in.
    pub fn position(&self) -> Position {
        self.ranges.values().map(|range| (range.partition, range.to)).collect()
    }

    /// The ranges that the batch covers, empty ones left out.
    pub fn ranges(&self) -> Vec<OffsetRange> {
        self.ranges.values().filter(|range| range.to > range.from).copied().collect()
    }

    /// When the batch will be due if nothing more comes; none for an empty buffer.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let by_age = self.first_at.map(|at| at + limits.age);
        let by_idle = self.last_at.map(|at| at + limits.idle);
        by_age.into_iter().chain(by_idle).min()
    }

    /// True when a limit is reached.
    pub fn is_due(&self, limits: &Limits, now: Instant) -> bool {
        self.tally.consumed >= limits.rows
            || self.bytes >= limits.bytes
            || self.deadline(limits).is_some_and(|deadline| now >= deadline)
    }

    /// After the table committed what was buffered: an empty buffer that goes on where this one ends.
    #[must_use]
    pub fn next(&self) -> Self {
        let mut next = Self::default();
        next.start_at(self.position().iter());
        next
    }

    /// After everything taken in turned out to be nothing for the table: the same ranges, nothing held.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { ranges: self.ranges.clone(), ..Self::default() }
    }

    /// The position that the batch starts from.
    pub fn start_position(&self) -> Position {
        self.ranges.values().map(|range| (range.partition, range.from)).collect()
    }

    /// Where to go on when the table turned out to be at `stored`. Fails when the table went back: what lies between
    /// is not in the buffer.
    pub fn position_over(&self, stored: &Position) -> Result<Position> {
        let start = |range: &OffsetRange| {
            match stored.get(range.partition) {
            Some(stored) if stored < range.from => Err(Error::internal(format!(
                "the table's position of partition {} went back from {} to {stored}",
                range.partition, range.from
            ))
            .hint("was the table restored or rolled back? restart to read again from the table's position")),
            stored => Ok((range.partition, stored.unwrap_or(range.from))),
        }
        };
        let position: Position = self.ranges.values().map(start).collect::<Result<_>>()?;
        if position == self.start_position() {
            return Err(Error::internal(
                "a batch was fenced by a table that is at the batch's start",
            ));
        }
        Ok(position)
    }

    /// After the table turned out to be at another position: what is left to do from there. Changes the table has
    /// already, and partitions that are not in `position`, are left out.
    #[must_use]
    pub fn rebased(self, position: &Position, now: Instant) -> Self {
        let mut next = Self::default();
        next.start_at(position.iter());
        let mut outcomes: Vec<Vec<Outcome>> = self
            .chunks
            .iter()
            .map(|chunk| chunk.iter().map(|_| Outcome::Skipped).collect())
            .collect();
        let mut put = |at: RecordRef, outcome| {
            let slot =
                outcomes.get_mut(at.chunk as usize).and_then(|c| c.get_mut(at.entry as usize));
            if let Some(slot) = slot {
                *slot = outcome;
            }
        };
        for buffered in self.changes {
            put(buffered.record, Outcome::Change(buffered.change));
        }
        for (at, reject) in self.rejects {
            put(at, Outcome::Rejected(reject));
        }
        for (chunk, outcomes) in self.chunks.into_iter().zip(outcomes) {
            if position.get(chunk.partition()).is_some_and(|from| chunk.next() > from) {
                next.push(chunk, outcomes, now);
            }
        }
        for range in self.ranges.into_values() {
            next.reach(range.partition, range.to);
        }
        next
    }

    fn record(&self, at: RecordRef) -> Option<Record<'_>> {
        self.chunks.get(at.chunk as usize)?.get(at.entry as usize)
    }

    fn change(&self, index: u32) -> Option<&Buffered> {
        self.changes.get(index as usize)
    }

    /// The change that supplies what the change at `index` does not carry, or where else to look.
    fn supplier(&self, index: u32) -> Supplier {
        let Some(buffered) = self.change(index) else { return Supplier::None };
        let (mut next, from) = match buffered.change.old_key {
            // The second half of a key change: the value is the old key's, from before it was deleted.
            Some(old) => (self.before(old, index), old),
            None => match buffered.previous.and_then(|previous| self.change(previous)) {
                None => return Supplier::Table(buffered.change.key),
                Some(previous) if previous.change.operation == Operation::Delete => {
                    return Supplier::None;
                }
                Some(_) => (buffered.previous, buffered.change.key),
            },
        };
        while let Some((at, found)) = next.and_then(|at| Some((at, self.change(at)?))) {
            if found.change.operation != Operation::Delete {
                return Supplier::Change(at);
            }
            next = found.previous;
        }
        Supplier::Table(from)
    }

    /// The last change of `key` that was taken in before `index`.
    fn before(&self, key: Key, index: u32) -> Option<u32> {
        let mut at = self.last.get(&key).copied();
        while let Some(found) = at.filter(|found| *found >= index) {
            at = self.change(found).and_then(|buffered| buffered.previous);
        }
        at
    }
}

/// Where a value comes from that a change does not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Supplier {
    /// An earlier change of the batch.
    Change(u32),
    /// The row that the table has under this key.
    Table(Key),
    /// Nowhere: there was no row before.
    None,
}
