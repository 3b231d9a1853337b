//! Delta Lake: publishes commit plans as versions of a Delta table.
//!
//! A version is one conditional put of a JSON file, so it is atomic, and of two writers one wins. Rows are deleted by
//! deletion vectors; the position is stored in the same version, as one application transaction (`txn`) per partition.
//!
//! The state of the table is kept in memory and moves with every commit, ours or others': a commit costs what it
//! changes, whatever the table holds. No library's commit loop is used: they retry a commit on top of others' without
//! knowing what its deleted positions mean there.

mod commit;
mod files;
mod intact;
mod log;
mod prepare;
mod protocol;
mod references;
mod schema;
mod values;
mod vectors;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use deltalake::kernel::Add;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::schema::type_name;

pub(super) use self::references::{References, Take};

use self::commit::Commit;
use self::log::{Log, Put};
use self::protocol::{Metadata, Protocol};
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::schema::TableSchema;
use crate::sink::storage::Location;
use crate::table::notes::Notes;
use crate::table::partition::Partitioning;
use crate::table::plan::{CommitPlan, LiveFile, Published, TableState};

/// The newest batches that are remembered, to tell a plan that is published twice.
const REMEMBERED: usize = 32;
/// Commits that are looked at on opening for the newest batch id.
const LOOKED_BACK: usize = 64;
/// A state older than this is compared with the log before a commit: log files of versions that we have not seen may
/// have been cleaned away by then, and their numbers must not be used again.
const STALE: Duration = Duration::from_secs(3600);
/// Delta's default for `delta.logRetentionDuration`.
const LOG_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// How a Delta table is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// The topic that feeds the table. A table that another topic feeds is refused.
    pub topic: Arc<str>,
    /// Commits from one checkpoint of the log to the next; 0 for none.
    pub checkpoint_interval: u64,
    /// Table properties of a new table, such as `delta.enableChangeDataFeed` or `delta.logRetentionDuration`.
    pub properties: BTreeMap<String, String>,
    /// Columns may get wider types; the first one that does switches on a feature that not every reader has.
    pub type_widening: bool,
}

/// A Delta table at a location. The `impl` of its parts is in this folder; this type owns the state.
#[derive(Debug)]
pub struct DeltaTable {
    log: Log,
    options: Options,
    protocol: Protocol,
    metadata: Metadata,
    /// False when columns of others have no field id in the table yet; the next commit stores them.
    ids_stored: bool,
    state: TableState,
    /// The live files as the log has them; the same paths as `state.files`.
    adds: HashMap<String, Add>,
    /// The newest batches, oldest first.
    recent: VecDeque<Landed>,
    /// Somebody took the rows back to this version, and batches of ours that came after it are no longer there.
    restored: Option<i64>,
    /// The version of the newest checkpoint that is known.
    checkpoint: i64,
    /// When the log was last seen to end at the state's version.
    seen: Instant,
}

/// A batch that is in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Landed {
    batch: Uuid,
    version: i64,
    /// Paths of the files that its commit added or gave another deletion vector.
    files: Vec<String>,
}

impl Landed {
    /// True when it is this very plan. An earlier attempt at the batch may have been planned anew since, with other
    /// data files: what counts then is in the log, and who planned has to read it.
    fn is(&self, plan: &CommitPlan) -> bool {
        self.batch == plan.batch_id && plan.added.iter().all(|file| self.files.contains(&file.path))
    }

    fn published(&self, plan: &CommitPlan) -> Published {
        let version = self.version;
        if self.is(plan) {
            Published::Committed { version, found: true }
        } else {
            Published::Conflict
        }
    }
}

impl DeltaTable {
    /// Opens the table at `location`; none when there is no Delta table. Refuses tables that cannot be written right:
    /// another topic's, those that cdc-sink did not make, those with features it does not honour.
    pub async fn open(location: Location, options: Options) -> Result<Option<Self>> {
        let log = Log::new(location);
        if !log.exists().await? {
            return Ok(None);
        }
        Self::replayed(log, options).await.map(Some)
    }

