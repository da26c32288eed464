//! NodeRestriction: a kubelet may change its own Node, its own Lease, the pods bound to it, and
//! what those need (`k8s.io/kubernetes/plugin/pkg/admission/noderestriction`).

mod mirror;
mod pod_certificate;

use std::collections::{BTreeMap, BTreeSet};

use api::object::Object;
use api::{ApiError, Kind, local_path};
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount,
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::CSINode;

use crate::authz::Attributes;
use crate::core::Call;
use crate::scan;

/// Labels that only an administrator may set.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Kubernetes' own labels that a kubelet may set.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Domains in which a kubelet may set any label.
const OWN_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const LEASES: &str = "kube-node-lease";

/// Checks a write by a kubelet; other users pass.
///
/// # Errors
/// 403.
pub async fn check(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(own) = call.user.node_name() else {
        return Ok(());
    };
    let name = object.metadata().name.as_deref().unwrap_or_default();
    let refuse = |message: String| ApiError::forbidden(call.row(), name, message);
    if let Some(node) = object.downcast_ref::<Node>() {
        let old = old.and_then(|old| old.downcast_ref());
        return check_node(own, node, old).map_err(refuse);
    }
    if let Some(pod) = object.downcast_ref::<Pod>() {
        return match old.and_then(|old| old.downcast_ref::<Pod>()) {
            None => mirror::check(call, own, pod).await,
            Some(old) => check_status(own, &call.target.subresource, pod, old).map_err(refuse),
        };
    }
    if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        let old = old.and_then(|old| old.downcast_ref());
        return check_claim(own, &call.target.subresource, claim, old).map_err(refuse);
    }
    if let Some(volume) = object.downcast_ref::<PersistentVolume>() {
        let old = old.and_then(|old| old.downcast_ref());
        return check_volume(own, &call.target.subresource, volume, old).map_err(refuse);
    }
    if let Some(request) = object.downcast_ref::<PodCertificateRequest>() {
        return match old {
            None => pod_certificate::check(call, own, request).await,
            Some(_) => Err(refuse("unexpected operation".to_owned())),
        };
    }
    if object.row() == Lease::ROW {
        return check_lease(call, own, name).map_err(refuse);
    }
    if object.row() == CSINode::ROW {
        return check_csi_node(own, name).map_err(refuse);
    }
    if let Some(slice) = object.downcast_ref::<ResourceSlice>()
        && old.is_none()
    {
        return check_slice(own, slice, "create").map_err(refuse);
    }
    Ok(())
}

