//! A small table, batches for it, and what its formats say it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use cdc_sink::change::Batch;
use cdc_sink::clock::Clock;
use cdc_sink::key::{Key, KeyBuilder};
use cdc_sink::position::OffsetRange;
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::delta;
use cdc_sink::sink::iceberg::{self, Catalog, Retention, TableName};
use cdc_sink::sink::lake::{LakeOptions, LogSetup, Turns, read};
use cdc_sink::sink::storage::Location;
use cdc_sink::table::index::Budget;
use cdc_sink::table::physical;
use uuid::Uuid;

/// What a batch does: the text of each key, none for a delete.
pub(crate) type Changes<'a> = &'a [(i64, Option<&'a str>)];

/// Delta and Iceberg of `format_version`, for one table.
pub(crate) fn logs(format_version: u8) -> [LogSetup; 2] {
    let topic: Arc<str> = "db.public.t".into();
    let delta = delta::Options {
        topic: Arc::clone(&topic),
        checkpoint_interval: 0,
        properties: BTreeMap::new(),
        type_widening: true,
    };
    let name = TableName { namespace: vec!["db_public".into()], name: "t".into() };
    let options = iceberg::Options {
        topic,
        format_version,
        snapshots: Retention::default(),
        two_formats: true,
    };
    let catalog = Arc::new(Catalog::Files);
    [LogSetup::Delta(delta), LogSetup::Iceberg { catalog, name, options }]
}

pub(crate) fn options(folder: &tempfile::TempDir, logs: Vec<LogSetup>) -> LakeOptions {
    let warehouse = Location::warehouse(folder.path().to_str().unwrap()).unwrap();
    LakeOptions {
        name: "db_public.t".into(),
        location: warehouse.folder("db_public").folder("t"),
        logs,
        partition_by: "truncate(10, id)".into(),
        physical: physical::Options {
            index: Budget::new(1 << 20),
            open_concurrency: 2,
            packed_integers: false,
            match_rows: false,
        },
        owner: None,
        turns: Turns::default(),
        clock: Clock::from_fn(|| 1_700_000_000_000_000),
    }
}

pub(crate) fn schema() -> TableSchema {
    let id = Column::new("id", ColumnType::Int64, false);
    TableSchema::create(vec![id, Column::new("text", ColumnType::String, true)], vec!["id".into()])
}

/// Ten offsets of partition 0.
fn range(from: i64) -> OffsetRange {
    OffsetRange { partition: 0, from, to: from + 10 }
}

/// The key of the row `id`.
pub(crate) fn key(id: i64) -> Key {
    let mut builder = KeyBuilder::new([&ColumnType::Int64]);
    builder.push_i64(id);
    builder.finish()
}

/// A batch of [`range`]; columns beside the key and `_cdc_` ones hold the text.
pub(crate) fn batch(schema: &Arc<TableSchema>, from: i64, changes: Changes<'_>) -> Batch {
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
    let keys = rows.iter().map(|(id, _)| key(*id)).collect();
    Batch {
        deletes: deletes.map(|(id, _)| key(*id)).collect(),
        newest_source_micros: Some(5),
        ..Batch::of_rows(Uuid::new_v4(), vec![range(from)], Arc::clone(schema), rows_of_batch, keys)
    }
}

/// What each format says the table is.
pub(crate) async fn tables(options: &LakeOptions) -> Vec<(&'static str, BTreeMap<i64, String>)> {
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
