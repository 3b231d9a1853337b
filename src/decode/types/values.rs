//! Values as columns store them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::decimal::{self, Digits};
use super::{Encoding, Form, Misfit, Raw, Stored, compound, moment};
use crate::schema::ColumnType;

/// The value as a column of type `ty` stores it. `raw` is not null. `scratch` takes what has to be made.
pub(in crate::decode) fn store<'a>(
    raw: Raw<'a>,
    form: &Form,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    match form {
        Form::Integer => store_integer(raw, ty),
        Form::Text | Form::Json | Form::Any => match raw {
            Raw::Text(text) => Ok(Stored::Text(text)),
            _ => store_rare(raw, form, ty, scratch),
        },
        Form::Boolean => store_boolean(raw, ty),
        Form::Float | Form::Double => store_float(raw, form, ty),
        Form::Bytes => Ok(Stored::Bytes(bytes(raw, scratch)?)),
        Form::Decimal { scale } => store_decimal(raw, *scale, ty, scratch),
        Form::Days => moment::days(integer(raw)?).map(Stored::Int32),
        Form::TimeOfDay(unit) => moment::time(integer(raw)?, *unit, ty).map(Stored::Int64),
        Form::Instant(unit) => moment::instant(integer(raw)?, *unit).map(Stored::Int64),
        Form::Zoned => moment::zoned(text(raw)?).map(Stored::Int64),
        Form::Number => store_number(raw, ty),
        other => store_rare(raw, other, ty, scratch),
    }
}

#[inline(never)]
fn store_rare<'a>(
    raw: Raw<'a>,
    form: &Form,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    match form {
        Form::Any => store_any(raw, scratch),
        Form::Json => store_json(raw),
        Form::Text => Err(Misfit::mismatch("expected text")),
        Form::Unsigned => store_unsigned(integer(raw)?, ty, scratch),
        Form::Digits => store_decimal(raw_digits(raw)?, 0, ty, scratch),
        Form::Variable => match raw {
            Raw::Json(json) => {
                let mut unscaled = Vec::new();
                let scale = compound::variable(json, &mut unscaled)?;
                store_unscaled(&unscaled, scale, ty, scratch)
            }
            Raw::Text(text) if is_base64(text) => Err(NO_SCALE),
            raw => store_decimal(raw_digits(raw)?, 0, ty, scratch),
        },
        Form::Encoded(encoding) => {
            decode(text(raw)?, *encoding, scratch)?;
            Ok(Stored::Bytes(scratch))
        }
        Form::Bits { width } => {
            let bits = bytes(raw, scratch)?;
            if bits.len() >= *width {
                return Ok(Stored::Bytes(bytes_again(raw, scratch)));
            }
            if let Raw::Bytes(bits) = raw {
                scratch.clear();
                scratch.extend_from_slice(bits);
            }
            scratch.resize(*width, 0);
            Ok(Stored::Bytes(scratch))
        }
        Form::IsoDate => moment::iso_date(text(raw)?).map(Stored::Int32),
        Form::IsoTime => moment::iso_time(text(raw)?, ty).map(Stored::Int64),
        Form::IsoTimestamp => moment::iso_timestamp(text(raw)?).map(Stored::Int64),
        Form::Structured(kind) => compound::structured(json(raw)?, *kind, ty, scratch),
        Form::Geometry => {
            compound::geometry(json(raw)?, scratch)?;
            Ok(Stored::Bytes(scratch))
        }
        _ => Err(Misfit::mismatch("expected an array")),
    }
}

fn integer(raw: Raw<'_>) -> Result<i64, Misfit> {
    match raw {
        Raw::Integer(value) => Ok(value),
        _ => Err(Misfit::mismatch("expected a 64-bit integer")),
    }
}

fn text(raw: Raw<'_>) -> Result<&str, Misfit> {
    match raw {
        Raw::Text(text) => Ok(text),
        _ => Err(Misfit::mismatch("expected text")),
    }
}

fn json(raw: Raw<'_>) -> Result<&str, Misfit> {
    match raw {
        Raw::Json(json) => Ok(json),
        _ => Err(Misfit::mismatch("expected an object")),
    }
}

const NO_BASE64: Misfit = Misfit::mismatch("expected bytes in base64");

fn bytes<'a>(raw: Raw<'a>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Misfit> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        Raw::Text(text) => {
            scratch.clear();
            STANDARD.decode_vec(text, scratch).map_err(|_| NO_BASE64)?;
            Ok(scratch)
        }
        _ => Err(Misfit::mismatch("expected bytes")),
    }
}

/// What [`bytes`] gave, which is in `scratch` when it was text.
fn bytes_again<'a>(raw: Raw<'a>, scratch: &'a [u8]) -> &'a [u8] {
    if let Raw::Bytes(bytes) = raw { bytes } else { scratch }
}

