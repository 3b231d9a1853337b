//! Tables that are traced: rows tell where their values come from, and changes that come late are measured by that.

use arrow::array::{ArrayRef, Int32Array, StringArray};
use cdc_sink::change::{Meant, Move, Whereabouts};
use cdc_sink::key::Key;
use cdc_sink::row_source::RowSource;
use cdc_sink::schema::{OFFSET_COLUMN, PARTITION_COLUMN, SOURCE_COLUMN};

use super::*;

/// A row: its id, its text, and what it tells in its partition. Column 2 is the text.
type Row<'a> = (i64, &'a str, &'a str);

fn traced_schema() -> Arc<TableSchema> {
    Arc::new(schema().with_added(vec![Column::new(SOURCE_COLUMN, ColumnType::String, true)]))
}

/// Changes of a partition, offsets `from` and nine more.
fn changes(partition: i32, from: i64, rows: &[Row<'_>]) -> Batch {
    let schema = traced_schema();
    let texts: Vec<_> = rows.iter().map(|(id, text, _)| (*id, Some(*text))).collect();
    let batch = in_partition(batch(&schema, from, &texts), partition);
    let mut columns = batch.rows.columns().to_vec();
    let mut put = |name, values: ArrayRef| columns[schema.index_of(name).unwrap()] = values;
    put(PARTITION_COLUMN, Arc::new(Int32Array::from(vec![partition; rows.len()])));
    put(SOURCE_COLUMN, Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))));
    let source = |row: &Row<'_>| Some(RowSource::parse(partition, Some(row.2)).last);
    Batch {
        rows: arrow::array::RecordBatch::try_new(batch.rows.schema(), columns).unwrap(),
        source_positions: rows.iter().map(source).collect(),
        ..batch
    }
}

/// A batch that gives the text of row `id` alone, which told `known` in partition 1 and tells `source` then.
fn gives(from: i64, (id, text, source): Row<'_>, known: &str) -> Batch {
    let batch = changes(0, from, &[(id, text, source)]);
    let known = RowSource::parse(1, Some(known));
    let others = batch.schema.columns().iter().enumerate();
    let others = others.filter(|(_, column)| !["text", SOURCE_COLUMN].contains(&&*column.name));
    let own = Own::Null;
    let hole = |(column, _)| Hole { row: 0, column, from: Origin::Row(key(id)), own };
    Batch {
        holes: others.map(hole).collect(),
        source_positions: vec![Some(known.last.clone())],
        amended: [(key(id), known)].into(),
        ..batch
    }
}

fn known(id: i64, partition: i32, text: &str) -> (Key, Option<RowSource>) {
    (key(id), Some(RowSource::parse(partition, Some(text))))
}

#[track_caller]
fn assert_stale(merged: Merged, expected: &[(Key, Option<RowSource>)]) {
    let Merged::Stale { mut keys, .. } = merged else { panic!("{merged:?}") };
    keys.sort_by_key(|(key, _)| *key);
    assert_eq!(keys, expected);
}

impl Place {
    /// Text, partition, offset and what they tell, of rows by id; the same in every format.
    async fn told(&self) -> BTreeMap<i64, [String; 4]> {
        let told = |row: BTreeMap<String, String>| {
            let columns = ["text", PARTITION_COLUMN, OFFSET_COLUMN, SOURCE_COLUMN];
            (row["id"].parse().unwrap(), columns.map(|column| row[column].clone()))
        };
        self.each(told).await
    }
}

#[track_caller]
fn assert_told(told: &BTreeMap<i64, [String; 4]>, id: i64, expected: [&str; 4]) {
    assert_eq!(told[&id], expected, "row {id}");
}

#[apply(sinks)]
async fn changes_that_are_older_than_the_tables_are_told_with_its_rows(kind: Kind) {
    let place = Place::new(kind);
    let mut sink = place.instance();
    let rows = [(1, "a", "lsn=30|2:0;lsn=9"), (2, "b", "lsn=30"), (3, "c", "lsn=30")];
    sink.commit(&changes(1, 0, &rows)).await;
    let late = changes(0, 0, &[(1, "A", "lsn=20"), (2, "B", "lsn=40"), (3, "C", "lsn=29")]);
    let expected = [known(1, 1, "lsn=30|2:0;lsn=9"), known(3, 1, "lsn=30")];
    assert_stale(sink.merge(&late).await, &expected);
    sink.commit(&changes(0, 0, &[(2, "B", "lsn=40")])).await;
    let told = place.told().await;
    assert_told(&told, 1, ["a", "1", "0", "lsn=30|2:0;lsn=9"]);
    assert_told(&told, 2, ["B", "0", "0", "lsn=40"]);
}

