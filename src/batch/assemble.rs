//! From a buffer to a batch: the surviving changes are decoded into columns, and what a survivor does not carry is
//! looked up along its chain.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use uuid::Uuid;

use super::confirm::Confirmed;
use super::departures::Departures;
use super::supply::Supplier;
use super::{Buffer, Buffered, RecordRef};
use crate::change::{Batch, Hole, InitialSnapshot, MissingValue, Operation, Origin};
use crate::decode::{Decoder, Reject, Row};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::record::Record;
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
}

/// What becomes of one key.
#[derive(Debug, Clone, Copy)]
enum Survivor {
    /// The row of this change.
    Upsert(u32),
    /// No row, by this change.
    Delete(u32),
}

/// What a batch depends on besides its records.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What becomes of a change that leaves out a value which is nowhere.
    pub missing_value: MissingValue,
    /// Rows that were looked for in the table and are not there; of matched rows how many are missing.
    pub absent: HashMap<Origin, usize>,
    /// Keys that the table has later changes of: theirs here are passed over.
    pub stale: HashSet<Key>,
    /// Where the table is in an initial snapshot.
    pub snapshot: InitialSnapshot,
}

/// A value that is still looked for: the row it belongs to, the column, and the change it was last looked for in.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    row: usize,
    column: usize,
    at: u32,
}

/// A batch whose rows are being decoded.
struct Draft<'a> {
    survivors: Vec<Survivor>,
    departures: Departures<'a>,
    rejected: Vec<(RecordRef, Reject)>,
    confirmed: Confirmed,
}

/// Rows with the values that their changes left out, as far as the batch has them.
struct Resolved {
    rows: RecordBatch,
    holes: Vec<Hole>,
    /// Row and column of values that are nowhere.
    missing: Vec<(usize, usize)>,
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
        let (schema, resolved) = loop {
            let kept = upserts(&draft.survivors);
            let written = draft.departures.written();
            let upserts: Vec<u32> = kept.iter().copied().chain(written).collect();
            let rows = self.rows(&upserts)?;
            let schema = decoder.table_schema(&rows)?;
            let columns = decoder.columns(&rows, &schema)?;
            let mut rejects = columns.rejects;
            if rejects.is_empty() {
                let wanted = columns.unavailable.iter().filter_map(|(row, column)| {
                    Some(Wanted { row: *row, column: *column, at: *upserts.get(*row)? })
                });
                let wanted = wanted.collect();
                let resolved =
                    self.resolve(decoder, &schema, columns.rows, wanted, &given.absent)?;
                if given.missing_value == MissingValue::Null || resolved.missing.is_empty() {
                    break (schema, resolved);
                }
                rejects = incomplete(&resolved.missing, &schema);
            }
            draft.reject(self, (&upserts, kept.len()), rejects, given)?;
        };
        let Draft { survivors, departures, rejected, confirmed } = draft;
        let Resolved { rows, holes, missing: nowhere } = resolved;
        let (kept, deletes) = (upserts(&survivors), deletes(&survivors));
        let key = |at: &u32| Some(self.change(*at)?.change.key);
        let batch = Batch {
            id,
            ranges: self.ranges(),
            schema,
            truncates: self.truncates(),
            rows,
            keys: kept.iter().filter_map(key).collect(),
            deletes: deletes.iter().filter_map(key).collect(),
            matched: false,
            holes,
            departures: departures.placed(kept.len()),
            arrivals: self.pairs.arrivals().into_iter().map(|(_, of)| of).collect(),
            strict: given.missing_value != MissingValue::Null,
            missing: nowhere.len(),
            snapshot: confirmed.now,
            unconfirmed_before: confirmed.before,
            newest_source_micros: self.changes.iter().filter_map(|b| b.change.source_micros).max(),
            timestamps_ms: self.timestamps_ms.clone(),
            source_positions: self.source_positions(kept.iter().chain(&deletes)),
            audit: None,
        };
        let late = rejected.len() - self.rejects.len();
        let is_stale = |b: &&Buffered| given.stale.contains(&b.change.key);
        let stale = self.changes.iter().filter(is_stale).count();
        let collapsed = self.changes.len() - survivors.len() - late - stale;
        Ok(Assembled { batch, rejected: self.with_records(rejected), collapsed, stale })
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

