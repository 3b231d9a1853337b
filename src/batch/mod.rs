//! What is buffered for a table, when it is due, and the collapse to one change per key.
//!
//! Records are kept as the chunks they came in; of each change only its scan is kept beside. A key's changes form a
//! chain, last to first: the last one decides what becomes of the row, earlier ones supply what the last one does
//! not carry. A key change links two chains, and a batch ends where it tears no key change apart ([`Buffer::cut`]),
//! unless its halves are read too far apart: then the table carries what one batch has to tell another.

mod assemble;
mod confirm;
mod departures;
mod givers;
mod late;
mod matched;
mod order;
mod pairs;
mod streak;
mod supply;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

pub use assemble::{Assembled, Given, Rejected};
use late::Late;
use pairs::Pairs;
pub use pairs::Wait;
pub use streak::Streak;
use supply::Supplier;

use crate::change::Departed;
use crate::decode::{Change, Decoder, Reject};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::position::{OffsetRange, Position, TopicId};
use crate::record::{Record, Records};
use crate::source_position::SourcePosition;

/// How soon a batch is due again that had to end before the half of a key change.
const RETRY: Duration = Duration::from_millis(500);

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
    /// Records that empty the table.
    pub truncates: usize,
}

/// The changes of one table since its last commit.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    chunks: Vec<Arc<Records>>,
    changes: Vec<Buffered>,
    last: HashMap<Key, u32, foldhash::fast::RandomState>,
    pairs: Pairs,
    /// Where changes come from, where that is asked for.
    source_positions: HashMap<RecordRef, SourcePosition, foldhash::fast::RandomState>,
    /// Changes whose rows went on to another key before they were taken in.
    late: HashMap<u32, Late>,
    /// How many of them are of rows that go on in the batch, without their new key being here.
    stranded: usize,
    rejects: Vec<(RecordRef, Reject)>,
    /// Records that empty the table. What was taken in before the last of them is gone.
    truncates: Vec<RecordRef>,
    ranges: BTreeMap<i32, OffsetRange>,
    /// The first record of each partition.
    first: BTreeMap<i32, i64>,
    topic_id: Option<TopicId>,
    /// Kafka's timestamp of the newest record of each partition.
    timestamps_ms: BTreeMap<i32, i64>,
    tally: Tally,
    bytes: usize,
    /// Records and bytes that the last batch left behind, as half of a key change was missing.
    left: Option<(usize, usize)>,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
}

/// Where a record lies: chunk and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RecordRef {
    chunk: u32,
    entry: u32,
}

#[derive(Debug, Clone, Copy)]
struct Buffered {
    record: RecordRef,
    change: Change,
    /// The change of the same key before this one: the one that came before, or that another partition's is put above.
    previous: Option<u32>,
}

