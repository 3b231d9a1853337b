//! A catalog server in the process, which answers badly on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use iceberg::spec::{
    FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};
use iceberg::{TableRequirement, TableUpdate};
use serde::Deserialize;
use serde_json::{Value, json};

/// What goes wrong with one request for a table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It is done, and then answered like this.
    DoneThen(u16),
    /// It is answered like this and not done.
    Only(u16),
}

#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) url: String,
    /// Method and path of every request.
    pub(super) requests: Vec<String>,
    /// Faults of the next requests for tables.
    pub(super) faults: VecDeque<Fault>,
    /// The token that is taken; none lets everybody in.
    pub(super) token: Option<String>,
    /// What the header Authorization must be, in place of the token.
    pub(super) authorization: Option<&'static str>,
    /// Tokens given away, and what they were asked for with.
    pub(super) tokens: Vec<String>,
    pub(super) expires_in: u64,
    /// Gives no tokens, but this answer.
    pub(super) no_tokens: Option<(u16, &'static str)>,
    /// What is added to every table.
    pub(super) extra: Value,
    namespaces: Vec<String>,
    tables: BTreeMap<String, (TableMetadata, u32)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CreateBody {
    name: String,
    location: String,
    schema: Schema,
    partition_spec: UnboundPartitionSpec,
    properties: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
struct Commit {
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
}

pub(super) type Shared = Arc<Mutex<Fake>>;

pub(super) async fn start() -> Shared {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let fake = Arc::new(Mutex::new(Fake { url, expires_in: 3600, ..Fake::default() }));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });
    server.detach_all();
    fake
}

fn refused(status: u16, kind: &str) -> Response {
    let message = format!("{kind} {}", "x".repeat(1000));
    let body = json!({ "error": { "message": message, "type": kind, "code": status } });
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

async fn answer(
    State(fake): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut fake = fake.lock().unwrap();
    let path = uri.path().to_owned();
    fake.requests.push(format!("{method} {uri}"));
    if path == "/start/v1/oauth/tokens" {
        return fake.give_token(&body);
    }
    let bearer = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let token = fake.token.as_ref().map(|token| format!("Bearer {token}"));
    let wanted = fake.authorization.map(str::to_owned).or(token);
    if wanted.is_some() && bearer != wanted {
        return refused(401, "NotAuthorizedException");
    }
    if path == "/start/v1/config" {
        // Endpoints as Apache's catalog spells them.
        let body = json!({
            "defaults": { "prefix": "wrong", "s3.region": "default" },
            "overrides": { "prefix": "pre/fix", "uri": format!("{}/there/", fake.url) },
            "endpoints": ["POST v1/oauth/tokens", "POST https://auth-server.com/token"],
        });
        return body.to_string().into_response();
    }
    let Some(path) = path.strip_prefix("/there/v1/pre/fix/namespaces") else {
        return refused(404, "NotFound");
    };
    let Some((namespace, table)) = path.split_once("/tables") else {
        return fake.namespace(&method, path, &body);
    };
    let fault = fake.faults.pop_front();
    if let Some(Fault::Only(status)) = fault {
        return refused(status, "Broken");
    }
    let answer = match (method.as_str(), table) {
        ("POST", "") => fake.create(namespace, &body),
        ("GET", table) => fake.load(&format!("{namespace}{table}")),
        ("POST", table) => fake.commit(&format!("{namespace}{table}"), &body),
        _ => refused(400, "BadRequest"),
    };
    match fault {
        Some(Fault::DoneThen(status)) => refused(status, "Broken"),
        _ => answer,
    }
}

impl Fake {
    fn give_token(&mut self, form: &[u8]) -> Response {
        self.tokens.push(String::from_utf8(form.to_vec()).unwrap());
        if let Some((status, body)) = self.no_tokens {
            return (StatusCode::from_u16(status).unwrap(), body).into_response();
        }
        let token = format!("token-{}", self.tokens.len());
        self.token = Some(token.clone());
        json!({ "access_token": token, "token_type": "bearer", "expires_in": self.expires_in })
            .to_string()
            .into_response()
    }

    fn namespace(&mut self, method: &Method, path: &str, body: &[u8]) -> Response {
        if method == Method::GET {
            let known = self.namespaces.contains(&path.trim_start_matches('/').to_owned());
            return if known { "{}".into_response() } else { refused(404, "NoSuchNamespace") };
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        let levels = body["namespace"].as_array().unwrap().iter();
        let levels: Vec<_> =
            levels.map(|level| level.as_str().unwrap().replace(' ', "%20")).collect();
        self.namespaces.push(levels.join("%1F"));
        "{}".into_response()
    }

    fn create(&mut self, namespace: &str, body: &[u8]) -> Response {
        let mut body: CreateBody = serde_json::from_slice(body).unwrap();
        let key = format!("{namespace}/{}", body.name.replace(' ', "%20").replace('/', "%2F"));
        if self.tables.contains_key(&key) {
            return refused(409, "AlreadyExistsException");
        }
        let version = match body.properties.remove("format-version").as_deref() {
            Some("3") => FormatVersion::V3,
            _ => FormatVersion::V2,
        };
        let order = SortOrder::unsorted_order();
        let CreateBody { schema, partition_spec, location, properties, .. } = body;
        let builder =
            TableMetadataBuilder::new(schema, partition_spec, order, location, version, properties);
        let metadata = builder.unwrap().build().unwrap().metadata;
        self.tables.insert(key.clone(), (metadata, 0));
        self.load(&key)
    }

    fn load(&self, key: &str) -> Response {
        let Some((metadata, number)) = self.tables.get(key) else {
            return refused(404, "NoSuchTableException");
        };
        let location = format!("{}/metadata/{number:05}.metadata.json", metadata.location());
        let mut body = json!({ "metadata-location": location, "metadata": metadata });
        if let Value::Object(extra) = &self.extra {
            body.as_object_mut().unwrap().extend(extra.clone());
        }
        body.to_string().into_response()
    }

    fn commit(&mut self, key: &str, body: &[u8]) -> Response {
        let Commit { requirements, updates } = serde_json::from_slice(body).unwrap();
        let (metadata, number) = self.tables.get_mut(key).unwrap();
        if requirements.iter().any(|requirement| requirement.check(Some(metadata)).is_err()) {
            return refused(409, "CommitFailedException");
        }
        // Apache's catalog takes the last schema of those that it did not have.
        let is_new =
            |new: &Schema| !metadata.schemas_iter().any(|s| s.as_struct() == new.as_struct());
        let adds = |update: &TableUpdate| matches!(update, TableUpdate::AddSchema { schema } if is_new(schema));
        let last = |update: &TableUpdate| {
            matches!(update, TableUpdate::SetCurrentSchema { schema_id: -1 })
        };
        if updates.iter().any(last) && !updates.iter().any(adds) {
            return refused(400, "ValidationException");
        }
        let mut builder = metadata.clone().into_builder(None);
        for update in updates {
            builder = update.apply(builder).unwrap();
        }
        *metadata = builder.build().unwrap().metadata;
        *number += 1;
        self.load(key)
    }
}
