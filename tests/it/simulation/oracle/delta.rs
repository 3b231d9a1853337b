//! Every version that a Delta log has, read action by action.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use cdc_sink::position::OffsetRange;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use roaring::RoaringTreemap;
use serde_json::{Value, json};

use super::super::bucket::Effect;
use super::super::store::World;
use super::super::tables::name as name_of;
use super::files::Files;
use super::{Live, Version};

const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// A log as it is now, for somebody who goes on from there.
pub(in super::super) struct Deltas<'a> {
    files: Files<'a>,
    versions: Vec<Version>,
}

impl<'a> Deltas<'a> {
    pub(in super::super) async fn read(world: &'a World, topic: &str) -> Self {
        let mut files = Files::new(&world.bucket, name_of(topic).to_owned());
        let (versions, _) = versions(&mut files, &world.bucket.effects(), topic).await;
        Self { files, versions }
    }

    /// The newest version.
    pub(in super::super) fn newest(&self) -> Option<i64> {
        self.versions.last().map(|version| version.number)
    }

    /// The live files of the newest version.
    pub(in super::super) fn live(&self) -> Vec<(&str, &Live)> {
        self.newest().map(|newest| self.live_in(newest)).unwrap_or_default()
    }

    /// The live files of a version.
    pub(in super::super) fn live_in(&self, number: i64) -> Vec<(&str, &Live)> {
        let version = self.versions.iter().find(|version| version.number == number);
        let files = version.into_iter().flat_map(|version| &version.live);
        files.map(|(path, live)| (path.as_str(), live)).collect()
    }

    /// True when a batch of ours came after `number`.
    pub(in super::super) fn has_batch_after(&self, number: i64) -> bool {
        self.versions.iter().any(|version| version.number > number && version.batch.is_some())
    }

    pub(in super::super) async fn batches(&self, path: &str) -> Vec<RecordBatch> {
        self.files.batches(path).await
    }

    pub(in super::super) fn path(&self, relative: &str) -> Path {
        self.files.path(relative)
    }

    /// The action that takes out a live file.
    pub(in super::super) fn remove(live: &Live, changes: bool) -> Value {
        json!({ "remove": {
            "path": live.add["path"], "dataChange": changes, "deletionTimestamp": 1,
            "extendedFileMetadata": true, "partitionValues": {}, "size": live.add["size"],
            "deletionVector": live.add["deletionVector"],
        }})
    }

    /// The newest metadata of the table.
    pub(in super::super) async fn metadata(&self) -> Option<Value> {
        let mut newest = None;
        for version in &self.versions {
            let name = format!("_delta_log/{:020}.json", version.number);
            for line in self.files.bytes(&name).await.split(|byte| *byte == b'\n') {
                let action: Value = serde_json::from_slice(line).unwrap_or_default();
                newest = action.get("metaData").cloned().or(newest);
            }
        }
        newest
    }
}

/// The versions of the table, and what is wrong with its log.
pub(super) async fn versions(
    files: &mut Files<'_>,
    effects: &[Effect],
    topic: &str,
) -> (Vec<Version>, Vec<String>) {
    let log = files.path("_delta_log");
    let mut versions: Vec<Version> = Vec::new();
    let mut wrong = Vec::new();
    for (clock, effect) in effects.iter().enumerate() {
        let Some(name) = effect.path.as_ref().strip_prefix(&format!("{log}/")) else { continue };
        let Some(number) = name.strip_suffix(".json").and_then(|n| n.parse::<i64>().ok()) else {
            continue;
        };
        if !effect.put {
            wrong.push(format!("delta version {number} was removed"));
            continue;
        }
        if number != i64::try_from(versions.len()).unwrap() {
            wrong.push(format!("delta version {number} comes after {}", versions.len()));
        }
        let before = versions.last();
        let actions = files.bytes(&format!("_delta_log/{name}")).await;
        let actions: Vec<Value> = actions
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let version = apply(files, before, (number, clock), &actions, topic, &mut wrong).await;
        versions.push(version);
    }
    (versions, wrong)
}

