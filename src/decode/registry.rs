//! The schema registry: writer schemas by number, fetched once and kept (a number never changes its schema).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::SchemaId;
use crate::error::{Error, Result};
use crate::trust::Trust;

/// Time for one answer of the registry.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Schemas that one schema may refer to, directly or not.
const MAX_REFERENCES: usize = 100;

/// A client of a registry with the API of Confluent's (Karapace, and Apicurio under `/apis/ccompat/v7`, have it too).
pub struct Registry {
    /// None: only what was preloaded is known.
    server: Option<Server>,
    cache: Mutex<HashMap<SchemaId, Arc<Text>>>,
}

/// Where to ask, and as whom.
struct Server {
    client: Client,
    base: Url,
    auth: Option<Auth>,
}

/// User and password for the registry.
#[derive(Clone)]
pub struct Auth {
    /// The user's name.
    pub user: String,
    /// The password; never printed.
    pub password: String,
}

/// A schema and those it refers to, as the registry has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) schema: String,
    /// Referred to, before those that refer to them.
    pub(super) references: Vec<String>,
}

/// The registry's answer for a schema.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.server.as_ref().map(|server| server.base.as_str());
        f.debug_struct("Registry").field("base", &base).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client for the registry at `base`, which may have a path.
    pub fn new(base: &str, auth: Option<Auth>) -> Result<Arc<Self>> {
        Self::open(base, auth, &Trust::default())
    }

    /// The same; the server's certificate may be from one of the authorities in `trust`.
    pub fn open(base: &str, auth: Option<Auth>, trust: &Trust) -> Result<Arc<Self>> {
        let mut base = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Error::invalid("the registry's address is no http or https URL")
                    .hint("for example http://registry:8081")
            })?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(Error::invalid("the registry's address has a user or password in it")
                .hint("give them by environment or file"));
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let client = trust.http().timeout(TIMEOUT).build().map_err(|error| {
            Error::invalid("the client for the registry cannot be made").because(error)
        })?;
        let server = Some(Server { client, base, auth });
        Ok(Arc::new(Self { server, cache: Mutex::default() }))
    }

    /// A registry of just these schemas, which asks nobody.
    pub fn preloaded(schemas: impl IntoIterator<Item = (SchemaId, String)>) -> Arc<Self> {
        let text = |schema| Arc::new(Text { schema, references: Vec::new() });
        let cache = schemas.into_iter().map(|(id, schema)| (id, text(schema))).collect();
        Arc::new(Self { server: None, cache: Mutex::new(cache) })
    }

    /// The schema of a number.
    ///
    /// Fails with [`crate::error::Kind::Data`] when the registry says there is none, which may be because its copies
    /// lag; with [`crate::error::Kind::Unavailable`] whenever it does not say.
    pub(super) async fn get(&self, id: SchemaId) -> Result<Arc<Text>> {
        if let Some(text) = self.cached(id) {
            return Ok(text);
        }
        let answer = self.ask(&format!("schemas/ids/{id}"), &format!("schema {id}")).await?;
        let text = Arc::new(self.with_references(answer, id).await?);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&text));
        Ok(text)
    }

    fn cached(&self, id: SchemaId) -> Option<Arc<Text>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    async fn with_references(&self, answer: Answer, id: SchemaId) -> Result<Text> {
        if let Some(kind) = answer.kind.filter(|kind| kind != "AVRO") {
            return Err(Error::data(format!("schema {id} of the registry is {kind}, not Avro")));
        }
        let mut known: BTreeMap<(String, i64), ()> = BTreeMap::new();
        let mut wanted = answer.references;
        let mut references = Vec::new();
        while let Some(Reference { subject, version }) = wanted.pop() {
            if known.insert((subject.clone(), version), ()).is_some() {
                continue;
            }
            if known.len() > MAX_REFERENCES {
                return Err(Error::data(format!(
                    "schema {id} of the registry refers to more than {MAX_REFERENCES} others"
                )));
            }
            let path = format!("subjects/{}/versions/{version}", encode(&subject));
            let answer = self.ask(&path, &format!("version {version} of {subject}")).await?;
            references.push(answer.schema);
            wanted.extend(answer.references);
        }
        references.reverse();
        Ok(Text { schema: answer.schema, references })
    }

    async fn ask(&self, path: &str, what: &str) -> Result<Answer> {
        let unknown = || Error::data(format!("the registry has no {what}"));
        let Some(Server { client, base, auth }) = &self.server else { return Err(unknown()) };
        let stranger = || {
            Error::unavailable(format!(
                "what answers at {base} knows no {what}, and does not say so as a registry does"
            ))
            .hint("check option registry, or what stands before the registry")
        };
        let url = base.join(path).map_err(|error| {
            Error::invalid("the registry's address cannot be used").because(error)
        })?;
        let mut request = client.get(url).header("accept", ACCEPT);
        if let Some(Auth { user, password }) = auth {
            request = request.basic_auth(user, Some(password));
        }
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            Error::unavailable(format!("the registry at {base} does not give {what}"))
                .because(error)
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(failed);
        }
        if status == StatusCode::NOT_FOUND {
            return Err(if is_registrys_own(response).await { unknown() } else { stranger() });
        }
        let error =
            Error::unavailable(format!("the registry at {base} answers {status} for {what}"));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                error.hint("check the user and password for the registry")
            }
            _ => error,
        })
    }
}

/// True when the registry itself says that there is no such thing, not a server before it or in its place.
async fn is_registrys_own(response: Response) -> bool {
    response.json::<Value>().await.is_ok_and(|answer| answer.get("error_code").is_some())
}

const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// A subject as one segment of a path.
fn encode(subject: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encoded = subject.bytes().map(|byte| match byte {
        byte if plain(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests;
