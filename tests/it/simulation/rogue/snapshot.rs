//! Snapshots of Iceberg tables as another engine makes them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use cdc_sink::sink::memory::text_rows;
use cdc_sink::table::bitmap;
use iceberg::io::FileIO;
use iceberg::puffin::{Blob, CompressionCodec, DELETION_VECTOR_V1, PuffinWriter};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, MAIN_BRANCH,
    ManifestContentType, ManifestEntryRef, ManifestFile, ManifestList, ManifestListWriter,
    ManifestWriter, ManifestWriterBuilder, Operation, Snapshot, SnapshotReference,
    SnapshotRetention, Struct, Summary, TableMetadata, UNASSIGNED_SEQUENCE_NUMBER,
};
use object_store::PutMode;
use parquet::arrow::ArrowWriter;
use roaring::RoaringTreemap;

use super::super::chance::chance;
use super::super::oracle::{Icebergs, below_root};
use super::super::store::World;
use super::super::topics::{Rows, key_of};
use super::iceberg::Found;
use super::{Change, rows_of};

/// Field ids of position delete files, and of what a Puffin's vector is about.
const PATH_FIELD: i32 = 2_147_483_546;
const POSITION_FIELD: i32 = 2_147_483_545;
const ROW_POSITION_FIELD: i32 = 2_147_483_645;
/// Where the first blob of a Puffin begins.
const FIRST_BLOB: i64 = 4;

/// A snapshot on its way: what is written for it, and the manifests that it will have.
pub(super) struct Draft<'a> {
    world: &'a World,
    found: &'a Found,
    live: Icebergs<'a>,
    id: i64,
    /// Unique part of the names of its files.
    unique: String,
    io: FileIO,
    written: Vec<String>,
    /// Manifests of the snapshot before with their live entries.
    before: Vec<(ManifestFile, Vec<ManifestEntryRef>)>,
    after: Vec<ManifestFile>,
}

impl<'a> Draft<'a> {
    /// None when the table has no snapshot yet.
    pub(super) async fn new(world: &'a World, found: &'a Found, number: u32) -> Option<Self> {
        let metadata = &found.metadata;
        let snapshot = metadata.current_snapshot()?;
        let unique = format!("foreign-{number}");
        let id = chance(world.seed, &["snapshot", &found.table, &unique]).i64(1..);
        let live = Icebergs::read(world, &found.table, metadata).await;
        let io = FileIO::new_with_memory();
        let mut draft = Self {
            world,
            found,
            live,
            id,
            unique,
            io,
            written: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        };
        let list = draft.recall(snapshot.manifest_list()).await;
        let list = ManifestList::parse_with_version(&list, metadata.format_version()).unwrap();
        for file in list.consume_entries() {
            let bytes = draft.recall(&file.manifest_path).await;
            draft.io.new_output(&file.manifest_path).unwrap().write(bytes).await.unwrap();
            let manifest = file.load_manifest(&draft.io).await.unwrap();
            let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
            let alive = alive.cloned().collect();
            draft.before.push((file, alive));
        }
        Some(draft)
    }

    /// Adds a copy of some row under a key that no other row has.
    pub(super) async fn append(&mut self, rng: &mut fastrand::Rng) -> Option<Change> {
        let (path, live) = rng.choice(&self.live.live)?;
        let row = rows_of(&self.live.batches(path).await, live)?.slice(0, 1);
        let place = row.schema().index_of("sku").ok()?;
        let mut columns: Vec<ArrayRef> = row.columns().to_vec();
        columns[place] = Arc::new(StringArray::from(vec![self.unique.clone()]));
        let row = RecordBatch::try_new(row.schema(), columns).unwrap();
        let added = text_rows(&row).unwrap().into_iter().map(|row| (key_of(&row), row)).collect();
        self.keep(|_| true);
        self.add_data(&row, Vec::new()).await;
        Some(Change { added, ..Change::default() })
    }

