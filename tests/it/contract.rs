//! What every sink promises ([`Sink`]), asked of the table in memory and of the lake's formats alike.

mod traced;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cdc_sink::change::{
    Batch, Departed, Departing, Departure, Hole, InitialSnapshot, KeyChange, Moves, Origin, Own,
};
use cdc_sink::position::{OffsetRange, Position};
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::lake::{LakeOptions, LakeSink, read};
use cdc_sink::sink::memory::{MemorySink, TextRow, text_rows};
use cdc_sink::sink::{Merged, Sink};
use rstest::rstest;
use rstest_reuse::{apply, template};

use crate::batches::{Changes, batch, key, logs, options, schema, tables};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Memory,
    Delta,
    IcebergV2,
    IcebergV3,
    Both,
}

/// A table that several instances can keep.
enum Place {
    Memory(MemorySink),
    Lake(
        Box<LakeOptions>,
        #[expect(dead_code, reason = "is removed when dropped")] tempfile::TempDir,
    ),
}

/// An instance that keeps it.
enum Instance {
    Memory(MemorySink),
    Lake(Box<LakeSink>),
}

impl Place {
    fn new(kind: Kind) -> Self {
        let version = if matches!(kind, Kind::IcebergV2) { 2 } else { 3 };
        let [delta, iceberg] = logs(version);
        let logs = match kind {
            Kind::Memory => return Self::Memory(MemorySink::default()),
            Kind::Delta => vec![delta],
            Kind::IcebergV2 | Kind::IcebergV3 => vec![iceberg],
            Kind::Both => vec![delta, iceberg],
        };
        let folder = tempfile::tempdir().unwrap();
        Self::Lake(Box::new(options(&folder, logs)), folder)
    }

    fn instance(&self) -> Instance {
        match self {
            Self::Memory(sink) => Instance::Memory(sink.clone()),
            Self::Lake(options, _) => {
                Instance::Lake(Box::new(LakeSink::new(LakeOptions::clone(options))))
            }
        }
    }

    /// The text of each key, the same in every format.
    async fn rows(&self) -> BTreeMap<i64, String> {
        match self {
            Self::Memory(sink) => {
                let row = |row: BTreeMap<String, String>| {
                    (row["id"].parse().unwrap(), row["text"].clone())
                };
                sink.rows().into_iter().map(row).collect()
            }
            Self::Lake(options, _) => {
                let mut formats = tables(options).await.into_iter();
                let (_, rows) = formats.next().unwrap();
                formats.for_each(|(format, other)| assert_eq!(other, rows, "{format}"));
                rows
            }
        }
    }

    /// The texts of each key but the nulls, by column, the same in every format.
    async fn texts(&self) -> BTreeMap<i64, BTreeMap<String, String>> {
        let own = |row: BTreeMap<String, String>| {
            let id = row["id"].parse().unwrap();
            let is_own = |name: &String| name != "id" && !name.starts_with("_cdc");
            (id, row.into_iter().filter(|(name, _)| is_own(name)).collect())
        };
        self.each(own).await
    }

    /// What `own` makes of each row, by its id; the same in every format.
    async fn each<T: PartialEq + std::fmt::Debug>(
        &self,
        own: impl Fn(TextRow) -> (i64, T),
    ) -> BTreeMap<i64, T> {
        match self {
            Self::Memory(sink) => sink.rows().into_iter().map(own).collect(),
            Self::Lake(options, _) => {
                let formats = read(options).await.unwrap().into_iter();
                let mut formats = formats.map(|(format, batches)| {
                    let rows = batches.iter().flat_map(|batch| text_rows(batch).unwrap());
                    (format, rows.map(&own).collect())
                });
                let (_, rows) = formats.next().unwrap();
                formats.for_each(|(format, other)| assert_eq!(other, rows, "{format}"));
                rows
            }
        }
    }
}

impl Instance {
    async fn position(&mut self) -> Position {
        match self {
            Self::Memory(sink) => sink.position().await,
            Self::Lake(sink) => sink.position().await,
        }
        .unwrap()
    }

    fn moves(&self) -> Moves {
        match self {
            Self::Memory(sink) => sink.moves(),
            Self::Lake(sink) => sink.moves(),
        }
    }

    fn schema(&self) -> Option<Arc<TableSchema>> {
        match self {
            Self::Memory(sink) => sink.schema(),
            Self::Lake(sink) => sink.schema(),
        }
    }

    async fn departed(&mut self) -> Departed {
        let keys = [key(3), key(99)];
        match self {
            Self::Memory(sink) => sink.departed(&keys).await,
            Self::Lake(sink) => sink.departed(&keys).await,
        }
        .unwrap()
    }

