//! From the configuration to the parts of a run: stores, catalogs and one table setup per topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;

use crate::change::Keyless;
use crate::clock::Clock;
use crate::config::{Config, DeadLetterPlaces, Format, TableOptions};
use crate::dead_letter::DeadLetters;
use crate::decode::{self, Auth, Decoder, Evolution, Outbox, Registry, SchemaHistory};
use crate::error::{Error, Result};
use crate::metrics;
use crate::names::{Naming, Registrar, Split, TableId};
use crate::pipeline::{self, Partitions, TableSetup};
use crate::retry;
use crate::sink::delta;
use crate::sink::iceberg::{self, Catalog, RestCatalog, RestOptions, Secret};
use crate::sink::lake::{LakeOptions, LakeSink, LogSetup, Owner, Turns};
use crate::sink::storage::Location;
use crate::source::properties::Connection;
use crate::source::{self, KafkaOptions, PartitionCounts, Topics};
use crate::table::files::Copies;
use crate::table::index::Budget;
use crate::table::physical;

/// Commits from one checkpoint of a Delta log to the next.
const CHECKPOINT_INTERVAL: u64 = 50;

/// What the table of dead letters has in place of its topic's name; no topic can be called so.
const DEAD_LETTERS: &str = "(dead letters)";

/// Makes the setup of each topic's table.
#[derive(Debug)]
pub struct Tables {
    config: Config,
    warehouse: Location,
    catalog: Arc<Catalog>,
    registry: Option<Arc<Registry>>,
    history: Option<Arc<SchemaHistory>>,
    registrar: Registrar,
    /// Where the names of topics are split that do not tell it themselves.
    pub(super) splits: Mutex<HashMap<Arc<str>, Split>>,
    index: Budget,
    owner: Option<Owner>,
    turns: Turns,
    clock: Clock,
}

impl Tables {
    /// Opens the warehouse and the catalog, once it answers; `registry` has the schemas of Avro records.
    pub async fn open(
        config: &Config,
        registry: Option<Arc<Registry>>,
        clock: Clock,
    ) -> Result<Self> {
        let registrar = Registrar::default();
        // Names that cannot be used are told before anything is read.
        for (topic, _) in config.tables.iter().filter(|(_, own)| own.name.is_some()) {
            registrar.claim(&topic.as_str().into(), table_of(config, topic, None)?)?;
        }
        Ok(Self {
            warehouse: Location::open(&config.warehouse, &config.trust)?,
            catalog: Arc::new(retry::hold("the catalog", || catalog(config, &clock)).await?),
            registry,
            history: None,
            config: config.clone(),
            registrar,
            splits: Mutex::default(),
            index: Budget::new(config.memory / 2),
            owner: None,
            turns: Turns::default(),
            clock,
        })
    }

    /// These tables, with copies of their data files in `copies`.
    #[must_use]
    pub(super) fn with_copies(self, copies: Option<Arc<Copies>>) -> Self {
        Self { warehouse: self.warehouse.with_copies(copies), ..self }
    }

    /// These tables, whose columns are renamed as `history` tells.
    #[must_use]
    pub fn with_history(self, history: Arc<SchemaHistory>) -> Self {
        Self { history: Some(history), ..self }
    }

    /// These tables, for the deployment that the configured consumer group is: it reads the same topics of the same
    /// cluster, or it is another one. Waits for the brokers.
    pub(super) async fn owned(self, kafka: &KafkaOptions) -> Result<Self> {
        let ask = || source::cluster_id(kafka.connection.clone());
        let cluster = retry::hold("the brokers", ask).await?;
        let id = deployment(&self.config.group, &cluster).into();
        let take_over = self.config.take_over;
        Ok(Self { owner: Some(Owner { id, take_over }), ..self })
    }

    /// Where the tables lie, unless the catalog chooses.
    pub(super) fn warehouse(&self) -> &Location {
        &self.warehouse
    }

