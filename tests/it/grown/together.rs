//! Two processes keep the table together, each with some of the partitions, and die and come back.

use std::collections::VecDeque;

use cdc_sink::change::Batch;
use cdc_sink::error::Result;
use cdc_sink::sink::Merged;

use super::*;
use crate::sinks::{Store, Stored};

/// Nobody waits for halves of key changes until they are given up: partitions whose process died are soon read by another.
const LIVES: Duration = Duration::from_secs(4);

/// A store whose merges take so many milliseconds, one after the other; none left takes none.
#[derive(Debug, Clone)]
struct Slow(VecDeque<u64>);

impl Store for Slow {
    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged> {
        let takes = Duration::from_millis(self.0.pop_front().unwrap_or_default());
        // On the way there, and on the way back.
        tokio::time::sleep(takes).await;
        let merged = sink.merge(batch).await;
        tokio::time::sleep(takes / 2).await;
        merged
    }
}

/// A time between two changes of who reads what.
#[derive(Debug, Clone)]
struct Stage {
    /// How many of the changes are written, in hundredths.
    written: usize,
    /// The process that reads each partition.
    owners: [usize; 3],
    readings: [Reading; 2],
    merges: [Vec<u64>; 2],
    /// When each process dies, if it does, in milliseconds.
    dies: [Option<u64>; 2],
}

fn stage() -> impl Strategy<Value = Stage> {
    let merges = || prop::collection::vec(0..400_u64, 0..12);
    let dies = || prop::option::of(0..900_u64);
    let owners = [0..2_usize, 0..2, 0..2];
    (0..=100_usize, owners, [reading(), reading()], [merges(), merges()], [dies(), dies()])
        .prop_map(|(written, owners, readings, merges, dies)| Stage {
            written,
            owners,
            readings,
            merges,
            dies,
        })
}

/// What a stage's processes read and keep.
struct Kept<'a> {
    logs: Logs,
    partitions: usize,
    /// That the topic had grown before its table was made.
    told: bool,
    sink: &'a MemorySink,
}

impl Kept<'_> {
    /// One of the stage's processes: to the end of what it reads, or until it dies.
    async fn member(&self, stage: &Stage, number: usize) {
        let own = |at: &&TopicPartition| {
            let partition = usize::try_from(at.partition).ok();
            partition.and_then(|partition| stage.owners.get(partition)) == Some(&number)
        };
        let own: Logs =
            self.logs.keys().filter(own).map(|at| (at.clone(), self.logs[at].clone())).collect();
        if own.is_empty() {
            return;
        }
        let store = Slow(stage.merges[number].clone().into());
        let open = || Stored { sink: self.sink.clone(), store: store.clone() };
        let (count, reading) = (partitions(self.partitions), &stage.readings[number]);
        let reads = attempt(own, count, reading, (self.told, MissingValue::Null), open);
        let lives = stage.dies[number].map_or(LIVES, Duration::from_millis);
        // How it ends does not matter.
        tokio::time::timeout(lives, reads).await.ok();
    }
}

/// How many partitions there are once so many changes are written.
fn made(history: &History, written: usize) -> usize {
    usize::try_from(partitions_at(history.grown, written.saturating_sub(1))).unwrap()
}

async fn keep_together(history: &History, stages: &[Stage], sink: &MemorySink) {
    let all = history.changes.len();
    // The first that the table's makers see.
    let grows = history.grown.into_iter().find(|grown| *grown > 0).unwrap_or(all);
    let mut written = 0;
    for stage in stages {
        let until = if written == 0 { all.min(grows) } else { all };
        written = written.max(until * stage.written / 100);
        let told = sink.version() == 0 && written > grows;
        let (logs, partitions) = (history.logs(written), made(history, written));
        let kept = Kept { logs, partitions, told, sink };
        tokio::join!(kept.member(stage, 0), kept.member(stage, 1));
    }
}

/// The other process has moved on to the rows that came to keys after the key changes that this one has still to read.
#[test]
fn a_row_moves_on_before_another_one_takes_its_place() {
    run(async {
        let moved = |id, value, to| Change { id, value: Some(value), to: Some(to) };
        let made = [change(5, Some(4)), change(6, Some(8))];
        let written = [moved(5, 5, 7), moved(6, 6, 0), change(5, Some(12))];
        let changes = [&made[..], &written].concat();
        let history = History { changes, ..grown_at([0, 3]) };
        let reading = || Reading { steps: Vec::new(), batch_rows: 9, untold: true };
        let stage = |written, merges| Stage {
            written,
            owners: [0, 1, 0],
            readings: [reading(), reading()],
            merges,
            dies: [None, None],
        };
        let stages = [stage(67, [vec![], vec![]]), stage(100, [vec![], vec![300]])];
        let sink = MemorySink::default();
        keep_together(&history, &stages, &sink).await;
        let logs = history.logs(history.changes.len());
        process(logs, partitions(3), &reading(), (false, MissingValue::Halt), || sink.clone())
            .await;
        assert_eq!(history.told_rows(&sink.rows()), history.rows());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_table_is_the_source_whoever_of_two_reads_which_partition(
        history in history(),
        has_two: bool,
        stages in prop::collection::vec(stage(), 1..4),
        last in reading(),
    ) {
        let [second, third] = history.grown;
        let history = History { grown: [if has_two { 0 } else { second }, third], ..history };
        run(async {
            let sink = MemorySink::default();
            keep_together(&history, &stages, &sink).await;
            let logs = history.logs(history.changes.len());
            let told = sink.version() == 0;
            let count = partitions(made(&history, history.changes.len()));
            process(logs, count, &last, (told, MissingValue::Null), || sink.clone()).await;
            assert_eq!(history.told_rows(&sink.rows()), history.rows());
        });
    }
}
