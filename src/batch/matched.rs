//! From a buffer to a batch where the table has no key: a change takes out a row that equals the row before, and brings
//! the row after.
//!
//! Rows that came in the batch go first; what is left is for the table, which knows how many equal rows it has.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use uuid::Uuid;

use super::assemble::{Assembled, Given, MISSING_VALUE};
use super::supply::patch;
use super::{Buffer, RecordRef};
use crate::change::{Batch, Origin};
use crate::decode::{Decoder, Reject, Row};
use crate::error::{Error, Result};
use crate::key::{Key, contents};
use crate::schema::TableSchema;

/// A row that a change carries.
#[derive(Debug, Clone, Copy)]
struct Image {
    change: u32,
    /// True for the row before.
    is_before: bool,
}

/// What the rows of a batch come to.
#[derive(Default)]
struct Sum {
    /// Rows that are there at the end, in order of arrival, by their place among all.
    rows: Vec<usize>,
    /// Changes that take a row out of the table, and its content, in order of arrival.
    deletes: Vec<(u32, Key)>,
}

impl Buffer {
    pub(super) fn match_rows(
        &self,
        decoder: &mut Decoder,
        id: Uuid,
        missing: &Given,
    ) -> Result<Assembled<'_>> {
        let mut rejected: BTreeMap<u32, Reject> = BTreeMap::new();
        let mut absent = missing.absent.clone();
        let (schema, rows, keys, sum) = loop {
            let images = self.images(&rejected);
            let rows = self.image_rows(&images)?;
            let schema = decoder.table_schema(&rows)?;
            let columns = decoder.columns(&rows, &schema)?;
            let (rows, lacking) = complete(&images, columns.rows, &columns.unavailable, &schema)?;
            let known = rejected.len();
            for (at, reject) in columns.rejects.into_iter().chain(lacking) {
                let Some(image) = images.get(at) else { continue };
                rejected.entry(image.change).or_insert(reject);
            }
            if rejected.len() > known {
                continue;
            }
            let keys = contents(schema.columns(), &rows)?;
            let sum = sum(&images, &keys);
            for change in unmatched(&sum, &mut absent) {
                rejected.insert(change, no_such_row());
            }
            if rejected.len() == known {
                break (schema, rows, keys, (images, sum));
            }
        };
        let (images, sum) = sum;
        let collapsed = self.changes.len() - rejected.len() - effective(&images, &sum);
        let kept = pick(&rows, &sum.rows)?;
        let kept_keys = sum.rows.iter().filter_map(|at| keys.get(*at).copied()).collect();
        let batch = Batch {
            deletes: sum.deletes.iter().map(|(_, content)| *content).collect(),
            matched: true,
            truncates: self.truncates(),
            newest_source_micros: self.changes.iter().filter_map(|b| b.change.source_micros).max(),
            topic_id: self.topic_id,
            timestamps_ms: self.timestamps_ms.clone(),
            ..Batch::of_rows(id, self.ranges(), schema, kept, kept_keys)
        };
        let late = rejected
            .into_iter()
            .filter_map(|(change, reject)| Some((self.change(change)?.record, reject)));
        let rejects: Vec<(RecordRef, Reject)> = self.rejects.iter().cloned().chain(late).collect();
        let rejected = self.with_records(rejects);
        Ok(Assembled { batch, rejected, collapsed, stale: 0, lacks_rows: false, lost: 0 })
    }

    /// The rows of all changes but the rejected ones; a row before is followed by the row after.
    fn images(&self, rejected: &BTreeMap<u32, Reject>) -> Vec<Image> {
        let mut images = Vec::with_capacity(self.changes.len());
        for (change, buffered) in (0..).zip(&self.changes) {
            // A truncate took away what came before it.
            let is_gone = self.last.get(&buffered.change.key) != Some(&change);
            if is_gone || rejected.contains_key(&change) {
                continue;
            }
            let before = buffered.change.before.map(|_| Image { change, is_before: true });
            let after = buffered.change.row.map(|_| Image { change, is_before: false });
            images.extend(before.into_iter().chain(after));
        }
        images
    }

    fn image_rows(&self, images: &[Image]) -> Result<Vec<Row<'_>>> {
        let row = |image: &Image| {
            let buffered = self.change(image.change)?;
            let record = self.record(buffered.record)?;
            match image.is_before {
                true => Row::before(record, &buffered.change),
                false => Row::of(record, &buffered.change),
            }
        };
        let lost = || Error::internal("a buffered change has no record");
        images.iter().map(|image| row(image).ok_or_else(lost)).collect()
    }
}

