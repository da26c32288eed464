//! The informers, and what of theirs goes to which part of the engine.

use std::pin::Pin;

use api::Kind;
use client::{Change, Client, InformerOptions, changes};
use futures::{Stream, StreamExt};
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

type Changes<K> = Pin<Box<dyn Stream<Item = Change<K>> + Send>>;

/// A change of one of the kinds.
pub enum Observed {
    Node(Change<Node>),
    Pod(Change<Pod>),
    Claim(Change<PersistentVolumeClaim>),
    Volume(Change<PersistentVolume>),
    Class(Change<StorageClass>),
    Namespace(Change<Namespace>),
    Service(Change<Service>),
    NodeLimits(Change<CSINode>),
    Attachment(Change<VolumeAttachment>),
    StorageDriver(Change<CSIDriver>),
    Capacity(Change<CSIStorageCapacity>),
    Budget(Change<PodDisruptionBudget>),
}

/// All informers.
pub struct Informers {
    nodes: Changes<Node>,
    pods: Changes<Pod>,
    claims: Changes<PersistentVolumeClaim>,
    volumes: Changes<PersistentVolume>,
    classes: Changes<StorageClass>,
    namespaces: Changes<Namespace>,
    services: Changes<Service>,
    node_limits: Changes<CSINode>,
    attachments: Changes<VolumeAttachment>,
    drivers: Changes<CSIDriver>,
    capacities: Changes<CSIStorageCapacity>,
    budgets: Changes<PodDisruptionBudget>,
}

impl Informers {
    pub fn new(client: &Client) -> Self {
        Self {
            nodes: watch(client, name),
            pods: watch(client, |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default()),
            claims: watch(client, volumes::claim_key),
            volumes: watch(client, name),
            classes: watch(client, name),
            namespaces: watch(client, name),
            services: watch(client, namespaced_name),
            node_limits: watch(client, name),
            attachments: watch(client, name),
            drivers: watch(client, name),
            capacities: watch(client, volumes::capacity_key),
            budgets: watch(client, namespaced_name),
        }
    }

    /// The next change. Nodes come first: what is known of them decides about everything else.
    pub async fn next(&mut self) -> Observed {
        tokio::select! {
            biased;
            Some(change) = self.nodes.next() => Observed::Node(change),
            Some(change) = self.pods.next() => Observed::Pod(change),
            Some(change) = self.claims.next() => Observed::Claim(change),
            Some(change) = self.volumes.next() => Observed::Volume(change),
            Some(change) = self.classes.next() => Observed::Class(change),
            Some(change) = self.namespaces.next() => Observed::Namespace(change),
            Some(change) = self.services.next() => Observed::Service(change),
            Some(change) = self.node_limits.next() => Observed::NodeLimits(change),
            Some(change) = self.attachments.next() => Observed::Attachment(change),
            Some(change) = self.drivers.next() => Observed::StorageDriver(change),
            Some(change) = self.capacities.next() => Observed::Capacity(change),
            Some(change) = self.budgets.next() => Observed::Budget(change),
            else => std::future::pending().await,
        }
    }
}

fn watch<K: Kind>(client: &Client, key: fn(&K) -> String) -> Changes<K> {
    Box::pin(changes(client.clone(), InformerOptions::default(), key))
}

fn name<K: Kind>(object: &K) -> String {
    object.metadata().name.clone().unwrap_or_default()
}

fn namespaced_name<K: Kind>(object: &K) -> String {
    format!("{}/{}", object.metadata().namespace.as_deref().unwrap_or_default(), name(object))
}

impl Driver {
    pub(super) fn observe(&mut self, observed: Observed) {
        let now = self.clock.now();
        let (engine, waiting) = (&mut self.engine, &mut self.waiting);
        match observed {
            Observed::Pod(Change::Set(pod)) => {
                if api::pod::node_name(&pod).is_some() {
                    waiting.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                }
                engine.set_pod(&pod, now);
            }
            Observed::Pod(Change::Remove(uid)) => {
                waiting.remove(&uid);
                engine.remove_pod(&uid, now);
            }
            Observed::Node(Change::Set(node)) => engine.set_node(&node, now),
            Observed::Node(Change::Remove(name)) => {
                waiting.node_removed(&name);
                engine.remove_node(&name, now);
            }
            Observed::Claim(Change::Set(claim)) => {
                engine.set_claim(&claim, now);
                waiting.claim_changed(&volumes::claim_key(&claim), &engine.volumes);
            }
            Observed::Claim(Change::Remove(key)) => {
                engine.remove_claim(&key);
                waiting.claim_changed(&key, &engine.volumes);
            }
            Observed::Volume(Change::Set(volume)) => engine.set_volume(&volume, now),
            Observed::Volume(Change::Remove(name)) => engine.remove_volume(&name),
            Observed::Class(Change::Set(class)) => engine.set_class(&class, now),
            Observed::Class(Change::Remove(name)) => engine.remove_class(&name),
            Observed::Namespace(Change::Set(namespace)) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                engine.set_namespace(&name(&namespace), labels, now);
            }
            Observed::Namespace(Change::Remove(name)) => engine.snapshot.remove_namespace(&name),
            Observed::Service(Change::Set(service)) => engine.snapshot.services.set(&service),
            Observed::Service(Change::Remove(key)) => {
                let (namespace, name) = key.split_once('/').unwrap_or_default();
                engine.snapshot.services.remove(namespace, name);
            }
            Observed::NodeLimits(Change::Set(node)) => engine.set_node_limits(&node, now),
            Observed::NodeLimits(Change::Remove(name)) => engine.remove_node_limits(&name),
            Observed::Attachment(Change::Set(one)) => engine.snapshot.storage.set_attachment(&one),
            Observed::Attachment(Change::Remove(name)) => engine.remove_attachment(&name, now),
            Observed::StorageDriver(Change::Set(driver)) => engine.set_driver(&driver, now),
            Observed::StorageDriver(Change::Remove(name)) => engine.remove_driver(&name, now),
            Observed::Capacity(Change::Set(capacity)) => engine.set_capacity(&capacity, now),
            Observed::Capacity(Change::Remove(key)) => engine.volumes.remove_capacity(&key),
            Observed::Budget(Change::Set(budget)) => engine.budgets.set(&budget),
            Observed::Budget(Change::Remove(key)) => engine.budgets.remove(&key),
            Observed::Pod(Change::Synced)
            | Observed::Node(Change::Synced)
            | Observed::Claim(Change::Synced)
            | Observed::Volume(Change::Synced)
            | Observed::Class(Change::Synced)
            | Observed::Namespace(Change::Synced)
            | Observed::Service(Change::Synced)
            | Observed::NodeLimits(Change::Synced)
            | Observed::Attachment(Change::Synced)
            | Observed::StorageDriver(Change::Synced)
            | Observed::Capacity(Change::Synced)
            | Observed::Budget(Change::Synced) => self.synced(),
        }
    }

    fn synced(&mut self) {
        self.unsynced = self.unsynced.saturating_sub(1);
        if self.unsynced == 0 {
            self.health.set("synced", true);
        }
    }
}
