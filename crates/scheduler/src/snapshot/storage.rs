//! What VolumeRestrictions, VolumeZone and NodeVolumeLimits need to know about claims and volumes.
//! Where unbound claims can be bound is decided in [`crate::volumes`].

use std::collections::{HashMap, HashSet};

use api::storage_class;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};

use super::attached::{self, Attached};

use crate::pod::PodInfo;
use crate::volumes::claim_key;

/// Labels that confine a volume to a zone or region, and what nodes may call them instead.
pub const TOPOLOGY_LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

#[derive(Debug, PartialEq)]
struct Claim {
    volume: Option<String>,
    class: String,
    /// `ReadWriteOncePod`.
    exclusive: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Volume {
    zones: Vec<Zone>,
    /// As its driver counts it.
    attached: Option<Attached>,
    /// Whether it says so itself, and is not of a type that a driver has replaced.
    csi: bool,
}

/// What a node's CSINode says.
#[derive(Debug, Default, PartialEq)]
struct Drivers {
    /// How many volumes of a driver the node can have.
    limits: HashMap<String, i64>,
    /// Types of volumes that the node has handed to their drivers.
    migrated: HashSet<String>,
}

/// In CSINodes: the types of volumes that are the business of CSI drivers.
const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";

/// A node label, and the values of it that a volume allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub label: &'static str,
    /// Used for nodes without `label`.
    pub or_label: &'static str,
    pub values: Vec<String>,
}

/// Claims and volumes.
#[derive(Debug, Default)]
pub struct Storage {
    /// By `namespace/name`.
    claims: HashMap<String, Claim>,
    volumes: HashMap<String, Volume>,
    /// The provisioners of classes.
    classes: HashMap<String, String>,
    /// By node.
    drivers: HashMap<String, Drivers>,
    /// Attachments by node and name: the attacher, and the volume's name.
    attachments: HashMap<String, HashMap<String, (String, String)>>,
    /// The nodes of attachments.
    attached_to: HashMap<String, String>,
}

/// What a pod's claims mean for these plugins.
#[derive(Clone, Debug, Default)]
pub struct StorageNeeds {
    /// Claims that no other pod may use at the same time, by `namespace/name`.
    pub exclusive: Vec<String>,
    pub zones: Vec<Zone>,
    /// Volumes of CSI drivers.
    pub attached: Vec<Attached>,
}

