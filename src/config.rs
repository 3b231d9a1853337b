//! Options: flag, environment, file, in this order. Every flag is also `CDC_SINK_<NAME>` and a key of the TOML file.

mod places;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

pub use places::DeadLetterPlaces;
pub use table::TableOptions;

use crate::change::{Keyless, MissingValue, Truncates, Unconfirmed};
use crate::decode::{InvalidValue, TypeConflict};
use crate::error::{Error, Result};
use crate::names::Naming;
use crate::trust::Trust;

/// Debezium's default for `unavailable.value.placeholder`.
const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// A table format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Delta Lake.
    Delta,
    /// Apache Iceberg.
    Iceberg,
}

impl Format {
    /// The name used in options and as the `format` label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Iceberg => "iceberg",
        }
    }
}

/// Options as given by flags, the environment or the file.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Kafka brokers to start from, separated by commas
    #[arg(long, env = "CDC_SINK_BROKERS", value_name = "HOST:PORT", help_heading = "Kafka")]
    pub brokers: Option<String>,
    /// Topics to read: names, globs (`db.public.*`) or a regular expression starting with `^`; may be repeated
    #[arg(
        long,
        env = "CDC_SINK_TOPICS",
        value_name = "PATTERN",
        value_delimiter = ',',
        help_heading = "Kafka"
    )]
    pub topics: Option<Vec<String>>,
    /// Consumer group; instances of one group share the topics' partitions [default: cdc-sink]
    #[arg(long, env = "CDC_SINK_GROUP", value_name = "NAME", help_heading = "Kafka")]
    pub group: Option<String>,
    /// Schema registry with Confluent's API, for Avro; user and password by `CDC_SINK_REGISTRY_AUTH` (`user:password`)
    #[arg(long, env = "CDC_SINK_REGISTRY", value_name = "URL", help_heading = "Kafka")]
    pub registry: Option<String>,
    /// Schema-change topic of a MySQL or MariaDB connector (its `topic.prefix`): a column that the source renames keeps its
    /// old values under the new name, if it is no key's and no partition's; may be repeated. Without it the new name is a
    /// new column. Delta tables map their column names from the first rename on: Spark, deltalake, Trino and DuckDB read
    /// them (DuckDB not the columns of partitions), Polars does not
    #[arg(
        long,
        env = "CDC_SINK_SCHEMA_HISTORY",
        value_name = "TOPIC",
        value_delimiter = ',',
        help_heading = "Kafka"
    )]
    pub schema_history: Option<Vec<String>>,
    /// Where records go that cannot be used: `topic:NAME`, `table` (`cdc_sink.dead_letters` in the warehouse, in the
    /// formats of the other tables), `table:NAMESPACE.NAME`, or a topic and a table; without it their table halts
    #[arg(
        long,
        env = "CDC_SINK_DEAD_LETTERS",
        value_name = "PLACE",
        value_delimiter = ',',
        help_heading = "Kafka"
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub dead_letters: Option<Vec<String>>,
    /// Halt a table rather than send more than this many of its records in a row to the dead letters [default: 1000]
    #[arg(long, env = "CDC_SINK_DEAD_LETTER_LIMIT", value_name = "N", help_heading = "Kafka")]
    pub dead_letter_limit: Option<usize>,
    /// Larger records, by the bytes of key, value and headers, are not decoded: they go to the dead letters, complete. A
    /// batch may have this much more than its size; topics may have batches of 1 GiB at most, unpacked
    /// [default: an eighth of memory, at most 32MiB]
    #[arg(long, env = "CDC_SINK_MAX_RECORD_BYTES", value_name = "SIZE", help_heading = "Kafka")]
    pub max_record_bytes: Option<ByteSize>,
    /// Prefix of the fields and headers that the transformation ExtractNewRecordState adds to rows
    /// (`add.fields.prefix`, `add.headers.prefix`); what it added is no column [default: __]
    #[arg(long, env = "CDC_SINK_ADDED_PREFIX", value_name = "TEXT", help_heading = "Kafka")]
    pub added_prefix: Option<String>,
    /// The connectors' `unavailable.value.placeholder`; empty when they have none
    /// [default: __debezium_unavailable_value]
    #[arg(long, env = "CDC_SINK_PLACEHOLDER", value_name = "TEXT", help_heading = "Kafka")]
    pub placeholder: Option<String>,
    /// Topics with events of an outbox, as patterns: each event is a row with its id (`event_id`, of which one that comes
    /// twice is kept once), the record's key (`aggregate_id`) and `payload`, or the fields of an event with a schema
    #[arg(
        long,
        env = "CDC_SINK_OUTBOX",
        value_name = "PATTERN",
        value_delimiter = ',',
        help_heading = "Kafka"
    )]
    pub outbox: Option<Vec<String>>,
    /// Headers of an outbox's events that become columns, such as `eventType`
    #[arg(
        long,
        env = "CDC_SINK_OUTBOX_HEADERS",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Kafka"
    )]
    pub outbox_headers: Option<Vec<String>>,
    /// Table format; give both for one copy of the data under two formats
    #[arg(
        long,
        env = "CDC_SINK_TO",
        value_name = "FORMAT",
        value_delimiter = ',',
        help_heading = "Tables"
    )]
    pub to: Option<Vec<Format>>,
    /// Where the tables lie: `s3://bucket/prefix` or a folder; S3 credentials and endpoint by `AWS_…` variables
    #[arg(long, env = "CDC_SINK_WAREHOUSE", value_name = "URL|FOLDER", help_heading = "Tables")]
    pub warehouse: Option<String>,
    /// Iceberg REST catalog; without it Iceberg tables are found by their folder; credentials by
    /// `CDC_SINK_CATALOG_TOKEN`, `CDC_SINK_CATALOG_CREDENTIAL` (`id:secret`, OAuth2) or `CDC_SINK_CATALOG_AUTH`
    /// (`user:password`)
    #[arg(long, env = "CDC_SINK_CATALOG", value_name = "URL", help_heading = "Tables")]
    pub catalog: Option<String>,
    /// The catalog's name for the warehouse, where it asks for one
    #[arg(long, env = "CDC_SINK_CATALOG_WAREHOUSE", value_name = "NAME", help_heading = "Tables")]
    pub catalog_warehouse: Option<String>,
    /// Where the catalog's OAuth2 tokens come from; without it the catalog's own `/v1/oauth/tokens`
    #[arg(
        long,
        env = "CDC_SINK_CATALOG_OAUTH2_SERVER",
        value_name = "URL",
        help_heading = "Tables"
    )]
    pub catalog_oauth2_server: Option<String>,
    /// The scope to ask tokens for [default: catalog]
    #[arg(long, env = "CDC_SINK_CATALOG_SCOPE", value_name = "NAME", help_heading = "Tables")]
    pub catalog_scope: Option<String>,
    /// Use object store credentials that the catalog hands out
    #[arg(long, env = "CDC_SINK_VENDED_CREDENTIALS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Tables")]
    pub vended_credentials: Option<bool>,
    /// Iceberg format version of new tables: 3 (deletion vectors) or 2 (position deletes) [default: 3]
    #[arg(long, env = "CDC_SINK_FORMAT_VERSION", value_name = "2|3", help_heading = "Tables")]
    pub format_version: Option<u8>,
    /// How tables are named after topics `<prefix>.<schema>.<table>` (where dots leave the parts open, records' source
    /// blocks tell them), or `{topic}` as a whole; `name` in a table's own
    /// section goes before it [default: {prefix}_{schema}.{table}]
    #[arg(long, env = "CDC_SINK_TABLE_NAME", value_name = "TEMPLATE", help_heading = "Tables")]
    pub table_name: Option<String>,
    /// Partition fields of new tables, such as `region, days(created_at), bucket(16, id)`
    #[arg(long, env = "CDC_SINK_PARTITION_BY", value_name = "FIELDS", help_heading = "Tables")]
    pub partition_by: Option<String>,
    /// What becomes of values that their column's type does not have, such as infinite dates and years before 1: their
    /// record is a dead letter, null is stored, or the nearest value that the type has, where there is one
    /// [default: dead-letter]
    #[arg(
        long,
        env = "CDC_SINK_INVALID_VALUE",
        value_name = "POLICY",
        hide_possible_values = true,
        help_heading = "Tables"
    )]
    pub invalid_value: Option<InvalidValue>,
    /// What becomes of a change that leaves out a large value, when the row that has it is nowhere [default: null]
    #[arg(
        long,
        env = "CDC_SINK_MISSING_VALUE",
        value_name = "null|dead-letter|halt",
        help_heading = "Tables"
    )]
    pub missing_value: Option<MissingValue>,
    /// What the records of a table without a primary key are: rows, one for each, or changes of a row that equals the
    /// row before (which Postgres sends with `REPLICA IDENTITY FULL`; topics of one partition; every row in the
    /// index); `identity` in a table's own section names columns that identify its rows [default: append]
    #[arg(
        long,
        env = "CDC_SINK_KEYLESS",
        value_name = "append|match",
        hide_possible_values = true,
        help_heading = "Tables"
    )]
    pub keyless: Option<Keyless>,
    /// Let columns of Delta tables get wider types (int to long, float to double, decimals to more digits) when the
    /// source's do; Spark and DuckDB read such tables, deltalake, Polars and Trino do not. Iceberg tables
    /// alone always do it [default: false]
    #[arg(long, env = "CDC_SINK_TYPE_WIDENING", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Tables")]
    pub type_widening: Option<bool>,
    /// When a column's type changes otherwise: halt the table, or put the values (of records with a schema) into a new
    /// column named after column and type, such as `amount__string` [default: halt]
    #[arg(
        long,
        env = "CDC_SINK_TYPE_CONFLICT",
        value_name = "halt|new-column",
        hide_possible_values = true,
        help_heading = "Tables"
    )]
    pub type_conflict: Option<TypeConflict>,
    /// What becomes of a TRUNCATE: apply it, ignore it or halt the table. Where the topic has several partitions or the
    /// records of several tables nothing tells which rows came before, and the table halts as well [default: apply]
    #[arg(
        long,
        env = "CDC_SINK_TRUNCATE",
        value_name = "apply|ignore|halt",
        hide_possible_values = true,
        help_heading = "Tables"
    )]
    pub truncate: Option<Truncates>,
    /// Drop a column for good once no schema of its topic had it for this long, by the times that records carry; without
    /// it, it stays. Delta tables map their column names from then on, as with schema-history
    #[arg(long, env = "CDC_SINK_DROP_COLUMNS_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Tables")]
    #[serde(with = "humantime_serde")]
    pub drop_columns_after: Option<Duration>,
    /// Keep with each row where its last change is in the source's log (column `_cdc_source`), and let that decide when
    /// changes of one row come in two partitions: for topics that got more partitions before their tables were made.
    /// Tables whose topic gets more later do it by themselves [default: false]
    #[arg(long, env = "CDC_SINK_SOURCE_POSITION", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Tables")]
    pub source_position: Option<bool>,
    /// When an initial snapshot of a table is taken again: what becomes of rows that it does not have, which were deleted
    /// while nothing was captured. `delete` needs topics of one partition, and snapshots of all rows: no
    /// snapshot.select.statement.overrides, no blocking snapshot with conditions [default: keep]
    #[arg(
        long,
        env = "CDC_SINK_UNCONFIRMED_ROWS",
        value_name = "keep|delete",
        hide_possible_values = true,
        help_heading = "Tables"
    )]
    pub unconfirmed_rows: Option<Unconfirmed>,
    /// Merge a table once it has this many new records [default: 200000]
    #[arg(long, env = "CDC_SINK_BATCH_ROWS", value_name = "N", help_heading = "Batches")]
    pub batch_rows: Option<usize>,
    /// Merge a table once its new records have this size [default: 128MiB]
    #[arg(long, env = "CDC_SINK_BATCH_BYTES", value_name = "SIZE", help_heading = "Batches")]
    pub batch_bytes: Option<ByteSize>,
    /// Merge a table at the latest this long after its first new record [default: 10s]
    #[arg(long, env = "CDC_SINK_BATCH_AGE", value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Batches")]
    #[serde(with = "humantime_serde")]
    pub batch_age: Option<Duration>,
    /// Merge a table when nothing more came for this long [default: 1s]
    #[arg(long, env = "CDC_SINK_BATCH_IDLE", value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Batches")]
    #[serde(with = "humantime_serde")]
    pub batch_idle: Option<Duration>,
    /// Memory for queues, buffers and indexes [default: 1GiB]
    #[arg(long, env = "CDC_SINK_MEMORY", value_name = "SIZE", help_heading = "Process")]
    pub memory: Option<ByteSize>,
    /// Folder on a local disk for copies of data files, one for each process. When changes leave out large values (Postgres
    /// TOAST), the old ones are read from the tables, over and over; from a store far away that can take longer than all
    /// else. Whole files are copied there, rows of yours in them, so that later batches read them here. A disk that is
    /// full or slow to fill costs that alone. Not needed where the warehouse is a local disk
    #[arg(long, env = "CDC_SINK_COPIES", value_name = "FOLDER", help_heading = "Process")]
    pub copies: Option<PathBuf>,
    /// Bytes of copies, at most; those that were not read for the longest time make room. Worth it when most of the files
    /// that changes leave values to fit in [default: 10GiB]
    #[arg(long, env = "CDC_SINK_COPIES_BYTES", value_name = "SIZE", help_heading = "Process")]
    pub copies_bytes: Option<ByteSize>,
    /// Certificates (PEM) of authorities that HTTPS servers may have beside the public ones: store, catalog, its
    /// authorization server, registry. Kafka has its own property, `ssl.ca.location`
    #[arg(long, env = "CDC_SINK_CA_FILE", value_name = "FILE", help_heading = "Process")]
    pub ca_file: Option<PathBuf>,
    /// Where /metrics, /livez, /readyz and /status are served [default: 127.0.0.1:9187]
    #[arg(long, env = "CDC_SINK_LISTEN", value_name = "ADDRESS", help_heading = "Process")]
    pub listen: Option<SocketAddr>,
    /// Write tables that belong to another deployment (another consumer group or Kafka cluster) from now on. Give it once,
    /// after the other has ended for good: what the tables have is kept, and their position is where reading goes on
    #[arg(long, env = "CDC_SINK_TAKE_OVER", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Process")]
    pub take_over: Option<bool>,
    /// Stop when everything that was in the topics at the start is committed
    #[arg(long, env = "CDC_SINK_ONCE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Process")]
    pub once: Option<bool>,
    /// Properties of the Kafka client (librdkafka's names), such as `security.protocol`.
    #[arg(skip)]
    pub kafka: BTreeMap<String, String>,
    /// Options of single tables, by topic.
    #[arg(skip)]
    pub tables: BTreeMap<String, TableOptions>,
}

