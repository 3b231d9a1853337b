//! A schema registry on a local port that misses schemas at first, as replicas do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cdc_sink::decode::SchemaId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The registry; it ends when this is dropped.
pub(super) struct Served {
    pub(super) address: String,
    state: Arc<Schemas>,
    _server: JoinSet<()>,
}

struct Schemas {
    schemas: HashMap<u32, String>,
    misses: AtomicU32,
    requests: AtomicUsize,
}

impl Served {
    /// How often it was asked.
    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }
}

/// Serves `schemas`, after `misses` answers that there is no such schema.
pub(super) async fn serve(
    schemas: impl Iterator<Item = (SchemaId, String)>,
    misses: u32,
) -> Served {
    let schemas = schemas.map(|(id, schema)| (id.0, schema)).collect();
    let (misses, requests) = (AtomicU32::new(misses), AtomicUsize::new(0));
    let state = Arc::new(Schemas { schemas, misses, requests });
    let routes = Router::new().route("/schemas/ids/{id}", get(schema));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    let routes = routes.with_state(Arc::clone(&state));
    server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Served { address, state, _server: server }
}

async fn schema(
    State(state): State<Arc<Schemas>>,
    Path(id): Path<u32>,
) -> (StatusCode, Json<Value>) {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let fewer = |misses: u32| misses.checked_sub(1);
    let missed = state.misses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok();
    match state.schemas.get(&id).filter(|_| !missed) {
        Some(schema) => (StatusCode::OK, Json(json!({"schema": schema}))),
        None => (StatusCode::NOT_FOUND, Json(json!({"error_code": 40403}))),
    }
}
