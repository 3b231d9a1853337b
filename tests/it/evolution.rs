//! The source's columns go, widen, become optional and change their type, and the table follows in the very commit that
//! brings the first such row: from records to what every format holds, in one instance and across restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use cdc_sink::batch::{Buffer, Given, Outcome};
use cdc_sink::change::Batch;
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Evolution, Options, Scanned, SchemaHistory, TypeConflict};
use cdc_sink::error::{Kind, Result};
use cdc_sink::record::Records;
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, read};
use cdc_sink::sink::memory::text_rows;
use cdc_sink::sink::{Merged, Sink};
use rstest::rstest;
use rstest_reuse::{apply, template};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::batches::{logs, options};
use crate::readers;

/// A writer: its columns and their types, `?` after those that may be null. The first is the key.
type Writer = &'static [(&'static str, &'static str)];

const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// A table and who writes it; what was written so far is in it.
struct Course {
    lake: LakeOptions,
    evolution: Evolution,
    /// Every batch is another instance's.
    restarts: bool,
    running: Option<(Decoder, LakeSink)>,
    next: i64,
    /// Where the source's renames are told.
    history: Option<Arc<SchemaHistory>>,
    /// How long a column must be absent to be dropped, and what time it is, in milliseconds.
    drops: Option<(i64, Arc<AtomicI64>)>,
    /// When the source wrote the rows, if that is not now.
    written_at: Option<i64>,
    /// What the last commit made: a version of each format.
    versions: BTreeMap<String, i64>,
    #[expect(dead_code, reason = "is removed when dropped")]
    folder: tempfile::TempDir,
}

impl Course {
    fn new(formats: &str, restarts: bool) -> Self {
        let [mut delta, iceberg] = logs(if formats.ends_with("v2") { 2 } else { 3 });
        if let LogSetup::Delta(delta) = &mut delta {
            delta.checkpoint_interval = 2;
        }
        let logs = match formats {
            "delta" => vec![delta],
            "both" => vec![delta, iceberg],
            _ => vec![iceberg],
        };
        let folder = tempfile::tempdir().unwrap();
        let lake = LakeOptions { partition_by: String::new(), ..options(&folder, logs) };
        let evolution = Evolution { widen: true, conflict: TypeConflict::Halt };
        Self {
            lake,
            evolution,
            restarts,
            running: None,
            next: 0,
            history: None,
            drops: None,
            written_at: None,
            versions: BTreeMap::new(),
            folder,
        }
    }

    fn conflicts(mut self) -> Self {
        self.evolution.conflict = TypeConflict::NewColumn;
        self
    }

    async fn instance(&mut self) -> &mut (Decoder, LakeSink) {
        if self.restarts || self.running.is_none() {
            let options = Options {
                placeholder: PLACEHOLDER.into(),
                evolution: self.evolution,
                ..Options::default()
            };
            let mut sink = LakeSink::new(self.lake.clone());
            let _ = sink.position().await.unwrap();
            let mut decoder = Decoder::new(options, None, sink.schema());
            if let Some(history) = &self.history {
                decoder = decoder.with_history(Arc::clone(history), "db.public.t".into());
            }
            if let Some((after, now)) = &self.drops {
                let now = Arc::clone(now);
                let clock = Clock::from_fn(move || now.load(Ordering::SeqCst) * 1000);
                let after = Duration::from_millis(u64::try_from(*after).unwrap());
                decoder = decoder.with_drops(clock, after);
            }
            decoder.keep_columns(sink.partition_columns());
            self.running = Some((decoder, sink));
        }
        self.running.as_mut().unwrap()
    }

    /// One batch of updates, each with its writer; a row that is only a key is a delete.
    async fn write(&mut self, rows: &[(Writer, Value)]) -> Result<()> {
        self.write_with(rows, |batch| batch).await
    }

