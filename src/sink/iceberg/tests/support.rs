//! A small physical layer: hand-written Parquet files, and a map from key to row position.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use roaring::RoaringTreemap;
use tempfile::TempDir;
use uuid::Uuid;

use super::super::*;
use crate::clock::Clock;
use crate::position::OffsetRange;
use crate::schema::{Column, ColumnType, ListElement};
use crate::table::notes::Notes;
use crate::table::partition::{PartitionField, Transform};
use crate::table::plan::{ColumnStats, Counts, DataFile, Deletion, LiveFile, Scalar, Unnamed};

/// When the source committed the rows, milliseconds.
const NOW: i64 = 1_760_000_000_000;

pub(super) fn schema() -> Arc<TableSchema> {
    let list = ColumnType::List(Box::new(ListElement { id: 0, ty: ColumnType::String }));
    Arc::new(TableSchema::create(
        vec![
            Column::new("id", ColumnType::Int64, false),
            Column::new("name", ColumnType::String, true),
            Column::new("price", ColumnType::Decimal { precision: 12, scale: 2 }, true),
            Column::new("tags", list, true),
        ],
        vec!["id".into()],
    ))
}

pub(super) fn by_name() -> Arc<Partitioning> {
    let field = |column: &str, transform, name: &str| PartitionField {
        column: column.into(),
        transform,
        name: name.into(),
    };
    Arc::new(Partitioning {
        fields: vec![
            field("name", Transform::Identity, "name"),
            field("id", Transform::Truncate(1000), "id_trunc"),
            field("_cdc_ts", Transform::Day, "_cdc_ts_day"),
        ],
    })
}

pub(super) fn options(version: u8) -> Options {
    Options {
        topic: "db.public.items".into(),
        format_version: version,
        snapshots: Retention::default(),
        two_formats: false,
    }
}

pub(super) fn name() -> TableName {
    TableName { namespace: vec!["db_public".into()], name: "items".into() }
}

/// What the table must hold: names by id.
pub(super) type Rows = BTreeMap<i64, Option<String>>;

/// A writer with a table, and where each key's row is.
pub(super) struct Writer {
    pub(super) table: IcebergTable,
    pub(super) places: BTreeMap<i64, (String, u64)>,
    pub(super) rows: Rows,
    pub(super) now: i64,
    /// The rows of each snapshot, by its id.
    pub(super) history: BTreeMap<i64, Rows>,
}

/// A table's place: its folder and its catalog.
pub(super) struct Place {
    /// The folder when it is a local one.
    pub(super) folder: Option<TempDir>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) name: TableName,
    pub(super) faults: Arc<Faults>,
    pub(super) root: Location,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::warehouse(folder.path().to_str().unwrap()).unwrap().folder("items");
        Self { folder: Some(folder), ..Self::of(Catalog::Files, name(), root) }
    }

    pub(super) fn of(catalog: Catalog, name: TableName, root: Location) -> Self {
        Self { folder: None, catalog: Arc::new(catalog), name, faults: Arc::default(), root }
    }

    pub(super) fn location(&self) -> Location {
        let plain = &self.root;
        let store = Faulty { inner: Arc::clone(plain.store()), faults: Arc::clone(&self.faults) };
        Location::new(Arc::new(store), plain.path().clone(), plain.url().clone())
    }

    pub(super) async fn create(&self, options: Options, partitioning: Arc<Partitioning>) -> Writer {
        let table = IcebergTable::create(
            self.location(),
            Arc::clone(&self.catalog),
            self.name.clone(),
            schema(),
            partitioning,
            options,
        );
        Writer::new(table.await.unwrap())
    }

    pub(super) async fn open(&self, options: Options) -> IcebergTable {
        self.try_open(options).await.unwrap().unwrap()
    }

    pub(super) async fn try_open(&self, options: Options) -> Result<Option<IcebergTable>> {
        let catalog = Arc::clone(&self.catalog);
        IcebergTable::open(self.location(), catalog, self.name.clone(), options).await
    }
}

impl Writer {
    /// A writer of an empty table.
    fn new(table: IcebergTable) -> Self {
        let (places, rows, history) = Default::default();
        Self { table, places, rows, now: Clock::system().now_millis(), history }
    }

