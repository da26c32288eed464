//! A Job's pods: the tracking finalizer, completion indexes, finish times.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use crate::machinery::owner;
use crate::machinery::pod_control;
use crate::machinery::pod_state;

/// Finalizer of every pod until its termination has been counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub fn is_tracked(pod: &Pod) -> bool {
    let mut finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == TRACKING)
}

/// The pod's completion index; `None`: it has none.
pub fn index(pod: &Pod) -> Option<i32> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(INDEX)?.parse().ok()
}

/// How often the pod's index had failed when the pod was created.
pub fn failures_before(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(FAILURE_COUNT))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// When a pod finished: when its last container did, or else the best approximation.
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let ends = containers.filter_map(|container| {
        let state = container.state.as_ref()?.terminated.as_ref()?;
        state.finished_at.as_ref().map(|time| time.0)
    });
    let condition = pod_state::condition(pod, "Ready");
    let condition = condition.and_then(|condition| condition.last_transition_time.as_ref());
    let deleted = pod.metadata.deletion_timestamp.as_ref();
    let created = pod.metadata.creation_timestamp.as_ref();
    ends.max().or_else(|| condition.or(deleted).or(created).map(|time| time.0))
}

/// A new pod of the Job. `failures`: how often its index has failed, if failures count per index.
pub fn new(job: &Job, index: Option<i32>, failures: Option<i32>) -> Option<Pod> {
    let spec = job.spec.as_ref()?;
    let name = job.metadata.name.clone().unwrap_or_default();
    let prefix = index.map_or_else(|| name.clone(), |index| format!("{name}-{index}"));
    let mut pod = pod_control::from_template(
        &spec.template,
        job.metadata.namespace.as_deref().unwrap_or_default(),
        &prefix,
        owner::reference(job),
    );
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    finalizers.push(TRACKING.into());
    if let Some(index) = index {
        let text = index.to_string();
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(INDEX.into(), text.clone());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.into(), text);
        if let Some(failures) = failures {
            annotations.insert(FAILURE_COUNT.into(), failures.to_string());
        }
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(format!("{name}-{index}"));
        let init = spec.init_containers.iter_mut().flatten();
        for container in spec.containers.iter_mut().chain(init) {
            let variables = container.env.get_or_insert_default();
            if !variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
                variables.push(index_variable());
            }
        }
    }
    Some(pod)
}

fn index_variable() -> EnvVar {
    EnvVar {
        name: INDEX_VARIABLE.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.annotations['{INDEX}']"),
            }),
            ..Default::default()
        }),
    }
}
