//! Reconciles the allocation records with the existing Services.

use std::collections::HashMap;

use api::{ApiError, Kind};
use bytes::Bytes;
use k8s_openapi::api::core::v1::Service;
use store::{ListOptions, Store};

use super::Allocator;
use super::plan::{PREFIX, Record, Resource, held};
use crate::cache::{Cache, Filter};
use crate::error::store_error;

/// A younger record may belong to a write that is still in progress.
const GRACE_SECONDS: i64 = 60;

impl Allocator {
    /// Records what Services use without a record, and deletes records that no Service uses.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn repair(&self, cache: &Cache) -> Result<(), ApiError> {
        let mut used: HashMap<Bytes, (Resource, String)> = HashMap::new();
        for version in cache.resource(Service::ROW).list(&Filter::everything(Service::ROW, "")) {
            let Ok(service) = Service::decode(&version.json) else {
                continue;
            };
            for resource in held(&service) {
                used.insert(resource.key(), (resource, version.key()));
            }
        }
        for (key, since, revision) in records(&self.store).await? {
            let old = self.clock.now().as_second() - since > GRACE_SECONDS;
            if used.remove(&key).is_none() && old {
                tracing::info!(key = %String::from_utf8_lossy(&key), "released: no Service uses it");
                // A conflict means that somebody else has just deleted it.
                self.store
                    .delete(key, revision)
                    .await
                    .map(drop)
                    .map_err(|error| store_error(&error))?;
            }
        }
        for (resource, owner) in used.into_values() {
            self.take(&resource, &owner).await?;
        }
        Ok(())
    }
}

async fn records(store: &Store) -> Result<Vec<(Bytes, i64, store::Revision)>, ApiError> {
    let options =
        ListOptions { prefix: Bytes::from_static(PREFIX.as_bytes()), ..ListOptions::default() };
    let listing = store.list(options).await.map_err(|error| store_error(&error))?;
    Ok(listing
        .entries
        .into_iter()
        .filter(|entry| Resource::of_key(&entry.key).is_some())
        .map(|entry| {
            let record = serde_json::from_slice::<Record>(&entry.value);
            (entry.key, record.map_or(0, |record| record.since), entry.mod_revision)
        })
        .collect())
}