impl Options {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let failed = |what| Error::invalid(format!("option config: {what} {}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| failed("cannot read").because(e))?;
        toml::from_str(&text).map_err(|e| failed("cannot use").because(e))
    }

    /// These options, and those of `file` where they say nothing.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            brokers: self.brokers.or(file.brokers),
            topics: self.topics.or(file.topics),
            group: self.group.or(file.group),
            registry: self.registry.or(file.registry),
            schema_history: self.schema_history.or(file.schema_history),
            dead_letters: self.dead_letters.or(file.dead_letters),
            dead_letter_limit: self.dead_letter_limit.or(file.dead_letter_limit),
            max_record_bytes: self.max_record_bytes.or(file.max_record_bytes),
            added_prefix: self.added_prefix.or(file.added_prefix),
            placeholder: self.placeholder.or(file.placeholder),
            outbox: self.outbox.or(file.outbox),
            outbox_headers: self.outbox_headers.or(file.outbox_headers),
            to: self.to.or(file.to),
            warehouse: self.warehouse.or(file.warehouse),
            catalog: self.catalog.or(file.catalog),
            catalog_warehouse: self.catalog_warehouse.or(file.catalog_warehouse),
            catalog_oauth2_server: self.catalog_oauth2_server.or(file.catalog_oauth2_server),
            catalog_scope: self.catalog_scope.or(file.catalog_scope),
            vended_credentials: self.vended_credentials.or(file.vended_credentials),
            format_version: self.format_version.or(file.format_version),
            table_name: self.table_name.or(file.table_name),
            partition_by: self.partition_by.or(file.partition_by),
            invalid_value: self.invalid_value.or(file.invalid_value),
            missing_value: self.missing_value.or(file.missing_value),
            keyless: self.keyless.or(file.keyless),
            type_widening: self.type_widening.or(file.type_widening),
            type_conflict: self.type_conflict.or(file.type_conflict),
            truncate: self.truncate.or(file.truncate),
            drop_columns_after: self.drop_columns_after.or(file.drop_columns_after),
            source_position: self.source_position.or(file.source_position),
            unconfirmed_rows: self.unconfirmed_rows.or(file.unconfirmed_rows),
            batch_rows: self.batch_rows.or(file.batch_rows),
            batch_bytes: self.batch_bytes.or(file.batch_bytes),
            batch_age: self.batch_age.or(file.batch_age),
            batch_idle: self.batch_idle.or(file.batch_idle),
            memory: self.memory.or(file.memory),
            copies: self.copies.or(file.copies),
            copies_bytes: self.copies_bytes.or(file.copies_bytes),
            ca_file: self.ca_file.or(file.ca_file),
            listen: self.listen.or(file.listen),
            take_over: self.take_over.or(file.take_over),
            once: self.once.or(file.once),
            kafka: file.kafka,
            tables: file.tables,
        }
    }

    /// Checks the options and fills in the defaults.
    pub fn validate(self) -> Result<Config> {
        let missing = |name: &str, example: &str| {
            Error::invalid(format!("option {name} is missing")).hint(format!(
                "give --{name} {example}, or run `cdc-sink demo` to try without servers"
            ))
        };
        let memory =
            at_least("memory", self.memory.unwrap_or(ByteSize::gib(1)), ByteSize::mib(64))?;
        let default_batch = ByteSize::mib(128).min(ByteSize(memory.as_u64() / 4));
        let default_record = ByteSize::mib(32).min(ByteSize(memory.as_u64() / 8));
        let mut to = self.to.unwrap_or_else(|| vec![Format::Delta]);
        to.dedup();
        if to.is_empty() || to.len() > 2 {
            return Err(Error::invalid("option to: give delta, iceberg, or both once"));
        }
        let topics = self.topics.unwrap_or_default();
        if topics.is_empty() {
            return Err(missing("topics", "'db.public.*'"));
        }
        Ok(Config {
            brokers: self.brokers.ok_or_else(|| missing("brokers", "localhost:9092"))?,
            topics,
            group: self.group.unwrap_or_else(|| "cdc-sink".to_owned()),
            registry: self.registry,
            schema_history: self.schema_history.unwrap_or_default(),
            dead_letters: DeadLetterPlaces::parse(&self.dead_letters.unwrap_or_default())?,
            dead_letter_limit: self.dead_letter_limit.unwrap_or(1000),
            max_record_bytes: bytes(
                "max-record-bytes",
                self.max_record_bytes.unwrap_or(default_record),
            )?,
            added_prefix: self.added_prefix.unwrap_or_else(|| "__".to_owned()),
            placeholder: self.placeholder.unwrap_or_else(|| PLACEHOLDER.to_owned()),
            outbox: self.outbox.unwrap_or_default(),
            outbox_headers: self.outbox_headers.unwrap_or_default(),
            to,
            warehouse: self.warehouse.ok_or_else(|| missing("warehouse", "s3://lake"))?,
            catalog: self.catalog,
            catalog_warehouse: self.catalog_warehouse,
            catalog_oauth2_server: self.catalog_oauth2_server,
            catalog_scope: self.catalog_scope,
            vended_credentials: self.vended_credentials.unwrap_or(false),
            format_version: format_version(self.format_version.unwrap_or(3))?,
            table_name: table_name(self.table_name)?,
            partition_by: self.partition_by.unwrap_or_default(),
            invalid_value: self.invalid_value.unwrap_or_default(),
            missing_value: self.missing_value.unwrap_or_default(),
            keyless: self.keyless.unwrap_or_default(),
            type_widening: self.type_widening.unwrap_or(false),
            type_conflict: self.type_conflict.unwrap_or_default(),
            truncate: self.truncate.unwrap_or_default(),
            drop_columns_after: self.drop_columns_after,
            source_position: self.source_position.unwrap_or(false),
            unconfirmed_rows: self.unconfirmed_rows.unwrap_or_default(),
            limits: crate::batch::Limits {
                rows: positive("batch-rows", self.batch_rows.unwrap_or(200_000))?,
                bytes: bytes("batch-bytes", self.batch_bytes.unwrap_or(default_batch))?,
                age: self.batch_age.unwrap_or(Duration::from_secs(10)),
                idle: self.batch_idle.unwrap_or(Duration::from_secs(1)),
            },
            memory: bytes("memory", memory)?,
            copies: self.copies,
            copies_bytes: self.copies_bytes.unwrap_or(ByteSize::gib(10)).as_u64(),
            trust: self.ca_file.as_deref().map(Trust::read).transpose()?.unwrap_or_default(),
            listen: self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9187))),
            take_over: self.take_over.unwrap_or(false),
            once: self.once.unwrap_or(false),
            kafka: self.kafka,
            tables: self.tables,
        })
    }
}

