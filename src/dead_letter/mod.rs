//! Dead letters: records that no table can take, with what is needed to replay them, in a Kafka topic, a table, or both.

mod table;
mod topic;

use crate::decode::Reject;
use crate::error::Result;
use crate::record::Record;
use crate::sink::lake::LakeOptions;
use crate::source::properties::Connection;
use table::Table;
use topic::Topic;

/// A record that no table can take.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// The record as it came.
    pub record: Record<'a>,
    /// Why.
    pub reject: &'a Reject,
    /// The table that it was rejected for.
    pub table: &'a str,
}

/// Where dead letters go: to every place that is given.
#[derive(Debug, Default)]
pub struct DeadLetters {
    topic: Option<Topic>,
    table: Option<Table>,
}

impl DeadLetters {
    /// Letters go to the Kafka topic `name` as well. Makes the producer; no broker is waited for.
    pub fn to_topic(self, connection: &Connection, name: impl Into<String>) -> Result<Self> {
        Ok(Self { topic: Some(Topic::new(connection, name)?), ..self })
    }

    /// Letters go to the table of `options` as well, which is made with the first one.
    #[must_use]
    pub fn to_table(self, options: LakeOptions) -> Self {
        Self { table: Some(Table::new(options)), ..self }
    }

    /// Writes `letters`, several at once; returns when all are durable in every place. What does not answer is waited
    /// for. A letter is in the table once; it may be in the topic twice when an answer was lost.
    ///
    /// # Errors
    /// A letter cannot be written, and going on without it would lose it.
    pub async fn write(&self, letters: &[Letter<'_>]) -> Result<()> {
        if let Some(topic) = &self.topic {
            topic.write(letters).await?;
        }
        if let Some(table) = &self.table {
            table.write(letters).await?;
        }
        Ok(())
    }
}
