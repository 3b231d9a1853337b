//! The model: a table in memory. Other sinks are compared with it, and it is simple enough to be seen right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Committed, Merged, Sink};
use crate::change::{
    Batch, Departed, Departing, Hole, InitialSnapshot, KeyChange, Move, Moves, Origin, Own,
};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::position::{Position, TopicId};
use crate::row_source::RowSource;
use crate::schema::{Column, OFFSET_COLUMN, PARTITION_COLUMN, SOURCE_COLUMN, TableSchema};
use crate::source_position::SourcePosition;

/// A row as text by column name; null columns are absent.
pub type TextRow = BTreeMap<String, String>;

/// A handle to a table in memory. Clones share the table, as two instances of a group share one.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    schema: Option<Arc<TableSchema>>,
    rows: BTreeMap<Key, TextRow>,
    /// Where the last change of each key comes from, whether or not there is a row now.
    source_positions: BTreeMap<Key, SourcePosition>,
    position: Position,
    topic_id: Option<TopicId>,
    timestamps_ms: BTreeMap<i32, i64>,
    departed: BTreeMap<KeyChange, Option<TextRow>>,
    moves: Vec<Move>,
    snapshot: InitialSnapshot,
    missing: usize,
    version: i64,
}

impl MemorySink {
    /// Every row, in the order of its text.
    pub fn rows(&self) -> Vec<TextRow> {
        let mut rows: Vec<TextRow> = self.lock().rows.values().cloned().collect();
        rows.sort();
        rows
    }

    /// Values that became null as they were nowhere.
    pub fn missing_values(&self) -> usize {
        self.lock().missing
    }

    /// The number of commits.
    pub fn version(&self) -> i64 {
        self.lock().version
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The row that has the value of a hole.
    fn filler(&self, batch: &Batch, hole: &Hole) -> Option<&TextRow> {
        let row = match hole.from {
            Origin::Row(key) => self.rows.get(&key),
            Origin::Departed(key_change) => self.departed.get(&key_change)?.as_ref(),
        };
        row.filter(|row| !batch.is_of_another_row(hole, &row_source(row).last))
    }

    /// As [`Merged::Stale`] tells them.
    fn stale(&self, batch: &Batch) -> (Vec<(Key, Option<RowSource>)>, Vec<Key>) {
        let is_stale = |key, own: &SourcePosition, row: Option<&RowSource>| {
            let last = self.source_positions.get(key);
            match batch.amended.get(key) {
                Some(amended) => row != Some(amended),
                None => last.is_some_and(|last| own.is_before(last)),
            }
        };
        let told = |(key, own)| {
            let row = self.rows.get(key).map(row_source);
            is_stale(key, own, row.as_ref()).then_some((*key, row))
        };
        let mut stale: Vec<_> = batch.traced().filter_map(told).collect();
        let row = |key: &Key| self.rows.get(key).map(row_source);
        stale.extend(batch.asked.iter().map(|(key, _)| (*key, row(key))));
        let is_noted = |of| self.departed.contains_key(&of);
        let deletes = |key: &Key| self.source_positions.get(key).into_iter().cloned().collect();
        let coming = batch.coming(&stale, is_noted, deletes);
        (stale, coming)
    }

    /// As [`Merged::Occupied`] tells it.
    fn is_occupied(&self, batch: &Batch) -> bool {
        let is_occupied = |key: &Key| {
            let row = self.rows.get(key).map(row_source);
            row.is_some_and(|row| batch.is_occupied(key, &row.last))
        };
        let moves = !batch.moves.is_empty() || !self.moves.is_empty();
        moves && !batch.truncates && batch.begun.keys().any(is_occupied)
    }

    /// Deletes what an initial snapshot does not have that ended in the batch.
    fn confirm(&mut self, batch: &Batch) {
        let Some(before) = batch.unconfirmed_before else { return };
        let offset = |row: &TextRow| row.get(OFFSET_COLUMN)?.parse::<i64>().ok();
        self.rows.retain(|_, row| offset(row).is_none_or(|offset| offset >= before));
    }

    /// Notes what the batch tears apart, before its deletes, and how new it is; `rows` are all of its rows.
    fn note(&mut self, batch: &Batch, rows: &[TextRow]) {
        for departure in &batch.departures {
            let row = match departure.row {
                Departing::Row(key) => self.rows.get(&key).cloned(),
                Departing::Written(row) => rows.get(row).cloned(),
                Departing::None => None,
            };
            let noted = self.departed.entry(departure.key_change).or_default();
            if noted.is_none() {
                *noted = row;
            }
        }
        self.moves.extend(batch.moves.iter().cloned());
        self.departed.retain(|key_change, _| !batch.arrivals.contains(key_change));
        self.topic_id = batch.topic_id.or(self.topic_id);
        for (partition, newest) in &batch.timestamps_ms {
            let known = self.timestamps_ms.entry(*partition).or_insert(*newest);
            *known = (*known).max(*newest);
        }
    }

    /// Rows take the names that their columns have in `new`, and lose those that it has not.
    fn follow(&mut self, new: &TableSchema) {
        let Some(old) = self.schema.clone() else { return };
        let now = |old: &Column| new.columns().iter().find(|column| column.id == old.id);
        let names: Vec<(&str, Option<&str>)> = old
            .columns()
            .iter()
            .map(|old| (old.name.as_str(), now(old).map(|column| column.name.as_str())))
            .filter(|(old, new)| Some(*old) != *new)
            .collect();
        let departed = self.departed.values_mut().flatten();
        for row in self.rows.values_mut().chain(departed).filter(|_| !names.is_empty()) {
            let values: Vec<_> = names.iter().map(|(old, new)| (row.remove(*old), *new)).collect();
            row.extend(
                values.into_iter().filter_map(|(value, name)| Some((name?.to_owned(), value?))),
            );
        }
    }
}

impl Sink for MemorySink {
    async fn position(&mut self) -> Result<Position> {
        Ok(self.lock().position.clone())
    }

