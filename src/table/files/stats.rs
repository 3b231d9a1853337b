//! A Parquet footer to the statistics that table formats want.
//!
//! A bound that cannot be trusted is left out: a reader skips files by bounds, and a wrong one loses rows.

use std::collections::{BTreeMap, BTreeSet};

use parquet::basic::{LogicalType, TimeUnit, Type as PhysicalType};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use crate::schema::{ColumnType, TableSchema};
use crate::table::plan::{ColumnStats, Scalar};

/// Statistics by field id of the leaf columns that `schema` has. Floats get bounds only when their id is in `no_nan`:
/// Parquet's bounds pass over NaN, and formats disagree about where it sorts.
pub(super) fn column_stats(
    metadata: &ParquetMetaData,
    schema: &TableSchema,
    no_nan: &BTreeSet<i32>,
) -> BTreeMap<i32, ColumnStats> {
    let mut stats = BTreeMap::new();
    for at in 0..metadata.file_metadata().schema_descr().num_columns() {
        let descriptor = metadata.file_metadata().schema_descr().column(at);
        let Some((id, ty)) = leaf_of(&descriptor, schema) else { continue };
        let chunks = metadata.row_groups().iter().filter_map(|group| group.columns().get(at));
        if let Some(mut column) = merge(chunks, ty) {
            if matches!(ty, ColumnType::Float32 | ColumnType::Float64) && !no_nan.contains(&id) {
                (column.min, column.max) = (None, None);
            }
            stats.insert(id, column);
        }
    }
    stats
}

/// Where row groups start.
pub(super) fn split_offsets(metadata: &ParquetMetaData) -> Vec<i64> {
    let starts = metadata.row_groups().iter().filter_map(|group| group.columns().first());
    starts
        .map(|chunk| chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset()))
        .collect()
}

/// The id and type of the table's leaf that a file's column is: by field id, by name in files that have no ids.
fn leaf_of<'a>(file: &ColumnDescriptor, schema: &'a TableSchema) -> Option<(i32, &'a ColumnType)> {
    let info = file.self_type().get_basic_info();
    let root = file.path().parts().first()?;
    schema
        .columns()
        .iter()
        .map(|column| (column, leaf(column.id, &column.ty)))
        .find(|(column, (id, _))| match info.has_id() {
            true => info.id() == *id,
            false => column.stored_name() == root,
        })
        .map(|(_, leaf)| leaf)
}

/// The id and type of a column's leaf: its own, or those of a list's element.
pub(super) fn leaf(id: i32, ty: &ColumnType) -> (i32, &ColumnType) {
    match ty {
        ColumnType::List(element) => leaf(element.id, &element.ty),
        other => (id, other),
    }
}

/// None when a row group does not count its nulls.
fn merge<'a>(
    chunks: impl Iterator<Item = &'a ColumnChunkMetaData>,
    ty: &ColumnType,
) -> Option<ColumnStats> {
    let mut total = ColumnStats::default();
    let (mut min_known, mut max_known) = (true, true);
    for chunk in chunks {
        let statistics = chunk.statistics()?;
        let nulls = statistics.null_count_opt()?;
        let values = u64::try_from(chunk.num_values()).ok()?;
        total.compressed_bytes += u64::try_from(chunk.compressed_size()).ok()?;
        total.values += values;
        total.nulls += nulls;
        if nulls < values {
            let (min, max) = bounds(statistics, chunk.column_descr(), ty);
            min_known &= min.is_some();
            max_known &= max.is_some();
            total.min = pick(total.min.take(), min, |a, b| a <= b);
            total.max = pick(total.max.take(), max, |a, b| a >= b);
        }
    }
    total.min = total.min.filter(|_| min_known);
    total.max = total.max.filter(|_| max_known);
    Some(total)
}

