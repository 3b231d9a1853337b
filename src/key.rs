//! Primary keys in sixteen bytes.
//!
//! The same key always gives the same sixteen bytes, whether it comes from a record's key or from a table's key
//! columns. Keys that fit are stored as they are; longer ones as a 128-bit BLAKE3 hash, for which the chance of
//! any collision among a billion rows is below 1e-15 even against keys chosen by an adversary.

mod content;

pub use content::contents;

use crate::schema::ColumnType;

/// A primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

impl Key {
    /// The key of a row of a table without a key: its record's place, which no other row has.
    pub fn of_place(partition: i32, offset: i64) -> Self {
        let mut bytes = [0; 16];
        let place = offset.to_le_bytes().into_iter().chain(partition.to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(place) {
            *byte = value;
        }
        Self(bytes)
    }

    /// The key of a row's content, which other rows may have as well.
    pub fn of_content(content: &[u8]) -> Self {
        Self(hash(content))
    }

    /// The key of one of the rows that have this content, counted from 0.
    #[must_use]
    pub fn nth(self, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        let mut bytes = [0; 24];
        for (byte, own) in bytes.iter_mut().zip(self.0.into_iter().chain(number.to_le_bytes())) {
            *byte = own;
        }
        Self(hash(&bytes))
    }

    /// How many rows have this content, where `is_there` knows the keys that [`Self::nth`] gave them, without a gap.
    pub fn count(self, is_there: impl Fn(&Self) -> bool) -> u64 {
        let (mut least, mut step) = (0_u64, 1_u64);
        // The first number that is not there lies in `least..=least + step`.
        while is_there(&self.nth(least + step - 1)) {
            least += step;
            step *= 2;
        }
        let mut most = least + step - 1;
        while least < most {
            let middle = least + (most - least) / 2;
            if is_there(&self.nth(middle)) {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        least
    }

    /// The key of these sixteen bytes.
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// This key under a mask that is made of another: masked again by the same it is what it was.
    #[must_use]
    pub fn masked_by(&self, other: &Self) -> Self {
        let mut mask = [0; 16];
        let mut hasher = blake3::Hasher::new_derive_key("cdc-sink 2026 key under a mask");
        hasher.update(&other.0).finalize_xof().fill(&mut mask);
        let mut bytes = self.0;
        bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        Self(bytes)
    }

    /// Tells the key from others without telling its values: for what is stored outside of data files.
    pub fn digest(&self) -> [u8; 16] {
        hash(&self.0)
    }

    /// The sixteen bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Collects the values of a key's columns, in the key's order, and makes the [`Key`].
///
/// Integers of any width are pushed as `i64`, so a column may widen without changing its keys; decimals are pushed
/// unscaled at the table's scale; dates, times and timestamps as the number the table stores.
#[derive(Debug)]
pub struct KeyBuilder {
    bytes: Vec<u8>,
    fixed: bool,
}

impl KeyBuilder {
    /// A builder for keys of these column types.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a ColumnType>) -> Self {
        let width = types.into_iter().map(fixed_width).try_fold(0, |sum, width| Some(sum + width?));
        Self { bytes: Vec::with_capacity(32), fixed: width.is_some_and(|width| width <= 16) }
    }

    /// Appends a boolean, integer, date, time or timestamp.
    pub fn push_i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a decimal's unscaled value.
    pub fn push_i128(&mut self, value: i128) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends text or bytes.
    pub fn push_bytes(&mut self, value: &[u8]) {
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// The key of the values pushed since the last call.
    pub fn finish(&mut self) -> Key {
        let key = if self.fixed { self.inline() } else { self.inline_text() };
        let key = key.unwrap_or_else(|| hash(&self.bytes));
        self.bytes.clear();
        Key(key)
    }

    /// Forgets the values pushed since the last call of `finish`.
    pub fn reset(&mut self) {
        self.bytes.clear();
    }

    fn inline(&self) -> Option<[u8; 16]> {
        let mut key = [0; 16];
        key.get_mut(..self.bytes.len())?.copy_from_slice(&self.bytes);
        Some(key)
    }

    /// One short text: up to 15 bytes, with its length in the last byte.
    fn inline_text(&self) -> Option<[u8; 16]> {
        let (length, text) = self.bytes.split_first_chunk::<8>()?;
        let length = u8::try_from(u64::from_le_bytes(*length)).ok().filter(|n| *n < 16)?;
        if usize::from(length) != text.len() {
            return None;
        }
        let mut key = [0; 16];
        key.get_mut(..text.len())?.copy_from_slice(text);
        key[15] = length;
        Some(key)
    }
}

fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut hash);
    hash
}

/// Bytes that a value of this type always takes in a key; none when it varies.
fn fixed_width(ty: &ColumnType) -> Option<usize> {
    match ty {
        ColumnType::Decimal { .. } => Some(16),
        ColumnType::String | ColumnType::Binary | ColumnType::List(_) => None,
        _ => Some(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_key(parts: &[&str]) -> Key {
        let mut builder = KeyBuilder::new(vec![&ColumnType::String; parts.len()]);
        for part in parts {
            builder.push_bytes(part.as_bytes());
        }
        builder.finish()
    }

    #[test]
    fn different_keys_differ() {
        let keys = [
            text_key(&["a"]),
            text_key(&["a\0"]),
            text_key(&[""]),
            text_key(&["", ""]),
            text_key(&["ab", "c"]),
            text_key(&["a", "bc"]),
            text_key(&["0123456789abcde"]),
            text_key(&["0123456789abcdef"]),
            text_key(&["0123456789abcdeg"]),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn a_builder_can_be_used_again() {
        let mut builder = KeyBuilder::new([&ColumnType::Int32, &ColumnType::Int64]);
        let mut key = |a, b| {
            builder.push_i64(a);
            builder.push_i64(b);
            builder.finish()
        };
        assert_eq!(key(1, 2), key(1, 2));
        assert_ne!(key(1, 2), key(2, 1));
    }
}
