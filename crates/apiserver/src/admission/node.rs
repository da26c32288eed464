//! NodeRestriction: a kubelet may change its own Node, its own Lease, the pods bound to it, and
//! what those need (`k8s.io/kubernetes/plugin/pkg/admission/noderestriction`).

mod mirror;
mod pod_certificate;
mod token;

use std::collections::{BTreeMap, BTreeSet};

use api::object::Object;
use api::{ApiError, Kind, certificates, local_path, pod};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, PodCertificateRequest};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount,
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::CSINode;

use super::attributes::{Attributes, typed};
use super::webhooks::Operation;
use crate::core::Call;

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
/// Signers of the certificates that kubelets ask for.
const OWN_SIGNERS: [&str; 2] =
    [certificates::KUBELET_SERVING_SIGNER, certificates::KUBELET_CLIENT_SIGNER];

/// Checks a change by a kubelet; other users pass.
///
/// # Errors
/// 403; 404 for what a kubelet refers to that does not exist.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let call = attributes.call;
    let Some(own) = call.user.node_name() else {
        return match call.user.is_nameless_node() {
            true => {
                let why = format!("could not determine node from user {:?}", call.user.name);
                Err(attributes.refused(object, why))
            }
            false => Ok(()),
        };
    };
    let (row, refuse) = (call.row(), |why: String| attributes.refused(object, why));
    if row == Pod::ROW {
        return check_pod(attributes, own, object).await;
    }
    if row == ServiceAccount::ROW {
        let asked = typed::<TokenRequest>(object);
        return match asked {
            Some(asked) => token::check(attributes, own, asked).await,
            None => Ok(()),
        };
    }
    if row == PodCertificateRequest::ROW {
        return match typed(object).filter(|_| attributes.operation == Operation::Create) {
            Some(request) => pod_certificate::check(call, own, request).await,
            None => Err(refuse("unexpected operation".to_owned())),
        };
    }
    let name = name_of(attributes, object);
    let checked = if row == Node::ROW {
        check_node(own, name, typed(object), attributes.old())
    } else if row == PersistentVolumeClaim::ROW {
        check_claim(own, attributes.subresource, typed(object), attributes.old())
    } else if row == PersistentVolume::ROW {
        check_volume(own, attributes.subresource, typed(object), attributes.old())
    } else if row == Lease::ROW {
        check_lease(call, own, name)
    } else if row == CSINode::ROW {
        check_csi_node(own, name)
    } else if row == ResourceSlice::ROW {
        check_slice(own, typed(object), attributes.old())
    } else if row == CertificateSigningRequest::ROW {
        match typed(object).filter(|_| attributes.operation == Operation::Create) {
            Some(request) => check_request(own, request),
            None => Ok(()),
        }
    } else {
        Ok(())
    };
    checked.map_err(refuse)
}

fn name_of<'o>(attributes: &'o Attributes<'_>, object: Option<&'o dyn Object>) -> &'o str {
    let own = object.or(attributes.old_object()).and_then(|own| own.metadata().name.as_deref());
    own.unwrap_or(&attributes.call.target.name)
}

