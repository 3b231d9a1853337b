//! The values of labels.

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It was its row's last change in the batch.
    Applied,
    /// A later change of the batch replaced it.
    Collapsed,
    /// The table had a later change of its row, from another partition.
    Stale,
    /// It is no change of a row: a heartbeat and the like.
    Filtered,
    /// It could not be used and was put aside.
    DeadLetter,
}

impl RecordOutcome {
    pub(super) const ALL: [Self; 5] =
        [Self::Applied, Self::Collapsed, Self::Stale, Self::Filtered, Self::DeadLetter];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Collapsed => "collapsed",
            Self::Stale => "stale",
            Self::Filtered => "filtered",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// How an attempt to commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The table has it.
    Committed,
    /// The answer was lost; the commit was found in the table.
    Recovered,
    /// The second format was behind and took over what the first has.
    BroughtUp,
    /// Another commit came first.
    Conflict,
    /// Another owner has the partitions.
    Fenced,
    /// Nobody can tell yet whether it is in the table; nothing else is committed there before that is known.
    Unknown,
    /// It is not in the table, for another reason.
    Failed,
}

impl CommitOutcome {
    pub(super) const ALL: [Self; 7] = [
        Self::Committed,
        Self::Recovered,
        Self::BroughtUp,
        Self::Conflict,
        Self::Fenced,
        Self::Unknown,
        Self::Failed,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Recovered => "recovered",
            Self::BroughtUp => "brought_up",
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// What a rebalance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions were gained.
    Assigned,
    /// Partitions were lost.
    Revoked,
}

impl Rebalance {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Revoked => "revoked",
        }
    }
}
