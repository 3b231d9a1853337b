//! Local copies of data files: rows that changes leave values out of are read by position, again and again, and a store
//! far away takes long for that.
//!
//! A data file never changes, so its copy is as good as the file while its checksums hold, which are compared at every
//! read. A copy that is damaged, cut short or gone is no error: it is removed, said, counted, and the store is read. Nor
//! is a full disk: nothing is copied for a while. Files without checksums of ours are never copied.
//!
//! A file is copied once the store has sent, or is to send, as much as half of it. When there is no room, a copy gives
//! way only to a file that was read before since the copy was: more files than there is room for, read in turns, would
//! else push each other out before any copy is of use.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::Instant;

use super::ranges::{SPAN, Stored};
use crate::error::{Error, Result};
use crate::metrics;

/// Ends the names of copies, of copies that are being made, and is the name of the lock.
const COPY: &str = "copy";
const UNFINISHED: &str = "unfinished";
const LOCK: &str = "cdc-sink.lock";
/// Copies made at once, at most.
const AT_ONCE: usize = 16;
/// Bytes gathered for a write.
const WRITE: usize = 256 * 1024;
/// After a write failed, nothing is copied for so long.
const PAUSE: Duration = Duration::from_secs(60);
/// Files without a copy whose reads are remembered, at most; then all are forgotten.
const REMEMBERED: usize = 100_000;

/// What a file is called: a hash of its URL and its size.
type Name = u128;

/// A folder on the local disk with copies of data files. While it is open no other process can use the folder.
#[derive(Debug)]
pub struct Copies {
    folder: PathBuf,
    /// Bytes that all copies may have.
    limit: u64,
    disk: Arc<dyn ObjectStore>,
    state: Mutex<State>,
    /// Who makes a copy holds the one that goes with the file's name.
    making: [tokio::sync::Mutex<()>; AT_ONCE],
    /// Locked until the process ends.
    _lock: File,
}

/// Times are numbers of reads.
#[derive(Debug, Default)]
struct State {
    now: u64,
    kept: HashMap<Name, Kept>,
    /// Copies by their last use.
    by_use: BTreeMap<u64, Name>,
    /// Bytes of all copies, those being made included.
    bytes: u64,
    /// Reads of files without a copy.
    seen: HashMap<Name, Seen>,
    paused_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    bytes: u64,
    used: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Bytes that the store sent.
    fetched: u64,
    read: u64,
}

impl Copies {
    /// Opens `folder`, which is made if need be, for copies of `limit` bytes in all. Takes over what an earlier process
    /// left there; files of others stay. An invalid configuration when the folder cannot be used or another process has it.
    pub fn open(folder: &Path, limit: u64) -> Result<Self> {
        let what = format!("option copies: cannot use the folder {}", folder.display());
        let failed = |e: io::Error| {
            Error::invalid(what.clone()).because(e).hint("give a folder that cdc-sink may write")
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let lock = File::options().create(true).append(true).open(folder.join(LOCK));
        let lock = lock.map_err(failed)?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::invalid(format!("{what}: another process uses it"))
                .hint("give each process a folder of its own, or end the other one"),
            TryLockError::Error(e) => failed(e),
        })?;
        let disk = LocalFileSystem::new_with_prefix(&folder);
        let disk = Arc::new(disk.map_err(|e| failed(io::Error::other(e)))?);
        let (state, making) = (Mutex::default(), Default::default());
        let copies = Self { folder, limit, disk, state, making, _lock: lock };
        copies.take_over().map_err(failed)?;
        Ok(copies)
    }

    /// Removes what was never finished and, from the one that was not used for the longest time on, what is too much.
    fn take_over(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            match named(&path) {
                Some((name, COPY)) => {
                    let told = entry.metadata()?;
                    found.push((told.accessed().or_else(|_| told.modified())?, name, told.len()));
                }
                Some((_, UNFINISHED)) => remove(&path),
                _ => {}
            }
        }
        found.sort_unstable();
        let mut state = self.state();
        for (_, name, bytes) in found {
            state.bytes += bytes;
            state.keep(name, bytes);
        }
        let too_much = state.bytes.saturating_sub(self.limit);
        for victim in state.oldest(too_much, u64::MAX).unwrap_or_default() {
            self.drop_copy(&mut state, victim);
        }
        metrics::copies_size(state.bytes);
        Ok(())
    }

    /// The file at `url` is to be read.
    pub(super) fn of(self: &Arc<Self>, url: String, size: u64) -> CopyOf {
        let mut hash = [0; size_of::<Name>()];
        blake3::Hasher::new()
            .update(url.as_bytes())
            .update(&size.to_le_bytes())
            .finalize_xof()
            .fill(&mut hash);
        let name = Name::from_be_bytes(hash);
        let read_before = self.state().read(name);
        CopyOf { copies: Arc::clone(self), url, name, size, read_before }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: Name, kind: &str) -> PathBuf {
        self.folder.join(format!("{name:032x}.{kind}"))
    }

    /// False when there was none.
    fn drop_copy(&self, state: &mut State, name: Name) -> bool {
        let was_there = state.forget(name);
        if was_there {
            remove(&self.path(name, COPY));
            metrics::copies_size(state.bytes);
        }
        was_there
    }
}

