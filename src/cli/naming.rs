//! Names of tables that their topics' names alone do not tell: a part of `<prefix>.<schema>.<table>` may have dots.
//!
//! Where such a name is split is what the source block of the topic's oldest records says. A table that is there keeps its
//! name, and a topic without a record has none yet: its partitions wait, and hold up nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::setup::Tables;
use crate::decode::{Decoder, ScanError};
use crate::error::{Error, Result};
use crate::names::Split;
use crate::position::TopicPartition;
use crate::record::Records;
use crate::retry;
use crate::sink::{Committed, lake};
use crate::source::{Event, KafkaOptions, Source, Start, Topics, sample};

/// Records of a topic that are asked where they are from, the oldest first.
const RECORDS: usize = 100;
/// How long they are waited for.
const WAIT: Duration = Duration::from_secs(15);
/// When topics without a record are looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// Where a topic's name is split, as the first of its records says whose source block spells it.
pub(super) async fn told(
    decoder: &mut Decoder,
    topic: &str,
    records: &[Records],
) -> Result<Option<Split>> {
    for record in records.iter().flat_map(Records::iter) {
        let from = loop {
            match decoder.source_table(&record) {
                Ok(table) => break table,
                Err(ScanError::Reject(_) | ScanError::KeyChanged(_)) => break None,
                Err(ScanError::NeedsSchema(id)) => match decoder.fetch_schema(id).await {
                    Ok(()) => {}
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(_) => break None,
                },
            }
        };
        let split = from.and_then(|from| {
            let table = from.table.as_deref()?;
            from.schemas().find_map(|schema| Split::told(topic, &from.prefix, schema, table))
        });
        if split.is_some() {
            return Ok(split);
        }
    }
    Ok(None)
}

impl Tables {
    /// The topics of partitions whose tables have no name yet.
    fn unnamed(&self, partitions: &[TopicPartition]) -> BTreeSet<Arc<str>> {
        let topics = partitions.iter().map(|partition| &partition.topic);
        topics.filter(|topic| !self.is_named(topic)).cloned().collect()
    }

    /// Names the tables of those of the topics that have a record.
    pub(super) async fn name(
        &self,
        kafka: &KafkaOptions,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<()> {
        let kafka = KafkaOptions { topics: Topics::parse(topics.iter())?, ..kafka.clone() };
        let sampled = tokio::task::spawn_blocking(move || sample(&kafka, RECORDS, WAIT));
        let sampled = sampled
            .await
            .map_err(|e| Error::internal("reading the topics ended early").because(e))??;
        for (topic, records) in sampled.iter().filter(|(_, records)| !records.is_empty()) {
            let split = self.choose(topic, records).await?;
            let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
            splits.extend(split.map(|split| (Arc::clone(topic), split)));
        }
        Ok(())
    }

    /// Where the topic's name is split: as a table says that is there, else as its records do, else at its last dots.
    async fn choose(&self, topic: &Arc<str>, records: &[Records]) -> Result<Option<Split>> {
        let last = Split::all(topic).next();
        let told = told(&mut self.decoder(topic)?, topic, records).await?;
        let candidates: Vec<Split> = match told {
            Some(told) => last.into_iter().filter(|last| *last != told).collect(),
            None => Split::all(topic).take(Split::MOST).collect(),
        };
        for split in candidates {
            if lake::is_there(&self.lake_at(topic, &self.table_at(topic, split)?)).await? {
                return Ok(Some(split));
            }
        }
        Ok(told.or(last))
    }
}

/// A source whose partitions come once their tables have names.
#[derive(Debug)]
pub(super) struct Named<So> {
    source: So,
    tables: Arc<Tables>,
    kafka: KafkaOptions,
    /// The run ends with what is there: a topic without a record is let through, as nothing will be made of it.
    once: bool,
    held: Vec<Held>,
    /// One task at most.
    naming: JoinSet<()>,
}

#[derive(Debug)]
struct Held {
    partitions: Vec<TopicPartition>,
    start: oneshot::Sender<HashMap<TopicPartition, Start>>,
    tried: bool,
}

impl<So: Source + Send> Named<So> {
    pub(super) fn new(source: So, tables: Arc<Tables>, kafka: KafkaOptions, once: bool) -> Self {
        Self { source, tables, kafka, once, held: Vec::new(), naming: JoinSet::new() }
    }

    /// An event that need not be held any more.
    fn release(&mut self) -> Option<Event> {
        let passes = self.once && self.naming.is_empty();
        let at = self.held.iter().position(|held| {
            (passes && held.tried) || self.tables.unnamed(&held.partitions).is_empty()
        })?;
        let Held { partitions, start, .. } = self.held.swap_remove(at);
        Some(Event::Assigned { partitions, start })
    }

