//! A lake table: the physical layer under one or two formats' logs.
//!
//! With two formats the first one's log is the authority: a batch is committed once it is there. The other follows
//! with the same plan, and after a crash in between, an outage or somebody's commit it is brought up from the
//! authority's state, never from Kafka.

mod crowd;
mod follower;
mod owner;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::time::Instant;

use self::crowd::Crowd;
pub use self::owner::Owner;
pub use self::turns::Turns;
use super::delta::{self, DeltaTable};
use super::iceberg::{self, Catalog, IcebergTable, TableName};
use super::storage::Location;
use super::{Committed, Merged, Sink};
use crate::change::{Batch, Departed, Moves, Origin};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::key::Key;
use crate::metrics::{self, CommitOutcome};
use crate::position::{Position, TopicId};
use crate::retry;
use crate::schema::TableSchema;
use crate::table::files::read_rows;
use crate::table::notes::Notes;
use crate::table::partition::Partitioning;
use crate::table::physical::{Options, Planned, Table};
use crate::table::plan::{CommitPlan, Counts, Published, TableState};

/// Attempts at one commit while others commit in between, before the caller is told to come again.
const CONFLICTS: usize = 20;

/// One format's log of a table: where it is and how it is made.
#[derive(Debug, Clone)]
pub enum LogSetup {
    /// A Delta log.
    Delta(delta::Options),
    /// An Iceberg table in a catalog.
    Iceberg {
        /// The catalog.
        catalog: Arc<Catalog>,
        /// The table's name there.
        name: TableName,
        /// Its options.
        options: iceberg::Options,
    },
}

/// How a lake table is kept.
#[derive(Debug, Clone)]
pub struct LakeOptions {
    /// The table's name for logs and metrics.
    pub name: Arc<str>,
    /// The table's root.
    pub location: Location,
    /// The first is the authority; a second follows.
    pub logs: Vec<LogSetup>,
    /// The partition fields as configured, empty for none.
    pub partition_by: String,
    /// What the physical layer may take.
    pub physical: Options,
    /// The deployment that writes it; none for a table that all may write.
    pub owner: Option<Owner>,
    /// What tables wait for, so that they do not do everything at once.
    pub turns: Turns,
    /// Tells the wall time.
    pub clock: Clock,
}

/// A lake table as a sink.
#[derive(Debug)]
pub struct LakeSink {
    options: LakeOptions,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    table: Table,
    authority: Log,
    follower: Option<Log>,
    /// The authority's version that the table in memory is.
    version: i64,
    /// The authority's version that the follower is known to be like.
    followed: Option<i64>,
    /// The table in memory may be half-way between two versions: it has to be opened again.
    stale: bool,
    /// The newest batch as it was planned, when its commit failed: its data files serve the next attempt. Else an outage,
    /// or a full disk, would get a copy of them with each.
    tried: Option<Planned>,
    crowd: Crowd,
}

#[derive(Debug)]
enum Log {
    Delta(Box<DeltaTable>),
    Iceberg(Box<IcebergTable>),
}

impl LakeSink {
    /// A sink for the table; nothing is read or made yet.
    pub fn new(options: LakeOptions) -> Self {
        Self { options, open: None }
    }

    /// Opens the table if it exists and is not open yet.
    async fn open(&mut self) -> Result<Option<&mut Open>> {
        if self.open.as_ref().is_none_or(|open| open.stale) {
            self.open = None;
            let _turn = self.options.turns.to_open().await;
            let Some(setup) = self.options.logs.first() else {
                return Err(Error::internal("a lake table needs a format"));
            };
            if let Some(authority) = setup.open(&self.options.location).await? {
                self.open = Some(self.open_on(authority).await?);
            }
        }
        Ok(self.open.as_mut())
    }

