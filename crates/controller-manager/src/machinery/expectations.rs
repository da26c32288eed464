//! What a controller has written but its cache may not reflect yet.
//!
//! A controller that counts children must not count from a cache that lacks its own writes, or it
//! writes twice. So every creation is recorded with its uid and revision until the cache has the
//! child or a newer revision, and every deletion until the child is gone from the cache or marked
//! as deleted there. While expectations are outstanding the controller only updates the status; the
//! event that fulfils them triggers it again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::machinery::cache::{Cache, Key, revision};
use crate::machinery::owner::{is_deleting, uid};

/// After this long an expectation is dropped: the watch was restarted and skipped the event.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Outstanding {
    child: Key,
    uid: String,
    /// The revision of a creation; `None` for a deletion.
    created_at: Option<u64>,
    since: Instant,
}

/// The outstanding writes of one controller, by the key of its object.
#[derive(Debug)]
pub struct Expectations<C> {
    cache: Arc<Cache<C>>,
    by_owner: Mutex<HashMap<Key, Vec<Outstanding>>>,
}

impl<C: Kind> Expectations<C> {
    /// `cache`: where the children will appear.
    pub fn new(cache: Arc<Cache<C>>) -> Self {
        Self { cache, by_owner: Mutex::new(HashMap::new()) }
    }

    /// Records that `child`, as the server returned it, was created.
    pub fn created(&self, owner: &Key, child: &C) {
        self.push(owner, child, Some(revision(child.metadata())));
    }

    /// Records that the deletion of `child` was requested.
    pub fn deleted(&self, owner: &Key, child: &C) {
        self.push(owner, child, None);
    }

    fn push(&self, owner: &Key, child: &C, created_at: Option<u64>) {
        let outstanding = Outstanding {
            child: Key::of(child),
            uid: uid(child.metadata()).to_owned(),
            created_at,
            since: clock::instant(),
        };
        self.by_owner.lock().entry(owner.clone()).or_default().push(outstanding);
    }

    /// Whether the cache reflects everything that was written for `owner`. Check this before
    /// reading the children.
    pub fn satisfied(&self, owner: &Key) -> bool {
        let mut by_owner = self.by_owner.lock();
        let Some(all) = by_owner.get_mut(owner) else {
            return true;
        };
        let cache_revision = self.cache.revision();
        let now = clock::instant();
        all.retain(|one| {
            now.duration_since(one.since) < TIMEOUT && !self.is_fulfilled(one, cache_revision)
        });
        let satisfied = all.is_empty();
        if satisfied {
            by_owner.remove(owner);
        }
        satisfied
    }

    fn is_fulfilled(&self, one: &Outstanding, cache_revision: u64) -> bool {
        let cached = self.cache.get(&one.child).filter(|cached| uid(cached.metadata()) == one.uid);
        match one.created_at {
            Some(revision) => cached.is_some() || cache_revision >= revision,
            None => cached.is_none_or(|cached| is_deleting(cached.metadata())),
        }
    }

    /// Drops the expectations of an owner that no longer exists.
    pub fn forget(&self, owner: &Key) {
        self.by_owner.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::pod;
    use k8s_openapi::api::core::v1::Pod;

    fn with_revision(mut pod: Pod, revision: u64) -> Pod {
        pod.metadata.resource_version = Some(revision.to_string());
        pod
    }

    #[test]
    fn creations_and_deletions_must_reach_the_cache() {
        let cache = Arc::new(Cache::<Pod>::default());
        let expectations = Expectations::new(cache.clone());
        let owner = Key::new("ns", "rs");
        let created = with_revision(pod("a").build(), 7);
        assert!(expectations.satisfied(&owner));
        expectations.created(&owner, &created);
        assert!(!expectations.satisfied(&owner));
        cache.apply(with_revision(pod("other").build(), 6));
        assert!(!expectations.satisfied(&owner));
        cache.apply(created.clone());
        assert!(expectations.satisfied(&owner));

        expectations.deleted(&owner, &created);
        assert!(!expectations.satisfied(&owner));
        cache.apply(with_revision(pod("a").deleting().build(), 8));
        assert!(expectations.satisfied(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_revision_or_the_timeout_fulfils_a_creation() {
        let cache = Arc::new(Cache::<Pod>::default());
        let expectations = Expectations::new(cache.clone());
        let owner = Key::new("ns", "rs");
        expectations.created(&owner, &with_revision(pod("a").build(), 7));
        cache.apply(with_revision(pod("other").build(), 9));
        assert!(expectations.satisfied(&owner));
        expectations.created(&owner, &with_revision(pod("b").build(), 20));
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(expectations.satisfied(&owner));
    }
}
