//! Values in Delta's log: statistics and partition values.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, SecondsFormat};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Error, Result};
use crate::schema::{ColumnType, TableSchema};
use crate::table::partition::{PartitionField, Transform};
use crate::table::plan::{DataFile, Scalar};

/// Statistics of one file (Delta protocol, "Per-file Statistics").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    num_records: u64,
    tight_bounds: bool,
    min_values: BTreeMap<&'a str, Box<RawValue>>,
    max_values: BTreeMap<&'a str, Box<RawValue>>,
    null_count: BTreeMap<&'a str, u64>,
}

/// The statistics JSON of a file that nothing is deleted from. Bounds are left out where Delta has none (booleans,
/// bytes, lists) and where they would not hold for every reader (see [`bound`]).
pub(super) fn stats(
    file: &DataFile,
    schema: &TableSchema,
    partition_columns: &[String],
) -> Result<String> {
    let mut stats = Stats {
        num_records: file.rows,
        tight_bounds: true,
        min_values: BTreeMap::new(),
        max_values: BTreeMap::new(),
        null_count: BTreeMap::new(),
    };
    for column in schema.columns().iter().filter(|column| !partition_columns.contains(&column.name))
    {
        let Some(known) = file.stats.get(&column.id) else { continue };
        if matches!(column.ty, ColumnType::List(_)) {
            continue;
        }
        let name = column.stored_name();
        stats.null_count.insert(name, known.nulls);
        if let Some(min) = known.min.as_ref().and_then(|value| bound(value, &column.ty, false)) {
            stats.min_values.insert(name, min);
        }
        if let Some(max) = known.max.as_ref().and_then(|value| bound(value, &column.ty, true)) {
            stats.max_values.insert(name, max);
        }
    }
    serde_json::to_string(&stats)
        .map_err(|e| Error::internal("cannot write a file's statistics").because(e))
}

/// The statistics of a file that rows are deleted from: the same, bounds no longer tight.
pub(super) fn loosened(stats: Option<&str>, rows: u64) -> Result<String> {
    let failed = |e| Error::data("a file's statistics cannot be read").because(e);
    let mut values: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(stats.unwrap_or("{}")).map_err(failed)?;
    values.insert("tightBounds".to_owned(), to_raw_value(&false).map_err(failed)?);
    // A file with a deletion vector has to state its rows.
    values.insert("numRecords".to_owned(), to_raw_value(&rows).map_err(failed)?);
    serde_json::to_string(&values).map_err(failed)
}

/// The rows that statistics state.
pub(super) fn rows(stats: Option<&str>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Rows {
        #[serde(rename = "numRecords")]
        rows: Option<u64>,
    }
    serde_json::from_str::<Rows>(stats?).ok()?.rows
}

/// A bound as JSON. Timestamps are in milliseconds there, so an upper bound is rounded up. A float's upper bound is
/// left out: Delta orders NaN above all, and it is not known whether the file has one.
fn bound(value: &Scalar, ty: &ColumnType, upper: bool) -> Option<Box<RawValue>> {
    let text = match (ty, value) {
        (ColumnType::Int32 | ColumnType::Int64, Scalar::Int(value)) => value.to_string(),
        (ColumnType::Decimal { scale, .. }, Scalar::Decimal(value)) => decimal(*value, *scale),
        (ColumnType::Float32 | ColumnType::Float64, Scalar::Float(value)) if !upper => {
            return value.is_finite().then(|| to_raw_value(value).ok()).flatten();
        }
        (ColumnType::String, Scalar::String(value)) => return to_raw_value(value).ok(),
        (ColumnType::Date, Scalar::Int(days)) => return to_raw_value(&date(*days)?).ok(),
        (ColumnType::Timestamp | ColumnType::TimestampTz, Scalar::Int(micros)) => {
            let millis = micros.div_euclid(1000) + i64::from(upper && micros.rem_euclid(1000) != 0);
            let mut text = instant(millis.checked_mul(1000)?, SecondsFormat::Millis)?;
            if *ty == ColumnType::Timestamp {
                text.pop();
            }
            return to_raw_value(&text).ok();
        }
        _ => return None,
    };
    RawValue::from_string(text).ok()
}

