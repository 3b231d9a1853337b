//! Decimals of any length, exact or refused.

use num_bigint::{BigInt, Sign};

use super::{MAX_PRECISION, Misfit, Stored};

const NOT_A_DECIMAL: Misfit = Misfit::mismatch("expected a decimal number");
const FAR: Misfit = Misfit::mismatch("a decimal with an absurd scale");
/// A scale beyond what any database has; it would make a text that no memory holds.
const MAX_SCALE: u32 = 200_000;
/// Scales above this one are Postgres' negative ones plus 2048.
const MAX_POSTGRES_SCALE: i32 = 1000;

/// A column's decimal type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digits {
    pub(super) precision: u8,
    pub(super) scale: u8,
}

impl Digits {
    fn most(self) -> i128 {
        10_i128.checked_pow(self.precision.into()).map_or(i128::MAX, |power| power - 1)
    }

    /// More digits than the column has.
    fn too_many(self, negative: bool) -> Misfit {
        let nearest = if negative { -self.most() } else { self.most() };
        Misfit::invalid("too_many_digits", "a decimal with more digits than its column has")
            .near(Stored::Decimal(nearest))
    }

    fn too_precise(self, nearest: Option<i128>) -> Misfit {
        let misfit = Misfit::invalid(
            "too_precise",
            "a decimal with more digits after the point than its column has",
        );
        match nearest.filter(|nearest| nearest.unsigned_abs() <= self.most().unsigned_abs()) {
            Some(nearest) => misfit.near(Stored::Decimal(nearest)),
            None => misfit,
        }
    }

    fn fit(self, unscaled: i128) -> Result<i128, Misfit> {
        if unscaled.unsigned_abs() > self.most().unsigned_abs() {
            return Err(self.too_many(unscaled < 0));
        }
        Ok(unscaled)
    }

    /// An integer.
    pub(super) fn integer(self, value: i128) -> Result<i128, Misfit> {
        let power = 10_i128.checked_pow(self.scale.into());
        let unscaled = power.and_then(|power| value.checked_mul(power));
        self.fit(unscaled.ok_or_else(|| self.too_many(value < 0))?)
    }

    /// A two's complement number, most significant byte first, times ten to the power of minus `scale`.
    pub(super) fn binary(self, bytes: &[u8], scale: i32) -> Result<i128, Misfit> {
        let up = i32::from(self.scale).checked_sub(scale).ok_or(FAR)?;
        if let (Some(value), Ok(up)) = (big_endian(bytes), u32::try_from(up)) {
            return self.raised(value, up);
        }
        self.shifted(&BigInt::from_signed_bytes_be(bytes), up)
    }

    /// A number times ten to the power of `up`.
    fn raised(self, value: i128, up: u32) -> Result<i128, Misfit> {
        let unscaled = 10_i128.checked_pow(up).and_then(|power| value.checked_mul(power));
        match unscaled {
            Some(unscaled) => self.fit(unscaled),
            None if value == 0 => Ok(0),
            None => Err(self.too_many(value < 0)),
        }
    }

    /// The same for a number of any size and a power that may be negative.
    fn shifted(self, value: &BigInt, up: i32) -> Result<i128, Misfit> {
        let negative = value.sign() == Sign::Minus;
        if value.sign() == Sign::NoSign {
            return Ok(0);
        }
        if up >= 0 {
            // Any digit above the column's would stay.
            let up = u32::try_from(up).unwrap_or(u32::MAX);
            let power =
                Some(up).filter(|up| *up <= MAX_PRECISION).map(|up| BigInt::from(10).pow(up));
            let product = power.and_then(|power| i128::try_from(value * power).ok());
            return self.fit(product.ok_or_else(|| self.too_many(negative))?);
        }
        let down = up.unsigned_abs();
        // Ten to the power of `down` has more bits than the number: nothing before the point is left.
        if u64::from(down).saturating_mul(3) > value.bits() {
            return Err(self.too_precise(Some(0)));
        }
        let power = BigInt::from(10).pow(down);
        let whole = i128::try_from(value / &power).ok();
        if (value % &power).sign() == Sign::NoSign {
            return self.fit(whole.ok_or_else(|| self.too_many(negative))?);
        }
        Err(self.too_precise(whole))
    }

