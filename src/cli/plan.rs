//! `plan`: what tables would get, before anything is written. A few records of each topic are read, outside of the
//! consumer group, and nothing is changed anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::log;
use super::naming;
use super::setup;
use super::types_from::{self, Dialect, Wanted};
use crate::config::{Config, ConfigFile, Format, Options};
use crate::decode::{self, Decoder, Modes, Registry, Row, ScanError, Scanned, rules};
use crate::error::{Error, Result};
use crate::names::TableId;
use crate::record::Records;
use crate::schema::{Column, ColumnType, is_metadata};
use crate::sink::{delta, iceberg};
use crate::source::{Topics, sample};

/// Attempts at a schema of the registry, a second apart.
const SCHEMA_ATTEMPTS: usize = 3;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// Print the whole table of types instead: what each type of the source becomes
    #[arg(long)]
    types: bool,
    /// Print a part of the configuration instead: the types of a source database's columns, for records in JSON without
    /// a schema. Asks with the database's own client (psql, mysql or mariadb), with the password of
    /// CDC_SINK_SOURCE_PASSWORD or as the client finds it; `-` reads the rows of --types-query
    #[arg(long, value_name = "postgres://…|mysql://…|-", requires = "topic_prefix")]
    types_from: Option<String>,
    /// Print the query of --types-from, for another client
    #[arg(long, value_name = "DATABASE")]
    types_query: Option<Dialect>,
    /// With --types-from: the connector's `topic.prefix`
    #[arg(long, value_name = "NAME")]
    topic_prefix: Option<String>,
    /// With --types-from: an option of the connector that changes types, such as `time.precision.mode=connect`; may be
    /// repeated
    #[arg(long, value_name = "NAME=VALUE")]
    connector_option: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Records of each topic to read, the oldest first
    #[arg(long, value_name = "N", default_value_t = 1000)]
    records: usize,
    /// How long to read at most
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "15s")]
    wait: Duration,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    log: log::LogArgs,
}

/// Prints the plan; exit code 1 when a topic cannot become a table as it is.
pub(super) async fn run(args: PlanArgs) -> Result<ExitCode> {
    if args.types {
        let text = if args.json { json(&types())? } else { types_text(&types()) };
        return Ok(print(&text, true));
    }
    if let Some(dialect) = args.types_query {
        return Ok(print(dialect.query(), true));
    }
    let file = args.file.config.as_deref().map(Options::from_file).transpose()?;
    let mut options = args.options.over(file.unwrap_or_default());
    if let Some(from) = args.types_from {
        let wanted = Wanted {
            from,
            prefix: args.topic_prefix.unwrap_or_default(),
            topics: options.topics.map(Topics::parse).transpose()?,
            modes: Modes::parse(&args.connector_option)?,
        };
        let read = || types_from::read(&wanted, |name| std::env::var(name).ok());
        return Ok(print(&tokio::task::block_in_place(read)?, true));
    }
    // Nothing is written, so it does not matter where.
    options.warehouse.get_or_insert_with(|| ".".to_owned());
    let config = options.validate()?;
    log::start(&args.log)?;
    let registry = setup::registry(&config)?;
    let kafka = setup::kafka(&config)?;
    let (records, wait) = (args.records.max(1), args.wait);
    let sampled = tokio::task::spawn_blocking(move || sample(&kafka, records, wait));
    let sampled = sampled
        .await
        .map_err(|e| Error::internal("reading the topics ended early").because(e))??;
    if sampled.is_empty() {
        return Err(Error::invalid("option topics: there is no such topic"));
    }
    let mut topics = Vec::new();
    for (topic, records) in &sampled {
        topics.push(plan(&config, registry.clone(), topic, records).await?);
    }
    let fine = topics.iter().all(|topic| topic.problem.is_none());
    let text = if args.json { json(&topics)? } else { text(&topics) };
    Ok(print(&text, fine))
}

fn print(text: &str, fine: bool) -> ExitCode {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).ok();
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal("cannot write the plan").because(e))
}

/// What a topic's table would be.
#[derive(Debug, Serialize)]
struct TopicPlan {
    topic: Arc<str>,
    table: String,
    /// Where the table's name comes from.
    named_by: &'static str,
    /// Records that were read.
    records: usize,
    /// Records that would be dead letters, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dead_letters: BTreeMap<String, usize>,
    /// Why the topic cannot become a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    columns: Vec<ColumnPlan>,
}

