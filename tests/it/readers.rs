//! Readers of others, where they are installed: what they find in a table of ours.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use cdc_sink::sink::lake::{LakeOptions, LogSetup};
use serde_json::Value;

/// The rows that every reader finds in every format of a table on the local disk, in the order of their first column; metadata
/// columns and nulls are left out. Nothing when no reader is there.
pub(crate) fn read(lake: &LakeOptions) -> BTreeMap<String, Vec<Value>> {
    let Ok(python) = std::env::var("CDC_SINK_TEST_PYTHON") else {
        let all = std::env::var_os("CDC_SINK_TEST_ALL").is_some();
        assert!(!all, "CDC_SINK_TEST_PYTHON is not set, and no test may be left out");
        return BTreeMap::new();
    };
    let format = |log: &LogSetup| match log {
        LogSetup::Delta(_) => "delta",
        LogSetup::Iceberg { .. } => "iceberg",
    };
    let reader = Command::new(python)
        .args(["-c", include_str!("readers.py")])
        .arg(lake.location.url().to_file_path().unwrap())
        .args(lake.logs.iter().map(format))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let found: BTreeMap<String, Vec<Value>> = serde_json::from_slice(&reader.stdout).unwrap();
    assert!(found.len() >= lake.logs.len());
    found
}