    async fn write_with(
        &mut self,
        rows: &[(Writer, Value)],
        change: impl FnOnce(Batch) -> Batch,
    ) -> Result<()> {
        let from = self.next;
        let now = self.drops.as_ref().map(|(_, now)| now.load(Ordering::SeqCst));
        let written_at = self.written_at.or(now);
        let (decoder, sink) = self.instance().await;
        let mut records = Records::new("db.public.t".into(), 0, from);
        for ((writer, row), offset) in rows.iter().zip(from..) {
            let (key, value) = record(writer, row, written_at);
            assert!(records.push(offset, None, Some(key.as_bytes()), Some(value.as_bytes()), []));
        }
        let outcomes = records.iter().map(|record| match decoder.scan(&record) {
            Ok(Scanned::Change(change)) => Outcome::Change(change),
            other => panic!("{other:?}"),
        });
        let outcomes = outcomes.collect();
        let mut buffer = Buffer::default();
        buffer.start_at([(0, from)]);
        buffer.push(records, outcomes, Instant::now());
        let assembled = buffer.assemble(decoder, Uuid::new_v4(), &Given::default())?;
        assert!(assembled.rejected.is_empty(), "{:?}", assembled.rejected);
        let merged = sink.merge(&change(assembled.batch)).await?;
        let Merged::Committed(committed) = merged else { panic!("{merged:?}") };
        decoder.set_schema(sink.schema().unwrap());
        decoder.keep_columns(sink.partition_columns());
        self.versions = committed.versions().clone();
        self.next = from + i64::try_from(rows.len()).unwrap();
        Ok(())
    }

    /// The connector tells of a statement and of the columns that the table has since.
    async fn tells(&mut self, ddl: &str, columns: &[&str]) {
        let columns: Vec<Value> = columns.iter().map(|name| json!({"name": name})).collect();
        let change = json!({
            "source": {"name": "db", "db": "public"}, "ddl": ddl, "databaseName": "public",
            "tableChanges": [{"type": "ALTER", "id": "\"public\".\"t\"", "table": {"columns": columns}}],
        });
        let history = self.history.get_or_insert_default();
        history.take(change.to_string().as_bytes(), None).await.unwrap();
        history.reach_end();
    }

    /// What every format holds, by key; metadata columns aside.
    async fn holds(&self, expected: Value) {
        let formats = read(&self.lake).await.unwrap();
        assert_eq!(formats.len(), self.lake.logs.len());
        for (format, batches) in formats {
            let rows: Vec<Value> = batches.iter().flat_map(texts).collect();
            let found: BTreeMap<String, Value> =
                rows.into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect();
            let found: Vec<Value> = found.into_values().collect();
            assert_eq!(Value::Array(found), expected, "{format}");
        }
    }

    async fn schema(&mut self) -> Arc<TableSchema> {
        self.instance().await.1.schema().unwrap()
    }

    async fn types(&mut self) -> BTreeMap<String, ColumnType> {
        let schema = self.schema().await;
        let own = schema.columns().iter().filter(|column| !column.name.starts_with("_cdc"));
        own.map(|column| (column.name.clone(), column.ty.clone())).collect()
    }

    /// What readers that we did not write find, when they are there.
    fn is_read_by_others(&self, expected: &Value) {
        for (reader, rows) in readers::read(&self.lake) {
            if self.is_not_for(&reader) {
                continue;
            }
            assert_eq!(Value::Array(rows), *expected, "{reader}");
        }
    }

    /// The same at versions since the start.
    fn was_read_by_others(&self, story: &Story) {
        let versions: Vec<_> = story.iter().map(|(versions, _)| versions.clone()).collect();
        let found = readers::read_at(&self.lake, &versions);
        assert!(found.is_empty() || found.len() == 2 * self.lake.logs.len() * story.len());
        for (reader, rows) in found {
            if self.is_not_for(&reader) {
                continue;
            }
            let format = if reader.contains("Iceberg") { "iceberg" } else { "delta" };
            let at = |versions: &BTreeMap<String, i64>| {
                reader.ends_with(&format!(" at {}", versions[format]))
            };
            let (_, expected) = story.iter().find(|(versions, _)| at(versions)).unwrap();
            assert_eq!(Value::Array(rows), *expected, "{reader}");
        }
    }

