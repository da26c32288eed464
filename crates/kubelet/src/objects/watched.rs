//! Watches of single objects, kept for as long as pods refer to them.

use std::collections::HashMap;
use std::sync::Arc;

use api::Kind;
use client::{Api, Client, mirror};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::pod::worker::handle::{SyncReason, WorkerHandle};

type Key = (String, String);

/// Watches of objects of one kind.
pub(super) struct Watched<K> {
    client: Client,
    entries: Arc<Mutex<HashMap<Key, Entry<K>>>>,
}

struct Entry<K> {
    /// `None`: the watch has not synced yet.
    state: Option<Option<Arc<K>>>,
    workers: Vec<Arc<WorkerHandle>>,
    task: AbortHandle,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Kind> Watched<K> {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), entries: Arc::default() }
    }

    pub(super) async fn get(
        &self,
        namespace: &str,
        name: &str,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Option<Arc<K>>, client::Error> {
        if let Some(known) = self.register(namespace, name, worker) {
            return Ok(known);
        }
        // The watch has just begun: a plain read answers at once, and returns the error if there is
        // one.
        let api: Api<K> = Api::namespaced(&self.client, namespace);
        Ok(api.get_opt(name).await?.map(Arc::new))
    }

    /// Registers the pod's interest, and returns the state of the watch.
    fn register(
        &self,
        namespace: &str,
        name: &str,
        worker: &Arc<WorkerHandle>,
    ) -> Option<Option<Arc<K>>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            state: None,
            workers: Vec::new(),
            task: tokio::spawn(watch(self.client.clone(), key, Arc::clone(&self.entries)))
                .abort_handle(),
        });
        if !entry.workers.iter().any(|known| Arc::ptr_eq(known, worker)) {
            entry.workers.push(Arc::clone(worker));
        }
        entry.state.clone()
    }

    pub(super) fn release(&self, worker: &Arc<WorkerHandle>) {
        self.entries.lock().retain(|_, entry| {
            entry.workers.retain(|known| !Arc::ptr_eq(known, worker));
            !entry.workers.is_empty()
        });
    }
}

async fn watch<K: Kind>(client: Client, key: Key, entries: Arc<Mutex<HashMap<Key, Entry<K>>>>) {
    let mut states = mirror::object(&client, &key.0, &key.1);
    while let Some(state) = states.next().await {
        let mut entries = entries.lock();
        let Some(entry) = entries.get_mut(&key) else {
            return;
        };
        if entry.state.replace(state).is_some() {
            for worker in &entry.workers {
                worker.notify(SyncReason::ReferencedObjectChanged);
            }
        }
    }
}
