//! Notes: what one batch has to tell another about rows that are gone. They are part of every commit, as the position is.
//!
//! Of torn key changes: where a row lay whose delete was committed without the create of its new key. The create may
//! leave out values that only that row has. A data file stays readable for days after its rows are
//! deleted, so whoever merges the create, another instance as a rule, reads them there. The commit with the create drops
//! its note. A row that one batch makes and deletes lies in a file
//! of its own that only its note names; what collects orphans takes it some day.
//!
//! Of the topic: its id, and of every partition how new what was read of it is. A topic with another id, or where that is not
//! known a log that has newer records below the table's position, is one that was made anew.
//!
//! Of deletes where the source's log is asked which of two changes is the later one ([`crate::source_position`]): a row
//! tells where it comes from, a row that is gone does not. And of key changes there: where to the row went, for what another
//! partition still has of it.
//!
//! And where an initial snapshot started that the table is in: who merges its end deletes what it does not have.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::change::{Batch, Departed, InitialSnapshot, KeyChange, Move};
use crate::key::Key;
use crate::position::TopicId;
use crate::source_position::SourcePosition;

/// Notes of each kind that a table keeps; then the oldest go.
const NOTES: usize = 2000;
/// Notes are kept so many milliseconds: a create may come after its delete by so much, and what another partition has of a
/// key from before its delete. Those of deletes stay longer while a partition is that far behind.
const KEPT_MILLIS: i64 = 60 * 60 * 1000;
/// Notes younger than so many milliseconds are not given up for new ones, as long as those can wait.
const YOUNG_MILLIS: i64 = 60 * 1000;

/// Where a row lies, or lay before it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedRow {
    /// The data file's path relative to the table's root.
    pub path: String,
    /// The row's position in it.
    pub row: u32,
}

/// A key change whose delete is in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The key change.
    pub key_change: KeyChange,
    /// The row right before the delete; none when there was none.
    pub row: Option<NotedRow>,
    /// Wall time of the commit with the delete, milliseconds since the epoch.
    pub at_millis: i64,
}

/// A delete, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Deleted {
    /// [`Key::digest`] of its key.
    key: [u8; 16],
    source_position: SourcePosition,
    /// Wall time of its commit, milliseconds since the epoch.
    at_millis: i64,
}

/// A key change, and the wall time of its commit, milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NotedMove {
    moved: Move,
    at_millis: i64,
}

/// What a table version notes, oldest first. As JSON it is what a log has of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Notes {
    key_changes: Vec<Note>,
    deletes: Vec<Deleted>,
    moves: Vec<NotedMove>,
    /// Where the table is in an initial snapshot.
    snapshot: InitialSnapshot,
    topic_id: Option<TopicId>,
    timestamps_ms: BTreeMap<i32, i64>,
}

/// How notes are written: a commit has few files and many rows of each.
#[derive(Serialize, Deserialize)]
struct Written {
    files: Vec<String>,
    rows: Vec<WrittenNote>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deletes: Vec<WrittenDelete>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    moves: Vec<WrittenMove>,
    /// The offset where the initial snapshot started that the table is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<TopicId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    timestamps_ms: BTreeMap<i32, i64>,
}

/// The key change, the time, and the file's number with the row.
type WrittenNote = (String, i64, Option<(usize, u32)>);

/// The key's digest, the time, the partition and what else is known of the place.
type WrittenDelete = (String, i64, i32, String);

/// The key change, the time, the old key's digest, the new one's, the new key under its mask, the partition and what else is
/// known of the place.
type WrittenMove = (String, i64, String, String, String, i32, String);

impl Notes {
    /// True without any.
    pub fn is_empty(&self) -> bool {
        let rows = self.key_changes.is_empty() && self.deletes.is_empty();
        let topic = self.topic_id.is_none() && self.timestamps_ms.is_empty();
        rows && topic && self.moves.is_empty() && self.since().is_none()
    }

    fn since(&self) -> Option<i64> {
        match self.snapshot {
            InitialSnapshot::Since(offset) => Some(offset),
            InitialSnapshot::Outside | InitialSnapshot::Unknown => None,
        }
    }

