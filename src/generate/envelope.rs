//! What one record tells, before it is bytes.

use super::shape::{Shape, SourceColumn};
use super::value::{Cell, Origin, cell, key_cell, zero};
use crate::change::Operation;

/// A live row: what its values are computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// What the key columns are computed from.
    pub(super) id: i64,
    /// What all other columns are computed from.
    pub(super) seed: u32,
    /// How often the columns of each group changed.
    pub(super) versions: [u16; GROUPS],
}

/// Columns change in groups: the source's own ones in turn in the first three, the added one alone in the last,
/// whose version 0 is null: the row is older than the column.
pub(super) const GROUPS: usize = 4;
/// The group of the added column.
pub(super) const ADDED: usize = GROUPS - 1;

/// The group of a column that is not the added one.
pub(super) fn group(column: usize) -> usize {
    column % ADDED
}

/// A row as it is logged before or after a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    pub(super) row: Row,
    /// Only the key is known.
    pub(super) blank: bool,
    /// Columns whose value is not logged, a bit each.
    pub(super) unavailable: u64,
}

impl Image {
    /// The whole row.
    pub(super) fn whole(row: Row) -> Self {
        Self { row, blank: false, unavailable: 0 }
    }

    /// Calls `visit` with each column and its value, in order.
    pub(super) fn visit(
        &self,
        table: Layout,
        scratch: &mut String,
        mut visit: impl FnMut(&SourceColumn, Cell<'_>),
    ) {
        let keys = table.shape.key_columns().len();
        let own = table.shape.columns(false).len();
        for (place, column) in table.shape.columns(table.widened).iter().enumerate() {
            if place < keys {
                visit(column, key_cell(column, self.row.id, scratch));
            } else if self.blank {
                visit(column, if column.nullable { Cell::Null } else { zero(column.kind) });
            } else if self.unavailable >> place & 1 == 1 {
                visit(column, Cell::Unavailable);
            } else {
                let group = if place < own { group(place) } else { ADDED };
                visit(column, self.row.cell(column, place, group, scratch));
            }
        }
    }
}

impl Row {
    /// The value of the column at `place`, which is not of the key.
    pub(super) fn cell<'s>(
        &self,
        column: &SourceColumn,
        place: usize,
        group: usize,
        scratch: &'s mut String,
    ) -> Cell<'s> {
        let version = self.versions.get(group).copied().unwrap_or_default();
        if group == ADDED && version == 0 {
            return Cell::Null;
        }
        let column_seed = u64::try_from(place).unwrap_or_default();
        cell(column, Origin { seed: self.seed.into(), column: column_seed, version }, scratch)
    }
}

/// A table at one time: with the added column or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    pub(super) widened: bool,
}

/// What the source tells about a change: Debezium's `source` block.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceInfo {
    /// When the transaction was committed.
    pub(super) commit_micros: i64,
    /// `false`, or the place in the initial snapshot.
    pub(super) snapshot: &'static str,
    /// Where the transaction before it ended; none in the initial snapshot.
    pub(super) committed_lsn: Option<i64>,
    pub(super) lsn: i64,
    pub(super) transaction: i64,
}

/// A change in Debezium's terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    pub(super) before: Option<Image>,
    pub(super) after: Option<Image>,
    pub(super) operation: Operation,
    pub(super) source: SourceInfo,
    /// When the connector processed it.
    pub(super) processed_nanos: i64,
}

/// The connector version that records claim to come from.
pub(super) const VERSION: &str = "3.7.0.Final";
/// The source database.
pub(super) const DATABASE: &str = "shop";
/// The schema in the source database.
pub(super) const SCHEMA: &str = "public";
/// What `source.snapshot` may hold.
pub(super) const SNAPSHOT_VALUES: &str =
    "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental";
