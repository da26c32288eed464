//! What a controller has written but its cache may not show yet.
//!
//! A controller that counts children must not count from a cache that lacks its own writes, or it
//! writes twice. So every creation is remembered with its uid and revision until the cache has it or has come past
//! that revision, and every deletion until the cache shows the child deleted or gone. While
//! something is outstanding the controller only reports status; the event that ends the wait triggers
//! it again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::machinery::cache::{Cache, Key, revision};
use crate::machinery::owner::{is_deleting, uid};

/// After this long an expectation is given up: the watch started over and passed over it.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Outstanding {
    child: Key,
    uid: String,
    /// For a creation the revision it got; `None` for a deletion.
    created_at: Option<u64>,
    since: Timestamp,
}

/// The outstanding writes of one controller, by the key of its object.
#[derive(Debug)]
pub struct Expectations<C> {
    cache: Arc<Cache<C>>,
    by_owner: Mutex<HashMap<Key, Vec<Outstanding>>>,
}

impl<C: Kind> Expectations<C> {
    /// `cache`: where the children will be seen.
    pub fn new(cache: Arc<Cache<C>>) -> Self {
        Self { cache, by_owner: Mutex::new(HashMap::new()) }
    }

    /// `child` was created, as the server answered it.
    pub fn created(&self, owner: &Key, child: &C, now: Timestamp) {
        self.push(owner, child, Some(revision(child.metadata())), now);
    }

    /// `child` was asked to be deleted.
    pub fn deleted(&self, owner: &Key, child: &C, now: Timestamp) {
        self.push(owner, child, None, now);
    }

    fn push(&self, owner: &Key, child: &C, created_at: Option<u64>, since: Timestamp) {
        let outstanding = Outstanding {
            child: Key::of(child),
            uid: uid(child.metadata()).to_owned(),
            created_at,
            since,
        };
        self.by_owner.lock().entry(owner.clone()).or_default().push(outstanding);
    }

    /// Whether the cache shows everything that was written for `owner`. To be asked before the
    /// children are read.
    pub fn satisfied(&self, owner: &Key, now: Timestamp) -> bool {
        let mut by_owner = self.by_owner.lock();
        let Some(all) = by_owner.get_mut(owner) else {
            return true;
        };
        let seen_up_to = self.cache.revision();
        let timeout = SignedDuration::try_from(TIMEOUT).expect("five minutes fit");
        all.retain(|one| now.duration_since(one.since) < timeout && !self.is_seen(one, seen_up_to));
        let satisfied = all.is_empty();
        if satisfied {
            by_owner.remove(owner);
        }
        satisfied
    }

    fn is_seen(&self, one: &Outstanding, seen_up_to: u64) -> bool {
        let cached = self.cache.get(&one.child).filter(|cached| uid(cached.metadata()) == one.uid);
        match one.created_at {
            Some(revision) => cached.is_some() || seen_up_to >= revision,
            None => cached.is_none_or(|cached| is_deleting(cached.metadata())),
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.by_owner.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{at, pod};
    use k8s_openapi::api::core::v1::Pod;

    fn with_revision(mut pod: Pod, revision: u64) -> Pod {
        pod.metadata.resource_version = Some(revision.to_string());
        pod
    }

    #[test]
    fn creations_and_deletions_are_waited_for() {
        let cache = Arc::new(Cache::<Pod>::new(|_| Vec::new()));
        let expectations = Expectations::new(cache.clone());
        let owner = Key::new("ns", "rs");
        let created = with_revision(pod("a").build(), 7);
        assert!(expectations.satisfied(&owner, at(0)));
        expectations.created(&owner, &created, at(0));
        assert!(!expectations.satisfied(&owner, at(1)));
        cache.apply(with_revision(pod("other").build(), 6));
        assert!(!expectations.satisfied(&owner, at(1)));
        cache.apply(created.clone());
        assert!(expectations.satisfied(&owner, at(1)));

        expectations.deleted(&owner, &created, at(1));
        assert!(!expectations.satisfied(&owner, at(2)));
        cache.apply(with_revision(pod("a").deleting().build(), 8));
        assert!(expectations.satisfied(&owner, at(2)));
    }

    #[test]
    fn a_child_that_came_and_went_unseen_is_passed_by_revision_and_the_rest_by_time() {
        let cache = Arc::new(Cache::<Pod>::new(|_| Vec::new()));
        let expectations = Expectations::new(cache.clone());
        let owner = Key::new("ns", "rs");
        expectations.created(&owner, &with_revision(pod("a").build(), 7), at(0));
        cache.apply(with_revision(pod("other").build(), 9));
        assert!(expectations.satisfied(&owner, at(1)));
        expectations.created(&owner, &with_revision(pod("b").build(), 20), at(0));
        assert!(!expectations.satisfied(&owner, at(299)));
        assert!(expectations.satisfied(&owner, at(300)));
    }
}
