//! An informer keeps the [`Cache`] of one kind for all controllers, and sends the keys that a
//! change affects to the queues of the subscribed controllers.
//!
//! A controller subscribes with a function from a change to keys. It never gets the change itself,
//! so that it acts on the state and not on an event.

use std::sync::Arc;

use api::Kind;
use client::{Client, Event, InformerOptions};
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

    /// The future that keeps the cache up to date; `synced` becomes true once the cache is filled.
    pub fn start(
        &self,
        client: &Client,
        synced: watch::Sender<bool>,
    ) -> impl Future<Output = ()> + Send + use<K> {
        let strip = self.strip;
        let stream = client::informer::<K>(client.clone(), self.options.clone());
        let stripped = stream.map(move |event| {
            event.map(|mut object| {
                strip(&mut object);
                object
            })
        });
        let subscribers = std::mem::take(&mut *self.subscribers.lock());
        keep(self.cache.clone(), subscribers, stripped, synced)
    }
}

async fn keep<K: Kind>(
    cache: Arc<Cache<K>>,
    subscribers: Vec<(Trigger, Keys<K>)>,
    stream: impl Stream<Item = Event<K>>,
    synced: watch::Sender<bool>,
) {
    let mut stream = std::pin::pin!(stream);
    let mut initial = Vec::new();
    while let Some(event) = stream.next().await {
        let changes = match event {
            Event::Init => {
                initial = Vec::new();
                continue;
            }
            Event::InitApply(object) => {
                initial.push(object);
                continue;
            }
            Event::InitDone => {
                let changes = cache.replace(std::mem::take(&mut initial));
                synced.send_replace(true);
                changes
            }
            Event::Apply(object) => vec![cache.apply(object)],
            Event::Delete(object) => cache.delete(&object).into_iter().collect(),
        };
        for change in &changes {
            for (trigger, keys) in &subscribers {
                for key in keys(change) {
                    trigger.send(key).await;
                }
            }
        }
    }
}
