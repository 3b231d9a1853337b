//! Data files: rows to a Parquet file in the store and what the formats want to know of it; columns and rows back.

mod copies;
mod encode;
mod ranges;
mod read;
mod stats;
pub(crate) mod sums;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use object_store::{ObjectStoreExt, PutPayload};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

pub use copies::Copies;
pub use read::{FileReader, read_columns, read_rows};

use crate::error::{Error, Kind, Result};
use crate::schema::TableSchema;
use crate::sink::storage::Location;
use crate::table::plan::{DataFile, Scalar};

/// The folder of data files below a table's root.
pub const DATA_FOLDER: &str = "data";

/// Where a new data file lies and what partition it belongs to.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The partition's folders below [`DATA_FOLDER`], each `name=value`.
    pub folders: Vec<String>,
    /// Values of the partition fields.
    pub partition: Vec<Option<Scalar>>,
}

/// Writes `rows`, which have the columns of `schema`, as one new data file. Encoding runs on a blocking thread.
pub async fn write(
    location: &Location,
    schema: &TableSchema,
    place: Place,
    rows: RecordBatch,
    packed_integers: bool,
) -> Result<DataFile> {
    let name = format!("part-{}.parquet", location.new_name());
    let no_nan = columns_without_nan(&rows, schema);
    let rows = stored(rows, schema)?;
    let encoding = tokio::task::spawn_blocking(move || encode::encode(&rows, packed_integers));
    let encoded = encoding
        .await
        .map_err(|e| Error::internal("encoding a data file was cut off").because(e))??;
    let folders = std::iter::once(DATA_FOLDER).chain(place.folders.iter().map(String::as_str));
    let path = folders.chain([name.as_str()]).collect::<Vec<_>>().join("/");
    let size = encoded.bytes.len();
    location
        .store()
        .put(&location.file(&path), PutPayload::from(encoded.bytes))
        .await
        .map_err(|e| store_error(format!("cannot write {}", location.file_url(&path)), e))?;
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    Ok(DataFile {
        partition: place.partition,
        ..describe(&encoded.metadata, schema, path, size, &no_nan)?
    })
}

/// The rows under the names that data files have for their columns.
fn stored(rows: RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    if !schema.is_mapped() {
        return Ok(rows);
    }
    RecordBatch::try_new(schema.stored_arrow(), rows.columns().to_vec())
        .map_err(|e| Error::internal("rows do not fit their schema").because(e))
}

/// What the footer of the data file at `path` says of it; the partition is left empty. `size` is asked from the store
/// when it is 0.
pub async fn read_footer(
    location: &Location,
    schema: &TableSchema,
    path: &str,
    size: u64,
) -> Result<DataFile> {
    let failed = |e| store_error(format!("cannot look at {}", location.file_url(path)), e);
    let size = match size {
        0 => location.store().head(&location.file(path)).await.map_err(failed)?.size,
        size => size,
    };
    let metadata = read::footer(location, path, size).await?;
    describe(&metadata, schema, path.to_owned(), size, &BTreeSet::new())
}

fn describe(
    metadata: &ParquetMetaData,
    schema: &TableSchema,
    path: String,
    size: u64,
    no_nan: &BTreeSet<i32>,
) -> Result<DataFile> {
    let rows = u64::try_from(metadata.file_metadata().num_rows())
        .map_err(|_| Error::data(format!("data file {path} states a negative number of rows")))?;
    Ok(DataFile {
        size,
        rows,
        partition: Vec::new(),
        stats: stats::column_stats(metadata, schema, no_nan),
        split_offsets: stats::split_offsets(metadata),
        path,
    })
}

/// Ids of the float leaves that hold no NaN.
fn columns_without_nan(rows: &RecordBatch, schema: &TableSchema) -> BTreeSet<i32> {
    let fields = rows.schema_ref().fields().iter().zip(rows.columns()).zip(schema.columns());
    fields
        .filter_map(|((field, values), column)| {
            let (_, values) = encode::leaf(field, values);
            let has_nan = match values.data_type() {
                DataType::Float32 => {
                    values.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan())
                }
                DataType::Float64 => {
                    values.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan())
                }
                _ => return None,
            };
            (!has_nan).then_some(stats::leaf(column.id, &column.ty).0)
        })
        .collect()
}

/// An error of the object store, by what the caller can do about it.
pub(super) fn store_error(what: String, error: object_store::Error) -> Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => Kind::Data,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => Kind::Refused,
        _ => Kind::Unavailable,
    };
    Error::new(kind, what).because(error)
}

/// An error of reading a Parquet file: the store's own when it was the store.
pub fn parquet_error(what: String, error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<object_store::Error>() {
            Ok(cause) => store_error(what, *cause),
            Err(cause) => Error::unavailable(what).because(cause),
        },
        error => Error::data(what).because(error),
    }
}
