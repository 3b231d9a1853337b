//! A table with small Parquet files, plans for it, and a store that loses answers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use url::Url;
use uuid::Uuid;

use super::super::commit::Commit;
use super::super::{DeltaTable, Options};
use crate::position::OffsetRange;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::storage::Location;
use crate::table::notes::Notes;
use crate::table::partition::Partitioning;
use crate::table::plan::{
    ColumnStats, CommitPlan, Counts, DataFile, Deletion, LiveFile, Scalar, TableState, Unnamed,
};

/// What goes wrong with the next conditional put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Applied, and the answer is an error.
    AnswerLost,
    /// Applied, and the client's second attempt finds the file there.
    AnswerLostThenExists,
    /// Not applied.
    NotApplied,
    /// Not applied, and the answer is that there is a file.
    ExistsButIsNot,
}

/// The faults of a store.
#[derive(Debug, Default)]
pub(super) struct Faults {
    next: Mutex<Option<Fault>>,
    pub(super) reads_fail: AtomicBool,
}

impl Faults {
    pub(super) fn arm(&self, fault: Fault) {
        *self.next.lock().unwrap() = Some(fault);
    }
}

#[derive(Debug)]
struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that loses answers")
    }
}

fn reset() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "connection reset".into() }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let exists =
            || object_store::Error::AlreadyExists { path: path.to_string(), source: "test".into() };
        let creates = matches!(options.mode, PutMode::Create);
        let fault = if creates { self.faults.next.lock().unwrap().take() } else { None };
        if matches!(fault, None | Some(Fault::AnswerLost | Fault::AnswerLostThenExists)) {
            let done = self.inner.put_opts(path, payload, options).await?;
            return match fault {
                None => Ok(done),
                Some(Fault::AnswerLost) => Err(reset()),
                Some(_) => Err(exists()),
            };
        }
        Err(if fault == Some(Fault::NotApplied) { reset() } else { exists() })
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if self.faults.reads_fail.load(Ordering::SeqCst) {
            return Err(reset());
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Where a table of a test lies.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) location: Location,
    pub(super) faults: Arc<Faults>,
}

impl Place {
    pub(super) async fn open(&self) -> DeltaTable {
        DeltaTable::open(self.location.clone(), options()).await.unwrap().unwrap()
    }

    /// A table that knows what `table` knows, as if it were the same process.
    pub(super) async fn open_at(&self, table: &DeltaTable) -> DeltaTable {
        let mut opened = self.open().await;
        opened.state = table.state.clone();
        opened.adds = table.adds.clone();
        opened.recent = table.recent.clone();
        opened
    }

    /// Writes a version that is not ours.
    pub(super) async fn put_commit(&self, version: i64, commit: &Commit) {
        let path = self.location.file(&format!("_delta_log/{version:020}.json"));
        self.location.store().put(&path, commit.bytes().unwrap().into()).await.unwrap();
    }

    /// Names of the files in a folder of the table.
    pub(super) async fn names(&self, folder: &str) -> Vec<String> {
        let prefix = self.location.path().clone().join(folder);
        let listed: Vec<_> = self.location.store().list(Some(&prefix)).try_collect().await.unwrap();
        listed.iter().map(|meta| meta.location.to_string()).collect()
    }
}

pub(super) fn options() -> Options {
    Options {
        topic: "shop.public.orders".into(),
        checkpoint_interval: 0,
        properties: BTreeMap::new(),
        type_widening: true,
    }
}

/// A table and a counter for its file names.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) delta: DeltaTable,
    location: Location,
    names: Arc<AtomicUsize>,
}

impl Table {
    pub(super) async fn create(
        schema: Arc<TableSchema>,
        partitioning: Partitioning,
    ) -> (Self, Place) {
        let faults = Arc::new(Faults::default());
        let store =
            Arc::new(FaultStore { inner: Arc::new(InMemory::new()), faults: Arc::clone(&faults) });
        let url = Url::parse("memory:///lake%20house/orders/").unwrap();
        let location = Location::new(store, Path::from("lake house/orders"), url);
        let table = Self::create_at(location.clone(), schema, partitioning).await;
        (table, Place { location, faults })
    }

