//! One commit: from a [`CommitPlan`] to files in the store and the updates that make them part of the table. Nothing here
//! changes the table; the catalog does, once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile as IceFile, DataFileBuilder, DataFileFormat, FormatVersion,
    MAIN_BRANCH, ManifestContentType, ManifestEntry, ManifestFile, ManifestListWriter,
    ManifestStatus, ManifestWriter, ManifestWriterBuilder, SchemaRef, Snapshot, SnapshotReference,
    SnapshotRetention, StructType, TableMetadata, UNASSIGNED_SEQUENCE_NUMBER,
};
use iceberg::{TableRequirement, TableUpdate};
use object_store::ObjectStoreExt;
use uuid::Uuid;

use super::arrange::{self, DataPlan, DeletePlan, DeleteRewrite, NewDelete};
use super::catalog::LoadedTable;
use super::deletes::{self, Target};
use super::known::{BATCH_ID, DeleteEntry, DeleteManifest, KEY, Known, OFFSETS, Offsets};
use super::storage::Folder;
use super::summary::Counts;
use super::{Options, expire, fault, schema, value};
use crate::error::{Error, Result};
use crate::table::plan::{CommitPlan, DataFile, LiveFile};

/// A file to be written: its path and what is in it.
type Upload = (String, Bytes);

/// Files written at a time.
const WRITES_AT_A_TIME: usize = 16;

/// A commit that is ready to be sent, and what is known once it is in.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) plan: CommitPlan,
    pub(super) snapshot_id: i64,
    pub(super) sequence_number: i64,
    pub(super) requirements: Vec<TableRequirement>,
    pub(super) updates: Vec<TableUpdate>,
    /// The metadata after the commit, as the updates make it here.
    pub(super) metadata: TableMetadata,
    /// Files written for it.
    pub(super) written: Vec<String>,
    /// Snapshots that the commit removes from the table.
    pub(super) expired: Vec<i64>,
    manifests: Manifests,
}

/// The manifests after the commit.
#[derive(Debug, Default)]
struct Manifests {
    data: Vec<ManifestFile>,
    /// Which data manifest names a data file now, by relative path.
    naming: Vec<(String, Arc<str>)>,
    dropped_deletes: BTreeSet<Arc<str>>,
    new_deletes: Vec<DeleteManifest>,
}

