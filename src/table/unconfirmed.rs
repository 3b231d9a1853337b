//! Rows that an initial snapshot does not have, found by the offsets that rows come from.

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use futures::stream::{StreamExt, TryStreamExt};
use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;

use super::files::read_columns;
use super::physical::Table;
use super::plan::{LiveFile, Scalar};
use crate::change::Batch;
use crate::error::Result;
use crate::key::Key;
use crate::schema::{Column, OFFSET_COLUMN, PARTITION_COLUMN};
use crate::sink::storage::Location;

/// Files read at once.
const CONCURRENT_READS: usize = 8;

impl Table {
    /// `batch` with the deletes of what an initial snapshot does not have that ended in it ([`Batch::unconfirmed_before`]);
    /// none when there is nothing to add. Reads the offsets of all rows that may come from before the snapshot.
    pub async fn confirmed(&self, batch: &Batch) -> Result<Option<Batch>> {
        let columns = [PARTITION_COLUMN, OFFSET_COLUMN].map(|name| self.schema.column(name));
        let (Some(before), Some(range), [Some(partition), Some(offset)]) =
            (batch.unconfirmed_before, batch.ranges.first(), columns)
        else {
            return Ok(None);
        };
        if batch.truncates {
            return Ok(None);
        }
        let columns = [partition.clone(), offset.clone()];
        let gone = Gone { columns: &columns, partition: range.partition, before };
        let files = self.files.iter().filter(|(_, live)| gone.may_be_in(live));
        let files: Vec<_> = files.map(|(number, live)| (*number, live.clone())).collect();
        let reads = files.into_iter().map(|(number, live)| gone.rows(&self.location, number, live));
        let rows: HashMap<u32, RoaringBitmap> =
            futures::stream::iter(reads).buffer_unordered(CONCURRENT_READS).try_collect().await?;
        let is_gone = |file, row| rows.get(&file).is_some_and(|rows| rows.contains(row));
        let mut keys = self.index.keys(|at| is_gone(at.file, at.row));
        let known: HashSet<&Key> = batch.keys.iter().chain(&batch.deletes).collect();
        keys.retain(|key| !known.contains(key));
        tracing::info!(
            table = %self.location.url(), rows = keys.len(),
            "an initial snapshot has ended; rows of before that it does not have are deleted"
        );
        if keys.is_empty() {
            return Ok(None);
        }
        keys.sort_unstable();
        let deletes = batch.deletes.iter().copied().chain(keys).collect();
        Ok(Some(Batch { deletes, ..batch.clone() }))
    }
}

/// Rows that come from before an initial snapshot.
struct Gone<'a> {
    /// Those of the rows' partition and offset.
    columns: &'a [Column; 2],
    partition: i32,
    before: i64,
}

impl Gone<'_> {
    /// False when statistics tell that a file has none of them.
    fn may_be_in(&self, live: &LiveFile) -> bool {
        let [_, offset] = self.columns;
        match live.file.stats.get(&offset.id).and_then(|stats| stats.min.as_ref()) {
            Some(Scalar::Int(min)) => *min < self.before,
            _ => true,
        }
    }

    /// The rows of one file.
    async fn rows(
        &self,
        location: &Location,
        number: u32,
        live: LiveFile,
    ) -> Result<(u32, RoaringBitmap)> {
        let mut batches = read_columns(location, &live.file, self.columns).await?;
        let mut rows = RoaringBitmap::new();
        let mut first: u32 = 0;
        while let Some(batch) = batches.try_next().await? {
            let partitions = batch.column(0).as_primitive::<Int32Type>();
            let offsets = batch.column(1).as_primitive::<Int64Type>();
            for (row, (partition, offset)) in (first..).zip(partitions.iter().zip(offsets)) {
                if partition == Some(self.partition)
                    && offset.is_some_and(|offset| offset < self.before)
                {
                    rows.insert(row);
                }
            }
            first = first.saturating_add(u32::try_from(offsets.len()).unwrap_or(u32::MAX));
        }
        Ok((number, rows))
    }
}
