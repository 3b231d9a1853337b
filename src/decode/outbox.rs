//! Events of an outbox: records that Debezium's `EventRouter` made of the rows of an outbox table.
//!
//! Such a record has the aggregate's id as its key, the event as its value, whatever that is, and the event's id in a
//! header. It is a row of its own, told apart by that id alone: an event that comes again is the same row.

use std::borrow::Cow;

use super::Reject;
use super::envelope::wrapped;
use super::json::Cursor;
use super::types::{ConnectType, Described, Raw, Times};
use super::writer::{Field, Kind, Layout, Writer};
use crate::error::{Error, Result};
use crate::record::Headers;
use crate::schema::is_metadata;

/// The column of the event's id, by which rows are told apart.
pub(super) const EVENT_ID: &str = "event_id";
/// The column of the record's key.
pub(super) const AGGREGATE_ID: &str = "aggregate_id";
/// The column of an event that is one value.
pub(super) const PAYLOAD: &str = "payload";
/// The header with the event's id.
const ID_HEADER: &str = "id";

/// What is known of a topic with events of an outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    /// Headers that become columns of the same name.
    pub(super) headers: Vec<String>,
}

impl Outbox {
    /// Events of which `headers` become columns. Fails when a header has the name of another column.
    pub fn new(headers: &[String]) -> Result<Self> {
        let taken = |name: &String| {
            [EVENT_ID, AGGREGATE_ID, PAYLOAD].contains(&name.as_str()) || is_metadata(name)
        };
        match headers.iter().find(|name| taken(name)) {
            Some(name) => Err(Error::invalid(format!(
                "option outbox-headers: {name} is the name of another column"
            ))),
            None => Ok(Self { headers: headers.to_vec() }),
        }
    }

    /// The columns that an event has beside what its value brings, but for its id.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        [AGGREGATE_ID].into_iter().chain(self.headers.iter().map(String::as_str))
    }

    /// True for a column that no field of an event may take.
    pub(super) fn takes(&self, name: &str) -> bool {
        name == EVENT_ID || self.columns().any(|column| column == name)
    }

    /// Where the values of a column come from that is not the event's own.
    pub(super) fn source(&self, column: &str) -> String {
        match column {
            EVENT_ID => format!("header {ID_HEADER}"),
            AGGREGATE_ID => "the record's key".to_owned(),
            header => format!("header {header}"),
        }
    }
}

/// The event's id as its header has it; none when the record is no event.
pub(super) fn event_id(headers: Headers<'_>) -> Option<&[u8]> {
    header(headers, ID_HEADER)
}

/// A header's value; none when it is null or absent.
pub(super) fn header<'a>(mut headers: Headers<'a>, name: &str) -> Option<&'a [u8]> {
    headers.find(|(own, _)| *own == name).and_then(|(_, value)| value)
}

/// The text that a key or a header is, however Connect's converters wrote it but for Avro: as it is, as JSON, or as
/// JSON with its schema. None for JSON's null.
pub(super) fn text(bytes: &[u8]) -> Result<Option<Cow<'_, str>>, Reject> {
    let payload = match wrapped(bytes) {
        Ok(Some((_, payload))) => bytes.get(payload).unwrap_or_default(),
        _ => bytes,
    };
    let text = || {
        std::str::from_utf8(payload)
            .map_err(|_| Reject::new("malformed_text", "a key or header that is not UTF-8"))
    };
    match payload {
        b"null" => Ok(None),
        [b'"', ..] => match json_string(payload) {
            Some(string) => Ok(Some(string)),
            None => Ok(Some(text()?.into())),
        },
        _ => Ok(Some(text()?.into())),
    }
}

/// The content of bytes that are one JSON string and nothing else.
pub(super) fn json_string(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let mut cursor = Cursor::new(bytes, 0);
    let string = cursor.string().ok()?;
    let text = cursor.text(string).ok()?;
    cursor.finish().ok().map(|()| text)
}

/// A value as text: of a key or header that Avro's converter wrote.
pub(super) fn as_text(raw: Raw<'_>) -> Result<Option<String>, Reject> {
    Ok(Some(match raw {
        Raw::Null => return Ok(None),
        Raw::Text(text) | Raw::Number(text) | Raw::Json(text) => text.to_owned(),
        Raw::Integer(number) => number.to_string(),
        Raw::Boolean(truth) => truth.to_string(),
        Raw::Float(_) | Raw::Double(_) | Raw::Bytes(_) => {
            return Err(Reject::new("unsupported_key", "a key or header that is no text"));
        }
    }))
}

impl Writer {
    /// The writer of events.
    pub(super) fn of_event(fields: Vec<Field>, layout: Layout) -> Self {
        Self { kind: Kind::Event, times: Times::default(), fields, layout }
    }

    /// The writer of events that are one value of no schema, or none at all.
    pub(super) fn of_untold_event(ty: Option<ConnectType>, layout: Layout) -> Self {
        let field = |ty| Field::new(PAYLOAD, Described::plain(ty), Times::default());
        Self::of_event(ty.map(field).into_iter().collect(), layout)
    }
}
