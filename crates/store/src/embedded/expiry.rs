//! Ending leases whose time is over.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{self, Instant};

use super::engine::Engine;

/// How long to wait before ending a lease is tried again after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Sleeps until the next lease ends, and revokes it. Ends with the engine.
pub(super) async fn run(engine: Weak<Engine>) {
    let Some((shared, stopped)) =
        engine.upgrade().map(|engine| (engine.shared.clone(), engine.stopped.clone()))
    else {
        return;
    };
    loop {
        let (ended, next) = shared.leases.ended(clock::instant());
        let mut failed = false;
        for id in ended {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            failed |= !revoke(&engine, id).await;
        }
        let retry = failed.then(|| clock::instant() + RETRY_AFTER);
        let wake = [next, retry].into_iter().flatten().min();
        tokio::select! {
            () = stopped.cancelled() => return,
            () = shared.leases.earlier.notified() => {}
            () = sleep_until(wake) => {}
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

async fn revoke(engine: &Arc<Engine>, id: i64) -> bool {
    match engine.revoke(id).await {
        Ok(_) => true,
        // Someone else was faster.
        Err(status) if status.code() == tonic::Code::NotFound => true,
        Err(status) => {
            tracing::warn!(lease = id, %status, "a lease could not be ended");
            false
        }
    }
}
