//! VolumeBinding and VolumeRestrictions: where a pod can run because of its claims.

pub mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet};

use api::labels::{Requirement, Selector};
use api::quantity::Quantity;
use api::{local_path, storage_class};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use roaring::RoaringBitmap;

use crate::pod::{NodeTerm, PodInfo, node_term};
use crate::snapshot::Snapshot;

/// Annotation that tells the volume binder where the first consumer of a claim runs.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The parts of claims, volumes and classes that affect scheduling.
#[derive(Debug, Default)]
pub struct Volumes {
    /// By `namespace/name`, with their revisions.
    claims: HashMap<String, (Claim, u64)>,
    volumes: HashMap<String, Volume>,
    classes: HashMap<String, Class>,
    /// Drivers that say how much room they have.
    tracked: HashSet<String>,
    /// What they say, by `namespace/name`.
    capacities: HashMap<String, Capacity>,
}

/// The room for volumes of a class on some nodes.
#[derive(Clone, Debug, PartialEq)]
struct Capacity {
    class: String,
    /// `None`: nobody has access to it.
    nodes: Option<Selector>,
    /// The largest volume that can be made, if it is known.
    most: Option<Quantity>,
}

#[derive(Clone, Debug, PartialEq)]
struct Claim {
    /// Once it is bound.
    volume: Option<String>,
    /// Bound, or to be bound, to one volume.
    is_named: bool,
    class: String,
    deleting: bool,
    selected_node: Option<String>,
    uid: String,
    modes: Vec<String>,
    block: bool,
    size: Quantity,
    selector: Option<Selector>,
}

