//! The value that stands for "unchanged, and not in the source's log" (Debezium's unavailable-value placeholder),
//! in every form it takes (debezium.md 3.2, `UnchangedToastedPlaceholder`).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use md5::{Digest, Md5};
use uuid::Builder;

use super::types::{Form, Raw};

/// The placeholder's forms.
#[derive(Debug)]
pub(super) struct Placeholder {
    bytes: Vec<u8>,
    /// As text: itself, and a blob's in the modes that write blobs as text.
    texts: [String; 4],
    /// The lengths of `texts`, a bit for each.
    lengths: u64,
    /// As a map (hstore), in JSON.
    json: String,
    /// As an element of an array of UUIDs.
    uuid: String,
}

impl Placeholder {
    /// The forms of the connector's option; `hex:` starts arbitrary bytes. Nothing is a placeholder when it is empty.
    pub(super) fn new(option: &str) -> Self {
        let bytes = option.strip_prefix("hex:").and_then(from_hex);
        let bytes = bytes.unwrap_or_else(|| option.as_bytes().to_vec());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        let texts = [text, STANDARD.encode(&bytes), URL_SAFE.encode(&bytes), hex];
        let lengths = if bytes.is_empty() { 0 } else { lengths(&texts) };
        // `UUID.nameUUIDFromBytes`.
        let uuid = Builder::from_md5_bytes(Md5::digest(&bytes).into()).into_uuid().to_string();
        Self { bytes, texts, lengths, json: format!("{{{quoted}:{quoted}}}"), uuid }
    }

    /// True for the placeholder of a scalar column.
    #[inline]
    pub(super) fn is(&self, raw: Raw<'_>, form: &Form) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        match raw {
            Raw::Text(text) if self.has_length(text) || *form == Form::Json => {
                self.is_text(text, form)
            }
            Raw::Bytes(bytes) => bytes == self.bytes,
            Raw::Json(json) => json == self.json,
            _ => false,
        }
    }

    /// False for most texts that are none of the forms.
    #[inline]
    fn has_length(&self, text: &str) -> bool {
        self.lengths >> text.len().min(63) & 1 == 1
    }

    fn is_text(&self, text: &str, form: &Form) -> bool {
        match form {
            Form::Text | Form::Any | Form::Bytes | Form::Encoded(_) | Form::Zoned => {
                self.texts.iter().any(|own| own == text)
            }
            Form::Json => self.texts.iter().any(|own| own == text) || text == self.json,
            // A column whose values are no text has no such form, unless the connector put text in its place.
            _ => self.texts.first().is_some_and(|own| own == text),
        }
    }

    /// The placeholder of a list, to be compared element by element.
    pub(super) fn list(&self) -> ListMatch<'_> {
        ListMatch { placeholder: self, at: 0, expected: 1, whole: !self.bytes.is_empty() }
    }
}

/// Whether the elements of a list are, all of them, its placeholder.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListMatch<'a> {
    placeholder: &'a Placeholder,
    at: usize,
    /// Elements of the placeholder: a number for each byte, or one of any other kind.
    expected: usize,
    whole: bool,
}

impl ListMatch<'_> {
    /// The next element.
    #[inline]
    pub(super) fn element(&mut self, raw: Raw<'_>) {
        if self.whole {
            self.whole = self.is_next(raw);
            if self.at == 0 && !matches!(raw, Raw::Text(_) | Raw::Bytes(_)) {
                self.expected = self.placeholder.bytes.len();
            }
            self.at += 1;
        }
    }

    fn is_next(&self, raw: Raw<'_>) -> bool {
        let Placeholder { bytes, texts, uuid, .. } = self.placeholder;
        let byte = bytes.get(self.at).copied();
        match raw {
            Raw::Integer(value) => byte.is_some_and(|byte| value == i64::from(byte)),
            Raw::Float(value) => byte.is_some_and(|byte| value == f32::from(byte)),
            Raw::Double(value) => byte.is_some_and(|byte| value == f64::from(byte)),
            Raw::Number(text) => byte
                .is_some_and(|byte| text.parse().is_ok_and(|value: f64| value == f64::from(byte))),
            Raw::Text(text) if self.at == 0 => {
                texts.iter().take(2).any(|own| own == text) || text == uuid
            }
            Raw::Bytes(value) if self.at == 0 => value == bytes,
            _ => false,
        }
    }

    /// True when the list that ended is the placeholder.
    pub(super) fn is_whole(self) -> bool {
        self.whole && self.at == self.expected
    }
}

fn lengths(texts: &[String]) -> u64 {
    texts.iter().fold(0, |bits, text| bits | 1 << text.len().min(63))
}

/// Bytes of hexadecimal digits.
pub(super) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.iter().map(byte).collect()
}