    pub(super) async fn create_at(
        location: Location,
        schema: Arc<TableSchema>,
        partitioning: Partitioning,
    ) -> Self {
        let delta = DeltaTable::create(
            location.clone(),
            schema,
            Arc::new(partitioning),
            options(),
            1_790_000_000_000,
        );
        Self { delta: delta.await.unwrap(), location, names: Arc::default() }
    }

    /// Another writer of the same table.
    pub(super) fn twin(&self, delta: DeltaTable) -> Self {
        Self { delta, location: self.location.clone(), names: Arc::clone(&self.names) }
    }

    /// Writes a file with a row for each id.
    pub(super) async fn write(&self, ids: Range<i64>) -> Arc<DataFile> {
        let number = self.names.fetch_add(1, Ordering::SeqCst);
        self.write_at(&format!("data/{number}.parquet"), ids, vec![]).await
    }

    pub(super) async fn write_at(
        &self,
        path: &str,
        ids: Range<i64>,
        partition: Vec<Option<Scalar>>,
    ) -> Arc<DataFile> {
        self.write_with(&self.delta.state().schema, path, ids, partition).await
    }

    pub(super) async fn write_with(
        &self,
        schema: &TableSchema,
        path: &str,
        ids: Range<i64>,
        partition: Vec<Option<Scalar>>,
    ) -> Arc<DataFile> {
        let ids: Vec<i64> = ids.collect();
        let columns: Vec<ArrayRef> =
            schema.columns().iter().map(|column| array(column, &ids)).collect();
        let batch = RecordBatch::try_new(schema.arrow(), columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let size = u64::try_from(bytes.len()).unwrap();
        self.location.store().put(&self.location.file(path), bytes.into()).await.unwrap();
        let stats =
            schema.columns().iter().map(|column| (column.id, stats(column, &ids))).collect();
        let rows = u64::try_from(ids.len()).unwrap();
        Arc::new(DataFile {
            path: path.to_owned(),
            size,
            rows,
            partition,
            stats,
            split_offsets: vec![4],
        })
    }

    pub(super) fn plan(&self) -> PlanBuilder {
        let state = self.delta.state().clone();
        PlanBuilder {
            plan: CommitPlan {
                batch_id: Uuid::new_v4(),
                ranges: vec![],
                position: state.position.clone(),
                schema: Arc::clone(&state.schema),
                schema_changed: false,
                added: vec![],
                deletions: vec![],
                removed: vec![],
                notes: Notes::default(),
                owner: None,
                audit: None,
                counts: Counts { inserted: 1, updated: 2, deleted: 3 },
                newest_source_micros: None,
                now_millis: 1_790_000_000_000,
                unnamed: Unnamed::since(1_790_000_000_000),
            },
            state,
        }
    }
}

/// A plan on the state of a table.
pub(super) struct PlanBuilder {
    plan: CommitPlan,
    state: TableState,
}

impl PlanBuilder {
    pub(super) fn add(mut self, file: &Arc<DataFile>) -> Self {
        self.plan.added.push(Arc::clone(file));
        self
    }

    pub(super) fn delete<const N: usize>(mut self, file: &DataFile, positions: [u64; N]) -> Self {
        let live = &self.state.files[&file.path];
        let mut after = RoaringTreemap::clone(&live.deleted);
        after.extend(positions);
        self.plan.deletions.push(Deletion {
            file: Arc::clone(&live.file),
            before: Arc::clone(&live.deleted),
            after: Arc::new(after),
        });
        self
    }

    pub(super) fn drop(mut self, file: &DataFile) -> Self {
        self.plan.removed.push(self.state.files[&file.path].clone());
        self
    }

    pub(super) fn schema(mut self, schema: &Arc<TableSchema>) -> Self {
        self.plan.schema = Arc::clone(schema);
        self.plan.schema_changed = true;
        self
    }

    pub(super) fn advance(mut self, partition: i32, from: i64, to: i64) -> Self {
        self.plan.ranges.push(OffsetRange { partition, from, to });
        self.plan.position.set(partition, to);
        self
    }