#[derive(Clone, Debug, PartialEq)]
struct Volume {
    terms: Vec<NodeTerm>,
    class: String,
    modes: Vec<String>,
    block: bool,
    size: Quantity,
    labels: Option<BTreeMap<String, String>>,
    /// The key and the uid, if known, of the claim that it is bound to or reserved for.
    claim: Option<(String, String)>,
    deleting: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Class {
    /// Binding waits for a consumer.
    waits: bool,
    provisions: bool,
    provisioner: String,
    /// Its volumes are on the disk of their node.
    local: bool,
    topologies: Vec<NodeTerm>,
}

/// What a pod requires of its node because of its volumes.
#[derive(Clone, Debug, Default)]
pub struct VolumeNeeds {
    /// For each bound volume with an affinity: one of the terms must match.
    pub node_terms: Vec<Vec<NodeTerm>>,
    /// Claims that are bound once the pod has a node.
    pub unbound: Vec<String>,
    /// Where each of these can be bound.
    pub unbound_nodes: Vec<UnboundNodes>,
}

/// Where a claim that waits for its first consumer can be bound.
#[derive(Clone, Debug, Default)]
pub struct UnboundNodes {
    /// It has been promised to this node, which has not been able to bind it yet.
    selected: Option<String>,
    /// The node affinities of the existing volumes that suit it; empty: any node.
    volumes: Vec<Vec<NodeTerm>>,
    /// A volume can be made.
    provision: Option<Provision>,
}

#[derive(Clone, Debug)]
struct Provision {
    /// Empty: any node.
    topologies: Vec<NodeTerm>,
    /// What the node's own disk must have at least.
    disk_bytes: i64,
    /// The nodes for which the driver has room; `None`: it does not say.
    room: Option<Vec<NodeTerm>>,
}

impl UnboundNodes {
    /// The nodes where a suitable volume exists or can be made, and of all nodes those whose disk
    /// could hold one that is made.
    pub fn filter(&self, snapshot: &Snapshot) -> (RoaringBitmap, RoaringBitmap) {
        let terms = |terms: &[NodeTerm]| match terms.is_empty() {
            true => snapshot.nodes().clone(),
            false => terms
                .iter()
                .fold(RoaringBitmap::new(), |all, term| all | snapshot.matching_term(term)),
        };
        if let Some(node) = &self.selected {
            let named = Requirement::In("metadata.name".to_owned(), vec![node.clone()]);
            let only = NodeTerm { labels: Vec::new(), names: vec![named] };
            return (snapshot.matching_term(&only), snapshot.nodes().clone());
        }
        let existing =
            self.volumes.iter().fold(RoaringBitmap::new(), |all, volume| all | terms(volume));
        let Some(provision) = &self.provision else {
            return (existing, snapshot.nodes().clone());
        };
        let large = match (&provision.room, snapshot.resource("ephemeral-storage")) {
            // No label is required: every node.
            (Some(room), _) if room.iter().any(|term| term.labels.is_empty()) => {
                snapshot.nodes().clone()
            }
            (Some(room), _) => snapshot.matching_any(room),
            (None, None) => snapshot.nodes().clone(),
            (None, Some(disk)) => {
                let fits = |node: &u32| {
                    let size = disk.allocatable[*node as usize];
                    // A node that does not report its size is tried.
                    size == 0 || size >= provision.disk_bytes
                };
                snapshot.nodes().iter().filter(fits).collect()
            }
        };
        (&existing | terms(&provision.topologies), large | existing)
    }
}

/// What has become of a claim that a node was selected for.
#[derive(Debug, PartialEq, Eq)]
pub enum Binding {
    Pending,
    Bound,
    /// Why it will not be bound on that node.
    Failed(String),
}

impl Volumes {
    /// Each setter returns whether anything that affects scheduling changed.
    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) -> bool {
        let bound =
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let spec = claim.spec.clone().unwrap_or_default();
        let named = spec.volume_name.filter(|name| !name.is_empty());
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        let annotations = claim.metadata.annotations.as_ref();
        let modes = spec.access_modes.unwrap_or_default();
        let value = Claim {
            is_named: named.is_some(),
            volume: named.filter(|_| bound),
            class: storage_class::of_claim(claim).to_owned(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            selected_node: annotations.and_then(|all| all.get(SELECTED_NODE)).cloned(),
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            modes,
            block: spec.volume_mode.as_deref() == Some("Block"),
            size: requests.get("storage").map(Quantity::of).unwrap_or_default(),
            selector: spec.selector.as_ref().map(|selector| {
                Selector::from_label_selector(Some(selector))
                    .unwrap_or_else(|_| Selector::nothing())
            }),
        };
        let entry = (value, revision(claim));
        let before = self.claims.insert(claim_key(claim), entry.clone());
        before.map(|(value, _)| value) != Some(entry.0)
    }

    pub fn remove_claim(&mut self, key: &str) {
        self.claims.remove(key);
    }

    pub fn set_volume(&mut self, volume: &PersistentVolume) -> bool {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let spec = volume.spec.clone().unwrap_or_default();
        let required = spec.node_affinity.and_then(|affinity| affinity.required);
        let terms = required.map(|selector| selector.node_selector_terms).unwrap_or_default();
        let capacity = spec.capacity.unwrap_or_default();
        let value = Volume {
            terms: terms.iter().map(node_term).collect(),
            class: storage_class::of_volume(volume).to_owned(),
            modes: spec.access_modes.unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            size: capacity.get("storage").map(Quantity::of).unwrap_or_default(),
            labels: volume.metadata.labels.clone(),
            claim: spec.claim_ref.map(|claim| {
                let text = |part: Option<String>| part.unwrap_or_default();
                let key = format!("{}/{}", text(claim.namespace), text(claim.name));
                (key, text(claim.uid))
            }),
            deleting: volume.metadata.deletion_timestamp.is_some(),
        };
        self.volumes.insert(name, value.clone()) != Some(value)
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub fn set_class(&mut self, class: &StorageClass) -> bool {
        let value = Class {
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisions: class.provisioner != NO_PROVISIONER,
            provisioner: class.provisioner.clone(),
            local: class.provisioner == local_path::PROVISIONER,
            topologies: class.allowed_topologies.iter().flatten().map(topology).collect(),
        };
        self.classes.insert(class.metadata.name.clone().unwrap_or_default(), value.clone())
            != Some(value)
    }

    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    pub fn set_driver(&mut self, driver: &CSIDriver) -> bool {
        let name = driver.metadata.name.clone().unwrap_or_default();
        match driver.spec.storage_capacity {
            Some(true) => self.tracked.insert(name),
            _ => self.tracked.remove(&name),
        }
    }

    pub fn remove_driver(&mut self, name: &str) -> bool {
        self.tracked.remove(name)
    }

    pub fn set_capacity(&mut self, capacity: &CSIStorageCapacity) -> bool {
        let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        let nodes = capacity.node_topology.as_ref();
        let nodes = nodes.map(|nodes| Selector::from_label_selector(Some(nodes)));
        let value = Capacity {
            class: capacity.storage_class_name.clone(),
            nodes: nodes.and_then(Result::ok),
            most: most.map(Quantity::of),
        };
        self.capacities.insert(capacity_key(capacity), value.clone()) != Some(value)
    }

    pub fn remove_capacity(&mut self, key: &str) {
        self.capacities.remove(key);
    }

    /// The classes of a driver.
    pub fn classes_of(&self, driver: &str) -> Vec<String> {
        let classes = self.classes.iter().filter(|(_, class)| class.provisioner == driver);
        classes.map(|(name, _)| name.clone()).collect()
    }

    /// The nodes for which a driver has room for a volume (upstream's `hasEnoughCapacity`).
    fn room(&self, claim: &Claim, class: &Class) -> Option<Vec<NodeTerm>> {
        if !self.tracked.contains(&class.provisioner) {
            return None;
        }
        let fits = |capacity: &&Capacity| {
            capacity.class == claim.class && capacity.most.is_some_and(|most| most >= claim.size)
        };
        let nodes = self.capacities.values().filter(fits).filter_map(|one| one.nodes.as_ref());
        let term = |nodes: &Selector| NodeTerm {
            labels: nodes.requirements().to_vec(),
            names: Vec::new(),
        };
        Some(nodes.map(term).collect())
    }

    /// What the pod's claims require.
    ///
    /// # Errors
    /// Why the pod is unschedulable, as upstream words it.
    pub fn needs(&self, pod: &PodInfo) -> Result<VolumeNeeds, String> {
        let mut needs = VolumeNeeds::default();
        for name in &pod.claims {
            let key = format!("{}/{name}", pod.namespace);
            let Some((claim, _)) = self.claims.get(&key) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if claim.deleting {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let class = self.classes.get(&claim.class).cloned().unwrap_or_default();
            match &claim.volume {
                Some(volume) => match self.volumes.get(volume) {
                    None => return Err(format!("persistentvolume {volume:?} not found")),
                    Some(volume) if volume.terms.is_empty() => {}
                    Some(volume) => needs.node_terms.push(volume.terms.clone()),
                },
                None if class.waits && !claim.is_named => {
                    needs.unbound.push(name.clone());
                    needs.unbound_nodes.push(self.unbound_nodes(&key, claim, class));
                }
                None => return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            }
        }
        Ok(needs)
    }

    fn unbound_nodes(&self, key: &str, claim: &Claim, class: Class) -> UnboundNodes {
        let suitable = self.volumes.values().filter(|volume| volume.suits(key, claim));
        let disk_bytes = if class.local { claim.size.units() } else { 0 };
        let room = self.room(claim, &class);
        UnboundNodes {
            selected: claim.selected_node.clone(),
            volumes: suitable.map(|volume| volume.terms.clone()).collect(),
            provision: class.provisions.then_some(Provision {
                topologies: class.topologies,
                disk_bytes,
                room,
            }),
        }
    }

    /// Whether the volume is one of the pod's, or one of its claims could be bound to it.
    pub fn may_use(&self, pod: &PodInfo, volume: &str) -> bool {
        let changed = self.volumes.get(volume);
        self.claims_of(pod).any(|(key, claim)| match &claim.volume {
            Some(bound) => bound == volume,
            None => changed.is_some_and(|volume| volume.suits(&key, claim)),
        })
    }

    /// Whether the pod has a claim of the class that is not bound.
    pub fn waits_for_class(&self, pod: &PodInfo, class: &str) -> bool {
        self.claims_of(pod).any(|(_, claim)| claim.volume.is_none() && claim.class == class)
    }

    fn claims_of(&self, pod: &PodInfo) -> impl Iterator<Item = (String, &Claim)> {
        let keys = pod.claims.iter().map(|name| format!("{}/{name}", pod.namespace));
        keys.filter_map(|key| self.claims.get(&key).map(|(claim, _)| (key, claim)))
    }

    /// What has become of the claim since `node` was selected for it, at this revision.
    pub fn binding(&self, key: &str, node: &str, since: u64) -> Binding {
        let name = key.split('/').next_back().unwrap_or_default();
        let Some((claim, revision)) = self.claims.get(key) else {
            return Binding::Failed(format!("persistentvolumeclaim {name:?} not found"));
        };
        if claim.volume.is_some() {
            Binding::Bound
        } else if *revision < since {
            Binding::Pending
        } else if claim.deleting {
            Binding::Failed(format!("persistentvolumeclaim {name:?} is being deleted"))
        } else if claim.selected_node.as_deref() != Some(node) && !claim.is_named {
            Binding::Failed(format!("selectedNode annotation reset for PVC {name:?}"))
        } else {
            Binding::Pending
        }
    }
}

impl Volume {
    /// Whether the claim can be bound to it, wherever it is.
    fn suits(&self, key: &str, claim: &Claim) -> bool {
        let free = self
            .claim
            .as_ref()
            .is_none_or(|(reserved, uid)| reserved == key && (uid.is_empty() || *uid == claim.uid));
        free && !self.deleting
            && self.class == claim.class
            && self.block == claim.block
            && self.size >= claim.size
            && claim.modes.iter().all(|mode| self.modes.contains(mode))
            && claim.selector.as_ref().is_none_or(|all| all.matches(self.labels.as_ref()))
    }
}

fn topology(term: &TopologySelectorTerm) -> NodeTerm {
    let labels = term.match_label_expressions.iter().flatten();
    let labels = labels.map(|one| Requirement::In(one.key.clone(), one.values.clone()));
    NodeTerm { labels: labels.collect(), names: Vec::new() }
}

/// A claim's revision; 0 when it has none.
pub fn revision(claim: &PersistentVolumeClaim) -> u64 {
    let text = claim.metadata.resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `namespace/name`.
pub fn capacity_key(capacity: &CSIStorageCapacity) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&capacity.metadata.namespace), text(&capacity.metadata.name))
}

/// `namespace/name`.
pub fn claim_key(claim: &PersistentVolumeClaim) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&claim.metadata.namespace), part(&claim.metadata.name))
}

#[cfg(test)]
mod tests;
