//! Which manifests a commit rewrites. Pure: decides, does not write.
//!
//! Manifests are split so that a commit rewrites those few that name what it touches. A delete file that replaces one
//! stays in its manifest; data files that get their first delete go where there is room, so those touched at
//! the same time tend to share a manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::{DataFile, ManifestFile};

use super::known::{DeleteEntry, DeleteManifest, Known};

/// Live entries in a delete manifest, at most.
const DELETES_PER_MANIFEST: usize = 300;
/// A delete manifest with fewer entries is worth joining with others.
const FEW_DELETES: usize = DELETES_PER_MANIFEST / 4;
/// Delete manifests with few entries that are left alone.
const SMALL_DELETE_MANIFESTS: usize = 4;
/// Data manifests below the size limit that are left alone: more are merged.
const SMALL_DATA_MANIFESTS: usize = 100;
/// Files in a data manifest, above which it is not merged any more.
const FILES_PER_MANIFEST: u64 = 1000;

/// A new delete file and the data file it is about, by relative path.
#[derive(Debug)]
pub(super) struct NewDelete {
    pub(super) target: String,
    pub(super) file: DataFile,
}

/// A delete manifest to be written.
#[derive(Debug, Default)]
pub(super) struct DeleteRewrite {
    /// Entries of earlier commits that stay.
    pub(super) kept: Vec<DeleteEntry>,
    /// Entries of earlier commits that go.
    pub(super) removed: Vec<DeleteEntry>,
    /// New entries.
    pub(super) added: Vec<NewDelete>,
}

impl DeleteRewrite {
    fn live(&self) -> usize {
        self.kept.len() + self.added.len()
    }
}

/// What becomes of the delete manifests.
#[derive(Debug, Default)]
pub(super) struct DeletePlan {
    /// Manifests that are no longer in the table.
    pub(super) dropped: BTreeSet<Arc<str>>,
    /// Manifests that are new.
    pub(super) rewrites: Vec<DeleteRewrite>,
}

/// Places the delete files `added`; delete files of the data files in `touched` go.
pub(super) fn deletes(
    known: &Known,
    touched: &BTreeSet<&str>,
    added: Vec<NewDelete>,
) -> DeletePlan {
    let mut opened: BTreeMap<Arc<str>, DeleteRewrite> = BTreeMap::new();
    for manifest in touched.iter().filter_map(|path| known.deleted_by.get(*path)).flatten() {
        open(known, &mut opened, manifest, touched);
    }
    let mut homeless = Vec::new();
    for new in added {
        let home = known.deleted_by.get(&new.target).and_then(|homes| homes.first());
        match home.and_then(|home| opened.get_mut(home)) {
            Some(rewrite) => rewrite.added.push(new),
            None => homeless.push(new),
        }
    }
    if !opened.is_empty() || !homeless.is_empty() {
        for manifest in to_join(known, &opened, homeless.len()) {
            open(known, &mut opened, &manifest, touched);
        }
    }
    let empty = known.deletes.iter().filter(|(_, manifest)| manifest.entries.is_empty());
    let dropped = opened.keys().chain(empty.map(|(name, _)| name)).cloned().collect();
    let (small, mut rewrites): (Vec<_>, Vec<_>) =
        opened.into_values().partition(|rewrite| rewrite.live() < FEW_DELETES);
    rewrites.extend(join(small));
    place(&mut rewrites, homeless);
    DeletePlan { dropped, rewrites }
}

/// Takes a manifest to be rewritten.
fn open(
    known: &Known,
    rewrites: &mut BTreeMap<Arc<str>, DeleteRewrite>,
    name: &Arc<str>,
    touched: &BTreeSet<&str>,
) {
    if rewrites.contains_key(name) {
        return;
    }
    let Some(manifest) = known.deletes.get(name) else { return };
    let gone = |delete: &&DeleteEntry| {
        delete.target.as_deref().is_some_and(|target| touched.contains(target))
    };
    let (removed, kept) = manifest.entries.iter().cloned().partition(|delete| gone(&delete));
    rewrites.insert(Arc::clone(name), DeleteRewrite { kept, removed, added: Vec::new() });
}