/// The name that a file in the folder is of, and what it is.
fn named(path: &Path) -> Option<(Name, &str)> {
    let (stem, kind) = path.file_name().and_then(OsStr::to_str)?.split_once('.')?;
    let name = Name::from_str_radix(stem, 16).ok()?;
    (format!("{name:032x}") == stem).then_some((name, kind))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %path.display(), "cannot remove a copy of a data file");
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// A read begins; when the read before did, if there is no copy and it is known.
    fn read(&mut self, name: Name) -> u64 {
        if self.kept.contains_key(&name) {
            return 0;
        }
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        let now = self.tick();
        std::mem::replace(&mut self.seen.entry(name).or_default().read, now)
    }

    /// A copy whose bytes are counted already.
    fn keep(&mut self, name: Name, bytes: u64) {
        let used = self.tick();
        self.seen.remove(&name);
        self.kept.insert(name, Kept { bytes, used });
        self.by_use.insert(used, name);
    }

    /// True when there is a copy, which is used now.
    fn is_used(&mut self, name: Name) -> bool {
        let now = self.tick();
        let Some(kept) = self.kept.get_mut(&name) else { return false };
        self.by_use.remove(&kept.used);
        kept.used = now;
        self.by_use.insert(now, name);
        true
    }

    fn forget(&mut self, name: Name) -> bool {
        let Some(kept) = self.kept.remove(&name) else { return false };
        self.by_use.remove(&kept.used);
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        true
    }

    /// Copies of at least `bytes` together, the longest unused ones, none used since `before`; none when there are not as
    /// many.
    fn oldest(&self, bytes: u64, before: u64) -> Option<Vec<Name>> {
        let (mut freed, mut victims) = (0, Vec::new());
        let mut old = self.by_use.range(..before);
        while freed < bytes {
            let (_, name) = old.next()?;
            freed += self.kept.get(name)?.bytes;
            victims.push(*name);
        }
        Some(victims)
    }
}

/// A data file that is read, and its copy.
#[derive(Debug)]
pub(super) struct CopyOf {
    copies: Arc<Copies>,
    url: String,
    name: Name,
    size: u64,
    /// When a read before this one began.
    read_before: u64,
}

