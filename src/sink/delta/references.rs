//! Which files the versions of a Delta table refer to: every version that can still be read.
//!
//! Whatever file a version has, a commit or a checkpoint names it that is in the log's folder. So all commits are read that
//! are there, and of the checkpoints those that commits do not lead to from an older one: as a rule the oldest one alone.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch, StringArray, StructArray};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use percent_encoding::percent_decode_str;
use regex::Regex;
use serde::Deserialize;

use super::commit::{self, Commit};
use super::log::{COMMIT, Log};
use super::{LOOKED_BACK, admit, at, owner, protocol, vectors};
use crate::error::{Error, Result};
use crate::sink::orphans::pace::Pace;
use crate::sink::storage::{self, Location};
use crate::table::files::{FileReader, parquet_error};

/// Log files read at a time.
const READS: usize = 32;
/// Times that the log is read from the start, because files of it were cleaned away meanwhile.
const ATTEMPTS: usize = 3;
/// What is read of a checkpoint.
const COLUMNS: [&str; 6] = [
    "add.path",
    "add.deletionVector.storageType",
    "add.deletionVector.pathOrInlineDv",
    "remove.path",
    "remove.deletionVector.storageType",
    "remove.deletionVector.pathOrInlineDv",
];

static COMPACTED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(\d{20})\.\d{20}\.compacted\.json$").ok());
static CHECKPOINT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(\d{20})\.checkpoint\.(?:.+\.)?(?:parquet|json)$").ok());
static SIDECAR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^_sidecars/(.+\.parquet)$").ok());

/// Takes the path of a file that is referred to.
pub(in crate::sink) type Take<'a> = &'a mut (dyn FnMut(&str) + Send);

/// A Delta table's versions, as far as they are read.
#[derive(Debug)]
pub(in crate::sink) struct References {
    log: Log,
    topic: String,
    owner: Option<Arc<str>>,
    /// The newest version that was read.
    seen: i64,
}

/// A line of a commit, or of a checkpoint in JSON.
#[derive(Deserialize)]
struct Line {
    add: Option<Named>,
    remove: Option<Named>,
    cdc: Option<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    path: String,
    deletion_vector: Option<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    storage_type: String,
    path_or_inline_dv: String,
}

/// The files of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    commits: BTreeSet<i64>,
    /// Version and name.
    checkpoints: BTreeSet<(i64, String)>,
    /// Read in any case.
    others: BTreeSet<String>,
}

impl Listing {
    /// Takes in a file of the log's folder, by its path below that.
    fn take(&mut self, path: &str) {
        let version = |name: &Option<Regex>| -> Option<i64> {
            name.as_ref()?.captures(path)?.get(1)?.as_str().parse().ok()
        };
        if let Some(version) = version(&COMMIT) {
            self.commits.insert(version);
        } else if let Some(version) = version(&CHECKPOINT) {
            self.checkpoints.insert((version, path.to_owned()));
        } else if [&COMPACTED, &SIDECAR]
            .iter()
            .any(|name| name.as_ref().is_some_and(|name| name.is_match(path)))
        {
            self.others.insert(path.to_owned());
        }
    }

    /// The checkpoints that tell of files which no commit here does.
    fn bases(&self) -> Vec<&str> {
        let (mut bases, mut base, mut reached) = (Vec::new(), None, -1);
        for (version, name) in &self.checkpoints {
            while reached < *version && self.commits.contains(&(reached + 1)) {
                reached += 1;
            }
            // A checkpoint may be of several files.
            if reached < *version || base == Some(*version) {
                bases.push(name.as_str());
                (base, reached) = (Some(*version), reached.max(*version));
            }
        }
        bases
    }
}

impl References {
    /// The versions of the table at `location`, none of them read; none when there is no Delta table, or none that
    /// cdc-sink made. Fails when it has something that we do not know how to read.
    pub(in crate::sink) async fn open(location: Location) -> Result<Option<Self>> {
        let log = Log::new(location);
        if !log.exists().await? {
            return Ok(None);
        }
        let (protocol, metadata) = log.head().await?;
        let Some(topic) = metadata.configuration.get(protocol::TOPIC).cloned() else {
            return Ok(None);
        };
        admit(&protocol, &metadata, &topic).map_err(|e| at(&log, e))?;
        Ok(Some(Self { log, topic, owner: owner(&metadata), seen: -1 }))
    }

    /// The topic that feeds the table.
    pub(in crate::sink) fn topic(&self) -> &str {
        &self.topic
    }

