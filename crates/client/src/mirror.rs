//! A local copy of the objects of one kind: the only place where the events of a watch are
//! interpreted.
//!
//! [`events`] is an [`informer`](crate::informer()) that yields reduced objects with their keys; a
//! [`Mirror`] applies the events and says which objects changed. When a watch starts over, unchanged
//! objects are not reported, and those that are gone are. Secondary indexes are functions from an
//! object to the values that it is found by.

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Kind;
use async_stream::stream;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Client;
use crate::informer::{Event, InformerOptions, informer};

#[cfg(test)]
mod tests;

/// `namespace/name`, or just the name of a cluster-scoped object.
pub type Name = Arc<str>;

/// The name of an object in a mirror.
pub fn name(metadata: &ObjectMeta) -> Name {
    let name = metadata.name.as_deref().unwrap_or_default();
    match &metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.into(),
    }
}

/// `metadata.resourceVersion` as a number; 0 when missing.
pub fn revision(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The objects of kind `K`, named and reduced; never ends.
pub fn events<K: Kind, T: Send + 'static>(
    client: &Client,
    options: InformerOptions,
    reduce: impl Fn(&K) -> T + Send + 'static,
) -> BoxStream<'static, Event<(Name, T)>> {
    keyed(client, options, move |object: K| (name(object.metadata()), reduce(&object)))
}

/// The objects of kind `K`, with keys of the caller's choice; never ends.
pub fn keyed<K: Kind, Key: Send + 'static, T: Send + 'static>(
    client: &Client,
    options: InformerOptions,
    reduce: impl Fn(K) -> (Key, T) + Send + 'static,
) -> BoxStream<'static, Event<(Key, T)>> {
    informer::<K>(client.clone(), options).map(move |event| event.map(&reduce)).boxed()
}

/// One object, each time that it changes; `None` while there is none. Begins with its current state
/// and never ends.
pub fn object<K: Kind>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> BoxStream<'static, Option<Arc<K>>> {
    let options = InformerOptions {
        namespace: namespace.to_owned(),
        field_selector: format!("metadata.name={name}"),
        ..InformerOptions::default()
    };
    let mut events = keyed(client, options, |object: K| ((), Arc::new(object)));
    stream! {
        let mut mirror = Mirror::<Arc<K>, ()>::default();
        while let Some(event) = events.next().await {
            let first = !mirror.is_synced();
            let changes = mirror.take(event);
            if mirror.is_synced() && (first || !changes.is_empty()) {
                yield mirror.get(&()).cloned();
            }
        }
    }
    .boxed()
}

/// A change of an object: its key, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed<K, V> {
    Added(K),
    Modified(K, V),
    Removed(K, V),
}

impl<K, V> Changed<K, V> {
    pub fn key(&self) -> &K {
        match self {
            Self::Added(key) | Self::Modified(key, _) | Self::Removed(key, _) => key,
        }
    }

    pub fn into_key(self) -> K {
        match self {
            Self::Added(key) | Self::Modified(key, _) | Self::Removed(key, _) => key,
        }
    }

    /// The object before the change, if it existed.
    pub fn before(&self) -> Option<&V> {
        match self {
            Self::Added(_) => None,
            Self::Modified(_, before) | Self::Removed(_, before) => Some(before),
        }
    }
}

/// Adds the values that an object is indexed by.
pub type Index<V, I> = fn(&V, &mut Vec<I>);

/// The objects of one kind, by key and by index. Keys are cloned into the indexes, so they should be
/// cheap to clone.
#[derive(Debug)]
pub struct Mirror<V, K = Name, I = ()> {
    objects: BTreeMap<K, V>,
    indexed: BTreeMap<I, BTreeSet<K>>,
    index: Index<V, I>,
    /// The keys received since the watch started over; `None` once all have been received.
    receiving: Option<BTreeSet<K>>,
    synced: bool,
}