/// What a column would be.
#[derive(Debug, Serialize)]
struct ColumnPlan {
    name: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<String>,
    delta: String,
    iceberg: String,
    key: bool,
    nullable: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    kept: &'static str,
    /// What of the values is lost.
    #[serde(skip_serializing_if = "str::is_empty")]
    lossy: &'static str,
    /// Values that the column cannot hold, and what becomes of them.
    #[serde(skip_serializing_if = "str::is_empty")]
    cannot_hold: &'static str,
    invalid_value: &'static str,
}

async fn plan(
    config: &Config,
    registry: Option<Arc<Registry>>,
    topic: &Arc<str>,
    records: &[Records],
) -> Result<TopicPlan> {
    let options = setup::decode_options(config, topic, topic)?;
    let mut decoder = Decoder::new(options.clone(), registry, None);
    let (table, named_by) = name(config, topic, &mut decoder, records).await?;
    let mut plan = TopicPlan {
        topic: Arc::clone(topic),
        table: table.to_string(),
        named_by,
        records: records.len(),
        dead_letters: BTreeMap::new(),
        problem: None,
        columns: Vec::new(),
    };
    let mut changes = Vec::new();
    for chunk in records {
        match scan(&mut decoder, chunk).await? {
            Ok(Scanned::Change(change)) => changes.push((change, chunk)),
            Ok(_) => {}
            Err(reason) => *plan.dead_letters.entry(reason).or_default() += 1,
        }
    }
    let rows = changes.iter().filter_map(|(change, chunk)| Row::of(chunk.get(0)?, change));
    let rows: Vec<Row<'_>> = rows.collect();
    if rows.is_empty() {
        // Heartbeats and the like: they make no table.
        return Ok(plan);
    }
    match decoder.table_schema(&rows) {
        Ok(schema) => {
            for (_, reject) in decoder.columns(&rows, &schema)?.rejects {
                *plan.dead_letters.entry(reject.to_string()).or_default() += 1;
            }
            let key = schema.key();
            let columns = schema.columns().iter().filter(|column| !is_metadata(&column.name));
            let sources = decoder.sources();
            plan.columns = columns
                .map(|column| column_plan(column, key.contains(&column.name), &sources, &options))
                .collect();
        }
        Err(error) => plan.problem = Some(error.report()),
    }
    Ok(plan)
}

/// The topic's table, and what its name comes from. A table that is there already keeps its name.
async fn name(
    config: &Config,
    topic: &str,
    decoder: &mut Decoder,
    records: &[Records],
) -> Result<(TableId, &'static str)> {
    if config.tables.get(topic).is_some_and(|own| own.name.is_some()) {
        return Ok((setup::table_of(config, topic, None)?, "option tables.<topic>.name"));
    }
    if !setup::is_ambiguous(config, topic) {
        return Ok((setup::table_of(config, topic, None)?, "the topic's name"));
    }
    let told = naming::told(decoder, topic, records).await?;
    let by = match told {
        Some(_) => "the topic's name, split as the source block of its records says",
        None => "the topic's name, split at its last two dots: no record read says otherwise",
    };
    Ok((setup::table_of(config, topic, told)?, by))
}

/// What a record is, or why it would be a dead letter.
async fn scan(
    decoder: &mut Decoder,
    records: &Records,
) -> Result<std::result::Result<Scanned, String>> {
    let Some(record) = records.get(0) else { return Ok(Err("no record".to_owned())) };
    let mut attempt = 0;
    loop {
        let id = match decoder.scan(&record) {
            Ok(scanned) => return Ok(Ok(scanned)),
            Err(ScanError::Reject(reject)) => return Ok(Err(reject.to_string())),
            Err(ScanError::KeyChanged(what)) => {
                return Ok(Err(format!("key_changed: {what}, which halts the table")));
            }
            Err(ScanError::NeedsSchema(id)) => id,
        };
        attempt += 1;
        match decoder.fetch_schema(id).await {
            Err(error) if attempt >= SCHEMA_ATTEMPTS || !error.is_retryable() => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            Ok(()) => {}
        }
    }
}

fn column_plan(
    column: &Column,
    key: bool,
    sources: &[decode::SourceColumn],
    options: &decode::Options,
) -> ColumnPlan {
    let source = sources.iter().find(|source| source.name == column.name);
    let declared = options.declared.iter().find(|(name, _)| *name == column.name);
    ColumnPlan {
        name: column.name.clone(),
        source: source.map_or_else(|| "JSON without a schema".to_owned(), |s| s.source.clone()),
        declared: declared.map(|(_, declared)| declared.to_string()),
        delta: delta::type_name(&column.ty),
        iceberg: iceberg::type_name(&column.ty),
        key,
        nullable: column.nullable,
        kept: source.filter(|_| !is_plain(&column.ty)).map_or("", |source| source.kept),
        lossy: source.map_or("", |source| source.loses),
        cannot_hold: source.map_or("", |source| match column.ty {
            ColumnType::Int64 => source.refuses_as_number,
            _ => source.refuses,
        }),
        invalid_value: options.invalid_value(&column.name).name(),
    }
}

