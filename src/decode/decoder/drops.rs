//! Columns that the source has dropped go from the table in the end, where they may.
//!
//! A record with an old schema may come after those with a newer one, from another partition or read again: that it lacks
//! a column says nothing. So a column goes only when the source itself wrote a row without it, by its own clock, the
//! whole time after it was first missed here. Records that were in the topic by then are older than that.

use std::collections::HashSet;
use std::time::Duration;

use super::Decoder;
use super::table::Wanted;
use crate::clock::Clock;
use crate::decode::Row;
use crate::schema::{Column, is_metadata};

/// When columns go.
#[derive(Debug)]
pub(super) struct Drops {
    clock: Clock,
    after_millis: i64,
}

impl Decoder {
    /// This decoder, which drops a column once no schema of the topic had it for `after`, by `clock` and by the source's
    /// own time. Since when it is absent is part of the table's schema, so a restart forgets nothing. Columns stay in
    /// tables whose rows are matched by all their values, and in those of an outbox, whose events differ.
    #[must_use]
    pub fn with_drops(mut self, clock: Clock, after: Duration) -> Self {
        let after_millis = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        self.fate.drops = Some(Drops { clock, after_millis });
        self
    }

    /// Notes which of the table's columns no writer of `rows` has, and drops those that were absent for long enough.
    /// `present` has the places of the columns that a writer has; none when one of them does not tell all its columns.
    pub(super) fn settle_drops(
        &self,
        rows: &[Row<'_>],
        present: Option<&HashSet<usize>>,
        wanted: &mut Wanted,
    ) {
        let (Some(drops), Some(present)) = (&self.fate.drops, present) else { return };
        if self.options.outbox.is_some() || self.matches_rows() {
            return;
        }
        let now = drops.clock.now_millis();
        // A source's clock that is ahead does not make it earlier.
        let written = rows.iter().filter_map(|row| row.source_micros).max();
        let written = written.map_or(i64::MIN, |micros| now.min(micros.div_euclid(1000)));
        let stays = |column: &Column| {
            column.id == 0
                || is_metadata(&column.name)
                || wanted.key.contains(&column.name)
                || self.fate.kept.contains(&column.name)
        };
        let mut place = 0;
        wanted.columns.retain_mut(|column| {
            let is_present = present.contains(&place);
            place += 1;
            if is_present || stays(column) {
                column.absent_since = None;
                return true;
            }
            let since = *column.absent_since.get_or_insert(now);
            written.saturating_sub(since) < drops.after_millis
        });
    }
}
