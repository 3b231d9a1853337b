//! The source database: its live rows, and what happens to them one after the other.

use std::collections::VecDeque;

use fastrand::Rng;

use super::envelope::{ADDED, Envelope, GROUPS, Image, Layout, Row, SourceInfo, group};
use super::shape::Shape;
use super::value::Cell;
use super::workload::{Mix, Workload};
use crate::change::Operation;

/// A record before it is bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happening {
    /// The table's place in the workload.
    pub(super) table: usize,
    pub(super) layout: Layout,
    pub(super) partition: i32,
    /// The row whose key the record has.
    pub(super) id: i64,
    /// None for a tombstone.
    pub(super) envelope: Option<Envelope>,
    /// The other key when this is part of a change of key.
    pub(super) moved: Option<Moved>,
    /// When the connector processed it.
    pub(super) processed_nanos: i64,
}

/// The other side of a change of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    To(i64),
    From(i64),
}

/// One table of the source.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) layout: Layout,
    rows: Vec<Row>,
    /// Keys given up lately, to be taken again.
    freed: Vec<i64>,
    next_id: i64,
    snapshot_left: u64,
}

/// How many keys that were given up are remembered.
const FREED: usize = 64;

#[derive(Debug)]
pub(super) struct History {
    rng: Rng,
    mix: Mix,
    placeholder_percent: u8,
    placeholders_in_moves: bool,
    full_before: bool,
    add_column_after: Option<u64>,
    partitions: i32,
    tables: Vec<Table>,
    queue: VecDeque<Happening>,
    /// The table whose initial snapshot is being read.
    reading: usize,
    snapshot_rows: u64,
    done: u64,
    changes: u64,
    log: Log,
    scratch: String,
}

