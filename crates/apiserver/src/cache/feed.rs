//! Keeps the caches in sync with the store: one list of everything, then one watch of everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Kind;
use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use store::{EventKind, ListOptions, Revision, Store, WatchOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cache, Version};
use crate::keys;

/// Entries read from the store at once.
const PAGE: usize = 500;
/// How long to wait before a broken watch is reopened.
const RETRY: Duration = Duration::from_millis(200);

/// Runs until `shutdown`. `progress_requests`: a read waits for the cache to reach the store's
/// revision.
pub async fn run(
    cache: Arc<Cache>,
    store: Store,
    mut progress_requests: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    let mut reached = None;
    while !shutdown.is_cancelled() {
        let outcome = tokio::select! {
            outcome = follow(&cache, &store, &mut reached, &mut progress_requests) => outcome,
            () = shutdown.cancelled() => return,
        };
        cache.following.store(false, Ordering::Relaxed);
        match outcome {
            Err(store::Error::Compacted { .. }) => {
                tracing::warn!("the watch of the store is behind its compaction, listing again");
                reached = None;
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the watch of the store broke"
            ),
            Ok(()) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(
    cache: &Cache,
    store: &Store,
    reached: &mut Option<Revision>,
    progress_requests: &mut mpsc::Receiver<()>,
) -> store::Result<()> {
    let from = match *reached {
        Some(revision) => revision,
        None => {
            let revision = load(cache, store).await?;
            *reached = Some(revision);
            cache.advance(revision.get());
            revision
        }
    };
    let mut watch = store
        .watch(WatchOptions {
            prefix: Bytes::from_static(keys::ROOT.as_bytes()),
            from: from.next(),
            previous: false,
        })
        .await?;
    cache.following.store(true, Ordering::Relaxed);
    let progress = watch.progress_requester();
    loop {
        tokio::select! {
            batch = watch.next() => {
                let Some(batch) = batch else { return Ok(()) };
                let batch = batch?;
                for event in batch.events {
                    apply(cache, event);
                }
                *reached = Some(batch.revision);
                cache.advance(batch.revision.get());
            }
            request = progress_requests.recv() => {
                if request.is_none() {
                    return Ok(());
                }
                progress.request().await?;
            }
        }
    }
}

/// Lists everything at one revision into reset caches.
async fn load(cache: &Cache, store: &Store) -> store::Result<Revision> {
    let mut options = ListOptions {
        prefix: Bytes::from_static(keys::ROOT.as_bytes()),
        limit: PAGE,
        ..ListOptions::default()
    };
    // What custom resources there are has to be known before their objects are read.
    options.revision = load_definitions(cache, store).await?;
    let resources = cache.resources();
    let mut loaded: HashMap<String, BTreeMap<String, Arc<Version>>> = HashMap::new();
    let revision = loop {
        let page = store.list(options.clone()).await?;
        options.from = page.next_from();
        options.revision = page.revision;
        for entry in page.entries {
            let Some((resource, key)) = resources.locate(&entry.key) else {
                continue;
            };
            let revision = entry.mod_revision.get();
            if let Some(version) = parse(cache, &resource.row, &key, &entry.value, revision) {
                let segment = keys::segment(&resource.row);
                loaded.entry(segment).or_default().insert(key, version);
            }
        }
        if options.from.is_none() {
            break page.revision;
        }
    };
    cache.window.clear();
    for resource in resources.iter() {
        let entries = loaded.remove(&keys::segment(&resource.row)).unwrap_or_default();
        resource.reset(entries, revision.get());
    }
    Ok(revision)
}

/// Reads all definitions, and returns the revision at which they were read.
async fn load_definitions(cache: &Cache, store: &Store) -> store::Result<Revision> {
    let row = CustomResourceDefinition::ROW;
    let prefix = keys::prefix(row, "");
    let whole = prefix.len();
    let mut options = ListOptions { prefix, limit: PAGE, ..ListOptions::default() };
    let mut known = cache.registry.definitions();
    loop {
        let page = store.list(options.clone()).await?;
        options.from = page.next_from();
        options.revision = page.revision;
        for entry in page.entries {
            let key = String::from_utf8_lossy(&entry.key[whole..]).into_owned();
            let revision = entry.mod_revision.get();
            known.retain(|name| *name != key);
            let version = parse(cache, row, &key, &entry.value, revision);
            cache.define(&key, version.as_deref(), revision);
        }
        if options.from.is_none() {
            break;
        }
    }
    for gone in known {
        cache.define(&gone, None, options.revision.get());
    }
    Ok(options.revision)
}

fn apply(cache: &Cache, event: store::Event) {
    let resources = cache.resources.load();
    let Some((resource, key)) = resources.locate(&event.entry.key) else {
        return;
    };
    let revision = event.entry.mod_revision.get();
    let version = match event.kind {
        EventKind::Deleted => None,
        EventKind::Created | EventKind::Updated => {
            parse(cache, &resource.row, &key, &event.entry.value, revision)
        }
    };
    if resource.row == *CustomResourceDefinition::ROW {
        cache.define(&key, version.as_deref(), revision);
    }
    cache.apply(resource, &key, revision, version);
}

/// An object's version; `None` for a value that is none. Such a value hides the object, so that
/// nobody takes its former version for the current one: writes to it read the store and fail.
fn parse(
    cache: &Cache,
    row: &api::KindRow,
    key: &str,
    value: &[u8],
    revision: u64,
) -> Option<Arc<Version>> {
    match Version::from_stored(row, key, value, revision) {
        Ok(version) => Some(Arc::new(version)),
        Err(error) => {
            cache.unreadable.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "a value of the store cannot be read; its object is missing");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ConfigMap;
    use store::Outcome;

    use super::*;

    fn written(outcome: Outcome) -> Revision {
        match outcome {
            Outcome::Written(revision) => revision,
            conflict => panic!("{conflict:?}"),
        }
    }

    /// A value that is no object hides the object instead of leaving its former state.
    #[tokio::test]
    async fn a_value_that_cannot_be_read_hides_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::embedded(folder.path()).await.unwrap();
        let (key, shutdown) = (keys::object(ConfigMap::ROW, "d/n"), CancellationToken::new());
        let good = Bytes::from(r#"{"metadata":{"name":"n","namespace":"d"}}"#);
        let bad = Bytes::from("[]");
        let created = written(store.create(key.clone(), good.clone()).await.unwrap());
        let cache = Cache::start(store.clone(), 1 << 20, shutdown.clone());
        cache.loaded().await;
        let maps = cache.resource(ConfigMap::ROW);
        assert_eq!(maps.get("d/n").unwrap().revision, created.get());
        let broken = written(store.update(key.clone(), bad.clone(), created).await.unwrap());
        cache.reach(broken.get()).await.unwrap();
        assert!(maps.get("d/n").is_none());
        assert_eq!(cache.unreadable(), 1);
        let mended = written(store.update(key.clone(), good, broken).await.unwrap());
        cache.reach(mended.get()).await.unwrap();
        assert_eq!(maps.get("d/n").unwrap().revision, mended.get());
        // The same when the caches are loaded.
        written(store.update(key, bad, mended).await.unwrap());
        let again = Cache::start(store, 1 << 20, shutdown.clone());
        again.loaded().await;
        assert!(again.resource(ConfigMap::ROW).get("d/n").is_none());
        assert_eq!(again.unreadable(), 1);
        shutdown.cancel();
    }
}
