//! Readers of others, where they are installed: what they find in a table of ours.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use cdc_sink::sink::lake::{LakeOptions, LogSetup};
use serde_json::Value;

/// The rows that every reader finds in every format of a table on the local disk, in the order of their first column; metadata
/// columns and nulls are left out. Nothing when no reader is there.
pub(crate) fn read(lake: &LakeOptions) -> BTreeMap<String, Vec<Value>> {
    let found = run(lake, lake.logs.iter().map(|log| format(log).to_owned()));
    assert!(found.is_empty() || found.len() >= lake.logs.len());
    found
}

/// The same at versions, each that of every format; a reader's name is followed by ` at ` and the version.
pub(crate) fn read_at(
    lake: &LakeOptions,
    versions: &[BTreeMap<String, i64>],
) -> BTreeMap<String, Vec<Value>> {
    let at = |log: &LogSetup| {
        let format = format(log);
        let numbers = versions.iter().map(|versions| versions[format].to_string());
        format!("{format}={}", numbers.collect::<Vec<_>>().join(","))
    };
    run(lake, lake.logs.iter().map(at))
}

fn format(log: &LogSetup) -> &'static str {
    match log {
        LogSetup::Delta(_) => "delta",
        LogSetup::Iceberg { .. } => "iceberg",
    }
}

fn run(lake: &LakeOptions, formats: impl Iterator<Item = String>) -> BTreeMap<String, Vec<Value>> {
    let Ok(python) = std::env::var("CDC_SINK_TEST_PYTHON") else {
        let all = std::env::var_os("CDC_SINK_TEST_ALL").is_some();
        assert!(!all, "CDC_SINK_TEST_PYTHON is not set, and no test may be left out");
        return BTreeMap::new();
    };
    let reader = Command::new(python)
        .args(["-c", include_str!("readers.py")])
        .arg(lake.location.url().to_file_path().unwrap())
        .args(formats)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    serde_json::from_slice(&reader.stdout).unwrap()
}
