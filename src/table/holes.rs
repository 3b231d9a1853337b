//! Values that a batch takes over from rows that the table has, or had until the key of one was changed, read by position.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{concat_batches, interleave};
use hashbrown::HashMap;
use object_store::ObjectStoreExt;
use tokio::task::JoinSet;

use super::files::{read_rows, store_error};
use super::index::RowId;
use super::notes::NotedRow;
use super::physical::Table;
use super::plan::DataFile;
use crate::change::{Batch, Hole, KeyChange, Origin};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::row_source::{self, RowSource};
use crate::schema::{Column, PARTITION_COLUMN, SOURCE_COLUMN, TableSchema};
use crate::sink::storage::Location;

/// Files read at once.
const CONCURRENT_READS: usize = 8;
/// Bytes that a store far away sends for the values of one batch, of which it is said once that copies spare them.
const MUCH: u64 = 100 * 1024 * 1024;

/// The row that a hole is filled from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) file: Arc<DataFile>,
    pub(super) row: u32,
}

impl PartialEq for Source {
    /// A row stays where it is; how much is known of its file does not matter.
    fn eq(&self, other: &Self) -> bool {
        (&self.file.path, self.row) == (&other.file.path, other.row)
    }
}

/// What is needed of one file.
struct Wanted {
    file: Arc<DataFile>,
    rows: BTreeSet<u32>,
    columns: BTreeSet<usize>,
}

impl Wanted {
    fn of(file: &Arc<DataFile>) -> Self {
        Self { file: Arc::clone(file), rows: BTreeSet::new(), columns: BTreeSet::new() }
    }
}

/// What was read of one file: `values` has the wanted columns and rows in ascending order.
struct Found {
    rows: Vec<u32>,
    columns: Vec<usize>,
    values: RecordBatch,
    /// Bytes that the store sent.
    fetched: u64,
}

impl Table {
    /// The row that each hole of `batch` is filled from; none where there is no such row.
    pub(super) async fn sources(&self, batch: &Batch) -> Result<Vec<Option<Source>>> {
        let mut departed: HashMap<KeyChange, Option<Source>> = HashMap::new();
        let mut files: HashMap<&str, Option<Arc<DataFile>>> = HashMap::new();
        let mut sources = Vec::with_capacity(batch.holes.len());
        for hole in &batch.holes {
            sources.push(match hole.from {
                Origin::Row(key) => self.row(batch, &key)?,
                Origin::Departed(key_change) => match departed.get(&key_change) {
                    Some(known) => known.clone(),
                    None => {
                        let noted = self.notes.get(key_change).and_then(|note| note.row.as_ref());
                        let source = match noted {
                            Some(noted) => self.noted(noted, &mut files).await?,
                            None => None,
                        };
                        departed.entry(key_change).or_insert(source).clone()
                    }
                },
            });
        }
        self.tell_apart(batch, &mut sources).await?;
        Ok(sources)
    }

    /// Takes out the rows that are not those that their holes mean ([`Batch::is_of_another_row`]).
    async fn tell_apart(&self, batch: &Batch, sources: &mut [Option<Source>]) -> Result<()> {
        let mut asked: BTreeMap<&str, (Arc<DataFile>, BTreeSet<u32>)> = BTreeMap::new();
        for (hole, source) in batch.holes.iter().zip(&*sources) {
            if let Some(Source { file, row }) =
                source.as_ref().filter(|_| batch.may_be_of_another_row(hole))
            {
                let of_file = || (Arc::clone(file), BTreeSet::new());
                asked.entry(&file.path).or_insert_with(of_file).1.insert(*row);
            }
        }
        let asked = asked.into_values().map(|(file, rows)| (file, rows.into_iter().collect()));
        let told = self.told(asked.collect()).await?;
        for (hole, source) in batch.holes.iter().zip(sources) {
            let row = |source: &Source| told.get(&source.file.path)?.get(&source.row);
            let is_another = |row: &RowSource| batch.is_of_another_row(hole, &row.last);
            if source.as_ref().and_then(row).is_some_and(is_another) {
                *source = None;
            }
        }
        Ok(())
    }

    /// The row of a key at the start of the batch; none after a truncate.
    pub(super) fn row(&self, batch: &Batch, key: &Key) -> Result<Option<Source>> {
        let found = self.index.get(key).filter(|_| !batch.truncates);
        let Some(RowId { file, row }) = found else { return Ok(None) };
        let live = self.files.get(&file);
        let live = live.ok_or_else(|| self.broken("the index names a file that is gone"))?;
        Ok(Some(Source { file: Arc::clone(&live.file), row }))
    }

