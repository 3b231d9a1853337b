//! Dates, times and timestamps, stored exactly or refused.
//!
//! Tables hold the years 1 to 9999, which every reader can show; infinities and what lies outside are refused.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::{Misfit, Stored, Unit};
use crate::schema::ColumnType;

pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 0001-01-01 and 9999-12-31, in days since the epoch.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;
/// The same as stored.
const FIRST_DATE: i32 = -719_162;
const LAST_DATE: i32 = 2_932_896;

const INFINITE: Misfit = Misfit::invalid("infinite", "infinite");
const YEARS: Misfit = Misfit::invalid("year_out_of_range", "outside the years 1 to 9999");
const FINER: Misfit = Misfit::invalid("too_precise", "finer than microseconds");
const ISO: Misfit = Misfit::mismatch("expected a date or time in ISO 8601");

/// On which side of what a table holds a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// The misfit of a date on that side.
fn no_date(misfit: Misfit, side: Side) -> Misfit {
    misfit.near(Stored::Int32(if side == Side::After { LAST_DATE } else { FIRST_DATE }))
}

/// The misfit of a timestamp on that side.
fn no_instant(misfit: Misfit, side: Side) -> Misfit {
    let nearest = match side {
        Side::Before => FIRST_DAY * MICROS_PER_DAY,
        Side::After => (LAST_DAY + 1) * MICROS_PER_DAY - 1,
    };
    misfit.near(Stored::Int64(nearest))
}

/// The misfit of an infinite date.
pub(super) fn infinite_date(side: Side) -> Misfit {
    no_date(INFINITE, side)
}

/// The misfit of an infinite timestamp.
pub(super) fn infinite_instant(side: Side) -> Misfit {
    no_instant(INFINITE, side)
}

/// Days since the epoch.
pub(super) fn days(days: i64) -> Result<i32, Misfit> {
    match i32::try_from(days) {
        Ok(stored) if (FIRST_DAY..=LAST_DAY).contains(&days) => Ok(stored),
        _ => Err(odd_days(days)),
    }
}

/// Postgres' infinities are other days in an initial snapshot and while streaming, and in older versions.
#[cold]
fn odd_days(days: i64) -> Misfit {
    match days {
        2_146_033_979 | -2_147_472_692 | -622_191_234..=-622_191_232 => infinite_date(Side::After),
        -2_147_472_691 | -625_821_273..=-625_821_271 => infinite_date(Side::Before),
        days if days < 0 => no_date(YEARS, Side::Before),
        _ => no_date(YEARS, Side::After),
    }
}

/// Microseconds since midnight. A column of plain integers takes durations below zero and beyond a day as well.
pub(super) fn time(value: i64, unit: Unit, ty: &ColumnType) -> Result<i64, Misfit> {
    let micros = micros(value, unit)?;
    if *ty == ColumnType::Time && !(0..MICROS_PER_DAY).contains(&micros) {
        let nearest = micros.clamp(0, MICROS_PER_DAY - 1);
        let what = "a time below 00:00:00 or not below 24:00:00";
        return Err(Misfit::invalid("time_out_of_range", what).near(Stored::Int64(nearest)));
    }
    Ok(micros)
}

/// Microseconds since the epoch.
pub(super) fn instant(value: i64, unit: Unit) -> Result<i64, Misfit> {
    match micros(value, unit) {
        Ok(micros) if is_held(micros) => Ok(micros),
        // The ends of nanoseconds are within the years that tables hold, and what the connector writes for infinity.
        Err(finer) if unit == Unit::Nanos && !matches!(value, i64::MAX | i64::MIN) => Err(finer),
        _ => Err(odd_instant(value)),
    }
}

/// What the connector writes for Postgres' infinities. It writes its microseconds in columns of milliseconds as well.
const INFINITE_INSTANTS: [i64; 6] = [
    i64::MAX,
    i64::MIN,
    9_223_372_036_825_200_000,
    -9_223_372_036_832_400_000,
    9_223_372_036_825_200,
    -9_223_372_036_832_400,
];

#[cold]
fn odd_instant(value: i64) -> Misfit {
    let side = if value < 0 { Side::Before } else { Side::After };
    if INFINITE_INSTANTS.contains(&value) {
        return infinite_instant(side);
    }
    no_instant(YEARS, side)
}

