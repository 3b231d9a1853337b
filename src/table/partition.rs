//! How a table is partitioned: by columns, or by Iceberg's transforms of them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::{ColumnType, TableSchema};

/// How a partition value is made from a column's value (Iceberg specification, "Partition Transforms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// The value itself.
    Identity,
    /// Murmur3 hash modulo the number of buckets.
    Bucket(u32),
    /// Text cut to a length, numbers rounded down to a multiple.
    Truncate(u32),
    /// Years since 1970.
    Year,
    /// Months since 1970-01.
    Month,
    /// Days since 1970-01-01.
    Day,
    /// Hours since 1970-01-01 00:00.
    Hour,
}

/// One partition field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionField {
    /// The column it is made from.
    pub column: String,
    /// How.
    pub transform: Transform,
    /// Its name: the column's for identity, else as Iceberg's engines name it (`ts_day`, `id_bucket`).
    pub name: String,
}

/// The partition fields of a table; none when it is not partitioned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partitioning {
    /// The fields, in order.
    pub fields: Vec<PartitionField>,
}

impl Transform {
    /// The type of the partition values made from a column of type `source`; none when the transform does not fit it.
    ///
    /// Floats, bytes and lists are no partition values: not every reader finds rows by them again.
    pub fn result(self, source: &ColumnType) -> Option<ColumnType> {
        let is_date = matches!(source, ColumnType::Date);
        let is_timestamp = matches!(source, ColumnType::Timestamp | ColumnType::TimestampTz);
        match self {
            Self::Identity => {
                let fits = is_date || is_timestamp || can_be_cut(source);
                let fits = fits || matches!(source, ColumnType::Boolean | ColumnType::Time);
                fits.then(|| source.clone())
            }
            Self::Bucket(_) => {
                let fits = is_date || is_timestamp || can_be_cut(source);
                let fits = fits || matches!(source, ColumnType::Time | ColumnType::Binary);
                fits.then_some(ColumnType::Int32)
            }
            Self::Truncate(_) => can_be_cut(source).then(|| source.clone()),
            Self::Year | Self::Month => (is_date || is_timestamp).then_some(ColumnType::Int32),
            Self::Day => (is_date || is_timestamp).then_some(ColumnType::Date),
            Self::Hour => is_timestamp.then_some(ColumnType::Int32),
        }
    }

    fn is_of_time(self) -> bool {
        matches!(self, Self::Year | Self::Month | Self::Day | Self::Hour)
    }

    /// What a partition field is named after its column.
    fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Bucket(_) => "_bucket",
            Self::Truncate(_) => "_trunc",
            Self::Year => "_year",
            Self::Month => "_month",
            Self::Day => "_day",
            Self::Hour => "_hour",
        }
    }
}

fn can_be_cut(ty: &ColumnType) -> bool {
    use ColumnType as Ty;
    matches!(ty, Ty::Int32 | Ty::Int64 | Ty::Decimal { .. } | Ty::String)
}

impl Partitioning {
    /// The partitioning that a person writes as `region, days(ts), bucket(16, id), truncate(4, name)`; the functions
    /// are those of Spark's Iceberg syntax, singular or plural. Empty text is no partitioning.
    ///
    /// An invalid error when the schema has no such column, when a transform does not fit the column's type, or when
    /// two fields would meet.
    pub fn parse(text: &str, schema: &TableSchema) -> Result<Self> {
        let mut fields: Vec<PartitionField> = Vec::new();
        for item in split_list(text) {
            let field = parse_field(item, schema)?;
            let clash = fields.iter().find(|other| {
                let of_time = field.transform.is_of_time() && other.transform.is_of_time();
                other.name == field.name || (of_time && other.column == field.column)
            });
            if let Some(other) = clash {
                return Err(refused(item, &format!("{} already partitions it", other.name)));
            }
            fields.push(field);
        }
        Ok(Self { fields })
    }
}

/// The items between the commas that are not inside parentheses.
fn split_list(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|item| !item.is_empty())
    .collect()
}

