//! From a buffer to a batch: the surviving changes are decoded into columns, and what a survivor does not carry is
//! looked up along its chain.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::confirm::Confirmed;
use super::departures::Departures;
use super::givers::Amend;
use super::supply::Resolved;
use super::{Buffer, Buffered, RecordRef};
use crate::change::{Batch, InitialSnapshot, KeyChange, MissingValue, Move, Operation, Origin};
use crate::decode::{Change, Decoder, Reject, Row};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::position::Position;
use crate::record::Record;
use crate::row_source::RowSource;
use crate::schema::TableSchema;
use crate::source_position::SourcePosition;

/// The reason of rejects for values that are nowhere.
pub(super) const MISSING_VALUE: &str = "missing_value";

/// A record that is no change of the table, and why.
#[derive(Debug)]
pub struct Rejected<'a> {
    /// The record.
    pub record: Record<'a>,
    /// Why.
    pub reject: Reject,
}

/// A buffer's batch, and the records that go to the dead letters with it.
#[derive(Debug)]
pub struct Assembled<'a> {
    /// What the sink merges.
    pub batch: Batch,
    /// Rejected by the scan or by the decoding of columns.
    pub rejected: Vec<Rejected<'a>>,
    /// Changes that a later change of the same key superseded.
    pub collapsed: usize,
    /// Changes of keys of which the table has a later one.
    pub stale: usize,
    /// Values are nowhere, and their rows are waited for: the batch has null for them and is not to be merged.
    pub lacks_rows: bool,
    /// Rows whose late changes are passed over, as they are on the way to another key and did not come there in time.
    pub lost: usize,
}

/// What becomes of one key.
#[derive(Debug, Clone, Copy)]
enum Survivor {
    /// The row of this change.
    Upsert(u32),
    /// No row, by this change.
    Delete(u32),
    /// The row that the table has, with values that it was not given so far, of this change and those before it.
    Amend(u32),
}

/// Keys that the table has later changes of, and what their rows tell; none of a row that is deleted.
pub(super) type Stale = HashMap<Key, Option<RowSource>>;

/// What a batch depends on besides its records.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What becomes of a change that leaves out a value which is nowhere.
    pub missing_value: MissingValue,
    /// Rows that were looked for in the table and are not there; of matched rows how many are missing.
    pub absent: HashMap<Origin, usize>,
    /// Their changes here are passed over, but for values that the rows were not given so far.
    pub stale: Stale,
    /// Keys of rows of which nothing is here but what comes late: what the table's rows tell.
    pub asked: Stale,
    /// Keys of rows that late changes belong to and that are about to come there.
    pub coming: HashSet<Key>,
    /// Where the table is in an initial snapshot.
    pub snapshot: InitialSnapshot,
    /// True when rows that are nowhere may still come, before `missing_value` counts.
    pub awaits_rows: bool,
    /// Where the batch ends.
    pub end: Position,
}

impl Given {
    /// The batch is to end at `end`. What was stale in one that ended elsewhere may not be in it.
    pub fn end_at(&mut self, end: &Position) -> &mut Self {
        if self.end != *end {
            self.stale.clear();
            self.asked.clear();
            self.coming.clear();
            self.end = end.clone();
        }
        self
    }

    /// What the table has of a key whose last change here is older, or comes late.
    fn told(&self, is_late: bool, key: &Key) -> Option<&Option<RowSource>> {
        if is_late { self.asked.get(key) } else { self.stale.get(key) }
    }

    /// Takes in what [`crate::sink::Merged::Stale`] says of a batch.
    pub fn take_stale(
        &mut self,
        batch: &Batch,
        keys: Vec<(Key, Option<RowSource>)>,
        coming: Vec<Key>,
    ) {
        let asked: HashSet<Key> = batch.asked.iter().map(|(key, _)| *key).collect();
        for (key, row) in keys {
            let is_amended = batch.amended.contains_key(&key) && self.asked.contains_key(&key);
            let is_late = asked.contains(&key) || is_amended;
            (if is_late { &mut self.asked } else { &mut self.stale }).insert(key, row);
        }
        self.coming.extend(coming);
    }
}

/// A batch whose rows are being decoded.
struct Draft<'a> {
    survivors: Vec<Survivor>,
    departures: Departures<'a>,
    rejected: Vec<(RecordRef, Reject)>,
    confirmed: Confirmed,
}

