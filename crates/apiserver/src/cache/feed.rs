//! Keeps the caches in sync with the store: one list of everything, then one watch of everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Kind;
use api::custom::definition;
use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use store::{EventKind, ListOptions, Revision, Store, WatchOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cache, ResourceCache, Version};
use crate::core::read_entry;
use crate::keys;

/// Entries read from the store at once.
const PAGE: usize = 500;
/// How often values that could not be read are tried again.
const RETRY_UNREADABLE: Duration = Duration::from_secs(5);
/// How many values of a resource are tried before all of it is read again.
const TRIED: usize = 16;
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
    let mut readable = store.readable();
    loop {
        let missing = readable.is_some() && cache.unreadable() > 0;
        tokio::select! {
            batch = watch.next() => {
                let Some(batch) = batch else { return Ok(()) };
                let batch = batch?;
                for event in batch.events {
                    apply(cache, store, event).await?;
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
            () = made_readable(&mut readable) => reread(cache, store, *reached).await?,
            () = tokio::time::sleep(RETRY_UNREADABLE), if missing => {
                reread(cache, store, *reached).await?;
            }
        }
    }
}

/// Waits until values may have become readable.
async fn made_readable(changes: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    let changed = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        *changes = None;
        std::future::pending::<()>().await;
    }
}

/// Tries again to read what could not be read. Nobody is waited for: whose keys come later will be tried
/// later.
async fn reread(cache: &Cache, store: &Store, reached: Option<Revision>) -> store::Result<()> {
    let Some(revision) = reached else { return Ok(()) };
    for resource in cache.resources().iter() {
        let missing = resource.unreadable_keys();
        let mut found = false;
        for key in missing.iter().take(TRIED) {
            let prefix = keys::object(&resource.row, key);
            let options = ListOptions { prefix, limit: 1, revision, at_once: true, from: None };
            let entry = store.list(options).await?.entries.into_iter().next();
            found |= entry.is_none_or(|entry| entry.unreadable.is_none());
        }
        if found {
            reload(cache, store, resource, revision).await?;
        }
    }
    Ok(())
}

/// Lists one resource into its reset cache.
async fn reload(
    cache: &Cache,
    store: &Store,
    resource: &ResourceCache,
    revision: Revision,
) -> store::Result<()> {
    let loaded = list(store, &resource.row, revision).await?;
    let is_definitions = resource.row == *CustomResourceDefinition::ROW;
    for (key, version) in loaded.entries.iter().filter(|_| is_definitions) {
        define(cache, store, key, Some(version), revision).await?;
    }
    resource.reset(loaded.entries, loaded.unreadable, revision.get());
    Ok(())
}

/// Everything that the store has of a resource.
async fn list(store: &Store, row: &api::KindRow, revision: Revision) -> store::Result<Loaded> {
    let prefix = keys::prefix(row, "");
    let whole = prefix.len();
    let mut options = ListOptions { prefix, limit: PAGE, revision, at_once: true, from: None };
    let mut loaded = Loaded::default();
    loop {
        let page = store.list(options.clone()).await?;
        options.from = page.next_from();
        for entry in page.entries {
            let key = String::from_utf8_lossy(&entry.key[whole..]).into_owned();
            loaded.add(row, key, &entry);
        }
        if options.from.is_none() {
            return Ok(loaded);
        }
    }
}

/// Serves what a definition defines, with the objects that are left of an earlier one: of somebody
/// who took away its finalizer, or made an object while it went.
async fn define(
    cache: &Cache,
    store: &Store,
    name: &str,
    new: Option<&Version>,
    revision: Revision,
) -> store::Result<()> {
    let rows = rows(new);
    let unknown = rows.stored.as_ref().filter(|row| cache.resources().get(row).is_none());
    let present = match unknown {
        Some(row) => list(store, row, revision).await?,
        None => Loaded::default(),
    };
    cache.define(name, rows, revision.get(), present);
    Ok(())
}

fn rows(definition: Option<&Version>) -> definition::Rows {
    let decoded = definition.and_then(|new| CustomResourceDefinition::decode(&new.json).ok());
    decoded.as_ref().map(definition::rows).unwrap_or_default()
}

/// What has been read of a resource.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) entries: BTreeMap<String, Arc<Version>>,
    pub(super) unreadable: BTreeMap<String, Arc<str>>,
}

impl Loaded {
    fn add(&mut self, row: &api::KindRow, key: String, entry: &store::Entry) {
        match parse(row, &key, entry) {
            Ok(version) => {
                self.entries.insert(key, version);
            }
            Err(reason) => {
                self.unreadable.insert(key, reason);
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
    let mut loaded: HashMap<String, Loaded> = HashMap::new();
    let revision = loop {
        let page = store.list(options.clone()).await?;
        options.from = page.next_from();
        options.revision = page.revision;
        for entry in page.entries {
            let Some((resource, key)) = resources.locate(&entry.key) else {
                continue;
            };
            let segment = keys::segment(&resource.row);
            loaded.entry(segment).or_default().add(&resource.row, key, &entry);
        }
        if options.from.is_none() {
            break page.revision;
        }
    };
    cache.window.clear();
    for resource in resources.iter() {
        let own = loaded.remove(&keys::segment(&resource.row)).unwrap_or_default();
        resource.reset(own.entries, own.unreadable, revision.get());
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
            // What is defined by a definition that cannot be read is not known.
            let version = parse(row, &key, &entry).ok();
            cache.define(&key, rows(version.as_deref()), revision, Loaded::default());
        }
        if options.from.is_none() {
            break;
        }
    }
    for gone in known {
        cache.define(&gone, rows(None), options.revision.get(), Loaded::default());
    }
    Ok(options.revision)
}

async fn apply(cache: &Cache, store: &Store, event: store::Event) -> store::Result<()> {
    let resources = cache.resources();
    let Some((resource, key)) = resources.locate(&event.entry.key) else {
        return Ok(());
    };
    let revision = event.entry.mod_revision.get();
    let version = match event.kind {
        EventKind::Deleted => None,
        EventKind::Created | EventKind::Updated => match parse(&resource.row, &key, &event.entry) {
            Ok(version) => Some(version),
            Err(reason) => {
                resource.hide(&key, revision, reason);
                return Ok(());
            }
        },
    };
    if resource.row == *CustomResourceDefinition::ROW {
        define(cache, store, &key, version.as_deref(), event.entry.mod_revision).await?;
    }
    cache.apply(resource, &key, revision, version);
    Ok(())
}

/// An object's version, or why its value is none. Such a value hides the object, so that nobody takes
/// its former version for the current one: requests for it read the store and fail.
fn parse(row: &api::KindRow, key: &str, entry: &store::Entry) -> Result<Arc<Version>, Arc<str>> {
    read_entry(row, key, entry).map_err(|error| {
        tracing::error!(%error, "a value of the store cannot be read; its object is missing");
        error.into()
    })
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
