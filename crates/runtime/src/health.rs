//! Named conditions that readiness depends on, and the health endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// The conditions that must hold before the process is ready, and the checks of its health. Cheap to
/// clone.
#[derive(Clone)]
pub struct Health {
    conditions: Arc<watch::Sender<BTreeMap<&'static str, bool>>>,
    checks: Arc<RwLock<Vec<(&'static str, Check)>>>,
}

impl Health {
    /// Ready once each of `conditions` has been [`set`](Self::set).
    pub fn new(conditions: &[&'static str]) -> Self {
        let map = conditions.iter().map(|name| (*name, false)).collect();
        Self { conditions: Arc::new(watch::Sender::new(map)), checks: Arc::default() }
    }

    /// Sets whether `condition` holds.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.conditions.send_if_modified(|map| map.insert(condition, holds) != Some(holds));
    }

    /// Adds a check of the health: whether the process still does what it is there for.
    pub fn check(&self, name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) {
        self.checks.write().expect("no holder panics").push((name, Box::new(holds)));
    }

    /// Whether the process is healthy, and what Kubernetes' health endpoints say then.
    fn health(&self) -> (StatusCode, String) {
        let checks = self.checks.read().expect("no holder panics");
        let results: Vec<_> = checks.iter().map(|(name, holds)| (*name, holds())).collect();
        if results.iter().all(|(_, holds)| *holds) {
            return (StatusCode::OK, "ok".to_owned());
        }
        let line = |(name, holds): (&str, bool)| match holds {
            true => format!("[+]{name} ok\n"),
            false => format!("[-]{name} failed: reason withheld\n"),
        };
        let lines: String = results.into_iter().map(line).collect();
        let text = format!("[+]ping ok\n{lines}healthz check failed\n");
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    pub fn is_ready(&self) -> bool {
        self.conditions.borrow().values().all(|holds| *holds)
    }

    /// Waits until every condition holds.
    pub async fn ready(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let waited = self
            .conditions
            .subscribe()
            .wait_for(|map| map.values().all(|holds| *holds))
            .await
            .map(|_| ());
        debug_assert!(waited.is_ok());
    }

    /// Lines like `[+]store ok`, as in Kubernetes' verbose health output.
    pub fn report(&self) -> String {
        let line = |(name, holds): (&&str, &bool)| {
            if *holds { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: not yet\n") }
        };
        self.conditions.borrow().iter().map(line).collect()
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
        .route("/healthz", get(healthz))
        .route("/livez", get(healthz))
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

async fn healthz(State(health): State<Health>) -> (StatusCode, String) {
    health.health()
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    if health.is_ready() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, health.report())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_named() {
        let health = Health::new(&["synced"]);
        assert_eq!(health.health(), (StatusCode::OK, "ok".to_owned()));
        health.check("a", || true);
        assert_eq!(health.health(), (StatusCode::OK, "ok".to_owned()));
        health.check("leaderElection", || false);
        let (code, text) = health.health();
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        let lines = "[+]ping ok\n[+]a ok\n[-]leaderElection failed: reason withheld\n";
        assert_eq!(text, format!("{lines}healthz check failed\n"));
    }
}