#[apply(sinks)]
async fn a_row_is_amended_as_long_as_it_is_the_one_that_the_batch_was_made_for(kind: Kind) {
    let place = Place::new(kind);
    let (mut sink, mut another) = (place.instance(), place.instance());
    sink.commit(&changes(1, 70, &[(1, "old", "lsn=30|2:"), (2, "b", "lsn=30")])).await;
    another.position().await;
    let given = (1, "given", "lsn=30|2:0;lsn=20");
    sink.commit(&gives(0, given, "lsn=30|2:")).await;
    let told = place.told().await;
    assert_told(&told, 1, ["given", "1", "70", "lsn=30|2:0;lsn=20"]);
    assert_told(&told, 2, ["b", "1", "70", "lsn=30"]);
    // Made for the row of before, by one who does not know better.
    let merged = another.merge(&gives(10, (1, "late", "lsn=30|2:0;lsn=19"), "lsn=30|2:")).await;
    assert_stale(merged, &[known(1, 1, "lsn=30|2:0;lsn=20")]);
    sink.commit(&Batch { deletes: vec![key(1)], ..changes(1, 80, &[]) }).await;
    let merged = sink.merge(&gives(10, (1, "late", "lsn=30|2:0;lsn=21"), given.2)).await;
    assert_stale(merged, &[(key(1), None)]);
}

#[apply(sinks)]
async fn of_two_values_that_a_change_may_have_left_out_the_later_one_counts(kind: Kind) {
    let place = Place::new(kind);
    let mut sink = place.instance();
    let rows = [(1, "a", "lsn=20"), (2, "b", "lsn=20|2:0;lsn=5"), (3, "c", "lsn=20")];
    sink.commit(&changes(1, 0, &rows)).await;
    sink.commit(&changes(0, 0, &[(4, "d", "lsn=5")])).await;
    // All but the last were given before, at 10.
    let given = "lsn=40|2:0;lsn=10";
    let rows = [(1, "A", given), (2, "B", given), (3, "C", "lsn=40|2:"), (4, "D", given)];
    let own = [Own::UnlessLater, Own::UnlessLater, Own::Null, Own::UnlessLater];
    let hole = |(row, own)| hole(row, [1, 2, 3, 4][row], own);
    let holes = own.into_iter().enumerate().map(hole).collect();
    sink.commit(&Batch { holes, ..changes(0, 10, &rows) }).await;
    let told = place.told().await;
    assert_told(&told, 1, ["a", "0", "10", "lsn=40|2:1;lsn=20"]);
    assert_told(&told, 2, ["B", "0", "10", given]);
    assert_told(&told, 3, ["c", "0", "10", "lsn=40|2:1;lsn=20"]);
    assert_told(&told, 4, ["D", "0", "10", given]);
}

/// The key change from one row to another, whose delete partition 1 has at `lsn`.
fn moved_at(old: i64, new: i64, lsn: u64) -> Move {
    let at = RowSource::parse(1, Some(&format!("lsn={lsn}"))).last;
    Move::of(KeyChange::new(key(old), key(new), lsn), &key(old), &key(new), at)
}

#[apply(sinks)]
async fn late_changes_find_their_rows_under_the_new_keys(kind: Kind) {
    let place = Place::new(kind);
    let mut sink = place.instance();
    sink.commit(&changes(1, 0, &[(1, "old", "lsn=10"), (5, "e", "lsn=10")])).await;
    let mut another = place.instance();
    another.position().await;
    // Row 1 becomes row 2, row 5 is to become row 6, and row 7 became row 8, which is deleted.
    let moves = [moved_at(1, 2, 30), moved_at(5, 6, 31), moved_at(7, 8, 32)];
    let departing = |moved: &Move| Departure { key_change: moved.key_change, row: Departing::None };
    let deletes = vec![key(1), key(5), key(8)];
    let of_delete = |lsn: u64| Some(RowSource::parse(1, Some(&format!("lsn={lsn}"))).last);
    let mut batch = changes(1, 10, &[(2, "new", "lsn=30|2:")]);
    batch.source_positions.extend([30, 31, 40].map(of_delete));
    let departures = moves[1..].iter().map(departing).collect();
    sink.commit(&Batch { moves: moves.to_vec(), deletes, departures, ..batch }).await;

    another.position().await;
    for instance in [&mut sink, &mut another] {
        let noted = instance.moves();
        for moved in &moves {
            let (old, new) = ([1, 5, 7], [2, 6, 8]);
            let at = moves.iter().position(|other| other == moved).unwrap();
            let before = RowSource::parse(0, Some("lsn=20")).last;
            let found = noted.follow(&key(old[at]), &before);
            assert_eq!(found, Whereabouts::Moved(key(new[at]), moved));
        }
        let asked = [2, 6, 8].into_iter().map(key).zip(moves.clone()).collect();
        let merged = instance.merge(&Batch { asked, ..changes(0, 0, &[]) }).await;
        let Merged::Stale { mut keys, coming } = merged else { panic!("{merged:?}") };
        keys.sort_by_key(|(key, _)| *key);
        assert_eq!(keys, [known(2, 1, "lsn=30|2:"), (key(6), None), (key(8), None)]);
        assert_eq!(coming, [key(6)], "the others are there, or were");
    }
}