    /// Makes a table without rows at `location`. When someone else is faster, opens what they made.
    pub async fn create(
        location: Location,
        schema: Arc<TableSchema>,
        partitioning: Arc<Partitioning>,
        options: Options,
        now_millis: i64,
    ) -> Result<Self> {
        let fields = schema::encode(&schema, &partitioning, &[])?;
        let mut configuration = protocol::configuration(&options.properties)?;
        configuration.insert(protocol::TOPIC.to_owned(), options.topic.to_string());
        configuration.insert(protocol::PARTITIONING.to_owned(), json!(partitioning).to_string());
        let mut metadata = Metadata {
            id: Uuid::new_v4().to_string(),
            name: None,
            description: None,
            format: json!({"provider": "parquet", "options": {}}),
            schema_string: String::new(),
            partition_columns: partitioning.fields.iter().map(|field| field.name.clone()).collect(),
            configuration,
            created_time: Some(now_millis),
        };
        let protocol = Protocol::create(&fields, &metadata.configuration);
        store_schema(&mut metadata, &schema, fields)?;
        admit(&protocol, &metadata, &options.topic)?;
        let info = commit::created(&metadata, now_millis);
        let commit = Commit {
            info: Some(info),
            protocol: Some(protocol),
            metadata: Some(metadata),
            ..Commit::default()
        };
        let log = Log::new(location);
        match log.put(0, commit.bytes()?).await? {
            Put::Done => {}
            // Whoever made it: the table is there.
            Put::Unclear(_) if log.read(0).await?.is_some() => {}
            Put::Unclear(error) => return Err(error),
        }
        Self::replayed(log, options).await
    }

    async fn replayed(log: Log, options: Options) -> Result<Self> {
        let replay = log.replay().await?;
        let decoded =
            admit(&replay.protocol, &replay.metadata, &options.topic).map_err(|e| at(&log, e))?;
        let partitions = replay.transactions.iter();
        let position = partitions
            .filter_map(|(id, version)| Some((commit::partition(&options.topic, id)?, *version)))
            .collect();
        let mut table = Self {
            state: TableState {
                version: replay.version,
                schema: Arc::new(decoded.schema),
                partitioning: Arc::new(decoded.partitioning),
                position,
                last_batch: None,
                notes: Notes::default(),
                owner: owner(&replay.metadata),
                files: BTreeMap::new(),
            },
            ids_stored: decoded.ids_stored,
            log,
            options,
            protocol: replay.protocol,
            metadata: replay.metadata,
            adds: HashMap::new(),
            recent: VecDeque::new(),
            restored: None,
            checkpoint: replay.checkpoint,
            seen: Instant::now(),
        };
        let files = table.live_files(&replay.adds).await?;
        for (add, file) in replay.adds.into_iter().zip(files) {
            table.insert(add, file);
        }
        table.find_last_batch().await?;
        table.check_rows_are_there()?;
        Ok(table)
    }

    /// The table as of the newest version that is known.
    pub fn state(&self) -> &TableState {
        &self.state
    }

    /// Reads what others committed since; true when the state changed.
    pub async fn refresh(&mut self) -> Result<bool> {
        let now = Instant::now();
        let mut versions = self.log.versions_after(self.state.version - 1).await?.into_iter();
        if versions.next() != Some(self.state.version) {
            // Cleaned away because there are checkpoints since, or the table was made anew.
            return self.reopen().await.map(|()| true);
        }
        let before = self.state.version;
        for version in versions {
            let next = self.state.version + 1;
            let commit = if version == next { self.log.read(next).await? } else { None };
            let Some(bytes) = commit else {
                return self.reopen().await.map(|()| true);
            };
            let commit = Commit::parse(&bytes).map_err(|e| at(&self.log, e))?;
            self.follow(commit).await?;
        }
        self.check_rows_are_there()?;
        self.seen = now;
        Ok(self.state.version != before)
    }

