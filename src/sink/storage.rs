//! Where the tables lie: a warehouse URL, its object store, and paths below it.

mod race;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, RetryConfig};
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::table::files::Copies;
use crate::trust::Trust;

/// Retries within one request. Short: the callers hold and retry by themselves, and know then what they wait for.
const RETRIES: usize = 5;
/// No retry of a request starts later than this.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Deadline of one attempt, body included, and of its connection; `AWS_TIMEOUT` and `AWS_CONNECT_TIMEOUT` override.
const TIMEOUTS: [(ClientConfigKey, &str, &str); 2] = [
    (ClientConfigKey::Timeout, "AWS_TIMEOUT", "60 seconds"),
    (ClientConfigKey::ConnectTimeout, "AWS_CONNECT_TIMEOUT", "5 seconds"),
];

/// Makes names for new files, each unlike every other one.
#[derive(Clone)]
pub struct Names(Arc<dyn Fn() -> Uuid + Send + Sync>);

impl Names {
    /// Random names.
    pub fn random() -> Self {
        Self(Arc::new(Uuid::new_v4))
    }

    /// The names that `next` makes.
    pub fn from_fn(next: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// A folder in an object store: the warehouse, a table, or a part of one.
#[derive(Debug, Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    path: Path,
    url: Url,
    names: Names,
    trust: Trust,
    copies: Option<Arc<Copies>>,
}

impl Location {
    /// The warehouse at `s3://bucket/prefix`, `file:///folder` or a folder's path, which is made if need be.
    /// Credentials, region and endpoint of S3 come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
    /// An endpoint that is spelled `http://` is used as it is, unless `AWS_ALLOW_HTTP` says no.
    pub fn warehouse(warehouse: &str) -> Result<Self> {
        Self::open(warehouse, &Trust::default())
    }

    /// The same; the store's certificate may be from one of the authorities in `trust`.
    pub fn open(warehouse: &str, trust: &Trust) -> Result<Self> {
        match Url::parse(warehouse) {
            Ok(url) if url.scheme() == "s3" || url.scheme() == "s3a" => Self::s3(&url, trust),
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
        let (names, trust) = (Names::random(), Trust::default());
        Self { store, path, url, names, trust, copies: None }
    }

    /// The same, with names for new files from `names`.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// The same, with copies of data files in `copies`.
    #[must_use]
    pub fn with_copies(self, copies: Option<Arc<Copies>>) -> Self {
        Self { copies, ..self }
    }

    /// Another folder, which is in `store`; all else is as here.
    pub(super) fn beside(&self, store: Arc<dyn ObjectStore>, path: Path, url: Url) -> Self {
        Self { store, path, url, ..self.clone() }
    }

    fn s3(url: &Url, trust: &Trust) -> Result<Self> {
        let bucket = url.host_str().ok_or_else(|| unsupported(url.as_str()))?;
        let store = s3_builder(trust, &environment())?
            .with_bucket_name(bucket)
            .build()
            .map_err(|e| Error::invalid(format!("cannot use the warehouse {url}")).because(e))?;
        let path = Path::from_url_path(url.path()).map_err(|_| unsupported(url.as_str()))?;
        let mut url = url.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self { trust: trust.clone(), ..Self::new(Arc::new(store), path, url) })
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
        Ok(Self::new(Arc::new(LocalFileSystem::new()), path, url))
    }

    /// Finds out whether the store lets one alone of several writers make a new file: without that, two instances
    /// would overwrite each other's commits. Some stores that speak S3 ignore the condition, others look and then write.
    /// Leaves nothing behind.
    pub async fn check_conditional_put(&self) -> Result<()> {
        race::check(self).await
    }

    /// What time it is by the clock that the store stamps files with, milliseconds since the epoch: that of a file made
    /// below the location and removed again.
    pub async fn store_millis(&self) -> Result<i64> {
        let file = self.path.clone().join(format!(".cdc-sink-probe-{}", self.new_name()));
        let asked = async {
            self.store.put(&file, Vec::new().into()).await?;
            self.store.head(&file).await
        };
        let (stamped, removed) = (asked.await, self.store.delete(&file).await);
        let what = || format!("cannot ask the store of {} for its time", self.url);
        let stamped = stamped.map_err(|e| failed(what(), e))?;
        removed.map_err(|e| failed(what(), e))?;
        Ok(stamped.last_modified.timestamp_millis())
    }

    /// A name that no file has.
    pub fn new_name(&self) -> Uuid {
        (self.names.0)()
    }

    /// The object store, rooted above the location.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where copies of its data files are kept, if anywhere.
    pub(crate) fn copies(&self) -> Option<&Arc<Copies>> {
        self.copies.as_ref()
    }

