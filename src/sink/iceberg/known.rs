//! The table as this process knows it: its metadata, its live files, and which manifest names which of them, so that a
//! commit writes only what it changes and reads nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile as IceFile, DataFileFormat, FormatVersion, Manifest,
    ManifestContentType, ManifestEntry, ManifestFile, ManifestList, SnapshotReference,
    TableMetadata,
};
use object_store::ObjectStoreExt;
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalog::{LoadedTable, TableName};
use super::storage::Folder;
use super::{Options, deletes, fault, manifests, schema, value};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::schema::Column;
use crate::table::bitmap;
use crate::table::notes::Notes;
use crate::table::plan::{CommitPlan, DataFile, Deletion, LiveFile, TableState};

/// Summary and table property: the position, as JSON (see [`Offsets`]).
pub(super) const OFFSETS: &str = "cdc-sink.offsets";
/// Summary and table property: the id of the batch that the newest commit of ours holds.
pub(super) const BATCH_ID: &str = "cdc-sink.batch-id";
/// Table property: the notes of key changes, as JSON, as of the newest commit of ours. Not in summaries: each is kept for
/// days.
pub(super) const NOTES: &str = "cdc-sink.departed-rows";
/// Table property: the topic that feeds the table.
pub(super) const TOPIC: &str = "cdc-sink.topic";
/// Table property: the deployment that the table belongs to.
pub(super) const OWNER: &str = "cdc-sink.owner";
/// Summary: what a person did by the commit.
pub(super) const AUDIT: &str = "cdc-sink.audit";
/// Table property: names of the key columns in the key's order, as a JSON list.
pub(super) const KEY: &str = "cdc-sink.key";
/// Table property: the columns' other names, as JSON (see [`schema::Names`]).
pub(super) const NAMES: &str = "cdc-sink.column-names";
/// Table property: the partitions that the topic had when the table was made.
pub(super) const PARTITIONS: &str = "cdc-sink.partitions";

/// Files read at a time when a table is opened.
const READS_AT_A_TIME: usize = 32;

/// What [`OFFSETS`] holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offsets {
    pub(super) topic: String,
    pub(super) offsets: Position,
}

/// A delete file of the current version.
#[derive(Debug, Clone)]
pub(super) struct DeleteEntry {
    /// The one data file it is about, by relative path; none when another engine put several into one file.
    pub(super) target: Option<String>,
    pub(super) entry: Arc<ManifestEntry>,
}

/// A delete manifest of the current version with its live entries.
#[derive(Debug, Clone)]
pub(super) struct DeleteManifest {
    pub(super) file: ManifestFile,
    pub(super) entries: Vec<DeleteEntry>,
}

/// The table as of one metadata file.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) metadata: TableMetadata,
    pub(super) metadata_location: String,
    /// Branches and tags.
    pub(super) refs: HashMap<String, SnapshotReference>,
    pub(super) state: TableState,
    /// Data manifests, oldest first.
    pub(super) data: Vec<ManifestFile>,
    /// Live data files by relative path: the data manifest that names them.
    pub(super) named_by: HashMap<String, Arc<str>>,
    /// Live data files by relative path: how metadata spells the path, where another engine spelled it another way than
    /// we do. Deletes must spell it the same.
    pub(super) spelled: HashMap<String, String>,
    /// Delete manifests by path.
    pub(super) deletes: BTreeMap<Arc<str>, DeleteManifest>,
    /// Data files with deletes of their own by relative path: the delete manifests that name those.
    pub(super) deleted_by: HashMap<String, Vec<Arc<str>>>,
}

/// Where to read a table from, and what it must be.
pub(super) struct Reader<'a> {
    /// The table's root.
    pub(super) root: &'a Folder,
    pub(super) io: &'a FileIO,
    pub(super) options: &'a Options,
    /// The table's name, for errors.
    pub(super) name: &'a str,
}

/// Delete files of one data file, by which a bitmap is recognised as read already.
type Sources = BTreeSet<(String, Option<i64>)>;

