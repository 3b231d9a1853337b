//! The primary-key index: which row of which data file holds a key.
//!
//! It is exact (no false hits: a wrong hit would delete a stranger's row) and lives in memory within a budget. It is a
//! view of the table and can be rebuilt from it at any time.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytesize::ByteSize;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::error::{Error, Result};
use crate::key::Key;

/// Bytes of an entry; the hash table adds one control byte to each.
const SLOT: usize = size_of::<(Key, RowId)>() + 1;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowId {
    /// The number of the data file in memory.
    pub file: u32,
    /// The position of the row in the file, counted from 0.
    pub row: u32,
}

/// Bytes that the indexes of all tables may take together.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: usize,
    taken: Arc<AtomicUsize>,
}

impl Budget {
    /// A budget of `limit` bytes, shared by its clones.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// Bytes that nobody has taken.
    fn left(&self) -> usize {
        self.limit.saturating_sub(self.taken.load(Ordering::Relaxed))
    }
}

/// Where the present row of every key is.
#[derive(Debug)]
pub struct Index {
    slots: HashMap<Key, RowId, RandomState>,
    budget: Budget,
    /// Bytes taken from the budget.
    held: usize,
}

impl Drop for Index {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl Index {
    /// An empty index that may take what is left of `budget`.
    pub fn new(budget: Budget) -> Self {
        Self { slots: HashMap::with_hasher(RandomState::default()), budget, held: 0 }
    }

    /// Where the row of `key` is.
    pub fn get(&self, key: &Key) -> Option<RowId> {
        self.slots.get(key).copied()
    }

    /// Where the rows of `keys` are, in their order. In an index larger than the processor's caches every lookup waits
    /// for memory; with nothing else between them the processor waits for many at once.
    pub fn get_all<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Vec<Option<RowId>> {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// Tells whether there is room for `more` keys: a refused error when they would pass the budget.
    pub fn check_room(&self, more: usize) -> Result<()> {
        let wanted = bytes_for(self.slots.len().saturating_add(more));
        let may_take = self.held.saturating_add(self.budget.left());
        if wanted > may_take && wanted > self.bytes() {
            return Err(Error::refused(format!(
                "the primary-key index of {} keys and {more} more needs {}; of the {} for all indexes, {} are left for it",
                self.slots.len(),
                size(wanted),
                size(self.budget.limit),
                size(may_take)
            ))
            .hint("raise the option memory, or spread the topics over more instances"));
        }
        Ok(())
    }

    /// Makes room for `more` keys; a refused error when that would pass the budget.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        self.check_room(more)?;
        let needed = self.slots.len().saturating_add(more);
        let full = needed > self.slots.capacity();
        let could_double = self.bytes() <= self.budget.left();
        if full && !could_double && bytes_for(needed) <= self.bytes() {
            // Slots of removed keys are in the way, and the hash table would double to get rid of them.
            let mut slots = HashMap::with_capacity_and_hasher(needed, RandomState::default());
            slots.extend(self.slots.drain());
            self.slots = slots;
        } else {
            self.slots.reserve(more);
        }
        self.budget.taken.fetch_add(self.bytes(), Ordering::Relaxed);
        self.budget.taken.fetch_sub(self.held, Ordering::Relaxed);
        self.held = self.bytes();
        Ok(())
    }

    /// Points `key` to another row; the row it had, if any. Room for new keys has to be reserved before.
    pub fn upsert(&mut self, key: Key, to: RowId) -> Option<RowId> {
        // Not `insert`: it makes room before it looks whether the key is there.
        match self.slots.entry(key) {
            Entry::Vacant(slot) => {
                slot.insert(to);
                None
            }
            Entry::Occupied(mut slot) => Some(slot.insert(to)),
        }
    }

    /// Adds a key that is not there yet; the row that it has already otherwise.
    pub fn insert_new(&mut self, key: Key, to: RowId) -> Result<(), RowId> {
        match self.slots.entry(key) {
            Entry::Vacant(slot) => {
                slot.insert(to);
                Ok(())
            }
            Entry::Occupied(slot) => Err(*slot.get()),
        }
    }

    /// Forgets `key`; the row it had, if any.
    pub fn remove(&mut self, key: &Key) -> Option<RowId> {
        self.slots.remove(key)
    }

    /// Forgets every key whose row does not satisfy `keep`. Costs a walk over the whole index.
    pub fn retain(&mut self, keep: impl Fn(RowId) -> bool) {
        self.slots.retain(|_, row| keep(*row));
    }

