//! Columns and rows of a data file, fetching only the byte ranges they need.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::copies::CopyOf;
use super::ranges::{Stored, part};
use super::sums::{self, Sums};
use super::{parquet_error, store_error};
use crate::error::{Error, Result};
use crate::metrics;
use crate::schema::{Column, FIELD_ID_KEY};
use crate::sink::storage::Location;
use crate::table::plan::DataFile;

/// Bytes read at the end of a file in the hope that they hold the whole footer.
const FOOTER_BYTES: u64 = 64 * 1024;
/// Rows of a batch that is read.
const BATCH_ROWS: usize = 8192;

type Batches = BoxStream<'static, Result<RecordBatch>>;

/// Reads `columns` of a data file: batches with exactly these columns, in this order and of their types. A column that
/// the file does not have is null.
///
/// Columns are found by field id; by name in a file without ids, as other engines write them.
pub async fn read_columns(
    location: &Location,
    file: &DataFile,
    columns: &[Column],
) -> Result<Batches> {
    let reader = FileReader::open(location, &file.path, file.size).await?;
    let what = format!("cannot read data file {}", location.file_url(&file.path));
    read(reader, what, columns, None).await
}

/// Reads `columns` of the rows at `positions`, which ascend, as [`read_columns`] does, from a copy of the file where the
/// location has one; with the bytes that the store sent for them.
pub async fn read_rows(
    location: &Location,
    file: &DataFile,
    columns: &[Column],
    positions: &[u32],
) -> Result<(Vec<RecordBatch>, u64)> {
    let reader = FileReader::open_for_rows(location, &file.path, file.size).await?;
    let what = format!("cannot read data file {}", location.file_url(&file.path));
    let traffic = Arc::clone(&reader.traffic);
    let batches = read(reader, what, columns, Some(positions)).await?.try_collect().await?;
    let fetched = traffic.fetched.load(Ordering::Relaxed);
    metrics::rows_fetched(fetched);
    metrics::rows_copied(traffic.copied.load(Ordering::Relaxed));
    Ok((batches, fetched))
}

async fn read(
    reader: FileReader,
    what: String,
    columns: &[Column],
    rows: Option<&[u32]>,
) -> Result<Batches> {
    let pages = match rows {
        None => PageIndexPolicy::Skip,
        Some(_) => PageIndexPolicy::Optional,
    };
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(pages);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options)
        .await
        .map_err(|e| parquet_error(what.clone(), e))?;
    let roots: Vec<Option<usize>> =
        columns.iter().map(|column| root_of(builder.schema(), column)).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().flatten().copied());
    let total = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    let mut builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
    if let Some(positions) = rows {
        builder = builder.with_row_selection(selection(positions, total));
    }
    let stream = builder.build().map_err(|e| parquet_error(what.clone(), e))?;
    let shape = Shape::new(columns, &roots);
    let batches = stream.map_err(move |e| parquet_error(what.clone(), e));
    Ok(batches.map(move |batch| shape.fit(&batch?)).boxed())
}

/// The footer of a data file.
pub(super) async fn footer(
    location: &Location,
    path: &str,
    size: u64,
) -> Result<Arc<ParquetMetaData>> {
    let mut reader = FileReader::open(location, path, size).await?;
    reader.get_metadata(None).await.map_err(|e| {
        parquet_error(format!("cannot read the footer of {}", location.file_url(path)), e)
    })
}

/// Reads byte ranges of one file, and checks them where it has checksums.
pub struct FileReader {
    file: Stored,
    size: u64,
    /// The end of the file, with its footer.
    end: Bytes,
    sums: Option<Arc<Sums>>,
    copy: Option<CopyOf>,
    traffic: Arc<Traffic>,
}

/// Bytes that were read.
#[derive(Debug, Default)]
struct Traffic {
    /// From the store.
    fetched: AtomicU64,
    /// From the copy.
    copied: AtomicU64,
}

impl FileReader {
    /// A reader of the file at `path`; its size is asked from the store when it is 0. A data error when its footer is not
    /// the one that was written.
    pub async fn open(location: &Location, path: &str, size: u64) -> Result<Self> {
        let file = stored(location, path);
        Self::open_stored(file, &location.file_url(path), size).await
    }

