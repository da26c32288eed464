//! What an update of a pod may change (`ValidatePodUpdate` and its siblings).

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};

use crate::kinds::at::At;
use crate::kinds::check::{self, IMMUTABLE};
use crate::kinds::pod_spec::{defaults, only_added, only_deleted_gates};
use crate::kinds::semantic;

const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Validates an update of the pod itself.
pub fn spec(new: &Pod, old: &Pod, at: &At<'_>) {
    let at = at.child("spec");
    let (Some(spec), Some(was)) = (&new.spec, &old.spec) else {
        return;
    };
    for (field, new, old) in [
        ("containers", Some(&spec.containers), Some(&was.containers)),
        ("initContainers", spec.init_containers.as_ref(), was.init_containers.as_ref()),
    ] {
        if new.map_or(0, Vec::len) != old.map_or(0, Vec::len) {
            at.child(field).forbidden("pod updates may not add or remove containers");
            return;
        }
    }
    deadline(spec, was, &at.child("activeDeadlineSeconds"));
    let (new_tolerations, old_tolerations) =
        (spec.tolerations.as_deref(), was.tolerations.as_deref());
    only_added(
        new_tolerations.unwrap_or_default(),
        old_tolerations.unwrap_or_default(),
        &at.child("tolerations"),
    );
    only_deleted_gates(
        spec.scheduling_gates.as_deref().unwrap_or_default(),
        was.scheduling_gates.as_deref().unwrap_or_default(),
        &at.child("schedulingGates"),
    );
    if spec == was {
        return;
    }
    let allowed = with_allowed_changes_undone(new, spec, was);
    // A default that did not exist when the pod was stored is not a change by the client.
    let mut old = old.clone();
    let was = old.spec.get_or_insert_default();
    defaults::spec(was);
    defaults::pod(was);
    let (now, before) = (semantic::field(&allowed, "spec"), semantic::field(&old, "spec"));
    if now != before {
        let fields: Vec<String> =
            semantic::changed(&now, &before).iter().map(|name| format!("`spec.{name}`")).collect();
        let problem = format!(
            "pod updates may not change fields other than {MUTABLE}\nchanged: {}",
            fields.join(", ")
        );
        at.forbidden(problem);
    }
}

fn deadline(spec: &PodSpec, was: &PodSpec, at: &At<'_>) {
    match (spec.active_deadline_seconds, was.active_deadline_seconds) {
        (Some(new), Some(old)) if old < new => {
            at.invalid(new, "must be less than or equal to previous value")
        }
        (None, Some(_)) => at.invalid(
            serde_json::Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
}

/// The new pod with the old one's values in all fields that may change.
fn with_allowed_changes_undone(new: &Pod, spec: &PodSpec, was: &PodSpec) -> Pod {
    let mut spec = spec.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    images(&mut spec.containers, &was.containers);
    if let (Some(new), Some(old)) = (&mut spec.init_containers, &was.init_containers) {
        images(new, old);
    }
    spec.active_deadline_seconds = was.active_deadline_seconds;
    spec.tolerations.clone_from(&was.tolerations);
    spec.scheduling_gates.clone_from(&was.scheduling_gates);
    let grace = was.termination_grace_period_seconds;
    if grace.is_some_and(|seconds| seconds < 0) && spec.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = grace;
    }
    if was.scheduling_gates.iter().flatten().next().is_some() {
        gated_changes_undone(&mut spec, was);
    }
    Pod { spec: Some(spec), ..new.clone() }
}

/// While a pod is gated, its node selector may gain entries.
fn gated_changes_undone(spec: &mut PodSpec, was: &PodSpec) {
    let none = std::collections::BTreeMap::new();
    let (new, old) =
        (spec.node_selector.as_ref().unwrap_or(&none), was.node_selector.as_ref().unwrap_or(&none));
    if old.iter().all(|(key, value)| new.get(key) == Some(value)) {
        spec.node_selector.clone_from(&was.node_selector);
    }
}

/// Validates an update of `status`, or of `resize` or `ephemeralcontainers`, which change the spec.
pub fn status(new: &Pod, old: &Pod, at: &At<'_>) {
    let (Some(spec), Some(was)) = (&new.spec, &old.spec) else {
        return;
    };
    if spec.ephemeral_containers != was.ephemeral_containers {
        ephemeral(spec, was, at);
    } else if spec != was {
        resize(spec, was, at);
    } else {
        states(new, old, spec, at);
    }
}

fn ephemeral(spec: &PodSpec, was: &PodSpec, at: &At<'_>) {
    let at = at.child("spec.ephemeralContainers");
    for old in was.ephemeral_containers.iter().flatten() {
        let name = &old.name;
        match spec.ephemeral_containers.iter().flatten().find(|new| new.name == *name) {
            None => {
                let problem =
                    format!("existing ephemeral containers {name:?} may not be removed\n");
                at.forbidden(problem);
            }
            Some(new) if new != old => {
                let problem =
                    format!("existing ephemeral containers {name:?} may not be changed\n");
                at.forbidden(problem);
            }
            Some(_) => {}
        }
    }
}

fn resize(spec: &PodSpec, was: &PodSpec, at: &At<'_>) {
    let at = at.child("spec");
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    if spec.containers.len() != was.containers.len() || init(spec).len() != init(was).len() {
        at.forbidden("pod updates may not add or remove containers");
        return;
    }
    let (now, before) = (api::pod::qos_class(spec), api::pod::qos_class(was));
    if now != before {
        at.invalid(now, "Pod QOS Class may not change as a result of resizing");
    }
    for (new, old) in spec.containers.iter().zip(&was.containers) {
        if other_resources(new) != other_resources(old) || new.name != old.name {
            at.forbidden("only cpu and memory resources are mutable");
        }
    }
    for (new, old) in init(spec).iter().zip(&init(was)) {
        if api::pod::is_sidecar(new) && other_resources(new) != other_resources(old) {
            at.forbidden("only cpu and memory resources for sidecar containers are mutable");
        } else if !api::pod::is_sidecar(new) && new != old {
            at.forbidden("resources for non-sidecar init containers are immutable");
        }
    }
    for (index, (new, old)) in spec.containers.iter().zip(&was.containers).enumerate() {
        removed(new, old, &at.item("containers", index).child("resources"));
    }
}

/// Resources other than cpu and memory.
fn other_resources(container: &Container) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    for list in [&mut resources.limits, &mut resources.requests] {
        if let Some(amounts) = list {
            amounts.retain(|name, _| name != "cpu" && name != "memory");
        }
        if list.as_ref().is_some_and(|amounts| amounts.is_empty()) {
            *list = None;
        }
    }
    resources
}