/// The type of the Delta column that holds a partition field. Months and hours are text, years are calendar years:
/// what Iceberg's engines show, and what the partition directories say, which some readers take the values from.
pub(super) fn partition_type(field: &PartitionField, schema: &TableSchema) -> Result<ColumnType> {
    let column = schema.column(&field.column).ok_or_else(|| {
        Error::invalid(format!(
            "partition {}: the table has no column {}",
            field.name, field.column
        ))
    })?;
    let ty = match field.transform {
        Transform::Identity | Transform::Truncate(_) => column.ty.clone(),
        Transform::Bucket(_) | Transform::Year => ColumnType::Int32,
        Transform::Month | Transform::Hour => ColumnType::String,
        Transform::Day => ColumnType::Date,
    };
    match ty {
        ColumnType::Binary | ColumnType::List(_) | ColumnType::Float32 | ColumnType::Float64 => {
            Err(Error::refused(format!(
                "a Delta table cannot be partitioned by {}, a column of its type",
                field.name
            )))
        }
        ty => Ok(ty),
    }
}

/// A partition value as Delta's log has it; none when it cannot be told.
pub(super) fn partition_text(
    value: &Scalar,
    transform: Transform,
    ty: &ColumnType,
) -> Option<String> {
    match (transform, value) {
        (Transform::Year, Scalar::Int(years)) => Some((years + 1970).to_string()),
        (Transform::Month, Scalar::Int(months)) => {
            Some(format!("{:04}-{:02}", months.div_euclid(12) + 1970, months.rem_euclid(12) + 1))
        }
        (Transform::Hour, Scalar::Int(hours)) => {
            Some(format!("{}-{:02}", date(hours.div_euclid(24))?, hours.rem_euclid(24)))
        }
        (_, value) => plain_text(value, ty),
    }
}

fn plain_text(value: &Scalar, ty: &ColumnType) -> Option<String> {
    match (ty, value) {
        (ColumnType::Boolean, Scalar::Boolean(value)) => Some(value.to_string()),
        (ColumnType::Int32 | ColumnType::Int64, Scalar::Int(value)) => Some(value.to_string()),
        (ColumnType::Decimal { scale, .. }, Scalar::Decimal(value)) => {
            Some(decimal(*value, *scale))
        }
        (ColumnType::String, Scalar::String(value)) => Some(value.clone()),
        (ColumnType::Date, Scalar::Int(days)) => date(*days),
        (ColumnType::TimestampTz, Scalar::Int(micros)) => instant(*micros, SecondsFormat::Micros),
        (ColumnType::Timestamp, Scalar::Int(micros)) => Some(
            DateTime::from_timestamp_micros(*micros)?.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        ),
        _ => None,
    }
}

/// The value that a partition text of the log stands for; none when it is not of the type.
pub(super) fn partition_value(text: &str, transform: Transform, ty: &ColumnType) -> Option<Scalar> {
    let part = |text: &str| text.parse::<i64>().ok();
    Some(match (transform, ty) {
        (Transform::Year, _) => Scalar::Int(part(text)? - 1970),
        (Transform::Month, _) => {
            let (year, month) = text.rsplit_once('-')?;
            Scalar::Int((part(year)? - 1970) * 12 + part(month)? - 1)
        }
        (Transform::Hour, _) => {
            let (day, hour) = text.rsplit_once('-')?;
            Scalar::Int(days(day)? * 24 + part(hour)?)
        }
        (_, ColumnType::Boolean) => Scalar::Boolean(text.parse().ok()?),
        (_, ColumnType::Int32 | ColumnType::Int64) => Scalar::Int(part(text)?),
        (_, ColumnType::Decimal { scale, .. }) => Scalar::Decimal(unscaled(text, *scale)?),
        (_, ColumnType::String) => Scalar::String(text.to_owned()),
        (_, ColumnType::Date) => Scalar::Int(days(text)?),
        (_, ColumnType::Timestamp | ColumnType::TimestampTz) => Scalar::Int(micros(text)?),
        _ => return None,
    })
}

fn epoch() -> NaiveDate {
    NaiveDate::default()
}

/// `yyyy-mm-dd`, for years that every reader takes.
fn date(days: i64) -> Option<String> {
    let date = epoch().checked_add_signed(chrono::TimeDelta::try_days(days)?)?;
    (1..=9999).contains(&chrono::Datelike::year(&date)).then(|| date.format("%Y-%m-%d").to_string())
}

fn days(text: &str) -> Option<i64> {
    Some(
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.signed_duration_since(epoch()).num_days(),
    )
}

