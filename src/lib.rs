//! cdc-sink: Debezium topics in, Delta Lake and Apache Iceberg tables out. The architecture page.
//!
//! ```text
//!  Kafka topics           scan                  collapse              plan                     publish
//!  (Debezium)   records ───────► changes ─────► one per key ────────► CommitPlan ────────────► Delta log      (atomic)
//!  consumer    ────────►  key, operation,       + columns of          data files, row          Iceberg table  (atomic)
//!  group                  writer schema         the survivors         positions deleted            │
//!    ▲                    [decode]              [batch, decode]       [table]                      [sink]
//!    └──────────────── offsets are acknowledged only with the receipt of a table commit ◄──── Committed
//! ```
//!
//! [`pipeline`] is the whole path as code. One loop routes what the source reports to one worker per topic; a worker
//! scans records as they come, merges them when they are due, and halts alone when its table cannot go on.
//!
//! # The protocol
//!
//! The table knows its position: the next offset of every partition is part of every commit (Delta `txn` actions,
//! Iceberg snapshot summary and properties). Partitions start where the table says, whatever the consumer group
//! remembers. A commit is a compare-and-set: the stored position must be where the batch starts, else somebody else
//! has the partition and the batch is fenced. After an answer that is not plainly "yes" the table is read again and our
//! batch id looked for before anything else is done. There is no coordinator and no lease.
//!
//! A key change is two records, and two instances may read them. What the create of the new key needs of the old row it
//! finds by a note that the commit with the delete left in the table ([`table::notes`]).
//!
//! # Invariants
//!
//! 1. Every table version is the fold of the records up to the offsets stored in it.
//! 2. Stored offsets never go back.
//! 3. An offset acknowledged to Kafka is never above the one stored in the table: only a sink can make the receipt
//!    ([`sink::Committed`]) that the acknowledgement takes.
//! 4. A batch starts at the stored position: no gap, no overlap.
//! 5. A batch is in one version; no data file is added twice.
//! 6. No version names a file that is not there: files of a commit whose outcome is unknown are kept as long as it may
//!    come in, and a commit is not sent once its files may have been taken for orphans ([`sink::orphans`]).
//! 7. Records consumed = applied + collapsed + stale + filtered + dead letters.
//! 8. What goes wrong with one table stops that table only; what goes wrong outside is waited out.
//! 9. No secret and no row's value in a log, a metric, a commit or an error.
//!
//! What there is not: no state outside the tables (copies of data files can be thrown away), no second store, no
//! exactly-once producer, no clock in any order but to tell that a source's log started over ([`source_position`]).
//!
//! # Where things are
//!
//! | room | what it knows |
//! |---|---|
//! | [`record`], [`change`], [`position`], [`source_position`], [`row_source`], [`schema`], [`key`], [`names`] | the vocabulary; no I/O |
//! | [`source`] | Kafka's consumer group: partitions, queues, back-pressure; a scripted source for tests; a cluster in the process for the demo |
//! | [`decode`] | Debezium's envelopes in JSON and Avro: scan, schemas, columns; the one table of types; which columns were renamed |
//! | [`batch`] | what is buffered for a table, when it is due, the collapse |
//! | [`table`] | the physical layer, no format in it: primary-key index, data files, deletion bitmaps, the commit plan |
//! | [`sink`] | the contract of a sink and its receipt; the model in memory; the lake sink with its Delta and Iceberg publishers; the removal of orphans |
//! | [`pipeline`] | the data path: routing, one worker per table, progress |
//! | [`dead_letter`] | where records go that are no changes |
//! | [`cli`], [`config`], [`admin`], [`metrics`] | the outer face |
//! | [`generate`] | seeded Debezium records for the demo, tests and benchmarks |
//! | [`error`], [`clock`], [`retry`], [`shutdown`], [`trust`] | for everybody |
//! | [`failpoint`] | where a test build kills itself |
//!
//! Imports point down: `cli` → `pipeline` → {`source`, `decode`, `batch`, `table`, `sink`, `dead_letter`} → vocabulary.
//! `source`, `decode`, `table` and `sink` do not know each other, but that a source takes a sink's receipt and a sink
//! publishes the table's plan.

pub mod admin;
pub mod batch;
pub mod change;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod error;
pub mod failpoint;
pub mod generate;
pub mod key;
pub mod metrics;
pub mod names;
pub mod pipeline;
pub mod position;
pub mod record;
pub mod retry;
pub mod row_source;
pub mod schema;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod source_position;
pub mod table;
#[cfg(test)]
mod testing;
pub mod trust;
