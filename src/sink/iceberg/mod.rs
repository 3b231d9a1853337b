//! The Iceberg publisher: turns a [`CommitPlan`] into one snapshot, atomically.
//!
//! A commit encodes its delete files, manifests and manifest list, writes them side by side, then asks the catalog, once.
//! It costs what it touches, not what the table holds: everything it needs to know is kept in memory.
//!
//! Only a clean success is a commit. After any other answer the table is read again, and whether the snapshot (or
//! its batch) is in it decides; when that cannot be read, the attempt is kept and the same snapshot is sent again,
//! so no batch can come in twice.
//!
//! The position is in the snapshot's summary, and as a table property for catalogs that keep no history. Other
//! engines may write between our commits: [`IcebergTable::refresh`] brings in what they did.

mod arrange;
mod catalog;
mod commit;
mod deletes;
mod expire;
mod fault;
mod files;
mod known;
mod maintain;
mod manifests;
mod references;
mod rest;
mod schema;
mod storage;
mod summary;
#[cfg(test)]
#[expect(clippy::cognitive_complexity, reason = "tests tell a story, one after the other")]
mod tests;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::FormatVersion;

pub use self::catalog::{Catalog, TableName};
pub use self::rest::{Exchange, RestCatalog, RestOptions, Secret, Unanswered};
pub use self::schema::type_name;

pub(super) use self::references::References;

use self::catalog::{Answer, Commit, Creation, LoadedTable, Lookup};
use self::commit::{Attempt, Builder};
use self::known::{Known, PARTITIONS, Reader, TOPIC};
use self::maintain::Garbage;
use self::storage::Folder;
use crate::error::{Error, Result};
use crate::failpoint::{self, Point};
use crate::schema::TableSchema;
use crate::sink::storage::Location;
use crate::table::partition::Partitioning;
use crate::table::plan::{CommitPlan, Published, TableState};

/// The folder of everything that is Iceberg's when the data files are shared with another format.
const SHARED_HOME: &str = "_iceberg";

/// How long snapshots stay in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Snapshots kept however old they are; the current one is among them, so at least 1.
    pub min_count: usize,
    /// Snapshots kept at most, however young: each makes the metadata larger, which every commit writes.
    pub max_count: usize,
    /// Age at which snapshots go, milliseconds.
    pub max_age_millis: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { min_count: 10, max_count: 500, max_age_millis: 5 * 24 * 60 * 60 * 1000 }
    }
}

/// How a table is made and kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// The topic that feeds the table; a table of another topic is refused.
    pub topic: Arc<str>,
    /// The format version of new tables: 3 (deletion vectors), or 2 (position deletes) for readers that know no
    /// vectors. A table keeps the version it has.
    pub format_version: u8,
    /// Which snapshots stay.
    pub snapshots: Retention,
    /// True when another format names the same data files. Everything of Iceberg's own is in `_iceberg` below the
    /// table's root then, which is the Iceberg table's location, and other engines are kept from collecting
    /// garbage there.
    pub two_formats: bool,
}

impl Options {
    /// The Iceberg table's location.
    fn home(&self, root: &Folder) -> Folder {
        if self.two_formats { root.folder(SHARED_HOME) } else { root.clone() }
    }

    fn version(&self) -> Result<FormatVersion> {
        match self.format_version {
            2 => Ok(FormatVersion::V2),
            3 => Ok(FormatVersion::V3),
            other => Err(Error::invalid(format!("Iceberg's format version {other} is unknown"))
                .hint("give 2 or 3")),
        }
    }

