//! Data files and what is told of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;

use super::encode::encode;
use super::{Place, describe, read_columns, read_footer, read_rows, write};
use crate::error::{Kind, Result};
use crate::schema::{Column, ColumnType, ListElement, TableSchema};
use crate::sink::storage::Location;
use crate::table::plan::{ColumnStats, DataFile, Scalar};

fn location() -> Location {
    let url = url::Url::parse("memory:///t/").unwrap();
    Location::new(Arc::new(InMemory::new()), Path::from("t"), url)
}

/// A table of these columns alone.
fn table(columns: &[(&str, ColumnType)]) -> TableSchema {
    let columns = columns
        .iter()
        .zip(1..)
        .map(|((name, ty), id)| Column { id, ..Column::new(*name, ty.clone(), true) });
    TableSchema::from_parts(columns.collect(), vec![], 99)
}

fn rows(schema: &TableSchema, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema.arrow(), columns).unwrap()
}

fn decimals(precision: u8, values: &[Option<i128>]) -> ArrayRef {
    let values = Decimal128Array::from(values.to_vec());
    Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
}

async fn read(location: &Location, file: &DataFile, columns: &[Column]) -> Result<RecordBatch> {
    let batches: Vec<_> = read_columns(location, file, columns).await?.try_collect().await?;
    Ok(concat_batches(&batches[0].schema(), &batches).unwrap())
}

async fn rows_at(
    location: &Location,
    file: &DataFile,
    columns: &[Column],
    at: &[u32],
) -> RecordBatch {
    let (batches, _) = read_rows(location, file, columns, at).await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn stats(values: u64, nulls: u64, min: Scalar, max: Scalar) -> ColumnStats {
    ColumnStats { compressed_bytes: 0, values, nulls, min: Some(min), max: Some(max) }
}

fn without_sizes(file: &DataFile) -> BTreeMap<i32, ColumnStats> {
    let stats = file.stats.iter();
    stats.map(|(id, stats)| (*id, ColumnStats { compressed_bytes: 0, ..stats.clone() })).collect()
}

#[tokio::test]
async fn statistics_are_told_by_field_id_for_every_type() {
    let decimal = |precision| ColumnType::Decimal { precision, scale: 2 };
    let schema = table(&[
        ("flag", ColumnType::Boolean),
        ("int", ColumnType::Int32),
        ("long", ColumnType::Int64),
        ("float", ColumnType::Float32),
        ("small", decimal(9)),
        ("middle", decimal(18)),
        ("large", decimal(38)),
        ("text", ColumnType::String),
        ("bytes", ColumnType::Binary),
        ("date", ColumnType::Date),
        ("time", ColumnType::Time),
        ("at", ColumnType::Timestamp),
        ("instant", ColumnType::TimestampTz),
        ("tags", ColumnType::List(Box::new(ListElement { id: 77, ty: ColumnType::String }))),
        ("empty", ColumnType::String),
    ]);
    let DataType::List(element) = schema.columns()[13].ty.arrow() else { panic!("a list") };
    let mut tags = ListBuilder::new(StringBuilder::new()).with_field(element);
    tags.append_value([Some("b"), None]);
    tags.append_null();
    tags.append_value([Some("a")]);
    let instants = TimestampMicrosecondArray::from(vec![5, -6, 7]).with_timezone("UTC");
    let huge = i128::from(i64::MAX) * 1_000_000_000;
    let rows = rows(
        &schema,
        vec![
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(true)])),
            Arc::new(Int32Array::from(vec![Some(3), Some(i32::MIN), None])),
            Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX])),
            Arc::new(Float32Array::from(vec![-1.5, 0.25, 9.0])),
            decimals(9, &[Some(-12), Some(7), None]),
            decimals(18, &[Some(-12), Some(7), None]),
            decimals(38, &[Some(-huge), Some(huge), None]),
            Arc::new(StringArray::from(vec!["b", "a", "c"])),
            Arc::new(BinaryArray::from_vec(vec![&[0x80], &[0x7F], &[]])),
            Arc::new(Date32Array::from(vec![-1, 5, 2])),
            Arc::new(Time64MicrosecondArray::from(vec![1, 5, 2])),
            Arc::new(TimestampMicrosecondArray::from(vec![-1, 5, 2])),
            Arc::new(instants),
            Arc::new(tags.finish()),
            Arc::new(StringArray::new_null(3)),
        ],
    );
    let location = location();
    let file = write(&location, &schema, Place::default(), rows, true).await.unwrap();
    assert_eq!(without_sizes(&file), expected_of_every_type(huge));
    assert!(file.stats.values().all(|stats| stats.compressed_bytes > 0));
    assert_eq!((file.rows, &file.split_offsets[..]), (3, &[4][..]));
    assert!(file.path.starts_with("data/part-") && file.path.ends_with(".parquet"));
    // The footer alone tells the same, but cannot vouch for floats.
    let mut told = read_footer(&location, &schema, &file.path, 0).await.unwrap();
    let floats = told.stats.get_mut(&4).unwrap();
    assert_eq!((floats.min.take(), floats.max.take()), (None, None));
    (floats.min, floats.max) = (file.stats[&4].min.clone(), file.stats[&4].max.clone());
    assert_eq!(told, file);
}

