//! Every metric: its name, unit, meaning and labels, and one function per fact that records it.
//!
//! The names are an interface: dashboards and alerts are checked against [`catalogue`]. Facts are recorded per
//! batch or per poll, never per row. No label holds a key, a value, an offset or an error's text.
//!
//! Gauges about a partition belong to the instance that reads it. One that lost it reports a lag of 0 and leaves
//! the others as they were, so whoever adds up a group takes `max by (topic, partition)`.

mod outcomes;

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub use self::outcomes::{CommitOutcome, Rebalance, RecordOutcome};
use crate::error::{Error, Kind as ErrorKind, Result};

/// What Prometheus calls the type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in fixed buckets.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name, prefix included.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// What its value counts or measures.
    pub unit: Unit,
    /// The labels every series of it has.
    pub labels: &'static [&'static str],
    /// What it means, for the exposition and for readers.
    pub help: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Gauge, unit, labels, help }
}

const fn histogram(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Histogram, unit, labels, help }
}

const RECORDS_RECEIVED: Metric = counter(
    "cdc_sink_records_received_total",
    &["topic"],
    "Records read from Kafka, those read again after a rebalance or a restart included.",
);
const RECORDS: Metric = counter(
    "cdc_sink_records_total",
    &["table", "outcome"],
    "Records whose table commit is done, by what became of them: applied (the row's last change in its batch), \
     collapsed (a later change of the batch replaced it), stale (the table had a later change of the row, from another \
     partition), filtered (no change of a row) or dead_letter.",
);
const CHANGES_MERGED: Metric = counter(
    "cdc_sink_changes_merged_total",
    &["table", "operation"],
    "Rows that commits inserted, updated or deleted in the table.",
);
const COMMITS: Metric = counter(
    "cdc_sink_commits_total",
    &["table", "format", "outcome"],
    "Attempts to commit to the table, by how they ended: committed, recovered (the answer was lost, the commit was \
     found in the table), brought_up (a second format that was behind took over what the first has), conflict (another \
     commit came first), fenced (another owner has the partitions) or failed.",
);
const COMMIT_DURATION: Metric = histogram(
    "cdc_sink_commit_duration_seconds",
    Unit::Seconds,
    &["table", "format"],
    "Time of one attempt to publish a commit, from the finished data files to the answer.",
);
const MERGE_DURATION: Metric = histogram(
    "cdc_sink_merge_duration_seconds",
    Unit::Seconds,
    &["table"],
    "Time from a collapsed batch to its commit in every format: index, data files, commits, retries.",
);
const BATCH_ROWS: Metric = histogram(
    "cdc_sink_batch_rows",
    Unit::Count,
    &["table"],
    "Changes in a merged batch after the collapse, deletes included.",
);
const HIGH_WATERMARK: Metric = gauge(
    "cdc_sink_high_watermark_offset",
    Unit::Count,
    &["topic", "partition"],
    "The offset that the partition's next committed record will get.",
);
const STORED: Metric = gauge(
    "cdc_sink_stored_offset",
    Unit::Count,
    &["topic", "partition"],
    "The next offset to read, as stored in the table by its last commit.",
);
const LAG: Metric = gauge(
    "cdc_sink_lag_records",
    Unit::Count,
    &["topic", "partition"],
    "High watermark less stored offset: records that are not in the table yet. 0 when the instance does not read \
     the partition.",
);
const SOURCE_TIMESTAMP: Metric = gauge(
    "cdc_sink_committed_source_timestamp_seconds",
    Unit::Seconds,
    &["table"],
    "When the source committed the newest change that is in the table, seconds since the epoch.",
);
const STALENESS: Metric = gauge(
    "cdc_sink_staleness_seconds",
    Unit::Seconds,
    &["table"],
    "Now less the source's time of the newest change in the table while records wait; 0 when none does. Worked out \
     at each scrape, so it grows when the process is stuck.",
);
const LAST_COMMIT: Metric = gauge(
    "cdc_sink_last_commit_timestamp_seconds",
    Unit::Seconds,
    &["table"],
    "When the last commit to the table was made, seconds since the epoch.",
);
const DEAD_LETTERS: Metric = counter(
    "cdc_sink_dead_letters_total",
    &["table", "reason"],
    "Records that are no change of a row and were put aside, by reason.",
);
const INVALID_VALUES: Metric = counter(
    "cdc_sink_invalid_values_total",
    &["table", "reason", "policy"],
    "Values that their column's type does not have (infinite dates, years before 1 and the like), by reason and by what \
     became of them: null, clamp (the nearest value that the type has) or dead-letter (their record was put aside).",
);
const PLACEHOLDER_LITERALS: Metric = counter(
    "cdc_sink_placeholder_literals_total",
    &["table"],
    "Values equal to the connector's placeholder for unavailable values in records that cannot have any (inserts, \
     snapshot rows): stored as the data they are.",
);
const RECORDS_SKIPPED: Metric = counter(
    "cdc_sink_records_skipped_total",
    &["kind"],
    "Records that are no change of a row and were passed over, by kind: heartbeat, transaction, schema_change, \
     notification, message, keyless_tombstone, outbox_row, signal or truncate. Those read again are counted again.",
);
const TRUNCATES: Metric =
    counter("cdc_sink_truncates_total", &["table"], "Records that emptied the table.");