    /// The keys whose row satisfies `wanted`. Costs a walk over the whole index.
    pub fn keys(&self, wanted: impl Fn(RowId) -> bool) -> Vec<Key> {
        self.slots.iter().filter(|(_, row)| wanted(**row)).map(|(key, _)| *key).collect()
    }

    /// Keys in the index.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True without any key.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes that the index takes.
    pub fn bytes(&self) -> usize {
        self.slots.allocation_size()
    }
}

/// Bytes of an index of `keys` keys: a hash table has a power of two of slots and fills seven eighths of them.
fn bytes_for(keys: usize) -> usize {
    if keys == 0 {
        return 0;
    }
    (keys.saturating_mul(8) / 7)
        .checked_next_power_of_two()
        .map_or(usize::MAX, |n| n.saturating_mul(SLOT))
}

fn size(bytes: usize) -> ByteSize {
    ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

    use super::*;
    use crate::error::Kind;
    use crate::key::KeyBuilder;
    use crate::schema::ColumnType;

    fn key(n: i64) -> Key {
        let mut builder = KeyBuilder::new([&ColumnType::Int64]);
        builder.push_i64(n);
        builder.finish()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Upsert(i64, u32),
        InsertNew(i64, u32),
        Remove(i64),
        DropOdd,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..40_i64, any::<u32>()).prop_map(|(n, row)| Step::Upsert(n, row)),
            4 => (0..40_i64, any::<u32>()).prop_map(|(n, row)| Step::InsertNew(n, row)),
            4 => (0..40_i64).prop_map(Step::Remove),
            1 => prop::strategy::Just(Step::DropOdd),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_map(steps in prop::collection::vec(step(), 0..200)) {
            let mut index = Index::new(Budget::new(1 << 20));
            let mut model: BTreeMap<i64, u32> = BTreeMap::new();
            let at = |row| RowId { file: 3, row };
            for step in steps {
                match step {
                    Step::Upsert(n, row) => {
                        index.reserve(1).unwrap();
                        assert_eq!(index.upsert(key(n), at(row)), model.insert(n, row).map(at));
                    }
                    Step::InsertNew(n, row) => {
                        index.reserve(1).unwrap();
                        let known = model.get(&n).copied();
                        model.entry(n).or_insert(row);
                        assert_eq!(index.insert_new(key(n), at(row)), known.map_or(Ok(()), |row| Err(at(row))));
                    }
                    Step::Remove(n) => {
                        assert_eq!(index.remove(&key(n)), model.remove(&n).map(at));
                    }
                    Step::DropOdd => {
                        index.retain(|id| id.row % 2 == 0);
                        model.retain(|_, row| *row % 2 == 0);
                    }
                }
                assert_eq!(index.len(), model.len());
                for n in 0..40 {
                    assert_eq!(index.get(&key(n)), model.get(&n).copied().map(at));
                }
            }
        }
    }

    #[test]
    fn the_budget_holds_and_the_estimate_is_the_truth() {
        assert_eq!(SLOT, 25);
        let mut index = Index::new(Budget::new(1 << 20));
        let mut n = 0;
        let error = loop {
            if let Err(error) = index.reserve(1) {
                break error;
            }
            index.upsert(key(n), RowId { file: 0, row: 0 });
            n += 1;
            assert!(index.bytes() <= 1 << 20);
        };
        assert_eq!(error.kind(), Kind::Refused);
        assert_eq!(n, 28_672, "7/8 of the slots of the largest power of two that fits");
        assert!(index.reserve(0).is_ok());
        index.remove(&key(0));
        assert!(index.reserve(1).is_ok(), "what is freed can be used");
        for n in 1..300 {
            index.remove(&key(n));
            index.reserve(1).unwrap();
            for _ in 0..2 {
                index.upsert(key(-n), RowId { file: 0, row: 0 });
            }
            assert!(index.bytes() <= 1 << 20, "removed keys do not make it grow");
        }
        assert!(index.bytes().abs_diff(bytes_for(index.len())) < 256);
    }

    #[test]
    fn tables_share_the_budget() {
        let budget = Budget::new(1 << 20);
        let (mut one, mut two) = (Index::new(budget.clone()), Index::new(budget.clone()));
        one.reserve(20_000).unwrap();
        assert_eq!(two.reserve(20_000).unwrap_err().kind(), Kind::Refused);
        two.reserve(100).unwrap();
        assert_eq!(budget.limit - budget.left(), one.bytes() + two.bytes());
        drop(one);
        assert_eq!(budget.limit - budget.left(), two.bytes());
        two.reserve(20_000).unwrap();
    }
}
