//! Where a table's files lie: absolute paths in Iceberg's metadata against paths in our object store, and the
//! `iceberg` crate's file access on top of it. One store serves both table formats.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage,
    StorageConfig, StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::sink::storage::Location;

/// A folder, as metadata names it and as the object store does.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    location: Location,
    /// The folder's URL without escapes, ending in `/`: metadata holds plain paths, not encoded ones.
    base: String,
}

impl Folder {
    pub(super) fn new(location: Location) -> Self {
        let base = percent_decode_str(location.url().as_str()).decode_utf8_lossy().into_owned();
        Self { location, base }
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        self.location.store()
    }

    /// The folder below.
    pub(super) fn folder(&self, segment: &str) -> Self {
        Self::new(self.location.folder(segment))
    }

    /// The folder that metadata names `absolute`: in the same store where it is there, else in one opened as the
    /// environment says.
    pub(super) fn elsewhere(&self, absolute: &str) -> crate::error::Result<Self> {
        let wrong =
            || crate::error::Error::refused(format!("{absolute} is not a place for tables"));
        let url =
            Url::parse(&format!("{}/", absolute.trim_end_matches('/'))).map_err(|_| wrong())?;
        let here = self.location.url();
        if (url.scheme(), url.host_str()) != (here.scheme(), here.host_str()) {
            let there = Location::open(url.as_str(), self.location.trust())?;
            return Ok(Self::new(there.with_copies(self.location.copies().cloned())));
        }
        let path = Path::from_url_path(url.path()).map_err(|e| wrong().because(e))?;
        Ok(Self::new(self.location.beside(Arc::clone(self.store()), path, url)))
    }

    /// The folder as metadata names it, without a `/` at the end.
    pub(super) fn name(&self) -> &str {
        self.base.trim_end_matches('/')
    }

    /// True when `absolute` is this folder.
    pub(super) fn is_named(&self, absolute: &str) -> bool {
        self.relative(&format!("{}/", absolute.trim_end_matches('/'))) == Some("")
    }

    /// The absolute path of the file named by its path below the folder.
    pub(super) fn absolute(&self, relative: &str) -> String {
        format!("{}{relative}", self.base)
    }

    /// The path below the folder of the file with this absolute path; none when it lies elsewhere. Other engines
    /// may write `/x` or `file:/x` for `file:///x` and `s3a` for `s3`.
    pub(super) fn relative<'a>(&self, absolute: &'a str) -> Option<&'a str> {
        let (scheme, path) = split(absolute)?;
        let (base_scheme, base) = split(&self.base)?;
        path.strip_prefix(base).filter(|_| scheme == base_scheme)
    }

    /// Where the file with this absolute path is in the store.
    pub(super) fn object(&self, absolute: &str) -> Option<Path> {
        self.relative(absolute).map(|relative| self.location.file(relative))
    }

    /// The `iceberg` crate's access to the files below.
    pub(super) fn io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(FolderStorageFactory { folder: Some(self.clone()) })).build()
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    if path.starts_with('/') {
        return Some(("file", path.trim_start_matches('/')));
    }
    let (scheme, rest) = path.split_once(':')?;
    let scheme = if matches!(scheme, "s3a" | "s3n") { "s3" } else { scheme };
    Some((scheme, rest.trim_start_matches('/')))
}

/// [`Storage`] wants to be serialisable; the store is not, and nothing here is ever serialised.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct FolderStorage {
    #[serde(skip)]
    folder: Option<Folder>,
}

impl FolderStorage {
    fn locate(&self, path: &str) -> Result<(&Arc<dyn ObjectStore>, Path)> {
        let folder = self.folder.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "the file access was made without a store")
        })?;
        let object = folder.object(path).ok_or_else(|| {
            let text = format!("{path} lies outside of the table's folder {}", folder.name());
            Error::new(ErrorKind::FeatureUnsupported, text)
        })?;
        Ok((folder.store(), object))
    }
}

fn failed(path: &str, error: object_store::Error) -> Error {
    Error::new(ErrorKind::Unexpected, format!("the object store failed on {path}"))
        .with_source(error)
}

#[async_trait]
#[typetag::serde(name = "cdc-sink")]
impl Storage for FolderStorage {
    async fn exists(&self, path: &str) -> Result<bool> {
        let (store, object) = self.locate(path)?;
        match store.head(&object).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(failed(path, e)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let (store, object) = self.locate(path)?;
        let found = store.head(&object).await.map_err(|e| failed(path, e))?;
        Ok(FileMetadata { size: found.size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let (store, object) = self.locate(path)?;
        let found = store.get(&object).await.map_err(|e| failed(path, e))?;
        found.bytes().await.map_err(|e| failed(path, e))
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let (store, object) = self.locate(path)?;
        Ok(Box::new(Reader { store: Arc::clone(store), object }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let (store, object) = self.locate(path)?;
        store.put(&object, bytes.into()).await.map_err(|e| failed(path, e))?;
        Ok(())
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let (store, object) = self.locate(path)?;
        Ok(Box::new(Writer { store: Arc::clone(store), object, bytes: BytesMut::new() }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let (store, object) = self.locate(path)?;
        store.delete(&object).await.map_err(|e| failed(path, e))
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let (store, object) = self.locate(path)?;
        let mut listed = store.list(Some(&object));
        while let Some(found) = listed.next().await {
            let found = found.map_err(|e| failed(path, e))?;
            store.delete(&found.location).await.map_err(|e| failed(path, e))?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.into()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.into()))
    }
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    object: Path,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.object, range).await.map_err(|e| failed(self.object.as_ref(), e))
    }
}

struct Writer {
    store: Arc<dyn ObjectStore>,
    object: Path,
    bytes: BytesMut,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let bytes = self.bytes.split().freeze();
        let put = self.store.put(&self.object, bytes.into()).await;
        put.map_err(|e| failed(self.object.as_ref(), e))?;
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct FolderStorageFactory {
    #[serde(skip)]
    folder: Option<Folder>,
}

#[typetag::serde(name = "cdc-sink")]
impl StorageFactory for FolderStorageFactory {
    fn build(&self, _config: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FolderStorage { folder: self.folder.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Trust, tests::AUTHORITY};

    #[test]
    fn a_folder_elsewhere_trusts_the_same_authorities() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), AUTHORITY).unwrap();
        let trust = Trust::read(file.path()).unwrap();
        let folder = Folder::new(Location::open("s3://lake/here", &trust).unwrap());
        for place in ["s3://lake/elsewhere", "s3://other/lake"] {
            let found = folder.elsewhere(place).unwrap();
            assert_eq!(format!("{:?}", found.location().trust()), format!("{trust:?}"), "{place}");
        }
    }

    #[test]
    fn paths_of_other_engines_are_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().canonicalize().unwrap().join("a b");
        let folder = Folder::new(Location::warehouse(name.to_str().unwrap()).unwrap());
        let plain = format!("{}/data/x.parquet", name.display());
        assert_eq!(folder.absolute("data/x.parquet"), format!("file://{plain}"));
        for path in [format!("file://{plain}"), format!("file:{plain}"), plain.clone()] {
            assert_eq!(folder.relative(&path), Some("data/x.parquet"));
        }
        assert_eq!(folder.relative("file:///elsewhere/x"), None);
        assert_eq!(folder.relative(&format!("s3:/{plain}")), None);
    }
}
