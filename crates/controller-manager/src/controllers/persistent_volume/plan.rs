//! The next step of a claim and of a volume: pure functions.

use std::sync::Arc;

use api::storage_class;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::matching::{find, is_free, is_reserved_for, mismatch};
use crate::machinery::owner::uid;

pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Annotation of a claim: who is asked to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

#[derive(Debug)]
pub struct ObservedClaim<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub volumes: &'a [Arc<PersistentVolume>],
    pub class: Option<&'a StorageClass>,
    /// The class of claims that name none.
    pub default_class: Option<&'a str>,
    /// The node that the scheduler has chosen for the claim's first pod.
    pub node: Option<&'a Node>,
    /// The pods that use the claim and have no node yet, by name.
    pub unscheduled: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub enum ClaimPlan {
    /// Bind to this volume, or complete the binding.
    Bind(Arc<PersistentVolume>),
    /// Its volume is gone, or bound to another claim.
    Lost(&'static str, &'static str),
    /// No volume yet; an event says why.
    Wait(&'static str, String),
    /// The external provisioner of this name must create the volume.
    Provision(String),
    /// It was created when there was no default class: it gets this one.
    AssignClass(String),
    /// The node that the scheduler has chosen is gone, or the volume there has gone to another claim:
    /// it has to choose again.
    ReleaseNode,
    /// No volume yet, and nothing to report.
    Pending,
}

pub fn plan_claim(observed: &ObservedClaim<'_>) -> ClaimPlan {
    let claim = observed.claim;
    let annotations = claim.metadata.annotations.as_ref();
    let has = |key: &str| annotations.is_some_and(|annotations| annotations.contains_key(key));
    let spec = claim.spec.as_ref();
    let named = spec.and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    if let Some(name) = named {
        let volume =
            observed.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name));
        return match volume {
            Some(volume) if is_free(volume) => match mismatch(volume, claim) {
                None => ClaimPlan::Bind(volume.clone()),
                Some(why) => {
                    let message = format!("Cannot bind to requested volume {name:?}: {why}");
                    ClaimPlan::Wait("VolumeMismatch", message)
                }
            },
            Some(volume) if is_reserved_for(volume, claim) => ClaimPlan::Bind(volume.clone()),
            None if has(BIND_COMPLETED) => ClaimPlan::Lost(
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            ),
            Some(_) if has(BIND_COMPLETED) => ClaimPlan::Lost(
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound incorrectly",
            ),
            _ => ClaimPlan::Pending,
        };
    }
    let waits = observed.class.and_then(|class| class.volume_binding_mode.as_deref())
        == Some("WaitForFirstConsumer");
    let reserved = observed.volumes.iter().any(|volume| is_reserved_for(volume, claim));
    if waits && observed.node.is_none() && !reserved {
        if has(SELECTED_NODE) {
            return ClaimPlan::ReleaseNode;
        }
        return wait_for_consumer(&observed.unscheduled);
    }
    if let Some(volume) = find(observed.volumes, claim, observed.node) {
        return ClaimPlan::Bind(volume);
    }
    let unclassed = spec.is_some_and(|spec| spec.storage_class_name.is_none())
        && !has(storage_class::BETA_CLASS);
    if let Some(class) = observed.default_class.filter(|_| unclassed) {
        return ClaimPlan::AssignClass(class.to_owned());
    }
    match observed.class {
        Some(class) if class.provisioner != NO_PROVISIONER => {
            ClaimPlan::Provision(class.provisioner.clone())
        }
        None if storage_class::of_claim(claim).is_empty() => ClaimPlan::Wait(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".into(),
        ),
        None => ClaimPlan::Wait(
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io {:?} not found", storage_class::of_claim(claim)),
        ),
        Some(_) if waits && has(SELECTED_NODE) => ClaimPlan::ReleaseNode,
        Some(_) => ClaimPlan::Pending,
    }
}

/// `unscheduled`: the pods whose node decides where the volume has to be.
fn wait_for_consumer(unscheduled: &[String]) -> ClaimPlan {
    let names = unscheduled.join(",");
    let (reason, message) = match unscheduled.len() {
        0 => (
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding".to_owned(),
        ),
        1 => ("WaitForPodScheduled", format!("waiting for pod {names} to be scheduled")),
        _ => ("WaitForPodScheduled", format!("waiting for pods {names} to be scheduled")),
    };
    ClaimPlan::Wait(reason, message)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumePlan {
    /// Set the phase and its message.
    Phase(&'static str, &'static str),
    /// This controller bound it to a claim that is bound to another volume: clear `claimRef`.
    Unbind,
}

/// `claim`: the one that `claimRef` names, as the server has it.
pub fn plan_volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumePlan {
    let spec = volume.spec.as_ref();
    let Some(reference) = spec.and_then(|spec| spec.claim_ref.as_ref()) else {
        return VolumePlan::Phase("Available", "");
    };
    let Some(wanted) = reference.uid.as_deref().filter(|uid| !uid.is_empty()) else {
        // Reserved for a claim that does not exist yet.
        return VolumePlan::Phase("Available", "");
    };
    let Some(claim) = claim.filter(|claim| uid(&claim.metadata) == wanted) else {
        return released(volume);
    };
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    match named.filter(|name| !name.is_empty()) {
        Some(name) if Some(name) != volume.metadata.name.as_deref() => {
            let annotations = volume.metadata.annotations.as_ref();
            let by_us = annotations.is_some_and(|all| all.contains_key(BOUND_BY_CONTROLLER));
            if by_us { VolumePlan::Unbind } else { released(volume) }
        }
        _ => VolumePlan::Phase("Bound", ""),
    }
}

fn released(volume: &PersistentVolume) -> VolumePlan {
    let spec = volume.spec.as_ref();
    let annotations = volume.metadata.annotations.as_ref();
    let external = annotations.is_some_and(|all| all.contains_key(PROVISIONED_BY));
    match spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) {
        Some("Delete") if !external => {
            VolumePlan::Phase("Failed", "no deleter for this volume: delete it by hand")
        }
        Some("Recycle") => VolumePlan::Phase("Failed", "volumes are not recycled"),
        // Retained, or deleted by its provisioner.
        _ => VolumePlan::Phase("Released", ""),
    }
}