    /// Where Iceberg tables are found.
    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Whom the tables are to belong to; none where that does not matter, or was not asked yet.
    pub(super) fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Waits until the warehouse is known to be one that two writers cannot overwrite each other's commits in: Delta,
    /// and Iceberg without a catalog, commit by making a file that must not be there yet. Fails when it is not.
    pub async fn check_store(&self) -> Result<()> {
        let by_catalog = matches!(*self.catalog, Catalog::Rest(_));
        if by_catalog && !self.config.to.contains(&Format::Delta) {
            return Ok(());
        }
        retry::hold("the warehouse", || self.warehouse.check_conditional_put()).await
    }

    /// The setup of the table of `topic`.
    pub fn setup(&self, topic: &Arc<str>) -> Result<TableSetup<LakeSink>> {
        let lake = self.lake(topic)?;
        let decoder = self.decoder(topic)?;
        let formats = self.config.to.iter().map(|format| format.name()).collect::<Vec<_>>();
        metrics::table_started(&lake.name, &formats);
        let own = self.own(topic).cloned().unwrap_or_default();
        Ok(TableSetup {
            name: Arc::clone(&lake.name),
            sink: LakeSink::new(lake),
            decoder,
            missing_value: own.missing_value.unwrap_or(self.config.missing_value),
            truncates: own.truncate.unwrap_or(self.config.truncate),
        })
    }

    /// How the table of `topic` is kept.
    pub fn lake(&self, topic: &Arc<str>) -> Result<LakeOptions> {
        let id = self.registrar.claim(topic, self.table_of(topic)?)?;
        Ok(self.lake_at(topic, &id))
    }

    /// Where records go that are no changes; none when no place is given.
    pub fn dead_letters(&self, connection: &Connection) -> Result<Option<Arc<DeadLetters>>> {
        let DeadLetterPlaces { topic, table } = &self.config.dead_letters;
        let mut dead_letters = DeadLetters::default();
        if let Some(topic) = topic {
            dead_letters = dead_letters.to_topic(connection, topic)?;
        }
        if let Some(table) = table {
            let stands_for = Arc::from(DEAD_LETTERS);
            let id = self.registrar.claim(&stands_for, table.clone())?;
            // Letters of several deployments may lie in one table.
            let options = LakeOptions {
                partition_by: String::new(),
                owner: None,
                ..self.lake_at(&stands_for, &id)
            };
            dead_letters = dead_letters.to_table(options);
        }
        Ok((topic.is_some() || table.is_some()).then(|| Arc::new(dead_letters)))
    }

    /// How the table of `topic` is kept when it is `id`.
    pub(super) fn lake_at(&self, topic: &Arc<str>, id: &TableId) -> LakeOptions {
        let own = self.own(topic).and_then(|own| own.partition_by.clone());
        LakeOptions {
            name: id.to_string().into(),
            location: self.warehouse.folder(&id.namespace).folder(&id.name),
            logs: self.logs(topic, id),
            partition_by: own.unwrap_or_else(|| self.config.partition_by.clone()),
            physical: physical::Options {
                index: self.index.clone(),
                open_concurrency: 4,
                packed_integers: !self.config.to.contains(&Format::Iceberg),
                match_rows: keyless(&self.config, topic) == Keyless::Match,
            },
            owner: self.owner.clone(),
            turns: self.turns.clone(),
            clock: self.clock.clone(),
        }
    }

    /// True when the topic's table is known: by the configuration, by the topic's name, or because it was settled.
    pub(super) fn is_named(&self, topic: &str) -> bool {
        self.split(topic).is_some() || !is_ambiguous(&self.config, topic)
    }

    /// The table of `topic` when its name is split so.
    pub(super) fn table_at(&self, topic: &str, split: Split) -> Result<TableId> {
        table_of(&self.config, topic, Some(split))
    }

    fn table_of(&self, topic: &str) -> Result<TableId> {
        table_of(&self.config, topic, self.split(topic))
    }

    fn split(&self, topic: &str) -> Option<Split> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    /// The decoder of `topic`.
    pub fn decoder(&self, topic: &Arc<str>) -> Result<Decoder> {
        let table = self.table_of(topic)?.to_string();
        let options = decode_options(&self.config, topic, &table)?;
        let decoder = Decoder::new(options, self.registry.clone(), None);
        let decoder = match &self.history {
            Some(history) => decoder.with_history(Arc::clone(history), Arc::clone(topic)),
            None => decoder,
        };
        Ok(match self.config.drop_columns_after {
            Some(after) => decoder.with_drops(self.clock.clone(), after),
            None => decoder,
        })
    }

