//! The tables of a history: where they are, in which formats, and how an instance opens them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_sink::clock::Clock;
use cdc_sink::sink::delta;
use cdc_sink::sink::iceberg::{self, Catalog, Retention, TableName};
use cdc_sink::sink::lake::{LakeOptions, LogSetup, Owner, Turns};
use cdc_sink::sink::storage::Location;
use cdc_sink::table::index::Budget;
use cdc_sink::table::physical;
use object_store::path::Path;
use url::Url;

use super::process::Process;
use super::store::{Store, World};

/// In what formats a history's tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Formats {
    Delta,
    Iceberg(u8),
    /// The authority is Delta, or Iceberg.
    Both {
        delta_first: bool,
    },
}

/// How the tables are kept.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) formats: Formats,
    pub(super) checkpoint_interval: u64,
    pub(super) partition_by: &'static str,
    pub(super) clock: Clock,
}

impl Tables {
    /// The table of `topic` as the process opens it; `number` is the process's own.
    pub(super) fn of(
        &self,
        world: &Arc<World>,
        process: &Arc<Process>,
        number: u64,
        topic: &Arc<str>,
    ) -> LakeOptions {
        let name = name(topic);
        // A table's store has moments of its own, and its files have names of its own.
        let number = number * 2 + u64::from(name.len().is_multiple_of(2));
        let store = Arc::new(Store::new(world, process, number));
        let url = Url::parse(&format!("memory:///{name}/")).unwrap();
        let seed = format!("{} {name}", process.name);
        let names = super::chance::names(world.seed, &seed);
        LakeOptions {
            location: Location::new(store, Path::from(name), url).with_names(names),
            name: name.into(),
            logs: self.logs(topic, name),
            partition_by: self.partition_by.to_owned(),
            physical: physical::Options {
                index: Budget::new(1 << 20),
                open_concurrency: 64,
                packed_integers: false,
                match_rows: false,
            },
            owner: Some(Owner { id: "simulated".into(), take_over: false }),
            turns: Turns::default(),
            clock: self.clock.clone(),
        }
    }

    fn logs(&self, topic: &Arc<str>, name: &str) -> Vec<LogSetup> {
        let delta = LogSetup::Delta(delta::Options {
            topic: Arc::clone(topic),
            checkpoint_interval: self.checkpoint_interval,
            properties: BTreeMap::new(),
            type_widening: true,
        });
        let (format_version, two_formats) = match self.formats {
            Formats::Iceberg(version) => (version, false),
            _ => (3, true),
        };
        let iceberg = LogSetup::Iceberg {
            catalog: Arc::new(Catalog::Files),
            name: TableName { namespace: vec!["shop".to_owned()], name: name.to_owned() },
            options: iceberg::Options {
                topic: Arc::clone(topic),
                format_version,
                snapshots: Retention::default(),
                two_formats,
            },
        };
        match self.formats {
            Formats::Delta => vec![delta],
            Formats::Iceberg(_) => vec![iceberg],
            Formats::Both { delta_first: true } => vec![delta, iceberg],
            Formats::Both { delta_first: false } => vec![iceberg, delta],
        }
    }
}

/// The name of a topic's table, which is its folder too.
pub(super) fn name(topic: &str) -> &str {
    topic.rsplit('.').next().unwrap()
}
