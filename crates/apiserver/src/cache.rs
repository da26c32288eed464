//! The watch cache: every resource's current state and recent events, already encoded.
//!
//! One watch of the store ([`feed`]) feeds one [`ResourceCache`] per resource, in the store's
//! order. Consistent reads ask the store for its revision, batched ([`Cache::fresh`]), and wait
//! until the cache has reached it.

mod bucket;
mod compact;
mod feed;
mod filter;
mod follow;
mod resource;
mod selectable;
mod version;
mod watcher;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::custom::definition;
use api::{ApiError, KindRef, KindRow};
use arc_swap::ArcSwap;
use store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use bucket::{Change, frame};
pub use filter::Filter;
pub use follow::{Changes, Follower, derive};
pub use resource::ResourceCache;
pub use version::Version;
pub use watcher::{WatchEvent, WatchSettings, Watcher};

use self::feed::Loaded;
use self::window::{Kept, Window};
use crate::error::store_error;
use crate::keys;
use crate::registry::Registry;

/// How long a read waits for the cache to reach a revision before it fails.
const WAIT: Duration = Duration::from_secs(3);
/// How often a waiting read requests a progress notification from the store's watch.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(10);
/// Reads that may queue for an answer about the store's revision.
const QUEUE: usize = 4_096;

/// The caches of all resources. Created by [`Cache::start`].
pub struct Cache {
    store: Store,
    resources: ArcSwap<Resources>,
    /// The kinds that are served; custom ones follow their definitions in the cache.
    pub registry: Arc<Registry>,
    /// Every change up to this revision is in the caches; 0: not loaded yet.
    progress: watch::Sender<u64>,
    progress_requests: mpsc::Sender<()>,
    revisions: mpsc::Sender<oneshot::Sender<Result<u64, ApiError>>>,
    /// The events that are kept for watches.
    window: Window,
    /// Whether the watch of the store is open.
    following: AtomicBool,
    shutdown: CancellationToken,
}

/// The caches at one moment: custom resources come and go.
#[derive(Clone, Default)]
pub struct Resources {
    /// By plural name; several groups may have the same.
    by_plural: HashMap<String, Vec<Arc<ResourceCache>>>,
    /// By the prefix under the root, without the final slash.
    by_segment: HashMap<String, Arc<ResourceCache>>,
}

impl Resources {
    fn add(&mut self, resource: Arc<ResourceCache>) {
        self.remove(&resource.row);
        let same = self.by_plural.entry(resource.row.plural.to_string()).or_default();
        same.push(resource.clone());
        self.by_segment.insert(keys::segment(&resource.row), resource);
    }

    fn remove(&mut self, row: &KindRow) {
        if let Some(same) = self.by_plural.get_mut(&*row.plural) {
            same.retain(|resource| resource.row.group != row.group);
        }
        self.by_segment.remove(&keys::segment(row));
    }

    fn get(&self, row: &KindRow) -> Option<&Arc<ResourceCache>> {
        let mut same = self.by_plural.get(&*row.plural)?.iter();
        same.find(|resource| resource.row.group == row.group)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.by_segment.values()
    }

    /// Which resource a store key belongs to, and its key there.
    fn locate(&self, key: &[u8]) -> Option<(&Arc<ResourceCache>, String)> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(keys::ROOT)?;
        let (first, tail) = rest.split_once('/')?;
        if let Some(resource) = self.by_segment.get(first) {
            return Some((resource, tail.to_owned()));
        }
        let at = first.len() + 1 + tail.find('/')?;
        let resource = self.by_segment.get(&rest[..at])?;
        Some((resource, rest[at + 1..].to_owned()))
    }
}

impl Cache {
    /// Starts the tasks that keep the caches in sync with the store, until `shutdown`. Events are
    /// kept for watches up to `window_bytes`.
    pub fn start(store: Store, window_bytes: usize, shutdown: CancellationToken) -> Arc<Self> {
        let mut resources = Resources::default();
        for row in api::kind::KINDS.iter().copied().filter(|row| row.stored) {
            resources.add(Arc::new(ResourceCache::new(row)));
        }
        let (progress_requests, requested) = mpsc::channel(1);
        let (revisions, asked) = mpsc::channel(QUEUE);
        let cache = Arc::new(Self {
            store: store.clone(),
            resources: ArcSwap::from_pointee(resources),
            registry: Arc::default(),
            progress: watch::Sender::new(0),
            progress_requests,
            revisions,
            window: Window::new(window_bytes),
            following: AtomicBool::new(false),
            shutdown: shutdown.clone(),
        });
        tokio::spawn(feed::run(cache.clone(), store.clone(), requested, shutdown.clone()));
        tokio::spawn(answer_revisions(store.clone(), asked));
        tokio::spawn(end_aged(cache.clone(), shutdown.clone()));
        tokio::spawn(compact::run(cache.clone(), store, shutdown));
        cache
    }

