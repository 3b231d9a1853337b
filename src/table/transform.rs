//! Partition values of columns, exactly as the Iceberg specification says ("Partition Transforms" and appendix B).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Date32Array, Int32Array, PrimitiveArray,
    StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use super::partition::Transform;
use crate::error::{Error, Result};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// The partition values of a column's values; null for null. The transform has to fit the type
/// (see [`Transform::result`]); an internal error otherwise.
pub(super) fn transform(transform: Transform, values: &ArrayRef) -> Result<ArrayRef> {
    let result = match transform {
        Transform::Identity => Some(Arc::clone(values)),
        Transform::Bucket(buckets) => bucket(values, buckets),
        Transform::Truncate(width) => truncate(values, width),
        Transform::Year => calendar(values, |day| civil(day).0 - 1970),
        Transform::Month => calendar(values, |day| {
            let (year, month) = civil(day);
            (year - 1970) * 12 + month - 1
        }),
        Transform::Day => days(values).map(|days| Arc::new(days) as ArrayRef),
        Transform::Hour => hours(values),
    };
    result.ok_or_else(|| {
        Error::internal(format!("{transform:?} does not fit values of {}", values.data_type()))
    })
}

/// A number as the specification's tables have it: 32 bits, what is beyond wraps around.
#[expect(clippy::cast_possible_truncation, reason = "other engines' arithmetic wraps here too")]
fn int(value: i64) -> i32 {
    value as i32
}

fn bucket(values: &ArrayRef, buckets: u32) -> Option<ArrayRef> {
    let of = |bytes: &[u8]| {
        // Reading from memory cannot fail.
        let hash = murmur3::murmur3_32(&mut &*bytes, 0).unwrap_or_default();
        int(i64::from((hash & 0x7FFF_FFFF).checked_rem(buckets).unwrap_or_default()))
    };
    let of_number = |value: i64| of(&value.to_le_bytes());
    let numbers: Int32Array = match values.data_type() {
        DataType::Int32 => {
            let values = values.as_primitive::<Int32Type>();
            values.unary(|value| of_number(i64::from(value)))
        }
        DataType::Date32 => {
            let values = values.as_primitive::<Date32Type>();
            values.unary(|value| of_number(i64::from(value)))
        }
        DataType::Int64 => values.as_primitive::<Int64Type>().unary(of_number),
        DataType::Time64(_) => values.as_primitive::<Time64MicrosecondType>().unary(of_number),
        DataType::Timestamp(..) => {
            values.as_primitive::<TimestampMicrosecondType>().unary(of_number)
        }
        DataType::Decimal128(..) => values
            .as_primitive::<Decimal128Type>()
            .unary(|value| of(shortest(&value.to_be_bytes()))),
        DataType::Utf8 => {
            values.as_string::<i32>().iter().map(|v| Some(of(v?.as_bytes()))).collect()
        }
        DataType::Binary => values.as_binary::<i32>().iter().map(|v| Some(of(v?))).collect(),
        _ => return None,
    };
    Some(Arc::new(numbers))
}

/// The fewest bytes that hold a big-endian two's complement number.
fn shortest(mut bytes: &[u8]) -> &[u8] {
    while let [sign, next, ..] = bytes {
        let spare = matches!((sign, next & 0x80), (0, 0) | (0xFF, 0x80));
        if !spare {
            break;
        }
        bytes = bytes.get(1..).unwrap_or_default();
    }
    bytes
}