/// The rows with every value that a row after leaves out taken from the row before, and the rows that lack one still.
fn complete(
    images: &[Image],
    rows: RecordBatch,
    unavailable: &[(usize, usize)],
    schema: &Arc<TableSchema>,
) -> Result<(RecordBatch, Vec<(usize, Reject)>)> {
    let open: HashSet<(usize, usize)> = unavailable.iter().copied().collect();
    let (mut found, mut lacking) = (Vec::new(), Vec::new());
    for (row, column) in unavailable {
        let has_before = |before: &usize| {
            images.get(*before).is_some_and(|image| image.is_before)
                && !open.contains(&(*before, *column))
        };
        let is_before = images.get(*row).is_some_and(|image| image.is_before);
        match row.checked_sub(1).filter(|before| !is_before && has_before(before)) {
            Some(before) => found.push((*row, *column, before)),
            None => {
                let name = schema.columns().get(*column).map_or("", |column| &column.name);
                let what =
                    format!("the record leaves out {name}, and with it which row it changes");
                lacking.push((*row, Reject::new(MISSING_VALUE, what)));
            }
        }
    }
    if found.is_empty() {
        return Ok((rows, lacking));
    }
    Ok((patch(&rows, &rows, &found)?, lacking))
}

/// Takes changes together in their order.
fn sum(images: &[Image], keys: &[Key]) -> Sum {
    let mut waiting: HashMap<Key, Vec<usize>> = HashMap::new();
    let mut deletes = Vec::new();
    for (at, (image, content)) in images.iter().zip(keys).enumerate() {
        if !image.is_before {
            waiting.entry(*content).or_default().push(at);
        } else if waiting.get_mut(content).and_then(Vec::pop).is_none() {
            deletes.push((image.change, *content));
        }
    }
    let mut rows: Vec<usize> = waiting.into_values().flatten().collect();
    rows.sort_unstable();
    Sum { rows, deletes }
}

/// The changes whose row the table does not have, the last ones of each content, as many as `absent` says.
fn unmatched(sum: &Sum, absent: &mut HashMap<Origin, usize>) -> Vec<u32> {
    let mut changes = Vec::new();
    for (change, content) in sum.deletes.iter().rev() {
        if let Some(count) = absent.get_mut(&Origin::Row(*content)).filter(|count| **count > 0) {
            *count -= 1;
            changes.push(*change);
        }
    }
    changes
}

/// Changes that did something which no later change of the batch undid.
fn effective(images: &[Image], sum: &Sum) -> usize {
    let rows = sum.rows.iter().filter_map(|at| images.get(*at)).map(|image| image.change);
    let changes: BTreeSet<u32> =
        rows.chain(sum.deletes.iter().map(|(change, _)| *change)).collect();
    changes.len()
}

fn pick(rows: &RecordBatch, at: &[usize]) -> Result<RecordBatch> {
    let failed = || Error::internal("a batch of more rows than fit");
    let at: Option<Vec<u32>> = at.iter().map(|at| u32::try_from(*at).ok()).collect();
    take_record_batch(rows, &UInt32Array::from(at.ok_or_else(failed)?))
        .map_err(|e| Error::internal("cannot pick rows of a batch").because(e))
}

fn no_such_row() -> Reject {
    Reject::new(
        "no_such_row",
        "the table has no row that equals the row before: records are missing, or the row before is not complete (in \
         Postgres set REPLICA IDENTITY FULL)",
    )
}
