//! Dates, times and timestamps, stored exactly or refused.
//!
//! Tables hold the years 1 to 9999, which every reader can show; infinities and what lies outside are refused.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::{Misfit, Unit};
use crate::schema::ColumnType;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 0001-01-01 and 9999-12-31, in days since the epoch.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

const YEARS: &str = "outside the years 1 to 9999, or infinite";

/// Days since the epoch.
pub(super) fn days(days: i64) -> Result<i32, Misfit> {
    match i32::try_from(days) {
        Ok(stored) if (FIRST_DAY..=LAST_DAY).contains(&days) => Ok(stored),
        _ => Err(Misfit::range(YEARS)),
    }
}

/// Microseconds since midnight. A column of plain integers takes durations below zero and beyond a day as well.
pub(super) fn time(value: i64, unit: Unit, ty: &ColumnType) -> Result<i64, Misfit> {
    let micros = micros(value, unit)?;
    if *ty == ColumnType::Time && !(0..MICROS_PER_DAY).contains(&micros) {
        return Err(Misfit::range("a time below 00:00:00 or not below 24:00:00"));
    }
    Ok(micros)
}

/// Microseconds since the epoch.
pub(super) fn instant(value: i64, unit: Unit) -> Result<i64, Misfit> {
    in_range(micros(value, unit)?)
}

fn micros(value: i64, unit: Unit) -> Result<i64, Misfit> {
    match unit {
        Unit::Micros => Ok(value),
        Unit::Millis => value.checked_mul(1000).ok_or(Misfit::range(YEARS)),
        Unit::Nanos if value % 1000 == 0 => Ok(value / 1000),
        Unit::Nanos => Err(Misfit::range("finer than microseconds")),
    }
}

fn in_range(micros: i64) -> Result<i64, Misfit> {
    if (FIRST_DAY..=LAST_DAY).contains(&micros.div_euclid(MICROS_PER_DAY)) {
        Ok(micros)
    } else {
        Err(Misfit::range(YEARS))
    }
}

/// A timestamp with an offset, in ISO 8601: microseconds since the epoch.
pub(super) fn zoned(text: &str) -> Result<i64, Misfit> {
    if let Some(micros) = zulu(text) {
        return in_range(micros);
    }
    if matches!(text, "infinity" | "-infinity") || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Misfit::range(YEARS));
    }
    let parsed: DateTime<FixedOffset> = DateTime::parse_from_rfc3339(text)
        .map_err(|_| Misfit::mismatch("expected a timestamp with an offset"))?;
    let utc = parsed.naive_utc();
    exact(utc.nanosecond())?;
    in_range(utc.and_utc().timestamp_micros())
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

/// `2024-02-29Z`: days since the epoch.
pub(super) fn iso_date(text: &str) -> Result<i32, Misfit> {
    let date = text.strip_suffix('Z').unwrap_or(text).parse::<NaiveDate>().map_err(|_| ISO)?;
    days(date.to_epoch_days().into())
}

/// `23:59:59.999999Z`: microseconds since midnight.
pub(super) fn iso_time(text: &str) -> Result<i64, Misfit> {
    let time = text.strip_suffix('Z').unwrap_or(text).parse::<NaiveTime>().map_err(|_| ISO)?;
    exact(time.nanosecond())?;
    Ok(i64::from(time.num_seconds_from_midnight()) * 1_000_000
        + i64::from(time.nanosecond() / 1000))
}

/// `2024-02-29T12:34:56.123456Z`, the `Z` without meaning: microseconds since the epoch.
pub(super) fn iso_timestamp(text: &str) -> Result<i64, Misfit> {
    let local = text.strip_suffix('Z').unwrap_or(text);
    let local = local.parse::<NaiveDateTime>().map_err(|_| ISO)?;
    exact(local.nanosecond())?;
    in_range(local.and_utc().timestamp_micros())
}

const ISO: Misfit = Misfit::mismatch("expected a date or time in ISO 8601");

/// Refuses fractions finer than microseconds; chrono counts a leap second as a second billion.
fn exact(nanos: u32) -> Result<(), Misfit> {
    if nanos >= 1_000_000_000 {
        return Err(Misfit::range("a leap second"));
    }
    if nanos.is_multiple_of(1000) { Ok(()) } else { Err(Misfit::range("finer than microseconds")) }
}