    /// Upserts `names` and deletes `gone` in one commit, which must succeed.
    pub(super) async fn commit(&mut self, names: &[(i64, &str)], gone: &[i64]) -> i64 {
        let plan = self.plan(names, gone).await;
        let Published::Committed { version, .. } = self.table.publish(&plan).await.unwrap() else {
            panic!("conflict")
        };
        self.committed(names, gone, &plan);
        version
    }

    pub(super) fn committed(&mut self, names: &[(i64, &str)], gone: &[i64], plan: &CommitPlan) {
        for id in gone {
            self.rows.remove(id);
            self.places.remove(id);
        }
        for (id, name) in names {
            self.rows.insert(*id, (*name != "null").then(|| (*name).to_owned()));
        }
        for file in &plan.added {
            let ids = names.iter().filter(|(_, name)| in_file(file, name)).map(|(id, _)| *id);
            for (row, id) in ids.enumerate() {
                self.places.insert(id, (file.path.clone(), row as u64));
            }
        }
        let snapshot = self.table.known.metadata.current_snapshot_id().unwrap();
        self.history.insert(snapshot, self.rows.clone());
    }

    /// The plan of a commit; its data files are written.
    pub(super) async fn plan(&mut self, names: &[(i64, &str)], gone: &[i64]) -> CommitPlan {
        self.plan_with(Arc::clone(&self.table.state().schema), names, gone).await
    }

    pub(super) async fn plan_with(
        &mut self,
        schema: Arc<TableSchema>,
        names: &[(i64, &str)],
        gone: &[i64],
    ) -> CommitPlan {
        self.now += 1000;
        let state = self.table.state();
        let mut groups: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (id, name) in names {
            let group = if state.partitioning.fields.is_empty() { "" } else { *name };
            groups.entry(group).or_default().push(*id);
        }
        let mut added = Vec::new();
        for (group, ids) in groups {
            let rows: Vec<_> = names.iter().filter(|(id, _)| ids.contains(id)).copied().collect();
            let partition = match state.partitioning.fields.as_slice() {
                [] => vec![],
                _ => vec![
                    (group != "null").then(|| Scalar::String(group.into())),
                    Some(Scalar::Int(ids[0] - ids[0].rem_euclid(1000))),
                    Some(Scalar::Int(NOW / 86_400_000)),
                ],
            };
            added.push(write(self.table.location(), &schema, &rows, partition).await);
        }
        let mut touched: BTreeMap<String, RoaringTreemap> = BTreeMap::new();
        for id in names.iter().map(|(id, _)| id).chain(gone) {
            if let Some((path, row)) = self.places.get(id) {
                touched.entry(path.clone()).or_default().insert(*row);
            }
        }
        let (mut deletions, mut removed) = (Vec::new(), Vec::new());
        for (path, rows) in touched {
            let LiveFile { file, deleted } = state.files.get(&path).unwrap().clone();
            let after = &*deleted | &rows;
            if after.len() == file.rows {
                removed.push(LiveFile { file, deleted });
            } else {
                deletions.push(Deletion { file, before: deleted, after: Arc::new(after) });
            }
        }
        let from = state.position.get(0).unwrap_or(0);
        let range = OffsetRange { partition: 0, from, to: from + 10 };
        CommitPlan {
            batch_id: Uuid::new_v4(),
            ranges: vec![range],
            position: state.position.advance(&[range]).unwrap(),
            schema_changed: *schema != *state.schema,
            schema,
            added,
            deletions,
            removed,
            notes: Notes::default(),
            owner: None,
            audit: None,
            counts: Counts::default(),
            newest_source_micros: None,
            now_millis: self.now,
            unnamed: Unnamed::since(self.now),
        }
    }

    /// Takes the rows from the table, as another writer changed them.
    pub(super) async fn adopt(&mut self) {
        let rows = read_places(&self.table).await;
        self.rows = rows.iter().map(|(id, (name, _, _))| (*id, name.clone())).collect();
        self.places = rows.into_iter().map(|(id, (_, path, row))| (id, (path, row))).collect();
    }

