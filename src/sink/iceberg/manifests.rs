//! The manifests of a commit and the list of them, encoded in memory: the list states how long each manifest is, and
//! all of them can be written at once then.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile as IceFile, DataFileBuilder, DataFileFormat, FormatVersion, Manifest,
    ManifestContentType, ManifestEntry, ManifestFile, ManifestListWriter, ManifestStatus,
    ManifestWriter, ManifestWriterBuilder, UNASSIGNED_SEQUENCE_NUMBER,
};

use super::arrange::{DataPlan, DeletePlan, DeleteRewrite, NewDelete};
use super::commit::{Builder, Upload};
use super::known::{DeleteEntry, DeleteManifest};
use super::summary::Counts;
use super::{fault, value};
use crate::error::{Error, Result};
use crate::table::plan::DataFile;

/// Manifests read at a time.
const READS_AT_A_TIME: usize = 16;

/// The manifests after the commit.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) data: Vec<ManifestFile>,
    /// Which data manifest names a data file now, by relative path.
    pub(super) naming: Vec<(String, Arc<str>)>,
    pub(super) dropped_deletes: BTreeSet<Arc<str>>,
    pub(super) new_deletes: Vec<DeleteManifest>,
}

/// What is to be written for the manifests.
pub(super) struct Encoded {
    pub(super) manifests: Manifests,
    /// The path of the manifest list.
    pub(super) list: String,
    /// Row ids that the list hands out.
    pub(super) rows: u64,
    /// The manifests and their list.
    pub(super) files: Vec<Upload>,
}

enum Written {
    Data { file: ManifestFile, naming: Vec<String>, added: Vec<IceFile>, removed: Vec<IceFile> },
    Deletes(DeleteManifest),
}

impl Builder<'_> {
    /// Encodes the manifests that the commit makes new, and the list of all.
    pub(super) async fn encode(
        &self,
        data: DataPlan,
        deletes: DeletePlan,
        removed: &BTreeSet<&str>,
        counts: &mut Counts,
    ) -> Result<Encoded> {
        let mut paths = Vec::new();
        let mut manifests = self.manifests(data, deletes, removed, counts, &mut paths).await?;
        let list =
            self.home.absolute(&format!("metadata/snap-{}-{}.avro", self.snapshot_id, self.unique));
        let rows = self.write_list(&mut manifests, &list).await?;
        paths.push(list.clone());
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let encoded = self.memory.new_input(&path).map_err(|e| self.failed(e))?;
            files.push((path, encoded.read().await.map_err(|e| self.failed(e))?));
        }
        Ok(Encoded { manifests, list, rows, files })
    }

    async fn manifests(
        &self,
        data: DataPlan,
        deletes: DeletePlan,
        removed: &BTreeSet<&str>,
        counts: &mut Counts,
        paths: &mut Vec<String>,
    ) -> Result<Manifests> {
        let mut manifests =
            Manifests { data: data.kept, dropped_deletes: deletes.dropped, ..Manifests::default() };
        let mut writes: Vec<BoxFuture<'_, Result<Written>>> = Vec::new();
        for group in data.rewrites {
            let path = self.manifest_path(paths);
            writes.push(self.rewrite_data(path, group, removed).boxed());
        }
        if !self.plan.added.is_empty() {
            let path = self.manifest_path(paths);
            writes.push(self.write_added(path).boxed());
        }
        for rewrite in deletes.rewrites {
            let path = self.manifest_path(paths);
            writes.push(self.write_deletes(path, rewrite).boxed());
        }
        let mut done = stream::iter(writes).buffered(READS_AT_A_TIME);
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

    fn manifest_path(&self, paths: &mut Vec<String>) -> String {
        let path = self.home.absolute(&format!("metadata/{}-m{}.avro", self.unique, paths.len()));
        paths.push(path.clone());
        path
    }

    fn writer(&self, path: &str, content: ManifestContentType) -> Result<ManifestWriter> {
        let output = self.memory.new_output(path).map_err(|e| self.failed(e))?;
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

    /// Encodes the live files of `group` as one manifest, those in `removed` as deleted.
    async fn rewrite_data(
        &self,
        path: String,
        group: Vec<ManifestFile>,
        removed: &BTreeSet<&str>,
    ) -> Result<Written> {
        let mut writer = self.writer(&path, ManifestContentType::Data)?;
        let (mut naming, mut gone) = (Vec::new(), Vec::new());
        let mut every_row_has_an_id = true;
        let reads = group
            .iter()
            .map(|file| fault::contained(&file.manifest_path, file.load_manifest(self.io)));
        let reads: Vec<_> = reads.collect();
        let loaded: Vec<_> = stream::iter(reads)
            .buffered(READS_AT_A_TIME)
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

    /// Encodes the manifest list and gives the manifests the numbers it assigns; the number of row ids it hands out.
    async fn write_list(&self, manifests: &mut Manifests, path: &str) -> Result<u64> {
        let failed = |e| self.failed(e);
        let parent = self.known.metadata.current_snapshot_id();
        let number = self.sequence_number();
        let first_row_id = self.known.metadata.next_row_id();
        let output =
            self.memory.new_output(path).map_err(failed)?.writer().await.map_err(failed)?;
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
}

/// Manifests have no checksums. What their list says of them is compared: a data file that one no longer names, or of which
/// it tells other rows, would be missing without a word.
pub(super) fn check(table: &str, file: &ManifestFile, manifest: &Manifest) -> Result<()> {
    let alive = || manifest.entries().iter().filter(|entry| entry.is_alive());
    let rows: u64 = alive().map(|entry| entry.data_file().record_count()).sum();
    let sum = |added: Option<u64>, existing: Option<u64>| added?.checked_add(existing?);
    let (added, existing) = (file.added_files_count, file.existing_files_count);
    let files = sum(added.map(u64::from), existing.map(u64::from));
    let has_files = files.is_none_or(|files| usize::try_from(files) == Ok(alive().count()));
    let told = sum(file.added_rows_count, file.existing_rows_count);
    if has_files && told.is_none_or(|told| told == rows) {
        return Ok(());
    }
    Err(Error::data(format!(
        "the manifest {} of the table {table} is damaged: it has not the files and rows that the manifest list says",
        file.manifest_path
    ))
    .hint("bring the file back from a copy, or make the table anew from a new initial snapshot"))
}

fn assign(number: &mut i64, to: i64) {
    if *number == UNASSIGNED_SEQUENCE_NUMBER {
        *number = to;
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
