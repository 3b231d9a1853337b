//! Reading the table: building the index at the start, and following what others committed since.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use futures::stream::TryStreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::files::{read_columns, read_footer};
use super::index::{Index, RowId};
use super::keys::keys_from_arrow;
use super::physical::{Options, Table};
use super::plan::{DataFile, LiveFile, TableState};
use crate::error::{Error, Result};
use crate::key::{Key, contents};
use crate::schema::{Column, ColumnType, OP_COLUMN, TableSchema};
use crate::sink::storage::Location;

/// How often a long read of keys says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// The keys of a file's rows that are not deleted, with their positions.
struct Loaded {
    live: LiveFile,
    keys: Vec<(Key, u32)>,
}

/// How a log differs from what is in memory; new files aside.
#[derive(Default)]
struct Changes<'a> {
    gone: Vec<String>,
    /// Files with more deleted rows than before.
    shrunk: Vec<&'a LiveFile>,
}

impl Table {
    /// Opens the table that a log describes: reads the key columns of every live file.
    ///
    /// A data error when two rows have the same key (another writer appended), a refused error when the keys do not
    /// fit the index's budget.
    pub async fn open(location: Location, state: TableState, options: Options) -> Result<Self> {
        let schema = Arc::clone(&state.schema);
        let mut table = Self::create(location, schema, Arc::clone(&state.partitioning), options);
        table.load(state.files.values(), "opening").await?;
        table.position = state.position;
        table.last_batch = state.last_batch;
        table.notes = state.notes;
        Ok(table)
    }

    /// Takes over what others committed. Only files that are new are read; keys of files and rows that are gone are
    /// dropped. A table that was rolled back, its position with it, is read as a new one. After an error the table has to
    /// be opened again.
    pub async fn refresh(&mut self, state: TableState) -> Result<()> {
        let mut rolled_back = false;
        for (partition, stored) in self.position.iter() {
            match state.position.get(partition) {
                Some(now) => rolled_back |= now < stored,
                // What of its beginning Kafka no longer has would be missing without a word.
                None => {
                    return Err(self.broken(&format!(
                        "the stored position of partition {partition} went back from {stored} to none"
                    )));
                }
            }
        }
        if !state.schema.has_keys_of(&self.schema) {
            return Err(self.broken("its key was changed by another writer"));
        }
        if rolled_back {
            return self.reopen(state).await;
        }
        let changes = self.compare(&state);
        if self.matches_rows() && !(changes.gone.is_empty() && changes.shrunk.is_empty()) {
            // Equal rows are numbered without a gap, and which of them others took out makes one.
            return self.reopen(state).await;
        }
        for path in &changes.gone {
            self.remove_file(path)?;
        }
        for live in &changes.shrunk {
            self.set_deleted(&live.file.path, Arc::clone(&live.deleted))?;
        }
        if !changes.gone.is_empty() || !changes.shrunk.is_empty() {
            let files = &self.files;
            self.index.retain(|row| {
                files.get(&row.file).is_some_and(|live| !live.deleted.contains(u64::from(row.row)))
            });
        }
        self.schema = Arc::clone(&state.schema);
        self.partitioning = Arc::clone(&state.partitioning);
        let new = state.files.values().filter(|live| !self.numbers.contains_key(&live.file.path));
        let new: Vec<LiveFile> = new.cloned().collect();
        self.load(new.iter(), "refreshing").await?;
        self.position = state.position;
        self.last_batch = state.last_batch;
        self.notes = state.notes;
        Ok(())
    }

    /// Forgets everything and reads the table as a new one.
    async fn reopen(&mut self, state: TableState) -> Result<()> {
        let options = self.options.clone();
        self.index = Index::new(options.index.clone());
        *self = Self::open(self.location.clone(), state, options).await?;
        Ok(())
    }

