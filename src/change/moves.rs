//! Rows that went on to another key. What a partition still has of such a row under its old key, of a topic whose
//! partitions grew, may be read after the key change: values that the create of the new key left out, and that the row
//! lacks. Tables note the key changes, so that those values follow the row.

use std::collections::{HashMap, HashSet};

use super::KeyChange;
use crate::key::Key;
use crate::source_position::SourcePosition;

/// A key change that was merged. It tells the new key to those who know the old one only, as it is stored outside of data
/// files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The key change.
    pub key_change: KeyChange,
    /// Where its delete comes from.
    pub at: SourcePosition,
    /// [`Key::digest`] of the old key.
    pub old: [u8; 16],
    /// [`Key::digest`] of the new key.
    pub new: [u8; 16],
    /// The new key under a mask made of the old one.
    pub masked: [u8; 16],
}

impl Move {
    /// The key change from `old` to `new`, whose delete comes from `at`.
    pub fn of(key_change: KeyChange, old: &Key, new: &Key, at: SourcePosition) -> Self {
        let masked = *new.masked_by(old).bytes();
        Self { key_change, at, old: old.digest(), new: new.digest(), masked }
    }
}

/// The key changes that a table notes, by their keys.
#[derive(Debug, Default)]
pub struct Moves {
    away: HashMap<[u8; 16], Vec<Move>>,
    onto: HashMap<[u8; 16], Vec<SourcePosition>>,
    count: usize,
}

/// Where the row is that a change was made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Whereabouts<'a> {
    /// Under the change's key, as far as is known.
    Stayed,
    /// Under this key now, by this key change.
    Moved(Key, &'a Move),
    /// Nowhere: another row has come to its key.
    Gone,
}

impl Moves {
    /// Those that are noted; `is_coming` tells of which the create was not merged so far: what the key has is there until
    /// then.
    pub fn new<'a>(
        noted: impl IntoIterator<Item = &'a Move>,
        is_coming: impl Fn(KeyChange) -> bool,
    ) -> Self {
        let mut known = Self::default();
        let mut seen = HashSet::new();
        // A connector may write a key change again.
        for moved in noted.into_iter().filter(|moved| seen.insert(moved.key_change)) {
            if !is_coming(moved.key_change) {
                known.onto.entry(moved.new).or_default().push(moved.at.clone());
            }
            known.away.entry(moved.old).or_default().push(moved.clone());
            known.count += 1;
        }
        known
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.away.is_empty()
    }

    /// Where the row is that `key` had at `at`.
    pub fn follow(&self, key: &Key, at: &SourcePosition) -> Whereabouts<'_> {
        let mut found = Whereabouts::Stayed;
        let (mut key, mut since) = (*key, at);
        for hop in 0..=self.count {
            let is_later = |other: &&SourcePosition| match hop {
                0 => since.is_before(other),
                _ => since.precedes(other),
            };
            let digest = key.digest();
            let away = self.away.get(&digest).into_iter().flatten();
            let away = away.filter(|moved| is_later(&&moved.at));
            let away =
                away.reduce(|one, other| if other.at.precedes(&one.at) { other } else { one });
            let mut onto = self.onto.get(&digest).into_iter().flatten().filter(is_later);
            if onto.any(|onto| away.is_none_or(|away| onto.precedes(&away.at))) {
                return Whereabouts::Gone;
            }
            let Some(moved) = away else { break };
            (key, since) = (Key::of_bytes(moved.masked).masked_by(&key), &moved.at);
            found = Whereabouts::Moved(key, moved);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i64) -> Key {
        Key::of_place(0, number)
    }

    fn at(partition: i32, lsn: u64) -> SourcePosition {
        SourcePosition::parse(partition, Some(&format!("at=5;lsn={lsn}")))
    }

    /// Key changes as (old, new, partition, place).
    fn moves(all: &[(i64, i64, i32, u64)]) -> Moves {
        Moves::new(&noted(all), |_| false)
    }

    fn noted(all: &[(i64, i64, i32, u64)]) -> Vec<Move> {
        let moved = |(old, new, partition, lsn): &(i64, i64, i32, u64)| {
            let (old, new) = (key(*old), key(*new));
            Move::of(KeyChange::new(old, new, *lsn), &old, &new, at(*partition, *lsn))
        };
        all.iter().map(moved).collect()
    }

    fn followed(moves: &Moves, of: i64, place: (i32, u64)) -> Option<i64> {
        match moves.follow(&key(of), &at(place.0, place.1)) {
            Whereabouts::Stayed => Some(of),
            Whereabouts::Moved(to, _) => (0..9).find(|number| key(*number) == to),
            Whereabouts::Gone => None,
        }
    }

    #[test]
    fn a_row_is_followed_from_key_to_key() {
        let moves = moves(&[(1, 2, 1, 20), (2, 3, 1, 30), (1, 4, 1, 50), (5, 1, 1, 40)]);
        for (of, place, to) in [
            (1, (0, 10), Some(3)),
            (2, (0, 25), Some(3)),
            (2, (0, 35), Some(2)),
            (3, (0, 35), Some(3)),
            (1, (0, 45), Some(4)),
            (1, (0, 55), Some(1)),
            (5, (0, 35), Some(4)),
            // Of the same partition it was read in order.
            (1, (1, 10), Some(1)),
            // Rows that were there before another one came to their key.
            (1, (0, 30), None),
            (2, (0, 15), None),
            (3, (0, 15), None),
        ] {
            assert_eq!(followed(&moves, of, place), to, "row {of} at {place:?}");
        }
    }

    #[test]
    fn the_row_that_a_key_has_is_there_until_another_one_comes() {
        let noted = noted(&[(5, 1, 1, 40)]);
        assert_eq!(followed(&Moves::new(&noted, |_| false), 1, (0, 30)), None);
        assert_eq!(
            followed(&Moves::new(&noted, |of| of == noted[0].key_change), 1, (0, 30)),
            Some(1)
        );
    }

    #[test]
    fn a_row_that_goes_back_and_forth_is_followed() {
        let moves = moves(&[(1, 2, 1, 20), (2, 1, 1, 30), (1, 2, 1, 40)]);
        assert_eq!(followed(&moves, 1, (0, 10)), Some(2));
        assert_eq!(followed(&moves, 2, (0, 25)), Some(2));
    }

    #[test]
    fn the_new_key_is_not_told_to_everybody() {
        let (old, new) = (key(1), key(2));
        let moved = Move::of(KeyChange::new(old, new, 3), &old, &new, at(0, 1));
        assert_ne!(moved.masked, *new.bytes());
        assert_eq!(Key::of_bytes(moved.masked).masked_by(&old), new);
    }
}
