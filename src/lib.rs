//! cdc-sink: Debezium topics in, Delta Lake and Apache Iceberg tables out.

pub mod admin;
pub mod batch;
pub mod change;
pub mod clock;
pub mod config;
pub mod decode;
pub mod error;
pub mod generate;
pub mod key;
pub mod metrics;
pub mod names;
pub mod position;
pub mod record;
pub mod retry;
pub mod schema;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod table;
