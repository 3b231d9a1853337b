//! What came out of a run against what must.

use std::collections::HashMap;

use cdc_sink::schema::is_metadata;
use cdc_sink::sink::memory::TextRow;
use serde_json::{Map, Value};

use super::case::Expect;
use super::encode;
use super::run::{Delivery, Outcome, Run};

/// What is known of all runs once they are over.
pub(super) struct Evidence {
    /// Reasons of dead letters by table.
    pub(super) letters: HashMap<String, Vec<String>>,
    /// All metrics, as they are exposed.
    pub(super) metrics: String,
}

/// What is wrong with the outcome; nothing when it is as it must be.
pub(super) fn check(
    run: &Run<'_>,
    outcome: &Result<Outcome, String>,
    evidence: &Evidence,
) -> Vec<String> {
    let expect = run.case.expect(run.encoding);
    let mut wrong = Vec::new();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return vec![format!("{run}: {error}")],
    };
    halts(expect, outcome, &mut wrong);
    rows(run, expect, outcome, &mut wrong);
    types(run, expect, outcome, &mut wrong);
    if !matches!(run.delivery, Delivery::Replay(_)) {
        counts(run, expect, outcome, evidence, &mut wrong);
    }
    wrong.into_iter().map(|what| format!("{run}: {what}")).collect()
}

fn halts(expect: &Expect, outcome: &Outcome, wrong: &mut Vec<String>) {
    match (&expect.halts, &outcome.halted) {
        (None, None) => {}
        (Some(part), Some(reason)) if reason.contains(part) => {}
        (Some(part), Some(reason)) => wrong.push(format!("halts with {reason:?}, not {part:?}")),
        (None, Some(reason)) => wrong.push(format!("halts: {reason}")),
        (Some(part), None) => wrong.push(format!("does not halt: {part}")),
    }
}

fn rows(run: &Run<'_>, expect: &Expect, outcome: &Outcome, wrong: &mut Vec<String>) {
    let topic = run.topic();
    let own = outcome.rows.get(&topic);
    match (&expect.rows, own) {
        (None, None) => {}
        (Some(expected), Some(rows)) => same_rows(run, "", expected, rows, wrong),
        // A table that is expected to be empty may not have been made.
        (Some(expected), None) if expected.is_empty() => {}
        (Some(expected), None) => wrong.push(format!("no table, not {} rows", expected.len())),
        (None, Some(rows)) if expect.count.or(expect.total).is_none() && !rows.is_empty() => {
            wrong.push(format!("rows that nobody expects: {rows:?}"));
        }
        (None, Some(_)) => {}
    }
    if let Some(count) = expect.count {
        let found = own.map_or(0, Vec::len);
        if found != count {
            wrong.push(format!("{found} rows, not {count}"));
        }
    }
    if let Some(total) = expect.total {
        let found: usize = outcome.rows.values().map(Vec::len).sum();
        if found != total {
            wrong.push(format!("{found} rows in all tables, not {total}"));
        }
        return;
    }
    for (other, expected) in &expect.tables {
        let other = encode::name(other, &topic);
        let found = outcome.rows.get(&other).map(Vec::as_slice).unwrap_or_default();
        same_rows(run, &other, expected, found, wrong);
    }
    for other in outcome.rows.keys().filter(|other| **other != topic) {
        if !expect.tables.keys().any(|name| encode::name(name, &topic) == *other) {
            wrong.push(format!("a table of {other} that nobody expects"));
        }
    }
}

fn same_rows(
    run: &Run<'_>,
    table: &str,
    expected: &[Map<String, Value>],
    rows: &[TextRow],
    wrong: &mut Vec<String>,
) {
    let named = |column: &str| expected.iter().any(|row| row.contains_key(column));
    let mut rows = rows.to_vec();
    for row in &mut rows {
        row.retain(|column, _| !is_metadata(column) || named(column));
    }
    let mut expected: Vec<TextRow> = expected.iter().map(|row| text_row(run, row)).collect();
    rows.sort();
    expected.sort();
    if rows != expected {
        wrong.push(format!("{table} rows are\n    {rows:?}\n  not\n    {expected:?}"));
    }
}

/// A row as text, nulls left out. A value may differ by target: an object of them.
fn text_row(run: &Run<'_>, row: &Map<String, Value>) -> TextRow {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(by_target) => {
            let value = by_target.get(run.target.name()).or_else(|| by_target.get("else"))?;
            (!value.is_null())
                .then(|| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        }
        other => Some(other.to_string()),
    };
    row.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn types(run: &Run<'_>, expect: &Expect, outcome: &Outcome, wrong: &mut Vec<String>) {
    let expected: Map<String, Value> = expect.types.clone().into_iter().collect();
    for (column, ty) in text_row(run, &expected) {
        match outcome.types.get(&column) {
            Some(found) if *found == ty => {}
            found => wrong.push(format!("column {column} is {found:?}, not {ty}")),
        }
    }
}

fn counts(
    run: &Run<'_>,
    expect: &Expect,
    outcome: &Outcome,
    evidence: &Evidence,
    wrong: &mut Vec<String>,
) {
    let table = run.table();
    let mut reasons = expect.dead_letters.clone();
    reasons.sort();
    let placed = reasons.iter().any(|reason| reason.contains('@'));
    let found = evidence.letters.get(&table).map(Vec::as_slice).unwrap_or_default();
    let found = found.iter().map(|letter| match letter.split_once('@') {
        Some((reason, _)) if !placed => reason.to_owned(),
        _ => letter.clone(),
    });
    let mut found: Vec<String> = found.collect();
    found.sort();
    if found != reasons {
        wrong.push(format!("dead letters are {found:?}, not {reasons:?}"));
    }
    if let Some(commits) = expect.commits
        && commits != outcome.commits
    {
        wrong.push(format!("{} commits, not {commits}", outcome.commits));
    }
    if let Some(requests) = expect.registry_requests
        && requests != outcome.registry_requests
    {
        wrong.push(format!(
            "{} requests to the registry, not {requests}",
            outcome.registry_requests
        ));
    }
    let filtered =
        expect.filtered.map(|count| ("cdc_sink_records_total{outcome=filtered}", count as f64));
    let metrics = expect.metrics.iter().map(|(name, value)| (name.as_str(), *value));
    for (metric, value) in metrics.chain(filtered) {
        let found = metric_of(&evidence.metrics, &table, metric);
        if found != Some(value) {
            wrong.push(format!("{metric} is {found:?}, not {value}"));
        }
    }
}

/// The sum of a table's series of a metric that have all labels of `metric`.
fn metric_of(metrics: &str, table: &str, metric: &str) -> Option<f64> {
    let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
    let mut wanted: Vec<String> = labels
        .map(|label| {
            label.split_once('=').map(|(name, value)| format!("{name}=\"{value}\"")).unwrap()
        })
        .collect();
    wanted.push(format!("table=\"{table}\""));
    let of_series = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?.strip_prefix('{')?;
        wanted.iter().all(|label| labels.contains(label)).then(|| value.parse::<f64>().unwrap())
    };
    let found: Vec<f64> = metrics.lines().filter_map(of_series).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}
