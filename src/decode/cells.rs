//! Columns being filled: the values of one column of the table, appended row by row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, ListArray,
    NullBufferBuilder, PrimitiveArray, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Field, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use super::types::{Misfit, Stored};
use crate::error::{Error, Result};
use crate::schema::ColumnType;

/// The values of one column.
#[derive(Debug)]
pub(super) struct Cells {
    ty: ColumnType,
    values: Values,
    valid: NullBufferBuilder,
}

#[derive(Debug)]
enum Values {
    Boolean(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Bytes { ends: Vec<i32>, data: Vec<u8> },
    List { ends: Vec<i32>, elements: Box<Cells> },
}

const MIXED: Misfit = Misfit::new("internal", "a value of another column's type");
const FULL: Misfit = Misfit::new("out_of_range", "more than 2 GiB in one column");

impl Cells {
    /// No values yet, of type `ty`.
    pub(super) fn new(ty: &ColumnType, capacity: usize) -> Self {
        use ColumnType as C;
        let values = match ty {
            C::Boolean => Values::Boolean(Vec::with_capacity(capacity)),
            C::Int32 | C::Date => Values::Int32(Vec::with_capacity(capacity)),
            C::Int64 | C::Time | C::Timestamp | C::TimestampTz => {
                Values::Int64(Vec::with_capacity(capacity))
            }
            C::Float32 => Values::Float32(Vec::with_capacity(capacity)),
            C::Float64 => Values::Float64(Vec::with_capacity(capacity)),
            C::Decimal { .. } => Values::Decimal(Vec::with_capacity(capacity)),
            C::String | C::Binary => {
                Values::Bytes { ends: Vec::with_capacity(capacity), data: Vec::new() }
            }
            C::List(element) => Values::List {
                ends: Vec::with_capacity(capacity),
                elements: Box::new(Self::new(&element.ty, 0)),
            },
        };
        Self { ty: ty.clone(), values, valid: NullBufferBuilder::new(capacity) }
    }

    /// The column's type.
    pub(super) fn ty(&self) -> &ColumnType {
        &self.ty
    }

    /// Number of values, nulls included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Appends a value.
    #[inline]
    pub(super) fn push(&mut self, value: Stored<'_>) -> Result<(), Misfit> {
        match (&mut self.values, value) {
            (Values::Boolean(values), Stored::Boolean(value)) => values.push(value),
            (Values::Int32(values), Stored::Int32(value)) => values.push(value),
            (Values::Int64(values), Stored::Int64(value)) => values.push(value),
            (Values::Float32(values), Stored::Float32(value)) => values.push(value),
            (Values::Float64(values), Stored::Float64(value)) => values.push(value),
            (Values::Decimal(values), Stored::Decimal(value)) => values.push(value),
            (Values::Bytes { ends, data }, Stored::Text(text)) => {
                append(ends, data, text.as_bytes())?;
            }
            (Values::Bytes { ends, data }, Stored::Bytes(bytes)) => append(ends, data, bytes)?,
            _ => return Err(MIXED),
        }
        self.valid.append_non_null();
        Ok(())
    }

    /// Appends a null.
    pub(super) fn push_null(&mut self) {
        self.push_default();
        self.valid.append_null();
    }

    /// Appends a value that means nothing, for a row that is rejected: a null, or a zero where none may be.
    pub(super) fn push_void(&mut self, nullable: bool) {
        self.push_default();
        self.valid.append(!nullable);
    }

    fn push_default(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.push(false),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::Bytes { ends, .. } | Values::List { ends, .. } => {
                ends.push(ends.last().copied().unwrap_or(0));
            }
        }
    }

    /// The elements of the list being appended; [`Self::end_list`] ends it.
    pub(super) fn elements(&mut self) -> Option<&mut Self> {
        match &mut self.values {
            Values::List { elements, .. } => Some(elements),
            _ => None,
        }
    }

