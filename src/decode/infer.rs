//! Column types of JSON without a schema, from the values themselves.
//!
//! Only what cannot be taken for something else is inferred: a date, a decimal or bytes look like a number or text
//! and stay that until a person declares them. No digit is lost: a number that a double would change is text.

use super::json::{Cursor, Malformed};
use super::key::scalar;
use super::types::{Raw, is_exact_double};
use crate::schema::{ColumnType, ListElement};

/// The type of the value at the cursor, which is stepped over: JSON text for an object, none for null and for an empty
/// array, whose column waits for a value that tells more.
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<Option<ColumnType>, Malformed> {
    match cursor.peek()? {
        b'{' => cursor.skip().map(|_| Some(ColumnType::String)),
        b'[' => list(cursor),
        _ => Ok(raw(scalar(cursor)?.as_raw())),
    }
}

/// The type of a scalar.
pub(super) fn raw(raw: Raw<'_>) -> Option<ColumnType> {
    match raw {
        Raw::Boolean(_) => Some(ColumnType::Boolean),
        Raw::Integer(_) => Some(ColumnType::Int64),
        Raw::Number(text) if text.contains(['.', 'e', 'E']) && is_exact_double(text) => {
            Some(ColumnType::Float64)
        }
        Raw::Number(_) | Raw::Text(_) => Some(ColumnType::String),
        _ => None,
    }
}

/// Scalars of one type are a list, anything else is JSON text.
fn list(cursor: &mut Cursor<'_>) -> Result<Option<ColumnType>, Malformed> {
    let start = *cursor;
    let mut more = cursor.open_array()?;
    let mut element = None;
    while more {
        let found = match cursor.peek()? {
            b'{' | b'[' => None,
            _ => Some(raw(scalar(cursor)?.as_raw())),
        };
        let Some(found) = found.filter(|found| fits(element.as_ref(), found.as_ref())) else {
            *cursor = start;
            cursor.skip()?;
            return Ok(Some(ColumnType::String));
        };
        element = element.or(found);
        more = cursor.next_element()?;
    }
    Ok(element.map(|ty| ColumnType::List(Box::new(ListElement { id: 0, ty }))))
}

fn fits(first: Option<&ColumnType>, second: Option<&ColumnType>) -> bool {
    first.zip(second).is_none_or(|(first, second)| first == second)
}

/// The type for values of both types: text when they are two. An integer among fractions is a decimal's, whose digits
/// a double may not have.
pub(super) fn merge(first: Option<ColumnType>, second: Option<ColumnType>) -> Option<ColumnType> {
    match (first, second) {
        (Some(ColumnType::List(first)), Some(ColumnType::List(second))) => {
            let ty = merge(Some(first.ty), Some(second.ty))?;
            Some(ColumnType::List(Box::new(ListElement { id: 0, ty })))
        }
        (Some(first), Some(second)) if first != second => Some(ColumnType::String),
        (first, second) => first.or(second),
    }
}
