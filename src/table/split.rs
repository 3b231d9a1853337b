//! Rows by partition, and the folders that partitions lie in.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow::row::{RowConverter, SortField};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use hashbrown::HashMap;

use super::partition::{PartitionField, Partitioning, Transform};
use super::plan::Scalar;
use super::transform::transform;
use crate::error::{Error, Result};
use crate::schema::{ColumnType, TableSchema};

/// What Hive calls the folder of rows without a value. Delta cannot tell an empty text from none either.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// The rows of one partition.
#[derive(Debug)]
pub struct Split {
    /// The partition's folders, `name=value`, outermost first.
    pub folders: Vec<String>,
    /// Values of the partition fields.
    pub partition: Vec<Option<Scalar>>,
    /// Its rows, ascending.
    pub rows: Vec<u32>,
}

impl Split {
    /// The partition's rows out of all.
    pub fn take(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        take_record_batch(rows, &UInt32Array::from(self.rows.clone()))
            .map_err(|e| Error::internal("cannot take a partition's rows").because(e))
    }
}

impl Partitioning {
    /// Splits `rows`, which have the columns of `schema`, by partition, in the order partitions first appear.
    pub fn split(&self, schema: &TableSchema, rows: &RecordBatch) -> Result<Vec<Split>> {
        let count = u32::try_from(rows.num_rows())
            .map_err(|_| Error::internal("a batch has 2^32 rows or more"))?;
        if self.fields.is_empty() {
            let rows = (0..count).collect();
            return Ok(vec![Split { folders: Vec::new(), partition: Vec::new(), rows }]);
        }
        let values = self.values(schema, rows)?;
        let failed = |e| Error::internal("cannot group rows by partition").because(e);
        let sort = values.iter().map(|v| SortField::new(v.data_type().clone())).collect();
        let converter = RowConverter::new(sort).map_err(failed)?;
        let keys = converter.convert_columns(&values).map_err(failed)?;
        let mut places: HashMap<Box<[u8]>, usize> = HashMap::new();
        let mut splits: Vec<Split> = Vec::new();
        for (row, key) in (0..count).zip(&keys) {
            let place = *places.entry_ref(key.data()).or_insert(splits.len());
            match splits.get_mut(place) {
                Some(split) => split.rows.push(row),
                None => splits.push(self.start(schema, &values, row)?),
            }
        }
        Ok(splits)
    }

    /// The values of each field for all rows.
    fn values(&self, schema: &TableSchema, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let values = self.fields.iter().map(|field| {
            let column = schema.index_of(&field.column).and_then(|at| rows.columns().get(at));
            transform(field.transform, column.ok_or_else(|| unknown(field))?)
        });
        values.collect()
    }

    /// The partition of `row`, with this row in it.
    fn start(&self, schema: &TableSchema, values: &[ArrayRef], row: u32) -> Result<Split> {
        let (mut folders, mut partition) = (Vec::new(), Vec::new());
        for (field, values) in self.fields.iter().zip(values) {
            let value = scalar(values, row as usize);
            let source = &schema.column(&field.column).ok_or_else(|| unknown(field))?.ty;
            folders.push(field.folder(source, value.as_ref()));
            partition.push(value);
        }
        Ok(Split { folders, partition, rows: vec![row] })
    }
}

impl PartitionField {
    /// The folder of a value, `name=value`, percent-encoded but for letters, digits, `-`, `.`, `_` and `~`: as Delta
    /// writes them. `source` is the type of the field's column.
    pub fn folder(&self, source: &ColumnType, value: Option<&Scalar>) -> String {
        let text = value.and_then(|value| text(self.transform, source, value));
        let text = text.filter(|text| !text.is_empty()).map(|text| encode(&text));
        format!("{}={}", encode(&self.name), text.as_deref().unwrap_or(NULL_FOLDER))
    }
}

fn unknown(field: &PartitionField) -> Error {
    Error::internal(format!("partition field {} has no column {}", field.name, field.column))
}

/// A partition value as people read it; none when the calendar does not have it.
fn text(transform: Transform, source: &ColumnType, value: &Scalar) -> Option<String> {
    let date = |days: i64| Some(NaiveDate::from_epoch_days(i32::try_from(days).ok()?)?.to_string());
    Some(match (transform, source, value) {
        (Transform::Year, _, Scalar::Int(years)) => format!("{:04}", years + 1970),
        (Transform::Month, _, Scalar::Int(months)) => {
            format!("{:04}-{:02}", months.div_euclid(12) + 1970, months.rem_euclid(12) + 1)
        }
        (Transform::Day, _, Scalar::Int(days)) => date(*days)?,
        (Transform::Hour, _, Scalar::Int(hours)) => {
            format!("{}-{:02}", date(hours.div_euclid(24))?, hours.rem_euclid(24))
        }
        (Transform::Bucket(_), _, Scalar::Int(bucket)) => bucket.to_string(),
        (_, ColumnType::Date, Scalar::Int(days)) => date(*days)?,
        (_, ColumnType::Timestamp, Scalar::Int(micros)) => {
            DateTime::from_timestamp_micros(*micros)?.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
        }
        (_, ColumnType::TimestampTz, Scalar::Int(micros)) => {
            DateTime::from_timestamp_micros(*micros)?.to_rfc3339_opts(SecondsFormat::Micros, true)
        }
        (_, ColumnType::Decimal { scale, .. }, Scalar::Decimal(value)) => decimal(*value, *scale),
        (_, _, Scalar::Boolean(value)) => value.to_string(),
        (_, _, Scalar::Int(value)) => value.to_string(),
        (_, _, Scalar::String(value)) => value.clone(),
        _ => return None,
    })
}

