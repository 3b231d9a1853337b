//! Orphans: files in a table's folder that no version refers to, left behind by attempts at commits that did not get
//! into the table, and by versions that nobody can read any more.
//!
//! A file is removed when all of this is true of it: its name has a form that this sink gives, or a catalog on its behalf
//! ([`Form`]); no version that can still be read in any format refers to it, nor does a note of the newest one; and it is
//! older than asked for, by the clock of the store. What has another form is counted and left alone.
//!
//! # Why nothing is removed that somebody needs
//!
//! Files are listed first and references read then, so a commit between the two is seen; before files are removed, what
//! was committed since is read as well. What remains are commits that come later and name files that are old by then. This
//! sink makes none: it does not send a commit whose files have waited for it longer than a quarter of an hour, but writes
//! them again ([`crate::table::plan::Unnamed`]), also when nobody knows what became of an attempt. Between that quarter and
//! the hour that files must be old at the least is room for a request that is on its way.
//!
//! # What it holds
//!
//! The name and size of every file in the folder but Delta's log, about 110 bytes each; the names of the manifests that were
//! read. References are streamed.

mod files;
mod form;
pub(in crate::sink) mod pace;
mod staged;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

pub use self::form::Form;

use self::files::{Files, Found};
use self::pace::Pace;
use super::delta;
use super::iceberg::{self, Catalog, TableName};
use super::storage::{self, Location};
use crate::error::{Error, Result};

/// Files younger than this may be part of a commit that is under way.
pub const SAFE_AGE: Duration = Duration::from_secs(60 * 60);
/// Files removed before what was committed meanwhile is read again.
const AT_A_TIME: usize = 5000;

/// Where a table is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The table's name for logs and errors.
    pub name: Arc<str>,
    /// Its root.
    pub location: Location,
    /// Where Iceberg tables are found.
    pub catalog: Arc<Catalog>,
    /// Its name there.
    pub table: TableName,
}

/// What is removed.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Orphans at least so old.
    pub older_than: Duration,
    /// Nothing is.
    pub dry_run: bool,
}

/// A file that no version refers to.
#[derive(Debug, Clone, Copy)]
pub struct Unneeded<'a> {
    /// What it is; [`Form::Foreign`] is left alone.
    pub form: Form,
    /// Its path, relative to the table's root.
    pub path: &'a str,
    /// Bytes.
    pub size: u64,
}

/// What was found and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files in the table's folder.
    pub files: u64,
    /// Orphans that are old enough.
    pub orphans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were removed.
    pub removed: u64,
    /// What would be orphans but is too young.
    pub young: u64,
    /// Files that no version refers to, of forms that this sink does not write.
    pub unknown: u64,
}

/// The logs in a table's folder.
#[derive(Debug, Default)]
struct Logs {
    delta: bool,
    /// Where the metadata of Iceberg tables is, relative to the table's root.
    iceberg: BTreeSet<&'static str>,
}

/// A table, with its versions in every format that it has.
#[derive(Debug)]
pub struct Table {
    /// Where it is, as far as it is known from outside.
    place: Place,
    location: Location,
    delta: Option<delta::References>,
    iceberg: Vec<iceberg::References>,
}

impl Table {
    /// Opens the table at `place`; none when there is none that cdc-sink made.
    pub async fn open(place: Place) -> Result<Option<Self>> {
        let Place { location, catalog, table, .. } = &place;
        let iceberg = iceberg::References::open(location, catalog, table).await?;
        // The catalog may have chosen where it is, and credentials for it.
        let location = iceberg.first().map_or(location, |table| table.location()).clone();
        let delta = delta::References::open(location.clone()).await?;
        let exists = delta.is_some() || !iceberg.is_empty();
        Ok(exists.then_some(Self { place, location, delta, iceberg }))
    }

    /// The topic that feeds the table.
    pub fn topic(&self) -> &str {
        let delta = self.delta.as_ref().map(delta::References::topic);
        let iceberg = || self.iceberg.first().map(iceberg::References::topic);
        delta.or_else(iceberg).unwrap_or_default()
    }

    /// Where it is: the catalog may have chosen that.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The deployment that the table belongs to, as its authority says: Delta, unless `iceberg_first`.
    pub fn owner(&self, iceberg_first: bool) -> Option<&Arc<str>> {
        let delta = self.delta.as_ref().map(delta::References::owner);
        let iceberg = self.iceberg.first().map(iceberg::References::owner);
        let (first, second) = if iceberg_first { (iceberg, delta) } else { (delta, iceberg) };
        first.or(second).flatten()
    }

