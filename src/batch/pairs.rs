//! Key changes: which delete belongs to which create, and where a batch may end without tearing the two apart.
//!
//! A create may leave out values that only the row under its old key has, and its delete takes that row away. In one
//! batch the value is the row's from right before the delete, whichever of the two came first. In two it is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::change::Operation;
use crate::decode::Change;
use crate::key::Key;
use crate::position::Position;

/// How long the half of a key change is waited for when every partition was read to its end since it came: the other half
/// is written a moment before or after, or is another instance's to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it keeps its partition out of batches that are due while partitions are behind, as after a time without
/// reading.
const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// Whether halves of key changes are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: what is buffered has to go.
    No,
    /// For a few seconds once all partitions were read to their end, which they last were at the given time; at most
    /// half a minute after the batch was due.
    Bounded(Option<Instant>),
    /// They are left out whatever happens: the next owner reads them again.
    Always,
}

/// Partition and offset of a record.
pub(super) type Place = (i32, i64);

/// What both halves of a key change have in common. Deletes of one identity are all of one key, creates too, so
/// each kind comes in order: the n-th delete belongs to the n-th create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    old: Key,
    new: Key,
    source: u64,
}

#[derive(Debug, Clone, Copy)]
struct Half {
    index: u32,
    place: Place,
    is_delete: bool,
    arrived: Instant,
    /// Since when a batch that is due has been without it.
    held: Option<Instant>,
}

/// The halves of a buffer's key changes.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The delete of each create that has one.
    deletes: HashMap<u32, u32>,
    /// Where the two halves of each pair are.
    places: Vec<(Place, Place)>,
    /// Halves whose other half was not taken in so far; of one kind in each queue.
    open: HashMap<Identity, VecDeque<Half>>,
}

impl Pairs {
    /// Takes a change, in order of arrival.
    pub(super) fn take(&mut self, index: u32, place: Place, change: &Change, now: Instant) {
        let Some(moved) = change.moved else { return };
        let is_delete = change.operation == Operation::Delete;
        let (old, new) =
            if is_delete { (change.key, moved.other) } else { (moved.other, change.key) };
        let identity = Identity { old, new, source: moved.source };
        let open = self.open.entry(identity).or_default();
        let Some(other) = open.pop_front_if(|other| other.is_delete != is_delete) else {
            open.push_back(Half { index, place, is_delete, arrived: now, held: None });
            return;
        };
        if open.is_empty() {
            self.open.remove(&identity);
        }
        let (delete, create) = if is_delete { (index, other.index) } else { (other.index, index) };
        self.deletes.insert(create, delete);
        self.places.push((place, other.place));
    }

    /// The delete that belongs to the create at `index`.
    pub(super) fn delete_of(&self, index: u32) -> Option<u32> {
        self.deletes.get(&index).copied()
    }

    /// True when a half's other half is not here.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The first offset of `partition` with half of a key change whose other half is not here.
    pub(super) fn open_from(&self, partition: i32) -> Option<i64> {
        let halves = self.open.values().flatten().filter(|half| half.place.0 == partition);
        halves.map(|half| half.place.1).min()
    }

    /// When the first half will have waited long enough, if all partitions are read to their end then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().flatten().map(|half| half.arrived + PATIENCE).min()
    }

    /// Where a batch that could go up to `end` has to end, so that both halves of a key change are in it or none is.
    pub(super) fn cut(&mut self, mut end: Position, wait: Wait, now: Instant) -> Position {
        let mut behind = Vec::new();
        for half in self.open.values_mut().flatten() {
            let held = *half.held.get_or_insert(now);
            if match wait {
                Wait::No => false,
                Wait::Bounded(ends) if ends >= Some(half.arrived) => now < half.arrived + PATIENCE,
                Wait::Bounded(_) => now < held + LONG_PATIENCE,
                Wait::Always => true,
            } {
                behind.push(half.place);
            }
        }
        if behind.is_empty() {
            return end;
        }
        let both = self.places.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]);
        let others: BTreeMap<Place, Place> = both.collect();
        while let Some((partition, offset)) = behind.pop() {
            let Some(before) = end.get(partition).filter(|before| offset < *before) else {
                continue;
            };
            behind.extend(
                others.range((partition, offset)..(partition, before)).map(|(_, other)| *other),
            );
            end.set(partition, offset);
        }
        end
    }

    /// Goes on waiting since when `earlier` did, of which these halves are some.
    pub(super) fn waiting_since(&mut self, earlier: &Self) {
        for (identity, halves) in &mut self.open {
            let Some(before) = earlier.open.get(identity) else { continue };
            for half in halves {
                if let Some(before) = before.iter().find(|b| b.place == half.place) {
                    (half.arrived, half.held) = (before.arrived, before.held);
                }
            }
        }
    }
}
