//! Leases in memory: which there are and when they end.
//!
//! Which leases exist is durable; when they end is not: after a restart each has its full time again, as in etcd.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The shortest time to live; etcd has one and a half election timeouts, and here is no election.
pub(super) const TTL_MIN_SECONDS: i64 = 1;
/// The longest time to live, as in etcd.
pub(super) const TTL_MAX_SECONDS: i64 = 9_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: u64,
    ends: Instant,
}

/// The granted leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: Mutex<HashMap<i64, Lease>>,
    /// Told when a lease may end earlier than was known.
    pub(super) earlier: Notify,
}

/// What is known of a lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) granted_seconds: u64,
    pub(super) left: Duration,
}

impl Leases {
    pub(super) fn contains(&self, id: i64) -> bool {
        self.leases.lock().contains_key(&id)
    }

    pub(super) fn grant(&self, id: i64, ttl: u64, now: Instant) {
        self.leases.lock().insert(id, Lease { ttl, ends: now + Duration::from_secs(ttl) });
        self.earlier.notify_one();
    }

    pub(super) fn remove(&self, id: i64) {
        self.leases.lock().remove(&id);
    }

    /// Gives a lease its full time again; returns it in seconds, `None` when there is no such lease.
    pub(super) fn renew(&self, id: i64, now: Instant) -> Option<u64> {
        let mut leases = self.leases.lock();
        let lease = leases.get_mut(&id)?;
        lease.ends = now + Duration::from_secs(lease.ttl);
        Some(lease.ttl)
    }

    pub(super) fn remaining(&self, id: i64, now: Instant) -> Option<Remaining> {
        let lease = *self.leases.lock().get(&id)?;
        Some(Remaining {
            granted_seconds: lease.ttl,
            left: lease.ends.saturating_duration_since(now),
        })
    }

    /// All leases, those that end first first.
    pub(super) fn list(&self) -> Vec<i64> {
        let mut all: Vec<(Instant, i64)> =
            self.leases.lock().iter().map(|(id, lease)| (lease.ends, *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// All leases with the time to live that they were granted, in seconds.
    pub(super) fn granted(&self) -> Vec<(i64, u64)> {
        self.leases.lock().iter().map(|(id, lease)| (*id, lease.ttl)).collect()
    }

    /// The leases whose time is over, and when the next one's will be.
    pub(super) fn ended(&self, now: Instant) -> (Vec<i64>, Option<Instant>) {
        let leases = self.leases.lock();
        let ended =
            leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        (ended, leases.values().map(|lease| lease.ends).filter(|ends| *ends > now).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_unless_it_is_renewed() {
        let leases = Leases::default();
        let start = clock::instant();
        let after = |seconds| start + Duration::from_secs(seconds);
        leases.grant(1, 10, start);
        leases.grant(2, 20, start);
        assert_eq!(leases.list(), [1, 2]);
        assert_eq!(leases.renew(1, after(9)), Some(10));
        assert_eq!(leases.renew(3, after(9)), None);
        assert_eq!(leases.ended(after(11)), (vec![], Some(after(19))));
        let left = Duration::from_secs(9);
        assert_eq!(leases.remaining(2, after(11)), Some(Remaining { granted_seconds: 20, left }));
        assert_eq!(leases.ended(after(19)), (vec![1], Some(after(20))));
    }
}