/// Options that are complete and make sense.
#[derive(Debug, Clone)]
pub struct Config {
    /// Kafka brokers to start from.
    pub brokers: String,
    /// Patterns of topics.
    pub topics: Vec<String>,
    /// Consumer group.
    pub group: String,
    /// Schema registry.
    pub registry: Option<String>,
    /// Schema-change topics.
    pub schema_history: Vec<String>,
    /// Where dead letters go.
    pub dead_letters: DeadLetterPlaces,
    /// Dead letters of one table in a row, at most.
    pub dead_letter_limit: usize,
    /// Bytes of a record that is decoded, at most.
    pub max_record_bytes: usize,
    /// Prefix of what the transformation ExtractNewRecordState adds.
    pub added_prefix: String,
    /// The connectors' placeholder for values that did not change.
    pub placeholder: String,
    /// Patterns of topics with events of an outbox.
    pub outbox: Vec<String>,
    /// Headers of such events that become columns.
    pub outbox_headers: Vec<String>,
    /// Formats; the first is the authority.
    pub to: Vec<Format>,
    /// Where the tables lie.
    pub warehouse: String,
    /// Iceberg REST catalog.
    pub catalog: Option<String>,
    /// The catalog's name for the warehouse.
    pub catalog_warehouse: Option<String>,
    /// Where the catalog's OAuth2 tokens come from.
    pub catalog_oauth2_server: Option<String>,
    /// The scope to ask tokens for.
    pub catalog_scope: Option<String>,
    /// Use credentials handed out by the catalog.
    pub vended_credentials: bool,
    /// Iceberg format version of new tables.
    pub format_version: u8,
    /// How tables are named after topics.
    pub table_name: String,
    /// Partition fields of new tables.
    pub partition_by: String,
    /// What becomes of values that their column's type does not have.
    pub invalid_value: InvalidValue,
    /// What becomes of changes that leave out values which are nowhere.
    pub missing_value: MissingValue,
    /// What the records of tables without a key are.
    pub keyless: Keyless,
    /// Columns of Delta tables may get wider types.
    pub type_widening: bool,
    /// What becomes of values that do not fit their column.
    pub type_conflict: TypeConflict,
    /// What becomes of truncates.
    pub truncate: Truncates,
    /// How long no schema may have had a column that is dropped for good; none for never.
    pub drop_columns_after: Option<Duration>,
    /// Rows keep where their last change is in the source's log.
    pub source_position: bool,
    /// What becomes of rows that another initial snapshot does not have.
    pub unconfirmed_rows: Unconfirmed,
    /// When a table is merged.
    pub limits: crate::batch::Limits,
    /// Bytes for queues, buffers and indexes.
    pub memory: usize,
    /// Folder for copies of data files.
    pub copies: Option<PathBuf>,
    /// Bytes of such copies, at most.
    pub copies_bytes: u64,
    /// Authorities that HTTPS servers' certificates may be from.
    pub trust: Trust,
    /// Where the admin pages are served.
    pub listen: SocketAddr,
    /// Tables of other deployments become this one's.
    pub take_over: bool,
    /// Stop at the end.
    pub once: bool,
    /// Properties of the Kafka client.
    pub kafka: BTreeMap<String, String>,
    /// Options of single tables, by topic.
    pub tables: BTreeMap<String, TableOptions>,
}