    /// The properties of a new table.
    fn properties(&self, schema: &TableSchema) -> Result<HashMap<String, String>> {
        let mut properties = schema::properties(schema, &HashMap::new())?;
        let general = [
            (TOPIC, &*self.topic),
            ("write.delete.mode", "merge-on-read"),
            ("write.update.mode", "merge-on-read"),
            ("write.merge.mode", "merge-on-read"),
            ("write.metadata.delete-after-commit.enabled", "true"),
        ];
        properties.extend(general.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(partitions) = schema.partitions() {
            properties.insert(PARTITIONS.to_owned(), partitions.to_string());
        }
        if self.two_formats {
            properties.insert(GC_ENABLED.to_owned(), "false".to_owned());
        }
        Ok(properties)
    }
}

/// The folder in the store that the catalog hands out for the table, if it does.
fn stored(
    root: Folder,
    loaded: &mut LoadedTable,
    catalog: &Arc<Catalog>,
    name: &TableName,
) -> Result<Folder> {
    match loaded.storage.take() {
        Some(storage) => storage.open(root.location(), catalog, name).map(Folder::new),
        None => Ok(root),
    }
}

/// Table property: false forbids to remove files of the table.
const GC_ENABLED: &str = "gc.enabled";

/// An Iceberg table that is fed by one topic.
#[derive(Debug)]
pub struct IcebergTable {
    catalog: Arc<Catalog>,
    name: TableName,
    options: Options,
    root: Folder,
    io: FileIO,
    known: Known,
    /// A commit of which nobody knows whether it is in the table.
    pending: Option<Attempt>,
    garbage: Garbage,
}

/// What became of an attempt.
enum Fate {
    /// It is in the table.
    Landed(i64),
    /// It is not, and cannot be any more.
    Lost,
    /// The table is as it was before the attempt, which may still be under way.
    Open(Box<Attempt>),
    /// The table cannot be read. The attempt is kept.
    Unread(Error),
}

impl IcebergTable {
    /// Opens the table `name`, whose data files are under `location`. None when there is no such table; refused when
    /// it is not one that the sink may write to.
    pub async fn open(
        location: Location,
        catalog: Arc<Catalog>,
        name: TableName,
        options: Options,
    ) -> Result<Option<Self>> {
        let root = Folder::new(location);
        match catalog.load(&options.home(&root), &name, None).await? {
            Lookup::Found(loaded) => {
                Self::read(root, catalog, name, options, *loaded).await.map(Some)
            }
            Lookup::Absent | Lookup::Unchanged => Ok(None),
        }
    }

    /// Creates the table and its namespace. When another writer was faster, or the table exists, opens that.
    pub async fn create(
        location: Location,
        catalog: Arc<Catalog>,
        name: TableName,
        schema: Arc<TableSchema>,
        partitioning: Arc<Partitioning>,
        options: Options,
    ) -> Result<Self> {
        let root = Folder::new(location.clone());
        let ice = schema::to_iceberg(&schema, 0, None)?;
        let spec = schema::to_spec(&partitioning, &ice)?;
        let version = options.version()?;
        let properties = options.properties(&schema)?;
        let creation = Creation { schema: ice, spec, version, properties };
        let Some(created) = catalog.create(&options.home(&root), &name, creation).await? else {
            let opened = Self::open(location, catalog, name.clone(), options).await?;
            return opened.ok_or_else(|| {
                Error::unavailable(format!(
                    "the Iceberg table {name} vanished while it was created"
                ))
            });
        };
        let table = Self::read(root, catalog, name, options, created).await?;
        let made = table.known.metadata.format_version();
        if made != version {
            tracing::warn!(table = %table.name, asked = %version, %made, "the catalog made the table in another format version");
        }
        // Data files carry the ids, and those of another format's table cannot follow.
        if table.options.two_formats && *table.known.state.schema != *schema {
            return Err(Error::refused(format!(
                "the catalog gave the columns of the Iceberg table {} other ids than asked for",
                table.name
            ))
            .hint("write this table in one format only"));
        }
        Ok(table)
    }

    async fn read(
        root: Folder,
        catalog: Arc<Catalog>,
        name: TableName,
        options: Options,
        mut loaded: LoadedTable,
    ) -> Result<Self> {
        // A catalog may choose the location itself, as Nessie does. Data files that two formats share cannot follow.
        let chosen = loaded.metadata.location();
        let asked = options.home(&root);
        let follows = matches!(*catalog, Catalog::Rest(_)) && !options.two_formats;
        let root = if follows && !asked.is_named(chosen) { root.elsewhere(chosen)? } else { root };
        let root = stored(root, &mut loaded, &catalog, &name)?;
        let io = root.io();
        let reader = Reader { root: &root, io: &io, options: &options, name: &name.to_string() };
        let known = reader.read(loaded, None).await?;
        let garbage = Garbage::default();
        Ok(Self { catalog, name, options, root, io, known, pending: None, garbage })
    }