impl Reader<'_> {
    /// Reads the table; what `previous` knows already is not read again.
    pub(super) async fn read(
        &self,
        loaded: LoadedTable,
        previous: Option<&Known>,
    ) -> Result<Known> {
        self.check(&loaded.metadata)?;
        let mut known = self.describe(loaded)?;
        let (data, delete) = self.manifests(&known.metadata).await?;
        self.read_data(&mut known, data, previous).await?;
        self.read_deletes(&mut known, delete, previous).await?;
        self.read_bitmaps(&mut known, previous).await?;
        Ok(known)
    }

    fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::refused(format!("cannot write to the Iceberg table {}: {why}", self.name))
    }

    /// Refuses tables that are not ours to write.
    fn check(&self, metadata: &TableMetadata) -> Result<()> {
        let topic = metadata.properties().get(TOPIC).ok_or_else(|| {
            self.refused("it was not made by cdc-sink")
                .hint("drop it, or give the topic another table")
        })?;
        if **topic != *self.options.topic {
            return Err(self
                .refused(format!("it holds the topic {topic}, not {}", self.options.topic))
                .hint("give each topic a table of its own"));
        }
        if metadata.format_version() < FormatVersion::V2 {
            return Err(self.refused("it has format version 1").hint("upgrade it to 2 or 3"));
        }
        let home = self.options.home(self.root);
        if !home.is_named(metadata.location()) {
            let (location, expected) = (metadata.location(), home.name());
            return Err(self
                .refused(format!("its location is {location}, expected is {expected}"))
                .hint("write one format to it where the catalog chooses the location"));
        }
        Ok(())
    }

    fn describe(&self, loaded: LoadedTable) -> Result<Known> {
        let LoadedTable { metadata, metadata_location, refs, .. } = loaded;
        let key = metadata.properties().get(KEY).map_or("[]", String::as_str);
        let key = serde_json::from_str(key).map_err(|e| {
            self.refused(format!("its property {KEY} is not a list of names")).because(e)
        })?;
        let names = metadata.properties().get(NAMES).map_or("{}", String::as_str);
        let names = serde_json::from_str(names).map_err(|e| {
            self.refused(format!("its property {NAMES} is not the JSON that was written"))
                .because(e)
        })?;
        let current = metadata.current_schema();
        let partitions = metadata.properties().get(PARTITIONS).and_then(|n| n.parse().ok());
        let schema = schema::from_iceberg(current, key, metadata.last_column_id(), &names)?
            .with_partitions(partitions);
        let partitioning = schema::from_spec(metadata.default_partition_spec(), current)?;
        let (position, last_batch) = progress(&metadata, &self.options.topic)
            .map_err(|e| self.refused("its position cannot be read").because(e))?;
        let version = metadata.current_snapshot().map_or(0, |snapshot| snapshot.sequence_number());
        let state = TableState {
            version,
            schema: Arc::new(schema),
            partitioning: Arc::new(partitioning),
            position,
            last_batch,
            notes: notes(&metadata),
            owner: metadata.properties().get(OWNER).map(|owner| owner.as_str().into()),
            files: BTreeMap::new(),
        };
        Ok(Known {
            metadata,
            metadata_location,
            refs,
            state,
            data: Vec::new(),
            named_by: HashMap::new(),
            spelled: HashMap::new(),
            deletes: BTreeMap::new(),
            deleted_by: HashMap::new(),
        })
    }

    /// The current snapshot's data and delete manifests.
    async fn manifests(
        &self,
        metadata: &TableMetadata,
    ) -> Result<(Vec<ManifestFile>, Vec<ManifestFile>)> {
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(Default::default()) };
        let list = manifest_list(self.io, snapshot.manifest_list(), metadata.format_version())
            .await
            .map_err(|e| fault::iceberg(format!("cannot read the table {}", self.name), e))?;
        Ok(list.into_iter().partition(|manifest| manifest.content == ManifestContentType::Data))
    }

    async fn load(&self, manifests: Vec<ManifestFile>) -> Result<Vec<(ManifestFile, Manifest)>> {
        let failed = |e| fault::iceberg(format!("cannot read the table {}", self.name), e);
        stream::iter(manifests)
            .map(|file| async move {
                let reading = file.load_manifest(self.io);
                let manifest = fault::contained(&file.manifest_path, reading).await;
                let manifest = manifest.map_err(failed)?;
                Ok((file, manifest))
            })
            .buffered(READS_AT_A_TIME)
            .try_collect()
            .await
    }

    async fn read_data(
        &self,
        known: &mut Known,
        manifests: Vec<ManifestFile>,
        previous: Option<&Known>,
    ) -> Result<()> {
        let mut before: HashMap<&str, Vec<&LiveFile>> = HashMap::new();
        for (path, manifest) in previous.iter().flat_map(|known| &known.named_by) {
            let file = previous.and_then(|known| known.state.files.get(path));
            before.entry(manifest).or_default().extend(file);
        }
        let unread = |manifest: &&ManifestFile| !before.contains_key(&*manifest.manifest_path);
        let loaded = self.load(manifests.iter().filter(unread).cloned().collect()).await?;
        for (file, manifest) in loaded {
            manifests::check(self.name, &file, &manifest)?;
            let name: Arc<str> = file.manifest_path.as_str().into();
            for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
                if file.partition_spec_id != known.metadata.default_partition_spec_id() {
                    return Err(self
                        .refused("it has files of an earlier partition spec")
                        .hint("rewrite its data files with the current spec"));
                }
                let file = self.data_file(entry.data_file())?;
                if entry.file_path() != self.root.absolute(&file.path) {
                    known.spelled.insert(file.path.clone(), entry.file_path().to_owned());
                }
                known.add_file(file, &name);
            }
        }
        for manifest in &manifests {
            let name: Arc<str> = manifest.manifest_path.as_str().into();
            for file in before.get(&*name).into_iter().flatten() {
                let path = &file.file.path;
                let spelled = previous.and_then(|known| known.spelled.get(path));
                known.spelled.extend(spelled.map(|spelled| (path.clone(), spelled.clone())));
                known.add_file(Arc::clone(&file.file), &name);
            }
        }
        known.data = manifests;
        Ok(())
    }

    fn data_file(&self, file: &IceFile) -> Result<Arc<DataFile>> {
        if file.file_format() != DataFileFormat::Parquet {
            return Err(self.refused(format!("its file {} is not Parquet", file.file_path())));
        }
        Ok(Arc::new(DataFile {
            path: self.relative(file.file_path())?.to_owned(),
            size: file.file_size_in_bytes(),
            rows: file.record_count(),
            partition: value::scalars(file.partition())?,
            stats: BTreeMap::new(),
            split_offsets: file.split_offsets().unwrap_or_default().to_vec(),
        }))
    }

    fn relative<'p>(&self, path: &'p str) -> Result<&'p str> {
        self.root.relative(path).ok_or_else(|| {
            self.refused(format!("its file {path} lies outside of {}", self.root.name()))
        })
    }

    async fn read_deletes(
        &self,
        known: &mut Known,
        manifests: Vec<ManifestFile>,
        previous: Option<&Known>,
    ) -> Result<()> {
        let (cached, unread): (Vec<_>, Vec<_>) = manifests.into_iter().partition(|manifest| {
            previous.is_some_and(|known| known.deletes.contains_key(&*manifest.manifest_path))
        });
        for manifest in cached {
            let cached = previous.and_then(|known| known.deletes.get(&*manifest.manifest_path));
            known.deletes.extend(cached.map(|m| (m.file.manifest_path.as_str().into(), m.clone())));
        }
        for (file, manifest) in self.load(unread).await? {
            manifests::check(self.name, &file, &manifest)?;
            let mut entries = Vec::new();
            for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
                if entry.content_type() != DataContentType::PositionDeletes {
                    return Err(self
                        .refused("it has equality deletes, which name rows by value")
                        .hint("rewrite its data files, and let no other engine write to it"));
                }
                let target = entry.data_file().referenced_data_file();
                let target =
                    target.map(|path| self.relative(&path).map(str::to_owned)).transpose()?;
                entries.push(DeleteEntry { target, entry: Arc::clone(entry) });
            }
            let name: Arc<str> = file.manifest_path.as_str().into();
            known.deletes.insert(name, DeleteManifest { file, entries });
        }
        Ok(())
    }

    /// Reads what is deleted in each data file. A delete file that says only by its rows which data file it is about
    /// gets its target here.
    async fn read_bitmaps(&self, known: &mut Known, previous: Option<&Known>) -> Result<()> {
        let before = previous.map(Known::sources).unwrap_or_default();
        let now = known.sources();
        let reused = |target: &str| {
            let same = now.get(target).is_some_and(|now| before.get(target) == Some(now));
            previous.filter(|_| same).and_then(|known| known.state.files.get(target))
        };
        let mut wanted = Vec::new();
        for (manifest, index, delete) in known.delete_entries() {
            let target = delete.target.as_deref();
            let known = target.and_then(|target| Some((target, reused(target)?)));
            let known = known.map(|(target, file)| (target.to_owned(), Arc::clone(&file.deleted)));
            wanted.push((manifest, index, Arc::clone(&delete.entry), known));
        }
        let read: Vec<_> = stream::iter(wanted)
            .map(|(manifest, index, entry, known)| async move {
                let bitmaps = match known {
                    Some(known) => vec![known],
                    None => self.bitmaps(entry.data_file()).await?,
                };
                let vector = entry.file_format() == DataFileFormat::Puffin;
                Ok::<_, Error>((manifest, index, vector, bitmaps))
            })
            .buffered(READS_AT_A_TIME)
            .try_collect()
            .await?;
        let mut found: HashMap<String, (bool, Arc<RoaringTreemap>)> = HashMap::new();
        for (manifest, index, vector, bitmaps) in read {
            if let [(target, _)] = bitmaps.as_slice() {
                known.aim(&manifest, index, target);
            }
            for (target, bitmap) in bitmaps {
                merge(found.entry(target), vector, bitmap);
            }
        }
        for (target, (_, bitmap)) in found {
            if let Some(file) = known.state.files.get_mut(&target) {
                file.deleted = bitmap;
            }
        }
        Ok(())
    }

    async fn bitmaps(&self, file: &IceFile) -> Result<Vec<(String, Arc<RoaringTreemap>)>> {
        let bytes = self.delete_bytes(file).await?;
        if file.file_format() == DataFileFormat::Puffin {
            let target = file.referenced_data_file().ok_or_else(|| {
                self.refused(format!("its deletion vector {} names no data file", file.file_path()))
            })?;
            let bitmap = Arc::new(bitmap::from_blob(&bytes)?);
            return Ok(vec![(self.relative(&target)?.to_owned(), bitmap)]);
        }
        let found = deletes::decode_positions(file.file_path(), bytes)?;
        let relative = |(path, bitmap): (String, RoaringTreemap)| {
            Ok((self.relative(&path)?.to_owned(), Arc::new(bitmap)))
        };
        found.into_iter().map(relative).collect()
    }

    async fn delete_bytes(&self, file: &IceFile) -> Result<bytes::Bytes> {
        let path = file.file_path();
        let what = || format!("cannot read the delete file {path} of the table {}", self.name);
        let object = self.root.location().file(self.relative(path)?);
        let store = self.root.store();
        let (Some(offset), Some(length)) = (file.content_offset(), file.content_size_in_bytes())
        else {
            let found = store.get(&object).await.map_err(|e| fault::store(what(), e))?;
            return found.bytes().await.map_err(|e| fault::store(what(), e));
        };
        let (Ok(from), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Err(Error::data(what()));
        };
        let range = from..from.saturating_add(length);
        store.get_range(&object, range).await.map_err(|e| fault::store(what(), e))
    }
}

