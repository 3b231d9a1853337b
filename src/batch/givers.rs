//! Who gave the values that changes leave out, told by rows that are traced ([`crate::row_source`]), and rows that get
//! values of changes which the table has later ones of.

use std::collections::{HashMap, HashSet};

use super::Buffer;
use super::supply::Resolved;
use crate::change::{Hole, Operation, Origin, Own};
use crate::error::{Error, Result};
use crate::row_source::{self, RowSource};
use crate::schema::{SOURCE_COLUMN, TableSchema};
use crate::source_position::SourcePosition;

/// Who gave a value, as far as the batch knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Giver {
    /// This change.
    Change(u32),
    /// There is none: this change deleted the row before.
    Delete(u32),
    /// Nobody in the batch.
    Unknown,
}

/// Who gave the values that were left out, by row and column.
pub(super) type Givers = HashMap<(usize, usize), Giver>;

/// A row of a batch that only gets values which the table's row was not given so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amend<'a> {
    /// Its place among the rows.
    pub(super) row: usize,
    /// The last change of its key in the batch.
    pub(super) at: u32,
    /// What the table's row tells.
    pub(super) known: &'a RowSource,
}

impl Buffer {
    /// The delete that comes right before the change at `index`, or before the delete of its key change.
    pub(super) fn deleted_before(&self, index: u32) -> Option<u32> {
        let moved = self.change(index)?.change.moved;
        let index = if moved.is_some() { self.pairs.delete_of(index)? } else { index };
        let previous = self.before(index)?;
        let is_delete = self.change(previous)?.change.operation == Operation::Delete;
        is_delete.then_some(previous)
    }

    /// Lets rows tell who gave their values, those of the changes `upserts`; of rows that are amended it leaves what the
    /// table's rows lack, all else is theirs. Returns those that amend nothing.
    pub(super) fn trace_rows(
        &self,
        resolved: &mut Resolved,
        schema: &TableSchema,
        upserts: &[u32],
        amends: &[Amend<'_>],
    ) -> Result<Vec<u32>> {
        let mut told: HashMap<usize, RowSource> = HashMap::new();
        for ((row, column), giver) in &resolved.givers {
            let last = upserts.get(*row).and_then(|at| self.source_position(*at));
            let (Some(last), Some(column)) = (last, schema.columns().get(*column)) else {
                continue;
            };
            let source = told.entry(*row).or_insert_with(|| RowSource::from(last.clone()));
            source.left_out.insert(column.id, self.position_of(*giver).cloned());
        }
        let rows: HashSet<usize> = amends.iter().map(|amend| amend.row).collect();
        let mut found: HashMap<usize, Vec<Hole>> = HashMap::new();
        for hole in resolved.holes.extract_if(.., |hole| rows.contains(&hole.row)) {
            found.entry(hole.row).or_default().push(hole);
        }
        resolved.missing.retain(|(row, _)| !rows.contains(row));
        let mut idle = Vec::new();
        for amend in amends {
            let found = found.remove(&amend.row).unwrap_or_default();
            let (source, holes) = self.amend(amend, &resolved.givers, &found, schema)?;
            let own = self.key_of(amend.at).map(Origin::Row);
            if source == *amend.known && holes.iter().all(|hole| Some(hole.from) == own) {
                idle.push(amend.at);
            }
            resolved.holes.extend(holes);
            told.insert(amend.row, source);
        }
        if !told.is_empty() {
            let mut rows = row_source::read(&resolved.rows);
            for (row, source) in told {
                if let Some(row) = rows.get_mut(row) {
                    *row = source;
                }
            }
            resolved.rows = row_source::write(&resolved.rows, &rows)?;
        }
        Ok(idle)
    }

    /// What the row tells with the values that it gets, and the holes that the others become. `found` are those of what the
    /// batch itself has of the row.
    fn amend(
        &self,
        Amend { row, at, known }: &Amend<'_>,
        givers: &Givers,
        found: &[Hole],
        schema: &TableSchema,
    ) -> Result<(RowSource, Vec<Hole>)> {
        let lost = || Error::internal("a row that is amended has no change");
        let key = self.key_of(*at).ok_or_else(lost)?;
        let came = self.came(key).and_then(|create| self.source_position(create));
        let mut source = RowSource::clone(known);
        let hole = |column, from, own| Hole { row: *row, column, from, own };
        let mut holes = Vec::new();
        for (index, column) in schema.columns().iter().enumerate() {
            let giver = givers.get(&(*row, index)).copied().unwrap_or(Giver::Change(*at));
            let gives = match giver {
                Giver::Change(_) => self.position_of(giver),
                Giver::Delete(_) | Giver::Unknown => None,
            };
            let Some(before) = known.left_out.get(&column.id) else {
                if column.name != SOURCE_COLUMN {
                    holes.push(hole(index, Origin::Row(key), Own::Null));
                }
                continue;
            };
            // What the key had before the row came to it was another row's, or is the row's own already.
            let of_another =
                |before: &SourcePosition| came.is_some_and(|came| before.precedes(came));
            let is_before = before.as_ref().filter(|before| !of_another(before));
            let own = match gives.filter(|given| is_before.is_none_or(|at| !given.is_before(at))) {
                Some(given) => {
                    source.left_out.insert(column.id, Some(given.clone()));
                    Own::UnlessLater
                }
                None => {
                    holes.push(hole(index, Origin::Row(key), Own::Null));
                    if is_before.is_some() { Own::UnlessLater } else { Own::Null }
                }
            };
            let elsewhere = found.iter();
            let elsewhere =
                elsewhere.filter(|found| found.column == index && found.from != Origin::Row(key));
            holes.extend(elsewhere.map(|found| hole(index, found.from, own)));
        }
        Ok((source, holes))
    }

    fn position_of(&self, giver: Giver) -> Option<&SourcePosition> {
        match giver {
            Giver::Change(at) | Giver::Delete(at) => self.source_position(at),
            Giver::Unknown => None,
        }
    }

    /// Where the change at `index` comes from; none when that is not asked for.
    pub(super) fn source_position(&self, index: u32) -> Option<&SourcePosition> {
        self.source_positions.get(&self.change(index)?.record)
    }
}