    /// Takes out a row that the topic will not touch again, of which `last` are those.
    pub(super) async fn delete(&mut self, rng: &mut fastrand::Rng, last: &Rows) -> Option<Change> {
        let (path, live) = rng.choice(&self.live.live)?;
        let (path, deleted) = (path.clone(), Arc::clone(&live.deleted));
        let rows = (0_u64..).zip(live.rows.iter()).filter(|(at, _)| !deleted.contains(*at));
        let (gone, key) = rows
            .map(|(at, row)| (at, key_of(row), row))
            .find(|(_, key, row)| last.get(key) == Some(*row))
            .map(|(at, key, _)| (at, key))?;
        let target = self.entry_of(&path)?.file_path().to_owned();
        if self.is_v3() {
            // A data file has one vector: it is replaced.
            self.keep(|file| file.content == ManifestContentType::Data);
            let about = |entry: &ManifestEntryRef| {
                entry.data_file().referenced_data_file().as_deref() == Some(&*target)
            };
            self.rewrite_deletes(about).await;
            let all = &*deleted | &RoaringTreemap::from_iter([gone]);
            let vector = self.vector(&target, &all).await;
            self.add_deletes(vector).await;
        } else {
            self.keep(|_| true);
            let positions = self.positions(&target, gone).await;
            self.add_deletes(positions).await;
        }
        Some(Change { removed: vec![key], ..Change::default() })
    }

