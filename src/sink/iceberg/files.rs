//! The file-system catalog: `metadata/vN.metadata.json`, put only where it is absent, is the commit. The hint file
//! beside it is a convenience that may lag behind.

use std::collections::HashMap;

use futures::TryStreamExt;
use iceberg::spec::{SortOrder, TableMetadata, TableMetadataBuilder};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use serde::Serialize;

use super::catalog::{Answer, Commit, Creation, LoadedTable, Lookup};
use super::fault;
use super::storage::Folder;
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::sink::seal;

/// The hint's name, as Iceberg's Hadoop catalog has it.
const HINT: &str = "metadata/version-hint.text";
/// The folder of metadata.
const METADATA: &str = "metadata";

fn metadata_file(version: u64) -> String {
    format!("{METADATA}/v{version}.metadata.json")
}

/// The version that a metadata file's name tells.
fn version_of(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    name.strip_prefix('v')?.strip_suffix(".metadata.json")?.parse().ok()
}

pub(super) async fn load(home: &Folder, known: Option<&str>) -> Result<Lookup> {
    let mut least = None;
    if let Some(known) = known.and_then(version_of) {
        // Should the known version be gone, it was cleaned up long after newer ones, and the next may be gone as well.
        let (next, same) = futures::join!(exists(home, known + 1), exists(home, known));
        match (next?, same?) {
            (false, true) => return Ok(Lookup::Unchanged),
            (true, true) => least = Some(known + 1),
            (_, false) => {}
        }
    }
    let Some(version) = newest(home, least).await? else { return Ok(Lookup::Absent) };
    let path = metadata_file(version);
    let Some(bytes) = read(home, &path).await? else {
        return Err(Error::unavailable(format!(
            "{} vanished while it was read",
            home.absolute(&path)
        )));
    };
    if !seal::is_whole(&bytes) {
        return Err(Error::data(format!(
            "{} is damaged: its checksum does not match",
            home.absolute(&path)
        ))
        .hint(
            "bring the file back from a copy, or make the table anew from a new initial snapshot",
        ));
    }
    Ok(Lookup::Found(Box::new(LoadedTable::parse(&bytes, home.absolute(&path))?)))
}

/// The newest version: from the hint on, or from `least`, which is there, or of all that are listed where neither helps:
/// a store's list may lag behind what it gives by name.
async fn newest(home: &Folder, least: Option<u64>) -> Result<Option<u64>> {
    let hint = read(home, HINT).await?;
    let mut version = match hint.as_deref().and_then(hinted) {
        Some(version) if exists(home, version).await? => version,
        _ => {
            let there = match least {
                Some(least) => Some(least),
                None => listed(home).await?.into_iter().map(|(version, _)| version).max(),
            };
            let Some(version) = there else { return Ok(None) };
            version
        }
    };
    while exists(home, version + 1).await? {
        version += 1;
    }
    Ok(Some(version))
}

/// Every version there is, with its object. Manifests come before them in the folder's order, and there are many more.
async fn listed(home: &Folder) -> Result<Vec<(u64, Path)>> {
    let folder = home.location().file(METADATA);
    let before = folder.clone().join("v");
    let what = || format!("cannot list {}", home.absolute(METADATA));
    let found: Result<Vec<_>, _> =
        home.store().list_with_offset(Some(&folder), &before).try_collect().await;
    let found = found.map_err(|e| fault::store(what(), e))?.into_iter().map(|meta| meta.location);
    Ok(found.filter_map(|path| Some((version_of(path.as_ref())?, path))).collect())
}

/// Metadata files that may be removed, oldest first: those more than `kept` versions behind what the hint tells, so
/// that nobody who follows the hint misses them.
pub(super) async fn superseded(home: &Folder, kept: u64) -> Result<Vec<Path>> {
    let hint = read(home, HINT).await?;
    let Some(newest) = hint.as_deref().and_then(hinted) else { return Ok(Vec::new()) };
    let mut versions = listed(home).await?;
    versions.retain(|(version, _)| version.saturating_add(kept) < newest);
    versions.sort_unstable_by_key(|(version, _)| *version);
    Ok(versions.into_iter().map(|(_, path)| path).collect())
}

/// The metadata files that lead to the newest one, each the next of the one before. A writer that was slow may have left
/// one behind that is none of them.
pub(super) async fn versions(home: &Folder) -> Result<Vec<String>> {
    let mut numbers: Vec<u64> = listed(home).await?.into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    let mut next = numbers.last().copied();
    let leads = |number: &u64| {
        let leads = next == Some(*number);
        next = if leads { number.checked_sub(1) } else { next };
        leads
    };
    Ok(numbers.into_iter().rev().take_while(leads).map(metadata_file).collect())
}