#[apply(sinks)]
async fn no_row_begins_at_the_key_of_an_earlier_one_while_that_is_waited_for(kind: Kind) {
    let place = Place::new(kind);
    let mut sink = place.instance();
    sink.commit(&changes(1, 0, &[(1, "a", "lsn=10"), (2, "b", "lsn=10")])).await;
    let begin = |partition, id, lsn: u64| {
        let source = format!("lsn={lsn}");
        let position = RowSource::parse(partition, Some(&source)).last;
        let begun = [(key(id), position)].into();
        Batch { begun, ..changes(partition, 10, &[(id, "new", &source)]) }
    };
    // Nobody has seen a key change.
    sink.commit(&begin(2, 2, 20)).await;
    sink.commit(&Batch { moves: vec![moved_at(7, 8, 15)], ..changes(3, 0, &[]) }).await;
    let merged = sink.merge(&begin(0, 1, 20)).await;
    assert!(matches!(merged, Merged::Occupied), "{merged:?}");
    // After that one, in its own partition, of the same row that was read before, and where nobody waits any more.
    sink.commit(&begin(1, 1, 20)).await;
    sink.commit(&begin(0, 1, 20)).await;
    sink.commit(&Batch { begun: HashMap::new(), ..begin(4, 1, 30) }).await;
    sink.commit(&Batch { deletes: vec![key(1)], ..changes(5, 0, &[]) }).await;
    sink.commit(&begin(6, 1, 40)).await;
    assert_told(&place.told().await, 1, ["new", "6", "10", "lsn=40"]);
}

#[apply(sinks)]
async fn a_row_gets_no_value_of_another_that_has_its_key(kind: Kind) {
    let place = Place::new(kind);
    let mut sink = place.instance();
    // The rows that came to the old keys after the key changes, and those at the new keys before, are others.
    let rows = [(1, "a", "lsn=50"), (2, "b", "lsn=10"), (3, "c", "lsn=20"), (4, "d", "lsn=45")];
    sink.commit(&changes(1, 0, &rows)).await;
    let at = moved_at(0, 9, 40).at;
    let before = |row, id| ((row, key(id)), Meant::Before(at.clone()));
    let since = |row, id| ((row, key(id)), Meant::Since(at.clone()));
    let rows = [(11, "", "lsn=40|2:"), (2, "", "lsn=40|2:"), (13, "", "lsn=40|2:")];
    let mut batch = changes(0, 0, &[rows[0], rows[1], rows[2], (4, "", "lsn=60|2:")]);
    batch.holes = (0..).zip([1, 2, 3, 4]).map(|(row, from)| hole(row, from, Own::Null)).collect();
    batch.meant = [before(0, 1), since(1, 2), before(2, 3), since(3, 4)].into();
    let strict = Batch { strict: true, ..batch.clone() };
    let merged = sink.merge(&strict).await;
    let Merged::Missing { absent } = merged else { panic!("{merged:?}") };
    assert_eq!(absent, [1, 2].map(|id| Origin::Row(key(id))));
    sink.commit(&batch).await;
    let told = place.told().await;
    for (id, text, source) in [
        (11, "", "lsn=40|2:"),
        (2, "", "lsn=40|2:"),
        (13, "c", "lsn=40|2:1;lsn=20"),
        (4, "d", "lsn=60|2:1;lsn=45"),
    ] {
        assert_told(&told, id, [text, "0", "0", source]);
    }
}