    async fn departed(&mut self, keys: &[Key]) -> Result<Departed> {
        let table = self.lock();
        let present = keys.iter().copied().filter(|key| table.rows.contains_key(key)).collect();
        let noted = table.departed.keys().copied().collect();
        Ok(Departed { noted, present, room: usize::MAX, snapshot: table.snapshot })
    }

    fn schema(&self) -> Option<Arc<TableSchema>> {
        self.lock().schema.clone()
    }

    fn partition_columns(&self) -> Vec<String> {
        Vec::new()
    }

    fn topic_id(&self) -> Option<TopicId> {
        self.lock().topic_id
    }

    fn timestamps_ms(&self) -> BTreeMap<i32, i64> {
        self.lock().timestamps_ms.clone()
    }

    fn moves(&self) -> Moves {
        let table = self.lock();
        Moves::new(&table.moves, |key_change| table.departed.contains_key(&key_change))
    }

    async fn merge(&mut self, batch: &Batch) -> Result<Merged> {
        let mut table = self.lock();
        let Ok(position) = table.position.advance(&batch.ranges) else {
            return Ok(Merged::Fenced { stored: table.position.clone() });
        };
        if table.schema.as_ref().is_some_and(|schema| !batch.schema.covers(schema)) {
            return Ok(Merged::Outdated);
        }
        let (keys, coming) = table.stale(batch);
        if !keys.is_empty() && !batch.truncates {
            return Ok(Merged::Stale { keys, coming });
        }
        if table.is_occupied(batch) {
            return Ok(Merged::Occupied);
        }
        let batch = &match batch.matched {
            false => batch.clone(),
            true => match batch.numbered(|key| table.rows.contains_key(key)) {
                Ok(numbered) => numbered,
                Err(absent) => {
                    let absent = absent.into_iter().map(Origin::Row).collect();
                    return Ok(Merged::Missing { absent });
                }
            },
        };
        let absent =
            batch.unfilled(batch.holes.iter().map(|hole| table.filler(batch, hole).is_some()));
        if batch.strict && !absent.is_empty() {
            return Ok(Merged::Missing {
                absent: absent.into_iter().map(|hole| hole.from).collect(),
            });
        }
        let missing = absent.len() + batch.missing;
        table.follow(&batch.schema);
        if batch.truncates {
            table.rows.clear();
            table.source_positions.clear();
        }
        let mut rows = text_rows(&batch.rows)?;
        for hole in &batch.holes {
            let column = batch.schema.columns().get(hole.column);
            if let (Some(row), Some(column), Some(source)) =
                (rows.get_mut(hole.row), column, table.filler(batch, hole))
            {
                fill(row, hole.own, column, source);
            }
        }
        table.note(batch, &rows);
        for key in &batch.deletes {
            table.rows.remove(key);
        }
        table.confirm(batch);
        table.rows.extend(batch.keys.iter().copied().zip(rows));
        let positions = batch.traced().map(|(key, position)| (*key, position.clone()));
        table.source_positions.extend(positions);
        table.snapshot = batch.snapshot;
        table.schema = Some(Arc::clone(&batch.schema));
        table.position = position.clone();
        table.missing += missing;
        table.version += 1;
        let versions = [("memory".to_owned(), table.version)].into();
        Ok(Merged::Committed(Committed::new(batch.ranges.clone(), position, versions)))
    }
}

/// Gives a row the value that the table's row `source` has, and lets it tell who gave it.
fn fill(row: &mut TextRow, own: Own, column: &Column, source: &TextRow) {
    let (mut told, theirs) = (row_source(row), row_source(source));
    if own.is_contested() && !theirs.has_later(column.id, &told) {
        return;
    }
    match source.get(&column.name).cloned() {
        Some(value) => row.insert(column.name.clone(), value),
        None => row.remove(&column.name),
    };
    if let Some(giver) = told.left_out.get_mut(&column.id) {
        *giver = theirs.giver(column.id).cloned();
        row.extend(told.text().map(|text| (SOURCE_COLUMN.to_owned(), text)));
    }
}

/// What a row tells of where its values come from.
fn row_source(row: &TextRow) -> RowSource {
    let partition = row.get(PARTITION_COLUMN).and_then(|partition| partition.parse().ok());
    RowSource::parse(partition.unwrap_or(-1), row.get(SOURCE_COLUMN).map(String::as_str))
}

/// The rows of a record batch as text.
pub fn text_rows(batch: &RecordBatch) -> Result<Vec<TextRow>> {
    let failed = |e| Error::internal("cannot write a row as text").because(e);
    let options = FormatOptions::default();
    let mut rows = vec![TextRow::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let text = ArrayFormatter::try_new(column, &options).map_err(failed)?;
        for (index, row) in rows.iter_mut().enumerate().filter(|(index, _)| column.is_valid(*index))
        {
            row.insert(field.name().clone(), text.value(index).to_string());
        }
    }
    Ok(rows)
}
