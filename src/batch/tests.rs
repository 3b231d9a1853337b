use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::decode::{RowRef, WriterId};
use crate::key::KeyBuilder;
use crate::schema::ColumnType;

/// One record of the log: its key's number and whether it deletes; none is a record that is nothing for the table.
type Step = Option<(i64, bool)>;

const PARTITIONS: i32 = 3;

fn key(number: i64) -> Key {
    let mut builder = KeyBuilder::new([&ColumnType::Int64]);
    builder.push_i64(number);
    builder.finish()
}

fn change(number: i64, deletes: bool) -> Change {
    let row = RowRef { writer: WriterId(0), start: 0, end: 1 };
    Change {
        operation: if deletes { Operation::Delete } else { Operation::Update },
        key: key(number),
        row: (!deletes).then_some(row),
        old_key: None,
        source_micros: None,
    }
}

/// The log as chunks of `size` records, in the order of the steps. Keys stay in one partition, offsets have gaps.
fn chunks(steps: &[Step], size: usize) -> Vec<(Records, Vec<Outcome>)> {
    let mut next = BTreeMap::<i32, i64>::new();
    let mut chunks: Vec<(Records, Vec<Outcome>)> = Vec::new();
    for (step, place) in steps.iter().zip(0i64..) {
        let number = step.map_or(place, |(number, _)| number);
        let partition = i32::try_from(number.rem_euclid(i64::from(PARTITIONS))).unwrap();
        let offset = next.entry(partition).or_insert(10);
        if !chunks
            .last()
            .is_some_and(|(last, _)| last.partition() == partition && last.len() < size)
        {
            chunks.push((Records::new("t".into(), partition, *offset), Vec::new()));
        }
        let (records, outcomes) = chunks.last_mut().unwrap();
        assert!(records.push(*offset, None, None, Some(b"x"), []));
        *offset += 1 + place % 3;
        outcomes.push(match step {
            Some((number, deletes)) => Outcome::Change(change(*number, *deletes)),
            None => Outcome::Skipped,
        });
    }
    chunks
}

fn filled(chunks: Vec<(Records, Vec<Outcome>)>, from: &Position) -> Buffer {
    let mut buffer = Buffer::default();
    buffer.start_at(from.iter());
    for (records, outcomes) in chunks {
        buffer.push(records, outcomes, Instant::now());
    }
    buffer
}

/// What becomes of each key: the offset of the change that counts, and whether it deletes.
fn outcome(buffer: &Buffer) -> BTreeMap<Key, (i64, bool)> {
    let at = |index: u32| {
        let buffered = buffer.change(index).unwrap();
        let offset = buffer.record(buffered.record).unwrap().offset;
        (buffered.change.key, (offset, buffered.change.operation == Operation::Delete))
    };
    let indices = buffer.last.values().copied();
    indices.map(at).collect()
}

/// The same by folding the log.
fn folded(chunks: &[(Records, Vec<Outcome>)], from: &Position) -> BTreeMap<Key, (i64, bool)> {
    let mut rows = BTreeMap::new();
    for (records, outcomes) in chunks {
        for (record, outcome) in records.iter().zip(outcomes) {
            if let Outcome::Change(change) = outcome
                && from.get(record.partition).is_none_or(|from| record.offset >= from)
            {
                rows.insert(change.key, (record.offset, change.operation == Operation::Delete));
            }
        }
    }
    rows
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop::option::weighted(0.9, (0i64..12, any::<bool>())), 0..120)
}

proptest! {
    #[test]
    fn the_last_change_of_each_key_counts(steps in steps(), size in 1usize..20) {
        let from = Position::default();
        let buffer = filled(chunks(&steps, size), &from);
        prop_assert_eq!(outcome(&buffer), folded(&chunks(&steps, size), &from));
        prop_assert_eq!(buffer.tally().consumed, steps.len());
    }

    #[test]
    fn records_below_the_position_are_left_out(steps in steps(), size in 1usize..20, cut in 0i64..60) {
        let from: Position = (0..PARTITIONS).map(|p| (p, 10 + cut)).collect();
        let buffer = filled(chunks(&steps, size), &from);
        prop_assert_eq!(outcome(&buffer), folded(&chunks(&steps, size), &from));
        prop_assert_eq!(buffer.bytes() == 0, buffer.is_empty());
    }

    #[test]
    fn a_rebased_buffer_is_one_that_began_later(steps in steps(), size in 1usize..20, cut in 0i64..60) {
        let start: Position = (0..PARTITIONS).map(|p| (p, 10)).collect();
        let later: Position = (0..PARTITIONS - 1).map(|p| (p, 10 + cut)).collect();
        let mut kept = chunks(&steps, size);
        let buffer = filled(chunks(&steps, size), &start).rebased(&later, Instant::now());
        kept.retain(|(records, _)| later.get(records.partition()).is_some());
        prop_assert_eq!(outcome(&buffer), folded(&kept, &later));
        for range in buffer.ranges() {
            prop_assert_eq!(Some(range.from), later.get(range.partition));
        }
    }
}

#[test]
fn what_an_update_lacks_comes_from_the_change_before_it() {
    let log = chunks(&[Some((3, false)), Some((3, false)), Some((3, true)), Some((3, false))], 10);
    let buffer = filled(log, &Position::default());
    assert_eq!(buffer.supplier(0), Supplier::Table(key(3)));
    assert_eq!(buffer.supplier(1), Supplier::Change(0));
    assert_eq!(buffer.supplier(3), Supplier::None);
}

#[test]
fn what_a_moved_row_lacks_comes_from_its_old_key() {
    let mut log =
        chunks(&[Some((3, false)), Some((3, true)), Some((3, true)), Some((6, false))], 10);
    let moved = Change { old_key: Some(key(3)), ..change(6, false) };
    let (_, outcomes) = log.last_mut().unwrap();
    *outcomes.last_mut().unwrap() = Outcome::Change(moved);
    let buffer = filled(log, &Position::default());
    assert_eq!(buffer.supplier(3), Supplier::Change(0));

    let mut log = chunks(&[Some((3, true)), Some((6, false))], 10);
    *log.last_mut().unwrap().1.last_mut().unwrap() = Outcome::Change(moved);
    let buffer = filled(log, &Position::default());
    assert_eq!(buffer.supplier(1), Supplier::Table(key(3)));
}

#[test]
fn a_batch_is_due_by_rows_bytes_age_or_idleness() {
    let now = Instant::now();
    let limits = Limits {
        rows: 3,
        bytes: usize::MAX,
        age: Duration::from_secs(10),
        idle: Duration::from_secs(1),
    };
    let mut buffer = Buffer::default();
    assert!(!buffer.is_due(&limits, now + Duration::from_secs(60)));
    let mut push = |from: i64, records: i64, at| {
        let mut chunk = Records::new("t".into(), 0, from);
        for offset in from..from + records {
            assert!(chunk.push(offset, None, None, Some(b"x"), []));
        }
        buffer.push(chunk, (0..records).map(|_| Outcome::Skipped).collect(), at);
        (buffer.is_due(&limits, at), buffer.deadline(&limits).unwrap())
    };
    assert_eq!(push(0, 1, now), (false, now + Duration::from_secs(1)));
    let later = now + Duration::from_millis(9500);
    assert_eq!(push(1, 1, later), (false, now + Duration::from_secs(10)));
    assert!(push(2, 1, later).0);
}
