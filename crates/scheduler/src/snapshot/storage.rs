//! What VolumeRestrictions and VolumeZone need to know about claims and volumes. Where unbound claims can be bound is decided in [`crate::volumes`].

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

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
    /// `ReadWriteOncePod`.
    exclusive: bool,
}

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
    /// The zones and regions of a volume, by its name.
    volumes: HashMap<String, Vec<Zone>>,
}

/// What a pod's claims mean for these plugins.
#[derive(Clone, Debug, Default)]
pub struct StorageNeeds {
    /// Claims that no other pod may use at the same time, by `namespace/name`.
    pub exclusive: Vec<String>,
    pub zones: Vec<Zone>,
}

impl Storage {
    /// Each setter returns whether anything that affects scheduling changed.
    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) -> bool {
        let spec = claim.spec.as_ref();
        let modes = spec.and_then(|spec| spec.access_modes.as_ref()).into_iter().flatten();
        let read = Claim {
            volume: spec.and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty()),
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
        let read: Vec<Zone> = TOPOLOGY_LABELS.into_iter().filter_map(zone).collect();
        let name = volume.metadata.name.clone().unwrap_or_default();
        let changed = self.volumes.get(&name) != Some(&read);
        self.volumes.insert(name, read);
        changed
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub fn needs(&self, pod: &PodInfo) -> StorageNeeds {
        let mut needs = StorageNeeds::default();
        for name in &pod.claims {
            let key = format!("{}/{name}", pod.namespace);
            let Some(claim) = self.claims.get(&key) else {
                continue;
            };
            if let Some(zones) = claim.volume.as_ref().and_then(|name| self.volumes.get(name)) {
                needs.zones.extend(zones.iter().cloned());
            }
            if claim.exclusive {
                needs.exclusive.push(key);
            }
        }
        needs
    }
}
