//! Rejected records in a row: one is a bad record, many are something wrong with all of them.

use hashbrown::HashSet;

use super::{Buffer, RecordRef, Rejected};

/// Rejected records in a row, at a place in a table's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    /// The longest run up to here.
    pub longest: usize,
    /// The run that ends here.
    pub last: usize,
}

impl Buffer {
    /// The runs of rejected records after `before` of them in a row; `rejected` are the buffer's. Records that are
    /// nothing for a table do not end a run.
    pub fn streak(&self, rejected: &[Rejected<'_>], before: usize) -> Streak {
        let start = Streak { longest: before, last: before };
        if rejected.is_empty() && self.changes.is_empty() {
            return start;
        }
        if rejected.is_empty() {
            return Streak { last: 0, ..start };
        }
        let rejected: HashSet<(i32, i64)> =
            rejected.iter().map(|r| (r.record.partition, r.record.offset)).collect();
        let is_rejected = |at: &RecordRef| {
            self.record(*at).is_some_and(|r| rejected.contains(&(r.partition, r.offset)))
        };
        let changes = self.changes.iter().map(|buffered| buffered.record);
        let mut records: Vec<RecordRef> =
            changes.chain(self.rejects.iter().map(|(at, _)| *at)).collect();
        records.sort_unstable_by_key(|at| (at.chunk, at.entry));
        records.iter().fold(start, |streak, at| {
            let last = if is_rejected(at) { streak.last + 1 } else { 0 };
            Streak { longest: streak.longest.max(last), last }
        })
    }
}
