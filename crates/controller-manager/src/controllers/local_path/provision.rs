//! The volume for a claim: pure functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::local_path::{
    BACKING, Backing, FILE_SYSTEM, FINALIZER, NODE_LABEL, PROVISIONED_BY, PROVISIONER,
};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Affinity, CSIPersistentVolumeSource, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, PodSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controllers::persistent_volume::{SELECTED_NODE, STORAGE_PROVISIONER};
use crate::machinery::hash;
use crate::machinery::node_match::affinity_allows;
use crate::machinery::owner::uid;

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Parameters of CSI's own side, which mean nothing here.
const FS_TYPES: [&str; 2] = ["csi.storage.k8s.io/fstype", "fsType"];
/// An image has the size of whole blocks of its file system.
const BLOCK_BYTES: i64 = 4096;
/// The smallest file system that is worth the name.
const IMAGE_MIN_BYTES: i64 = 1 << 20;
/// A label's value has no more characters.
const LABEL_MAX: usize = 63;

pub struct Observed<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub class: Option<&'a StorageClass>,
    pub nodes: &'a [Arc<Node>],
}

#[derive(Debug, PartialEq)]
pub enum ProvisionPlan {
    /// There is a volume, it is not this provisioner's claim, or no node has been chosen yet.
    Nothing,
    Create(Box<PersistentVolume>),
    /// No node could ever have the volume.
    Fail(String),
    /// The chosen node cannot have it; another one may.
    Reschedule(String),
}

pub fn plan_provision(observed: &Observed<'_>) -> ProvisionPlan {
    let claim = observed.claim;
    let annotation = |key: &str| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.and_then(|annotations| annotations.get(key)).map(String::as_str)
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let asked = annotation(STORAGE_PROVISIONER) == Some(PROVISIONER);
    let named = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
    let Some(class) = observed.class.filter(|class| class.provisioner == PROVISIONER) else {
        return ProvisionPlan::Nothing;
    };
    if !asked || named {
        return ProvisionPlan::Nothing;
    }
    let settings = match Settings::read(claim, class) {
        Ok(settings) => settings,
        Err(why) => return ProvisionPlan::Fail(why),
    };
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let node = match annotation(SELECTED_NODE) {
        Some(name) => {
            let found =
                observed.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name));
            match found {
                None => return ProvisionPlan::Reschedule(format!("node {name:?} not found")),
                Some(node) => match unsuitable(node, class, settings.bytes) {
                    Some(why) => return ProvisionPlan::Reschedule(why),
                    None => node,
                },
            }
        }
        None if waits => return ProvisionPlan::Nothing,
        None => match any_node(observed, class, settings.bytes) {
            Some(node) => node,
            None => return ProvisionPlan::Fail("no node can have the volume".to_owned()),
        },
    };
    ProvisionPlan::Create(Box::new(volume(claim, class, node, &settings)))
}

/// What the volume will be.
struct Settings {
    bytes: i64,
    backing: Backing,
    block: bool,
}

impl Settings {
    fn read(claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<Self, String> {
        let spec = claim.spec.clone().unwrap_or_default();
        for mode in spec.access_modes.iter().flatten() {
            if !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod") {
                return Err(format!(
                    "a volume of one node cannot be {mode}, only ReadWriteOnce or ReadWriteOncePod"
                ));
            }
        }
        if spec.selector.is_some() {
            return Err("claim.Spec.Selector is not supported".to_owned());
        }
        if spec.data_source.is_some() || spec.data_source_ref.is_some() {
            return Err("a volume cannot be filled from a data source".to_owned());
        }
        let block = spec.volume_mode.as_deref() == Some("Block");
        let mut backing = if block { Backing::Image } else { Backing::default() };
        for (key, value) in class.parameters.iter().flatten() {
            if key == BACKING {
                let parsed = Backing::parse(value)
                    .ok_or_else(|| format!("unknown {BACKING} {value:?}: directory or image"))?;
                backing = if block { Backing::Image } else { parsed };
            } else if !FS_TYPES.contains(&key.as_str()) {
                return Err(format!("unknown parameter {key:?}"));
            } else if value != FILE_SYSTEM {
                return Err(format!("file system {value:?} is not supported, only {FILE_SYSTEM}"));
            }
        }
        let options = class.mount_options.as_ref().is_some_and(|options| !options.is_empty());
        if options && (block || backing == Backing::Directory) {
            return Err("mount options need a file system of the volume's own".to_owned());
        }
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        let asked = requests.get("storage").map(Quantity::of).unwrap_or_default().units();
        let bytes = match backing {
            Backing::Directory => asked,
            Backing::Image => {
                let blocks = asked.max(IMAGE_MIN_BYTES).saturating_add(BLOCK_BYTES - 1);
                blocks / BLOCK_BYTES * BLOCK_BYTES
            }
        };
        Ok(Self { bytes, backing, block })
    }