impl History {
    pub(super) fn new(workload: &Workload) -> Self {
        let table = |shape: &Shape| Table {
            layout: Layout { shape: *shape, widened: false },
            rows: Vec::new(),
            freed: Vec::new(),
            next_id: 1,
            snapshot_left: workload.rows,
        };
        Self {
            rng: Rng::with_seed(workload.seed),
            mix: workload.mix,
            placeholder_percent: workload.placeholder_percent,
            placeholders_in_moves: workload.placeholders_in_moves,
            full_before: workload.full_before,
            add_column_after: workload.add_column_after,
            partitions: workload.partitions.max(1),
            tables: workload.tables.iter().map(table).collect(),
            queue: VecDeque::new(),
            reading: 0,
            snapshot_rows: workload.rows,
            done: 0,
            changes: workload.changes,
            log: Log::new(workload.start_micros),
            scratch: String::new(),
        }
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Nothing is committed before `micros` from now on.
    pub(super) fn not_before(&mut self, micros: i64) {
        self.log.commit_micros = self.log.commit_micros.max(micros);
    }

    /// What happens next; none at the end.
    pub(super) fn next(&mut self) -> Option<Happening> {
        loop {
            if let Some(happening) = self.queue.pop_front() {
                return Some(happening);
            }
            if !self.read_next() && !self.change_next() {
                return None;
            }
        }
    }

    /// Reads a row of the initial snapshot; false when all are read.
    fn read_next(&mut self) -> bool {
        let last = self.reading + 1 >= self.tables.len();
        let Some(table) = self.tables.get_mut(self.reading) else {
            return false;
        };
        let first = table.snapshot_left == self.snapshot_rows;
        let Some(left) = table.snapshot_left.checked_sub(1) else {
            self.reading += 1;
            return self.read_next();
        };
        table.snapshot_left = left;
        let row = table.insert(&mut self.rng);
        let snapshot = match (first, left == 0) {
            (true, _) if self.reading == 0 => "first",
            (true, _) => "first_in_data_collection",
            (_, true) if last => "last",
            (_, true) => "last_in_data_collection",
            _ => "true",
        };
        self.log.read(snapshot);
        let after = Some(Image::whole(row));
        self.push(self.reading, row.id, Some((Operation::Read, None, after)), None);
        true
    }

    /// Makes a change; false when all were made.
    fn change_next(&mut self) -> bool {
        if self.done >= self.changes || self.tables.is_empty() {
            return false;
        }
        let place = self.rng.usize(..self.tables.len());
        let widen = self.add_column_after.is_some_and(|after| self.done >= after);
        self.done += 1;
        self.log.next(&mut self.rng);
        let Some(table) = self.tables.get(place) else {
            return false;
        };
        let Mix { creates, updates, deletes, moves } = self.mix;
        let kind = self.rng.u32(
            ..creates.saturating_add(updates).saturating_add(deletes).saturating_add(moves).max(1),
        );
        if table.rows.is_empty() || kind < creates {
            self.create(place, widen);
            return true;
        }
        let index = self.rng.usize(..table.rows.len());
        if kind - creates < updates {
            self.update(place, index, widen);
        } else if kind - creates - updates < deletes {
            self.delete(place, index);
        } else {
            self.change_key(place, index, widen);
        }
        true
    }

    fn create(&mut self, place: usize, widen: bool) {
        let Some(table) = self.tables.get_mut(place) else { return };
        table.layout.widened |= widen;
        let row = table.insert(&mut self.rng);
        self.push(place, row.id, Some((Operation::Create, None, Some(Image::whole(row)))), None);
    }

    fn update(&mut self, place: usize, index: usize, widen: bool) {
        let Some(table) = self.tables.get_mut(place) else { return };
        let first_wide = widen && !table.layout.widened;
        table.layout.widened |= widen;
        let layout = table.layout;
        let Some(row) = table.rows.get_mut(index) else { return };
        let old = *row;
        let changed = row.change(layout.widened, first_wide, &mut self.rng);
        let row = *row;
        let mut after = Image::whole(row);
        if !self.full_before && self.rng.u8(..100) < self.placeholder_percent {
            after.unavailable = unavailable(row, layout, changed, &mut self.scratch);
        }
        let before = self.full_before.then(|| Image::whole(old));
        self.push(place, row.id, Some((Operation::Update, before, Some(after))), None);
    }

    fn delete(&mut self, place: usize, index: usize) {
        let Some(table) = self.tables.get_mut(place) else { return };
        if index >= table.rows.len() {
            return;
        }
        let row = table.rows.swap_remove(index);
        table.free(row.id, &mut self.rng);
        self.push(place, row.id, Some((Operation::Delete, Some(self.deleted(row)), None)), None);
        self.push(place, row.id, None, None);
    }

    fn change_key(&mut self, place: usize, index: usize, widen: bool) {
        let Some(table) = self.tables.get_mut(place) else { return };
        table.layout.widened |= widen;
        let layout = table.layout;
        let id = table.next_key(&mut self.rng);
        let Some(row) = table.rows.get_mut(index) else { return };
        let old = *row;
        row.id = id;
        let new = *row;
        table.free(old.id, &mut self.rng);
        let mut after = Image::whole(new);
        if self.placeholders_in_moves
            && !self.full_before
            && self.rng.u8(..100) < self.placeholder_percent
        {
            after.unavailable = unavailable(new, layout, 0, &mut self.scratch);
        }
        let to = Some(Moved::To(id));
        self.push(place, old.id, Some((Operation::Delete, Some(self.deleted(old)), None)), to);
        self.push(place, old.id, None, to);
        let from = Some(Moved::From(old.id));
        self.push(place, id, Some((Operation::Create, None, Some(after))), from);
    }

    /// What the log has of a deleted row.
    fn deleted(&self, row: Row) -> Image {
        Image { blank: !self.full_before, ..Image::whole(row) }
    }

    fn push(
        &mut self,
        place: usize,
        id: i64,
        change: Option<(Operation, Option<Image>, Option<Image>)>,
        moved: Option<Moved>,
    ) {
        let Some(layout) = self.tables.get(place).map(|table| table.layout) else { return };
        let processed_nanos = self.log.processed_nanos(&mut self.rng);
        let envelope = change.map(|(operation, before, after)| Envelope {
            before,
            after,
            operation,
            source: self.log.source,
            processed_nanos,
        });
        let partition = partition(id, self.partitions);
        self.queue.push_back(Happening {
            table: place,
            layout,
            partition,
            id,
            envelope,
            moved,
            processed_nanos,
        });
    }
}

/// The partition of a key.
fn partition(id: i64, partitions: i32) -> i32 {
    let bits = id.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    i32::try_from(bits).unwrap_or_default() % partitions
}

/// The large texts of `row` outside the groups in `changed`, a bit each: what the server does not log again.
fn unavailable(row: Row, layout: Layout, changed: u8, scratch: &mut String) -> u64 {
    let keys = layout.shape.key_columns().len();
    let mut bits = 0;
    for (place, column) in layout.shape.columns(false).iter().enumerate().skip(keys) {
        let group = group(place);
        if column.is_toasted()
            && changed >> group & 1 == 0
            && row.cell(column, place, group, scratch) != Cell::Null
        {
            bits |= 1 << place;
        }
    }
    bits
}

impl Row {
    /// Changes some of the row's columns; the groups that changed, a bit each.
    fn change(&mut self, widened: bool, added: bool, rng: &mut Rng) -> u8 {
        let mut changed = rng.u8(1..1 << ADDED);
        if widened && (added || rng.u8(..4) == 0) {
            changed |= 1 << ADDED;
        }
        for (group, version) in self.versions.iter_mut().enumerate() {
            if changed >> group & 1 == 1 {
                *version = version.checked_add(1).unwrap_or(1);
            }
        }
        changed
    }
}

impl Table {
    /// The live rows.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A new row.
    fn insert(&mut self, rng: &mut Rng) -> Row {
        let id = self.next_key(rng);
        let mut versions = [0; GROUPS];
        if self.layout.widened {
            versions[ADDED] = 1;
        }
        let row = Row { id, seed: rng.u32(..), versions };
        self.rows.push(row);
        row
    }

