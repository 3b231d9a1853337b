//! Orphans are removed and nothing else: what any version of any format needs stays, and what is young or of unknown make.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cdc_sink::clock::Clock;
use cdc_sink::sink::iceberg::{Catalog, Retention, TableName};
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, Owner};
use cdc_sink::sink::orphans::{Form, Place, Rules, Summary, Table};
use cdc_sink::sink::{Merged, Sink};
use rstest::rstest;

use crate::batches::{Changes, batch, logs, options, schema, tables};

const HOUR: Duration = Duration::from_secs(3600);
const RULES: Rules = Rules { older_than: Duration::from_secs(72 * 3600), dry_run: false };

/// Rows change often enough that data files leave the table, and deletion vectors are replaced.
const HISTORY: [Changes<'_>; 6] = [
    &[(1, Some("a")), (2, Some("b")), (3, Some("c")), (11, Some("d")), (12, Some("e"))],
    &[(2, Some("B")), (11, None)],
    &[(3, Some("C")), (12, None), (13, Some("f")), (1, None)],
    &[(13, Some("F")), (4, Some("g"))],
    &[(4, None), (2, None)],
    &[(5, Some("h")), (3, Some("CC"))],
];

fn expected() -> BTreeMap<i64, String> {
    [(3, "CC"), (5, "h"), (13, "F")].map(|(id, text)| (id, text.to_owned())).into()
}

async fn write(options: &LakeOptions) {
    let mut sink = LakeSink::new(options.clone());
    for (from, changes) in (0..).step_by(10).zip(HISTORY) {
        let merged = sink.merge(&batch(&Arc::new(schema()), from, changes)).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
    }
}

/// The logs of a table in these formats: 0 Delta, 1 Iceberg.
fn chosen(formats: &[usize], version: u8) -> Vec<LogSetup> {
    let mut chosen: Vec<_> = formats.iter().map(|at| logs(version)[*at].clone()).collect();
    for log in &mut chosen {
        if let LogSetup::Iceberg { options, .. } = log {
            options.two_formats = formats.len() > 1;
        }
    }
    chosen
}

fn root(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("db_public/t")
}

async fn open(options: &LakeOptions) -> Table {
    let place = Place {
        name: "db_public.t".into(),
        location: options.location.clone(),
        catalog: Arc::new(Catalog::Files),
        table: TableName { namespace: vec!["db_public".into()], name: "t".into() },
    };
    Table::open(place).await.unwrap().unwrap()
}

/// What there is of files of unknown make and of orphans.
async fn sweep(options: &LakeOptions, rules: Rules) -> (Summary, BTreeMap<String, Form>) {
    let mut told = BTreeMap::new();
    let mut tell = |file: cdc_sink::sink::orphans::Unneeded<'_>| {
        told.insert(file.path.to_owned(), file.form);
    };
    let summary = open(options).await.sweep(&rules, &mut tell).await.unwrap();
    (summary, told)
}

/// Every file below the folder, by its path.
fn stored(root: &Path) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn age(path: &Path, age: Duration) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let now = Clock::system().now_millis().try_into().unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(now) - age).unwrap();
}

fn put(root: &Path, path: &str, old: Duration) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "left").unwrap();
    age(&path, old);
}

/// Names of files of every form, of a table whose Iceberg metadata is below `home`.
fn left_behind(home: &str) -> Vec<(String, Form)> {
    let names = [
        (String::from("data/part-U.parquet"), Form::Data),
        (String::from("data/id_trunc=10/part-U.parquet"), Form::Data),
        (String::from("deletion_vector_U.bin"), Form::DeletionVector),
        (format!("{home}data/U-00000-deletes.puffin"), Form::Deletes),
        (format!("{home}data/U-00001-deletes.parquet"), Form::Deletes),
        (format!("{home}metadata/U-m0.avro"), Form::Manifest),
        (format!("{home}metadata/snap-7-U.avro"), Form::ManifestList),
        (format!("{home}metadata/00003-U.metadata.json"), Form::Metadata),
        (String::from("data/part-U.parquet#1"), Form::Temporary),
        (String::from("_delta_log/_commit_U.json.tmp"), Form::Temporary),
        (String::from(".cdc-sink-probe-U"), Form::Temporary),
    ];
    let named =
        |(name, form): (String, Form)| (name.replace('U', &uuid::Uuid::new_v4().to_string()), form);
    names.map(named).into()
}

const FOREIGN: [&str; 3] =
    ["part-00000-x-c000.snappy.parquet", "data/notes.txt", "old/metadata/x.avro"];

