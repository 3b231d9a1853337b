//! How long a commit waits for the store: how many requests follow one another, whatever the number of files it touches.

use std::sync::Arc;
use std::time::Duration;

use cdc_sink::sink::lake::{LakeOptions, LakeSink};
use cdc_sink::sink::storage::Location;
use cdc_sink::sink::{Merged, Sink as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use rstest::rstest;
use url::Url;

use crate::batches::{batch, logs, options, schema};

/// What every request takes, on a clock that stands still otherwise.
const REQUEST: Duration = Duration::from_secs(1);
/// Commits that are measured: some do upkeep as well.
const COMMITS: i64 = 3;

fn slow_store() -> Location {
    let config = ThrottleConfig {
        wait_delete_per_call: REQUEST,
        wait_get_per_call: REQUEST,
        wait_list_per_call: REQUEST,
        wait_list_with_delimiter_per_call: REQUEST,
        wait_put_per_call: REQUEST,
        ..ThrottleConfig::default()
    };
    let store = ThrottledStore::new(InMemory::new(), config);
    Location::new(Arc::new(store), Path::from("t"), Url::parse("memory:///t/").unwrap())
}

/// Delta: the data file, the deletion vectors, the log. Iceberg: the data file, everything else but the metadata, the
/// metadata, a look at the version before, the hint. Both: the data file once.
#[rstest]
#[case::delta(&[0], 3)]
#[case::iceberg(&[1], 5)]
#[case::both(&[0, 1], 7)]
#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_few_requests(
    #[case] formats: &[usize],
    #[case] requests: u64,
    #[values(1, 10, 30)] files: i64,
    #[values(2, 3)] version: u8,
) {
    let folder = tempfile::tempdir().unwrap();
    let logs = formats.iter().map(|at| logs(version)[*at].clone()).collect();
    let options = LakeOptions {
        location: slow_store(),
        partition_by: String::new(),
        ..options(&folder, logs)
    };
    let schema = Arc::new(schema());
    let mut sink = LakeSink::new(options);
    let mut fewest = u64::MAX;
    for commit in 0..files + COMMITS {
        let ids: Vec<i64> = match commit - files {
            ..0 => (commit * 10..commit * 10 + 10).collect(),
            measured => (0..files).map(|file| file * 10 + measured).collect(),
        };
        let changes: Vec<_> = ids.into_iter().map(|id| (id, Some("x"))).collect();
        let start = tokio::time::Instant::now();
        let merged = sink.merge(&batch(&schema, commit * 10, &changes)).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
        if commit >= files {
            fewest = fewest.min(start.elapsed().as_secs());
        }
    }
    assert_eq!(fewest, requests);
}
