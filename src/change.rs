//! Changes: what a record does to one row, and the collapsed, decoded batch that a sink merges.

mod moves;

pub use moves::{Move, Moves, Whereabouts};

use arrow::array::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

use crate::key::Key;
use crate::position::{OffsetRange, TopicId};
use crate::row_source::RowSource;
use crate::schema::TableSchema;
use crate::source_position::SourcePosition;

/// Debezium's operation (its `Envelope.Operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `c`: a row was inserted.
    Create,
    /// `r`: a row was read by the initial snapshot or a later one.
    Read,
    /// `u`: a row was updated.
    Update,
    /// `d`, or a tombstone: a row was deleted.
    Delete,
    /// `t`: a table was emptied.
    Truncate,
    /// `m`: a message in the log, no row.
    Message,
}

impl Operation {
    /// The operation of Debezium's code; codes are compared without case, as Debezium does.
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "c" | "C" => Self::Create,
            "r" | "R" => Self::Read,
            "u" | "U" => Self::Update,
            "d" | "D" => Self::Delete,
            "t" | "T" => Self::Truncate,
            "m" | "M" => Self::Message,
            _ => return None,
        })
    }

    /// Debezium's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Read => "r",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Truncate => "t",
            Self::Message => "m",
        }
    }
}

/// Identifies a key change: the same for both of its halves, in every process, and for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyChange([u8; 16]);

impl KeyChange {
    /// Of the two keys and a digest of the envelope's `source` block.
    pub fn new(old: Key, new: Key, source: u64) -> Self {
        let mut hash = [0; 16];
        let mut hasher = blake3::Hasher::new();
        hasher.update(old.bytes()).update(new.bytes()).update(&source.to_le_bytes());
        hasher.finalize_xof().fill(&mut hash);
        Self(hash)
    }

    /// As text, 22 characters.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// From [`Self::text`].
    pub fn from_text(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }
}

/// Which row has a value that a change leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The one that the table has under this key at the start of the batch.
    Row(Key),
    /// The one that the delete of this key change took away in an earlier commit, as the table notes.
    Departed(KeyChange),
}

/// A value that the record did not carry (Debezium's unavailable-value placeholder): it is the value that the row
/// `from` has. Of several holes for one value the last counts whose row is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Index of the row in [`Batch::rows`].
    pub row: usize,
    /// Index of the column in [`Batch::schema`].
    pub column: usize,
    /// The row that has the value: under the row's own key, or the old one when the change moved the key.
    pub from: Origin,
    /// What [`Batch::rows`] has there.
    pub own: Own,
}

/// Which of the rows that a key has one after the other is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    /// The one that left the key with this key change.
    Before(SourcePosition),
    /// The one that came to the key with this key change.
    Since(SourcePosition),
}

/// What a batch's rows have where a hole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Null.
    Null,
    /// The right value if the table does not have the hole's row.
    IfAbsent,
    /// The right value unless the table's is known to be later ([`crate::row_source`]).
    UnlessLater,
    /// Null, or what another hole gave; the table's counts where it is known to be later.
    NullUnlessLater,
}

impl Own {
    /// True when the table's value counts only where it is known to be later.
    pub fn is_contested(self) -> bool {
        matches!(self, Self::UnlessLater | Self::NullUnlessLater)
    }

    /// True when the batch has a value.
    pub fn is_value(self) -> bool {
        matches!(self, Self::IfAbsent | Self::UnlessLater)
    }
}

/// What becomes of a change that leaves out a value when the row that has it is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MissingValue {
    /// The value is null, counted and warned of.
    #[default]
    Null,
    /// Its record goes to the dead letters.
    DeadLetter,
    /// The table halts.
    Halt,
}

/// What becomes of a record that empties the table at the source (TRUNCATE).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Truncates {
    /// It empties the table when its topic has one partition. With several it has no order among the rows of the
    /// others: the table halts.
    #[default]
    Apply,
    /// It is passed over, and counted.
    Ignore,
    /// The table halts.
    Halt,
}