fn decode(text: &str, encoding: Encoding, into: &mut Vec<u8>) -> Result<(), Misfit> {
    into.clear();
    match encoding {
        Encoding::Base64 => STANDARD.decode_vec(text, into).map_err(|_| NO_BASE64),
        Encoding::Base64UrlSafe => URL_SAFE
            .decode_vec(text, into)
            .map_err(|_| Misfit::mismatch("expected bytes in base64 with - and _")),
        Encoding::Hex => {
            *into = crate::decode::placeholder::from_hex(text)
                .ok_or(Misfit::mismatch("expected bytes in hexadecimal digits"))?;
            Ok(())
        }
    }
}

/// JSON that comes as text, or a value that is an object or array.
fn store_json(raw: Raw<'_>) -> Result<Stored<'_>, Misfit> {
    match raw {
        Raw::Text(text) => Ok(Stored::Text(text)),
        Raw::Json(json) if serde_json::from_str::<&serde_json::value::RawValue>(json).is_ok() => {
            Ok(Stored::Text(json))
        }
        Raw::Json(_) => Err(Misfit::new("malformed_json", "a document that is no JSON")),
        _ => Err(Misfit::mismatch("expected text, an object or an array")),
    }
}

/// Whatever it is, as text: numbers keep their digits.
fn store_any<'a>(raw: Raw<'a>, scratch: &'a mut Vec<u8>) -> Result<Stored<'a>, Misfit> {
    match raw {
        Raw::Number(text) => Ok(Stored::Text(text)),
        Raw::Integer(value) => Ok(made(value.to_string(), scratch)),
        Raw::Boolean(value) => Ok(Stored::Text(if value { "true" } else { "false" })),
        raw => store_json(raw),
    }
}

fn made(text: String, scratch: &mut Vec<u8>) -> Stored<'_> {
    *scratch = text.into_bytes();
    Stored::Text(std::str::from_utf8(scratch).unwrap_or_default())
}

fn store_integer(raw: Raw<'_>, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    let value = match raw {
        Raw::Boolean(value) => i64::from(value),
        raw => integer(raw)?,
    };
    match ty {
        ColumnType::Int64 => Ok(Stored::Int64(value)),
        ColumnType::Int32 => i32::try_from(value).map(Stored::Int32).map_err(|_| {
            let nearest = if value < 0 { i32::MIN } else { i32::MAX };
            Misfit::invalid("integer_out_of_range", "an integer of more than 32 bits")
                .near(Stored::Int32(nearest))
        }),
        ColumnType::Boolean => match value {
            0 | 1 => Ok(Stored::Boolean(value == 1)),
            _ => Err(Misfit::invalid(
                "integer_out_of_range",
                "an integer other than 0 and 1 in a boolean column",
            )),
        },
        ColumnType::Float64 => exact_double(value).map(Stored::Float64),
        ColumnType::Decimal { precision, scale } => {
            let digits = Digits { precision: *precision, scale: *scale };
            digits.integer(value.into()).map(Stored::Decimal)
        }
        _ => Err(Misfit::mismatch("an integer in a column of another type")),
    }
}

/// Integers that a double holds exactly: up to 53 bits.
fn exact_double(value: i64) -> Result<f64, Misfit> {
    if value.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS {
        Ok(value as f64)
    } else {
        Err(INEXACT.near(Stored::Float64(value as f64)))
    }
}

const INEXACT: Misfit = Misfit::invalid(
    "too_many_digits",
    "a number with more digits than a floating-point column has",
);

fn store_number(raw: Raw<'_>, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    match (raw, ty) {
        (Raw::Integer(value), ColumnType::Float64) => exact_double(value).map(Stored::Float64),
        (Raw::Number(text), ColumnType::Float64) if !decimal::keeps_digits(text) => {
            Err(match text.parse() {
                Ok(nearest) => INEXACT.near(Stored::Float64(nearest)),
                Err(_) => Misfit::mismatch("expected a number"),
            })
        }
        _ => store_float(raw, &Form::Double, ty),
    }
}

/// A number that the connector wrote as if its first bit were a sign.
fn store_unsigned<'a>(
    value: i64,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    let value = i128::from(value.cast_unsigned());
    match ty {
        ColumnType::Decimal { precision, scale } => {
            let digits = Digits { precision: *precision, scale: *scale };
            digits.integer(value).map(Stored::Decimal)
        }
        ColumnType::String => Ok(made(value.to_string(), scratch)),
        _ => Err(Misfit::mismatch("an unsigned integer in a column of another type")),
    }
}

fn store_boolean(raw: Raw<'_>, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    match (raw, ty) {
        (Raw::Boolean(value), ColumnType::Boolean) => Ok(Stored::Boolean(value)),
        (Raw::Boolean(value), ColumnType::Int32) => Ok(Stored::Int32(value.into())),
        (Raw::Boolean(value), ColumnType::Int64) => Ok(Stored::Int64(value.into())),
        (Raw::Integer(_), _) => store_integer(raw, ty),
        _ => Err(Misfit::mismatch("expected a boolean")),
    }
}

