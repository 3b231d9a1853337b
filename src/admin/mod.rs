//! The HTTP side door for operators: `/metrics`, `/livez`, `/readyz` and `/status`. Read-only, and bounded in
//! connections, header size and time, so that no client of it can hold up the pipeline.
//!
//! | path | answers | 503 means |
//! |---|---|---|
//! | `/metrics` | Prometheus' text format | |
//! | `/livez` | 200 while the pipeline's loop ticks; asks nothing of Kafka, the store or the catalog | restart the process |
//! | `/readyz` | 200 once the consumer group was joined, until shutdown begins | wait |
//! | `/status` | JSON: [`Status`], what each table does | |
//!
//! A halted table flips neither `/livez` nor `/readyz`: a restart would not help it, and the others go on.

mod health;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use health::{
    Health, LastCommit, PartitionStatus, RunState, SourceState, Status, TableState, TableStatus,
    instant,
};

use crate::error::{Error, Result};

/// Connections served at a time; more wait in the system's backlog.
const CONNECTIONS: usize = 64;
/// A connection is one request, and over within this time.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// After shutdown, answers under way get this long.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The longest request head, bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Histograms keep every sample until they are folded into buckets this often.
const UPKEEP: Duration = Duration::from_secs(5);

/// Opens the address that [`serve`] answers on.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        Error::invalid(format!("cannot listen on {listen} for metrics and health"))
            .because(error)
            .hint("give a free address of this machine with --listen")
    })
}

/// Answers requests until `stop` is cancelled, and then finishes what is under way. Cancel it after the pipeline has
/// stopped, so that `/readyz` tells of the shutdown meanwhile.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) {
    let router = router(health, metrics.clone());
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = upkeep.tick() => metrics.run_upkeep(),
            Some(_) = connections.join_next() => {}
            (stream, slot) = accept(&listener, &slots) => {
                let service = router.clone();
                connections.spawn(async move {
                    let _slot = slot;
                    answer(stream, service).await;
                });
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// The next connection, once there is a slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a permit in the end.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics and health");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Answers the one request of a connection. What goes wrong is the client's: it went away or sent no HTTP.
async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME, connection).await {
        tracing::debug!(%error, "a request for metrics and health failed");
    }
}

fn router(health: Arc<Health>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .fallback(unknown)
        .with_state(Admin { health, metrics })
}

#[derive(Clone)]
struct Admin {
    health: Arc<Health>,
    metrics: PrometheusHandle,
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    admin.health.record_gauges();
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], admin.metrics.render())
}

async fn livez(State(admin): State<Admin>) -> impl IntoResponse {
    verdict(admin.health.live())
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    verdict(admin.health.ready())
}

fn verdict(healthy: Result<(), String>) -> (StatusCode, String) {
    match healthy {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn status(State(admin): State<Admin>) -> Json<Status> {
    Json(admin.health.status())
}

async fn unknown() -> Result<Infallible, (StatusCode, &'static str)> {
    Err((StatusCode::NOT_FOUND, "there are /metrics, /livez, /readyz and /status\n"))
}

#[cfg(test)]
mod tests;
