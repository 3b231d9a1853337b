//! The physical table: its live data files, the deleted rows in them, and where every key's row is.
//!
//! A batch becomes a [`Planned`] commit without any change in memory; a publisher commits it; then [`Table::applied`]
//! takes it over. Planning costs what the batch costs, whatever the size of the table and the number of its files.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use arrow::array::RecordBatch;
use futures::stream::{StreamExt, TryStreamExt};
use hashbrown::{HashMap, HashSet};
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::files::{self, Place};
use super::holes::Source;
use super::index::{Budget, Index, RowId};
use super::notes::{Note, NotedRow, Notes};
use super::partition::Partitioning;
use super::plan::{CommitPlan, Counts, DataFile, Deletion, LiveFile, Unnamed};
use super::source_positions::SourcePositions;
use super::split::Split;
use crate::change::{Batch, Departing, Departure, Origin};
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::key::Key;
use crate::position::Position;
use crate::schema::TableSchema;
use crate::sink::storage::Location;
use crate::source_position::SourcePosition;

/// Data files written at once.
const CONCURRENT_WRITES: usize = 8;

/// What a table may take, and how it writes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes for the primary-key indexes of all tables; half as much again for a moment while one grows.
    pub index: Budget,
    /// Data files read at once when the index is built.
    pub open_concurrency: usize,
    /// Integers are delta packed: smaller and faster to write. Not for tables that are read as Iceberg: Spark with
    /// Iceberg before 1.11 refuses such files unless its vectorised reader is switched off (apache/iceberg#7162).
    pub packed_integers: bool,
    /// Rows of a table without a key are found by their content: the index has every row.
    pub match_rows: bool,
}

/// A planned commit, and what the index will need to know once it is committed.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan for the publishers.
    pub commit: CommitPlan,
    /// Values that the changes left out and that are nowhere; they are null now.
    pub unfilled: u64,
    truncates: bool,
    written: Written,
    deletes: Vec<Key>,
    /// Deletes that tell their place.
    traced_deletes: Vec<(Key, SourcePosition)>,
    /// The rows that the batch's holes were filled from.
    sources: Vec<Option<Source>>,
}

/// The data files of a batch.
#[derive(Debug, Clone)]
struct Written {
    since: Unnamed,
    files: Vec<Arc<DataFile>>,
    /// Where each row of the batch lies; the file is its place in `files`.
    rows: Vec<(Key, RowId)>,
    /// The rows that the batch deletes again, in a file that is no part of the table: only notes name it.
    departing: Option<Arc<DataFile>>,
}

/// A table as it lies in the store, whatever its formats.
#[derive(Debug)]
pub struct Table {
    pub(super) location: Location,
    pub(super) options: Options,
    pub(super) schema: Arc<TableSchema>,
    pub(super) partitioning: Arc<Partitioning>,
    pub(super) position: Position,
    pub(super) last_batch: Option<Uuid>,
    pub(super) notes: Notes,
    pub(super) index: Index,
    /// Live files by number. Numbers are never used again.
    pub(super) files: BTreeMap<u32, LiveFile>,
    pub(super) numbers: HashMap<String, u32>,
    pub(super) next_number: u32,
    pub(super) rows: u64,
    pub(super) source_positions: SourcePositions,
    /// The operator was told of copies.
    pub(super) advised: Once,
}

/// What a batch does to the rows that are there.
struct Located {
    superseded: BTreeMap<u32, Vec<u32>>,
    counts: Counts,
}

impl Written {
    /// Nothing yet.
    fn since(now_millis: i64) -> Self {
        let since = Unnamed::since(now_millis);
        Self { since, files: Vec::new(), rows: Vec::new(), departing: None }
    }

    /// Where the row `number` of a batch lies, which it deletes again; those rows start behind its `kept` ones.
    fn departing(&self, number: usize, kept: usize) -> Option<Source> {
        let row = u32::try_from(number.checked_sub(kept)?).ok()?;
        self.departing.clone().map(|file| Source { file, row })
    }
}

