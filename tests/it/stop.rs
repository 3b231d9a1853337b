//! How the pipeline ends when it is told to, or at the end of what there is: what is buffered is committed, and nothing is
//! waited for that does not come.

use std::sync::Arc;
use std::time::Duration;

use cdc_sink::admin::Health;
use cdc_sink::batch::Limits;
use cdc_sink::change::{Batch, MissingValue, Truncates};
use cdc_sink::clock::Clock;
use cdc_sink::decode::{Decoder, Options, Registry};
use cdc_sink::error::{Error, Result};
use cdc_sink::generate::{Encoding, Generator, Shape, Workload};
use cdc_sink::pipeline::{self, Partitions, Progress, TableSetup};
use cdc_sink::sink::memory::MemorySink;
use cdc_sink::sink::{Merged, Sink};
use cdc_sink::source::scripted::{Acknowledged, ScriptedSource};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use crate::pipeline::{logs_of, registry_of, run};
use crate::sinks::{Store, Stored};

/// What the servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Servers {
    Answer,
    /// Each merge takes so many seconds.
    AreSlow(u64),
    /// Merges fail, and may not the next time.
    Fail,
    /// Merges never end.
    Hang,
    /// The table cannot even be read.
    FailAtOnce,
    /// The brokers do not tell how many partitions there are.
    CountNothing,
    /// The registry gives no schema.
    GiveNoSchema,
}

impl Store for Servers {
    fn answers(&self) -> Result<()> {
        match self {
            Self::FailAtOnce => Err(Error::unavailable("the store does not answer")),
            _ => Ok(()),
        }
    }

    async fn merge(&mut self, sink: &mut MemorySink, batch: &Batch) -> Result<Merged> {
        match self {
            Self::Fail => return Err(Error::unavailable("the store does not answer")),
            Self::Hang => std::future::pending().await,
            Self::AreSlow(seconds) => tokio::time::sleep(Duration::from_secs(*seconds)).await,
            _ => {}
        }
        sink.merge(batch).await
    }
}

/// Runs a pipeline over one topic, and tells it to stop after `stop_after`, if at all. How it ended, how long that took
/// from then on or from the start, and the table.
async fn end(
    servers: Servers,
    stop_after: Option<Duration>,
) -> (Progress, Duration, MemorySink, Arc<Health>) {
    let workload = Workload {
        seed: 7,
        tables: vec![Shape::Customers],
        rows: 20,
        changes: 100,
        partitions: 2,
        encoding: Encoding::Avro,
        ..Workload::default()
    };
    let logs = logs_of(Generator::new(&workload));
    let registry = match servers {
        Servers::GiveNoSchema => Registry::new("http://127.0.0.1:1/", None).unwrap(),
        _ => registry_of(&workload),
    };
    let sink = MemorySink::default();
    let open = |topic: &Arc<str>| {
        Ok(TableSetup {
            name: Arc::clone(topic),
            sink: Stored { sink: sink.clone(), store: servers },
            decoder: Decoder::new(Options::default(), Some(Arc::clone(&registry)), None),
            missing_value: MissingValue::Null,
            truncates: Truncates::Apply,
        })
    };
    let commits_at_the_end = matches!(servers, Servers::Answer | Servers::AreSlow(_));
    let limits = Limits {
        rows: usize::MAX,
        bytes: usize::MAX,
        age: Duration::from_secs(if commits_at_the_end { 600 } else { 1 }),
        idle: Duration::from_secs(600),
    };
    let options = pipeline::Options {
        limits,
        buffer_bytes: 1 << 20,
        once: stop_after.is_none(),
        partitions: Partitions::new(move |_| {
            let count = match servers {
                Servers::CountNothing => Err(Error::unavailable("the brokers do not answer")),
                _ => Ok(2),
            };
            Box::pin(std::future::ready(count))
        }),
        dead_letters: None,
        dead_letter_limit: 0,
        max_record_bytes: usize::MAX,
    };
    let clock = Clock::from_fn(|| 0);
    let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
    let progress = Progress::new(clock, Arc::clone(&health));
    let source = ScriptedSource::new(logs, Vec::new(), Acknowledged::default());
    let stop = CancellationToken::new();
    let started = tokio::time::Instant::now();
    let telling = async {
        match stop_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let progress = tokio::select! {
        progress = pipeline::run(source, open, options, progress, stop.clone()) => progress.unwrap(),
        () = telling => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(3600)) => panic!("it does not end: {:#?}", health.status()),
    };
    (progress, started.elapsed() - stop_after.unwrap_or_default(), sink, health)
}

#[rstest]
#[case::what_is_buffered_is_committed(Servers::Answer, 0..2, true, true)]
#[case::a_merge_is_waited_for(Servers::AreSlow(30), 29..33, true, true)]
#[case::not_a_store_that_fails(Servers::Fail, 9..13, false, false)]
#[case::nor_one_that_hangs_for_long(Servers::Hang, 59..63, false, false)]
#[case::nothing_is_to_be_committed(Servers::FailAtOnce, 0..2, true, false)]
#[case::nor_brokers_that_do_not_tell_the_partitions(Servers::CountNothing, 9..13, false, false)]
#[case::a_schema_is_not_waited_for(Servers::GiveNoSchema, 0..12, true, false)]
fn told_to_stop_it_ends(
    #[case] servers: Servers,
    #[case] seconds: std::ops::Range<u64>,
    #[case] complete: bool,
    #[case] committed: bool,
) {
    run(async {
        let (progress, took, sink, health) = end(servers, Some(Duration::from_secs(20))).await;
        assert!(seconds.contains(&took.as_secs()), "{took:?}");
        assert_eq!(progress.is_complete(), complete, "{:?}", progress.tables());
        assert_eq!(sink.version() > 0, committed);
        let waits = !matches!(servers, Servers::Answer | Servers::AreSlow(_) | Servers::Hang);
        let tables = health.status().tables;
        assert_eq!(tables.iter().all(|table| table.state.waiting.is_some()), waits, "{tables:?}");
    });
}

/// Nobody waits for a run until the end: its last merge may take longer than a process that is stopped is given.
#[test]
fn a_run_until_the_end_waits_for_its_last_merge() {
    run(async {
        let (progress, took, sink, _) = end(Servers::AreSlow(90), None).await;
        assert!(progress.is_complete() && took.as_secs() >= 90, "{took:?}");
        assert!(sink.version() > 0);
    });
}
