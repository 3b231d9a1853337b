//! Which files the snapshots of an Iceberg table refer to: all snapshots that its newest metadata has.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, ManifestFile, TableMetadata};

use super::catalog::{Catalog, LoadedTable, Lookup, TableName};
use super::known::{OWNER, TOPIC, manifest_list, notes};
use super::storage::Folder;
use super::{GC_ENABLED, SHARED_HOME, fault, files, stored};
use crate::error::{Error, Result};
use crate::sink::delta::Take;
use crate::sink::orphans::pace::Pace;
use crate::sink::storage::Location;

/// Manifests and lists read at a time.
const READS: usize = 32;
/// Times that metadata is read again, because snapshots of it expired meanwhile.
const ATTEMPTS: usize = 3;
/// Property of tables whose catalog keeps a history of its own, which their metadata does not tell.
const NESSIE: &str = "nessie.catalog.content-id";

/// An Iceberg table's snapshots, as far as they are read.
#[derive(Debug)]
pub(in crate::sink) struct References {
    catalog: Arc<Catalog>,
    name: TableName,
    /// The folder of the data files.
    root: Folder,
    /// The table's own location.
    home: Folder,
    io: FileIO,
    topic: String,
    owner: Option<Arc<str>>,
    /// The metadata that was read, none at first.
    seen: Option<String>,
    /// Manifests, and lists of them, that were read.
    read: HashSet<String>,
}

impl References {
    /// The tables below `location`, nothing of them read: what the catalog calls `name`, and what has its metadata in a
    /// place where this sink puts it without a catalog. Those that cdc-sink did not make are not among them.
    ///
    /// Where the catalog chose another place for the table, what is below `location` is not looked at.
    pub(in crate::sink) async fn open(
        location: &Location,
        catalog: &Arc<Catalog>,
        name: &TableName,
    ) -> Result<Vec<Self>> {
        let root = Folder::new(location.clone());
        let homes = [root.folder(SHARED_HOME), root.clone()];
        let mut tables = Vec::new();
        if matches!(**catalog, Catalog::Rest(_))
            && let Lookup::Found(mut loaded) = catalog.load(&root, name, None).await?
        {
            let chosen = loaded.metadata.location();
            let home = homes.iter().find(|home| home.is_named(chosen));
            let elsewhere = home.is_none();
            let (root, home) = match home {
                Some(home) => {
                    let shared = home.name() != root.name();
                    let root = stored(root.clone(), &mut loaded, catalog, name)?;
                    let home = if shared { root.folder(SHARED_HOME) } else { root.clone() };
                    (root, home)
                }
                None => {
                    let root = root.elsewhere(chosen)?;
                    let root = stored(root, &mut loaded, catalog, name)?;
                    (root.clone(), root)
                }
            };
            tables.extend(Self::new(Arc::clone(catalog), name, root, home, &loaded));
            if elsewhere {
                return Ok(tables);
            }
        }
        // Also where there is one with a catalog: it may have been written without one before.
        for home in homes {
            if let Lookup::Found(loaded) = files::load(&home, None).await? {
                let catalog = Arc::new(Catalog::Files);
                tables.extend(Self::new(catalog, name, root.clone(), home, &loaded));
            }
        }
        Ok(tables)
    }

    fn new(
        catalog: Arc<Catalog>,
        name: &TableName,
        root: Folder,
        home: Folder,
        loaded: &LoadedTable,
    ) -> Option<Self> {
        let properties = loaded.metadata.properties();
        let topic = properties.get(TOPIC).cloned()?;
        let owner = properties.get(OWNER).map(|owner| owner.as_str().into());
        let (io, seen, read) = (root.io(), None, HashSet::new());
        let name = name.clone();
        Some(Self { catalog, name, root, home, io, topic, owner, seen, read })
    }

    /// Refuses tables of which files may be needed that nothing here tells of.
    fn check(&self, metadata: &TableMetadata) -> Result<()> {
        let properties = metadata.properties();
        let refused = |why: &str| {
            Error::refused(format!(
                "cannot remove orphans of the Iceberg table {}: {why}",
                self.name
            ))
        };
        if properties.contains_key(NESSIE) {
            return Err(refused(
                "its catalog, Nessie, keeps versions that the table does not tell of",
            )
            .hint("use Nessie's own GC tool"));
        }
        let forbidden = properties.get(GC_ENABLED).is_some_and(|enabled| enabled == "false");
        // Where two formats share the data files, it is this sink that forbids it to others.
        if forbidden && self.home.name() == self.root.name() {
            return Err(refused("its property gc.enabled says that no file may be removed"));
        }
        if metadata.format_version() < FormatVersion::V2 {
            return Err(refused("it has format version 1"));
        }
        Ok(())
    }

