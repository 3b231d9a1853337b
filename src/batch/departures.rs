//! Rows that leave their key in a batch that does not have the create of the new one.
//!
//! The row right before such a delete may be one that the batch itself makes: it is written then with the rows that
//! stay, and deleted in the same commit.

use super::Buffer;
use super::assemble::Stale;
use super::supply::Supplier;
use crate::change::{Departing, Departure, KeyChange};

/// The batch's departures, while its rows are decoded.
pub(super) struct Departures<'a> {
    rows: Vec<(KeyChange, Supplier)>,
    /// Keys that the table has later changes of: what is there is not what their deletes took away.
    stale: &'a Stale,
}

impl<'a> Departures<'a> {
    pub(super) fn of(buffer: &Buffer, stale: &'a Stale) -> Self {
        let mut departures = Self { rows: Vec::new(), stale };
        let rows = buffer.pairs.departures().into_iter();
        departures.rows = rows.map(|(at, of)| (of, departures.replaced(buffer, at))).collect();
        departures
    }

    /// The row that the delete or change at `at` replaces.
    fn replaced(&self, buffer: &Buffer, at: u32) -> Supplier {
        match buffer.replaced(at) {
            Supplier::Table(key) if self.stale.contains_key(&key) => Supplier::None,
            row => row,
        }
    }

    /// The changes whose rows are written for them, each once.
    pub(super) fn written(&self) -> Vec<u32> {
        let change = |(_, row): &_| if let Supplier::Change(at) = row { Some(*at) } else { None };
        let mut changes: Vec<u32> = self.rows.iter().filter_map(change).collect();
        changes.sort_unstable();
        changes.dedup();
        changes
    }

    /// The change at `at` cannot be decoded: the row is the one before it.
    pub(super) fn fall_back(&mut self, buffer: &Buffer, at: u32) {
        self.replace(at, self.replaced(buffer, at));
    }

    /// The row of the change at `at` lacks values that are nowhere.
    pub(super) fn give_up(&mut self, at: u32) {
        self.replace(at, Supplier::None);
    }

    fn replace(&mut self, at: u32, by: Supplier) {
        for (_, row) in &mut self.rows {
            if *row == Supplier::Change(at) {
                *row = by;
            }
        }
    }

    /// As the batch has them: the rows of [`Self::written`] start at `first`.
    pub(super) fn placed(&self, first: usize) -> Vec<Departure> {
        let written = self.written();
        let placed = |(key_change, row): &(KeyChange, Supplier)| Departure {
            key_change: *key_change,
            row: match row {
                Supplier::Table(key) => Departing::Row(*key),
                Supplier::Change(at) => written
                    .binary_search(at)
                    .map_or(Departing::None, |place| Departing::Written(first + place)),
                Supplier::Departed(_) | Supplier::None => Departing::None,
            },
        };
        self.rows.iter().map(placed).collect()
    }
}