/// Updates are judged by the authorizer; the node of a slice never changes.
fn check_slice(own: &str, slice: &ResourceSlice, verb: &str) -> Result<(), String> {
    if slice.spec.node_name.as_deref() == Some(own) {
        return Ok(());
    }
    Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

fn check_csi_node(own: &str, name: &str) -> Result<(), String> {
    if name == own {
        return Ok(());
    }
    Err("can only access CSINode with the same name as the requesting node".to_owned())
}

fn check_lease(call: Call<'_>, own: &str, name: &str) -> Result<(), String> {
    if call.target.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if name != own {
        return Err(
            "can only access node lease with the same name as the requesting node".to_owned()
        );
    }
    Ok(())
}

fn check_status(own: &str, subresource: &str, new: &Pod, old: &Pod) -> Result<(), String> {
    if subresource != "status" {
        return Err(format!(
            "unexpected operation \"UPDATE\", node {own:?} can only create and delete mirror pods"
        ));
    }
    if api::pod::node_name(old) != Some(own) {
        return Err(format!(
            "node {own:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if new.metadata.labels != old.metadata.labels {
        return Err(format!("node {own:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Pod| {
        let status = pod.status.as_ref();
        status.and_then(|status| status.resource_claim_statuses.clone())
    };
    if claims(new) != claims(old) {
        return Err(format!("node {own:?} cannot update resource claim statues"));
    }
    let extended = |pod: &Pod| {
        let status = pod.status.as_ref();
        status.and_then(|status| status.extended_resource_claim_status.clone())
    };
    if extended(new) != extended(old) {
        return Err(format!("node {own:?} cannot update extended resource claim status"));
    }
    Ok(())
}

/// A kubelet may only report the size of a volume that it has expanded.
fn check_claim(
    own: &str,
    subresource: &str,
    new: &PersistentVolumeClaim,
    old: Option<&PersistentVolumeClaim>,
) -> Result<(), String> {
    let Some(old) = old.filter(|_| subresource == "status") else {
        return Err("may only update PVC status".to_owned());
    };
    let rest = |claim: &PersistentVolumeClaim| {
        let mut claim = claim.clone();
        claim.metadata.resource_version = None;
        claim.metadata.managed_fields = None;
        let status = claim.status.get_or_insert_default();
        status.capacity = None;
        status.conditions = None;
        status.allocated_resource_statuses = None;
        status.allocated_resources = None;
        claim
    };
    if rest(new) != rest(old) {
        return Err(format!(
            "node {own:?} is not allowed to update fields other than status.capacity and status.conditions"
        ));
    }
    Ok(())
}

/// A kubelet may only report of a volume that is kept on its node that it has made its contents, and
/// of one that is being deleted that it has removed them.
fn check_volume(
    own: &str,
    subresource: &str,
    new: &PersistentVolume,
    old: Option<&PersistentVolume>,
) -> Result<(), String> {
    let kept_here = |volume: &PersistentVolume| {
        let labels = volume.metadata.labels.as_ref();
        let node = labels.and_then(|labels| labels.get(local_path::NODE_LABEL));
        node.is_some_and(|node| node == own)
    };
    let Some(old) = old.filter(|old| subresource.is_empty() && kept_here(old)) else {
        return Err(format!("node {own:?} may only update volumes that are kept on it"));
    };
    let deleting = old.metadata.deletion_timestamp.is_some();
    let rest = |volume: &PersistentVolume| {
        let mut volume = volume.clone();
        let metadata = &mut volume.metadata;
        metadata.resource_version = None;
        metadata.managed_fields = None;
        if deleting {
            metadata.finalizers.get_or_insert_default().retain(|one| one != local_path::FINALIZER);
        }
        metadata.annotations.get_or_insert_default().remove(local_path::MADE);
        volume
    };
    let made = |volume: &PersistentVolume| {
        let annotations = volume.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(local_path::MADE))
    };
    if rest(new) != rest(old) || (made(old) && !made(new)) {
        return Err(format!(
            "node {own:?} is not allowed to update a volume but for the annotation {} and the finalizer {}",
            local_path::MADE,
            local_path::FINALIZER
        ));
    }
    Ok(())
}

fn check_node(own: &str, new: &Node, old: Option<&Node>) -> Result<(), String> {
    let name = new.metadata.name.as_deref().unwrap_or_default();
    if name != own {
        return Err(format!("node {own:?} is not allowed to modify node {name:?}"));
    }
    let spec = |node: &Node| node.spec.clone().unwrap_or_default();
    if let Some(old) = old
        && spec(new).taints.unwrap_or_default() != spec(old).taints.unwrap_or_default()
    {
        return Err(format!("node {own:?} is not allowed to modify taints"));
    }
    let owners = |node: &Node| node.metadata.owner_references.clone().unwrap_or_default();
    if old.is_some_and(|old| owners(old) != owners(new)) {
        return Err(format!("node {own:?} is not allowed to modify ownerReferences"));
    }
    let source = spec(new).config_source;
    if source.is_some() && old.is_none_or(|old| spec(old).config_source != source) {
        return Err(format!("node {own:?} is not allowed to set a configSource"));
    }
    let none = BTreeMap::new();
    let labels = |node: Option<&'_ Node>| {
        let labels = node.and_then(|node| node.metadata.labels.clone());
        labels.unwrap_or_else(|| none.clone())
    };
    let (before, after) = (labels(old), labels(Some(new)));
    let changed: BTreeSet<&String> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .collect();
    let forbidden: Vec<&str> =
        changed.into_iter().map(String::as_str).filter(|key| is_forbidden(key)).collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    let forbidden = forbidden.join(", ");
    Err(match old {
        None => format!("node {own:?} is not allowed to set the following labels: {forbidden}"),
        Some(_) => format!("is not allowed to modify labels: {forbidden}"),
    })
}

/// Whether a label is reserved: Kubernetes' own and not for kubelets, or an administrator's.
fn is_forbidden(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    if within(RESTRICTED) {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = OWN_LABELS.contains(&key) || OWN_DOMAINS.iter().any(|parent| within(parent));
    kubernetes && !own
}

/// Checks a deletion by a kubelet; other users pass.
///
/// # Errors
/// 403.
pub fn check_delete(call: Call<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let Some(own) = call.user.node_name() else {
        return Ok(());
    };
    let name = object.metadata().name.as_deref().unwrap_or_default();
    let checked = if object.row() == Node::ROW && name != own {
        Err(format!("node {own:?} is not allowed to modify node {name:?}"))
    } else if let Some(pod) = object.downcast_ref::<Pod>()
        && api::pod::node_name(pod) != Some(own)
    {
        Err(format!("node {own:?} can only delete pods with spec.nodeName set to itself"))
    } else if object.row() == Lease::ROW {
        check_lease(call, own, name)
    } else if object.row() == CSINode::ROW {
        check_csi_node(own, name)
    } else if let Some(slice) = object.downcast_ref::<ResourceSlice>() {
        check_slice(own, slice, "delete")
    } else {
        Ok(())
    };
    checked.map_err(|message| ApiError::forbidden(call.row(), name, message))
}

/// Checks an eviction by a kubelet; other users pass.
///
/// # Errors
/// 403.
pub fn check_eviction(call: Call<'_>, pod: &Pod) -> Result<(), ApiError> {
    match call.user.node_name() {
        Some(own) if api::pod::node_name(pod) != Some(own) => Err(ApiError::forbidden(
            Pod::ROW,
            &call.target.name,
            format!("node {own} can only evict pods with spec.nodeName set to itself"),
        )),
        _ => Ok(()),
    }
}

/// Checks a kubelet's request for a token: it must be bound to a pod of its node. Other users pass.
///
/// # Errors
/// 403; 404 for a pod that does not exist.
pub async fn check_token(call: Call<'_>, asked: &TokenRequestSpec) -> Result<(), ApiError> {
    let bound = asked.bound_object_ref.as_ref();
    let Some(own) = call.user.node_name() else {
        return Ok(());
    };
    let refuse =
        |message: &str| Err(ApiError::forbidden(ServiceAccount::ROW, &call.target.name, message));
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let bound = bound.filter(|bound| text(&bound.kind) == "Pod" && !text(&bound.name).is_empty());
    let Some(bound) = bound.filter(|bound| matches!(text(&bound.api_version).as_str(), "v1"))
    else {
        return refuse("node requested token not bound to a pod");
    };
    if text(&bound.uid).is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let key = format!("{}/{}", call.target.namespace, text(&bound.name));
    let Some(pod) = call.core.find(Pod::ROW, &key).await? else {
        return Err(ApiError::not_found(Pod::ROW, &text(&bound.name)));
    };
    if *pod.uid != text(&bound.uid) {
        return refuse(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text(&bound.uid)
        ));
    }
    let node = scan::at_path(&pod.json, "spec.nodeName").map(scan::scalar);
    if node.as_deref() != Some(own) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match asked.audiences.as_deref().unwrap_or_default() {
        [] => "",
        [one] => one.as_str(),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    let pod = Pod::decode(&pod.json).map_err(ApiError::internal)?;
    if uses_audience(&pod, audience) || may_request_audience(call, audience).await {
        return Ok(());
    }
    refuse(&format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        call.user.name
    ))
}

/// Whether a volume of the pod has a token for the audience; the empty one is the apiserver.
fn uses_audience(pod: &Pod, audience: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .any(|token| token.audience.as_deref().unwrap_or_default() == audience)
}

/// Whether an administrator has granted the node this audience of the account's tokens.
async fn may_request_audience(call: Call<'_>, audience: &str) -> bool {
    let attributes = Attributes::Resource {
        verb: "request-serviceaccounts-token-audience".to_owned(),
        group: String::new(),
        resource: audience.to_owned(),
        subresource: String::new(),
        namespace: call.target.namespace.clone(),
        name: call.target.name.clone(),
    };
    call.core.authorizers.allows(call.core, call.user, &attributes).await
}

#[cfg(test)]
mod tests;
