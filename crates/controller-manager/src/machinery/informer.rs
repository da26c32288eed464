//! An informer keeps the [`Cache`] of one kind for all controllers, and sends the keys that a
//! change affects to the queues of the subscribed controllers.
//!
//! A controller subscribes with a function from a change to keys. It never gets the change itself,
//! so that it acts on the state and not on an event.

use std::sync::Arc;

use api::Kind;
use client::{Client, Event, InformerOptions, mirror};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::machinery::cache::{Cache, Change, Index, Key};
use crate::machinery::queue::Trigger;

/// A future that keeps a cache up to date, and whether the cache has been filled.
pub type Synced = (BoxFuture<'static, ()>, watch::Receiver<bool>);

type Keys<K> = Box<dyn Fn(&Change<K>) -> Vec<Key> + Send + Sync>;

/// The watch and the cache of one kind.
pub struct Informer<K> {
    cache: Arc<Cache<K>>,
    subscribers: Mutex<Vec<(Trigger, Keys<K>)>>,
    strip: fn(&mut K),
    options: InformerOptions,
}

impl<K: Kind> Informer<K> {
    /// `strip` removes what no controller reads, to save memory; managed fields are always removed.
    pub fn new(index: Index<K>, strip: fn(&mut K)) -> Self {
        let options = InformerOptions::default();
        Self { cache: Arc::new(Cache::new(index)), subscribers: Mutex::default(), strip, options }
    }

    /// Follows only the objects that `options` select.
    pub fn selecting(self, options: InformerOptions) -> Self {
        Self { options, ..self }
    }

    pub fn cache(&self) -> Arc<Cache<K>> {
        self.cache.clone()
    }

    /// Sends the keys that `keys` returns for a change to `trigger`. Call it before
    /// [`start`](Self::start).
    pub fn subscribe(
        &self,
        trigger: &Trigger,
        keys: impl Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static,
    ) {
        self.subscribers.lock().push((trigger.clone(), Box::new(keys)));
    }

    /// The keys that the change sends to all subscribers.
    #[cfg(test)]
    pub fn keys(&self, change: &Change<K>) -> Vec<Key> {
        self.subscribers.lock().iter().flat_map(|(_, keys)| keys(change)).collect()
    }

    /// Whether a controller reads the cache or subscribes to its changes.
    pub fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.cache) > 1 || !self.subscribers.lock().is_empty()
    }

    /// What keeps the cache up to date; `None` if no controller uses it.
    pub fn start(&self, client: &Client) -> Option<Synced> {
        if !self.is_wanted() {
            return None;
        }
        let strip = self.strip;
        let events = mirror::keyed(client, self.options.clone(), move |mut object: K| {
            strip(&mut object);
            (Arc::new(Key::of(&object)), Arc::new(object))
        });
        let (synced, is_synced) = watch::channel(false);
        let subscribers = std::mem::take(&mut *self.subscribers.lock());
        Some((Box::pin(keep(self.cache.clone(), subscribers, events, synced)), is_synced))
    }
}

async fn keep<K: Kind>(
    cache: Arc<Cache<K>>,
    subscribers: Vec<(Trigger, Keys<K>)>,
    mut events: impl Stream<Item = Event<(Arc<Key>, Arc<K>)>> + Unpin,
    synced: watch::Sender<bool>,
) {
    while let Some(event) = events.next().await {
        for change in cache.take(event) {
            for (trigger, keys) in &subscribers {
                for key in keys(&change) {
                    trigger.send(key).await;
                }
            }
        }
        if cache.is_synced() {
            synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
    }
}
