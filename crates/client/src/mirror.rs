//! A local copy of the objects of one kind, reduced to what its owner needs.
//!
//! [`events`] is an [`informer`](crate::informer()) that yields reduced objects with their names; a
//! [`Mirror`] applies the events and returns which objects changed. When a watch starts over,
//! unchanged objects are not reported.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use api::Kind;
use api::kind::DecodeError;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rpc::api_v1 as pb;

use crate::Client;
use crate::informer::{Event, InformerOptions, informer_with};

mod slices;

pub use self::slices::{ServiceSlice, SliceMirror};

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

/// The objects of kind `K`, named and reduced; never ends.
pub fn events<K: Kind, T: Send + 'static>(
    client: &Client,
    options: InformerOptions,
    reduce: impl Fn(&K) -> T + Send + 'static,
) -> BoxStream<'static, Event<(Name, T)>> {
    let decode = move |object: &pb::Object| -> Result<(Name, T), DecodeError> {
        let object = K::decode(&object.json)?;
        Ok((name(object.metadata()), reduce(&object)))
    };
    let full = pb::Representation::Full;
    informer_with(client.clone(), K::ROW, options, full, decode).boxed()
}

/// The objects of one kind, by name.
#[derive(Debug)]
pub struct Mirror<T> {
    objects: HashMap<Name, T>,
    /// The names received since the watch started over; `None` once all have been received.
    receiving: Option<HashSet<Name>>,
    synced: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), receiving: None, synced: false }
    }
}

impl<T: PartialEq> Mirror<T> {
    /// Applies an event. Returns the name and the former state of each object that changed.
    pub fn take(&mut self, event: Event<(Name, T)>) -> Vec<(Name, Option<T>)> {
        match event {
            Event::Init => {
                self.receiving = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply((name, object)) => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.insert(name.clone());
                }
                self.put(name, object).into_iter().collect()
            }
            Event::Apply((name, object)) => self.put(name, object).into_iter().collect(),
            Event::Delete((name, _)) => {
                let before = self.objects.remove(&name);
                shrink(&mut self.objects);
                let gone = before.map(|before| (name, Some(before)));
                gone.into_iter().collect()
            }
            Event::InitDone => {
                self.synced = true;
                let received = self.receiving.take().unwrap_or_default();
                let gone = self.objects.extract_if(|name, _| !received.contains(name));
                let gone = gone.map(|(name, before)| (name, Some(before))).collect();
                shrink(&mut self.objects);
                gone
            }
        }
    }

    fn put(&mut self, name: Name, object: T) -> Option<(Name, Option<T>)> {
        if self.objects.get(&name) == Some(&object) {
            return None;
        }
        let before = self.objects.insert(name.clone(), object);
        Some((name, before))
    }

    /// Whether all objects have been received at least once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    pub fn get(&self, name: &str) -> Option<&T> {
        self.objects.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &T)> {
        self.objects.iter()
    }
}

/// Gives back the memory of a map that has become much smaller.
pub(crate) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.len() < map.capacity() / 4 {
        map.shrink_to(2 * map.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_missing_from_a_new_watch_are_removed() {
        let mut mirror = Mirror::default();
        let object = |name: &str, value: u8| (Name::from(name), value);
        assert!(mirror.take(Event::Init).is_empty());
        mirror.take(Event::InitApply(object("ns/a", 1)));
        mirror.take(Event::InitApply(object("ns/b", 1)));
        assert!(!mirror.is_synced());
        assert!(mirror.take(Event::InitDone).is_empty());
        assert!(mirror.is_synced());
        mirror.take(Event::Init);
        let same = mirror.take(Event::InitApply(object("ns/b", 1)));
        assert!(same.is_empty(), "nothing changed");
        let gone = mirror.take(Event::InitDone);
        assert_eq!(gone, [("ns/a".into(), Some(1))]);
        let changed = mirror.take(Event::Apply(object("ns/b", 2)));
        assert_eq!(changed, [("ns/b".into(), Some(1))]);
        assert_eq!(mirror.take(Event::Delete(object("ns/b", 2))), [("ns/b".into(), Some(2))]);
        assert!(mirror.take(Event::Delete(object("ns/b", 2))).is_empty());
    }

    #[test]
    fn a_mirror_shrinks_with_its_objects() {
        let mut mirror = Mirror::default();
        let object = |number: u32| (Name::from(format!("ns/{number}")), number);
        for number in 0..10_000 {
            mirror.take(Event::Apply(object(number)));
        }
        for number in 10..10_000 {
            mirror.take(Event::Delete(object(number)));
        }
        assert_eq!(mirror.iter().count(), 10);
        assert!(mirror.objects.capacity() < 100, "{}", mirror.objects.capacity());
        // The same when a watch that starts over no longer has them.
        for number in 0..10_000 {
            mirror.take(Event::Apply(object(number)));
        }
        mirror.take(Event::Init);
        mirror.take(Event::InitApply(object(1)));
        assert_eq!(mirror.take(Event::InitDone).len(), 9_999);
        assert!(mirror.objects.capacity() < 100, "{}", mirror.objects.capacity());
    }
}