impl Buffer {
    /// Decodes what survives the collapse. The batch gets `id`. Fails when the rows do not fit the table's schema, or
    /// lack values and `given` says to halt.
    pub fn assemble(
        &self,
        decoder: &mut Decoder,
        id: Uuid,
        given: &Given,
    ) -> Result<Assembled<'_>> {
        if decoder.matches_rows() {
            return self.match_rows(decoder, id, given);
        }
        // Without the option no record is marked, and none is looked at.
        let confirmed = match decoder.follows_snapshots() {
            true => self.confirm(given.snapshot),
            false => Confirmed::default(),
        };
        let mut draft = Draft::of(self, given, confirmed);
        let (schema, resolved, amended) = loop {
            let kept = upserts(&draft.survivors);
            let upserts = [kept.as_slice(), &draft.departures.written()].concat();
            let rows = self.rows(&upserts)?;
            let schema = decoder.table_schema(&rows)?;
            let columns = decoder.columns(&rows, &schema)?;
            let mut rejects = columns.rejects;
            if rejects.is_empty() {
                let left_out = columns
                    .unavailable
                    .iter()
                    .filter_map(|(row, column)| Some((*row, *column, *upserts.get(*row)?)));
                let mut resolved =
                    self.resolve(decoder, &schema, columns.rows, left_out, &given.absent)?;
                let amends = draft.amends(self, given);
                let idle = self.trace_rows(&mut resolved, &schema, &upserts, &amends)?;
                if !idle.is_empty() {
                    draft
                        .survivors
                        .retain(|s| !matches!(s, Survivor::Amend(at) if idle.contains(at)));
                    continue;
                }
                let takes_null = given.missing_value == MissingValue::Null || given.awaits_rows;
                if takes_null || resolved.missing.is_empty() {
                    break (schema, resolved, self.amended(&amends));
                }
                rejects = incomplete(&resolved.missing, &schema);
            }
            draft.reject(self, (&upserts, kept.len()), rejects, given)?;
        };
        let Draft { survivors, departures, rejected, confirmed } = draft;
        let Resolved { rows, holes, missing: nowhere, meant, .. } = resolved;
        let (kept, deletes) = (upserts(&survivors), deletes(&survivors));
        let key = |at: &u32| self.key_of(*at);
        let keys = kept.iter().filter_map(key).collect();
        let batch = Batch {
            truncates: self.truncates(),
            deletes: deletes.iter().filter_map(key).collect(),
            holes,
            departures: departures.placed(kept.len()),
            arrivals: self.pairs.arrivals().into_iter().map(|(_, of)| of).collect(),
            moves: self.moves(),
            meant,
            asked: self.late_keys(|key| !given.asked.contains_key(key)),
            begun: if given.awaits_rows { self.begun(&kept) } else { HashMap::new() },
            strict: given.missing_value != MissingValue::Null,
            missing: nowhere.len(),
            snapshot: confirmed.now,
            unconfirmed_before: confirmed.before,
            newest_source_micros: self.changes.iter().filter_map(|b| b.change.source_micros).max(),
            topic_id: self.topic_id,
            timestamps_ms: self.timestamps_ms.clone(),
            source_positions: self.source_positions(kept.iter().chain(&deletes), &amended),
            amended,
            ..Batch::of_rows(id, self.ranges(), schema, rows, keys)
        };
        let late = rejected.len() - self.rejects.len();
        let stale = self.count_of(|key| given.stale.contains_key(key));
        let collapsed = self.changes.len() + batch.amended.len() - survivors.len() - late - stale;
        let (lacks_rows, lost) = self.lacking(&batch, given);
        let rejected = self.with_records(rejected);
        Ok(Assembled { batch, rejected, collapsed, stale, lacks_rows, lost })
    }

    /// What the scan rejected.
    pub fn rejected(&self) -> Vec<Rejected<'_>> {
        self.with_records(self.rejects.clone())
    }

    pub(super) fn with_records(&self, rejects: Vec<(RecordRef, Reject)>) -> Vec<Rejected<'_>> {
        rejects
            .into_iter()
            .filter_map(|(at, reject)| Some(Rejected { record: self.record(at)?, reject }))
            .collect()
    }

    /// Whether rows are waited for, and of how many what came late is lost when they are not.
    fn lacking(&self, batch: &Batch, given: &Given) -> (bool, usize) {
        let is_late = self.stranded > 0 || !given.coming.is_empty();
        let lacks_rows = (is_late && given.awaits_rows) || (batch.strict && batch.missing > 0);
        (lacks_rows, self.stranded)
    }

    /// The number of changes of some keys.
    fn count_of(&self, is_meant: impl Fn(&Key) -> bool) -> usize {
        let keys = (0_u32..).zip(&self.changes).filter_map(|(at, _)| self.key_of(at));
        keys.filter(|key| is_meant(key)).count()
    }

    /// What rows that are amended tell in the table.
    fn amended(&self, amends: &[Amend<'_>]) -> HashMap<Key, RowSource> {
        let row = |amend: &Amend<'_>| Some((self.key_of(amend.at)?, amend.known.clone()));
        amends.iter().filter_map(row).collect()
    }

    /// The key changes whose delete is here, where changes are traced.
    fn moves(&self) -> Vec<Move> {
        if self.source_positions.is_empty() {
            return Vec::new();
        }
        let moved = |(index, buffered): (u32, &Buffered)| {
            let Change { key, moved, operation, .. } = &buffered.change;
            let moved = moved.filter(|_| *operation == Operation::Delete)?;
            let of = KeyChange::new(*key, moved.other, moved.source?);
            Some(Move::of(of, key, &moved.other, self.source_position(index)?.clone()))
        };
        (0..).zip(&self.changes).filter_map(moved).collect()
    }

    /// Where changes come from; nothing when that is not asked for.
    fn source_positions<'a>(
        &self,
        changes: impl Iterator<Item = &'a u32>,
        amended: &HashMap<Key, RowSource>,
    ) -> Vec<Option<SourcePosition>> {
        let position = |at: &u32| match amended.get(&self.key_of(*at)?) {
            Some(row) => Some(row.last.clone()),
            None => self.source_position(*at).cloned(),
        };
        let is_traced = !self.source_positions.is_empty();
        changes.filter(|_| is_traced).map(position).collect()
    }

    /// The last change of each key, in order of arrival, but for the keys that are `stale` and have rows that were given
    /// all; a delete where it does not count any more.
    fn survivors(&self, given: &Given, confirmed: Confirmed) -> Vec<Survivor> {
        let is_last = |index: u32, key: &Key| self.last.get(key) == Some(&index);
        let is_gone = |at: RecordRef| {
            let is_before = |before| self.record(at).is_some_and(|record| record.offset < before);
            confirmed.before.is_some_and(is_before)
        };
        (0..)
            .zip(&self.changes)
            .filter_map(|(index, buffered)| Some((index, buffered, self.key_of(index)?)))
            .filter(|(index, _, key)| is_last(*index, key))
            .filter_map(|(index, buffered, key)| match given.told(self.is_late(index), &key) {
                Some(row) => {
                    row.as_ref().filter(|row| !row.left_out.is_empty())?;
                    survivor(index, buffered).amending()
                }
                None if self.is_late(index) => None,
                None if is_gone(buffered.record) => Some(Survivor::Delete(index)),
                None => Some(survivor(index, buffered)),
            })
            .collect()
    }

    /// The change at `at` cannot be decoded: the one before it counts, if there is one.
    fn fall_back(&self, survivors: &mut Vec<Survivor>, at: u32) {
        let is = |s: &Survivor| matches!(s, Survivor::Upsert(i) | Survivor::Amend(i) if *i == at);
        let Some(place) = survivors.iter().position(is) else { return };
        let amends = matches!(survivors.get(place), Some(Survivor::Amend(_)));
        let previous = self.change(at).and_then(|buffered| buffered.previous);
        let previous = previous.filter(|index| amends || !self.is_late(*index));
        let previous = previous.and_then(|index| Some(survivor(index, self.change(index)?)));
        match if amends { previous.and_then(Survivor::amending) } else { previous } {
            Some(previous) => {
                if let Some(slot) = survivors.get_mut(place) {
                    *slot = previous;
                }
            }
            None => {
                survivors.remove(place);
            }
        }
    }

    pub(super) fn rows(&self, changes: &[u32]) -> Result<Vec<Row<'_>>> {
        let lost = || Error::internal("a buffered change has no record");
        changes
            .iter()
            .map(|at| {
                let buffered = self.change(*at).ok_or_else(lost)?;
                let source_position = self.source_positions.get(&buffered.record);
                let record = self.record(buffered.record).ok_or_else(lost)?;
                let row = Row::of(record, &buffered.change).ok_or_else(lost)?;
                Ok(Row { source_position, ..row })
            })
            .collect()
    }

    fn halt(&self, at: RecordRef, reject: &Reject) -> Error {
        let place = self.record(at).map(|r| format!("{}[{}]@{}", r.topic, r.partition, r.offset));
        Error::data(format!("record {}: {}", place.unwrap_or_default(), reject.message))
            .hint("take the table's initial snapshot again, or set option missing-value to null or dead-letter")
    }
}