    /// DuckDB finds no values of partition columns in a Delta table that maps its columns (duckdb-delta's issue 343).
    fn is_not_for(&self, reader: &str) -> bool {
        let schema = self.running.as_ref().and_then(|(_, sink)| sink.schema());
        let is_mapped = schema.is_some_and(|schema| schema.is_mapped());
        is_mapped && !self.lake.partition_by.is_empty() && reader.starts_with("DuckDB on Delta")
    }
}

/// Versions of each format, and what the table held there.
type Story = Vec<(BTreeMap<String, i64>, Value)>;

/// Key and value of an update's record, in JSON with schema; a writer without columns writes JSON without one.
fn record(writer: Writer, row: &Value, written_at: Option<i64>) -> (String, String) {
    let source = written_at.map_or_else(|| json!({}), |at| json!({"ts_ms": at}));
    let Some((name, ty)) = writer.first().copied() else {
        let key = json!({"id": row["id"]});
        let value = json!({"before": null, "after": row, "source": source, "op": "u"});
        return (key.to_string(), value.to_string());
    };
    let key = json!({
        "schema": {"type": "struct", "fields": [field(name, ty)]},
        "payload": {name: row[name]},
    });
    let fields: Vec<Value> = writer.iter().map(|(name, ty)| field(name, ty)).collect();
    let image =
        |field: &str| json!({"type": "struct", "optional": true, "fields": fields, "field": field});
    let deletes = row.as_object().unwrap().len() == 1;
    let (op, after) = if deletes { ("d", &Value::Null) } else { ("u", row) };
    let value = json!({
        "schema": {"type": "struct", "name": "db.public.t.Envelope", "fields": [
            image("before"), image("after"),
            {"type": "struct", "fields": [], "field": "source"}, {"type": "string", "field": "op"},
        ]},
        "payload": {"before": null, "after": after, "source": source, "op": op},
    });
    (key.to_string(), value.to_string())
}

fn field(name: &str, ty: &str) -> Value {
    let (ty, optional) = ty.strip_suffix('?').map_or((ty, false), |ty| (ty, true));
    let mut field = match ty.split_once('(') {
        Some(("decimal", digits)) => {
            let (precision, scale) = digits.trim_end_matches(')').split_once(',').unwrap();
            json!({
                "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal",
                "parameters": {"scale": scale, "connect.decimal.precision": precision},
            })
        }
        Some(("list", element)) => {
            json!({"type": "array", "items": {"type": element.trim_end_matches(')'), "optional": true}})
        }
        _ => json!({"type": ty}),
    };
    field["field"] = name.into();
    field["optional"] = optional.into();
    field
}

fn texts(batch: &RecordBatch) -> Vec<Value> {
    let rows = text_rows(batch).unwrap().into_iter();
    rows.map(|row| {
        let own = row.into_iter().filter(|(name, _)| !name.starts_with("_cdc"));
        json!(own.collect::<BTreeMap<_, _>>())
    })
    .collect()
}

#[template]
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn everywhere(
    #[values("delta", "iceberg-v2", "iceberg-v3", "both")] formats: &str,
    #[values(false, true)] restarts: bool,
) {
}

mod drops;
mod renames;

