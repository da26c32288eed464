//! An informer's events as plain changes: set, remove, and once synced. For consumers that keep
//! their own state and need no copy of the objects.

use api::Kind;
use async_stream::stream;
use futures::{Stream, StreamExt};

use crate::mirror::{Changed, Mirror, revision};
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
        let mut revisions = Mirror::default();
        while let Some(event) = events.next().await {
            for change in step(&mut revisions, event, key) {
                yield change;
            }
        }
    }
}

/// Only the objects' revisions are kept.
fn step<K: Kind>(
    revisions: &mut Mirror<u64, String>,
    event: Event<K>,
    key: fn(&K) -> String,
) -> Vec<Change<K>> {
    let was_synced = revisions.is_synced();
    let mut object = None;
    let changes = revisions.take(event.map(|changed| {
        let known = (key(&changed), revision(changed.metadata()));
        object = Some(changed);
        known
    }));
    let mut changes: Vec<Change<K>> = changes
        .into_iter()
        .filter_map(|change| match change {
            Changed::Removed(key, _) => Some(Change::Remove(key)),
            Changed::Added(_) | Changed::Modified(..) => object.take().map(Change::Set),
        })
        .collect();
    if revisions.is_synced() && !was_synced {
        changes.push(Change::Synced);
    }
    changes
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn objects_missing_after_a_restart_are_removed() {
        let mut revisions = Mirror::default();
        let object = |name: &str, revision: &str| {
            let mut object = ConfigMap::default();
            object.metadata.name = Some(name.to_owned());
            object.metadata.resource_version = Some(revision.to_owned());
            object
        };
        let name = |object: &ConfigMap| object.metadata.name.clone().unwrap_or_default();
        let mut step = |event| step(&mut revisions, event, name);
        let (a, b) = (object("a", "1"), object("b", "2"));
        assert!(step(Event::Init).is_empty());
        assert_eq!(step(Event::InitApply(a.clone())), [Change::Set(a)]);
        assert_eq!(step(Event::InitDone), [Change::Synced]);
        assert_eq!(step(Event::Apply(b.clone())), [Change::Set(b.clone())]);
        assert!(step(Event::Init).is_empty());
        assert!(step(Event::InitApply(b.clone())).is_empty(), "the same revision");
        assert_eq!(step(Event::InitDone), [Change::Remove("a".into())]);
        let newer = object("b", "3");
        assert_eq!(step(Event::Apply(newer.clone())), [Change::Set(newer)]);
        assert_eq!(step(Event::Delete(b)), [Change::Remove("b".into())]);
    }
}