    /// The authorities that its store's certificate may be from.
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The location's path in the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The location's absolute URL, ending in `/`.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// True for the local file system.
    pub fn is_a_disk(&self) -> bool {
        self.url.scheme() == "file"
    }

    /// The folder `segment` below; the segment is one safe name (letters, digits, `_`, `-`, `.`).
    #[must_use]
    pub fn folder(&self, segment: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{segment}/", url.path()));
        Self { path: self.path.clone().join(segment), url, ..self.clone() }
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

/// The variables of the process's environment that say how to reach S3. One without a value counts as not there.
pub(super) fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os()
        .filter_map(text)
        .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
        .collect()
}

/// The settings of S3: those of the `variables`, else ours. Refuses to go without the check of certificates.
pub(super) fn s3_builder(
    trust: &Trust,
    variables: &BTreeMap<String, String>,
) -> Result<AmazonS3Builder> {
    let own = AmazonS3Builder::new().with_client_options(trust.store());
    // What `AmazonS3Builder::from_env` does, which cannot be told of certificates before.
    let settings = variables.iter().filter_map(|(name, value)| {
        Some((name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().ok()?, value))
    });
    let mut builder = settings
        .fold(own, |builder, (key, value)| builder.with_config(key, value))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: RETRY_TIMEOUT,
        });
    for (key, name, default) in TIMEOUTS {
        if !variables.contains_key(name) {
            builder = builder.with_config(AmazonS3ConfigKey::Client(key), default);
        }
    }
    if let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint) {
        check_endpoint(&endpoint)?;
        if endpoint.starts_with("http://") && !variables.contains_key("AWS_ALLOW_HTTP") {
            builder = builder.with_allow_http(true);
        }
    }
    let unchecked = AmazonS3ConfigKey::Client(ClientConfigKey::AllowInvalidCertificates);
    if builder.get_config_value(&unchecked).is_some_and(|value| value != "false") {
        return Err(Error::invalid(
            "AWS_ALLOW_INVALID_CERTIFICATES is set: certificates are always verified",
        )
        .hint("name the authority that the store's certificate is from with --ca-file"));
    }
    Ok(builder)
}

/// Refuses what is no address of a store: its client would panic.
pub(super) fn check_endpoint(endpoint: &str) -> Result<()> {
    let url = Url::parse(endpoint).ok();
    if url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Ok(());
    }
    Err(Error::invalid(format!("the S3 endpoint {endpoint:?} is not the address of a store"))
        .hint("give http://host:port or https://host:port in AWS_ENDPOINT_URL"))
}

/// A failed request to the store: what was attempted, and what the caller does about it.
pub fn failed(what: impl Into<String>, error: object_store::Error) -> Error {
    Error::new(kind(&error), what).because(error)
}

/// What a caller does about a failed request: credentials and permissions are a person's matter, all else may pass.
pub fn kind(error: &object_store::Error) -> Kind {
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => Kind::Refused,
        _ => Kind::Unavailable,
    }
}

/// What the object store answered, when that is what an error of a library comes from.
pub(super) fn asked<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e object_store::Error> {
    std::iter::successors(error.source(), |cause| cause.source())
        .find_map(|cause| cause.downcast_ref())
}

fn unsupported(warehouse: &str) -> Error {
    Error::invalid(format!("option warehouse: {warehouse} is not a place for tables"))
        .hint("give s3://bucket/prefix or a folder")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn an_http_endpoint_is_allowed_by_its_spelling() {
        let allows = |variables: &[(&str, &str)]| {
            let key = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
            s3_builder(&Trust::default(), &named(variables)).unwrap().get_config_value(&key)
        };
        let http = ("AWS_ENDPOINT_URL", "http://localhost:9000");
        assert_eq!(allows(&[http]).as_deref(), Some("true"));
        let https = ("AWS_ENDPOINT_URL", "https://s3.example.org");
        assert_eq!(allows(&[https]).as_deref(), Some("false"));
        assert_eq!(allows(&[http, ("AWS_ALLOW_HTTP", "false")]).as_deref(), Some("false"));
    }

    #[rstest]
    fn an_endpoint_that_is_no_address_is_refused(
        #[values("", "localhost:9000", "http://", "ftp://localhost", "s3.example.org")]
        endpoint: &str,
    ) {
        let variables = named(&[("AWS_ENDPOINT_URL", endpoint)]);
        let error = s3_builder(&Trust::default(), &variables).unwrap_err();
        assert!(error.report().contains(&format!("{endpoint:?}")), "{}", error.report());
    }

    fn named(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_local_folder_passes_the_probe_and_stays_empty() {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = Location::warehouse(folder.path().to_str().unwrap()).unwrap();
        warehouse.check_conditional_put().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
