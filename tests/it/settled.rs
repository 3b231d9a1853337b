//! What is told of a partition's position is what the table has, though nothing more comes.

use std::sync::{Arc, Mutex};

use cdc_sink::change::Batch;
use cdc_sink::error::Result;
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::sink::{Merged, Sink};
use cdc_sink::source::scripted::{Acknowledged, Step};

use crate::pipeline::{World, process, row, run};
use crate::sinks::{Store, Stored};

const MESSAGE: &str = r#"{"before":null,"after":null,"source":{"ts_ms":1},"op":"m"}"#;

/// A rival's batch: merged before the first one that comes, or noted when there is none.
#[derive(Debug, Clone, Default)]
struct Rival {
    noted: Arc<Mutex<Vec<Batch>>>,
    comes_first: Arc<Mutex<Option<Batch>>>,
}

impl Store for Rival {
    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged> {
        let first = self.comes_first.lock().unwrap().take();
        if let Some(first) = first {
            assert!(matches!(sink.merge(&first).await?, Merged::Committed(_)));
        }
        self.noted.lock().unwrap().push(batch.clone());
        sink.merge(batch).await
    }
}

#[test]
fn what_is_nothing_for_the_table_is_settled_after_a_commit() {
    run(async {
        let world = World::bare(&[&[(Some(1), &row("c", 1, "a")), (None, MESSAGE)]]);
        let sink = Stored { sink: MemorySink::default(), store: Rival::default() };
        let at = TopicPartition { topic: "shop.public.t".into(), partition: 0 };
        let assign = Step::Assign(vec![at.clone()]);
        let first = Step::Deliver(at.clone(), 1);
        let script = vec![assign, first, Step::Revoke(vec![at])];
        process(&world, script, || sink.clone(), &Acknowledged::default(), None).await;
        assert_eq!(sink.sink.version(), 1);
    });
}

#[test]
fn what_a_rival_merged_is_settled_beside_what_it_did_not() {
    run(async {
        let (one, other) = (row("c", 1, "a"), row("c", 2, "b"));
        let world = World::bare(&[&[(Some(1), &one)], &[(Some(2), &other)]]);
        let rival = Stored { sink: MemorySink::default(), store: Rival::default() };
        let part = world.part(|partition| partition == 0);
        process(&part, Vec::new(), || rival.clone(), &Acknowledged::default(), None).await;
        let comes_first = Arc::new(Mutex::new(rival.store.noted.lock().unwrap().pop()));
        let store = Rival { comes_first, ..Rival::default() };
        let sink = Stored { sink: MemorySink::default(), store };
        process(&world, Vec::new(), || sink.clone(), &Acknowledged::default(), None).await;
        assert_eq!((sink.sink.version(), sink.sink.rows().len()), (2, 2));
    });
}
