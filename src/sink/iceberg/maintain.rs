//! Removing files that nothing needs any more. Files are removed late and only on proof; what is left behind when the
//! process ends costs space, not rows.

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{Manifest, ManifestFile, SnapshotRef, TableMetadata};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::known::{Known, manifest_list};
use super::storage::Folder;
use super::{GC_ENABLED, Options, expire, fault, files};
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};

/// Files of a failed attempt are removed once they are this old.
const DISCARDED_AGE_MILLIS: i64 = 10 * 60 * 1000;
/// Expired snapshots handled at a time.
const SNAPSHOTS_AT_A_TIME: usize = 100;
/// Manifests read at a time.
const READS_AT_A_TIME: usize = 16;
/// Earlier metadata files kept where the table does not say how many.
const METADATA_FILES_KEPT: u64 = 100;
/// Versions between two looks for metadata files to remove.
const METADATA_LOOKS: i64 = 16;

/// What can be removed from the store, soon.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// Snapshots that commits of ours removed from the table, oldest first.
    expired: Vec<SnapshotRef>,
    /// Files of attempts that are not in the table and never will be, with the time they were first seen here.
    discarded: Vec<(Option<i64>, Vec<String>)>,
    /// The version at which metadata files were last removed.
    looked: Option<i64>,
}

impl Garbage {
    /// Notes files of an attempt that certainly is not in the table.
    pub(super) fn discard(&mut self, written: Vec<String>) {
        self.discarded.push((None, written));
    }

    /// Notes snapshots that were just removed from the table.
    pub(super) fn expire(&mut self, before: &TableMetadata, ids: &[i64]) {
        self.expired.extend(ids.iter().filter_map(|id| before.snapshot_by_id(*id)).cloned());
    }
}

pub(super) struct Keeper<'a> {
    pub(super) known: &'a Known,
    pub(super) root: &'a Folder,
    pub(super) home: &'a Folder,
    pub(super) io: &'a FileIO,
    pub(super) options: &'a Options,
}