fn decimal(value: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0>1$}", value.unsigned_abs(), scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

fn scalar(values: &ArrayRef, row: usize) -> Option<Scalar> {
    if row >= values.len() || values.is_null(row) {
        return None;
    }
    Some(match values.data_type() {
        DataType::Boolean => Scalar::Boolean(values.as_boolean().value(row)),
        DataType::Int32 => Scalar::Int(i64::from(values.as_primitive::<Int32Type>().value(row))),
        DataType::Date32 => Scalar::Int(i64::from(values.as_primitive::<Date32Type>().value(row))),
        DataType::Int64 => Scalar::Int(values.as_primitive::<Int64Type>().value(row)),
        DataType::Time64(_) => {
            Scalar::Int(values.as_primitive::<Time64MicrosecondType>().value(row))
        }
        DataType::Timestamp(..) => {
            Scalar::Int(values.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Decimal128(..) => {
            Scalar::Decimal(values.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Utf8 => Scalar::String(values.as_string::<i32>().value(row).to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use rstest::rstest;

    use super::*;
    use crate::schema::Column;

    #[rstest]
    #[case(Transform::Identity, ColumnType::String, Scalar::String("a b/c%é".into()), "c=a%20b%2Fc%25%C3%A9")]
    #[case(Transform::Identity, ColumnType::String, Scalar::String("..".into()), "c=..")]
    #[case(
        Transform::Identity,
        ColumnType::String,
        Scalar::String(String::new()),
        "c=__HIVE_DEFAULT_PARTITION__"
    )]
    #[case(Transform::Identity, ColumnType::Boolean, Scalar::Boolean(true), "c=true")]
    #[case(Transform::Identity, ColumnType::Int64, Scalar::Int(-5), "c=-5")]
    #[case(Transform::Identity, ColumnType::Date, Scalar::Int(19_782), "c=2024-02-29")]
    #[case(
        Transform::Identity,
        ColumnType::Timestamp,
        Scalar::Int(1),
        "c=1970-01-01%2000%3A00%3A00.000001"
    )]
    #[case(
        Transform::Identity,
        ColumnType::TimestampTz,
        Scalar::Int(1),
        "c=1970-01-01T00%3A00%3A00.000001Z"
    )]
    #[case(Transform::Identity, ColumnType::Decimal { precision: 9, scale: 2 }, Scalar::Decimal(-5), "c=-0.05")]
    #[case(Transform::Truncate(5), ColumnType::Decimal { precision: 9, scale: 0 }, Scalar::Decimal(15), "c=15")]
    #[case(Transform::Day, ColumnType::Timestamp, Scalar::Int(19_782), "c=2024-02-29")]
    #[case(Transform::Hour, ColumnType::Timestamp, Scalar::Int(-1), "c=1969-12-31-23")]
    #[case(Transform::Month, ColumnType::Date, Scalar::Int(649), "c=2024-02")]
    #[case(Transform::Month, ColumnType::Date, Scalar::Int(-1), "c=1969-12")]
    #[case(Transform::Year, ColumnType::Date, Scalar::Int(54), "c=2024")]
    #[case(Transform::Bucket(4), ColumnType::String, Scalar::Int(3), "c=3")]
    fn folders_read_well(
        #[case] transform: Transform,
        #[case] source: ColumnType,
        #[case] value: Scalar,
        #[case] folder: &str,
    ) {
        let field = PartitionField { column: "c".into(), transform, name: "c".into() };
        assert_eq!(field.folder(&source, Some(&value)), folder);
        assert_eq!(field.folder(&source, None), "c=__HIVE_DEFAULT_PARTITION__");
    }

    #[test]
    fn rows_are_grouped_by_all_fields() {
        let columns = vec![
            Column::new("id", ColumnType::Int64, false),
            Column::new("region", ColumnType::String, true),
        ];
        let schema = TableSchema::create(columns, vec!["id".into()]);
        let fields = schema.arrow().fields().iter().take(2).cloned().collect::<Vec<_>>();
        let ids = Int64Array::from(vec![1, 2, 3, 11, 12]);
        let regions = StringArray::from(vec![Some("eu"), None, Some("eu"), Some("eu"), None]);
        let arrow = Arc::new(arrow::datatypes::Schema::new(fields));
        let rows = RecordBatch::try_new(arrow, vec![Arc::new(ids), Arc::new(regions)]).unwrap();
        let partitioning = Partitioning::parse("region, truncate(10, id)", &schema).unwrap();
        let splits = partitioning.split(&schema, &rows).unwrap();
        let told: Vec<_> = splits.iter().map(|s| (s.folders.join("/"), s.rows.clone())).collect();
        assert_eq!(
            told,
            [
                ("region=eu/id_trunc=0".to_owned(), vec![0, 2]),
                ("region=__HIVE_DEFAULT_PARTITION__/id_trunc=0".to_owned(), vec![1]),
                ("region=eu/id_trunc=10".to_owned(), vec![3]),
                ("region=__HIVE_DEFAULT_PARTITION__/id_trunc=10".to_owned(), vec![4]),
            ]
        );
        assert_eq!(splits[1].partition, [None, Some(Scalar::Int(0))]);
        let taken = splits[0].take(&rows).unwrap();
        assert_eq!(taken.column(0).as_primitive::<Int64Type>().values(), &[1, 3]);
        let plain = Partitioning::default().split(&schema, &rows).unwrap();
        assert_eq!(plain[0].rows, [0, 1, 2, 3, 4]);
    }
}
