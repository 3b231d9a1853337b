//! The tables of a history: where they are, in which formats, and how an instance opens them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_sink::clock::Clock;
use cdc_sink::error::Result;
use cdc_sink::sink::delta;
use cdc_sink::sink::iceberg::{self, Catalog, Retention, TableName};
use cdc_sink::sink::lake::{LakeOptions, LogSetup, Owner, Turns};
use cdc_sink::sink::storage::Location;
use cdc_sink::table::index::Budget;
use cdc_sink::table::physical;
use object_store::path::Path;
use url::Url;

use super::catalog::Wire;
use super::process::Process;
use super::store::{Store, World};

/// The namespace of Iceberg tables.
pub(super) const NAMESPACE: &str = "shop";

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
    pub(super) has_catalog: bool,
    pub(super) clock: Clock,
}

impl Tables {
    /// The catalog as the process reaches it for the table of `topic`.
    pub(super) async fn catalog(
        &self,
        world: &Arc<World>,
        process: &Arc<Process>,
        topic: &str,
    ) -> Result<Arc<Catalog>> {
        if !self.has_catalog {
            return Ok(Arc::new(Catalog::Files));
        }
        let lane = lane(process, name(topic)) + 1;
        let connected = Wire::connect(world, process, lane, &self.clock).await?;
        Ok(Arc::new(Catalog::Rest(connected)))
    }

    /// The table of `topic` as the process opens it.
    pub(super) fn of(
        &self,
        world: &Arc<World>,
        process: &Arc<Process>,
        catalog: &Arc<Catalog>,
        topic: &Arc<str>,
    ) -> LakeOptions {
        let name = name(topic);
        let store = Arc::new(Store::new(world, process, lane(process, name)));
        let url = Url::parse(&format!("memory:///{name}/")).unwrap();
        let seed = format!("{} {name}", process.name);
        let names = super::chance::names(world.seed, &seed);
        LakeOptions {
            location: Location::new(store, Path::from(name), url).with_names(names),
            name: name.into(),
            logs: self.logs(catalog, topic, name),
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

    fn logs(&self, catalog: &Arc<Catalog>, topic: &Arc<str>, name: &str) -> Vec<LogSetup> {
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
            catalog: Arc::clone(catalog),
            name: TableName { namespace: vec![NAMESPACE.to_owned()], name: name.to_owned() },
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

/// The first of two lanes of the process for this table: moments and names of files that no other has.
fn lane(process: &Process, table: &str) -> u64 {
    u64::from(process.number) * 4 + 2 * u64::from(table.len().is_multiple_of(2))
}

/// The name of a topic's table, which is its folder too.
pub(super) fn name(topic: &str) -> &str {
    topic.rsplit('.').next().unwrap()
}