    async fn open_on(&self, authority: Log) -> Result<Open> {
        let LakeOptions { location, physical, clock, logs, .. } = &self.options;
        let home = authority.location().unwrap_or(location).clone();
        let table = Table::open(home, authority.state().clone(), physical.clone()).await?;
        let follower = match logs.get(1) {
            None => None,
            Some(setup) => Some(match setup.open(location).await? {
                Some(log) => log,
                None => {
                    let state = authority.state();
                    setup
                        .create(location, &state.schema, &state.partitioning, clock.now_millis())
                        .await?
                }
            }),
        };
        let version = authority.state().version;
        let (followed, stale, tried, crowd) = (None, false, None, Crowd::default());
        let mut open = Open { table, authority, follower, version, followed, stale, tried, crowd };
        open.check_owner(&self.options)?;
        open.bring_up(&self.options).await?;
        Ok(open)
    }

    async fn create(&self, schema: &Arc<TableSchema>) -> Result<Open> {
        let LakeOptions { location, partition_by, clock, logs, name, .. } = &self.options;
        let setup = logs.first().ok_or_else(|| Error::internal("a lake table needs a format"))?;
        let partitioning = Arc::new(Partitioning::parse(partition_by, schema)?);
        tracing::info!(table = &**name, url = location.url().as_str(), "creating the table");
        let authority = setup.create(location, schema, &partitioning, clock.now_millis()).await?;
        self.open_on(authority).await
    }
}

impl Sink for LakeSink {
    async fn position(&mut self) -> Result<Position> {
        let was_open = self.open.is_some();
        let Some(open) = self.open().await? else { return Ok(Position::default()) };
        if was_open {
            open.refresh().await?;
        }
        Ok(open.table.position().clone())
    }

    async fn departed(&mut self, keys: &[Key]) -> Result<Departed> {
        let now = self.options.clock.now_millis();
        let Some(open) = self.open().await? else { return Ok(Notes::default().departed(now)) };
        open.refresh().await?;
        Ok(Departed { present: open.table.present(keys), ..open.table.notes().departed(now) })
    }

    fn schema(&self) -> Option<Arc<TableSchema>> {
        self.open.as_ref().map(|open| Arc::clone(open.table.schema()))
    }

    fn partition_columns(&self) -> Vec<String> {
        let fields = self.open.iter().flat_map(|open| &open.table.partitioning().fields);
        fields.map(|field| field.column.clone()).collect()
    }

    fn topic_id(&self) -> Option<TopicId> {
        let open = self.open.as_ref().filter(|open| open.stranger(&self.options).is_none())?;
        open.table.notes().topic_id()
    }

    fn timestamps_ms(&self) -> BTreeMap<i32, i64> {
        let open = self.open.as_ref();
        open.map(|open| open.table.notes().timestamps_ms().clone()).unwrap_or_default()
    }

    fn moves(&self) -> Moves {
        let Some(open) = &self.open else { return Moves::default() };
        let notes = open.table.notes();
        Moves::new(notes.moves(), |key_change| notes.get(key_change).is_some())
    }

    async fn merge(&mut self, batch: &Batch) -> Result<Merged> {
        if let Some(open) = &self.open {
            tokio::time::sleep(open.crowd.wait(Instant::now())).await;
        }
        let _turn = self.options.turns.to_merge().await;
        if self.open().await?.is_none() {
            self.open = Some(self.create(&batch.schema).await?);
            failpoint::reach(Point::K14);
        }
        let Some(open) = self.open.as_mut() else {
            return Err(Error::internal("the table is not open"));
        };
        let merged = open.merge(batch, &self.options).await?;
        if let Merged::Committed(_) = merged {
            if let Some(owner) = &mut self.options.owner {
                // It is ours now. Whoever takes it over from us is not fought.
                owner.take_over = false;
            }
            open.follow(&self.options).await?;
            open.maintain(self.options.clock.now_millis()).await;
        }
        Ok(merged)
    }
}