fn truncate(values: &ArrayRef, width: u32) -> Option<ArrayRef> {
    fn numbers<T: ArrowPrimitiveType>(
        values: &ArrayRef,
        cut: impl Fn(T::Native) -> T::Native,
    ) -> ArrayRef {
        let result: PrimitiveArray<T> = values.as_primitive::<T>().unary(cut);
        Arc::new(result.with_data_type(values.data_type().clone()))
    }
    let chars = usize::try_from(width).ok()?;
    let cut = |text: &str| text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    Some(match values.data_type() {
        DataType::Int32 => {
            let width = i32::try_from(width).ok()?;
            numbers::<Int32Type>(values, |value| value.wrapping_sub(value.rem_euclid(width)))
        }
        DataType::Int64 => {
            let width = i64::from(width);
            numbers::<Int64Type>(values, |value| value.wrapping_sub(value.rem_euclid(width)))
        }
        DataType::Decimal128(..) => {
            let width = i128::from(width);
            numbers::<Decimal128Type>(values, |value| value.wrapping_sub(value.rem_euclid(width)))
        }
        DataType::Utf8 => {
            let values = values.as_string::<i32>().iter();
            let short = values.map(|text| text.and_then(|text| text.get(..cut(text))));
            Arc::new(short.collect::<StringArray>())
        }
        _ => return None,
    })
}

/// Days since the epoch.
fn days(values: &ArrayRef) -> Option<Date32Array> {
    match values.data_type() {
        DataType::Date32 => Some(values.as_primitive::<Date32Type>().clone()),
        DataType::Timestamp(..) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            Some(values.unary(|micros| int(micros.div_euclid(MICROS_PER_DAY))))
        }
        _ => None,
    }
}

fn hours(values: &ArrayRef) -> Option<ArrayRef> {
    let values = values.as_primitive_opt::<TimestampMicrosecondType>()?;
    let hours: Int32Array = values.unary(|micros| int(micros.div_euclid(MICROS_PER_HOUR)));
    Some(Arc::new(hours))
}

fn calendar(values: &ArrayRef, of_day: impl Fn(i64) -> i64) -> Option<ArrayRef> {
    let numbers: Int32Array = days(values)?.unary(|day| int(of_day(i64::from(day))));
    Some(Arc::new(numbers))
}