    async fn merge(&mut self, batch: &Batch) -> Merged {
        match self {
            Self::Memory(sink) => sink.merge(batch).await,
            Self::Lake(sink) => sink.merge(batch).await,
        }
        .unwrap()
    }

    async fn commit(&mut self, batch: &Batch) {
        let merged = self.merge(batch).await;
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
    }
}

fn in_partition(mut batch: Batch, partition: i32) -> Batch {
    for range in &mut batch.ranges {
        range.partition = partition;
    }
    batch
}

fn rows(changes: Changes<'_>) -> BTreeMap<i64, String> {
    changes.iter().map(|(id, text)| (*id, text.unwrap().to_owned())).collect()
}

const FIRST: Changes<'_> = &[(1, Some("a")), (2, Some("b")), (11, Some("c"))];
const SECOND: Changes<'_> = &[(2, Some("B")), (11, None), (77, None), (12, Some("d"))];
const AFTER_BOTH: Changes<'_> = &[(1, Some("a")), (2, Some("B")), (12, Some("d"))];

#[template]
#[rstest]
#[tokio::test]
async fn sinks(
    #[values(Kind::Memory, Kind::Delta, Kind::IcebergV2, Kind::IcebergV3, Kind::Both)] kind: Kind,
) {
}

#[apply(sinks)]
async fn a_table_that_is_not_there_has_no_position_and_no_schema(kind: Kind) {
    let mut sink = Place::new(kind).instance();
    assert_eq!(sink.position().await, Position::default());
    assert!(sink.schema().is_none());
}

#[apply(sinks)]
async fn a_merge_upserts_deletes_and_moves_the_position(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    assert_eq!(place.rows().await, rows(FIRST));
    sink.commit(&batch(&schema, 10, SECOND)).await;
    assert_eq!(place.rows().await, rows(AFTER_BOTH));
    assert_eq!(sink.position().await.get(0), Some(20));
    let mut another = place.instance();
    assert_eq!(another.position().await.get(0), Some(20));
    assert_eq!(another.schema(), Some(schema));
}

#[apply(sinks)]
async fn the_same_batch_again_changes_nothing(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let second = batch(&schema, 10, SECOND);
    sink.commit(&second).await;
    for mut sink in [sink, place.instance()] {
        match sink.merge(&second).await {
            Merged::Committed(receipt) => assert_eq!(receipt.position().get(0), Some(20)),
            Merged::Fenced { stored } => assert_eq!(stored.get(0), Some(20)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(place.rows().await, rows(AFTER_BOTH));
}

#[apply(sinks)]
async fn a_batch_that_does_not_start_at_the_position_is_fenced(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, mut late, schema) = (place.instance(), place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let _ = late.position().await;
    sink.commit(&batch(&schema, 10, SECOND)).await;
    let overlap = OffsetRange { partition: 0, from: 10, to: 15 };
    let overlapping = Batch { ranges: vec![overlap], ..batch(&schema, 10, FIRST) };
    for wrong in [overlapping, batch(&schema, 30, FIRST)] {
        let merged = late.merge(&wrong).await;
        let Merged::Fenced { stored } = merged else { panic!("{merged:?}") };
        assert_eq!(stored.get(0), Some(20));
    }
    assert_eq!(place.rows().await, rows(AFTER_BOTH));
}

/// Each one's commit is news to the other, which finds out when its own is refused.
#[apply(sinks)]
async fn instances_with_other_partitions_take_turns(kind: Kind) {
    let place = Place::new(kind);
    let (mut one, mut two, schema) = (place.instance(), place.instance(), Arc::new(schema()));
    one.commit(&batch(&schema, 0, FIRST)).await;
    let _ = two.position().await;
    let mut expected = rows(FIRST);
    for turn in 0..4 {
        let (mine, yours) = (format!("one {turn}"), format!("two {turn}"));
        one.commit(&batch(&schema, 10 + turn * 10, &[(1, Some(mine.as_str()))])).await;
        let theirs = batch(&schema, turn * 10, &[(2, Some(yours.as_str()))]);
        two.commit(&in_partition(theirs, 1)).await;
        expected.extend([(1, mine), (2, yours)]);
        assert_eq!(place.rows().await, expected);
    }
}

/// Instances that make the table at once need not know as much of its topic.
#[apply(sinks)]
async fn the_table_stays_as_the_first_instance_made_it(
    kind: Kind,
    #[values((None, Some(3)), (Some(3), None), (Some(2), Some(3)))] known: (
        Option<i32>,
        Option<i32>,
    ),
) {
    let place = Place::new(kind);
    let [first, second] =
        [known.0, known.1].map(|partitions| Arc::new(schema().with_partitions(partitions)));
    let (mut one, mut two) = (place.instance(), place.instance());
    one.commit(&batch(&first, 0, FIRST)).await;
    let merged = two.merge(&batch(&second, 10, SECOND)).await;
    assert!(matches!(merged, Merged::Outdated), "{merged:?}");
    let told = two.schema().unwrap();
    assert_eq!(told.partitions(), known.0);
    two.commit(&batch(&told, 10, SECOND)).await;
}

#[apply(sinks)]
async fn a_new_column_comes_with_the_batch_and_older_batches_are_outdated(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, narrow) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&narrow, 0, FIRST)).await;
    let mut late = place.instance();
    let _ = late.position().await;
    let more = Column::new("more", ColumnType::String, true);
    let wide = Arc::new(narrow.with_added(vec![more]));
    sink.commit(&batch(&wide, 10, SECOND)).await;
    assert_eq!(sink.schema(), Some(Arc::clone(&wide)));
    let merged = late.merge(&batch(&narrow, 20, FIRST)).await;
    assert!(matches!(merged, Merged::Outdated), "{merged:?}");
    assert_eq!(late.schema(), Some(Arc::clone(&wide)));
    late.commit(&batch(&wide, 20, &[(5, Some("e"))])).await;
    let expected = [rows(AFTER_BOTH), rows(&[(5, Some("e"))])].into_iter().flatten().collect();
    assert_eq!(place.rows().await, expected);
}

