//! Named conditions that readiness depends on, and the health endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The conditions that must hold before the process is ready. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<watch::Sender<BTreeMap<&'static str, bool>>>);

impl Health {
    /// Ready once each of `conditions` has been [`set`](Self::set).
    pub fn new(conditions: &[&'static str]) -> Self {
        let map = conditions.iter().map(|name| (*name, false)).collect();
        Self(Arc::new(watch::Sender::new(map)))
    }

    /// Sets whether `condition` holds.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.0.send_if_modified(|map| map.insert(condition, holds) != Some(holds));
    }

    pub fn is_ready(&self) -> bool {
        self.0.borrow().values().all(|holds| *holds)
    }

    /// Waits until every condition holds.
    pub async fn ready(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let waited =
            self.0.subscribe().wait_for(|map| map.values().all(|holds| *holds)).await.map(|_| ());
        debug_assert!(waited.is_ok());
    }

    /// Lines like `[+]store ok`, as in Kubernetes' verbose health output.
    pub fn report(&self) -> String {
        let line = |(name, holds): (&&str, &bool)| {
            if *holds { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: not yet\n") }
        };
        self.0.borrow().iter().map(line).collect()
    }
}

/// Serves `/healthz`, `/livez` and `/readyz` over HTTP until `shutdown`.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    health: Health,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .with_state(health);
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the health endpoint failed");
        }
    });
    Ok(())
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    if health.is_ready() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, health.report())
    }
}
