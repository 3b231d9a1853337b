use std::collections::BTreeMap;

use proptest::prelude::*;

use super::assemble::Stale;
use super::departures::Departures;
use super::supply::Supplier;
use super::*;
use crate::change::{Departing, Departure, KeyChange, Operation, SnapshotRecord};
use crate::decode::{Moved, RowRef, WriterId};
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
        before: None,
        operation: if deletes { Operation::Delete } else { Operation::Update },
        key: key(number),
        row: (!deletes).then_some(row),
        moved: None,
        source_micros: None,
        snapshot: SnapshotRecord::None,
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
    assert_eq!(buffer.supplier(0), (Supplier::Table(key(3)), None));
    assert_eq!(buffer.supplier(1), (Supplier::Change(0), None));
    assert_eq!(buffer.supplier(3), (Supplier::None, None));
}

/// What a test's change is: of a key's number, and where it moved to or from.
#[derive(Debug, Clone, Copy)]
enum Half {
    Write(i64),
    Delete(i64),
    /// Both halves of one key change have its number.
    Leave(i64, i64, u64),
    Arrive(i64, i64, u64),
}

/// A buffer of changes in their order of arrival; keys are in the partition of their number.
fn arrived(halves: &[Half]) -> Buffer {
    let mut buffer = Buffer::default();
    let mut next = BTreeMap::<i32, i64>::new();
    for half in halves {
        let (number, deletes, moved) = match *half {
            Half::Write(number) => (number, false, None),
            Half::Delete(number) => (number, true, None),
            Half::Leave(old, new, source) => (old, true, Some((new, source))),
            Half::Arrive(old, new, source) => (new, false, Some((old, source))),
        };
        let moved = moved.map(|(other, source)| Moved { other: key(other), source: Some(source) });
        let operation = match (deletes, moved) {
            (true, _) => Operation::Delete,
            (false, Some(_)) => Operation::Create,
            (false, None) => Operation::Update,
        };
        let change = Change { operation, moved, ..change(number, deletes) };
        let partition = i32::try_from(number.rem_euclid(i64::from(PARTITIONS))).unwrap();
        let offset = next.entry(partition).or_default();
        let mut records = Records::new("t".into(), partition, *offset);
        assert!(records.push(*offset, None, None, Some(b"x"), []));
        *offset += 1;
        buffer.push(records, vec![Outcome::Change(change)], Instant::now());
    }
    buffer
}

#[rstest::rstest]
#[case::the_row_before_the_delete(&[Half::Write(3), Half::Leave(3, 7, 1), Half::Delete(3), Half::Arrive(3, 7, 1)], 3, Supplier::Change(0), Some(7))]
#[case::the_create_came_first(&[Half::Arrive(3, 7, 1), Half::Write(3), Half::Leave(3, 7, 1), Half::Delete(3)], 0, Supplier::Change(1), Some(7))]
#[case::the_row_in_the_table(&[Half::Leave(3, 7, 1), Half::Delete(3), Half::Arrive(3, 7, 1)], 2, Supplier::Table(key(3)), Some(7))]
#[case::not_a_row_that_took_the_old_key_later(&[Half::Leave(3, 7, 1), Half::Delete(3), Half::Write(3), Half::Arrive(3, 7, 1)], 3, Supplier::Table(key(3)), Some(7))]
#[case::not_a_row_of_a_deleted_key(&[Half::Delete(3), Half::Leave(3, 7, 1), Half::Arrive(3, 7, 1)], 2, Supplier::None, Some(7))]
#[case::each_create_has_its_own_delete(&[Half::Leave(3, 7, 1), Half::Write(3), Half::Leave(3, 7, 2), Half::Arrive(3, 7, 2), Half::Arrive(3, 7, 1)], 3, Supplier::Change(1), Some(7))]
#[case::also_when_nothing_tells_them_apart(&[Half::Arrive(3, 7, 1), Half::Leave(3, 7, 1), Half::Delete(7), Half::Write(3), Half::Arrive(3, 7, 1), Half::Leave(3, 7, 1)], 4, Supplier::Change(3), None)]
#[case::without_its_delete_the_table_may_tell(&[Half::Write(3), Half::Arrive(3, 7, 1)], 1, Supplier::Departed(moved(3, 7, 1)), Some(7))]
#[case::another_delete_is_not_its_own(&[Half::Write(3), Half::Leave(3, 7, 2), Half::Arrive(3, 7, 1)], 2, Supplier::Departed(moved(3, 7, 1)), Some(7))]
#[case::written_again_by_the_connector(&[Half::Leave(3, 7, 1), Half::Arrive(3, 7, 1), Half::Write(3), Half::Leave(3, 7, 1), Half::Arrive(3, 7, 1)], 4, Supplier::Change(1), None)]
fn what_a_moved_row_lacks_comes_from_its_old_key(
    #[case] halves: &[Half],
    #[case] index: u32,
    #[case] supplier: Supplier,
    #[case] again: Option<i64>,
) {
    assert_eq!(arrived(halves).supplier(index), (supplier, again.map(key)));
}