    /// A restore takes rows back but not the position, which is stored for good (delta-io/delta#1813): what lies between
    /// would never come again.
    fn check_rows_are_there(&self) -> Result<()> {
        let (Some(version), Some(newest)) = (self.restored, self.recent.back()) else {
            return Ok(());
        };
        let newest = newest.version;
        Err(at(
            &self.log,
            Error::refused(format!(
                "somebody restored its version {version}, which lacks what version {newest} has; its position does not tell"
            ))
            .hint(format!(
                "restore version {newest} and start again, or make the table anew from a new initial snapshot"
            )),
        ))
    }

    /// Reads the whole table again.
    async fn reopen(&mut self) -> Result<()> {
        let location = self.log.location().clone();
        let listed = Self::open(location, self.options.clone()).await?;
        if listed.as_ref().is_none_or(|table| table.state.version < self.state.version) {
            self.check_is_listed().await?;
        }
        let Some(mut table) = listed else {
            return Err(at(&self.log, Error::refused("the table is gone")));
        };
        let newest =
            table.recent.drain(..).filter(|entry| !self.recent.contains(entry)).collect::<Vec<_>>();
        table.recent = std::mem::take(&mut self.recent);
        table.recent.extend(newest);
        *self = table;
        Ok(())
    }

    /// Fails when the store has the version that is known, though its list, which may lag behind, does not have it.
    async fn check_is_listed(&self) -> Result<()> {
        let version = self.state.version;
        match self.log.read(version).await? {
            None => Ok(()),
            Some(_) => {
                let text = format!("the store does not list version {version}, which it has");
                Err(at(&self.log, Error::unavailable(text)))
            }
        }
    }

    /// Commits the plan as the next version. Calling again with the same plan finds out what became of an unknown one,
    /// and commits it if it is not in the table. Called with another plan of the same batch, it answers with a conflict
    /// if the earlier plan is in the table; a refresh then shows it. After an error nothing was sent.
    pub async fn publish(&mut self, plan: &CommitPlan) -> Result<Published> {
        if let Some(landed) = self.landed(plan.batch_id) {
            return Ok(landed.published(plan));
        }
        if self.seen.elapsed() > STALE && self.refresh().await? {
            return Ok(self
                .landed(plan.batch_id)
                .map_or(Published::Conflict, |landed| landed.published(plan)));
        }
        if !self.is_made_on_this_version(plan)? {
            return Ok(Published::Conflict);
        }
        let commit = self.prepare(plan).await?;
        let files = self.planned_files(plan, &commit)?;
        let version = self.state.version + 1;
        failpoint::reach(Point::K5);
        plan.check_age()?;
        match self.log.put(version, commit.bytes()?).await? {
            Put::Done => {
                failpoint::reach(Point::K7);
                self.apply(commit, files)?;
                self.seen = Instant::now();
                Ok(Published::Committed { version, found: false })
            }
            Put::Unclear(error) => self.clear_up(plan, version, error).await,
        }
    }

    /// Housekeeping after a commit: a checkpoint when one is due, and with it the removal of log files that have
    /// expired (unless `delta.enableExpiredLogCleanup` is false). A failure harms nothing and is tried again later.
    pub async fn maintain(&mut self, now_millis: i64) -> Result<()> {
        let interval = i64::try_from(self.options.checkpoint_interval).unwrap_or(i64::MAX);
        let version = self.state.version;
        if interval == 0 || version - self.checkpoint < interval {
            return Ok(());
        }
        self.log.checkpoint(version).await?;
        self.checkpoint = version;
        failpoint::reach(Point::K10b);
        let configuration = &self.metadata.configuration;
        let wanted =
            configuration.get("delta.enableExpiredLogCleanup").is_none_or(|value| value != "false");
        if wanted && let Some(retention) = log_retention(configuration) {
            let cutoff =
                now_millis.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
            let removed = self.log.clean(version, cutoff).await?;
            tracing::debug!(table = %self.log.location().url(), version, removed, "log checkpoint written");
        }
        Ok(())
    }