fn micros(value: i64, unit: Unit) -> Result<i64, Misfit> {
    match unit {
        Unit::Micros => Ok(value),
        Unit::Millis => value.checked_mul(1000).ok_or(YEARS),
        Unit::Nanos if value % 1000 == 0 => Ok(value / 1000),
        Unit::Nanos => Err(FINER.near(Stored::Int64(value.div_euclid(1000)))),
    }
}

fn is_held(micros: i64) -> bool {
    (FIRST_DAY..=LAST_DAY).contains(&micros.div_euclid(MICROS_PER_DAY))
}

fn in_range(micros: i64) -> Result<i64, Misfit> {
    if is_held(micros) {
        Ok(micros)
    } else {
        Err(no_instant(YEARS, if micros < 0 { Side::Before } else { Side::After }))
    }
}

/// A timestamp with an offset, in ISO 8601: microseconds since the epoch.
pub(super) fn zoned(text: &str) -> Result<i64, Misfit> {
    if let Some(micros) = zulu(text) {
        return in_range(micros);
    }
    match text {
        "infinity" => return Err(infinite_instant(Side::After)),
        "-infinity" => return Err(infinite_instant(Side::Before)),
        _ => {}
    }
    if let Some(side) = outside(text) {
        return Err(no_instant(YEARS, side));
    }
    let parsed: DateTime<FixedOffset> = DateTime::parse_from_rfc3339(text)
        .map_err(|_| Misfit::mismatch("expected a timestamp with an offset"))?;
    let utc = parsed.naive_utc();
    whole(utc.and_utc().timestamp_micros(), utc.nanosecond()).and_then(in_range)
}

/// On which side of the years of four digits an ISO date with a sign lies; none without a sign.
fn outside(text: &str) -> Option<Side> {
    let (sign, rest) = text.split_at_checked(1)?;
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match sign {
        "+" => Some(Side::After),
        "-" => Some(Side::Before),
        _ => None,
    }
}

/// `2024-02-29T10:34:56.123456Z`, the usual form, with up to six digits of fraction.
fn zulu(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (day, rest) = bytes.split_first_chunk::<10>()?;
    let (time, rest) = rest.split_first_chunk::<9>()?;
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = day else { return None };
    let &[b'T', h1, h2, b':', i1, i2, b':', s1, s2] = time else { return None };
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |sum, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
            Some(sum * 10 + u32::from(digit))
        })
    };
    let year = i32::try_from(number(&[y1, y2, y3, y4])?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(&[m1, m2])?, number(&[d1, d2])?)?;
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[i1, i2])?, number(&[s1, s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = match rest.strip_suffix(b"Z")? {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => {
            let places = u32::try_from(digits.len()).ok()?;
            number(digits)? * 10_u32.pow(6 - places)
        }
        _ => return None,
    };
    let days = i64::from(date.to_epoch_days());
    let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(seconds * 1_000_000 + i64::from(fraction))
}

/// What the connector writes for Postgres' infinities in ISO 8601, up to where snapshot and stream differ.
const ISO_INFINITE: [(&str, Side); 7] = [
    ("+292278994-08-1", Side::After),
    ("+5877611-06-2", Side::After),
    ("+292269055-12-0", Side::Before),
    ("-5877611-06-2", Side::Before),
    ("-292275055-05-1", Side::Before),
    ("+294247-01-10T04:00:25.2", Side::After),
    ("-290308-12-21T19:59:27.6", Side::Before),
];

fn iso_infinite(text: &str) -> Option<Side> {
    ISO_INFINITE.iter().find(|(start, _)| text.starts_with(start)).map(|(_, side)| *side)
}

/// `2024-02-29Z`: days since the epoch.
pub(super) fn iso_date(text: &str) -> Result<i32, Misfit> {
    if let Some(side) = iso_infinite(text) {
        return Err(infinite_date(side));
    }
    if let Some(side) = outside(text) {
        return Err(no_date(YEARS, side));
    }
    let date = text.strip_suffix('Z').unwrap_or(text).parse::<NaiveDate>().map_err(|_| ISO)?;
    days(date.to_epoch_days().into())
}

/// `23:59:59.999999Z`: microseconds since midnight. A column of plain integers takes `-838:59:59` as well.
pub(super) fn iso_time(text: &str, ty: &ColumnType) -> Result<i64, Misfit> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    if let Ok(clock) = text.parse::<NaiveTime>() {
        let micros = i64::from(clock.num_seconds_from_midnight()) * 1_000_000
            + i64::from(clock.nanosecond() / 1000);
        return whole(micros, clock.nanosecond());
    }
    time(elapsed(text).ok_or(ISO)?, Unit::Micros, ty)
}

