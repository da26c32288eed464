//! Forgets the store's history, so that it does not grow for ever.

use std::sync::Arc;
use std::time::Duration;

use store::{Revision, Store};
use tokio_util::sync::CancellationToken;

use super::Cache;

/// How often history is cut, and how much of it is kept: between one and two intervals.
const INTERVAL: Duration = Duration::from_secs(300);

/// Every interval, forgets what was already old at the one before. Several apiservers do the same
/// and do no harm: what is forgotten cannot be forgotten again.
pub async fn run(cache: Arc<Cache>, store: Store, shutdown: CancellationToken) {
    let mut previous = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
        if previous > 0 {
            match store.compact(Revision::new(previous)).await {
                Ok(()) => tracing::debug!(revision = previous, "compacted"),
                Err(store::Error::Compacted { .. }) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "compaction");
                }
            }
        }
        let reached = cache.revision();
        // Nothing has happened since: there is nothing more to forget next time either.
        previous = if reached == previous { 0 } else { reached };
    }
}
