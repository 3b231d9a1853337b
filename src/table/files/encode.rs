//! Rows to the bytes of a Parquet file.
//!
//! The encodings are chosen per file from the rows themselves: a dictionary only where values repeat (elsewhere it costs
//! time and is thrown away), and delta packing of integers where every reader of the table can read it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashSet;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::sums;
use crate::error::{Error, Result};

/// Values of a column that are looked at to tell whether a dictionary pays.
const SAMPLE: usize = 1024;
/// A dictionary pays when a value of the sample comes this often on average.
const REPEATS: usize = 4;
/// Bounds in the footer keep this many bytes of texts and bytes, as Iceberg's default metrics mode does.
const BOUND_BYTES: usize = 16;
/// A column of values this large on average has small pages: an update may leave such a value out, and then it is read
/// from the table, together with its page.
const LARGE_VALUE_BYTES: usize = 1024;
/// A page of such a column.
const SMALL_PAGE_BYTES: usize = 8 * 1024;
/// Rows of a row group: readers split files there, and it bounds what a reader holds at once.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// A Parquet file in memory.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its footer.
    pub metadata: ParquetMetaData,
}

/// Encodes `rows`. `packed_integers`: see [`crate::table::physical::Options`].
pub(super) fn encode(rows: &RecordBatch, packed_integers: bool) -> Result<Encoded> {
    let failed = |e| Error::internal("cannot encode rows as parquet").because(e);
    // The Arrow schema in the footer would only repeat what the Parquet schema says.
    let options = ArrowWriterOptions::new()
        .with_properties(properties(rows, packed_integers)?)
        .with_skip_arrow_metadata(true);
    let capacity = rows.get_array_memory_size() / 4;
    let mut writer =
        ArrowWriter::try_new_with_options(Vec::with_capacity(capacity), rows.schema(), options)
            .map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    let (bytes, metadata) = sums::finish(writer).map_err(failed)?;
    Ok(Encoded { bytes, metadata })
}

fn properties(rows: &RecordBatch, packed_integers: bool) -> Result<WriterProperties> {
    let zstd =
        ZstdLevel::try_new(1).map_err(|e| Error::internal("zstd has no level 1").because(e))?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("cdc-sink version ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(zstd))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(BOUND_BYTES))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for (field, values) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let (path, values) = leaf(field, values);
        properties = encoding(properties, path, &values, packed_integers)?;
    }
    Ok(properties.build())
}

fn encoding(
    properties: WriterPropertiesBuilder,
    path: ColumnPath,
    values: &ArrayRef,
    packed_integers: bool,
) -> Result<WriterPropertiesBuilder> {
    let integer = matches!(
        values.data_type(),
        DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
    );
    let properties = match mean_bytes(values) >= LARGE_VALUE_BYTES {
        true => properties.set_column_data_page_size_limit(path.clone(), SMALL_PAGE_BYTES),
        false => properties,
    };
    Ok(if repeats(values)? {
        properties.set_column_dictionary_enabled(path, true)
    } else if integer && packed_integers {
        properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
    } else {
        properties
    })
}

/// The path and the values of a column's leaf: its own, or those of a list's elements.
pub(super) fn leaf(field: &Field, values: &ArrayRef) -> (ColumnPath, ArrayRef) {
    let mut path = vec![field.name().clone()];
    let mut values = ArrayRef::clone(values);
    while let Some(list) = values.as_list_opt::<i32>() {
        path.push("list".to_owned());
        if let DataType::List(element) = list.data_type() {
            path.push(element.name().clone());
        }
        values = ArrayRef::clone(list.values());
    }
    (ColumnPath::new(path), values)
}

/// Bytes of a text or of bytes, on average.
fn mean_bytes(values: &ArrayRef) -> usize {
    let offsets = match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().offsets(),
        DataType::Binary => values.as_binary::<i32>().offsets(),
        _ => return 0,
    };
    let bytes = offsets.last().zip(offsets.first()).map_or(0, |(end, start)| end - start);
    usize::try_from(bytes).unwrap_or_default() / (values.len() - values.null_count()).max(1)
}

/// True when an even sample of the values has few distinct ones.
fn repeats(values: &ArrayRef) -> Result<bool> {
    if matches!(values.data_type(), DataType::Boolean) || values.is_empty() {
        return Ok(false);
    }
    let failed = |e| Error::internal("cannot sample a column").because(e);
    let step = (values.len() / SAMPLE).max(1);
    let sample: UInt32Array =
        (0..values.len()).step_by(step).filter_map(|at| u32::try_from(at).ok()).collect();
    let sample = take(values, &sample, None).map_err(failed)?;
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())]);
    let rows = converter.and_then(|c| c.convert_columns(&[sample])).map_err(failed)?;
    let distinct: HashSet<&[u8]> = rows.iter().map(|row| row.data()).collect();
    Ok(distinct.len() * REPEATS <= rows.num_rows())
}
