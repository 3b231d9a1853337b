//! Where the table's rows come from, asked for the changes of a batch that are traced ([`crate::source_position`]): which of them
//! are older than what the table has.
//!
//! Rows tell their partition and, in tables that are traced, their place. Of each file the partitions are read once and
//! kept; places only of rows whose partition is not the change's, of which a row has few in its life. Of keys without
//! a row the table knows the last deletes: more of them in memory, which others and a restart do not have, than in its
//! notes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::stream::{StreamExt, TryStreamExt};
use hashbrown::HashMap;

use super::files::{read_columns, read_rows};
use super::physical::Table;
use super::plan::DataFile;
use crate::change::Batch;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::row_source::{self, RowSource};
use crate::schema::{Column, PARTITION_COLUMN, SOURCE_COLUMN};
use crate::source_position::SourcePosition;

/// Files read at once.
const CONCURRENT_READS: usize = 8;
/// Rows whose partitions are kept in memory: 64 MiB of them.
const KEPT_ROWS: usize = 16 << 20;
/// Deletes that are remembered in memory.
const KEPT_DELETES: usize = 100_000;

/// What is kept in memory of where rows come from.
#[derive(Debug, Default)]
pub(super) struct SourcePositions {
    /// The partitions of files' rows, by the file's number.
    partitions: HashMap<u32, Arc<[i32]>>,
    deletes: Deletes,
}

/// The last deletes, by key.
#[derive(Debug, Default)]
struct Deletes {
    source_positions: HashMap<Key, (u64, SourcePosition)>,
    /// In the order they came; those that a later one of the key replaced are not in `source_positions` under their number.
    order: VecDeque<(u64, Key)>,
    count: u64,
}

impl SourcePositions {
    /// The partition of a file's row, where it is known.
    pub(super) fn partition(&self, file: u32, row: u32) -> Option<i32> {
        self.partitions.get(&file)?.get(row as usize).copied()
    }

    /// Takes over deletes that were committed.
    pub(super) fn bury(&mut self, deletes: &[(Key, SourcePosition)]) {
        for (key, source_position) in deletes {
            self.deletes.insert(*key, source_position.clone());
        }
    }

    /// Forgets a file that is gone.
    pub(super) fn forget(&mut self, file: u32) {
        self.partitions.remove(&file);
    }

    fn keep(&mut self, file: u32, partitions: Arc<[i32]>) {
        let kept: usize = self.partitions.values().map(|partitions| partitions.len()).sum();
        if kept.saturating_add(partitions.len()) > KEPT_ROWS {
            self.partitions.clear();
        }
        self.partitions.insert(file, partitions);
    }
}

impl Deletes {
    fn insert(&mut self, key: Key, source_position: SourcePosition) {
        if self.get(&key).is_some_and(|earlier| !source_position.replaces(earlier)) {
            return;
        }
        self.count += 1;
        self.source_positions.insert(key, (self.count, source_position));
        self.order.push_back((self.count, key));
        while self.order.len() > KEPT_DELETES {
            let Some((number, key)) = self.order.pop_front() else { return };
            if self.source_positions.get(&key).is_some_and(|(own, _)| *own == number) {
                self.source_positions.remove(&key);
            }
        }
    }

    fn get(&self, key: &Key) -> Option<&SourcePosition> {
        self.source_positions.get(key).map(|(_, source_position)| source_position)
    }
}

/// A change, and the row of a file that it would supersede.
struct Asked<'a> {
    row: u32,
    key: Key,
    change: &'a SourcePosition,
    /// What the row told when the change was made to amend it.
    amended: Option<&'a RowSource>,
}

impl Asked<'_> {
    /// True when the change cannot be put over a row that tells this.
    fn is_stale(&self, row: &RowSource) -> bool {
        match self.amended {
            Some(amended) => amended != row,
            None => self.change.is_before(&row.last),
        }
    }
}