/// A data file's deletion vector holds all its deletes; position deletes add up where there is no vector.
fn merge(
    slot: std::collections::hash_map::Entry<'_, String, (bool, Arc<RoaringTreemap>)>,
    vector: bool,
    bitmap: Arc<RoaringTreemap>,
) {
    match slot {
        std::collections::hash_map::Entry::Vacant(slot) => {
            slot.insert((vector, bitmap));
        }
        std::collections::hash_map::Entry::Occupied(mut slot) => {
            let (is_vector, known) = slot.get_mut();
            if vector && !*is_vector {
                (*is_vector, *known) = (vector, bitmap);
            } else if vector == *is_vector {
                *Arc::make_mut(known) |= &*bitmap;
            }
        }
    }
}

/// The manifests that a manifest list names.
pub(super) async fn manifest_list(
    io: &FileIO,
    path: &str,
    version: FormatVersion,
) -> iceberg::Result<Vec<ManifestFile>> {
    let bytes = io.new_input(path)?.read().await?;
    let reading = async { ManifestList::parse_with_version(&bytes, version) };
    Ok(fault::contained(path, reading).await?.consume_entries().into_iter().collect())
}

/// The position stored in the table and the batch that stored it. The nearest ancestor of the current snapshot that
/// has one wins, so a rollback takes the position along; where history is cut (expired, or kept by the catalog
/// alone), the table property does.
fn progress(metadata: &TableMetadata, topic: &str) -> Result<(Position, Option<Uuid>)> {
    let mut snapshot = metadata.current_snapshot();
    let mut found = metadata.properties();
    while let Some(ancestor) = snapshot {
        if ancestor.summary().additional_properties.contains_key(OFFSETS) {
            found = &ancestor.summary().additional_properties;
            break;
        }
        snapshot = ancestor.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
    }
    let Some(offsets) = found.get(OFFSETS) else { return Ok((Position::default(), None)) };
    // A commit tells both places the same.
    let told = metadata.properties();
    if told.get(BATCH_ID) == found.get(BATCH_ID) && told.get(OFFSETS) != Some(offsets) {
        return Err(Error::data(format!(
            "{OFFSETS} of its newest snapshot is not {OFFSETS} of the table"
        )));
    }
    let offsets: Offsets = serde_json::from_str(offsets).map_err(|e| {
        Error::data(format!("{OFFSETS} is not the JSON that was written")).because(e)
    })?;
    if offsets.topic != topic {
        return Err(Error::data(format!("{OFFSETS} is of the topic {}", offsets.topic)));
    }
    let batch = found.get(BATCH_ID).and_then(|id| Uuid::parse_str(id).ok());
    Ok((offsets.offsets, batch))
}