fn hinted(hint: &[u8]) -> Option<u64> {
    std::str::from_utf8(hint).ok()?.trim().parse().ok()
}

async fn exists(home: &Folder, version: u64) -> Result<bool> {
    let path = metadata_file(version);
    match home.store().head(&home.location().file(&path)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(e) => Err(fault::store(format!("cannot look for {}", home.absolute(&path)), e)),
    }
}

async fn read(home: &Folder, path: &str) -> Result<Option<bytes::Bytes>> {
    let what = || format!("cannot read {}", home.absolute(path));
    match home.store().get(&home.location().file(path)).await {
        Ok(found) => found.bytes().await.map(Some).map_err(|e| fault::store(what(), e)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(fault::store(what(), e)),
    }
}

pub(super) async fn create(home: &Folder, creation: Creation) -> Result<Option<LoadedTable>> {
    if newest(home, None).await?.is_some() {
        return Ok(None);
    }
    let Creation { schema, spec, version, properties } = creation;
    let order = SortOrder::unsorted_order();
    let location = home.name().to_owned();
    let metadata = TableMetadataBuilder::new(schema, spec, order, location, version, properties)
        .and_then(TableMetadataBuilder::build)
        .map_err(|e| fault::iceberg(format!("cannot create the table {}", home.name()), e))?
        .metadata;
    match put(home, 1, &metadata).await {
        Ok(()) => {
            hint(home, 1).await;
            let metadata_location = home.absolute(&metadata_file(1));
            Ok(Some(LoadedTable {
                metadata,
                metadata_location,
                refs: HashMap::new(),
                storage: None,
            }))
        }
        Err(object_store::Error::AlreadyExists { .. }) => Ok(None),
        Err(e) => Err(fault::store(format!("cannot create the table {}", home.name()), e)),
    }
}

pub(super) async fn commit(home: &Folder, commit: Commit<'_>) -> Answer {
    let Some(base) = version_of(commit.base) else {
        return Answer::Refused(Error::internal(format!("{} tells no version", commit.base)));
    };
    let version = base + 1;
    let what = || format!("cannot write {}", home.absolute(&metadata_file(version)));
    match put(home, version, commit.metadata).await {
        Ok(()) => failpoint::reach(Point::K6),
        Err(object_store::Error::AlreadyExists { .. }) => return Answer::Conflict,
        Err(e) => {
            let error = fault::store(what(), e);
            return match error.kind() {
                crate::error::Kind::Refused => Answer::Refused(error),
                _ => Answer::Unclear(error),
            };
        }
    }
    // A writer that slept while others went on and cleaned up finds its next version absent: what it just put is
    // behind the table, not in it. Old versions are removed in order, so then its base is gone as well.
    match exists(home, base).await {
        Ok(true) => {}
        Ok(false) => {
            let stray = home.location().file(&metadata_file(version));
            if let Err(e) = home.store().delete(&stray).await {
                tracing::warn!(file = %stray, error = %e, "cannot remove a metadata file that came too late");
            }
            return Answer::Conflict;
        }
        Err(e) => return Answer::Unclear(e),
    }
    hint(home, version).await;
    Answer::Done(Box::new(LoadedTable {
        metadata: commit.metadata.clone(),
        metadata_location: home.absolute(&metadata_file(version)),
        refs: commit.refs.clone(),
        storage: None,
    }))
}

/// Metadata with room for its checksum. Readers pass over an entry that they do not know.
#[derive(Serialize)]
struct Sealed<'a> {
    #[serde(rename = "cdc-sink.crc32")]
    checksum: &'static str,
    #[serde(flatten)]
    metadata: &'a TableMetadata,
}

async fn put(
    home: &Folder,
    version: u64,
    metadata: &TableMetadata,
) -> Result<(), object_store::Error> {
    let sealed = Sealed { metadata, checksum: seal::ROOM };
    let mut json = serde_json::to_vec(&sealed).map_err(|e| object_store::Error::Generic {
        store: "table metadata",
        source: Box::new(e),
    })?;
    seal::seal(&mut json);
    let path = home.location().file(&metadata_file(version));
    home.store().put_opts(&path, json.into(), PutMode::Create.into()).await.map(|_| ())
}

/// Tells readers of the new version. Those who find an old hint look on from there, so failing is harmless.
async fn hint(home: &Folder, version: u64) {
    let path = home.location().file(HINT);
    if let Err(e) = home.store().put(&path, version.to_string().into()).await {
        tracing::warn!(file = %path, error = %e, "cannot write the version hint");
    }
}
