//! The order of a key's changes from several partitions.

use super::{Buffer, RecordRef};
use crate::key::Key;
use crate::record::Record;
use crate::source_position::SourcePosition;

/// Changes of its key that a change is put below at most: what comes first and last of them is right beyond it, what lies
/// between may not be.
pub(super) const DEEPEST: usize = 1000;

impl Buffer {
    /// Learns where the changes come from that were taken in without it, and puts each key's into their order.
    pub fn trace(&mut self, mut source_position: impl FnMut(&Record<'_>) -> SourcePosition) {
        if self.source_positions.len() == self.changes.len() {
            return;
        }
        let mut found = Vec::new();
        for buffered in
            self.changes.iter().filter(|b| !self.source_positions.contains_key(&b.record))
        {
            if let Some(record) = self.record(buffered.record) {
                found.push((buffered.record, source_position(&record)));
            }
        }
        self.source_positions.extend(found);
        self.last.clear();
        let changes = self.changes.iter().map(|buffered| (buffered.record, buffered.change.key));
        let changes: Vec<(RecordRef, Key)> = changes.collect();
        // No chain goes on over a truncate.
        let emptied = self.truncates.last().map(|at| (at.chunk, at.entry));
        for (index, (record, key)) in (0_u32..).zip(changes) {
            if Some((record.chunk, record.entry)) < emptied {
                continue;
            }
            let previous = self.put_in_order(index, record, key);
            if let Some(buffered) = self.changes.get_mut(index as usize) {
                buffered.previous = previous;
            }
        }
    }

    /// Puts the newest change into its key's chain, below those of other partitions that are later at the source; the
    /// change that comes right before it.
    pub(super) fn put_in_order(&mut self, index: u32, record: RecordRef, key: Key) -> Option<u32> {
        let own = self.source_positions.get(&record);
        let is_before = |other: u32| {
            let other =
                self.change(other).and_then(|other| self.source_positions.get(&other.record));
            own.zip(other).is_some_and(|(own, other)| own.is_before(other))
        };
        let (mut above, mut below) = (None, self.last.get(&key).copied());
        for _ in 0..DEEPEST {
            let Some(later) = below.filter(|at| is_before(*at)) else { break };
            above = below;
            below = self.change(later).and_then(|later| later.previous);
        }
        let inherited = self.place_of_tombstone(record, below);
        if let (Some(own), Some(source_position)) =
            (self.source_positions.get_mut(&record), inherited)
        {
            *own = source_position;
        }
        match above {
            None => {
                self.last.insert(key, index);
            }
            Some(above) => {
                if let Some(above) = self.changes.get_mut(above as usize) {
                    above.previous = Some(index);
                }
            }
        }
        below
    }

    /// A tombstone tells no place: it has that of the delete before it in its partition.
    fn place_of_tombstone(&self, record: RecordRef, below: Option<u32>) -> Option<SourcePosition> {
        let own = self.source_positions.get(&record).filter(|own| own.place.is_none())?;
        let source_position = self.source_positions.get(&self.change(below?)?.record)?;
        (source_position.partition == own.partition).then(|| source_position.clone())
    }
}
