//! Structs that are one value: decimals with their own scale, geometries, dates and times in parts.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::moment::{self, Parts, Side};
use super::{Misfit, Stored, Structured, Unit};
use crate::schema::ColumnType;

/// `io.debezium.data.VariableScaleDecimal`: the unscaled value's bytes into `scratch`, and the scale.
pub(super) fn variable(json: &str, scratch: &mut Vec<u8>) -> Result<i32, Misfit> {
    #[derive(Deserialize)]
    struct Variable<'a> {
        scale: i32,
        #[serde(borrow)]
        value: Cow<'a, str>,
    }
    const EXPECTED: Misfit = Misfit::mismatch("expected a decimal with a scale");
    let Variable { scale, value } = serde_json::from_str(json).map_err(|_| EXPECTED)?;
    scratch.clear();
    STANDARD.decode_vec(&*value, scratch).map_err(|_| EXPECTED)?;
    Ok(scale)
}

/// The flag of a type that has its reference system (PostGIS' extended well-known binary).
const HAS_SRID: u32 = 0x2000_0000;

/// A geometry's well-known binary into `scratch`, with its reference system inside when it has one. A point without
/// it is made from its coordinates.
pub(super) fn geometry(json: &str, scratch: &mut Vec<u8>) -> Result<(), Misfit> {
    #[derive(Deserialize)]
    struct Geometry<'a> {
        #[serde(borrow)]
        wkb: Option<Cow<'a, str>>,
        srid: Option<u32>,
        x: Option<f64>,
        y: Option<f64>,
    }
    const EXPECTED: Misfit = Misfit::mismatch("expected a geometry in well-known binary");
    let Geometry { wkb, srid, x, y } = serde_json::from_str(json).map_err(|_| EXPECTED)?;
    scratch.clear();
    match (wkb, x, y) {
        (Some(wkb), _, _) => {
            STANDARD.decode_vec(&*wkb, scratch).map_err(|_| EXPECTED)?;
        }
        (None, Some(x), Some(y)) => {
            scratch.extend_from_slice(&[1, 1, 0, 0, 0]);
            scratch.extend_from_slice(&x.to_le_bytes());
            scratch.extend_from_slice(&y.to_le_bytes());
        }
        _ => return Err(EXPECTED),
    }
    if let Some(srid) = srid.filter(|srid| *srid != 0) {
        insert_srid(scratch, srid);
    }
    Ok(())
}

fn insert_srid(wkb: &mut Vec<u8>, srid: u32) {
    let Some(&[order, a, b, c, d]) = wkb.first_chunk() else { return };
    let little = order == 1;
    let ty = [a, b, c, d];
    let ty = if little { u32::from_le_bytes(ty) } else { u32::from_be_bytes(ty) };
    if ty & HAS_SRID != 0 {
        return;
    }
    let write = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let head = write(ty | HAS_SRID).into_iter().chain(write(srid));
    drop(wkb.splice(1..5, head));
}

/// The parts of a structured date or time; those that its type has not are none.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields<'a> {
    year: Option<i64>,
    month: Option<u32>,
    day: Option<u32>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    years: Option<i64>,
    months: Option<i64>,
    days: Option<i64>,
    hours: Option<i64>,
    minutes: Option<i64>,
    seconds: Option<i64>,
    nanos: Option<i64>,
    picoseconds: Option<i64>,
    offset_seconds: Option<i64>,
    #[serde(borrow)]
    special_value: Option<Cow<'a, str>>,
}

impl Fields<'_> {
    fn side(&self) -> Result<Option<Side>, Misfit> {
        match self.special_value.as_deref() {
            None => Ok(None),
            Some("POSITIVE_INFINITY") => Ok(Some(Side::After)),
            Some("NEGATIVE_INFINITY") => Ok(Some(Side::Before)),
            Some(_) => Err(Misfit::invalid("special_value", "a special value without a name")),
        }
    }

    fn fraction(&self) -> i128 {
        let nanos = i128::from(self.nanos.unwrap_or(0)) * 1000;
        nanos + i128::from(self.picoseconds.unwrap_or(0))
    }

    fn parts(&self) -> Parts {
        let time = [self.hour, self.minute, self.second].map(|part| part.unwrap_or(0));
        Parts {
            year: self.year.unwrap_or(0),
            month: self.month.unwrap_or(0),
            day: self.day.unwrap_or(0),
            picos: clock(time) + self.fraction(),
        }
    }

    /// Hours and what is below, in picoseconds.
    fn elapsed(&self) -> i128 {
        let time = [self.hours, self.minutes, self.seconds].map(|part| part.unwrap_or(0));
        clock(time) + self.fraction()
    }
}

