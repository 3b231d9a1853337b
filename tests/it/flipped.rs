//! A bit of a table's files is wrong: it is told and nothing is written, or it does not matter.
//!
//! Every byte that a process reads when it opens a table may be another one: the keys of data files, deletions, the log. After
//! each flip of a bit a batch comes that changes every row. If it is committed, the table must be what it would be without.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_sink::change::{Batch, Hole, Origin, Own};
use cdc_sink::sink::delta;
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup};
use cdc_sink::sink::storage::Location;
use cdc_sink::sink::{Merged, Sink};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rstest::rstest;
use tokio::task::JoinSet;
use url::Url;

use crate::batches::{batch, key, logs, options, schema, tables};

/// Flips of each format.
const FLIPS: usize = 200;
const ROWS: i64 = 40;
/// Commits before the flip.
const COMMITS: i64 = 5;

type Files = BTreeMap<Path, Vec<u8>>;

fn lake(files: &Files, logs: Vec<LogSetup>) -> (Arc<InMemory>, LakeOptions) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory::new());
    for (path, content) in files {
        futures::executor::block_on(store.put(path, content.clone().into())).unwrap();
    }
    let url = Url::parse("memory:///t/").unwrap();
    let location = Location::new(Arc::clone(&store) as Arc<dyn ObjectStore>, Path::from("t"), url);
    (store, LakeOptions { location, partition_by: String::new(), ..options(&folder, logs) })
}

/// A table's formats: Delta with checkpoints, or Iceberg of a version.
fn formats(of: usize) -> Vec<LogSetup> {
    let [delta, iceberg] = logs(if of == 1 { 2 } else { 3 });
    let delta = match delta {
        LogSetup::Delta(options) => {
            LogSetup::Delta(delta::Options { checkpoint_interval: 3, ..options })
        }
        iceberg @ LogSetup::Iceberg { .. } => iceberg,
    };
    match of {
        0 => vec![delta],
        1 | 2 => vec![iceberg],
        _ => vec![delta, iceberg],
    }
}

fn text(id: i64, commit: i64) -> String {
    format!("{id} of {commit}")
}

/// Inserts everything, then changes a part of the rows each time, and deletes one.
fn change(commit: i64) -> Batch {
    let ids = (0..ROWS).filter(|id| commit == 0 || id % COMMITS == commit);
    let texts: Vec<_> =
        ids.map(|id| (id, (commit == 0 || id % 10 != commit).then(|| text(id, commit)))).collect();
    let changes: Vec<_> = texts.iter().map(|(id, text)| (*id, text.as_deref())).collect();
    batch(&Arc::new(schema()), commit * 10, &changes)
}

/// What the table is after the first commits.
fn made() -> BTreeMap<i64, String> {
    let gone = |id: &i64| (1..COMMITS).any(|commit| id % COMMITS == commit && id % 10 == commit);
    (0..ROWS).filter(|id| !gone(id)).map(|id| (id, text(id, id % COMMITS))).collect()
}

/// Changes every row; every third one leaves its text out.
fn last() -> (Batch, BTreeMap<i64, String>) {
    let before = made();
    let after: BTreeMap<i64, String> = (0..ROWS)
        .map(|id| match before.get(&id).filter(|_| id % 3 == 0) {
            Some(kept) => (id, kept.clone()),
            None => (id, text(id, 99)),
        })
        .collect();
    let leaves_out = |id: i64| id % 3 == 0 && before.contains_key(&id);
    let sent = |id: i64, text| if leaves_out(id) { "left out" } else { text };
    let texts: Vec<_> = after.iter().map(|(id, text)| (*id, Some(sent(*id, text)))).collect();
    let schema = Arc::new(schema());
    let mut batch = batch(&schema, COMMITS * 10, &texts);
    let column = schema.columns().iter().position(|column| column.name == "text").unwrap();
    let left_out = (0..ROWS).filter(|id| leaves_out(*id));
    let hole = |id| Hole {
        row: usize::try_from(id).unwrap(),
        column,
        from: Origin::Row(key(id)),
        own: Own::Null,
    };
    batch.holes = left_out.map(hole).collect();
    (batch, after)
}

async fn files(store: &InMemory) -> Files {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut files = Files::new();
    for meta in listed {
        let content = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        files.insert(meta.location, content.to_vec());
    }
    files
}

/// What kind of file it is.
fn kind(path: &Path) -> String {
    let name: String = path.filename().unwrap().chars().filter(|c| !c.is_ascii_digit()).collect();
    let kinds = ["checkpoint", "parquet", "bin", "puffin", "snap-", "avro", "metadata", "hint"];
    let folder = if path.as_ref().contains("_delta_log") { "log " } else { "" };
    format!("{folder}{}", kinds.into_iter().find(|kind| name.contains(kind)).unwrap_or("commit"))
}

#[rstest]
#[case::delta(0)]
#[case::iceberg_v2(1)]
#[case::iceberg_v3(2)]
#[case::both(3)]
#[tokio::test(start_paused = true)]
async fn a_flipped_bit_gets_no_wrong_row_into_a_table(#[case] of: usize) {
    let (store, options) = lake(&Files::new(), formats(of));
    let mut sink = LakeSink::new(options.clone());
    for commit in 0..COMMITS {
        let merged = sink.merge(&change(commit)).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
    }
    for (format, table) in tables(&options).await {
        assert_eq!(table, made(), "{format}");
    }
    let whole = files(&store).await;
    let paths: Vec<&Path> = whole.keys().collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut told: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for number in 0..FLIPS {
        let path = paths[number % paths.len()];
        let mut damaged = whole.clone();
        let content = damaged.get_mut(path).unwrap();
        let (at, bit) = (random.usize(0..content.len()), random.u8(0..8));
        content[at] ^= 1 << bit;
        let what = format!("bit {bit} of byte {at} of {}", content.len());
        let outcome = after_flip(&damaged, of).await;
        let harmless = outcome.unwrap_or_else(|wrong| panic!("{what} in {path}: {wrong}"));
        told.entry(kind(path)).or_default()[usize::from(harmless)] += 1;
    }
    // [told, harmless] by kind of file, for who wants to see it.
    let detected: usize = told.values().map(|[told, _]| told).sum();
    assert!(detected > FLIPS / 10, "{told:?}");
    // Most files of the other kinds are of earlier versions, and not read.
    assert!(told["parquet"][0] > told["parquet"][1], "{told:?}");
}

/// Merges the last batch into a damaged table: whether it did not matter, or what went wrong.
async fn after_flip(damaged: &Files, of: usize) -> Result<bool, String> {
    let (_store, options) = lake(damaged, formats(of));
    let (batch, expected) = last();
    let mut sink = LakeSink::new(options.clone());
    let mut merging = JoinSet::new();
    merging.spawn(async move { sink.merge(&batch).await });
    let merged = merging.join_next().await.unwrap();
    let merged = merged.map_err(|e| format!("it panicked: {e}"))?;
    match merged {
        // Not committed, and it is said why.
        Err(error) if !error.report().is_empty() => return Ok(false),
        Ok(Merged::Committed(_)) => {}
        Ok(Merged::Fenced { .. } | Merged::Missing { .. } | Merged::Outdated) => return Ok(false),
        other => return Err(format!("{other:?}")),
    }
    for (format, table) in tables(&options).await {
        if table != expected {
            return Err(format!("{format} is {table:?}"));
        }
    }
    Ok(true)
}
