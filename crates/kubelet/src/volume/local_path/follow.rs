//! Follows the volumes that this node keeps: removes the contents of those that are being deleted,
//! and wakes the pods of those that have a new size.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::local_path::{FINALIZER, NODE_LABEL, is_to_be_removed, size_bytes, source};
use backon::{BackoffBuilder, ExponentialBuilder};
use client::{Api, Change, InformerOptions, PatchKind, changes};
use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolume;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::pod::worker::handle::{SyncReason, WorkerHandle};
use crate::volume::sync::blocking;
use crate::volume::{VolumeError, VolumeManager};

/// Pauses before contents that could not be removed are tried again.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(RETRY_MAX)
    .without_max_times();

/// The pods that have a volume, by its name.
#[derive(Debug, Default)]
pub struct Users(Mutex<HashMap<String, Vec<Weak<WorkerHandle>>>>);

impl Users {
    /// From now on, a new size of the volume notifies the worker, for as long as it exists.
    pub fn register(&self, volume: &str, worker: &Arc<WorkerHandle>) {
        let mut users = self.0.lock();
        users.retain(|_, workers| {
            workers.retain(|worker| worker.strong_count() > 0);
            !workers.is_empty()
        });
        let workers = users.entry(volume.to_owned()).or_default();
        if !workers.iter().any(|known| known.as_ptr() == Arc::as_ptr(worker)) {
            workers.push(Arc::downgrade(worker));
        }
    }

    fn notify(&self, volume: &str) {
        for worker in self.0.lock().get(volume).into_iter().flatten() {
            if let Some(worker) = worker.upgrade() {
                worker.notify(SyncReason::ReferencedObjectChanged);
            }
        }
    }
}

fn name(volume: &PersistentVolume) -> String {
    volume.metadata.name.clone().unwrap_or_default()
}

impl VolumeManager {
    /// Follows the volumes until `shutdown`.
    pub async fn follow(self, shutdown: CancellationToken) {
        if !api::names::label_value(&self.node_name).is_empty() {
            // The provisioner makes no volumes for a node whose name cannot be a label's value.
            return;
        }
        let options = InformerOptions {
            label_selector: format!("{NODE_LABEL}={}", self.node_name),
            ..Default::default()
        };
        let mut changes = Box::pin(changes(self.client.clone(), options, name));
        let mut sizes: HashMap<String, u64> = HashMap::new();
        let mut outgoing: BTreeMap<String, PersistentVolume> = BTreeMap::new();
        let mut pauses = RETRY.build();
        let mut pause = RETRY_MAX;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(change) = changes.next() => match change {
                    Change::Set(volume) => {
                        let (name, bytes) = (name(&volume), size_bytes(&volume));
                        if sizes.insert(name.clone(), bytes).is_some_and(|before| before != bytes) {
                            self.users.notify(&name);
                        }
                        if is_to_be_removed(&volume) {
                            pauses = RETRY.build();
                            pause = pauses.next().unwrap_or(RETRY_MAX);
                            outgoing.insert(name, volume);
                            self.remove_all(&mut outgoing).await;
                        } else {
                            outgoing.remove(&name);
                        }
                    }
                    Change::Remove(name) => {
                        sizes.remove(&name);
                        outgoing.remove(&name);
                    }
                    Change::Synced => {}
                },
                () = tokio::time::sleep(pause), if !outgoing.is_empty() => {
                    pause = pauses.next().unwrap_or(RETRY_MAX);
                    self.remove_all(&mut outgoing).await;
                }
            }
        }
    }

    /// Removes the contents of volumes; those that it fails for are left in the map.
    async fn remove_all(&self, outgoing: &mut BTreeMap<String, PersistentVolume>) {
        let mut left = BTreeMap::new();
        for (name, volume) in std::mem::take(outgoing) {
            match self.remove(&volume).await {
                Ok(()) => tracing::info!(volume = name, "removed"),
                Err(error @ VolumeError::InUse(_)) => {
                    tracing::debug!(volume = name, %error, "not removed yet");
                    left.insert(name, volume);
                }
                Err(error) => {
                    tracing::warn!(volume = name, %error, "cannot remove the volume");
                    self.recorder.warning(&volume, "VolumeFailedDelete", error.to_string());
                    left.insert(name, volume);
                }
            }
        }
        *outgoing = left;
    }

    async fn remove(&self, volume: &PersistentVolume) -> Result<(), VolumeError> {
        let Some(source) = source(volume) else {
            return Ok(());
        };
        let (store, handle) = (self.store.clone(), source.volume_handle.clone());
        blocking(move || store.remove(&handle)).await?;
        let metadata = &volume.metadata;
        let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|one| one != FINALIZER);
        let patch = json!({"metadata": {
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "finalizers": if finalizers.is_empty() { None } else { Some(finalizers) },
        }});
        let volumes: Api<PersistentVolume> = Api::all(&self.client);
        match volumes.patch(&name(volume), PatchKind::Merge, &patch).await {
            // Its next version follows, or it is gone.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            patched => Ok(patched.map(|_| ())?),
        }
    }
}
