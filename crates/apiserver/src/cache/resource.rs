//! The cache of one resource: the current state, its indexes, and the buckets of its events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use api::{KindRef, KindRow};
use parking_lot::RwLock;

use super::bucket::{Bucket, Event};
use super::{Filter, Version};
use crate::request::object_key;

/// The scope of a watch, as far as events can be routed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WatchScope {
    All,
    Namespace(String),
    /// One object, by key.
    Object(String),
    /// The pods of a node.
    Node(String),
}

/// The field that pods are indexed by.
pub const NODE_FIELD: &str = "spec.nodeName";

/// Narrow buckets that are kept before the first search for those that nobody watches any more.
const NARROW: usize = 64;

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Arc<Version>>,
    /// Why objects that are stored are missing in the entries.
    unreadable: BTreeMap<String, Arc<str>>,
    /// Keys of pods by node.
    by_node: HashMap<String, BTreeSet<String>>,
    narrow: HashMap<WatchScope, Weak<Bucket>>,
    /// How many of them may be there before those without watchers are removed.
    narrow_limit: usize,
    /// Every event after this revision is in the bucket of all events.
    complete_since: u64,
}

impl State {
    /// Removes the narrow buckets that nobody watches, when there are twice as many as were watched
    /// the last time.
    fn sweep(&mut self) {
        if self.narrow.len() >= self.narrow_limit.max(NARROW) {
            self.narrow.retain(|_, bucket| bucket.strong_count() > 0);
            self.narrow.shrink_to_fit();
            self.narrow_limit = 2 * self.narrow.len();
        }
    }
}

/// The cache of one resource.
pub struct ResourceCache {
    pub row: KindRef,
    indexed_by_node: bool,
    all: Arc<Bucket>,
    state: RwLock<State>,
    /// Revision of the last change.
    changed: AtomicU64,
    /// Bytes of all objects, encoded.
    bytes: AtomicUsize,
}

/// What a watch starts with.
pub struct WatchStart {
    pub bucket: Arc<Bucket>,
    pub cursor: u64,
    /// Events between the requested revision and `cursor`.
    pub backlog: Vec<Arc<Event>>,
    /// The current state, if it was requested.
    pub snapshot: Vec<Arc<Version>>,
}

/// The revision that a watch was to start from is older than the retained events.
#[derive(Debug)]
pub struct TooOld {
    pub oldest: u64,
}