/// A float's decimal text is read at its own width: read as a double and narrowed, or the reverse, it may change.
fn store_float(raw: Raw<'_>, form: &Form, ty: &ColumnType) -> Result<Stored<'static>, Misfit> {
    const EXPECTED: Misfit = Misfit::mismatch("expected a number");
    let narrow = *form == Form::Float;
    let (single, double) = match raw {
        Raw::Float(value) => (value, f64::from(value)),
        Raw::Double(value) => (f32::NAN, value),
        Raw::Integer(value) if narrow => (value as f32, f64::from(value as f32)),
        Raw::Integer(value) => (f32::NAN, value as f64),
        Raw::Number(text) | Raw::Text(text) => {
            let named = matches!(text, "NaN" | "Infinity" | "-Infinity");
            if matches!(raw, Raw::Text(_)) && !named {
                return Err(EXPECTED);
            }
            if narrow {
                let value: f32 = text.parse().map_err(|_| EXPECTED)?;
                (value, f64::from(value))
            } else {
                (f32::NAN, text.parse().map_err(|_| EXPECTED)?)
            }
        }
        Raw::Boolean(_) | Raw::Bytes(_) | Raw::Json(_) | Raw::Null => return Err(EXPECTED),
    };
    match ty {
        ColumnType::Float64 => Ok(Stored::Float64(double)),
        ColumnType::Float32 if narrow && !matches!(raw, Raw::Double(_)) => {
            Ok(Stored::Float32(single))
        }
        _ => Err(Misfit::mismatch("a floating-point number in a column of another type")),
    }
}

fn store_decimal<'a>(
    raw: Raw<'a>,
    scale: i32,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    let digits = match ty {
        ColumnType::Decimal { precision, scale } => Digits { precision: *precision, scale: *scale },
        ColumnType::String => {
            return match raw {
                Raw::Integer(value) => Ok(made(value.to_string(), scratch)),
                Raw::Number(text) => Ok(Stored::Text(text)),
                Raw::Json(json) => {
                    let mut unscaled = Vec::new();
                    let scale = compound::variable(json, &mut unscaled)?;
                    store_unscaled(&unscaled, scale, ty, scratch)
                }
                raw => {
                    let unscaled = bytes(raw, scratch)?.to_vec();
                    store_unscaled(&unscaled, written_scale(&unscaled, scale), ty, scratch)
                }
            };
        }
        _ => return Err(Misfit::mismatch("a decimal in a column of another type")),
    };
    let unscaled = match raw {
        Raw::Integer(value) => digits.integer(value.into()),
        Raw::Number(text) => digits.lexeme(text),
        Raw::Json(json) => {
            let scale = compound::variable(json, scratch)?;
            digits.binary(scratch, scale)
        }
        raw => {
            let unscaled = bytes(raw, scratch)?;
            digits.binary(unscaled, written_scale(unscaled, scale))
        }
    };
    unscaled.map(Stored::Decimal)
}

/// Bytes that no number of Postgres' thousand digits has.
const LONG: usize = 512;

/// The scale that a number is written with whose column has a negative one: Postgres' connector writes it as if the scale
/// were 2048 more, with as many zeros, and only their number tells in JSON without a schema.
fn written_scale(unscaled: &[u8], scale: i32) -> i32 {
    if scale < 0 && unscaled.len() > LONG { scale + 2048 } else { scale }
}

fn store_unscaled<'a>(
    unscaled: &[u8],
    scale: i32,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    match ty {
        ColumnType::Decimal { precision, scale: stored } => {
            let digits = Digits { precision: *precision, scale: *stored };
            digits.binary(unscaled, scale).map(Stored::Decimal)
        }
        ColumnType::String => Ok(made(decimal::digits(unscaled, scale)?, scratch)),
        _ => Err(Misfit::mismatch("a decimal in a column of another type")),
    }
}

const NO_SCALE: Misfit = Misfit::mismatch(
    "text that may be a decimal's digits or its bytes, whose scale nothing tells: declare decimal(precision,scale) for \
     bytes, string for digits",
);

/// True for text that may be bytes: even a number's digits are, when there are as many as base64 has letters.
fn is_base64(text: &str) -> bool {
    STANDARD.decode(text).is_ok()
}

/// Text that is a number's digits, as the number. Bytes in base64 are none: nothing tells their scale.
fn raw_digits(raw: Raw<'_>) -> Result<Raw<'_>, Misfit> {
    match raw {
        Raw::Text(text) if decimal::is_written(text) => Ok(Raw::Number(text)),
        Raw::Number(_) | Raw::Integer(_) => Ok(raw),
        _ => Err(Misfit::mismatch("expected a decimal's digits")),
    }
}
