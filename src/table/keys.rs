//! Keys of rows that lie in the table, the same sixteen bytes that decoding made of the record's key.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray,
    StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use crate::error::{Error, Result};
use crate::key::{Key, KeyBuilder};
use crate::schema::ColumnType;

/// The keys of rows whose key columns, in the key's order, are `columns` of types `types`.
///
/// Values are pushed into the [`KeyBuilder`] as decoding pushes them: integers and booleans as `i64`, dates, times and
/// timestamps as the number stored, floats as the `i64` of their bits, decimals unscaled, text and bytes as bytes.
/// A null is a data error: a key has none.
pub fn keys_from_arrow<'a>(
    types: impl IntoIterator<Item = &'a ColumnType>,
    columns: &[ArrayRef],
) -> Result<Vec<Key>> {
    let mut builder = KeyBuilder::new(types);
    let rows = columns.first().map_or(0, Array::len);
    let columns: Vec<KeyColumn<'_>> = columns.iter().map(KeyColumn::new).collect::<Result<_>>()?;
    let mut keys = Vec::with_capacity(rows);
    for row in 0..rows {
        for column in &columns {
            column.push(row, &mut builder);
        }
        keys.push(builder.finish());
    }
    Ok(keys)
}

enum KeyColumn<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a Decimal128Array),
    String(&'a StringArray),
    Binary(&'a BinaryArray),
}

impl<'a> KeyColumn<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self> {
        if column.null_count() > 0 {
            return Err(Error::data("a key column of the table holds a null"));
        }
        Ok(match column.data_type() {
            DataType::Boolean => Self::Boolean(column.as_boolean()),
            DataType::Int32 => Self::Int32(column.as_primitive()),
            DataType::Int64 => Self::Int64(column.as_primitive()),
            DataType::Date32 => Self::Date(column.as_primitive()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp(column.as_primitive()),
            DataType::Float32 => Self::Float32(column.as_primitive()),
            DataType::Float64 => Self::Float64(column.as_primitive()),
            DataType::Decimal128(..) => Self::Decimal(column.as_primitive::<Decimal128Type>()),
            DataType::Utf8 => Self::String(column.as_string()),
            DataType::Binary => Self::Binary(column.as_binary()),
            other => {
                return Err(Error::internal(format!("a key cannot have a column of type {other}")));
            }
        })
    }

    fn push(&self, row: usize, builder: &mut KeyBuilder) {
        match self {
            Self::Boolean(values) => builder.push_i64(i64::from(values.value(row))),
            Self::Int32(values) => builder.push_i64(i64::from(values.value(row))),
            Self::Int64(values) => builder.push_i64(values.value(row)),
            Self::Date(values) => builder.push_i64(i64::from(values.value(row))),
            Self::Time(values) => builder.push_i64(values.value(row)),
            Self::Timestamp(values) => builder.push_i64(values.value(row)),
            Self::Float32(values) => builder.push_i64(i64::from(values.value(row).to_bits())),
            Self::Float64(values) => builder.push_i64(values.value(row).to_bits().cast_signed()),
            Self::Decimal(values) => builder.push_i128(values.value(row)),
            Self::String(values) => builder.push_bytes(values.value(row).as_bytes()),
            Self::Binary(values) => builder.push_bytes(values.value(row)),
        }
    }
}