#[test]
fn no_value_comes_from_before_a_truncate() {
    let mut buffer = arrived(&[Half::Write(3), Half::Leave(6, 4, 1)]);
    let mut records = Records::new("t".into(), 0, 2);
    assert!(records.push(2, None, None, Some(b"t"), []));
    buffer.push(records, vec![Outcome::Truncate], Instant::now());
    assert_eq!(buffer.open_from(0), None);
    let mut records = Records::new("t".into(), 0, 3);
    assert!(records.push(3, None, None, Some(b"x"), []));
    buffer.push(records, vec![Outcome::Change(change(3, false))], Instant::now());
    assert_eq!(buffer.supplier(2), (Supplier::None, None));
    assert_eq!(outcome(&buffer).len(), 1);
    // What is cut off before it still has its rows, what is behind it starts empty.
    let end = [(0, 2)].into_iter().collect();
    let (part, rest) = (buffer.until(&end, Instant::now()), buffer.after(&end, Instant::now()));
    assert!(!part.truncates() && rest.truncates());
    assert_eq!((outcome(&part).len(), outcome(&rest).len()), (2, 1));
}

fn moved(old: i64, new: i64, source: u64) -> KeyChange {
    KeyChange::new(key(old), key(new), source)
}

#[rstest::rstest]
#[case::in_the_table(&[Half::Write(7), Half::Leave(3, 7, 1)], &[], &[(1, Departing::Row(key(3)))])]
#[case::made_by_the_batch(&[Half::Write(3), Half::Write(3), Half::Leave(3, 7, 1), Half::Write(3)], &[1], &[(1, Departing::Written(10))])]
#[case::deleted_before(&[Half::Delete(3), Half::Leave(3, 7, 1)], &[], &[(1, Departing::None)])]
#[case::with_its_create(&[Half::Write(3), Half::Leave(3, 7, 1), Half::Arrive(3, 7, 1)], &[], &[])]
#[case::several(&[Half::Write(4), Half::Write(3), Half::Leave(3, 7, 1), Half::Write(3), Half::Leave(3, 7, 2), Half::Leave(4, 8, 3)], &[0, 1, 3],
    &[(1, Departing::Written(11)), (2, Departing::Written(12)), (3, Departing::Written(10))])]
fn a_row_that_leaves_is_the_one_right_before_its_delete(
    #[case] halves: &[Half],
    #[case] written: &[u32],
    #[case] expected: &[(u64, Departing)],
) {
    let stale = Stale::new();
    let departures = Departures::of(&arrived(halves), &stale);
    assert_eq!(departures.written(), written);
    let new = |source| if source == 3 { (4, 8) } else { (3, 7) };
    let departure = |(source, row): &(u64, Departing)| {
        let (old, new) = new(*source);
        Departure { key_change: moved(old, new, *source), row: *row }
    };
    assert_eq!(departures.placed(10), expected.iter().map(departure).collect::<Vec<_>>());
}

#[test]
fn a_row_that_cannot_be_decoded_leaves_as_the_one_before_it() {
    let buffer = arrived(&[Half::Write(3), Half::Write(3), Half::Leave(3, 7, 1)]);
    let stale = Stale::new();
    let mut departures = Departures::of(&buffer, &stale);
    let row = |departures: &Departures<'_>| departures.placed(5)[0].row;
    departures.fall_back(&buffer, 1);
    assert_eq!((departures.written(), row(&departures)), (vec![0], Departing::Written(5)));
    departures.fall_back(&buffer, 0);
    assert_eq!((departures.written(), row(&departures)), (vec![], Departing::Row(key(3))));
    let mut departures = Departures::of(&buffer, &stale);
    departures.give_up(1);
    assert_eq!((departures.written(), row(&departures)), (vec![], Departing::None));
    // What the table has is not the row before when it came later, from another partition.
    let stale = Stale::from([(key(3), None)]);
    let mut departures = Departures::of(&buffer, &stale);
    departures.fall_back(&buffer, 1);
    departures.fall_back(&buffer, 0);
    assert_eq!((departures.written(), row(&departures)), (vec![], Departing::None));
}