    /// The data files in which noted rows lie.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.key_changes.iter().filter_map(|note| Some(note.row.as_ref()?.path.as_str()))
    }

    /// The note of a key change.
    pub fn get(&self, key_change: KeyChange) -> Option<&Note> {
        self.key_changes.iter().find(|note| note.key_change == key_change)
    }

    /// The key changes that changes of other partitions may still come before.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        self.moves.iter().map(|noted| &noted.moved)
    }

    /// The id of the topic that was read.
    pub fn topic_id(&self) -> Option<TopicId> {
        self.topic_id
    }

    /// Kafka's timestamp of the newest record that was read of each partition.
    pub fn timestamps_ms(&self) -> &BTreeMap<i32, i64> {
        &self.timestamps_ms
    }

    /// Of those of `keys` that were deleted: where the last delete comes from.
    pub fn deletes<'a>(
        &self,
        keys: impl Iterator<Item = &'a Key>,
    ) -> HashMap<Key, &SourcePosition> {
        if self.deletes.is_empty() {
            return HashMap::new();
        }
        let mut noted: HashMap<[u8; 16], &SourcePosition> = HashMap::new();
        for Deleted { key, source_position, .. } in &self.deletes {
            let last = noted.entry(*key).or_insert(source_position);
            if source_position.replaces(last) {
                *last = source_position;
            }
        }
        keys.filter_map(|key| Some((*key, *noted.get(&key.digest())?))).collect()
    }

    /// What a pipeline has to know of them.
    pub fn departed(&self, now_millis: i64) -> Departed {
        let young = |note: &&Note| note.at_millis > now_millis.saturating_sub(YOUNG_MILLIS);
        Departed {
            noted: self.key_changes.iter().map(|note| note.key_change).collect(),
            present: HashSet::new(),
            room: NOTES.saturating_sub(self.key_changes.iter().filter(young).count()),
            snapshot: self.snapshot,
        }
    }

    /// The notes after a commit of the batch, which tears the key changes `new`.
    pub fn after(&self, batch: &Batch, new: Vec<Note>, now_millis: i64) -> Self {
        let mut timestamps_ms = self.timestamps_ms.clone();
        for (partition, newest) in &batch.timestamps_ms {
            let known = timestamps_ms.entry(*partition).or_insert(*newest);
            *known = (*known).max(*newest);
        }
        Self {
            key_changes: self.key_changes_after(new, &batch.arrivals, now_millis),
            deletes: self.deletes_after(batch.traced_deletes(), &timestamps_ms, now_millis),
            moves: self.moves_after(&batch.moves, &timestamps_ms, now_millis),
            snapshot: batch.snapshot,
            topic_id: batch.topic_id.or(self.topic_id),
            timestamps_ms,
        }
    }

    /// The key changes with `new`, kept as deletes are.
    fn moves_after(
        &self,
        new: &[Move],
        newest: &BTreeMap<i32, i64>,
        at_millis: i64,
    ) -> Vec<NotedMove> {
        let known: HashSet<KeyChange> = self.moves().map(|moved| moved.key_change).collect();
        let new = new.iter().filter(|moved| !known.contains(&moved.key_change));
        let new = new.map(|moved| NotedMove { moved: moved.clone(), at_millis });
        let stays =
            |noted: &&NotedMove| is_kept(noted.at_millis, &noted.moved.at, newest, at_millis);
        let mut moves: Vec<_> = self.moves.iter().filter(stays).cloned().chain(new).collect();
        moves.drain(..moves.len().saturating_sub(NOTES));
        moves
    }

    /// The deletes with those of `new`. An older one stays while a partition may have changes from before it: `newest` has
    /// Kafka's timestamps of what was read of each.
    fn deletes_after<'a>(
        &self,
        new: impl Iterator<Item = (&'a Key, &'a SourcePosition)>,
        newest: &BTreeMap<i32, i64>,
        at_millis: i64,
    ) -> Vec<Deleted> {
        let new = new.map(|(key, source_position)| Deleted {
            key: key.digest(),
            source_position: source_position.clone(),
            at_millis,
        });
        let stays = |delete: &&Deleted| {
            is_kept(delete.at_millis, &delete.source_position, newest, at_millis)
        };
        let kept = self.deletes.iter().filter(stays).cloned();
        let mut deletes: Vec<Deleted> = kept.chain(new).collect();
        deletes.drain(..deletes.len().saturating_sub(NOTES));
        deletes
    }

    /// The key changes with `new`, without those whose creates are among `arrivals`. A delete that the connector writes
    /// again finds no row any more: the first note stays.
    fn key_changes_after(
        &self,
        new: Vec<Note>,
        arrivals: &[KeyChange],
        now_millis: i64,
    ) -> Vec<Note> {
        let arrived: HashSet<_> = arrivals.iter().collect();
        let oldest = now_millis.saturating_sub(KEPT_MILLIS);
        let stays = |note: &&Note| note.at_millis >= oldest && !arrived.contains(&note.key_change);
        let mut notes: Vec<Note> = self.key_changes.iter().filter(stays).cloned().collect();
        let has_row = notes.iter().filter(|note| note.row.is_some());
        let has_row: HashSet<_> = has_row.map(|note| note.key_change).collect();
        let new: Vec<Note> =
            new.into_iter().filter(|note| !has_row.contains(&note.key_change)).collect();
        let renewed: HashSet<_> = new.iter().map(|note| note.key_change).collect();
        notes.retain(|note| !renewed.contains(&note.key_change));
        notes.extend(new);
        notes.drain(..notes.len().saturating_sub(NOTES));
        notes
    }
}

