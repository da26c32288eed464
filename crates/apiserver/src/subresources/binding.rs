//! `pods/binding`: binds a pod to a node (`k8s.io/kubernetes/pkg/registry/core/pod/storage`).

use std::collections::BTreeMap;

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{admitted, created};
use crate::core::Call;
use crate::request::Request;
use crate::response::Response;
use crate::verbs::update::swap_with;

/// The parts of a binding.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    pub node: String,
    /// Empty: whichever pod has the name.
    pub uid: String,
    pub resource_version: String,
    /// Merged into the pod's own.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// Binds the target to the node in the body.
///
/// # Errors
/// 404, 409 when the pod is bound or being deleted, 422 for a target that is not a node.
pub async fn create(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    create_binding(call, admitted(call, request).await?).await
}

/// Binds the target as a binding says that webhooks have admitted.
///
/// # Errors
/// As [`create`].
pub async fn create_binding(call: Call<'_>, binding: Binding) -> Result<Response, ApiError> {
    let kind = binding.target.kind.as_deref().unwrap_or("Node");
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", ""]));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(Binding::ROW, name, &errors));
    }
    if !name.is_empty() && name != call.target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let assignment = Assignment {
        node: binding.target.name.unwrap_or_default(),
        uid: binding.metadata.uid.unwrap_or_default(),
        resource_version: binding.metadata.resource_version.unwrap_or_default(),
        labels: binding.metadata.labels.unwrap_or_default(),
        annotations: binding.metadata.annotations.unwrap_or_default(),
    };
    bind(call, &assignment).await?;
    Ok(created())
}

/// Binds the target to a node.
///
/// # Errors
/// As [`create`].
pub async fn bind(call: Call<'_>, assignment: &Assignment) -> Result<(), ApiError> {
    let now = call.now();
    swap_with(call, |object, _| {
        let pod = object.downcast_ref::<Pod>().ok_or_else(|| {
            ApiError::internal("unexpected object: the target of a binding is not a Pod")
        })?;
        let mut pod = pod.clone();
        assign(call, &mut pod, assignment, now)?;
        Ok(Box::new(pod) as Box<dyn Object>)
    })
    .await?;
    Ok(())
}

/// A pod's node is part of its spec, but binding is not a new generation of it:
/// `metadata.generation` counts users' changes, and the kubelet's `observedGeneration` stays 1 on a
/// pod they left alone.
fn assign(
    call: Call<'_>,
    pod: &mut Pod,
    assignment: &Assignment,
    now: Timestamp,
) -> Result<(), ApiError> {
    let name = call.target.name.as_str();
    let conflict = |message: String| Err(ApiError::conflict(Pod::ROW, name, message));
    if pod.metadata.deletion_timestamp.is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name = Some(assignment.node.clone());
    if !assignment.uid.is_empty() {
        pod.metadata.uid = Some(assignment.uid.clone());
    }
    if !assignment.resource_version.is_empty() {
        pod.metadata.resource_version = Some(assignment.resource_version.clone());
    } else {
        pod.metadata.resource_version = None;
    }
    for (own, more) in [
        (&mut pod.metadata.labels, &assignment.labels),
        (&mut pod.metadata.annotations, &assignment.annotations),
    ] {
        if !more.is_empty() {
            own.get_or_insert_default().extend(more.clone());
        }
    }
    let status = pod.status.get_or_insert_default();
    // The pod has a node: no room has to be kept for it (`ClearingNominatedNodeNameAfterBinding`).
    status.nominated_node_name = None;
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(crate::meta::whole_seconds(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    });
    Ok(())
}
