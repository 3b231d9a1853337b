//! What a table refuses, and the cases that random histories do not reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    StringArray, TimestampMicrosecondArray,
};
use roaring::RoaringTreemap;

use super::model::{
    Do, Log, Row, Rows2, apply, batch, content, key, memory, options, rows, schema,
};
use crate::change::{Batch, Origin, Own};
use crate::error::Kind;
use crate::key::KeyBuilder;
use crate::position::{OffsetRange, Position};
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::storage::Location;
use crate::table::index::Budget;
use crate::table::keys::keys_from_arrow;
use crate::table::partition::Partitioning;
use crate::table::physical::{Options, Planned, Table};
use crate::table::plan::{CommitPlan, Scalar};

struct Place {
    location: Location,
    schema: Arc<TableSchema>,
    table: Table,
    log: Log,
    model: Rows2,
    next: i64,
}

impl Place {
    fn new() -> Self {
        Self::with(schema(), options())
    }

    fn with(schema: TableSchema, options: Options) -> Self {
        let (location, schema) = (memory(), Arc::new(schema));
        let log = Log::new(Arc::clone(&schema), Arc::default());
        let table = Table::create(location.clone(), Arc::clone(&schema), Arc::default(), options);
        Self { location, schema, table, log, model: Rows2::new(), next: 0 }
    }

    fn batch(&self, changes: &BTreeMap<i64, Do>) -> Batch {
        let range = OffsetRange { partition: 0, from: self.next, to: self.next + 10 };
        batch(&self.schema, changes, range)
    }

    async fn merge(&mut self, changes: BTreeMap<i64, Do>) -> Planned {
        let planned = self.table.plan(&self.batch(&changes), 5).await.unwrap();
        self.log.commit(&planned.commit);
        self.table.applied(&planned).unwrap();
        apply(&mut self.model, &changes);
        self.next += 10;
        planned
    }

    async fn refused(&self, batch: &Batch) -> Kind {
        self.table.plan(batch, 5).await.unwrap_err().kind()
    }
}

fn upsert(id: i64) -> (i64, Do) {
    let row = Row { name: Some(format!("row {id}")), ..Row::default() };
    (id, Do::Upsert(row, vec![], id))
}

#[tokio::test]
async fn a_batch_that_does_not_follow_is_an_internal_error() {
    let mut place = Place::new();
    let first = place.batch(&BTreeMap::from([upsert(1)]));
    let planned = place.table.plan(&first, 5).await.unwrap();
    place.table.applied(&planned).unwrap();
    assert_eq!(place.refused(&first).await, Kind::Internal, "the same range again");
    assert_eq!(place.table.applied(&planned).unwrap_err().kind(), Kind::Internal);
    let mut place = Place::new();
    place.merge(BTreeMap::from([upsert(1)])).await;
    place.next += 1;
    assert_eq!(place.refused(&place.batch(&BTreeMap::new())).await, Kind::Internal, "a gap");
    place.next -= 1;
    let mut again = place.batch(&BTreeMap::new());
    again.id = place.table.last_batch().unwrap();
    assert_eq!(place.refused(&again).await, Kind::Internal, "a batch id twice");
    let mut twice = place.batch(&BTreeMap::from([upsert(1)]));
    twice.deletes = vec![key(1)];
    assert_eq!(place.refused(&twice).await, Kind::Internal, "a key twice");
    let mut narrow = place.batch(&BTreeMap::new());
    let columns = place.schema.columns()[1..].to_vec();
    narrow.schema = Arc::new(TableSchema::from_parts(columns, vec!["id".into()], 99));
    assert_eq!(place.refused(&narrow).await, Kind::Internal, "a schema without a column");
}

#[tokio::test]
async fn a_plan_is_of_no_effect_until_it_is_applied() {
    let mut place = Place::new();
    place.merge((0..5).map(upsert).collect()).await;
    let files = place.table.files().cloned().collect::<Vec<_>>();
    let changes = BTreeMap::from([upsert(1), upsert(9), (2, Do::Delete)]);
    place.table.plan(&place.batch(&changes), 5).await.unwrap();
    assert_eq!(place.table.files().cloned().collect::<Vec<_>>(), files);
    assert_eq!((rows(&place.table), place.table.position().get(0)), (5, Some(10)));
    place.merge(changes).await;
    assert_eq!(content(&place.location, &place.schema, &place.log.state).await, place.model);
}