/// Makes commits.
pub(super) struct Builder<'a> {
    pub(super) known: &'a Known,
    pub(super) root: &'a Folder,
    pub(super) io: &'a FileIO,
    pub(super) options: &'a Options,
    pub(super) plan: &'a CommitPlan,
    snapshot_id: i64,
    /// Unique part of the names of the commit's files.
    unique: Uuid,
    home: Folder,
    /// The schema after the commit, and the updates that make it the table's.
    schema: SchemaRef,
    schema_updates: Vec<TableUpdate>,
    partition_type: StructType,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        known: &'a Known,
        root: &'a Folder,
        io: &'a FileIO,
        options: &'a Options,
        plan: &'a CommitPlan,
    ) -> Result<Self> {
        let (schema, schema_updates) = changed_schema(known, plan)?;
        let unique = Uuid::new_v4();
        Ok(Self {
            known,
            root,
            io,
            options,
            plan,
            snapshot_id: snapshot_id(&known.metadata),
            unique,
            home: options.home(root),
            schema,
            schema_updates,
            partition_type: known.metadata.default_partition_type().clone(),
        })
    }

    /// Writes what the commit needs; every file it writes, or tries to, is noted in `written` first.
    pub(super) async fn build(&self, written: &mut Vec<String>) -> Result<Attempt> {
        let mut counts = Counts::default();
        let (new_deletes, uploads) = self.delete_files()?;
        let touched = self.plan.deletions.iter().map(|d| d.file.path.as_str());
        let removed: BTreeSet<&str> =
            self.plan.removed.iter().map(|file| file.file.path.as_str()).collect();
        let touched: BTreeSet<&str> = touched.chain(removed.iter().copied()).collect();
        let deletes = arrange::deletes(self.known, &touched, new_deletes);
        let data = arrange::data(self.known, &removed);
        count_deletes(&deletes, &mut counts);

        written.extend(uploads.iter().map(|(path, _)| path.clone()));
        let (_, mut manifests) = futures::try_join!(
            self.upload(uploads),
            self.write_manifests(data, deletes, &removed, &mut counts, written),
        )?;
        let list =
            self.home.absolute(&format!("metadata/snap-{}-{}.avro", self.snapshot_id, self.unique));
        written.push(list.clone());
        let rows = self.write_list(&mut manifests, &list).await?;
        self.attempt(&counts, manifests, list, rows, std::mem::take(written))
    }

    fn failed(&self, e: iceberg::Error) -> Error {
        fault::iceberg(format!("cannot write a commit for the table {}", self.home.name()), e)
    }

    fn format_version(&self) -> FormatVersion {
        self.known.metadata.format_version()
    }

    fn spec_id(&self) -> i32 {
        self.known.metadata.default_partition_spec_id()
    }

    fn sequence_number(&self) -> i64 {
        self.known.metadata.next_sequence_number()
    }

    /// The delete files of the plan, described and encoded.
    fn delete_files(&self) -> Result<(Vec<NewDelete>, Vec<Upload>)> {
        let mut described = Vec::with_capacity(self.plan.deletions.len());
        let mut uploads = Vec::with_capacity(self.plan.deletions.len());
        let version = self.format_version();
        for (number, deletion) in self.plan.deletions.iter().enumerate() {
            let name = format!("data/{}-{number:05}-{}", self.unique, deletes::suffix(version));
            let path = self.home.absolute(&name);
            let target = Target {
                path: &self.named(&deletion.file),
                partition: value::partition(&deletion.file.partition, &self.partition_type)?,
                spec_id: self.spec_id(),
            };
            let (file, bytes) = deletes::encode(version, path.clone(), &target, &deletion.after)?;
            described.push(NewDelete { target: deletion.file.path.clone(), file });
            uploads.push((path, bytes));
        }
        Ok((described, uploads))
    }

    /// A data file's path as metadata has it.
    fn named(&self, file: &DataFile) -> String {
        let spelled = self.known.spelled.get(&file.path);
        spelled.cloned().unwrap_or_else(|| self.root.absolute(&file.path))
    }

    async fn upload(&self, files: Vec<Upload>) -> Result<()> {
        let put = |(path, bytes): Upload| async move {
            let what = || format!("cannot write {path}");
            let object = self.root.object(&path).ok_or_else(|| Error::internal(what()))?;
            let put = self.root.store().put(&object, bytes.into()).await;
            put.map(|_| ()).map_err(|e| fault::store(what(), e))
        };
        stream::iter(files).map(put).buffer_unordered(WRITES_AT_A_TIME).try_collect().await
    }

    async fn write_manifests(
        &self,
        data: DataPlan,
        deletes: DeletePlan,
        removed: &BTreeSet<&str>,
        counts: &mut Counts,
        written: &mut Vec<String>,
    ) -> Result<Manifests> {
        let mut manifests =
            Manifests { data: data.kept, dropped_deletes: deletes.dropped, ..Manifests::default() };
        let mut writes: Vec<BoxFuture<'_, Result<Written>>> = Vec::new();
        for group in data.rewrites {
            let path = self.manifest_path(written);
            writes.push(self.rewrite_data(path, group, removed).boxed());
        }
        if !self.plan.added.is_empty() {
            let path = self.manifest_path(written);
            writes.push(self.write_added(path).boxed());
        }
        for rewrite in deletes.rewrites {
            let path = self.manifest_path(written);
            writes.push(self.write_deletes(path, rewrite).boxed());
        }
        let mut done = stream::iter(writes).buffered(WRITES_AT_A_TIME);
        while let Some(written) = done.try_next().await? {
            match written {
                Written::Data { file, naming, added, removed } => {
                    added.iter().for_each(|file| counts.add(file));
                    removed.iter().for_each(|file| counts.remove(file));
                    let name: Arc<str> = file.manifest_path.as_str().into();
                    manifests
                        .naming
                        .extend(naming.into_iter().map(|path| (path, Arc::clone(&name))));
                    manifests.data.push(file);
                }
                Written::Deletes(manifest) => manifests.new_deletes.push(manifest),
            }
        }
        Ok(manifests)
    }

    fn manifest_path(&self, written: &mut Vec<String>) -> String {
        let path = self.home.absolute(&format!("metadata/{}-m{}.avro", self.unique, written.len()));
        written.push(path.clone());
        path
    }

    fn writer(&self, path: &str, content: ManifestContentType) -> Result<ManifestWriter> {
        let output = self.io.new_output(path).map_err(|e| self.failed(e))?;
        let builder = ManifestWriterBuilder::new(
            output,
            Some(self.snapshot_id),
            Arc::clone(&self.schema),
            self.known.metadata.default_partition_spec().as_ref().clone(),
        );
        let v3 = self.format_version() >= FormatVersion::V3;
        Ok(match (content, v3) {
            (ManifestContentType::Data, true) => builder.build_v3_data(),
            (ManifestContentType::Data, false) => builder.build_v2_data(),
            (ManifestContentType::Deletes, true) => builder.build_v3_deletes(),
            (ManifestContentType::Deletes, false) => builder.build_v2_deletes(),
        })
    }

    /// The manifest of the plan's new data files.
    async fn write_added(&self, path: String) -> Result<Written> {
        let mut writer = self.writer(&path, ManifestContentType::Data)?;
        let mut added = Vec::with_capacity(self.plan.added.len());
        for file in &self.plan.added {
            let described = self.describe(file)?;
            writer
                .add_file(described.clone(), UNASSIGNED_SEQUENCE_NUMBER)
                .map_err(|e| self.failed(e))?;
            added.push(described);
        }
        let file = writer.write_manifest_file().await.map_err(|e| self.failed(e))?;
        let naming = self.plan.added.iter().map(|file| file.path.clone()).collect();
        Ok(Written::Data { file, naming, added, removed: Vec::new() })
    }

    fn describe(&self, file: &DataFile) -> Result<IceFile> {
        let mut described = DataFileBuilder::default();
        described
            .content(DataContentType::Data)
            .file_path(self.named(file))
            .file_format(DataFileFormat::Parquet)
            .partition(value::partition(&file.partition, &self.partition_type)?)
            .partition_spec_id(self.spec_id())
            .record_count(file.rows)
            .file_size_in_bytes(file.size)
            .split_offsets((!file.split_offsets.is_empty()).then(|| file.split_offsets.clone()));
        let stats = &file.stats;
        described
            .column_sizes(stats.iter().map(|(id, s)| (*id, s.compressed_bytes)).collect())
            .value_counts(stats.iter().map(|(id, s)| (*id, s.values)).collect())
            .null_value_counts(stats.iter().map(|(id, s)| (*id, s.nulls)).collect());
        // Bounds of list elements would say nothing about the list.
        let mut lower = HashMap::new();
        let mut upper = HashMap::new();
        for column in self.schema.as_struct().fields() {
            let Some(ty) = column.field_type.as_primitive_type() else { continue };
            let Some(stats) = stats.get(&column.id) else { continue };
            lower.extend(stats.min.as_ref().and_then(|v| Some((column.id, value::datum(v, ty)?))));
            upper.extend(stats.max.as_ref().and_then(|v| Some((column.id, value::datum(v, ty)?))));
        }
        described.lower_bounds(lower).upper_bounds(upper);
        described.build().map_err(|e| Error::internal("cannot describe a data file").because(e))
    }

    /// Writes the live files of `group` as one manifest, those in `removed` as deleted.
    async fn rewrite_data(
        &self,
        path: String,
        group: Vec<ManifestFile>,
        removed: &BTreeSet<&str>,
    ) -> Result<Written> {
        let mut writer = self.writer(&path, ManifestContentType::Data)?;
        let (mut naming, mut gone) = (Vec::new(), Vec::new());
        let mut every_row_has_an_id = true;
        let reads: Vec<_> = group.iter().map(|file| file.load_manifest(self.io)).collect();
        let loaded: Vec<_> = stream::iter(reads)
            .buffered(WRITES_AT_A_TIME)
            .try_collect()
            .await
            .map_err(|e| self.failed(e))?;
        for (manifest, entries) in group.into_iter().zip(loaded) {
            // A manifest gives row ids to those of its files that have none yet, in order; written anew, they have them.
            let mut next_row_id = manifest.first_row_id;
            for entry in entries.entries().iter().filter(|entry| entry.is_alive()) {
                let mut file = entry.data_file().clone();
                if let (None, Some(next)) = (file.first_row_id(), next_row_id) {
                    file = with_first_row_id(&file, next, self.spec_id())?;
                    next_row_id = Some(next + file.record_count());
                }
                every_row_has_an_id &= file.first_row_id().is_some();
                let number = entry.sequence_number().unwrap_or_default();
                let relative = self.root.relative(file.file_path()).unwrap_or_default().to_owned();
                if removed.contains(relative.as_str()) {
                    gone.push(file.clone());
                    writer.add_delete_file(file, number, entry.file_sequence_number)
                } else {
                    naming.push(relative);
                    let snapshot = entry.snapshot_id().unwrap_or_default();
                    writer.add_existing_file(file, snapshot, number, entry.file_sequence_number)
                }
                .map_err(|e| self.failed(e))?;
            }
        }
        let mut file = writer.write_manifest_file().await.map_err(|e| self.failed(e))?;
        if self.format_version() >= FormatVersion::V3 && every_row_has_an_id {
            // Else the manifest list would reserve row ids for rows that have them.
            file.first_row_id = Some(self.known.metadata.next_row_id());
        }
        Ok(Written::Data { file, naming, added: Vec::new(), removed: gone })
    }

    async fn write_deletes(&self, path: String, rewrite: DeleteRewrite) -> Result<Written> {
        let mut writer = self.writer(&path, ManifestContentType::Deletes)?;
        let failed = |e| self.failed(e);
        for DeleteEntry { entry, .. } in &rewrite.removed {
            let number = entry.sequence_number().unwrap_or_default();
            let file = entry.data_file().clone();
            writer.add_delete_file(file, number, entry.file_sequence_number).map_err(failed)?;
        }
        for DeleteEntry { entry, .. } in &rewrite.kept {
            let number = entry.sequence_number().unwrap_or_default();
            let snapshot = entry.snapshot_id().unwrap_or_default();
            let file = entry.data_file().clone();
            writer
                .add_existing_file(file, snapshot, number, entry.file_sequence_number)
                .map_err(failed)?;
        }
        let mut entries = rewrite.kept;
        for NewDelete { target, file } in rewrite.added {
            writer.add_file(file.clone(), UNASSIGNED_SEQUENCE_NUMBER).map_err(failed)?;
            let entry = ManifestEntry::builder()
                .status(ManifestStatus::Added)
                .snapshot_id(self.snapshot_id)
                .sequence_number(self.sequence_number())
                .file_sequence_number(self.sequence_number())
                .data_file(file)
                .build();
            entries.push(DeleteEntry { target: Some(target), entry: Arc::new(entry) });
        }
        let file = writer.write_manifest_file().await.map_err(failed)?;
        Ok(Written::Deletes(DeleteManifest { file, entries }))
    }

    /// Writes the manifest list and gives the manifests the numbers it assigns; the number of row ids it hands out.
    async fn write_list(&self, manifests: &mut Manifests, path: &str) -> Result<u64> {
        let failed = |e| self.failed(e);
        let parent = self.known.metadata.current_snapshot_id();
        let number = self.sequence_number();
        let first_row_id = self.known.metadata.next_row_id();
        let output = self.io.new_output(path).map_err(failed)?.writer().await.map_err(failed)?;
        let v3 = self.format_version() >= FormatVersion::V3;
        let mut list = if v3 {
            let first = Some(first_row_id);
            ManifestListWriter::v3(output, self.snapshot_id, parent, number, first)
        } else {
            ManifestListWriter::v2(output, self.snapshot_id, parent, number)
        };
        let dropped = &manifests.dropped_deletes;
        let kept = self.known.deletes.iter().filter(|(name, _)| !dropped.contains(*name));
        let kept = kept.map(|(_, manifest)| manifest.file.clone());
        let new = manifests.new_deletes.iter().map(|manifest| manifest.file.clone());
        list.add_manifests(manifests.data.iter().cloned().chain(kept).chain(new))
            .map_err(failed)?;
        let next_row_id = list.next_row_id().unwrap_or(first_row_id);
        list.close().await.map_err(failed)?;

        let mut next = first_row_id;
        let deletes = manifests.new_deletes.iter_mut().map(|manifest| &mut manifest.file);
        for manifest in manifests.data.iter_mut().chain(deletes) {
            assign(&mut manifest.sequence_number, number);
            assign(&mut manifest.min_sequence_number, number);
            let unnumbered =
                manifest.content == ManifestContentType::Data && manifest.first_row_id.is_none();
            if v3 && unnumbered {
                manifest.first_row_id = Some(next);
                next += manifest.added_rows_count.unwrap_or(0)
                    + manifest.existing_rows_count.unwrap_or(0);
            }
        }
        if next != next_row_id {
            return Err(Error::internal("row ids were not assigned as expected"));
        }
        Ok(next_row_id - first_row_id)
    }

    fn attempt(
        &self,
        counts: &Counts,
        manifests: Manifests,
        list: String,
        rows: u64,
        written: Vec<String>,
    ) -> Result<Attempt> {
        let metadata = &self.known.metadata;
        let progress = self.progress()?;
        let parent = metadata.current_snapshot().map(|snapshot| snapshot.summary());
        let schema_id = self.schema.schema_id();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(self.sequence_number())
            .with_timestamp_ms(self.plan.now_millis.max(metadata.last_updated_ms()))
            .with_manifest_list(list)
            .with_summary(counts.summary(parent, progress.clone()))
            .with_schema_id(schema_id);
        let snapshot = if self.format_version() >= FormatVersion::V3 {
            snapshot.with_row_range(metadata.next_row_id(), rows).build()
        } else {
            snapshot.build()
        };
        let mut updates = self.schema_updates.clone();
        let reference = main_at(self.snapshot_id, self.known);
        updates.extend([
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference },
            TableUpdate::SetProperties { updates: progress },
        ]);
        let expired = expire::due(self.known, &self.options.snapshots, self.plan.now_millis);
        if !expired.is_empty() {
            updates.push(TableUpdate::RemoveSnapshots { snapshot_ids: expired.clone() });
        }
        let requirements = requirements(metadata, !self.schema_updates.is_empty());
        let location = Some(self.known.metadata_location.clone());
        let mut builder = metadata.clone().into_builder(location);
        for update in updates.iter().cloned() {
            builder = update.apply(builder).map_err(|e| self.failed(e))?;
        }
        let metadata = builder.build().map_err(|e| self.failed(e))?.metadata;
        Ok(Attempt {
            plan: self.plan.clone(),
            snapshot_id: self.snapshot_id,
            sequence_number: self.sequence_number(),
            requirements,
            updates,
            metadata,
            written,
            expired,
            manifests,
        })
    }

    /// What the summary and the table's properties say of the position.
    fn progress(&self) -> Result<HashMap<String, String>> {
        let offsets = Offsets {
            topic: self.options.topic.as_ref().to_owned(),
            offsets: self.plan.position.clone(),
        };
        let offsets = serde_json::to_string(&offsets)
            .map_err(|e| Error::internal("cannot write the position as JSON").because(e))?;
        Ok(HashMap::from([
            (OFFSETS.to_owned(), offsets),
            (BATCH_ID.to_owned(), self.plan.batch_id.to_string()),
        ]))
    }
}