/// True while a partition may have something from before a delete that was committed at `at_millis`: `newest` has Kafka's
/// timestamps of what was read of each.
fn is_kept(
    at_millis: i64,
    delete: &SourcePosition,
    newest: &BTreeMap<i32, i64>,
    now_millis: i64,
) -> bool {
    let mut others = newest.iter().filter(|(other, _)| **other != delete.partition);
    let was_passed = others.all(|(_, newest)| delete.was_passed(*newest));
    at_millis >= now_millis.saturating_sub(KEPT_MILLIS) || !was_passed
}

impl From<Notes> for Written {
    fn from(notes: Notes) -> Self {
        let snapshot = notes.since();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut files = Vec::new();
        let mut rows = Vec::with_capacity(notes.key_changes.len());
        for Note { key_change, row, at_millis } in notes.key_changes {
            let place = row.map(|NotedRow { path, row }| {
                let number = *numbers.entry(path).or_insert_with_key(|path| {
                    files.push(path.clone());
                    files.len() - 1
                });
                (number, row)
            });
            rows.push((key_change.text(), at_millis, place));
        }
        let delete = |Deleted { key, source_position, at_millis }: Deleted| {
            let text = source_position.text().unwrap_or_default();
            (URL_SAFE_NO_PAD.encode(key), at_millis, source_position.partition, text)
        };
        let deletes = notes.deletes.into_iter().map(delete).collect();
        let moved = |NotedMove { moved, at_millis }: NotedMove| {
            let Move { key_change, at, old, new, masked } = moved;
            let [old, new, masked] = [old, new, masked].map(|key| URL_SAFE_NO_PAD.encode(key));
            let text = at.text().unwrap_or_default();
            (key_change.text(), at_millis, old, new, masked, at.partition, text)
        };
        let moves = notes.moves.into_iter().map(moved).collect();
        let (topic_id, timestamps_ms) = (notes.topic_id, notes.timestamps_ms);
        Self { files, rows, deletes, moves, snapshot, topic_id, timestamps_ms }
    }
}