#[tokio::test]
async fn deletes_of_unknown_keys_move_the_position_only() {
    let mut place = Place::new();
    let planned = place.merge(BTreeMap::from([(1, Do::Delete), (2, Do::Delete)])).await;
    assert!(planned.commit.added.is_empty() && planned.commit.deletions.is_empty());
    assert_eq!(place.table.position().get(0), Some(10));
}

#[tokio::test]
async fn a_file_that_loses_its_last_row_is_removed() {
    let mut place = Place::new();
    place.merge((0..3).map(upsert).collect()).await;
    let planned = place.merge(BTreeMap::from([(0, Do::Delete)])).await;
    assert_eq!((planned.commit.deletions.len(), planned.commit.removed.len()), (1, 0));
    let planned = place.merge(BTreeMap::from([upsert(1), (2, Do::Delete)])).await;
    assert_eq!((planned.commit.deletions.len(), planned.commit.removed.len()), (0, 1));
    assert_eq!(planned.commit.removed[0].deleted.len(), 1);
    assert_eq!(place.table.files().len(), 1);
}

#[tokio::test]
async fn values_that_nobody_has_are_null_and_counted() {
    let mut place = Place::new();
    let row = Row { name: Some("x".into()), ..Row::default() };
    let planned = place.merge(BTreeMap::from([(1, Do::Upsert(row, vec![1, 3], 1))])).await;
    assert_eq!(planned.unfilled, 2);
    assert_eq!(place.model[&1], Row::default());
    let mut batch = place.batch(&BTreeMap::from([upsert(7)]));
    batch.holes =
        vec![crate::change::Hole { row: 0, column: 8, from: Origin::Row(key(7)), own: Own::Null }];
    assert_eq!(place.refused(&batch).await, Kind::Data, "the operation cannot be null");
}

#[tokio::test]
async fn the_same_data_files_serve_a_plan_that_is_made_again() {
    let mut place = Place::new();
    place.merge((0..3).map(upsert).collect()).await;
    let plain = place.batch(&BTreeMap::from([upsert(1)]));
    let with_hole = place.batch(&BTreeMap::from([(2, Do::Upsert(Row::default(), vec![1], 2))]));
    let first = place.table.plan(&plain, 5).await.unwrap();
    let first_with_hole = place.table.plan(&with_hole, 5).await.unwrap();
    let mut state = place.log.state.clone();
    let live = state.files.values_mut().next().unwrap();
    live.deleted = Arc::new([2].into_iter().collect());
    place.table.refresh(state).await.unwrap();
    let again = place.table.replan(&plain, &first, 6).await.unwrap();
    assert_eq!(again.commit.added, first.commit.added);
    // Whoever collects orphans may have found those that waited long.
    let late = place.table.replan(&plain, &first, 16 * 60 * 1000).await.unwrap();
    assert_ne!(late.commit.added, first.commit.added);
    let again = place.table.replan(&with_hole, &first_with_hole, 6).await.unwrap();
    assert_ne!(again.commit.added, first_with_hole.commit.added);
    assert_eq!((again.unfilled, first_with_hole.unfilled), (1, 0));
    assert_eq!(again.commit.counts.inserted, 1, "the row was deleted by another engine");
}

#[tokio::test]
async fn rows_that_come_back_are_indexed_again() {
    let mut place = Place::new();
    place.merge((0..3).map(upsert).collect()).await;
    place.merge(BTreeMap::from([(0, Do::Delete)])).await;
    let mut state = place.log.state.clone();
    state.files.values_mut().next().unwrap().deleted = Arc::default();
    place.table.refresh(state.clone()).await.unwrap();
    assert_eq!(rows(&place.table), 3);
    place.log.state = state;
    let planned = place.merge(BTreeMap::from([(0, Do::Delete)])).await;
    assert_eq!(planned.commit.counts.deleted, 1);
}

#[tokio::test]
async fn a_position_that_goes_back_stops_the_table() {
    let mut place = Place::new();
    let old = place.log.state.clone();
    place.merge(BTreeMap::from([upsert(1)])).await;
    assert_eq!(place.table.refresh(old).await.unwrap_err().kind(), Kind::Internal);
}