    /// A key that is unused or was given up lately.
    fn next_key(&mut self, rng: &mut Rng) -> i64 {
        let again = rng.u8(..8) == 0;
        let freed = if again { self.freed.pop() } else { None };
        freed.unwrap_or_else(|| {
            self.next_id += 1;
            self.next_id - 1
        })
    }

    fn free(&mut self, id: i64, rng: &mut Rng) {
        if self.freed.len() < FREED {
            self.freed.push(id);
        } else if let Some(slot) = self.freed.get_mut(rng.usize(..FREED)) {
            *slot = id;
        }
    }
}

/// The source's log: where and when the current change is.
#[derive(Debug)]
struct Log {
    source: SourceInfo,
    commit_micros: i64,
    /// Changes left in the transaction.
    left: u8,
}

impl Log {
    fn new(start_micros: i64) -> Self {
        let source = SourceInfo {
            commit_micros: start_micros,
            snapshot: "false",
            committed_lsn: None,
            lsn: 27_556_608,
            transaction: 771,
        };
        Self { source, commit_micros: start_micros, left: 0 }
    }

    /// A row of the initial snapshot: all are at one place of the log.
    fn read(&mut self, snapshot: &'static str) {
        self.source.snapshot = snapshot;
    }

    /// A change: it may be the first of a transaction.
    fn next(&mut self, rng: &mut Rng) {
        let source = &mut self.source;
        if self.left == 0 {
            self.left = rng.u8(1..=4);
            self.commit_micros += rng.i64(1..100);
            source.commit_micros = self.commit_micros;
            source.snapshot = "false";
            source.committed_lsn = Some(source.lsn);
            source.transaction += 1;
        }
        self.left -= 1;
        source.lsn += rng.i64(7..60) * 8;
    }

    fn processed_nanos(&self, rng: &mut Rng) -> i64 {
        self.source.commit_micros * 1000 + 120_000_000 + rng.i64(0..10_000_000)
    }
}
