//! Random histories: the table is what the model is after every commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::{ProptestConfig, prop, proptest};

use super::model::{Do, Log, Rows2, apply, batch, content, memory, options, rows, schema, step};
use crate::position::OffsetRange;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::table::partition::Partitioning;
use crate::table::physical::Table;
use crate::table::plan::Counts;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_is_what_its_batches_make_it(
        steps in prop::collection::vec((step(25), prop::bool::weighted(0.2)), 1..12),
        widen_at in 0..14_usize,
    ) {
        block_on(history(steps, widen_at, Partitioning::default()));
    }
}