async fn apply(
    files: &mut Files<'_>,
    before: Option<&Version>,
    (number, clock): (i64, usize),
    actions: &[Value],
    topic: &str,
    wrong: &mut Vec<String>,
) -> Version {
    let mut position = before.map(|v| v.position.clone()).unwrap_or_default();
    let mut live: BTreeMap<String, Live> = before.map(|v| v.live.clone()).unwrap_or_default();
    let (mut batch, mut ranges) = (None, Vec::<OffsetRange>::new());
    let mut gone = BTreeSet::new();
    for action in actions {
        if let Some(info) = action.get("commitInfo") {
            batch = info["cdc-sink.batch-id"].as_str().map(str::to_owned);
            if let Some(found) = info.get("cdc-sink.offsets") {
                ranges = serde_json::from_value(found.clone()).unwrap();
            }
        } else if let Some(transaction) = action.get("txn") {
            let prefix = format!("cdc-sink/{topic}/");
            let id = transaction["appId"].as_str().unwrap().strip_prefix(&prefix).unwrap();
            position.set(id.parse().unwrap(), transaction["version"].as_i64().unwrap());
        } else if let Some(remove) = action.get("remove") {
            let path = path(remove);
            if live.remove(&path).is_none() {
                wrong.push(format!("delta version {number} removes {path}, which is not live"));
            }
            gone.insert(path);
        }
    }
    let mut added = Vec::new();
    for add in actions.iter().filter_map(|action| action.get("add")) {
        let path = path(add);
        let deleted = vector(files, &add["deletionVector"], number, &path, wrong).await;
        let rows = files.rows(&path).await;
        if deleted.max().is_some_and(|last| last >= u64::try_from(rows.len()).unwrap()) {
            wrong.push(format!("delta version {number} deletes rows that {path} does not have"));
        }
        if !gone.contains(&path) {
            added.push(path.clone());
        }
        if live
            .insert(path.clone(), Live { rows, deleted: Arc::new(deleted), add: add.clone() })
            .is_some()
        {
            wrong.push(format!("delta version {number} adds {path}, which is live"));
        }
    }
    let mut needs = BTreeSet::new();
    for (path, file) in &live {
        needs.insert(path.clone());
        needs.extend(file.add["deletionVector"]["pathOrInlineDv"].as_str().map(vector_file));
    }
    Version { number, clock, position, ranges, batch, snapshot: None, live, added, needs }
}

/// The path of a file's action; in the log it is escaped.
fn path(action: &Value) -> String {
    percent_decode_str(action["path"].as_str().unwrap()).decode_utf8().unwrap().into_owned()
}

async fn vector(
    files: &Files<'_>,
    descriptor: &Value,
    number: i64,
    path: &str,
    wrong: &mut Vec<String>,
) -> RoaringTreemap {
    let Some(id) = descriptor["pathOrInlineDv"].as_str() else { return RoaringTreemap::new() };
    let offset = usize::try_from(descriptor["offset"].as_u64().unwrap()).unwrap();
    let bitmap = files.bitmap(&vector_file(id), offset).await;
    if Some(bitmap.len()) != descriptor["cardinality"].as_u64() {
        wrong.push(format!("delta version {number}: the vector of {path} has another cardinality"));
    }
    bitmap
}

/// The file of vectors with this id.
fn vector_file(id: &str) -> String {
    format!("deletion_vector_{}.bin", uuid::Uuid::from_bytes(unz85(id)))
}

fn unz85(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (group, word) in text.as_bytes().chunks(5).zip(bytes.chunks_mut(4)) {
        let digit = |byte: &u8| u32::try_from(Z85.iter().position(|z| z == byte).unwrap()).unwrap();
        let number = group.iter().fold(0_u32, |number, byte| number * 85 + digit(byte));
        word.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}
