//! A catalog server, as Iceberg's REST protocol has it: namespaces, tables, and commits that find the table as they say.
//!
//! It puts a table's metadata in the store, where its own requests never fail, and swaps the pointer at the same moment.

mod asked;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use iceberg::spec::{
    FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};
use iceberg::{TableRequirement, TableUpdate};
use object_store::PutMode;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::chance::chance;
use super::store::World;
use super::tables::NAMESPACE;
pub(super) use asked::{Asked, Call};
pub(super) use wire::{Straight, Wire};

/// How long a token is good for, seconds.
const TOKEN_LIFE: u64 = 900;

/// An answer: its status and its body.
type Answer = (StatusCode, Bytes);

/// The server, whoever asks.
#[derive(Debug, Default)]
pub(super) struct Catalog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    namespaces: BTreeSet<String>,
    /// Every version of every table, by namespace and name.
    tables: BTreeMap<String, Vec<Version>>,
    /// Tokens given away, and when they end.
    tokens: BTreeMap<String, u64>,
    given: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Version {
    /// Where the metadata is.
    pub(super) location: String,
    pub(super) metadata: TableMetadata,
    text: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CreateBody {
    name: String,
    location: String,
    schema: Schema,
    partition_spec: UnboundPartitionSpec,
    properties: HashMap<String, String>,
}

#[derive(Deserialize)]
struct CommitBody {
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
}

fn fine(body: &Value) -> Answer {
    (StatusCode::OK, body.to_string().into())
}

fn refused(status: u16, kind: &str) -> Answer {
    let body = json!({ "error": { "message": kind, "type": kind, "code": status } });
    (StatusCode::from_u16(status).unwrap(), body.to_string().into())
}

impl Catalog {
    /// Does what is asked.
    pub(super) async fn answer(&self, world: &World, asked: &Asked) -> Answer {
        let mut state = self.0.lock().await;
        let now = world.trace.millis();
        if asked.call == Call::Token {
            return state.give_token(now);
        }
        let let_in = asked.token.as_ref().and_then(|token| state.tokens.get(token));
        if let_in.is_none_or(|end| *end <= now) {
            return refused(401, "NotAuthorizedException");
        }
        match asked.call {
            Call::Config => fine(&json!({ "defaults": {}, "overrides": { "prefix": "sim" } })),
            Call::Look if state.namespaces.contains(&asked.key) => fine(&json!({})),
            Call::Look => refused(404, "NoSuchNamespaceException"),
            Call::Found => state.found(&asked.body),
            Call::Create => state.create(world, asked).await,
            Call::Load => state.load(&asked.key, 0),
            Call::Commit => state.commit(world, asked).await,
            Call::Token => refused(400, "BadRequestException"),
        }
    }

    /// The table as it was before its newest version, as a replica or a cache gives it; none when there is no such version.
    pub(super) async fn behind(&self, asked: &Asked) -> Option<Answer> {
        let state = self.0.lock().await;
        state.tables.get(&asked.key).filter(|versions| versions.len() > 1)?;
        Some(state.load(&asked.key, 1))
    }

    /// No token is good any more.
    pub(super) async fn revoke(&self) {
        self.0.lock().await.tokens.clear();
    }

    /// Every version of the table.
    pub(super) async fn versions(&self, table: &str) -> Vec<Version> {
        let state = self.0.lock().await;
        state.tables.get(&format!("{NAMESPACE}/{table}")).cloned().unwrap_or_default()
    }

    /// Makes `metadata` the table's newest, whatever it was made of.
    pub(super) async fn put(&self, world: &World, table: &str, metadata: TableMetadata) {
        self.0.lock().await.put(world, &format!("{NAMESPACE}/{table}"), metadata).await;
    }
}

impl State {
    fn give_token(&mut self, now: u64) -> Answer {
        self.given += 1;
        let token = format!("token-{}", self.given);
        self.tokens.insert(token.clone(), now + TOKEN_LIFE * 1000);
        fine(&json!({ "access_token": token, "token_type": "bearer", "expires_in": TOKEN_LIFE }))
    }

    fn found(&mut self, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap();
        let levels = body["namespace"].as_array().unwrap().iter();
        let levels: Vec<_> = levels.map(|level| level.as_str().unwrap()).collect();
        match self.namespaces.insert(levels.join("%1F")) {
            true => fine(&json!({})),
            false => refused(409, "AlreadyExistsException"),
        }
    }

    async fn create(&mut self, world: &World, asked: &Asked) -> Answer {
        let mut body: CreateBody = serde_json::from_slice(&asked.body).unwrap();
        if !self.namespaces.contains(&asked.key) {
            return refused(404, "NoSuchNamespaceException");
        }
        let key = format!("{}/{}", asked.key, body.name);
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
        let id = chance(world.seed, &["table", &key]).u128(..).to_be_bytes();
        let id = uuid::Builder::from_random_bytes(id).into_uuid();
        let made = builder.unwrap().assign_uuid(id).build().unwrap().metadata;
        self.put(world, &key, made).await;
        self.load(&key, 0)
    }

    /// The table `back` versions before the newest.
    fn load(&self, key: &str, back: usize) -> Answer {
        let versions = self.tables.get(key);
        let Some(version) = versions.and_then(|versions| versions.iter().nth_back(back)) else {
            return refused(404, "NoSuchTableException");
        };
        let location = Value::from(version.location.as_str());
        let head = format!("{{\"metadata-location\":{location},\"metadata\":");
        let body: [&[u8]; 3] = [head.as_bytes(), &version.text, b"}"];
        (StatusCode::OK, body.concat().into())
    }

    async fn commit(&mut self, world: &World, asked: &Asked) -> Answer {
        let CommitBody { requirements, updates } = serde_json::from_slice(&asked.body).unwrap();
        let Some(newest) = self.tables.get(&asked.key).and_then(|versions| versions.last()) else {
            return refused(404, "NoSuchTableException");
        };
        let metadata = &newest.metadata;
        if requirements.iter().any(|requirement| requirement.check(Some(metadata)).is_err()) {
            return refused(409, "CommitFailedException");
        }
        let mut builder = metadata.clone().into_builder(Some(newest.location.clone()));
        for update in updates {
            // A snapshot that is older than the table's last one, as Java's servers answer that.
            let Ok(updated) = update.apply(builder) else {
                return refused(409, "CommitFailedException");
            };
            builder = updated;
        }
        let made = builder.build().unwrap().metadata;
        self.put(world, &asked.key, made).await;
        self.load(&asked.key, 0)
    }

    async fn put(&mut self, world: &World, key: &str, metadata: TableMetadata) {
        let versions = self.tables.entry(key.to_owned()).or_default();
        let number = versions.len();
        let id = chance(world.seed, &["metadata", key, &number.to_string()]).u128(..);
        let id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid();
        let location = format!("{}/metadata/{number:05}-{id}.metadata.json", metadata.location());
        // The library takes the time of the machine where there is no new snapshot.
        let before = versions.last().map(|version| version.metadata.last_updated_ms());
        let now = world.wall_millis().max(before.unwrap_or_default());
        let mut text = serde_json::to_value(metadata).unwrap();
        text["last-updated-ms"] = now.into();
        for entry in text["snapshot-log"].as_array_mut().into_iter().flatten() {
            let at = entry["timestamp-ms"].as_i64().unwrap();
            entry["timestamp-ms"] = at.min(now).into();
        }
        let metadata = serde_json::from_value(text.clone()).unwrap();
        let text = Bytes::from(text.to_string());
        let path = location.strip_prefix("memory:///").unwrap();
        let (options, at) = (PutMode::Create.into(), world.trace.millis());
        world.bucket.put(&path.into(), text.clone().into(), options, at).await.unwrap();
        versions.push(Version { location, metadata, text });
    }
}