/// What cannot be read is as if it were not there: a create that needs it says so.
pub(super) fn notes(metadata: &TableMetadata) -> Notes {
    let notes = metadata.properties().get(NOTES);
    notes.and_then(|notes| serde_json::from_str(notes).ok()).unwrap_or_default()
}

impl Known {
    fn add_file(&mut self, file: Arc<DataFile>, manifest: &Arc<str>) {
        self.named_by.insert(file.path.clone(), Arc::clone(manifest));
        self.state.files.insert(file.path.clone(), LiveFile { file, deleted: Arc::default() });
    }

    fn delete_entries(&self) -> impl Iterator<Item = (Arc<str>, usize, &DeleteEntry)> {
        self.deletes.iter().flat_map(|(name, manifest)| {
            manifest.entries.iter().enumerate().map(|(i, entry)| (Arc::clone(name), i, entry))
        })
    }

    /// Notes which data file a delete file is about.
    fn aim(&mut self, manifest: &Arc<str>, index: usize, target: &str) {
        if let Some(entry) = self.deletes.get_mut(manifest).and_then(|m| m.entries.get_mut(index)) {
            entry.target = Some(target.to_owned());
        }
        let named = self.deleted_by.entry(target.to_owned()).or_default();
        if !named.contains(manifest) {
            named.push(Arc::clone(manifest));
        }
    }