    /// Removes the table's orphans, or finds them only. `tell` gets every one of them, and the files that are left alone
    /// because their form is unknown, before any is removed.
    ///
    /// An error leaves the table whole: files that were not removed are found again.
    pub async fn sweep(
        &mut self,
        rules: &Rules,
        tell: &mut (dyn FnMut(Unneeded<'_>) + Send),
    ) -> Result<Summary> {
        let name = Arc::clone(&self.place.name);
        let mut pace = Pace::new(&name);
        let (mut files, logs) = self.list(rules.older_than, &mut pace).await?;
        if let Err(unread) = self.check_read(&logs) {
            // A format may have been made since the table was opened.
            match Self::open(self.place.clone()).await {
                Ok(Some(table)) => *self = table,
                Ok(None) => return Err(unread),
                Err(e) => return Err(unread.because(e)),
            }
            self.check_read(&logs)?;
        }
        self.read(&mut files, &mut pace).await?;
        let left = files.left();
        for Found { path, form, size } in left.orphans.iter().chain(&left.unknown) {
            tell(Unneeded { form: *form, path, size: *size });
        }
        let count = |files: &[Found]| u64::try_from(files.len()).unwrap_or(u64::MAX);
        let mut summary = Summary {
            files: files.listed(),
            orphans: count(&left.orphans),
            bytes: left.orphans.iter().map(|orphan| orphan.size).sum(),
            removed: 0,
            young: left.young,
            unknown: count(&left.unknown),
        };
        if rules.dry_run {
            return Ok(summary);
        }
        for orphans in left.orphans.chunks(AT_A_TIME) {
            self.read(&mut files, &mut pace).await?;
            let orphans = orphans.iter().filter(|orphan| files.is_orphan(orphan));
            summary.removed += self.remove(orphans.map(|orphan| orphan.path.as_str())).await?;
            pace.step("removing orphans", summary.removed, Some(summary.orphans));
        }
        Ok(summary)
    }

    /// Lists the table's folder: its files, and the logs that are among them.
    async fn list(&self, older_than: Duration, pace: &mut Pace<'_>) -> Result<(Files, Logs)> {
        let older_than = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let newest = self.location.store_millis().await?.saturating_sub(older_than);
        let (root, mut files) = (self.location.path().as_ref(), Files::default());
        let mut logs = Logs::default();
        let mut listed = self.location.store().list(Some(self.location.path()));
        let failed = |e| storage::failed(format!("cannot list {}", self.location.url()), e);
        while let Some(meta) = listed.try_next().await.map_err(failed)? {
            let Some(path) = meta.location.as_ref().strip_prefix(root) else { continue };
            let path = path.trim_start_matches('/');
            logs.iceberg.extend(form::home(path));
            logs.delta |= form::is_version(path);
            files.list(path, meta.size, meta.last_modified.timestamp_millis() > newest);
            pace.step("listing files", files.listed(), None);
        }
        for staged in staged::list(&self.location).await? {
            files.list(&staged.path, staged.size, staged.modified_millis > newest);
        }
        Ok((files, logs))
    }

    /// Fails when there is a log whose versions cannot be read here.
    fn check_read(&self, logs: &Logs) -> Result<()> {
        let unread = |what: &str| {
            Error::refused(format!(
                "cannot remove orphans of {}: its folder {} has {what}, of a table that is not found",
                self.place.name,
                self.location.url()
            ))
            .hint("give --to and --catalog as the instance has them that writes it; if that table was dropped, remove its folder")
        };
        if logs.delta && self.delta.is_none() {
            return Err(unread("a Delta log that cdc-sink did not make"));
        }
        for home in &logs.iceberg {
            if !self.iceberg.iter().any(|table| table.home() == *home) {
                return Err(unread(&format!("Iceberg metadata in {home}metadata")));
            }
        }
        Ok(())
    }

    /// Takes what versions refer to out of `files`: all of them at first, then those that came since.
    async fn read(&mut self, files: &mut Files, pace: &mut Pace<'_>) -> Result<()> {
        let mut take = |path: &str| files.refer(path);
        if let Some(delta) = &mut self.delta {
            delta.read(pace, &mut take).await?;
        }
        for iceberg in &mut self.iceberg {
            iceberg.read(pace, &mut take).await?;
        }
        Ok(())
    }

    /// Removes these files, in bulk where the store can; how many were there.
    async fn remove(&self, paths: impl Iterator<Item = &str>) -> Result<u64> {
        let (staged, paths): (Vec<_>, Vec<_>) =
            paths.partition(|path| form::staged(path).is_some());
        let mut removed = 0;
        for path in staged {
            removed += u64::from(staged::remove(&self.location, path).await?);
        }
        let objects: Vec<_> = paths.into_iter().map(|path| Ok(self.location.file(path))).collect();
        let mut answers = self.location.store().delete_stream(stream::iter(objects).boxed());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) => removed += 1,
                // The sink removes what it discards itself.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => {
                    let what = format!("cannot remove orphans of {}", self.location.url());
                    return Err(storage::failed(what, e));
                }
            }
        }
        Ok(removed)
    }
}
