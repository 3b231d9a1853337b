//! The publisher on a local disk with the file-system catalog.

mod fake;
mod others;
mod rest;
mod servers;
mod support;

use std::sync::atomic::Ordering;

use super::*;
use crate::error::Kind;
use crate::position::OffsetRange;
use crate::schema::{Column, ColumnType};
use crate::testing::needed;
use support::{Place, by_name, options, read_by_others, same_state, stored};

fn plain() -> Arc<Partitioning> {
    Arc::default()
}

async fn several_commits(place: Place, version: u8, partitioning: Arc<Partitioning>) {
    several_commits_with(place, options(version), partitioning).await;
}

async fn several_commits_with(place: Place, options: Options, partitioning: Arc<Partitioning>) {
    let mut writer = place.create(options.clone(), partitioning).await;
    writer.check(&place).await;
    assert_eq!(writer.table.state().version, 0);
    let all: Vec<(i64, &str)> =
        (0..100).map(|i| (i, if i % 2 == 0 { "even" } else { "odd" })).collect();
    assert_eq!(writer.commit(&all, &[]).await, 1);
    writer.check(&place).await;
    assert_eq!(writer.commit(&[(3, "null"), (200, "new")], &[4, 5]).await, 2);
    writer.check(&place).await;
    // The file of 200 and that of 3 lose all rows; vectors of the first file grow.
    assert_eq!(writer.commit(&[(7, "seven")], &[200, 3, 8]).await, 3);
    writer.check(&place).await;
    assert_eq!(writer.commit(&[], &[10]).await, 4);
    assert_eq!(writer.commit(&[], &[]).await, 5);
    writer.check(&place).await;
    assert_eq!(writer.rows.len(), 95);
    assert_eq!(writer.table.state().position.get(0), Some(50));

    // On top of what was read back.
    writer.table = place.open(options).await;
    assert_eq!(writer.commit(&[(11, "eleven")], &[12, 14]).await, 6);
    writer.check(&place).await;
    assert!(!writer.table.refresh().await.unwrap());
}

#[tokio::test]
async fn a_table_read_back_is_the_table_written_v3() {
    several_commits(Place::new(), 3, plain()).await;
}

#[tokio::test]
async fn a_table_read_back_is_the_table_written_v2() {
    several_commits(Place::new(), 2, plain()).await;
}

#[tokio::test]
async fn partitions_are_read_back_v3() {
    several_commits(Place::new(), 3, by_name()).await;
}

#[tokio::test]
async fn partitions_are_read_back_v2() {
    several_commits(Place::new(), 2, by_name()).await;
}

#[tokio::test]
async fn the_second_of_two_writers_conflicts() {
    two_writers(Place::new(), 3).await;
}

