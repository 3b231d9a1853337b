//! `maintain`: upkeep of tables that no commit does. It removes orphans ([`crate::sink::orphans`]).

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use futures::{StreamExt, TryStreamExt, stream};
use globset::{Glob, GlobSet, GlobSetBuilder};
use object_store::path::Path;

use super::log;
use super::setup::{self, Tables};
use crate::clock::Clock;
use crate::config::{Config, ConfigFile, Format, Options};
use crate::error::{Error, Kind, Result};
use crate::names::TableId;
use crate::sink::iceberg::{Catalog, TableName};
use crate::sink::orphans::{Form, Place, Rules, SAFE_AGE, Summary, Table, Unneeded};
use crate::sink::storage::{self, Location};

/// Folders listed at a time.
const LISTS: usize = 8;

/// Arguments of `maintain`.
#[derive(Debug, clap::Args)]
pub(super) struct MaintainArgs {
    /// Tables, as `namespace.table` with globs; may be repeated [default: all that belong to this deployment]
    #[arg(long = "tables", value_name = "GLOB", value_delimiter = ',', help_heading = "Maintain")]
    only: Vec<String>,
    /// Remove orphans that are at least so old, by the clock of the store
    ///
    /// Longer than the slowest commit of every engine that writes the tables: what waits for its commit is no orphan
    /// yet. An instance of cdc-sink commits files within a quarter of an hour, or writes them again.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "72h",
        value_parser = humantime::parse_duration,
        help_heading = "Maintain"
    )]
    orphans_older_than: Duration,
    /// Print what would be removed, and remove nothing
    #[arg(long, help_heading = "Maintain")]
    dry_run: bool,
    /// Allow --orphans-older-than below an hour
    ///
    /// Whoever writes a table at the time, cdc-sink or another engine, loses files of commits that are under way, and the
    /// table cannot be read any more. For tables that certainly nobody writes.
    #[arg(long, help_heading = "Maintain")]
    break_tables_that_are_written: bool,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    log: log::LogArgs,
}

/// How it went with one table.
enum Outcome {
    /// It is another deployment's.
    Others(Error),
    Swept(Summary),
}

/// Goes through the tables, and prints a line for each.
pub(super) async fn run(args: MaintainArgs) -> Result<ExitCode> {
    let MaintainArgs { only, dry_run, orphans_older_than: older_than, mut options, .. } = args;
    if older_than < SAFE_AGE && !args.break_tables_that_are_written {
        return Err(Error::invalid(format!(
            "option orphans-older-than: {} is less than an hour: files that young may be part of a commit that is under way",
            humantime::format_duration(older_than)
        ))
        .hint("if nobody writes the tables, give --break-tables-that-are-written as well"));
    }
    let wanted = globs(&only)?;
    let file = args.file.config.as_deref().map(Options::from_file).transpose()?;
    options = options.over(file.unwrap_or_default());
    let has_brokers = options.brokers.is_some();
    // What is there tells which topics feed it.
    options.topics.get_or_insert_with(|| vec!["*".to_owned()]);
    options.brokers.get_or_insert_default();
    let config = options.validate()?;
    log::start(&args.log)?;
    let mut tables = Tables::open(&config, None, Clock::system()).await?;
    if has_brokers {
        tables = tables.owned(&setup::kafka(&config)?).await?;
    }
    let found = find(&config, &tables).await?;
    let places =
        found.into_iter().filter(|id| wanted.is_empty() || wanted.is_match(id.to_string()));
    let rules = Rules { older_than, dry_run };
    let (mut done, mut worst) = (0, None);
    for id in places {
        let outcome = sweep(&config, &tables, &id, &rules).await;
        let failure = match outcome {
            Ok(None) => continue,
            Ok(Some(Outcome::Swept(summary))) => {
                print(&format!("{id}: {}", told(&summary, &rules)));
                None
            }
            Ok(Some(Outcome::Others(e))) if only.is_empty() => {
                print(&format!("{id}: left alone: {}", e.report()));
                None
            }
            Ok(Some(Outcome::Others(e))) | Err(e) => Some(e),
        };
        done += 1;
        if let Some(error) = failure {
            writeln!(std::io::stderr(), "cdc-sink: {id}: {}", error.report()).ok();
            // Of a table that could not be looked at rather than of one that is another's.
            if worst.is_none_or(|worst| worst == Kind::Fenced) {
                worst = Some(error.kind());
            }
        }
    }
    if done == 0 && !only.is_empty() {
        return Err(Error::invalid(format!(
            "option tables: there is no table {}",
            only.join(", ")
        ))
        .hint("tables are found in the folders of --warehouse, or in --catalog"));
    }
    Ok(match worst {
        None => ExitCode::SUCCESS,
        Some(Kind::Fenced) => ExitCode::from(3),
        Some(_) => ExitCode::FAILURE,
    })
}