/// The text of row `row` is that of the row `from` in the table.
fn hole(row: usize, from: i64, own: Own) -> Hole {
    Hole { row, column: 1, from: Origin::Row(key(from)), own }
}

#[apply(sinks)]
async fn a_hole_takes_the_value_of_the_last_row_that_is_there(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let own = Some("own");
    let mut second = batch(&schema, 10, &[(3, own), (4, own), (5, own), (6, own), (2, None)]);
    second.strict = true;
    second.holes = vec![
        hole(0, 2, Own::Null),
        hole(1, 1, Own::Null),
        hole(1, 11, Own::Null),
        hole(1, 99, Own::Null),
        hole(2, 99, Own::IfAbsent),
        hole(3, 11, Own::IfAbsent),
    ];
    sink.commit(&second).await;
    let expected = [(1, "a"), (3, "b"), (4, "c"), (5, "own"), (6, "c"), (11, "c")];
    assert_eq!(place.rows().await, expected.map(|(id, text)| (id, text.to_owned())).into());
}

#[apply(sinks)]
async fn a_strict_batch_is_not_merged_when_a_hole_has_no_row(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let mut second = batch(&schema, 10, &[(3, Some("own")), (4, Some("own"))]);
    second.strict = true;
    second.holes = vec![hole(0, 1, Own::Null), hole(1, 99, Own::Null)];
    let merged = sink.merge(&second).await;
    let Merged::Missing { absent } = merged else { panic!("{merged:?}") };
    assert_eq!(absent, [Origin::Row(key(99))]);
    assert_eq!(place.rows().await, rows(FIRST));
    assert_eq!(sink.position().await.get(0), Some(10));
}

#[apply(sinks)]
async fn a_truncate_empties_the_table_before_the_batch_is_merged(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let mut late = place.instance();
    let _ = late.position().await;
    let kept: Changes<'_> = &[(2, Some("B")), (11, None), (5, Some("e"))];
    sink.commit(&Batch { truncates: true, ..batch(&schema, 10, kept) }).await;
    let mut expected = rows(&[(2, Some("B")), (5, Some("e"))]);
    assert_eq!(place.rows().await, expected);
    // Whoever had the rows of before goes on without them.
    late.commit(&batch(&schema, 20, &[(1, Some("new")), (5, None)])).await;
    expected = rows(&[(1, Some("new")), (2, Some("B"))]);
    assert_eq!(place.rows().await, expected);
    late.commit(&Batch { truncates: true, ..batch(&schema, 30, &[]) }).await;
    assert_eq!(place.rows().await, BTreeMap::new());
    sink.position().await;
    sink.commit(&batch(&schema, 40, FIRST)).await;
    assert_eq!(place.rows().await, rows(FIRST));
}

