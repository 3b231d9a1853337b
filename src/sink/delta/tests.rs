//! The Delta publisher on stores in memory and on disk, with answers lost on purpose.

mod others;
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rstest::rstest;
use uuid::Uuid;

use self::support::{Fault, Table, options, plain_schema, rows, schema};
use super::*;
use crate::error::Kind;
use crate::schema::{Column, ColumnType, ListElement};
use crate::table::partition::{PartitionField, Transform};
use crate::table::plan::{Scalar, Unnamed};

fn committed(published: Published) -> i64 {
    match published {
        Published::Committed { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_comes_back_as_it_was_committed() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let first = table.write(0..10).await;
    let second = table.write(10..20).await;
    let plan = table.plan().add(&first).add(&second).advance(0, 0, 20).advance(3, 100, 104);
    assert_eq!(committed(table.delta.publish(&plan.build()).await.unwrap()), 1);
    let third = table.write(2..5).await;
    let plan =
        table.plan().add(&third).delete(&first, [2, 3, 4]).delete(&second, [0]).advance(0, 20, 31);
    assert_eq!(committed(table.delta.publish(&plan.build()).await.unwrap()), 2);
    let reopened = place.open().await;
    support::assert_same_files(table.delta.state(), &reopened.state);
    let stats = reopened.add(&first.path).unwrap().stats.clone().unwrap();
    assert!(
        stats.contains(r#""tightBounds":false"#) && stats.contains(r#""maxValues""#),
        "{stats}"
    );
    let plan = table.plan().delete(&first, [0, 9]).drop(&second).advance(0, 31, 40).build();
    assert_eq!(committed(table.delta.publish(&plan).await.unwrap()), 3);

    let reopened = place.open().await;
    let (ours, theirs) = (table.delta.state(), reopened.state());
    assert_eq!(theirs.version, 3);
    assert_eq!(theirs.schema, ours.schema);
    assert_eq!(theirs.partitioning, ours.partitioning);
    assert_eq!(theirs.position, ours.position);
    assert_eq!(theirs.position.iter().collect::<Vec<_>>(), [(0, 40), (3, 104)]);
    assert_eq!(theirs.last_batch, Some(plan.batch_id));
    support::assert_same_files(ours, theirs);
    assert_eq!(rows(&reopened, &place.location).await, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_type_keeps_its_ids() {
    let list = |ty| ColumnType::List(Box::new(ListElement { id: 0, ty }));
    let types = [
        ColumnType::Boolean,
        ColumnType::Int32,
        ColumnType::Float32,
        ColumnType::Float64,
        ColumnType::Decimal { precision: 38, scale: 10 },
        ColumnType::String,
        ColumnType::Binary,
        ColumnType::Date,
        ColumnType::Timestamp,
        list(ColumnType::TimestampTz),
        list(list(ColumnType::Int64)),
    ];
    let mut columns = vec![Column::new("k", ColumnType::Int64, false)];
    columns.extend(
        types.into_iter().enumerate().map(|(i, ty)| Column::new(format!("c{i}"), ty, true)),
    );
    let schema = Arc::new(TableSchema::create(columns, vec!["k".into()]));
    let (table, place) = Table::create(Arc::clone(&schema), Partitioning::default()).await;
    assert_eq!(table.delta.state().schema, schema);
    assert_eq!(place.open().await.state().schema, schema);
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_values_and_odd_paths_come_back() {
    let field = |column: &str, transform, name: &str| PartitionField {
        column: column.into(),
        transform,
        name: name.into(),
    };
    let partitioning = Partitioning {
        fields: vec![
            field("name", Transform::Identity, "name"),
            field("at", Transform::Day, "at_day"),
            field("at", Transform::Hour, "at_hour"),
            field("id", Transform::Bucket(4), "id_bucket"),
        ],
    };
    let (mut table, place) = Table::create(schema(), partitioning.clone()).await;
    let values = vec![
        Some(Scalar::String("a b%2Fc".into())),
        Some(Scalar::Int(20_000)),
        Some(Scalar::Int(480_001)),
        None,
    ];
    let file =
        table.write_at("data/name=a%20b%252Fc/at_day=2024-10-04/x#1 y.parquet", 0..5, values).await;
    let plan = table.plan().add(&file).advance(0, 0, 5).build();
    committed(table.delta.publish(&plan).await.unwrap());
    let plan = table.plan().delete(&file, [1]).advance(0, 5, 6).build();
    committed(table.delta.publish(&plan).await.unwrap());
    for checkpoint in [false, true] {
        if checkpoint {
            table.delta.options.checkpoint_interval = 1;
            table.delta.maintain(0).await.unwrap();
        }
        let reopened = place.open().await;
        assert_eq!(*reopened.state().partitioning, partitioning);
        assert_eq!(reopened.state().schema, table.delta.state().schema);
        support::assert_same_files(table.delta.state(), reopened.state());
        assert_eq!(rows(&reopened, &place.location).await, [0, 2, 3, 4]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_wins_and_the_other_goes_on_from_there() {
    let (mut a, place) = Table::create(schema(), Partitioning::default()).await;
    let file = a.write(0..10).await;
    committed(a.delta.publish(&a.plan().add(&file).advance(0, 0, 10).build()).await.unwrap());
    let mut b = a.twin(place.open().await);

    committed(
        a.delta.publish(&a.plan().delete(&file, [1]).advance(0, 10, 11).build()).await.unwrap(),
    );
    let plan = b.plan().delete(&file, [2]).advance(1, 0, 1).build();
    assert!(matches!(b.delta.publish(&plan).await.unwrap(), Published::Conflict));
    assert!(matches!(b.delta.publish(&plan).await.unwrap(), Published::Conflict));
    assert!(b.delta.refresh().await.unwrap());
    assert!(!b.delta.refresh().await.unwrap());
    // The old plan does not know that row 1 is deleted: publishing it would bring the row back.
    let mut plan = plan;
    plan.position.set(0, 11);
    assert!(matches!(b.delta.publish(&plan).await.unwrap(), Published::Conflict));
    let plan = b.plan().delete(&file, [2]).advance(1, 0, 1).build();
    assert_eq!(committed(b.delta.publish(&plan).await.unwrap()), 3);

    let fenced = a.plan().advance(0, 10, 12);
    assert_eq!(a.delta.publish(&fenced.build()).await.unwrap_err().kind(), Kind::Internal);
    assert!(a.delta.refresh().await.unwrap());
    support::assert_same_files(a.delta.state(), b.delta.state());
    assert_eq!(a.delta.state().position, b.delta.state().position);
    assert_eq!(rows(&place.open().await, &place.location).await, [0, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_cleared_up() {
    for fault in
        [Fault::AnswerLost, Fault::AnswerLostThenExists, Fault::NotApplied, Fault::ExistsButIsNot]
    {
        let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
        let file = table.write(0..10).await;
        committed(
            table.delta.publish(&table.plan().add(&file).advance(0, 0, 10).build()).await.unwrap(),
        );
        let plan = table.plan().delete(&file, [4]).advance(0, 10, 11).build();
        place.faults.arm(fault);
        let applied = matches!(fault, Fault::AnswerLost | Fault::AnswerLostThenExists);
        let version = match table.delta.publish(&plan).await.unwrap() {
            Published::Committed { version, found: true } if applied => version,
            Published::Unknown(error) if !applied => {
                assert_eq!(error.kind(), Kind::Unavailable);
                committed(table.delta.publish(&plan).await.unwrap())
            }
            other => panic!("{fault:?}: {other:?}"),
        };
        assert_eq!(version, 2);
        assert_eq!(committed(table.delta.publish(&plan).await.unwrap()), 2, "published twice");
        // Another delete builds on what the log says of the vector, not on what was written last.
        committed(
            table
                .delta
                .publish(&table.plan().delete(&file, [5]).advance(0, 11, 12).build())
                .await
                .unwrap(),
        );
        let reopened = place.open().await;
        support::assert_same_files(table.delta.state(), reopened.state());
        assert_eq!(rows(&reopened, &place.location).await, [0, 1, 2, 3, 6, 7, 8, 9]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_and_log_are_lost_is_recognised_later() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let file = table.write(0..10).await;
    committed(
        table.delta.publish(&table.plan().add(&file).advance(0, 0, 10).build()).await.unwrap(),
    );
    let plan = table.plan().delete(&file, [4]).advance(0, 10, 11).build();
    place.faults.arm(Fault::AnswerLost);
    place.faults.reads_fail.store(true, Ordering::SeqCst);
    let published = table.delta.publish(&plan).await.unwrap();
    assert_eq!(published.unknown().kind(), Kind::Unavailable);
    place.faults.reads_fail.store(false, Ordering::SeqCst);
    // Another writer goes on before we ask again.
    let mut other = table.twin(place.open().await);
    let foreign = other.plan().delete(&file, [5]).advance(7, 0, 1).build();
    committed(other.delta.publish(&foreign).await.unwrap());
    let mut refreshed = table.twin(place.open_at(&table.delta).await);
    refreshed.delta.refresh().await.unwrap();
    assert_eq!(committed(refreshed.delta.publish(&plan).await.unwrap()), 2);
    assert_eq!(committed(table.delta.publish(&plan).await.unwrap()), 2);
    table.delta.refresh().await.unwrap();
    support::assert_same_files(table.delta.state(), other.delta.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_planned_anew_meets_its_first_plan_in_the_table() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let (one, two) = (table.write(0..3).await, table.write(0..3).await);
    let first = table.plan().add(&one).advance(0, 0, 3).build();
    let mut second = table.plan().add(&two).advance(0, 0, 3).build();
    second.batch_id = first.batch_id;
    place.faults.arm(Fault::AnswerLost);
    place.faults.reads_fail.store(true, Ordering::SeqCst);
    let published = table.delta.publish(&first).await.unwrap();
    assert_eq!(published.unknown().kind(), Kind::Unavailable);
    place.faults.reads_fail.store(false, Ordering::SeqCst);
    assert!(matches!(table.delta.publish(&second).await.unwrap(), Published::Conflict));
    assert!(table.delta.refresh().await.unwrap());
    assert!(matches!(table.delta.publish(&second).await.unwrap(), Published::Conflict));
    assert_eq!(committed(table.delta.publish(&first).await.unwrap()), 1);
    assert_eq!(table.delta.state().files.keys().collect::<Vec<_>>(), [&one.path]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_and_a_cleaned_log_tell_the_same() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    table.delta.options.checkpoint_interval = 5;
    let behind = place.open().await;
    let file = table.write(0..20).await;
    committed(
        table.delta.publish(&table.plan().add(&file).advance(2, 0, 10).build()).await.unwrap(),
    );
    for row in 0..9 {
        let offset = 10 + i64::try_from(row).unwrap();
        let plan = table.plan().delete(&file, [row]).advance(2, offset, offset + 1).build();
        committed(table.delta.publish(&plan).await.unwrap());
        // A clock far in the future: everything a checkpoint covers has expired.
        table.delta.maintain(i64::MAX / 4).await.unwrap();
    }
    let names = place.names("_delta_log").await;
    assert!(names.iter().any(|name| name.contains("checkpoint")), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("00000000.json")), "{names:?}");
    let reopened = place.open().await;
    support::assert_same_files(table.delta.state(), reopened.state());
    assert_eq!(reopened.state().position, table.delta.state().position);
    assert_eq!(reopened.state().last_batch, table.delta.state().last_batch);
    assert_eq!(reopened.state().schema, table.delta.state().schema);

    // A table that was deleted and made anew is another table, whatever its version.
    let mut anew = table.twin(place.open().await);
    anew.delta.state.version = 40;
    assert!(anew.delta.refresh().await.unwrap());
    assert_eq!(anew.delta.state().version, table.delta.state().version);

    // A writer whose next version is gone must not write it again.
    let mut behind = table.twin(behind);
    assert!(behind.delta.refresh().await.unwrap());
    support::assert_same_files(table.delta.state(), behind.delta.state());
}

#[tokio::test]
async fn one_thread_is_enough() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let file = table.write(0..5).await;
    committed(
        table.delta.publish(&table.plan().add(&file).advance(0, 0, 5).build()).await.unwrap(),
    );
    table.delta.options.checkpoint_interval = 1;
    table.delta.maintain(0).await.unwrap();
    support::assert_same_files(table.delta.state(), place.open().await.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_in_the_commit_that_needs_them() {
    let (mut table, place) = Table::create(plain_schema(), Partitioning::default()).await;
    let old = table.write(0..5).await;
    committed(table.delta.publish(&table.plan().add(&old).advance(0, 0, 5).build()).await.unwrap());
    assert!(!table.delta.protocol.reader_features.as_ref().unwrap().contains("timestampNtz"));
    let mut behind = place.open().await;

    let wider = Arc::new(plain_schema().with_added(vec![
        Column::new("local", ColumnType::Timestamp, true),
        Column::new(
            "tags",
            ColumnType::List(Box::new(ListElement { id: 0, ty: ColumnType::String })),
            true,
        ),
    ]));
    let new = table.write_with(&wider, "data/wide.parquet", 5..9, vec![]).await;
    let plan = table.plan().schema(&wider).add(&new).delete(&old, [0]).advance(0, 5, 9).build();
    committed(table.delta.publish(&plan).await.unwrap());
    assert_eq!(table.delta.state().schema, wider);
    behind.refresh().await.unwrap();
    for seen in [&behind, &place.open().await] {
        assert_eq!(seen.state().schema, wider);
        assert!(seen.protocol.reader_features.as_ref().unwrap().contains("timestampNtz"));
        assert!(seen.protocol.writer_features.as_ref().unwrap().contains("timestampNtz"));
        assert_eq!(rows(seen, &place.location).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_someone_else_gets_an_id_that_stays() {
    let (mut table, place) = Table::create(plain_schema(), Partitioning::default()).await;
    let mut metadata = table.delta.metadata.clone();
    let schema_string = metadata.schema_string.replacen(
        r#""fields":["#,
        r#""fields":[{"name":"theirs","type":"string","nullable":true,"metadata":{"comment":"x"}},"#,
        1,
    );
    metadata.schema_string = schema_string;
    place.put_commit(1, &Commit { metadata: Some(metadata), ..Commit::default() }).await;
    assert!(table.delta.refresh().await.unwrap());
    let id = plain_schema().last_id() + 1;
    assert_eq!(table.delta.state().schema.column("theirs").unwrap().id, id);
    assert!(!table.delta.ids_stored);
    committed(table.delta.publish(&table.plan().advance(0, 0, 1).build()).await.unwrap());
    assert!(table.delta.ids_stored);
    let reopened = place.open().await;
    assert!(reopened.ids_stored);
    assert_eq!(reopened.state().schema, table.delta.state().schema);
    assert_eq!(reopened.state().schema.last_id(), id);
    assert!(reopened.metadata.schema_string.contains("comment"));
}

/// Rows of versions after it are gone for good, as the position stays: nothing is written on top of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_takes_batches_back_is_refused_until_it_is_undone() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let (one, two) = (table.write(0..3).await, table.write(3..5).await);
    for (file, from, to) in [(&one, 0, 3), (&two, 3, 5)] {
        let plan = table.plan().add(file).advance(0, from, to).build();
        committed(table.delta.publish(&plan).await.unwrap());
    }
    let restore = |version: serde_json::Value| {
        let info = json!({ "operation": "RESTORE", "operationParameters": { "version": version } });
        Commit { info: Some(info), ..Commit::default() }
    };
    let add = table.delta.add(&two.path).unwrap().clone();
    let mut back = restore(json!("1"));
    back.removes.push(commit::remove(&add, 0));
    place.put_commit(3, &back).await;
    let error = table.delta.refresh().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.report().contains("restore version 2"), "{}", error.report());
    let opened = DeltaTable::open(place.location.clone(), options()).await;
    assert_eq!(opened.unwrap_err().kind(), Kind::Refused);
    let mut forth = restore(json!(2));
    forth.adds.push(add.clone());
    place.put_commit(4, &forth).await;
    assert!(table.delta.refresh().await.unwrap());
    for seen in [&table.delta, &place.open().await] {
        assert_eq!(rows(seen, &place.location).await, [0, 1, 2, 3, 4]);
    }
    // Version 3 came after the batches, and lacks them all the same.
    let mut back = restore(json!(3));
    back.removes.push(commit::remove(&add, 0));
    place.put_commit(5, &back).await;
    let error = table.delta.refresh().await.unwrap_err();
    assert!(error.report().contains("restored its version 3"), "{}", error.report());
    let opened = DeltaTable::open(place.location.clone(), options()).await;
    assert_eq!(opened.unwrap_err().kind(), Kind::Refused);
    let mut forth = restore(json!(4));
    forth.adds.push(add);
    place.put_commit(6, &forth).await;
    assert!(table.delta.refresh().await.unwrap());
    assert_eq!(rows(&place.open().await, &place.location).await, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_others_are_followed() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let file = table.write(0..10).await;
    committed(
        table.delta.publish(&table.plan().add(&file).advance(0, 0, 10).build()).await.unwrap(),
    );
    committed(
        table
            .delta
            .publish(&table.plan().delete(&file, [3]).advance(0, 10, 11).build())
            .await
            .unwrap(),
    );
    // What OPTIMIZE does: live rows into another file, no statistics, and a column mapping of the name into the path.
    let compacted = table.write_at("odd name%.parquet", 4..8, vec![]).await;
    let mut add =
        commit::add(&compacted, &table.delta.state.schema, &Partitioning::default(), 0).unwrap();
    add.stats = None;
    add.data_change = false;
    let old = table.delta.add(&file.path).unwrap();
    let optimize =
        Commit { removes: vec![commit::remove(old, 0)], adds: vec![add], ..Commit::default() };
    place.put_commit(3, &optimize).await;
    assert!(table.delta.refresh().await.unwrap());
    let live: Vec<_> = table.delta.state().files.values().collect();
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].file.rows, live[0].file.path.as_str()), (4, "odd name%.parquet"));
    committed(
        table
            .delta
            .publish(&table.plan().delete(&compacted, [0]).advance(0, 11, 12).build())
            .await
            .unwrap(),
    );
    let reopened = place.open().await;
    support::assert_same_files(table.delta.state(), reopened.state());
    assert_eq!(rows(&reopened, &place.location).await, [5, 6, 7]);
}

/// What someone else does to a table's protocol and metadata.
type Change = &'static dyn Fn(&mut Protocol, &mut Metadata);

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_written_right_are_refused() {
    let refusals: [(&str, Change); 10] = [
        ("rowTracking", &|protocol, _| {
            protocol.writer_features.get_or_insert_default().insert("rowTracking".into());
        }),
        ("deletion vectors", &|_, metadata| {
            metadata.configuration.insert("delta.enableDeletionVectors".into(), "false".into());
        }),
        ("delta.appendOnly", &|_, metadata| {
            metadata.configuration.insert("delta.appendOnly".into(), "true".into());
        }),
        ("delta.constraints.positive", &|_, metadata| {
            metadata.configuration.insert("delta.constraints.positive".into(), "id > 0".into());
        }),
        ("maps its columns by id", &|_, metadata| {
            metadata.configuration.insert("delta.columnMapping.mode".into(), "id".into());
        }),
        ("another id in its column mapping", &|protocol, metadata| {
            for features in [&mut protocol.reader_features, &mut protocol.writer_features] {
                features.get_or_insert_default().insert("columnMapping".into());
            }
            metadata.configuration.insert("delta.columnMapping.mode".into(), "name".into());
            let mut schema: serde_json::Value =
                serde_json::from_str(&metadata.schema_string).unwrap();
            for (id, field) in (90..).zip(schema["fields"].as_array_mut().unwrap()) {
                field["metadata"]["delta.columnMapping.id"] = json!(id);
                field["metadata"]["delta.columnMapping.physicalName"] = field["name"].clone();
            }
            metadata.schema_string = schema.to_string();
        }),
        ("delta.generationExpression", &|_, metadata| {
            let generated = r#""metadata":{"delta.generationExpression":"id * 2","#;
            metadata.schema_string =
                metadata.schema_string.replacen(r#""metadata":{"#, generated, 1);
        }),
        ("topic other", &|_, metadata| {
            metadata.configuration.insert("cdc-sink.topic".into(), "other".into());
        }),
        ("did not make it", &|_, metadata| {
            metadata.configuration.retain(|key, _| !key.starts_with("cdc-sink."));
        }),
        ("type cdc-sink does not know", &|_, metadata| {
            metadata.schema_string =
                metadata.schema_string.replacen(r#""type":"long""#, r#""type":"short""#, 1);
        }),
    ];
    for (expected, change) in refusals {
        let (mut table, place) = Table::create(plain_schema(), Partitioning::default()).await;
        let (mut protocol, mut metadata) =
            (table.delta.protocol.clone(), table.delta.metadata.clone());
        change(&mut protocol, &mut metadata);
        let commit =
            Commit { protocol: Some(protocol), metadata: Some(metadata), ..Commit::default() };
        place.put_commit(1, &commit).await;
        let opened = DeltaTable::open(place.location.clone(), options()).await;
        for error in [opened.unwrap_err(), table.delta.refresh().await.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Refused, "{}", error.report());
            assert!(error.report().contains(expected), "{}", error.report());
        }
        assert_eq!(table.delta.state().version, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_later_to_create_opens_the_table() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let file = table.write(0..3).await;
    committed(
        table.delta.publish(&table.plan().add(&file).advance(0, 0, 3).build()).await.unwrap(),
    );
    let none = Arc::new(Partitioning::default());
    let late = DeltaTable::create(place.location.clone(), plain_schema(), none, options(), 0)
        .await
        .unwrap();
    support::assert_same_files(late.state(), table.delta.state());
    assert_eq!(late.state().schema, schema());
    let elsewhere = place.location.folder("elsewhere");
    assert!(DeltaTable::open(elsewhere, options()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_does_not_fit_is_not_committed() {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let file = table.write(0..10).await;
    committed(
        table.delta.publish(&table.plan().add(&file).advance(0, 0, 10).build()).await.unwrap(),
    );
    let mut gap = table.plan().advance(0, 10, 12).build();
    gap.ranges[0].from = 11;
    assert_eq!(table.delta.publish(&gap).await.unwrap_err().kind(), Kind::Internal);
    let twice = table.plan().add(&file).advance(0, 10, 12).build();
    assert!(matches!(table.delta.publish(&twice).await.unwrap(), Published::Conflict));
    let mut again = table.plan().advance(0, 10, 12).build();
    again.batch_id = Uuid::new_v4();
    committed(table.delta.publish(&again).await.unwrap());
    assert_eq!(place.open().await.state().version, 2);
}

#[test]
fn log_retention_is_read_as_delta_writes_it() {
    let retention = |text: &str| {
        log_retention(&[("delta.logRetentionDuration".to_owned(), text.to_owned())].into())
    };
    assert_eq!(log_retention(&BTreeMap::new()), Some(LOG_RETENTION));
    assert_eq!(retention("interval 2 days"), Some(Duration::from_secs(2 * 24 * 3600)));
    assert_eq!(retention("INTERVAL 1 week"), Some(Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(retention("interval 1 day 3 hours"), None);
    assert_eq!(retention("soon"), None);
}

#[rstest]
#[case::the_clock_tells(Duration::ZERO, 16)]
#[case::the_clock_was_set_back(Duration::ZERO, -16)]
#[case::time_passed_on_a_clock_that_stands(Duration::from_secs(16 * 60), 0)]
#[tokio::test(start_paused = true)]
async fn files_that_have_waited_long_are_not_committed(
    #[case] passed: Duration,
    #[case] minutes: i64,
) {
    let (mut table, place) = Table::create(schema(), Partitioning::default()).await;
    let file = table.write(0..3).await;
    let mut plan = table.plan().add(&file).advance(0, 0, 3).build();
    plan.now_millis += minutes * 60 * 1000;
    tokio::time::advance(passed).await;
    let error = table.delta.publish(&plan).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(place.open().await.state().version, 0);
    plan.unnamed = Unnamed::since(plan.now_millis);
    committed(table.delta.publish(&plan).await.unwrap());
}
