//! The objects of one kind that an informer has received, by key and by index, and the newest
//! revision: a [`Mirror`] that controllers share.
//!
//! Readers get shared objects and never wait for I/O. Keys are ordered by namespace, then name, so
//! that a namespace is a range.

use std::sync::Arc;

use api::Kind;
use client::Event;
pub use client::mirror::revision;
use client::mirror::{self, Changed, Mirror};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;

use crate::machinery::index::By;

/// Namespace and name of an object. The namespace is empty for cluster-scoped kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    pub fn of<K: Kind>(object: &K) -> Self {
        Self::of_metadata(object.metadata())
    }

    pub fn of_metadata(metadata: &ObjectMeta) -> Self {
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A change of one object: `old` is `None` for a new object, `new` for a deleted one.
#[derive(Debug)]
pub struct Change<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The states before and after, where the object existed.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }

    /// The newest known state; for a deletion the last one.
    pub fn last(&self) -> &Arc<K> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has at least one side")
    }
}

impl<K: Kind> Change<K> {
    /// The key of the object.
    pub fn key(&self) -> Key {
        Key::of(&**self.last())
    }
}

/// Adds the values that an object is indexed by.
pub type Index<K> = mirror::Index<Arc<K>, By>;

struct Inner<K> {
    objects: Mirror<Arc<K>, Arc<Key>, By>,
    revision: u64,
    /// The newest revision received since the watch started over: the objects come in the order of
    /// their keys, so it says nothing until all are there.
    initial: Option<u64>,
}

/// Objects of one kind.
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
}

impl<K> std::fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("revision", &self.inner.read().revision).finish()
    }
}

impl<K: Kind> Default for Cache<K> {
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl<K: Kind> Cache<K> {
    /// `index`: the values that [`indexed`](Self::indexed) looks objects up by.
    pub fn new(index: Index<K>) -> Self {
        let objects = Mirror::new(index);
        Self { inner: RwLock::new(Inner { objects, revision: 0, initial: None }) }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.objects().values().cloned().collect()
    }

    /// Every object of a namespace.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.in_namespace(namespace, |_, object| Some(object.clone()))
    }

    /// The keys of all objects that `select` returns true for.
    pub fn keys(&self, select: impl Fn(&K) -> bool) -> Vec<Key> {
        let inner = self.inner.read();
        let selected = inner.objects.iter().filter(|(_, object)| select(object));
        selected.map(|(key, _)| Key::clone(key)).collect()
    }

    /// The keys of the objects of a namespace that `select` returns true for.
    pub fn keys_in(&self, namespace: &str, select: impl Fn(&K) -> bool) -> Vec<Key> {
        self.in_namespace(namespace, |key, object| select(object).then(|| key.clone()))
    }

    fn in_namespace<T>(
        &self,
        namespace: &str,
        select: impl Fn(&Key, &Arc<K>) -> Option<T>,
    ) -> Vec<T> {
        let inner = self.inner.read();
        let from = inner.objects.objects().range::<Key, _>(Key::new(namespace, "")..);
        let all = from.take_while(|(key, _)| key.namespace == namespace);
        all.filter_map(|(key, object)| select(key, object)).collect()
    }

    /// The objects that are indexed by `value`, in the order of their keys.
    pub fn indexed(&self, value: &By) -> Vec<Arc<K>> {
        self.inner.read().objects.of(value).map(|(_, object)| object.clone()).collect()
    }

    /// The keys of the objects that are indexed by `value`.
    pub fn keys_of(&self, value: &By) -> Vec<Key> {
        self.inner.read().objects.of(value).map(|(key, _)| Key::clone(key)).collect()
    }

    /// The newest revision up to which all objects have been received.
    pub fn revision(&self) -> u64 {
        self.inner.read().revision
    }

    /// Whether all objects have been received at least once.
    pub fn is_synced(&self) -> bool {
        self.inner.read().objects.is_synced()
    }

