//! A client of Iceberg's REST catalog protocol: as much of it as a sink needs, with commits as raw as they are.
//!
//! Nothing is retried here but a refused token, once. Whoever calls knows what to do about a failure, and for a
//! commit that is never to send it again unseen.

mod exchange;
mod token;
mod vended;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::exchange::{Exchange, Unanswered};

use self::exchange::Line;
use self::token::Authority;
pub(super) use self::vended::VendedStorage;
use self::wire::{CatalogConfig, LoadResult, commit_body, refusal, unreadable};
use super::catalog::{Answer, Commit, Creation, LoadedTable, Lookup, TableName};
use super::known::TOPIC;
use super::storage::Folder;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::trust::Trust;

/// Deadline of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Deadline of a request, answer included.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What parts of a path are not escaped: RFC 3986's unreserved characters.
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Between the levels of a namespace, where the catalog asks for nothing else.
const SEPARATOR: &str = "%1F";

/// Text that never shows: in no log, no error and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach a REST catalog.
#[derive(Debug, Clone, Default)]
pub struct RestOptions {
    /// The catalog's URI, without `/v1`.
    pub uri: String,
    /// The catalog's name of the warehouse, where it has several.
    pub warehouse: Option<String>,
    /// `id:secret` of an OAuth2 client; a token is asked for with it, and again before it expires.
    pub credential: Option<Secret>,
    /// A bearer token; a credential goes before it.
    pub token: Option<Secret>,
    /// `user:password` for each request; credential and token go before it.
    pub auth: Option<Secret>,
    /// The scope to ask a token for; `catalog` if none is given.
    pub scope: Option<String>,
    /// Where tokens come from; the catalog's own `/v1/oauth/tokens` if none is given.
    pub oauth2_server_uri: Option<String>,
    /// Asks the catalog for storage credentials that are made for each table.
    pub vended_credentials: bool,
    /// Authorities that the servers' certificates may be from.
    pub trust: Trust,
}

/// A catalog server.
#[derive(Debug)]
pub struct RestCatalog {
    line: Line,
    /// Up to and with `/v1` and the prefix.
    base: String,
    separator: String,
    authority: Authority,
    /// Settings for every table's storage, from the catalog.
    storage: HashMap<String, Secret>,
    vended_credentials: bool,
    clock: Clock,
}

/// Why a request has no good answer.
#[derive(Debug)]
struct Failure {
    /// What the server said; none when there was no answer.
    status: Option<StatusCode>,
    error: Error,
}

impl RestCatalog {
    /// Asks the catalog for its configuration. Fails when it does not answer or lets us not in.
    pub async fn connect(options: RestOptions, clock: Clock) -> Result<Self> {
        Self::over(None, options, clock).await
    }

    /// As [`RestCatalog::connect`], with requests that `exchange` sends.
    pub async fn connect_over(
        exchange: Arc<dyn Exchange>,
        options: RestOptions,
        clock: Clock,
    ) -> Result<Self> {
        Self::over(Some(exchange), options, clock).await
    }

