//! One commit: from a [`CommitPlan`] to files in the store and the updates that make them part of the table. Nothing here
//! changes the table; the catalog does, once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, SchemaRef, Snapshot, SnapshotReference, SnapshotRetention,
    StructType, TableMetadata,
};
use iceberg::{TableRequirement, TableUpdate};
use object_store::ObjectStoreExt;
use uuid::Uuid;

use super::arrange::{self, DeletePlan, NewDelete};
use super::catalog::LoadedTable;
use super::deletes::{self, Target};
use super::known::{AUDIT, BATCH_ID, DeleteManifest, Known, NOTES, OFFSETS, OWNER, Offsets};
use super::manifests::{Encoded, Manifests};
use super::storage::Folder;
use super::summary::Counts;
use super::{Options, expire, fault, schema, value};
use crate::error::{Error, Result};
use crate::sink::storage::Location;
use crate::table::plan::{CommitPlan, DataFile, LiveFile};

/// A file to be written: its path and what is in it.
pub(super) type Upload = (String, Bytes);

/// Files written at a time.
const WRITES_AT_A_TIME: usize = 64;

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

/// Makes commits.
pub(super) struct Builder<'a> {
    pub(super) known: &'a Known,
    pub(super) root: &'a Folder,
    pub(super) io: &'a FileIO,
    pub(super) options: &'a Options,
    pub(super) plan: &'a CommitPlan,
    /// Manifests and their list, before they are written.
    pub(super) memory: FileIO,
    pub(super) snapshot_id: i64,
    /// Unique part of the names of the commit's files.
    pub(super) unique: Uuid,
    pub(super) home: Folder,
    /// The schema after the commit, and the updates that make it the table's.
    pub(super) schema: SchemaRef,
    schema_updates: Vec<TableUpdate>,
    pub(super) partition_type: StructType,
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
        let unique = root.location().new_name();
        Ok(Self {
            known,
            root,
            io,
            options,
            plan,
            memory: FileIO::new_with_memory(),
            snapshot_id: snapshot_id(&known.metadata, root.location()),
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
        let manifests = async {
            let encoded = self.encode(data, deletes, &removed, &mut counts).await?;
            let Encoded { manifests, list, rows, files } = encoded;
            written.extend(files.iter().map(|(path, _)| path.clone()));
            self.upload(files).await?;
            Ok((manifests, list, rows))
        };
        let ((), (manifests, list, rows)) = futures::try_join!(self.upload(uploads), manifests)?;
        self.attempt(&counts, manifests, list, rows, std::mem::take(written))
    }

    pub(super) fn failed(&self, e: iceberg::Error) -> Error {
        fault::iceberg(format!("cannot write a commit for the table {}", self.home.name()), e)
    }

    pub(super) fn format_version(&self) -> FormatVersion {
        self.known.metadata.format_version()
    }

    pub(super) fn spec_id(&self) -> i32 {
        self.known.metadata.default_partition_spec_id()
    }

    pub(super) fn sequence_number(&self) -> i64 {
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
    pub(super) fn named(&self, file: &DataFile) -> String {
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
            .with_summary(counts.summary(parent, self.told(&progress)))
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
        updates.extend(self.notes()?);
        updates.extend(self.plan.owner.as_ref().map(|owner| TableUpdate::SetProperties {
            updates: HashMap::from([(OWNER.to_owned(), owner.to_string())]),
        }));
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

    /// Stores the notes, where there are any now or before.
    fn notes(&self) -> Result<Option<TableUpdate>> {
        let name = NOTES.to_owned();
        if !self.plan.notes.is_empty() {
            let notes = serde_json::to_string(&self.plan.notes)
                .map_err(|e| Error::internal("cannot write notes as JSON").because(e))?;
            return Ok(Some(TableUpdate::SetProperties {
                updates: HashMap::from([(name, notes)]),
            }));
        }
        let stored = self.known.metadata.properties().contains_key(NOTES);
        Ok(stored.then(|| TableUpdate::RemoveProperties { removals: vec![name] }))
    }

    /// What the summary says beside counts.
    fn told(&self, progress: &HashMap<String, String>) -> HashMap<String, String> {
        let audit = self.plan.audit.iter().map(|audit| (AUDIT.to_owned(), audit.clone()));
        progress.clone().into_iter().chain(audit).collect()
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

    /// True when it adds the data files of `plan`.
    pub(super) fn has_files_of(&self, plan: &CommitPlan) -> bool {
        let own: BTreeSet<&str> = self.plan.added.iter().map(|file| file.path.as_str()).collect();
        plan.added.iter().all(|file| own.contains(file.path.as_str()))
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
    // A catalog does not add a schema that it has already.
    let same = metadata.schemas_iter().find(|known| {
        known.as_struct() == schema.as_struct()
            && known.identifier_field_ids().collect::<BTreeSet<_>>()
                == schema.identifier_field_ids().collect::<BTreeSet<_>>()
    });
    let mut updates = match same {
        Some(same) if same.schema_id() == current.schema_id() => Vec::new(),
        Some(same) => vec![TableUpdate::SetCurrentSchema { schema_id: same.schema_id() }],
        None => vec![
            TableUpdate::AddSchema { schema: schema.clone() },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
        ],
    };
    let properties = schema::properties(&plan.schema, metadata.properties())?;
    updates.push(TableUpdate::SetProperties { updates: properties });
    Ok((same.map_or_else(|| Arc::new(schema), Arc::clone), updates))
}

/// A random id that no snapshot has.
fn snapshot_id(metadata: &TableMetadata, location: &Location) -> i64 {
    loop {
        let (high, low) = location.new_name().as_u64_pair();
        let id = i64::try_from((high ^ low) >> 1).unwrap_or(i64::MAX);
        if metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
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
        self.state.notes = plan.notes;
        self.state.owner = plan.owner.or_else(|| self.state.owner.take());
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