    /// The same for a few rows of the file, whose copy is read where the location has one.
    async fn open_for_rows(location: &Location, path: &str, size: u64) -> Result<Self> {
        let copies = location.copies().filter(|_| size > 0 && !location.is_a_disk());
        let Some(copies) = copies else { return Self::open(location, path, size).await };
        let url = location.file_url(path);
        let copy = copies.of(url.clone(), size);
        if let Some(copied) = copy.find() {
            match Self::open_stored(copied, &url, size).await {
                Ok(reader) if reader.sums.is_some() => {
                    // No more than the footer, which is checked: the rest of the end may be damaged.
                    let (footer, from) = (reader.footer_from()..size, reader.end_from());
                    let end = part(&reader.end, from, &footer).unwrap_or_default();
                    let copied = AtomicU64::new(reader.traffic.fetched.load(Ordering::Relaxed));
                    let traffic = Arc::new(Traffic { copied, ..Traffic::default() });
                    let (file, copy) = (stored(location, path), Some(copy));
                    return Ok(Self { file, end, copy, traffic, ..reader });
                }
                Ok(_) => copy.damaged("it has no checksums"),
                // The hint is for the table's own file.
                Err(e) => match std::error::Error::source(&e) {
                    Some(cause) => copy.damaged(&cause.to_string()),
                    None => copy.damaged(&e.to_string()),
                },
            }
        }
        let reader = Self::open(location, path, size).await?;
        copy.fetched(reader.traffic.fetched.load(Ordering::Relaxed));
        let copy = reader.sums.is_some().then_some(copy);
        Ok(Self { copy, ..reader })
    }

    /// A reader of `file`, which is at `url`.
    async fn open_stored(file: Stored, url: &str, size: u64) -> Result<Self> {
        let failed = |e| store_error(format!("cannot look at {url}"), e);
        let size = match size {
            0 => file.store.head(&file.path).await.map_err(failed)?.size,
            size => size,
        };
        let (end, traffic) = (Bytes::new(), Arc::default());
        let mut reader = Self { file, size, end, sums: None, copy: None, traffic };
        reader.end = reader.fetch(size.saturating_sub(FOOTER_BYTES)..size).await.map_err(failed)?;
        let footer = sums::footer_bytes(&reader.end).unwrap_or_default();
        if footer > FOOTER_BYTES && footer <= size {
            reader.end = reader.fetch(size - footer..size).await.map_err(failed)?;
        }
        let Some(place) = sums::place(&reader.end) else { return Ok(reader) };
        let damaged = |why| damaged(url, why);
        if place.end > size {
            return Err(damaged("its checksums are not where its footer says"));
        }
        let section = reader.fetch(place.clone()).await.map_err(failed)?;
        let read = Sums::read(&place, &section, &reader.end, reader.end_from());
        reader.sums = Some(Arc::new(read.map_err(damaged)?));
        Ok(reader)
    }

    fn end_from(&self) -> u64 {
        self.size.saturating_sub(u64::try_from(self.end.len()).unwrap_or_default())
    }

    /// What is at `range`, as it is.
    async fn fetch(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        match part(&self.end, self.end_from(), &range) {
            Some(known) => Ok(known),
            None => {
                let found = self.file.store.get_range(&self.file.path, range).await?;
                let bytes = u64::try_from(found.len()).unwrap_or_default();
                self.traffic.fetched.fetch_add(bytes, Ordering::Relaxed);
                Ok(found)
            }
        }
    }

    /// What is at `ranges`, checked where that can be.
    async fn checked(&self, ranges: Vec<Range<u64>>) -> parquet::errors::Result<Vec<Bytes>> {
        let (sums, from) = (self.sums.as_deref(), self.end_from());
        let bytes = self.file.to_fetch(&ranges, sums, from);
        if let Some(copy) = &self.copy
            && let Some(copied) = copy.find_or_make(&self.file, bytes).await
        {
            match copied.read(&ranges, sums, &self.end, from).await {
                Ok(found) => {
                    let bytes = copied.to_fetch(&ranges, sums, from);
                    self.traffic.copied.fetch_add(bytes, Ordering::Relaxed);
                    return Ok(found);
                }
                Err(e) => copy.damaged(&e.to_string()),
            }
        }
        self.traffic.fetched.fetch_add(bytes, Ordering::Relaxed);
        if let Some(copy) = &self.copy {
            copy.fetched(bytes);
        }
        self.file.read(&ranges, sums, &self.end, from).await
    }