/// True for types that say by themselves how values are kept.
fn is_plain(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Int32 | ColumnType::Decimal { .. })
}

fn text(topics: &[TopicPlan]) -> String {
    let mut out = String::new();
    for topic in topics {
        write_topic(&mut out, topic).ok();
    }
    let lossy = topics.iter().flat_map(|topic| &topic.columns).filter(|c| !c.lossy.is_empty());
    out.push_str(&match lossy.count() {
        0 => "No column loses anything.\n".to_owned(),
        count => format!("{count} columns marked LOSSY lose something.\n"),
    });
    out
}

fn write_topic(out: &mut String, plan: &TopicPlan) -> std::fmt::Result {
    writeln!(out, "{} -> {} ({} records read)", plan.topic, plan.table, plan.records)?;
    writeln!(out, "  named by {}", plan.named_by)?;
    if plan.columns.is_empty() && plan.problem.is_none() {
        writeln!(out, "  no row was found, so nothing is known of its table")?;
    }
    if let Some(problem) = &plan.problem {
        writeln!(out, "  PROBLEM: {problem}")?;
    }
    for (reason, count) in &plan.dead_letters {
        writeln!(out, "  {count} records would be dead letters: {reason}")?;
    }
    let header = ["column", "delta", "iceberg", "null", "source"].map(str::to_owned);
    let line = |column: &ColumnPlan| {
        let null = match (column.key, column.nullable) {
            (true, _) => "key",
            (false, true) => "null",
            (false, false) => "not null",
        };
        let declared = column.declared.as_ref().map(|ty| format!(", declared {ty}"));
        let source = format!("{}{}", column.source, declared.unwrap_or_default());
        [column.name.clone(), column.delta.clone(), column.iceberg.clone(), null.to_owned(), source]
    };
    let lines: Vec<_> = plan.columns.iter().map(line).collect();
    let width = |at: usize| {
        let all = lines.iter().chain([&header]);
        all.filter_map(|line| line.get(at)).map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let mut write = |line: &[String; 5]| {
        let [name, delta, iceberg, null, source] = line;
        let [a, b, c, d] = widths;
        writeln!(out, "  {name:a$}  {delta:b$}  {iceberg:c$}  {null:d$}  {source}")
    };
    if !lines.is_empty() {
        write(&header)?;
    }
    for line in &lines {
        write(line)?;
    }
    for column in &plan.columns {
        let ColumnPlan { name, kept, lossy, cannot_hold, invalid_value, .. } = column;
        if !lossy.is_empty() {
            writeln!(out, "  LOSSY {name}: {lossy}")?;
        }
        if !cannot_hold.is_empty() {
            writeln!(out, "  {name} cannot hold ({invalid_value}): {cannot_hold}")?;
        }
        if !kept.is_empty() {
            writeln!(out, "  {name} is kept: {kept}")?;
        }
    }
    writeln!(out)
}

/// A row of the table of types.
#[derive(Debug, Serialize)]
struct TypePlan {
    connect: &'static str,
    name: &'static str,
    sources: &'static str,
    delta: Vec<String>,
    iceberg: Vec<String>,
    kept: &'static str,
    lossy: &'static str,
    lossy_in_mysql: &'static str,
    cannot_hold: &'static str,
}

fn types() -> Vec<TypePlan> {
    let names = |columns: &[ColumnType], name: fn(&ColumnType) -> String| {
        let mut names: Vec<String> = columns.iter().map(name).collect();
        names.dedup();
        names
    };
    rules()
        .iter()
        .map(|rule| TypePlan {
            connect: rule.connect_type(),
            name: rule.name,
            sources: rule.sources,
            delta: names(&rule.columns(), delta::type_name),
            iceberg: names(&rule.columns(), iceberg::type_name),
            kept: rule.kept,
            lossy: rule.loses,
            lossy_in_mysql: rule.loses_mysql,
            cannot_hold: rule.refuses,
        })
        .collect()
}

fn types_text(types: &[TypePlan]) -> String {
    let mut out = String::new();
    for ty in types {
        let name = if ty.name.is_empty() { "any other name or none" } else { ty.name };
        let columns =
            format!("delta {} | iceberg {}", ty.delta.join(" or "), ty.iceberg.join(" or "));
        writeln!(out, "{} {name}: {columns}\n    {}", ty.connect, ty.sources).ok();
        for (what, text) in [
            ("kept", ty.kept),
            ("LOSSY", ty.lossy),
            ("LOSSY from MySQL", ty.lossy_in_mysql),
            ("cannot hold", ty.cannot_hold),
        ] {
            if !text.is_empty() {
                writeln!(out, "    {what}: {text}").ok();
            }
        }
    }
    out.push_str("\nDelta has no time of day: with Delta among the formats a time is a long.\n");
    let formats = [Format::Delta, Format::Iceberg].map(Format::name).join(" and ");
    out.push_str(&format!(
        "What a column cannot hold follows option invalid-value, in {formats} alike.\n"
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(to: Format) -> Config {
        let mut options = Options {
            brokers: Some("none:9092".into()),
            topics: Some(vec!["shop.public.t".into()]),
            to: Some(vec![to]),
            warehouse: Some(".".into()),
            ..Options::default()
        };
        let toml = r#"
            types.big = "ulong"
            invalid-value.day = "null"
        "#;
        options.tables = [("shop.public.t".to_owned(), toml::from_str(toml).unwrap())].into();
        options.validate().unwrap()
    }

    fn record(after: &str) -> Records {
        let columns = r#"[{"type":"int32","field":"id"},
            {"type":"int64","field":"big"},
            {"type":"int32","name":"io.debezium.time.Date","field":"day"},
            {"type":"int64","name":"io.debezium.time.MicroTime","field":"at"},
            {"type":"int64","name":"io.debezium.time.MicroDuration","field":"took"},
            {"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"10","__debezium.source.column.type":"NUMERIC"},"field":"price"},
            {"type":"array","items":{"type":"string"},"field":"tags"}]"#;
        let value = format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"struct","field":"after","fields":{columns}}},{{"type":"struct","field":"source"}},{{"type":"string","field":"op"}}]}},"payload":{{"after":{after},"source":{{}},"op":"c"}}}}"#
        );
        let mut records = Records::new("shop.public.t".into(), 0, 0);
        assert!(records.push(0, None, Some(br#"{"id":1}"#), Some(value.as_bytes()), []));
        records
    }

    async fn planned(to: Format, records: &[Records]) -> TopicPlan {
        plan(&config(to), None, &"shop.public.t".into(), records).await.unwrap()
    }

    #[tokio::test]
    async fn every_column_and_every_loss_is_told() {
        let records = [record(r#"{"id":1,"big":-1,"day":-2147472692,"tags":["a"]}"#)];
        let plan = planned(Format::Iceberg, &records).await;
        assert_eq!((&*plan.table, plan.problem.as_deref()), ("shop_public.t", None));
        assert!(plan.dead_letters.is_empty(), "{:?}", plan.dead_letters);
        let line = |c: &ColumnPlan| format!("{} {} {} {}", c.name, c.delta, c.iceberg, c.key);
        let lines: Vec<String> = plan.columns.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "id long long true",
                "big decimal(20,0) decimal(20,0) false",
                "day date date false",
                "at long time false",
                "took long long false",
                "price decimal(10,2) decimal(10,2) false",
                "tags array<string> list<string> false",
            ]
        );
        let text = text(&[plan]);
        for part in [
            "shop.public.t -> shop_public.t (1 records read)",
            "int64, declared ulong",
            "numeric: bytes org.apache.kafka.connect.data.Decimal (precision 10, scale 2)",
            "day cannot hold (null): infinity",
            "at cannot hold (dead-letter): ",
            "LOSSY took: ",
            "array of string",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("LOSSY big"), "{text}");
    }

    #[tokio::test]
    async fn records_that_would_be_dead_letters_are_counted() {
        let records = [record(r#"{"id":1,"at":"x"}"#), record(r#"{"id":2}"#)];
        let plan = planned(Format::Delta, &records).await;
        assert_eq!(plan.dead_letters.values().sum::<usize>(), 1);
        assert_eq!((&*plan.columns[3].iceberg, plan.columns[3].cannot_hold), ("long", ""));
        let none = planned(Format::Delta, &[]).await;
        assert!(none.problem.is_none() && none.columns.is_empty());
        assert!(text(&[none]).contains("nothing is known of its table"));
    }

    #[test]
    fn the_table_of_types_is_printed_whole() {
        let text = types_text(&types());
        for rule in rules() {
            assert!(text.contains(rule.name) && text.contains(rule.sources), "{}", rule.name);
        }
        assert!(text.contains("delta decimal(38,2) or string | iceberg decimal(38,2) or string"));
        assert!(text.contains("LOSSY: "));
    }
}