    /// Applies an event of the watch, and returns the changes.
    pub fn take(&self, event: Event<(Arc<Key>, Arc<K>)>) -> Vec<Change<K>> {
        let inner = &mut *self.inner.write();
        match &event {
            Event::Init => inner.initial = Some(0),
            Event::InitDone => {
                inner.revision = inner.revision.max(inner.initial.take().unwrap_or_default());
            }
            Event::InitApply((_, object))
            | Event::Apply((_, object))
            | Event::Delete((_, object)) => {
                let newest = inner.initial.as_mut().unwrap_or(&mut inner.revision);
                *newest = revision(object.metadata()).max(*newest);
            }
        }
        let changed = inner.objects.take(event).into_iter().map(|change| match change {
            Changed::Added(key) => Change { old: None, new: inner.objects.get(&key).cloned() },
            Changed::Modified(key, old) => {
                Change { old: Some(old), new: inner.objects.get(&key).cloned() }
            }
            Changed::Removed(_, old) => Change { old: Some(old), new: None },
        });
        changed.collect()
    }

    /// Adds or updates an object.
    #[cfg(test)]
    pub fn apply(&self, object: K) -> Change<K> {
        let object = (Arc::new(Key::of(&object)), Arc::new(object));
        self.take(Event::Apply(object)).pop().expect("the object has changed")
    }

    /// Removes an object; `last` is its state at the deletion.
    #[cfg(test)]
    pub fn delete(&self, last: &K) -> Option<Change<K>> {
        self.take(Event::Delete((Arc::new(Key::of(last)), Arc::new(last.clone())))).pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(namespace: &str, name: &str, revision: u64, label: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        object.metadata.resource_version = Some(revision.to_string());
        object.metadata.labels = Some([("l".to_owned(), label.to_owned())].into());
        object
    }

    fn labels(object: &Arc<ConfigMap>, index: &mut Vec<By>) {
        let values = object.metadata.labels.iter().flat_map(|labels| labels.values().cloned());
        index.extend(values.map(By::Node));
    }

    fn one() -> By {
        By::Node("one".to_owned())
    }

    #[test]
    fn indexes_follow_objects() {
        let cache = Cache::new(labels);
        cache.apply(object("a", "x", 3, "one"));
        cache.apply(object("b", "x", 4, "one"));
        assert_eq!(cache.indexed(&one()).len(), 2);
        assert_eq!(cache.namespace("a").len(), 1);
        let change = cache.apply(object("a", "x", 5, "two"));
        assert!(change.old.is_some() && change.new.is_some());
        assert_eq!(
            (cache.indexed(&one()).len(), cache.indexed(&By::Node("two".to_owned())).len()),
            (1, 1)
        );
        assert!(cache.delete(&object("a", "x", 9, "two")).is_some());
        assert!(cache.delete(&object("a", "x", 9, "two")).is_none());
        assert!(cache.indexed(&By::Node("two".to_owned())).is_empty());
        assert_eq!(cache.revision(), 9);
    }

    #[test]
    fn the_revision_is_that_of_a_complete_state() {
        let cache = Cache::new(labels);
        let event = |object: ConfigMap| (Arc::new(Key::of(&object)), Arc::new(object));
        cache.apply(object("a", "x", 1, "one"));
        cache.apply(object("a", "y", 2, "one"));
        cache.take(Event::Init);
        let changes = cache.take(Event::InitApply(event(object("a", "z", 9, "one"))));
        assert!(changes[0].old.is_none() && changes[0].new.is_some());
        assert_eq!(cache.revision(), 2, "older objects may follow");
        cache.take(Event::InitApply(event(object("a", "y", 3, "one"))));
        let changes = cache.take(Event::InitDone);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].key(), changes[0].new.is_none()), (Key::new("a", "x"), true));
        assert_eq!((cache.revision(), cache.indexed(&one()).len()), (9, 2));
        assert_eq!(cache.keys_of(&one()), cache.keys_in("a", |_| true));
    }
}
