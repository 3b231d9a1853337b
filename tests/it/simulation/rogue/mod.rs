//! Somebody else who commits to the tables: another engine, a person.
//!
//! It reads the log as the oracle does, and its requests never fail: when it commits, the instances find a version that
//! they do not know.

mod iceberg;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{concat_batches, filter_record_batch};
use cdc_sink::sink::memory::text_rows;
use fastrand::Rng;
use object_store::PutMode;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::oracle::{Deltas, Live};
use super::store::World;
use super::tables::{Formats, Tables, name};
use super::topics::{Rows, Topics, key_of};

/// What a foreign commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Adds a row whose key the topic does not have.
    Append,
    /// Takes out a row that the topic will not touch again.
    Delete,
    /// Rewrites files into one.
    Optimize,
    /// Adds a column.
    AddColumn,
    /// Takes the table back to an earlier version, and later, if its position did not go back with it, forth again.
    Restore,
}

/// What foreign commits changed, by table and version.
pub(super) type Deeds = BTreeMap<(String, i64), Change>;

/// How the rows of a table differ from those before.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) added: Rows,
    pub(super) removed: Vec<String>,
    /// The table is again what it was in this version.
    pub(super) like: Option<i64>,
}

pub(super) struct Rogue {
    pub(super) world: Arc<World>,
    pub(super) rng: Rng,
    pub(super) deeds: Deeds,
    commits: u32,
    /// Tables that were taken back, and the versions to take them forth to.
    back: Vec<(String, i64)>,
}

impl Rogue {
    pub(super) fn new(world: &Arc<World>, rng: Rng) -> Self {
        Self { world: Arc::clone(world), rng, deeds: Deeds::new(), commits: 0, back: Vec::new() }
    }

    /// Does it to the table of `topic`, if that is one that it can write and has what it takes.
    pub(super) async fn act(&mut self, deed: Deed, topic: &str, topics: &Topics, tables: &Tables) {
        match tables.formats {
            Formats::Delta | Formats::Both { delta_first: true }
                if tables.partition_by.is_empty() =>
            {
                self.act_on_delta(deed, topic, topics).await;
            }
            // Taken back alone, one of two formats halts the table: a person has to say which is right.
            Formats::Both { delta_first: false } if deed == Deed::Restore => {}
            Formats::Iceberg(_) | Formats::Both { delta_first: false } => {
                self.act_on_iceberg(deed, topic, topics, tables).await;
            }
            Formats::Delta | Formats::Both { delta_first: true } => {}
        }
    }

    /// True when the table was taken back at least once.
    pub(super) fn has_taken_back(&self, table: &str) -> bool {
        self.deeds.iter().any(|((taken, _), change)| taken == table && change.like.is_some())
    }

    /// Takes tables forth that were taken back.
    pub(super) async fn undo(&mut self) {
        for (topic, version) in std::mem::take(&mut self.back) {
            let world = Arc::clone(&self.world);
            let log = Deltas::read(&world, &topic).await;
            let actions = restore(&log, version);
            self.commit(
                &topic,
                &log,
                "RESTORE",
                actions,
                Change { like: Some(version), ..Change::default() },
            )
            .await;
        }
    }

    async fn act_on_delta(&mut self, deed: Deed, topic: &str, topics: &Topics) {
        let world = Arc::clone(&self.world);
        let log = Deltas::read(&world, topic).await;
        let Some(number) = log.newest().filter(|number| *number > 0) else { return };
        if self.back.iter().any(|(taken, _)| taken == topic) {
            return;
        }
        let actions = match deed {
            Deed::Append => self.append(&log).await,
            Deed::Delete => self.delete(&log, topic, topics).await,
            Deed::Optimize => self.optimize(&log).await,
            Deed::AddColumn => log.metadata().await.map(|metadata| {
                (vec![json!({ "metaData": with_column(metadata) })], Change::default())
            }),
            Deed::Restore => {
                let version = self.rng.i64(1..=number);
                if log.has_batch_after(self.rows_are_of(name(topic), version)) {
                    self.back.push((topic.to_owned(), number));
                }
                let change = Change { like: Some(version), ..Change::default() };
                Some((restore(&log, version), change))
            }
        };
        let Some((actions, change)) = actions else { return };
        let operation = if deed == Deed::Restore { "RESTORE" } else { "WRITE" };
        self.world.counters.count(&format!("foreign {deed:?}"));
        self.commit(topic, &log, operation, actions, change).await;
    }

    /// The version that made the rows which `version` has: an earlier one where it is a restore.
    fn rows_are_of(&self, table: &str, mut version: i64) -> i64 {
        let like = |version| self.deeds.get(&(table.to_owned(), version))?.like;
        while let Some(earlier) = like(version) {
            version = earlier;
        }
        version
    }

