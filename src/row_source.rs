//! Where a row's values come from, in tables that are traced ([`crate::source_position`]): from the change that last wrote
//! the row, but for those that it left out (Debezium's unavailable-value placeholder).
//!
//! Where a row's changes are in two partitions, one that leaves out a value may be read before the one that gave it. It
//! takes the value that there is. The row keeps for each such value which change gave it, and when a later one comes that
//! is still before the row's last change, that one's value is put into the row. So each value ends as the last change
//! that has it says, in whatever order they were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;

use crate::error::{Error, Result};
use crate::schema::{PARTITION_COLUMN, SOURCE_COLUMN};
use crate::source_position::SourcePosition;

/// Where a row's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSource {
    /// The change that last wrote the row.
    pub last: SourcePosition,
    /// The values that it left out, by the column's field id, and the change that gave each, or deleted the row before;
    /// none when no such change is known.
    pub left_out: BTreeMap<i32, Option<SourcePosition>>,
}

impl From<SourcePosition> for RowSource {
    fn from(last: SourcePosition) -> Self {
        Self { last, left_out: BTreeMap::new() }
    }
}

impl RowSource {
    /// The change that gave the value of a column.
    pub fn giver(&self, column: i32) -> Option<&SourcePosition> {
        self.left_out.get(&column).map_or(Some(&self.last), Option::as_ref)
    }

    /// True when this row's value of a column, given by another row's last change or before it, is known to be later than
    /// the value that `other` has.
    pub fn has_later(&self, column: i32, other: &Self) -> bool {
        if other.last.is_before(&self.last) {
            return false;
        }
        match (self.giver(column), other.giver(column)) {
            (Some(own), Some(other)) => other.precedes(own),
            (own, None) => own.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// How it is stored with its row, beside the partition: the last change, then for each change that gave values their
    /// columns and its partition. None when nothing is known.
    pub fn text(&self) -> Option<String> {
        let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (column, giver) in &self.left_out {
            let giver = giver.as_ref().map_or_else(String::new, |giver| {
                format!("{};{}", giver.partition, giver.text().unwrap_or_default())
            });
            columns.entry(giver).or_default().push(column.to_string());
        }
        let last = self.last.text();
        if last.is_none() && columns.is_empty() {
            return None;
        }
        let givers = columns.into_iter().map(|(giver, ids)| format!("|{}:{giver}", ids.join(",")));
        Some(last.into_iter().chain(givers).collect())
    }

    /// Reads what [`Self::text`] wrote; what is something else tells nothing.
    pub fn parse(partition: i32, text: Option<&str>) -> Self {
        let mut parts = text.unwrap_or_default().split('|');
        let mut row = Self::from(SourcePosition::parse(partition, parts.next()));
        for (columns, giver) in parts.filter_map(|part| part.split_once(':')) {
            let giver = giver.split_once(';').and_then(|(partition, text)| {
                Some(SourcePosition::parse(partition.parse().ok()?, Some(text)))
            });
            let columns = columns.split(',').filter_map(|column| column.parse().ok());
            row.left_out.extend(columns.map(|column| (column, giver.clone())));
        }
        row
    }
}

/// The partitions of rows; that of a row which another engine wrote without one is none of the topic's.
pub fn partitions(rows: &RecordBatch) -> Vec<i32> {
    let column = rows.column_by_name(PARTITION_COLUMN);
    match column.and_then(|column| column.as_primitive_opt::<Int32Type>()) {
        Some(values) => values.iter().map(|value| value.unwrap_or(-1)).collect(),
        None => vec![-1; rows.num_rows()],
    }
}

/// What rows tell of where their values come from.
pub fn read(rows: &RecordBatch) -> Vec<RowSource> {
    let texts = rows.column_by_name(SOURCE_COLUMN).and_then(|c| c.as_string_opt::<i32>());
    let text = |row| texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row));
    let partitions = partitions(rows).into_iter().enumerate();
    partitions.map(|(row, partition)| RowSource::parse(partition, text(row))).collect()
}

/// `rows` that tell `sources`, one for each; as they are where they have no column for it.
pub fn write(rows: &RecordBatch, sources: &[RowSource]) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    let column = rows.schema_ref().index_of(SOURCE_COLUMN).ok().and_then(|at| columns.get_mut(at));
    let Some(column) = column else { return Ok(rows.clone()) };
    let texts: ArrayRef = Arc::new(sources.iter().map(RowSource::text).collect::<StringArray>());
    *column = texts;
    RecordBatch::try_new(rows.schema(), columns)
        .map_err(|e| Error::internal("cannot tell where rows' values come from").because(e))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn row(text: &str) -> RowSource {
        RowSource::parse(3, Some(text))
    }

    #[rstest]
    #[case("at=5;lsn=20")]
    #[case("at=5;lsn=20|7:")]
    #[case("|7,9:")]
    #[case("at=5;lsn=20|9:|4,7:0;at=3;lsn=9;after=8|12:1;file=4;pos=5;row=6;base=b:c")]
    #[case("lsn=20|7:2;")]
    fn what_is_stored_is_read_back(#[case] text: &str) {
        let sorted = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let (mut read, mut written) = (sorted(text), sorted(&row(text).text().unwrap()));
        read.sort();
        written.sort();
        assert_eq!(read, written);
        assert_eq!(row(&row(text).text().unwrap()), row(text));
    }

    #[rstest]
    #[case("")]
    #[case("at=soon|lsn=4|:")]
    #[case("||x:0;lsn=9")]
    fn what_is_something_else_tells_nothing(#[case] text: &str) {
        let known = SourcePosition { partition: 3, timestamp_ms: None, place: None };
        assert_eq!(row(text), RowSource::from(known));
        assert_eq!(row(text).text(), None);
    }

    /// Of column 7; the first row is of partition 3, the second of 4.
    #[rstest]
    #[case::given_by_the_last_change("lsn=20", "lsn=30|7:0;lsn=10", true)]
    #[case::given_before("lsn=20|7:0;lsn=9", "lsn=10", false)]
    #[case::given_after("lsn=20|7:0;lsn=9", "lsn=30|7:1;lsn=8", true)]
    #[case::given_by_nobody("lsn=20|7:", "lsn=10", false)]
    #[case::the_other_by_nobody("lsn=20", "lsn=30|7:", true)]
    #[case::both_by_nobody("lsn=20|7:", "lsn=30|7:", false)]
    #[case::in_one_partition("lsn=20|7:1;lsn=9", "lsn=30|7:1;lsn=8", true)]
    #[case::of_a_row_that_came_after("lsn=40|7:1;lsn=9", "lsn=30|7:0;lsn=8", false)]
    fn the_later_value_is_told(#[case] own: &str, #[case] other: &str, #[case] expected: bool) {
        let other = RowSource::parse(4, Some(other));
        assert_eq!(row(own).has_later(7, &other), expected);
    }
}