/// What becomes of rows that another initial snapshot of their table does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unconfirmed {
    /// They stay: a snapshot may have been of some rows only.
    #[default]
    Keep,
    /// They are deleted when it ends: they were deleted at the source while nothing was captured.
    Delete,
}

/// Which of an initial snapshot's records a record is (`source.snapshot`, Debezium's `SnapshotRecord`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SnapshotRecord {
    /// None of them, or nobody asked.
    #[default]
    None,
    /// The first of its table.
    First,
    /// One in between.
    Within,
    /// The last of its table.
    Last,
}

/// Where a table is in an initial snapshot, which may be another one than its first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InitialSnapshot {
    /// Nobody can tell, or one that has not all rows: after it rows may be missing that it had.
    #[default]
    Unknown,
    /// In none: the last change came after it.
    Outside,
    /// In one whose first record has this offset.
    Since(i64),
}

/// What the records of a table without a primary key are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Keyless {
    /// Each is a row of its own, whatever it did.
    #[default]
    Append,
    /// Changes of the row that equals the row before.
    Match,
}

/// A row that leaves its key for another while the create of the new key is not in the batch: whoever merges that will
/// find in the table where the row lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The key change.
    pub key_change: KeyChange,
    /// The row right before its delete.
    pub row: Departing,
}

/// A row right before its delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departing {
    /// The one that the table has under this key at the start of the batch, if any.
    Row(Key),
    /// The batch made it and deletes it again: this one of [`Batch::rows`], which has no key.
    Written(usize),
    /// There was none.
    None,
}

/// What a table notes of key changes whose halves are committed apart.
#[derive(Debug, Clone, Default)]
pub struct Departed {
    /// Those whose delete is committed and whose create is not.
    pub noted: HashSet<KeyChange>,
    /// Of the keys that were asked for: those that have a row.
    pub present: HashSet<Key>,
    /// How many more can be noted now without giving up one that is young.
    pub room: usize,
    /// Where the table is in an initial snapshot.
    pub snapshot: InitialSnapshot,
}