impl Table {
    /// The keys whose change in `batch` is older than the table's last one, which another partition had, and those of
    /// amended rows that are other ones now; with what the table's rows tell.
    pub async fn stale(&mut self, batch: &Batch) -> Result<Vec<(Key, Option<RowSource>)>> {
        let mut stale = Vec::new();
        let mut asked: BTreeMap<u32, Vec<Asked<'_>>> = BTreeMap::new();
        if self.schema.key().is_empty() || batch.truncates {
            return Ok(stale);
        }
        let gone = batch.traced().map(|(key, _)| key).filter(|key| self.index.get(key).is_none());
        let noted = self.notes.deletes(gone);
        for (key, change) in batch.traced() {
            match self.index.get(key) {
                // Of rows that do not tell their place every change is the later one.
                Some(at) if self.schema.is_traced() => {
                    let asked = asked.entry(at.file).or_default();
                    let amended = batch.amended.get(key);
                    asked.push(Asked { row: at.row, key: *key, change, amended });
                }
                Some(_) => {}
                None => {
                    let own = self.source_positions.deletes.get(key);
                    let mut deletes = own.into_iter().chain(noted.get(key).copied());
                    if batch.amended.contains_key(key) || deletes.any(|last| change.is_before(last))
                    {
                        stale.push((*key, None));
                    }
                }
            }
        }
        self.learn_partitions(asked.keys().copied()).await?;
        for (file, asked) in &mut asked {
            let partitions =
                self.source_positions.partitions.get(file).cloned().unwrap_or_default();
            let of = |asked: &Asked<'_>| partitions.get(asked.row as usize).copied();
            // Of files that there was no room for their places are read.
            asked.retain(|asked| {
                asked.amended.is_some() || of(asked) != Some(asked.change.partition)
            });
            asked.sort_unstable_by_key(|asked| asked.row);
        }
        let reads = asked.iter().filter(|(_, asked)| !asked.is_empty()).map(|(number, asked)| {
            let file = self.files.get(number).map(|live| Arc::clone(&live.file));
            let columns = self.columns([PARTITION_COLUMN, SOURCE_COLUMN]);
            let location = self.location.clone();
            async move {
                let file =
                    file.ok_or_else(|| Error::internal("the index names a file that is gone"))?;
                let rows: Vec<u32> = asked.iter().map(|asked| asked.row).collect();
                let (read, _) = read_rows(&location, &file, &columns, &rows).await?;
                let told: Vec<RowSource> = read.iter().flat_map(row_source::read).collect();
                if told.len() != rows.len() {
                    return Err(damaged(&file));
                }
                let stale = asked.iter().zip(told).filter(|(asked, row)| asked.is_stale(row));
                let stale = stale.map(|(asked, row)| (asked.key, Some(row)));
                Ok::<_, Error>(stale.collect::<Vec<_>>())
            }
        });
        let reads: Vec<_> = reads.collect();
        let found: Vec<Vec<_>> =
            futures::stream::iter(reads).buffer_unordered(CONCURRENT_READS).try_collect().await?;
        stale.extend(found.into_iter().flatten());
        Ok(stale)
    }

    /// Reads the partitions of the rows of `files` that are not known so far.
    async fn learn_partitions(&mut self, files: impl Iterator<Item = u32>) -> Result<()> {
        let unknown = files.filter(|file| !self.source_positions.partitions.contains_key(file));
        let columns = self.columns([PARTITION_COLUMN]);
        let reads: Vec<_> = unknown
            .filter_map(|number| Some((number, Arc::clone(&self.files.get(&number)?.file))))
            .map(|(number, file)| {
                let (location, columns) = (self.location.clone(), columns.clone());
                async move {
                    let read = read_columns(&location, &file, &columns).await?;
                    let read: Vec<RecordBatch> = read.try_collect().await?;
                    let values = read.iter().flat_map(row_source::partitions);
                    let partitions: Arc<[i32]> = values.collect();
                    if u64::try_from(partitions.len()) != Ok(file.rows) {
                        return Err(damaged(&file));
                    }
                    Ok::<_, Error>((number, partitions))
                }
            })
            .collect();
        let found: Vec<(u32, Arc<[i32]>)> =
            futures::stream::iter(reads).buffer_unordered(CONCURRENT_READS).try_collect().await?;
        for (number, partitions) in found {
            self.source_positions.keep(number, partitions);
        }
        Ok(())
    }

    fn columns<const N: usize>(&self, names: [&str; N]) -> Vec<Column> {
        names.iter().filter_map(|name| self.schema.column(name)).cloned().collect()
    }
}

fn damaged(file: &DataFile) -> Error {
    Error::data(format!("data file {} does not have the rows it should have", file.path))
}