impl Attempt {
    /// Branches and tags after the commit, on top of `known`.
    pub(super) fn refs(&self, known: &Known) -> HashMap<String, SnapshotReference> {
        let mut refs = known.refs.clone();
        refs.insert(MAIN_BRANCH.to_owned(), main_at(self.snapshot_id, known));
        refs
    }

    /// True when the commit is in the table, as far as its history tells.
    pub(super) fn is_in(&self, metadata: &TableMetadata) -> bool {
        metadata.snapshot_by_id(self.snapshot_id).is_some()
    }

    /// True when `known` is what the commit was made on.
    pub(super) fn is_based_on(&self, known: &Known) -> bool {
        !self.is_in(&known.metadata) && self.may_land(&known.metadata)
    }

    /// True when a catalog with this table would take the commit.
    pub(super) fn may_land(&self, metadata: &TableMetadata) -> bool {
        self.requirements.iter().all(|requirement| requirement.check(Some(metadata)).is_ok())
    }

    /// The table right after the commit on top of `known`, as far as it can be told from here.
    pub(super) fn predicted(&self, known: &Known) -> LoadedTable {
        LoadedTable {
            metadata: self.metadata.clone(),
            metadata_location: known.metadata_location.clone(),
            refs: self.refs(known),
            storage: None,
        }
    }
}