    /// Where the table's data files belong. The store in it is the one to write them with: it may hold credentials
    /// that the catalog hands out for this table alone.
    pub fn location(&self) -> &Location {
        self.root.location()
    }

    /// The table as last read or committed.
    pub fn state(&self) -> &TableState {
        &self.known.state
    }

    /// Reads what changed since; false when nothing did.
    pub async fn refresh(&mut self) -> Result<bool> {
        match self.look().await? {
            Lookup::Unchanged => Ok(false),
            Lookup::Absent => {
                Err(Error::refused(format!("the Iceberg table {} is gone", self.name)))
            }
            Lookup::Found(loaded) if self.known.is_current(&loaded.metadata) => {
                self.known.follow(*loaded);
                Ok(false)
            }
            Lookup::Found(loaded) => {
                self.reread(*loaded).await?;
                Ok(true)
            }
        }
    }

    /// Commits `plan`.
    ///
    /// Publishing the same plan again finds out what became of an unknown one. Called with another plan of the same
    /// batch, it answers with a conflict if the earlier plan is in the table; a refresh then shows it. After an error
    /// nothing was sent, or it was refused.
    pub async fn publish(&mut self, plan: &CommitPlan) -> Result<Published> {
        if let Some(pending) = self.pending.take() {
            let same_batch = pending.plan.batch_id == plan.batch_id;
            let same_files = pending.has_files_of(plan);
            let published = match self.fate(pending).await? {
                Fate::Unread(unread) => return Ok(Published::Unknown(unread)),
                Fate::Landed(version) if same_batch => {
                    Some(Published::Committed { version, found: true })
                }
                // Sent again as it is: the same snapshot cannot be in the table twice. Not when it has waited long: files
                // of it may be gone.
                Fate::Open(attempt)
                    if same_batch && !attempt.plan.unnamed.too_long(plan.now_millis) =>
                {
                    Some(self.send(*attempt).await?)
                }
                // The table is not the one that this plan was made on, and was read anew here: who planned has to, too.
                Fate::Landed(_) | Fate::Lost => Some(Published::Conflict),
                // Should an attempt given up still come in, the next one conflicts with it.
                Fate::Open(_) => None,
            };
            match published {
                // Planned anew since, with other data files: who planned has to read the table.
                Some(Published::Committed { .. }) if !same_files => return Ok(Published::Conflict),
                Some(published) => return Ok(published),
                None => {}
            }
        }
        if let Some(version) = self.known.version_of(plan.batch_id) {
            return Ok(match self.known.has_files_of(plan) {
                true => Published::Committed { version, found: true },
                false => Published::Conflict,
            });
        }
        if !self.known.fits(plan) {
            return Ok(Published::Conflict);
        }
        let builder = Builder::new(&self.known, &self.root, &self.io, &self.options, plan)?;
        let mut written = Vec::new();
        match builder.build(&mut written).await {
            Ok(attempt) => self.send(attempt).await,
            Err(e) => {
                self.garbage.discard(written);
                Err(e)
            }
        }
    }

    /// Removes files that no snapshot needs any more. Failing is harmless: what is left is tried again.
    pub async fn maintain(&mut self, now_millis: i64) -> Result<()> {
        let home = self.home();
        let Self { known, root, io, options, garbage, catalog, .. } = self;
        let keeper = maintain::Keeper { known, root, home: &home, io, options };
        keeper.collect(garbage, now_millis).await?;
        if matches!(**catalog, Catalog::Files) {
            keeper.old_metadata(garbage).await
        } else {
            Ok(())
        }
    }

    fn home(&self) -> Folder {
        self.options.home(&self.root)
    }

    /// What the catalog has now. It is not the table as it was before what is known.
    async fn look(&self) -> Result<Lookup> {
        let known = &self.known.metadata_location;
        let found = self.catalog.load(&self.home(), &self.name, Some(known)).await?;
        if let Lookup::Found(loaded) = &found {
            self.known.not_behind(loaded, &self.name)?;
        }
        Ok(found)
    }