/// Files that nothing refers to.
struct Planted {
    orphans: BTreeMap<String, Form>,
    /// Young ones, and those of unknown make.
    others: BTreeSet<String>,
    young: u64,
}

fn plant(root: &Path, formats: &[usize]) -> Planted {
    let home = if formats.len() > 1 { "_iceberg/" } else { "" };
    let (old, new) = (left_behind(home), left_behind(home));
    // What the table has nothing of is nothing of the table's.
    let fits = |path: &str| {
        let is_log = path.starts_with("_delta_log") && !formats.contains(&0);
        !is_log && (formats.contains(&1) || !path.ends_with(".metadata.json"))
    };
    let (mut orphans, mut others) = (BTreeMap::new(), BTreeSet::new());
    for (path, form) in old.into_iter().filter(|(path, _)| fits(path)) {
        put(root, &path, 73 * HOUR);
        orphans.insert(path, form);
    }
    for (path, _) in new.iter().filter(|(path, _)| fits(path)) {
        put(root, path, 71 * HOUR);
        others.insert(path.clone());
    }
    let young = u64::try_from(others.len()).unwrap();
    for path in FOREIGN {
        put(root, path, 1000 * HOUR);
        others.insert(path.to_owned());
    }
    Planted { orphans, others, young }
}

#[rstest]
#[case::delta(&[0], 3)]
#[case::iceberg_2(&[1], 2)]
#[case::iceberg_3(&[1], 3)]
#[case::both(&[0, 1], 3)]
#[case::iceberg_first(&[1, 0], 2)]
#[tokio::test(flavor = "multi_thread")]
async fn orphans_go_and_nothing_else(#[case] formats: &[usize], #[case] version: u8) {
    let folder = tempfile::tempdir().unwrap();
    let (root, options) = (root(&folder), options(&folder, chosen(formats, version)));
    write(&options).await;
    let written = stored(&root);
    written.iter().for_each(|path| age(&root.join(path), 100 * HOUR));
    let Planted { orphans, mut others, young } = plant(&root, formats);
    others.extend(written);

    let count = u64::try_from(orphans.len()).unwrap();
    let (found, told) = sweep(&options, Rules { dry_run: true, ..RULES }).await;
    let mut expected_told = orphans.clone();
    expected_told.extend(FOREIGN.map(|path| (path.to_owned(), Form::Foreign)));
    assert_eq!(told, expected_told);
    assert_eq!((found.orphans, found.removed), (count, 0));
    assert_eq!((found.bytes, found.young, found.unknown), (4 * count, young, 3));
    let all: BTreeSet<_> = others.iter().chain(orphans.keys()).cloned().collect();
    assert_eq!(stored(&root), all, "a dry run removes nothing");

    let (done, _) = sweep(&options, RULES).await;
    assert_eq!(done, Summary { removed: count, ..found });
    assert_eq!(stored(&root), others);
    for (format, table) in tables(&options).await {
        assert_eq!(table, expected(), "{format}");
    }
    let (again, _) = sweep(&options, RULES).await;
    assert_eq!((again.orphans, again.removed), (0, 0));
}

/// Iceberg's snapshots expire, and so do the versions of Delta's log: then the data files go that only those had.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_version_of_either_format_had_goes_once_both_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    let mut logs = chosen(&[0, 1], 3);
    for log in &mut logs {
        match log {
            LogSetup::Delta(options) => options.checkpoint_interval = 5,
            LogSetup::Iceberg { options, .. } => {
                options.snapshots = Retention { max_count: 1, ..options.snapshots };
            }
        }
    }
    let options = options(&folder, logs);
    write(&options).await;
    let before = stored(&root);
    before.iter().for_each(|path| age(&root.join(path), 100 * HOUR));
    let (kept, _) = sweep(&options, RULES).await;
    assert_eq!(kept.orphans, 0, "Delta has all its versions");
    // As its upkeep does some day.
    for version in 0..5 {
        std::fs::remove_file(root.join(format!("_delta_log/{version:020}.json"))).unwrap();
    }
    let (done, told) = sweep(&options, RULES).await;
    assert_eq!(done.removed, done.orphans);
    let is_data = |form: &&Form| **form == Form::Data;
    assert_eq!(told.values().filter(is_data).count(), 3, "{told:?}");
    assert!(told.values().any(|form| *form == Form::DeletionVector), "{told:?}");
    for (format, table) in tables(&options).await {
        assert_eq!(table, expected(), "{format}");
    }
    let mut sink = LakeSink::new(options.clone());
    let merged = sink.merge(&batch(&Arc::new(schema()), 60, &[(3, None)])).await.unwrap();
    assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
}