/// The main branch at another snapshot; what else was set of it stays.
fn main_at(snapshot_id: i64, known: &Known) -> SnapshotReference {
    let retention = known.refs.get(MAIN_BRANCH).map(|main| main.retention.clone());
    let retention = retention.unwrap_or_else(|| SnapshotRetention::branch(None, None, None));
    SnapshotReference::new(snapshot_id, retention)
}

enum Written {
    Data { file: ManifestFile, naming: Vec<String>, added: Vec<IceFile>, removed: Vec<IceFile> },
    Deletes(DeleteManifest),
}

fn assign(number: &mut i64, to: i64) {
    if *number == UNASSIGNED_SEQUENCE_NUMBER {
        *number = to;
    }
}

fn count_deletes(deletes: &DeletePlan, counts: &mut Counts) {
    for rewrite in &deletes.rewrites {
        rewrite.added.iter().for_each(|new| counts.add(&new.file));
        rewrite.removed.iter().for_each(|old| counts.remove(old.entry.data_file()));
    }
}

/// The commit must find the table as it is known here.
fn requirements(metadata: &TableMetadata, schema_changes: bool) -> Vec<TableRequirement> {
    let mut requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: metadata.current_snapshot_id(),
        },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::DefaultSpecIdMatch {
            default_spec_id: metadata.default_partition_spec_id(),
        },
    ];
    if schema_changes {
        requirements.push(TableRequirement::LastAssignedFieldIdMatch {
            last_assigned_field_id: metadata.last_column_id(),
        });
    }
    requirements
}