impl ResourceCache {
    pub fn new(row: impl Into<KindRef>) -> Self {
        let row = row.into();
        Self {
            indexed_by_node: row.selectable.iter().any(|field| field == NODE_FIELD),
            row,
            all: Arc::default(),
            state: RwLock::default(),
            changed: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Of a kind that is not there any more: nothing, and no watch can start.
    pub fn gone(row: &KindRow) -> Self {
        let gone = Self::new(row.detached());
        gone.state.write().complete_since = u64::MAX;
        gone
    }

    /// The cache of a custom resource whose definition has changed what its objects are read for.
    pub fn redefined(before: &Self, row: Arc<KindRow>, revision: u64) -> Self {
        let (entries, unreadable) = {
            let state = before.state.read();
            (state.entries.clone(), state.unreadable.clone())
        };
        let read = |(key, version): (String, Arc<Version>)| {
            let again = version.reread(&row).map_or(version.clone(), Arc::new);
            (key, again)
        };
        let entries = entries.into_iter().map(read).collect();
        let after = Self::new(KindRef::Custom(row.clone()));
        after.reset(entries, unreadable, revision);
        after
    }

    /// Ends all watches: their clients have to start over.
    pub fn close(&self, revision: u64) {
        self.reset(BTreeMap::new(), BTreeMap::new(), revision);
    }

    pub fn get(&self, key: &str) -> Option<Arc<Version>> {
        self.state.read().entries.get(key).cloned()
    }

    /// Revision of the last change: rises whenever anything of this resource changes.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Acquire)
    }

    pub fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all objects, encoded.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Watches that a change of an object concerns, but for those of one node's pods. `name` may be
    /// empty, for an object that has none yet.
    pub fn watchers(&self, namespace: &str, name: &str) -> usize {
        let state = self.state.read();
        let mut count = self.all.watchers();
        if state.narrow.is_empty() {
            return count;
        }
        let mut add = |scope: WatchScope| {
            let bucket = state.narrow.get(&scope).and_then(Weak::upgrade);
            count += bucket.map_or(0, |bucket| bucket.watchers());
        };
        if !namespace.is_empty() {
            add(WatchScope::Namespace(namespace.to_owned()));
        }
        if !name.is_empty() {
            add(WatchScope::Object(object_key(&self.row, namespace, name)));
        }
        count
    }

    /// The objects that match `filter`, ordered by key.
    pub fn list(&self, filter: &Filter) -> Vec<Arc<Version>> {
        self.snapshot(&self.state.read(), filter)
    }

    /// The same, with the revision of the last change that the list includes.
    pub fn list_at(&self, filter: &Filter) -> (Vec<Arc<Version>>, u64) {
        let state = self.state.read();
        (self.snapshot(&state, filter), self.changed())
    }

    fn snapshot(&self, state: &State, filter: &Filter) -> Vec<Arc<Version>> {
        let wanted = |version: &&Arc<Version>| filter.matches(version);
        match filter.scope() {
            WatchScope::All => state.entries.values().filter(wanted).cloned().collect(),
            WatchScope::Object(key) => {
                state.entries.get(&key).filter(wanted).cloned().into_iter().collect()
            }
            WatchScope::Namespace(namespace) => {
                let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
                state
                    .entries
                    .range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())))
                    .map(|(_, version)| version)
                    .filter(wanted)
                    .cloned()
                    .collect()
            }
            WatchScope::Node(node) => state
                .by_node
                .get(&node)
                .into_iter()
                .flatten()
                .filter_map(|key| state.entries.get(key))
                .filter(wanted)
                .cloned()
                .collect(),
        }
    }

    /// Subscribes to the events that may match `filter`. `since`: start with the events after this
    /// revision; `None`: start with the current state.
    pub fn start(&self, filter: &Filter, since: Option<u64>) -> Result<WatchStart, TooOld> {
        let scope = filter.scope();
        let mut state = self.state.write();
        let (backlog, snapshot) = match since {
            Some(revision) if revision < state.complete_since => {
                return Err(TooOld { oldest: state.complete_since });
            }
            Some(revision) => (self.all.since(revision), Vec::new()),
            None => (Vec::new(), self.snapshot(&state, filter)),
        };
        let bucket = match &scope {
            WatchScope::All => self.all.clone(),
            narrow => match state.narrow.get(narrow).and_then(Weak::upgrade) {
                Some(bucket) => bucket,
                None => {
                    let bucket = Arc::<Bucket>::default();
                    state.sweep();
                    state.narrow.insert(narrow.clone(), Arc::downgrade(&bucket));
                    bucket
                }
            },
        };
        Ok(WatchStart { cursor: bucket.head(), bucket, backlog, snapshot })
    }

    /// Applies one change from the store. `None`: deleted. Only the feed calls this. Returns what
    /// the event costs, if there was a change; it is kept until it is [forgotten](Self::forget).
    pub fn apply(&self, key: &str, revision: u64, new: Option<Arc<Version>>) -> Option<usize> {
        let mut state = self.state.write();
        state.unreadable.remove(key);
        let old = match &new {
            Some(version) => state.entries.insert(key.to_owned(), version.clone()),
            None => state.entries.remove(key),
        };
        if old.is_none() && new.is_none() {
            return None;
        }
        self.index(&mut state, key, old.as_deref(), new.as_deref());
        let length = |version: &Option<Arc<Version>>| {
            version.as_ref().map_or(0, |version| version.json.len())
        };
        self.bytes.fetch_add(length(&new), Ordering::Relaxed);
        self.bytes.fetch_sub(length(&old), Ordering::Relaxed);
        self.changed.store(revision, Ordering::Release);
        let event = Arc::new(Event::new(revision, old, new));
        self.narrow(&mut state, &event, |bucket| bucket.push(event.clone()));
        let bytes = event.bytes();
        self.all.push(event);
        Some(bytes)
    }

    /// An object whose stored value cannot be read has changed. It is missing from now on, but not
    /// deleted: who watched it has to start over.
    pub fn hide(&self, key: &str, revision: u64, reason: Arc<str>) {
        let mut state = self.state.write();
        state.unreadable.insert(key.to_owned(), reason);
        self.changed.store(revision, Ordering::Release);
        if let Some(old) = state.entries.remove(key) {
            self.index(&mut state, key, Some(&old), None);
            self.start_over(&mut state, revision);
        }
    }

    /// Why the first of the objects that match `filter` is missing although it is stored.
    pub fn unreadable(&self, filter: &Filter) -> Option<Arc<str>> {
        let state = self.state.read();
        let mut missing = state.unreadable.iter();
        let found = match filter.scope() {
            WatchScope::All | WatchScope::Node(_) => missing.next(),
            WatchScope::Object(wanted) => missing.find(|(key, _)| **key == wanted),
            WatchScope::Namespace(namespace) => missing.find(|(key, _)| {
                key.strip_prefix(&*namespace).is_some_and(|rest| rest.starts_with('/'))
            }),
        };
        found.map(|(_, reason)| reason.clone())
    }

    /// The keys of the objects that are missing although they are stored.
    pub fn unreadable_keys(&self) -> Vec<String> {
        self.state.read().unreadable.keys().cloned().collect()
    }

    /// How many they are.
    pub fn unreadable_count(&self) -> usize {
        self.state.read().unreadable.len()
    }

    /// Drops the events up to `revision`: a watch cannot start before it any more.
    pub fn forget(&self, revision: u64) {
        let mut state = self.state.write();
        for event in self.all.forget(revision) {
            state.complete_since = event.revision;
            self.narrow(&mut state, &event, |bucket| {
                bucket.forget(revision);
            });
        }
    }

    /// Calls `act` with the narrow buckets that an event concerns.
    fn narrow(&self, state: &mut State, event: &Event, act: impl Fn(&Bucket)) {
        let Some(version) = event.new.as_ref().or(event.old.as_ref()) else { return };
        for scope in self.scopes(&version.key(), event) {
            match state.narrow.get(&scope).map(Weak::upgrade) {
                Some(Some(bucket)) => act(&bucket),
                Some(None) => {
                    state.narrow.remove(&scope);
                }
                None => {}
            }
        }
    }

    fn index(&self, state: &mut State, key: &str, old: Option<&Version>, new: Option<&Version>) {
        if !self.indexed_by_node {
            return;
        }
        let node = |version: Option<&Version>| {
            version.map_or(String::new(), |v| v.field(&self.row, NODE_FIELD).to_owned())
        };
        let (before, after) = (node(old), node(new));
        if before == after {
            return;
        }
        if let Some(keys) = state.by_node.get_mut(&before) {
            keys.remove(key);
            if keys.is_empty() {
                state.by_node.remove(&before);
            }
        }
        if !after.is_empty() {
            state.by_node.entry(after).or_default().insert(key.to_owned());
        }
    }

    fn scopes(&self, key: &str, event: &Event) -> Vec<WatchScope> {
        let mut scopes = vec![WatchScope::Object(key.to_owned())];
        if let Some((namespace, _)) = key.split_once('/') {
            scopes.push(WatchScope::Namespace(namespace.to_owned()));
        }
        if self.indexed_by_node {
            for version in [&event.old, &event.new].into_iter().flatten() {
                let node = WatchScope::Node(version.field(&self.row, NODE_FIELD).to_owned());
                if !scopes.contains(&node) {
                    scopes.push(node);
                }
            }
        }
        scopes
    }

    /// Resets to the state at `revision`; watchers have to start over.
    pub fn reset(
        &self,
        entries: BTreeMap<String, Arc<Version>>,
        unreadable: BTreeMap<String, Arc<str>>,
        revision: u64,
    ) {
        let mut state = self.state.write();
        state.unreadable = unreadable;
        state.by_node.clear();
        for (key, version) in &entries {
            self.index(&mut state, key, None, Some(version));
        }
        let bytes = entries.values().map(|version| version.json.len()).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
        state.entries = entries;
        self.changed.store(revision, Ordering::Release);
        self.start_over(&mut state, revision);
    }

    /// Ends all watches.
    fn start_over(&self, state: &mut State, revision: u64) {
        state.complete_since = revision;
        self.all.reset();
        for (_, bucket) in state.narrow.drain() {
            if let Some(bucket) = bucket.upgrade() {
                bucket.reset();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    /// However many objects are watched one after the other, their buckets go with the watches.
    #[test]
    fn buckets_without_watchers_go() {
        let resource = ResourceCache::new(ConfigMap::ROW);
        let watch = |number: usize| {
            let filter = Filter::one(ConfigMap::ROW, "default", &format!("n{number}"));
            resource.start(&filter, None).unwrap()
        };
        let held: Vec<_> = (0..100).map(watch).collect();
        for number in 100..10_000 {
            drop(watch(number));
        }
        let count = resource.state.read().narrow.len();
        assert!((100..=2 * 100 + NARROW).contains(&count), "{count}");
        drop(held);
        (0..1_000).for_each(|number| drop(watch(number)));
        assert!(resource.state.read().narrow.len() <= 2 * 100 + NARROW);
    }
}