    /// Waits until the caches have been loaded.
    pub async fn loaded(&self) {
        let waited = self.progress.subscribe().wait_for(|revision| *revision > 0).await.map(|_| ());
        debug_assert!(waited.is_ok(), "the sender lives in self");
    }

    /// Whether the caches have been loaded and are kept in sync with the store.
    pub fn is_following(&self) -> bool {
        self.revision() > 0 && self.following.load(Ordering::Relaxed)
    }

    /// How many values of the store cannot be read, and are missing in the caches.
    pub fn unreadable(&self) -> usize {
        self.resources.load().iter().map(|resource| resource.unreadable_count()).sum()
    }

    /// The revision that the caches have reached.
    pub fn revision(&self) -> u64 {
        *self.progress.borrow()
    }

    /// The cache of a kind that is stored. Of a custom kind whose definition has just gone, there
    /// is nothing.
    pub fn resource(&self, row: &KindRow) -> Arc<ResourceCache> {
        let found = self.resources.load().get(row).cloned();
        found.unwrap_or_else(|| Arc::new(ResourceCache::gone(row)))
    }

    pub(crate) fn resources(&self) -> Arc<Resources> {
        self.resources.load_full()
    }

    /// Applies one change from the store. `None`: deleted.
    fn apply(
        &self,
        resource: &Arc<ResourceCache>,
        key: &str,
        revision: u64,
        new: Option<Arc<Version>>,
    ) {
        if let Some(bytes) = resource.apply(key, revision, new) {
            self.forget(self.window.add(resource, revision, bytes));
        }
    }

    fn forget(&self, events: Vec<Kept>) {
        for event in events {
            if let Some(resource) = event.resource.upgrade() {
                resource.forget(event.revision);
            }
        }
    }

    /// Serves what a definition defines from now on. `None`: it is deleted. Called in the store's
    /// order, so that the cache of a custom resource is there before its first object. `present`:
    /// what the store has of a resource that there is no cache of.
    fn define(&self, name: &str, rows: definition::Rows, revision: u64, present: Loaded) {
        let mut resources = (*self.resources.load_full()).clone();
        match rows.stored {
            Some(stored) => {
                let before = resources.get(&stored).cloned();
                let own = |resource: &ResourceCache| {
                    resource.row.custom.as_ref().is_some_and(|custom| custom.definition == name)
                };
                match before {
                    // Another definition's, or built-in: a definition of that name cannot be made.
                    Some(before) if !own(&before) => return,
                    Some(before) if before.row.is_defined_like(&stored) => {}
                    Some(before) => {
                        let after = ResourceCache::redefined(&before, stored.clone(), revision);
                        resources.add(Arc::new(after));
                        before.close(revision);
                    }
                    None => {
                        let new = ResourceCache::new(KindRef::Custom(stored));
                        new.reset(present.entries, present.unreadable, revision);
                        resources.add(Arc::new(new));
                    }
                }
            }
            None => {
                let gone = resources.iter().find(|resource| {
                    let custom = resource.row.custom.as_ref();
                    custom.is_some_and(|custom| custom.definition == name)
                });
                if let Some(gone) = gone.cloned() {
                    resources.remove(&gone.row);
                    gone.close(revision);
                }
            }
        }
        self.resources.store(Arc::new(resources));
        self.registry.set(name, rows.served);
    }

    fn advance(&self, revision: u64) {
        self.progress.send_if_modified(|reached| {
            let further = revision > *reached;
            *reached = revision.max(*reached);
            further
        });
    }

    /// Waits until the caches hold everything that was acknowledged before the call, and returns
    /// the revision they have reached.
    ///
    /// # Errors
    /// When the store cannot be asked, or the caches do not catch up in time.
    pub async fn fresh(&self) -> Result<u64, ApiError> {
        if let Some(newest) = self.store.revision_at_once() {
            return self.reach(newest.map_err(|error| store_error(&error))?.get()).await;
        }
        let (sender, receiver) = oneshot::channel();
        let gone = |_| ApiError::service_unavailable("the apiserver is shutting down");
        self.revisions.send(sender).await.map_err(|_| gone(()))?;
        let revision = receiver.await.map_err(|_| gone(()))??;
        self.reach(revision).await
    }

