//! Where the tables lie: a warehouse URL, its object store, and paths below it.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use crate::error::{Error, Result};

/// A folder in an object store: the warehouse, a table, or a part of one.
#[derive(Debug, Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    path: Path,
    url: Url,
}

impl Location {
    /// The warehouse at `s3://bucket/prefix`, `file:///folder` or a folder's path, which is made if need be.
    /// Credentials, region and endpoint of S3 come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
    pub fn warehouse(warehouse: &str) -> Result<Self> {
        match Url::parse(warehouse) {
            Ok(url) if url.scheme() == "s3" || url.scheme() == "s3a" => Self::s3(&url),
            Ok(url) if url.scheme() == "file" => {
                let folder = url.to_file_path().map_err(|()| unsupported(warehouse))?;
                Self::local(&folder)
            }
            Ok(url) if url.scheme().len() > 1 => Err(unsupported(warehouse)),
            _ => Self::local(std::path::Path::new(warehouse)),
        }
    }

    /// A location in a store that is already open; `url` names the folder `path` of it.
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, url: Url) -> Self {
        Self { store, path, url }
    }

    fn s3(url: &Url) -> Result<Self> {
        let bucket = url.host_str().ok_or_else(|| unsupported(url.as_str()))?;
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .map_err(|e| Error::invalid(format!("cannot use the warehouse {url}")).because(e))?;
        let path = Path::from_url_path(url.path()).map_err(|_| unsupported(url.as_str()))?;
        let mut url = url.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self { store: Arc::new(store), path, url })
    }

    fn local(folder: &std::path::Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::invalid(format!("cannot use the warehouse folder {}", folder.display()))
                .because(e)
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| unsupported(&folder.display().to_string()))?;
        let path = Path::from_absolute_path(&folder)
            .map_err(|e| unsupported(&folder.display().to_string()).because(e))?;
        Ok(Self { store: Arc::new(LocalFileSystem::new()), path, url })
    }

    /// The object store, rooted above the location.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The location's path in the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The location's absolute URL, ending in `/`.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The folder `segment` below; the segment is one safe name (letters, digits, `_`, `-`, `.`).
    #[must_use]
    pub fn folder(&self, segment: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{segment}/", url.path()));
        Self { store: Arc::clone(&self.store), path: self.path.clone().join(segment), url }
    }

    /// The path in the store of a file named by its `/`-separated path below the location. What is percent-encoded
    /// there stays as it is.
    pub fn file(&self, relative: &str) -> Path {
        relative.split('/').filter(|part| !part.is_empty()).fold(self.path.clone(), |path, part| {
            Path::parse(format!("{path}/{part}")).unwrap_or_else(|_| path.join(part))
        })
    }

    /// The absolute URL of a file below the location.
    pub fn file_url(&self, relative: &str) -> String {
        format!("{}{relative}", self.url)
    }
}

fn unsupported(warehouse: &str) -> Error {
    Error::invalid(format!("option warehouse: {warehouse} is not a place for tables"))
        .hint("give s3://bucket/prefix or a folder")
}
