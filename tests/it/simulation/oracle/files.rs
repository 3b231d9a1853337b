//! What data files and deletion vectors hold, read without the product's readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use cdc_sink::sink::memory::{TextRow, text_rows};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;

use super::super::bucket::Bucket;

/// Bytes before the bitmap in a vector's blob: its length and the magic number.
const BEFORE_BITMAP: usize = 8;

/// The files of one table.
pub(super) struct Files<'a> {
    bucket: &'a Bucket,
    table: String,
    read: BTreeMap<String, Arc<Vec<TextRow>>>,
}

impl<'a> Files<'a> {
    pub(super) fn new(bucket: &'a Bucket, table: String) -> Self {
        Self { bucket, table, read: BTreeMap::new() }
    }

    pub(super) fn path(&self, relative: &str) -> Path {
        Path::parse(format!("{}/{relative}", self.table)).unwrap()
    }

    pub(super) async fn bytes(&self, relative: &str) -> Bytes {
        let found = self.bucket.recall(&self.path(relative)).await;
        found.unwrap_or_else(|| panic!("{relative} was never written"))
    }

    pub(super) async fn batches(&self, relative: &str) -> Vec<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(self.bytes(relative).await);
        let reader = builder.unwrap_or_else(|e| panic!("{relative}: {e}")).build().unwrap();
        reader.map(|batch| batch.unwrap_or_else(|e| panic!("{relative}: {e}"))).collect()
    }

    /// All rows of a data file.
    pub(super) async fn rows(&mut self, relative: &str) -> Arc<Vec<TextRow>> {
        if let Some(rows) = self.read.get(relative) {
            return Arc::clone(rows);
        }
        let batches = self.batches(relative).await;
        let rows = batches.iter().flat_map(|batch| text_rows(batch).unwrap());
        let rows = Arc::new(rows.collect::<Vec<_>>());
        self.read.insert(relative.to_owned(), Arc::clone(&rows));
        rows
    }

    /// The bitmap of the blob at `offset`, whose length comes first.
    pub(super) async fn bitmap(&self, relative: &str, offset: usize) -> RoaringTreemap {
        let bytes = self.bytes(relative).await;
        RoaringTreemap::deserialize_from(&bytes[offset + BEFORE_BITMAP..])
            .unwrap_or_else(|e| panic!("{relative}@{offset}: {e}"))
    }
}
