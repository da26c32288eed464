//! A Deployment's status: counts and the conditions that `kubectl rollout status` reads
//! (`k8s.io/kubernetes/pkg/controller/deployment/{sync,progress}.go`).

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::sets::{actual, available, ready, replicas, size, surge_and_unavailable};

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The condition of a type.
pub fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_.as_deref() == Some(type_))
}

/// Sets a condition. With the same status and reason nothing changes, not even the times.
pub fn set_condition(
    status: &mut DeploymentStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let current = find(status, type_);
    if current.is_some_and(|current| {
        current.status.as_deref() == Some(value) && current.reason.as_deref() == Some(reason)
    }) {
        return;
    }
    let transition = current
        .filter(|current| current.status.as_deref() == Some(value))
        .and_then(|current| current.last_transition_time.clone())
        .unwrap_or(Time(now));
    remove(status, type_);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: Some(type_.into()),
        status: Some(value.into()),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(transition),
    });
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(type_));
    }
}

/// Seconds without progress after which a rollout has timed out.
pub fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.progress_deadline_seconds;
    seconds.filter(|seconds| *seconds != i32::MAX)
}

/// The counts, the condition Available, and the failures of the sets.
pub fn counts(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: fn(&ReplicaSet) -> i32| all.iter().map(|set| of(set)).sum::<i32>();
    let ready_now = sum(ready);
    let available_now = sum(available);
    let terminating = |set: &ReplicaSet| {
        let status = set.status.as_ref();
        status.and_then(|status| status.terminating_replicas).unwrap_or(0)
    };
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(actual)),
        updated_replicas: Some(new.map_or(0, actual)),
        ready_replicas: Some(ready_now),
        available_replicas: Some(available_now),
        unavailable_replicas: Some((sum(size) - available_now).max(0)),
        terminating_replicas: Some(sum(terminating)),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let (_, unavailable) = surge_and_unavailable(deployment);
    let (value, reason, message) = if available_now >= replicas(deployment) - unavailable {
        ("True", "MinimumReplicasAvailable", "has")
    } else {
        ("False", "MinimumReplicasUnavailable", "does not have")
    };
    let message = format!("Deployment {message} minimum availability.");
    set_condition(&mut status, AVAILABLE, value, reason, message, now);
    let failure = new.into_iter().chain(all.iter().map(|set| &**set)).find_map(failure_of);
    match failure {
        None => remove(&mut status, REPLICA_FAILURE),
        Some((reason, message)) => {
            set_condition(&mut status, REPLICA_FAILURE, "True", &reason, message, now);
        }
    }
    status
}

fn failure_of(set: &ReplicaSet) -> Option<(String, String)> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|condition| {
        condition.type_.as_deref() == Some(REPLICA_FAILURE)
            && condition.status.as_deref() == Some("True")
    })?;
    Some((failure.reason.clone().unwrap_or_default(), failure.message.clone().unwrap_or_default()))
}

/// Whether all pods are updated and available, and there are no others.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(replicas(deployment));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |value: Option<i32>| value.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// When a rollout that makes no progress times out; `None`: never.
fn times_out_at(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let seconds = deadline(deployment)?;
    let condition = find(status, PROGRESSING)?;
    if condition.reason.as_deref() == Some(NEW_SET_AVAILABLE) {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// Updates the condition Progressing of a rollout in progress.
pub fn progress(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    if deadline(deployment).is_none() {
        remove(status, PROGRESSING);
        return;
    }
    let old = deployment.status.clone().unwrap_or_default();
    let current = find(&old, PROGRESSING);
    let finished_before = status.replicas == status.updated_replicas
        && current.and_then(|current| current.reason.as_deref()) == Some(NEW_SET_AVAILABLE);
    if finished_before {
        return;
    }
    let what = match new.and_then(|set| set.metadata.name.as_deref()) {
        Some(set) => format!("ReplicaSet {set:?}"),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, status) {
        let message = format!("{what} has successfully progressed.");
        set_condition(status, PROGRESSING, "True", NEW_SET_AVAILABLE, message, now);
    } else if is_progressing(&old, status) {
        // Every step updates the time: the deadline counts from the latest one.
        let transition = current
            .filter(|current| current.status.as_deref() == Some("True"))
            .and_then(|current| current.last_transition_time.clone());
        remove(status, PROGRESSING);
        let message = format!("{what} is progressing.");
        set_condition(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(condition) = status.conditions.iter_mut().flatten().last() {
            condition.last_transition_time = transition.or(Some(Time(now)));
        }
    } else if times_out_at(deployment, status).is_some_and(|at| at <= now) {
        let message = format!("{what} has timed out progressing.");
        set_condition(status, PROGRESSING, "False", TIMED_OUT, message, now);
    }
}

/// Records a pause or a resumption in the condition Progressing.
pub fn mark_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.clone());
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let marked = reason.as_deref() == Some(PAUSED);
    let (reason, message) = match (deployment.spec.paused == Some(true), marked) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    set_condition(status, PROGRESSING, "Unknown", reason, message.into(), now);
}

/// How long until the rollout may time out.
pub fn timeout_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if reason == Some(TIMED_OUT) || is_complete(deployment, status) {
        return None;
    }
    let at = times_out_at(deployment, status)?;
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait + Duration::from_millis(10))
}
