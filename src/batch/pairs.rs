//! Key changes: which delete belongs to which create, and where a batch may end without tearing the two apart.
//!
//! A create may leave out values that only the row under its old key has, and its delete takes that row away. In one
//! batch the value is the row's from right before the delete, whichever of the two came first. Halves that are read far
//! apart, or by two instances, are committed apart: a delete that is not waited for any longer leaves a note in the
//! table where its row lay, and a create that needs a value waits for that note.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::change::{Departed, KeyChange, Operation};
use crate::decode::Change;
use crate::key::Key;
use crate::position::Position;

/// How long the half of a key change is waited for when every partition was read to its end since it came: the other half
/// is written a moment before or after, or is another instance's to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it keeps its partition out of batches that are due while partitions are behind, as after a time without
/// reading.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// How long a create that needs a value keeps its partition out of batches until the table notes where its old row lay:
/// longer than it takes Kafka to give the partitions of a dead instance to another (`session.timeout.ms`, 45 seconds).
const VALUE_PATIENCE: Duration = Duration::from_secs(90);

/// Whether halves of key changes are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// What is buffered has to go: only creates that need a value are waited for, half a minute.
    Short,
    /// For a few seconds once all partitions were read to their end, which they last were at the given time; at most
    /// half a minute after the batch was due.
    Bounded(Option<Instant>),
    /// They are left out whatever happens: the next owner reads them again.
    Always,
}

impl Wait {
    /// True while what belongs to something that `arrived` then is waited for; `held`: since when a batch that is due has
    /// been without it.
    pub fn goes_on(self, arrived: Instant, held: Instant, now: Instant) -> bool {
        match self {
            Self::Short => false,
            Self::Always => true,
            Self::Bounded(ends) if ends >= Some(arrived) => now < arrived + PATIENCE,
            Self::Bounded(_) => now < held + LONG_PATIENCE,
        }
    }
}

/// Partition and offset of a record.
pub(super) type Place = (i32, i64);

/// What both halves of a key change have in common. Deletes of one identity are all of one key, creates too, so
/// each kind comes in order: the n-th delete belongs to the n-th create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    old: Key,
    new: Key,
    source: Option<u64>,
}

impl Identity {
    /// What it is called in notes. None without a source: the row may have moved between these keys before.
    fn key_change(&self) -> Option<KeyChange> {
        self.source.map(|source| KeyChange::new(self.old, self.new, source))
    }
}

#[derive(Debug, Clone, Copy)]
struct Half {
    index: u32,
    place: Place,
    is_delete: bool,
    arrived: Instant,
    /// Since when a batch that is due has been without it.
    held: Option<Instant>,
    /// Of a create: the table has what it may need.
    noted: bool,
    /// Of a create, once it was looked at: it leaves out values.
    needs: Option<bool>,
}

impl Half {
    /// True while a batch leaves it out; `full` when the table has no room for a note.
    fn waits(&self, wait: Wait, full: bool, now: Instant) -> bool {
        let held = self.held.unwrap_or(now);
        if wait == Wait::Always {
            return true;
        }
        let for_other = wait.goes_on(self.arrived, held, now);
        let (for_room, for_value) = match wait {
            Wait::Short => (Duration::ZERO, LONG_PATIENCE),
            Wait::Bounded(_) | Wait::Always => (LONG_PATIENCE, VALUE_PATIENCE),
        };
        match self.is_delete {
            true => for_other || (full && now < held + for_room),
            false if self.noted => false,
            false => for_other || (self.needs == Some(true) && now < held + for_value),
        }
    }
}

/// The halves of a buffer's key changes.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    /// The delete of each create that has one.
    deletes: HashMap<u32, u32>,
    /// Where the two halves of each pair are.
    places: Vec<(Place, Place)>,
    /// Halves whose other half was not taken in so far; of one kind in each queue.
    open: HashMap<Identity, VecDeque<Half>>,
    /// How many deletes the table can note now.
    room: usize,
}

impl Default for Pairs {
    fn default() -> Self {
        let (deletes, open) = (HashMap::new(), HashMap::new());
        Self { deletes, places: Vec::new(), open, room: usize::MAX }
    }
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
            let (arrived, held, noted, needs) = (now, None, false, None);
            open.push_back(Half { index, place, is_delete, arrived, held, noted, needs });
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

    /// True when a batch had to go without one.
    pub(super) fn has_held(&self) -> bool {
        self.open.values().flatten().any(|half| half.held.is_some())
    }

    /// Deletes whose create is not here, by their index.
    pub(super) fn departures(&self) -> Vec<(u32, KeyChange)> {
        self.halves(true)
    }

    /// Creates whose delete is not here, by their index.
    pub(super) fn arrivals(&self) -> Vec<(u32, KeyChange)> {
        self.halves(false)
    }

    fn halves(&self, deletes: bool) -> Vec<(u32, KeyChange)> {
        let named = self.open.iter().filter_map(|(of, halves)| Some((of.key_change()?, halves)));
        let halves = named.flat_map(|(of, halves)| halves.iter().map(move |half| (half, of)));
        let mut found: Vec<_> = halves
            .filter(|(half, _)| half.is_delete == deletes)
            .map(|(half, of)| (half.index, of))
            .collect();
        found.sort_unstable();
        found
    }

    /// Takes in what the table notes; the creates `again` find what they need under their own key.
    pub(super) fn learn(&mut self, departed: &Departed, again: &HashSet<u32>) {
        self.room = departed.room;
        for (identity, halves) in &mut self.open {
            let noted = identity.key_change().is_some_and(|of| departed.noted.contains(&of));
            for half in halves {
                half.noted = noted || again.contains(&half.index);
            }
        }
    }

    /// Creates that need a value, by their index.
    pub(super) fn needy(&self) -> Vec<u32> {
        let needy = self.open.values().flatten().filter(|half| half.needs == Some(true));
        needy.map(|half| half.index).collect()
    }

    /// Creates that are not waited for otherwise, and of which nobody knows yet whether they need a value.
    pub(super) fn unknown(&self, wait: Wait, now: Instant) -> Vec<u32> {
        let waited = |half: &Half| wait == Wait::Short || now >= half.arrived + PATIENCE;
        let named = self.open.iter().filter(|(identity, _)| identity.source.is_some());
        let creates = named
            .flat_map(|(_, halves)| halves)
            .filter(|half| !half.is_delete && half.needs.is_none() && waited(half));
        let mut indices: Vec<u32> = creates.map(|half| half.index).collect();
        indices.sort_unstable();
        indices
    }

    /// Whether each of `asked`, in ascending order, is among those that need a value.
    pub(super) fn tell_needs(&mut self, asked: &[u32], needy: &HashSet<u32>) {
        for half in self.open.values_mut().flatten() {
            if asked.binary_search(&half.index).is_ok() {
                half.needs = Some(needy.contains(&half.index));
            }
        }
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
        let mut room = self.room;
        let mut halves: Vec<&mut Half> = self.open.values_mut().flatten().collect();
        halves.sort_unstable_by_key(|half| (half.arrived, half.place));
        for half in halves {
            half.held.get_or_insert(now);
            if half.waits(wait, room == 0, now) {
                behind.push(half.place);
            } else if half.is_delete {
                room = room.saturating_sub(1);
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
                    (half.noted, half.needs) = (before.noted, before.needs);
                }
            }
        }
        self.room = earlier.room;
    }
}
