//! An informer's events as plain changes: set, remove, and once that the present state is known.
//!
//! Also says what vanished while a watch was broken: after a restart, whatever is not in the new
//! present state is removed. For consumers that keep their own index and need no store of objects.

use std::collections::HashSet;

use api::Kind;
use async_stream::stream;
use futures::{Stream, StreamExt};

use crate::{Client, Event, InformerOptions, informer};

/// One change of a collection, by the key that the consumer chose.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<K> {
    Set(K),
    Remove(String),
    /// Everything that existed at the start has been set. Once per stream.
    Synced,
}

/// Changes of all objects that `options` select, keyed by `key`. Never ends.
pub fn changes<K: Kind>(
    client: Client,
    options: InformerOptions,
    key: fn(&K) -> String,
) -> impl Stream<Item = Change<K>> + Send + 'static {
    stream! {
        let mut events = std::pin::pin!(informer::<K>(client, options));
        let mut known = Known::default();
        while let Some(event) = events.next().await {
            for change in known.step(event, key) {
                yield change;
            }
        }
    }
}

/// The keys that exist, and during a restart those seen anew.
#[derive(Debug, Default)]
struct Known {
    keys: HashSet<String>,
    fresh: HashSet<String>,
    synced: bool,
}

impl Known {
    fn step<K>(&mut self, event: Event<K>, key: fn(&K) -> String) -> Vec<Change<K>> {
        match event {
            Event::Apply(object) => {
                self.keys.insert(key(&object));
                vec![Change::Set(object)]
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.keys.remove(&key);
                vec![Change::Remove(key)]
            }
            Event::Init => {
                self.fresh.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.fresh.insert(key(&object));
                vec![Change::Set(object)]
            }
            Event::InitDone => {
                let fresh = std::mem::take(&mut self.fresh);
                let mut changes: Vec<Change<K>> =
                    self.keys.difference(&fresh).cloned().map(Change::Remove).collect();
                self.keys = fresh;
                if !std::mem::replace(&mut self.synced, true) {
                    changes.push(Change::Synced);
                }
                changes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vanished_during_a_restart_is_removed() {
        let mut known = Known::default();
        let mut step = |event| known.step(event, |text: &&str| (*text).to_owned());
        assert!(step(Event::Init).is_empty());
        assert_eq!(step(Event::InitApply("a")), [Change::Set("a")]);
        assert_eq!(step(Event::InitDone), [Change::Synced]);
        assert_eq!(step(Event::Apply("b")), [Change::Set("b")]);
        assert!(step(Event::Init).is_empty());
        assert_eq!(step(Event::InitApply("b")), [Change::Set("b")]);
        assert_eq!(step(Event::InitDone), [Change::Remove("a".into())]);
        assert_eq!(step(Event::Delete("b")), [Change::Remove("b".into())]);
    }
}