    /// The delete files of each data file. Those of several data files at once count for none of them, so the
    /// data files are read again with them.
    fn sources(&self) -> HashMap<String, Sources> {
        let mut sources: HashMap<String, Sources> = HashMap::new();
        for (_, _, delete) in self.delete_entries() {
            let Some(target) = &delete.target else { continue };
            let file = delete.entry.data_file();
            let source = (file.file_path().to_owned(), file.content_offset());
            sources.entry(target.clone()).or_default().insert(source);
        }
        sources
    }

    /// True when `metadata` says nothing new of rows, schema or position. A catalog may give another metadata file for
    /// the same table at any time.
    pub(super) fn is_current(&self, metadata: &TableMetadata) -> bool {
        let told = |metadata: &TableMetadata| {
            let own = [OFFSETS, BATCH_ID, TOPIC, OWNER, KEY, NAMES];
            let own = own.map(|name| metadata.properties().get(name).cloned());
            let ids =
                (metadata.uuid(), metadata.current_snapshot_id(), metadata.current_schema_id());
            (ids, metadata.default_partition_spec_id(), metadata.location().to_owned(), own)
        };
        told(&self.metadata) == told(metadata)
    }

    /// Fails when `loaded` is the same table as it was before: a catalog may answer from a replica or a cache. A table
    /// that was taken back keeps its numbers; a change of its columns alone has none, but the newer metadata names the
    /// older.
    pub(super) fn not_behind(&self, loaded: &LoadedTable, table: &TableName) -> Result<()> {
        let LoadedTable { metadata, metadata_location, .. } = loaded;
        let numbers = (metadata.last_sequence_number(), self.metadata.last_sequence_number());
        let mut earlier = self.metadata.metadata_log().iter();
        let is_earlier = earlier.any(|log| log.metadata_file == *metadata_location);
        if metadata.uuid() != self.metadata.uuid() || (numbers.0 >= numbers.1 && !is_earlier) {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "the catalog shows the Iceberg table {table} as it was before, at sequence number {} and not {}, by {metadata_location}",
            numbers.0, numbers.1
        ))
        .hint("a cache or a replica lags behind; should the catalog be restored from a copy, restart the sink"))
    }

    /// Takes over metadata that says nothing new (see [`Known::is_current`]).
    pub(super) fn follow(&mut self, loaded: LoadedTable) {
        self.metadata = loaded.metadata;
        self.metadata_location = loaded.metadata_location;
        self.refs = loaded.refs;
    }

    /// The version of the commit that holds the batch `id`, if the table still tells.
    pub(super) fn version_of(&self, id: Uuid) -> Option<i64> {
        let text = id.to_string();
        let holds = |properties: &HashMap<String, String>| properties.get(BATCH_ID) == Some(&text);
        let mut snapshot = self.metadata.current_snapshot();
        while let Some(ancestor) = snapshot {
            if holds(&ancestor.summary().additional_properties) {
                return Some(ancestor.sequence_number());
            }
            if ancestor.summary().additional_properties.contains_key(OFFSETS) {
                return None;
            }
            snapshot =
                ancestor.parent_snapshot_id().and_then(|id| self.metadata.snapshot_by_id(id));
        }
        holds(self.metadata.properties()).then_some(self.state.version)
    }

    /// True when the data files of `plan` are live.
    pub(super) fn has_files_of(&self, plan: &CommitPlan) -> bool {
        plan.added.iter().all(|file| self.state.files.contains_key(&file.path))
    }

    /// True when `plan` was made on this version of the table.
    pub(super) fn fits(&self, plan: &CommitPlan) -> bool {
        let same = |path: &str, deleted: &Arc<RoaringTreemap>| {
            self.state.files.get(path).is_some_and(|file| {
                Arc::ptr_eq(&file.deleted, deleted) || *file.deleted == **deleted
            })
        };
        let added: HashSet<&str> = plan.added.iter().map(|file| file.path.as_str()).collect();
        // Deletes of a file that enters with the same commit.
        let enters = |d: &Deletion| d.before.is_empty() && added.contains(d.file.path.as_str());
        // The plan's position is stored whole: other partitions' must not go back with it.
        let position = self.state.position.advance(&plan.ranges);
        position.is_ok_and(|position| position == plan.position)
            && self.fits_schema(plan)
            && plan.deletions.iter().all(|d| same(&d.file.path, &d.before) || enters(d))
            && plan.removed.iter().all(|file| same(&file.file.path, &file.deleted))
            && plan.added.iter().all(|file| !self.state.files.contains_key(&file.path))
    }

    /// True when the plan's schema is this table's, or grows out of it: no column has the id of another one, a narrower
    /// type or a former name again.
    fn fits_schema(&self, plan: &CommitPlan) -> bool {
        let (now, then) = (&self.state.schema, &plan.schema);
        if !plan.schema_changed {
            return now == then;
        }
        let stays = |id: i32| then.columns().iter().any(|column| column.id == id);
        let gone = |known: &Column| stays(known.id) || then.dropped().contains(&known.id);
        let grows = then.columns().iter().all(|column| {
            let same = now.columns().iter().find(|known| known.id == column.id);
            match same {
                Some(known) => column.follows(known),
                None => column.id > now.last_id(),
            }
        });
        grows && now.columns().iter().all(gone)
    }
}
