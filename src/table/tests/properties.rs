//! Random histories: the table is what the model is after every commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use roaring::RoaringTreemap;

use super::model::{
    Do, Log, Rows2, apply, batch, block_on, content, memory, options, record_batch, rows, schema,
    step,
};
use crate::position::OffsetRange;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::storage::Location;
use crate::table::files::{Place, read_columns, write};
use crate::table::partition::Partitioning;
use crate::table::physical::Table;
use crate::table::plan::{Counts, DataFile, LiveFile, TableState};

fn range(n: usize, partition: i32) -> OffsetRange {
    let from = i64::try_from(n).unwrap() * 10;
    OffsetRange { partition, from, to: from + 10 }
}

fn counts(before: &Rows2, changes: &BTreeMap<i64, Do>) -> Counts {
    let mut counts = Counts::default();
    for (id, change) in changes {
        match (before.contains_key(id), change) {
            (true, Do::Upsert(..)) => counts.updated += 1,
            (false, Do::Upsert(..)) => counts.inserted += 1,
            (true, Do::Delete) => counts.deleted += 1,
            (false, Do::Delete) => {}
        }
    }
    counts
}

fn with_note(schema: &TableSchema) -> TableSchema {
    schema.with_added(vec![Column::new("note", ColumnType::String, true)])
}

async fn history(
    steps: Vec<(BTreeMap<i64, Do>, bool)>,
    widen_at: usize,
    partitioning: Partitioning,
) {
    let location = memory();
    let partitioning = Arc::new(partitioning);
    let mut schema = Arc::new(schema());
    let mut log = Log::new(Arc::clone(&schema), Arc::clone(&partitioning));
    let mut table = Table::create(location.clone(), Arc::clone(&schema), partitioning, options());
    let mut model = Rows2::new();
    for (n, (mut changes, reopen)) in steps.into_iter().enumerate() {
        if n == widen_at {
            schema = Arc::new(with_note(&schema));
        }
        if n >= widen_at {
            for change in changes.values_mut() {
                if let Do::Upsert(row, ..) = change {
                    row.note = row.name.clone();
                }
            }
        }
        let batch = batch(&schema, &changes, range(n, 0));
        let planned = table.plan(&batch, 5).await.unwrap();
        assert_eq!(planned.commit.counts, counts(&model, &changes));
        log.commit(&planned.commit);
        apply(&mut model, &changes);
        table.applied(&planned).unwrap();
        assert_eq!(content(&location, &schema, &log.state).await, model);
        assert_eq!(rows(&table), model.len());
        if reopen {
            table = Table::open(location.clone(), log.state.clone(), options()).await.unwrap();
            assert_eq!(rows(&table), model.len());
        }
        assert_eq!(table.position(), &log.state.position);
    }
}

/// What happens to a table that two instances share and others write to.
#[derive(Debug, Clone)]
enum Event {
    /// An instance merges a batch; it owns the even or the odd keys.
    Merge(bool, BTreeMap<i64, Do>),
    /// Another engine rewrites all files into one.
    Rewrite,
    /// Another engine deletes a row.
    Delete(usize),
    /// An instance starts again.
    Reopen(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<bool>(), step(15)).prop_map(|(odd, changes)| Event::Merge(odd, changes)),
        1 => Just(Event::Rewrite),
        1 => any::<usize>().prop_map(Event::Delete),
        1 => any::<bool>().prop_map(Event::Reopen),
    ]
}

/// The changes on the keys that an instance owns.
fn owned(changes: BTreeMap<i64, Do>, odd: bool) -> BTreeMap<i64, Do> {
    let own = |key: i64| key * 2 + i64::from(odd);
    let changes = changes.into_iter().map(|(key, change)| match change {
        Do::Upsert(row, holes, from) => (own(key), Do::Upsert(row, holes, own(from))),
        Do::Delete => (own(key), Do::Delete),
    });
    changes.collect()
}

async fn rewrite(location: &Location, log: &mut Log) {
    let rows: Vec<_> = content(location, &schema(), &log.state).await.into_iter().collect();
    if rows.is_empty() {
        return;
    }
    let rows = record_batch(&log.state.schema, &rows);
    let file = write(location, &log.state.schema, Place::default(), rows, false).await.unwrap();
    log.state.files.clear();
    // Another engine's log may say less about it.
    let file = Arc::new(DataFile { rows: 0, stats: BTreeMap::new(), ..file });
    let live = LiveFile { file: Arc::clone(&file), deleted: Arc::default() };
    log.state.files.insert(file.path.clone(), live);
}

/// Deletes one live row as another engine would; its key.
async fn delete(location: &Location, log: &mut Log, pick: usize) -> Option<i64> {
    let paths: Vec<String> = log.state.files.keys().cloned().collect();
    let path = paths.get(pick.checked_rem(paths.len())?)?;
    let live = log.state.files.get(path)?.clone();
    let ids: Vec<Column> = schema().key_columns().cloned().collect();
    let batches = read_columns(location, &live.file, &ids).await.unwrap();
    let batches: Vec<RecordBatch> = batches.try_collect().await.unwrap();
    let ids = concat_batches(&batches[0].schema(), &batches).unwrap();
    let rows = u64::try_from(ids.num_rows()).unwrap();
    let at = (0..rows).find(|at| !live.deleted.contains(*at)).unwrap();
    let mut deleted = RoaringTreemap::clone(&live.deleted);
    deleted.insert(at);
    if deleted.len() == rows {
        log.state.files.remove(path);
    } else {
        log.state.files.get_mut(path).unwrap().deleted = Arc::new(deleted);
    }
    let ids = ids.column(0).as_primitive::<Int64Type>();
    Some(ids.value(usize::try_from(at).unwrap()))
}

