//! Rows that another initial snapshot of their table does not have: they were deleted at the source while nothing was
//! captured, and no record tells it.
//!
//! A snapshot's records have its first and its last one marked ([`SnapshotRecord`]). When the last one came, and every
//! record in between was a change of the table, rows whose offset is below the first one's are not there any more. Where
//! the snapshot started is noted in the table with every commit, as it may take many. What is not certain leaves rows
//! alone.

use super::Buffer;
use crate::change::{InitialSnapshot, SnapshotRecord};

/// What the buffer's records tell of initial snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// Where the table is after them.
    pub(super) now: InitialSnapshot,
    /// Rows whose offset is lower, of before this, are gone.
    pub(super) before: Option<i64>,
}

impl Buffer {
    /// What the buffer's records tell when the table was in `snapshot` before them. A rejected record may be of any row.
    pub(super) fn confirm(&self, snapshot: InitialSnapshot) -> Confirmed {
        let offset = |at| self.record(at).map_or(i64::MIN, |record| record.offset);
        let mut rejects = self.rejects.iter().map(|(at, _)| offset(*at)).peekable();
        let mut confirmed = Confirmed { now: snapshot, before: None };
        for buffered in &self.changes {
            let at = offset(buffered.record);
            while rejects.next_if(|reject| *reject < at).is_some() {
                confirmed.now = InitialSnapshot::Unknown;
            }
            confirmed.follow(buffered.change.snapshot, at);
        }
        if rejects.next().is_some() {
            confirmed.now = InitialSnapshot::Unknown;
        }
        confirmed
    }
}

impl Confirmed {
    fn follow(&mut self, record: SnapshotRecord, offset: i64) {
        use InitialSnapshot::{Outside, Since, Unknown};
        match (record, self.now) {
            (SnapshotRecord::None, _) => self.now = Outside,
            (SnapshotRecord::First, _) => self.now = Since(offset),
            (SnapshotRecord::Within, Since(_)) => {}
            (SnapshotRecord::Within, _) => self.now = Unknown,
            (SnapshotRecord::Last, before) => {
                self.now = Unknown;
                match before {
                    Since(start) => self.before = Some(start),
                    // A snapshot of one row.
                    Outside => self.before = Some(offset),
                    Unknown => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::change::SnapshotRecord::{First, Last, None as Change, Within};

    #[rstest]
    #[case::whole(&[Change, First, Within, Last], Some(1))]
    #[case::changes_after_it(&[Change, First, Last, Change], Some(1))]
    #[case::of_one_row(&[Change, Last], Some(1))]
    #[case::broken_off_and_taken_again(&[Change, First, Within, First, Last], Some(3))]
    #[case::broken_off(&[Change, First, Within, Change, Within, Last], None)]
    #[case::not_seen_from_its_start(&[Within, Last], None)]
    #[case::end_alone(&[Last], None)]
    #[case::marked_twice(&[First, Last, Last, Within], Some(0))]
    #[case::not_at_its_end(&[Change, First, Within], None)]
    #[case::two_of_them(&[First, Within, Last, First, Last], Some(3))]
    fn rows_of_before_a_whole_snapshot_are_gone(
        #[case] records: &[SnapshotRecord],
        #[case] before: Option<i64>,
    ) {
        // Wherever a commit comes in between, with the state noted.
        for cut in 0..=records.len() {
            let mut confirmed = Confirmed::default();
            let mut told = None;
            for (number, (offset, record)) in (0..).zip(records).enumerate() {
                if number == cut {
                    told = confirmed.before;
                    confirmed = Confirmed { before: None, ..confirmed };
                }
                confirmed.follow(*record, offset);
            }
            assert_eq!(confirmed.before.or(told), before, "cut at {cut}");
        }
    }
}