    /// The table's folder, in the store to reach it with.
    pub(in crate::sink) fn location(&self) -> &Location {
        self.root.location()
    }

    /// The table's own location below that, as `_iceberg/`; empty when it is the same.
    pub(in crate::sink) fn home(&self) -> String {
        let below = self.root.relative(self.home.name()).unwrap_or_default();
        if below.is_empty() { String::new() } else { format!("{below}/") }
    }

    /// The topic that feeds the table.
    pub(in crate::sink) fn topic(&self) -> &str {
        &self.topic
    }

    /// The deployment that the table belongs to.
    pub(in crate::sink) fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }

    /// Gives every file to `take` that the newest metadata refers to; after the first time, that others of its snapshots
    /// do than those that were read.
    pub(in crate::sink) async fn read(
        &mut self,
        pace: &mut Pace<'_>,
        take: Take<'_>,
    ) -> Result<()> {
        let (mut tried, mut failure) = (self.seen.clone(), None);
        for _ in 0..ATTEMPTS {
            let loaded = match self.catalog.load(&self.home, &self.name, tried.as_deref()).await? {
                Lookup::Found(loaded) => loaded,
                Lookup::Unchanged => break,
                Lookup::Absent => {
                    return Err(Error::refused(format!("the Iceberg table {} is gone", self.name)));
                }
            };
            self.check(&loaded.metadata)?;
            self.take_metadata(&loaded, take).await?;
            match self.read_snapshots(&loaded.metadata, pace, take).await {
                Ok(()) => {
                    self.seen = Some(loaded.metadata_location);
                    return Ok(());
                }
                // Of a snapshot that expired since, files may be gone. Newer metadata does not have it.
                Err(e) => failure = Some(e),
            }
            tried = Some(loaded.metadata_location);
        }
        failure.map_or(Ok(()), Err)
    }

    /// A path as metadata has it, relative to the table's root where it is below that.
    fn relative<'p>(&self, path: &'p str) -> &'p str {
        self.root.relative(path).unwrap_or(path)
    }

    /// The files that metadata itself names.
    async fn take_metadata(&self, loaded: &LoadedTable, take: Take<'_>) -> Result<()> {
        let LoadedTable { metadata, metadata_location, .. } = loaded;
        take(self.relative(metadata_location));
        metadata.metadata_log().iter().for_each(|log| take(self.relative(&log.metadata_file)));
        for file in metadata.statistics_iter() {
            take(self.relative(&file.statistics_path));
        }
        for file in metadata.partition_statistics_iter() {
            take(self.relative(&file.statistics_path));
        }
        notes(metadata).files().for_each(&mut *take);
        if matches!(*self.catalog, Catalog::Files) {
            let home = self.home();
            for file in files::versions(&self.home).await? {
                take(&format!("{home}{file}"));
            }
        }
        Ok(())
    }

    async fn read_snapshots(
        &mut self,
        metadata: &TableMetadata,
        pace: &mut Pace<'_>,
        take: Take<'_>,
    ) -> Result<()> {
        let failed =
            |e, name: &TableName| fault::iceberg(format!("cannot read the table {name}"), e);
        let lists: Vec<String> =
            metadata.snapshots().map(|snapshot| snapshot.manifest_list().to_owned()).collect();
        for list in &lists {
            take(self.relative(list));
        }
        let (io, version) = (&self.io, metadata.format_version());
        let unread = lists.into_iter().filter(|list| !self.read.contains(list));
        let reads = unread.map(|list| async move {
            manifest_list(io, &list, version).await.map(|manifests| (list, manifests))
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        let (mut manifests, mut known, mut read) =
            (Vec::<ManifestFile>::new(), HashSet::new(), vec![]);
        while let Some((list, named)) = reads.try_next().await.map_err(|e| failed(e, &self.name))? {
            for manifest in named {
                let path = &manifest.manifest_path;
                take(self.relative(path));
                if !self.read.contains(path) && known.insert(path.clone()) {
                    manifests.push(manifest);
                }
            }
            read.push(list);
        }
        drop((reads, known));
        let total = u64::try_from(manifests.len()).ok();
        let reads = manifests.into_iter().map(|manifest| async move {
            manifest.load_manifest(io).await.map(|entries| (manifest.manifest_path, entries))
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        let mut done = 0;
        while let Some((path, manifest)) =
            reads.try_next().await.map_err(|e| failed(e, &self.name))?
        {
            // Those that it tells to be deleted as well: they are in the snapshot before.
            manifest.entries().iter().for_each(|entry| take(self.relative(entry.file_path())));
            read.push(path);
            done += 1;
            pace.step("reading Iceberg's manifests", done, total);
        }
        drop(reads);
        self.read.extend(read);
        Ok(())
    }
}
