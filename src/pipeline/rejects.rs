//! Rejected records: to the dead letters, or their table halts.

use std::collections::HashSet;
use std::sync::Arc;

use crate::batch::{Buffer, Rejected};
use crate::dead_letter::DeadLetters;
use crate::decode::Reject;
use crate::error::{Error, Result};
use crate::metrics;
use crate::record::Record;
use crate::retry;

/// What becomes of rejected records.
#[derive(Debug, Clone)]
pub(super) struct Rejects {
    /// Where they go; without it a table halts at the first one.
    pub(super) dead_letters: Option<Arc<DeadLetters>>,
    /// As many in a row may go there.
    pub(super) limit: usize,
}

impl Rejects {
    /// Sends the rejected records of `buffer` to the dead letters, but for those at places that are `buried`; returns when
    /// they are durable there, with the number of records rejected in a row that the buffer ends with, after `before`
    /// of them. Fails before any is sent when too many are.
    pub(super) async fn bury(
        &self,
        table: &str,
        buffer: &Buffer,
        rejected: &[Rejected<'_>],
        before: usize,
        buried: &mut HashSet<(i32, i64)>,
    ) -> Result<usize> {
        let streak = buffer.streak(rejected, before);
        let (Some(first), Some(last)) = (rejected.first(), rejected.last()) else {
            return Ok(streak.last);
        };
        let Some(dead_letters) = &self.dead_letters else {
            return Err(no_dead_letters(&first.record, &first.reject));
        };
        if streak.longest > self.limit {
            return Err(too_many(last, self.limit));
        }
        let waiting_for = format!("the dead letters of {table}");
        for Rejected { record, reject } in rejected {
            if buried.contains(&(record.partition, record.offset)) {
                continue;
            }
            retry::hold(&waiting_for, || dead_letters.send(record, reject, table)).await?;
            metrics::dead_letter(table, reject.reason);
            buried.insert((record.partition, record.offset));
        }
        Ok(streak.last)
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

/// The error of a record that cannot be used where there are no dead letters.
pub(super) fn no_dead_letters(record: &Record<'_>, reject: &Reject) -> Error {
    Error::data(format!(
        "record {}[{}]@{} cannot be used: {reject}",
        record.topic, record.partition, record.offset
    ))
    .hint("mend it at the source, or give option dead-letters a topic to send such records to and go on")
}
