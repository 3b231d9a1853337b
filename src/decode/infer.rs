//! Column types of JSON without a schema, from the values themselves.
//!
//! Only what cannot be taken for something else is inferred: a date, a decimal or bytes look like a number or text
//! and stay that until a person declares them.

use super::json::{Cursor, Malformed};
use super::key::scalar;
use super::types::Raw;
use crate::schema::{ColumnType, ListElement};

/// The type of the value at the cursor, which is stepped over. None for null, for what no column holds and for an
/// empty array.
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<Option<ColumnType>, Malformed> {
    match cursor.peek()? {
        b'{' => cursor.skip().map(|_| None),
        b'[' => list(cursor),
        _ => Ok(raw(scalar(cursor)?.as_raw())),
    }
}

/// The type of a scalar.
pub(super) fn raw(raw: Raw<'_>) -> Option<ColumnType> {
    match raw {
        Raw::Boolean(_) => Some(ColumnType::Boolean),
        Raw::Integer(_) => Some(ColumnType::Int64),
        Raw::Number(text) if text.contains(['.', 'e', 'E']) => Some(ColumnType::Float64),
        Raw::Text(_) => Some(ColumnType::String),
        _ => None,
    }
}

fn list(cursor: &mut Cursor<'_>) -> Result<Option<ColumnType>, Malformed> {
    let start = *cursor;
    let mut more = cursor.open_array()?;
    let mut element = None;
    while more {
        if matches!(cursor.peek()?, b'{' | b'[') {
            *cursor = start;
            cursor.skip()?;
            return Ok(None);
        }
        element = merge(element, raw(scalar(cursor)?.as_raw()));
        more = cursor.next_element()?;
    }
    Ok(element.map(|ty| ColumnType::List(Box::new(ListElement { id: 0, ty }))))
}

/// The type for values of both types. Integers among fractions are fractions; anything else stays what it first was.
pub(super) fn merge(first: Option<ColumnType>, second: Option<ColumnType>) -> Option<ColumnType> {
    match (first, second) {
        (Some(ColumnType::Int64), Some(ColumnType::Float64)) => Some(ColumnType::Float64),
        (Some(ColumnType::List(first)), Some(ColumnType::List(second))) => {
            let ty = merge(Some(first.ty), Some(second.ty))?;
            Some(ColumnType::List(Box::new(ListElement { id: 0, ty })))
        }
        (first, second) => first.or(second),
    }
}