/// Where the configuration file is, if any.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigFile {
    /// TOML file with the same options, without the dashes in front
    #[arg(long, env = "CDC_SINK_CONFIG", value_name = "FILE", help_heading = "Process")]
    pub config: Option<PathBuf>,
}

fn table_name(template: Option<String>) -> Result<String> {
    match template {
        Some(template) => Naming::parse(&template).map(|_| template),
        None => Ok(Naming::DEFAULT.to_owned()),
    }
}

fn format_version(version: u8) -> Result<u8> {
    if !matches!(version, 2 | 3) {
        return Err(Error::invalid(format!(
            "option format-version: {version} is not supported; 2 and 3 are"
        )));
    }
    Ok(version)
}

fn positive(name: &str, value: usize) -> Result<usize> {
    if value == 0 {
        return Err(Error::invalid(format!("option {name}: must be at least 1")));
    }
    Ok(value)
}

fn at_least(name: &str, value: ByteSize, least: ByteSize) -> Result<ByteSize> {
    if value < least {
        return Err(Error::invalid(format!(
            "option {name}: {value} is too little; at least {least}"
        )));
    }
    Ok(value)
}

fn bytes(name: &str, value: ByteSize) -> Result<usize> {
    let size = usize::try_from(value.as_u64())
        .map_err(|_| Error::invalid(format!("option {name}: {value} is too much")))?;
    positive(name, size)
}

/// A list, or its only entry.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Entries {
        One(String),
        Many(Vec<String>),
    }
    Ok(Some(match Entries::deserialize(from)? {
        Entries::One(entry) => vec![entry],
        Entries::Many(entries) => entries,
    }))
}
