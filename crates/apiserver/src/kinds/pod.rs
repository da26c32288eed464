//! Pods.

mod columns;
mod update;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Context;
use super::pod_spec::{defaults, label_keys, validate, warnings};
use super::table::{Parts, Rows};

pub static RULES: Rows<Pod> = Rows {
    default,
    parts: Parts {
        // Admission adds volumes, tolerations and the service account, which get their defaults here.
        create: |pod, context| {
            default(pod);
            let spec = pod.spec.get_or_insert_default();
            label_keys::merge(spec, pod.metadata.labels.as_ref());
            let gated = spec.scheduling_gates.iter().flatten().next().is_some();
            let condition = PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("SchedulingGated".to_owned()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                last_transition_time: Some(Time(context.now)),
                ..PodCondition::default()
            };
            pod.status = Some(PodStatus {
                phase: Some("Pending".to_owned()),
                qos_class: Some(api::pod::qos_class(spec).to_owned()),
                conditions: gated.then(|| vec![condition]),
                ..PodStatus::default()
            });
        },
        update: keep,
        status: |new, old, context| {
            if context.subresource != "status" {
                return keep(new, old, context);
            }
            new.spec.clone_from(&old.spec);
            new.metadata.owner_references.clone_from(&old.metadata.owner_references);
            let was = old.status.as_ref();
            let status = new.status.get_or_insert_default();
            if status.qos_class.is_none() {
                status.qos_class = was.and_then(|status| status.qos_class.clone());
            }
            if status.observed_generation.is_none() {
                status.observed_generation = was.and_then(|status| status.observed_generation);
            }
        },
    },
    judge: |pod, at| {
        let Some(spec) = &pod.spec else { return };
        validate::spec(spec, true, &at.child("spec"));
        let gated = spec.scheduling_gates.iter().flatten().next().is_some();
        if gated && api::pod::node_name(pod).is_some() {
            at.child("spec.nodeName")
                .forbidden("cannot be set until all schedulingGates have been cleared");
        }
    },
    create: |pod, at| {
        let ephemeral = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref());
        if ephemeral.is_some_and(|all| !all.is_empty()) {
            at.child("spec.ephemeralContainers").forbidden("cannot be set on create");
        }
    },
    update: update::spec,
    status_update: |new, old, _, at| update::status(new, old, at),
    generation: |new, old| Some(new.spec != old.spec),
    // On creates only: users seldom update pods themselves.
    warnings: |pod, old| {
        let (None, Some(spec)) = (old, &pod.spec) else {
            return Vec::new();
        };
        let name = warnings::name(&pod.metadata, "the Pod's hostname");
        name.into_iter().chain(warnings::pod(spec, &pod.metadata)).collect()
    },
    // None for a pod that no kubelet has to stop: not bound, or terminated.
    grace_seconds: |pod| {
        if api::pod::node_name(pod).is_none() || api::pod::is_terminal(pod) {
            return None;
        }
        let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Some(seconds.unwrap_or(0)).map(|seconds| if seconds < 0 { 1 } else { seconds })
    },
    columns: columns::COLUMNS,
    ..Rows::NEW
};

fn default(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    defaults::spec(spec);
    defaults::pod(spec);
}

/// Restores what an update of the pod, or of a subresource, does not change.
fn keep(new: &mut Pod, old: &Pod, context: &Context<'_>) {
    match context.subresource {
        "ephemeralcontainers" => keep_all_but_ephemeral_containers(new, old),
        "resize" => keep_all_but_resources(new, old),
        _ => {}
    }
    new.status.clone_from(&old.status);
}

fn keep_all_but_ephemeral_containers(new: &mut Pod, old: &Pod) {
    let containers = new.spec.take().and_then(|spec| spec.ephemeral_containers);
    new.spec.clone_from(&old.spec);
    new.spec.get_or_insert_default().ephemeral_containers = containers;
}

fn keep_all_but_resources(new: &mut Pod, old: &Pod) {
    let Some(asked) = new.spec.take() else { return };
    new.spec.clone_from(&old.spec);
    let spec = new.spec.get_or_insert_default();
    spec.resources = asked.resources;
    let lists = [
        (&mut spec.containers, asked.containers),
        (spec.init_containers.get_or_insert_default(), asked.init_containers.unwrap_or_default()),
    ];
    for (kept, asked) in lists {
        let same = kept.len() == asked.len()
            && kept.iter().zip(&asked).all(|(kept, asked)| kept.name == asked.name);
        if !same {
            // Left for validation to refuse.
            *kept = asked;
            continue;
        }
        for (kept, asked) in kept.iter_mut().zip(asked) {
            kept.resources = asked.resources;
            kept.resize_policy = asked.resize_policy;
        }
    }
    if spec.init_containers.as_ref().is_some_and(Vec::is_empty) {
        spec.init_containers = None;
    }
}