impl Table {
    /// A new, empty table.
    pub fn create(
        location: Location,
        schema: Arc<TableSchema>,
        partitioning: Arc<Partitioning>,
        options: Options,
    ) -> Self {
        Self {
            index: Index::new(options.index.clone()),
            location,
            options,
            schema,
            partitioning,
            position: Position::default(),
            last_batch: None,
            notes: Notes::default(),
            files: BTreeMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            rows: 0,
            source_positions: SourcePositions::default(),
            advised: Once::new(),
        }
    }

    /// The stored position.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The schema.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// How the table is partitioned.
    pub fn partitioning(&self) -> &Arc<Partitioning> {
        &self.partitioning
    }

    /// The batch of the newest commit that is known.
    pub fn last_batch(&self) -> Option<Uuid> {
        self.last_batch
    }

    /// The notes of key changes.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Those of `keys` that have a row.
    pub fn present(&self, keys: &[Key]) -> std::collections::HashSet<Key> {
        keys.iter().copied().filter(|key| self.index.get(key).is_some()).collect()
    }

    /// The live data files, in no order.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &LiveFile> {
        self.files.values()
    }

    /// Rows that are not deleted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that the primary-key index takes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Plans the commit of `batch`: fills its holes from rows of the table, writes its data files and finds the rows it
    /// supersedes. Nothing changes in memory, and nothing in the table but for files that nobody refers to.
    ///
    /// The batch must start at the stored position and have been made for this schema or one that covers it; an internal
    /// error otherwise. A refused error when the index has no room for the batch's new keys.
    pub async fn plan(&self, batch: &Batch, now_millis: i64) -> Result<Planned> {
        let position = self.check(batch)?;
        let located = self.locate(batch)?;
        let sources = self.sources(batch).await?;
        let written = self.write(batch, &sources, now_millis).await?;
        self.assemble(batch, position, &located, (written, sources), now_millis)
    }

    /// `batch`, whose rows are matched, with the keys that they have in this table ([`Batch::numbered`]).
    pub fn numbered(&self, batch: &Batch) -> Result<Batch, Vec<Key>> {
        batch.numbered(|key| self.index.get(key).is_some())
    }

    /// Rows that holes of `batch` have nothing but and that are not there.
    pub async fn absent(&self, batch: &Batch) -> Result<Vec<Origin>> {
        let found = self.sources(batch).await?;
        let unfilled = batch.unfilled(found.iter().map(Option::is_some));
        Ok(unfilled.into_iter().map(|hole| hole.from).collect())
    }

    /// Plans the same batch again, on a table that was refreshed since. The data files of `earlier` are used again
    /// unless values were filled in from rows that have changed since, or they have waited too long ([`Unnamed`]). Any
    /// other batch is planned anew.
    pub async fn replan(
        &self,
        batch: &Batch,
        earlier: &Planned,
        now_millis: i64,
    ) -> Result<Planned> {
        let position = self.check(batch)?;
        let located = self.locate(batch)?;
        let sources = self.sources(batch).await?;
        let same = earlier.commit.batch_id == batch.id
            // Equal rows are numbered anew.
            && !batch.matched
            && earlier.commit.schema == batch.schema
            && earlier.sources == sources
            && !earlier.written.since.too_long(now_millis);
        let written = match same {
            true => earlier.written.clone(),
            false => self.write(batch, &sources, now_millis).await?,
        };
        self.assemble(batch, position, &located, (written, sources), now_millis)
    }

    /// Takes over a plan that was committed. After an error the table has to be opened again.
    pub fn applied(&mut self, planned: &Planned) -> Result<()> {
        let plan = &planned.commit;
        if self.position.advance(&plan.ranges).as_ref() != Ok(&plan.position) {
            return Err(self.broken("a commit does not follow the one before"));
        }
        let mut numbers = Vec::with_capacity(plan.added.len());
        for file in &plan.added {
            let live = LiveFile { file: Arc::clone(file), deleted: Arc::default() };
            numbers.push(self.add_file(live)?);
        }
        if self.is_indexed() {
            self.move_keys(planned, &numbers)?;
        }
        for deletion in &plan.deletions {
            self.set_deleted(&deletion.file.path, Arc::clone(&deletion.after))?;
        }
        for gone in &plan.removed {
            self.remove_file(&gone.file.path)?;
        }
        self.source_positions.bury(&planned.traced_deletes);
        self.position = plan.position.clone();
        self.schema = Arc::clone(&plan.schema);
        self.last_batch = Some(plan.batch_id);
        self.notes = plan.notes.clone();
        self.check_rows()
    }

    /// The position after `batch`.
    fn check(&self, batch: &Batch) -> Result<Position> {
        let position = self.position.advance(&batch.ranges).map_err(|range| {
            let stored = self.position.get(range.partition);
            self.broken(&format!(
                "batch {} covers {}..{} of partition {}, the stored position is {stored:?}",
                batch.id, range.from, range.to, range.partition
            ))
        })?;
        if self.last_batch == Some(batch.id) {
            return Err(self.broken(&format!("batch {} is in the table already", batch.id)));
        }
        if !batch.schema.covers(&self.schema) {
            return Err(self.broken(&format!("batch {} was made for another schema", batch.id)));
        }
        if batch.matched != self.matches_rows() {
            return Err(self.broken(&format!("batch {} finds rows another way", batch.id)));
        }
        self.check_partitioning(batch)?;
        let columns = batch.schema.columns();
        if batch.rows.num_columns() != columns.len() || batch.rows.num_rows() < batch.keys.len() {
            return Err(self.broken(&format!("batch {} does not fit its own schema", batch.id)));
        }
        Ok(position)
    }

    /// Partition values are stored in the type of their column, which therefore cannot widen.
    fn check_partitioning(&self, batch: &Batch) -> Result<()> {
        let mut fields = self.partitioning.fields.iter();
        let widened = fields.find(|field| {
            let ty = |schema: &TableSchema| {
                schema.column(&field.column).and_then(|column| field.transform.result(&column.ty))
            };
            ty(&batch.schema) != ty(&self.schema)
        });
        match widened {
            None => Ok(()),
            Some(field) => Err(Error::refused(format!(
                "column {} of table {} partitions it and cannot get another name or a wider type",
                field.column,
                self.location.url()
            ))
            .hint("change the column back at the source, or make the table anew")),
        }
    }

    fn locate(&self, batch: &Batch) -> Result<Located> {
        let mut superseded: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        if !self.is_indexed() || batch.truncates {
            let deleted = if batch.truncates { self.rows } else { 0 };
            let counts = Counts { inserted: batch.keys.len() as u64, deleted, ..Counts::default() };
            if batch.truncates && self.is_indexed() {
                // The index is emptied before it takes these.
                self.index.check_room(batch.keys.len().saturating_sub(self.index.len()))?;
            }
            return Ok(Located { superseded, counts });
        }
        let mut seen = HashSet::with_capacity_and_hasher(
            batch.keys.len() + batch.deletes.len(),
            foldhash::fast::RandomState::default(),
        );
        if !batch.keys.iter().chain(&batch.deletes).all(|key| seen.insert(*key)) {
            return Err(self.broken(&format!("batch {} has a key twice", batch.id)));
        }
        let (updated, deleted) =
            (self.index.get_all(&batch.keys), self.index.get_all(&batch.deletes));
        let counts = Counts {
            inserted: updated.iter().filter(|row| row.is_none()).count() as u64,
            updated: found(&updated),
            deleted: found(&deleted),
        };
        for row in updated.into_iter().chain(deleted).flatten() {
            superseded.entry(row.file).or_default().push(row.row);
        }
        self.index.check_room(usize::try_from(counts.inserted).unwrap_or(usize::MAX))?;
        Ok(Located { superseded, counts })
    }

    /// Writes the batch's rows, a file for each partition, and tells where each of them lies.
    async fn write(
        &self,
        batch: &Batch,
        sources: &[Option<Source>],
        now_millis: i64,
    ) -> Result<Written> {
        let mut written = Written::since(now_millis);
        if batch.rows.num_rows() == 0 {
            return Ok(written);
        }
        let rows = self.fill(batch, sources).await?;
        let kept = batch.keys.len();
        if rows.num_rows() > kept {
            let departing = rows.slice(kept, rows.num_rows() - kept);
            let place = Place::default();
            written.departing = Some(Arc::new(self.write_file(batch, place, departing).await?));
        }
        if kept == 0 {
            return Ok(written);
        }
        let rows = rows.slice(0, kept);
        let parts = self.partitioning.split(&batch.schema, &rows)?;
        written.rows.reserve(batch.keys.len());
        for (file, part) in parts.iter().enumerate() {
            let file = u32::try_from(file).map_err(|_| self.broken("too many partitions"))?;
            let keys = part.rows.iter().map(|row| batch.keys.get(*row as usize).copied());
            for (row, key) in (0..).zip(keys) {
                let key = key.ok_or_else(|| self.broken("a row has no key"))?;
                written.rows.push((key, RowId { file, row }));
            }
        }
        let whole = parts.len() == 1;
        let writes = parts.into_iter().map(|part| self.write_part(batch, &rows, part, whole));
        let files = futures::stream::iter(writes).buffered(CONCURRENT_WRITES);
        written.files = files.map_ok(Arc::new).try_collect().await?;
        Ok(written)
    }

    async fn write_part(
        &self,
        batch: &Batch,
        rows: &RecordBatch,
        part: Split,
        whole: bool,
    ) -> Result<DataFile> {
        let rows = if whole { rows.clone() } else { part.take(rows)? };
        let place = Place { folders: part.folders, partition: part.partition };
        self.write_file(batch, place, rows).await
    }

    async fn write_file(&self, batch: &Batch, place: Place, rows: RecordBatch) -> Result<DataFile> {
        let packed = self.options.packed_integers;
        let file = files::write(&self.location, &batch.schema, place, rows, packed).await?;
        failpoint::reach(Point::K3);
        Ok(file)
    }

    fn assemble(
        &self,
        batch: &Batch,
        position: Position,
        located: &Located,
        (written, sources): (Written, Vec<Option<Source>>),
        now_millis: i64,
    ) -> Result<Planned> {
        let (deletions, removed) = match batch.truncates {
            true => (Vec::new(), self.files.values().cloned().collect()),
            false => self.delete(&located.superseded)?,
        };
        let notes = self.note(batch, &written, now_millis)?;
        let unfilled = batch.unfilled(sources.iter().map(Option::is_some)).len();
        let unfilled = unfilled + batch.missing;
        let commit = CommitPlan {
            batch_id: batch.id,
            ranges: batch.ranges.clone(),
            position,
            schema: Arc::clone(&batch.schema),
            schema_changed: batch.schema != self.schema,
            added: written.files.clone(),
            deletions,
            removed,
            notes: self.notes.after(batch, notes, now_millis),
            owner: None,
            audit: batch.audit.clone(),
            counts: located.counts,
            newest_source_micros: batch.newest_source_micros,
            now_millis,
            unnamed: written.since,
        };
        let unfilled = u64::try_from(unfilled).unwrap_or(u64::MAX);
        Ok(Planned {
            commit,
            unfilled,
            truncates: batch.truncates,
            written,
            deletes: batch.deletes.clone(),
            traced_deletes: batch.traced_deletes().map(|(k, o)| (*k, o.clone())).collect(),
            sources,
        })
    }

    /// Where the rows lie that leave their keys.
    fn note(&self, batch: &Batch, written: &Written, at_millis: i64) -> Result<Vec<Note>> {
        let note = |departure: &Departure| {
            let row = match departure.row {
                Departing::Row(key) => self.row(batch, &key)?,
                Departing::Written(row) => written.departing(row, batch.keys.len()),
                Departing::None => None,
            };
            let row = row.map(|Source { file, row }| NotedRow { path: file.path.clone(), row });
            Ok(Note { key_change: departure.key_change, row, at_millis })
        };
        batch.departures.iter().map(note).collect()
    }

    fn delete(&self, rows: &BTreeMap<u32, Vec<u32>>) -> Result<(Vec<Deletion>, Vec<LiveFile>)> {
        let (mut deletions, mut removed) = (Vec::new(), Vec::new());
        for (number, rows) in rows {
            let live = self
                .files
                .get(number)
                .ok_or_else(|| self.broken("the index names an unknown file"))?;
            let mut after = RoaringTreemap::clone(&live.deleted);
            for row in rows {
                if !after.insert(u64::from(*row)) || u64::from(*row) >= live.file.rows {
                    return Err(self.broken(&format!(
                        "the index names row {row} of {}, which is deleted",
                        live.file.path
                    )));
                }
            }
            if after.len() == live.file.rows {
                removed.push(live.clone());
            } else {
                let (file, before) = (Arc::clone(&live.file), Arc::clone(&live.deleted));
                deletions.push(Deletion { file, before, after: Arc::new(after) });
            }
        }
        Ok((deletions, removed))
    }

    /// Points the index at the rows of a committed plan; `numbers` are those of its added files.
    fn move_keys(&mut self, planned: &Planned, numbers: &[u32]) -> Result<()> {
        let counts = &planned.commit.counts;
        if planned.truncates {
            self.index = Index::new(self.options.index.clone());
        }
        let rows = &planned.written.rows;
        let updated = found(&self.index.get_all(rows.iter().map(|(key, _)| key)));
        let deleted = found(&self.index.get_all(&planned.deletes));
        if !planned.truncates && (updated, deleted) != (counts.updated, counts.deleted) {
            return Err(self.broken("a commit was planned on another version of the table"));
        }
        self.index.reserve(usize::try_from(counts.inserted).unwrap_or(usize::MAX))?;
        for (key, at) in rows {
            let number = numbers.get(at.file as usize);
            let file = *number.ok_or_else(|| self.broken("a plan's row lies in no file"))?;
            self.index.upsert(*key, RowId { file, row: at.row });
        }
        for key in &planned.deletes {
            self.index.remove(key);
        }
        Ok(())
    }

    /// True when rows are found by their content.
    pub(super) fn matches_rows(&self) -> bool {
        self.options.match_rows && self.schema.key().is_empty()
    }

    /// True when the index has the table's rows.
    pub(super) fn is_indexed(&self) -> bool {
        self.matches_rows() || !self.schema.key().is_empty()
    }

    /// Adds a file that is not there yet; its number.
    pub(super) fn add_file(&mut self, live: LiveFile) -> Result<u32> {
        let number = self.next_number;
        self.next_number =
            number.checked_add(1).ok_or_else(|| self.broken("too many files since the start"))?;
        if u32::try_from(live.file.rows).is_err() {
            return Err(Error::refused(format!(
                "data file {} has 2^32 rows or more",
                live.file.path
            )));
        }
        if self.numbers.insert(live.file.path.clone(), number).is_some() {
            return Err(self.broken(&format!("data file {} was added twice", live.file.path)));
        }
        self.rows += live.rows();
        self.files.insert(number, live);
        Ok(number)
    }

    /// Takes over the deleted positions of a file; they only grow.
    pub(super) fn set_deleted(&mut self, path: &str, deleted: Arc<RoaringTreemap>) -> Result<()> {
        let number = self.numbers.get(path);
        let Some(live) = number.and_then(|number| self.files.get_mut(number)) else {
            return Err(self.broken(&format!("rows were deleted in {path}, which is not live")));
        };
        self.rows = self.rows.saturating_sub(deleted.len().saturating_sub(live.deleted.len()));
        live.deleted = deleted;
        Ok(())
    }

    /// Drops a file with the rows it has left.
    pub(super) fn remove_file(&mut self, path: &str) -> Result<u32> {
        let number = self.numbers.remove(path);
        let Some((number, live)) = number.and_then(|n| Some((n, self.files.remove(&n)?))) else {
            return Err(self.broken(&format!("{path} was removed, but is not live")));
        };
        self.rows = self.rows.saturating_sub(live.rows());
        self.source_positions.forget(number);
        Ok(number)
    }

    /// Every row that is not deleted has its key in the index, and nothing else has.
    pub(super) fn check_rows(&self) -> Result<()> {
        if !self.is_indexed() || u64::try_from(self.index.len()) == Ok(self.rows) {
            return Ok(());
        }
        let (keys, rows) = (self.index.len(), self.rows);
        Err(self.broken(&format!("the index has {keys} keys, the files have {rows} rows")))
    }

    pub(super) fn broken(&self, what: &str) -> Error {
        Error::internal(format!("table {}: {what}", self.location.url()))
            .hint("the table is read again from its log when it starts again")
    }
}

fn found(rows: &[Option<RowId>]) -> u64 {
    rows.iter().flatten().count() as u64
}
