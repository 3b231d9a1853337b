//! Changes that come late: of rows that went on to another key, as the table notes ([`crate::change::Moves`]). What they give
//! belongs to the row under its new key, below what is here of that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Buffer;
use super::assemble::Given;
use super::order::DEEPEST;
use crate::change::{Move, Moves, Operation, Whereabouts};
use crate::decode::Change;
use crate::key::Key;
use crate::source_position::SourcePosition;

/// What became of the row that a late change was made of.
#[derive(Debug, Clone)]
pub(super) struct Late {
    /// Its key now.
    key: Key,
    /// The key change that brought it there.
    moved: Move,
}

impl Buffer {
    /// The same with late changes put where their rows are; none when it has none.
    #[must_use]
    pub fn passed_on(&self, moves: &Moves, given: &Given) -> Option<Self> {
        if moves.is_empty() || self.truncates() {
            return None;
        }
        let (mut late, mut gone) = (Vec::new(), BTreeSet::new());
        for (index, buffered) in (0_u32..).zip(&self.changes) {
            let is_row = buffered.change.operation != Operation::Delete;
            let Some(at) = self.source_position(index).filter(|_| is_row) else { continue };
            match moves.follow(&buffered.change.key, at) {
                Whereabouts::Stayed => {}
                Whereabouts::Moved(key, moved) => {
                    late.push((index, Late { key, moved: moved.clone() }));
                }
                Whereabouts::Gone => drop(gone.insert(index)),
            }
        }
        // While the row that came to its key is not in the table, what was there before it still counts.
        let is_over = |index: &u32| {
            let key = self.change(*index).map(|buffered| buffered.change.key);
            let last = key.and_then(|key| self.last.get(&key));
            key.is_some_and(|key| given.stale.contains_key(&key))
                || last.is_some_and(|last| !gone.contains(last))
        };
        let over: Vec<u32> = gone.iter().copied().filter(is_over).collect();
        if late.is_empty() && over.is_empty() {
            return None;
        }
        let mut passed_on = self.clone();
        passed_on.take_out(&late.iter().map(|(index, _)| *index).chain(over).collect());
        let mut rows: BTreeMap<Key, Vec<(u32, Late)>> = BTreeMap::new();
        for (index, late) in late {
            rows.entry(late.key).or_default().push((index, late));
        }
        let departing: HashSet<u32> = self.pairs.departures().iter().map(|(at, _)| *at).collect();
        for (key, late) in rows {
            passed_on.put_in(key, late, &departing, given);
        }
        Some(passed_on)
    }

    /// Takes changes out of their keys' chains.
    fn take_out(&mut self, changes: &BTreeSet<u32>) {
        let keys: BTreeSet<Key> = changes.iter().filter_map(|at| self.key_of(*at)).collect();
        for key in keys {
            let chain: Vec<u32> = self.chain(key).filter(|at| !changes.contains(at)).collect();
            self.link(key, &chain);
        }
    }

    /// Puts the late changes of a row below what its key has since the row is there, in their order; what the key had
    /// before was of another row. Where the row goes on without its new key being here, they are stranded.
    fn put_in(
        &mut self,
        key: Key,
        late: Vec<(u32, Late)>,
        departing: &HashSet<u32>,
        given: &Given,
    ) {
        let mut chain: Vec<u32> = self.chain(key).collect();
        let since = late.first().map(|(_, late)| &late.moved.at);
        let is_older = |at: &u32| {
            since.zip(self.source_position(*at)).is_some_and(|(since, at)| at.precedes(since))
        };
        let on_time = chain.iter().position(is_older).unwrap_or(chain.len());
        // Until the row has come, what the key had before still counts.
        let is_there = given.asked.get(&key).is_none_or(|row| {
            let row = row.as_ref().zip(since);
            row.is_some_and(|(row, since)| !row.last.precedes(since))
        });
        if on_time == 0 && !is_there {
            self.stranded += if given.coming.contains(&key) { late.len() } else { 0 };
            return;
        }
        chain.truncate(on_time);
        if chain.last().is_some_and(|lowest| departing.contains(lowest)) {
            self.stranded += late.len();
            return;
        }
        // The earliest first.
        let mut order: Vec<u32> = Vec::with_capacity(late.len());
        for (index, _) in &late {
            let is_earlier = |later: &&u32| {
                let own = self.source_position(*index).zip(self.source_position(**later));
                own.is_some_and(|(own, later)| own.precedes(later))
            };
            let above = order.iter().rev().take(DEEPEST).take_while(is_earlier).count();
            order.insert(order.len() - above, *index);
        }
        chain.extend(order.iter().rev());
        self.link(key, &chain);
        self.late.extend(late);
    }

