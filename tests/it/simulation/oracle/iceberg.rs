//! Every version that an Iceberg table has, read from its metadata files, of a catalog or without one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use cdc_sink::position::Position;
use iceberg::spec::{
    DataContentType, DataFileFormat, FormatVersion, Manifest, ManifestList, TableMetadata,
};
use roaring::RoaringTreemap;
use serde_json::Value;

use super::super::bucket::Effect;
use super::super::catalog;
use super::super::store::World;
use super::files::Files;
use super::{Live, Version};

/// A table as it is now, for somebody who goes on from there.
pub(in super::super) struct Icebergs<'a> {
    files: Files<'a>,
    /// Live data files by their paths below the table's root.
    pub(in super::super) live: BTreeMap<String, Live>,
}

impl<'a> Icebergs<'a> {
    pub(in super::super) async fn read(
        world: &'a World,
        table: &str,
        metadata: &TableMetadata,
    ) -> Self {
        let mut files = Files::new(&world.bucket, table.to_owned());
        let mut live = BTreeMap::new();
        if let Some(snapshot) = metadata.current_snapshot() {
            let (list, version) = (snapshot.manifest_list(), metadata.format_version());
            let (mut needs, mut wrong) = (BTreeSet::new(), Vec::new());
            live = entries(&mut files, list, version, &mut needs, 0, &mut wrong).await;
        }
        Self { files, live }
    }

    pub(in super::super) async fn batches(&self, path: &str) -> Vec<RecordBatch> {
        self.files.batches(path).await
    }
}

/// The versions of the table whose Iceberg files are below `home` (empty, or ending in `/`).
pub(super) async fn versions(
    files: &mut Files<'_>,
    effects: &[Effect],
    home: &str,
) -> (Vec<Version>, Vec<String>) {
    let folder = files.path(&format!("{home}metadata"));
    let mut versions: Vec<Version> = Vec::new();
    let mut wrong = Vec::new();
    for (clock, effect) in effects.iter().enumerate().filter(|(_, effect)| effect.put) {
        let Some(name) = effect.path.as_ref().strip_prefix(&format!("{folder}/")) else { continue };
        let Some(number) = number(name) else { continue };
        if number != i64::try_from(versions.len()).unwrap() + 1 {
            wrong.push(format!("iceberg version {number} comes after {}", versions.len()));
        }
        let metadata = files.bytes(&format!("{home}metadata/{name}")).await;
        let metadata: Value = serde_json::from_slice(&metadata).unwrap();
        let mut version = read(files, &metadata, number, clock, &mut wrong).await;
        if let Some(before) = versions.last() {
            let added = version.live.keys().filter(|path| !before.live.contains_key(*path));
            version.added = added.cloned().collect();
            // Another commit than that of a batch: it has a snapshot that there was before.
            if versions.iter().any(|earlier| earlier.snapshot == version.snapshot) {
                version.batch = None;
            }
        }
        versions.push(version);
    }
    (versions, wrong)
}

/// The number of the version whose metadata file has this name. A catalog's begin with it, counted from 0.
fn number(name: &str) -> Option<i64> {
    let name = name.strip_suffix(".metadata.json")?;
    match name.strip_prefix('v') {
        Some(number) => number.parse().ok(),
        None => Some(name.split_once('-')?.0.parse::<i64>().ok()? + 1),
    }
}

/// What is wrong with the catalog's table: its versions, as the newest one's log tells them, must be those that were read.
pub(super) fn history(table: &str, read: &[Version], catalog: &[catalog::Version]) -> Vec<String> {
    let Some(newest) = catalog.last() else { return Vec::new() };
    let log = newest.metadata.metadata_log().iter().map(|log| log.metadata_file.as_str());
    let told: Vec<_> = log.chain([newest.location.as_str()]).collect();
    let were: Vec<_> = catalog.iter().map(|version| version.location.as_str()).collect();
    let same = read.len() == were.len() && were.ends_with(&told);
    let wrong = format!("{table}: the catalog's newest version tells of {told:?}, read {were:?}");
    if same { Vec::new() } else { vec![wrong] }
}