    /// Looks for the names of what is held, unless that is under way.
    fn look(&mut self) {
        if self.held.is_empty() || !self.naming.is_empty() {
            return;
        }
        let again = self.held.iter().all(|held| held.tried);
        let mut topics = BTreeSet::new();
        for held in &mut self.held {
            topics.extend(self.tables.unnamed(&held.partitions));
            held.tried = true;
        }
        let (tables, kafka) = (Arc::clone(&self.tables), self.kafka.clone());
        self.naming.spawn(async move {
            if again {
                tokio::time::sleep(AGAIN).await;
            }
            let named =
                retry::hold("records that tell tables' names", || tables.name(&kafka, &topics));
            if let Err(error) = named.await {
                tracing::error!(error = error.report(), "tables have no names yet");
            }
        });
    }

    /// Holds an event whose tables have no names.
    fn sift(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Assigned { partitions, start }
                if !self.tables.unnamed(&partitions).is_empty() =>
            {
                self.held.push(Held { partitions, start, tried: false });
                None
            }
            Event::Revoked { partitions, done } => {
                for held in &mut self.held {
                    held.partitions.retain(|partition| !partitions.contains(partition));
                }
                self.held.retain(|held| !held.partitions.is_empty());
                Some(Event::Revoked { partitions, done })
            }
            event => Some(event),
        }
    }
}

