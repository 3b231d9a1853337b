//! A table as a map, the batches that change it, and a log that remembers commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use uuid::Uuid;

use crate::change::{Batch, Hole, Origin, Own};
use crate::key::{Key, KeyBuilder};
use crate::position::{OffsetRange, Position};
use crate::schema::{Column, ColumnType, ListElement, TableSchema};
use crate::sink::storage::Location;
use crate::table::files::read_columns;
use crate::table::index::Budget;
use crate::table::notes::Notes;
use crate::table::partition::Partitioning;
use crate::table::physical::{Options, Table};
use crate::table::plan::{CommitPlan, LiveFile, TableState};

/// A row but for its key; fields in the order of the schema's columns after the key.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub name: Option<String>,
    pub tags: Option<Vec<Option<String>>>,
    pub price: Option<i128>,
    pub wide: Option<i128>,
    pub day: Option<i32>,
    pub at: Option<i64>,
    pub score: Option<f64>,
    /// Of a column that is added later.
    pub note: Option<String>,
}

/// Nullable columns that can be holes, by index in the schema; the added one aside.
pub(super) const HOLES: std::ops::RangeInclusive<usize> = 1..=7;

pub(super) type Rows2 = BTreeMap<i64, Row>;

/// What a batch does to one key.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "histories are short")]
pub(super) enum Do {
    /// The row's new version; the columns in the list are not in the change and come from the row of the key given.
    Upsert(Row, Vec<usize>, i64),
    Delete,
}

pub(super) fn row() -> impl Strategy<Value = Row> {
    let text = || prop::option::of("[a-zé☃]{0,20}");
    let tags = prop::option::of(prop::collection::vec(text(), 0..3));
    (
        (
            text(),
            tags,
            prop::option::of(-999..999_i128),
            prop::option::of(any::<i64>().prop_map(i128::from)),
        ),
        (
            prop::option::of(-1000..30_000_i32),
            prop::option::of(any::<i32>()),
            prop::option::of(any::<f64>()),
        ),
    )
        .prop_map(|((name, tags, price, wide), (day, at, score))| Row {
            name,
            tags,
            price,
            wide,
            day,
            at: at.map(|at| i64::from(at) * 1_000_003),
            score: score.filter(|score| !score.is_nan()),
            note: None,
        })
}

pub(super) fn step(keys: i64) -> impl Strategy<Value = BTreeMap<i64, Do>> {
    let upsert = (row(), prop::collection::vec(HOLES, 0..3), prop::option::of(0..keys));
    let change = prop_oneof![
        3 => upsert.prop_map(|(row, holes, from)| Do::Upsert(row, holes, from.unwrap_or(-1))),
        1 => Just(Do::Delete),
    ];
    prop::collection::btree_map(0..keys, change, 0..12).prop_map(|mut changes| {
        for (key, change) in &mut changes {
            if let Do::Upsert(_, holes, from) = change {
                holes.sort_unstable();
                holes.dedup();
                // Mostly a row's values stay its own; sometimes they move with its key.
                if *from < 0 {
                    *from = *key;
                }
            }
        }
        changes
    })
}

pub(super) fn schema() -> TableSchema {
    let tags = ColumnType::List(Box::new(ListElement { id: 0, ty: ColumnType::String }));
    let columns = vec![
        Column::new("id", ColumnType::Int64, false),
        Column::new("name", ColumnType::String, true),
        Column::new("tags", tags, true),
        Column::new("price", ColumnType::Decimal { precision: 12, scale: 2 }, true),
        Column::new("wide", ColumnType::Decimal { precision: 38, scale: 4 }, true),
        Column::new("day", ColumnType::Date, true),
        Column::new("at", ColumnType::Timestamp, true),
        Column::new("score", ColumnType::Float64, true),
    ];
    TableSchema::create(columns, vec!["id".into()])
}

pub(super) fn key(id: i64) -> Key {
    let mut builder = KeyBuilder::new([&ColumnType::Int64]);
    builder.push_i64(id);
    builder.finish()
}