    /// Where changes come from; nothing when that is not asked for.
    fn source_positions<'a>(
        &self,
        changes: impl Iterator<Item = &'a u32>,
    ) -> Vec<Option<SourcePosition>> {
        let position = |at: &u32| self.source_positions.get(&self.change(*at)?.record).cloned();
        let is_traced = !self.source_positions.is_empty();
        changes.filter(|_| is_traced).map(position).collect()
    }

    /// The last change of each key, in order of arrival, but for the keys that are `stale`; a delete where it does not
    /// count any more.
    fn survivors(&self, stale: &HashSet<Key>, confirmed: Confirmed) -> Vec<Survivor> {
        let is_last = |index: u32, key| self.last.get(key) == Some(&index);
        let is_gone = |at: RecordRef| {
            let is_before = |before| self.record(at).is_some_and(|record| record.offset < before);
            confirmed.before.is_some_and(is_before)
        };
        (0..)
            .zip(&self.changes)
            .filter(|(index, buffered)| is_last(*index, &buffered.change.key))
            .filter(|(_, buffered)| !stale.contains(&buffered.change.key))
            .map(|(index, buffered)| match is_gone(buffered.record) {
                true => Survivor::Delete(index),
                false => survivor(index, buffered),
            })
            .collect()
    }

    /// The change at `at` cannot be decoded: the one before it counts, if there is one.
    fn fall_back(&self, survivors: &mut Vec<Survivor>, at: u32) {
        let Some(place) =
            survivors.iter().position(|s| matches!(s, Survivor::Upsert(i) if *i == at))
        else {
            return;
        };
        let previous = self.change(at).and_then(|buffered| buffered.previous);
        match previous.and_then(|index| Some((index, self.change(index)?))) {
            Some((index, buffered)) => {
                if let Some(slot) = survivors.get_mut(place) {
                    *slot = survivor(index, buffered);
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

    /// Looks for missing values along the chains, round by round; what no change of the batch has is a hole, or
    /// nowhere when the table is known to lack the row.
    fn resolve(
        &self,
        decoder: &mut Decoder,
        schema: &Arc<TableSchema>,
        mut rows: RecordBatch,
        mut wanted: Vec<Wanted>,
        absent: &HashMap<Origin, usize>,
    ) -> Result<Resolved> {
        let mut holes: Vec<Hole> = Vec::new();
        let mut nowhere: Vec<(usize, usize)> = Vec::new();
        let mut supplied: HashSet<(usize, usize)> = HashSet::new();
        while !wanted.is_empty() {
            let mut asked: Vec<(Wanted, u32)> = Vec::new();
            for value in wanted.drain(..) {
                let Wanted { row, column, .. } = value;
                let (supplier, again) = self.supplier(value.at);
                let in_table = |from: &Origin| !absent.contains_key(from);
                let hole = |from| Hole { row, column, from, supplied: false };
                holes.extend(again.map(Origin::Row).filter(in_table).map(hole));
                let from = match supplier {
                    Supplier::Change(at) => {
                        asked.push((value, at));
                        continue;
                    }
                    Supplier::Table(key) => Some(Origin::Row(key)),
                    Supplier::Departed(of) => Some(Origin::Departed(of)),
                    Supplier::None => None,
                };
                match from.filter(in_table) {
                    Some(from) => holes.push(hole(from)),
                    None => nowhere.push((row, column)),
                }
            }
            let mut sources: Vec<u32> = asked.iter().map(|(_, at)| *at).collect();
            sources.sort_unstable();
            sources.dedup();
            let columns = decoder.supplies(&self.rows(&sources)?, schema)?;
            let place = |at: u32| sources.binary_search(&at).unwrap_or(usize::MAX);
            let unusable = |row: usize, column: usize| {
                columns.unavailable.contains(&(row, column))
                    || columns.rejects.iter().any(|(rejected, _)| *rejected == row)
            };
            let mut found = Vec::new();
            for (value, at) in asked {
                if unusable(place(at), value.column) {
                    wanted.push(Wanted { at, ..value });
                } else {
                    found.push((value.row, value.column, place(at)));
                    supplied.insert((value.row, value.column));
                }
            }
            rows = patch(&rows, &columns.rows, &found)?;
        }
        for hole in &mut holes {
            hole.supplied = supplied.contains(&(hole.row, hole.column));
        }
        // Those found first come first among the rows of the table, and of a value's holes the last one counts.
        holes.reverse();
        if !holes.is_empty() {
            let open: HashSet<_> = holes.iter().map(|hole| (hole.row, hole.column)).collect();
            nowhere.retain(|value| !open.contains(value));
        }
        Ok(Resolved { rows, holes, missing: nowhere })
    }
}

impl<'a> Draft<'a> {
    fn of(buffer: &Buffer, given: &'a Given, confirmed: Confirmed) -> Self {
        Self {
            survivors: buffer.survivors(&given.stale, confirmed),
            departures: Departures::of(buffer, &given.stale),
            rejected: buffer.rejects.clone(),
            confirmed,
        }
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
            self.survivors = buffer.survivors(&given.stale, self.confirmed);
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
            self.rejected.push((buffered.record, reject));
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
    let index = |s: &Survivor| if let Survivor::Upsert(index) = s { Some(*index) } else { None };
    survivors.iter().filter_map(index).collect()
}

/// `rows` with single values replaced: each of `found` is (row, column, row of `values` to take it from).
pub(super) fn patch(
    rows: &RecordBatch,
    values: &RecordBatch,
    found: &[(usize, usize, usize)],
) -> Result<RecordBatch> {
    let failed =
        |e| Error::internal("cannot fill in values that an update did not carry").because(e);
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for (index, column) in columns.iter_mut().enumerate() {
        let replaced: Vec<_> = found.iter().filter(|(_, at, _)| *at == index).collect();
        if replaced.is_empty() {
            continue;
        }
        let mut picks: Vec<(usize, usize)> = (0..column.len()).map(|row| (0, row)).collect();
        for (row, _, from) in replaced {
            if let Some(pick) = picks.get_mut(*row) {
                *pick = (1, *from);
            }
        }
        *column = interleave(&[column.as_ref(), values.column(index).as_ref()], &picks)
            .map_err(failed)?;
    }
    RecordBatch::try_new(rows.schema(), columns).map_err(failed)
}
