//! VolumeBinding: where a pod can run because of its claims.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::pod::{NodeTerm, PodInfo, node_term};

/// Annotation that tells the volume binder where the first consumer of a claim runs.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The parts of claims, volumes and classes that affect scheduling.
#[derive(Debug, Default)]
pub struct Volumes {
    /// By `namespace/name`.
    claims: HashMap<String, Claim>,
    /// Node affinity by volume name.
    volumes: HashMap<String, Vec<NodeTerm>>,
    /// Whether binding waits for a consumer, by class name.
    waits: HashMap<String, bool>,
}

#[derive(Clone, Debug, PartialEq)]
struct Claim {
    volume: Option<String>,
    class: String,
    deleting: bool,
}

/// What a pod requires of its node because of its volumes.
#[derive(Clone, Debug, Default)]
pub struct VolumeNeeds {
    /// For each bound volume with an affinity: one of the terms must match.
    pub node_terms: Vec<Vec<NodeTerm>>,
    /// Claims that are bound once the pod has a node.
    pub unbound: Vec<String>,
}

impl Volumes {
    /// Each setter returns whether anything that affects scheduling changed.
    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) -> bool {
        let bound =
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let spec = claim.spec.as_ref();
        let value = Claim {
            volume: spec.and_then(|spec| spec.volume_name.clone()).filter(|_| bound),
            class: spec.and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
        };
        self.claims.insert(claim_key(claim), value.clone()) != Some(value)
    }

    pub fn remove_claim(&mut self, key: &str) {
        self.claims.remove(key);
    }

    pub fn set_volume(&mut self, volume: &PersistentVolume) -> bool {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let required = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.node_affinity.as_ref())
            .and_then(|affinity| affinity.required.as_ref());
        let terms: Vec<NodeTerm> = required
            .map(|selector| selector.node_selector_terms.iter().map(node_term).collect())
            .unwrap_or_default();
        self.volumes.insert(name, terms.clone()) != Some(terms)
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub fn set_class(&mut self, class: &StorageClass) -> bool {
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        self.waits.insert(class.metadata.name.clone().unwrap_or_default(), waits) != Some(waits)
    }

    pub fn remove_class(&mut self, name: &str) {
        self.waits.remove(name);
    }

    /// What the pod's claims require.
    ///
    /// # Errors
    /// Why the pod is unschedulable, as upstream words it.
    pub fn needs(&self, pod: &PodInfo) -> Result<VolumeNeeds, String> {
        let mut needs = VolumeNeeds::default();
        for name in &pod.claims {
            let Some(claim) = self.claims.get(&format!("{}/{name}", pod.namespace)) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if claim.deleting {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            match &claim.volume {
                Some(volume) => match self.volumes.get(volume) {
                    None => return Err(format!("persistentvolume {volume:?} not found")),
                    Some(terms) if terms.is_empty() => {}
                    Some(terms) => needs.node_terms.push(terms.clone()),
                },
                None if self.waits.get(&claim.class).copied().unwrap_or(false) => {
                    needs.unbound.push(name.clone())
                }
                None => return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            }
        }
        Ok(needs)
    }
}

/// `namespace/name`.
pub fn claim_key(claim: &PersistentVolumeClaim) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&claim.metadata.namespace), part(&claim.metadata.name))
}
