//! Objects that the node's pods use any of: one watch of all of them, kept for as long as a pod does.

use std::sync::Arc;

use api::Kind;
use client::mirror::{self, Mirror};
use client::{Api, Client, InformerOptions, ListOptions};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::pod::worker::handle::{SyncReason, WorkerHandle};

/// The watch, while there are pods that need it.
pub(super) struct WatchedList<K> {
    client: Client,
    /// `spec.nodeName=n1`, or empty: which of them.
    field_selector: String,
    state: Arc<Mutex<State<K>>>,
}

struct State<K> {
    all: Mirror<Arc<K>>,
    workers: Vec<Arc<WorkerHandle>>,
    task: Option<AbortHandle>,
}

impl<K> Drop for State<K> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<K> State<K> {
    fn end(&mut self) {
        self.all = Mirror::default();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    fn notify(&self) {
        for worker in &self.workers {
            worker.notify(SyncReason::ReferencedObjectChanged);
        }
    }
}

impl<K: Kind> WatchedList<K> {
    pub(super) fn new(client: &Client, field_selector: String) -> Self {
        let state = State { all: Mirror::default(), workers: Vec::new(), task: None };
        Self { client: client.clone(), field_selector, state: Arc::new(Mutex::new(state)) }
    }

    /// Every object. From now on changes of any notify the worker.
    pub(super) async fn all(
        &self,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Vec<Arc<K>>, client::Error> {
        if let Some(all) = self.register(worker) {
            return Ok(all);
        }
        // The watch has just begun: a plain list answers at once.
        let options =
            ListOptions { field_selector: self.field_selector.clone(), ..ListOptions::default() };
        let list = Api::<K>::all(&self.client).list(&options).await?;
        Ok(list.items.into_iter().map(Arc::new).collect())
    }

    /// Registers the pod's interest. `None`: the watch has not synced yet.
    fn register(&self, worker: &Arc<WorkerHandle>) -> Option<Vec<Arc<K>>> {
        let mut state = self.state.lock();
        if !state.workers.iter().any(|known| Arc::ptr_eq(known, worker)) {
            state.workers.push(Arc::clone(worker));
        }
        if state.task.is_none() {
            let options = InformerOptions {
                field_selector: self.field_selector.clone(),
                ..InformerOptions::default()
            };
            let watching = watch(self.client.clone(), options, Arc::downgrade(&self.state));
            state.task = Some(tokio::spawn(watching).abort_handle());
        }
        state.all.is_synced().then(|| state.all.objects().values().cloned().collect())
    }

    pub(super) fn release(&self, worker: &Arc<WorkerHandle>) {
        let mut state = self.state.lock();
        state.workers.retain(|known| !Arc::ptr_eq(known, worker));
        if state.workers.is_empty() {
            state.end();
        }
    }
}

async fn watch<K: Kind>(
    client: Client,
    options: InformerOptions,
    state: std::sync::Weak<Mutex<State<K>>>,
) {
    let reduce = |object: K| (mirror::name(object.metadata()), Some(Arc::new(object)));
    let mut events = mirror::keyed(&client, options, reduce);
    while let Some(event) = events.next().await {
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock();
        let was_synced = state.all.is_synced();
        let changed = !state.all.take(event).is_empty();
        if changed && was_synced {
            state.notify();
        }
    }
}
