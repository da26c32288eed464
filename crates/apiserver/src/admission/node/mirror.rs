//! Mirror pods: the API objects of static pods, which a kubelet runs from files.

use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};

use crate::core::Call;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether this is the mirror pod of a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(MIRROR))
}

/// Checks a pod that a kubelet creates.
///
/// # Errors
/// 403; 404 when the node is not registered.
pub async fn check(call: Call<'_>, own: &str, pod: &Pod) -> Result<(), ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let refuse = |message: String| ApiError::forbidden(call.row(), name, message);
    let uid = plan(own, pod).map_err(refuse)?;
    let node = call.core.find(Node::ROW, own).await?;
    let node = node.ok_or_else(|| ApiError::not_found(Node::ROW, own))?;
    if *uid != *node.uid {
        return Err(refuse(format!("node {own} UID mismatch: expected {uid} got {}", node.uid)));
    }
    Ok(())
}

/// The uid that the node must have.
///
/// # Errors
/// Why a kubelet may not create this pod.
pub fn plan<'a>(own: &str, pod: &'a Pod) -> Result<&'a str, String> {
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
    let reference = pod.spec.as_ref().and_then(reference);
    if let Some(what) = reference {
        return Err(format!("node {own:?} can not create pods that reference {what}"));
    }
    Ok(&owner.uid)
}

/// The object that the pod would give its node access to, if any.
fn reference(spec: &PodSpec) -> Option<&'static str> {
    let named = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if named(&spec.service_account_name) {
        return Some("a service account");
    }
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let env = containers
        .iter()
        .flat_map(|container| container.env.iter().flatten())
        .filter_map(|env| env.value_from.as_ref());
    let all_env = containers.iter().flat_map(|container| container.env_from.iter().flatten());
    let volumes = spec.volumes.iter().flatten();
    let sources = volumes
        .clone()
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten());
    let secrets = spec.image_pull_secrets.iter().flatten().next().is_some()
        || env.clone().any(|source| source.secret_key_ref.is_some())
        || all_env.clone().any(|source| source.secret_ref.is_some())
        || volumes.clone().any(|volume| volume.secret.is_some())
        || sources.clone().any(|source| source.secret.is_some());
    if secrets {
        return Some("secrets");
    }
    let maps = env.clone().any(|source| source.config_map_key_ref.is_some())
        || all_env.clone().any(|source| source.config_map_ref.is_some())
        || volumes.clone().any(|volume| volume.config_map.is_some())
        || sources.clone().any(|source| source.config_map.is_some());
    if maps {
        return Some("configmaps");
    }
    if sources.clone().any(|source| source.service_account_token.is_some()) {
        return Some("a service account");
    }
    if sources.clone().any(|source| source.cluster_trust_bundle.is_some()) {
        return Some("clustertrustbundles");
    }
    let claims = volumes.clone().any(|volume| volume.persistent_volume_claim.is_some());
    claims.then_some("persistentvolumeclaims")
}