    /// Ends the list whose elements were appended since the last one.
    pub(super) fn end_list(&mut self) -> Result<(), Misfit> {
        let Values::List { ends, elements } = &mut self.values else { return Err(MIXED) };
        ends.push(i32::try_from(elements.len()).map_err(|_| FULL)?);
        self.valid.append_non_null();
        Ok(())
    }

    /// Drops the elements of a list that was not ended.
    pub(super) fn drop_open_list(&mut self) {
        if let Values::List { ends, elements } = &mut self.values {
            let end = ends.last().copied().unwrap_or(0);
            elements.truncate(usize::try_from(end).unwrap_or(0));
        }
    }

    fn truncate(&mut self, length: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.truncate(length),
            Values::Int32(values) => values.truncate(length),
            Values::Int64(values) => values.truncate(length),
            Values::Float32(values) => values.truncate(length),
            Values::Float64(values) => values.truncate(length),
            Values::Decimal(values) => values.truncate(length),
            Values::Bytes { ends, data } => {
                ends.truncate(length);
                let end = ends.last().copied().unwrap_or(0);
                data.truncate(usize::try_from(end).unwrap_or(0));
            }
            Values::List { ends, elements } => {
                ends.truncate(length);
                let end = ends.last().copied().unwrap_or(0);
                elements.truncate(usize::try_from(end).unwrap_or(0));
            }
        }
        self.valid.truncate(length);
    }

    /// The values as an Arrow array of type `data_type`, which is the Arrow type of the column's type.
    pub(super) fn finish(mut self, data_type: &DataType) -> Result<ArrayRef> {
        let nulls = self.valid.finish();
        let wrong =
            |error| Error::internal("a decoded column does not fit its type").because(error);
        macro_rules! primitive {
            ($arrow:ty, $values:expr) => {
                Arc::new(
                    PrimitiveArray::<$arrow>::try_new(ScalarBuffer::from($values), nulls)
                        .map_err(wrong)?
                        .with_data_type(data_type.clone()),
                )
            };
        }
        Ok(match (self.values, &self.ty) {
            (Values::Boolean(values), _) => {
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            (Values::Int32(values), ColumnType::Date) => primitive!(Date32Type, values),
            (Values::Int32(values), _) => primitive!(Int32Type, values),
            (Values::Int64(values), ColumnType::Time) => primitive!(Time64MicrosecondType, values),
            (Values::Int64(values), ColumnType::Timestamp | ColumnType::TimestampTz) => {
                primitive!(TimestampMicrosecondType, values)
            }
            (Values::Int64(values), _) => primitive!(Int64Type, values),
            (Values::Float32(values), _) => Arc::new(Float32Array::new(values.into(), nulls)),
            (Values::Float64(values), _) => Arc::new(Float64Array::new(values.into(), nulls)),
            (Values::Decimal(values), _) => {
                let array = Decimal128Array::try_new(values.into(), nulls).map_err(wrong)?;
                Arc::new(array.with_data_type(data_type.clone()))
            }
            (Values::Bytes { ends, data }, ty) => {
                let (offsets, data) = (offsets(ends), Buffer::from_vec(data));
                if *ty == ColumnType::String {
                    Arc::new(StringArray::try_new(offsets, data, nulls).map_err(wrong)?)
                } else {
                    Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(wrong)?)
                }
            }
            (Values::List { ends, elements }, _) => {
                let DataType::List(field) = data_type else {
                    return Err(Error::internal("a list column is no list in Arrow"));
                };
                let elements = elements.finish(field.data_type())?;
                let field: Arc<Field> = Arc::clone(field);
                Arc::new(ListArray::try_new(field, offsets(ends), elements, nulls).map_err(wrong)?)
            }
        })
    }
}

fn append(ends: &mut Vec<i32>, data: &mut Vec<u8>, value: &[u8]) -> Result<(), Misfit> {
    let end = data.len().checked_add(value.len()).and_then(|end| i32::try_from(end).ok());
    ends.push(end.ok_or(FULL)?);
    data.extend_from_slice(value);
    Ok(())
}

/// Ends of values, which never go down, as Arrow's offsets.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend(ends);
    OffsetBuffer::new(offsets.into())
}
