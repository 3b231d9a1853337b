//! Where a record is from, as its source block says.

use serde_json::Value;

use super::{Decoder, framed};
use crate::decode::{Reject, ScanError};
use crate::record::Record;

/// What the source block of an envelope says of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTable {
    /// The connector's `topic.prefix`.
    pub prefix: String,
    /// The table's schema, and its database; connectors name topics after one of them.
    pub schemas: Vec<String>,
    /// The table.
    pub table: String,
}

impl Decoder {
    /// What the record's source block says; none when it has no such block. For single records: it reads all of one.
    pub fn source_table(&self, record: &Record<'_>) -> Result<Option<SourceTable>, ScanError> {
        let Some(value) = record.value else { return Ok(None) };
        let envelope: Option<Value> = match framed(value)? {
            Some((id, at)) => {
                let fetched = self.avro.get(&id).ok_or(ScanError::NeedsSchema(id))?;
                let json = fetched.schema.json(value, at).map_err(Reject::from)?;
                serde_json::from_str(&json).ok()
            }
            None => serde_json::from_slice(value).ok(),
        };
        Ok(envelope.as_ref().and_then(of_envelope))
    }
}

fn of_envelope(envelope: &Value) -> Option<SourceTable> {
    let payload = envelope.get("schema").and_then(|_| envelope.get("payload"));
    let source = payload.unwrap_or(envelope).get("source")?;
    let text = |name: &str| Some(source.get(name)?.as_str()?.to_owned());
    let schemas = ["schema", "db"].into_iter().filter_map(text).collect();
    Some(SourceTable { prefix: text("name")?, schemas, table: text("table")? })
}
