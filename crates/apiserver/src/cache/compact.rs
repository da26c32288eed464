//! Compacts the store's history, so that it does not grow without bound.

use std::sync::Arc;
use std::time::Duration;

use store::{Revision, Store};
use tokio_util::sync::CancellationToken;

use super::Cache;

/// How often history is compacted, and how much of it is kept: between one and two intervals.
const INTERVAL: Duration = Duration::from_secs(300);

/// Compacts, at every interval, up to the revision of the previous one. Several apiservers may do
/// so at once: compacting twice does no harm.
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
                    tracing::warn!(error = &error as &dyn std::error::Error, "compaction failed");
                }
            }
        }
        let reached = cache.revision();
        // Nothing was written in between: there will be nothing to compact next time either.
        previous = if reached == previous { 0 } else { reached };
    }
}