#[apply(everywhere)]
async fn a_column_that_the_source_drops_stays_and_is_null(formats: &str, restarts: bool) {
    const OLD: Writer = &[("id", "int32"), ("a", "string?"), ("b", "string?")];
    const NEW: Writer = &[("id", "int32"), ("b", "string?"), ("c", "int64")];
    let mut course = Course::new(formats, restarts);
    let old = |id: i32, a: &str| (OLD, json!({"id": id, "a": a, "b": "b"}));
    let new = |id: i32, c: i64| (NEW, json!({"id": id, "b": "B", "c": c}));
    course.write(&[old(1, "x"), old(2, "y"), old(3, "z")]).await.unwrap();
    course.write(&[new(2, 5)]).await.unwrap();
    // After a restart of the connector the old schema comes again, in one batch with the new one too.
    course.write(&[new(4, 7), old(3, "zz"), old(5, "v")]).await.unwrap();
    course.write(&[old(6, "w")]).await.unwrap();
    let expected = json!([
        {"id": "1", "a": "x", "b": "b"},
        {"id": "2", "b": "B", "c": "5"},
        {"id": "3", "a": "zz", "b": "b"},
        {"id": "4", "b": "B", "c": "7"},
        {"id": "5", "a": "v", "b": "b"},
        {"id": "6", "a": "w", "b": "b"},
    ]);
    course.holds(expected).await;
    assert_eq!(course.schema().await.columns().len(), 4 + 4);
}

/// Another engine may have made a column NOT NULL.
#[apply(everywhere)]
async fn a_column_becomes_optional_when_the_source_has_nulls_or_nothing(
    formats: &str,
    restarts: bool,
) {
    const WHOLE: Writer = &[("id", "int32"), ("a", "string"), ("b", "string"), ("c", "string")];
    const NULLS: Writer = &[("id", "int32"), ("b", "string"), ("c", "string?")];
    let mut course = Course::new(formats, restarts);
    let whole = |id: i32| (WHOLE, json!({"id": id, "a": "a", "b": "b", "c": "c"}));
    let required = |batch: Batch| {
        let columns = batch.schema.columns().iter();
        let columns = columns.filter(|column| !column.name.starts_with("_cdc"));
        let columns = columns.map(|column| Column::new(&column.name, column.ty.clone(), false));
        let schema = TableSchema::create(columns.collect(), batch.schema.key().to_vec());
        let rows = RecordBatch::try_new(schema.arrow(), batch.rows.columns().to_vec()).unwrap();
        Batch { schema: Arc::new(schema), rows, ..batch }
    };
    course.write_with(&[whole(1), whole(2)], required).await.unwrap();
    course.write(&[whole(2)]).await.unwrap();
    let nullable = |schema: Arc<TableSchema>| {
        ["a", "b", "c"].map(|name| schema.column(name).unwrap().nullable)
    };
    assert_eq!(nullable(course.schema().await), [false, false, false]);
    course.write(&[(NULLS, json!({"id": 3, "b": "B", "c": null})), whole(4)]).await.unwrap();
    assert_eq!(nullable(course.schema().await), [true, false, true]);
    course.write(&[whole(1)]).await.unwrap();
    let whole = |id: &str| json!({"id": id, "a": "a", "b": "b", "c": "c"});
    let expected = json!([whole("1"), whole("2"), {"id": "3", "b": "B"}, whole("4")]);
    course.holds(expected.clone()).await;
    assert_eq!(nullable(course.schema().await), [true, false, true]);
    course.is_read_by_others(&expected);
}

const NARROW: Writer = &[
    ("id", "int32"),
    ("n", "int32?"),
    ("f", "float32?"),
    ("d", "decimal(5,2)?"),
    ("l", "list(int32)?"),
    ("t", "string?"),
];
const WIDE: Writer = &[
    ("id", "int64"),
    ("n", "int64?"),
    ("f", "float64?"),
    ("d", "decimal(12,2)?"),
    ("l", "list(int64)?"),
    ("t", "string?"),
];
const WIDE_KEY: Writer = &[("id", "int64"), ("n", "int32?")];
const WIDE_NUMBER: Writer = &[("id", "int32"), ("n", "int64?")];
const WIDEST: Writer = &[("id", "int64"), ("d", "decimal(30,2)?")];