    fn compare<'a>(&self, state: &'a TableState) -> Changes<'a> {
        let mut changes = Changes::default();
        for live in self.files.values() {
            match state.files.get(&live.file.path) {
                Some(now) if now.deleted == live.deleted => {}
                Some(now) if live.deleted.is_subset(&now.deleted) => changes.shrunk.push(now),
                // Gone; or rows came back, as a restore of an older version does: read as a new file then.
                _ => changes.gone.push(live.file.path.clone()),
            }
        }
        changes
    }

    /// Reads the keys of `files`, several at once, and adds them to the index.
    async fn load(
        &mut self,
        files: impl ExactSizeIterator<Item = &LiveFile> + Clone,
        doing: &str,
    ) -> Result<()> {
        let total = files.len();
        if self.is_indexed() {
            // Too many keys are refused before anything is read.
            let keys: u64 = files.clone().map(LiveFile::rows).sum();
            self.index.reserve(usize::try_from(keys).unwrap_or(usize::MAX))?;
        }
        let mut waiting = files.cloned();
        let (mut tasks, mut done) = (JoinSet::new(), 0_usize);
        let started = Instant::now();
        let mut said = started;
        loop {
            while tasks.len() < self.options.open_concurrency.max(1)
                && let Some(live) = waiting.next()
            {
                let (location, schema) = (self.location.clone(), Arc::clone(&self.schema));
                tasks.spawn(read_keys(location, schema, live, self.matches_rows()));
            }
            let Some(loaded) = tasks.join_next().await else { break };
            let loaded = loaded.map_err(|e| self.broken("a reader was cut off").because(e))?;
            self.take_over(loaded?)?;
            done += 1;
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                tracing::info!(
                    table = %self.location.url(), files = done, of = total, keys = self.index.len(),
                    "{doing}: reading keys"
                );
            }
        }
        tracing::debug!(
            table = %self.location.url(), files = total, keys = self.index.len(),
            millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "{doing}: keys are read"
        );
        self.check_rows()
    }

    fn take_over(&mut self, loaded: Loaded) -> Result<()> {
        self.index.reserve(loaded.keys.len())?;
        let path = loaded.live.file.path.clone();
        let file = self.add_file(loaded.live)?;
        let matches_rows = self.matches_rows();
        for (key, row) in loaded.keys {
            let key = match matches_rows {
                true => key.nth(key.count(|key| self.index.get(key).is_some())),
                false => key,
            };
            if let Err(known) = self.index.insert_new(key, RowId { file, row }) {
                let other = self.files.get(&known.file).map_or("", |live| &live.file.path);
                return Err(Error::data(format!(
                    "table {}: row {row} of {path} has the key of row {} of {other}",
                    self.location.url(),
                    known.row
                ))
                .hint(
                    "another writer appended rows: remove the duplicates, then resume the table",
                ));
            }
        }
        Ok(())
    }
}

/// The keys of one file. Its row count is taken from its footer when the log does not tell it.
async fn read_keys(
    location: Location,
    schema: Arc<TableSchema>,
    live: LiveFile,
    matches_rows: bool,
) -> Result<Loaded> {
    let live = match live.file.rows {
        0 => {
            let read = read_footer(&location, &schema, &live.file.path, live.file.size).await?;
            let file = DataFile { partition: live.file.partition.clone(), ..read };
            LiveFile { file: Arc::new(file), deleted: live.deleted }
        }
        _ => live,
    };
    if schema.key().is_empty() && !matches_rows {
        return Ok(Loaded { live, keys: Vec::new() });
    }
    let columns: Vec<Column> = match matches_rows {
        true => schema.columns().to_vec(),
        false => schema.key_columns().cloned().collect(),
    };
    let types: Vec<&ColumnType> = columns.iter().map(|column| &column.ty).collect();
    let mut batches = read_columns(&location, &live.file, &columns).await?;
    let mut keys = Vec::with_capacity(usize::try_from(live.rows()).unwrap_or_default());
    let mut position = 0_u32;
    while let Some(batch) = batches.try_next().await? {
        let found = match matches_rows {
            true => row_contents(&location, &columns, &batch)?,
            false => keys_from_arrow(types.iter().copied(), batch.columns())?,
        };
        for key in found {
            if !live.deleted.contains(u64::from(position)) {
                keys.push((key, position));
            }
            position = position.checked_add(1).ok_or_else(|| {
                Error::refused(format!("data file {} has 2^32 rows or more", live.file.path))
            })?;
        }
    }
    if u64::from(position) != live.file.rows {
        return Err(Error::data(format!(
            "data file {} has {position} rows, the table's log says {}",
            location.file_url(&live.file.path),
            live.file.rows
        )));
    }
    Ok(Loaded { live, keys })
}

/// The contents of rows of a table without a key. Fails when a row is a delete's: such a table has a row for every record,
/// and what its rows are cannot be told from it.
fn row_contents(location: &Location, columns: &[Column], rows: &RecordBatch) -> Result<Vec<Key>> {
    let operation = columns.iter().position(|column| column.name == OP_COLUMN);
    let operation = operation.and_then(|at| rows.column(at).as_string_opt::<i32>());
    if operation.is_some_and(|operations| operations.iter().any(|code| code == Some("d"))) {
        return Err(Error::data(format!(
            "table {} has a row for every record, also for deletes, and cannot be one of matched rows (option keyless)",
            location.url()
        ))
        .hint("drop the table and take its initial snapshot again, or leave keyless at append"));
    }
    contents(columns, rows)
}
