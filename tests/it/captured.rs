//! Real records through the pipeline, into tables in memory: what each table ends as must be what the database held, or
//! what the case says of a value that the source itself lost. The cases are tests/fixtures/captures/cases.yaml.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cdc_sink::config::{Config, Options};
use cdc_sink::decode::Registry;
use cdc_sink::pipeline::TableSetup;
use cdc_sink::position::TopicPartition;
use cdc_sink::schema::is_metadata;
use cdc_sink::sink::memory::{MemorySink, TextRow};
use cdc_sink::source::scripted::{LoggedRecord, Step};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::captures::{Captured, DECLARED, captured, registry};
use crate::decode::{avro_name, canonical, held};
use crate::vectors::run::Process;

/// Runs at once.
const CONCURRENCY: usize = 4;

#[derive(Debug, Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

/// What real records showed, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[expect(dead_code, reason = "for who reads the file")]
    says: String,
    /// Who lost what the table does not have.
    lost_by: Option<String>,
    captures: Vec<String>,
    tables: Vec<String>,
    /// The general options.
    #[serde(default)]
    options: Map<String, Value>,
    /// The options of each table.
    #[serde(default)]
    table: Map<String, Value>,
    /// All rows there are.
    rows: Option<Rows>,
    /// Rows there are among others, some of their columns.
    #[serde(default)]
    has: Vec<Map<String, Value>>,
    #[serde(default)]
    no_table: bool,
    /// Why the table halts.
    halts: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rows {
    Source(Source),
    These(Vec<Map<String, Value>>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// What the database held at the end.
    Source,
}

/// A table of a case from one capture, in one batch or with a commit after each record.
struct Run<'a> {
    case: &'a Case,
    capture: &'a str,
    table: &'a str,
    each: bool,
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = if self.each { ", one by one" } else { "" };
        write!(f, "{}: {} of {}{each}", self.case.name, self.table, self.capture)
    }
}