const MISSING_VALUES: Metric = counter(
    "cdc_sink_missing_values_total",
    &["table"],
    "Values that became null because their change left them out and the row that has them is nowhere.",
);
const RENAMES: Metric = counter(
    "cdc_sink_column_renames_total",
    &["table", "outcome"],
    "Columns that the source renamed (renamed), and times when a new name became a new column because the schema-change \
     topic did not tell in time what it was (unknown).",
);
const TABLE_HALTED: Metric = gauge(
    "cdc_sink_table_halted",
    Unit::Count,
    &["table"],
    "1 when the table stopped and waits for a person, else 0. /status and the log say why.",
);
const TABLE_WAITING: Metric = gauge(
    "cdc_sink_table_waiting",
    Unit::Count,
    &["table"],
    "1 while the table waits for a server that does not answer (store, catalog, registry, brokers), and goes on by itself \
     once it does. /status and the log say for which.",
);
const SOURCE_WAITING: Metric = gauge(
    "cdc_sink_source_waiting",
    Unit::Count,
    &[],
    "1 while no broker answers, else 0; reading goes on by itself once one does. /status and the log say why.",
);
const TOPICS_MISSING: Metric = gauge(
    "cdc_sink_missing_topics",
    Unit::Count,
    &[],
    "Topics that are named or were read and are not there: deleted, not made yet, or such that the user may not \
     describe. /status names them.",
);
const BUFFERED: Metric = gauge(
    "cdc_sink_buffered_bytes",
    Unit::Bytes,
    &[],
    "Bytes of records that were read and are not committed yet.",
);
const BUFFER_LIMIT: Metric = gauge(
    "cdc_sink_buffer_limit_bytes",
    Unit::Bytes,
    &[],
    "Buffered bytes at which reading from Kafka pauses.",
);
const ROWS_READ: Metric = counter(
    "cdc_sink_row_read_bytes_total",
    &["from"],
    "Bytes read of data files for single rows of theirs, above all for values that changes leave out: from the store, \
     copies that were made included, or from a copy on the local disk.",
);
const COPIES: Metric = gauge(
    "cdc_sink_copies_bytes",
    Unit::Bytes,
    &[],
    "Bytes of the copies of data files on the local disk.",
);
const COPIES_DAMAGED: Metric = counter(
    "cdc_sink_damaged_copies_total",
    &[],
    "Copies of data files that could not be used and were removed; the store was read instead.",
);
const REBALANCES: Metric = counter(
    "cdc_sink_rebalances_total",
    &["kind"],
    "Rebalances of the consumer group that assigned partitions to the instance or revoked some from it.",
);
const ASSIGNED: Metric =
    gauge("cdc_sink_assigned_partitions", Unit::Count, &[], "Partitions that the instance reads.");