impl Storage {
    /// Each setter returns whether anything that affects scheduling changed.
    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) -> bool {
        let spec = claim.spec.as_ref();
        let modes = spec.and_then(|spec| spec.access_modes.as_ref()).into_iter().flatten();
        let read = Claim {
            volume: spec.and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty()),
            class: storage_class::of_claim(claim).to_owned(),
            exclusive: modes.into_iter().any(|mode| mode == "ReadWriteOncePod"),
        };
        let key = claim_key(claim);
        let changed = self.claims.get(&key) != Some(&read);
        self.claims.insert(key, read);
        changed
    }

    pub fn remove_claim(&mut self, key: &str) {
        self.claims.remove(key);
    }

    pub fn set_volume(&mut self, volume: &PersistentVolume) -> bool {
        let labels = volume.metadata.labels.as_ref();
        let zone = |(label, or_label): (&'static str, &'static str)| {
            let values = labels?.get(label)?.split("__").map(str::to_owned).collect();
            Some(Zone { label, or_label, values })
        };
        let read = Volume {
            zones: TOPOLOGY_LABELS.into_iter().filter_map(zone).collect(),
            attached: attached::of_volume(volume),
            csi: volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()),
        };
        let name = volume.metadata.name.clone().unwrap_or_default();
        let changed = self.volumes.get(&name) != Some(&read);
        self.volumes.insert(name, read);
        changed
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub fn set_class(&mut self, class: &StorageClass) {
        let name = class.metadata.name.clone().unwrap_or_default();
        self.classes.insert(name, class.provisioner.clone());
    }

    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// Whether the node is new, or can have more volumes of some driver. A driver without a limit
    /// counts as one that can have none, as upstream compares them.
    pub fn set_limits(&mut self, node: &CSINode) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let limited = node.spec.drivers.iter().filter_map(|driver| {
            let count = driver.allocatable.as_ref()?.count?;
            Some((driver.name.clone(), i64::from(count)))
        });
        let annotations = node.metadata.annotations.as_ref();
        let migrated = annotations.and_then(|annotations| annotations.get(MIGRATED_PLUGINS));
        let read = Drivers {
            limits: limited.collect(),
            migrated: migrated
                .into_iter()
                .flat_map(|list| list.split(','))
                .map(str::to_owned)
                .collect(),
        };
        let before = self.drivers.get(&name);
        let helps = before.is_none_or(|before| {
            let more = |(driver, count): (&String, &i64)| {
                *count > before.limits.get(driver).copied().unwrap_or(0)
            };
            read.limits.iter().any(more)
        });
        self.drivers.insert(name, read);
        helps
    }

    pub fn remove_limits(&mut self, node: &str) {
        self.drivers.remove(node);
    }

    /// How many volumes of the driver the node can have; `None`: any number.
    pub fn limit(&self, node: &str, driver: &str) -> Option<i64> {
        self.drivers.get(node)?.limits.get(driver).copied()
    }

    pub fn has_limits(&self) -> bool {
        self.drivers.values().any(|drivers| !drivers.limits.is_empty())
    }

    /// Whether the node's driver counts the volume, which may be of a type that it has replaced.
    pub fn counts(&self, node: &str, volume: &Attached) -> bool {
        let announced = |plugin: &str| {
            self.drivers.get(node).is_some_and(|drivers| drivers.migrated.contains(plugin))
        };
        volume.migrated.is_none_or(announced)
    }

    pub fn set_attachment(&mut self, attachment: &VolumeAttachment) {
        let name = attachment.metadata.name.clone().unwrap_or_default();
        self.remove_attachment(&name);
        let spec = &attachment.spec;
        let Some(volume) = spec.source.persistent_volume_name.clone() else {
            return;
        };
        let of_node = self.attachments.entry(spec.node_name.clone()).or_default();
        of_node.insert(name.clone(), (spec.attacher.clone(), volume));
        self.attached_to.insert(name, spec.node_name.clone());
    }

    /// Returns the attacher of one that was there.
    pub fn remove_attachment(&mut self, name: &str) -> Option<String> {
        let node = self.attached_to.remove(name)?;
        let of_node = self.attachments.get_mut(&node)?;
        let removed = of_node.remove(name);
        if of_node.is_empty() {
            self.attachments.remove(&node);
        }
        removed.map(|(attacher, _)| attacher)
    }

    /// The volumes that are attached to a node, whoever uses them: driver and handle.
    pub fn attached_to(&self, node: &str) -> HashSet<(&str, &str)> {
        let there = self.attachments.get(node).into_iter().flat_map(HashMap::values);
        let volumes = there.filter_map(|(attacher, name)| {
            let volume = self.volumes.get(name).filter(|volume| volume.csi)?;
            Some((attacher.as_str(), volume.attached.as_ref()?.handle.as_str()))
        });
        volumes.collect()
    }

    /// The volume of a claim (`namespace/name`), if a driver counts it. One that is not bound yet,
    /// or is bound to a volume that is not there, will be made by the driver of its class.
    pub fn attached(&self, key: &str) -> Option<Attached> {
        let claim = self.claims.get(key)?;
        if let Some(volume) = claim.volume.as_ref().and_then(|name| self.volumes.get(name)) {
            return volume.attached.clone();
        }
        let provisioner = self.classes.get(&claim.class)?;
        Some(attached::to_be_made(provisioner, format!("unbound {key}")))
    }

    pub fn needs(&self, pod: &PodInfo) -> StorageNeeds {
        let mut needs = StorageNeeds::default();
        for name in &pod.claims {
            let key = format!("{}/{name}", pod.namespace);
            let Some(claim) = self.claims.get(&key) else {
                continue;
            };
            if let Some(volume) = claim.volume.as_ref().and_then(|name| self.volumes.get(name)) {
                needs.zones.extend(volume.zones.iter().cloned());
            }
            needs.attached.extend(self.attached(&key));
            if claim.exclusive {
                needs.exclusive.push(key);
            }
        }
        needs.attached.extend(pod.inline.iter().cloned());
        needs
    }
}
