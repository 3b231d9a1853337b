//! cdc-sink: Debezium topics in, Delta Lake and Apache Iceberg tables out.

pub mod change;
pub mod clock;
pub mod dead_letter;
pub mod decode;
pub mod error;
pub mod key;
pub mod position;
pub mod record;
pub mod schema;
pub mod sink;
pub mod source;
pub mod table;