impl Open {
    /// Commits the batch to the authority.
    async fn merge(&mut self, batch: &Batch, options: &LakeOptions) -> Result<Merged> {
        let started = Instant::now();
        let (mut waits, mut begun) = (retry::races(), None::<Instant>);
        if self.lacks_notes(batch) || !self.crowd.is_alone(started) {
            begun = Some(started);
            self.refresh().await?;
        }
        for attempt in 0..CONFLICTS {
            self.check_owner(options)?;
            if self.has(batch) {
                // An earlier attempt reached the table after all.
                return Ok(self.committed(batch));
            }
            if self.table.position().advance(&batch.ranges).is_err() {
                if self.refresh().await? {
                    continue;
                }
                let (table, format) = (&options.name, self.authority.format());
                metrics::commit_ended(table, format, CommitOutcome::Fenced, started.elapsed());
                return Ok(Merged::Fenced { stored: self.table.position().clone() });
            }
            let complete = match self.complete(batch).await? {
                Ok(complete) => complete,
                Err(unfit) => return Ok(unfit),
            };
            let batch = complete.as_ref().unwrap_or(batch);
            let now = options.clock.now_millis();
            let mut planned = self.plan(batch, now).await?;
            if planned.commit.unnamed.too_long(options.clock.now_millis()) {
                self.tried = Some(planned);
                continue;
            }
            self.claim(&mut planned.commit, options);
            let done = CommitOutcome::Committed;
            let published = self.authority.timed_publish(&planned.commit, options, done).await;
            if let Some(begun) = begun.take() {
                self.crowd.attempted(begun.elapsed());
            }
            match published {
                Ok(Published::Committed { version, .. }) => {
                    self.crowd.committed(Instant::now());
                    let is_even = self.followed == Some(self.version);
                    self.apply(&planned, options, version)?;
                    if is_even {
                        self.publish_to_follower(&planned.commit, options).await?;
                    }
                    return Ok(self.committed(batch));
                }
                Ok(Published::Conflict) => {
                    self.tried = Some(planned);
                    // Not after the refresh: what others commit meanwhile would make the next attempt a lost one.
                    if attempt > 2 {
                        tokio::time::sleep(waits.next().unwrap_or_default()).await;
                    }
                    begun = Some(Instant::now());
                    self.refresh().await?;
                }
                // After what is unknown the caller comes again with the same batch, and with no other before.
                Ok(Published::Unknown(error)) | Err(error) => {
                    self.tried = Some(planned);
                    return Err(error);
                }
            }
        }
        Err(Error::unavailable(format!(
            "cannot commit to {}: others committed first {CONFLICTS} times in a row",
            options.name
        )))
    }

    /// Plans the batch, with the data files of an attempt before where there was one.
    async fn plan(&mut self, batch: &Batch, now_millis: i64) -> Result<Planned> {
        let Some(tried) = self.tried.take() else {
            return self.table.plan(batch, now_millis).await;
        };
        let planned = self.table.replan(batch, &tried, now_millis).await;
        if planned.is_err() {
            self.tried = Some(tried);
        }
        planned
    }

    /// The batch with what only the table knows of, none when it stands as it is; or why it has to be made anew.
    async fn complete(&mut self, batch: &Batch) -> Result<Result<Option<Batch>, Merged>> {
        if !batch.schema.covers(self.table.schema()) {
            return Ok(Err(Merged::Outdated));
        }
        let (keys, coming, is_occupied) = self.table.stale(batch).await?;
        if !keys.is_empty() {
            return Ok(Err(Merged::Stale { keys, coming }));
        }
        if is_occupied {
            return Ok(Err(Merged::Occupied));
        }
        let numbered = match batch.matched.then(|| self.table.numbered(batch)) {
            None => None,
            Some(Ok(numbered)) => Some(numbered),
            Some(Err(absent)) => {
                let absent = absent.into_iter().map(Origin::Row).collect();
                return Ok(Err(Merged::Missing { absent }));
            }
        };
        let confirmed = self.table.confirmed(numbered.as_ref().unwrap_or(batch)).await?;
        let complete = confirmed.or(numbered);
        let batch = complete.as_ref().unwrap_or(batch);
        if batch.strict {
            let absent = self.table.absent(batch).await?;
            if !absent.is_empty() {
                return Ok(Err(Merged::Missing { absent }));
            }
        }
        Ok(Ok(complete))
    }