/// Changes of one table, collapsed to one per key and decoded into columns.
///
/// Keys are unique over `keys` and `deletes` together, but in a batch of [`Self::matched`] rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Identifies the batch in the table's log; stays the same over retries.
    pub id: Uuid,
    /// The stretches of the topic's partitions that the batch covers, one per partition.
    pub ranges: Vec<OffsetRange>,
    /// The schema that `rows` has and the table shall have.
    pub schema: Arc<TableSchema>,
    /// True when the table is emptied first.
    pub truncates: bool,
    /// The new versions of rows, all columns of `schema` in its order; behind them rows that the batch itself deletes
    /// again, which only [`Departing::Written`] names.
    pub rows: RecordBatch,
    /// The key of each new version.
    pub keys: Vec<Key>,
    /// Keys whose row is deleted.
    pub deletes: Vec<Key>,
    /// True when keys are those of rows' contents ([`crate::key::contents`]): several rows may have the same, of which
    /// a delete takes out one. The sink gives them keys of their own ([`Self::numbered`]).
    pub matched: bool,
    /// Values to take from the table.
    pub holes: Vec<Hole>,
    /// Deletes of key changes whose create is not in the batch.
    pub departures: Vec<Departure>,
    /// Creates of key changes whose delete is not in the batch: what was noted of them has served.
    pub arrivals: Vec<KeyChange>,
    /// Key changes whose delete is in the batch, where changes are traced: noted, for what comes late of their rows.
    pub moves: Vec<Move>,
    /// Keys to which rows of late changes went on, and how: what the table has of them is asked for, as
    /// [`crate::sink::Merged::Stale`], and the batch not merged.
    pub asked: Vec<(Key, Move)>,
    /// Keys at which a row begins in the batch, and by which change, where changes are traced and those of other partitions
    /// are waited for: when the table has another row there, that one's end is still to come
    /// ([`crate::sink::Merged::Occupied`]).
    pub begun: HashMap<Key, SourcePosition>,
    /// True when holes whose row is not in the table must not become null: the batch is not merged then
    /// ([`crate::sink::Merged::Missing`]).
    pub strict: bool,
    /// Values that changes left out and whose row is nowhere, known before the table was asked: null in `rows`.
    pub missing: usize,
    /// Where the batch ends in an initial snapshot: noted in the table.
    pub snapshot: InitialSnapshot,
    /// The offset where an initial snapshot started that ended in the batch: other rows of the table that come from
    /// before it are deleted too.
    pub unconfirmed_before: Option<i64>,
    /// When the source committed the newest change, microseconds since the epoch.
    pub newest_source_micros: Option<i64>,
    /// The id of the topic that the batch is of, where it is known.
    pub topic_id: Option<TopicId>,
    /// Of each partition: Kafka's timestamp of the newest record that the batch has of it, milliseconds since the epoch.
    pub timestamps_ms: BTreeMap<i32, i64>,
    /// Where the changes of `keys` and then of `deletes` come from, one for each; none of a change that the table is to
    /// take whatever it has. Empty where the partitions' order is enough: see [`crate::source_position`].
    pub source_positions: Vec<Option<SourcePosition>>,
    /// Rows of `keys` that only get values which the table's row was not given so far, and what that row tells, which the
    /// batch was made for ([`crate::row_source`]).
    pub amended: HashMap<Key, RowSource>,
    /// Of rows of [`Self::rows`] and the keys that holes name: which row of the table is meant, where key changes lie between
    /// and changes are traced.
    pub meant: HashMap<(usize, Key), Meant>,
    /// What a person did by it, to be read in the table's history.
    pub audit: Option<String>,
}

/// Rows of one content: those that stay, and those that there were.
struct Count {
    stay: u64,
    were: u64,
}

impl Count {
    fn of(content: Key, is_there: impl Fn(&Key) -> bool) -> Self {
        let were = content.count(is_there);
        Self { stay: were, were }
    }
}

impl Batch {
    /// A batch that brings `rows`, each under one of `keys`, and does nothing else.
    pub fn of_rows(
        id: Uuid,
        ranges: Vec<OffsetRange>,
        schema: Arc<TableSchema>,
        rows: RecordBatch,
        keys: Vec<Key>,
    ) -> Self {
        Self {
            id,
            ranges,
            schema,
            truncates: false,
            rows,
            keys,
            deletes: Vec::new(),
            matched: false,
            holes: Vec::new(),
            departures: Vec::new(),
            arrivals: Vec::new(),
            moves: Vec::new(),
            asked: Vec::new(),
            begun: HashMap::new(),
            strict: false,
            missing: 0,
            snapshot: InitialSnapshot::default(),
            unconfirmed_before: None,
            newest_source_micros: None,
            topic_id: None,
            timestamps_ms: BTreeMap::new(),
            source_positions: Vec::new(),
            amended: HashMap::new(),
            meant: HashMap::new(),
            audit: None,
        }
    }

    /// True when it changes no row.
    pub fn is_empty(&self) -> bool {
        let changes_keys = !self.keys.is_empty() || !self.deletes.is_empty();
        let notes = !self.moves.is_empty() || !self.asked.is_empty();
        !changes_keys && !notes && !self.truncates && self.unconfirmed_before.is_none()
    }

    /// The keys whose change comes from somewhere, and where.
    pub fn traced(&self) -> impl Iterator<Item = (&Key, &SourcePosition)> {
        let keys = self.keys.iter().chain(&self.deletes).zip(&self.source_positions);
        keys.filter_map(|(key, position)| Some((key, position.as_ref()?)))
    }

