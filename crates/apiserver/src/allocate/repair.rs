//! Reconciles the allocation records with the existing Services.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Kind};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use store::{ListOptions, Revision, Store};
use tokio_util::sync::CancellationToken;

use super::Allocator;
use super::plan::{Owner, PORTS, Resource, held};
use crate::cache::{Cache, Filter};
use crate::core::Core;
use crate::error::store_error;
use crate::keys;

/// How often the records are compared with the Services, as upstream.
const INTERVAL: Duration = Duration::from_secs(180);
/// A record that no Service uses may belong to a write that is still in progress; it is deleted
/// when it has been found unused this often. No write takes so long.
const PASSES: u32 = 3;

/// Records that no Service used in the last pass: their revision, and in how many passes.
pub type Unused = HashMap<Bytes, (Revision, u32)>;

impl Allocator {
    /// Repairs now and then, until `shutdown`.
    pub fn keep_repaired(core: &Arc<Core>, shutdown: CancellationToken) {
        let core = core.clone();
        tokio::spawn(async move {
            while is_due(&shutdown).await {
                if let Err(error) = core.allocator.repair(&core.cache, core.clock.now()).await {
                    tracing::warn!(%error, "cannot repair the allocation of cluster IPs and node ports");
                }
            }
        });
    }

    /// Records what Services use without a record, and deletes records that no Service has used for
    /// several passes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn repair(&self, cache: &Cache, now: Timestamp) -> Result<(), ApiError> {
        let unused = std::mem::take(&mut *self.unused.lock());
        // The records first: whoever used one of them by then is in the cache.
        let records = records(&self.store).await?;
        cache.fresh().await?;
        let mut used = used(cache);
        let mut still_unused = Unused::new();
        for (key, recorded, revision) in records {
            if let Some((_, owner)) = used.remove(&key) {
                // Two Services with one address or port: their users have to recreate one.
                if recorded.service != owner.service {
                    tracing::error!(
                        key = %String::from_utf8_lossy(&key), recorded = recorded.service,
                        service = owner.service, "used by another Service than the one that it was allocated to"
                    );
                }
                continue;
            }
            // An IPAddress that somebody has made keeps its address, and is not ours to delete.
            if recorded.is_nobody() && !key.starts_with(PORTS.as_bytes()) {
                continue;
            }
            let before = unused.get(&key).filter(|(seen, _)| *seen == revision);
            let passes = before.map_or(1, |(_, passes)| passes + 1);
            if passes < PASSES {
                still_unused.insert(key, (revision, passes));
                continue;
            }
            tracing::info!(key = %String::from_utf8_lossy(&key), "released: no Service uses it");
            // A conflict means that somebody else has just deleted it.
            let deleted = self.store.delete(key, revision).await;
            deleted.map(drop).map_err(|error| store_error(&error))?;
        }
        *self.unused.lock() = still_unused;
        for (resource, owner) in used.into_values() {
            self.record(&resource, &owner, now).await?;
        }
        Ok(())
    }
}

/// Waits for the time of the next repair. False: it is `shutdown`.
async fn is_due(shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(INTERVAL) => true,
        () = shutdown.cancelled() => false,
    }
}

/// What the Services use, by the key of its record.
fn used(cache: &Cache) -> HashMap<Bytes, (Resource, Owner)> {
    let mut used = HashMap::new();
    for version in cache.resource(Service::ROW).list(&Filter::everything(Service::ROW, "")) {
        let Ok(service) = Service::decode(&version.json) else {
            continue;
        };
        let owner = Owner::of(&service.metadata);
        for resource in held(&service) {
            used.insert(resource.key(), (resource, owner.clone()));
        }
    }
    used
}

async fn records(store: &Store) -> Result<Vec<(Bytes, Owner, Revision)>, ApiError> {
    let mut records = Vec::new();
    for prefix in [Bytes::from_static(PORTS.as_bytes()), keys::prefix(IPAddress::ROW, "")] {
        let options = ListOptions { prefix, ..ListOptions::default() };
        let listing = store.list(options).await.map_err(|error| store_error(&error))?;
        records.extend(
            listing
                .entries
                .into_iter()
                .filter(|entry| Resource::of_key(&entry.key).is_some())
                .map(|entry| (entry.key, Owner::decode(&entry.value), entry.mod_revision)),
        );
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repair_runs_every_three_minutes_until_the_end() {
        let shutdown = CancellationToken::new();
        let begun = clock::instant();
        let mut at = Vec::new();
        while is_due(&shutdown).await {
            at.push(begun.elapsed().as_secs());
            if at.len() == 3 {
                shutdown.cancel();
            }
        }
        assert_eq!(at, [180, 360, 540]);
    }
}