fn pick(
    a: Option<Scalar>,
    b: Option<Scalar>,
    first: impl Fn(&Scalar, &Scalar) -> bool,
) -> Option<Scalar> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if first(&a, &b) { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn bounds(
    statistics: &Statistics,
    file: &ColumnDescriptor,
    ty: &ColumnType,
) -> (Option<Scalar>, Option<Scalar>) {
    let none = (None, None);
    match (statistics, ty) {
        (Statistics::Boolean(s), ColumnType::Boolean) => {
            (s.min_opt().copied().map(Scalar::Boolean), s.max_opt().copied().map(Scalar::Boolean))
        }
        (_, ColumnType::Decimal { scale, .. }) if file.type_scale() == i32::from(*scale) => {
            (decimal(statistics.min_bytes_opt(), file), decimal(statistics.max_bytes_opt(), file))
        }
        (Statistics::Int32(s), ColumnType::Int32 | ColumnType::Int64 | ColumnType::Date) => {
            let int = |value: &i32| Scalar::Int(i64::from(*value));
            (s.min_opt().map(int), s.max_opt().map(int))
        }
        (Statistics::Int64(s), ColumnType::Int64) => {
            (s.min_opt().copied().map(Scalar::Int), s.max_opt().copied().map(Scalar::Int))
        }
        (
            Statistics::Int64(s),
            ColumnType::Time | ColumnType::Timestamp | ColumnType::TimestampTz,
        ) if is_micros(file) => {
            (s.min_opt().copied().map(Scalar::Int), s.max_opt().copied().map(Scalar::Int))
        }
        (Statistics::Float(s), ColumnType::Float32 | ColumnType::Float64) => {
            let float = |value: &f32| Scalar::Float(f64::from(*value));
            (s.min_opt().map(float), s.max_opt().map(float))
        }
        (Statistics::Double(s), ColumnType::Float64) => {
            (s.min_opt().copied().map(Scalar::Float), s.max_opt().copied().map(Scalar::Float))
        }
        // The deprecated fields of a footer compare texts and bytes as signed bytes.
        (_, ColumnType::String | ColumnType::Binary) if statistics.is_min_max_deprecated() => none,
        (Statistics::ByteArray(_), ColumnType::String) => {
            (text(statistics.min_bytes_opt()), text(statistics.max_bytes_opt()))
        }
        (Statistics::ByteArray(_), ColumnType::Binary) => {
            let bytes = |value: &[u8]| Scalar::Binary(value.to_vec());
            (statistics.min_bytes_opt().map(bytes), statistics.max_bytes_opt().map(bytes))
        }
        _ => none,
    }
}

fn text(value: Option<&[u8]>) -> Option<Scalar> {
    std::str::from_utf8(value?).ok().map(|text| Scalar::String(text.to_owned()))
}

/// A decimal lies in a footer as a little-endian integer, or as big-endian bytes when its digits need more.
fn decimal(value: Option<&[u8]>, file: &ColumnDescriptor) -> Option<Scalar> {
    let value = value?;
    Some(Scalar::Decimal(match file.physical_type() {
        PhysicalType::INT32 => i128::from(i32::from_le_bytes(value.try_into().ok()?)),
        PhysicalType::INT64 => i128::from(i64::from_le_bytes(value.try_into().ok()?)),
        PhysicalType::FIXED_LEN_BYTE_ARRAY => {
            let sign = if value.first()? & 0x80 == 0 { 0 } else { 0xFF };
            let mut bytes = [sign; 16];
            bytes.get_mut(16_usize.checked_sub(value.len())?..)?.copy_from_slice(value);
            i128::from_be_bytes(bytes)
        }
        _ => return None,
    }))
}

fn is_micros(file: &ColumnDescriptor) -> bool {
    match file.logical_type_ref() {
        Some(LogicalType::Timestamp(ty)) => ty.unit == TimeUnit::MICROS,
        Some(LogicalType::Time(ty)) => ty.unit == TimeUnit::MICROS,
        _ => false,
    }
}