    /// The deleted keys of which something is known of where their change comes from, and that.
    pub fn traced_deletes(&self) -> impl Iterator<Item = (&Key, &SourcePosition)> {
        let positions = self.source_positions.get(self.keys.len()..).unwrap_or_default();
        let deletes = self.deletes.iter().zip(positions);
        let deletes = deletes.filter_map(|(key, position)| Some((key, position.as_ref()?)));
        deletes.filter(|(_, position)| position.text().is_some())
    }

    /// Which row of the table a hole is to be filled from, where that has to be told apart. Amended rows are known.
    fn meant(&self, hole: &Hole) -> Option<&Meant> {
        let Origin::Row(key) = hole.from else { return None };
        let is_own = self.keys.get(hole.row) == Some(&key);
        let meant = self.meant.get(&(hole.row, key));
        meant.filter(|_| !(is_own && self.amended.contains_key(&key)))
    }

    /// True when it has to be asked which row the table has that a hole is to be filled from.
    pub fn may_be_of_another_row(&self, hole: &Hole) -> bool {
        self.meant(hole).is_some()
    }

    /// True when the row that the table has, which was last written by `last`, is not the one that a hole means.
    pub fn is_of_another_row(&self, hole: &Hole, last: &SourcePosition) -> bool {
        self.meant(hole).is_some_and(|meant| match meant {
            Meant::Before(key_change) => key_change.precedes(last),
            Meant::Since(key_change) => last.lies_before(key_change),
        })
    }

    /// True when a row begins at `key` and the one that the table has there, last written by `last`, is an earlier one of
    /// another partition: it was deleted at the source, or has gone on to another key.
    pub fn is_occupied(&self, key: &Key, last: &SourcePosition) -> bool {
        self.begun.get(key).is_some_and(|begin| last.is_before(begin))
    }

    /// Of [`Self::asked`]: keys whose row is about to come or to be replaced, as the delete of the key change is noted and
    /// its create was not merged. `told`: what the table has of them; `deletes`: what it knows of deletes of a key.
    pub fn coming(
        &self,
        told: &[(Key, Option<RowSource>)],
        is_noted: impl Fn(KeyChange) -> bool,
        deletes: impl Fn(&Key) -> Vec<SourcePosition>,
    ) -> Vec<Key> {
        let told: HashMap<&Key, &RowSource> =
            told.iter().filter_map(|(key, row)| Some((key, row.as_ref()?))).collect();
        let is_coming = |(key, moved): &&(Key, Move)| match told.get(key) {
            _ if !is_noted(moved.key_change) => false,
            Some(row) => row.last.precedes(&moved.at) || !row.left_out.is_empty(),
            None => !deletes(key).iter().any(|delete| moved.at.precedes(delete)),
        };
        self.asked.iter().filter(is_coming).map(|(key, _)| *key).collect()
    }

    /// The holes whose value is nowhere: `found` tells for each hole whether the table has its row.
    pub fn unfilled(&self, found: impl IntoIterator<Item = bool>) -> Vec<&Hole> {
        let mut filled = HashSet::new();
        let mut open = Vec::new();
        for (hole, found) in self.holes.iter().zip(found) {
            if found || hole.own.is_value() {
                filled.insert((hole.row, hole.column));
            } else {
                open.push(hole);
            }
        }
        open.retain(|hole| !filled.contains(&(hole.row, hole.column)));
        open
    }