/// A commit that comes after the versions were read is seen before anything is removed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_meanwhile_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (root, options) = (root(&folder), options(&folder, chosen(&[0], 3)));
    write(&options).await;
    let [gone, late] = [(); 2].map(|()| format!("data/part-{}.parquet", uuid::Uuid::new_v4()));
    put(&root, &gone, 100 * HOUR);
    put(&root, &late, 100 * HOUR);
    let mut table = open(&options).await;
    let add = format!(
        r#"{{"add":{{"path":"{late}","partitionValues":{{}},"size":4,"modificationTime":0,"dataChange":true}}}}"#
    );
    let mut told = 0;
    let mut tell = |_: cdc_sink::sink::orphans::Unneeded<'_>| {
        told += 1;
        std::fs::write(root.join(format!("_delta_log/{:020}.json", 7)), &add).unwrap();
    };
    let summary = table.sweep(&RULES, &mut tell).await.unwrap();
    assert_eq!((told, summary.orphans, summary.removed), (2, 2, 1));
    assert!(root.join(&late).exists() && !root.join(&gone).exists());
}

#[rstest]
#[case::delta(&[1], "_delta_log/00000000000000000000.json", "Delta log")]
#[case::a_catalog(&[0], "_iceberg/metadata/00001-x.metadata.json", "_iceberg/metadata")]
#[case::another_layout(&[0, 1], "metadata/00001-x.metadata.json", "metadata")]
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_versions_that_are_not_found_is_refused(
    #[case] formats: &[usize],
    #[case] file: &str,
    #[case] told: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let (root, options) = (root(&folder), options(&folder, chosen(formats, 3)));
    write(&options).await;
    let mut table = open(&options).await;
    put(&root, file, 100 * HOUR);
    let orphan = format!("data/part-{}.parquet", uuid::Uuid::new_v4());
    put(&root, &orphan, 100 * HOUR);
    let report = table.sweep(&RULES, &mut |_| ()).await.unwrap_err().report();
    assert!(report.contains(told) && report.contains("--catalog"), "{report}");
    assert!(root.join(&orphan).exists());
}

/// Runs the command on the warehouse; its exit code and what it printed.
fn maintain(folder: &tempfile::TempDir, options: &[&str]) -> (i32, String) {
    let mut command = crate::program();
    command.args(["maintain", "--to", "delta,iceberg", "--warehouse"]).arg(folder.path());
    let output = command.args(options).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_goes_through_the_tables_of_its_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    let owner = Owner { id: "consumer group g of Kafka cluster c".into(), take_over: false };
    let options = LakeOptions { owner: Some(owner), ..options(&folder, chosen(&[0, 1], 3)) };
    write(&options).await;
    std::fs::create_dir_all(folder.path().join("db_public/no_table/data")).unwrap();
    let orphan = format!("data/part-{}.parquet", uuid::Uuid::new_v4());
    put(&root, &orphan, 2 * HOUR);

    let now = ["--orphans-older-than", "0s", "--group", "g"];
    let danger = "--break-tables-that-are-written";
    let cases: [(i32, &[&str], &str); 8] = [
        (2, &now, danger),
        (0, &["--group", "g"], "db_public.t: 0 orphans (0 B) removed, 1 younger than 3days kept"),
        (0, &["--orphans-older-than", "1h"], "left alone: it belongs to another deployment"),
        (3, &["--tables", "db_public.*"], "belongs to another deployment, consumer group g of"),
        (2, &["--tables", "other.*"], "there is no table other.*"),
        (0, &["--group", "g", "--orphans-older-than", "1h", "--dry-run"], &orphan),
        (0, &["--group", "g", "--orphans-older-than", "1h"], "1 orphans (4 B) removed"),
        (0, &[&now[..], &[danger]].concat(), "db_public.t: 0 orphans (0 B) removed, 0 younger"),
    ];
    for (code, options, told) in cases {
        let there = root.join(&orphan).exists();
        let (exit, text) = maintain(&folder, options);
        assert!(exit == code && text.contains(told), "{options:?}: {exit} {text}");
        let removes = told.starts_with("1 orphans");
        assert_eq!(root.join(&orphan).exists(), there && !removes, "{options:?}");
    }
    for (format, table) in tables(&options).await {
        assert_eq!(table, expected(), "{format}");
    }
}