impl<So: Source + Send> Source for Named<So> {
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.release() {
                return event;
            }
            self.look();
            let is_naming = !self.naming.is_empty();
            tokio::select! {
                biased;
                Some(ended) = self.naming.join_next(), if is_naming => {
                    if let Err(error) = ended {
                        tracing::error!(error = %error, "naming tables ended by a bug");
                    }
                }
                event = self.source.next(), if !(self.once && is_naming) => {
                    if let Some(event) = self.sift(event) {
                        return event;
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, topic: &str, committed: &Committed) {
        self.source.acknowledge(topic, committed);
    }

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        self.source.hold(partition, held);
    }

    fn read_again(&mut self, partitions: Vec<TopicPartition>) {
        self.source.read_again(partitions);
    }

    async fn close(mut self) {
        self.naming.shutdown().await;
        self.source.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::Health;
    use crate::cli::setup;
    use crate::clock::Clock;
    use crate::config::{Config, Format, Options};
    use crate::pipeline::{self, Partitions, Progress};
    use crate::source::mock::{MockCluster, Produced};
    use crate::source::scripted::{Acknowledged, Log, LoggedRecord, ScriptedSource, Step};

    const DOTTED: &str = "shop.public.my.table";
    const ROUTED: &str = "all.of.my.tables";
    const EMPTY: &str = "shop.a.b.empty";

    fn config(warehouse: &std::path::Path) -> Config {
        let options = Options {
            brokers: Some("none:9092".into()),
            topics: Some(vec!["*".into()]),
            to: Some(vec![Format::Delta]),
            warehouse: Some(warehouse.display().to_string()),
            once: Some(true),
            ..Options::default()
        };
        options.validate().unwrap()
    }

    fn kafka(cluster: &MockCluster) -> KafkaOptions {
        let topics = Topics::parse(["*"]).unwrap();
        KafkaOptions::new(cluster.servers(), "g", topics, &BTreeMap::new(), |_| None).unwrap()
    }

    fn value(schema: &str, table: &str) -> Vec<u8> {
        let source = format!(
            r#"{{"name":"shop","ts_ms":1,"db":"shop","schema":"{schema}","table":"{table}"}}"#
        );
        format!(r#"{{"before":null,"after":{{"id":1}},"source":{source},"op":"c"}}"#).into_bytes()
    }

    fn partition(topic: &str) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition: 0 }
    }

    async fn produce(cluster: &MockCluster, topic: &str, value: &[u8]) {
        let (_reader, read) = watch::channel(HashMap::new());
        let mut feeder = cluster.feeder(read).unwrap();
        let record = Produced {
            key: Some(br#"{"id":1}"#),
            value: Some(value),
            headers: &[],
            timestamp_ms: Some(7),
        };
        feeder.send(&partition(topic), record).await.unwrap();
        feeder.flush().await.unwrap();
    }

    /// Runs to the end of `records`; the tables' names by topic.
    async fn run(
        config: &Config,
        records: &[(&str, Vec<u8>)],
        cluster: Option<&MockCluster>,
    ) -> Vec<(String, String)> {
        let log = |value: &Vec<u8>| LoggedRecord {
            offset: 0,
            timestamp_ms: Some(7),
            key: Some(br#"{"id":1}"#.to_vec()),
            value: Some(value.clone()),
            headers: Vec::new(),
        };
        let logs = records.iter();
        let logs: BTreeMap<_, _> =
            logs.map(|(topic, value)| (partition(topic), Log::new(vec![log(value)], 0))).collect();
        let script: Vec<Step> = logs.keys().map(|at| Step::Assign(vec![at.clone()])).collect();
        let source = ScriptedSource::new(Arc::new(logs), script, Acknowledged::default());
        let clock = Clock::from_fn(|| 1_700_000_000_000_000);
        let tables = Arc::new(Tables::open(config, None, clock.clone()).await.unwrap());
        let health = Arc::new(Health::new(clock.clone(), Duration::from_secs(60)));
        let progress = Progress::new(clock, health);
        let partitions = Partitions::new(|_| Box::pin(std::future::ready(Ok(1))));
        let options = setup::pipeline(config, partitions, None);
        let open = |topic: &Arc<str>| tables.setup(topic);
        let stop = CancellationToken::new();
        let progress = match cluster {
            None => pipeline::run(source, open, options, progress, stop).await.unwrap(),
            Some(cluster) => {
                let named = Named::new(source, Arc::clone(&tables), kafka(cluster), true);
                pipeline::run(named, open, options, progress, stop).await.unwrap()
            }
        };
        assert!(progress.is_complete());
        let name = |(topic, table): (&Arc<str>, &pipeline::TableProgress)| {
            assert_eq!(table.upserts, 1, "{topic}");
            (topic.to_string(), table.name.to_string())
        };
        progress.tables().iter().map(name).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_are_named_by_what_their_records_say() {
        let cluster = MockCluster::start(1).unwrap();
        let records = [(DOTTED, value("public", "my.table")), (ROUTED, value("public", "orders"))];
        for (topic, value) in &records {
            cluster.create_topic(topic, 1).unwrap();
            produce(&cluster, topic, value).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let expected = [
            (ROUTED.to_owned(), "all_x2eof_my.tables".to_owned()),
            (DOTTED.to_owned(), "shop_public.my_x2etable".to_owned()),
        ];
        assert_eq!(run(&config, &records, Some(&cluster)).await, expected);

        // A table that is there keeps the name it has.
        let folder = tempfile::tempdir().unwrap();
        let config = self::config(folder.path());
        let last = [(DOTTED.to_owned(), "shop_x2epublic_my.table".to_owned())];
        assert_eq!(run(&config, &records[..1], None).await, last);
        let clock = Clock::from_fn(|| 1_700_000_000_000_000);
        let tables = Tables::open(&config, None, clock).await.unwrap();
        tables.name(&kafka(&cluster), &[DOTTED.into()].into()).await.unwrap();
        assert_eq!(*tables.lake(&DOTTED.into()).unwrap().name, *last[0].1);
    }

    /// Partitions that are gained, and then nothing more.
    struct Gained(Vec<Event>);

    impl Source for Gained {
        async fn next(&mut self) -> Event {
            match self.0.pop() {
                Some(event) => event,
                None => std::future::pending().await,
            }
        }

        fn acknowledge(&mut self, _: &str, _: &Committed) {}

        fn hold(&mut self, _: &TopicPartition, _: bool) {}

        fn read_again(&mut self, _: Vec<TopicPartition>) {}

        async fn close(self) {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_without_a_record_waits_for_one_and_holds_up_nobody() {
        let cluster = MockCluster::start(1).unwrap();
        for topic in [EMPTY, DOTTED] {
            cluster.create_topic(topic, 1).unwrap();
        }
        produce(&cluster, DOTTED, &value("public", "my.table")).await;
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::from_fn(|| 1_700_000_000_000_000);
        let tables = Tables::open(&config(folder.path()), None, clock).await.unwrap();
        let tables = Arc::new(tables);
        let gained = |topic: &str| Event::Assigned {
            partitions: vec![partition(topic)],
            start: oneshot::channel().0,
        };
        let source = Gained(vec![gained("shop.public.plain"), gained(DOTTED), gained(EMPTY)]);
        let mut named = Named::new(source, Arc::clone(&tables), kafka(&cluster), false);
        let mut next = async || match named.next().await {
            Event::Assigned { partitions, .. } => partitions[0].topic.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, "shop.public.plain");
        assert_eq!(next().await, DOTTED);
        assert!(tokio::time::timeout(Duration::from_millis(500), next()).await.is_err());
        produce(&cluster, EMPTY, &value("a.b", "empty")).await;
        assert_eq!(next().await, EMPTY);
        assert_eq!(*tables.lake(&EMPTY.into()).unwrap().name, *"shop_a_x2eb.empty");
    }
}
