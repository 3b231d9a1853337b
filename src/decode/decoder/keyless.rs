//! Changes of tables without a key.

use super::{Heading, row_ref};
use crate::change::{Operation, SnapshotRecord};
use crate::decode::{Change, Reject};
use crate::key::Key;
use crate::record::Record;

/// A change of a table without a key: whatever it did, it is a row of its own, for a delete the row that is gone.
pub(super) fn appended(
    record: &Record<'_>,
    writer: usize,
    heading: &Heading,
) -> Result<Change, Reject> {
    let row = match heading.operation {
        Operation::Delete => heading.before.as_ref(),
        _ => heading.after.as_ref(),
    };
    Ok(Change {
        operation: heading.operation,
        key: Key::of_place(record.partition, record.offset),
        row: Some(row_ref(writer, row)?),
        before: None,
        moved: None,
        source_micros: heading.source_micros,
        snapshot: SnapshotRecord::None,
    })
}

/// A change of a table without a key, of the row that equals the row before.
pub(super) fn matched(
    record: &Record<'_>,
    writer: usize,
    heading: &Heading,
) -> Result<Change, Reject> {
    let (needs_before, has_row) = match heading.operation {
        Operation::Delete => (true, false),
        Operation::Update => (true, true),
        _ => (false, true),
    };
    let before = match &heading.before {
        Some(before) if needs_before => Some(row_ref(writer, Some(before))?),
        None if needs_before => return Err(no_before()),
        _ => None,
    };
    let row = has_row.then(|| row_ref(writer, heading.after.as_ref())).transpose()?;
    let key = Key::of_place(record.partition, record.offset);
    let Heading { operation, source_micros, .. } = *heading;
    let (moved, snapshot) = (None, SnapshotRecord::None);
    Ok(Change { operation, key, row, before, moved, source_micros, snapshot })
}

fn no_before() -> Reject {
    Reject::new(
        "no_before",
        "the record does not have the row before, by which rows of a table without a key are matched: in Postgres set \
         REPLICA IDENTITY FULL",
    )
}
