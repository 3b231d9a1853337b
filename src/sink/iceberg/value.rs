//! Values of columns between the commit plan and Iceberg.

use iceberg::spec::{Datum, Literal, PrimitiveLiteral, PrimitiveType, Struct, StructType};

use crate::error::{Error, Result};
use crate::table::plan::Scalar;

/// Iceberg's value of type `ty`; none when the scalar is not of that type or is not a number.
pub(super) fn datum(scalar: &Scalar, ty: &PrimitiveType) -> Option<Datum> {
    Datum::try_from_bytes(&single_value(scalar, ty)?, ty.clone()).ok()
}

/// The bytes of Iceberg's "binary single-value serialization".
fn single_value(scalar: &Scalar, ty: &PrimitiveType) -> Option<Vec<u8>> {
    Some(match (ty, scalar) {
        (PrimitiveType::Boolean, Scalar::Boolean(value)) => vec![u8::from(*value)],
        (PrimitiveType::Int | PrimitiveType::Date, Scalar::Int(value)) => {
            i32::try_from(*value).ok()?.to_le_bytes().into()
        }
        (
            PrimitiveType::Long
            | PrimitiveType::Time
            | PrimitiveType::Timestamp
            | PrimitiveType::Timestamptz,
            Scalar::Int(value),
        ) => value.to_le_bytes().into(),
        (PrimitiveType::Float, Scalar::Float(value)) if !value.is_nan() => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the value was widened from a 32-bit float"
            )]
            let value = *value as f32;
            value.to_le_bytes().into()
        }
        (PrimitiveType::Double, Scalar::Float(value)) if !value.is_nan() => {
            value.to_le_bytes().into()
        }
        (PrimitiveType::Decimal { .. }, Scalar::Decimal(value)) => value.to_be_bytes().into(),
        (PrimitiveType::String, Scalar::String(value)) => value.clone().into_bytes(),
        (PrimitiveType::Binary, Scalar::Binary(value)) => value.clone(),
        _ => return None,
    })
}

/// The partition tuple of type `ty` of these values.
pub(super) fn partition(values: &[Option<Scalar>], ty: &StructType) -> Result<Struct> {
    if values.len() != ty.fields().len() {
        return Err(Error::internal(format!(
            "a data file has {} partition values, the table has {} partition fields",
            values.len(),
            ty.fields().len()
        )));
    }
    let literals = values.iter().zip(ty.fields()).map(|(value, field)| {
        let Some(value) = value else { return Ok(None) };
        let datum = field.field_type.as_primitive_type().and_then(|ty| datum(value, ty));
        let literal = datum.map(|datum| Literal::Primitive(datum.literal().clone()));
        literal.map(Some).ok_or_else(|| {
            Error::internal(format!("a partition value does not fit the field {}", field.name))
        })
    });
    literals.collect::<Result<Vec<_>>>().map(Struct::from_iter)
}

/// The values of a partition tuple.
pub(super) fn scalars(partition: &Struct) -> Result<Vec<Option<Scalar>>> {
    partition.iter().map(|literal| literal.map(scalar).transpose()).collect()
}

fn scalar(literal: &Literal) -> Result<Scalar> {
    let Literal::Primitive(literal) = literal else {
        return Err(Error::data("a partition value of the table is not a plain value"));
    };
    Ok(match literal {
        PrimitiveLiteral::Boolean(value) => Scalar::Boolean(*value),
        PrimitiveLiteral::Int(value) => Scalar::Int(i64::from(*value)),
        PrimitiveLiteral::Long(value) => Scalar::Int(*value),
        PrimitiveLiteral::Float(value) => Scalar::Float(f64::from(value.0)),
        PrimitiveLiteral::Double(value) => Scalar::Float(value.0),
        PrimitiveLiteral::String(value) => Scalar::String(value.clone()),
        PrimitiveLiteral::Binary(value) => Scalar::Binary(value.clone()),
        PrimitiveLiteral::Int128(value) => Scalar::Decimal(*value),
        PrimitiveLiteral::UInt128(_) | PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => {
            return Err(Error::data("a partition value of the table is of an unknown type"));
        }
    })
}