/// The texts of some keys, in the columns of one name or more.
fn texts<'a>(
    rows: impl IntoIterator<Item = (i64, &'a str, &'a [&'a str])>,
) -> BTreeMap<i64, BTreeMap<String, String>> {
    let row = |(id, text, names): (i64, &str, &[&str])| {
        (id, names.iter().map(|name| ((*name).to_owned(), text.to_owned())).collect())
    };
    rows.into_iter().map(row).collect()
}

/// Rows of the table, and those that left their key, have their values under the new name.
#[apply(sinks)]
async fn a_renamed_column_keeps_its_values_and_older_batches_are_outdated(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let mut late = place.instance();
    let _ = late.position().await;
    let mut deletes = batch(&schema, 10, &[(1, None)]);
    deletes.departures = vec![Departure { key_change: moved(0), row: Departing::Row(key(1)) }];
    sink.commit(&deletes).await;

    let mut columns = schema.columns().to_vec();
    columns[1].rename("words");
    let renamed = Arc::new(schema.evolved(columns));
    let mut next = batch(&renamed, 20, &[(3, Some("own")), (4, Some("own")), (5, Some("own"))]);
    next.strict = true;
    let departed = Origin::Departed(moved(0));
    next.holes =
        vec![hole(0, 2, Own::Null), Hole { row: 1, column: 1, from: departed, own: Own::Null }];
    next.arrivals = vec![moved(0)];
    sink.commit(&next).await;
    let words: &[&str] = &["words"];
    let expected = [(2, "b"), (3, "b"), (4, "a"), (5, "own"), (11, "c")];
    let mut expected = texts(expected.map(|(id, text)| (id, text, words)));
    assert_eq!(place.texts().await, expected);

    let merged = late.merge(&batch(&schema, 30, FIRST)).await;
    assert!(matches!(merged, Merged::Outdated), "{merged:?}");
    assert_eq!(late.schema(), Some(Arc::clone(&renamed)));
    late.commit(&batch(&renamed, 30, &[(2, Some("B"))])).await;
    expected.extend(texts([(2, "B", words)]));
    assert_eq!(place.texts().await, expected);
    let mut another = place.instance();
    let _ = another.position().await;
    assert_eq!(another.schema(), Some(renamed));
}

/// A new column of the name does not have the old one's values.
#[apply(sinks)]
async fn a_dropped_column_is_gone_and_older_batches_are_outdated(kind: Kind) {
    let place = Place::new(kind);
    let more = Column::new("more", ColumnType::String, true);
    let (mut sink, wide) = (place.instance(), Arc::new(schema().with_added(vec![more.clone()])));
    sink.commit(&batch(&wide, 0, FIRST)).await;
    let mut late = place.instance();
    let _ = late.position().await;
    let both: &[&str] = &["text", "more"];
    assert_eq!(place.texts().await, texts([(1, "a", both), (2, "b", both), (11, "c", both)]));

    let stays = wide.columns().iter().filter(|column| column.name != "more").cloned();
    let narrow = Arc::new(wide.evolved(stays.collect()));
    sink.commit(&batch(&narrow, 10, SECOND)).await;
    let text: &[&str] = &["text"];
    assert_eq!(place.texts().await, texts([(1, "a", text), (2, "B", text), (12, "d", text)]));

    let merged = late.merge(&batch(&wide, 20, FIRST)).await;
    assert!(matches!(merged, Merged::Outdated), "{merged:?}");
    assert_eq!(late.schema(), Some(Arc::clone(&narrow)));
    let again = Arc::new(narrow.with_added(vec![more]));
    late.commit(&batch(&again, 20, &[(2, Some("two"))])).await;
    let expected = texts([(1, "a", text), (2, "two", both), (12, "d", text)]);
    assert_eq!(place.texts().await, expected);
    let mut another = place.instance();
    let _ = another.position().await;
    assert_eq!(another.schema(), Some(again));
}

#[apply(sinks)]
async fn rows_that_another_initial_snapshot_does_not_have_are_deleted_at_its_end(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    sink.commit(&batch(&schema, 0, FIRST)).await;
    assert_eq!(sink.departed().await.snapshot, InitialSnapshot::Unknown);
    let within = InitialSnapshot::Since(10);
    let first = batch(&schema, 10, &[(2, Some("B")), (12, Some("d"))]);
    sink.commit(&Batch { snapshot: within, ..first }).await;
    let mut other = place.instance();
    assert_eq!(other.departed().await.snapshot, within);
    let last = batch(&schema, 20, &[(3, Some("e")), (1, None)]);
    other.commit(&Batch { unconfirmed_before: Some(10), ..last }).await;
    let confirmed = rows(&[(2, Some("B")), (3, Some("e")), (12, Some("d"))]);
    assert_eq!(place.rows().await, confirmed);
    // Whoever had the rows of before goes on without them, and the snapshot is over.
    assert_eq!(sink.position().await.get(0), Some(30));
    assert_eq!(sink.departed().await.snapshot, InitialSnapshot::Unknown);
    sink.commit(&batch(&schema, 30, &[(11, Some("again")), (2, None)])).await;
    let expected = rows(&[(3, Some("e")), (11, Some("again")), (12, Some("d"))]);
    assert_eq!(place.rows().await, expected);
    let again = Batch { unconfirmed_before: Some(20), ..batch(&schema, 40, &[]) };
    sink.commit(&again).await;
    assert_eq!(place.rows().await, rows(&[(3, Some("e")), (11, Some("again"))]));
}

fn moved(source: u64) -> KeyChange {
    KeyChange::new(key(1), key(2), source)
}

/// The deletes of four key changes are committed by one instance; their creates, which lack the text, by another.
#[apply(sinks)]
async fn a_hole_takes_the_value_of_a_row_that_left_its_key_in_another_commit(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, schema) = (place.instance(), Arc::new(schema()));
    assert!(sink.departed().await.noted.is_empty());
    sink.commit(&batch(&schema, 0, FIRST)).await;
    let mut other = place.instance();
    let _ = other.position().await;
    // The last two rows of the first batch are made and deleted by it.
    let own = Some("own");
    let made = [(1, None), (2, None), (3, own), (21, Some("made")), (22, Some("too"))];
    let mut deletes = batch(&schema, 10, &made);
    deletes.keys.truncate(1);
    deletes.holes = vec![hole(2, 11, Own::Null)];
    let left = [Departing::Row(key(1)), Departing::Written(1), Departing::Written(2)];
    let left = left.into_iter().chain([Departing::Row(key(77)), Departing::None]);
    let departure = |(source, row)| Departure { key_change: moved(source), row };
    deletes.departures = (0..).zip(left).map(departure).collect();
    sink.commit(&deletes).await;
    sink.commit(&batch(&schema, 20, &[(2, None), (11, None)])).await;
    assert_eq!(place.rows().await, rows(&[(3, own)]));

    let mut late = place.instance();
    for instance in [&mut sink, &mut other, &mut late] {
        let departed = instance.departed().await;
        assert_eq!(departed.noted, (0..5).map(moved).collect());
        assert_eq!(departed.present, [key(3)].into());
    }
    let from = |row, source| Hole {
        row,
        column: 1,
        from: Origin::Departed(moved(source)),
        own: Own::Null,
    };
    let mut creates = in_partition(batch(&schema, 0, &[(4, own), (15, own), (26, own)]), 1);
    creates.strict = true;
    creates.holes = vec![from(0, 3), from(1, 4), from(2, 9)];
    let merged = other.merge(&creates).await;
    let Merged::Missing { absent } = merged else { panic!("{merged:?}") };
    assert_eq!(absent, [3, 4, 9].map(|source| Origin::Departed(moved(source))));
    creates.holes = (0..3).map(|row| from(row, row.try_into().unwrap())).collect();
    creates.arrivals = (0..3).map(moved).collect();
    other.commit(&creates).await;
    let expected = [(3, own), (4, Some("a")), (15, Some("made")), (26, Some("c"))];
    assert_eq!(place.rows().await, rows(&expected));
    for instance in [&mut sink, &mut late, &mut place.instance()] {
        assert_eq!(instance.departed().await.noted, (3..5).map(moved).collect());
    }
}

/// Rows that no topic's position belongs to: instances commit beside one another, and each key is there once.
#[apply(sinks)]
async fn rows_without_ranges_count_by_their_keys(kind: Kind) {
    let place = Place::new(kind);
    let (mut one, mut two, schema) = (place.instance(), place.instance(), Arc::new(schema()));
    let rows_of = |changes: Changes<'_>| Batch { ranges: Vec::new(), ..batch(&schema, 0, changes) };
    one.commit(&rows_of(FIRST)).await;
    let _ = two.position().await;
    let mut expected = rows(FIRST);
    for turn in 0..4 {
        // The other's commit comes in between, and it has the same rows.
        let (mine, yours) = (format!("one {turn}"), format!("two {turn}"));
        one.commit(&rows_of(&[(2, Some(mine.as_str())), (20 + turn, Some(mine.as_str()))])).await;
        let theirs = rows_of(&[(1, Some(yours.as_str())), (20 + turn, Some(yours.as_str()))]);
        two.commit(&theirs).await;
        two.commit(&theirs).await;
        expected.extend([(2, mine), (1, yours.clone()), (20 + turn, yours)]);
        assert_eq!(place.rows().await, expected);
    }
    assert_eq!(place.instance().position().await, Position::default());
}