/// What the scan made of a record.
#[derive(Debug)]
pub enum Outcome {
    /// A change of a row.
    Change(Change),
    /// A change of a row, and where it comes from.
    Traced(Box<(Change, SourcePosition)>),
    /// Nothing for a table.
    Skipped,
    /// The table is emptied. Every record before it was taken in before, which only a topic with one partition grants.
    Truncate,
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
        self.push_until(Arc::new(records), outcomes, now, i64::MAX);
    }

    /// The same, but for what is at `end` or after it.
    fn push_until(
        &mut self,
        records: Arc<Records>,
        outcomes: Vec<Outcome>,
        now: Instant,
        end: i64,
    ) {
        let Ok(chunk) = u32::try_from(self.chunks.len()) else { return };
        let range = self.ranges.entry(records.partition()).or_insert_with(|| {
            let from = records.get(0).map_or_else(|| records.next(), |record| record.offset);
            OffsetRange { partition: records.partition(), from, to: from }
        });
        let (taken_to, consumed) = (range.to, self.tally.consumed);
        range.to = range.to.max(records.next().min(end));
        let mut newest = None;
        for (entry, (record, outcome)) in (0..).zip(records.iter().zip(outcomes)) {
            if record.offset < taken_to || record.offset >= end {
                continue;
            }
            self.tally.consumed += 1;
            self.first.entry(records.partition()).or_insert(record.offset);
            newest = newest.max(record.timestamp_ms);
            let at = RecordRef { chunk, entry };
            match outcome {
                Outcome::Change(change) => {
                    self.take_change(at, (record.partition, record.offset), change, now);
                }
                Outcome::Traced(traced) => {
                    let (change, source_position) = *traced;
                    self.source_positions.insert(at, source_position);
                    self.take_change(at, (record.partition, record.offset), change, now);
                }
                Outcome::Skipped => self.tally.skipped += 1,
                Outcome::Truncate => self.take_truncate(at),
                Outcome::Rejected(reject) => {
                    self.tally.rejected += 1;
                    self.rejects.push((at, reject));
                }
            }
        }
        if self.tally.consumed == consumed {
            return; // Nothing refers to the chunk; kept, it would wait for a merge that does not come.
        }
        self.topic_id = records.topic_id().or(self.topic_id);
        if let Some(newest) = newest {
            let known = self.timestamps_ms.entry(records.partition()).or_insert(newest);
            *known = newest.max(*known);
        }
        self.bytes += records.bytes();
        self.chunks.push(records);
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
    }

    fn take_change(&mut self, record: RecordRef, place: (i32, i64), change: Change, now: Instant) {
        let Ok(index) = u32::try_from(self.changes.len()) else { return };
        self.pairs.take(index, place, &change, now);
        let previous = match self.source_positions.is_empty() {
            true => self.last.insert(change.key, index),
            false => self.put_in_order(index, record, change.key),
        };
        self.changes.push(Buffered { record, change, previous });
    }

    /// No row is left, so no chain goes on and no key change needs its other half.
    fn take_truncate(&mut self, record: RecordRef) {
        self.tally.truncates += 1;
        self.truncates.push(record);
        self.last.clear();
        self.pairs = Pairs::default();
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

    /// True with at least one change of a row that no truncate took away.
    pub fn has_changes(&self) -> bool {
        !self.last.is_empty()
    }

    /// True when the table is to be emptied first.
    fn truncates(&self) -> bool {
        !self.truncates.is_empty()
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

    /// Where a batch has to end so that it has both halves of every key change or neither, but for those that are not
    /// waited for any longer: [`Self::position`] when nothing is left behind.
    pub fn cut(&mut self, wait: Wait, now: Instant) -> Position {
        self.pairs.cut(self.position(), wait, now)
    }

    /// True when a batch had to end before half of a key change whose other half is still not here.
    pub fn has_held(&self) -> bool {
        self.pairs.has_held()
    }

    /// New keys of creates that need a value: one that has a row in the table gets it from there.
    pub fn needy_keys(&self) -> Vec<Key> {
        self.needy().into_iter().map(|(_, key)| key).collect()
    }

    /// Takes in what the table notes of key changes that were torn apart, and which of [`Self::needy_keys`] it has.
    pub fn learn(&mut self, departed: &Departed) {
        let needy = self.needy().into_iter();
        let again = needy.filter(|(_, key)| departed.present.contains(key)).map(|(at, _)| at);
        let again = again.collect();
        self.pairs.learn(departed, &again);
    }

    /// Creates that need a value and whose key was not touched by this buffer before.
    fn needy(&self) -> Vec<(u32, Key)> {
        let key = |at| match self.replaced(at) {
            Supplier::Table(key) => Some((at, key)),
            _ => None,
        };
        self.pairs.needy().into_iter().filter_map(key).collect()
    }

    /// Before [`Self::cut`]: creates that have waited for their delete are decoded once. One that leaves out values waits
    /// longer, unless it only comes again: then the row that it made has them.
    pub fn look_at_creates(
        &mut self,
        decoder: &mut Decoder,
        wait: Wait,
        now: Instant,
    ) -> Result<()> {
        let unknown = self.pairs.unknown(wait, now);
        if unknown.is_empty() {
            return Ok(());
        }
        let mut needy: HashSet<u32> = {
            let rows = self.rows(&unknown)?;
            let schema = decoder.table_schema(&rows)?;
            let unavailable = decoder.supplies(&rows, &schema)?.unavailable;
            unavailable.iter().filter_map(|(row, _)| unknown.get(*row).copied()).collect()
        };
        needy.retain(|at| !matches!(self.replaced(*at), Supplier::Change(_)));
        self.pairs.tell_needs(&unknown, &needy);
        Ok(())
    }

    /// True when half of a key change is here and its other half is not.
    pub fn has_open(&self) -> bool {
        self.pairs.has_open()
    }

    /// The position after what was taken in of `partition`, if any position of it is known.
    pub fn taken_to(&self, partition: i32) -> Option<i64> {
        self.ranges.get(&partition).map(|range| range.to)
    }

    /// The offset of the first record of `partition` that was taken in since the last commit.
    pub fn first_of(&self, partition: i32) -> Option<i64> {
        self.first.get(&partition).copied()
    }

    /// The first offset of `partition` with half of a key change whose other half was not taken in.
    pub fn open_from(&self, partition: i32) -> Option<i64> {
        self.pairs.open_from(partition)
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
        if self.left.is_some() {
            return self.first_at.map(|at| at + RETRY);
        }
        let by_age = self.first_at.map(|at| at + limits.age);
        let by_idle = self.last_at.map(|at| at + limits.idle);
        by_age.into_iter().chain(by_idle).chain(self.pairs.deadline()).min()
    }

    /// True when a limit is reached.
    pub fn is_due(&self, limits: &Limits, now: Instant) -> bool {
        let (records, bytes) = self.left.unwrap_or_default();
        self.tally.consumed.saturating_sub(records) >= limits.rows
            || self.bytes.saturating_sub(bytes) >= limits.bytes
            || self.deadline(limits).is_some_and(|deadline| now >= deadline)
    }

    /// True when enough came since the last batch to make another one early.
    pub fn has_grown(&self) -> bool {
        let (_, left) = self.left.unwrap_or_default();
        self.bytes.saturating_sub(left) > left / 8
    }

    /// What is below `end`, which [`Self::cut`] gave, as a buffer of its own.
    #[must_use]
    pub fn until(&self, end: &Position, now: Instant) -> Self {
        self.part(&self.start_position(), Some(end), now)
    }

    /// After the table committed what is below `end`: a buffer of what is left, which goes on there.
    #[must_use]
    pub fn after(&self, end: &Position, now: Instant) -> Self {
        let mut next = self.part(end, None, now);
        next.rest(now);
        next
    }

    /// After what is below `end` turned out to be nothing for the table: the same starts, without it.
    #[must_use]
    pub fn without(&self, end: &Position, now: Instant) -> Self {
        let mut next = self.after(end, now);
        for range in next.ranges.values_mut() {
            range.from = self.ranges.get(&range.partition).map_or(range.from, |own| own.from);
        }
        next
    }

    /// What is there has been tried: time and size count from here.
    pub fn rest(&mut self, now: Instant) {
        if !self.is_empty() {
            self.left = Some((self.tally.consumed, self.bytes));
            (self.first_at, self.last_at) = (Some(now), Some(now));
        }
    }

    /// The position that the batch starts from.
    pub fn start_position(&self) -> Position {
        self.ranges.values().map(|range| (range.partition, range.from)).collect()
    }

    /// Where to go on when the table turned out to be at `stored`; none when the table went back: what lies between is
    /// not in the buffer.
    pub fn position_over(&self, stored: &Position) -> Result<Option<Position>> {
        let start = |range: &OffsetRange| {
            let stored = stored.get(range.partition).unwrap_or(range.from);
            (stored >= range.from).then_some((range.partition, stored))
        };
        let Some(position) = self.ranges.values().map(start).collect::<Option<Position>>() else {
            return Ok(None);
        };
        if position == self.start_position() {
            return Err(Error::internal(
                "a batch was fenced by a table that is at the batch's start",
            ));
        }
        Ok(Some(position))
    }

    /// After the table turned out to be at another position: what is left to do from there. Changes the table has
    /// already, and partitions that are not in `position`, are left out.
    #[must_use]
    pub fn rebased(&self, position: &Position, now: Instant) -> Self {
        self.part(position, None, now)
    }

    /// What lies from `start` on and below `end`.
    fn part(&self, start: &Position, end: Option<&Position>, now: Instant) -> Self {
        let end = |partition| end.and_then(|end| end.get(partition)).unwrap_or(i64::MAX);
        let mut part = Self::default();
        part.start_at(start.iter());
        for (number, chunk) in (0..).zip(&self.chunks) {
            let first = chunk.get(0).map_or(i64::MAX, |record| record.offset);
            let after_start = start.get(chunk.partition()).is_some_and(|from| chunk.next() > from);
            if after_start && first < end(chunk.partition()) {
                let outcomes = self.outcomes(number, chunk.len());
                part.push_until(Arc::clone(chunk), outcomes, now, end(chunk.partition()));
            }
        }
        for range in self.ranges.values() {
            part.reach(range.partition, range.to.min(end(range.partition)));
        }
        part.pairs.waiting_since(&self.pairs);
        part
    }

    /// What the scan made of the records of a chunk.
    fn outcomes(&self, chunk: u32, records: usize) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = (0..records).map(|_| Outcome::Skipped).collect();
        let mut put = |at: RecordRef, outcome| {
            if let Some(slot) = outcomes.get_mut(at.entry as usize) {
                *slot = outcome;
            }
        };
        for buffered in of_chunk(&self.changes, chunk, |buffered| buffered.record) {
            let change = buffered.change;
            put(
                buffered.record,
                match self.source_positions.get(&buffered.record) {
                    None => Outcome::Change(change),
                    Some(source_position) => {
                        Outcome::Traced(Box::new((change, source_position.clone())))
                    }
                },
            );
        }
        for (at, reject) in of_chunk(&self.rejects, chunk, |(at, _)| *at) {
            put(*at, Outcome::Rejected(reject.clone()));
        }
        for at in of_chunk(&self.truncates, chunk, |at| *at) {
            put(*at, Outcome::Truncate);
        }
        outcomes
    }

    fn record(&self, at: RecordRef) -> Option<Record<'_>> {
        self.chunks.get(at.chunk as usize)?.get(at.entry as usize)
    }

    fn change(&self, index: u32) -> Option<&Buffered> {
        self.changes.get(index as usize)
    }
}

/// The entries of one chunk; entries come in the order of their chunks.
fn of_chunk<T>(entries: &[T], chunk: u32, at: impl Fn(&T) -> RecordRef) -> &[T] {
    let from = entries.partition_point(|entry| at(entry).chunk < chunk);
    let to = entries.partition_point(|entry| at(entry).chunk <= chunk);
    entries.get(from..to).unwrap_or_default()
}
