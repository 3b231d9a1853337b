//! Engines we did not write, on tables that we did, and the object store of others.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::committed;
use super::support::{self, Others, Table, options, rows, schema};
use crate::error::Kind;
use crate::schema::{Column, ColumnType};
use crate::sink::delta::DeltaTable;
use crate::sink::storage::Location;
use crate::table::partition::{PartitionField, Partitioning, Transform};
use crate::table::plan::{LiveFile, Published, Scalar};
use crate::testing::needed;

/// A table on the local disk that has what readers can get wrong: deletion vectors, partitions whose values are encoded
/// in paths, statistics to skip by, columns added later, a checkpoint. Its live ids are 0, 4 to 18 and 20 to 24.
async fn table_for_others(folder: &std::path::Path) -> (Table, Location) {
    let place = Location::warehouse(folder.to_str().unwrap()).unwrap().folder("orders");
    let field = |column: &str, transform, name: &str| PartitionField {
        column: column.into(),
        transform,
        name: name.into(),
    };
    let fields =
        vec![field("name", Transform::Identity, "name"), field("at", Transform::Month, "at_month")];
    let mut table = Table::create_at(place.clone(), schema(), Partitioning { fields }).await;
    let values =
        |name: &str, month| vec![Some(Scalar::String(name.into())), Some(Scalar::Int(month))];
    let a = table
        .write_at("data/name=a%20b/at_month=2024-12/1.parquet", 0..10, values("a b", 659))
        .await;
    let b =
        table.write_at("data/name=b/at_month=2025-01/2.parquet", 10..20, values("b", 660)).await;
    committed(
        table.delta.publish(&table.plan().add(&a).add(&b).advance(0, 0, 20).build()).await.unwrap(),
    );
    committed(
        table
            .delta
            .publish(&table.plan().delete(&a, [1, 2]).advance(0, 20, 22).build())
            .await
            .unwrap(),
    );
    table.delta.options.checkpoint_interval = 2;
    table.delta.maintain(0).await.unwrap();
    let wider = Arc::new(schema().with_added(vec![
        Column::new("note", ColumnType::String, true),
        Column::new("odd.name-Ä", ColumnType::String, true),
    ]));
    let c = table
        .write_with(&wider, "data/name=c/at_month=2025-01/3.parquet", 20..25, values("c", 660))
        .await;
    let plan =
        table.plan().schema(&wider).add(&c).delete(&a, [3]).delete(&b, [9]).advance(0, 22, 30);
    committed(table.delta.publish(&plan.build()).await.unwrap());
    (table, place)
}

/// Conditions and the ids they hold for in [`table_for_others`].
const CONDITIONS: [(&str, &[i64]); 8] = [
    ("true", &[0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24]),
    ("name = 'a b'", &[0, 4, 5, 6, 7, 8, 9]),
    ("at_month = '2025-01' AND id < 12", &[10, 11]),
    ("id BETWEEN 8 AND 10", &[8, 9, 10]),
    ("amount >= cast('2300000000000000000000000000' AS decimal(38,4))", &[23, 24]),
    ("t.at > timestamp '2025-01-01 00:00:34'", &[23, 24]),
    ("t.local <= cast('2025-01-01 00:00:00' AS NTZ)", &[0]),
    ("note IS NOT NULL", &[20, 21, 22, 23, 24]),
];