fn parse_field(item: &str, schema: &TableSchema) -> Result<PartitionField> {
    let (transform, column) = match item.strip_suffix(')').and_then(|item| item.split_once('(')) {
        None => (Transform::Identity, item),
        Some((function, inside)) => {
            let (number, column) = match inside.split_once(',') {
                Some((number, column)) => (Some(number.trim()), column.trim()),
                None => (None, inside.trim()),
            };
            (parse_transform(item, function.trim(), number)?, column)
        }
    };
    let known = schema
        .column(column)
        .ok_or_else(|| refused(item, &format!("the table has no column {column}")))?;
    if transform.result(&known.ty).is_none() {
        return Err(refused(item, &format!("it does not fit a column of type {:?}", known.ty)));
    }
    let name = format!("{column}{}", transform.suffix());
    if transform != Transform::Identity && schema.column(&name).is_some() {
        return Err(refused(item, &format!("the table has a column {name} already")));
    }
    Ok(PartitionField { column: column.to_owned(), transform, name })
}

fn parse_transform(item: &str, function: &str, number: Option<&str>) -> Result<Transform> {
    let number = number.map(|number| match number.parse::<u32>() {
        Ok(number) if number > 0 && i32::try_from(number).is_ok() => Ok(number),
        _ => Err(refused(item, &format!("{number} is not a number from 1 to 2147483647"))),
    });
    match (function.to_ascii_lowercase().as_str(), number.transpose()?) {
        ("bucket", Some(buckets)) => Ok(Transform::Bucket(buckets)),
        ("truncate", Some(width)) => Ok(Transform::Truncate(width)),
        ("year" | "years", None) => Ok(Transform::Year),
        ("month" | "months", None) => Ok(Transform::Month),
        ("day" | "days" | "date", None) => Ok(Transform::Day),
        ("hour" | "hours" | "date_hour", None) => Ok(Transform::Hour),
        _ => Err(refused(item, "this transform is unknown")),
    }
}

fn refused(item: &str, why: &str) -> Error {
    Error::invalid(format!("cannot partition a table by {item}: {why}"))
        .hint("columns, or bucket(16, c), truncate(4, c), years(c), months(c), days(c), hours(c)")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::schema::Column;

    fn schema() -> TableSchema {
        let columns = [
            ("id", ColumnType::Int64),
            ("region", ColumnType::String),
            ("ts", ColumnType::TimestampTz),
            ("born", ColumnType::Date),
            ("ratio", ColumnType::Float64),
            ("amount", ColumnType::Decimal { precision: 9, scale: 2 }),
            ("born_year", ColumnType::Int32),
            ("raw", ColumnType::Binary),
        ];
        let columns = columns.map(|(name, ty)| Column::new(name, ty, true));
        TableSchema::create(columns.into(), vec!["id".into()])
    }

    #[test]
    fn a_list_of_columns_and_transforms_is_understood() {
        let text =
            " region,days(ts), bucket(16,id) ,TRUNCATE(4, region), months(born), bucket(2, raw)";
        let fields = Partitioning::parse(text, &schema()).unwrap().fields;
        let told: Vec<_> =
            fields.iter().map(|f| (f.name.as_str(), f.column.as_str(), f.transform)).collect();
        assert_eq!(
            told,
            [
                ("region", "region", Transform::Identity),
                ("ts_day", "ts", Transform::Day),
                ("id_bucket", "id", Transform::Bucket(16)),
                ("region_trunc", "region", Transform::Truncate(4)),
                ("born_month", "born", Transform::Month),
                ("raw_bucket", "raw", Transform::Bucket(2)),
            ]
        );
        assert_eq!(Partitioning::parse(" ", &schema()).unwrap(), Partitioning::default());
    }

    #[rstest]
    #[case("nothing", "the table has no column nothing")]
    #[case("days(region)", "does not fit")]
    #[case("hours(born)", "does not fit")]
    #[case("ratio", "does not fit")]
    #[case("truncate(3, ts)", "does not fit")]
    #[case("bucket(id)", "unknown")]
    #[case("bucket(0, id)", "0 is not a number from 1")]
    #[case("bucket(x, id)", "x is not a number")]
    #[case("bucket(2147483648, id)", "is not a number")]
    #[case("weeks(ts)", "unknown")]
    #[case("days(3, ts)", "unknown")]
    #[case("region, region", "already partitions")]
    #[case("days(ts), hours(ts)", "already partitions")]
    #[case("years(born)", "has a column born_year already")]
    #[case("days(ts", "has no column days(ts")]
    fn what_cannot_be_is_an_invalid_error(#[case] text: &str, #[case] why: &str) {
        let error = Partitioning::parse(text, &schema()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid);
        assert!(error.to_string().contains(why), "{error}");
    }
}