    /// The table, opened anew, must be what this writer thinks it is.
    pub(super) async fn check(&self, place: &Place) {
        let opened = place.open(self.table.options.clone()).await;
        same_state(self.table.state(), opened.state());
        assert_eq!(read(&opened).await, self.rows, "rows");
        let (ours, theirs) = (&self.table.known, &opened.known);
        let paths = |known: &Known| {
            let data = known.data.iter().filter(|m| m.has_added_files() || m.has_existing_files());
            let data: Vec<_> = data.cloned().collect();
            (data, known.deletes.values().map(|m| m.file.clone()).collect::<Vec<_>>())
        };
        assert_eq!(paths(ours), paths(theirs));
        assert_eq!(ours.named_by, theirs.named_by);
        assert_eq!(ours.deleted_by, theirs.deleted_by);
    }
}

fn in_file(file: &DataFile, name: &str) -> bool {
    match file.partition.first() {
        Some(Some(Scalar::String(partition))) => partition == name,
        Some(_) => name == "null",
        None => true,
    }
}

pub(super) fn same_state(a: &TableState, b: &TableState) {
    assert_eq!(a.version, b.version);
    assert_eq!(a.schema, b.schema);
    assert_eq!(a.partitioning, b.partitioning);
    assert_eq!(a.position, b.position);
    assert_eq!(a.last_batch, b.last_batch);
    let plain = |state: &TableState| -> BTreeMap<String, LiveFile> {
        let plain = |live: &LiveFile| LiveFile {
            file: Arc::new(DataFile { stats: BTreeMap::new(), ..(*live.file).clone() }),
            deleted: Arc::clone(&live.deleted),
        };
        state.files.iter().map(|(path, live)| (path.clone(), plain(live))).collect()
    };
    assert_eq!(plain(a), plain(b));
}

async fn write(
    location: &Location,
    schema: &TableSchema,
    rows: &[(i64, &str)],
    partition: Vec<Option<Scalar>>,
) -> Arc<DataFile> {
    let arrow = schema.arrow();
    let column = |column: &Column, field: &arrow::datatypes::Field| -> ArrayRef {
        let n = rows.len();
        let ids = rows.iter().map(|(id, _)| *id);
        let names = rows.iter().map(|(_, name)| (*name != "null").then_some(*name));
        match column.name.as_str() {
            "id" => Arc::new(Int64Array::from_iter_values(ids)),
            "name" => Arc::new(names.collect::<StringArray>()),
            "price" => Arc::new(
                Decimal128Array::from_iter_values(ids.map(|id| i128::from(id) * 100 - 5))
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            ),
            "tags" => {
                let DataType::List(element) = field.data_type() else { panic!() };
                let values =
                    Arc::new(StringArray::from_iter_values(ids.map(|id| format!("tag {id}"))));
                let offsets = arrow::buffer::OffsetBuffer::from_lengths(vec![1; n]);
                Arc::new(ListArray::new(Arc::clone(element), offsets, values, None))
            }
            crate::schema::OP_COLUMN => Arc::new(StringArray::from(vec!["c"; n])),
            crate::schema::TS_COLUMN => {
                Arc::new(TimestampMicrosecondArray::from(vec![NOW * 1000; n]).with_timezone("UTC"))
            }
            crate::schema::PARTITION_COLUMN => Arc::new(Int32Array::from(vec![0; n])),
            crate::schema::OFFSET_COLUMN => Arc::new(Int64Array::from_iter_values((0..).take(n))),
            "note" => Arc::new(StringArray::from_iter_values(ids.map(|id| format!("note {id}")))),
            other => panic!("{other}"),
        }
    };
    let columns = schema.columns().iter().zip(arrow.fields()).map(|(c, f)| column(c, f)).collect();
    let batch = RecordBatch::try_new(arrow, columns).unwrap();
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let footer = writer.close().unwrap();
    let mut path = format!("data/{}.parquet", Uuid::new_v4());
    if !partition.is_empty() {
        path = format!("data/name={}/{}.parquet", rows[0].1, Uuid::new_v4());
    }
    let size = bytes.len() as u64;
    location.store().put(&location.file(&path), bytes.into()).await.unwrap();
    Arc::new(DataFile {
        path,
        size,
        rows: rows.len() as u64,
        partition,
        stats: stats(schema, rows),
        split_offsets: footer.row_groups().iter().map(|g| g.file_offset().unwrap_or(4)).collect(),
    })
}

