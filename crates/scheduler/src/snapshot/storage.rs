//! What VolumeRestrictions, VolumeZone and NodeVolumeLimits need to know about claims and volumes.
//! Where unbound claims can be bound is decided in [`crate::volumes`].

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};

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
    /// The driver and the handle of a CSI volume.
    csi: Option<Attached>,
}

/// A volume as its CSI driver counts it: the driver, and what identifies the volume.
pub type Attached = (String, String);

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
    /// How many volumes of a driver a node can have, by node.
    limits: HashMap<String, HashMap<String, i64>>,
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
            class: spec.and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default(),
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
        let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        let read = Volume {
            zones: TOPOLOGY_LABELS.into_iter().filter_map(zone).collect(),
            csi: csi.map(|csi| (csi.driver.clone(), csi.volume_handle.clone())),
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

    pub fn set_limits(&mut self, node: &CSINode) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let limited = node.spec.drivers.iter().filter_map(|driver| {
            let count = driver.allocatable.as_ref()?.count?;
            Some((driver.name.clone(), i64::from(count)))
        });
        let limits: HashMap<String, i64> = limited.collect();
        let changed = self.limits.get(&name) != Some(&limits);
        self.limits.insert(name, limits);
        changed
    }

    pub fn remove_limits(&mut self, node: &str) -> bool {
        self.limits.remove(node).is_some()
    }

    /// How many volumes of the driver the node can have; `None`: any number.
    pub fn limit(&self, node: &str, driver: &str) -> Option<i64> {
        self.limits.get(node)?.get(driver).copied()
    }

    pub fn has_limits(&self) -> bool {
        self.limits.values().any(|limits| !limits.is_empty())
    }

    /// The CSI volume of a claim (`namespace/name`). One that is not bound yet will be made by the
    /// driver of its class.
    pub fn attached(&self, key: &str) -> Option<Attached> {
        let claim = self.claims.get(key)?;
        match &claim.volume {
            Some(name) => self.volumes.get(name)?.csi.clone(),
            None => Some((self.classes.get(&claim.class)?.clone(), format!("unbound {key}"))),
        }
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
        needs
    }
}
