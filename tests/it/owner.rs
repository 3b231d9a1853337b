//! A table belongs to one deployment; another is refused until it is told to take the table over, which the table's history
//! tells.

use std::sync::Arc;

use cdc_sink::change::Batch;
use cdc_sink::error::Kind;
use cdc_sink::position::TopicId;
use cdc_sink::sink::lake::{LakeOptions, LakeSink, LogSetup, Owner};
use cdc_sink::sink::{Merged, Sink};
use rstest::rstest;

use crate::batches::{batch, logs, options, schema};

fn sink(folder: &tempfile::TempDir, logs: &[LogSetup], owner: &str, take_over: bool) -> LakeSink {
    let owner = Some(Owner { id: owner.into(), take_over });
    LakeSink::new(LakeOptions { owner, ..options(folder, logs.to_vec()) })
}

async fn merge(sink: &mut LakeSink, from: i64) -> cdc_sink::error::Result<Merged> {
    sink.merge(&batch(&Arc::new(schema()), from, &[(from, Some("x"))])).await
}

#[rstest]
#[case::delta(&[0], 3)]
#[case::iceberg_2(&[1], 2)]
#[case::iceberg_3(&[1], 3)]
#[case::both(&[0, 1], 3)]
#[tokio::test]
async fn a_table_is_of_one_deployment(#[case] formats: &[usize], #[case] version: u8) {
    let folder = tempfile::tempdir().unwrap();
    let logs: Vec<_> = formats.iter().map(|at| logs(version)[*at].clone()).collect();
    let mut one = sink(&folder, &logs, "group one", false);
    assert!(matches!(merge(&mut one, 0).await.unwrap(), Merged::Committed(_)));
    // Another instance of the same deployment goes on.
    let mut same = sink(&folder, &logs, "group one", false);
    assert!(matches!(merge(&mut same, 10).await.unwrap(), Merged::Committed(_)));

    let mut two = sink(&folder, &logs, "group two", false);
    for error in [two.position().await.unwrap_err(), merge(&mut two, 20).await.unwrap_err()] {
        assert_eq!(error.kind(), Kind::Fenced);
        let report = error.report();
        for told in ["db_public.t", "group one", "group two", "--take-over"] {
            assert!(report.contains(told), "{told}: {report}");
        }
    }

    let mut two = sink(&folder, &logs, "group two", true);
    assert_eq!(two.position().await.unwrap().get(0), Some(20));
    assert!(matches!(merge(&mut two, 20).await.unwrap(), Merged::Committed(_)));
    assert_eq!(merge(&mut same, 30).await.unwrap_err().kind(), Kind::Fenced);
    // The one that took it over does not fight the next that does.
    let mut three = sink(&folder, &logs, "group three", true);
    assert!(matches!(merge(&mut three, 30).await.unwrap(), Merged::Committed(_)));
    assert_eq!(merge(&mut two, 40).await.unwrap_err().kind(), Kind::Fenced);
    assert!(matches!(merge(&mut three, 40).await.unwrap(), Merged::Committed(_)));
    let written = written(folder.path());
    for told in ["taken over from group one", "taken over from group two"] {
        assert!(written.contains(told), "{told}");
    }
}

/// The id of the topic that was read is in the table, for the deployment that read it: another one may have the topic in
/// another cluster.
#[rstest]
#[case::delta(&[0], 3)]
#[case::iceberg_2(&[1], 2)]
#[case::iceberg_3(&[1], 3)]
#[case::both(&[0, 1], 3)]
#[tokio::test]
async fn the_topic_that_was_read_is_known(#[case] formats: &[usize], #[case] version: u8) {
    let folder = tempfile::tempdir().unwrap();
    let logs: Vec<_> = formats.iter().map(|at| logs(version)[*at].clone()).collect();
    let read = async |owner, take_over, from, topic_id| {
        let mut sink = sink(&folder, &logs, owner, take_over);
        sink.position().await.unwrap();
        let known = sink.topic_id();
        let batch = batch(&Arc::new(schema()), from, &[(from, Some("x"))]);
        let merged = sink.merge(&Batch { topic_id, ..batch }).await.unwrap();
        assert!(matches!(merged, Merged::Committed(_)));
        known
    };
    let (first, second) = (TopicId::new(0, 1), TopicId::new(2, 0));
    assert_eq!(read("one", false, 0, None).await, None);
    assert_eq!(read("one", false, 10, first).await, None);
    assert_eq!(read("one", false, 20, None).await, first);
    assert_eq!(read("one", false, 30, None).await, first);
    assert_eq!(read("two", true, 40, second).await, None);
    assert_eq!(read("two", false, 50, second).await, second);
}

/// All JSON of the table's logs.
fn written(folder: &std::path::Path) -> String {
    let mut text = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "json") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}