    /// A number in digits, with or without an exponent.
    pub(super) fn lexeme(self, text: &str) -> Result<i128, Misfit> {
        if let Some(misfit) = self.special(text) {
            return Err(misfit);
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_| NOT_A_DECIMAL)?)
            }
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(NOT_A_DECIMAL);
        }
        let fraction = fraction.trim_end_matches('0');
        let places = i32::try_from(fraction.len()).map_err(|_| FAR)?;
        let up = i32::from(self.scale).saturating_add(exponent).saturating_sub(places);
        let small = whole.bytes().chain(fraction.bytes()).try_fold(0_i128, |value, digit| {
            value.checked_mul(10)?.checked_add(i128::from(digit.wrapping_sub(b'0')))
        });
        let small = small.map(|value| if negative { -value } else { value });
        if let (Some(value), Ok(up)) = (small, u32::try_from(up)) {
            return self.raised(value, up);
        }
        let value: BigInt = match (small, format!("{whole}{fraction}").parse::<BigInt>()) {
            (Some(value), _) => value.into(),
            (None, Ok(value)) if negative => -value,
            (None, Ok(value)) => value,
            (None, Err(_)) => return Err(NOT_A_DECIMAL),
        };
        self.shifted(&value, up)
    }

    /// What a connector writes for what is no number.
    fn special(self, text: &str) -> Option<Misfit> {
        let infinite = Misfit::invalid("infinite", "infinite");
        Some(match text {
            "NAN" | "NaN" => Misfit::invalid("not_a_number", "not a number"),
            "POSITIVE_INFINITY" | "Infinity" => infinite.near(Stored::Decimal(self.most())),
            "NEGATIVE_INFINITY" | "-Infinity" => infinite.near(Stored::Decimal(-self.most())),
            _ => return None,
        })
    }
}

/// A two's complement number, most significant byte first, when it fits. No byte at all is zero.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut bytes = bytes;
    while let Some((first, rest)) = bytes.split_first()
        && bytes.len() > 16
    {
        if *first != sign {
            return None;
        }
        bytes = rest;
    }
    let mut wide = [sign; 16];
    wide.get_mut(16 - bytes.len()..)?.copy_from_slice(bytes);
    let value = i128::from_be_bytes(wide);
    ((value < 0) == (sign != 0)).then_some(value)
}

/// The digits of a two's complement number times ten to the power of minus `scale`, as many after the point as the
/// scale says; none where Postgres' scale is negative.
pub(super) fn digits(bytes: &[u8], scale: i32) -> Result<String, Misfit> {
    if scale.unsigned_abs() > MAX_SCALE {
        return Err(FAR);
    }
    let value = match big_endian(bytes) {
        Some(value) => value.to_string(),
        None => BigInt::from_signed_bytes_be(bytes).to_string(),
    };
    let Ok(places) = usize::try_from(scale) else {
        let zeros = usize::try_from(scale.unsigned_abs()).unwrap_or(0);
        return Ok(if value == "0" { value } else { format!("{value}{:0<zeros$}", "") });
    };
    let (sign, value) = value.strip_prefix('-').map_or(("", value.as_str()), |rest| ("-", rest));
    let value = format!("{value:0>width$}", width = places + 1);
    let (whole, fraction) = value.split_at_checked(value.len() - places).ok_or(FAR)?;
    let fraction =
        if scale > MAX_POSTGRES_SCALE { fraction.trim_end_matches('0') } else { fraction };
    Ok(match fraction {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    })
}

/// True for what connectors write for a decimal as text: a number, or a name of what is none.
pub(super) fn is_written(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    is_number || SPECIAL.contains(&text)
}

/// What connectors write for what is no number.
const SPECIAL: [&str; 6] =
    ["NaN", "NAN", "Infinity", "POSITIVE_INFINITY", "-Infinity", "NEGATIVE_INFINITY"];

/// True for a JSON number that a double holds digit by digit, and that is written as Java writes a double: another
/// spelling is a decimal's.
pub(in crate::decode) fn is_exact_double(text: &str) -> bool {
    let (mantissa, _) = text.split_once(['e', 'E']).unwrap_or((text, ""));
    let (_, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let plain = fraction == "0" || !fraction.ends_with('0');
    plain && keeps_digits(text)
}

/// True for a number that comes back with the same digits from a double.
pub(super) fn keeps_digits(text: &str) -> bool {
    let significant = |text: &str| -> String {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_start_matches('0').trim_end_matches('0').to_owned()
    };
    // Fifteen digits always do.
    if text.len() <= 15 && !text.contains(['e', 'E']) {
        return true;
    }
    let Ok(value) = text.parse::<f64>() else { return false };
    value.is_finite() && significant(text) == significant(&format!("{value:e}"))
}
