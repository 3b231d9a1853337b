//! Lake tables with two formats: the one that is behind is brought up from the other, whatever it missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use cdc_sink::change::Batch;
use cdc_sink::clock::Clock;
use cdc_sink::key::KeyBuilder;
use cdc_sink::position::OffsetRange;
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::iceberg::{Catalog, Retention, TableName};
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, read};
use cdc_sink::sink::storage::Location;
use cdc_sink::sink::{Merged, Sink, delta, iceberg};
use cdc_sink::table::physical;
use rstest::rstest;
use uuid::Uuid;

/// What a batch does: the text of each key, none for a delete.
type Changes<'a> = &'a [(i64, Option<&'a str>)];

fn logs() -> [LogSetup; 2] {
    let topic: Arc<str> = "db.public.t".into();
    let delta = delta::Options {
        topic: Arc::clone(&topic),
        checkpoint_interval: 0,
        properties: BTreeMap::new(),
    };
    let name = TableName { namespace: vec!["db_public".into()], name: "t".into() };
    let options = iceberg::Options {
        topic,
        format_version: 3,
        snapshots: Retention::default(),
        two_formats: true,
    };
    let catalog = Arc::new(Catalog::Files);
    [LogSetup::Delta(delta), LogSetup::Iceberg { catalog, name, options }]
}

fn options(folder: &tempfile::TempDir, logs: Vec<LogSetup>) -> LakeOptions {
    let warehouse = Location::warehouse(folder.path().to_str().unwrap()).unwrap();
    LakeOptions {
        name: "db_public.t".into(),
        location: warehouse.folder("db_public").folder("t"),
        logs,
        partition_by: "truncate(10, id)".into(),
        physical: physical::Options {
            index_bytes: 1 << 20,
            open_concurrency: 2,
            packed_integers: false,
        },
        clock: Clock::from_fn(|| 1_700_000_000_000_000),
    }
}

fn schema() -> TableSchema {
    let id = Column::new("id", ColumnType::Int64, false);
    TableSchema::create(vec![id, Column::new("text", ColumnType::String, true)], vec!["id".into()])
}

fn batch(schema: &Arc<TableSchema>, from: i64, changes: Changes<'_>) -> Batch {
    let key = |id: i64| {
        let mut builder = KeyBuilder::new([&ColumnType::Int64]);
        builder.push_i64(id);
        builder.finish()
    };
    let rows: Vec<(i64, &str)> =
        changes.iter().filter_map(|(id, text)| Some((*id, (*text)?))).collect();
    let count = rows.len();
    let columns = schema.columns().iter().map(|column| -> ArrayRef {
        match column.name.as_str() {
            "id" => Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>()),
            "_cdc_ts" => {
                Arc::new(TimestampMicrosecondArray::from(vec![5; count]).with_timezone("UTC"))
            }
            "_cdc_partition" => Arc::new(Int32Array::from(vec![0; count])),
            "_cdc_offset" => Arc::new(Int64Array::from(vec![from; count])),
            _ => Arc::new(rows.iter().map(|(_, text)| Some(*text)).collect::<StringArray>()),
        }
    });
    let rows_of_batch = RecordBatch::try_new(schema.arrow(), columns.collect()).unwrap();
    let deletes = changes.iter().filter(|(_, text)| text.is_none());
    Batch {
        id: Uuid::new_v4(),
        ranges: vec![OffsetRange { partition: 0, from, to: from + 10 }],
        schema: Arc::clone(schema),
        rows: rows_of_batch,
        keys: rows.iter().map(|(id, _)| key(*id)).collect(),
        deletes: deletes.map(|(id, _)| key(*id)).collect(),
        holes: vec![],
        newest_source_micros: Some(5),
    }
}

/// What each format says the table is.
async fn tables(options: &LakeOptions) -> Vec<(&'static str, BTreeMap<i64, String>)> {
    let rows = |batch: &RecordBatch| {
        let ids = batch.column(0).as_primitive::<Int64Type>().clone();
        let texts = batch.column(1).as_string::<i32>().clone();
        (0..batch.num_rows()).map(move |at| (ids.value(at), texts.value(at).to_owned())).collect()
    };
    let formats = read(options).await.unwrap();
    let table = |(format, batches): (_, Vec<RecordBatch>)| {
        let all: Vec<Vec<(i64, String)>> = batches.iter().map(rows).collect();
        let (count, all) =
            (all.concat().len(), all.concat().into_iter().collect::<BTreeMap<_, _>>());
        assert_eq!(count, all.len(), "{format} has a key twice");
        (format, all)
    };
    formats.into_iter().map(table).collect()
}

async fn merge(sink: &mut LakeSink, schema: &Arc<TableSchema>, from: i64, changes: Changes<'_>) {
    let merged = sink.merge(&batch(schema, from, changes)).await.unwrap();
    assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
}

const HISTORY: [Changes<'_>; 4] = [
    &[(1, Some("a")), (2, Some("b")), (3, Some("c")), (11, Some("d")), (12, Some("e"))],
    &[(2, Some("B")), (11, None)],
    &[(3, Some("C")), (12, None), (13, Some("f")), (1, None)],
    &[(13, Some("F")), (4, Some("g"))],
];

fn expected(commits: usize) -> BTreeMap<i64, String> {
    let mut table = BTreeMap::new();
    for (id, text) in HISTORY.iter().take(commits).copied().flatten() {
        match text {
            Some(text) => table.insert(*id, (*text).to_owned()),
            None => table.remove(id),
        };
    }
    table
}

/// `first` alone merges up to `alone_to`, after both have merged up to `both_to`; then both go on.
#[rstest]
#[tokio::test]
async fn a_format_that_missed_commits_is_brought_up(
    #[values(false, true)] iceberg_first: bool,
    #[values(0, 1, 2)] both_to: usize,
    #[values(1, 2, 3)] alone_to: usize,
) {
    let folder = tempfile::tempdir().unwrap();
    let mut logs = logs().to_vec();
    if iceberg_first {
        logs.reverse();
    }
    let both = options(&folder, logs.clone());
    let alone = options(&folder, vec![logs[0].clone()]);
    let schema = Arc::new(schema());
    let mut done = 0;
    for (options, to) in [(&both, both_to), (&alone, alone_to), (&both, HISTORY.len())] {
        let mut sink = LakeSink::new(options.clone());
        // Opening is what brings the other one up.
        let _ = sink.position().await.unwrap();
        if options.logs.len() == 2 && done > 0 {
            let expected = expected(done);
            let tables = tables(options).await;
            assert_eq!(tables.len(), 2);
            tables.iter().for_each(|(format, table)| assert_eq!(*table, expected, "{format}"));
        }
        while done < to {
            merge(&mut sink, &schema, i64::try_from(done).unwrap() * 10, HISTORY[done]).await;
            done += 1;
        }
    }
    let expected = expected(HISTORY.len());
    for (format, table) in tables(&both).await {
        assert_eq!(table, expected, "{format}");
    }
}
