//! A source that leaves something out by a bug: nothing is merged over it.

use std::sync::Arc;

use cdc_sink::position::TopicPartition;
use cdc_sink::record::Records;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::source::Event;
use cdc_sink::source::scripted::{Acknowledged, ScriptedSource, Step};

use crate::pipeline::{World, row, run, told_by};
use crate::sources::{Course, Passed};

/// Leaves out the first record of every chunk but the first.
struct Leaping {
    chunks: usize,
}

impl Course for Leaping {
    fn pass(&mut self, event: Event) -> Option<Event> {
        Some(match event {
            Event::Records(chunk) => {
                self.chunks += 1;
                Event::Records(if self.chunks == 1 { chunk } else { without_the_first(&chunk) })
            }
            other => other,
        })
    }
}

/// The same chunk without its first record, as if that were nowhere.
fn without_the_first(chunk: &Records) -> Records {
    let left = chunk.iter().skip(1);
    let from = chunk.get(1).map_or_else(|| chunk.next(), |record| record.offset);
    let mut leaping = Records::new(Arc::clone(chunk.topic()), chunk.partition(), from);
    for record in left {
        leaping.push(record.offset, record.timestamp_ms, record.key, record.value, []);
    }
    leaping
}

#[test]
fn what_was_never_read_is_not_passed_over() {
    run(async {
        let rows = [row("c", 1, "a"), row("c", 2, "b"), row("c", 3, "c")];
        let world =
            World::bare(&[&[(Some(1), &rows[0]), (Some(2), &rows[1]), (Some(3), &rows[2])]]);
        let at = TopicPartition { topic: "shop.public.t".into(), partition: 0 };
        let script = vec![Step::Assign(vec![at.clone()]), Step::Deliver(at, 1)];
        let source = ScriptedSource::new(Arc::clone(&world.logs), script, Acknowledged::default());
        let sink = MemorySink::default();
        let progress =
            told_by(&world, Passed { source, course: Leaping { chunks: 0 } }, || sink.clone())
                .await;
        let halted = progress.tables().values().next().unwrap().halted.clone().unwrap();
        assert!(
            halted.contains("shop.public.t[0] was read from offset 2 on, after offset 1"),
            "{halted}"
        );
        assert_eq!(sink.rows().len(), 1, "what came before is in the table");
    });
}
