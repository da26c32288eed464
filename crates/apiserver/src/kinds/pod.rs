//! Pods.

mod columns;
mod update;

use super::path::Path;
use super::pod_spec::validate;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::pod_spec::{defaults, label_keys, warnings};
use super::{Column, Context, Strategy};

/// The strategy of Pods.
pub struct Rules;

impl Strategy for Rules {
    type Object = Pod;

    fn default(&self, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        defaults::spec(spec);
        defaults::pod(spec);
    }

    /// Admission adds volumes, tolerations and the service account, which get their defaults here.
    fn prepare_create(&self, pod: &mut Pod, context: &Context<'_>) {
        Strategy::default(self, pod);
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
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod, context: &Context<'_>) {
        match context.subresource {
            "ephemeralcontainers" => keep_all_but_ephemeral_containers(new, old),
            "resize" => keep_all_but_resources(new, old),
            _ => {}
        }
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Pod, old: &Pod, context: &Context<'_>) {
        if context.subresource != "status" {
            return Strategy::prepare_update(self, new, old, context);
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
    }

    fn generation_changes(&self, new: &Pod, old: &Pod) -> Option<bool> {
        Some(new.spec != old.spec)
    }

    /// None for a pod that no kubelet has to stop: not bound, or terminated.
    fn default_grace_seconds(&self, pod: &Pod) -> Option<i64> {
        if api::pod::node_name(pod).is_none() || api::pod::is_terminal(pod) {
            return None;
        }
        let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Some(seconds.unwrap_or(0)).map(|seconds| if seconds < 0 { 1 } else { seconds })
    }

    /// On creates only: users seldom update pods themselves.
    fn warnings(&self, pod: &Pod, old: Option<&Pod>) -> Vec<String> {
        let (None, Some(spec)) = (old, &pod.spec) else {
            return Vec::new();
        };
        let name = warnings::name(&pod.metadata, "the Pod's hostname");
        name.into_iter().chain(warnings::pod(spec, &pod.metadata)).collect()
    }

    fn validate(&self, pod: &Pod) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Some(spec) = &pod.spec else { return errors };
        validate::spec(spec, true, &Path::new("spec"), &mut errors);
        let gated = spec.scheduling_gates.iter().flatten().next().is_some();
        if gated && api::pod::node_name(pod).is_some() {
            let problem = "cannot be set until all schedulingGates have been cleared";
            errors.push(FieldError::forbidden("spec.nodeName", problem));
        }
        errors
    }

    fn validate_create(&self, pod: &Pod) -> Vec<FieldError> {
        let ephemeral = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref());
        if ephemeral.is_none_or(Vec::is_empty) {
            return Vec::new();
        }
        let problem = "cannot be set on create";
        vec![FieldError::forbidden("spec.ephemeralContainers", problem)]
    }

    fn validate_update(&self, new: &Pod, old: &Pod) -> Vec<FieldError> {
        let mut errors = Vec::new();
        update::spec(new, old, &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod) -> Vec<FieldError> {
        let mut errors = Vec::new();
        update::status(new, old, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        columns::cells(pod, now)
    }
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