    /// The keys of `rows` whose first change here is what began them, an insert or the create of a key change, and that.
    pub(super) fn begun(&self, rows: &[u32]) -> HashMap<Key, SourcePosition> {
        let begin = |key: Key| {
            let first = self.chain(key).last()?;
            let operation = self.change(first)?.change.operation;
            let begins = operation == Operation::Create && !self.is_late(first);
            Some((key, self.source_position(first).filter(|_| begins)?.clone()))
        };
        rows.iter().filter_map(|at| begin(self.key_of(*at)?)).collect()
    }

    /// The changes of a key, the last one first.
    fn chain(&self, key: Key) -> impl Iterator<Item = u32> {
        let first = self.last.get(&key).copied();
        std::iter::successors(first, |at| self.change(*at)?.previous)
    }

    /// Makes `chain` the changes of a key.
    fn link(&mut self, key: Key, chain: &[u32]) {
        match chain.first() {
            Some(last) => self.last.insert(key, *last),
            None => self.last.remove(&key),
        };
        for (place, at) in chain.iter().enumerate() {
            if let Some(buffered) = self.changes.get_mut(*at as usize) {
                buffered.previous = chain.get(place + 1).copied();
            }
        }
    }

    /// The key of the row that the change at `index` belongs to.
    pub(super) fn key_of(&self, index: u32) -> Option<Key> {
        match self.late.get(&index) {
            Some(late) => Some(late.key),
            None => self.change(index).map(|buffered| buffered.change.key),
        }
    }

    /// The keys of rows of which nothing is here but what comes late, and how the rows got there.
    pub(super) fn late_keys(&self, wanted: impl Fn(&Key) -> bool) -> Vec<(Key, Move)> {
        let mut keys = BTreeMap::new();
        for (index, Late { key, moved }) in &self.late {
            if self.last.get(key) == Some(index) && wanted(key) {
                keys.insert(*key, moved.clone());
            }
        }
        keys.into_iter().collect()
    }

    /// The last create here that brought a row to `key`.
    pub(super) fn came(&self, key: Key) -> Option<u32> {
        self.chain(key).find(|at| self.is_arrival(*at))
    }

    /// True for a change that comes late.
    pub(super) fn is_late(&self, index: u32) -> bool {
        self.late.contains_key(&index)
    }

    /// True for the create of a key change.
    pub(super) fn is_create(&self, index: u32) -> bool {
        let is = |c: &Change| c.operation != Operation::Delete && c.moved.is_some();
        self.change(index).is_some_and(|buffered| is(&buffered.change))
    }

    /// True for the create of a key change that brings a row to where it is now.
    pub(super) fn is_arrival(&self, index: u32) -> bool {
        self.is_create(index) && !self.is_late(index)
    }

    /// The create under which the change at `index` comes late, if it is here: the last one of its key that is not late.
    pub(super) fn brought_late(&self, index: u32) -> Option<u32> {
        let key = self.key_of(index).filter(|_| self.is_late(index) && !self.is_create(index))?;
        let on_time = self.chain(key).take_while(|at| !self.is_late(*at));
        on_time.last().filter(|lowest| self.is_arrival(*lowest))
    }
}
