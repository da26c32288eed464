//! Writers, each with its own keys, and the check that everything they were acknowledged is there.
//!
//! Each writer may have had one operation in flight at the end, which may or may not have been
//! applied. Everything else must be exactly as acknowledged, ordered by revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use store::{Error, EventKind, ListOptions, Outcome, Result, Revision, Store, WatchOptions};

pub const WORKERS: usize = 8;
const KEYS: usize = 12;
/// The number of acknowledged writes of a worker between compactions.
const COMPACT_EVERY: u64 = 10;
/// The number of revisions that a compaction keeps.
const KEPT_REVISIONS: u64 = 300;
const VALUE_BYTES: std::ops::Range<usize> = 10..6_000;

/// An acknowledged write; a deletion has no value.
#[derive(Clone, Debug)]
pub struct Write {
    pub worker: usize,
    pub revision: u64,
    pub key: String,
    pub value: String,
}

fn key(worker: usize, index: usize) -> String {
    format!("/registry/{worker}/{index}")
}

/// Writes, one operation at a time, until one fails.
pub async fn work(store: Store, worker: usize, acknowledge: impl Fn(Write)) -> Result<()> {
    let mut known: Vec<Revision> = Vec::new();
    for index in 0..KEYS {
        let fetched = store.get(key(worker, index).into()).await?;
        known.push(fetched.entry.map_or(Revision::NONE, |entry| entry.mod_revision));
    }
    for count in 1_u64.. {
        let index = rand::random_range(0..KEYS);
        let key = key(worker, index);
        let text = format!("{worker}-{count}-{}", "x".repeat(rand::random_range(VALUE_BYTES)));
        let (name, value) = (Bytes::from(key.clone()), Bytes::from(text.clone()));
        let expected = known[index];
        let delete = !expected.is_none() && rand::random_ratio(1, 4);
        let outcome = if delete {
            store.delete(name, expected).await?
        } else if expected.is_none() {
            store.create(name, value).await?
        } else {
            store.update(name, value, expected).await?
        };
        let Outcome::Written(revision) = outcome else {
            panic!("another writer changed {key:?}: {outcome:?}")
        };
        known[index] = if delete { Revision::NONE } else { revision };
        let value = if delete { String::new() } else { text };
        acknowledge(Write { worker, revision: revision.get(), key, value });
        if count.is_multiple_of(COMPACT_EVERY) && revision.get() > KEPT_REVISIONS {
            match store.compact(Revision::new(revision.get() - KEPT_REVISIONS)).await {
                Ok(()) | Err(Error::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The acknowledged writes: the state of each key, and the last revision of each worker.
#[derive(Default)]
pub struct Acknowledged {
    keys: BTreeMap<String, (u64, String)>,
    workers: BTreeMap<usize, u64>,
    pub writes: Vec<Write>,
    /// Writes before this one have been found in history.
    verified: usize,
}

impl Acknowledged {
    pub fn add(&mut self, write: Write) {
        let Write { worker, revision, key, value } = write.clone();
        let last = self.workers.insert(worker, revision).unwrap_or_default();
        assert!(revision > last, "worker {worker} got revision {revision} after {last}");
        self.keys.insert(key, (revision, value));
        self.writes.push(write);
    }

    /// Checks that the store has everything acknowledged.
    pub async fn verify(&mut self, store: &Store) {
        let prefix = Bytes::from_static(b"/registry/");
        let listing = store.list(ListOptions { prefix, ..ListOptions::default() }).await.unwrap();
        let mut actual: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for entry in &listing.entries {
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            actual.insert(text(&entry.key), (entry.mod_revision.get(), text(&entry.value)));
        }
        for worker in 0..WORKERS {
            let last = self.workers.get(&worker).copied().unwrap_or_default();
            let mut deviating = 0;
            for index in 0..KEYS {
                let key = key(worker, index);
                let expected = self.keys.get(&key).filter(|(_, value)| !value.is_empty());
                let found = actual.get(&key);
                if found != expected {
                    deviating += 1;
                    let revision = found.map(|(revision, _)| *revision);
                    assert!(
                        revision.is_none_or(|revision| revision > last),
                        "{key}: {revision:?}, acknowledged {last}"
                    );
                }
            }
            assert!(deviating <= 1, "worker {worker}: {deviating} keys are not as acknowledged");
        }
        verify_history(store, &self.writes[self.verified..], listing.revision).await;
        self.verified = self.writes.len();
        // Operations in flight may or may not have been applied; from here on their outcome is
        // known.
        self.keys = actual;
    }
}

/// Checks that every acknowledged write that is not compacted is in history exactly once, and that
/// no revision is missing.
async fn verify_history(store: &Store, writes: &[Write], current: Revision) {
    let mut from = Revision::new(2);
    let mut watch = loop {
        let options = WatchOptions { prefix: Bytes::new(), from, previous: false };
        let mut watch = store.watch(options).await.unwrap();
        watch.progress_requester().request().await.unwrap();
        match watch.next().await.unwrap() {
            Ok(first) => break futures::stream::iter([Ok(first)]).chain(watch),
            Err(Error::Compacted { oldest: Some(oldest), .. }) => from = oldest.next(),
            Err(error) => panic!("{error}"),
        }
    };
    let mut history = BTreeMap::new();
    let mut next = from;
    while next <= current {
        for event in watch.next().await.unwrap().unwrap().events {
            assert_eq!(event.entry.mod_revision, next, "a revision is missing or duplicated");
            let value =
                if event.kind == EventKind::Deleted { Bytes::new() } else { event.entry.value };
            history.insert(next.get(), (event.entry.key, value));
            next = next.next();
        }
    }
    for write in writes.iter().filter(|write| write.revision >= from.get()) {
        let found = history.get(&write.revision).map(|(key, value)| (key.as_ref(), value.as_ref()));
        let acknowledged = (write.key.as_bytes(), write.value.as_bytes());
        assert_eq!(found, Some(acknowledged), "revision {}", write.revision);
    }
}