#[tokio::test]
async fn a_key_that_is_in_the_table_twice_is_a_data_error() {
    let mut place = Place::new();
    place.merge((0..3).map(upsert).collect()).await;
    place.merge(BTreeMap::from([upsert(1)])).await;
    let mut state = place.log.state.clone();
    for live in state.files.values_mut() {
        live.deleted = Arc::default();
    }
    let error = Table::open(place.location.clone(), state.clone(), options()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(state.files.keys().all(|path| error.to_string().contains(path)), "{error}");
}

#[tokio::test]
async fn the_index_keeps_its_budget() {
    let small = Options { index: Budget::new(1000), ..options() };
    let mut place = Place::with(schema(), small);
    place.merge((0..20).map(upsert).collect()).await;
    assert_eq!(place.refused(&place.batch(&(20..40).map(upsert).collect())).await, Kind::Refused);
    place.merge((0..20).map(upsert).collect()).await;
    let smaller = Options { index: Budget::new(200), ..options() };
    let state = place.log.state.clone();
    let error = Table::open(place.location.clone(), state, smaller).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.report().contains("memory"), "{}", error.report());
}

#[tokio::test]
async fn a_table_without_a_key_is_appended_to() {
    let columns = schema().columns()[..8].to_vec();
    let mut place = Place::with(TableSchema::create(columns, vec![]), options());
    for _ in 0..2 {
        let planned = place.merge(BTreeMap::from([upsert(1), (2, Do::Delete)])).await;
        assert_eq!(planned.commit.counts.inserted, 1);
        assert!(planned.commit.deletions.is_empty());
    }
    assert_eq!((rows(&place.table), place.table.index_bytes()), (2, 0));
    let state = place.log.state.clone();
    let table = Table::open(place.location.clone(), state, options()).await.unwrap();
    assert_eq!(rows(&table), 2);
}

#[tokio::test]
async fn a_row_moves_between_partitions() {
    let mut place = Place::new();
    let partitioning = Arc::new(Partitioning::parse("name", &place.schema).unwrap());
    place.table = Table::create(
        place.location.clone(),
        Arc::clone(&place.schema),
        Arc::clone(&partitioning),
        options(),
    );
    place.log = Log::new(Arc::clone(&place.schema), partitioning);
    let of = |id, name: &str| {
        (id, Do::Upsert(Row { name: Some(name.into()), ..Row::default() }, vec![], id))
    };
    let planned = place.merge(BTreeMap::from([of(1, "a b"), of(2, "c"), of(3, "a b")])).await;
    let told: Vec<_> = planned.commit.added.iter().map(|f| (f.partition.clone(), f.rows)).collect();
    let text = |text: &str| vec![Some(Scalar::String(text.into()))];
    assert_eq!(told, [(text("a b"), 2), (text("c"), 1)]);
    assert!(planned.commit.added[0].path.starts_with("data/name=a%20b/part-"));
    let planned = place.merge(BTreeMap::from([of(2, "a b")])).await;
    assert_eq!(planned.commit.removed[0].file.partition, text("c"));
    assert_eq!(planned.commit.added[0].partition, text("a b"));
    // The partition of a row follows from a value that is filled in.
    let hole = Do::Upsert(Row::default(), vec![1], 3);
    let planned = place.merge(BTreeMap::from([(9, hole)])).await;
    assert_eq!(planned.commit.added[0].partition, text("a b"));
    assert_eq!(content(&place.location, &place.schema, &place.log.state).await, place.model);
}

/// A log that has the newest batch would take a plan of the same batch for that one.
#[tokio::test]
async fn a_second_log_at_the_same_position_is_brought_up_by_a_batch_of_its_own() {
    let mut place = Place::new();
    place.merge((0..3).map(upsert).collect()).await;
    let batch_of = |plan: Option<CommitPlan>| Some(plan.unwrap().batch_id);
    let mut behind = place.log.state.clone();
    behind.files.clear();
    let plan = place.table.difference(&behind, 5).await.unwrap();
    assert_ne!(batch_of(plan), place.table.last_batch());
    behind.position = Position::default();
    let plan = place.table.difference(&behind, 5).await.unwrap();
    assert_eq!(batch_of(plan), place.table.last_batch());
}

#[tokio::test]
async fn a_second_log_with_foreign_commits_is_refused() {
    let mut place = Place::new();
    place.merge((0..3).map(upsert).collect()).await;
    let mut behind = place.log.state.clone();
    behind.files.values_mut().next().unwrap().deleted = Arc::new(RoaringTreemap::from([2]));
    let error = place.table.difference(&behind, 5).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    let mut behind = place.log.state.clone();
    behind.position.set(0, 99);
    assert_eq!(place.table.difference(&behind, 5).await.unwrap_err().kind(), Kind::Data);
}

