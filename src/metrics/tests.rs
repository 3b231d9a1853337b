use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What a scrape shows after every fact was recorded once.
fn scrape_of_everything() -> String {
    let recorder = builder().unwrap().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        start();
        table_started("pg_shop.orders", &["delta"]);
        records_received("pg.shop.orders", 7);
        records_settled("pg_shop.orders", RecordOutcome::Collapsed, 3);
        rows_merged("pg_shop.orders", 2, 1, 1);
        let took = Duration::from_millis(300);
        commit_ended("pg_shop.orders", "delta", CommitOutcome::Conflict, took);
        batch_merged("pg_shop.orders", 4, took);
        partition_progress("pg.shop.orders", 0, 90, 100);
        partition_progress("pg.shop.orders", 1, 90, 100);
        partition_released("pg.shop.orders", 1);
        table_committed("pg_shop.orders", 5_000_000, Some(4_250_000));
        table_staleness("pg_shop.orders", 1.5);
        dead_letter("pg_shop.orders", "json");
        invalid_values("pg_shop.orders", "infinite", "null", 3);
        placeholder_literals("pg_shop.orders", 1);
        records_skipped("heartbeat", 2);
        truncated("pg_shop.orders", 1);
        missing_values("pg_shop.orders", 3);
        columns_renamed("pg_shop.orders", 1);
        rename_unknown("pg_shop.orders", 1);
        table_halted("pg_shop.orders", true);
        buffered(1024);
        buffer_limit(4096);
        rows_copied(4096);
        copy_damaged();
        rebalanced(Rebalance::Revoked);
        partitions_assigned(2);
        retried(ErrorKind::Unavailable);
        error(ErrorKind::Data);
    });
    recorder.handle().render()
}

/// Name to type of what a scrape declares, and name to label names of its series; `_bucket`, `_sum` and `_count`
/// are their histogram's.
fn read(scrape: &str) -> (BTreeMap<String, String>, BTreeMap<String, BTreeSet<String>>) {
    let mut types = BTreeMap::new();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, rest) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|base| types.contains_key(*base))
                .unwrap_or(name);
            let names = rest.trim_end_matches('}').split("\",").filter(|part| !part.is_empty());
            labels.entry(base.to_owned()).or_default().extend(
                names
                    .map(|part| part.split_once('=').unwrap().0.to_owned())
                    .filter(|name| name != "le"),
            );
        }
    }
    (types, labels)
}

#[test]
fn the_catalogue_is_what_a_scrape_shows() {
    let (types, labels) = read(&scrape_of_everything());
    for metric in catalogue() {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        assert_eq!(types.get(metric.name).map(String::as_str), Some(kind), "{}", metric.name);
        let expected: BTreeSet<String> = metric.labels.iter().map(|&name| name.into()).collect();
        assert_eq!(labels.get(metric.name), Some(&expected), "{}", metric.name);
    }
    let known: BTreeSet<&str> = catalogue().iter().map(|metric| metric.name).collect();
    assert_eq!(types.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    let mut seen = BTreeSet::new();
    for metric in catalogue() {
        let name = metric.name;
        assert!(seen.insert(name), "{name} is listed twice");
        assert!(name.starts_with("cdc_sink_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
        assert_eq!(name.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
    }
}

#[test]
fn values_are_what_was_recorded() {
    let scrape = scrape_of_everything();
    for line in [
        r#"cdc_sink_records_total{table="pg_shop.orders",outcome="collapsed"} 3"#,
        r#"cdc_sink_records_total{table="pg_shop.orders",outcome="applied"} 0"#,
        r#"cdc_sink_changes_merged_total{table="pg_shop.orders",operation="insert"} 2"#,
        r#"cdc_sink_commits_total{table="pg_shop.orders",format="delta",outcome="conflict"} 1"#,
        r#"cdc_sink_commits_total{table="pg_shop.orders",format="delta",outcome="fenced"} 0"#,
        r#"cdc_sink_merge_duration_seconds_bucket{table="pg_shop.orders",le="0.25"} 0"#,
        r#"cdc_sink_merge_duration_seconds_bucket{table="pg_shop.orders",le="0.5"} 1"#,
        r#"cdc_sink_lag_records{topic="pg.shop.orders",partition="0"} 10"#,
        r#"cdc_sink_lag_records{topic="pg.shop.orders",partition="1"} 0"#,
        r#"cdc_sink_committed_source_timestamp_seconds{table="pg_shop.orders"} 4.25"#,
        r#"cdc_sink_table_halted{table="pg_shop.orders"} 1"#,
        r#"cdc_sink_row_read_bytes_total{from="copy"} 4096"#,
        r#"cdc_sink_row_read_bytes_total{from="store"} 0"#,
        r#"cdc_sink_damaged_copies_total 1"#,
        r#"cdc_sink_errors_total{kind="data"} 1"#,
        r#"cdc_sink_errors_total{kind="fenced"} 0"#,
        r#"cdc_sink_rebalances_total{kind="assigned"} 0"#,
    ] {
        assert!(scrape.lines().any(|shown| shown == line), "not shown: {line}\n{scrape}");
    }
}
