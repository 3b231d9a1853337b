//! Where the values come from that a change does not carry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave;

use super::givers::{Giver, Givers};
use super::{Buffer, Buffered};
use crate::change::{Hole, KeyChange, Operation, Origin, Own};
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::schema::TableSchema;

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

/// A value that is still looked for: the row it belongs to, its change, the column, and the change it was last looked for
/// in.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    row: usize,
    of: u32,
    column: usize,
    at: u32,
}

/// Rows with the values that their changes left out, as far as the batch has them.
pub(super) struct Resolved {
    pub(super) rows: RecordBatch,
    pub(super) holes: Vec<Hole>,
    /// Row and column of values that are nowhere.
    pub(super) missing: Vec<(usize, usize)>,
    /// What the batch knows of who gave each value that was left out, by row and column.
    pub(super) givers: Givers,
}

impl Resolved {
    /// The value is nowhere in the batch; `from` is the row of the table that has it, if any.
    fn end(&mut self, Wanted { row, column, .. }: Wanted, giver: Giver, from: Option<Origin>) {
        self.givers.insert((row, column), giver);
        match from {
            Some(from) => self.holes.push(Hole { row, column, from, own: Own::Null }),
            None => self.missing.push((row, column)),
        }
    }

    /// The table's row may have a later value than the one that is known.
    fn contest(&mut self, Wanted { row, column, .. }: Wanted, key: Key) {
        let from = Origin::Row(key);
        self.holes.push(Hole { row, column, from, own: Own::UnlessLater });
    }
}

impl Buffer {
    /// Looks for values that were left out along the chains, round by round; what no change of the batch has is a hole, or
    /// nowhere when the table is known to lack the row. `left_out` has row, column and change of each.
    pub(super) fn resolve(
        &self,
        decoder: &mut Decoder,
        schema: &Arc<TableSchema>,
        rows: RecordBatch,
        left_out: impl Iterator<Item = (usize, usize, u32)>,
        absent: &HashMap<Origin, usize>,
    ) -> Result<Resolved> {
        let (holes, missing, givers) = (Vec::new(), Vec::new(), Givers::new());
        let mut resolved = Resolved { rows, holes, missing, givers };
        let wanted = |(row, column, of)| Wanted { row, of, column, at: of };
        let mut wanted: Vec<Wanted> = left_out.map(wanted).collect();
        while !wanted.is_empty() {
            let asked = wanted.drain(..);
            let asked: Vec<(Wanted, u32)> =
                asked.filter_map(|value| self.look_before(value, &mut resolved, absent)).collect();
            let mut sources: Vec<u32> = asked.iter().map(|(_, at)| *at).collect();
            sources.sort_unstable();
            sources.dedup();
            let columns = decoder.supplies(&self.rows(&sources)?, schema)?;
            let place = |at: u32| sources.binary_search(&at).unwrap_or(usize::MAX);
            let unusable = |row: usize, column: usize| {
                columns.unavailable.contains(&(row, column))
                    || columns.rejects.iter().any(|(rejected, _)| *rejected == row)
            };
            let mut found = Vec::new();
            for (value, at) in asked {
                if unusable(place(at), value.column) {
                    wanted.push(Wanted { at, ..value });
                    continue;
                }
                found.push((value.row, value.column, place(at)));
                resolved.givers.insert((value.row, value.column), Giver::Change(at));
                if let Some(key) = self.contested(value.of, at, absent) {
                    resolved.contest(value, key);
                }
            }
            resolved.rows = patch(&resolved.rows, &columns.rows, &found)?;
        }
        let Resolved { holes, missing, givers, .. } = &mut resolved;
        for hole in holes.iter_mut().filter(|hole| hole.own == Own::Null) {
            if let Some(Giver::Change(_)) = givers.get(&(hole.row, hole.column)) {
                hole.own = Own::IfAbsent;
            }
        }
        // Those found first come first among the rows of the table, and of a value's holes the last one counts.
        holes.reverse();
        if !holes.is_empty() {
            let open: HashSet<_> = holes.iter().map(|hole| (hole.row, hole.column)).collect();
            missing.retain(|value| !open.contains(value));
        }
        Ok(resolved)
    }

    /// The change of the batch that comes right before the one in which a value was looked for last; where there is none
    /// the value is done with.
    fn look_before(
        &self,
        value: Wanted,
        resolved: &mut Resolved,
        absent: &HashMap<Origin, usize>,
    ) -> Option<(Wanted, u32)> {
        let Wanted { row, column, of, at } = value;
        let in_table = |from: &Origin| !absent.contains_key(from);
        let (supplier, again) = self.supplier(at);
        let again = again.map(Origin::Row).filter(in_table);
        let again = again.map(|from| Hole { row, column, from, own: Own::Null });
        resolved.holes.extend(again);
        let from = match supplier {
            Supplier::Change(at) => return Some((value, at)),
            Supplier::Table(key) => Some(Origin::Row(key)),
            Supplier::Departed(of) => Some(Origin::Departed(of)),
            Supplier::None => None,
        };
        match self.deleted_before(at).filter(|_| supplier == Supplier::None) {
            None => resolved.end(value, Giver::Unknown, from.filter(in_table)),
            Some(delete) => {
                resolved.end(value, Giver::Delete(delete), None);
                if let Some(key) = self.contested(of, delete, absent) {
                    resolved.contest(value, key);
                }
            }
        }
        None
    }

    /// The key of the change `of`, whose row in the table may have come between it and the change `giver` that gave it a
    /// value, from another partition.
    fn contested(&self, of: u32, giver: u32, absent: &HashMap<Origin, usize>) -> Option<Key> {
        let key = |at| self.change(at).map(|buffered| buffered.change.key);
        let own = key(of).filter(|own| key(giver) == Some(*own))?;
        let is_contested = self.source_position(of).is_some() && !self.truncates();
        (is_contested && !absent.contains_key(&Origin::Row(own))).then_some(own)
    }

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

/// `rows` with single values replaced: each of `found` is (row, column, row of `values` to take it from).
pub(super) fn patch(
    rows: &RecordBatch,
    values: &RecordBatch,
    found: &[(usize, usize, usize)],
) -> Result<RecordBatch> {
    let failed =
        |e| Error::internal("cannot fill in values that an update did not carry").because(e);
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for (index, column) in columns.iter_mut().enumerate() {
        let replaced: Vec<_> = found.iter().filter(|(_, at, _)| *at == index).collect();
        if replaced.is_empty() {
            continue;
        }
        let mut picks: Vec<(usize, usize)> = (0..column.len()).map(|row| (0, row)).collect();
        for (row, _, from) in replaced {
            if let Some(pick) = picks.get_mut(*row) {
                *pick = (1, *from);
            }
        }
        *column = interleave(&[column.as_ref(), values.column(index).as_ref()], &picks)
            .map_err(failed)?;
    }
    RecordBatch::try_new(rows.schema(), columns).map_err(failed)
}
