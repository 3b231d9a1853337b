//! Lake tables with two formats: the one that is behind is brought up from the other, whatever it missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_sink::schema::TableSchema;
use cdc_sink::sink::lake::LakeSink;
use cdc_sink::sink::{Merged, Sink};
use rstest::rstest;

use crate::batches::{Changes, batch, logs, options, schema, tables};

async fn merge(sink: &mut LakeSink, schema: &Arc<TableSchema>, from: i64, changes: Changes<'_>) {
    let merged = sink.merge(&batch(schema, from, changes)).await.unwrap();
    assert!(matches!(merged, Merged::Committed(_)), "{merged:?}");
}

const HISTORY: [Changes<'_>; 4] = [
    &[(1, Some("a")), (2, Some("b")), (3, Some("c")), (11, Some("d")), (12, Some("e"))],
    &[(2, Some("B")), (11, None)],
    &[(3, Some("C")), (12, None), (13, Some("f")), (1, None)],
    &[(13, Some("F")), (4, Some("g"))],
];

fn expected(commits: usize) -> BTreeMap<i64, String> {
    let mut table = BTreeMap::new();
    for (id, text) in HISTORY.iter().take(commits).copied().flatten() {
        match text {
            Some(text) => table.insert(*id, (*text).to_owned()),
            None => table.remove(id),
        };
    }
    table
}

/// `first` alone merges up to `alone_to`, after both have merged up to `both_to`; then both go on.
#[rstest]
#[tokio::test]
async fn a_format_that_missed_commits_is_brought_up(
    #[values(false, true)] iceberg_first: bool,
    #[values(0, 1, 2)] both_to: usize,
    #[values(1, 2, 3)] alone_to: usize,
) {
    let folder = tempfile::tempdir().unwrap();
    let mut logs = logs(3).to_vec();
    if iceberg_first {
        logs.reverse();
    }
    let both = options(&folder, logs.clone());
    let alone = options(&folder, vec![logs[0].clone()]);
    let schema = Arc::new(schema());
    let mut done = 0;
    for (options, to) in [(&both, both_to), (&alone, alone_to), (&both, HISTORY.len())] {
        let mut sink = LakeSink::new(options.clone());
        // Opening is what brings the other one up.
        let _ = sink.position().await.unwrap();
        if options.logs.len() == 2 && done > 0 {
            let expected = expected(done);
            let tables = tables(options).await;
            assert_eq!(tables.len(), 2);
            tables.iter().for_each(|(format, table)| assert_eq!(*table, expected, "{format}"));
        }
        while done < to {
            merge(&mut sink, &schema, i64::try_from(done).unwrap() * 10, HISTORY[done]).await;
            done += 1;
        }
    }
    let expected = expected(HISTORY.len());
    for (format, table) in tables(&both).await {
        assert_eq!(table, expected, "{format}");
    }
}
