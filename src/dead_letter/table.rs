//! Dead letters as rows of a table, one for all that feed into it.
//!
//! A row's key is its record's place: topic, partition, offset. So a letter is there once, however often its batch is
//! made again after a crash, wherever that batch ends the next time, and whichever instance has the partition then.
//! The table has no position of its own: instances commit beside one another, and each reads first what the others did.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Letter;
use crate::change::Batch;
use crate::error::{Error, Result};
use crate::retry;
use crate::schema::{Column, ColumnType, ListElement, TableSchema};
use crate::sink::lake::{LakeOptions, LakeSink};
use crate::sink::{Merged, Sink};
use crate::table::keys::keys_from_arrow;

/// Letters of one commit; more make another one.
const COMMIT_LETTERS: usize = 20_000;
/// Bytes of the records of one commit, its last one aside.
const COMMIT_BYTES: usize = 32 << 20;
/// How often a commit is made again because the table's schema changed.
const OUTDATED: usize = 3;

/// Timestamps that every reader knows: from year 1 to year 9999, microseconds since the epoch.
const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The table of dead letters.
#[derive(Debug)]
pub(super) struct Table {
    options: LakeOptions,
    /// Whoever has it commits; the others wait for their turn.
    sink: Mutex<LakeSink>,
}

impl Table {
    /// A table that is made with the first letter.
    pub(super) fn new(options: LakeOptions) -> Self {
        let sink = Mutex::new(LakeSink::new(options.clone()));
        Self { options, sink }
    }