    /// A noted row, unless its file was removed from the store meanwhile. `files` are those looked for already.
    async fn noted<'a>(
        &'a self,
        NotedRow { path, row }: &'a NotedRow,
        files: &mut HashMap<&'a str, Option<Arc<DataFile>>>,
    ) -> Result<Option<Source>> {
        let number = self.numbers.get(path);
        let file = match number.and_then(|number| self.files.get(number)) {
            Some(live) => Some(Arc::clone(&live.file)),
            None => match files.get(path.as_str()) {
                Some(known) => known.clone(),
                None => {
                    let found = self.stored(path).await?.map(Arc::new);
                    files.entry(path).or_insert(found).clone()
                }
            },
        };
        Ok(file.map(|file| Source { file, row: *row }))
    }

    /// A data file that is no part of the table any more; none when the store does not have it.
    async fn stored(&self, path: &str) -> Result<Option<DataFile>> {
        match self.location.store().head(&self.location.file(path)).await {
            Ok(meta) => Ok(Some(DataFile::bare(path, meta.size))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => {
                Err(store_error(format!("cannot look at {}", self.location.file_url(path)), e))
            }
        }
    }

    /// The batch's rows with every hole filled that has a source. `sources` tells for each hole which row it comes from;
    /// a hole without one stays null, which only a nullable column can be.
    pub(super) async fn fill<'a>(
        &self,
        batch: &Batch,
        sources: &'a [Option<Source>],
    ) -> Result<RecordBatch> {
        if batch.holes.is_empty() {
            return Ok(batch.rows.clone());
        }
        let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
        for hole in batch.unfilled(sources.iter().map(Option::is_some)) {
            check(batch, hole)?;
        }
        let is_traced = batch.schema.is_traced();
        let told = if is_traced { row_source::read(&batch.rows) } else { Vec::new() };
        // What tells where rows' values come from.
        let telling = [PARTITION_COLUMN, SOURCE_COLUMN].map(|name| batch.schema.index_of(name));
        let may_count = |(hole, source): (&Hole, &'a Option<Source>)| {
            source.as_ref().filter(|source| !self.is_overtaken(hole, source, &told, batch))
        };
        let sources: Vec<Option<&Source>> =
            batch.holes.iter().zip(sources).map(may_count).collect();
        for (hole, source) in batch.holes.iter().zip(&sources) {
            if let Some(Source { file, row }) = source {
                let wanted = wanted.entry(&file.path).or_insert_with(|| Wanted::of(file));
                wanted.rows.insert(*row);
                wanted.columns.insert(hole.column);
                wanted.columns.extend(telling.into_iter().flatten().filter(|_| is_traced));
            }
        }
        let mut waiting = wanted.into_values();
        let (mut tasks, mut found) = (JoinSet::new(), BTreeMap::new());
        loop {
            while tasks.len() < CONCURRENT_READS
                && let Some(wanted) = waiting.next()
            {
                // Tasks of their own: what is read is decompressed, which one processor alone takes long for.
                tasks.spawn(read(self.location.clone(), Arc::clone(&batch.schema), wanted));
            }
            let Some(read) = tasks.join_next().await else { break };
            let read = read.map_err(|e| Error::internal("a reader was cut off").because(e))?;
            let (path, values) = read?;
            found.insert(path, values);
        }
        self.advise(found.values().map(|found| found.fetched).sum());
        let (rows, sources) = match is_traced {
            true => settle(batch, told, sources, &found)?,
            false => (batch.rows.clone(), sources),
        };
        put_in(batch, &rows, &sources, &found)
    }

    /// True when the batch's own value for a hole is later than any of its row in the table: the row's last change came
    /// earlier in the same partition. Nothing is read for that.
    fn is_overtaken(
        &self,
        hole: &Hole,
        source: &Source,
        told: &[RowSource],
        batch: &Batch,
    ) -> bool {
        let partition = || {
            let number = self.numbers.get(&source.file.path)?;
            self.source_positions.partition(*number, source.row)
        };
        let giver = || {
            let column = batch.schema.columns().get(hole.column)?;
            Some(told.get(hole.row)?.giver(column.id)?.partition)
        };
        // What an amended row has is not of this batch.
        let is_amended =
            || batch.keys.get(hole.row).is_some_and(|key| batch.amended.contains_key(key));
        hole.own.is_contested()
            && !is_amended()
            && giver().is_some_and(|giver| partition() == Some(giver))
    }

    /// Says once what spares a store far away from sending as much as `fetched` bytes for a batch.
    fn advise(&self, fetched: u64) {
        if fetched > MUCH && self.location.copies().is_none() && !self.location.is_a_disk() {
            self.advised.call_once(|| {
                let (table, size) = (self.location.url(), bytesize::ByteSize(fetched));
                tracing::info!(%table, "{size} were fetched for values that one batch left out; option copies keeps them on a local disk");
            });
        }
    }
}