const RETRIES: Metric = counter(
    "cdc_sink_retries_total",
    &["kind"],
    "Calls that were made again, by the kind of the error before.",
);
const ERRORS: Metric =
    counter("cdc_sink_errors_total", &["kind"], "Errors that were handled, by kind.");
const BUILD_INFO: Metric =
    gauge("cdc_sink_build_info", Unit::Count, &["version"], "Always 1; the label says what runs.");

static CATALOGUE: [Metric; 34] = [
    RECORDS_RECEIVED,
    RECORDS,
    CHANGES_MERGED,
    COMMITS,
    COMMIT_DURATION,
    MERGE_DURATION,
    BATCH_ROWS,
    HIGH_WATERMARK,
    STORED,
    LAG,
    SOURCE_TIMESTAMP,
    STALENESS,
    LAST_COMMIT,
    DEAD_LETTERS,
    INVALID_VALUES,
    PLACEHOLDER_LITERALS,
    RECORDS_SKIPPED,
    TRUNCATES,
    MISSING_VALUES,
    RENAMES,
    TABLE_HALTED,
    TABLE_WAITING,
    SOURCE_WAITING,
    TOPICS_MISSING,
    BUFFERED,
    BUFFER_LIMIT,
    ROWS_READ,
    COPIES,
    COPIES_DAMAGED,
    REBALANCES,
    ASSIGNED,
    RETRIES,
    ERRORS,
    BUILD_INFO,
];

/// From a commit to a store nearby to one that a slow catalog holds up.
const SECONDS_BUCKETS: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const ROWS_BUCKETS: [f64; 8] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7];

/// Every metric there is.
pub fn catalogue() -> &'static [Metric] {
    &CATALOGUE
}

/// A recorder for Prometheus that knows the buckets.
fn builder() -> Result<PrometheusBuilder, BuildError> {
    CATALOGUE.iter().filter(|metric| metric.kind == MetricKind::Histogram).try_fold(
        PrometheusBuilder::new(),
        |builder, metric| {
            let buckets = match metric.unit {
                Unit::Seconds => &SECONDS_BUCKETS[..],
                _ => &ROWS_BUCKETS[..],
            };
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
        },
    )
}

/// Starts recording for the whole process and answers what renders it. Whoever holds the handle must call its
/// `run_upkeep` every few seconds ([`crate::admin::serve`] does): histograms keep every sample until then. Until it
/// is called, recording a fact does nothing.
pub fn install() -> Result<PrometheusHandle> {
    let failed = |error: BuildError| Error::internal("cannot start the metrics").because(error);
    let handle = builder().and_then(PrometheusBuilder::install_recorder).map_err(failed)?;
    describe();
    start();
    Ok(handle)
}

