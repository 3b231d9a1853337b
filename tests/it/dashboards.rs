//! What is shipped for Prometheus and Grafana names metrics and labels that cdc-sink has, and says what it shows.
//! `promtool check rules prometheus/alerts.yml` and `promtool test rules prometheus/alerts_test.yml` try the alerts.

use std::collections::BTreeSet;

use cdc_sink::metrics::{Metric, MetricKind, catalogue};
use regex::Regex;
use serde_json::Value;

use crate::{repository_file, repository_yaml};

const DASHBOARD: &str = "grafana/dashboards/cdc-sink.json";
/// Labels that Prometheus adds, or that a histogram has.
const ADDED_LABELS: [&str; 3] = ["job", "instance", "le"];

/// A query, and where it stands.
struct Query {
    place: String,
    expression: String,
}

fn dashboard() -> Value {
    serde_json::from_str(&repository_file(DASHBOARD)).unwrap()
}

/// The panels that show something, rows aside.
fn panels() -> Vec<Value> {
    let panels = dashboard()["panels"].as_array().unwrap().clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

fn alerts() -> Vec<Value> {
    let groups = repository_yaml("prometheus/alerts.yml")["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every query of the dashboard, its variables included, and of the alerts.
fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels() {
        for target in panel["targets"].as_array().unwrap() {
            let place = format!("{DASHBOARD}: {}", text(&panel["title"]));
            queries.push(Query { place, expression: text(&target["expr"]) });
        }
    }
    let label_values = Regex::new(r"^label_values\((.*), (\w+)\)$").unwrap();
    for variable in dashboard()["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let place = format!("{DASHBOARD}: variable {}", text(&variable["name"]));
            // label_values(selector, label) reads like a sum by that label.
            let query = text(&variable["query"]["query"]);
            let expression = label_values.replace(&query, "sum by ($2) ($1)").into_owned();
            queries.push(Query { place, expression });
        }
    }
    for alert in alerts() {
        let place = format!("prometheus/alerts.yml: {}", text(&alert["alert"]));
        queries.push(Query { place, expression: text(&alert["expr"]) });
    }
    queries
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The metrics that `expression` names, each with the suffix of its histogram's series if it has one.
fn metrics_of(query: &Query) -> Vec<(&'static Metric, String)> {
    let name = Regex::new(r"\bcdc_sink_\w+").unwrap();
    let found = name.find_iter(&query.expression).map(|found| {
        let name = found.as_str();
        let exact = |metric: &&Metric| metric.name == name;
        let series = |metric: &&Metric| {
            metric.kind == MetricKind::Histogram
                && ["_bucket", "_sum", "_count"]
                    .map(|s| format!("{}{s}", metric.name))
                    .contains(&name.to_owned())
        };
        let metric = catalogue().iter().find(exact).or_else(|| catalogue().iter().find(series));
        let metric = metric.unwrap_or_else(|| panic!("{}: there is no metric {name}", query.place));
        (metric, name.trim_start_matches(metric.name).to_owned())
    });
    found.collect()
}

#[test]
fn every_metric_that_is_shown_exists_and_every_metric_is_shown() {
    let mut shown = BTreeSet::new();
    for query in queries() {
        shown.extend(metrics_of(&query).iter().map(|(metric, _)| metric.name));
    }
    let all: BTreeSet<&str> = catalogue().iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
}

#[test]
fn every_label_exists() {
    let matcher = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let selector = Regex::new(r"\bcdc_sink_\w+\{([^}]*)\}").unwrap();
    let grouping = Regex::new(r"\b(?:by|on)\s*\(([^)]*)\)").unwrap();
    for query in queries() {
        let mut known: BTreeSet<&str> = ADDED_LABELS.into();
        for (metric, _) in metrics_of(&query) {
            known.extend(metric.labels);
        }
        let check = |label: &str| {
            assert!(known.contains(label), "{}: no label {label} there", query.place);
        };
        for selected in selector.captures_iter(&query.expression) {
            matcher.captures_iter(&selected[1]).for_each(|label| check(&label[1]));
        }
        for group in grouping.captures_iter(&query.expression) {
            group[1].split(',').map(str::trim).for_each(check);
        }
    }
}

#[test]
fn counters_are_rated_and_histograms_are_read_by_bucket() {
    for query in queries() {
        for (metric, suffix) in metrics_of(&query) {
            let series = format!("{}{suffix}", metric.name);
            let ranged =
                Regex::new(&format!(r"(?:rate|increase)\({series}(?:\{{[^}}]*\}})?\[")).unwrap();
            let cumulative = metric.kind == MetricKind::Counter || !suffix.is_empty();
            let variable = query.place.contains(": variable ");
            assert!(
                !cumulative || variable || ranged.is_match(&query.expression),
                "{}: {series} only grows: show its rate",
                query.place
            );
            assert!(metric.kind != MetricKind::Histogram || !suffix.is_empty(), "{}", query.place);
        }
    }
}

#[test]
fn every_panel_says_what_it_shows() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "cdc-sink-overview");
    let range = Regex::new(r"\[([^\]]*)\]").unwrap();
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in panels() {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        assert!(titles.insert(title.clone()), "{title} is there twice");
        assert!(text(&panel["description"]).ends_with('.'), "{title}: no description");
        assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}: no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = text(&target["expr"]);
            assert!(expression.contains(r#"job=~"$job""#), "{title}: not limited to the job");
            // A range shorter than two scrapes shows nothing; only whole hours are spelled out.
            for range in range.captures_iter(&expression) {
                assert!(["$__rate_interval", "1h"].contains(&&range[1]), "{title}: {}", &range[1]);
            }
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    let place = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        let (x, y) = (place(panel, "x"), place(panel, "y"));
        assert!(x + place(panel, "w") <= 24, "{} is too wide", panel["title"]);
        for column in x..x + place(panel, "w") {
            for line in y..y + place(panel, "h") {
                assert!(taken.insert((column, line)), "{} covers another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_variable_that_is_used_is_declared() {
    let declared: BTreeSet<String> = dashboard()["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| text(&variable["name"]))
        .collect();
    let used: BTreeSet<String> = Regex::new(r"\$\{?([a-z]+)")
        .unwrap()
        .captures_iter(&repository_file(DASHBOARD))
        .map(|hit| hit[1].to_owned())
        .collect();
    assert_eq!(used, declared);
}

#[test]
fn every_alert_tells_a_person_what_to_do() {
    let tests = repository_file("prometheus/alerts_test.yml");
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert!(name.starts_with("CdcSink"), "{name}");
        let severity = text(&alert["labels"]["severity"]);
        assert!(["critical", "warning", "info"].contains(&&*severity), "{name}: {severity}");
        assert!(!text(&alert["annotations"]["summary"]).is_empty(), "{name}");
        assert!(text(&alert["annotations"]["description"]).ends_with('.'), "{name}");
        // Once where it fires and once where it must not, at least.
        let cases = tests.matches(&format!("alertname: {name}\n")).count();
        assert!(cases >= 2, "{name} has {cases} cases in alerts_test.yml");
    }
}

#[test]
fn grafana_finds_its_data_source_and_its_dashboards() {
    let source = repository_yaml("grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let uid = &source["datasources"][0]["uid"];
    assert_eq!(*uid, dashboard()["templating"]["list"][0]["current"]["value"]);
    let provider = repository_yaml("grafana/provisioning/dashboards/cdc-sink.yml");
    let folder = text(&provider["providers"][0]["options"]["path"]);
    let compose = repository_file("docker-compose.yml");
    assert!(compose.contains(&format!("./grafana/dashboards:{folder}:ro")));
}
