//! Live files read back from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use roaring::RoaringTreemap;

use super::{values, vectors};
use crate::error::{Error, Result};
use crate::schema::{ColumnType, TableSchema};
use crate::sink::storage::{self, Location};
use crate::table::partition::{Partitioning, Transform};
use crate::table::plan::{DataFile, LiveFile, Scalar};

/// Bytes at the end of a Parquet file that are read at first for its footer.
const FOOTER: u64 = 64 * 1024;
/// Footers read at a time.
const READS: usize = 16;

/// The partition columns: name, transform and type.
pub(super) struct Partitions(Vec<(String, Transform, ColumnType)>);

impl Partitions {
    pub(super) fn new(schema: &TableSchema, partitioning: &Partitioning) -> Result<Self> {
        let column = |field: &crate::table::partition::PartitionField| {
            Ok((field.name.clone(), field.transform, values::partition_type(field, schema)?))
        };
        partitioning.fields.iter().map(column).collect::<Result<_>>().map(Self)
    }

    fn values(&self, add: &Add) -> Result<Vec<Option<Scalar>>> {
        let value = |(name, transform, ty): &(String, Transform, ColumnType)| {
            let Some(text) = add.partition_values.get(name).cloned().flatten() else {
                return Ok(None);
            };
            let value = values::partition_value(&text, *transform, ty);
            value.map(Some).ok_or_else(|| {
                Error::data(format!(
                    "data file {}: its value of partition {name} cannot be read",
                    add.path
                ))
            })
        };
        self.0.iter().map(value).collect()
    }
}

/// The live files of `adds`, in their order. What `known` has of them is taken from there; deletion vectors are read,
/// and the footers of files whose rows the log does not tell.
pub(super) async fn live(
    location: &Location,
    adds: &[Add],
    known: &BTreeMap<String, LiveFile>,
    partitions: &Partitions,
) -> Result<Vec<LiveFile>> {
    let descriptors: Vec<_> = adds.iter().filter_map(|add| add.deletion_vector.clone()).collect();
    let mut vectors = vectors::read(location, &descriptors).await?.into_iter();
    let none = Arc::new(RoaringTreemap::new());
    let mut deleted = Vec::with_capacity(adds.len());
    for add in adds {
        deleted.push(match add.deletion_vector {
            Some(_) => {
                vectors.next().ok_or_else(|| Error::internal("a deletion vector was not read"))?
            }
            None => Arc::clone(&none),
        });
    }
    let reads: Vec<_> =
        adds.iter().map(|add| known_or_read(location, add, known, partitions)).collect();
    let files: Vec<Arc<DataFile>> = stream::iter(reads).buffered(READS).try_collect().await?;
    Ok(files.into_iter().zip(deleted).map(|(file, deleted)| LiveFile { file, deleted }).collect())
}

async fn known_or_read(
    location: &Location,
    add: &Add,
    known: &BTreeMap<String, LiveFile>,
    partitions: &Partitions,
) -> Result<Arc<DataFile>> {
    match known.get(&add.path) {
        Some(live) => Ok(Arc::clone(&live.file)),
        None => data_file(location, add, partitions).await.map(Arc::new),
    }
}

async fn data_file(location: &Location, add: &Add, partitions: &Partitions) -> Result<DataFile> {
    if add.path.starts_with('/') || add.path.contains(":/") {
        return Err(Error::refused(format!(
            "data file {} lies outside of the table {}",
            add.path,
            location.url()
        ))
        .hint("OPTIMIZE the table, or use a deep clone"));
    }
    let size = u64::try_from(add.size).map_err(|e| {
        Error::data(format!("data file {}: its size cannot be read", add.path)).because(e)
    })?;
    let rows = match values::rows(add.stats.as_deref()) {
        Some(rows) => rows,
        None => rows_of_footer(location, &add.path, size).await?,
    };
    Ok(DataFile {
        path: add.path.clone(),
        size,
        rows,
        partition: partitions.values(add)?,
        stats: BTreeMap::new(),
        split_offsets: Vec::new(),
    })
}

/// The rows of a Parquet file, from its footer.
async fn rows_of_footer(location: &Location, path: &str, size: u64) -> Result<u64> {
    let what = || format!("cannot read the footer of {}", location.file_url(path));
    let object = location.file(path);
    let mut length = FOOTER.min(size);
    loop {
        let bytes = location
            .store()
            .get_range(&object, size - length..size)
            .await
            .map_err(|e| storage::failed(what(), e))?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&bytes, size) {
            Ok(()) => {
                let metadata = reader.finish().map_err(|e| Error::data(what()).because(e))?;
                let rows = metadata.file_metadata().num_rows();
                return u64::try_from(rows).map_err(|e| Error::data(what()).because(e));
            }
            Err(ParquetError::NeedMoreData(needed)) => {
                let needed = u64::try_from(needed).unwrap_or(u64::MAX).min(size);
                if needed <= length {
                    return Err(Error::data(what()));
                }
                length = needed;
            }
            Err(e) => return Err(Error::data(what()).because(e)),
        }
    }
}
