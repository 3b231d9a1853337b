//! Table schemas: what a lake table's columns are, whatever the format.
//!
//! Types are the intersection of what Delta Lake and Apache Iceberg hold exactly. Every column carries the
//! Iceberg field id, which is also written into the Parquet files, so both formats can share them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// Name of the metadata column that holds the operation that wrote the row: `c`, `r` or `u`, and `d` in a table without a
/// key, which has a row for every record.
pub const OP_COLUMN: &str = "_cdc_op";
/// Name of the metadata column that holds when the source committed the change.
pub const TS_COLUMN: &str = "_cdc_ts";
/// Name of the metadata column that holds the Kafka partition of the change.
pub const PARTITION_COLUMN: &str = "_cdc_partition";
/// Name of the metadata column that holds the Kafka offset of the change.
pub const OFFSET_COLUMN: &str = "_cdc_offset";

/// Name of the metadata column that holds where the change comes from ([`crate::source_position`]). Only tables have it
/// whose rows may come from more than one partition each.
pub const SOURCE_COLUMN: &str = "_cdc_source";

/// Key under which Arrow and Parquet carry a field id.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// The digits a decimal can have.
const MAX_PRECISION: u8 = 38;

/// A column's type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// 32-bit signed integer; 8- and 16-bit integers of the source as well.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 32-bit IEEE float.
    Float32,
    /// 64-bit IEEE float.
    Float64,
    /// Exact decimal, precision up to 38.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: u8,
    },
    /// UTF-8 text; uuid, json, enum and the like as well.
    String,
    /// Bytes.
    Binary,
    /// Days since the epoch.
    Date,
    /// Microseconds since midnight. Iceberg only: a table that is also Delta stores it as `Int64`.
    Time,
    /// Microseconds since the epoch on a clock without a zone.
    Timestamp,
    /// Microseconds since the epoch, an instant.
    TimestampTz,
    /// A list of nullable elements.
    List(Box<ListElement>),
}

/// The element of a list column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListElement {
    /// Iceberg field id of the element.
    pub id: i32,
    /// The element's type; elements are always nullable.
    #[serde(rename = "type")]
    pub ty: ColumnType,
}