    /// The answer to a put was no clear yes: what the log says decides.
    async fn clear_up(
        &mut self,
        plan: &CommitPlan,
        version: i64,
        error: Error,
    ) -> Result<Published> {
        let bytes = match self.log.read(version).await {
            Ok(Some(bytes)) => bytes,
            // Not there, and it may still arrive: the same plan again meets it or comes first.
            Ok(None) => return Ok(Published::Unknown(error)),
            Err(unread) => return Ok(Published::Unknown(unread)),
        };
        let commit = Commit::parse(&bytes).map_err(|e| at(&self.log, e))?;
        if !commit.landed(version).is_some_and(|landed| landed.is(plan)) {
            return Ok(Published::Conflict);
        }
        // An earlier attempt may have made it: its deletion vectors count, not those just written.
        self.follow(commit).await?;
        Ok(Published::Committed { version, found: true })
    }

    fn landed(&self, batch: Uuid) -> Option<&Landed> {
        self.recent.iter().find(|landed| landed.batch == batch)
    }

    /// The live files of adds that are not our own.
    async fn live_files(&self, adds: &[Add]) -> Result<Vec<LiveFile>> {
        let partitions = files::Partitions::new(&self.state.schema, &self.state.partitioning)?;
        files::live(self.log.location(), adds, &self.state.files, &partitions).await
    }

    /// Applies a commit of the log, reading what is not in memory.
    async fn follow(&mut self, commit: Commit) -> Result<()> {
        let files = self.live_files(&commit.adds).await?;
        let newest = self.recent.back().map(|landed| landed.version);
        if let (Some(restored), Some(newest)) = (commit.restores(), newest) {
            self.restored = self.lacks(restored, newest).await?.then_some(restored);
        }
        self.apply(commit, files)
    }

    /// True when a version does not have what `newest` had: it is an earlier one, or somebody made it by restoring one.
    async fn lacks(&self, mut version: i64, newest: i64) -> Result<bool> {
        while version > newest {
            let Some(bytes) = self.log.read(version).await? else { return Ok(true) };
            let commit = Commit::parse(&bytes).map_err(|e| at(&self.log, e))?;
            version = commit.restores().unwrap_or(version - 1).min(version - 1);
        }
        Ok(version < newest)
    }

    /// Moves the state to the next version; nothing is changed when the commit is refused.
    fn apply(&mut self, commit: Commit, files: Vec<LiveFile>) -> Result<()> {
        let version = self.state.version + 1;
        let landed = commit.landed(version).map(|landed| (landed, commit.notes()));
        if commit.protocol.is_some() || commit.metadata.is_some() {
            let protocol = commit.protocol.unwrap_or_else(|| self.protocol.clone());
            let metadata = commit.metadata.unwrap_or_else(|| self.metadata.clone());
            let decoded =
                admit(&protocol, &metadata, &self.options.topic).map_err(|e| at(&self.log, e))?;
            if decoded.partitioning != *self.state.partitioning {
                return Err(at(&self.log, Error::refused("its partitioning was changed")));
            }
            self.state.schema = Arc::new(decoded.schema);
            self.ids_stored = decoded.ids_stored;
            self.protocol = protocol;
            self.state.owner = owner(&metadata);
            self.metadata = metadata;
        }
        for remove in &commit.removes {
            self.adds.remove(&remove.path);
            self.state.files.remove(&remove.path);
        }
        for (add, file) in commit.adds.into_iter().zip(files) {
            self.insert(add, file);
        }
        for transaction in &commit.transactions {
            if let Some(partition) = commit::partition(&self.options.topic, &transaction.app_id) {
                self.state.position.set(partition, transaction.version);
            }
        }
        self.state.version = version;
        if let Some((landed, notes)) = landed {
            self.remember(landed);
            self.state.notes = notes;
        }
        Ok(())
    }