    async fn reread(&mut self, loaded: LoadedTable) -> Result<()> {
        let name = self.name.to_string();
        let reader = Reader { root: &self.root, io: &self.io, options: &self.options, name: &name };
        self.known = reader.read(loaded, Some(&self.known)).await?;
        Ok(())
    }

    async fn send(&mut self, attempt: Attempt) -> Result<Published> {
        let refs = attempt.refs(&self.known);
        let commit = Commit {
            requirements: &attempt.requirements,
            updates: &attempt.updates,
            metadata: &attempt.metadata,
            refs: &refs,
            base: &self.known.metadata_location,
        };
        failpoint::reach(Point::K5);
        attempt.plan.check_age()?;
        let cause = match self.catalog.commit(&self.home(), &self.name, commit).await {
            Answer::Done(loaded) => {
                failpoint::reach(Point::K7);
                let version = attempt.sequence_number;
                self.land(attempt, *loaded);
                return Ok(Published::Committed { version, found: false });
            }
            Answer::Refused(e) => {
                self.garbage.discard(attempt.written);
                return Err(e);
            }
            Answer::Unclear(e) => Some(e),
            Answer::Conflict => None,
        };
        match self.fate(attempt).await? {
            Fate::Landed(version) => Ok(Published::Committed { version, found: true }),
            Fate::Lost => Ok(Published::Conflict),
            Fate::Unread(unread) => Ok(Published::Unknown(unread)),
            Fate::Open(attempt) => {
                self.pending = Some(*attempt);
                Ok(Published::Unknown(cause.unwrap_or_else(|| {
                    let text =
                        format!("the catalog refused a commit to {} for no reason seen", self.name);
                    Error::unavailable(text)
                })))
            }
        }
    }

    /// Reads the table and looks for the attempt.
    async fn fate(&mut self, attempt: Attempt) -> Result<Fate> {
        let loaded = match self.look().await {
            Ok(Lookup::Found(loaded)) => Some(*loaded),
            Ok(Lookup::Unchanged) => None,
            Ok(Lookup::Absent) => {
                return Err(Error::refused(format!("the Iceberg table {} is gone", self.name)));
            }
            Err(e) => {
                self.pending = Some(attempt);
                let text =
                    format!("a commit to the Iceberg table {} is in an unknown state", self.name);
                return Ok(Fate::Unread(Error::unavailable(text).because(e)));
            }
        };
        let version = attempt.sequence_number;
        let loaded = match loaded {
            Some(loaded) if attempt.is_in(&loaded.metadata) && attempt.is_based_on(&self.known) => {
                // Should another engine have committed on top, the table is taken as it was in between: the next
                // commit finds out.
                let newest = loaded.metadata.current_snapshot_id() == Some(attempt.snapshot_id);
                let loaded = if newest { loaded } else { attempt.predicted(&self.known) };
                self.land(attempt, loaded);
                return Ok(Fate::Landed(version));
            }
            loaded => loaded,
        };
        // In a file-system catalog the one place for the commit is taken once there is a newer version.
        let taken = loaded.is_some() && matches!(*self.catalog, Catalog::Files);
        if let Some(loaded) = loaded {
            self.reread(loaded).await?;
        }
        if attempt.is_in(&self.known.metadata) {
            return Ok(Fate::Landed(version));
        }
        if !taken && attempt.may_land(&self.known.metadata) {
            // Taken back to the snapshot that the attempt was made on, the table has had others since: it takes none with
            // their numbers. A catalog that does not mind finds the attempt's files.
            if self.known.metadata.last_sequence_number() >= version {
                return Ok(Fate::Lost);
            }
            return Ok(Fate::Open(Box::new(attempt)));
        }
        // Not by that snapshot; another attempt at the batch may have come in, or the catalog shows no history.
        self.garbage.discard(attempt.written);
        Ok(self.known.version_of(attempt.plan.batch_id).map_or(Fate::Lost, Fate::Landed))
    }

    /// Takes over a commit that is in the table.
    fn land(&mut self, attempt: Attempt, loaded: LoadedTable) {
        self.garbage.expire(&self.known.metadata, &attempt.expired);
        self.known.apply(attempt, loaded);
    }
}