/// Hours that may be more than 24, minutes and seconds, with a sign: microseconds.
fn elapsed(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut parts = text.split(':');
    let hours: u16 = parts.next()?.parse().ok()?;
    let minutes: u8 = parts.next()?.parse().ok().filter(|minutes| *minutes < 60)?;
    let seconds = parts.next()?;
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let seconds: u8 = seconds.parse().ok().filter(|seconds| *seconds < 60)?;
    if parts.next().is_some() || fraction.len() > 6 {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<6}").parse().ok()?;
    let seconds = (i64::from(hours) * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
    let micros = seconds * 1_000_000 + i64::from(fraction);
    Some(if negative { -micros } else { micros })
}

/// `2024-02-29T12:34:56.123456Z`, the `Z` without meaning: microseconds since the epoch.
pub(super) fn iso_timestamp(text: &str) -> Result<i64, Misfit> {
    if let Some(side) = iso_infinite(text) {
        return Err(infinite_instant(side));
    }
    if let Some(side) = outside(text) {
        return Err(no_instant(YEARS, side));
    }
    let local = text.strip_suffix('Z').unwrap_or(text);
    let local = local.parse::<NaiveDateTime>().map_err(|_| ISO)?;
    whole(local.and_utc().timestamp_micros(), local.nanosecond()).and_then(in_range)
}

/// Refuses fractions finer than microseconds; chrono counts a leap second as a second billion.
fn whole(micros: i64, nanos: u32) -> Result<i64, Misfit> {
    if nanos >= 1_000_000_000 {
        return Err(Misfit::invalid("leap_second", "a leap second"));
    }
    if nanos.is_multiple_of(1000) { Ok(micros) } else { Err(FINER.near(Stored::Int64(micros))) }
}

/// The parts of a local date and time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) year: i64,
    pub(super) month: u32,
    pub(super) day: u32,
    /// Picoseconds since midnight; a day has none beyond 24:00:00.
    pub(super) picos: i128,
}

const PICOS_PER_MICRO: i128 = 1_000_000;

/// The date of parts: days since the epoch.
pub(super) fn date_of(parts: &Parts) -> Result<i32, Misfit> {
    match parts.year {
        i64::MIN..=0 if parts.month > 0 => return Err(no_date(YEARS, Side::Before)),
        10_000.. => return Err(no_date(YEARS, Side::After)),
        _ => {}
    }
    let year = i32::try_from(parts.year).unwrap_or(0);
    let date = NaiveDate::from_ymd_opt(year, parts.month, parts.day);
    let none = Misfit::invalid("no_such_day", "a day that no calendar has");
    days(date.ok_or(none)?.to_epoch_days().into())
}

/// The timestamp of parts less an offset in seconds: microseconds since the epoch.
pub(super) fn instant_of(parts: &Parts, offset: i64) -> Result<i64, Misfit> {
    let day = date_of(parts).map_err(|misfit| match misfit.nearest {
        Some(Stored::Int32(FIRST_DATE)) => no_instant(misfit, Side::Before),
        Some(_) => no_instant(misfit, Side::After),
        None => misfit,
    })?;
    let midnight = i64::from(day) * MICROS_PER_DAY - offset.saturating_mul(1_000_000);
    match micros_of(parts.picos) {
        Ok(micros) => in_range(midnight.saturating_add(micros)),
        Err(misfit) => match misfit.nearest {
            Some(Stored::Int64(micros)) => in_range(midnight.saturating_add(micros))
                .and_then(|near| Err(misfit.near(Stored::Int64(near)))),
            _ => Err(misfit),
        },
    }
}

/// Microseconds of picoseconds.
pub(super) fn micros_of(picos: i128) -> Result<i64, Misfit> {
    let micros = i64::try_from(picos.div_euclid(PICOS_PER_MICRO)).map_err(|_| YEARS)?;
    if picos.rem_euclid(PICOS_PER_MICRO) == 0 {
        Ok(micros)
    } else {
        Err(FINER.near(Stored::Int64(micros)))
    }
}