/// The year and the month (1 to 12) of a day since the epoch, in the proleptic Gregorian calendar.
///
/// Years are counted from March here, so that the leap day is a year's last; 400 years have 146 097 days.
fn civil(day: i64) -> (i64, i64) {
    let since = day + 719_468; // since 0000-03-01
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Decimal128Array, Int64Array, TimestampMicrosecondArray};
    use chrono::{DateTime, Datelike, NaiveDate};
    use proptest::prelude::proptest;
    use rstest::rstest;

    use super::*;

    fn day(text: &str) -> i32 {
        text.parse::<NaiveDate>().unwrap().to_epoch_days()
    }

    fn micros(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn ints(values: &ArrayRef) -> Vec<Option<i32>> {
        values.as_primitive::<Int32Type>().iter().collect()
    }

    /// Hashes of the specification's appendix B. With 2^31 - 1 buckets the bucket is the hash without its sign, but
    /// for the one hash that is all ones.
    #[rstest]
    #[case(Arc::new(Int32Array::from(vec![34])), 2_017_239_379)]
    #[case(Arc::new(Int64Array::from(vec![34])), 2_017_239_379)]
    #[case(Arc::new(Decimal128Array::from(vec![1420]).with_precision_and_scale(9, 2).unwrap()), -500_754_589)]
    #[case(Arc::new(Date32Array::from(vec![day("2017-11-16")])), -653_330_422)]
    #[case(
        Arc::new(arrow::array::Time64MicrosecondArray::from(vec![81_068_000_000])),
        -662_762_989
    )]
    #[case(
        Arc::new(TimestampMicrosecondArray::from(vec![micros("2017-11-16T22:31:08Z")])),
        -2_047_944_441
    )]
    #[case(
        Arc::new(TimestampMicrosecondArray::from(vec![micros("2017-11-16T14:31:08-08:00")]).with_timezone("UTC")),
        -2_047_944_441
    )]
    #[case(
        Arc::new(TimestampMicrosecondArray::from(vec![micros("2017-11-16T22:31:08.000001Z")])),
        -1_207_196_810
    )]
    #[case(Arc::new(StringArray::from(vec!["iceberg"])), 1_210_000_089)]
    #[case(Arc::new(BinaryArray::from_vec(vec![&[0, 1, 2, 3]])), -188_683_207)]
    fn buckets_are_the_specified_hashes(#[case] values: ArrayRef, #[case] hash: i32) {
        let all = transform(Transform::Bucket(i32::MAX.unsigned_abs()), &values).unwrap();
        assert_eq!(ints(&all), [Some(hash & i32::MAX)]);
        let few = transform(Transform::Bucket(16), &values).unwrap();
        assert_eq!(ints(&few), [Some((hash & i32::MAX) % 16)]);
    }

    #[rstest]
    #[case(1_i128, &[1])]
    #[case(0, &[0])]
    #[case(127, &[0x7F])]
    #[case(128, &[0, 0x80])]
    #[case(-1, &[0xFF])]
    #[case(-128, &[0x80])]
    #[case(-129, &[0xFF, 0x7F])]
    #[case(i128::MAX, &i128::MAX.to_be_bytes())]
    fn decimals_are_hashed_in_the_fewest_bytes(#[case] value: i128, #[case] bytes: &[u8]) {
        assert_eq!(shortest(&value.to_be_bytes()), bytes);
    }

    #[test]
    fn numbers_are_cut_down_and_texts_by_characters() {
        let cut = |width, values: ArrayRef| transform(Transform::Truncate(width), &values).unwrap();
        let numbers =
            Int32Array::from(vec![Some(1), Some(-1), Some(10), None, Some(-10), Some(-11)]);
        assert_eq!(
            ints(&cut(10, Arc::new(numbers))),
            [Some(0), Some(-10), Some(10), None, Some(-10), Some(-20)]
        );
        let decimals =
            Decimal128Array::from(vec![1065, -1065]).with_precision_and_scale(9, 2).unwrap();
        let cut_decimals = cut(50, Arc::new(decimals));
        assert_eq!(cut_decimals.as_primitive::<Decimal128Type>().values(), &[1050, -1100]);
        assert_eq!(cut_decimals.data_type(), &DataType::Decimal128(9, 2));
        let texts = StringArray::from(vec![Some("iceberg"), Some("ic"), None, Some("☃☃☃x")]);
        let texts = cut(3, Arc::new(texts));
        let texts: Vec<_> = texts.as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("ice"), Some("ic"), None, Some("☃☃☃")]);
    }

    #[rstest]
    #[case("2017-12-01T10:12:55.038194Z", 47, 575, 17_501, 420_034)]
    #[case("1970-01-01T00:00:00Z", 0, 0, 0, 0)]
    #[case("1969-12-31T23:59:59.999999Z", -1, -1, -1, -1)]
    #[case("1969-01-01T00:00:00Z", -1, -12, -365, -8760)]
    #[case("2024-02-29T23:00:00Z", 54, 649, 19_782, 474_791)]
    fn times_are_counted_from_1970(
        #[case] at: &str,
        #[case] year: i32,
        #[case] month: i32,
        #[case] day: i32,
        #[case] hour: i32,
    ) {
        let values: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros(at)]));
        assert_eq!(ints(&transform(Transform::Year, &values).unwrap()), [Some(year)]);
        assert_eq!(ints(&transform(Transform::Month, &values).unwrap()), [Some(month)]);
        assert_eq!(ints(&transform(Transform::Hour, &values).unwrap()), [Some(hour)]);
        let days = transform(Transform::Day, &values).unwrap();
        assert_eq!(days.as_primitive::<Date32Type>().values(), &[day]);
        assert_eq!(ints(&transform(Transform::Month, &days).unwrap()), [Some(month)]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert!(transform(Transform::Day, &texts).is_err());
        assert!(transform(Transform::Hour, &texts).is_err());
    }

    proptest! {
        #[test]
        fn the_calendar_is_right(day in -90_000_000_i64..90_000_000) {
            let date = NaiveDate::from_epoch_days(i32::try_from(day).unwrap());
            let date = date.unwrap_or_default();
            let day = i64::from(date.to_epoch_days());
            assert_eq!(civil(day), (i64::from(date.year()), i64::from(date.month())));
        }
    }
}
