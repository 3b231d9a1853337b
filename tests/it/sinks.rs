//! A table in memory whose store behaves as a test says.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_sink::change::{Batch, Departed, Moves};
use cdc_sink::error::Result;
use cdc_sink::key::Key;
use cdc_sink::position::{Position, TopicId};
use cdc_sink::schema::TableSchema;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::sink::{Merged, Sink};

/// What a store does to the table in it.
#[trait_variant::make(Send)]
pub(crate) trait Store {
    /// An error while the table cannot even be read.
    fn answers(&self) -> Result<()> {
        Ok(())
    }

    /// Merges `batch` into `sink`, or does not.
    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged>;
}

/// A table in memory, in a store.
#[derive(Debug, Clone)]
pub(crate) struct Stored<S> {
    pub(crate) sink: MemorySink,
    pub(crate) store: S,
}

impl<S: Store + Sync> Sink for Stored<S> {
    async fn position(&mut self) -> Result<Position> {
        self.store.answers()?;
        self.sink.position().await
    }

    async fn departed(&mut self, keys: &[Key]) -> Result<Departed> {
        self.sink.departed(keys).await
    }

    fn schema(&self) -> Option<Arc<TableSchema>> {
        self.sink.schema()
    }

    fn partition_columns(&self) -> Vec<String> {
        self.sink.partition_columns()
    }

    fn topic_id(&self) -> Option<TopicId> {
        self.sink.topic_id()
    }

    fn timestamps_ms(&self) -> BTreeMap<i32, i64> {
        self.sink.timestamps_ms()
    }

    fn moves(&self) -> Moves {
        self.sink.moves()
    }

    async fn merge(&mut self, batch: &Batch) -> Result<Merged> {
        self.store.merge(&mut self.sink, batch).await
    }
}