async fn two_writers(place: Place, version: u8) {
    let mut writer = place.create(options(version), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    let mut other = place.open(options(version)).await;
    let plan = writer.plan(&[(3, "c")], &[1]).await;
    let late = writer.plan(&[(4, "d")], &[2]).await;
    assert!(matches!(other.publish(&plan).await.unwrap(), Published::Committed { version: 2, .. }));
    assert!(matches!(writer.table.publish(&late).await.unwrap(), Published::Conflict));
    // The conflict brought the other's commit in, so the plan fits no longer.
    same_state(writer.table.state(), other.state());
    assert!(matches!(writer.table.publish(&late).await.unwrap(), Published::Conflict));
    // The other's batch is known as committed, whoever publishes it.
    assert!(matches!(
        writer.table.publish(&plan).await.unwrap(),
        Published::Committed { version: 2, .. }
    ));
    writer.committed(&[(3, "c")], &[1], &plan);
    writer.commit(&[(4, "d")], &[2]).await;
    writer.check(&place).await;
    assert!(other.refresh().await.unwrap());
    same_state(writer.table.state(), other.state());
}

#[tokio::test]
async fn a_lost_answer_is_found_out() {
    let place = Place::new();
    let mut writer = place.create(options(3), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    place.faults.lost_answers.store(1, Ordering::SeqCst);
    assert_eq!(writer.commit(&[(3, "c")], &[1]).await, 2);
    assert_eq!(place.faults.lost_answers.load(Ordering::SeqCst), 0);
    writer.check(&place).await;
    writer.commit(&[(4, "d")], &[2]).await;
    writer.check(&place).await;
}

#[tokio::test]
async fn a_commit_in_an_unknown_state_can_be_published_again() {
    for applied in [true, false] {
        let place = Place::new();
        let mut writer = place.create(options(3), plain()).await;
        writer.commit(&[(1, "a"), (2, "b")], &[]).await;
        let plan = writer.plan(&[(3, "c")], &[1]).await;
        let (fault, unreadable) = (&place.faults.lost_answers, &place.faults.unreadable);
        let fault = if applied { fault } else { &place.faults.lost_requests };
        fault.store(1, Ordering::SeqCst);
        unreadable.store(3, Ordering::SeqCst);
        let error = writer.table.publish(&plan).await.unwrap().unknown();
        assert_eq!(error.kind(), Kind::Unavailable);
        unreadable.store(0, Ordering::SeqCst);
        let before = stored(&place.location()).await.len();
        assert!(matches!(
            writer.table.publish(&plan).await.unwrap(),
            Published::Committed { version: 2, .. }
        ));
        writer.committed(&[(3, "c")], &[1], &plan);
        writer.check(&place).await;
        // Nothing but the metadata was written again.
        let after = stored(&place.location()).await.len();
        assert_eq!(after, if applied { before } else { before + 1 });
    }
}

/// Whoever plans a batch anew writes other data files. Those are not in the table when the earlier plan is.
#[tokio::test]
async fn a_batch_that_is_in_by_an_earlier_plan_conflicts_with_a_later_one() {
    for applied in [true, false] {
        let place = Place::new();
        let mut writer = place.create(options(3), plain()).await;
        writer.commit(&[(1, "a"), (2, "b")], &[]).await;
        let first = writer.plan(&[(3, "c")], &[1]).await;
        let second = writer.plan(&[(3, "c")], &[1]).await;
        let second = CommitPlan { batch_id: first.batch_id, ..second };
        let (fault, unreadable) = (&place.faults.lost_answers, &place.faults.unreadable);
        let fault = if applied { fault } else { &place.faults.lost_requests };
        fault.store(1, Ordering::SeqCst);
        unreadable.store(3, Ordering::SeqCst);
        writer.table.publish(&first).await.unwrap().unknown();
        unreadable.store(0, Ordering::SeqCst);
        for _ in 0..2 {
            let published = writer.table.publish(&second).await.unwrap();
            assert!(matches!(published, Published::Conflict), "applied {applied}: {published:?}");
            assert_eq!(writer.table.state().last_batch, Some(first.batch_id));
        }
        writer.committed(&[(3, "c")], &[1], &first);
        writer.check(&place).await;
        writer.commit(&[(4, "d")], &[3]).await;
        writer.check(&place).await;
    }
}

/// Files of the earlier plan may have been taken for orphans by then.
#[tokio::test]
async fn a_commit_that_has_waited_long_is_not_sent_again() {
    let place = Place::new();
    let mut writer = place.create(options(3), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    let first = writer.plan(&[(3, "c")], &[1]).await;
    place.faults.lost_requests.store(1, Ordering::SeqCst);
    place.faults.unreadable.store(3, Ordering::SeqCst);
    writer.table.publish(&first).await.unwrap().unknown();
    place.faults.unreadable.store(0, Ordering::SeqCst);
    let before = stored(&place.location()).await;
    writer.now += 16 * 60 * 1000;
    let second = writer.plan(&[(3, "c")], &[1]).await;
    let second = CommitPlan { batch_id: first.batch_id, ..second };
    let published = writer.table.publish(&second).await.unwrap();
    assert!(matches!(published, Published::Committed { version: 2, found: false }));
    writer.committed(&[(3, "c")], &[1], &second);
    writer.check(&place).await;
    // Manifests and delete files are others as well.
    let list = writer.table.known.metadata.current_snapshot().unwrap().manifest_list();
    assert!(!before.iter().any(|file| list.ends_with(file)), "{list}");
}

/// The plan was made before another writer's commit, and the table was read since.
#[tokio::test]
async fn a_plan_does_not_take_back_the_position_of_another_partition() {
    let place = Place::new();
    let mut writer = place.create(options(3), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    let before = writer.table.state().position.clone();
    let mut other = place.open(options(3)).await;
    let theirs = writer.plan(&[(3, "c")], &[]).await;
    assert!(matches!(other.publish(&theirs).await.unwrap(), Published::Committed { .. }));
    let range = OffsetRange { partition: 1, from: 0, to: 10 };
    let position = before.advance(&[range]).unwrap();
    let plan = writer.plan(&[(4, "d")], &[]).await;
    let plan = CommitPlan { ranges: vec![range], position, ..plan };
    assert!(writer.table.refresh().await.unwrap());
    assert!(matches!(writer.table.publish(&plan).await.unwrap(), Published::Conflict));
    assert_eq!(writer.table.state().position.get(0), Some(20));
}

#[tokio::test]
async fn a_commit_in_an_unknown_state_is_recognised_after_a_refresh_and_by_others() {
    let place = Place::new();
    let mut writer = place.create(options(3), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    let plan = writer.plan(&[(3, "c")], &[1]).await;
    place.faults.lost_answers.store(1, Ordering::SeqCst);
    place.faults.unreadable.store(3, Ordering::SeqCst);
    writer.table.publish(&plan).await.unwrap().unknown();
    place.faults.unreadable.store(0, Ordering::SeqCst);
    // Another writer goes on from there.
    let mut other = place.open(options(3)).await;
    assert_eq!(other.state().last_batch, Some(plan.batch_id));
    assert!(matches!(other.publish(&plan).await.unwrap(), Published::Committed { version: 2, .. }));
    let mut second = support::Writer {
        table: other,
        places: writer.places.clone(),
        rows: writer.rows.clone(),
        now: writer.now,
        history: writer.history.clone(),
    };
    second.committed(&[(3, "c")], &[1], &plan);
    second.commit(&[(4, "d")], &[2]).await;
    assert!(matches!(
        writer.table.publish(&plan).await.unwrap(),
        Published::Committed { version: 2, .. }
    ));
    assert!(writer.table.refresh().await.unwrap());
    same_state(writer.table.state(), second.table.state());
}

#[tokio::test]
async fn columns_are_added_with_the_rows_that_need_them() {
    for version in [2, 3] {
        added_columns(Place::new(), version).await;
    }
}

async fn added_columns(place: Place, version: u8) {
    let mut writer = place.create(options(version), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    let wider = Arc::new(writer.table.state().schema.with_added(vec![Column::new(
        "note",
        ColumnType::String,
        true,
    )]));
    let plan = writer.plan_with(Arc::clone(&wider), &[(3, "c")], &[1]).await;
    let (mut stale, same) = (place.open(options(version)).await, plan.clone());
    assert!(matches!(writer.table.publish(&plan).await.unwrap(), Published::Committed { .. }));
    writer.committed(&[(3, "c")], &[1], &plan);
    writer.check(&place).await;
    assert_eq!(place.open(options(version)).await.state().schema, wider);
    writer.commit(&[(4, "d")], &[2]).await;
    writer.check(&place).await;
    let other = CommitPlan { batch_id: uuid::Uuid::new_v4(), ..same };
    assert!(matches!(stale.publish(&other).await.unwrap(), Published::Conflict));
}

/// What Iceberg's schema has no place for changes without it.
#[tokio::test]
async fn columns_are_noted_as_absent_and_go_for_good() {
    for version in [2, 3] {
        absent_columns(Place::new(), version).await;
    }
}

async fn absent_columns(place: Place, version: u8) {
    let mut writer = place.create(options(version), plain()).await;
    let note = Column::new("note", ColumnType::String, true);
    let wide = writer.table.state().schema.with_added(vec![note]);
    let absent = |since| {
        let noted = wide.columns().iter().cloned();
        let noted = noted.map(|mut column| {
            column.absent_since = Some(since).filter(|_| column.name == "note");
            column
        });
        wide.evolved(noted.collect())
    };
    let gone = wide.columns().iter().filter(|column| column.name != "note").cloned();
    let gone = wide.evolved(gone.collect());
    for (id, schema) in (1..).zip([wide.clone(), absent(5), wide.clone(), absent(7), gone]) {
        let schema = Arc::new(schema);
        let names = [(id, "a")];
        let plan = writer.plan_with(Arc::clone(&schema), &names, &[]).await;
        let published = writer.table.publish(&plan).await.unwrap();
        assert!(matches!(published, Published::Committed { .. }), "{published:?}");
        writer.committed(&names, &[], &plan);
        writer.check(&place).await;
        assert_eq!(place.open(options(version)).await.state().schema, schema);
    }
}

#[tokio::test]
async fn many_commits_stay_small_and_leave_no_files_behind() {
    for two_formats in [false, true] {
        let place = Place::new();
        let retention = Retention { min_count: 2, max_count: 5, max_age_millis: i64::MAX };
        let options = Options { snapshots: retention, two_formats, ..options(3) };
        let mut writer = place.create(options.clone(), plain()).await;
        for i in 3..133_i64 {
            let back = i - 2;
            writer.commit(&[(2 * i, "x"), (2 * i + 1, "y"), (2 * back, "z")], &[back]).await;
            if i % 10 == 2 {
                writer.table.maintain(writer.now).await.unwrap();
            }
        }
        writer.check(&place).await;
        assert_eq!(writer.table.known.metadata.snapshots().count(), 5);
        assert!(writer.table.known.data.len() <= 101, "{}", writer.table.known.data.len());
        // Every snapshot left can be read, and only their files are left.
        let named = named_files(&writer.table).await;
        let found = stored(&place.location()).await;
        let metadata = |path: &&String| path.ends_with(".metadata.json") || path.ends_with(".text");
        let shared = |path: &&String| two_formats && path.starts_with("data/");
        let rest: Vec<_> =
            found.iter().filter(|path| !metadata(path) && !shared(path)).cloned().collect();
        let named: Vec<_> = named.into_iter().filter(|path| !shared(&path)).collect();
        assert_eq!(rest, named);
        assert_eq!(found.iter().filter(metadata).count(), 102);
        // Far behind, a writer does not take the place of a version that was cleaned up.
        let mut stale = place.open(options).await;
        stale.known.metadata_location = stale.home().absolute("metadata/v3.metadata.json");
        let plan = writer.plan(&[(1_000, "late")], &[]).await;
        assert!(matches!(stale.publish(&plan).await.unwrap(), Published::Conflict));
        assert_eq!(stored(&place.location()).await.iter().filter(metadata).count(), 102);
        same_state(stale.state(), writer.table.state());
    }
}

/// Every file that a snapshot of the table needs, by path relative to the table's root.
async fn named_files(table: &IcebergTable) -> Vec<String> {
    let mut named = std::collections::BTreeSet::new();
    let metadata = &table.known.metadata;
    for snapshot in metadata.snapshots() {
        let list = snapshot.manifest_list();
        named.insert(list.to_owned());
        let version = metadata.format_version();
        for manifest in known::manifest_list(&table.io, list, version).await.unwrap() {
            named.insert(manifest.manifest_path.clone());
            let manifest = manifest.load_manifest(&table.io).await.unwrap();
            let live = manifest.entries().iter().filter(|entry| entry.is_alive());
            named.extend(live.map(|entry| entry.file_path().to_owned()));
        }
    }
    named.iter().map(|path| table.root.relative(path).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn old_snapshots_go_but_not_below_the_minimum() {
    let place = Place::new();
    let retention = Retention { min_count: 3, max_count: 100, max_age_millis: 2500 };
    let mut writer = place.create(Options { snapshots: retention, ..options(3) }, plain()).await;
    for i in 0..8 {
        writer.commit(&[(i, "x")], &[]).await;
    }
    // A commit each second: those 1 and 2 seconds old stay, and the new one.
    assert_eq!(writer.table.known.metadata.snapshots().count(), 3);
    writer.now += 1_000_000;
    writer.commit(&[(100, "x")], &[]).await;
    assert_eq!(writer.table.known.metadata.snapshots().count(), 3);
    writer.check(&place).await;
}

#[tokio::test]
async fn tables_that_are_not_ours_are_refused() {
    let place = Place::new();
    assert!(place.try_open(options(3)).await.unwrap().is_none());
    let writer = place.create(options(3), plain()).await;
    let topic = Options { topic: "db.public.others".into(), ..options(3) };
    let two_formats = Options { two_formats: true, ..options(3) };
    assert_eq!(place.try_open(topic).await.unwrap_err().kind(), Kind::Refused);
    assert!(place.try_open(two_formats).await.unwrap().is_none());
    // Creating what exists opens it.
    let mut again = place.create(options(2), by_name()).await;
    same_state(writer.table.state(), again.table.state());
    again.commit(&[(1, "a")], &[]).await;
    again.check(&place).await;
}

/// Every snapshot as PyIceberg and DuckDB read it. Runs where `CDC_SINK_TEST_PYTHON` names a Python that has both.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_others_find_the_same_rows() {
    let Some(python) = needed("CDC_SINK_TEST_PYTHON") else { return };
    for (version, partitioning) in [(2, plain()), (3, plain()), (2, by_name()), (3, by_name())] {
        let place = Place::new();
        let snapshots = Retention { max_count: 20, ..Retention::default() };
        let options = Options { snapshots, ..options(version) };
        let mut writer = place.create(options.clone(), partitioning).await;
        let all: Vec<(i64, &str)> =
            (0..1000).map(|i| (i, if i % 2 == 0 { "even" } else { "odd" })).collect();
        writer.commit(&all, &[]).await;
        writer.commit(&[(3, "null"), (2000, "new")], &[4, 5]).await;
        writer.commit(&[(7, "seven")], &[2000, 3, 8]).await;
        writer.table = place.open(options).await;
        writer.commit(&[], &[10, 999]).await;
        writer.commit(&[], &[]).await;
        let wider = vec![Column::new("note", ColumnType::String, true)];
        let wider = Arc::new(writer.table.state().schema.with_added(wider));
        let plan = writer.plan_with(wider, &[(11, "eleven")], &[12]).await;
        assert!(matches!(writer.table.publish(&plan).await.unwrap(), Published::Committed { .. }));
        writer.committed(&[(11, "eleven")], &[12], &plan);
        // In one case so many that data manifests are merged.
        let many = if version == 3 && writer.table.state().partitioning.fields.is_empty() {
            110
        } else {
            7
        };
        for i in 0..many {
            writer.commit(&[(i, "many")], &[]).await;
        }
        writer.check(&place).await;

        let conditions =
            ["id < 12", "name = 'many' and id > 4", "price > 995.00", "note is not null"];
        let folder = place.folder.as_ref().unwrap().path().join("items");
        let seen = read_by_others(&python, &folder, &conditions);
        let snapshots = seen["snapshots"].as_object().unwrap();
        assert_eq!(snapshots.len(), if many > 20 { 20 } else { 13 });
        for (id, snapshot) in snapshots {
            let rows: Vec<_> = writer.history[&id.parse().unwrap()]
                .iter()
                .map(|(id, name)| serde_json::json!([id, name]))
                .collect();
            assert_eq!(snapshot["pyiceberg"].as_array().unwrap(), &rows);
            assert_eq!(snapshot["duckdb"].as_array().unwrap(), &rows);
            assert_eq!(snapshot["live"], rows.len());
        }
        let ids = |ids: &mut dyn Iterator<Item = i64>| -> Vec<i64> {
            ids.filter(|id| writer.rows.contains_key(id)).collect()
        };
        let expected = [
            ids(&mut (0..12)),
            ids(&mut (5..many)),
            ids(&mut (996..1000)),
            ids(&mut (0..many).chain([11].into_iter().filter(|id| *id >= many))),
        ];
        for (found, ids) in seen["found"].as_array().unwrap().iter().zip(expected) {
            assert_eq!(found["pyiceberg"], serde_json::json!(ids));
            assert_eq!(found["duckdb"], serde_json::json!(ids));
        }
        assert_eq!(seen["identifiers"], serde_json::json!(["id"]));
        assert!(seen["columns"].as_array().unwrap().contains(&"note".into()));
        if version == 3 {
            let ids = seen["row_ids"].as_array().unwrap().iter().map(|row| row[1].as_i64());
            let ids: std::collections::BTreeSet<_> = ids.map(Option::unwrap).collect();
            assert_eq!(ids.len(), writer.rows.len());
            // Rows of the first commit keep their ids, whatever became of their manifest.
            let kept = seen["row_ids"].as_array().unwrap().iter().filter(|row| row[0] == 500);
            assert!(
                !writer.table.state().partitioning.fields.is_empty()
                    || kept.clone().all(|row| row[1] == 500)
            );
            assert_eq!(kept.count(), 1);
        }
    }
}