    async fn over(
        exchange: Option<Arc<dyn Exchange>>,
        options: RestOptions,
        clock: Clock,
    ) -> Result<Self> {
        let uri = options.uri.trim_end_matches('/').to_owned();
        let client = options
            .trust
            .http()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("cdc-sink/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::internal("cannot make an HTTP client").because(e))?;
        let line = Line::new(client, exchange);
        let authority = Authority::new(&options, &uri, line.clone());
        let mut catalog = Self {
            line,
            base: format!("{uri}/v1"),
            separator: SEPARATOR.to_owned(),
            authority,
            storage: HashMap::new(),
            vended_credentials: options.vended_credentials,
            clock,
        };
        let what = format!("cannot get the configuration of the Iceberg catalog {uri}");
        let warehouse: Vec<_> = options.warehouse.iter().map(|name| ("warehouse", name)).collect();
        let url = format!("{}/config", catalog.base);
        let body = catalog
            .call(&what, || catalog.line.request(Method::GET, &url).query(&warehouse))
            .await
            .map_err(|failure| failure.error)?;
        let config: CatalogConfig = serde_json::from_slice(&body).map_err(|e| {
            Error::invalid(what).because(e).hint("is this the URI of an Iceberg REST catalog?")
        })?;
        catalog.configure(&uri, config);
        Ok(catalog)
    }

    fn configure(&mut self, uri: &str, config: CatalogConfig) {
        let CatalogConfig { defaults, overrides } = config;
        let mut properties = defaults;
        properties.extend(overrides);
        let uri = properties.get("uri").map_or(uri, |uri| uri.trim_end_matches('/'));
        self.base = match properties.get("prefix") {
            Some(prefix) => format!("{uri}/v1/{}", prefix.trim_matches('/')),
            None => format!("{uri}/v1"),
        };
        if let Some(separator) = properties.get("namespace-separator") {
            self.separator.clone_from(separator);
        }
        self.storage =
            properties.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
    }

    /// Sends what `request` makes, with a token, and gives the body of a good answer.
    async fn call(
        &self,
        what: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<bytes::Bytes, Failure> {
        let no_token = |error| Failure { status: Some(StatusCode::UNAUTHORIZED), error };
        let mut refused = None;
        loop {
            let token = self.authority.token(refused.as_ref()).await.map_err(no_token)?;
            let request = self.authority.sign(request(), token.as_ref());
            let answer = self.line.send(request).await;
            let (status, body) = answer.map_err(|e| unanswered(what, e))?;
            if status.is_success() {
                return Ok(body);
            }
            // 419: a token that has expired, as some catalogs say.
            let expired = matches!(status.as_u16(), 401 | 419);
            if expired && refused.is_none() && self.authority.is_renewable() {
                refused = token;
                continue;
            }
            let mut error = refusal(what, status, &body, self.authority.hint());
            if self.vended_credentials && status == StatusCode::BAD_REQUEST {
                // Nessie answers so when its store was slow to make the credentials that are part of an answer. What
                // was asked for may be done.
                error = Error::unavailable(error.report());
            }
            return Err(Failure { status: Some(status), error });
        }
    }

    fn post<'a>(
        &'a self,
        url: &'a str,
        body: &'a impl Serialize,
    ) -> impl Fn() -> RequestBuilder + 'a {
        move || self.delegated(Method::POST, url).json(body)
    }

    fn get<'a>(&'a self, url: &'a str) -> impl Fn() -> RequestBuilder + 'a {
        move || self.delegated(Method::GET, url)
    }

    fn delegated(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.line.request(method, url);
        if self.vended_credentials {
            request.header("X-Iceberg-Access-Delegation", "vended-credentials")
        } else {
            request
        }
    }

    fn namespace_url(&self, levels: &[String]) -> String {
        let levels: Vec<_> = levels.iter().map(|level| escaped(level)).collect();
        format!("{}/namespaces/{}", self.base, levels.join(&self.separator))
    }

    fn table_url(&self, name: &TableName) -> String {
        format!("{}/tables/{}", self.namespace_url(&name.namespace), escaped(&name.name))
    }

    pub(super) async fn load(&self, name: &TableName, known: Option<&str>) -> Result<Lookup> {
        let Some(body) = self.load_body(name).await? else { return Ok(Lookup::Absent) };
        let result = LoadResult::parse(&body, name)?;
        if known.is_some() && known == result.metadata_location() {
            return Ok(Lookup::Unchanged);
        }
        self.loaded(result).map(|table| Lookup::Found(Box::new(table)))
    }

    async fn load_body(&self, name: &TableName) -> Result<Option<bytes::Bytes>> {
        let what = format!("cannot load the Iceberg table {name}");
        match self.call(&what, self.get(&self.table_url(name))).await {
            Ok(body) => Ok(Some(body)),
            Err(Failure { status: Some(StatusCode::NOT_FOUND), .. }) => Ok(None),
            Err(failure) => Err(failure.error),
        }
    }

    fn loaded(&self, result: LoadResult<'_>) -> Result<LoadedTable> {
        let storage = self.vended_credentials.then(|| result.storage(&self.storage)).flatten();
        let mut table = result.table()?;
        table.storage = storage;
        Ok(table)
    }

    /// The storage credentials that the catalog gives for the table now.
    pub(super) async fn vend(&self, name: &TableName) -> Result<VendedStorage> {
        let none = || {
            Error::refused(format!("the Iceberg catalog gives no storage credentials for {name}"))
                .hint("let the catalog vend credentials, or give the sink its own")
        };
        let body = self.load_body(name).await?.ok_or_else(none)?;
        LoadResult::parse(&body, name)?.storage(&self.storage).ok_or_else(none)
    }