    pub(super) fn build(self) -> CommitPlan {
        self.plan
    }
}

pub(super) fn plain_schema() -> Arc<TableSchema> {
    let columns = vec![
        Column::new("id", ColumnType::Int64, false),
        Column::new("name", ColumnType::String, true),
    ];
    Arc::new(TableSchema::create(columns, vec!["id".into()]))
}

pub(super) fn schema() -> Arc<TableSchema> {
    let columns = vec![
        Column::new("id", ColumnType::Int64, false),
        Column::new("name", ColumnType::String, true),
        Column::new("amount", ColumnType::Decimal { precision: 38, scale: 4 }, true),
        Column::new("at", ColumnType::TimestampTz, true),
        Column::new("local", ColumnType::Timestamp, true),
    ];
    Arc::new(TableSchema::create(columns, vec!["id".into()]))
}

/// Around the end of 2024, with microseconds.
fn micros(id: i64) -> i64 {
    1_735_689_599_999_999 + id * 1_500_001
}

fn array(column: &Column, ids: &[i64]) -> ArrayRef {
    let ty = column.ty.arrow();
    match &column.ty {
        ColumnType::Int64 => Arc::new(Int64Array::from(ids.to_vec())),
        ColumnType::Int32 => Arc::new(Int32Array::from(vec![7; ids.len()])),
        ColumnType::String => {
            Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("n{id}"))))
        }
        ColumnType::Decimal { .. } => {
            let values = ids.iter().map(|id| i128::from(*id) * 10_i128.pow(30));
            Arc::new(Decimal128Array::from_iter_values(values).with_data_type(ty))
        }
        ColumnType::Timestamp => {
            Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| micros(*id))))
        }
        ColumnType::TimestampTz => {
            let values =
                TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| micros(*id)));
            Arc::new(values.with_timezone("UTC"))
        }
        _ => new_null_array(&ty, ids.len()),
    }
}

fn stats(column: &Column, ids: &[i64]) -> ColumnStats {
    let bound = |id: Option<&i64>| {
        let id = *id?;
        match column.ty {
            ColumnType::Int64 => Some(Scalar::Int(id)),
            ColumnType::Int32 => Some(Scalar::Int(7)),
            ColumnType::Decimal { .. } => Some(Scalar::Decimal(i128::from(id) * 10_i128.pow(30))),
            ColumnType::Timestamp | ColumnType::TimestampTz => Some(Scalar::Int(micros(id))),
            _ => None,
        }
    };
    let values = u64::try_from(ids.len()).unwrap();
    ColumnStats {
        compressed_bytes: 0,
        values,
        nulls: 0,
        min: bound(ids.first()),
        max: bound(ids.last()),
    }
}

/// The ids of a table's live rows, in order, read from its files.
pub(super) async fn rows(table: &DeltaTable, location: &Location) -> Vec<i64> {
    let mut ids = Vec::new();
    for LiveFile { file, deleted } in table.state().files.values() {
        let bytes =
            location.store().get(&location.file(&file.path)).await.unwrap().bytes().await.unwrap();
        let mut position = 0;
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            for id in batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values() {
                if !deleted.contains(position) {
                    ids.push(*id);
                }
                position += 1;
            }
        }
        assert_eq!(position, file.rows);
    }
    ids.sort_unstable();
    ids
}

/// Both states have the same files, whatever they know of statistics.
pub(super) fn assert_same_files(a: &TableState, b: &TableState) {
    let files = |state: &TableState| {
        let file = |live: &LiveFile| {
            let DataFile { path, size, rows, partition, .. } = live.file.as_ref();
            (path.clone(), *size, *rows, partition.clone(), live.deleted.iter().collect::<Vec<_>>())
        };
        state.files.values().map(file).collect::<Vec<_>>()
    };
    assert_eq!(files(a), files(b));
}

/// Another engine on a table's folder, in a process of its own.
pub(super) struct Others {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Others {
    pub(super) fn start(python: &str, script: &str, folder: &std::path::Path) -> Self {
        let mut process = Command::new(python)
            .args(["-c", script])
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers"))
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    /// Sends one line and takes one back.
    pub(super) fn ask(&mut self, order: &str) -> serde_json::Value {
        writeln!(self.process.stdin.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}