/// Why there is no copy.
enum Failed {
    /// The disk does not take it.
    Disk(io::Error),
    /// The store does not send it; who reads from the store is told why.
    Store,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl CopyOf {
    /// The copy, if there is one.
    pub(super) fn find(&self) -> Option<Stored> {
        self.copies.state().is_used(self.name).then(|| Stored {
            store: Arc::clone(&self.copies.disk),
            path: object_store::path::Path::from(format!("{:032x}.{COPY}", self.name)),
            seeks: true,
        })
    }

    /// The copy, which is made of `file` if there is none and one is worth it before `bytes` more are fetched.
    pub(super) async fn find_or_make(&self, file: &Stored, bytes: u64) -> Option<Stored> {
        if let Some(copy) = self.find() {
            return Some(copy);
        }
        if !self.is_worth_it(bytes) {
            return None;
        }
        let at = usize::try_from(self.name % Name::try_from(AT_ONCE).ok()?).ok()?;
        let _alone = self.copies.making.get(at)?.lock().await;
        if let Some(copy) = self.find() {
            return Some(copy);
        }
        let room = self.take_room()?;
        match room.fill(file).await {
            Ok(()) => self.find(),
            Err(Failed::Store) => None,
            Err(Failed::Disk(error)) => {
                self.pause(&error);
                None
            }
        }
    }

    /// The store sent `bytes` of the file.
    pub(super) fn fetched(&self, bytes: u64) {
        if let Some(seen) = self.copies.state().seen.get_mut(&self.name) {
            seen.fetched += bytes;
        }
    }

    /// The copy is not what it should be.
    pub(super) fn damaged(&self, why: &str) {
        // Without a copy it was dropped between looking and reading, which is no fault.
        if self.copies.drop_copy(&mut self.copies.state(), self.name) {
            metrics::copy_damaged();
            let (file, copies) = (&self.url, self.copies.folder.display());
            tracing::warn!(file, %copies, error = why, "a local copy cannot be used and is removed; the store is read");
        }
    }

    fn is_worth_it(&self, bytes: u64) -> bool {
        let state = self.copies.state();
        let fetched = state.seen.get(&self.name).map_or(0, |seen| seen.fetched);
        state.paused_until.is_none_or(|until| until <= Instant::now())
            && self.size <= self.copies.limit / 2
            && fetched + bytes >= self.size / 2
    }

    /// Room for the copy; none when it is taken.
    fn take_room(&self) -> Option<Room<'_>> {
        let mut state = self.copies.state();
        let lacks = (state.bytes + self.size).saturating_sub(self.copies.limit);
        for victim in state.oldest(lacks, self.read_before)? {
            self.copies.drop_copy(&mut state, victim);
        }
        state.bytes += self.size;
        metrics::copies_size(state.bytes);
        Some(Room { of: self, is_kept: false })
    }

    fn pause(&self, error: &io::Error) {
        let until = Instant::now() + PAUSE;
        let paused = self.copies.state().paused_until.replace(until);
        if paused.is_none_or(|until| until <= Instant::now()) {
            let folder = self.copies.folder.display();
            let pause = humantime::format_duration(PAUSE);
            tracing::warn!(%error, %folder, "cannot write local copies of data files; the store is read, and nothing copied for {pause}");
        }
    }
}

/// Room that a copy takes while it is made, and gives back unless it is kept.
struct Room<'a> {
    of: &'a CopyOf,
    is_kept: bool,
}

impl Room<'_> {
    /// Fetches the file and keeps it.
    async fn fill(mut self, file: &Stored) -> Result<(), Failed> {
        let CopyOf { copies, name, size, .. } = self.of;
        let path = copies.path(*name, UNFINISHED);
        let mut options = tokio::fs::OpenOptions::new();
        // Copies hold rows, which are nobody else's to read.
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut to = BufWriter::with_capacity(WRITE, options.open(&path).await?);
        let mut at = 0;
        while at < *size {
            let end = (at + SPAN).min(*size);
            let range = Some(GetRange::Bounded(at..end));
            let options = GetOptions { range, ..GetOptions::default() };
            let answer = file.store.get_opts(&file.path, options).await;
            let mut chunks = answer.map_err(|_| Failed::Store)?.into_stream();
            while let Some(chunk) = chunks.try_next().await.map_err(|_| Failed::Store)? {
                to.write_all(&chunk).await?;
                at += u64::try_from(chunk.len()).unwrap_or_default();
            }
            if at != end {
                return Err(Failed::Store);
            }
        }
        to.shutdown().await?;
        metrics::rows_fetched(*size);
        let mut state = copies.state();
        fs::rename(&path, copies.path(*name, COPY))?;
        state.keep(*name, *size);
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let CopyOf { copies, name, size, .. } = self.of;
        if !self.is_kept {
            remove(&copies.path(*name, UNFINISHED));
            let mut state = copies.state();
            state.bytes = state.bytes.saturating_sub(*size);
            metrics::copies_size(state.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