/// An instant with a trailing `Z`, for years that every reader takes.
fn instant(micros: i64, digits: SecondsFormat) -> Option<String> {
    let instant = DateTime::from_timestamp_micros(micros)?;
    (1..=9999)
        .contains(&chrono::Datelike::year(&instant))
        .then(|| instant.to_rfc3339_opts(digits, true))
}

fn micros(text: &str) -> Option<i64> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.timestamp_micros());
    }
    let local = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(local.and_utc().timestamp_micros())
}

/// An unscaled decimal in digits.
fn decimal(unscaled: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let sign = if unscaled < 0 { "-" } else { "" };
    match digits.split_at_checked(digits.len() - scale) {
        Some((whole, fraction)) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
        _ => format!("{sign}{digits}"),
    }
}

fn unscaled(text: &str, scale: u8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let width = usize::from(scale);
    if fraction.len() > width {
        return None;
    }
    format!("{whole}{fraction:0<width$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_values_come_back() {
        let cases = [
            (Scalar::Int(56), Transform::Year, ColumnType::Int32, "2026"),
            (Scalar::Int(-1), Transform::Month, ColumnType::String, "1969-12"),
            (Scalar::Int(-1), Transform::Hour, ColumnType::String, "1969-12-31-23"),
            (Scalar::Int(20_000), Transform::Day, ColumnType::Date, "2024-10-04"),
            (Scalar::Int(-7), Transform::Identity, ColumnType::Int64, "-7"),
            (Scalar::Boolean(true), Transform::Identity, ColumnType::Boolean, "true"),
            (
                Scalar::Decimal(-5),
                Transform::Identity,
                ColumnType::Decimal { precision: 9, scale: 2 },
                "-0.05",
            ),
            (
                Scalar::Decimal(700),
                Transform::Identity,
                ColumnType::Decimal { precision: 9, scale: 0 },
                "700",
            ),
            (
                Scalar::Int(1_000_001),
                Transform::Identity,
                ColumnType::TimestampTz,
                "1970-01-01T00:00:01.000001Z",
            ),
            (
                Scalar::Int(-1),
                Transform::Identity,
                ColumnType::Timestamp,
                "1969-12-31 23:59:59.999999",
            ),
            (Scalar::String("a/b ".into()), Transform::Truncate(4), ColumnType::String, "a/b "),
        ];
        for (value, transform, ty, text) in cases {
            assert_eq!(partition_text(&value, transform, &ty).as_deref(), Some(text));
            assert_eq!(partition_value(text, transform, &ty), Some(value));
        }
    }

    #[test]
    fn bounds_hold_after_rounding() {
        let text = |value: Scalar, ty: ColumnType, upper| {
            bound(&value, &ty, upper).map(|raw| raw.get().to_owned())
        };
        let ts = |micros, upper| text(Scalar::Int(micros), ColumnType::TimestampTz, upper).unwrap();
        assert_eq!(ts(1_001, false), "\"1970-01-01T00:00:00.001Z\"");
        assert_eq!(ts(1_001, true), "\"1970-01-01T00:00:00.002Z\"");
        assert_eq!(ts(-1, false), "\"1969-12-31T23:59:59.999Z\"");
        assert_eq!(ts(-1, true), "\"1970-01-01T00:00:00.000Z\"");
        let local = text(Scalar::Int(2_000), ColumnType::Timestamp, true).unwrap();
        assert_eq!(local, "\"1970-01-01T00:00:00.002\"");
        let wide = ColumnType::Decimal { precision: 38, scale: 3 };
        let most = i128::from(u64::MAX) * 1_000_000_007;
        assert_eq!(
            text(Scalar::Decimal(most), wide, true).unwrap(),
            "18446744202836760130966861.305"
        );
        assert_eq!(text(Scalar::Float(1.5), ColumnType::Float64, true), None);
        assert_eq!(text(Scalar::Int(3_000_000), ColumnType::Date, true), None);
    }

    #[test]
    fn loosened_statistics_keep_every_digit() {
        let stats = r#"{"numRecords":3,"tightBounds":true,"maxValues":{"d":12345678901234567890.123456789}}"#;
        let loose = loosened(Some(stats), 3).unwrap();
        assert!(loose.contains("12345678901234567890.123456789"), "{loose}");
        assert!(loose.contains(r#""tightBounds":false"#), "{loose}");
        assert_eq!(rows(Some(&loose)), Some(3));
    }
}