/// A history in which every column that can widen does, the key among them, and what it comes to.
async fn widened(course: &mut Course) -> Value {
    let row = |writer: Writer, id: i64, n: i64, t: &str| {
        (writer, json!({"id": id, "n": n, "f": 0.5, "d": n, "l": [n, null], "t": t}))
    };
    let small = |id, n, t: &str| row(NARROW, id, n, t);
    let large = |id, n, t: &str| row(WIDE, id, n, t);
    course.write(&[small(1, 1, "a"), small(2, 2, "b"), small(3, 3, "c")]).await.unwrap();
    course.write(&[small(4, 4, "d"), small(5, 5, "e")]).await.unwrap();
    // Keys of the old width are found by the new; what was not sent is read from files of the old types.
    let unchanged: Vec<u8> = PLACEHOLDER.bytes().collect();
    let hole = json!({"id": 2, "n": 7_000_000_000_i64, "f": 1e300, "d": 7, "l": unchanged, "t": PLACEHOLDER});
    let gone = json!({"id": 3});
    let first = [(WIDE, hole), (WIDE, gone), large(6_000_000_000, 8_000_000_000, "f")];
    course.write(&first).await.unwrap();
    // Old and new schema in one batch, in both orders, and the old one alone.
    course.write(&[large(7, 9_000_000_000, "g"), small(1, 11, "aa")]).await.unwrap();
    course.write(&[small(8, 12, "h"), large(9, 9_000_000_001, "i")]).await.unwrap();
    course.write(&[small(10, 13, "j"), (NARROW, json!({"id": 5}))]).await.unwrap();
    let digits = json!({"id": 11, "d": 9_000_000_000_000_000_000_i64});
    course.write(&[(WIDEST, digits)]).await.unwrap();
    let row = |id: &str, n: &str, t: &str| {
        json!({
            "id": id, "n": n, "f": "0.5", "d": format!("{n}.00"), "l": format!("[{n}, ]"), "t": t,
        })
    };
    json!([
        row("1", "11", "aa"),
        row("10", "13", "j"),
        {"id": "11", "d": "9000000000000000000.00"},
        {"id": "2", "n": "7000000000", "f": "1e300", "d": "7.00", "l": "[2, ]", "t": "b"},
        row("4", "4", "d"),
        row("6000000000", "8000000000", "f"),
        row("7", "9000000000", "g"),
        row("8", "12", "h"),
        row("9", "9000000001", "i"),
    ])
}

#[apply(everywhere)]
async fn columns_widen_in_place(formats: &str, restarts: bool) {
    let mut course = Course::new(formats, restarts);
    let expected = widened(&mut course).await;
    course.holds(expected.clone()).await;
    let types = course.types().await;
    assert_eq!((&types["id"], &types["n"]), (&ColumnType::Int64, &ColumnType::Int64));
    assert_eq!(types["f"], ColumnType::Float64);
    assert_eq!(types["d"], ColumnType::Decimal { precision: 30, scale: 2 });
    assert!(matches!(&types["l"], ColumnType::List(list) if list.ty == ColumnType::Int64));
    course.is_read_by_others(&expected);
}

/// Delta's readers do not all know wider types: without the option nothing widens there.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_widens_in_delta_unless_it_may(#[values("delta", "both")] formats: &str) {
    let mut course = Course::new(formats, false);
    course.evolution.widen = false;
    course.write(&[(NARROW, json!({"id": 1, "n": 1}))]).await.unwrap();
    let wide = [(WIDE, json!({"id": 1, "n": 2}))];
    let error = course.write(&wide).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.report().contains("type-widening"), "{}", error.report());

    // Nor when it comes from another side: the table's log says no.
    let LogSetup::Delta(delta) = &mut course.lake.logs[0] else { panic!("Delta comes first") };
    delta.type_widening = false;
    (course.evolution.widen, course.running) = (true, None);
    let error = course.write(&wide).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.report().contains("type-widening"), "{}", error.report());
    course.holds(json!([{"id": "1", "n": "1"}])).await;

    // The values have a column of their own then, if they may.
    (course.evolution.widen, course.running) = (false, None);
    let mut course = course.conflicts();
    course.write(&[(WIDE_NUMBER, json!({"id": 2, "n": 7_000_000_000_i64}))]).await.unwrap();
    course.holds(json!([{"id": "1", "n": "1"}, {"id": "2", "n__long": "7000000000"}])).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_partitions_the_table_keeps_its_type(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
) {
    let mut course = Course::new(formats, false);
    course.lake.partition_by = "bucket(4, id), n".into();
    course.write(&[(NARROW, json!({"id": 1, "n": 1}))]).await.unwrap();
    course.write(&[(WIDE_KEY, json!({"id": 1, "n": 2}))]).await.unwrap();
    let error = course.write(&[(WIDE, json!({"id": 1, "n": 3}))]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("partitions"), "{error}");
    course.holds(json!([{"id": "1", "n": "2"}])).await;
}