/// Writes and key changes as they come from two partitions or more: what each leaves is cut off and comes later.
fn halves() -> impl Strategy<Value = Vec<Half>> {
    let step = prop_oneof![
        (0i64..9).prop_map(|number| vec![Half::Write(number)]),
        (0i64..9, 0i64..9, any::<bool>()).prop_map(|(old, new, first)| {
            let (old, new) = (old, if new == old { old + 9 } else { new });
            let both = [Half::Leave(old, new, 0), Half::Arrive(old, new, 0)];
            if first { both.to_vec() } else { both.into_iter().rev().collect() }
        }),
    ];
    // Key changes have numbers; the second half may come much later.
    (prop::collection::vec((step, 0usize..20), 0..40), 0usize..60).prop_map(|(steps, length)| {
        let mut placed: Vec<(usize, Half)> = Vec::new();
        for (at, (halves, delay)) in steps.into_iter().enumerate() {
            let source = u64::try_from(at).unwrap();
            for (number, half) in halves.into_iter().enumerate() {
                let half = match half {
                    Half::Leave(old, new, _) => Half::Leave(old, new, source),
                    Half::Arrive(old, new, _) => Half::Arrive(old, new, source),
                    other => other,
                };
                placed.push((at + number * delay, half));
            }
        }
        placed.sort_by_key(|(at, _)| *at);
        placed.into_iter().map(|(_, half)| half).take(length).collect()
    })
}

/// Places of the halves of each key change, deletes and creates.
fn places(buffer: &Buffer) -> BTreeMap<u64, Vec<(i32, i64)>> {
    let mut places = BTreeMap::<u64, Vec<(i32, i64)>>::new();
    for buffered in &buffer.changes {
        if let Some(moved) = buffered.change.moved {
            let record = buffer.record(buffered.record).unwrap();
            places
                .entry(moved.source.unwrap())
                .or_default()
                .push((record.partition, record.offset));
        }
    }
    places
}

proptest! {
    #[test]
    fn a_cut_tears_no_key_change_apart(halves in halves()) {
        let now = Instant::now();
        let mut buffer = arrived(&halves);
        let end = buffer.cut(Wait::Always, now);
        let (part, rest) = (buffer.until(&end, now), buffer.after(&end, now));
        for (source, both) in places(&part) {
            prop_assert_eq!(both.len(), 2, "half of {} is in", source);
        }
        // No partition could go further: right behind its end is a half that is missing its other, or whose other
        // is behind an end itself.
        let all = places(&buffer);
        for (partition, offset) in end.iter() {
            if Some(offset) != buffer.position().get(partition) {
                let key_change = all.values().find(|both| both.contains(&(partition, offset)));
                let behind = |(p, o): &(i32, i64)| *o >= end.get(*p).unwrap();
                prop_assert!(key_change.is_some_and(|both| both.iter().all(behind)));
            }
        }
        prop_assert_eq!(part.tally().consumed + rest.tally().consumed, halves.len());
        prop_assert_eq!(&part.position(), &end);
        prop_assert_eq!(rest.start_position(), end);
    }

    #[test]
    fn a_part_is_the_log_up_to_there(steps in steps(), size in 1usize..20, cut in 0i64..60) {
        let from = (0..PARTITIONS).map(|p| (p, 10)).collect();
        let end: Position = (0..PARTITIONS).map(|p| (p, 10 + cut)).collect();
        let now = Instant::now();
        let buffer = filled(chunks(&steps, size), &from);
        let (part, rest) = (buffer.until(&end, now), buffer.after(&end, now));
        prop_assert_eq!(outcome(&rest), folded(&chunks(&steps, size), &end));
        let mut both = outcome(&part);
        both.extend(outcome(&rest));
        prop_assert_eq!(both, outcome(&buffer));
        let tallies = [part.tally(), rest.tally(), buffer.tally()];
        prop_assert_eq!(tallies[0].consumed + tallies[1].consumed, tallies[2].consumed);
        prop_assert_eq!(tallies[0].skipped + tallies[1].skipped, tallies[2].skipped);
    }
}

#[test]
fn half_of_a_key_change_is_waited_for_a_while() {
    let mut buffer = arrived(&[Half::Write(6), Half::Leave(3, 7, 1), Half::Write(5)]);
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let whole = buffer.position();
    assert_eq!(buffer.open_from(0), Some(1));
    let ends_known = Wait::Bounded(Some(later(1)));
    let end = buffer.cut(Wait::Bounded(None), start);
    assert_eq!(end.iter().collect::<Vec<_>>(), [(0, 1), (2, 1)]);
    // What is left remembers since when it waits, and is tried again soon.
    let mut rest = buffer.after(&end, start);
    assert_eq!(rest.tally().consumed, 1);
    let limits = Limits { rows: 1, bytes: 1, age: Duration::MAX / 4, idle: Duration::MAX / 4 };
    assert!(!rest.is_due(&limits, start));
    assert!(rest.is_due(&limits, later(1)));
    assert_eq!(rest.cut(ends_known, later(4)), end);
    assert_eq!(rest.cut(ends_known, later(5)), whole);
    assert_eq!(rest.cut(Wait::Bounded(None), later(29)), end, "partitions are behind");
    assert_eq!(rest.cut(Wait::Bounded(None), later(30)), whole);
    assert_eq!(rest.cut(Wait::Always, later(5)), end);
    assert_eq!(buffer.cut(Wait::Short, start), whole);
}

