//! The sentence "what the source holds is what the table holds", for generated histories cut into batches anywhere:
//! through decoding, collapse and the sink that is the model.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use cdc_sink::batch::{Buffer, Given, Outcome, Wait};
use cdc_sink::change::MissingValue;
use cdc_sink::decode::{Decoder, Options, Registry, ScanError, Scanned, SchemaId};
use cdc_sink::generate::{
    Encoding, Generated, Generator, Mix, Shape, UNAVAILABLE, Value, Workload,
};
use cdc_sink::record::Records;
use cdc_sink::schema::{Column, ColumnType, TableSchema, is_metadata};
use cdc_sink::sink::memory::{MemorySink, TextRow, text_rows};
use cdc_sink::sink::{Merged, Sink as _};
use proptest::prelude::*;
use rstest::rstest;
use uuid::Uuid;

fn workload(shape: Shape, encoding: Encoding) -> Workload {
    Workload {
        seed: 11,
        tables: vec![shape],
        rows: 40,
        changes: 1200,
        encoding,
        mix: Mix { moves: 60, ..Mix::default() },
        placeholder_percent: 40,
        add_column_after: Some(600),
        ..Workload::default()
    }
}

/// Takes the generated records of one table to a sink, `cuts` giving the number of records of each batch in turn.
/// With a seed in `skew` the partitions come at different paces.
async fn assert_lands(workload: &Workload, cuts: &[usize], skew: Option<u64>) {
    let shape = workload.tables[0];
    let ids = (1..).map(SchemaId);
    let registry =
        Registry::preloaded(ids.zip(workload.subjects().into_iter().map(|subject| subject.schema)));
    let options = Options { placeholder: UNAVAILABLE.to_owned(), ..Options::default() };
    let mut decoder = Decoder::new(options, Some(registry), None);
    let mut sink = MemorySink::default();
    let mut buffer = Buffer::default();
    let partitions = usize::try_from(workload.partitions).unwrap();
    let mut offsets = vec![0; partitions];
    let mut generator = Generator::new(workload);
    let generated: Vec<Generated> = generator.by_ref().collect();
    let mut records = match skew {
        Some(seed) => skewed(generated, partitions, seed),
        None => generated,
    }
    .into_iter()
    .peekable();
    let mut cuts = cuts.iter().copied().cycle();
    let mut number = 0;
    // Any value that is nowhere fails the test.
    let given = Given { missing_value: MissingValue::Halt, ..Given::default() };
    while records.peek().is_some() {
        number += 1;
        for record in records.by_ref().take(cuts.next().unwrap()) {
            take(&mut buffer, &mut decoder, &mut offsets, &record).await;
        }
        let end = buffer.cut(Wait::Always, Instant::now());
        let part = buffer.until(&end, Instant::now());
        if !part.has_changes() {
            continue;
        }
        let assembled = part.assemble(&mut decoder, Uuid::from_u128(number), &given).unwrap();
        assert!(assembled.rejected.is_empty(), "{:?}", assembled.rejected);
        let merged = sink.merge(&assembled.batch).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
        decoder.set_schema(sink.schema().unwrap());
        buffer = buffer.after(&end, Instant::now());
    }
    assert!(buffer.is_empty(), "half of a key change is left");
    let mut rows = sink.rows();
    for row in &mut rows {
        row.retain(|column, _| !is_metadata(column));
    }
    rows.sort();
    assert_eq!(rows.len(), generator.expected_rows(shape).count());
    for (row, expected) in rows.into_iter().zip(expected(&generator, shape)) {
        assert_eq!(row, expected);
    }
}

/// The same records, each partition's in their order, in runs of one partition and another.
fn skewed(records: Vec<Generated>, partitions: usize, seed: u64) -> Vec<Generated> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut queues: Vec<VecDeque<Generated>> = vec![VecDeque::new(); partitions];
    for record in records {
        queues[usize::try_from(record.partition).unwrap()].push_back(record);
    }
    let mut skewed = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let queue = &mut queues[rng.usize(..partitions)];
        let run = rng.usize(1..60).min(queue.len());
        skewed.extend(queue.drain(..run));
    }
    skewed
}

