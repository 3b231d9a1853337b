//! Halves of files on a local disk. The object store writes a file under a name of its own, which ends in `#` and a
//! number, and renames it; it neither lists nor removes those that a process left behind when it died.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};
use crate::sink::storage::Location;

/// A file that the store does not list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Staged {
    /// Relative to the table's root.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) modified_millis: i64,
}

/// The folder on the local disk, when it is there.
fn folder(location: &Location) -> Option<PathBuf> {
    let url = location.url();
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

/// Such files below the location; none when it is in another store.
pub(super) async fn list(location: &Location) -> Result<Vec<Staged>> {
    let Some(root) = folder(location) else { return Ok(Vec::new()) };
    let what = format!("cannot list {}", location.url());
    tokio::task::spawn_blocking(move || walk(&root))
        .await
        .map_err(|e| Error::internal(what.clone()).because(e))?
        .map_err(|e| Error::unavailable(what).because(e))
}

fn walk(root: &Path) -> std::io::Result<Vec<Staged>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(root).ok().and_then(Path::to_str);
            let Some(below) = below.filter(|below| super::form::staged(below).is_some()) else {
                continue;
            };
            let path = below.to_owned();
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It got its name meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified_millis = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
            found.push(Staged { path, size: metadata.len(), modified_millis });
        }
    }
    Ok(found)
}

/// Removes such a file; false when it is not there any more.
pub(super) async fn remove(location: &Location, path: &str) -> Result<bool> {
    let Some(root) = folder(location) else { return Ok(false) };
    match tokio::fs::remove_file(root.join(path)).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => {
            Err(Error::unavailable(format!("cannot remove {path} of {}", location.url()))
                .because(e))
        }
    }
}
