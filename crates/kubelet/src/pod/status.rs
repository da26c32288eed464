//! The status of a pod, computed from what is observed: pure.
//!
//! Nothing is accumulated over time: restart counts are the attempt numbers in the container layer,
//! the last state is the attempt before. The status reported before is used for three things only:
//! times of unchanged conditions, the start time, and conditions that belong to others.

mod conditions;
mod containers;
#[cfg(test)]
mod tests;
mod write;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use containers::{MESSAGE_FILE_BYTES, MESSAGE_LOG_BYTES, MESSAGE_LOG_LINES, message_file};
pub use write::{Written, patch, write};

use super::admission::REJECTED;
use super::declared::{Declared, Role};
use super::observed::{ContainerStatusExt, Observed};
use super::plan::{Lifecycle, Plan, completed, lifecycle};
use super::pod_ext::PodExt;
use super::qos;
use super::worker::state::Work;

/// Computes the status. `before` is what was reported last (or what the apiserver has).
pub fn status(observed: &Observed, plan: &Plan, before: &PodStatus, now: Timestamp) -> PodStatus {
    let pod = &observed.pod;
    if observed.state.removed {
        return before.clone();
    }
    // The apiserver's word counts for more than what was reported last: whoever has written there
    // that the pod has failed, it does not run again.
    let terminal =
        |status: &&PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let known = [Some(pod.status_ref()), observed.state.terminal.as_deref(), Some(before)];
    if let Some(known) = known.into_iter().flatten().find(terminal) {
        return ended(observed, plan, known, now);
    }
    let mut outcome = None;
    if let Lifecycle::Terminate(termination) = lifecycle(observed, now) {
        outcome = termination.outcome;
    }
    let phase = phase(observed, outcome.is_some(), now);
    let (reason, message) = match (&outcome, phase) {
        (Some((reason, message)), "Failed") => (Some(reason.clone()), Some(message.clone())),
        _ => (None, None),
    };
    let ips =
        observed.state.sandbox.as_ref().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
    let of_role = |roles: &[Role]| {
        let all: Vec<_> = observed
            .declared
            .iter()
            .filter(|one| roles.contains(&one.role))
            .map(|one| containers::container_status(observed, plan, before, one))
            .collect();
        (!all.is_empty()).then_some(all)
    };
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        host_ip: observed.host_ips.first().map(ToString::to_string),
        host_ips: Some(observed.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: ips.first().map(ToString::to_string).or(before.pod_ip.clone()),
        pod_ips: if ips.is_empty() {
            before.pod_ips.clone()
        } else {
            Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect())
        },
        start_time: before.start_time.clone().or(Some(Time(whole(now)))),
        init_container_statuses: of_role(&[Role::Init, Role::Sidecar]),
        container_statuses: of_role(&[Role::App]),
        ephemeral_container_statuses: of_role(&[Role::Ephemeral]),
        qos_class: Some(qos::name(pod).to_owned()),
        observed_generation: pod.metadata.generation,
        nominated_node_name: before.nominated_node_name.clone(),
        resize: before.resize.clone(),
        resource_claim_statuses: before.resource_claim_statuses.clone(),
        ..Default::default()
    };
    // Nothing of a rejected pod was ever started: its containers are not waiting.
    let refused = |message: &String| message.starts_with(REJECTED);
    if status.message.as_ref().is_some_and(refused) {
        status.init_container_statuses = None;
        status.container_statuses = None;
    }
    status.conditions = Some(conditions::conditions(observed, &status, before, now));
    status
}

/// The status of a pod in a terminal phase. It does not change, as its containers may be gone by
/// now, but for containers that still ran when the phase was written.
fn ended(observed: &Observed, plan: &Plan, known: &PodStatus, now: Timestamp) -> PodStatus {
    let mut status = known.clone();
    let mut changed = false;
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for one in lists.into_iter().flatten().flatten() {
        let ran = one.state.as_ref().is_none_or(|state| state.terminated.is_none());
        let declared = observed.declared.iter().find(|declared| declared.name() == one.name);
        let exited = observed.latest(&one.name).is_some_and(|latest| latest.exit().is_some());
        if let Some(declared) = declared.filter(|_| ran && exited) {
            *one = containers::container_status(observed, plan, known, declared);
            changed = true;
        }
    }
    if changed {
        status.conditions = Some(conditions::conditions(observed, &status, known, now));
    }
    if observed.state.torn_down {
        conditions::sandbox_gone(&mut status, now);
    }
    status
}

/// Kubernetes' times are in whole seconds.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn phase(observed: &Observed, has_failed: bool, now: Timestamp) -> &'static str {
    let ends = matches!(lifecycle(observed, now), Lifecycle::Terminate(_));
    // Pending until each container has run once.
    let waits =
        observed.declared.iter().any(|one| one.role == Role::App && !observed.has_run(one.name()));
    if observed.any_running() {
        return if waits { "Pending" } else { "Running" };
    }
    if ends && !observed.state.in_flight.iter().any(|work| matches!(work, Work::Start(_))) {
        let failed = has_failed || observed.declared.iter().any(|one| ended_badly(observed, one));
        let never = observed.containers.is_empty() && !has_failed;
        return match (never, failed) {
            (true, _) => before_start(observed),
            (false, true) => "Failed",
            (false, false) => "Succeeded",
        };
    }
    if waits { "Pending" } else { "Running" }
}

/// Whether a pod is deleted before any container of it was created.
fn before_start(observed: &Observed) -> &'static str {
    if observed.pod.deletion_deadline().is_some() { "Failed" } else { "Pending" }
}

/// Whether a container that is not an init container has been created.
fn begun(observed: &Observed) -> bool {
    observed
        .declared
        .iter()
        .any(|one| one.role == Role::App && observed.latest(one.name()).is_some())
}

fn ended_badly(observed: &Observed, declared: &Declared) -> bool {
    let code = observed
        .latest(declared.name())
        .and_then(|container| container.exit())
        .map(|(code, _)| code);
    match declared.role {
        // A pod that is deleted before all of its containers have run has not succeeded.
        Role::App => code != Some(0),
        Role::Init => {
            code.is_some_and(|code| code != 0) && (completed(observed) || !begun(observed))
        }
        Role::Sidecar | Role::Ephemeral => false,
    }
}