impl TryFrom<Written> for Notes {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let key_change = |text: &str| {
            let named = KeyChange::from_text(text);
            named.ok_or_else(|| format!("{text} does not name a key change"))
        };
        let digest = |text: &str| {
            let digest = URL_SAFE_NO_PAD.decode(text).ok();
            let digest = digest.and_then(|digest| <[u8; 16]>::try_from(digest).ok());
            digest.ok_or_else(|| format!("{text} does not name a key"))
        };
        let note = |(text, at_millis, place): WrittenNote| {
            let key_change = key_change(&text)?;
            let row = place.map(|(number, row)| {
                let path = written.files.get(number).cloned();
                let path = path.ok_or_else(|| format!("there is no file {number}"))?;
                Ok::<_, String>(NotedRow { path, row })
            });
            Ok::<_, String>(Note { key_change, row: row.transpose()?, at_millis })
        };
        let delete = |(key, at_millis, partition, text): WrittenDelete| {
            let source_position = SourcePosition::parse(partition, Some(&text));
            Ok::<_, String>(Deleted { key: digest(&key)?, source_position, at_millis })
        };
        let moved = |(of, at_millis, old, new, masked, partition, text): WrittenMove| {
            let at = SourcePosition::parse(partition, Some(&text));
            let (old, new, masked) = (digest(&old)?, digest(&new)?, digest(&masked)?);
            let moved = Move { key_change: key_change(&of)?, at, old, new, masked };
            Ok::<_, String>(NotedMove { moved, at_millis })
        };
        Ok(Self {
            key_changes: written.rows.into_iter().map(note).collect::<Result<_, _>>()?,
            snapshot: written.snapshot.map_or(InitialSnapshot::Unknown, InitialSnapshot::Since),
            deletes: written.deletes.into_iter().map(delete).collect::<Result<_, _>>()?,
            moves: written.moves.into_iter().map(moved).collect::<Result<_, _>>()?,
            topic_id: written.topic_id,
            timestamps_ms: written.timestamps_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use uuid::Uuid;

    use rstest::rstest;

    use super::*;
    use crate::schema::TableSchema;

    /// A batch with the creates of `arrivals` that deletes keys, each with where that comes from.
    fn batch(arrivals: &[KeyChange], deletes: &[(i64, &str)]) -> Batch {
        let schema = Arc::new(TableSchema::create(Vec::new(), Vec::new()));
        let none = RecordBatch::new_empty(schema.arrow());
        let from = |(_, text): &(i64, &str)| Some(SourcePosition::parse(3, Some(text)));
        Batch {
            arrivals: arrivals.to_vec(),
            deletes: deletes.iter().map(|(key, _)| Key::of_place(0, *key)).collect(),
            source_positions: deletes.iter().map(from).collect(),
            ..Batch::of_rows(Uuid::nil(), Vec::new(), schema, none, Vec::new())
        }
    }

    fn after(notes: &Notes, new: Vec<Note>, arrivals: &[KeyChange], now_millis: i64) -> Notes {
        notes.after(&batch(arrivals, &[]), new, now_millis)
    }

    fn key_change(number: i64) -> KeyChange {
        KeyChange::new(Key::of_place(0, number), Key::of_place(1, number), 7)
    }

    fn note(number: i64, row: Option<(&str, u32)>, at_millis: i64) -> Note {
        let row = row.map(|(path, row)| NotedRow { path: path.to_owned(), row });
        Note { key_change: key_change(number), row, at_millis }
    }

    fn numbers(notes: &Notes) -> Vec<i64> {
        let number = |note: &Note| (0..5000).find(|n| key_change(*n) == note.key_change).unwrap();
        notes.key_changes.iter().map(number).collect()
    }

    #[test]
    fn notes_come_back_from_their_json() {
        let notes =
            vec![note(1, Some(("a", 5)), 10), note(2, None, 10), note(3, Some(("a", 6)), 11)];
        let deletes = [(1, "at=5;lsn=9"), (2, "at=6;file=1;pos=4;row=0;base=b")];
        let notes = Notes::default().after(&batch(&[], &deletes), notes, 11);
        let json = serde_json::to_string(&notes).unwrap();
        assert_eq!(serde_json::from_str::<Notes>(&json).unwrap(), notes);
        assert_eq!(json.matches("\"a\"").count(), 1, "{json}");
        assert!(!json.contains("snapshot"), "{json}");
        for wrong in [
            r#"{"files":[],"rows":[["x",1,null]]}"#,
            &json.replace(r#"["a"]"#, "[]"),
            r#"{"rows":[]}"#,
            r#"{"files":[],"rows":[],"deletes":[["x",11,3,"lsn=9"]]}"#,
        ] {
            assert!(serde_json::from_str::<Notes>(wrong).is_err(), "{wrong}");
        }
        let within = Batch { snapshot: InitialSnapshot::Since(7), ..batch(&[], &[]) };
        let within = Notes::default().after(&within, vec![], 11);
        let json = serde_json::to_string(&within).unwrap();
        assert_eq!(serde_json::from_str::<Notes>(&json).unwrap(), within, "{json}");
        assert!(!within.is_empty());
        let outside = after(&within, vec![], &[], 11);
        assert!(outside.is_empty());
    }

    #[test]
    fn a_note_stays_until_its_create_comes_or_it_is_old() {
        let notes = after(&Notes::default(), vec![note(1, Some(("a", 1)), 0)], &[], 0);
        let notes = after(&notes, vec![note(2, None, 1000)], &[], 1000);
        assert_eq!(numbers(&notes), [1, 2]);
        assert_eq!(numbers(&after(&notes, vec![], &[key_change(1)], 1000)), [2]);
        assert_eq!(numbers(&after(&notes, vec![], &[], KEPT_MILLIS + 1)), [2]);
        // A delete that comes again has no row, unless the first had none.
        let again =
            after(&notes, vec![note(1, None, 2000), note(2, Some(("b", 2)), 2000)], &[], 2000);
        assert_eq!(again.get(key_change(1)), Some(&note(1, Some(("a", 1)), 0)));
        assert_eq!(again.get(key_change(2)), Some(&note(2, Some(("b", 2)), 2000)));
    }

    #[test]
    fn there_are_so_many_notes_and_no_more() {
        let many = |from: i64, count: i64, at| {
            (from..from + count).map(|number| note(number, None, at)).collect::<Vec<_>>()
        };
        let notes = after(&Notes::default(), many(0, 1500, 0), &[], 0);
        assert_eq!(notes.departed(0).room, 500);
        assert_eq!(notes.departed(YOUNG_MILLIS).room, 2000);
        assert_eq!(notes.departed(0).noted.len(), 1500);
        let notes = after(&notes, many(1500, 600, 5), &[], 5);
        assert_eq!(numbers(&notes), (100..2100).collect::<Vec<_>>());
        assert_eq!(notes.departed(5).room, 0);
    }
    #[test]
    fn the_newest_timestamp_of_each_partition_stays() {
        let read = |notes: &Notes, timestamps: &[(i32, i64)], topic_id| {
            let timestamps_ms = timestamps.iter().copied().collect();
            let batch = Batch { timestamps_ms, topic_id, ..batch(&[], &[]) };
            notes.after(&batch, vec![], KEPT_MILLIS * 9)
        };
        let (first, last) = (TopicId::new(1, 0), TopicId::new(0, 1));
        let notes = read(&Notes::default(), &[(0, 7), (1, 3)], first);
        let notes = read(&read(&notes, &[(0, 6), (2, 1)], None), &[(2, 4)], None);
        assert_eq!(notes.topic_id(), first);
        let notes = read(&notes, &[], last);
        assert_eq!(notes.topic_id(), last);
        let json = serde_json::to_string(&notes).unwrap();
        assert_eq!(serde_json::from_str::<Notes>(&json).unwrap(), notes);
        assert_eq!(*notes.timestamps_ms(), BTreeMap::from([(0, 7), (1, 3), (2, 4)]));
    }

    /// A batch with the key change of this number.
    fn moving(number: i64) -> Batch {
        let (old, new) = (Key::of_place(0, number), Key::of_place(1, number));
        let at = SourcePosition::parse(3, Some("at=100000;lsn=9"));
        Batch { moves: vec![Move::of(key_change(number), &old, &new, at)], ..batch(&[], &[]) }
    }

    #[test]
    fn where_rows_went_is_noted_once_and_for_as_long_as_deletes() {
        let notes = Notes::default().after(&moving(1), vec![], 0).after(&moving(1), vec![], 5);
        let notes = notes.after(&moving(2), vec![], 9);
        let moved = |notes: &Notes| notes.moves().map(|m| m.key_change).collect::<Vec<_>>();
        assert_eq!(moved(&notes), [key_change(1), key_change(2)]);
        let json = serde_json::to_string(&notes).unwrap();
        assert_eq!(serde_json::from_str::<Notes>(&json).unwrap(), notes);
        assert!(serde_json::from_str::<Notes>(&json.replace("[[\"", "[[\"!")).is_err());
        assert_eq!(moved(&notes.after(&batch(&[], &[]), vec![], KEPT_MILLIS + 1)), [key_change(2)]);
        let behind = Batch { timestamps_ms: [(0, 160_000)].into(), ..batch(&[], &[]) };
        assert_eq!(moved(&notes.after(&behind, vec![], KEPT_MILLIS * 2)).len(), 2);
        let full = (0..2005).fold(notes, |notes, n| notes.after(&moving(n), vec![], 10));
        assert_eq!(full.moves.len(), NOTES);
    }

    fn deleted(notes: &Notes, keys: impl Iterator<Item = i64>) -> Vec<(i64, String)> {
        let keys = keys.map(|key| (key, Key::of_place(0, key)));
        let found = keys.filter_map(|(number, key)| {
            let found = notes.deletes([&key].into_iter());
            Some((number, found.get(&key)?.text().unwrap()))
        });
        found.collect()
    }

    #[test]
    fn the_last_deletes_are_noted_with_where_they_come_from() {
        let notes = Notes::default().after(&batch(&[], &[(1, "lsn=9"), (2, "lsn=8")]), vec![], 0);
        assert!(!notes.is_empty());
        // Of a tombstone nothing but its time is known, of the last delete nothing at all.
        let notes = notes.after(&batch(&[], &[(1, "lsn=12"), (2, "at=7"), (3, "")]), vec![], 5);
        let expected = [(1, "lsn=12".to_owned()), (2, "lsn=8".to_owned())];
        assert_eq!(deleted(&notes, 0..5), expected);
        let json = serde_json::to_string(&notes).unwrap();
        assert_eq!(serde_json::from_str::<Notes>(&json).unwrap(), notes);
        let old = notes.after(&batch(&[], &[]), vec![], KEPT_MILLIS + 1);
        assert_eq!(deleted(&old, 0..5), [(1, "lsn=12".to_owned()), (2, "at=7".to_owned())]);
        let many: Vec<(i64, &str)> = (10..2008).map(|key| (key, "lsn=20")).collect();
        let full = notes.after(&batch(&[], &many), vec![], 6);
        assert_eq!(deleted(&full, 0..2009).first(), Some(&(1, "lsn=12".to_owned())));
        assert_eq!(full.deletes.len(), NOTES);
    }
    #[rstest]
    #[case::nothing_else_was_read(&[(3, 900_000)], true)]
    #[case::read_to_well_after_it(&[(0, 160_001), (1, 300_000)], true)]
    #[case::one_is_behind(&[(0, 160_001), (1, 5)], false)]
    #[case::one_may_be_behind(&[(0, 160_000)], false)]
    fn a_delete_is_known_until_every_partition_was_read_to_after_it(
        #[case] newest: &[(i32, i64)],
        #[case] goes: bool,
    ) {
        let notes = Notes::default().after(&batch(&[], &[(1, "at=100000;lsn=9")]), vec![], 0);
        let timestamps_ms = newest.iter().copied().collect();
        let later = Batch { timestamps_ms, ..batch(&[], &[]) };
        let notes = notes.after(&later, vec![], KEPT_MILLIS);
        assert_eq!(notes.deletes.len(), 1, "is young");
        let notes = notes.after(&batch(&[], &[]), vec![], KEPT_MILLIS + 1);
        assert_eq!(notes.deletes.is_empty(), goes);
    }
}
