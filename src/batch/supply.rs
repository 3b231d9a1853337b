//! Where the values come from that a change does not carry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave;

use super::givers::{Giver, Givers};
use super::{Buffer, Buffered};
use crate::change::{Hole, KeyChange, Meant, Operation, Origin, Own};
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
    /// The create of the last key change that was crossed.
    via: Option<u32>,
}

/// Rows with the values that their changes left out, as far as the batch has them.
pub(super) struct Resolved {
    pub(super) rows: RecordBatch,
    pub(super) holes: Vec<Hole>,
    /// Row and column of values that are nowhere.
    pub(super) missing: Vec<(usize, usize)>,
    /// What the batch knows of who gave each value that was left out, by row and column.
    pub(super) givers: Givers,
    /// As the batch has them.
    pub(super) meant: HashMap<(usize, Key), Meant>,
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
        let mut resolved = Resolved { rows, holes, missing, givers, meant: HashMap::new() };
        let wanted = |(row, column, of)| Wanted { row, of, column, at: of, via: None };
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
                self.contest(value, at, &mut resolved, absent);
            }
            resolved.rows = patch(&resolved.rows, &columns.rows, &found)?;
        }
        let Resolved { holes, missing, givers, .. } = &mut resolved;
        let is_traced = !self.source_positions.is_empty();
        let known = if is_traced { Own::UnlessLater } else { Own::IfAbsent };
        for hole in holes.iter_mut().filter(|hole| !hole.own.is_value()) {
            if let Some(Giver::Change(_)) = givers.get(&(hole.row, hole.column)) {
                hole.own = known;
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
        let Wanted { row, column, of, at, .. } = value;
        let in_table = |from: &Origin| !absent.contains_key(from);
        let (supplier, again) = self.supplier(at);
        let crossed = self.crossed(at, supplier);
        if let Some((crossed, key)) = crossed.and_then(|at| self.source_position(at)).zip(again) {
            resolved.meant.insert((row, key), Meant::Since(crossed.clone()));
        }
        let again = again.map(Origin::Row).filter(in_table);
        let is_traced = self.source_position(of).is_some();
        let own = if is_traced { Own::NullUnlessLater } else { Own::Null };
        let again = again.map(|from| Hole { row, column, from, own });
        resolved.holes.extend(again);
        let value = Wanted { via: crossed.or(value.via), ..value };
        let from = match supplier {
            Supplier::Change(at) => return Some((value, at)),
            Supplier::Table(key) => {
                self.mean(value, key, resolved);
                Some(Origin::Row(key))
            }
            Supplier::Departed(of) => Some(Origin::Departed(of)),
            Supplier::None => None,
        };
        match self.deleted_before(at).filter(|_| supplier == Supplier::None) {
            None => resolved.end(value, Giver::Unknown, from.filter(in_table)),
            Some(delete) => {
                resolved.end(value, Giver::Delete(delete), None);
                self.contest(value, delete, resolved, absent);
            }
        }
        None
    }

    /// The create whose key change lies between the change at `at` and its supplier.
    fn crossed(&self, at: u32, supplier: Supplier) -> Option<u32> {
        let is_previous =
            matches!(supplier, Supplier::Change(previous) if self.before(at) == Some(previous));
        let create = if self.is_create(at) { Some(at) } else { self.brought_late(at) };
        create.filter(|_| !is_previous)
    }

    /// Under `key` the table may have another row than the one that a value is looked for in.
    fn mean(&self, Wanted { row, via, .. }: Wanted, key: Key, resolved: &mut Resolved) {
        if let Some(crossed) = via.and_then(|at| self.source_position(at)) {
            let meant = resolved.meant.entry((row, key));
            meant.or_insert_with(|| Meant::Before(crossed.clone()));
        }
    }

    /// The row had a key when the change `giver` gave it a value, under which the table may have a later one of the row, from
    /// another partition.
    fn contest(
        &self,
        value: Wanted,
        giver: u32,
        resolved: &mut Resolved,
        absent: &HashMap<Origin, usize>,
    ) {
        let is_contested = self.source_position(value.of).is_some() && !self.truncates();
        let key = self.key_of(giver).filter(|_| is_contested);
        let Some(key) = key.filter(|key| !absent.contains_key(&Origin::Row(*key))) else { return };
        self.mean(value, key, resolved);
        let Wanted { row, column, .. } = value;
        let own = Own::NullUnlessLater;
        resolved.holes.push(Hole { row, column, from: Origin::Row(key), own });
    }

    /// Who supplies what the change at `index` does not carry: the row right before it.
    ///
    /// For the create of a key change that is the row under the old key, right before the delete that belongs to it.
    /// A row that the table has under the second answer, the new key, comes first: then the connector has written the
    /// key change again, and that row has its values. When its delete is not here, the table may note where the row lay.
    pub(super) fn supplier(&self, index: u32) -> (Supplier, Option<Key>) {
        let Some(key) = self.key_of(index) else { return (Supplier::None, None) };
        let own = match self.row_before(index, key) {
            Supplier::Change(before) if self.is_of_another_row(before, index) => Supplier::None,
            Supplier::Change(before) => return (Supplier::Change(before), None),
            other => other,
        };
        // Below what comes late is what the row had when it came to its key.
        self.supplier_of_move(self.brought_late(index).unwrap_or(index), own)
    }

    /// The same for a change that has no change before it under its key; `own`: what else is there.
    fn supplier_of_move(&self, index: u32, own: Supplier) -> (Supplier, Option<Key>) {
        let Some(Buffered { change, .. }) = self.change(index) else { return (own, None) };
        let Some(moved) = change.moved.filter(|_| self.is_create(index)) else {
            return (own, None);
        };
        let again = self.key_of(index).filter(|_| own != Supplier::None);
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
        self.key_of(index).map_or(Supplier::None, |key| self.row_before(index, key))
    }

    /// True when the change `before` is of a row that was deleted before the create at `index` brought another one to its
    /// key, and not one since, which comes before it where a connector wrote the key change again.
    fn is_of_another_row(&self, before: u32, index: u32) -> bool {
        let positions = self.source_position(before).zip(self.source_position(index));
        let is_older = positions.is_some_and(|(before, own)| before.lies_before(own));
        is_older && self.is_arrival(index) && !self.is_late(before)
    }

    /// True when the change `before` is of a row that came to its key after the key change whose delete, written again, is at
    /// `index`.
    fn is_after_move(&self, before: u32, index: u32) -> bool {
        let is_move = |buffered: &Buffered| {
            buffered.change.operation == Operation::Delete && buffered.change.moved.is_some()
        };
        let positions = self.source_position(index).zip(self.source_position(before));
        self.change(index).is_some_and(is_move)
            && positions.is_some_and(|(own, before)| own.precedes(before))
    }

    /// The change that comes right before the one at `index`.
    pub(super) fn before(&self, index: u32) -> Option<u32> {
        let mut previous = self.change(index)?.previous;
        while let Some(at) = previous.filter(|at| self.is_again(index, *at)) {
            previous = self.change(at)?.previous;
        }
        previous
    }

    /// True when the changes are deletes of one change of a key, or its tombstone, that a connector wrote to two partitions.
    fn is_again(&self, index: u32, other: u32) -> bool {
        let delete = |at| {
            let change = &self.change(at)?.change;
            let is_delete = change.operation == Operation::Delete && change.row.is_none();
            self.source_position(at).filter(|_| is_delete).map(|position| (change, position))
        };
        match (delete(index), delete(other)) {
            (Some((change, own)), Some((_, other))) => {
                change.moved.is_some() && own.place.is_some() && own.place == other.place
            }
            _ => false,
        }
    }

    /// The row that `key` has right before its change at `index`.
    fn row_before(&self, index: u32, key: Key) -> Supplier {
        match self.before(index).and_then(|at| Some((at, self.change(at)?))) {
            None if self.truncates() => Supplier::None,
            None => Supplier::Table(key),
            Some((at, found)) if found.change.operation == Operation::Delete => {
                let positions = self.source_position(index).zip(self.source_position(at));
                // Written again after it was deleted: what the row had then is its own.
                let is_again = positions.is_some_and(|(own, delete)| own.lies_before(delete));
                if is_again { Supplier::Table(key) } else { Supplier::None }
            }
            Some((at, _)) if self.is_after_move(at, index) => Supplier::None,
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
