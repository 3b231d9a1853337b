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
use super::index::RowId;
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

/// A key, and what its row tells; none without a row.
type Told = (Key, Option<RowSource>);

/// A change, and the row of a file that it would supersede.
struct Asked<'a> {
    row: u32,
    key: Key,
    why: Why<'a>,
}

/// Why a row is asked for.
enum Why<'a> {
    /// This change would supersede it.
    Change(&'a SourcePosition),
    /// It is amended, and told this when the batch was made.
    Amended(&'a RowSource),
    /// Late changes may amend it.
    Late,
}

impl Asked<'_> {
    /// True when the batch cannot be put over a row that tells this.
    fn is_stale(&self, row: &RowSource) -> bool {
        match self.why {
            Why::Change(change) => change.is_before(&row.last),
            Why::Amended(amended) => amended != row,
            Why::Late => true,
        }
    }
}

impl Table {
    /// The keys whose change in `batch` is older than the table's last one, which another partition had, those of amended
    /// rows that are other ones now, and [`Batch::asked`]; with what the table's rows tell. And of the latter those whose
    /// row is about to come; and whether a row of the batch begins at the key of another one ([`Merged::Occupied`]).
    ///
    /// [`Merged::Occupied`]: crate::sink::Merged::Occupied
    pub async fn stale(&mut self, batch: &Batch) -> Result<(Vec<Told>, Vec<Key>, bool)> {
        if self.schema.key().is_empty() || batch.truncates {
            return Ok((Vec::new(), Vec::new(), false));
        }
        let moves = !batch.moves.is_empty() || self.notes.moves().next().is_some();
        let mut occupied = false;
        let (mut stale, mut asked) = self.asked(batch);
        self.learn_partitions(asked.keys().copied()).await?;
        for (file, asked) in &mut asked {
            let partitions =
                self.source_positions.partitions.get(file).cloned().unwrap_or_default();
            let of = |asked: &Asked<'_>| partitions.get(asked.row as usize).copied();
            // Of files that there was no room for their places are read.
            asked.retain(|asked| match asked.why {
                Why::Change(change) => of(asked) != Some(change.partition),
                Why::Amended(_) | Why::Late => true,
            });
            asked.sort_unstable_by_key(|asked| asked.row);
        }
        let mut reads = Vec::new();
        for (number, asked) in asked.iter().filter(|(_, asked)| !asked.is_empty()) {
            let live = self.files.get(number);
            let live = live.ok_or_else(|| self.broken("the index names a file that is gone"))?;
            reads.push((Arc::clone(&live.file), asked.iter().map(|asked| asked.row).collect()));
        }
        let told = self.told(reads).await?;
        for (number, asked) in asked {
            let path = self.files.get(&number).map(|live| &live.file.path);
            let Some(told) = path.and_then(|path| told.get(path)) else { continue };
            for asked in &asked {
                let Some(row) = told.get(&asked.row) else { continue };
                occupied |= batch.is_occupied(&asked.key, &row.last);
                if asked.is_stale(row) {
                    stale.push((asked.key, Some(row.clone())));
                }
            }
        }
        let coming = batch.coming(
            &stale,
            |of| self.notes.get(of).is_some(),
            |key| {
                let noted = self.notes.deletes([key].into_iter()).into_values();
                self.source_positions.deletes.get(key).into_iter().chain(noted).cloned().collect()
            },
        );
        Ok((stale, coming, occupied && moves))
    }

    /// Of the keys that may be stale: those that have no row and are, and the rows of the others by file.
    fn asked<'a>(&self, batch: &'a Batch) -> (Vec<Told>, BTreeMap<u32, Vec<Asked<'a>>>) {
        let mut stale = Vec::new();
        let mut asked: BTreeMap<u32, Vec<Asked<'_>>> = BTreeMap::new();
        let mut ask = |RowId { file, row }, key, why| {
            asked.entry(file).or_default().push(Asked { row, key, why });
        };
        let gone = batch.traced().map(|(key, _)| key).filter(|key| self.index.get(key).is_none());
        let noted = self.notes.deletes(gone);
        for (key, change) in batch.traced() {
            let amended = batch.amended.get(key).map(Why::Amended);
            match self.index.get(key) {
                // Of rows that do not tell their place every change is the later one, but they may have to leave first.
                Some(at) if self.schema.is_traced() || batch.begun.contains_key(key) => {
                    ask(at, *key, amended.unwrap_or(Why::Change(change)));
                }
                Some(_) => {}
                None => {
                    let own = self.source_positions.deletes.get(key);
                    let mut deletes = own.into_iter().chain(noted.get(key).copied());
                    if amended.is_some() || deletes.any(|last| change.is_before(last)) {
                        stale.push((*key, None));
                    }
                }
            }
        }
        for (key, _) in &batch.asked {
            match self.index.get(key) {
                Some(at) => ask(at, *key, Why::Late),
                None => stale.push((*key, None)),
            }
        }
        (stale, asked)
    }

    /// What rows tell of where their values come from, by their file's path: `rows` of each file, in ascending order.
    pub(super) async fn told(
        &self,
        rows: Vec<(Arc<DataFile>, Vec<u32>)>,
    ) -> Result<HashMap<String, HashMap<u32, RowSource>>> {
        let columns = self.columns([PARTITION_COLUMN, SOURCE_COLUMN]);
        let reads = rows.into_iter().map(|(file, mut rows)| {
            let (location, columns) = (self.location.clone(), columns.clone());
            async move {
                rows.dedup();
                let (read, _) = read_rows(&location, &file, &columns, &rows).await?;
                let told: Vec<RowSource> = read.iter().flat_map(row_source::read).collect();
                if told.len() != rows.len() {
                    return Err(damaged(&file));
                }
                Ok::<_, Error>((file.path.clone(), rows.into_iter().zip(told).collect()))
            }
        });
        let reads: Vec<_> = reads.collect();
        futures::stream::iter(reads).buffer_unordered(CONCURRENT_READS).try_collect().await
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