fn globs(only: &[String]) -> Result<GlobSet> {
    let mut globs = GlobSetBuilder::new();
    for text in only {
        let bad = |e| Error::invalid(format!("option tables: {text} is no glob")).because(e);
        globs.add(Glob::new(text).map_err(bad)?);
    }
    globs.build().map_err(|e| Error::invalid("option tables cannot be used").because(e))
}

/// What may be tables: the folders of the warehouse's namespaces, or what is in the catalog, where that may choose their
/// folders.
async fn find(config: &Config, tables: &Tables) -> Result<Vec<TableId>> {
    let mut found: Vec<TableId> = match &**tables.catalog() {
        Catalog::Rest(catalog) if !config.to.contains(&Format::Delta) => {
            let names = catalog.tables().await?;
            let id = |TableName { namespace, name }: TableName| {
                Some(TableId { namespace: namespace.into_iter().next()?, name })
            };
            names.into_iter().filter_map(id).collect()
        }
        _ => {
            let warehouse = tables.warehouse();
            let namespaces = stream::iter(folders(warehouse, warehouse.path()).await?);
            let listed = namespaces.map(|namespace| async move {
                let path = warehouse.path().clone().join(namespace.as_str());
                let names = folders(warehouse, &path).await?;
                let id = |name| TableId { namespace: namespace.clone(), name };
                Ok::<_, Error>(names.into_iter().map(id).collect::<Vec<_>>())
            });
            listed.buffer_unordered(LISTS).try_concat().await?
        }
    };
    found.sort_unstable();
    Ok(found)
}

/// The names of the folders in a folder of the store, as far as they may be namespaces or tables.
async fn folders(warehouse: &Location, path: &Path) -> Result<Vec<String>> {
    let listed = warehouse.store().list_with_delimiter(Some(path)).await;
    let failed = |e| storage::failed(format!("cannot list {path} of {}", warehouse.url()), e);
    let names = listed.map_err(failed)?.common_prefixes.into_iter();
    let names = names.filter_map(|folder| folder.filename().map(str::to_owned));
    Ok(names.filter(|name| !name.starts_with(['_', '.'])).collect())
}

/// Goes through one table; none when it is none of ours.
async fn sweep(
    config: &Config,
    tables: &Tables,
    id: &TableId,
    rules: &Rules,
) -> Result<Option<Outcome>> {
    let table = TableName { namespace: vec![id.namespace.clone()], name: id.name.clone() };
    let place = Place {
        name: id.to_string().into(),
        location: tables.warehouse().folder(&id.namespace).folder(&id.name),
        catalog: Arc::clone(tables.catalog()),
        table,
    };
    let Some(mut table) = Table::open(place).await? else { return Ok(None) };
    let iceberg_first = config.to.first() == Some(&Format::Iceberg);
    match table.owner(iceberg_first) {
        Some(owner) if !is_ours(config, tables, owner) => {
            return Ok(Some(Outcome::Others(
                Error::fenced(format!("it belongs to another deployment, {owner}"))
                    .hint("give the --group, and the --brokers, of the instance that writes it"),
            )));
        }
        // All may write it, as tables of dead letters. A catalog has those of other warehouses as well.
        None if !table.location().url().as_str().starts_with(tables.warehouse().url().as_str()) => {
            return Ok(None);
        }
        _ => {}
    }
    let mut tell = |Unneeded { form, path, size }: Unneeded<'_>| {
        if rules.dry_run {
            let what = if form == Form::Foreign { "leave alone" } else { "remove" };
            print(&format!("{id}: would {what} {} {path} ({})", form.name(), ByteSize(size)));
        }
    };
    table.sweep(rules, &mut tell).await.map(|summary| Some(Outcome::Swept(summary)))
}

/// True when a table of `owner` is this deployment's. Without brokers to ask which cluster this is, its consumer group
/// tells.
fn is_ours(config: &Config, tables: &Tables, owner: &str) -> bool {
    match tables.owner() {
        Some(ours) => ours.take_over || *ours.id == *owner,
        None => config.take_over || owner.starts_with(&setup::deployment(&config.group, "")),
    }
}

/// A table's summary for people.
fn told(summary: &Summary, rules: &Rules) -> String {
    let Summary { files, orphans, bytes, removed, young, unknown } = summary;
    let done = match (rules.dry_run, orphans == removed) {
        (true, _) => "would be removed".to_owned(),
        (false, true) => "removed".to_owned(),
        // Others were faster, or a version refers to them by now.
        (false, false) => format!("found, {removed} of them removed"),
    };
    let age = humantime::format_duration(rules.older_than);
    format!(
        "{orphans} orphans ({}) {done}, {young} younger than {age} kept, {unknown} unknown files left alone, {files} files in all",
        ByteSize(*bytes)
    )
}

fn print(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}