fn expected_of_every_type(huge: i128) -> BTreeMap<i32, ColumnStats> {
    let text = |text: &str| Scalar::String(text.to_owned());
    let int = |min, max| stats(3, 0, Scalar::Int(min), Scalar::Int(max));
    BTreeMap::from([
        (1, stats(3, 1, Scalar::Boolean(true), Scalar::Boolean(true))),
        (2, stats(3, 1, Scalar::Int(i64::from(i32::MIN)), Scalar::Int(3))),
        (3, int(i64::MIN, i64::MAX)),
        (4, stats(3, 0, Scalar::Float(-1.5), Scalar::Float(9.0))),
        (5, stats(3, 1, Scalar::Decimal(-12), Scalar::Decimal(7))),
        (6, stats(3, 1, Scalar::Decimal(-12), Scalar::Decimal(7))),
        (7, stats(3, 1, Scalar::Decimal(-huge), Scalar::Decimal(huge))),
        (8, stats(3, 0, text("a"), text("c"))),
        (9, stats(3, 0, Scalar::Binary(vec![]), Scalar::Binary(vec![0x80]))),
        (10, int(-1, 5)),
        (11, int(1, 5)),
        (12, int(-1, 5)),
        (13, int(-6, 7)),
        (77, stats(4, 2, text("a"), text("b"))),
        (15, ColumnStats { values: 3, nulls: 3, ..ColumnStats::default() }),
    ])
}

fn bounds(values: ArrayRef, ty: ColumnType) -> (Option<Scalar>, Option<Scalar>) {
    let schema = table(&[("c", ty)]);
    let rows = rows(&schema, vec![values]);
    let no_nan = super::columns_without_nan(&rows, &schema);
    let encoded = encode(&rows, false).unwrap();
    let file = describe(&encoded.metadata, &schema, String::new(), 0, &no_nan).unwrap();
    (file.stats[&1].min.clone(), file.stats[&1].max.clone())
}

#[test]
fn floats_with_a_nan_have_no_bounds() {
    let with = |values: Vec<f64>| bounds(Arc::new(Float64Array::from(values)), ColumnType::Float64);
    assert_eq!(with(vec![1.0, f64::NAN]), (None, None));
    assert_eq!(with(vec![f64::NAN]), (None, None));
    assert_eq!(with(vec![2.0, -1.0]), (Some(Scalar::Float(-1.0)), Some(Scalar::Float(2.0))));
}