/// The schema after the commit, and the updates that bring it.
fn changed_schema(known: &Known, plan: &CommitPlan) -> Result<(SchemaRef, Vec<TableUpdate>)> {
    let metadata = &known.metadata;
    let current = metadata.current_schema();
    if !plan.schema_changed {
        return Ok((Arc::clone(current), Vec::new()));
    }
    let fresh = metadata.schemas_iter().map(|schema| schema.schema_id()).max().unwrap_or(0) + 1;
    let schema = schema::to_iceberg(&plan.schema, fresh, Some(current))?;
    // A catalog gives a schema that it has already the id it has.
    let same = metadata.schemas_iter().find(|known| {
        known.as_struct() == schema.as_struct()
            && known.identifier_field_ids().collect::<BTreeSet<_>>()
                == schema.identifier_field_ids().collect::<BTreeSet<_>>()
    });
    let schema = same.map_or_else(|| Arc::new(schema), Arc::clone);
    let key = serde_json::to_string(plan.schema.key())
        .map_err(|e| Error::internal("cannot write the key as JSON").because(e))?;
    let updates = vec![
        TableUpdate::AddSchema { schema: schema.as_ref().clone() },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::SetProperties { updates: HashMap::from([(KEY.to_owned(), key)]) },
    ];
    Ok((schema, updates))
}

