//! The pods of the node, for those who ask: the server, eviction, statistics.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::pod::object::PodExt;
use crate::pod::registry::Wake;

/// A pod and its worker's doorbell.
#[derive(Clone, Debug)]
pub struct Known {
    pub pod: Arc<Pod>,
    pub wake: Arc<Wake>,
}

/// By uid. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pods(Arc<RwLock<BTreeMap<String, Known>>>);

impl Pods {
    /// A new version of a pod; without `wake` only of one that is known.
    pub(super) fn put(&self, pod: Arc<Pod>, wake: Option<Arc<Wake>>) {
        let mut table = self.0.write();
        match (table.get_mut(pod.uid()), wake) {
            (Some(known), None) => known.pod = pod,
            (_, Some(wake)) => {
                table.insert(pod.uid().to_owned(), Known { pod, wake });
            }
            (None, None) => {}
        }
    }

    pub(super) fn remove(&self, uid: &str) {
        self.0.write().remove(uid);
    }

    pub fn all(&self) -> Vec<Known> {
        self.0.read().values().cloned().collect()
    }

    /// The pod of that name (and uid, unless it is empty).
    pub fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<Known> {
        let table = self.0.read();
        let fits = |known: &&Known| {
            known.pod.pod_namespace() == namespace
                && known.pod.pod_name() == name
                && (uid.is_empty() || known.pod.uid() == uid)
        };
        table.values().find(fits).cloned()
    }
}
