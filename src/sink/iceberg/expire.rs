//! Which snapshots leave the table, and which files leave the store after them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use iceberg::spec::{MAIN_BRANCH, SnapshotRef, TableMetadata};

use super::Retention;
use super::known::Known;

/// The snapshots that the next commit removes: those that the retention no longer asks for. What branches other than
/// main and tags name stays, with all its ancestors.
pub(super) fn due(known: &Known, retention: &Retention, now_millis: i64) -> Vec<i64> {
    let metadata = &known.metadata;
    let oldest = now_millis.saturating_sub(retention.max_age_millis);
    let others = known.refs.iter().filter(|(name, _)| *name != MAIN_BRANCH);
    let named: HashSet<i64> = others
        .flat_map(|(_, reference)| ancestors(metadata, Some(reference.snapshot_id)))
        .map(|s| s.snapshot_id())
        .collect();
    let main: Vec<_> = ancestors(metadata, metadata.current_snapshot_id()).collect();
    // The snapshot to be committed is the first of those to be kept.
    let place: BTreeMap<i64, usize> =
        main.iter().enumerate().map(|(i, snapshot)| (snapshot.snapshot_id(), i + 1)).collect();
    let mut due: Vec<_> = metadata
        .snapshots()
        .filter(|snapshot| !named.contains(&snapshot.snapshot_id()))
        .filter(|snapshot| {
            let place = place.get(&snapshot.snapshot_id()).copied();
            let old = snapshot.timestamp_ms() < oldest;
            match place {
                Some(place) => {
                    place >= retention.max_count || (old && place >= retention.min_count)
                }
                None => old,
            }
        })
        .map(|snapshot| (snapshot.sequence_number(), snapshot.snapshot_id()))
        .collect();
    due.sort_unstable();
    due.into_iter().map(|(_, id)| id).collect()
}

/// A snapshot and those it came from, newest first, as far as the metadata tells.
pub(super) fn ancestors(
    metadata: &TableMetadata,
    id: Option<i64>,
) -> impl Iterator<Item = &SnapshotRef> {
    let find = |id: i64| metadata.snapshot_by_id(id);
    std::iter::successors(id.and_then(find), move |snapshot| {
        snapshot.parent_snapshot_id().and_then(find)
    })
}

/// Snapshots that protect files of an expired one: the oldest on main, and those off main. A file that the expired
/// one names and none of these does is in no later snapshot either, as a file that left the table never
/// comes back.
pub(super) fn guards(known: &Known) -> (Option<SnapshotRef>, Vec<SnapshotRef>) {
    let metadata = &known.metadata;
    let main: Vec<_> = ancestors(metadata, metadata.current_snapshot_id()).cloned().collect();
    let on_main: BTreeSet<i64> = main.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    let oldest = main.last().cloned();
    let off_main = metadata.snapshots().filter(|s| !on_main.contains(&s.snapshot_id())).cloned();
    (oldest, off_main.collect())
}