    fn own(&self, topic: &str) -> Option<&TableOptions> {
        self.config.tables.get(topic)
    }

    fn logs(&self, topic: &Arc<str>, id: &TableId) -> Vec<LogSetup> {
        let two_formats = self.config.to.len() > 1;
        let setup = |format: &Format| match format {
            Format::Delta => LogSetup::Delta(delta::Options {
                topic: Arc::clone(topic),
                checkpoint_interval: CHECKPOINT_INTERVAL,
                properties: BTreeMap::new(),
                type_widening: self.config.type_widening,
            }),
            Format::Iceberg => LogSetup::Iceberg {
                catalog: Arc::clone(&self.catalog),
                name: iceberg::TableName {
                    namespace: vec![id.namespace.clone()],
                    name: id.name.clone(),
                },
                options: iceberg::Options {
                    topic: Arc::clone(topic),
                    format_version: self.config.format_version,
                    snapshots: iceberg::Retention::default(),
                    two_formats,
                },
            },
        };
        self.config.to.iter().map(setup).collect()
    }
}

/// What a consumer group of a Kafka cluster is called as the owner of tables.
pub(super) fn deployment(group: &str, cluster: &str) -> String {
    format!("consumer group {group} of Kafka cluster {cluster}")
}

/// How the records of `topic` are decoded, whose table is called `table`.
pub(super) fn decode_options(config: &Config, topic: &str, table: &str) -> Result<decode::Options> {
    let own = config.tables.get(topic).cloned().unwrap_or_default();
    if !own.identity.is_empty() && !own.key.is_empty() {
        return Err(Error::invalid(format!(
            "option tables.{topic:?}: give identity or key, not both"
        )));
    }
    if !own.identity.is_empty() && own.keyless.is_some() {
        return Err(Error::invalid(format!(
            "option tables.{topic:?}: give identity or keyless, not both"
        )));
    }
    let declared = own
        .types
        .iter()
        .map(|(column, ty)| {
            let ty = ty.parse().map_err(|e: Error| {
                Error::invalid(format!("option tables.{topic:?}.types.{column}")).because(e)
            })?;
            Ok((column.clone(), ty))
        })
        .collect::<Result<_>>()?;
    Ok(decode::Options {
        table: table.into(),
        for_delta: config.to.contains(&Format::Delta),
        declared,
        key_in_rows: !own.identity.is_empty(),
        keyless: keyless(config, topic),
        declared_key: if own.identity.is_empty() { own.key } else { own.identity },
        added_prefix: config.added_prefix.clone(),
        placeholder: config.placeholder.clone(),
        invalid: config.invalid_value,
        any_schema_name: own.any_schema_name,
        invalid_columns: own.invalid_value.into_iter().collect(),
        evolution: Evolution {
            widen: config.type_widening || !config.to.contains(&Format::Delta),
            conflict: own.type_conflict.unwrap_or(config.type_conflict),
        },
        outbox: outbox(config, topic)?,
        source_position: own.source_position.unwrap_or(config.source_position),
        unconfirmed: own.unconfirmed_rows.unwrap_or(config.unconfirmed_rows),
    })
}

/// What is known of the outbox's events in `topic`; none when it has none.
fn outbox(config: &Config, topic: &str) -> Result<Option<Outbox>> {
    if config.outbox.is_empty() {
        return Ok(None);
    }
    let topics = Topics::parse(&config.outbox)
        .map_err(|e| Error::invalid("option outbox cannot be used").because(e))?;
    let outbox = Outbox::new(&config.outbox_headers)?;
    Ok(topics.matches(topic).then_some(outbox))
}

/// What the records of the table of `topic` are when it has no key.
fn keyless(config: &Config, topic: &str) -> Keyless {
    config.tables.get(topic).and_then(|own| own.keyless).unwrap_or(config.keyless)
}