async fn check_pod(
    attributes: &Attributes<'_>,
    own: &str,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let operation = attributes.operation;
    let refuse = |why: String| Err(attributes.refused(object, why));
    match (attributes.subresource, operation) {
        ("", Operation::Create) => match typed(object) {
            Some(pod) => mirror::check(attributes, own, pod).await,
            None => refuse("unexpected object".to_owned()),
        },
        ("", Operation::Delete) => match attributes.old().and_then(pod::node_name) {
            Some(node) if node == own => Ok(()),
            _ => refuse(format!(
                "node {own:?} can only delete pods with spec.nodeName set to itself"
            )),
        },
        ("", _) => refuse(format!(
            "unexpected operation {:?}, node {own:?} can only create and delete mirror pods",
            operation.text()
        )),
        ("status", Operation::Update) => {
            let checked = match (typed(object), attributes.old()) {
                (Some(new), Some(old)) => check_status(own, new, old),
                _ => Err("unexpected object".to_owned()),
            };
            checked.or_else(refuse)
        }
        ("eviction", Operation::Create) => check_eviction(attributes, own).await,
        (name @ ("status" | "eviction"), _) => match name {
            "status" => refuse(format!("unexpected operation {:?}", operation.text())),
            _ => refuse(format!("unexpected operation {}", operation.text())),
        },
        (other, _) => refuse(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
    }
}

/// A kubelet evicts only the pods of its node.
async fn check_eviction(attributes: &Attributes<'_>, own: &str) -> Result<(), ApiError> {
    let call = attributes.call;
    let pod = call.core.find(Pod::ROW, &call.target.key()).await?;
    let pod = pod.ok_or_else(|| call.not_found())?;
    if pod.field(Pod::ROW, "spec.nodeName") == own {
        return Ok(());
    }
    let why = format!("node {own} can only evict pods with spec.nodeName set to itself");
    Err(ApiError::forbidden(Pod::ROW, &call.target.name, why))
}

/// The node of a slice never changes; other updates are judged by the authorizer.
fn check_slice(
    own: &str,
    new: Option<&ResourceSlice>,
    old: Option<&ResourceSlice>,
) -> Result<(), String> {
    let (verb, slice) = match (new, old) {
        (Some(new), None) => ("create", new),
        (None, Some(old)) => ("delete", old),
        _ => return Ok(()),
    };
    if slice.spec.node_name.as_deref() == Some(own) {
        return Ok(());
    }
    Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A kubelet asks for certificates of its own node alone.
fn check_request(own: &str, request: &CertificateSigningRequest) -> Result<(), String> {
    if !OWN_SIGNERS.contains(&request.spec.signer_name.as_str()) {
        return Ok(());
    }
    let parsed = certificates::parse(&request.spec.request.0)
        .map_err(|error| format!("unable to parse csr: {error}"))?;
    if parsed.common_name == format!("system:node:{own}") {
        return Ok(());
    }
    Err(format!("can only create a node CSR with CN=system:node:{own}"))
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

fn check_status(own: &str, new: &Pod, old: &Pod) -> Result<(), String> {
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
    new: Option<&PersistentVolumeClaim>,
    old: Option<&PersistentVolumeClaim>,
) -> Result<(), String> {
    let Some((new, old)) = new.zip(old).filter(|_| subresource == "status") else {
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
            "node {own:?} is not allowed to update fields other than status.quantity and status.conditions"
        ));
    }
    Ok(())
}

/// A kubelet may only report of a volume that is kept on its node that it has made its contents, and
/// of one that is being deleted that it has removed them.
fn check_volume(
    own: &str,
    subresource: &str,
    new: Option<&PersistentVolume>,
    old: Option<&PersistentVolume>,
) -> Result<(), String> {
    let kept_here = |volume: &PersistentVolume| {
        let labels = volume.metadata.labels.as_ref();
        let node = labels.and_then(|labels| labels.get(local_path::NODE_LABEL));
        node.is_some_and(|node| node == own)
    };
    let updated = new.zip(old).filter(|(_, old)| subresource.is_empty() && kept_here(old));
    let Some((new, old)) = updated else {
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

fn check_node(own: &str, name: &str, new: Option<&Node>, old: Option<&Node>) -> Result<(), String> {
    if name != own {
        return Err(format!("node {own:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = new else {
        return Ok(());
    };
    let spec = |node: &Node| node.spec.clone().unwrap_or_default();
    let source = spec(new).config_source;
    let Some(old) = old else {
        if source.is_some() {
            return Err(format!(
                "node {own:?} is not allowed to create pods with a non-nil configSource"
            ));
        }
        return check_labels(own, new, None);
    };
    if source.is_some() && spec(old).config_source != source {
        return Err(format!(
            "node {own:?} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if spec(new).taints.unwrap_or_default() != spec(old).taints.unwrap_or_default() {
        return Err(format!("node {own:?} is not allowed to modify taints"));
    }
    let owners = |node: &Node| node.metadata.owner_references.clone().unwrap_or_default();
    if owners(old) != owners(new) {
        return Err(format!("node {own:?} is not allowed to modify ownerReferences"));
    }
    check_labels(own, new, Some(old))
}

fn check_labels(own: &str, new: &Node, old: Option<&Node>) -> Result<(), String> {
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

#[cfg(test)]
mod tests;
