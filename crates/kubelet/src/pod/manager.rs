//! The pods of the node, for lookup by the server and the eviction manager.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::pod::pod_ext::PodExt;
use crate::pod::worker::handle::WorkerHandle;

/// A pod and the handle of its worker.
#[derive(Clone, Debug)]
pub struct ManagedPod {
    pub pod: Arc<Pod>,
    pub worker: Arc<WorkerHandle>,
}

/// By uid. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PodManager(Arc<RwLock<BTreeMap<String, ManagedPod>>>);

impl PodManager {
    /// Stores a new version of a pod; without `worker`, only if the pod is known.
    pub(super) fn put(&self, pod: Arc<Pod>, worker: Option<Arc<WorkerHandle>>) {
        let mut table = self.0.write();
        match (table.get_mut(pod.uid()), worker) {
            (Some(known), None) => known.pod = pod,
            (_, Some(worker)) => {
                table.insert(pod.uid().to_owned(), ManagedPod { pod, worker });
            }
            (None, None) => {}
        }
    }

    pub(super) fn remove(&self, uid: &str) {
        self.0.write().remove(uid);
    }

    pub fn all(&self) -> Vec<ManagedPod> {
        self.0.read().values().cloned().collect()
    }

    /// The pod with this name (and uid, unless that is empty).
    pub fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<ManagedPod> {
        let table = self.0.read();
        let fits = |known: &&ManagedPod| {
            known.pod.pod_namespace() == namespace
                && known.pod.pod_name() == name
                && (uid.is_empty() || known.pod.uid() == uid)
        };
        table.values().find(fits).cloned()
    }
}
