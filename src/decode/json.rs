//! A cursor over JSON bytes: finds values without building any, strict enough that what it hands out is exactly
//! the value it names.
//!
//! Stepping over a value checks its brackets and strings, not its every byte; a row is checked in full when its
//! columns are decoded.

use std::borrow::Cow;
use std::ops::Range;

mod blocks;

use blocks::{container_end, scalar_end, string_stop};

/// JSON that cannot be read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

const ENDED: Malformed = Malformed("the text ends within a value");

/// A place in JSON text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    /// The bytes, when they are known to be text.
    text: Option<&'a str>,
    at: usize,
}

/// A string between its quotes, not unescaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'a> {
    pub(super) raw: &'a [u8],
    start: usize,
    escaped: bool,
}

impl<'a> Cursor<'a> {
    /// A cursor at `at`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, text: None, at }
    }

    /// A cursor at the start of text.
    pub(super) fn over(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), text: Some(text), at: 0 }
    }

    /// The bytes of a place.
    pub(super) fn slice(&self, place: Range<usize>) -> &'a [u8] {
        self.bytes.get(place).unwrap_or_default()
    }

    /// The next byte that is not whitespace.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<u8, Malformed> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(ENDED),
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek()? != byte {
            return Err(Malformed(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Checks that nothing but whitespace follows.
    pub(super) fn finish(mut self) -> Result<(), Malformed> {
        match self.peek() {
            Err(_) => Ok(()),
            Ok(_) => Err(Malformed("something follows the end of the text")),
        }
    }

    /// Steps over `literal` if it comes next, byte by byte.
    #[inline]
    pub(super) fn eat(&mut self, literal: &[u8]) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(literal));
        if found {
            self.at += literal.len();
        }
        found
    }

    /// Enters an object: true when it has a field, at whose name the cursor then is.
    #[inline]
    pub(super) fn open_object(&mut self) -> Result<bool, Malformed> {
        self.expect(b'{', "expected an object")?;
        self.opened(b'}')
    }

    /// Enters an array: true when it has an element, at which the cursor then is.
    #[inline]
    pub(super) fn open_array(&mut self) -> Result<bool, Malformed> {
        self.expect(b'[', "expected an array")?;
        self.opened(b']')
    }

    #[inline]
    fn opened(&mut self, close: u8) -> Result<bool, Malformed> {
        let empty = self.peek()? == close;
        self.at += usize::from(empty);
        Ok(!empty)
    }

    /// A field's name and the colon after it.
    #[inline]
    pub(super) fn name(&mut self) -> Result<Quoted<'a>, Malformed> {
        let name = self.string()?;
        if self.bytes.get(self.at) == Some(&b':') {
            self.at += 1;
        } else {
            self.expect(b':', "expected a colon after a name")?;
        }
        Ok(name)
    }

    /// After a value in an object: true when another field follows.
    #[inline]
    pub(super) fn next_field(&mut self) -> Result<bool, Malformed> {
        self.next(b'}')
    }

    /// After a value in an array: true when another element follows.
    #[inline]
    pub(super) fn next_element(&mut self) -> Result<bool, Malformed> {
        self.next(b']')
    }

    #[inline]
    fn next(&mut self, close: u8) -> Result<bool, Malformed> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b',' {
            Ok(true)
        } else if byte == close {
            Ok(false)
        } else {
            Err(Malformed("expected a comma or the end of an object or array"))
        }
    }

    /// A string.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, Malformed> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let end = string_stop(self.bytes, self.at).ok_or(ENDED)?;
            if self.bytes.get(end) == Some(&b'"') {
                self.at = end + 1;
                let raw = self.bytes.get(start..end).ok_or(ENDED)?;
                return Ok(Quoted { raw, start, escaped });
            }
            escaped = true;
            self.at = end + 2;
        }
    }

    /// Steps over a value and gives the place it takes.
    #[inline]
    pub(super) fn skip(&mut self) -> Result<Range<usize>, Malformed> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.at = container_end(self.bytes, start).ok_or(ENDED)?,
            _ => {
                self.scalar()?;
            }
        }
        Ok(start..self.at)
    }

    /// A number or a literal, up to what ends it.
    #[inline]
    pub(super) fn scalar(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek()?;
        let start = self.at;
        self.at = scalar_end(self.bytes, start);
        match self.bytes.get(start..self.at) {
            Some(scalar) if !scalar.is_empty() => Ok(scalar),
            _ => Err(Malformed("expected a value")),
        }
    }

    /// A string that this cursor found, unescaped.
    #[inline]
    pub(super) fn text(&self, quoted: Quoted<'a>) -> Result<Cow<'a, str>, Malformed> {
        let raw = match self.text {
            Some(text) => text.get(quoted.start..quoted.start + quoted.raw.len()),
            None => std::str::from_utf8(quoted.raw).ok(),
        };
        let raw = raw.ok_or(Malformed("text that is not UTF-8"))?;
        if !quoted.escaped {
            return Ok(Cow::Borrowed(raw));
        }
        let mut text = String::with_capacity(raw.len());
        unescape(raw, &mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Steps over `null` if it comes next.
    #[inline]
    pub(super) fn null(&mut self) -> Result<bool, Malformed> {
        Ok(self.peek()? == b'n' && self.eat(b"null"))
    }
}

/// An integer that fits 64 bits; none for any other number.
#[inline]
pub(super) fn integer(scalar: &[u8]) -> Option<i64> {
    let (negative, digits) = match scalar.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, scalar),
    };
    if digits.is_empty() || digits.len() > 19 || (digits.len() > 1 && digits.starts_with(b"0")) {
        return None;
    }
    let (eights, rest) = digits.as_chunks::<8>();
    let mut value = 0_u64;
    for chunk in eights {
        value = value * 100_000_000 + eight_digits(*chunk)?;
    }
    for digit in rest {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Nineteen digits stay below 2^64.
        value = value * 10 + u64::from(digit);
    }
    if negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// The number that eight digits are: pairs of digits, then pairs of pairs, in one word.
#[inline]
fn eight_digits(digits: [u8; 8]) -> Option<u64> {
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const OVER_NINE: u64 = u64::from_le_bytes([0x76; 8]);
    const ENDS: u64 = 0x0000_00ff_0000_00ff;
    let word = u64::from_le_bytes(digits) ^ u64::from_le_bytes([b'0'; 8]);
    if (word.wrapping_add(OVER_NINE) | word) & HIGH != 0 {
        return None;
    }
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let first = (pairs & ENDS).wrapping_mul(100 + (1_000_000 << 32));
    let second = ((pairs >> 16) & ENDS).wrapping_mul(1 + (10_000 << 32));
    Some(first.wrapping_add(second) >> 32)
}

/// True for a number of JSON's grammar.
pub(super) fn is_number(scalar: &[u8]) -> bool {
    fn digits(text: &[u8]) -> (usize, &[u8]) {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count, text.get(count..).unwrap_or_default())
    }
    let unsigned = scalar.strip_prefix(b"-").unwrap_or(scalar);
    let (whole, mut rest) = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned.starts_with(b"0")) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (count, after) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let unsigned = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+"));
        let (count, after) = digits(unsigned.unwrap_or(exponent));
        return count > 0 && after.is_empty();
    }
    rest.is_empty()
}