/// Tells the recorder the type, unit and help of every metric.
pub fn describe() {
    for metric in catalogue() {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// The process runs: what it is, and the counters that have no table, at 0, so that their first step shows.
fn start() {
    gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(BUFFERED.name).set(0.0);
    gauge!(ASSIGNED.name).set(0.0);
    source_waiting(false);
    topics_missing(0);
    rows_fetched(0);
    rows_copied(0);
    copies_size(0);
    counter!(COPIES_DAMAGED.name).increment(0);
    for kind in [Rebalance::Assigned, Rebalance::Revoked] {
        counter!(REBALANCES.name, "kind" => kind.name()).increment(0);
    }
    for kind in ErrorKind::ALL {
        counter!(ERRORS.name, "kind" => kind.name()).increment(0);
        counter!(RETRIES.name, "kind" => kind.name()).increment(0);
    }
}

/// A table is served from now on, in `formats` (`delta`, `iceberg`): its counters start at 0, so that their first
/// step shows.
pub fn table_started(table: &str, formats: &[&'static str]) {
    for outcome in RecordOutcome::ALL {
        records_settled(table, outcome, 0);
    }
    rows_merged(table, 0, 0, 0);
    for format in formats {
        for outcome in CommitOutcome::ALL {
            commits(table, format, outcome).increment(0);
        }
    }
    truncated(table, 0);
    missing_values(table, 0);
    placeholder_literals(table, 0);
    columns_renamed(table, 0);
    rename_unknown(table, 0);
    table_halted(table, false);
    table_waiting(table, false);
}

/// `records` were read from `topic`.
pub fn records_received(topic: &str, records: usize) {
    let records = u64::try_from(records).unwrap_or(u64::MAX);
    counter!(RECORDS_RECEIVED.name, "topic" => topic.to_owned()).increment(records);
}

/// A commit settled what became of `records` of the table. Over all outcomes this adds up to the records between
/// the positions, gaps aside.
pub fn records_settled(table: &str, outcome: RecordOutcome, records: u64) {
    counter!(RECORDS.name, "table" => table.to_owned(), "outcome" => outcome.name())
        .increment(records);
}

/// A commit changed this many rows of the table.
pub fn rows_merged(table: &str, inserted: u64, updated: u64, deleted: u64) {
    for (operation, rows) in [("insert", inserted), ("update", updated), ("delete", deleted)] {
        counter!(CHANGES_MERGED.name, "table" => table.to_owned(), "operation" => operation)
            .increment(rows);
    }
}

/// An attempt to commit to the table in `format` (`delta`, `iceberg`) ended after `took`.
pub fn commit_ended(table: &str, format: &'static str, outcome: CommitOutcome, took: Duration) {
    commits(table, format, outcome).increment(1);
    histogram!(COMMIT_DURATION.name, "table" => table.to_owned(), "format" => format).record(took);
}

fn commits(table: &str, format: &'static str, outcome: CommitOutcome) -> metrics::Counter {
    counter!(
        COMMITS.name,
        "table" => table.to_owned(), "format" => format, "outcome" => outcome.name()
    )
}

/// A batch of `rows` changes was merged within `took`, in every format.
pub fn batch_merged(table: &str, rows: u64, took: Duration) {
    histogram!(MERGE_DURATION.name, "table" => table.to_owned()).record(took);
    histogram!(BATCH_ROWS.name, "table" => table.to_owned()).record(rows as f64);
}

/// The table has everything up to `stored` of the partition, which goes up to `high`.
pub fn partition_progress(topic: &str, partition: i32, stored: i64, high: i64) {
    partition_gauge(STORED, topic, partition).set(stored as f64);
    partition_gauge(HIGH_WATERMARK, topic, partition).set(high as f64);
    partition_gauge(LAG, topic, partition).set(high.saturating_sub(stored).max(0) as f64);
}

/// The instance does not read the partition any more: its lag is another's to report.
pub fn partition_released(topic: &str, partition: i32) {
    partition_gauge(LAG, topic, partition).set(0.0);
}

fn partition_gauge(metric: Metric, topic: &str, partition: i32) -> metrics::Gauge {
    gauge!(metric.name, "topic" => topic.to_owned(), "partition" => partition.to_string())
}

/// A commit was made at `now_micros`; the newest change in it was committed by the source at `source_micros`. Both
/// are microseconds since the epoch.
pub fn table_committed(table: &str, now_micros: i64, source_micros: Option<i64>) {
    gauge!(LAST_COMMIT.name, "table" => table.to_owned()).set(now_micros as f64 / 1e6);
    if let Some(micros) = source_micros {
        gauge!(SOURCE_TIMESTAMP.name, "table" => table.to_owned()).set(micros as f64 / 1e6);
    }
}

/// How far the table is behind its source, seconds.
pub fn table_staleness(table: &str, seconds: f64) {
    gauge!(STALENESS.name, "table" => table.to_owned()).set(seconds);
}

/// A record of the table went to the dead letters; `reason` is one of a fixed set of words.
pub fn dead_letter(table: &str, reason: &'static str) {
    counter!(DEAD_LETTERS.name, "table" => table.to_owned(), "reason" => reason).increment(1);
}

/// `values` of the table were invalid for `reason`, one of a fixed set of words; `policy` says what became of them.
pub fn invalid_values(table: &str, reason: &'static str, policy: &'static str, values: u64) {
    counter!(
        INVALID_VALUES.name,
        "table" => table.to_owned(), "reason" => reason, "policy" => policy
    )
    .increment(values);
}

/// `values` of the table looked like the placeholder for unavailable values and were data.
pub fn placeholder_literals(table: &str, values: u64) {
    counter!(PLACEHOLDER_LITERALS.name, "table" => table.to_owned()).increment(values);
}

/// Records of one kind were passed over.
pub fn records_skipped(kind: &'static str, records: u64) {
    counter!(RECORDS_SKIPPED.name, "kind" => kind).increment(records);
}

/// Records emptied the table.
pub fn truncated(table: &str, records: u64) {
    counter!(TRUNCATES.name, "table" => table.to_owned()).increment(records);
}

/// Values of a change became null as they are nowhere.
pub fn missing_values(table: &str, values: u64) {
    counter!(MISSING_VALUES.name, "table" => table.to_owned()).increment(values);
}

/// The source renamed `columns`.
pub fn columns_renamed(table: &str, columns: u64) {
    counter!(RENAMES.name, "table" => table.to_owned(), "outcome" => "renamed").increment(columns);
}

/// A column became a new one because nothing told in time whether it is a renamed one.
pub fn rename_unknown(table: &str, times: u64) {
    counter!(RENAMES.name, "table" => table.to_owned(), "outcome" => "unknown").increment(times);
}

/// The table halted, or runs.
pub fn table_halted(table: &str, halted: bool) {
    gauge!(TABLE_HALTED.name, "table" => table.to_owned()).set(f64::from(u8::from(halted)));
}

/// The table waits for a server, or does not.
pub fn table_waiting(table: &str, waiting: bool) {
    gauge!(TABLE_WAITING.name, "table" => table.to_owned()).set(f64::from(u8::from(waiting)));
}

/// The source waits for its brokers, or does not.
pub fn source_waiting(waiting: bool) {
    gauge!(SOURCE_WAITING.name).set(f64::from(u8::from(waiting)));
}

/// So many topics are not there.
pub fn topics_missing(topics: usize) {
    gauge!(TOPICS_MISSING.name).set(topics as f64);
}

/// Records of `bytes` wait for their commit.
pub fn buffered(bytes: usize) {
    gauge!(BUFFERED.name).set(bytes as f64);
}

/// Reading pauses at `bytes`.
pub fn buffer_limit(bytes: usize) {
    gauge!(BUFFER_LIMIT.name).set(bytes as f64);
}

/// The store sent `bytes` of data files for single rows.
pub fn rows_fetched(bytes: u64) {
    counter!(ROWS_READ.name, "from" => "store").increment(bytes);
}

/// `bytes` were read of copies of data files for single rows.
pub fn rows_copied(bytes: u64) {
    counter!(ROWS_READ.name, "from" => "copy").increment(bytes);
}

/// The copies of data files have `bytes`.
pub fn copies_size(bytes: u64) {
    gauge!(COPIES.name).set(bytes as f64);
}

/// A copy of a data file could not be used.
pub fn copy_damaged() {
    counter!(COPIES_DAMAGED.name).increment(1);
}

/// The group was rebalanced.
pub fn rebalanced(kind: Rebalance) {
    counter!(REBALANCES.name, "kind" => kind.name()).increment(1);
}

/// The instance reads `partitions` partitions now.
pub fn partitions_assigned(partitions: usize) {
    gauge!(ASSIGNED.name).set(partitions as f64);
}

/// A call is made again after an error of `kind`.
pub fn retried(kind: ErrorKind) {
    counter!(RETRIES.name, "kind" => kind.name()).increment(1);
}

/// An error of `kind` was handled.
pub fn error(kind: ErrorKind) {
    counter!(ERRORS.name, "kind" => kind.name()).increment(1);
}

#[cfg(test)]
mod tests;
