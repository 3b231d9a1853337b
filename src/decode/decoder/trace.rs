//! Where changes come from, asked for only where a row's changes may come from more than one partition.

use std::sync::Arc;

use serde::Deserialize;

use super::{Decoder, framed, learn};
use crate::decode::envelope::Envelope;
use crate::decode::json::Cursor;
use crate::decode::writer::{Layout, Writer};
use crate::record::Record;
use crate::schema::TableSchema;
use crate::source_position::{Gtid, Log, Place, SourcePosition};

/// Whether it is asked where changes come from, and what is known of the number of the topic's partitions.
#[derive(Debug)]
pub(super) struct Trace {
    asked: bool,
    /// The partitions that the topic had when its table was made.
    made: Option<i32>,
    /// The first number that the brokers told.
    told: Option<i32>,
    /// The largest number that is known.
    most: i32,
}

impl Trace {
    pub(super) fn new(asked: bool) -> Self {
        Self { asked, made: None, told: None, most: 0 }
    }

    /// Takes what the table tells.
    pub(super) fn take_schema(&mut self, schema: &TableSchema) {
        self.asked |= schema.is_traced();
        self.made = schema.partitions();
    }

    /// The number of partitions, as the brokers told it first.
    pub(super) fn told(&self) -> Option<i32> {
        self.told
    }
}

impl Decoder {
    /// True when it is asked where changes come from. Kafka orders the changes of a row as long as they are all in one
    /// partition. They are not when the topic's partitions grew: once it has more than it had when its table was made, or
    /// when it was first looked at, and where the table was told to be one of those.
    pub fn is_tracing(&self) -> bool {
        self.trace.asked && self.keyed != Some(false)
    }

    /// True when the order that Kafka keeps would end with another partition before anybody reads that one: keys move
    /// between those that there are, too.
    pub fn rests_on_partitions(&self) -> bool {
        !self.trace.asked && self.keyed != Some(false)
    }

    /// Takes the number of the topic's partitions as the brokers tell it. True when changes are traced from now on.
    pub fn take_partitions(&mut self, count: i32) -> bool {
        self.trace.told.get_or_insert(count);
        self.take_partition(count - 1)
    }

    /// Takes it that there is a partition of this number. True when changes are traced from now on.
    pub fn take_partition(&mut self, partition: i32) -> bool {
        let trace = &mut self.trace;
        trace.most = trace.most.max(partition.saturating_add(1));
        let grown = trace.made.or(trace.told).is_some_and(|count| trace.most > count);
        let begins = grown && !trace.asked;
        trace.asked |= grown;
        begins
    }

    /// How many partitions the topic is known to have.
    pub fn partitions(&self) -> usize {
        usize::try_from(self.trace.most).unwrap_or(0)
    }

    /// Where the change comes from that was scanned from `record`.
    pub fn source_position(&mut self, record: &Record<'_>) -> SourcePosition {
        SourcePosition {
            partition: record.partition,
            timestamp_ms: record.timestamp_ms,
            place: self.place(record),
        }
    }

    /// The place that the record's `source` block tells; none for a tombstone, a row without an envelope, and other
    /// databases than Postgres, MySQL and MariaDB.
    fn place(&mut self, record: &Record<'_>) -> Option<Place> {
        let value = record.value?;
        if let Some((id, at)) = framed(value).ok()? {
            let number = self.avro.get(&id)?.value?;
            let Layout::AvroRow(layout) = &self.writers.get(number)?.layout else { return None };
            let block = layout.plan().read(value, at).ok()??.source?;
            return place(layout.plan().source(value, block.start)?.as_bytes());
        }
        let (writers, added) = (&mut self.writers, &self.added);
        let learn = |schema: &[u8]| Ok(learn(writers, Writer::of_value(schema, added)?));
        let payload = self.values.payload(value, learn).ok()?;
        let envelope = Envelope::read(&mut Cursor::new(value, payload.at)).ok()?;
        place(value.get(envelope.source?)?)
    }
}

/// The fields of a `source` block that tell a place (debezium.md 1.13).
#[derive(Deserialize)]
struct Block {
    lsn: Option<i64>,
    sequence: Option<Arc<str>>,
    file: Option<Arc<str>>,
    pos: Option<i64>,
    row: Option<i64>,
    gtid: Option<Arc<str>>,
    snapshot: Option<Snapshot>,
}

/// Whether a snapshot read the row: a word, in old versions a boolean.
#[derive(Deserialize)]
#[serde(untagged)]
enum Snapshot {
    Flag(bool),
    Word(Arc<str>),
}

fn place(block: &[u8]) -> Option<Place> {
    let block: Block = serde_json::from_slice(block).ok()?;
    let log = match (&block.file, block.pos) {
        (Some(file), Some(pos)) => {
            let row = u64::try_from(block.row.unwrap_or_default()).ok()?;
            let gtid = block.gtid.as_deref().and_then(Gtid::parse);
            Log::binlog(file, u64::try_from(pos).ok()?, row, gtid)?
        }
        _ => wal(block.lsn, block.sequence.as_deref())?,
    };
    let snapshot = match block.snapshot {
        None | Some(Snapshot::Flag(false)) => false,
        Some(Snapshot::Flag(true)) => true,
        Some(Snapshot::Word(word)) => &*word != "false",
    };
    Some(Place { log, snapshot })
}

/// The place in Postgres' log: unsigned, though Connect has no unsigned numbers. A chunk of an incremental snapshot has
/// it in `sequence` alone.
fn wal(lsn: Option<i64>, sequence: Option<&str>) -> Option<Log> {
    let sequence: Vec<Option<String>> = serde_json::from_str(sequence.unwrap_or("[]")).ok()?;
    let number = |at: usize| sequence.get(at)?.as_deref()?.parse().ok();
    let lsn = lsn.map(i64::cast_unsigned).or_else(|| number(1))?;
    Some(Log::Wal { after: number(0), lsn })
}