    /// A batch of matched rows with unique keys: the n-th of the table's rows that have a content is known by it and n
    /// ([`Key::nth`]), and a delete takes out the last one. `is_there` tells whether the table has such a key. Fails with
    /// the contents that have fewer rows than are to be deleted, each as often as rows are missing.
    pub fn numbered(&self, is_there: impl Fn(&Key) -> bool) -> Result<Self, Vec<Key>> {
        // A table that is emptied first has none.
        let is_there = |key: &Key| !self.truncates && is_there(key);
        let mut counts: HashMap<Key, Count> = HashMap::new();
        let mut absent = Vec::new();
        for content in &self.deletes {
            let count = counts.entry(*content).or_insert_with(|| Count::of(*content, is_there));
            match count.stay.checked_sub(1) {
                Some(left) => count.stay = left,
                None => absent.push(*content),
            }
        }
        if !absent.is_empty() {
            return Err(absent);
        }
        let numbered = |content: &Key| {
            let count = counts.entry(*content).or_insert_with(|| Count::of(*content, is_there));
            let key = content.nth(count.stay);
            count.stay += 1;
            key
        };
        let keys = self.keys.iter().map(numbered).collect();
        let gone = |(content, count): (&Key, &Count)| {
            let content = *content;
            (count.stay..count.were).map(move |number| content.nth(number))
        };
        let mut deletes: Vec<Key> = counts.iter().flat_map(gone).collect();
        deletes.sort_unstable();
        Ok(Self { keys, deletes, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop, proptest};

    use super::*;

    fn content(n: u8) -> Key {
        Key::of_content(&[n])
    }

    fn batch(rows: &[u8], deletes: &[u8]) -> Batch {
        let schema = Arc::new(TableSchema::create(Vec::new(), Vec::new()));
        let none = RecordBatch::new_empty(schema.arrow());
        let keys = rows.iter().copied().map(content).collect();
        Batch {
            deletes: deletes.iter().copied().map(content).collect(),
            matched: true,
            ..Batch::of_rows(Uuid::nil(), Vec::new(), schema, none, keys)
        }
    }

    proptest! {
        /// Against a bag of contents.
        #[test]
        fn equal_rows_are_counted(
            steps in prop::collection::vec(
                (prop::collection::vec(0..3_u8, 0..6), prop::collection::vec(0..3_u8, 0..6)), 0..12)
        ) {
            let mut keys: BTreeSet<Key> = BTreeSet::new();
            let mut bag = [0_usize; 3];
            for (rows, deletes) in steps {
                let mut after = bag;
                let mut short = Vec::new();
                for n in &deletes {
                    match after[usize::from(*n)].checked_sub(1) {
                        Some(left) => after[usize::from(*n)] = left,
                        None => short.push(content(*n)),
                    }
                }
                match batch(&rows, &deletes).numbered(|key| keys.contains(key)) {
                    Err(absent) => assert_eq!(absent, short),
                    Ok(numbered) => {
                        assert!(short.is_empty());
                        rows.iter().for_each(|n| after[usize::from(*n)] += 1);
                        let all: BTreeSet<&Key> =
                            numbered.keys.iter().chain(&numbered.deletes).collect();
                        assert_eq!(all.len(), numbered.keys.len() + numbered.deletes.len());
                        for key in &numbered.deletes {
                            assert!(keys.remove(key));
                        }
                        keys.extend(numbered.keys);
                        bag = after;
                    }
                }
                for (n, count) in (0..).zip(bag) {
                    let counted = content(n).count(|key| keys.contains(key));
                    assert_eq!(usize::try_from(counted).unwrap(), count);
                }
                assert_eq!(keys.len(), bag.iter().sum::<usize>());
            }
        }
    }

    #[test]
    fn a_key_change_is_told_by_both_keys_and_its_source() {
        let key = |place| Key::of_place(0, place);
        let one = KeyChange::new(key(1), key(2), 3);
        assert_eq!(KeyChange::from_text(&one.text()), Some(one));
        // Stored in tables: another text would not be found by other versions.
        assert_eq!(one.text(), "Ja0ixEskkg3vD50xHiAPMA");
        for other in [(1, 2, 4), (1, 3, 3), (2, 1, 3)] {
            assert_ne!(KeyChange::new(key(other.0), key(other.1), other.2), one);
        }
        for wrong in ["", "AAAA", "not base64 at all, no!"] {
            assert_eq!(KeyChange::from_text(wrong), None);
        }
    }
}