/// Reads what is wanted of one file.
async fn read(
    location: Location,
    schema: Arc<TableSchema>,
    wanted: Wanted,
) -> Result<(String, Found)> {
    let rows: Vec<u32> = wanted.rows.into_iter().collect();
    let columns: Vec<usize> = wanted.columns.into_iter().collect();
    let fields = columns.iter().filter_map(|at| schema.columns().get(*at)).cloned();
    let fields: Vec<Column> = fields.collect();
    let (batches, fetched) = read_rows(&location, &wanted.file, &fields, &rows).await?;
    let path = wanted.file.path.clone();
    let values = concat(&batches, rows.len(), &path)?;
    Ok((path, Found { rows, columns, values, fetched }))
}

/// Fails when a hole that stays null must not.
fn check(batch: &Batch, hole: &Hole) -> Result<()> {
    let column = batch.schema.columns().get(hole.column);
    let column = column.filter(|_| hole.row < batch.rows.num_rows()).ok_or_else(|| {
        Error::internal(format!("batch {} names a hole outside of its rows", batch.id))
    })?;
    if column.nullable {
        return Ok(());
    }
    Err(Error::data(format!(
        "a change left out column {}, which cannot be null, and its row is not in the table",
        column.name
    )))
}

fn concat(batches: &[RecordBatch], rows: usize, path: &str) -> Result<RecordBatch> {
    let damaged = || Error::data(format!("data file {path} does not have the rows it should have"));
    let schema = batches.first().ok_or_else(damaged)?.schema();
    let all = concat_batches(&schema, batches)
        .map_err(|e| Error::internal("cannot put rows together").because(e))?;
    if all.num_rows() == rows { Ok(all) } else { Err(damaged()) }
}

/// Which holes get the value of their source, and the batch's rows, which told `told` before, as they tell it then.
fn settle<'a>(
    batch: &Batch,
    mut told: Vec<RowSource>,
    mut sources: Vec<Option<&'a Source>>,
    found: &BTreeMap<String, Found>,
) -> Result<(RecordBatch, Vec<Option<&'a Source>>)> {
    let there: HashMap<&str, Vec<RowSource>> = found
        .iter()
        .map(|(path, found)| (path.as_str(), row_source::read(&found.values)))
        .collect();
    for (hole, chosen) in batch.holes.iter().zip(&mut sources) {
        let (Some(source), Some(own)) = (*chosen, told.get_mut(hole.row)) else { continue };
        let path = source.file.path.as_str();
        let place = found.get(path).and_then(|found| found.rows.binary_search(&source.row).ok());
        let theirs = place.and_then(|place| there.get(path)?.get(place));
        let id = batch.schema.columns().get(hole.column).map(|column| column.id);
        let (Some(theirs), Some(id)) = (theirs, id) else { continue };
        if hole.own.is_contested() && !theirs.has_later(id, own) {
            *chosen = None;
        } else if let Some(giver) = own.left_out.get_mut(&id) {
            *giver = theirs.giver(id).cloned();
        }
    }
    Ok((row_source::write(&batch.rows, &told)?, sources))
}

fn put_in(
    batch: &Batch,
    rows: &RecordBatch,
    sources: &[Option<&Source>],
    found: &BTreeMap<String, Found>,
) -> Result<RecordBatch> {
    let holes: BTreeSet<usize> = batch.holes.iter().map(|hole| hole.column).collect();
    let mut columns = rows.columns().to_vec();
    for at in holes {
        let Some(original) = columns.get_mut(at) else { continue };
        let mut arrays: Vec<&dyn Array> = vec![original.as_ref()];
        let mut picks: Vec<(usize, usize)> = (0..rows.num_rows()).map(|row| (0, row)).collect();
        let mut numbers = BTreeMap::new();
        for (path, found) in found {
            if let Ok(place) = found.columns.binary_search(&at) {
                numbers.insert(path.as_str(), (arrays.len(), found));
                arrays.push(found.values.column(place).as_ref());
            }
        }
        for (hole, source) in batch.holes.iter().zip(sources).filter(|(hole, _)| hole.column == at)
        {
            let Some(source) = source else { continue };
            let place = numbers.get(source.file.path.as_str()).and_then(|(array, found)| {
                Some((*array, found.rows.binary_search(&source.row).ok()?))
            });
            if let (Some(place), Some(pick)) = (place, picks.get_mut(hole.row)) {
                *pick = place;
            }
        }
        let filled = interleave(&arrays, &picks)
            .map_err(|e| Error::internal("cannot fill in values of the table").because(e))?;
        *original = filled;
    }
    RecordBatch::try_new(rows.schema(), columns)
        .map_err(|e| Error::internal("filled rows do not fit their schema").because(e))
}
