//! How long a commit waits: how many requests to the store follow one another, whatever the number of files it touches; and
//! for others who commit to the same table.

use std::sync::Arc;
use std::time::Duration;

use cdc_sink::change::Batch;
use cdc_sink::position::OffsetRange;
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

fn slow_store(request: Duration) -> Location {
    let config = ThrottleConfig {
        wait_delete_per_call: request,
        wait_get_per_call: request,
        wait_list_per_call: request,
        wait_list_with_delimiter_per_call: request,
        wait_put_per_call: request,
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
        location: slow_store(REQUEST),
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

/// Commits batches of a partition of its own, one after another with `pause` in between; how long the slowest took.
async fn keep_committing(mut sink: LakeSink, partition: i32, pause: Duration) -> Duration {
    let (schema, mut slowest) = (Arc::new(schema()), Duration::ZERO);
    for number in 0..20 {
        let (from, id) = (number * 10, i64::from(partition) * 10 + number % 10);
        let ranges = vec![OffsetRange { partition, from, to: from + 10 }];
        let batch = Batch { ranges, ..batch(&schema, from, &[(id, Some("x"))]) };
        let start = tokio::time::Instant::now();
        while !matches!(sink.merge(&batch).await, Ok(Merged::Committed(_))) {}
        slowest = slowest.max(start.elapsed());
        tokio::time::sleep(pause).await;
    }
    slowest
}

/// Whoever lost races is not kept from his commit for ever longer, also when others always have something to commit.
#[rstest]
#[case::delta(0)]
#[case::iceberg(1)]
#[tokio::test(start_paused = true)]
async fn every_instance_gets_its_turn(#[case] format: usize, #[values(0, 300)] pause: u64) {
    let folder = tempfile::tempdir().unwrap();
    let options = LakeOptions {
        location: slow_store(Duration::from_millis(20)),
        partition_by: String::new(),
        ..options(&folder, vec![logs(3)[format].clone()])
    };
    let first = Batch { ranges: Vec::new(), ..batch(&Arc::new(schema()), 0, &[(0, Some("x"))]) };
    drop(LakeSink::new(options.clone()).merge(&first).await.unwrap());
    let instances = (0..5).map(|partition| {
        let pause = Duration::from_millis(pause + 10 * u64::try_from(partition).unwrap());
        keep_committing(LakeSink::new(options.clone()), partition, pause)
    });
    let slowest = futures::future::join_all(instances).await;
    assert!(slowest.iter().max() < Some(&Duration::from_secs(30)), "{slowest:?}");
}
