//! A table's rejected records: to the dead letters, or the table halts.

use std::collections::HashSet;
use std::sync::Arc;

use crate::batch::{Buffer, Rejected};
use crate::dead_letter::{DeadLetters, Letter};
use crate::decode::Reject;
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::metrics;
use crate::record::Record;

/// What becomes of a table's rejected records.
#[derive(Debug)]
pub(super) struct Rejects {
    /// Where they go; without it the table halts at the first one.
    dead_letters: Option<Arc<DeadLetters>>,
    /// As many in a row may go there.
    limit: usize,
    /// Rejected in a row up to the last commit.
    in_a_row: usize,
    /// The same, up to the end of what was buried last.
    in_a_row_now: usize,
    /// Partition and offset of what was buried since the last commit: a batch that is made anew has it again.
    buried: HashSet<(i32, i64)>,
}

impl Rejects {
    pub(super) fn new(dead_letters: Option<Arc<DeadLetters>>, limit: usize) -> Self {
        Self { dead_letters, limit, in_a_row: 0, in_a_row_now: 0, buried: HashSet::new() }
    }

    /// Fails when there is no place for a rejected record.
    pub(super) fn check(&self, record: &Record<'_>, reject: &Reject) -> Result<()> {
        if self.dead_letters.is_some() {
            return Ok(());
        }
        Err(Error::data(format!(
            "record {}[{}]@{} cannot be used: {reject}",
            record.topic, record.partition, record.offset
        ))
        .hint("mend it at the source, or give option dead-letters a place to send such records to and go on"))
    }

    /// Sends the rejected records of `buffer` to the dead letters; returns when they are durable there. Fails before
    /// any is sent when too many in a row are.
    pub(super) async fn bury(
        &mut self,
        table: &str,
        buffer: &Buffer,
        rejected: &[Rejected<'_>],
    ) -> Result<()> {
        let streak = buffer.streak(rejected, self.in_a_row);
        self.in_a_row_now = streak.last;
        let Some(last) = rejected.last() else { return Ok(()) };
        self.check(&last.record, &last.reject)?;
        let Some(dead_letters) = &self.dead_letters else { return Ok(()) };
        if streak.longest > self.limit {
            return Err(too_many(last, self.limit));
        }
        let is_new =
            |r: &&Rejected<'_>| !self.buried.contains(&(r.record.partition, r.record.offset));
        let letters: Vec<Letter<'_>> = rejected
            .iter()
            .filter(is_new)
            .map(|Rejected { record, reject }| Letter { record: *record, reject, table })
            .collect();
        dead_letters.write(&letters).await?;
        for letter in &letters {
            metrics::dead_letter(table, letter.reject.reason);
            self.buried.insert((letter.record.partition, letter.record.offset));
        }
        failpoint::reach(Point::K15);
        Ok(())
    }

    /// What was buried will not come again: the table's position is past it.
    pub(super) fn settle(&mut self) {
        self.in_a_row = self.in_a_row_now;
        self.buried.clear();
    }
}

fn too_many(last: &Rejected<'_>, limit: usize) -> Error {
    let Rejected { record, reject } = last;
    Error::data(format!(
        "more than {limit} records in a row cannot be used; one of them is {}[{}]@{}: {reject}",
        record.topic, record.partition, record.offset
    ))
    .hint(
        "something is wrong with all of them, and none of the batch was taken: mend it and start again; \
         or raise the option dead-letter-limit",
    )
}