#[test]
fn long_texts_have_bounds_that_hold() {
    let of = |text: &str| {
        let values: ArrayRef = Arc::new(StringArray::from(vec![text]));
        match bounds(values, ColumnType::String) {
            (Some(Scalar::String(min)), Some(Scalar::String(max))) => {
                assert!(min.as_str() <= text && text <= max.as_str(), "{min} {text} {max}");
                (min, max)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of("0123456789abcdefg"), ("0123456789abcdef".into(), "0123456789abcdeg".into()));
    // Cut between characters, and raised without leaving UTF-8.
    let (min, max) = of(&"☃".repeat(9));
    assert_eq!((min, max), ("☃".repeat(5), format!("{}{}", "☃".repeat(4), '\u{2604}')));
    of(&"\u{7F}".repeat(20));
    of(&"\u{D7FF}".repeat(20));
    of(&"\u{10FFFF}".repeat(20));
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[0xFF; 20]]));
    let (_, max) = bounds(bytes, ColumnType::Binary);
    assert!(max.is_none_or(|max| max >= Scalar::Binary(vec![0xFF; 20])));
}

#[test]
fn encodings_follow_the_values() {
    let schema = table(&[
        ("unique", ColumnType::String),
        ("status", ColumnType::String),
        ("id", ColumnType::Int64),
        ("kind", ColumnType::Int32),
    ]);
    let n = 5000;
    let rows = rows(
        &schema,
        vec![
            Arc::new((0..n).map(|i| Some(format!("u{i}"))).collect::<StringArray>()),
            Arc::new((0..n).map(|i| Some(format!("s{}", i % 5))).collect::<StringArray>()),
            Arc::new((0..n).map(i64::from).collect::<Int64Array>()),
            Arc::new((0..n).map(|i| i % 3).collect::<Int32Array>()),
        ],
    );
    let uses = |packed, column: usize, encoding| {
        let encoded = encode(&rows, packed).unwrap();
        let chunk = encoded.metadata.row_group(0).column(column);
        chunk.encodings().any(|used| used == encoding)
    };
    for packed in [false, true] {
        assert!(!uses(packed, 0, Encoding::RLE_DICTIONARY));
        assert!(uses(packed, 1, Encoding::RLE_DICTIONARY));
        assert_eq!(uses(packed, 2, Encoding::DELTA_BINARY_PACKED), packed);
        assert!(!uses(packed, 2, Encoding::RLE_DICTIONARY));
        assert!(uses(packed, 3, Encoding::RLE_DICTIONARY));
    }
}

#[tokio::test]
async fn rows_are_read_by_position_across_row_groups() {
    let schema = table(&[("id", ColumnType::Int64), ("text", ColumnType::String)]);
    let n = 2_500_000_i64;
    let texts = (0..n).map(|i| Some(if i % 2 == 0 { "even" } else { "odd" }));
    let ids: Int64Array = (0..n).collect();
    let rows = rows(&schema, vec![Arc::new(ids), Arc::new(texts.collect::<StringArray>())]);
    let location = location();
    let file = write(&location, &schema, Place::default(), rows, true).await.unwrap();
    assert_eq!(file.split_offsets.len(), 3);
    let at = [0, 1, 20_000, 1_048_575, 1_048_576, 2_499_999];
    let found = rows_at(&location, &file, schema.columns(), &at).await;
    let ids = found.column(0).as_primitive::<Int64Type>().values();
    assert_eq!(ids.to_vec(), at.map(i64::from));
    let texts: Vec<_> = found.column(1).as_string::<i32>().iter().flatten().collect();
    assert_eq!(texts, ["even", "odd", "even", "odd", "even", "odd"]);
}