async fn read(
    files: &mut Files<'_>,
    metadata: &Value,
    number: i64,
    clock: usize,
    wrong: &mut Vec<String>,
) -> Version {
    let id = metadata["current-snapshot-id"].as_i64().filter(|id| *id != -1);
    let snapshots = metadata["snapshots"].as_array().cloned().unwrap_or_default();
    let find = |id: i64| snapshots.iter().find(|snapshot| snapshot["snapshot-id"] == id);
    let current = id.and_then(find);
    let mut told = current;
    while let Some(snapshot) = told.filter(|s| s["summary"]["cdc-sink.offsets"].is_null()) {
        told = snapshot["parent-snapshot-id"].as_i64().and_then(find);
    }
    let position = told.map(|snapshot| position(&snapshot["summary"]["cdc-sink.offsets"]));
    let (mut live, mut needs) = (BTreeMap::new(), BTreeSet::new());
    if let Some(snapshot) = current {
        let version = match metadata["format-version"].as_u64() {
            Some(2) => FormatVersion::V2,
            _ => FormatVersion::V3,
        };
        let list = snapshot["manifest-list"].as_str().unwrap();
        live = entries(files, list, version, &mut needs, number, wrong).await;
    }
    let summary = current.map(|snapshot| &snapshot["summary"]);
    let batch = summary.and_then(|summary| summary["cdc-sink.batch-id"].as_str());
    Version {
        number,
        clock,
        position: position.unwrap_or_default(),
        ranges: Vec::new(),
        batch: batch.map(str::to_owned),
        snapshot: id,
        live,
        added: Vec::new(),
        needs,
    }
}

fn position(offsets: &Value) -> Position {
    let offsets: Value = serde_json::from_str(offsets.as_str().unwrap()).unwrap();
    serde_json::from_value(offsets["offsets"].clone()).unwrap()
}

async fn entries(
    files: &mut Files<'_>,
    list: &str,
    version: FormatVersion,
    needs: &mut BTreeSet<String>,
    number: i64,
    wrong: &mut Vec<String>,
) -> BTreeMap<String, Live> {
    let bytes = files.bytes(relative(list)).await;
    needs.insert(relative(list).to_owned());
    let list = ManifestList::parse_with_version(&bytes, version).unwrap();
    let mut live: BTreeMap<String, Live> = BTreeMap::new();
    let mut deletes: Vec<(String, RoaringTreemap)> = Vec::new();
    for manifest in list.entries() {
        needs.insert(relative(&manifest.manifest_path).to_owned());
        let bytes = files.bytes(relative(&manifest.manifest_path)).await;
        let manifest = Manifest::parse_avro(&bytes).unwrap();
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let path = relative(entry.file_path()).to_owned();
            needs.insert(path.clone());
            if entry.content_type() != DataContentType::Data {
                deletes.extend(deleted(files, entry.data_file(), &path).await);
                continue;
            }
            let rows = files.rows(&path).await;
            if live
                .insert(path.clone(), Live { rows, deleted: Arc::default(), add: Value::Null })
                .is_some()
            {
                wrong.push(format!("iceberg version {number} has {path} twice"));
            }
        }
    }
    for (path, rows) in deletes {
        match live.get_mut(&path) {
            Some(file) => *Arc::make_mut(&mut file.deleted) |= rows,
            None => wrong.push(format!(
                "iceberg version {number} deletes rows of {path}, which is not live"
            )),
        }
    }
    live
}

/// The rows that a delete file names, by data file.
async fn deleted(
    files: &Files<'_>,
    file: &iceberg::spec::DataFile,
    path: &str,
) -> Vec<(String, RoaringTreemap)> {
    if file.file_format() == DataFileFormat::Puffin {
        let offset = usize::try_from(file.content_offset().unwrap()).unwrap();
        let target = file.referenced_data_file().unwrap();
        return vec![(relative(&target).to_owned(), files.bitmap(path, offset).await)];
    }
    let mut found: BTreeMap<String, RoaringTreemap> = BTreeMap::new();
    for batch in files.batches(path).await {
        let (names, rows) = (batch.column(0).as_string::<i32>(), batch.column(1));
        let rows = rows.as_primitive::<Int64Type>();
        for (name, row) in names.iter().zip(rows.values()) {
            let name = relative(name.unwrap()).to_owned();
            found.entry(name).or_default().insert(u64::try_from(*row).unwrap());
        }
    }
    found.into_iter().collect()
}

/// The path below the table's root: `memory:///<table>/` comes before it.
pub(in super::super) fn relative(path: &str) -> &str {
    path.strip_prefix("memory:///").unwrap().split_once('/').unwrap().1
}