    fn insert(&mut self, add: Add, file: LiveFile) {
        self.state.files.insert(add.path.clone(), file);
        self.adds.insert(add.path.clone(), add);
    }

    fn remember(&mut self, landed: Landed) {
        self.state.last_batch = Some(landed.batch);
        self.recent.push_back(landed);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// Looks for the newest batch and its notes among the newest commits, and for a restore after it; checkpoints do not
    /// keep them.
    async fn find_last_batch(&mut self) -> Result<()> {
        let newest = self.state.version;
        let mut restored = None;
        for version in (0..=newest).rev().take(LOOKED_BACK) {
            let Some(bytes) = self.log.read(version).await? else { break };
            let commit = Commit::parse(&bytes).map_err(|e| at(&self.log, e))?;
            restored = restored.or_else(|| commit.restores());
            if let Some(landed) = commit.landed(version) {
                if let Some(restored) = restored {
                    self.restored = self.lacks(restored, version).await?.then_some(restored);
                }
                self.remember(landed);
                self.state.notes = commit.notes();
                break;
            }
        }
        Ok(())
    }
}

fn owner(metadata: &Metadata) -> Option<Arc<str>> {
    metadata.configuration.get(protocol::OWNER).map(|owner| owner.as_str().into())
}

/// What the table's metadata says about its schema, when the table may be written.
fn admit(protocol: &Protocol, metadata: &Metadata, topic: &str) -> Result<schema::Decoded> {
    let fields = schema::fields(&metadata.schema_string)?;
    protocol::check(protocol, metadata, &fields)?;
    let decoded = schema::decode(metadata, &fields)?;
    match metadata.configuration.get(protocol::TOPIC) {
        Some(stored) if stored == topic => Ok(decoded),
        stored => Err(Error::refused(format!(
            "topic {topic} cannot write it: it belongs to topic {}",
            stored.map_or("none", String::as_str)
        ))
        .hint("give the topics different tables")),
    }
}

/// Puts a schema into the metadata: Delta's fields, and what Delta has no place for.
fn store_schema(
    metadata: &mut Metadata,
    schema: &TableSchema,
    fields: Vec<schema::Field>,
) -> Result<()> {
    metadata.map_columns(&fields);
    metadata.schema_string = schema::schema_string(fields)?;
    let configuration = &mut metadata.configuration;
    configuration.insert(protocol::KEY.to_owned(), json!(schema.key()).to_string());
    configuration.insert(protocol::LAST_ID.to_owned(), schema.last_id().to_string());
    if !schema.dropped().is_empty() {
        let dropped = json!(schema.dropped()).to_string();
        configuration.insert(protocol::DROPPED_IDS.to_owned(), dropped);
    }
    if let Some(partitions) = schema.partitions() {
        configuration.insert(protocol::PARTITIONS.to_owned(), partitions.to_string());
    }
    Ok(())
}

/// How long log files are kept; none when the property cannot be read, and nothing is cleaned then.
fn log_retention(configuration: &BTreeMap<String, String>) -> Option<Duration> {
    let Some(text) = configuration.get("delta.logRetentionDuration") else {
        return Some(LOG_RETENTION);
    };
    let mut words =
        text.split_whitespace().skip_while(|word| word.eq_ignore_ascii_case("interval"));
    let count: u64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.to_lowercase().trim_end_matches('s') {
        "week" => 7 * 24 * 3600,
        "day" => 24 * 3600,
        "hour" => 3600,
        "minute" => 60,
        "second" => 1,
        _ => return None,
    };
    words.next().is_none().then(|| Duration::from_secs(count.saturating_mul(unit)))
}

/// An error about the table itself, with its place.
fn at(log: &Log, error: Error) -> Error {
    error.context(format_args!("Delta table {}", log.location().url()))
}