impl Quoted<'_> {
    /// True when the string is `text`.
    #[inline]
    pub(super) fn is(&self, text: &str) -> bool {
        if self.escaped {
            let unescaped = Cursor::new(self.raw, 0).text(Quoted { start: 0, ..*self });
            return unescaped.is_ok_and(|own| own == text);
        }
        self.raw == text.as_bytes()
    }
}

/// Appends `raw`, a string's inside, to `text`. Half a surrogate pair is no character and refused.
pub(super) fn unescape(raw: &str, text: &mut String) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed("an escape that is none");
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let mut characters = after.chars();
        text.push(match characters.next().ok_or(BAD)? {
            character @ ('"' | '\\' | '/') => character,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (character, after) = unicode(characters.as_str()).ok_or(BAD)?;
                text.push(character);
                rest = after;
                continue;
            }
            _ => return Err(BAD),
        });
        rest = characters.as_str();
    }
    text.push_str(rest);
    Ok(())
}

/// The character of one or two `\u` escapes, the first one's `\u` already gone, and what follows.
fn unicode(rest: &str) -> Option<(char, &str)> {
    let (high, rest) = hex(rest)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, rest));
    }
    let (low, rest) = hex(rest.strip_prefix("\\u")?)?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)?, rest))
}

fn hex(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let valid = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(|value| (value, rest))
}

#[cfg(test)]
mod tests;