    /// Where the footer starts, which was checked when the file was opened.
    fn footer_from(&self) -> u64 {
        self.size.saturating_sub(sums::footer_bytes(&self.end).unwrap_or_default())
    }
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let footer = Some(&range).filter(|range| range.start >= self.footer_from());
            match footer.and_then(|range| part(&self.end, self.end_from(), range)) {
                Some(known) => Ok(known),
                None => self.checked(vec![range]).await?.pop().ok_or_else(|| {
                    ParquetError::General("a range that was asked for was not read".to_owned())
                }),
            }
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.checked(ranges).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        // The footer alone: the page index is read by itself, so that it is checked.
        let footer = usize::try_from(self.size - self.footer_from()).unwrap_or(usize::MAX);
        let reader = ParquetMetaDataReader::new()
            .with_prefetch_hint(Some(footer.min(self.end.len())))
            .with_arrow_reader_options(options);
        async move { Ok(Arc::new(reader.load_and_finish(self, size).await?)) }.boxed()
    }
}

fn stored(location: &Location, path: &str) -> Stored {
    let (store, path) = (Arc::clone(location.store()), location.file(path));
    Stored { store, path, seeks: location.is_a_disk() }
}

/// A file has other bytes than were written.
fn damaged(file: &str, why: &str) -> Error {
    Error::data(format!("{file} is damaged: {why}"))
        .hint("bring the file back from a copy, or make the table anew from a new initial snapshot")
}

fn selection(positions: &[u32], total: usize) -> RowSelection {
    let positions = positions.iter().filter_map(|at| usize::try_from(*at).ok());
    RowSelection::from_consecutive_ranges(positions.map(|at| at..at + 1), total)
}

/// The place of `column` in a file.
fn root_of(file: &SchemaRef, column: &Column) -> Option<usize> {
    let id = |field: &Field| field.metadata().get(FIELD_ID_KEY).cloned();
    let has_ids = file.fields().iter().any(|field| id(field).is_some());
    let wanted = Some(column.id.to_string());
    file.fields().iter().position(|field| match has_ids {
        true => id(field) == wanted,
        false => field.name() == column.stored_name(),
    })
}

/// How a batch as it lies in a file becomes one of the wanted columns.
struct Shape {
    schema: SchemaRef,
    /// For each wanted column its place in the batch read.
    places: Vec<Option<usize>>,
}

impl Shape {
    fn new(columns: &[Column], roots: &[Option<usize>]) -> Self {
        let mut read: Vec<usize> = roots.iter().flatten().copied().collect();
        read.sort_unstable();
        read.dedup();
        let places = roots.iter().map(|root| read.binary_search(root.as_ref()?).ok()).collect();
        let fields = columns.iter().map(|c| Field::new(&c.name, c.ty.arrow(), true));
        Self { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())), places }
    }

    fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns =
            self.schema.fields().iter().zip(&self.places).map(|(field, place)| {
                match place.and_then(|at| batch.columns().get(at)) {
                    Some(values) => convert(values, field),
                    None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                }
            });
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns.collect::<Result<_>>()?,
            &rows,
        )
        .map_err(|e| Error::internal("columns read do not fit the schema").because(e))
    }
}

/// The values in the table's type: a column may have been widened since, and other engines store some types otherwise.
fn convert(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if values.data_type() == field.data_type() {
        return Ok(Arc::clone(values));
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(values, field.data_type(), &exact).map_err(|e| {
        let (name, ty) = (field.name(), field.data_type());
        Error::data(format!("a data file stores column {name} in a type that is not {ty}"))
            .because(e)
    })
}