    /// True when others may have noted meanwhile what the batch needs.
    fn lacks_notes(&self, batch: &Batch) -> bool {
        let notes = self.table.notes();
        batch.holes.iter().any(|hole| match hole.from {
            Origin::Departed(key_change) => notes.get(key_change).is_none(),
            Origin::Row(_) => false,
        })
    }

    /// True when every range ends at the stored position: the batch is in the table. One without ranges is when none
    /// came after it.
    fn has(&self, batch: &Batch) -> bool {
        let stored = self.table.position();
        match batch.ranges.as_slice() {
            [] => self.table.last_batch() == Some(batch.id),
            ranges => ranges.iter().all(|range| stored.get(range.partition) == Some(range.to)),
        }
    }

    fn apply(&mut self, planned: &Planned, options: &LakeOptions, version: i64) -> Result<()> {
        if planned.commit.schema_changed {
            failpoint::reach(Point::K14b);
        }
        self.stale = true;
        self.table.applied(planned)?;
        self.version = version;
        self.stale = false;
        let Counts { inserted, updated, deleted } = planned.commit.counts;
        metrics::rows_merged(&options.name, inserted, updated, deleted);
        if planned.unfilled > 0 {
            metrics::missing_values(&options.name, planned.unfilled);
            tracing::warn!(
                table = &*options.name,
                values = planned.unfilled,
                "changes left out values of rows that are nowhere; they are null now (option missing-value)"
            );
        }
        tracing::debug!(table = &*options.name, version, inserted, updated, deleted, "committed");
        if self.follower.is_some() {
            failpoint::reach(Point::K6b);
        }
        Ok(())
    }

    fn committed(&self, batch: &Batch) -> Merged {
        let logs = [Some(&self.authority), self.follower.as_ref()].into_iter().flatten();
        let versions = logs.map(|log| (log.format().to_owned(), log.state().version)).collect();
        let position = self.table.position().clone();
        Merged::Committed(Committed::new(batch.ranges.clone(), position, versions))
    }

    /// Reads what others committed to the authority. The log may know it already: clearing up how a commit ended, it
    /// reads the table by itself.
    async fn refresh(&mut self) -> Result<bool> {
        let read = self.authority.refresh().await?;
        let state = self.authority.state();
        // Iceberg's schema can change without a new version.
        let changed = read
            || state.version != self.version
            || state.schema != *self.table.schema()
            || state.position != *self.table.position();
        if changed {
            self.crowd.met(Instant::now());
            self.followed = None;
            self.stale = true;
            self.table.refresh(self.authority.state().clone()).await?;
            self.version = self.authority.state().version;
            self.stale = false;
        }
        Ok(changed)
    }

    async fn maintain(&mut self, now_millis: i64) {
        for log in [Some(&mut self.authority), self.follower.as_mut()].into_iter().flatten() {
            if let Err(error) = log.maintain(now_millis).await {
                tracing::warn!(
                    error = error.report(),
                    format = log.format(),
                    "upkeep failed; it is tried again later"
                );
            }
            failpoint::reach(Point::K10);
        }
    }
}

impl LogSetup {
    async fn open(&self, location: &Location) -> Result<Option<Log>> {
        Ok(match self {
            Self::Delta(options) => DeltaTable::open(location.clone(), options.clone())
                .await?
                .map(|table| Log::Delta(Box::new(table))),
            Self::Iceberg { catalog, name, options } => {
                let catalog = Arc::clone(catalog);
                IcebergTable::open(location.clone(), catalog, name.clone(), options.clone())
                    .await?
                    .map(|table| Log::Iceberg(Box::new(table)))
            }
        })
    }