    /// Writes `letters`; returns when all are in the table. A store or catalog that does not answer is waited for.
    pub(super) async fn write(&self, letters: &[Letter<'_>]) -> Result<()> {
        let waiting_for = format!("the table of dead letters {}", self.options.name);
        let mut rest = letters;
        while !rest.is_empty() {
            let (commit, after) = rest.split_at_checked(fitting(rest)).unwrap_or((rest, &[]));
            retry::hold(&waiting_for, || self.commit(commit)).await?;
            rest = after;
        }
        Ok(())
    }

    async fn commit(&self, letters: &[Letter<'_>]) -> Result<()> {
        let mut sink = self.sink.lock().await;
        for _ in 0..OUTDATED {
            // What others wrote since: a letter of theirs is not written beside.
            sink.position().await?;
            let schema = sink.schema().unwrap_or_else(|| Arc::new(schema()));
            let rows = rows(letters, &schema, self.options.clock.now_micros())?;
            match sink.merge(&batch(schema, rows)?).await? {
                Merged::Committed(_) => return Ok(()),
                Merged::Outdated => {}
                Merged::Fenced { .. }
                | Merged::Missing { .. }
                | Merged::Stale { .. }
                | Merged::Occupied => {
                    return Err(Error::internal(
                        "dead letters were refused as rows of another table are",
                    ));
                }
            }
        }
        Err(Error::unavailable(format!(
            "the schema of the table of dead letters {} changed {OUTDATED} times in a row",
            self.options.name
        )))
    }
}

/// How many of `letters`, one at least, go into the next commit.
fn fitting(letters: &[Letter<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |letter: &&Letter<'_>| {
        let fits = bytes < COMMIT_BYTES;
        bytes += letter.record.bytes();
        fits
    };
    letters.iter().take(COMMIT_LETTERS).take_while(fits).count().max(1)
}

/// The columns of the table.
fn schema() -> TableSchema {
    let list = |ty| ColumnType::List(Box::new(ListElement { id: 0, ty }));
    let column = |name: &str, ty, nullable| Column::new(name, ty, nullable);
    let columns = vec![
        column("topic", ColumnType::String, false),
        column("partition", ColumnType::Int32, false),
        column("offset", ColumnType::Int64, false),
        column("timestamp", ColumnType::TimestampTz, true),
        column("key", ColumnType::Binary, true),
        column("value", ColumnType::Binary, true),
        column("header_names", list(ColumnType::String), true),
        column("header_values", list(ColumnType::Binary), true),
        column("table", ColumnType::String, false),
        column("reason", ColumnType::String, false),
        column("error", ColumnType::String, false),
        column("at", ColumnType::TimestampTz, false),
    ];
    let key = ["topic", "partition", "offset"].map(str::to_owned).to_vec();
    TableSchema::plain(columns, key)
}

/// A batch that has no place in a log: its rows alone count.
fn batch(schema: Arc<TableSchema>, rows: RecordBatch) -> Result<Batch> {
    let place = schema.key().iter().map(|name| {
        let at = schema.index_of(name);
        at.map(|at| Arc::clone(rows.column(at)))
            .ok_or_else(|| Error::internal("a key has no column"))
    });
    let keys = keys_from_arrow(
        schema.key_columns().map(|column| &column.ty),
        &place.collect::<Result<Vec<_>>>()?,
    )?;
    // A new id with each attempt: rows that an earlier one has brought in are replaced by themselves.
    Ok(Batch::of_rows(Uuid::new_v4(), Vec::new(), schema, rows, keys))
}

/// The rows of `letters`. Columns that others added to the table are null.
fn rows(letters: &[Letter<'_>], schema: &TableSchema, now_micros: i64) -> Result<RecordBatch> {
    let (arrow, count) = (schema.arrow(), letters.len());
    let text = |of: for<'a> fn(&'a Letter<'a>) -> &'a str| -> ArrayRef {
        Arc::new(letters.iter().map(|letter| Some(of(letter))).collect::<StringArray>())
    };
    let columns = arrow.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "topic" => text(|letter| letter.record.topic),
            "table" => text(|letter| letter.table),
            "reason" => text(|letter| letter.reject.reason),
            "error" => text(|letter| &letter.reject.message),
            "partition" => {
                Arc::new(letters.iter().map(|l| l.record.partition).collect::<Int32Array>())
            }
            "offset" => Arc::new(letters.iter().map(|l| l.record.offset).collect::<Int64Array>()),
            "timestamp" => timestamps(letters.iter().map(|l| micros(l.record.timestamp_ms?))),
            "at" => timestamps(std::iter::repeat_n(Some(now_micros), count)),
            "key" => binary(letters.iter().map(|letter| letter.record.key)),
            "value" => binary(letters.iter().map(|letter| letter.record.value)),
            "header_names" => header_names(letters, field),
            "header_values" => header_values(letters, field),
            _ => new_null_array(field.data_type(), count),
        }
    });
    RecordBatch::try_new(Arc::clone(&arrow), columns.collect()).map_err(|e| {
        Error::refused(
            "dead letters do not fit their table: its columns are not those that were made",
        )
        .because(e)
        .hint("name another table in option dead-letters")
    })
}

fn micros(millis: i64) -> Option<i64> {
    millis.checked_mul(1000).filter(|micros| YEARS.contains(micros))
}

fn timestamps(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn binary<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

/// The element of a list column, with the table's field id.
fn element(list: &Field) -> Option<Arc<Field>> {
    match list.data_type() {
        DataType::List(element) => Some(Arc::clone(element)),
        _ => None,
    }
}

fn header_names(letters: &[Letter<'_>], field: &Field) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    if let Some(element) = element(field) {
        lists = lists.with_field(element);
    }
    for letter in letters {
        lists.append_value(letter.record.headers().map(|(name, _)| Some(name)));
    }
    Arc::new(lists.finish())
}

fn header_values(letters: &[Letter<'_>], field: &Field) -> ArrayRef {
    let mut lists = ListBuilder::new(BinaryBuilder::new());
    if let Some(element) = element(field) {
        lists = lists.with_field(element);
    }
    for letter in letters {
        lists.append_value(letter.record.headers().map(|(_, value)| value));
    }
    Arc::new(lists.finish())
}
