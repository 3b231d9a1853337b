//! A topic that is deleted and made again under its name: its table halts, whatever the new one has.

use std::sync::Arc;

use cdc_sink::position::TopicId;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::source::scripted::{Acknowledged, Log, ScriptedSource};

use crate::pipeline::{World, row, run, told_by};

/// The table after the first `count` rows of a topic with this id were read, and why it halted.
async fn read(sink: &MemorySink, topic_id: Option<TopicId>, count: usize) -> (usize, bool) {
    let rows: Vec<String> = (1..).take(count).map(|id| row("c", id, "a")).collect();
    let log: Vec<_> = (1..).zip(&rows).map(|(id, row)| (Some(id), row.as_str())).collect();
    let mut world = World::bare(&[&log]);
    let log = |log: &Log| Log::new(log.records().to_vec(), 0).of_topic(topic_id);
    world.logs = Arc::new(world.logs.iter().map(|(at, old)| (at.clone(), log(old))).collect());
    let source = ScriptedSource::new(Arc::clone(&world.logs), vec![], Acknowledged::default());
    let progress = told_by(&world, source, || sink.clone()).await;
    let halted = progress.tables().values().any(|table| table.halted.is_some());
    (sink.rows().len(), halted)
}

#[test]
fn a_topic_with_another_id_is_another_one() {
    run(async {
        let sink = MemorySink::default();
        let (first, second) = (TopicId::new(0, 1), TopicId::new(0, 2));
        assert_eq!(read(&sink, None, 2).await, (2, false));
        assert_eq!(read(&sink, first, 4).await, (4, false));
        assert_eq!(read(&sink, second, 6).await, (4, true));
        assert_eq!(read(&sink, first, 6).await, (6, false));
        // Brokers that do not tell ids.
        assert_eq!(read(&sink, None, 8).await, (8, false));
        assert_eq!(read(&sink, second, 9).await, (8, true));
    });
}
