//! cdc-sink: Debezium topics in, Delta Lake and Apache Iceberg tables out.

pub mod admin;
pub mod change;
pub mod clock;
pub mod decode;
pub mod error;
pub mod key;
pub mod metrics;
pub mod position;
pub mod record;
pub mod schema;
pub mod sink;
pub mod source;
pub mod table;
