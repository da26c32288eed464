//! Revokes expired leases.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{self, Instant};

use super::engine::Engine;

/// The delay before a failed revocation is retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Sleeps until the next lease expires, and revokes it. Ends with the engine.
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
        // A client has revoked it in the meantime.
        Err(status) if status.code() == tonic::Code::NotFound => true,
        Err(status) => {
            tracing::warn!(lease = id, %status, "cannot revoke an expired lease");
            false
        }
    }
}