impl ColumnType {
    /// The Arrow type that holds it.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(i8::MAX))
            }
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::List(element) => {
                DataType::List(Arc::new(arrow_field("element", element.id, &element.ty, true)))
            }
        }
    }

    /// The type a table stores when Delta is among its formats: Delta has no time of day.
    #[must_use]
    pub fn for_delta(&self) -> Self {
        match self {
            Self::Time => Self::Int64,
            Self::List(element) => {
                Self::List(Box::new(ListElement { id: element.id, ty: element.ty.for_delta() }))
            }
            other => other.clone(),
        }
    }

    /// True when both are the same type, whatever the ids of list elements.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.ty.same_as(&b.ty),
            (a, b) => a == b,
        }
    }

    /// The type that a column of this type becomes to hold the values of `other` as well, when it does not hold them
    /// yet and both formats widen it in place: int to long, float to double, decimals to more digits before the point;
    /// lists by their elements.
    #[must_use]
    pub fn widened(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Int32, Self::Int64) => Some(Self::Int64),
            (Self::Float32, Self::Float64) => Some(Self::Float64),
            (Self::Decimal { precision, scale }, Self::Decimal { precision: p, scale: s }) => {
                let whole = p.checked_sub(*s).filter(|_| s <= scale)?;
                let wide = whole.checked_add(*scale)?;
                let grows = wide > *precision && wide <= MAX_PRECISION;
                grows.then_some(Self::Decimal { precision: wide, scale: *scale })
            }
            (Self::List(element), Self::List(other)) => {
                let ty = element.ty.widened(&other.ty)?;
                Some(Self::List(Box::new(ListElement { id: element.id, ty })))
            }
            _ => None,
        }
    }

    /// True when a column of type `narrow` may become one of this type in place.
    pub fn extends(&self, narrow: &Self) -> bool {
        self == narrow || narrow.widened(self).as_ref() == Some(self)
    }

    /// True when a value gives the same [`crate::key::Key`] in a key column of either type: integers of any width and
    /// decimals of any precision do.
    fn has_keys_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int32 | Self::Int64, Self::Int32 | Self::Int64) => true,
            (Self::Decimal { scale: a, .. }, Self::Decimal { scale: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }

    /// Gives fresh ids to list elements, counting `last_id` up.
    fn assign_ids(&mut self, last_id: &mut i32) {
        if let Self::List(element) = self {
            *last_id += 1;
            element.id = *last_id;
            element.ty.assign_ids(last_id);
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Iceberg field id, unique in the table for ever.
    pub id: i32,
    /// The column's name.
    pub name: String,
    /// The column's type.
    #[serde(rename = "type")]
    pub ty: ColumnType,
    /// False for key columns and metadata columns. What others made NOT NULL stays so until the source has nulls for it.
    pub nullable: bool,
    /// Names that the column had, oldest first: those of the source's renames. Rows that were written under them belong
    /// to it still.
    #[serde(default)]
    pub former: Vec<String>,
    /// The column's name in data files, once a table has columns whose name there is another; then every column says
    /// its own. It never changes. (Delta's column mapping; Iceberg finds columns by id.)
    #[serde(default)]
    pub physical: Option<String>,
    /// Since when every batch was without the column, milliseconds since the epoch: the source may have dropped it. Noted
    /// only where such columns go for good.
    #[serde(default)]
    pub absent_since: Option<i64>,
}

impl Column {
    /// A column whose id is not assigned yet.
    pub fn new(name: impl Into<String>, ty: ColumnType, nullable: bool) -> Self {
        let (former, physical, absent_since) = (Vec::new(), None, None);
        Self { id: 0, name: name.into(), ty, nullable, former, physical, absent_since }
    }

    /// The name that data files have for it.
    pub fn stored_name(&self) -> &str {
        self.physical.as_deref().unwrap_or(&self.name)
    }

    /// Gives the column another name. Its id stays, and so does its name in data files.
    pub fn rename(&mut self, name: &str) {
        let before = std::mem::replace(&mut self.name, name.to_owned());
        if self.id != 0 {
            self.physical.get_or_insert_with(|| before.clone());
        }
        self.former.push(before);
    }

    /// True when this is what `old` may have become: renamed, wider, no longer NOT NULL, in use again or not any more.
    pub fn follows(&self, old: &Self) -> bool {
        let knows = |name: &String| self.former.contains(name);
        let named = match self.name == old.name {
            true => self.former.len() >= old.former.len(),
            false => self.former.len() > old.former.len() && knows(&old.name),
        };
        let stored = self.physical.is_some() || old.physical.is_none();
        // Instances that each keep a time of their own would write the schema anew with every commit.
        let absent = self.absent_since.zip(old.absent_since).is_none_or(|(new, old)| new == old);
        self.id == old.id
            && named
            && old.former.iter().all(knows)
            && stored
            && absent
            && self.stored_name() == old.stored_name()
            && self.ty.extends(&old.ty)
            && (self.nullable || !old.nullable)
    }
}

/// The schema of a lake table: the source's columns, then the metadata columns, then columns added since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    columns: Vec<Column>,
    key: Vec<String>,
    last_id: i32,
    /// Ids of columns that are gone for good.
    #[serde(default)]
    dropped: Vec<i32>,
    /// The partitions that the topic had when the table was made.
    partitions: Option<i32>,
}

impl TableSchema {
    /// The schema of a new table: `columns` of the source in its order, keyed by `key` (in the key's order),
    /// followed by the metadata columns. Ids are assigned as Iceberg does: all columns first, list elements after.
    pub fn create(columns: Vec<Column>, key: Vec<String>) -> Self {
        let metadata = [
            Column::new(OP_COLUMN, ColumnType::String, false),
            Column::new(TS_COLUMN, ColumnType::TimestampTz, true),
            Column::new(PARTITION_COLUMN, ColumnType::Int32, false),
            Column::new(OFFSET_COLUMN, ColumnType::Int64, false),
        ];
        Self::plain(columns.into_iter().chain(metadata).collect(), key)
    }

    /// The schema of a new table that has `columns` and no others: one that no topic feeds.
    pub fn plain(columns: Vec<Column>, key: Vec<String>) -> Self {
        let mut schema =
            Self { columns: Vec::new(), key, last_id: 0, dropped: Vec::new(), partitions: None };
        schema.push_all(columns);
        schema
    }

    /// A schema read back from a table's log: ids are kept.
    pub fn from_parts(columns: Vec<Column>, key: Vec<String>, last_id: i32) -> Self {
        Self { columns, key, last_id, dropped: Vec::new(), partitions: None }
    }

    /// This schema, of a table that had columns with the ids `dropped` before.
    #[must_use]
    pub fn with_dropped(self, dropped: Vec<i32>) -> Self {
        Self { dropped, ..self }
    }

    /// This schema of a table that was made when its topic had so many partitions.
    #[must_use]
    pub fn with_partitions(self, partitions: Option<i32>) -> Self {
        Self { partitions, ..self }
    }

    /// This schema with `columns` added at the end; they get fresh ids and are nullable.
    #[must_use]
    pub fn with_added(&self, columns: Vec<Column>) -> Self {
        let mut schema = self.clone();
        schema.push_all(
            columns.into_iter().map(|column| Column { nullable: true, ..column }).collect(),
        );
        schema
    }

    /// This schema with its columns as `columns` has them, renamed, wider or no longer NOT NULL; those without an id are
    /// added at the end as [`Self::with_added`] does, those that are not there are dropped for good.
    #[must_use]
    pub fn evolved(&self, columns: Vec<Column>) -> Self {
        let (mut known, added): (Vec<Column>, _) =
            columns.into_iter().partition(|column| column.id != 0);
        let stays = |id: i32| known.iter().any(|column| column.id == id);
        let gone = self.columns.iter().map(|column| column.id).filter(|id| !stays(*id));
        let dropped: Vec<i32> = self.dropped.iter().copied().chain(gone).collect();
        if !dropped.is_empty() || known.iter().any(|column| column.physical.is_some()) {
            for column in &mut known {
                column.physical.get_or_insert_with(|| column.name.clone());
            }
        }
        Self { columns: known, dropped, ..self.clone() }.with_added(added)
    }

    /// True when data files have names of their own for the columns.
    pub fn is_mapped(&self) -> bool {
        self.columns.iter().any(|column| column.physical.is_some())
    }

    fn push_all(&mut self, mut columns: Vec<Column>) {
        let mapped = self.is_mapped();
        for column in &mut columns {
            self.last_id += 1;
            column.id = self.last_id;
            // A column that had the name may be in data files still.
            column.physical = mapped.then(|| format!("c{}_{}", column.id, column.name));
        }
        for column in &mut columns {
            column.ty.assign_ids(&mut self.last_id);
        }
        self.columns.append(&mut columns);
    }

    /// Every column, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Names of the key columns, in the key's order; empty for a table without a key.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// Ids of columns that are gone for good.
    pub fn dropped(&self) -> &[i32] {
        &self.dropped
    }

    /// The partitions that the topic had when the table was made, if that was known.
    pub fn partitions(&self) -> Option<i32> {
        self.partitions
    }

    /// True when rows tell where in the source's log their change is.
    pub fn is_traced(&self) -> bool {
        self.column(SOURCE_COLUMN).is_some()
    }

    /// The highest field id ever assigned.
    pub fn last_id(&self) -> i32 {
        self.last_id
    }

    /// The place of the column named `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The column named `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The key columns, in the key's order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|name| self.column(name))
    }

    /// True when rows of this schema fit a table of `other` once it gets the columns it lacks, the new names, the wider
    /// types and the nulls: every column of `other` is here or dropped for good, none narrower, NOT NULL or under a former
    /// name again, none comes back, and keys and what was known of the topic stay what they are.
    pub fn covers(&self, other: &Self) -> bool {
        let has = |old: &Column| {
            self.dropped.contains(&old.id) || self.columns.iter().any(|new| new.follows(old))
        };
        let is_gone = |id: &i32| self.dropped.contains(id);
        let drops_stay = other.dropped.iter().all(is_gone);
        let is_made_alike = self.partitions == other.partitions && self.has_keys_of(other);
        is_made_alike && drops_stay && other.columns.iter().all(has)
    }

    /// True when every key is the same sixteen bytes under both schemas.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        let like = |(a, b): (&Column, &Column)| a.ty.has_keys_of(&b.ty);
        self.key == other.key && self.key_columns().zip(other.key_columns()).all(like)
    }

    /// The Arrow schema of the table's rows, field ids in the fields' metadata.
    pub fn arrow(&self) -> SchemaRef {
        self.arrow_with(|column| &column.name)
    }

    /// The same under the names that data files have.
    pub fn stored_arrow(&self) -> SchemaRef {
        self.arrow_with(Column::stored_name)
    }

    fn arrow_with(&self, name: impl Fn(&Column) -> &str) -> SchemaRef {
        let fields = self.columns.iter().map(|c| arrow_field(name(c), c.id, &c.ty, c.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

fn arrow_field(name: &str, id: i32, ty: &ColumnType, nullable: bool) -> Field {
    let metadata = [(FIELD_ID_KEY.to_owned(), id.to_string())].into();
    Field::new(name, ty.arrow(), nullable).with_metadata(metadata)
}

/// True for the name of a metadata column.
pub fn is_metadata(name: &str) -> bool {
    matches!(name, OP_COLUMN | TS_COLUMN | PARTITION_COLUMN | OFFSET_COLUMN | SOURCE_COLUMN)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn ids_are_assigned_to_columns_first_and_list_elements_after() {
        let list = ColumnType::List(Box::new(ListElement { id: 0, ty: ColumnType::String }));
        let schema = TableSchema::create(
            vec![Column::new("id", ColumnType::Int64, false), Column::new("tags", list, true)],
            vec!["id".into()],
        );
        let ids: Vec<i32> = schema.columns().iter().map(|column| column.id).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
        assert!(matches!(&schema.column("tags").unwrap().ty, ColumnType::List(e) if e.id == 7));
        let wider = schema.with_added(vec![Column::new("note", ColumnType::String, false)]);
        assert_eq!(wider.column("note").unwrap().id, 8);
        assert!(wider.column("note").unwrap().nullable);
        assert_eq!(wider.last_id(), 8);
    }

    fn decimal(precision: u8, scale: u8) -> ColumnType {
        ColumnType::Decimal { precision, scale }
    }

    fn list(ty: ColumnType) -> ColumnType {
        ColumnType::List(Box::new(ListElement { id: 7, ty }))
    }

    #[rstest]
    #[case(ColumnType::Int32, ColumnType::Int64, Some(ColumnType::Int64))]
    #[case(ColumnType::Float32, ColumnType::Float64, Some(ColumnType::Float64))]
    #[case(decimal(5, 2), decimal(7, 2), Some(decimal(7, 2)))]
    #[case(decimal(6, 2), decimal(6, 1), Some(decimal(7, 2)))]
    #[case(decimal(6, 2), decimal(5, 2), None)]
    #[case(decimal(6, 2), decimal(7, 3), None)]
    #[case(decimal(6, 2), decimal(38, 0), None)]
    #[case(ColumnType::Int64, ColumnType::Int32, None)]
    #[case(ColumnType::Int32, ColumnType::String, None)]
    #[case(ColumnType::Date, ColumnType::Timestamp, None)]
    #[case(list(ColumnType::Int32), list(ColumnType::Int64), Some(list(ColumnType::Int64)))]
    #[case(list(ColumnType::String), list(ColumnType::Int64), None)]
    fn types_widen_in_place(
        #[case] table: ColumnType,
        #[case] writer: ColumnType,
        #[case] wide: Option<ColumnType>,
    ) {
        assert_eq!(table.widened(&writer), wide);
        if let Some(wide) = wide {
            assert!(wide.extends(&table) && !table.extends(&wide));
        }
    }

    #[test]
    fn a_schema_covers_another_that_it_grew_from_and_no_other() {
        let column = |name: &str, ty| Column::new(name, ty, false);
        let old = TableSchema::create(
            vec![column("id", ColumnType::Int32), column("v", ColumnType::Float32)],
            vec!["id".into()],
        );
        let with = |place: usize, change: fn(&mut Column)| {
            let mut columns = old.columns().to_vec();
            change(&mut columns[place]);
            old.evolved(columns)
        };
        for new in [
            old.clone(),
            with(0, |id| id.ty = ColumnType::Int64),
            with(1, |v| v.ty = ColumnType::Float64),
            with(1, |v| v.nullable = true),
            with(1, |v| v.rename("w")),
            with(1, |v| ["w", "v"].iter().for_each(|name| v.rename(name))),
            with(1, |v| v.former.push("u".into())),
            old.with_added(vec![column("w", ColumnType::String)]),
            old.evolved(old.columns().iter().filter(|c| c.name != "v").cloned().collect()),
        ] {
            assert!(new.covers(&old), "{new:?}");
            assert!(new == old || !old.covers(&new), "{new:?}");
        }
        for other in [
            with(0, |id| id.ty = ColumnType::String),
            with(1, |v| v.name = "w".into()),
            with(1, |v| v.ty = ColumnType::Int32),
        ] {
            assert!(!other.covers(&old), "{other:?}");
        }
    }

    #[test]
    fn a_dropped_column_does_not_come_back() {
        let column = |name: &str| Column::new(name, ColumnType::Int32, false);
        let old = TableSchema::create(vec![column("id"), column("v"), column("w")], Vec::new());
        let without = |schema: &TableSchema, name: &str| {
            schema.evolved(schema.columns().iter().filter(|c| c.name != name).cloned().collect())
        };
        let first = without(&old, "v");
        let second = without(&first, "w");
        for (newer, older) in [(&first, &old), (&second, &first), (&second, &old)] {
            assert!(newer.covers(older) && !older.covers(newer));
        }
        assert_eq!(
            (second.dropped(), first.with_added(vec![column("v")]).last_id()),
            (&[2, 3][..], 8)
        );
    }

    #[rstest]
    #[case(None, None, true)]
    #[case(Some(1), None, true)]
    #[case(None, Some(1), true)]
    #[case(Some(1), Some(1), true)]
    #[case(Some(2), Some(1), false)]
    fn instances_agree_since_when_a_column_is_absent(
        #[case] new: Option<i64>,
        #[case] old: Option<i64>,
        #[case] expected: bool,
    ) {
        let since = |absent_since| Column {
            id: 1,
            absent_since,
            ..Column::new("v", ColumnType::Int32, true)
        };
        assert_eq!(since(new).follows(&since(old)), expected);
    }
}
