//! Catalogs: who says what the newest metadata of a table is, and who makes a commit atomic.

use std::collections::HashMap;
use std::fmt;

use iceberg::spec::{
    FormatVersion, Schema, SnapshotReference, TableMetadata, UnboundPartitionSpec,
};
use iceberg::{TableRequirement, TableUpdate};
use serde::Deserialize;

use super::files;
use super::rest::{RestCatalog, VendedStorage};
use super::storage::Folder;
use crate::error::{Error, Result};

/// A table's name in a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The namespace's levels, outermost first.
    pub namespace: Vec<String>,
    /// The table's name in it.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in &self.namespace {
            write!(f, "{level}.")?;
        }
        f.write_str(&self.name)
    }
}

/// An Iceberg catalog.
#[derive(Debug)]
pub enum Catalog {
    /// A catalog server that speaks Iceberg's REST protocol.
    Rest(RestCatalog),
    /// None: the table's own folder says what is newest. A commit puts `metadata/vN.metadata.json`, which must not
    /// exist yet; `version-hint.text` helps readers (and Spark's Hadoop catalog) to find it.
    Files,
}

/// A table as a catalog gives it.
#[derive(Debug)]
pub(super) struct LoadedTable {
    pub(super) metadata: TableMetadata,
    pub(super) metadata_location: String,
    /// Branches and tags.
    pub(super) refs: HashMap<String, SnapshotReference>,
    /// The store of the table's files, when the catalog hands it out.
    pub(super) storage: Option<VendedStorage>,
}

/// The part of table metadata that the `iceberg` crate reads but does not show.
#[derive(Deserialize)]
struct Refs {
    #[serde(default)]
    refs: HashMap<String, SnapshotReference>,
}

impl LoadedTable {
    /// The table whose metadata is this JSON.
    pub(super) fn parse(json: &[u8], metadata_location: String) -> Result<Self> {
        let failed = |e| {
            Error::refused(format!("cannot read the table metadata {metadata_location}")).because(e)
        };
        let metadata = serde_json::from_slice(json).map_err(failed)?;
        let Refs { refs } = serde_json::from_slice(json).map_err(failed)?;
        Ok(Self { metadata, metadata_location, refs, storage: None })
    }
}

/// What looking for a table found.
#[derive(Debug)]
pub(super) enum Lookup {
    /// There is no such table.
    Absent,
    /// The newest metadata is the one known.
    Unchanged,
    /// The newest metadata.
    Found(Box<LoadedTable>),
}

/// A table to be created.
pub(super) struct Creation {
    pub(super) schema: Schema,
    pub(super) spec: UnboundPartitionSpec,
    pub(super) version: FormatVersion,
    pub(super) properties: HashMap<String, String>,
}

/// How a catalog answered a commit.
#[derive(Debug)]
pub(super) enum Answer {
    /// The commit is in; the table as the catalog has it now.
    Done(Box<LoadedTable>),
    /// The catalog says that another commit came first. It may be ours: a proxy or a client library that repeats
    /// a request makes our own commit look like a rival.
    Conflict,
    /// Nobody knows whether the commit is in.
    Unclear(Error),
    /// The commit is not in and never will be.
    Refused(Error),
}

/// A commit as a catalog takes it.
pub(super) struct Commit<'a> {
    pub(super) requirements: &'a [TableRequirement],
    pub(super) updates: &'a [TableUpdate],
    /// The metadata that the updates make, for a catalog that cannot make it.
    pub(super) metadata: &'a TableMetadata,
    /// Branches and tags after the commit.
    pub(super) refs: &'a HashMap<String, SnapshotReference>,
    /// Where the metadata is that the commit is based on.
    pub(super) base: &'a str,
}

impl Catalog {
    /// Looks for the table; `known` is where the newest metadata known is.
    pub(super) async fn load(
        &self,
        home: &Folder,
        name: &TableName,
        known: Option<&str>,
    ) -> Result<Lookup> {
        match self {
            Self::Rest(rest) => rest.load(name, known).await,
            Self::Files => files::load(home, known).await,
        }
    }

    /// Creates the table, and its namespace if need be. None when there is one already.
    pub(super) async fn create(
        &self,
        home: &Folder,
        name: &TableName,
        creation: Creation,
    ) -> Result<Option<LoadedTable>> {
        match self {
            Self::Rest(rest) => rest.create(home, name, creation).await,
            Self::Files => files::create(home, creation).await,
        }
    }

    /// Commits, once.
    pub(super) async fn commit(
        &self,
        home: &Folder,
        name: &TableName,
        commit: Commit<'_>,
    ) -> Answer {
        match self {
            Self::Rest(rest) => rest.commit(name, commit).await,
            Self::Files => files::commit(home, commit).await,
        }
    }
}