impl Run<'_> {
    fn database(&self) -> &str {
        self.capture.split('-').next().unwrap()
    }

    fn config(&self, topic: &str) -> Config {
        let mut table = self.case.table.clone();
        if self.capture.ends_with("-json") {
            let types: Map<String, Value> =
                DECLARED.iter().map(|(name, ty)| ((*name).to_owned(), json!(ty))).collect();
            table.insert("types".into(), types.into());
        }
        let mut options = json!({
            "brokers": "none", "topics": ["*"], "registry": "http://none", "to": ["iceberg"],
            "warehouse": std::env::temp_dir(), "batch-rows": if self.each { 1 } else { 1_000_000 },
            "batch-age": "1h", "batch-idle": "1h", "once": true, "tables": {topic: table},
        });
        options.as_object_mut().unwrap().extend(self.case.options.clone());
        let options: Options = serde_json::from_value(options).unwrap();
        options.validate().unwrap()
    }

    /// The table's rows at the end; none when it was not made.
    async fn rows(&self, records: &[Captured]) -> Result<Option<Vec<TextRow>>, String> {
        let of_table = |topic: &str| match self.table {
            "" => !topic.contains('.'),
            table => topic.splitn(3, '.').last() == Some(table),
        };
        let mut records: Vec<&Captured> = records.iter().filter(|r| of_table(&r.topic)).collect();
        // In the order in which they were written; a partition's own order is the same.
        records.sort_by_key(|record| record.timestamp_ms);
        let Some(topic) = records.first().map(|record| Arc::<str>::from(record.topic.as_str()))
        else {
            return Ok(None);
        };
        let mut logs: BTreeMap<TopicPartition, Vec<LoggedRecord>> = BTreeMap::new();
        let mut order = Vec::new();
        for record in records {
            let at = TopicPartition { topic: Arc::clone(&topic), partition: record.partition };
            logs.entry(at.clone()).or_default().push(record.logged());
            order.push(Step::Deliver(at, 1));
        }
        let mut script = vec![Step::Assign(logs.keys().cloned().collect())];
        script.append(&mut order);
        let config = self.config(&topic);
        let registry: Arc<Registry> = registry(self.database());
        let sink = MemorySink::default();
        let process =
            Process { config: &config, registry, letters: None, logs, script, killed: false };
        let tables = process.tables().await?;
        let open = |topic: &Arc<str>| {
            let TableSetup { name, decoder, missing_value, truncates, .. } = tables.setup(topic)?;
            Ok(TableSetup { name, sink: sink.clone(), decoder, missing_value, truncates })
        };
        let progress = process.run(open).await?;
        let halted = progress.and_then(|p| p.tables().get(&topic).and_then(|t| t.halted.clone()));
        if let Some(reason) = halted {
            return Err(format!("halts: {reason}"));
        }
        Ok((sink.version() > 0).then(|| sink.rows()))
    }

    /// What is wrong, if anything.
    async fn check(&self, records: &[Captured]) -> Option<String> {
        let found = match (self.rows(records).await, &self.case.halts) {
            (Err(error), Some(why)) if error.contains(why) => return None,
            (Ok(_), Some(why)) => return Some(format!("{self}: does not halt: {why}")),
            (Err(error), _) => return Some(format!("{self}: {error}")),
            (Ok(found), None) => found,
        };
        let wrong = match (found, self.case.no_table) {
            (None, true) => None,
            (Some(_), true) => Some("a table was made".to_owned()),
            // A table that ends empty may not have been made.
            (found, false) => self.compare(found.unwrap_or_default()),
        };
        wrong.map(|wrong| format!("{self}: {wrong}"))
    }

    fn compare(&self, mut found: Vec<TextRow>) -> Option<String> {
        let is = |found: &TextRow, row: &Map<String, Value>| {
            row.iter().all(|(name, value)| found.get(name).cloned() == text(value))
        };
        if let Some(row) = self.case.has.iter().find(|row| !found.iter().any(|f| is(f, row))) {
            let id = row.get("id").and_then(text);
            let same: Vec<TextRow> = found
                .iter()
                .filter(|found| found.get("id") == id.as_ref())
                .map(|found| {
                    let named = found.iter().filter(|(name, _)| row.contains_key(*name));
                    named.map(|(name, value)| (name.clone(), value.clone())).collect()
                })
                .collect();
            return Some(format!("no row is {row:?}; of its id there is {same:?}"));
        }
        let mut expected = match self.case.rows.as_ref()? {
            Rows::These(rows) => rows.iter().map(text_row).collect(),
            Rows::Source(Source::Source) => self.held(&mut found),
        };
        let named = |column: &str| expected.iter().any(|row: &TextRow| row.contains_key(column));
        for row in &mut found {
            row.retain(|column, _| !is_metadata(column) || named(column));
        }
        found.sort();
        expected.sort();
        (found != expected).then(|| format!("rows are\n    {found:?}\n  not\n    {expected:?}"))
    }

    /// What the database held; moments in `found` are written as the database does.
    fn held(&self, found: &mut [TextRow]) -> Vec<TextRow> {
        let held = held(self.database(), &self.table.replace("Mixed_Case", "Mixed Case"));
        let encoding = if self.capture.ends_with("avro") { "avro" } else { "" };
        let names: Vec<String> =
            held.columns.iter().map(|(name, _)| avro_name(encoding, name)).collect();
        for ((_, ty), name) in held.columns.iter().zip(&names) {
            for value in found.iter_mut().filter_map(|row| row.get_mut(name)) {
                if ty.starts_with("timestamp") || ty.starts_with("datetime") {
                    *value = canonical(ty, value.replace('T', " ").trim_end_matches('Z'));
                }
            }
        }
        let row = |row: &Vec<Option<String>>| {
            let values = names.iter().zip(&held.columns).zip(row);
            values
                .filter_map(|((name, (_, ty)), value)| {
                    Some((name.clone(), canonical(ty, value.as_deref()?)))
                })
                .collect()
        };
        held.rows.iter().map(row).collect()
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn text_row(row: &Map<String, Value>) -> TextRow {
    row.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn cases() -> Vec<Case> {
    let file = crate::repository_yaml("tests/fixtures/captures/cases.yaml");
    serde_json::from_value::<Cases>(file).unwrap().cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captured_tables_end_as_the_cases_say() {
    let cases = cases();
    let names = cases.iter().flat_map(|case| &case.captures);
    let captures: BTreeMap<&str, Vec<Captured>> =
        names.map(|name| (name.as_str(), captured(name))).collect();
    let mut runs = Vec::new();
    for case in &cases {
        let as_held = matches!(case.rows, Some(Rows::Source(_)));
        assert!(!(as_held && case.lost_by.is_some()), "{}: it is lost or it is not", case.name);
        for capture in &case.captures {
            for table in &case.tables {
                let run = |each| Run { case, capture, table, each };
                runs.extend([false, true].map(run));
            }
        }
    }
    let captures = &captures;
    let wrong: Vec<String> = futures::stream::iter(&runs)
        .map(|run| run.check(&captures[run.capture]))
        .buffer_unordered(CONCURRENCY)
        .filter_map(|wrong| async { wrong })
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), runs.len(), wrong.join("\n"));
}
