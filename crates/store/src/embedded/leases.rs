//! The leases in memory, with their expiry.
//!
//! The existence of a lease is durable, its expiry is not: after a restart each lease starts over
//! with its full time to live, as in etcd.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The shortest time to live. etcd's is one and a half election timeouts, but there are no
/// elections here.
pub(super) const TTL_MIN_SECONDS: i64 = 1;
/// The longest time to live, as in etcd.
pub(super) const TTL_MAX_SECONDS: i64 = 9_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: u64,
    ends: Instant,
    /// It has been found expired and is being revoked, which nothing stops.
    over: bool,
}

/// The granted leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: Mutex<HashMap<i64, Lease>>,
    /// Notified when a lease may expire earlier than the ones before.
    pub(super) earlier: Notify,
}

/// The remaining and the granted time to live of a lease.
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
        let lease = Lease { ttl, ends: now + Duration::from_secs(ttl), over: false };
        self.leases.lock().insert(id, lease);
        self.earlier.notify_one();
    }

    pub(super) fn remove(&self, id: i64) {
        self.leases.lock().remove(&id);
    }

    /// Renews a lease; returns its time to live in seconds, or `None` if there is no such lease or
    /// it has expired: its holder must not believe that its keys remain.
    pub(super) fn renew(&self, id: i64, now: Instant) -> Option<u64> {
        let mut leases = self.leases.lock();
        let lease = leases.get_mut(&id).filter(|lease| !lease.over && lease.ends > now)?;
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

    /// All leases, ordered by expiry.
    pub(super) fn list(&self) -> Vec<i64> {
        let mut all: Vec<(Instant, i64)> =
            self.leases.lock().iter().map(|(id, lease)| (lease.ends, *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// All leases with the granted time to live in seconds.
    pub(super) fn granted(&self) -> Vec<(i64, u64)> {
        self.leases.lock().iter().map(|(id, lease)| (*id, lease.ttl)).collect()
    }

    /// The expired leases, which from now on cannot be renewed, and the time at which the next one
    /// expires.
    pub(super) fn ended(&self, now: Instant) -> (Vec<i64>, Option<Instant>) {
        let mut leases = self.leases.lock();
        let (mut ended, mut next) = (Vec::new(), None);
        for (id, lease) in leases.iter_mut() {
            lease.over |= lease.ends <= now;
            if lease.over {
                ended.push(*id);
            } else {
                next = Some(next.map_or(lease.ends, |next: Instant| next.min(lease.ends)));
            }
        }
        (ended, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_expires_unless_renewed() {
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

    #[test]
    fn a_lease_that_is_over_cannot_be_renewed() {
        let leases = Leases::default();
        let start = clock::instant();
        let after = |seconds| start + Duration::from_secs(seconds);
        leases.grant(1, 10, start);
        assert_eq!(leases.renew(1, after(10)), None, "expired, whether revoked yet or not");
        assert_eq!(leases.ended(after(10)), (vec![1], None));
        assert_eq!(leases.renew(1, after(9)), None, "the renewal came after the judgement");
        leases.remove(1);
        leases.grant(1, 10, after(11));
        assert_eq!(leases.renew(1, after(12)), Some(10));
    }
}
