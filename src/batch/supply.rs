//! Where the values come from that a change does not carry.

use super::{Buffer, Buffered};
use crate::change::{KeyChange, Operation};
use crate::key::Key;

/// Where a value comes from that a change does not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supplier {
    /// An earlier change of the batch.
    Change(u32),
    /// The row that the table has under this key.
    Table(Key),
    /// The row that the delete of this key change took away in another batch.
    Departed(KeyChange),
    /// Nowhere: there was no row before, or it cannot be told which.
    None,
}

impl Buffer {
    /// Who supplies what the change at `index` does not carry: the row right before it.
    ///
    /// For the create of a key change that is the row under the old key, right before the delete that belongs to it.
    /// A row that the table has under the second answer, the new key, comes first: then the connector has written the
    /// key change again, and that row has its values. When its delete is not here, the table may note where the row lay.
    pub(super) fn supplier(&self, index: u32) -> (Supplier, Option<Key>) {
        let Some(buffered) = self.change(index) else { return (Supplier::None, None) };
        let change = &buffered.change;
        let own = self.row_before(index, change.key);
        let moved = change.moved.filter(|_| change.operation != Operation::Delete);
        let Some(moved) = moved.filter(|_| !matches!(own, Supplier::Change(_))) else {
            return (own, None);
        };
        let again = (own != Supplier::None).then_some(change.key);
        match self.pairs.delete_of(index) {
            Some(delete) => (self.row_before(delete, moved.other), again),
            None => {
                let named = |source| KeyChange::new(moved.other, change.key, source);
                (moved.source.map(named).map_or(Supplier::None, Supplier::Departed), again)
            }
        }
    }

    /// The row that the change at `index` replaces or deletes.
    pub(super) fn replaced(&self, index: u32) -> Supplier {
        let key = self.change(index).map(|Buffered { change, .. }| change.key);
        key.map_or(Supplier::None, |key| self.row_before(index, key))
    }

    /// The row that `key` has right before its change at `index`.
    fn row_before(&self, index: u32, key: Key) -> Supplier {
        let previous = self.change(index).and_then(|buffered| buffered.previous);
        match previous.and_then(|at| Some((at, self.change(at)?))) {
            None if self.truncates() => Supplier::None,
            None => Supplier::Table(key),
            Some((_, found)) if found.change.operation == Operation::Delete => Supplier::None,
            Some((at, _)) => Supplier::Change(at),
        }
    }
}