    /// Makes the next version.
    async fn commit(
        &mut self,
        topic: &str,
        log: &Deltas<'_>,
        operation: &str,
        mut actions: Vec<Value>,
        change: Change,
    ) {
        let number = log.newest().unwrap() + 1;
        let version = change.like.map(|version| version.to_string());
        let info = json!({ "operation": operation, "operationParameters": { "version": version } });
        actions.insert(0, json!({ "commitInfo": info }));
        let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
        let table = name(topic).to_owned();
        let path = format!("{table}/_delta_log/{number:020}.json");
        let at = self.world.trace.millis();
        let options = PutMode::Create.into();
        let put = self.world.bucket.put(&path.into(), text.into(), options, at).await;
        put.unwrap();
        self.world.trace.say(format!("rogue: {operation} is version {number} of {table}"));
        self.deeds.insert((table, number), change);
    }

    async fn append(&mut self, log: &Deltas<'_>) -> Option<(Vec<Value>, Change)> {
        let (path, live) = self.rng.choice(log.live())?;
        let row = rows_of(&log.batches(path).await, live)?.slice(0, 1);
        let place = row.schema().index_of("sku").ok()?;
        let mut columns: Vec<ArrayRef> = row.columns().to_vec();
        self.commits += 1;
        columns[place] = Arc::new(StringArray::from(vec![format!("foreign {}", self.commits)]));
        let row = RecordBatch::try_new(row.schema(), columns).unwrap();
        let added = text_rows(&row).unwrap().into_iter().map(|row| (key_of(&row), row)).collect();
        let add = self.write(log, &row, true).await;
        Some((vec![add], Change { added, ..Change::default() }))
    }

    /// A copy of a file without the row.
    async fn delete(
        &mut self,
        log: &Deltas<'_>,
        topic: &str,
        topics: &Topics,
    ) -> Option<(Vec<Value>, Change)> {
        let last = topics.last(topic).await;
        let (path, live) = self.rng.choice(log.live())?;
        let rows = rows_of(&log.batches(path).await, live)?;
        let texts = text_rows(&rows).unwrap();
        let gone = texts.iter().position(|row| last.get(&key_of(row)) == Some(row))?;
        let kept: BooleanArray = (0..rows.num_rows()).map(|at| Some(at != gone)).collect();
        let kept = filter_record_batch(&rows, &kept).unwrap();
        let mut actions = vec![Deltas::remove(live, true)];
        if kept.num_rows() > 0 {
            actions.push(self.write(log, &kept, true).await);
        }
        let removed = vec![key_of(&texts[gone])];
        Some((actions, Change { removed, ..Change::default() }))
    }

    async fn optimize(&mut self, log: &Deltas<'_>) -> Option<(Vec<Value>, Change)> {
        let mut actions = Vec::new();
        let mut batches: Vec<RecordBatch> = Vec::new();
        for (path, live) in log.live() {
            let Some(rows) = rows_of(&log.batches(path).await, live) else { continue };
            if batches.first().is_none_or(|first| first.schema() == rows.schema()) {
                batches.push(rows);
                actions.push(Deltas::remove(live, false));
            }
        }
        let rows = concat_batches(&batches.first()?.schema(), &batches).unwrap();
        actions.push(self.write(log, &rows, false).await);
        Some((actions, Change::default()))
    }

    /// Writes a data file; the action that adds it.
    async fn write(&mut self, log: &Deltas<'_>, rows: &RecordBatch, changes: bool) -> Value {
        self.commits += 1;
        let path = format!("foreign-{}.parquet", self.commits);
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
        let size = bytes.len();
        let at = self.world.trace.millis();
        let place = log.path(&path);
        let put = self.world.bucket.put(&place, bytes.into(), PutMode::Create.into(), at).await;
        put.unwrap();
        json!({ "add": {
            "path": path, "partitionValues": {}, "size": size, "modificationTime": at,
            "dataChange": changes, "stats": json!({ "numRecords": rows.num_rows() }).to_string(),
        }})
    }
}

/// The actions that make the table what it was in `version`.
fn restore(log: &Deltas<'_>, version: i64) -> Vec<Value> {
    let (now, then) = (log.live(), log.live_in(version));
    let gone = now.iter().filter(|now| !then.iter().any(|then| then.1.add == now.1.add));
    let back = then.iter().filter(|then| !now.iter().any(|now| then.1.add == now.1.add));
    let removes = gone.map(|(_, live)| Deltas::remove(live, true));
    removes.chain(back.map(|(_, live)| json!({ "add": live.add }))).collect()
}

/// The rows of a file that are not deleted; none when there are none.
fn rows_of(batches: &[RecordBatch], live: &Live) -> Option<RecordBatch> {
    let all = concat_batches(&batches.first()?.schema(), batches).unwrap();
    let kept = (0..all.num_rows()).map(|at| Some(!live.deleted.contains(at as u64)));
    let kept = filter_record_batch(&all, &kept.collect::<BooleanArray>()).unwrap();
    (kept.num_rows() > 0).then_some(kept)
}

/// The table's metadata with one more column.
fn with_column(mut metadata: Value) -> Value {
    let mut schema: Value =
        serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    let name = format!("foreign_{}", fields.len());
    fields.push(json!({ "name": name, "type": "string", "nullable": true, "metadata": {} }));
    metadata["schemaString"] = schema.to_string().into();
    metadata
}
