//! The ClusterTrustBundles that the node's pods mount: one watch of all of them, kept for as long as
//! a pod mounts any.

use std::sync::Arc;

use client::mirror::{self, Mirror};
use client::{Api, Client, InformerOptions, ListOptions};
use futures::StreamExt;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::pod::worker::handle::{SyncReason, WorkerHandle};

/// The watch, while there are pods that need it.
pub(super) struct TrustBundles {
    client: Client,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    all: Mirror<Arc<ClusterTrustBundle>>,
    workers: Vec<Arc<WorkerHandle>>,
    task: Option<AbortHandle>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
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

impl TrustBundles {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), state: Arc::default() }
    }

    /// Every bundle. From now on changes of any notify the worker.
    pub(super) async fn all(
        &self,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Vec<Arc<ClusterTrustBundle>>, client::Error> {
        if let Some(all) = self.register(worker) {
            return Ok(all);
        }
        // The watch has just begun: a plain list answers at once.
        let list =
            Api::<ClusterTrustBundle>::all(&self.client).list(&ListOptions::default()).await?;
        Ok(list.items.into_iter().map(Arc::new).collect())
    }

    /// Registers the pod's interest. `None`: the watch has not synced yet.
    fn register(&self, worker: &Arc<WorkerHandle>) -> Option<Vec<Arc<ClusterTrustBundle>>> {
        let mut state = self.state.lock();
        if !state.workers.iter().any(|known| Arc::ptr_eq(known, worker)) {
            state.workers.push(Arc::clone(worker));
        }
        if state.task.is_none() {
            let watching = watch(self.client.clone(), Arc::downgrade(&self.state));
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

async fn watch(client: Client, state: std::sync::Weak<Mutex<State>>) {
    let reduce =
        |bundle: ClusterTrustBundle| (mirror::name(&bundle.metadata), Some(Arc::new(bundle)));
    let mut events = mirror::keyed(&client, InformerOptions::default(), reduce);
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
