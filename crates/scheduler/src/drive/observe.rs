//! The informers, and what of theirs goes to which part of the engine.

use std::future::poll_fn;
use std::task::Poll;

use api::Kind;
use client::{Change, Client, InformerOptions, changes};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};

use super::Driver;
use crate::volumes;

/// Number of informers that must be synced before anything is scheduled.
pub const INFORMERS: usize = 12;

/// Takes a change of an object in.
pub type Observe = Box<dyn FnOnce(&mut Driver) + Send>;

/// All informers. What the first ones say decides about everything else, and comes first.
pub struct Informers([BoxStream<'static, Observe>; INFORMERS]);

impl Informers {
    #[rustfmt::skip]
    pub fn new(client: &Client) -> Self {
        Self([
            watch(client, name, |to, node: Node, now| to.engine.set_node(&node, now), |to, name, now| {
                to.waiting.node_removed(name);
                to.engine.remove_node(name, now);
            }),
            watch(client, pod_uid, |to, pod: Pod, now| {
                if api::pod::node_name(&pod).is_some() {
                    to.waiting.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                }
                to.engine.set_pod(&pod, now);
            }, |to, uid, now| {
                to.waiting.remove(uid);
                to.engine.remove_pod(uid, now);
            }),
            watch(client, volumes::claim_key, |to, claim: PersistentVolumeClaim, now| {
                to.engine.set_claim(&claim, now);
                to.waiting.claim_changed(&volumes::claim_key(&claim), &to.engine.volumes);
            }, |to, key, _| {
                to.engine.remove_claim(key);
                to.waiting.claim_changed(key, &to.engine.volumes);
            }),
            watch(client, name, |to, volume: PersistentVolume, now| to.engine.set_volume(&volume, now), |to, name, _| to.engine.remove_volume(name)),
            watch(client, name, |to, class: StorageClass, now| to.engine.set_class(&class, now), |to, name, _| to.engine.remove_class(name)),
            watch(client, name, |to, namespace: Namespace, now| {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                to.engine.set_namespace(&name(&namespace), labels, now);
            }, |to, name, _| to.engine.snapshot.remove_namespace(name)),
            watch(client, namespaced_name, |to, service: Service, _| to.engine.snapshot.services.set(&service), |to, key, _| {
                let (namespace, name) = key.split_once('/').unwrap_or_default();
                to.engine.snapshot.services.remove(namespace, name);
            }),
            watch(client, name, |to, limits: CSINode, now| to.engine.set_node_limits(&limits, now), |to, name, _| to.engine.remove_node_limits(name)),
            watch(client, name, |to, attachment: VolumeAttachment, _| to.engine.snapshot.storage.set_attachment(&attachment), |to, name, now| to.engine.remove_attachment(name, now)),
            watch(client, name, |to, driver: CSIDriver, now| to.engine.set_driver(&driver, now), |to, name, now| to.engine.remove_driver(name, now)),
            watch(client, volumes::capacity_key, |to, capacity: CSIStorageCapacity, now| to.engine.set_capacity(&capacity, now), |to, key, _| to.engine.volumes.remove_capacity(key)),
            watch(client, namespaced_name, |to, budget: PodDisruptionBudget, _| to.engine.budgets.set(&budget), |to, key, _| to.engine.budgets.remove(key)),
        ])
    }

    /// The next change.
    pub async fn next(&mut self) -> Observe {
        poll_fn(|context| {
            let mut polled = self.0.iter_mut().map(|informer| informer.poll_next_unpin(context));
            let ready = polled.find_map(|polled| match polled {
                Poll::Ready(change) => change,
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

fn watch<K: Kind>(
    client: &Client,
    key: fn(&K) -> String,
    set: fn(&mut Driver, K, Timestamp),
    remove: fn(&mut Driver, &str, Timestamp),
) -> BoxStream<'static, Observe> {
    let changes = changes(client.clone(), InformerOptions::default(), key);
    let observe = move |change: Change<K>| -> Observe {
        Box::new(move |driver| match (change, driver.clock.now()) {
            (Change::Set(object), now) => set(driver, object, now),
            (Change::Remove(key), now) => remove(driver, &key, now),
            (Change::Synced, _) => driver.synced(),
        })
    };
    changes.map(observe).boxed()
}

fn name<K: Kind>(object: &K) -> String {
    object.metadata().name.clone().unwrap_or_default()
}

fn namespaced_name<K: Kind>(object: &K) -> String {
    format!("{}/{}", object.metadata().namespace.as_deref().unwrap_or_default(), name(object))
}

fn pod_uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl Driver {
    fn synced(&mut self) {
        self.unsynced = self.unsynced.saturating_sub(1);
        if self.unsynced == 0 {
            self.health.set("synced", true);
        }
    }
}
