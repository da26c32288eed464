//! An informer's events as plain changes: set, remove, and once synced.
//!
//! Objects that were deleted while the watch was interrupted are removed too: after a restart,
//! whatever is not in the new state. For consumers that keep their own index and need no cache of
//! objects.

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
    /// Everything that existed at the start has been set. Sent once per stream.
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
        let mut keys = Keys::default();
        while let Some(event) = events.next().await {
            for change in keys.step(event, key) {
                yield change;
            }
        }
    }
}

/// The keys that exist, and during a restart those received so far.
#[derive(Debug, Default)]
struct Keys {
    present: HashSet<String>,
    received: HashSet<String>,
    synced: bool,
}

impl Keys {
    fn step<K>(&mut self, event: Event<K>, key: fn(&K) -> String) -> Vec<Change<K>> {
        match event {
            Event::Apply(object) => {
                self.present.insert(key(&object));
                vec![Change::Set(object)]
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.present.remove(&key);
                vec![Change::Remove(key)]
            }
            Event::Init => {
                self.received.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.received.insert(key(&object));
                vec![Change::Set(object)]
            }
            Event::InitDone => {
                let received = std::mem::take(&mut self.received);
                let mut changes: Vec<Change<K>> =
                    self.present.difference(&received).cloned().map(Change::Remove).collect();
                self.present = received;
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
    fn objects_missing_after_a_restart_are_removed() {
        let mut keys = Keys::default();
        let mut step = |event| keys.step(event, |text: &&str| (*text).to_owned());
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