pub(super) fn memory() -> Location {
    let url = url::Url::parse("memory:///warehouse/t/").unwrap();
    Location::new(Arc::new(InMemory::new()), Path::from("warehouse/t"), url)
}

pub(super) fn options() -> Options {
    Options {
        index: Budget::new(1 << 20),
        open_concurrency: 3,
        packed_integers: true,
        match_rows: false,
    }
}

/// The rows as they are decoded: what is a hole is null.
pub(super) fn record_batch(schema: &TableSchema, rows: &[(i64, Row)]) -> RecordBatch {
    let text = |get: fn(&Row) -> &Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, row)| get(row).clone()).collect::<StringArray>())
    };
    let columns = schema.columns().iter().map(|column| -> ArrayRef {
        match column.name.as_str() {
            "id" => Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>()),
            "name" => text(|row| &row.name),
            "note" => text(|row| &row.note),
            "tags" => tags(column, rows),
            "price" => decimal(rows.iter().map(|(_, row)| row.price), 12, 2),
            "wide" => decimal(rows.iter().map(|(_, row)| row.wide), 38, 4),
            "day" => Arc::new(rows.iter().map(|(_, row)| row.day).collect::<Date32Array>()),
            "at" => {
                Arc::new(rows.iter().map(|(_, row)| row.at).collect::<TimestampMicrosecondArray>())
            }
            "score" => Arc::new(rows.iter().map(|(_, row)| row.score).collect::<Float64Array>()),
            "_cdc_op" => Arc::new(StringArray::from(vec!["u"; rows.len()])),
            "_cdc_ts" => {
                Arc::new(TimestampMicrosecondArray::from(vec![5; rows.len()]).with_timezone("UTC"))
            }
            "_cdc_partition" => Arc::new(Int32Array::from(vec![0; rows.len()])),
            _ => Arc::new(Int64Array::from(vec![7; rows.len()])),
        }
    });
    RecordBatch::try_new(schema.arrow(), columns.collect()).unwrap()
}

fn decimal(values: impl Iterator<Item = Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    let values = values.collect::<Decimal128Array>();
    Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
}

fn tags(column: &Column, rows: &[(i64, Row)]) -> ArrayRef {
    let DataType::List(element) = column.ty.arrow() else { panic!("a list") };
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(element);
    for (_, row) in rows {
        builder.append_option(row.tags.clone());
    }
    Arc::new(builder.finish())
}

/// A batch of `changes` over `[from, to)` of `partition`.
pub(super) fn batch(
    schema: &Arc<TableSchema>,
    changes: &BTreeMap<i64, Do>,
    range: OffsetRange,
) -> Batch {
    let (mut rows, mut keys, mut deletes, mut holes) = (vec![], vec![], vec![], vec![]);
    for (id, change) in changes {
        match change {
            Do::Delete => deletes.push(key(*id)),
            Do::Upsert(row, missing, from) => {
                let mut row = row.clone();
                for column in missing {
                    set(&mut row, *column, &Row::default());
                    let (row, from) = (rows.len(), Origin::Row(key(*from)));
                    holes.push(Hole { row, column: *column, from, own: Own::Null });
                }
                rows.push((*id, row));
                keys.push(key(*id));
            }
        }
    }
    let rows = record_batch(schema, &rows);
    Batch {
        deletes,
        holes,
        newest_source_micros: Some(1),
        ..Batch::of_rows(Uuid::new_v4(), vec![range], Arc::clone(schema), rows, keys)
    }
}

/// What the batch makes of the model.
pub(super) fn apply(model: &mut Rows2, changes: &BTreeMap<i64, Do>) {
    let before = model.clone();
    for (id, change) in changes {
        match change {
            Do::Delete => {
                model.remove(id);
            }
            Do::Upsert(row, missing, from) => {
                let mut row = row.clone();
                let source = before.get(from).cloned().unwrap_or_default();
                missing.iter().for_each(|column| set(&mut row, *column, &source));
                model.insert(*id, row);
            }
        }
    }
}