impl Survivor {
    /// For the row that the table has in place of its own.
    fn amending(self) -> Option<Self> {
        match self {
            Self::Upsert(index) | Self::Amend(index) => Some(Self::Amend(index)),
            Self::Delete(_) => None,
        }
    }
}

impl<'a> Draft<'a> {
    fn of(buffer: &Buffer, given: &'a Given, confirmed: Confirmed) -> Self {
        Self {
            survivors: buffer.survivors(given, confirmed),
            departures: Departures::of(buffer, &given.stale),
            rejected: buffer.rejects.clone(),
            confirmed,
        }
    }

    /// The rows that are amended.
    fn amends(&self, buffer: &Buffer, given: &'a Given) -> Vec<Amend<'a>> {
        let rows = self.survivors.iter().filter(|s| !matches!(s, Survivor::Delete(_)));
        let amend = |(row, survivor): (usize, &Survivor)| {
            let Survivor::Amend(at) = survivor else { return None };
            let known = given.told(buffer.is_late(*at), &buffer.key_of(*at)?)?.as_ref()?;
            Some(Amend { row, at: *at, known })
        };
        rows.enumerate().filter_map(amend).collect()
    }

    /// Goes on without changes that cannot be decoded: of the rows of `upserts`, of which the first `kept` stay in the
    /// table. Fails when `given` says to halt at one of them.
    fn reject(
        &mut self,
        buffer: &Buffer,
        (upserts, kept): (&[u32], usize),
        rejects: Vec<(usize, Reject)>,
        given: &Given,
    ) -> Result<()> {
        if self.confirmed.before.is_some() {
            // Which rows a snapshot has is not certain then.
            self.confirmed = Confirmed::default();
            self.survivors = buffer.survivors(given, self.confirmed);
            return Ok(());
        }
        self.confirmed.now = InitialSnapshot::Unknown;
        for (row, reject) in rejects {
            let Some(at) = upserts.get(row).copied() else { continue };
            let Some(buffered) = buffer.change(at) else { continue };
            if row >= kept {
                match reject.reason {
                    MISSING_VALUE => self.departures.give_up(at),
                    _ => self.departures.fall_back(buffer, at),
                }
                continue;
            }
            if reject.reason == MISSING_VALUE && given.missing_value == MissingValue::Halt {
                return Err(buffer.halt(buffered.record, &reject));
            }
            if buffer.key_of(at).is_some_and(|key| !given.stale.contains_key(&key)) {
                self.rejected.push((buffered.record, reject));
            }
            buffer.fall_back(&mut self.survivors, at);
        }
        Ok(())
    }
}

/// The rejects of rows that lack values.
fn incomplete(missing: &[(usize, usize)], schema: &TableSchema) -> Vec<(usize, Reject)> {
    let mut columns: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (row, column) in missing {
        let name = schema.columns().get(*column).map(|column| column.name.as_str());
        columns.entry(*row).or_default().extend(name);
    }
    let reject = |(row, columns): (usize, Vec<&str>)| {
        let columns = columns.join(", ");
        let what = format!(
            "the change leaves out {columns}, and the row that has it is neither in its batch nor in the table"
        );
        (row, Reject::new(MISSING_VALUE, what))
    };
    columns.into_iter().map(reject).collect()
}

fn survivor(index: u32, buffered: &Buffered) -> Survivor {
    match buffered.change.operation {
        Operation::Delete if buffered.change.row.is_none() => Survivor::Delete(index),
        _ => Survivor::Upsert(index),
    }
}

fn deletes(survivors: &[Survivor]) -> Vec<u32> {
    let index = |s: &Survivor| if let Survivor::Delete(index) = s { Some(*index) } else { None };
    survivors.iter().filter_map(index).collect()
}

fn upserts(survivors: &[Survivor]) -> Vec<u32> {
    let index = |s: &Survivor| match s {
        Survivor::Upsert(index) | Survivor::Amend(index) => Some(*index),
        Survivor::Delete(_) => None,
    };
    survivors.iter().filter_map(index).collect()
}
