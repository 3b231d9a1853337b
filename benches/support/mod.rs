//! What benchmarks of whole commits share: tables on the local disk, and batches made of plain columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use cdc_sink::change::{Batch, Hole};
use cdc_sink::clock::Clock;
use cdc_sink::key::Key;
use cdc_sink::position::OffsetRange;
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::iceberg::{Catalog, TableName};
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, Turns};
use cdc_sink::sink::storage::Location;
use cdc_sink::sink::{Merged, Sink as _, delta, iceberg};
use cdc_sink::table::index::Budget;
use cdc_sink::table::physical;
use uuid::Uuid;

/// The formats of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Formats {
    Delta,
    Iceberg,
    Both,
}

/// A table and where its next batch starts.
pub(crate) struct Table {
    sink: LakeSink,
    schema: Arc<TableSchema>,
    offset: i64,
}

/// The columns of the table, without metadata columns.
pub(crate) fn schema() -> Arc<TableSchema> {
    let text = |name: &str| Column::new(name, ColumnType::String, true);
    let columns = vec![
        Column::new("id", ColumnType::Int64, false),
        text("name"),
        text("email"),
        text("phone"),
        text("city"),
        text("status"),
        Column::new("balance", ColumnType::Decimal { precision: 18, scale: 2 }, true),
        Column::new("updated_at", ColumnType::TimestampTz, true),
    ];
    Arc::new(TableSchema::create(columns, vec!["id".to_owned()]))
}

impl Table {
    /// A new table of `schema` at `location`.
    pub(crate) fn new(location: Location, formats: Formats, schema: Arc<TableSchema>) -> Self {
        let topic: Arc<str> = "bench.public.accounts".into();
        let delta = || {
            LogSetup::Delta(delta::Options {
                topic: Arc::clone(&topic),
                checkpoint_interval: 50,
                properties: BTreeMap::new(),
                type_widening: false,
            })
        };
        let iceberg = |two_formats| LogSetup::Iceberg {
            catalog: Arc::new(Catalog::Files),
            name: TableName { namespace: vec!["bench".into()], name: "accounts".into() },
            options: iceberg::Options {
                topic: Arc::clone(&topic),
                format_version: 3,
                snapshots: iceberg::Retention::default(),
                two_formats,
            },
        };
        let logs = match formats {
            Formats::Delta => vec![delta()],
            Formats::Iceberg => vec![iceberg(false)],
            Formats::Both => vec![delta(), iceberg(true)],
        };
        let sink = LakeSink::new(LakeOptions {
            name: Arc::clone(&topic),
            location,
            logs,
            partition_by: String::new(),
            physical: physical::Options {
                index: Budget::new(2 << 30),
                open_concurrency: 4,
                packed_integers: formats == Formats::Delta,
                match_rows: false,
            },
            owner: None,
            turns: Turns::default(),
            clock: Clock::system(),
        });
        Self { sink, schema, offset: 0 }
    }

    /// Merges `columns` (those of the schema, in its order) and `deletes` as one batch; `holes` are filled from the
    /// table.
    pub(crate) async fn merge(
        &mut self,
        mut columns: Vec<ArrayRef>,
        keys: Vec<Key>,
        deletes: Vec<Key>,
        holes: Vec<Hole>,
    ) {
        let rows = keys.len();
        let count = i64::try_from(rows).unwrap();
        let to = self.offset + count + i64::try_from(deletes.len()).unwrap();
        let times = TimestampMicrosecondArray::from(vec![1_767_225_600_000_000; rows]);
        columns.push(Arc::new(StringArray::from(vec!["c"; rows])));
        columns.push(Arc::new(times.with_timezone("UTC")));
        columns.push(Arc::new(Int32Array::from(vec![0; rows])));
        columns.push(Arc::new(Int64Array::from_iter_values(self.offset..self.offset + count)));
        let ranges = vec![OffsetRange { partition: 0, from: self.offset, to }];
        let rows = RecordBatch::try_new(self.schema.arrow(), columns).unwrap();
        let batch = Batch {
            deletes,
            holes,
            newest_source_micros: Some(1_767_225_600_000_000),
            ..Batch::of_rows(Uuid::now_v7(), ranges, Arc::clone(&self.schema), rows, keys)
        };
        let merged = self.sink.merge(&batch).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
        self.offset = to;
    }
}

/// The keys of rows with these ids.
pub(crate) fn keys(ids: &ArrayRef) -> Vec<Key> {
    cdc_sink::table::keys::keys_from_arrow([&ColumnType::Int64], std::slice::from_ref(ids)).unwrap()
}
