//! NodeRestriction: a kubelet touches its own Node, its own Lease, and its own pods
//! (`k8s.io/kubernetes/plugin/pkg/admission/noderestriction`).

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::core::Call;
use crate::request::Verb;

/// Labels that only an administrator sets.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Checks a write by a kubelet. Others pass.
///
/// # Errors
/// 403.
pub fn check(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(own) = call.user.node_name() else {
        return Ok(());
    };
    let name = object.metadata().name.as_deref().unwrap_or_default();
    let refuse = |message: String| Err(ApiError::forbidden(call.row(), name, message));
    if let Some(node) = object.downcast_ref::<Node>() {
        if name != own {
            return refuse(format!(
                "node {own:?} is not allowed to modify node {name:?}"
            ));
        }
        let old = old.and_then(|old| old.downcast_ref::<Node>());
        return node_fields(call, node, old);
    }
    if let Some(pod) = object.downcast_ref::<Pod>() {
        let target = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default();
        let mirror = pod
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(MIRROR));
        if call.verb == Verb::Create && !mirror {
            return refuse(format!(
                "pod does not have {MIRROR:?} annotation, node {own:?} can only create mirror pods"
            ));
        }
        if target != own {
            return refuse(format!(
                "node {own:?} can only create or update pods with spec.nodeName set to itself"
            ));
        }
        if old.is_some() && call.target.subresource != "status" {
            return refuse(format!(
                "node {own:?} is only allowed to update the status of pods"
            ));
        }
    }
    if object.row() == Lease::ROW {
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        if namespace != "kube-node-lease" || name != own {
            return refuse(format!(
                "node {own:?} can only modify its own lease in kube-node-lease"
            ));
        }
    }
    Ok(())
}

fn node_fields(call: Call<'_>, new: &Node, old: Option<&Node>) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::forbidden(call.row(), &call.target.name, message));
    let before = old.and_then(|old| old.metadata.labels.as_ref());
    let after = new.metadata.labels.as_ref();
    let restricted = |key: &str| {
        key.split('/').next().is_some_and(|domain| {
            domain == RESTRICTED_LABELS || domain.ends_with(&format!(".{RESTRICTED_LABELS}"))
        })
    };
    let keys = before
        .into_iter()
        .chain(after)
        .flat_map(|labels| labels.keys());
    for key in keys.filter(|key| restricted(key)) {
        let value = |labels: Option<&std::collections::BTreeMap<String, String>>| {
            labels.and_then(|labels| labels.get(key)).cloned()
        };
        if value(before) != value(after) {
            return refuse(format!("is not allowed to modify labels: {key}"));
        }
    }
    if let Some(old) = old {
        let taints = |node: &Node| {
            node.spec
                .as_ref()
                .and_then(|spec| spec.taints.clone())
                .unwrap_or_default()
        };
        if call.target.subresource.is_empty() && taints(new) != taints(old) {
            return refuse("is not allowed to modify taints".to_owned());
        }
    }
    Ok(())
}

/// Checks a deletion by a kubelet. Others pass.
///
/// # Errors
/// 403.
pub fn check_delete(call: Call<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let Some(own) = call.user.node_name() else {
        return Ok(());
    };
    let name = object.metadata().name.as_deref().unwrap_or_default();
    if object.row() == Node::ROW && name != own {
        return Err(ApiError::forbidden(
            call.row(),
            name,
            format!("node {own:?} is not allowed to modify node {name:?}"),
        ));
    }
    let assigned = object.downcast_ref::<Pod>().map(|pod| {
        pod.spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default()
    });
    match assigned {
        Some(node) if node != own => Err(ApiError::forbidden(
            call.row(),
            name,
            format!("node {own:?} can only delete pods with spec.nodeName set to itself"),
        )),
        _ => Ok(()),
    }
}
