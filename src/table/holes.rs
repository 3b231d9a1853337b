//! Values that a batch takes over from the table's present rows, read by position.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{concat_batches, interleave};
use futures::stream::{StreamExt, TryStreamExt};

use super::files::{Rows, read_columns};
use super::index::RowId;
use crate::change::{Batch, Hole};
use crate::error::{Error, Result};
use crate::schema::Column;
use crate::sink::storage::Location;
use crate::table::plan::LiveFile;

/// Files read at once.
const CONCURRENT_READS: usize = 8;

/// What is needed of one file.
#[derive(Default)]
struct Wanted {
    rows: BTreeSet<u32>,
    columns: BTreeSet<usize>,
}

/// What was read of one file: `values` has the wanted columns and rows in ascending order.
struct Found {
    rows: Vec<u32>,
    columns: Vec<usize>,
    values: RecordBatch,
}

/// The batch's rows with every hole filled that has a source. `sources` tells for each hole which row it comes from;
/// a hole without one stays null, which only a nullable column can be.
pub(super) async fn fill<'a>(
    location: &Location,
    file: impl Fn(u32) -> Option<&'a LiveFile>,
    batch: &Batch,
    sources: &[Option<RowId>],
) -> Result<RecordBatch> {
    if batch.holes.is_empty() {
        return Ok(batch.rows.clone());
    }
    let mut wanted: BTreeMap<u32, Wanted> = BTreeMap::new();
    for hole in batch.unfilled(sources.iter().map(Option::is_some)) {
        check(batch, hole)?;
    }
    for (hole, source) in batch.holes.iter().zip(sources) {
        if let Some(source) = source {
            let wanted = wanted.entry(source.file).or_default();
            wanted.rows.insert(source.row);
            wanted.columns.insert(hole.column);
        }
    }
    let reads = wanted.into_iter().map(|(number, wanted)| {
        let live = file(number).map(|live| Arc::clone(&live.file));
        async move {
            let live =
                live.ok_or_else(|| Error::internal("the index names a file that is gone"))?;
            let rows: Vec<u32> = wanted.rows.into_iter().collect();
            let columns: Vec<usize> = wanted.columns.into_iter().collect();
            let fields: Vec<Column> =
                columns.iter().filter_map(|at| batch.schema.columns().get(*at)).cloned().collect();
            let mut values = read_columns(location, &live, &fields, Rows::At(&rows)).await?;
            let mut batches = Vec::new();
            while let Some(batch) = values.try_next().await? {
                batches.push(batch);
            }
            let values = concat(&batches, rows.len(), &live.path)?;
            Ok::<_, Error>((number, Found { rows, columns, values }))
        }
    });
    let found: BTreeMap<u32, Found> =
        futures::stream::iter(reads).buffer_unordered(CONCURRENT_READS).try_collect().await?;
    put_in(batch, sources, &found)
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

fn put_in(
    batch: &Batch,
    sources: &[Option<RowId>],
    found: &BTreeMap<u32, Found>,
) -> Result<RecordBatch> {
    let holes: BTreeSet<usize> = batch.holes.iter().map(|hole| hole.column).collect();
    let mut columns = batch.rows.columns().to_vec();
    for at in holes {
        let Some(original) = columns.get_mut(at) else { continue };
        let mut arrays: Vec<&dyn Array> = vec![original.as_ref()];
        let mut picks: Vec<(usize, usize)> =
            (0..batch.rows.num_rows()).map(|row| (0, row)).collect();
        let mut numbers = BTreeMap::new();
        for (number, found) in found {
            if let Ok(place) = found.columns.binary_search(&at) {
                numbers.insert(*number, (arrays.len(), found));
                arrays.push(found.values.column(place).as_ref());
            }
        }
        for (hole, source) in batch.holes.iter().zip(sources).filter(|(hole, _)| hole.column == at)
        {
            let Some(source) = source else { continue };
            let place = numbers.get(&source.file).and_then(|(array, found)| {
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
    RecordBatch::try_new(batch.rows.schema(), columns)
        .map_err(|e| Error::internal("filled rows do not fit their schema").because(e))
}