fn set(row: &mut Row, column: usize, from: &Row) {
    let from = from.clone();
    match column {
        1 => row.name = from.name,
        2 => row.tags = from.tags,
        3 => row.price = from.price,
        4 => row.wide = from.wide,
        5 => row.day = from.day,
        6 => row.at = from.at,
        7 => row.score = from.score,
        other => panic!("column {other}"),
    }
}

/// Reads the table as a reader does: files minus bitmaps.
pub(super) async fn content(
    location: &Location,
    schema: &TableSchema,
    state: &TableState,
) -> Rows2 {
    let mut content = Rows2::new();
    for live in state.files.values() {
        let columns = schema.columns().to_vec();
        let mut batches = read_columns(location, &live.file, &columns).await.unwrap();
        let mut at = 0;
        while let Some(batch) = batches.try_next().await.unwrap() {
            for row in 0..batch.num_rows() {
                if !live.deleted.contains(at) {
                    let (id, row) = read(&batch, row);
                    assert_eq!(content.insert(id, row), None, "key {id} is in the table twice");
                }
                at += 1;
            }
        }
        assert!(at == live.file.rows || live.file.rows == 0, "0 is unknown");
        assert!(live.deleted.len() < at);
    }
    content
}

fn read(batch: &RecordBatch, at: usize) -> (i64, Row) {
    let column = |name: &str| batch.column_by_name(name).filter(|values| values.is_valid(at));
    let text = |name: &str| column(name).map(|v| v.as_string::<i32>().value(at).to_owned());
    let decimal = |name: &str| column(name).map(|v| v.as_primitive::<Decimal128Type>().value(at));
    let row = Row {
        name: text("name"),
        tags: column("tags").map(|v| {
            let elements = v.as_list::<i32>().value(at);
            elements.as_string::<i32>().iter().map(|tag| tag.map(str::to_owned)).collect()
        }),
        price: decimal("price"),
        wide: decimal("wide"),
        day: column("day").map(|v| v.as_primitive::<Date32Type>().value(at)),
        at: column("at").map(|v| v.as_primitive::<TimestampMicrosecondType>().value(at)),
        score: column("score").map(|v| v.as_primitive::<Float64Type>().value(at)),
        note: text("note"),
    };
    (column("id").unwrap().as_primitive::<Int64Type>().value(at), row)
}

/// A table's log: what a publisher would have written and would read back.
pub(super) struct Log {
    pub state: TableState,
}

impl Log {
    pub(super) fn new(schema: Arc<TableSchema>, partitioning: Arc<Partitioning>) -> Self {
        let (position, files) = (Position::default(), BTreeMap::new());
        Self {
            state: TableState {
                version: 0,
                schema,
                partitioning,
                position,
                last_batch: None,
                notes: Notes::default(),
                owner: None,
                files,
            },
        }
    }

    /// Commits a plan that was made on the newest version, with the checks a publisher relies on.
    pub(super) fn commit(&mut self, plan: &CommitPlan) {
        let files = &mut self.state.files;
        for file in &plan.added {
            let live = LiveFile { file: Arc::clone(file), deleted: Arc::default() };
            assert!(files.insert(file.path.clone(), live).is_none(), "a file was added twice");
        }
        for deletion in &plan.deletions {
            let live = files.get_mut(&deletion.file.path).unwrap();
            assert_eq!(live.deleted, deletion.before);
            assert!(deletion.before.is_subset(&deletion.after));
            assert!(deletion.before.len() < deletion.after.len());
            assert!(deletion.after.len() < deletion.file.rows);
            live.deleted = Arc::clone(&deletion.after);
        }
        for gone in &plan.removed {
            let live = files.remove(&gone.file.path).unwrap();
            assert_eq!(live.deleted, gone.deleted);
        }
        assert_eq!(plan.schema_changed, plan.schema != self.state.schema);
        assert_eq!(self.state.position.advance(&plan.ranges).as_ref(), Ok(&plan.position));
        self.state.version += 1;
        self.state.schema = Arc::clone(&plan.schema);
        self.state.position = plan.position.clone();
        self.state.last_batch = Some(plan.batch_id);
        self.state.notes = plan.notes.clone();
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) fn rows(table: &Table) -> usize {
    usize::try_from(table.rows()).unwrap()
}