    /// The deployment that the table belongs to.
    pub(in crate::sink) fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }

    /// Gives every file to `take` that a version refers to; after the first time, that a version does which came since.
    pub(in crate::sink) async fn read(
        &mut self,
        pace: &mut Pace<'_>,
        take: Take<'_>,
    ) -> Result<()> {
        if self.seen >= 0 {
            let mut versions = self.log.versions_after(self.seen - 1).await?.into_iter();
            if versions.next() == Some(self.seen) {
                return self.follow(versions.collect(), pace, take).await;
            }
        }
        let mut attempts = 1..;
        loop {
            match self.read_all(pace, take).await {
                Err(e) if attempts.next() < Some(ATTEMPTS) => {
                    tracing::debug!(error = e.report(), "reading the Delta log again");
                }
                read => return read,
            }
        }
    }

    /// Reads the commits of these versions, which ascend.
    async fn follow(
        &mut self,
        versions: Vec<i64>,
        pace: &mut Pace<'_>,
        take: Take<'_>,
    ) -> Result<()> {
        let Some(newest) = versions.last().copied() else { return Ok(()) };
        let files = versions.iter().map(|version| format!("{version:020}.json")).collect();
        self.read_lines(files, pace, take).await?;
        self.read_notes(newest, take).await?;
        self.seen = newest;
        Ok(())
    }

    async fn read_all(&mut self, pace: &mut Pace<'_>, take: Take<'_>) -> Result<()> {
        let listing = self.list().await?;
        let Some(newest) = listing.commits.last().copied() else {
            return Err(at(&self.log, Error::refused("its log has no commit")));
        };
        let mut lines: Vec<String> =
            listing.commits.iter().map(|version| format!("{version:020}.json")).collect();
        let others = listing.others.iter().map(String::as_str);
        for file in listing.bases().into_iter().chain(others) {
            match file.ends_with(".parquet") {
                true => self.read_parquet(file, take).await?,
                false => lines.push(file.to_owned()),
            }
        }
        self.read_lines(lines, pace, take).await?;
        self.read_notes(newest, take).await?;
        self.seen = newest;
        Ok(())
    }

    async fn list(&self) -> Result<Listing> {
        let location = self.log.location();
        let folder = location.file("_delta_log");
        let failed =
            |e| storage::failed(format!("cannot list the Delta log of {}", location.url()), e);
        let mut listing = Listing::default();
        let mut listed = location.store().list(Some(&folder));
        while let Some(meta) = listed.try_next().await.map_err(failed)? {
            let path = meta.location.as_ref();
            let below = path.strip_prefix(folder.as_ref()).unwrap_or_default();
            listing.take(below.trim_start_matches('/'));
        }
        Ok(listing)
    }

    fn object(&self, file: &str) -> Path {
        self.log.location().file(&format!("_delta_log/{file}"))
    }

    /// Reads files of one action a line.
    async fn read_lines(
        &self,
        files: Vec<String>,
        pace: &mut Pace<'_>,
        take: Take<'_>,
    ) -> Result<()> {
        let total = u64::try_from(files.len()).ok();
        let reads = files.into_iter().map(|file| async move {
            let failed = |e| storage::failed(format!("cannot read {}", self.url(&file)), e);
            let found = self.log.location().store().get(&self.object(&file)).await;
            let bytes: Bytes = found.map_err(failed)?.bytes().await.map_err(failed)?;
            commit::check(&bytes)
                .and_then(|()| self.named(&bytes))
                .map_err(|e| e.context(self.url(&file)))
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        let mut done = 0;
        while let Some(paths) = reads.try_next().await? {
            paths.iter().for_each(|path| take(path));
            done += 1;
            pace.step("reading Delta's log", done, total);
        }
        Ok(())
    }

    fn url(&self, file: &str) -> String {
        self.log.location().file_url(&format!("_delta_log/{file}"))
    }

    /// The files that lines name.
    fn named(&self, bytes: &[u8]) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        let lines = bytes.split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.trim_ascii().is_empty()) {
            let Line { add, remove, cdc } = serde_json::from_slice(line)
                .map_err(|e| Error::data("a line of it cannot be read").because(e))?;
            for Named { path, deletion_vector } in [add, remove, cdc].into_iter().flatten() {
                paths.push(self.relative(&path));
                if let Some(Vector { storage_type, path_or_inline_dv }) = deletion_vector {
                    paths.extend(self.vector(&storage_type, &path_or_inline_dv)?);
                }
            }
        }
        Ok(paths)
    }

    /// A path as logs have it, relative to the table's root where it is below that.
    fn relative(&self, path: &str) -> String {
        let path = percent_decode_str(path).decode_utf8_lossy();
        let root = self.log.location().url().as_str();
        path.strip_prefix(root).unwrap_or(&path).to_owned()
    }

    /// The file of a deletion vector.
    fn vector(&self, storage_type: &str, text: &str) -> Result<Option<String>> {
        let broken = || Error::data(format!("a deletion vector {storage_type}:{text} is unknown"));
        match storage_type {
            "u" => vectors::relative(text).map(Some).ok_or_else(broken),
            "p" => Ok(Some(self.relative(text))),
            "i" => Ok(None),
            _ => Err(broken()),
        }
    }

    /// Reads a checkpoint, or a part of one.
    async fn read_parquet(&self, file: &str, take: Take<'_>) -> Result<()> {
        let path = format!("_delta_log/{file}");
        let failed = |e| parquet_error(format!("cannot read {}", self.url(file)), e);
        let reader = FileReader::open(self.log.location(), &path, 0).await?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options)
            .await
            .map_err(failed)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
        let mut batches = builder.with_projection(mask).build().map_err(failed)?;
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            for action in ["add", "remove"] {
                self.take_column(&batch, action, take).map_err(|e| e.context(self.url(file)))?;
            }
        }
        Ok(())
    }

    fn take_column(&self, batch: &RecordBatch, action: &str, take: Take<'_>) -> Result<()> {
        let Some(action) = batch.column_by_name(action).and_then(|c| c.as_struct_opt()) else {
            return Ok(());
        };
        let unreadable = || Error::data("a column of it has another type than Delta's");
        // Below what is null there may be anything.
        let paths = texts(action, "path").ok_or_else(unreadable)?;
        for (row, path) in paths.iter().enumerate() {
            if let Some(path) = path.filter(|_| action.is_valid(row)) {
                take(&self.relative(path));
            }
        }
        let vectors = action.column_by_name("deletionVector").and_then(|c| c.as_struct_opt());
        let Some(vectors) = vectors else { return Ok(()) };
        let types = texts(vectors, "storageType").ok_or_else(unreadable)?;
        let paths = texts(vectors, "pathOrInlineDv").ok_or_else(unreadable)?;
        for (row, vector) in types.iter().zip(paths.iter()).enumerate() {
            let (Some(storage_type), Some(text)) = vector else { continue };
            if action.is_null(row) || vectors.is_null(row) {
                continue;
            }
            if let Some(path) = self.vector(storage_type, text)? {
                take(&path);
            }
        }
        Ok(())
    }

    /// Rows that the newest commit of ours notes may lie in files that are in no version.
    async fn read_notes(&self, newest: i64, take: Take<'_>) -> Result<()> {
        for version in (0..=newest).rev().take(LOOKED_BACK) {
            let Some(bytes) = self.log.read(version).await? else { break };
            let commit = Commit::parse(&bytes).map_err(|e| at(&self.log, e))?;
            if commit.landed(version).is_some() {
                commit.notes().files().for_each(take);
                break;
            }
        }
        Ok(())
    }
}