const NUMBER: Writer = &[("id", "int32"), ("v", "int32?"), ("t", "string?")];
const TEXT: Writer = &[("id", "int32"), ("v", "string?"), ("t", "string?")];
const DECIMAL: Writer = &[("id", "int32"), ("v", "decimal(9,2)?"), ("t", "string?")];

#[apply(everywhere)]
async fn values_of_another_type_get_a_column_of_their_own(formats: &str, restarts: bool) {
    let mut course = Course::new(formats, restarts).conflicts();
    let number = |id: i32, v: i32| (NUMBER, json!({"id": id, "v": v, "t": "t"}));
    let text = |id: i32, v: &str, t: &str| (TEXT, json!({"id": id, "v": v, "t": t}));
    course.write(&[number(1, 1), number(2, 2), number(3, 3), number(4, 4)]).await.unwrap();
    course.write(&[text(1, "one", "t"), text(3, PLACEHOLDER, "T")]).await.unwrap();
    // Old writers' rows go where they always did, also in one batch with others.
    course.write(&[text(5, "five", "t"), number(2, 22), number(6, 6)]).await.unwrap();
    course.write(&[number(5, 55), (DECIMAL, json!({"id": 7, "v": 7, "t": "t"}))]).await.unwrap();
    // What did not change stays where it is: within a batch, and in the table.
    course.write(&[number(6, 66), text(6, PLACEHOLDER, "T")]).await.unwrap();
    course.write(&[text(7, PLACEHOLDER, "T"), (NUMBER, json!({"id": 4}))]).await.unwrap();
    let expected = json!([
        {"id": "1", "v__string": "one", "t": "t"},
        {"id": "2", "v": "22", "t": "t"},
        {"id": "3", "v": "3", "t": "T"},
        {"id": "5", "v": "55", "t": "t"},
        {"id": "6", "v": "66", "t": "T"},
        {"id": "7", "v__decimal_9_2": "7.00", "t": "T"},
    ]);
    course.holds(expected.clone()).await;
    course.is_read_by_others(&expected);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[case::without_the_option(false, TEXT, json!({"id": 1, "v": "x"}), "column v is int")]
#[case::of_the_key(true, &[("id", "string"), ("v", "int32?")], json!({"id": "1", "v": 1}), "column id is int")]
#[case::of_the_key_in_a_delete(true, &[("id", "string")], json!({"id": "1"}), "column id is int")]
#[case::of_a_name_that_is_taken(
    true,
    &[("id", "int32"), ("v", "string?"), ("v__string", "string?")],
    json!({"id": 1, "v": "x", "v__string": "y"}),
    "column v is int"
)]
#[case::in_case_alone(true, &[("id", "int32"), ("V", "int32?")], json!({"id": 1, "V": 1}), "upper and lower case")]
async fn what_cannot_be_halts(
    #[case] new_column: bool,
    #[case] writer: Writer,
    #[case] row: Value,
    #[case] why: &str,
) {
    let mut course = Course::new("both", false);
    if new_column {
        course = course.conflicts();
    }
    course.write(&[(NUMBER, json!({"id": 1, "v": 1}))]).await.unwrap();
    for _ in 0..2 {
        let error = course.write(&[(writer, row.clone())]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains(why), "{error}");
    }
    course.holds(json!([{"id": "1", "v": "1"}])).await;
}