    fn capacity(&self, claim: &PersistentVolumeClaim) -> Quantity {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let requests = requests.and_then(|resources| resources.requests.as_ref());
        let asked = requests.and_then(|requests| requests.get("storage")).map(Quantity::of);
        let asked = asked.unwrap_or_default();
        // As the user wrote it, unless it had to be rounded.
        if asked.units() == self.bytes { asked } else { Quantity::from_units(self.bytes) }
    }
}

/// Why the node cannot have a volume of this class and size.
fn unsuitable(node: &Node, class: &StorageClass, bytes: i64) -> Option<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if name.len() > LABEL_MAX || hostname(node).is_none() {
        return Some(format!("node {name:?} has no label {HOSTNAME}, or too long a name"));
    }
    if !in_topology(node, class) {
        return Some(format!("node {name:?} is not in the topology of the class"));
    }
    too_small(node, bytes)
}

/// Why the node's disk cannot hold this much, whatever else is on it.
pub fn too_small(node: &Node, bytes: i64) -> Option<String> {
    let status = node.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let disk = capacity.and_then(|capacity| capacity.get("ephemeral-storage")).map(Quantity::of)?;
    let name = node.metadata.name.as_deref().unwrap_or_default();
    (disk.units() < bytes)
        .then(|| format!("the disk of node {name:?} has {disk}, not the {bytes} bytes asked for"))
}

fn hostname(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME))
}

/// `allowedTopologies`: one of the terms has to match, if there are any.
fn in_topology(node: &Node, class: &StorageClass) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let term = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| NodeSelectorTerm {
        match_expressions: Some(
            term.match_label_expressions
                .iter()
                .flatten()
                .map(|one| NodeSelectorRequirement {
                    key: one.key.clone(),
                    operator: "In".to_owned(),
                    values: Some(one.values.clone()),
                })
                .collect(),
        ),
        ..Default::default()
    };
    let required = NodeSelector { node_selector_terms: terms.iter().map(term).collect() };
    let asking = PodSpec {
        affinity: Some(Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(required),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    terms.is_empty() || affinity_allows(&asking, node)
}

/// The node for a claim that does not wait for a pod: the claims are spread by their uids.
fn any_node<'a>(
    observed: &Observed<'a>,
    class: &StorageClass,
    bytes: i64,
) -> Option<&'a Arc<Node>> {
    let claim = uid(&observed.claim.metadata);
    let usable = |node: &&Arc<Node>| {
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable);
        cordoned != Some(true) && unsuitable(node, class, bytes).is_none()
    };
    let rank = |node: &&Arc<Node>| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        hash::short_hash(format!("{claim}/{name}").as_bytes(), None)
    };
    observed.nodes.iter().filter(usable).min_by_key(rank)
}

fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &Node,
    settings: &Settings,
) -> PersistentVolume {
    let name = format!("pvc-{}", uid(&claim.metadata));
    let spec = claim.spec.clone().unwrap_or_default();
    let host = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: hostname(node).map(|host| vec![host.clone()]),
    };
    let term =
        NodeSelectorTerm { match_expressions: Some(vec![host]), ..NodeSelectorTerm::default() };
    let file_system = settings.backing == Backing::Image && !settings.block;
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(BTreeMap::from([(
                NODE_LABEL.to_owned(),
                node.metadata.name.clone().unwrap_or_default(),
            )])),
            annotations: Some(BTreeMap::from([(
                PROVISIONED_BY.to_owned(),
                PROVISIONER.to_owned(),
            )])),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(BTreeMap::from([(
                "storage".to_owned(),
                settings.capacity(claim).to_text(),
            )])),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: claim.metadata.namespace.clone(),
                name: claim.metadata.name.clone(),
                uid: claim.metadata.uid.clone(),
                resource_version: claim.metadata.resource_version.clone(),
                field_path: None,
            }),
            csi: Some(CSIPersistentVolumeSource {
                driver: PROVISIONER.to_owned(),
                volume_handle: name,
                fs_type: file_system.then(|| FILE_SYSTEM.to_owned()),
                volume_attributes: Some(BTreeMap::from([(
                    BACKING.to_owned(),
                    settings.backing.name().to_owned(),
                )])),
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(
                class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned()),
            ),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}