fn texts<'a>(from: &'a StructArray, name: &str) -> Option<&'a StringArray> {
    from.column_by_name(name)?.as_string_opt::<i32>()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn checkpoint(version: i64) -> String {
        format!("{version:020}.checkpoint.parquet")
    }

    #[rstest]
    #[case::new(&[0, 1, 2], &[], &[])]
    #[case::not_cleaned(&[0, 1, 2, 3], &[1, 3], &[])]
    #[case::cleaned(&[4, 5, 6], &[3, 5], &[3])]
    #[case::cleaned_up_to_a_checkpoint(&[3, 4, 5, 6], &[3, 5], &[3])]
    #[case::a_hole(&[0, 1, 4, 5], &[1, 4], &[4])]
    #[case::checkpoints_alone(&[6], &[3, 5], &[3, 5])]
    fn checkpoints_are_read_where_commits_do_not_lead(
        #[case] commits: &[i64],
        #[case] checkpoints: &[i64],
        #[case] expected: &[i64],
    ) {
        let mut listing = Listing::default();
        commits.iter().for_each(|version| listing.take(&format!("{version:020}.json")));
        checkpoints.iter().for_each(|version| listing.take(&checkpoint(*version)));
        let expected: Vec<_> = expected.iter().map(|version| checkpoint(*version)).collect();
        assert_eq!(listing.bases(), expected);
    }

    #[test]
    fn files_of_a_log_are_told_apart_by_their_names() {
        let mut listing = Listing::default();
        let parts = ["1.2", "2.2"].map(|part| {
            let (number, of) = part.split_once('.').unwrap();
            format!("{:020}.checkpoint.{number:0>10}.{of:0>10}.parquet", 7)
        });
        let uuid = "0fae3bbd-21bb-4e9e-9cf7-8a4e4a0d35b8";
        let second = format!("{:020}.checkpoint.{uuid}.json", 9);
        let others =
            [format!("{:020}.{:020}.compacted.json", 1, 3), format!("_sidecars/{uuid}.parquet")];
        for file in parts.iter().chain([&second]).chain(&others) {
            listing.take(file);
        }
        for ignored in ["_last_checkpoint", "00000000000000000007.crc", "_commits/x.json"] {
            listing.take(ignored);
        }
        assert_eq!(listing.bases(), [&parts[0], &parts[1], &second]);
        assert_eq!(listing.others, BTreeSet::from(others));
        assert!(listing.commits.is_empty());
    }
}