fn clock([hours, minutes, seconds]: [i64; 3]) -> i128 {
    const PICOS: i128 = 1_000_000_000_000;
    (i128::from(hours) * 3600 + i128::from(minutes) * 60 + i128::from(seconds)) * PICOS
}

/// A structured date or time, in a column of `ty`.
pub(super) fn structured<'a>(
    json: &str,
    structured: Structured,
    ty: &ColumnType,
    scratch: &'a mut Vec<u8>,
) -> Result<Stored<'a>, Misfit> {
    const EXPECTED: Misfit = Misfit::mismatch("expected a date or time in parts");
    let fields: Fields<'_> = serde_json::from_str(json).map_err(|_| EXPECTED)?;
    let (side, parts) = (fields.side()?, fields.parts());
    match structured {
        Structured::Date => match side {
            Some(side) => Err(moment::infinite_date(side)),
            None => moment::date_of(&parts).map(Stored::Int32),
        },
        Structured::Timestamp | Structured::ZonedTimestamp => match side {
            Some(side) => Err(moment::infinite_instant(side)),
            None => {
                moment::instant_of(&parts, fields.offset_seconds.unwrap_or(0)).map(Stored::Int64)
            }
        },
        Structured::Time => {
            moment::time(moment::micros_of(parts.picos)?, Unit::Micros, ty).map(Stored::Int64)
        }
        Structured::Elapsed => {
            moment::time(moment::micros_of(fields.elapsed())?, Unit::Micros, ty).map(Stored::Int64)
        }
        Structured::ZonedTime => Ok(text(zoned_time(&fields), scratch)),
        Structured::Duration => Ok(text(duration(&fields), scratch)),
    }
}

/// `11:51:30.123789+02:00`
fn zoned_time(fields: &Fields<'_>) -> String {
    let part = |part: Option<i64>| part.unwrap_or(0);
    let offset = part(fields.offset_seconds);
    let zone = match (offset, offset.abs()) {
        (0, _) => "Z".to_owned(),
        (_, size) => {
            let sign = if offset < 0 { '-' } else { '+' };
            let seconds = if size % 60 == 0 { String::new() } else { format!(":{:02}", size % 60) };
            format!("{sign}{:02}:{:02}{seconds}", size / 3600, size / 60 % 60)
        }
    };
    let (hour, minute, second) = (part(fields.hour), part(fields.minute), part(fields.second));
    format!("{hour:02}:{minute:02}:{second:02}{}{zone}", fraction(fields.fraction()))
}

/// `P1Y2M3DT4H5M6.78S`, as the connector writes intervals as text.
fn duration(fields: &Fields<'_>) -> String {
    let part = |part: Option<i64>, unit: char| {
        part.filter(|part| *part != 0).map(|part| format!("{part}{unit}")).unwrap_or_default()
    };
    let date = part(fields.years, 'Y') + &part(fields.months, 'M') + &part(fields.days, 'D');
    let mut time = part(fields.hours, 'H') + &part(fields.minutes, 'M');
    let picos = clock([0, 0, fields.seconds.unwrap_or(0)]) + fields.fraction();
    if picos != 0 || (date.is_empty() && time.is_empty()) {
        let sign = if picos < 0 { "-" } else { "" };
        let whole = picos.unsigned_abs() / 1_000_000_000_000;
        time += &format!("{sign}{whole}{}S", fraction(picos));
    }
    if time.is_empty() { format!("P{date}") } else { format!("P{date}T{time}") }
}

/// The point and the digits after it; nothing for a whole second.
fn fraction(picos: i128) -> String {
    let picos = picos.unsigned_abs() % 1_000_000_000_000;
    if picos == 0 {
        return String::new();
    }
    format!(".{}", format!("{picos:012}").trim_end_matches('0'))
}

fn text(text: String, scratch: &mut Vec<u8>) -> Stored<'_> {
    *scratch = text.into_bytes();
    Stored::Text(std::str::from_utf8(scratch).unwrap_or_default())
}
