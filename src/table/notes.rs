//! Notes of torn key changes: where a row lay whose delete was committed without the create of its new key.
//!
//! The create may leave out values that only that row has. A data file stays readable for days after its rows are
//! deleted, so whoever merges the create, another instance as a rule, reads them there. Notes are part of every commit,
//! as the position is; the commit with the create drops its note. A row that one batch makes and deletes lies in a file
//! of its own that only its note names; what collects orphans takes it some day.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::change::{Departed, KeyChange};

/// Notes that a table keeps; then the oldest go.
const NOTES: usize = 2000;
/// Notes are kept no longer than so many milliseconds: a create may come after its delete by so much.
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

/// The notes of a table version, oldest first. As JSON they are what a log has of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Notes(Vec<Note>);

/// How notes are written: a commit has few files and many rows of each.
#[derive(Serialize, Deserialize)]
struct Written {
    files: Vec<String>,
    rows: Vec<WrittenNote>,
}

/// The key change, the time, and the file's number with the row.
type WrittenNote = (String, i64, Option<(usize, u32)>);

impl Notes {
    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The note of a key change.
    pub fn get(&self, key_change: KeyChange) -> Option<&Note> {
        self.0.iter().find(|note| note.key_change == key_change)
    }

    /// What a pipeline has to know of them.
    pub fn departed(&self, now_millis: i64) -> Departed {
        let young = |note: &&Note| note.at_millis > now_millis.saturating_sub(YOUNG_MILLIS);
        Departed {
            noted: self.0.iter().map(|note| note.key_change).collect(),
            present: HashSet::new(),
            room: NOTES.saturating_sub(self.0.iter().filter(young).count()),
        }
    }

    /// The notes after a commit that adds `new` and has the creates of `arrivals`. A delete that the connector writes
    /// again finds no row any more: the first note stays.
    pub fn after(&self, new: Vec<Note>, arrivals: &[KeyChange], now_millis: i64) -> Self {
        let arrived: HashSet<_> = arrivals.iter().collect();
        let oldest = now_millis.saturating_sub(KEPT_MILLIS);
        let stays = |note: &&Note| note.at_millis >= oldest && !arrived.contains(&note.key_change);
        let mut notes: Vec<Note> = self.0.iter().filter(stays).cloned().collect();
        let has_row = notes.iter().filter(|note| note.row.is_some());
        let has_row: HashSet<_> = has_row.map(|note| note.key_change).collect();
        let new: Vec<Note> =
            new.into_iter().filter(|note| !has_row.contains(&note.key_change)).collect();
        let renewed: HashSet<_> = new.iter().map(|note| note.key_change).collect();
        notes.retain(|note| !renewed.contains(&note.key_change));
        notes.extend(new);
        notes.drain(..notes.len().saturating_sub(NOTES));
        Self(notes)
    }
}

impl From<Notes> for Written {
    fn from(notes: Notes) -> Self {
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut files = Vec::new();
        let mut rows = Vec::with_capacity(notes.0.len());
        for Note { key_change, row, at_millis } in notes.0 {
            let place = row.map(|NotedRow { path, row }| {
                let number = *numbers.entry(path).or_insert_with_key(|path| {
                    files.push(path.clone());
                    files.len() - 1
                });
                (number, row)
            });
            rows.push((key_change.text(), at_millis, place));
        }
        Self { files, rows }
    }
}

impl TryFrom<Written> for Notes {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let note = |(text, at_millis, place): WrittenNote| {
            let key_change = KeyChange::from_text(&text)
                .ok_or_else(|| format!("{text} does not name a key change"))?;
            let row = place.map(|(number, row)| {
                let path = written.files.get(number).cloned();
                let path = path.ok_or_else(|| format!("there is no file {number}"))?;
                Ok::<_, String>(NotedRow { path, row })
            });
            Ok(Note { key_change, row: row.transpose()?, at_millis })
        };
        written.rows.into_iter().map(note).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn key_change(number: i64) -> KeyChange {
        KeyChange::new(Key::of_place(0, number), Key::of_place(1, number), 7)
    }

    fn note(number: i64, row: Option<(&str, u32)>, at_millis: i64) -> Note {
        let row = row.map(|(path, row)| NotedRow { path: path.to_owned(), row });
        Note { key_change: key_change(number), row, at_millis }
    }

    fn numbers(notes: &Notes) -> Vec<i64> {
        let number = |note: &Note| (0..5000).find(|n| key_change(*n) == note.key_change).unwrap();
        notes.0.iter().map(number).collect()
    }

    #[test]
    fn notes_come_back_from_their_json() {
        let notes =
            vec![note(1, Some(("a", 5)), 10), note(2, None, 10), note(3, Some(("a", 6)), 11)];
        let notes = Notes::default().after(notes, &[], 11);
        let json = serde_json::to_string(&notes).unwrap();
        assert_eq!(serde_json::from_str::<Notes>(&json).unwrap(), notes);
        assert_eq!(json.matches("\"a\"").count(), 1, "{json}");
        for wrong in [
            r#"{"files":[],"rows":[["x",1,null]]}"#,
            &json.replace(r#"["a"]"#, "[]"),
            r#"{"rows":[]}"#,
        ] {
            assert!(serde_json::from_str::<Notes>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_note_stays_until_its_create_comes_or_it_is_old() {
        let notes = Notes::default().after(vec![note(1, Some(("a", 1)), 0)], &[], 0);
        let notes = notes.after(vec![note(2, None, 1000)], &[], 1000);
        assert_eq!(numbers(&notes), [1, 2]);
        assert_eq!(numbers(&notes.after(vec![], &[key_change(1)], 1000)), [2]);
        assert_eq!(numbers(&notes.after(vec![], &[], KEPT_MILLIS + 1)), [2]);
        // A delete that comes again has no row, unless the first had none.
        let again =
            notes.after(vec![note(1, None, 2000), note(2, Some(("b", 2)), 2000)], &[], 2000);
        assert_eq!(again.get(key_change(1)), Some(&note(1, Some(("a", 1)), 0)));
        assert_eq!(again.get(key_change(2)), Some(&note(2, Some(("b", 2)), 2000)));
    }

    #[test]
    fn there_are_so_many_notes_and_no_more() {
        let many = |from: i64, count: i64, at| {
            (from..from + count).map(|number| note(number, None, at)).collect::<Vec<_>>()
        };
        let notes = Notes::default().after(many(0, 1500, 0), &[], 0);
        assert_eq!(notes.departed(0).room, 500);
        assert_eq!(notes.departed(YOUNG_MILLIS).room, 2000);
        assert_eq!(notes.departed(0).noted.len(), 1500);
        let notes = notes.after(many(1500, 600, 5), &[], 5);
        assert_eq!(numbers(&notes), (100..2100).collect::<Vec<_>>());
        assert_eq!(notes.departed(5).room, 0);
    }
}