/// A resize may change quantities but not remove them.
fn removed(new: &Container, old: &Container, at: &At<'_>) {
    let (none, new) = (ResourceRequirements::default(), new.resources.as_ref());
    let new = new.unwrap_or(&none);
    let old = old.resources.as_ref().unwrap_or(&none);
    for (field, what, new, old) in [
        ("requests", "resource requests", &new.requests, &old.requests),
        ("limits", "resource limits", &new.limits, &old.limits),
    ] {
        let gone = |name: &String| !new.as_ref().is_some_and(|new| new.contains_key(name));
        if old.iter().flatten().any(|(name, _)| gone(name)) {
            at.child(field).forbidden(format!("{what} cannot be removed"));
        }
    }
}

fn states(new: &Pod, old: &Pod, spec: &PodSpec, at: &At<'_>) {
    let at = at.child("status");
    let (status, was) =
        (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    if status.qos_class != was.qos_class {
        at.child("qosClass").invalid(&status.qos_class, IMMUTABLE);
    }
    let nominated = check::text(&status.nominated_node_name);
    if status.nominated_node_name != was.nominated_node_name && !nominated.is_empty() {
        at.child("nominatedNodeName").dns_subdomain(nominated);
    }
    let policy = check::text(&spec.restart_policy);
    let sidecar = |name: &str| {
        spec.init_containers
            .iter()
            .flatten()
            .any(|container| container.name == name && api::pod::is_sidecar(container))
    };
    let own_policy = |name: &str| {
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.find(|container| container.name == name)
            .and_then(|container| container.restart_policy.clone())
    };
    let lists = [
        ("containerStatuses", &status.container_statuses, &was.container_statuses),
        ("initContainerStatuses", &status.init_container_statuses, &was.init_container_statuses),
    ];
    for (field, new, old) in lists {
        for (index, container) in old.iter().flatten().enumerate() {
            let policy = own_policy(&container.name).unwrap_or_else(|| policy.to_owned());
            let stays = ended(container)
                .is_some_and(|code| policy == "Never" || (code == 0 && policy == "OnFailure"));
            let mut now = new.iter().flatten();
            let restarted = now.any(|new| new.name == container.name && ended(new).is_none());
            if stays && restarted && !sidecar(&container.name) {
                at.item(field, index)
                    .child("state")
                    .forbidden("may not be transitioned to non-terminated state");
            }
        }
    }
    for (index, ip) in status.pod_ips.iter().flatten().enumerate() {
        at.item("podIPs", index).ip(&ip.ip);
    }
    for (index, ip) in status.host_ips.iter().flatten().enumerate() {
        at.item("hostIPs", index).ip(&ip.ip);
    }
}

fn ended(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}