#[tokio::test]
async fn lists_are_read_by_position_across_pages() {
    let list = ColumnType::List(Box::new(ListElement { id: 77, ty: ColumnType::String }));
    let schema = table(&[("tags", list)]);
    let DataType::List(element) = schema.columns()[0].ty.arrow() else { panic!("a list") };
    let mut tags = ListBuilder::new(StringBuilder::new()).with_field(element);
    // What row `at` holds: nothing, no elements, or up to four with a null among them.
    let of = |at: u32| {
        let elements = (0..at % 5).map(|n| (n != 2).then(|| format!("{at}/{n}")));
        (!at.is_multiple_of(7)).then(|| elements.collect::<Vec<_>>())
    };
    (0..100_000).for_each(|at| tags.append_option(of(at)));
    let location = location();
    let rows = rows(&schema, vec![Arc::new(tags.finish())]);
    let file = write(&location, &schema, Place::default(), rows, false).await.unwrap();
    let at: Vec<u32> = (0..300).map(|n| n * n + n / 2).chain(99_990..100_000).collect();
    let found = rows_at(&location, &file, schema.columns(), &at).await;
    let found = found.column(0).as_list::<i32>();
    for (row, at) in at.iter().enumerate() {
        let elements = found.is_valid(row).then(|| found.value(row));
        let elements = elements.map(|elements| {
            let texts = elements.as_string::<i32>().iter();
            texts.map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        });
        assert_eq!(elements, of(*at), "row {at}");
    }
}

/// A file as another engine might write it.
async fn foreign(location: &Location, fields: Vec<Field>, columns: Vec<ArrayRef>) -> DataFile {
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    location.store().put(&location.file("f.parquet"), PutPayload::from(bytes)).await.unwrap();
    read_footer(location, &table(&[]), "f.parquet", 0).await.unwrap()
}

#[tokio::test]
async fn a_file_without_ids_is_read_by_name_and_in_the_tables_types() {
    let location = location();
    let fields = vec![
        Field::new("at", DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None), true),
        Field::new("n", DataType::Int32, true),
        Field::new("name", DataType::LargeUtf8, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![5])),
        Arc::new(Int32Array::from(vec![7])),
        Arc::new(arrow::array::LargeStringArray::from(vec!["x"])),
    ];
    let file = foreign(&location, fields, columns).await;
    let schema = table(&[
        ("name", ColumnType::String),
        ("n", ColumnType::Int64),
        ("gone", ColumnType::Date),
        ("at", ColumnType::Timestamp),
    ]);
    let found = read(&location, &file, schema.columns()).await.unwrap();
    assert_eq!(found.column(0).as_string::<i32>().value(0), "x");
    assert_eq!(found.column(1).as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(found.column(2).null_count(), 1);
    assert_eq!(found.column(3).as_primitive::<TimestampMicrosecondType>().value(0), 5000);
    // Its statistics are found by name, but for bounds in another unit.
    let told = read_footer(&location, &schema, &file.path, file.size).await.unwrap();
    assert_eq!(told.stats[&2].max, Some(Scalar::Int(7)));
    assert_eq!(told.stats[&4].max, None);
}

#[tokio::test]
async fn values_that_do_not_fit_are_an_error_and_never_null() {
    let location = location();
    let fields = vec![Field::new("n", DataType::Int64, true)];
    let file = foreign(&location, fields, vec![Arc::new(Int64Array::from(vec![i64::MAX]))]).await;
    let schema = table(&[("n", ColumnType::Int32)]);
    let error = read(&location, &file, schema.columns()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
}

#[tokio::test]
async fn a_missing_and_a_damaged_file_are_data_errors() {
    let location = location();
    let schema = table(&[("n", ColumnType::Int32)]);
    let error = read_footer(&location, &schema, "data/none.parquet", 0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    let error = read_footer(&location, &schema, "data/none.parquet", 100).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    let damaged = PutPayload::from(vec![0; 100]);
    location.store().put(&location.file("data/damaged.parquet"), damaged).await.unwrap();
    let error = read_footer(&location, &schema, "data/damaged.parquet", 0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("memory:///t/data/damaged.parquet"), "{error}");
}