#[test]
fn a_create_that_needs_a_value_waits_for_the_note_of_its_delete() {
    let mut buffer = arrived(&[Half::Arrive(3, 7, 1), Half::Arrive(3, 10, 2)]);
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let whole = buffer.position();
    let ends_known = Wait::Bounded(Some(later(1)));
    assert!(buffer.pairs.unknown(ends_known, later(4)).is_empty(), "their deletes may come yet");
    assert_eq!(buffer.pairs.unknown(Wait::Short, later(4)), [0, 1]);
    assert_eq!(buffer.pairs.unknown(ends_known, later(5)), [0, 1]);
    buffer.pairs.tell_needs(&[0, 1], &[0].into());
    assert!(buffer.pairs.unknown(ends_known, later(5)).is_empty(), "each is looked at once");
    assert!(!buffer.has_held());
    let end = buffer.cut(ends_known, later(5));
    assert_eq!(
        end.iter().collect::<Vec<_>>(),
        [(1, 0)],
        "the first waits, the second is behind it"
    );
    assert_eq!(buffer.cut(Wait::Short, later(34)), end);
    assert_eq!(buffer.cut(Wait::Short, later(35)), whole);
    let mut rest = buffer.after(&end, later(5));
    assert!(rest.has_held(), "what is left remembers");
    assert_eq!(rest.cut(ends_known, later(94)), end);
    assert_eq!(rest.cut(ends_known, later(95)), whole);
    let note =
        |source| Departed { noted: [moved(3, 7, source)].into(), room: 9, ..Departed::default() };
    rest.learn(&note(2));
    assert_eq!(rest.cut(ends_known, later(6)), end, "a note of another one");
    assert_eq!(rest.needy_keys(), [key(7)]);
    rest.learn(&Departed { present: [key(7)].into(), ..Departed::default() });
    assert_eq!(rest.cut(ends_known, later(6)), whole, "it only comes again");
    rest.learn(&note(1));
    assert_eq!(rest.cut(ends_known, later(6)), whole);
    assert_eq!(rest.cut(Wait::Always, later(6)), end);
}

#[test]
fn deletes_wait_for_room_for_their_notes() {
    let halves = [Half::Leave(0, 1, 1), Half::Leave(3, 4, 2), Half::Leave(6, 7, 3)];
    let mut buffer = arrived(&halves);
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let ends_known = Wait::Bounded(Some(later(1)));
    buffer.learn(&Departed { room: 2, ..Departed::default() });
    assert_eq!(buffer.cut(ends_known, later(5)).get(0), Some(2));
    buffer.learn(&Departed::default());
    assert_eq!(buffer.cut(ends_known, later(34)).get(0), Some(0));
    assert_eq!(buffer.cut(ends_known, later(35)).get(0), Some(3), "the oldest notes go then");
    assert_eq!(buffer.cut(Wait::Short, later(5)).get(0), Some(3));
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

/// `r` is a rejected record, `c` a change, `s` a record that is nothing for a table.
#[rstest::rstest]
#[case("", 3, (3, 3))]
#[case("s", 3, (3, 3))]
#[case("c", 3, (3, 0))]
#[case("rrr", 3, (6, 6))]
#[case("rsr", 0, (2, 2))]
#[case("rcrr", 3, (4, 2))]
#[case("crrrc", 1, (3, 0))]
fn rejected_records_in_a_row_are_counted_over_batches(
    #[case] records: &str,
    #[case] before: usize,
    #[case] (longest, last): (usize, usize),
) {
    let mut buffer = Buffer::default();
    for (kind, offset) in records.chars().zip(0..) {
        let mut chunk = Records::new("t".into(), 0, offset);
        assert!(chunk.push(offset, None, None, Some(b"x"), []));
        let outcome = match kind {
            'r' => Outcome::Rejected(Reject::new("bad", "bad")),
            'c' => Outcome::Change(change(offset, false)),
            _ => Outcome::Skipped,
        };
        buffer.push(chunk, vec![outcome], Instant::now());
    }
    assert_eq!(buffer.streak(&buffer.rejected(), before), Streak { longest, last });
}