#[test]
fn keys_of_every_type_are_those_of_decoding() {
    let decimal = ColumnType::Decimal { precision: 9, scale: 2 };
    let types = [
        ColumnType::Boolean,
        ColumnType::Int32,
        ColumnType::Float64,
        decimal,
        ColumnType::String,
        ColumnType::Binary,
        ColumnType::Date,
        ColumnType::TimestampTz,
    ];
    let decimals = Decimal128Array::from(vec![-5]).with_precision_and_scale(9, 2).unwrap();
    let columns: [ArrayRef; 8] = [
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Int32Array::from(vec![-3])),
        Arc::new(Float64Array::from(vec![1.5])),
        Arc::new(decimals),
        Arc::new(StringArray::from(vec!["a text longer than sixteen bytes"])),
        Arc::new(BinaryArray::from_vec(vec![&[1, 2]])),
        Arc::new(Date32Array::from(vec![7])),
        Arc::new(TimestampMicrosecondArray::from(vec![9]).with_timezone("UTC")),
    ];
    let push: [fn(&mut KeyBuilder); 8] = [
        |builder| builder.push_i64(1),
        |builder| builder.push_i64(-3),
        |builder| builder.push_i64(1.5_f64.to_bits().cast_signed()),
        |builder| builder.push_i128(-5),
        |builder| builder.push_bytes(b"a text longer than sixteen bytes"),
        |builder| builder.push_bytes(&[1, 2]),
        |builder| builder.push_i64(7),
        |builder| builder.push_i64(9),
    ];
    let expect = |from: usize, to: usize| {
        let mut builder = KeyBuilder::new(&types[from..to]);
        push[from..to].iter().for_each(|push| push(&mut builder));
        assert_eq!(
            keys_from_arrow(&types[from..to], &columns[from..to]).unwrap(),
            [builder.finish()]
        );
    };
    expect(0, 8);
    (0..8).for_each(|at| expect(at, at + 1));
    let nulls: [ArrayRef; 1] = [Arc::new(Int32Array::from(vec![None]))];
    assert_eq!(keys_from_arrow([&ColumnType::Int32], &nulls).unwrap_err().kind(), Kind::Data);
}

/// Else an update would not find the row that an earlier type of its key column wrote.
#[test]
fn a_key_stays_what_it_is_when_its_column_widens() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let int: ArrayRef = Arc::new(Int32Array::from(vec![i32::MIN, -1, 7]));
    let decimal = Decimal128Array::from(vec![-99_999, 0, 12]).with_precision_and_scale(5, 2);
    let decimal: ArrayRef = Arc::new(decimal.unwrap());
    for (narrow, values, wide) in [
        (ColumnType::Int32, int, ColumnType::Int64),
        (
            ColumnType::Decimal { precision: 5, scale: 2 },
            decimal,
            ColumnType::Decimal { precision: 38, scale: 2 },
        ),
    ] {
        let cast = arrow::compute::cast(&values, &wide.arrow()).unwrap();
        let keys = |ty: &ColumnType, values: &ArrayRef| {
            let alone = keys_from_arrow([ty], &[Arc::clone(values)]).unwrap();
            let both = [ty, &ColumnType::String];
            let both = keys_from_arrow(both, &[Arc::clone(values), Arc::clone(&text)]).unwrap();
            [alone, both]
        };
        assert_eq!(keys(&narrow, &values), keys(&wide, &cast));
        let schema = |ty: &ColumnType| {
            TableSchema::create(vec![Column::new("k", ty.clone(), false)], vec!["k".into()])
        };
        assert!(schema(&wide).covers(&schema(&narrow)) && !schema(&narrow).covers(&schema(&wide)));
    }
}

/// The pipeline runs tables on many threads.
#[tokio::test]
async fn everything_can_move_between_threads() {
    fn sendable(_: impl Send) {}
    let mut place = Place::new();
    let planned = place.merge(BTreeMap::from([upsert(1)])).await;
    let batch = place.batch(&BTreeMap::new());
    let state = place.log.state.clone();
    sendable(place.table.plan(&batch, 5));
    sendable(place.table.replan(&batch, &planned, 5));
    sendable(place.table.difference(&state, 5));
    sendable(place.table.refresh(state.clone()));
    sendable(Table::open(place.location.clone(), state, options()));
}