    /// Rewrites the data files of some manifests into one, without the rows that are deleted in them.
    pub(super) async fn rewrite(&mut self, rng: &mut fastrand::Rng) -> Option<Change> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        let (mut gone, mut rewritten) = (Vec::new(), BTreeSet::new());
        for (file, entries) in &self.before {
            if file.content != ManifestContentType::Data || rng.u8(..3) == 0 {
                continue;
            }
            let mut of_manifest = Vec::new();
            for entry in entries {
                let path = below_root(entry.file_path());
                let live = self.live.live.get(path)?;
                of_manifest.extend(rows_of(&self.live.batches(path).await, live));
            }
            let first = batches.iter().chain(&of_manifest).next().map(RecordBatch::schema);
            if of_manifest.iter().any(|rows| Some(rows.schema()) != first) {
                continue;
            }
            batches.extend(of_manifest);
            gone.extend(entries.iter().cloned());
            rewritten.insert(file.manifest_path.clone());
        }
        let rows = concat_batches(&batches.first()?.schema(), &batches).unwrap();
        let is_data = |file: &ManifestFile| file.content == ManifestContentType::Data;
        self.keep(|file| is_data(file) && !rewritten.contains(&file.manifest_path));
        let paths: BTreeSet<_> = gone.iter().map(|entry| entry.file_path().to_owned()).collect();
        self.rewrite_deletes(|entry| {
            entry.data_file().referenced_data_file().is_some_and(|path| paths.contains(&path))
        })
        .await;
        self.add_data(&rows, gone).await;
        Some(Change::default())
    }

    /// The table's metadata with the snapshot; puts its files in the store.
    pub(super) async fn finish(mut self, operation: Operation) -> TableMetadata {
        let metadata = self.found.metadata.clone();
        let (parent, number) = (metadata.current_snapshot_id(), metadata.next_sequence_number());
        let path = format!("{}/metadata/snap-{}-{}.avro", self.home(), self.id, self.unique);
        let output = self.io.new_output(&path).unwrap().writer().await.unwrap();
        let first_row_id = metadata.next_row_id();
        let mut list = match self.is_v3() {
            true => ManifestListWriter::v3(output, self.id, parent, number, Some(first_row_id)),
            false => ManifestListWriter::v2(output, self.id, parent, number),
        };
        list.add_manifests(std::mem::take(&mut self.after).into_iter()).unwrap();
        let next_row_id = list.next_row_id().unwrap_or(first_row_id);
        list.close().await.unwrap();
        self.written.push(path.clone());
        for path in &self.written {
            let bytes = self.io.new_input(path).unwrap().read().await.unwrap();
            self.put(path, bytes).await;
        }
        let now = self.world.wall_millis().max(metadata.last_updated_ms());
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(number)
            .with_timestamp_ms(now)
            .with_manifest_list(path)
            .with_summary(Summary { operation, additional_properties: HashMap::new() })
            .with_schema_id(metadata.current_schema_id());
        let snapshot = match self.is_v3() {
            true => snapshot.with_row_range(first_row_id, next_row_id - first_row_id).build(),
            false => snapshot.build(),
        };
        let main = SnapshotReference::new(self.id, SnapshotRetention::branch(None, None, None));
        let builder = metadata.into_builder(self.found.location.clone());
        let builder = builder.add_snapshot(snapshot).unwrap().set_ref(MAIN_BRANCH, main).unwrap();
        builder.build().unwrap().metadata
    }

    fn is_v3(&self) -> bool {
        self.found.metadata.format_version() >= FormatVersion::V3
    }

    fn home(&self) -> &str {
        self.found.metadata.location()
    }

    async fn recall(&self, path: &str) -> Bytes {
        self.world.bucket.recall(&in_store(path)).await.unwrap()
    }

    async fn put(&self, path: &str, bytes: Bytes) {
        let (options, at) = (PutMode::Create.into(), self.world.trace.millis());
        self.world.bucket.put(&in_store(path), bytes.into(), options, at).await.unwrap();
    }

    fn entry_of(&self, path: &str) -> Option<&ManifestEntryRef> {
        let mut entries = self.before.iter().flat_map(|(_, entries)| entries);
        entries.find(|entry| below_root(entry.file_path()) == path)
    }

    /// Takes manifests over as they are.
    fn keep(&mut self, kept: impl Fn(&ManifestFile) -> bool) {
        let files = self.before.iter().map(|(file, _)| file);
        self.after.extend(files.filter(|file| kept(file)).cloned());
    }

    fn writer(&mut self, content: ManifestContentType) -> ManifestWriter {
        let path = format!("{}/metadata/{}-m{}.avro", self.home(), self.unique, self.written.len());
        let metadata = &self.found.metadata;
        let builder = ManifestWriterBuilder::new(
            self.io.new_output(&path).unwrap(),
            Some(self.id),
            Arc::clone(metadata.current_schema()),
            metadata.default_partition_spec().as_ref().clone(),
        );
        let is_v3 = self.is_v3();
        self.written.push(path);
        match (content, is_v3) {
            (ManifestContentType::Data, true) => builder.build_v3_data(),
            (ManifestContentType::Data, false) => builder.build_v2_data(),
            (ManifestContentType::Deletes, true) => builder.build_v3_deletes(),
            (ManifestContentType::Deletes, false) => builder.build_v2_deletes(),
        }
    }

    /// One manifest with a new data file, in the place of those that go.
    async fn add_data(&mut self, rows: &RecordBatch, gone: Vec<ManifestEntryRef>) {
        let bytes = parquet(rows);
        let path = format!("{}/data/{}.parquet", self.home(), self.unique);
        let mut file = self.describe(&path, &bytes, DataContentType::Data);
        file.file_format(DataFileFormat::Parquet).record_count(rows.num_rows() as u64);
        self.put(&path, bytes).await;
        let mut writer = self.writer(ManifestContentType::Data);
        writer.add_file(file.build().unwrap(), UNASSIGNED_SEQUENCE_NUMBER).unwrap();
        for entry in gone {
            let (number, file) = (entry.sequence_number().unwrap(), entry.data_file().clone());
            writer.add_delete_file(file, number, entry.file_sequence_number).unwrap();
        }
        self.after.push(writer.write_manifest_file().await.unwrap());
    }

    async fn add_deletes(&mut self, file: DataFile) {
        let mut writer = self.writer(ManifestContentType::Deletes);
        writer.add_file(file, UNASSIGNED_SEQUENCE_NUMBER).unwrap();
        self.after.push(writer.write_manifest_file().await.unwrap());
    }

    /// Takes delete manifests over without the delete files that go.
    async fn rewrite_deletes(&mut self, goes: impl Fn(&ManifestEntryRef) -> bool) {
        for (file, entries) in self.before.clone() {
            if file.content != ManifestContentType::Deletes {
                continue;
            }
            if !entries.iter().any(&goes) {
                self.after.push(file);
                continue;
            }
            let mut writer = self.writer(ManifestContentType::Deletes);
            for entry in entries {
                let (number, file) = (entry.sequence_number().unwrap(), entry.data_file().clone());
                let (snapshot, of_file) =
                    (entry.snapshot_id().unwrap(), entry.file_sequence_number);
                match goes(&entry) {
                    true => writer.add_delete_file(file, number, of_file),
                    false => writer.add_existing_file(file, snapshot, number, of_file),
                }
                .unwrap();
            }
            self.after.push(writer.write_manifest_file().await.unwrap());
        }
    }

    fn describe(&self, path: &str, bytes: &Bytes, content: DataContentType) -> DataFileBuilder {
        let mut file = DataFileBuilder::default();
        file.content(content)
            .file_path(path.to_owned())
            .partition(Struct::empty())
            .partition_spec_id(self.found.metadata.default_partition_spec_id())
            .file_size_in_bytes(bytes.len() as u64);
        file
    }

    /// A file of positions with one row.
    async fn positions(&self, target: &str, row: u64) -> DataFile {
        let field = |name: &str, ty, id: i32| {
            let id = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
            Field::new(name, ty, false).with_metadata(id)
        };
        let schema = Schema::new(vec![
            field("file_path", DataType::Utf8, PATH_FIELD),
            field("pos", DataType::Int64, POSITION_FIELD),
        ]);
        let row = Int64Array::from(vec![i64::try_from(row).unwrap()]);
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![target])), Arc::new(row)];
        let bytes = parquet(&RecordBatch::try_new(Arc::new(schema), columns).unwrap());
        let path = format!("{}/data/{}-deletes.parquet", self.home(), self.unique);
        let mut file = self.describe(&path, &bytes, DataContentType::PositionDeletes);
        file.file_format(DataFileFormat::Parquet)
            .record_count(1)
            .referenced_data_file(Some(target.to_owned()));
        self.put(&path, bytes).await;
        file.build().unwrap()
    }

    /// A Puffin with one deletion vector.
    async fn vector(&self, target: &str, rows: &RoaringTreemap) -> DataFile {
        let data = bitmap::to_blob(rows).unwrap();
        let size = i64::try_from(data.len()).unwrap();
        let properties = [
            ("referenced-data-file".to_owned(), target.to_owned()),
            ("cardinality".to_owned(), rows.len().to_string()),
        ];
        let blob = Blob::builder()
            .r#type(DELETION_VECTOR_V1.to_owned())
            .fields(vec![ROW_POSITION_FIELD])
            .snapshot_id(-1)
            .sequence_number(-1)
            .data(data)
            .properties(properties.into())
            .build();
        let path = format!("{}/data/{}.puffin", self.home(), self.unique);
        let output = self.io.new_output(&path).unwrap();
        let mut writer = PuffinWriter::new(&output, HashMap::new(), false).await.unwrap();
        writer.add(blob, CompressionCodec::None).await.unwrap();
        writer.close().await.unwrap();
        let bytes = self.io.new_input(&path).unwrap().read().await.unwrap();
        let mut file = self.describe(&path, &bytes, DataContentType::PositionDeletes);
        file.file_format(DataFileFormat::Puffin)
            .record_count(rows.len())
            .referenced_data_file(Some(target.to_owned()))
            .content_offset(Some(FIRST_BLOB))
            .content_size_in_bytes(Some(size));
        self.put(&path, bytes).await;
        file.build().unwrap()
    }
}

fn parquet(rows: &RecordBatch) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes.into()
}

/// Where a file is that metadata names so.
fn in_store(path: &str) -> object_store::path::Path {
    path.strip_prefix("memory:///").unwrap().into()
}
