//! The ClusterTrustBundles that the node's pods mount: one watch of all of them, kept for as long as
//! a pod mounts any.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Api, Client, Event, InformerOptions, ListOptions, informer};
use futures::StreamExt;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::pod::worker::handle::{SyncReason, WorkerHandle};

type All = BTreeMap<String, Arc<ClusterTrustBundle>>;

/// The watch, while there are pods that need it.
pub(super) struct TrustBundles {
    client: Client,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None`: the watch has not synced yet.
    all: Option<All>,
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
            return Ok(all.into_values().collect());
        }
        // The watch has just begun: a plain list answers at once.
        let list =
            Api::<ClusterTrustBundle>::all(&self.client).list(&ListOptions::default()).await?;
        Ok(list.items.into_iter().map(Arc::new).collect())
    }

    fn register(&self, worker: &Arc<WorkerHandle>) -> Option<All> {
        let mut state = self.state.lock();
        if !state.workers.iter().any(|known| Arc::ptr_eq(known, worker)) {
            state.workers.push(Arc::clone(worker));
        }
        if state.task.is_none() {
            let watching = watch(self.client.clone(), Arc::downgrade(&self.state));
            state.task = Some(tokio::spawn(watching).abort_handle());
        }
        state.all.clone()
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
    let mut events = Box::pin(informer::<ClusterTrustBundle>(client, InformerOptions::default()));
    let name = |bundle: &ClusterTrustBundle| bundle.metadata.name.clone().unwrap_or_default();
    let mut initial = All::new();
    while let Some(event) = events.next().await {
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock();
        match event {
            Event::Init => initial.clear(),
            Event::InitApply(bundle) => {
                initial.insert(name(&bundle), Arc::new(bundle));
            }
            Event::InitDone => {
                let all = std::mem::take(&mut initial);
                let changed = state.all.replace(all.clone()).is_some_and(|before| before != all);
                if changed {
                    state.notify();
                }
            }
            Event::Apply(bundle) => {
                let all = state.all.get_or_insert_default();
                all.insert(name(&bundle), Arc::new(bundle));
                state.notify();
            }
            Event::Delete(bundle) => {
                state.all.get_or_insert_default().remove(&name(&bundle));
                state.notify();
            }
        }
    }
}