async fn take(
    buffer: &mut Buffer,
    decoder: &mut Decoder,
    offsets: &mut [i64],
    generated: &Generated,
) {
    let offset = &mut offsets[usize::try_from(generated.partition).unwrap()];
    let mut records = Records::new(Arc::clone(&generated.topic), generated.partition, *offset);
    let headers = generated.headers.iter().map(|(name, value)| (*name, Some(&**value)));
    let (time, key) = (Some(generated.timestamp_ms), Some(&*generated.key));
    assert!(records.push(*offset, time, key, generated.value.as_deref(), headers));
    *offset += 1;
    let record = records.get(0).unwrap();
    let outcome = loop {
        match decoder.scan(&record) {
            Ok(Scanned::Change(change)) => break Outcome::Change(change),
            Err(ScanError::NeedsSchema(id)) => decoder.fetch_schema(id).await.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    buffer.push(records, vec![outcome], Instant::now());
}

/// The rows that a generator expects, as text in order.
pub(crate) fn expected(generator: &Generator, shape: Shape) -> Vec<TextRow> {
    let columns = generator.columns(shape);
    let rows: Vec<Vec<Value>> = generator.expected_rows(shape).collect();
    let arrays = columns.iter().enumerate().map(|(place, column)| {
        array(column, &rows.iter().map(|row| &row[place]).collect::<Vec<_>>())
    });
    let schema = TableSchema::from_parts(columns.clone(), Vec::new(), 0).arrow();
    let rows = RecordBatch::try_new(schema, arrays.collect()).unwrap();
    let mut rows = text_rows(&rows).unwrap();
    rows.sort();
    rows
}

fn array(column: &Column, values: &[&Value]) -> ArrayRef {
    let long = |value: &&Value| match **value {
        Value::Int(number) | Value::Timestamp(number) | Value::TimestampTz(number) => Some(number),
        _ => None,
    };
    let int = |value: &&Value| match **value {
        Value::Int(number) => Some(i32::try_from(number).unwrap()),
        Value::Date(days) => Some(days),
        _ => None,
    };
    let longs = values.iter().map(long);
    let ints = values.iter().map(int);
    match &column.ty {
        ColumnType::Int64 => Arc::new(longs.collect::<Int64Array>()),
        ColumnType::Timestamp => Arc::new(longs.collect::<TimestampMicrosecondArray>()),
        ColumnType::TimestampTz => {
            Arc::new(longs.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        ColumnType::Int32 => Arc::new(ints.collect::<Int32Array>()),
        ColumnType::Date => Arc::new(ints.collect::<Date32Array>()),
        ColumnType::Boolean => {
            let bools =
                values.iter().map(|v| if let Value::Boolean(v) = v { Some(*v) } else { None });
            Arc::new(bools.collect::<BooleanArray>())
        }
        ColumnType::Float64 => {
            let floats =
                values.iter().map(|v| if let Value::Float(v) = v { Some(*v) } else { None });
            Arc::new(floats.collect::<Float64Array>())
        }
        ColumnType::String => {
            let texts =
                values.iter().map(|v| if let Value::String(v) = v { Some(v) } else { None });
            Arc::new(texts.collect::<StringArray>())
        }
        ColumnType::Decimal { precision, scale } => {
            let digits = values.iter().map(|v| match v {
                Value::Decimal { unscaled, .. } => Some(*unscaled),
                _ => None,
            });
            let digits = digits.collect::<Decimal128Array>();
            let scale = i8::try_from(*scale).unwrap();
            Arc::new(digits.with_precision_and_scale(*precision, scale).unwrap())
        }
        other => panic!("no generated column is {other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn a_generated_history_ends_in_the_rows_of_the_source(
    #[values(Shape::Customers, Shape::Orders, Shape::Events, Shape::Stock)] shape: Shape,
    #[values(Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro)] encoding: Encoding,
    #[values(1, 3)] partitions: i32,
) {
    let workload = Workload { partitions, ..workload(shape, encoding) };
    for cuts in [&[usize::MAX][..], &[1], &[100, 7, 1, 333]] {
        assert_lands(&workload, cuts, None).await;
    }
}

/// A key change leaves out values of the row under the old key, which its own delete takes away.
#[rstest]
#[tokio::test]
async fn a_moved_row_keeps_the_values_that_its_record_leaves_out(
    #[values(Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro)] encoding: Encoding,
    #[values(1, 4)] partitions: i32,
) {
    let base = workload(Shape::Events, encoding);
    let mix = Mix { moves: 300, ..Mix::default() };
    let moves = Workload { placeholders_in_moves: true, placeholder_percent: 100, mix, ..base };
    let workload = Workload { partitions, ..moves };
    for cuts in [&[usize::MAX][..], &[1], &[100, 7, 1, 333]] {
        assert_lands(&workload, cuts, None).await;
        assert_lands(&workload, cuts, Some(5)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_history_in_any_batches_ends_in_the_rows_of_the_source(
        seed in any::<u64>(),
        rows in 0..20_u64,
        weights in any::<[u8; 4]>(),
        shape in prop_oneof![Just(Shape::Customers), Just(Shape::Orders), Just(Shape::Stock)],
        add in proptest::option::of(0..300_u64),
        partitions in 1..4,
        skew in any::<Option<u64>>(),
        cuts in proptest::collection::vec(1..100_usize, 1..8),
    ) {
        let [creates, updates, deletes, moves] = weights.map(u32::from);
        let mix = Mix { creates, updates, deletes, moves };
        let base = workload(shape, Encoding::JsonWithSchema);
        let base = Workload { seed, rows, changes: 300, mix, add_column_after: add, ..base };
        let workload = Workload { partitions, placeholders_in_moves: true, ..base };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(assert_lands(&workload, &cuts, skew));
    }
}
