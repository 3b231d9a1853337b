//! Contents of whole rows: what tells rows of a table without a key from one another.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};

use super::Key;
use crate::error::{Error, Result};
use crate::schema::{Column, is_metadata};

/// The contents of `rows`, whose columns are `columns`; metadata columns do not count.
///
/// Two rows have the same content when every column has the same value: null is null, NaN is NaN, and -0.0 is not 0.0,
/// as the row before has the sign that the row had. A column that a row has no value in does not count, so that a
/// content stays what it is when columns are added; nor does it change when a column becomes wider.
pub fn contents(columns: &[Column], rows: &RecordBatch) -> Result<Vec<Key>> {
    let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); rows.num_rows()];
    for (column, values) in columns.iter().zip(rows.columns()) {
        if is_metadata(&column.name) {
            continue;
        }
        let read = reader(values)?;
        for (row, bytes) in bytes.iter_mut().enumerate().filter(|(row, _)| values.is_valid(*row)) {
            bytes.extend_from_slice(&column.id.to_le_bytes());
            read(row, bytes);
        }
    }
    Ok(bytes.iter().map(|bytes| Key::of_content(bytes)).collect())
}

/// Appends a row's value to the bytes of its content.
type Reader<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

fn reader(values: &ArrayRef) -> Result<Reader<'_>> {
    fn number<'a>(value: impl Fn(usize) -> i64 + 'a) -> Reader<'a> {
        Box::new(move |row, bytes| bytes.extend_from_slice(&value(row).to_le_bytes()))
    }
    fn text<'a>(value: impl Fn(usize) -> &'a [u8] + 'a) -> Reader<'a> {
        Box::new(move |row, bytes| {
            let value = value(row);
            length(value.len(), bytes);
            bytes.extend_from_slice(value);
        })
    }
    Ok(match values.data_type() {
        DataType::Boolean => {
            let values = values.as_boolean();
            number(|row| values.value(row).into())
        }
        DataType::Int32 => {
            let values = values.as_primitive::<Int32Type>();
            number(|row| values.value(row).into())
        }
        DataType::Int64 => {
            let values = values.as_primitive::<Int64Type>();
            number(|row| values.value(row))
        }
        DataType::Date32 => {
            let values = values.as_primitive::<Date32Type>();
            number(|row| values.value(row).into())
        }
        DataType::Time64(_) => {
            let values = values.as_primitive::<Time64MicrosecondType>();
            number(|row| values.value(row))
        }
        DataType::Timestamp(..) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            number(|row| values.value(row))
        }
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            number(|row| float(values.value(row).into()))
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            number(|row| float(values.value(row)))
        }
        DataType::Decimal128(..) => {
            let values = values.as_primitive::<Decimal128Type>();
            Box::new(|row, bytes| bytes.extend_from_slice(&values.value(row).to_le_bytes()))
        }
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            text(|row| values.value(row).as_bytes())
        }
        DataType::Binary => {
            let values = values.as_binary::<i32>();
            text(|row| values.value(row))
        }
        DataType::List(_) => list(values)?,
        other => {
            return Err(Error::internal(format!("rows cannot be matched by a column of {other}")));
        }
    })
}

fn list(values: &ArrayRef) -> Result<Reader<'_>> {
    let lists = values.as_list::<i32>();
    let elements = lists.values();
    let read = reader(elements)?;
    Ok(Box::new(move |row, bytes| {
        let ends = lists.offsets().get(row).zip(lists.offsets().get(row + 1));
        let place = |end: &i32| usize::try_from(*end).unwrap_or_default();
        let (from, to) = ends.map_or((0, 0), |(from, to)| (place(from), place(to)));
        length(to.saturating_sub(from), bytes);
        for element in from..to {
            bytes.push(elements.is_valid(element).into());
            if elements.is_valid(element) {
                read(element, bytes);
            }
        }
    }))
}

fn length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes());
}

fn float(value: f64) -> i64 {
    let value = if value.is_nan() { f64::NAN } else { value };
    value.to_bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    };

    use super::*;
    use crate::schema::{ColumnType, OFFSET_COLUMN, TableSchema};

    fn keys(columns: Vec<(&str, ArrayRef)>) -> Vec<Key> {
        let named = columns.iter().map(|(name, _)| Column::new(*name, ColumnType::Int32, true));
        let schema = TableSchema::create(named.collect(), Vec::new());
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        contents(&schema.columns()[..rows.num_columns()], &rows).unwrap()
    }

    #[test]
    fn rows_are_equal_when_every_value_is() {
        let (nan, other) = (f64::NAN, -f64::NAN);
        let a: ArrayRef = Arc::new(Int32Array::from(vec![
            None,
            None,
            Some(1),
            Some(1),
            Some(1),
            Some(0),
            Some(0),
            None,
        ]));
        let f: ArrayRef = Arc::new(Float64Array::from(vec![
            Some(nan),
            Some(other),
            Some(-0.0),
            Some(0.0),
            None,
            None,
            Some(0.0),
            None,
        ]));
        let keys = keys(vec![("a", a), ("f", f)]);
        assert_eq!(keys[0], keys[1], "NaN is NaN, null is null");
        for (i, one) in keys.iter().enumerate().skip(1) {
            for other in &keys[i + 1..] {
                assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let text = |values: [Option<&str>; 4]| -> ArrayRef {
            Arc::new(StringArray::from(values.to_vec()))
        };
        let keys = keys(vec![
            ("a", text([Some("ab"), Some("a"), Some(""), None])),
            ("b", text([Some("c"), Some("bc"), None, Some("")])),
        ]);
        for (i, one) in keys.iter().enumerate() {
            for other in &keys[i + 1..] {
                assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn a_content_outlives_what_a_table_gets() {
        let int: ArrayRef = Arc::new(Int32Array::from(vec![7]));
        let long: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let single: ArrayRef = Arc::new(Float32Array::from(vec![0.1]));
        let double: ArrayRef = Arc::new(Float64Array::from(vec![f64::from(0.1_f32)]));
        let none: ArrayRef = Arc::new(StringArray::new_null(1));
        let before = keys(vec![("a", Arc::clone(&int)), ("f", single)]);
        assert_eq!(before, keys(vec![("a", long), ("f", double), ("new", none)]));
        let offset = |n| -> (&'static str, ArrayRef) {
            (OFFSET_COLUMN, Arc::new(Int64Array::from(vec![n])))
        };
        assert_eq!(
            keys(vec![("a", Arc::clone(&int)), offset(1)]),
            keys(vec![("a", int), offset(2)])
        );
    }

    #[test]
    fn lists_are_compared_element_by_element() {
        let lists = vec![
            None,
            Some(vec![]),
            Some(vec![None]),
            Some(vec![Some(1), None]),
            Some(vec![None, Some(1)]),
            Some(vec![Some(1), None]),
        ];
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let keys = keys(vec![("l", Arc::new(lists))]);
        assert_eq!(keys[3], keys[5]);
        for (i, one) in keys[..5].iter().enumerate() {
            for other in &keys[i + 1..5] {
                assert_ne!(one, other);
            }
        }
    }
}
