//! Mirror pods: the API objects of static pods, which a kubelet runs from files.

use api::pod::{MIRROR, is_mirror};
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;

use crate::admission::attributes::Attributes;
use crate::references;

/// Checks a pod that a kubelet creates.
///
/// # Errors
/// 403; 404 when the node is not registered.
pub async fn check(attributes: &Attributes<'_>, own: &str, pod: &Pod) -> Result<(), ApiError> {
    let refuse = |why: String| attributes.forbidden(pod, why);
    let uid = owner(own, pod).map_err(refuse)?;
    let node = attributes.call.core.find(Node::ROW, own).await?;
    let node = node.ok_or_else(|| ApiError::not_found(Node::ROW, own))?;
    if *uid != *node.uid {
        return Err(refuse(format!("node {own} UID mismatch: expected {uid} got {}", node.uid)));
    }
    refers_to_nothing(own, pod).map_err(refuse)
}

/// The uid that the node must have.
///
/// # Errors
/// Why a kubelet may not create this pod.
pub fn owner<'a>(own: &str, pod: &'a Pod) -> Result<&'a str, String> {
    if !is_mirror(pod) {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {own:?} can only create mirror pods"
        ));
    }
    if api::pod::node_name(pod) != Some(own) {
        return Err(format!("node {own:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [owner] => owner,
        [] => {
            return Err(format!(
                "node {own:?} can only create pods with an owner reference set to itself"
            ));
        }
        _ => {
            return Err(format!(
                "node {own:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str()) != ("v1", "Node", own)
    {
        return Err(format!(
            "node {own:?} can only create pods with an owner reference set to itself"
        ));
    }
    if owner.controller != Some(true) {
        return Err(format!(
            "node {own:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!("node {own:?} must not set blockOwnerDeletion on an owner reference"));
    }
    Ok(&owner.uid)
}

/// What a pod of its node refers to, a kubelet may read: it must not choose that itself.
///
/// # Errors
/// What the pod refers to.
pub fn refers_to_nothing(own: &str, pod: &Pod) -> Result<(), String> {
    let object: Value = serde_json::from_slice(&pod.encode()).map_err(|error| error.to_string())?;
    if let Some(what) = references::first(&object["spec"]) {
        let what = if what == "serviceaccounts" { "a service account" } else { what };
        return Err(format!("node {own:?} can not create pods that reference {what}"));
    }
    Ok(())
}