impl Keeper<'_> {
    /// Removes the files of discarded attempts and of expired snapshots.
    pub(super) async fn collect(&self, garbage: &mut Garbage, now_millis: i64) -> Result<()> {
        for (since, written) in &mut garbage.discarded {
            let since = *since.get_or_insert(now_millis);
            if now_millis - since >= DISCARDED_AGE_MILLIS {
                self.remove(std::mem::take(written)).await?;
            }
        }
        garbage.discarded.retain(|(_, written)| !written.is_empty());

        if !self.may_remove() {
            garbage.expired.clear();
            return Ok(());
        }
        while !garbage.expired.is_empty() {
            let count = garbage.expired.len().min(SNAPSHOTS_AT_A_TIME);
            let batch: Vec<_> = garbage.expired.iter().take(count).cloned().collect();
            self.collect_snapshots(&batch).await?;
            garbage.expired.drain(..count);
        }
        Ok(())
    }

    /// Whoever says that garbage is not to be collected here is obeyed, unless it is ourselves, who say it to the other
    /// engines.
    fn may_remove(&self) -> bool {
        let enabled = self.known.metadata.properties().get(GC_ENABLED);
        self.options.two_formats || enabled.is_none_or(|enabled| enabled != "false")
    }

    async fn collect_snapshots(&self, expired: &[SnapshotRef]) -> Result<()> {
        let (oldest, off_main) = expire::guards(self.known);
        let Some(oldest) = oldest else { return Ok(()) };
        // A snapshot younger than the oldest one left shares files with those in between; it was rolled back. Its
        // files stay.
        let expired: Vec<_> =
            expired.iter().filter(|s| s.sequence_number() < oldest.sequence_number()).collect();
        let mut gone: Vec<Vec<ManifestFile>> = Vec::new();
        for snapshot in &expired {
            gone.push(self.manifests(snapshot).await?);
        }
        let mut guarded = Vec::new();
        for snapshot in off_main.iter().chain([&oldest]) {
            guarded.extend(self.manifests(snapshot).await?);
        }
        let guarded_names: HashSet<&str> =
            guarded.iter().map(|manifest| manifest.manifest_path.as_str()).collect();
        let unguarded = unique(
            gone.iter()
                .flatten()
                .filter(|manifest| !guarded_names.contains(manifest.manifest_path.as_str())),
        );
        // A snapshot names a file in one manifest only. So a manifest that all the expired ones have names no
        // file that their other manifests name.
        let shared = |manifest: &&ManifestFile| {
            gone.iter().all(|list| list.iter().any(|m| m.manifest_path == manifest.manifest_path))
        };
        let guards = unique(guarded.iter().filter(|manifest| !shared(manifest)));
        let mut unneeded = self.files(&unguarded).await?;
        for file in self.files(&guards).await? {
            unneeded.remove(&file);
        }
        if self.options.two_formats {
            // Data files are shared with the other format: who names them last is not known here.
            unneeded.retain(|file| self.home.relative(file).is_some());
        }
        self.remove(unneeded.into_iter().collect()).await?;
        self.remove(unguarded.iter().map(|m| m.manifest_path.clone()).collect()).await?;
        self.remove(expired.iter().map(|s| s.manifest_list().to_owned()).collect()).await
    }

    /// The manifests of a snapshot; none when its list is gone, as when it was collected before.
    async fn manifests(&self, snapshot: &SnapshotRef) -> Result<Vec<ManifestFile>> {
        let version = self.known.metadata.format_version();
        let path = snapshot.manifest_list();
        match manifest_list(self.io, path, version).await {
            Ok(list) => Ok(list),
            Err(e) => {
                let exists = self.io.new_input(path).map_err(|e| self.failed(e))?.exists().await;
                if exists.map_err(|e| self.failed(e))? {
                    Err(self.failed(e))
                } else {
                    Ok(Vec::new())
                }
            }
        }
    }

    /// The files that the manifests name as live.
    async fn files(&self, manifests: &[&ManifestFile]) -> Result<BTreeSet<String>> {
        let reads: Vec<_> = manifests
            .iter()
            .map(|m| fault::contained(&m.manifest_path, m.load_manifest(self.io)))
            .collect();
        let loaded: Vec<_> = stream::iter(reads)
            .buffer_unordered(READS_AT_A_TIME)
            .try_collect()
            .await
            .map_err(|e| self.failed(e))?;
        let entries = loaded.iter().flat_map(Manifest::entries);
        Ok(entries.filter(|e| e.is_alive()).map(|e| e.file_path().to_owned()).collect())
    }

    fn failed(&self, e: iceberg::Error) -> Error {
        fault::iceberg(format!("cannot find what to remove from {}", self.home.name()), e)
    }

    /// Removes files of the table; those that are gone already are fine.
    async fn remove(&self, files: Vec<String>) -> Result<()> {
        let object = |file: &String| Ok(self.root.object(file)).transpose();
        let objects: Vec<object_store::Result<Path>> = files.iter().filter_map(object).collect();
        let mut removed = self.root.store().delete_stream(stream::iter(objects).boxed());
        while let Some(answer) = removed.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => {
                    return Err(fault::store(
                        format!("cannot remove files of {}", self.home.name()),
                        e,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Removes metadata files that the newest one no longer mentions. Oldest first, one by one: a writer that is far
    /// behind relies on it (see [`files::commit`]).
    pub(super) async fn old_metadata(&self, garbage: &mut Garbage) -> Result<()> {
        let version = self.known.state.version;
        // The first time at once: the process may end after one commit.
        if garbage.looked.is_some_and(|looked| version < looked + METADATA_LOOKS) {
            return Ok(());
        }
        let properties = self.known.metadata.properties();
        if properties.get("write.metadata.delete-after-commit.enabled").is_none_or(|v| v != "true")
        {
            return Ok(());
        }
        let kept = properties.get("write.metadata.previous-versions-max");
        let kept = kept.and_then(|n| n.parse().ok()).unwrap_or(METADATA_FILES_KEPT).max(1);
        for file in files::superseded(self.home, kept).await? {
            match self.home.store().delete(&file).await {
                Ok(()) => failpoint::reach(Point::K10b),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(fault::store(format!("cannot remove {file}"), e)),
            }
        }
        garbage.looked = Some(version);
        Ok(())
    }
}

fn unique<'a>(manifests: impl Iterator<Item = &'a ManifestFile>) -> Vec<&'a ManifestFile> {
    let mut seen = HashSet::new();
    manifests.filter(|manifest| seen.insert(manifest.manifest_path.as_str())).collect()
}