/// Runs where `CDC_SINK_TEST_PYTHON` names a Python that has deltalake and DuckDB.
#[tokio::test(flavor = "multi_thread")]
async fn deltalake_and_duckdb_read_it_and_write_to_it() {
    let Some(python) = needed("CDC_SINK_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (mut table, place) = table_for_others(folder.path()).await;
    let mut others = Others::start(&python, include_str!("rust.py"), &folder.path().join("orders"));
    for (condition, expected) in CONDITIONS {
        let answer = others.ask(&format!("ids {}", condition.replace("NTZ", "timestamp")));
        assert_eq!(answer, json!(expected), "{condition}");
    }
    assert_eq!(others.ask("operations"), json!(["MERGE", "MERGE", "MERGE", "CREATE TABLE"]));

    assert_eq!(others.ask("delete id IN (0, 10)"), 2);
    others.ask("compact");
    assert!(table.delta.refresh().await.unwrap());
    let expected: Vec<i64> = (4..10).chain(11..19).chain(20..25).collect();
    assert_eq!(rows(&table.delta, &place).await, expected);
    // And on from there, on a file that deltalake wrote.
    let file = table
        .delta
        .state()
        .files
        .values()
        .find(|live| live.file.partition[0] == Some(Scalar::String("a b".into())));
    let file = Arc::clone(&file.unwrap().file);
    committed(
        table
            .delta
            .publish(&table.plan().delete(&file, [0]).advance(0, 30, 31).build())
            .await
            .unwrap(),
    );
    let left = rows(&table.delta, &place).await;
    assert_eq!(left.len(), expected.len() - 1);
    assert_eq!(others.ask("ids true"), json!(left));
    assert_eq!(table.delta.state().position.get(0), Some(31));
}

/// An update is a delete and an insert there: nothing is written for the feed.
#[tokio::test(flavor = "multi_thread")]
async fn deltalake_reads_the_changes_of_each_version() {
    let Some(python) = needed("CDC_SINK_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = Location::warehouse(folder.path().to_str().unwrap()).unwrap().folder("orders");
    let mut table = Table::create_at(place, schema(), Partitioning::default()).await;
    let old = table.write(0..5).await;
    committed(table.delta.publish(&table.plan().add(&old).advance(0, 0, 5).build()).await.unwrap());
    let new = table.write(3..7).await;
    let plan = table.plan().add(&new).delete(&old, [3, 4]).advance(0, 5, 9).build();
    committed(table.delta.publish(&plan).await.unwrap());
    committed(
        table
            .delta
            .publish(&table.plan().delete(&old, [0]).advance(0, 9, 10).build())
            .await
            .unwrap(),
    );
    let mut others = Others::start(&python, include_str!("rust.py"), &folder.path().join("orders"));
    let changes =
        [(0, "delete", 3), (3, "delete", 2), (3, "insert", 2), (4, "delete", 2), (4, "insert", 2)];
    let changes =
        changes.into_iter().chain([(5, "insert", 2), (6, "insert", 2)]).collect::<Vec<_>>();
    assert_eq!(others.ask("changes 2"), json!(changes));
}

/// Runs where `CDC_SINK_TEST_SPARK_PYTHON` and `CDC_SINK_TEST_SPARK_JARS` name a PySpark with Delta's jars.
#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_it_and_writes_to_it() {
    let Some(python) = needed("CDC_SINK_TEST_SPARK_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (mut table, place) = table_for_others(folder.path()).await;
    let mut spark = Others::start(&python, include_str!("spark.py"), &folder.path().join("orders"));
    for (condition, expected) in CONDITIONS {
        let condition = condition.replace("NTZ", "timestamp_ntz");
        let answer = spark.ask(&format!("SELECT id FROM {{t}} t WHERE {condition} ORDER BY id"));
        assert_eq!(answer, json!(expected), "{condition}");
    }
    let condition = "`odd.name-Ä` = 'n21'";
    assert_eq!(spark.ask(&format!("SELECT id FROM {{t}} WHERE {condition}")), json!([21]));
    let history = spark.ask("DESCRIBE HISTORY {t} LIMIT 1").to_string();
    assert!(
        history.contains("cdc-sink/") && history.contains(r#""numTargetRowsUpdated":"2""#),
        "{history}"
    );

    // Vectors of Spark's own, another column, then files of Spark's own.
    for (statement, expected) in [
        (
            "DELETE FROM {t} WHERE id IN (0, 10)",
            (4..10).chain(11..19).chain(20..25).collect::<Vec<i64>>(),
        ),
        (
            "ALTER TABLE {t} ADD COLUMN theirs INT FIRST",
            (4..10).chain(11..19).chain(20..25).collect(),
        ),
        (
            "UPDATE {t} SET theirs = 1, id = id + 100 WHERE id = 18",
            (4..10).chain(11..18).chain(20..25).chain([118]).collect(),
        ),
        ("OPTIMIZE {t}", (4..10).chain(11..18).chain(20..25).chain([118]).collect()),
    ] {
        let answer = spark.ask(statement);
        assert!(answer.is_array(), "{statement}: {answer}");
        assert!(table.delta.refresh().await.unwrap(), "{statement}");
        assert_eq!(rows(&table.delta, &place).await, expected, "{statement}");
        let reopened = DeltaTable::open(place.clone(), options()).await.unwrap().unwrap();
        support::assert_same_files(table.delta.state(), reopened.state());
        assert_eq!(reopened.state().schema, table.delta.state().schema);
    }
    let theirs = table.delta.state().schema.column("theirs").unwrap().clone();
    let LiveFile { file, deleted } = table.delta.state().files.values().next().unwrap().clone();
    let position = (0..file.rows).find(|position| !deleted.contains(*position)).unwrap();
    let plan = table.plan().delete(&file, [position]).advance(0, 30, 31).build();
    committed(table.delta.publish(&plan).await.unwrap());
    table.delta.options.checkpoint_interval = 1;
    table.delta.maintain(0).await.unwrap();
    let left = rows(&table.delta, &place).await;
    assert_eq!(left.len(), 18);
    assert_eq!(spark.ask("SELECT id FROM {t} ORDER BY id"), json!(left));
    let reopened = DeltaTable::open(place.clone(), options()).await.unwrap().unwrap();
    assert_eq!(reopened.state().schema.columns().first(), Some(&theirs));
    // A constraint is more than we keep.
    spark.ask("ALTER TABLE {t} ADD CONSTRAINT positive CHECK (id > 0)");
    assert_eq!(table.delta.refresh().await.unwrap_err().kind(), Kind::Refused);
}

/// Runs where `CDC_SINK_TEST_S3` and its kin name a server that speaks S3.
#[tokio::test(flavor = "multi_thread")]
async fn writers_on_s3_meet_in_the_log() {
    let Some(endpoint) = needed("CDC_SINK_TEST_S3") else { return };
    let variable = |name: &str| needed(&format!("CDC_SINK_TEST_S3_{name}")).unwrap();
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region(variable("REGION"))
        .with_access_key_id(variable("ACCESS_KEY"))
        .with_secret_access_key(variable("SECRET_KEY"))
        .with_bucket_name(variable("BUCKET"))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()
        .unwrap();
    let name = format!("delta-{}", Uuid::new_v4());
    let url = Url::parse(&format!("s3://{}/{name}/", variable("BUCKET"))).unwrap();
    let place = Location::new(Arc::new(store), Path::from(name), url);
    place.check_conditional_put().await.unwrap();
    let a = Table::create_at(place.clone(), schema(), Partitioning::default()).await;
    let b = a.twin(DeltaTable::open(place.clone(), options()).await.unwrap().unwrap());

    // Each writer has a partition; whoever meets the other's commit refreshes and plans again.
    let write = |mut table: Table, partition: i32| async move {
        let mut conflicts = 0;
        for offset in 0..8 {
            let id = i64::from(partition) * 100 + offset;
            let file = table.write(id..id + 1).await;
            loop {
                let plan = table.plan().add(&file).advance(partition, offset, offset + 1).build();
                match table.delta.publish(&plan).await.unwrap() {
                    Published::Committed { .. } => break,
                    Published::Conflict => {
                        conflicts += 1;
                        assert!(table.delta.refresh().await.unwrap());
                    }
                    Published::Unknown(error) => panic!("{error}"),
                }
            }
        }
        conflicts
    };
    let (one, two) = tokio::join!(write(a, 0), write(b, 1));
    let mut table = DeltaTable::open(place.clone(), options()).await.unwrap().unwrap();
    assert_eq!(table.state().version, 16);
    assert!(one + two > 0, "the writers never met");
    assert_eq!(rows(&table, &place).await, (0..8).chain(100..108).collect::<Vec<_>>());
    table.options.checkpoint_interval = 1;
    table.maintain(0).await.unwrap();
    let reopened = DeltaTable::open(place, options()).await.unwrap().unwrap();
    support::assert_same_files(table.state(), reopened.state());
    assert_eq!(reopened.state().position.iter().collect::<Vec<_>>(), [(0, 8), (1, 8)]);
}