/// True when nothing tells the table of `topic` but its records.
pub(super) fn is_ambiguous(config: &Config, topic: &str) -> bool {
    let own = config.tables.get(topic).and_then(|own| own.name.as_ref());
    let ambiguous = |naming: Naming| naming.is_ambiguous(topic);
    own.is_none() && Naming::parse(&config.table_name).is_ok_and(ambiguous)
}

/// The table of `topic`: the one that its section of the configuration names, else the one its name gives, split so, or
/// at its last two dots.
pub(super) fn table_of(config: &Config, topic: &str, split: Option<Split>) -> Result<TableId> {
    match config.tables.get(topic).and_then(|own| own.name.as_deref()) {
        None => {
            let naming = Naming::parse(&config.table_name)?;
            Ok(split.map_or_else(|| naming.table(topic), |split| naming.table_at(topic, split)))
        }
        Some(name) => TableId::parse(name)
            .map_err(|e| Error::invalid(format!("option tables.{topic:?}.name")).because(e)),
    }
}

/// How the pipeline runs: `partitions` tells how many a topic has, `dead_letters` is where its records go that are no
/// changes.
pub fn pipeline(
    config: &Config,
    partitions: Partitions,
    dead_letters: Option<Arc<DeadLetters>>,
) -> pipeline::Options {
    pipeline::Options {
        limits: config.limits,
        buffer_bytes: config.memory / 4,
        once: config.once,
        partitions,
        dead_letters,
        dead_letter_limit: config.dead_letter_limit,
        max_record_bytes: config.max_record_bytes,
    }
}

/// Asks the brokers for the partitions of a topic.
pub(super) fn partitions(kafka: &KafkaOptions) -> Partitions {
    let counts = PartitionCounts::new(kafka.connection.clone());
    Partitions::new(move |topic| counts.clone().of(topic.to_owned()).boxed())
}

/// Where copies of data files are kept; none when no folder is given.
pub(super) fn copies(config: &Config) -> Result<Option<Arc<Copies>>> {
    let folder = config.copies.as_deref();
    folder.map(|folder| Copies::open(folder, config.copies_bytes).map(Arc::new)).transpose()
}

/// How Kafka is read.
pub(super) fn kafka(config: &Config) -> Result<KafkaOptions> {
    let env = |name: &str| std::env::var(name).ok();
    let mut topics = Topics::parse(&config.topics)?;
    if let Some(dead_letters) = &config.dead_letters.topic {
        topics = topics.without(dead_letters.clone());
    }
    Ok(KafkaOptions {
        memory: u64::try_from(config.memory / 4).unwrap_or(u64::MAX),
        ..KafkaOptions::new(&config.brokers, &config.group, topics, &config.kafka, env)?
    })
}

/// The Iceberg catalog; its secrets come from the environment.
async fn catalog(config: &Config, clock: &Clock) -> Result<Catalog> {
    let Some(uri) = config.catalog.clone().filter(|_| config.to.contains(&Format::Iceberg)) else {
        return Ok(Catalog::Files);
    };
    let secret = |name: &str| std::env::var(name).ok().map(Secret::new);
    let options = RestOptions {
        uri,
        warehouse: config.catalog_warehouse.clone(),
        credential: secret("CDC_SINK_CATALOG_CREDENTIAL"),
        token: secret("CDC_SINK_CATALOG_TOKEN"),
        auth: secret("CDC_SINK_CATALOG_AUTH"),
        scope: config.catalog_scope.clone(),
        oauth2_server_uri: config.catalog_oauth2_server.clone(),
        vended_credentials: config.vended_credentials,
        trust: config.trust.clone(),
    };
    Ok(Catalog::Rest(RestCatalog::connect(options, clock.clone()).await?))
}

/// The schema registry; its user and password come from the environment.
pub(super) fn registry(config: &Config) -> Result<Option<Arc<Registry>>> {
    let auth = std::env::var("CDC_SINK_REGISTRY_AUTH").ok().map(|both| {
        let (user, password) = both.split_once(':').unwrap_or((&both, ""));
        Auth { user: user.to_owned(), password: password.to_owned() }
    });
    config.registry.as_deref().map(|url| Registry::open(url, auth, &config.trust)).transpose()
}
