//! Objects that the node's pods use any of: one watch of all of them, kept for as long as a pod does.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Kind;
use client::{Api, Client, Event, InformerOptions, ListOptions, informer};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::pod::worker::handle::{SyncReason, WorkerHandle};

/// By namespace and name.
type All<K> = BTreeMap<(String, String), Arc<K>>;

/// The watch, while there are pods that need it.
pub(super) struct WatchedList<K> {
    client: Client,
    /// `spec.nodeName=n1`, or empty: which of them.
    field_selector: String,
    state: Arc<Mutex<State<K>>>,
}

struct State<K> {
    /// `None`: the watch has not synced yet.
    all: Option<All<K>>,
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
        self.all = None;
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
        let state = State { all: None, workers: Vec::new(), task: None };
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
        state.all.as_ref().map(|all| all.values().cloned().collect())
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
    let mut events = Box::pin(informer::<K>(client, options));
    let key = |object: &K| {
        let metadata = object.metadata();
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        (text(&metadata.namespace), text(&metadata.name))
    };
    let mut initial = All::new();
    while let Some(event) = events.next().await {
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock();
        match event {
            Event::Init => initial.clear(),
            Event::InitApply(object) => {
                initial.insert(key(&object), Arc::new(object));
            }
            Event::InitDone => {
                let all = std::mem::take(&mut initial);
                let changed = state.all.replace(all.clone()).is_some_and(|before| before != all);
                if changed {
                    state.notify();
                }
            }
            Event::Apply(object) => {
                let all = state.all.get_or_insert_default();
                all.insert(key(&object), Arc::new(object));
                state.notify();
            }
            Event::Delete(object) => {
                state.all.get_or_insert_default().remove(&key(&object));
                state.notify();
            }
        }
    }
}
