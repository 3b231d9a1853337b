//! Delete files: which rows of a data file are gone. Always the complete set of one data file, replaced as a whole.
//!
//! Format 3 has one deletion vector in a Puffin file of its own (a Puffin shared by several data files cannot be
//! dropped when one of them changes, and some readers take all its vectors for one). Format 2 has a Parquet
//! file of positions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, FormatVersion, Struct,
};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use roaring::RoaringTreemap;
use serde_json::json;

use crate::error::{Error, Result};
use crate::schema::FIELD_ID_KEY;
use crate::table::bitmap;
use crate::table::files::sums;

/// Reserved field ids of position delete files (Iceberg specification, "Reserved Field IDs").
const PATH_FIELD: i32 = 2_147_483_546;
const POSITION_FIELD: i32 = 2_147_483_545;
/// Reserved field id of the row position, which a Puffin names as what its vector is about.
const ROW_POSITION_FIELD: i32 = 2_147_483_645;

const PUFFIN_MAGIC: &[u8] = b"PFA1";
/// Rows put into a position delete file at a time: the path is repeated for each.
const ROWS_AT_A_TIME: usize = 8192;

/// The data file that deletes are about.
pub(super) struct Target<'a> {
    /// Its path as metadata has it.
    pub(super) path: &'a str,
    pub(super) partition: Struct,
    pub(super) spec_id: i32,
}

/// The ending of a delete file's name.
pub(super) fn suffix(version: FormatVersion) -> &'static str {
    if version >= FormatVersion::V3 { "deletes.puffin" } else { "deletes.parquet" }
}

/// A delete file to be written at `path`, and how a manifest describes it.
pub(super) fn encode(
    version: FormatVersion,
    path: String,
    target: &Target<'_>,
    deleted: &RoaringTreemap,
) -> Result<(DataFile, Bytes)> {
    let mut file = DataFileBuilder::default();
    file.content(DataContentType::PositionDeletes)
        .file_path(path)
        .partition(target.partition.clone())
        .partition_spec_id(target.spec_id)
        .record_count(deleted.len())
        .referenced_data_file(Some(target.path.to_owned()));
    let bytes = if version >= FormatVersion::V3 {
        let blob = bitmap::to_blob(deleted)?;
        let offset = i64::try_from(PUFFIN_MAGIC.len()).unwrap_or_default();
        file.file_format(DataFileFormat::Puffin)
            .content_offset(Some(offset))
            .content_size_in_bytes(Some(i64::try_from(blob.len()).map_err(|_| too_large(target))?));
        puffin(target.path, &blob, deleted.len())?
    } else {
        let bound = |position: Option<u64>| {
            let position = i64::try_from(position.unwrap_or_default()).unwrap_or(i64::MAX);
            HashMap::from([
                (PATH_FIELD, Datum::string(target.path)),
                (POSITION_FIELD, Datum::long(position)),
            ])
        };
        file.file_format(DataFileFormat::Parquet)
            .lower_bounds(bound(deleted.min()))
            .upper_bounds(bound(deleted.max()));
        positions(target.path, deleted)?
    };
    file.file_size_in_bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    let file =
        file.build().map_err(|e| Error::internal("cannot describe a delete file").because(e))?;
    Ok((file, bytes.into()))
}

fn too_large(target: &Target<'_>) -> Error {
    Error::internal(format!("the deletion vector of {} is too large", target.path))
}

/// A Puffin file with one `deletion-vector-v1` blob (Puffin specification).
fn puffin(target: &str, blob: &[u8], cardinality: u64) -> Result<Vec<u8>> {
    let footer = json!({
        "blobs": [{
            "type": "deletion-vector-v1",
            "fields": [ROW_POSITION_FIELD],
            "snapshot-id": -1,
            "sequence-number": -1,
            "offset": PUFFIN_MAGIC.len(),
            "length": blob.len(),
            "properties": {
                "referenced-data-file": target,
                "cardinality": cardinality.to_string(),
            },
        }],
        "properties": { "created-by": concat!("cdc-sink ", env!("CARGO_PKG_VERSION")) },
    })
    .to_string();
    let length = u32::try_from(footer.len())
        .map_err(|_| Error::internal("the footer of a Puffin file is too large"))?;
    let flags = [0; 4];
    let parts: [&[u8]; 7] = [
        PUFFIN_MAGIC,
        blob,
        PUFFIN_MAGIC,
        footer.as_bytes(),
        &length.to_le_bytes(),
        &flags,
        PUFFIN_MAGIC,
    ];
    Ok(parts.concat())
}

