//! Changes of the cluster, as the engine takes them in.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::{is_terminal, node_name};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};

use super::Engine;
use crate::hint::Change;
use crate::pod::PodInfo;
use crate::snapshot::PlacedPod;
use crate::volumes::claim_key;

impl Engine {
    /// Adds or updates a pod.
    pub fn set_pod(&mut self, pod: &Pod, now: Timestamp) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if is_terminal(pod) {
            return self.remove_pod(uid, now);
        }
        match node_name(pod) {
            Some(node) => self.set_placed_pod(pod, node, now),
            None => self.set_waiting_pod(pod, now),
        }
    }

    fn set_placed_pod(&mut self, pod: &Pod, node: &str, now: Timestamp) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.assumed.remove(uid);
        self.queue.remove(uid);
        self.preempting.remove(uid);
        self.nominations.remove(uid);
        let before = self.snapshot.placed(uid);
        let before: Option<PlacedPod> =
            before.filter(|placed| *self.snapshot.name(placed.node) == *node).cloned();
        if before.as_ref().is_some_and(|before| is_current(&before.info, pod)) {
            return;
        }
        let info = Arc::new(PodInfo::read(pod));
        self.snapshot.add_pod(info.clone(), node);
        let Some(PlacedPod { info: before, .. }) = before else {
            return self.changed(Change::PodPlaced(&info), now);
        };
        self.changed(Change::PodUpdated(&before, &info), now);
    }

    fn set_waiting_pod(&mut self, pod: &Pod, now: Timestamp) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if !self.is_responsible_for(pod) {
            return self.remove_pod(uid, now);
        }
        if self.assumed.contains_key(uid) {
            return;
        }
        let info = Arc::new(PodInfo::read(pod));
        let known = self.queue.get(uid).cloned();
        let was_nominated = known.as_ref().is_some_and(|known| known.nominated_node.is_some());
        match &info.nominated_node {
            Some(node) => self.nominations.set(info.clone(), node),
            // Our own nomination may not be written yet; one that was is cleared by others.
            None if was_nominated => self.nominations.remove(uid),
            None => {}
        }
        let cleared = was_nominated && info.nominated_node.is_none();
        if let Some(Some(waiting)) = self.preempting.get_mut(uid) {
            *waiting = info;
        } else if known.is_some_and(|known| !cleared && is_unchanged(&known, &info)) {
            // The update may have been our own condition: the pod keeps its place in the queue.
            self.queue.refresh(info);
        } else {
            self.queue.upsert(info, now);
        }
    }

    fn is_responsible_for(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let gated = spec
            .and_then(|spec| spec.scheduling_gates.as_ref())
            .is_some_and(|gates| !gates.is_empty());
        let name = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let ours = self.profiles.contains_key(name.unwrap_or("default-scheduler"));
        ours && !gated && pod.metadata.deletion_timestamp.is_none()
    }

    pub fn remove_pod(&mut self, uid: &str, now: Timestamp) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        self.preempting.remove(uid);
        let nominated = self.nominations.node_of(uid).is_some();
        self.nominations.remove(uid);
        if let Some(PlacedPod { info, .. }) = self.snapshot.placed(uid).cloned() {
            self.snapshot.remove_pod(uid);
            self.changed(Change::PodRemoved(&info), now);
        } else if nominated {
            self.changed(Change::NominationEnded, now);
        }
    }

    pub fn set_node(&mut self, node: &Node, now: Timestamp) {
        if let Some((index, change)) = self.snapshot.set_node(node) {
            self.changed(Change::Node(index, &change), now);
        }
    }

    pub fn remove_node(&mut self, name: &str, now: Timestamp) {
        if let Some(removed) = self.snapshot.remove_node(name) {
            self.changed(Change::NodeRemoved(&removed), now);
        }
    }

    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim, now: Timestamp) {
        let bound = self.volumes.set_claim(claim);
        let modes = self.snapshot.storage.set_claim(claim);
        if bound || modes {
            self.changed(Change::Claim(&claim_key(claim)), now);
        }
    }

    pub fn remove_claim(&mut self, key: &str) {
        self.volumes.remove_claim(key);
        self.snapshot.storage.remove_claim(key);
    }

    pub fn set_volume(&mut self, volume: &PersistentVolume, now: Timestamp) {
        let affinity = self.volumes.set_volume(volume);
        let labels = self.snapshot.storage.set_volume(volume);
        if affinity || labels {
            self.changed(Change::Volume(volume.metadata.name.as_deref().unwrap_or_default()), now);
        }
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove_volume(name);
        self.snapshot.storage.remove_volume(name);
    }

    pub fn set_class(&mut self, class: &StorageClass, now: Timestamp) {
        self.snapshot.storage.set_class(class);
        if self.volumes.set_class(class) {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            self.changed(Change::StorageClass(name), now);
        }
    }

    pub fn remove_class(&mut self, name: &str) {
        self.volumes.remove_class(name);
        self.snapshot.storage.remove_class(name);
    }

    pub fn set_driver(&mut self, driver: &CSIDriver, now: Timestamp) {
        if self.volumes.set_driver(driver) {
            self.driver_changed(driver.metadata.name.as_deref().unwrap_or_default(), now);
        }
    }

    pub fn remove_driver(&mut self, name: &str, now: Timestamp) {
        if self.volumes.remove_driver(name) {
            self.driver_changed(name, now);
        }
    }

    fn driver_changed(&mut self, name: &str, now: Timestamp) {
        for class in self.volumes.classes_of(name) {
            self.changed(Change::StorageCapacity(&class), now);
        }
    }

    pub fn set_capacity(&mut self, capacity: &CSIStorageCapacity, now: Timestamp) {
        if self.volumes.set_capacity(capacity) {
            self.changed(Change::StorageCapacity(&capacity.storage_class_name), now);
        }
    }

    /// How many volumes of its CSI drivers a node can have.
    pub fn set_node_limits(&mut self, node: &CSINode, now: Timestamp) {
        if self.snapshot.storage.set_limits(node) {
            self.changed(Change::NodeLimits, now);
        }
    }

    pub fn remove_node_limits(&mut self, node: &str) {
        self.snapshot.storage.remove_limits(node);
    }

    pub fn remove_attachment(&mut self, name: &str, now: Timestamp) {
        if let Some(attacher) = self.snapshot.storage.remove_attachment(name) {
            self.changed(Change::Detached(&attacher), now);
        }
    }

    /// The labels of a namespace, which affinity terms select by.
    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>, now: Timestamp) {
        if self.snapshot.set_namespace(name, labels) {
            self.changed(Change::Namespace, now);
        }
    }
}

/// Whether a placed pod is known as it is: its status may have changed, which does not matter.
fn is_current(known: &PodInfo, pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    known.generation == metadata.generation.unwrap_or(0)
        && known.started == started.map(|time| time.0)
        && known.deleting == metadata.deletion_timestamp.is_some()
        && (!known.deleting || known.preempted)
        && has_labels(known, metadata.labels.as_ref())
}

fn has_labels(known: &PodInfo, labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.map_or(known.labels.is_empty(), |labels| *labels == known.labels)
}

/// Whether the spec and the labels of a waiting pod are unchanged.
fn is_unchanged(known: &PodInfo, new: &PodInfo) -> bool {
    known.generation == new.generation && known.labels == new.labels
}