fn stats(schema: &TableSchema, rows: &[(i64, &str)]) -> BTreeMap<i32, ColumnStats> {
    let ids = || rows.iter().map(|(id, _)| *id);
    let names = || rows.iter().map(|(_, name)| *name).filter(|name| *name != "null");
    let text = |name: &str| Scalar::String(name.into());
    schema
        .columns()
        .iter()
        .map(|column| {
            let (min, max, nulls) = match column.name.as_str() {
                "id" => (ids().min().map(Scalar::Int), ids().max().map(Scalar::Int), 0),
                "name" => {
                    (names().min().map(text), names().max().map(text), rows.len() - names().count())
                }
                "price" => {
                    let price = |id: i64| Scalar::Decimal(i128::from(id) * 100 - 5);
                    (ids().min().map(price), ids().max().map(price), 0)
                }
                _ => (None, None, 0),
            };
            let stats = ColumnStats {
                compressed_bytes: 10,
                values: rows.len() as u64,
                nulls: nulls as u64,
                min,
                max,
            };
            (column.id, stats)
        })
        .collect()
}

/// The rows of a table by its state: a reader of our own.
pub(super) async fn read(table: &IcebergTable) -> Rows {
    read_places(table).await.into_iter().map(|(id, (name, _, _))| (id, name)).collect()
}

/// The rows with where they are.
async fn read_places(table: &IcebergTable) -> BTreeMap<i64, (Option<String>, String, u64)> {
    let mut rows = BTreeMap::new();
    for live in table.state().files.values() {
        let object = table.location().file(&live.file.path);
        let bytes = table.location().store().get(&object).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes.len() as u64, live.file.size);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let mut position = 0;
        for batch in reader {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let names = batch.column_by_name("name").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                if !live.deleted.contains(position) {
                    let name = (!names.is_null(row)).then(|| names.value(row).to_owned());
                    let place = (name, live.file.path.clone(), position);
                    assert_eq!(rows.insert(ids.value(row), place), None, "twice");
                }
                position += 1;
            }
        }
    }
    rows
}

/// Every file below the table's folder, by path relative to it.
pub(super) async fn stored(location: &Location) -> Vec<String> {
    let mut found: Vec<String> = location
        .store()
        .list(Some(location.path()))
        .map(|meta| {
            let path = meta.unwrap().location;
            let below: Vec<_> = path.prefix_match(location.path()).unwrap().collect();
            below.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/")
        })
        .collect()
        .await;
    found.sort();
    found
}

/// What readers of others find in the table in `folder`, see `read.py`.
pub(super) fn read_by_others(
    python: &str,
    folder: &std::path::Path,
    conditions: &[&str],
) -> serde_json::Value {
    let mut reader = Command::new(python)
        .args(["-c", include_str!("read.py")])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    reader.stdin.take().unwrap().write_all(conditions.join("\n").as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// So many puts of new metadata are applied, and then fail.
    pub(super) lost_answers: AtomicUsize,
    /// So many puts of new metadata fail without being applied.
    pub(super) lost_requests: AtomicUsize,
    /// So many reads fail.
    pub(super) unreadable: AtomicUsize,
}

impl Faults {
    fn takes(counter: &AtomicUsize) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "no answer".into() }
}

/// A store that answers badly on demand.
#[derive(Debug)]
pub(super) struct Faulty {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) faults: Arc<Faults>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let commit = location.as_ref().ends_with(".metadata.json");
        if commit && Faults::takes(&self.faults.lost_requests) {
            return Err(broken());
        }
        let answer = self.inner.put_opts(location, payload, options).await;
        if commit && answer.is_ok() && Faults::takes(&self.faults.lost_answers) {
            return Err(broken());
        }
        answer
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        if Faults::takes(&self.faults.unreadable) {
            return Err(broken());
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
