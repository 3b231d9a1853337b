//! Storage that a catalog hands out: where a table's files are, with credentials made for them that expire.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::catalog::{Catalog, TableName};
use super::Secret;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::sink::storage::{Location, check_endpoint, environment, s3_builder};

/// Life of credentials that do not say how long they live.
const UNKNOWN_LIFE: Duration = Duration::from_secs(10 * 60);

/// Settings of a table's storage, by Iceberg's names.
#[derive(Debug, Clone)]
pub(in crate::sink::iceberg) struct VendedStorage {
    settings: HashMap<String, Secret>,
}

impl VendedStorage {
    /// None when there are no credentials in `settings`.
    pub(super) fn new(settings: HashMap<String, Secret>) -> Option<Self> {
        let complete = ["s3.access-key-id", "s3.secret-access-key"];
        complete.iter().all(|name| settings.contains_key(*name)).then_some(Self { settings })
    }

    pub(in crate::sink::iceberg) fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(Secret::reveal)
    }

    /// The table's folder in a store with these settings; credentials are asked for again before they expire. A folder
    /// that is not in S3 stays as it is.
    pub(in crate::sink::iceberg) fn open(
        self,
        location: &Location,
        catalog: &Arc<Catalog>,
        name: &TableName,
    ) -> Result<Location> {
        let (Catalog::Rest(rest), Some(bucket)) = (&**catalog, location.url().host_str()) else {
            return Ok(location.clone());
        };
        let mut builder = s3_builder(location.trust(), &environment())?.with_bucket_name(bucket);
        // What the catalog leaves out is taken from the environment: Apache's sends neither endpoint nor region.
        if let Some(region) = self.get("client.region").or_else(|| self.get("s3.region")) {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = self.get("s3.endpoint") {
            check_endpoint(endpoint).map_err(|e| {
                e.context(format_args!("storage that the catalog gives for {name}"))
            })?;
            builder = builder
                .with_endpoint(endpoint.trim_end_matches('/'))
                .with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(path_style) = self.get("s3.path-style-access") {
            builder = builder.with_virtual_hosted_style_request(path_style != "true");
        }
        let credentials = Arc::new(self.provider(rest.clock(), catalog, name));
        let store = builder.with_credentials(credentials).build().map_err(|e| {
            Error::refused(format!("cannot use the storage that the catalog gives for {name}"))
                .because(e)
        })?;
        Ok(location.beside(Arc::new(store), location.path().clone(), location.url().clone()))
    }

    /// Gives these credentials, and then such as the catalog gives later.
    pub(in crate::sink::iceberg) fn provider(
        &self,
        clock: &Clock,
        catalog: &Arc<Catalog>,
        name: &TableName,
    ) -> Vended {
        let cached = Mutex::new(self.credential(clock));
        Vended { catalog: Arc::clone(catalog), name: name.clone(), cached }
    }

    fn credential(&self, clock: &Clock) -> Cached {
        let owned = |name: &str| self.get(name).map(str::to_owned);
        let credential = AwsCredential {
            key_id: owned("s3.access-key-id").unwrap_or_default(),
            secret_key: owned("s3.secret-access-key").unwrap_or_default(),
            token: owned("s3.session-token"),
        };
        let expires = self.get("s3.session-token-expires-at-ms").and_then(|at| at.parse().ok());
        let life = match expires {
            Some(at) => {
                let left = u64::try_from(i64::saturating_sub(at, clock.now_millis()));
                Some(Duration::from_millis(left.unwrap_or(0)))
            }
            // Without a session, keys are for good.
            None => credential.token.as_ref().map(|_| UNKNOWN_LIFE),
        };
        let now = Instant::now();
        let until = |life: Duration| now.checked_add(life);
        Cached {
            credential: Arc::new(credential),
            renew_at: life.and_then(|life| until(life / 2)),
            expires_at: life.and_then(until),
        }
    }
}

/// Credentials as long as they live.
struct Cached {
    credential: Arc<AwsCredential>,
    renew_at: Option<Instant>,
    expires_at: Option<Instant>,
}

/// Gives credentials of one table to its store.
pub(in crate::sink::iceberg) struct Vended {
    catalog: Arc<Catalog>,
    name: TableName,
    cached: Mutex<Cached>,
}

impl fmt::Debug for Vended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vended({})", self.name)
    }
}

#[async_trait]
impl CredentialProvider for Vended {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cached = self.cached.lock().await;
        if cached.renew_at.is_none_or(|at| Instant::now() < at) {
            return Ok(Arc::clone(&cached.credential));
        }
        match self.renewed().await {
            Ok(renewed) => *cached = renewed,
            Err(e) if cached.expires_at.is_some_and(|at| Instant::now() < at) => {
                tracing::warn!(table = %self.name, error = %e.report(), "cannot renew storage credentials yet");
            }
            Err(e) => {
                return Err(object_store::Error::Generic { store: "S3", source: Box::new(e) });
            }
        }
        Ok(Arc::clone(&cached.credential))
    }
}

impl Vended {
    async fn renewed(&self) -> Result<Cached> {
        let Catalog::Rest(rest) = &*self.catalog else {
            return Err(Error::internal("only a REST catalog hands out credentials"));
        };
        Ok(rest.vend(&self.name).await?.credential(rest.clock()))
    }
}