/// A Parquet file with the deleted positions, in order.
fn positions(target: &str, deleted: &RoaringTreemap) -> Result<Vec<u8>> {
    let failed = |e| Error::internal("cannot write a position delete file").because(e);
    let field = |name: &str, ty, id: i32| {
        Field::new(name, ty, false)
            .with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]))
    };
    let schema = Arc::new(Schema::new(vec![
        field("file_path", DataType::Utf8, PATH_FIELD),
        field("pos", DataType::Int64, POSITION_FIELD),
    ]));
    // A path cut short in the statistics would no longer name the file.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_statistics_truncate_length(None)
        .set_column_index_truncate_length(None)
        .build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)
        .map_err(failed)?;
    let mut rest = deleted.iter().map(|position| i64::try_from(position).unwrap_or(i64::MAX));
    loop {
        let chunk = Int64Array::from_iter_values(rest.by_ref().take(ROWS_AT_A_TIME));
        if chunk.is_empty() {
            break;
        }
        let paths = StringArray::from_iter_values(std::iter::repeat_n(target, chunk.len()));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(paths), Arc::new(chunk)])
                .map_err(|e| Error::internal("cannot write a position delete file").because(e))?;
        writer.write(&batch).map_err(failed)?;
    }
    sums::finish(writer).map(|(bytes, _)| bytes).map_err(failed)
}

/// The deleted positions that a Parquet delete file has, by data file.
pub(super) fn decode_positions(
    name: &str,
    bytes: Bytes,
) -> Result<HashMap<String, RoaringTreemap>> {
    let broken = |why: &str| Error::data(format!("cannot read the delete file {name}: {why}"));
    let failed = |e| Error::data(format!("cannot read the delete file {name}")).because(e);
    sums::check(&bytes).map_err(broken)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(failed)?;
    let mut found: HashMap<String, RoaringTreemap> = HashMap::new();
    for batch in reader {
        let batch = batch
            .map_err(|e| Error::data(format!("cannot read the delete file {name}")).because(e))?;
        let paths = batch.column_by_name("file_path").and_then(|c| c.as_string_opt::<i32>());
        let positions = batch.column_by_name("pos").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (Some(paths), Some(positions)) = (paths, positions) else {
            return Err(broken("it has no columns file_path and pos"));
        };
        for (path, position) in paths.iter().zip(positions) {
            let (Some(path), Some(Ok(position))) = (path, position.map(u64::try_from)) else {
                return Err(broken("it has a row without a position"));
            };
            match found.get_mut(path) {
                Some(bitmap) => bitmap.insert(position),
                None => found.entry(path.to_owned()).or_default().insert(position),
            };
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target<'static> {
        Target { path: "file:///t/data/a.parquet", partition: Struct::empty(), spec_id: 0 }
    }

    #[test]
    fn positions_survive() {
        let deleted: RoaringTreemap = (0..20_000).step_by(3).chain([1 << 33]).collect();
        let (file, bytes) =
            encode(FormatVersion::V2, "file:///t/d".into(), &target(), &deleted).unwrap();
        assert_eq!(file.record_count(), deleted.len());
        assert_eq!(file.file_size_in_bytes(), bytes.len() as u64);
        let found = decode_positions("d", bytes).unwrap();
        assert_eq!(found, HashMap::from([("file:///t/data/a.parquet".to_owned(), deleted)]));
    }

    #[test]
    fn a_vector_is_where_the_manifest_says() {
        let deleted: RoaringTreemap = [1, 7, 1 << 40].into_iter().collect();
        let (file, bytes) =
            encode(FormatVersion::V3, "file:///t/d".into(), &target(), &deleted).unwrap();
        let from = usize::try_from(file.content_offset().unwrap()).unwrap();
        let to = from + usize::try_from(file.content_size_in_bytes().unwrap()).unwrap();
        assert_eq!(bitmap::from_blob(&bytes[from..to]).unwrap(), deleted);
        let tail = &bytes[to..];
        assert!(tail.starts_with(PUFFIN_MAGIC) && tail.ends_with(PUFFIN_MAGIC));
        let json: serde_json::Value = serde_json::from_slice(&tail[4..tail.len() - 12]).unwrap();
        assert_eq!(json["blobs"][0]["properties"]["cardinality"], "3");
    }
}