    /// Waits until the caches have reached `revision`.
    ///
    /// # Errors
    /// 504 with upstream's message when that takes more than three seconds.
    pub async fn reach(&self, revision: u64) -> Result<u64, ApiError> {
        if self.revision() >= revision {
            return Ok(self.revision());
        }
        let mut progress = self.progress.subscribe();
        let requesting = async {
            loop {
                tokio::time::sleep(PROGRESS_INTERVAL).await;
                // A full queue means that somebody else has just asked.
                self.progress_requests.try_send(()).ok();
            }
        };
        tokio::select! {
            reached = progress.wait_for(|reached| *reached >= revision) => {
                reached.map(|reached| *reached).map_err(|_| ApiError::internal("the cache ended"))
            }
            () = requesting => unreachable!("requests are repeated until one of the others ends"),
            () = tokio::time::sleep(WAIT) => Err(too_large(revision, self.revision())),
        }
    }

    /// Starts a watch: after `since`, or with the current state for `None`.
    ///
    /// # Errors
    /// 410 when `since` is older than the retained events.
    pub fn watch(
        &self,
        filter: Filter,
        since: Option<u64>,
        settings: WatchSettings,
    ) -> Result<Watcher, ApiError> {
        let resource = self.resource(&filter.row);
        let start = resource.start(&filter, since).map_err(|old| {
            ApiError::expired(format!(
                "too old resource version: {} ({})",
                since.unwrap_or_default(),
                old.oldest
            ))
        })?;
        Ok(Watcher::new(filter, start, settings, self.progress.subscribe(), self.shutdown.clone()))
    }
}

/// Upstream's `NewTooLargeResourceVersionError`.
fn too_large(requested: u64, current: u64) -> ApiError {
    let mut error = ApiError::timeout(format!(
        "Timeout: Too large resource version: {requested}, current: {current}"
    ));
    let details = error.status_mut().details.get_or_insert_default();
    details.retry_after_seconds = Some(1);
    details.causes = Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
        reason: Some("ResourceVersionTooLarge".to_owned()),
        message: Some("Too large resource version".to_owned()),
        field: None,
    }]);
    error
}

/// Ends events by their age.
async fn end_aged(cache: Arc<Cache>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            aged = cache.window.aged() => {
                cache.forget(aged);
                runtime::memory::freed_much();
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Answers requests for the store's revision: all that are waiting share one round trip that began
/// after they arrived.
async fn answer_revisions(
    store: Store,
    mut asked: mpsc::Receiver<oneshot::Sender<Result<u64, ApiError>>>,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, QUEUE).await > 0 {
        let answer = store.current_revision().await;
        let answer = answer.map(store::Revision::get).map_err(|error| store_error(&error));
        for sender in waiting.drain(..) {
            // The client may have disconnected.
            sender.send(answer.clone()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use store::embedded::{Embedded, EmbeddedConfig};

    use super::*;

    /// More reads than may wait for the store at once: the others wait for them, and all are
    /// answered.
    #[tokio::test]
    async fn no_more_reads_wait_for_the_store_than_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(EmbeddedConfig::new(folder.path())).await.unwrap();
        // One that is not within this process, for all that it knows.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = embedded.clone();
        tokio::spawn(async move {
            serving.serve_tcp(listener, None, std::future::pending()).await.unwrap();
        });
        let store = Store::connect(&store::EtcdConfig::plain([url])).await.unwrap();
        let cache = Cache::start(store, 1 << 20, CancellationToken::new());
        cache.loaded().await;
        let read = || {
            let cache = cache.clone();
            tokio::spawn(async move { cache.fresh().await })
        };
        let reads: Vec<_> = (0..3 * QUEUE).map(|_| read()).collect();
        // All of them run before the task that was woken by the first.
        while cache.revisions.capacity() > 0 {
            assert!(reads.iter().all(|read| !read.is_finished()), "none had to wait");
            tokio::task::yield_now().await;
        }
        for read in reads {
            read.await.unwrap().unwrap();
        }
        assert_eq!(cache.revisions.capacity(), QUEUE);
    }
}