/// A random id that no snapshot has.
fn snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = i64::try_from((high ^ low) >> 1).unwrap_or(i64::MAX);
        if metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// The file with its row ids written down: the `iceberg` crate has no way to change one.
fn with_first_row_id(file: &IceFile, first_row_id: u64, spec_id: i32) -> Result<IceFile> {
    let failed = || Error::internal(format!("cannot number the rows of {}", file.file_path()));
    let mut copy = DataFileBuilder::default();
    copy.content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes())
        .first_row_id(Some(i64::try_from(first_row_id).map_err(|_| failed())?));
    if let Some(order) = file.sort_order_id() {
        copy.sort_order_id(order);
    }
    copy.build().map_err(|e| failed().because(e))
}

impl Known {
    /// Takes over a commit that is in the table; `loaded` is the table as of it.
    pub(super) fn apply(&mut self, attempt: Attempt, loaded: LoadedTable) {
        let Attempt { plan, manifests, .. } = attempt;
        for file in &plan.removed {
            self.state.files.remove(&file.file.path);
            self.named_by.remove(&file.file.path);
            self.spelled.remove(&file.file.path);
        }
        for file in &plan.added {
            let live = LiveFile { file: Arc::clone(file), deleted: Arc::default() };
            self.state.files.insert(file.path.clone(), live);
        }
        for deletion in &plan.deletions {
            if let Some(file) = self.state.files.get_mut(&deletion.file.path) {
                file.deleted = Arc::clone(&deletion.after);
            }
        }
        self.data = manifests.data;
        self.named_by.extend(manifests.naming);
        self.apply_deletes(&manifests.dropped_deletes, manifests.new_deletes);
        self.state.version = attempt.sequence_number;
        self.state.schema = Arc::clone(&plan.schema);
        self.state.position = plan.position.clone();
        self.state.last_batch = Some(plan.batch_id);
        self.metadata = loaded.metadata;
        self.refs = loaded.refs;
        self.metadata_location = loaded.metadata_location;
    }

    fn apply_deletes(&mut self, dropped: &BTreeSet<Arc<str>>, new: Vec<DeleteManifest>) {
        let mut unnamed = BTreeSet::new();
        for name in dropped {
            let Some(manifest) = self.deletes.remove(name) else { continue };
            for target in manifest.entries.into_iter().filter_map(|entry| entry.target) {
                if let Some(naming) = self.deleted_by.get_mut(&target) {
                    naming.retain(|other| other != name);
                }
                unnamed.insert(target);
            }
        }
        for manifest in new {
            let name: Arc<str> = manifest.file.manifest_path.as_str().into();
            for target in manifest.entries.iter().filter_map(|entry| entry.target.as_ref()) {
                let naming = self.deleted_by.entry(target.clone()).or_default();
                if !naming.contains(&name) {
                    naming.push(Arc::clone(&name));
                }
            }
            self.deletes.insert(name, manifest);
        }
        for target in unnamed {
            if self.deleted_by.get(&target).is_some_and(Vec::is_empty) {
                self.deleted_by.remove(&target);
            }
        }
    }
}