    async fn create(
        &self,
        location: &Location,
        schema: &Arc<TableSchema>,
        partitioning: &Arc<Partitioning>,
        now_millis: i64,
    ) -> Result<Log> {
        let (location, schema) = (location.clone(), Arc::clone(schema));
        let partitioning = Arc::clone(partitioning);
        Ok(match self {
            Self::Delta(options) => Log::Delta(Box::new(
                DeltaTable::create(location, schema, partitioning, options.clone(), now_millis)
                    .await?,
            )),
            Self::Iceberg { catalog, name, options } => {
                let (catalog, name) = (Arc::clone(catalog), name.clone());
                let options = options.clone();
                Log::Iceberg(Box::new(
                    IcebergTable::create(location, catalog, name, schema, partitioning, options)
                        .await?,
                ))
            }
        })
    }
}

impl Log {
    fn format(&self) -> &'static str {
        match self {
            Self::Delta(_) => "delta",
            Self::Iceberg(_) => "iceberg",
        }
    }

    /// Where the data files belong, when the log knows better than the configuration.
    fn location(&self) -> Option<&Location> {
        match self {
            Self::Delta(_) => None,
            Self::Iceberg(table) => Some(table.location()),
        }
    }

    fn state(&self) -> &TableState {
        match self {
            Self::Delta(table) => table.state(),
            Self::Iceberg(table) => table.state(),
        }
    }

    async fn refresh(&mut self) -> Result<bool> {
        match self {
            Self::Delta(table) => table.refresh().await,
            Self::Iceberg(table) => table.refresh().await,
        }
    }

    async fn publish(&mut self, plan: &CommitPlan) -> Result<Published> {
        match self {
            Self::Delta(table) => table.publish(plan).await,
            Self::Iceberg(table) => table.publish(plan).await,
        }
    }

    /// Publishes; what became of it is counted, success as `done`.
    async fn timed_publish(
        &mut self,
        plan: &CommitPlan,
        options: &LakeOptions,
        done: CommitOutcome,
    ) -> Result<Published> {
        failpoint::reach(Point::K4);
        let started = Instant::now();
        let published = self.publish(plan).await;
        let outcome = match &published {
            Ok(Published::Committed { found: true, .. }) => CommitOutcome::Recovered,
            Ok(Published::Committed { found: false, .. }) => done,
            Ok(Published::Conflict) => CommitOutcome::Conflict,
            Ok(Published::Unknown(_)) => CommitOutcome::Unknown,
            Err(_) => CommitOutcome::Failed,
        };
        metrics::commit_ended(&options.name, self.format(), outcome, started.elapsed());
        published
    }

    async fn maintain(&mut self, now_millis: i64) -> Result<()> {
        match self {
            Self::Delta(table) => table.maintain(now_millis).await,
            Self::Iceberg(table) => table.maintain(now_millis).await,
        }
    }
}

/// True when the table is there and has a position of its topic.
pub async fn is_there(options: &LakeOptions) -> Result<bool> {
    let Some(setup) = options.logs.first() else { return Ok(false) };
    let log = setup.open(&options.location).await?;
    Ok(log.is_some_and(|log| !log.state().position.is_empty()))
}

/// Reads the table back in each of its formats: format, and every row that is not deleted.
pub async fn read(options: &LakeOptions) -> Result<Vec<(&'static str, Vec<RecordBatch>)>> {
    let mut formats = Vec::new();
    for setup in &options.logs {
        let Some(log) = setup.open(&options.location).await? else { continue };
        let location = log.location().unwrap_or(&options.location);
        let mut batches = Vec::new();
        for live in log.state().files.values() {
            let rows = (0..u32::try_from(live.file.rows).unwrap_or(u32::MAX))
                .filter(|row| !live.deleted.contains(u64::from(*row)))
                .collect::<Vec<_>>();
            let columns = log.state().schema.columns();
            let (read, _) = read_rows(location, &live.file, columns, &rows).await?;
            batches.extend(read);
        }
        formats.push((log.format(), batches));
    }
    Ok(formats)
}