    /// The tables that cdc-sink made, in all namespaces of one level.
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        let mut found = Vec::new();
        let namespaces = self.pages(&format!("{}/namespaces", self.base), "namespaces").await?;
        for namespace in namespaces {
            let Ok(levels) = serde_json::from_value::<Vec<String>>(namespace) else { continue };
            let url = format!("{}/tables", self.namespace_url(&levels));
            let tables = self.pages(&url, "identifiers").await?;
            for table in tables.iter().filter_map(|table| table.get("name")?.as_str()) {
                let name = TableName { namespace: levels.clone(), name: table.to_owned() };
                let Some(body) = self.load_body(&name).await? else { continue };
                if LoadResult::parse(&body, &name)?.has_property(TOPIC) {
                    found.push(name);
                }
            }
        }
        Ok(found)
    }

    /// The entries of all pages of a list.
    async fn pages(&self, url: &str, entries: &str) -> Result<Vec<Value>> {
        let what = format!("cannot list the {entries} of the Iceberg catalog");
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let query: Vec<_> = token.iter().map(|token| ("pageToken", token)).collect();
            let request = || self.line.request(Method::GET, url).query(&query);
            let body = self.call(&what, request).await.map_err(|failure| failure.error)?;
            let mut page: Value =
                serde_json::from_slice(&body).map_err(|e| unreadable(what.clone(), e))?;
            if let Some(Value::Array(entries)) = page.get_mut(entries).map(Value::take) {
                found.extend(entries);
            }
            let next = page.get("next-page-token").and_then(Value::as_str);
            // A catalog that gives the same page for ever is not followed.
            let next = next.filter(|next| !next.is_empty() && token.as_deref() != Some(*next));
            let Some(next) = next else { return Ok(found) };
            token = Some(next.to_owned());
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) async fn create(
        &self,
        home: &Folder,
        name: &TableName,
        creation: Creation,
    ) -> Result<Option<LoadedTable>> {
        self.create_namespace(&name.namespace).await?;
        let Creation { schema, spec, version, mut properties } = creation;
        properties.insert("format-version".to_owned(), u8::to_string(&(version as u8)));
        let body = json!({
            "name": name.name,
            "location": home.name(),
            "schema": schema,
            "partition-spec": spec,
            "stage-create": false,
            "properties": properties,
        });
        let url = format!("{}/tables", self.namespace_url(&name.namespace));
        let what = format!("cannot create the Iceberg table {name}");
        match self.call(&what, self.post(&url, &body)).await {
            Ok(body) => self.loaded(LoadResult::parse(&body, name)?).map(Some),
            Err(Failure { status: Some(StatusCode::CONFLICT), .. }) => Ok(None),
            Err(failure) => Err(failure.error),
        }
    }

    /// Creates the namespace and those it is in, as far as they are not there. One that may not be looked at is taken
    /// to be there.
    async fn create_namespace(&self, levels: &[String]) -> Result<()> {
        let missing = |failure: &Failure| failure.status == Some(StatusCode::NOT_FOUND);
        let name = levels.join(".");
        let look = format!("cannot look for the namespace {name}");
        match self.call(&look, self.get(&self.namespace_url(levels))).await {
            Err(failure) if missing(&failure) => {}
            Err(failure) if failure.status != Some(StatusCode::FORBIDDEN) => {
                return Err(failure.error);
            }
            _ => return Ok(()),
        }
        let create = format!("cannot create the namespace {name}");
        let url = format!("{}/namespaces", self.base);
        for depth in 1..=levels.len() {
            let levels = levels.get(..depth).unwrap_or_default();
            let body = json!({ "namespace": levels, "properties": {} });
            match self.call(&create, self.post(&url, &body)).await {
                Ok(_) => {}
                Err(failure) if failure.status == Some(StatusCode::CONFLICT) => {}
                Err(failure) => return Err(failure.error),
            }
        }
        Ok(())
    }

    pub(super) async fn commit(&self, name: &TableName, commit: Commit<'_>) -> Answer {
        let what = format!("cannot commit to the Iceberg table {name}");
        let body = match commit_body(name, &commit) {
            Ok(body) => body,
            Err(e) => return Answer::Refused(Error::internal(what).because(e)),
        };
        let url = self.table_url(name);
        let answer = self.call(&what, self.post(&url, &body)).await;
        failpoint::reach(Point::K6);
        match answer {
            // Whatever is wrong with the answer, the commit is in; the table has to be looked at.
            Ok(body) => match LoadResult::parse(&body, name).and_then(LoadResult::table) {
                Ok(table) => Answer::Done(Box::new(table)),
                Err(e) => Answer::Unclear(Error::unavailable(what).because(e)),
            },
            Err(Failure {
                status: Some(StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED),
                ..
            }) => Answer::Conflict,
            Err(failure) if failure.error.kind() == Kind::Refused => Answer::Refused(failure.error),
            Err(failure) => Answer::Unclear(failure.error),
        }
    }
}

fn escaped(part: &str) -> String {
    utf8_percent_encode(part, UNESCAPED).to_string()
}

fn unanswered(what: &str, error: Unanswered) -> Failure {
    Failure { status: None, error: Error::unavailable(what).because(error) }
}
