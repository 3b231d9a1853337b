//! The value that stands for "unchanged, and not in the source's log" (Debezium's unavailable-value placeholder),
//! in every form it takes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::cells::Cells;
use super::types::{Form, Raw};

/// Debezium's default, and the UUID it gives for an array of UUIDs.
const DEFAULT: &str = "__debezium_unavailable_value";
const DEFAULT_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// The placeholder's forms.
#[derive(Debug)]
pub(super) struct Placeholder {
    bytes: Vec<u8>,
    /// As text: itself, and a blob's in the modes that write blobs as text.
    texts: Vec<String>,
    /// As a column that is rendered to JSON (hstore).
    json: String,
    uuid: Option<&'static str>,
}

impl Placeholder {
    /// The forms of the connector's option; `hex:` starts arbitrary bytes.
    pub(super) fn new(option: &str) -> Self {
        let bytes = option.strip_prefix("hex:").and_then(from_hex);
        let bytes = bytes.unwrap_or_else(|| option.as_bytes().to_vec());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        let texts = vec![text, STANDARD.encode(&bytes), URL_SAFE.encode(&bytes), hex];
        let uuid = (option == DEFAULT).then_some(DEFAULT_UUID);
        Self { bytes, texts, json: format!("{{{quoted}:{quoted}}}"), uuid }
    }

    /// True for the placeholder of a scalar column.
    #[inline]
    pub(super) fn is(&self, raw: Raw<'_>, form: &Form) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        match (raw, form) {
            (Raw::Text(text), Form::Text | Form::Json | Form::Bytes) => {
                self.texts.iter().any(|own| own == text)
                    || (*form == Form::Json && text == self.json)
            }
            (Raw::Bytes(bytes), _) => bytes == self.bytes,
            _ => false,
        }
    }

    /// True for the placeholder of the list that is being appended.
    pub(super) fn is_list(&self, cells: &Cells) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let text = self.texts.first().map(String::as_bytes).unwrap_or_default();
        let uuid = self.uuid.map_or(text, str::as_bytes);
        cells.open_list_is(&[text, uuid, &self.bytes], &self.bytes)
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
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
