//! Which volume matches a claim: pure functions (`k8s.io/component-helpers/storage/volume`).

use std::sync::Arc;

use api::labels::Selector;
use api::quantity::Quantity;
use api::storage_class::{self, DEFAULT_ANNOTATIONS};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, PersistentVolume, PersistentVolumeClaim, PodSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::machinery::cache::Key;
use crate::machinery::node_match::affinity_allows;
use crate::machinery::owner::{is_deleting, uid};

/// The class annotated as the default; of several, the newest.
pub fn default_class(classes: &[Arc<StorageClass>]) -> Option<&str> {
    let default = classes.iter().filter(|class| {
        let annotations = class.metadata.annotations.as_ref();
        let is_set =
            |mark: &&str| annotations.and_then(|all| all.get(*mark)).is_some_and(|it| it == "true");
        DEFAULT_ANNOTATIONS.iter().any(is_set)
    });
    let newest = default.max_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, std::cmp::Reverse(class.metadata.name.clone()))
    });
    newest.and_then(|class| class.metadata.name.as_deref())
}

pub fn capacity(volume: &PersistentVolume) -> Quantity {
    let spec = volume.spec.as_ref();
    let capacity = spec.and_then(|spec| spec.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.map(Quantity::of).unwrap_or_default()
}

/// Whether the volume's `claimRef` names this claim; a uid in it must match too.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let key = Key::new(
            reference.namespace.clone().unwrap_or_default(),
            reference.name.clone().unwrap_or_default(),
        );
        let same = reference
            .uid
            .as_deref()
            .is_none_or(|own| own.is_empty() || own == uid(&claim.metadata));
        key == Key::of(claim) && same
    })
}

pub fn is_free(volume: &PersistentVolume) -> bool {
    let spec = volume.spec.as_ref();
    spec.is_some_and(|spec| spec.claim_ref.is_none())
}

/// Why the volume is not what the claim asks for. `None`: it is.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let has = volume.spec.clone().unwrap_or_default();
    let wants = claim.spec.clone().unwrap_or_default();
    let mode = |mode: Option<String>| mode.unwrap_or_else(|| "Filesystem".into());
    let requests = wants.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let wanted = requests.get("storage").map(Quantity::of).unwrap_or_default();
    let modes = has.access_modes.unwrap_or_default();
    if capacity(volume) < wanted {
        Some("requested PV is too small")
    } else if storage_class::of_volume(volume) != storage_class::of_claim(claim) {
        Some("storageClassName does not match")
    } else if mode(has.volume_mode) != mode(wants.volume_mode) {
        Some("incompatible volumeMode")
    } else if !wants.access_modes.iter().flatten().all(|mode| modes.contains(mode)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// Whether the volume has what the claim asks for. `node`: where it must be accessible.
fn satisfies(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    node: Option<&Node>,
) -> bool {
    let selector = claim.spec.as_ref().and_then(|wants| wants.selector.as_ref());
    let selector = selector.map(|selector| {
        Selector::from_label_selector(Some(selector)).unwrap_or_else(|_| Selector::nothing())
    });
    !is_deleting(&volume.metadata)
        && selector.is_none_or(|selector| selector.matches(volume.metadata.labels.as_ref()))
        && mismatch(volume, claim).is_none()
        && node.is_none_or(|node| is_accessible(volume, node))
}

fn is_accessible(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.clone()) else {
        return true;
    };
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
    affinity_allows(&asking, node)
}

/// The volume for a claim: one that is reserved for it, or else the smallest free one that
/// satisfies it.
pub fn find(
    volumes: &[Arc<PersistentVolume>],
    claim: &PersistentVolumeClaim,
    node: Option<&Node>,
) -> Option<Arc<PersistentVolume>> {
    let suitable = || volumes.iter().filter(|volume| satisfies(volume, claim, node));
    let reserved = suitable().find(|volume| is_reserved_for(volume, claim));
    let free = || {
        suitable()
            .filter(|volume| is_free(volume))
            .min_by_key(|volume| (capacity(volume), volume.metadata.name.clone()))
    };
    reserved.or_else(free).cloned()
}
