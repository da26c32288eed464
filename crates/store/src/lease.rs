//! Leases: keys that expire.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::{Error, Result, Revision, Store};

/// A granted lease. Keys attached to it are deleted when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    pub(crate) const fn from_wire(id: i64) -> Option<LeaseId> {
        if id == 0 { None } else { Some(LeaseId(id)) }
    }

    pub(crate) const fn to_wire(self) -> i64 {
        self.0
    }
}

/// Keys with the same time to live that are written within this fraction of it share a lease, so
/// that a burst of short-lived keys does not create a lease each. Kubernetes does the same.
const SHARE_FRACTION: u32 = 20;
/// Revoking a lease with more keys than this is expensive, so a new one is granted.
const SHARE_KEYS: u32 = 1_000;

#[derive(Debug)]
struct Shared {
    id: LeaseId,
    until: Instant,
    keys: u32,
}

/// The leases that are currently shared, by time to live in seconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLeases(Arc<Mutex<HashMap<u64, Shared>>>);

impl Store {
    /// A lease that lasts at least `time_to_live` from now (at most a twentieth longer), shared
    /// between callers. Use it for a single write.
    pub async fn lease(&self, time_to_live: Duration) -> Result<LeaseId> {
        let seconds = time_to_live.as_secs().max(1);
        // Held while a lease is being granted, so that concurrent callers share it.
        let mut leases = self.leases.0.lock().await;
        let now = clock::instant();
        leases.retain(|_, shared| shared.until > now && shared.keys < SHARE_KEYS);
        if let Some(shared) = leases.get_mut(&seconds) {
            shared.keys += 1;
            return Ok(shared.id);
        }
        let share = time_to_live / SHARE_FRACTION;
        let ttl = seconds.saturating_add(share.as_secs()).saturating_add(1);
        let id = self.grant_lease(Duration::from_secs(ttl)).await?;
        leases.insert(seconds, Shared { id, until: now + share, keys: 1 });
        Ok(id)
    }

    /// Grants a lease that is not shared.
    pub async fn grant_lease(&self, time_to_live: Duration) -> Result<LeaseId> {
        let seconds = i64::try_from(time_to_live.as_secs().max(1)).unwrap_or(i64::MAX);
        let granted = self
            .etcd()
            .lease_client()
            .grant(seconds, None)
            .await
            .map_err(|error| Error::from_wire(error, Revision::NONE))?;
        LeaseId::from_wire(granted.id())
            .ok_or(Error::Malformed { operation: "a lease grant", part: "lease" })
    }
}
