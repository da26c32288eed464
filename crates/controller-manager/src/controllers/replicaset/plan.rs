//! The next step of a ReplicaSet or ReplicationController: a pure function.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

use super::replicated::Status;
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_control;
use crate::machinery::pod_ranking::rank_for_deletion;
use crate::machinery::pod_state::{available_at, is_active, is_available, is_ready};

/// Maximum number of pods that one plan creates or deletes.
pub const BURST: usize = 500;

#[derive(Debug)]
pub struct Observed<'a> {
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub generation: Option<i64>,
    pub deleting: bool,
    pub template: Option<&'a PodTemplateSpec>,
    pub status: Status,
    pub reports_terminating: bool,
    /// The pods that the set controls, including adopted ones.
    pub pods: Vec<Arc<Pod>>,
    /// Active pods by node, of all sets with the same controller.
    pub per_node: HashMap<String, usize>,
    /// Whether `pods` reflects everything that was written before.
    pub expectations_met: bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    /// The observed counts; `apply` sets the failure if this attempt fails.
    pub status: Status,
    /// How long until the next ready pod becomes available.
    pub requeue_after: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let mut active: Vec<Arc<Pod>> = Vec::new();
    active.extend(observed.pods.iter().filter(|pod| is_active(pod)).cloned());
    let status = counts(observed, &active, now);
    let mut plan = Plan {
        requeue_after: next_availability(&active, observed.min_ready_seconds, now),
        status,
        ..Default::default()
    };
    if !observed.expectations_met || observed.deleting {
        return plan;
    }
    // It holds until the number of pods is right, or the next attempt fails too.
    plan.status.failure = None;
    let wanted = usize::try_from(observed.replicas).unwrap_or(0);
    if active.len() < wanted {
        plan.create = (wanted - active.len()).min(BURST);
    } else {
        let surplus = (active.len() - wanted).min(BURST);
        if surplus > 0 && surplus < active.len() {
            rank_for_deletion(&mut active, &observed.per_node, now);
        }
        active.truncate(surplus);
        plan.delete = active;
    }
    plan
}

fn counts(observed: &Observed<'_>, active: &[Arc<Pod>], now: Timestamp) -> Status {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let count = active.iter().filter(|pod| test(pod)).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    };
    let template = observed.template.and_then(|template| template.metadata.as_ref());
    let template_labels = template.and_then(|metadata| metadata.labels.as_ref());
    let carries_template_labels = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        template_labels.is_none_or(|labels| {
            labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
        })
    };
    let terminating = observed.reports_terminating.then(|| {
        let terminating =
            |pod: &&Arc<Pod>| is_deleting(&pod.metadata) && !api::pod::is_terminal(pod);
        i32::try_from(observed.pods.iter().filter(terminating).count()).unwrap_or(i32::MAX)
    });
    Status {
        replicas: count(&|_| true),
        fully_labeled: count(&carries_template_labels),
        ready: count(&is_ready),
        available: count(&|pod| is_available(pod, observed.min_ready_seconds, now)),
        terminating,
        observed_generation: observed.generation,
        failure: observed.status.failure.clone(),
    }
}

fn next_availability(
    active: &[Arc<Pod>],
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    active
        .iter()
        .filter_map(|pod| available_at(pod, min_ready_seconds))
        .filter(|at| *at > now)
        .min()
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
}

/// New pods of the set.
pub fn new_pods<K: super::Replicated>(set: &K, count: usize) -> Vec<Pod> {
    let metadata = set.metadata();
    let Some(template) = set.template() else {
        return Vec::new();
    };
    let pod = pod_control::from_template(
        template,
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        crate::machinery::owner::reference(set),
    );
    vec![pod; count]
}
