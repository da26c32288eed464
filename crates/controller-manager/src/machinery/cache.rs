//! The objects of one kind that an informer has received, by key and by index, and the newest
//! revision.
//!
//! Readers get shared objects and never wait for I/O. Keys are ordered by namespace, then name, so
//! that a namespace is a range.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;

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

/// The values that an object is indexed by.
pub type Index<K> = fn(&K) -> Vec<String>;

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexed: HashMap<String, BTreeSet<Key>>,
    revision: u64,
}

/// Objects of one kind.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    index: Index<K>,
}

impl<K: Kind> Cache<K> {
    /// `index`: the values that [`indexed`](Self::indexed) looks objects up by.
    pub fn new(index: Index<K>) -> Self {
        Self {
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                indexed: HashMap::new(),
                revision: 0,
            }),
            index,
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner
            .read()
            .objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Objects whose index values contain `value`, in the order of their keys.
    pub fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        inner
            .indexed
            .get(value)
            .into_iter()
            .flatten()
            .filter_map(|key| inner.objects.get(key).cloned())
            .collect()
    }

    /// The newest revision of all objects received.
    pub fn revision(&self) -> u64 {
        self.inner.read().revision
    }

    /// Adds or updates an object.
    pub fn apply(&self, object: K) -> Change<K> {
        let mut inner = self.inner.write();
        let (key, object) = (Key::of(&object), Arc::new(object));
        let old = inner.insert(key, object.clone(), self.index);
        Change { old, new: Some(object) }
    }

    /// Removes an object; `last` is its state at the deletion.
    pub fn delete(&self, last: &K) -> Option<Change<K>> {
        let mut inner = self.inner.write();
        inner.revision = inner.revision.max(revision(last.metadata()));
        let old = inner.remove(&Key::of(last), self.index)?;
        Some(Change { old: Some(old), new: None })
    }

    /// Replaces all objects, and returns the changes.
    pub fn replace(&self, objects: Vec<K>) -> Vec<Change<K>> {
        let mut inner = self.inner.write();
        let present: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let gone: Vec<Key> =
            inner.objects.keys().filter(|key| !present.contains(*key)).cloned().collect();
        let mut changes = Vec::with_capacity(objects.len() + gone.len());
        for key in gone {
            let old = inner.remove(&key, self.index);
            changes.push(Change { old, new: None });
        }
        for object in objects {
            let (key, object) = (Key::of(&object), Arc::new(object));
            let old = inner.insert(key, object.clone(), self.index);
            changes.push(Change { old, new: Some(object) });
        }
        changes
    }
}

impl<K: Kind> Inner<K> {
    fn insert(&mut self, key: Key, object: Arc<K>, index: Index<K>) -> Option<Arc<K>> {
        self.revision = self.revision.max(revision(object.metadata()));
        let values = index(&object);
        let old = self.objects.insert(key.clone(), object);
        if let Some(old) = &old {
            self.forget(&key, old, index);
        }
        for value in values {
            self.indexed.entry(value).or_default().insert(key.clone());
        }
        old
    }

    fn remove(&mut self, key: &Key, index: Index<K>) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        self.forget(key, &old, index);
        Some(old)
    }

    fn forget(&mut self, key: &Key, old: &K, index: Index<K>) {
        for value in index(old) {
            if let Some(keys) = self.indexed.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.indexed.remove(&value);
                    if self.indexed.len() < self.indexed.capacity() / 4 {
                        self.indexed.shrink_to(2 * self.indexed.len());
                    }
                }
            }
        }
    }
}

/// `metadata.resourceVersion` as a number; 0 when missing.
pub fn revision(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
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

    fn labels(object: &ConfigMap) -> Vec<String> {
        object.metadata.labels.iter().flat_map(|labels| labels.values().cloned()).collect()
    }

    #[test]
    fn indexes_follow_objects() {
        let cache = Cache::new(labels);
        cache.apply(object("a", "x", 3, "one"));
        cache.apply(object("b", "x", 4, "one"));
        assert_eq!(cache.indexed("one").len(), 2);
        assert_eq!(cache.namespace("a").len(), 1);
        let change = cache.apply(object("a", "x", 5, "two"));
        assert!(change.old.is_some() && change.new.is_some());
        assert_eq!((cache.indexed("one").len(), cache.indexed("two").len()), (1, 1));
        assert!(cache.delete(&object("a", "x", 9, "two")).is_some());
        assert!(cache.delete(&object("a", "x", 9, "two")).is_none());
        assert!(cache.indexed("two").is_empty());
        assert_eq!(cache.revision(), 9);
    }

    #[test]
    fn a_replacement_returns_what_was_deleted() {
        let cache = Cache::new(labels);
        cache.apply(object("a", "x", 1, "one"));
        cache.apply(object("a", "y", 2, "one"));
        let changes = cache.replace(vec![object("a", "y", 3, "one"), object("a", "z", 4, "one")]);
        let shape: Vec<_> =
            changes.iter().map(|change| (change.old.is_some(), change.new.is_some())).collect();
        assert_eq!(shape, [(true, false), (true, true), (false, true)]);
        assert_eq!(cache.indexed("one").len(), 2);
    }
}