impl<V, K, I> Default for Mirror<V, K, I> {
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl<V, K, I> Mirror<V, K, I> {
    /// An empty mirror, whose objects [`of`](Self::of) finds by the values that `index` adds.
    pub fn new(index: Index<V, I>) -> Self {
        Self {
            objects: BTreeMap::new(),
            indexed: BTreeMap::new(),
            index,
            receiving: None,
            synced: false,
        }
    }

    /// Whether all objects have been received at least once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// All objects.
    pub fn objects(&self) -> &BTreeMap<K, V> {
        &self.objects
    }

    /// All objects in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.objects.iter()
    }
}

impl<V, K: Ord, I: Ord> Mirror<V, K, I> {
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.objects.get(key)
    }

    /// The objects that are indexed by `value`, in the order of their keys.
    pub fn of<Q: Ord + ?Sized>(&self, value: &Q) -> impl Iterator<Item = (&K, &V)>
    where
        I: Borrow<Q>,
    {
        let keys = self.indexed.get(value).into_iter().flatten();
        keys.filter_map(|key| self.objects.get_key_value(key))
    }

    /// The values that a changed object was and is indexed by.
    pub fn affected(&self, change: &Changed<K, V>) -> BTreeSet<I> {
        let mut values = Vec::new();
        for side in change.before().into_iter().chain(self.objects.get(change.key())) {
            (self.index)(side, &mut values);
        }
        values.into_iter().collect()
    }
}

impl<V: PartialEq, K: Ord + Clone, I: Ord> Mirror<V, K, I> {
    /// Applies an event, and returns the changes. The owner ignores an object for which there is no
    /// value: it counts as deleted.
    pub fn take<O: Into<Option<V>>>(&mut self, event: Event<(K, O)>) -> Vec<Changed<K, V>> {
        let change = match event {
            Event::Init => {
                self.receiving = Some(BTreeSet::new());
                None
            }
            Event::InitApply((key, object)) | Event::Apply((key, object)) => match object.into() {
                Some(object) => self.put(key, object),
                None => self.remove(&key),
            },
            Event::Delete((key, _)) => self.remove(&key),
            Event::InitDone => return self.complete(),
        };
        change.into_iter().collect()
    }

    /// Removes what the watch that started over has not sent.
    fn complete(&mut self) -> Vec<Changed<K, V>> {
        self.synced = true;
        let received = self.receiving.take().unwrap_or_default();
        let gone = self.objects.keys().filter(|key| !received.contains(*key));
        let gone: Vec<K> = gone.cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn put(&mut self, key: K, object: V) -> Option<Changed<K, V>> {
        if let Some(receiving) = &mut self.receiving {
            receiving.insert(key.clone());
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        // The key that is there already is shared with the indexes.
        let change = match self.objects.entry(key) {
            Entry::Occupied(entry) if *entry.get() == object => return None,
            Entry::Occupied(mut entry) => {
                (self.index)(&object, &mut after);
                let old = entry.insert(object);
                (self.index)(&old, &mut before);
                Changed::Modified(entry.key().clone(), old)
            }
            Entry::Vacant(entry) => {
                (self.index)(&object, &mut after);
                let key = entry.key().clone();
                entry.insert(object);
                Changed::Added(key)
            }
        };
        if before != after {
            self.unlink(change.key(), before);
            for value in after {
                self.indexed.entry(value).or_default().insert(change.key().clone());
            }
        }
        Some(change)
    }

    fn remove(&mut self, key: &K) -> Option<Changed<K, V>> {
        if let Some(receiving) = &mut self.receiving {
            receiving.remove(key);
        }
        let (key, old) = self.objects.remove_entry(key)?;
        let mut before = Vec::new();
        (self.index)(&old, &mut before);
        self.unlink(&key, before);
        Some(Changed::Removed(key, old))
    }

    fn unlink(&mut self, key: &K, values: Vec<I>) {
        for value in values {
            if let Some(keys) = self.indexed.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.indexed.remove(&value);
                }
            }
        }
    }
}