async fn shared(events: Vec<Event>) {
    let location = memory();
    let schema = Arc::new(schema());
    let mut log = Log::new(Arc::clone(&schema), Arc::default());
    let open = async |log: &Log| {
        Table::open(location.clone(), log.state.clone(), options()).await.unwrap()
    };
    let mut tables = [open(&log).await, open(&log).await];
    let mut seen = [0; 2];
    let mut merged = [0; 2];
    let mut model = Rows2::new();
    for event in events {
        match event {
            Event::Merge(odd, changes) => {
                let n = usize::from(odd);
                let changes = owned(changes, odd);
                let range = range(merged[n], i32::from(odd));
                let batch = batch(&schema, &changes, range);
                let mut planned = tables[n].plan(&batch, 5).await.unwrap();
                if seen[n] != log.state.version {
                    tables[n].refresh(log.state.clone()).await.unwrap();
                    assert_eq!(rows(&tables[n]), model.len());
                    planned = tables[n].replan(&batch, &planned, 6).await.unwrap();
                }
                assert_eq!(planned.commit.counts, counts(&model, &changes));
                log.commit(&planned.commit);
                apply(&mut model, &changes);
                tables[n].applied(&planned).unwrap();
                (seen[n], merged[n]) = (log.state.version, merged[n] + 1);
            }
            Event::Rewrite => {
                rewrite(&location, &mut log).await;
                log.state.version += 1;
            }
            Event::Delete(pick) => {
                if let Some(id) = delete(&location, &mut log, pick).await {
                    model.remove(&id).unwrap();
                }
                log.state.version += 1;
            }
            Event::Reopen(odd) => {
                tables[usize::from(odd)] = open(&log).await;
                seen[usize::from(odd)] = log.state.version;
            }
        }
        assert_eq!(content(&location, &schema, &log.state).await, model);
    }
}

/// A second log follows now and then, and has the same files afterwards.
async fn followed(steps: Vec<(BTreeMap<i64, Do>, bool)>) {
    let location = memory();
    let (old, new) = (Arc::new(schema()), Arc::new(with_note(&schema())));
    let mut log = Log::new(Arc::clone(&old), Arc::default());
    let mut second = Log::new(Arc::clone(&old), Arc::default());
    let mut table = Table::create(location.clone(), old, Arc::default(), options());
    let mut model = Rows2::new();
    for (n, (changes, follow)) in steps.into_iter().enumerate() {
        let schema = if n > 3 { Arc::clone(&new) } else { Arc::clone(table.schema()) };
        let planned = table.plan(&batch(&schema, &changes, range(n, 0)), 5).await.unwrap();
        log.commit(&planned.commit);
        apply(&mut model, &changes);
        table.applied(&planned).unwrap();
        if follow {
            let stripped = log.state.files.values().map(|live| {
                let file = DataFile { stats: BTreeMap::new(), ..DataFile::clone(&live.file) };
                (
                    file.path.clone(),
                    LiveFile { file: Arc::new(file), deleted: Arc::clone(&live.deleted) },
                )
            });
            let state = TableState { files: stripped.collect(), ..log.state.clone() };
            let table = Table::open(location.clone(), state, options()).await.unwrap();
            let plan = table.difference(&second.state, 7).await.unwrap().unwrap();
            assert!(plan.added.iter().all(|file| !file.stats.is_empty()));
            second.commit(&plan);
            assert_eq!(content(&location, &schema, &second.state).await, model);
            assert_eq!(second.state.position, log.state.position);
            assert_eq!(second.state.last_batch, log.state.last_batch);
            assert!(table.difference(&second.state, 8).await.unwrap().is_none());
        }
    }
}

const PARTITIONINGS: [&str; 6] =
    ["", "day", "truncate(2, name), bucket(3, id)", "months(at)", "price", "truncate(100, price)"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_table_is_what_its_batches_make_it(
        steps in prop::collection::vec((step(25), prop::bool::weighted(0.2)), 1..12),
        widen_at in 0..14_usize,
        partitioning in prop::sample::select(&PARTITIONINGS[..]),
    ) {
        let partitioning = Partitioning::parse(partitioning, &schema()).unwrap();
        block_on(history(steps, widen_at, partitioning));
    }

    #[test]
    fn instances_and_other_engines_share_a_table(
        events in prop::collection::vec(event(), 1..25),
    ) {
        block_on(shared(events));
    }

    #[test]
    fn a_second_log_can_be_brought_up(
        steps in prop::collection::vec((step(10), prop::bool::weighted(0.4)), 1..12),
    ) {
        block_on(followed(steps));
    }
}