/// Untouched manifests that this commit rewrites too: one with room for what has no place yet, and the small ones
/// when there are many.
fn to_join(
    known: &Known,
    rewrites: &BTreeMap<Arc<str>, DeleteRewrite>,
    homeless: usize,
) -> Vec<Arc<str>> {
    let untouched = |(name, _): &(&Arc<str>, &DeleteManifest)| !rewrites.contains_key(*name);
    let mut small: Vec<_> = known
        .deletes
        .iter()
        .filter(untouched)
        .filter(|(_, manifest)| (1..FEW_DELETES).contains(&manifest.entries.len()))
        .map(|(name, _)| Arc::clone(name))
        .collect();
    if small.len() > SMALL_DELETE_MANIFESTS {
        return small;
    }
    let room: usize =
        rewrites.values().map(|rewrite| DELETES_PER_MANIFEST.saturating_sub(rewrite.live())).sum();
    small.truncate(usize::from(homeless > room));
    small
}

/// Joins small rewrites up to the limit.
fn join(rewrites: Vec<DeleteRewrite>) -> Vec<DeleteRewrite> {
    let mut joined: Vec<DeleteRewrite> = Vec::new();
    for rewrite in rewrites {
        match joined.last_mut() {
            Some(last) if last.live() + rewrite.live() <= DELETES_PER_MANIFEST => {
                last.kept.extend(rewrite.kept);
                last.removed.extend(rewrite.removed);
                last.added.extend(rewrite.added);
            }
            _ => joined.push(rewrite),
        }
    }
    joined
}

/// Puts delete files where there is room, then into manifests of their own.
fn place(rewrites: &mut Vec<DeleteRewrite>, homeless: Vec<NewDelete>) {
    let mut homeless = homeless.into_iter().peekable();
    for rewrite in rewrites.iter_mut() {
        let room = DELETES_PER_MANIFEST.saturating_sub(rewrite.live());
        rewrite.added.extend(homeless.by_ref().take(room));
    }
    while homeless.peek().is_some() {
        let added = homeless.by_ref().take(DELETES_PER_MANIFEST).collect();
        rewrites.push(DeleteRewrite { added, ..DeleteRewrite::default() });
    }
}

/// What becomes of the data manifests.
#[derive(Debug, Default)]
pub(super) struct DataPlan {
    /// Manifests that stay as they are.
    pub(super) kept: Vec<ManifestFile>,
    /// Groups of manifests, each to be rewritten as one.
    pub(super) rewrites: Vec<Vec<ManifestFile>>,
}

/// Rewrites the data manifests that name files in `removed`, and merges small ones when there are many.
pub(super) fn data(known: &Known, removed: &BTreeSet<&str>) -> DataPlan {
    let naming: BTreeSet<&str> =
        removed.iter().filter_map(|path| known.named_by.get(*path)).map(|name| &**name).collect();
    let files = |manifest: &ManifestFile| {
        u64::from(manifest.added_files_count.unwrap_or(u32::MAX))
            + u64::from(manifest.existing_files_count.unwrap_or(u32::MAX))
    };
    let live = known.data.iter().filter(|manifest| files(manifest) > 0);
    let small = live.clone().filter(|manifest| files(manifest) < FILES_PER_MANIFEST).count();
    let merging = small > SMALL_DATA_MANIFESTS;
    let mut plan = DataPlan::default();
    let mut group = Vec::new();
    let mut size = 0;
    for manifest in live {
        let joins = merging && files(manifest) < FILES_PER_MANIFEST;
        if joins {
            if size + files(manifest) > FILES_PER_MANIFEST && !group.is_empty() {
                plan.rewrites.push(std::mem::take(&mut group));
                size = 0;
            }
            size += files(manifest);
            group.push(manifest.clone());
        } else if naming.contains(&*manifest.manifest_path) {
            plan.rewrites.push(vec![manifest.clone()]);
        } else {
            plan.kept.push(manifest.clone());
        }
    }
    if !group.is_empty() {
        plan.rewrites.push(group);
    }
    plan
}
