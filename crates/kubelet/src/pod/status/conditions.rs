//! Pod conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole;
use crate::pod::declared::{Declared, Role};
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::pod_ext::PodExt;

/// The conditions that the kubelet owns. All others are preserved.
const OWN: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
];

/// Updates the conditions of a pod whose network was torn down.
pub(super) fn sandbox_gone(status: &mut PodStatus, now: Timestamp) {
    let mut conditions = status.conditions.iter_mut().flatten();
    let found = conditions.find(|one| one.type_ == OWN[0] && one.status == "True");
    if let Some(condition) = found {
        condition.status = "False".to_owned();
        condition.last_transition_time = Some(Time(whole(now)));
    }
}

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn no(reason: Option<&'static str>, message: Option<String>) -> Self {
        Self { holds: false, reason, message }
    }
}

pub(super) fn conditions(
    observed: &Observed,
    status: &PodStatus,
    before: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let foreign = observed.pod.status_ref().conditions.iter().flatten();
    let mut conditions: Vec<PodCondition> = foreign
        .filter(|condition| !OWN[..5].contains(&condition.type_.as_str()))
        .cloned()
        .collect();
    let phase = status.phase.as_deref().unwrap_or_default();
    let containers = containers_ready(observed, phase);
    let ready = ready(observed, &containers, &conditions);
    let sandbox = observed.state.sandbox.is_some() && !observed.state.torn_down;
    let own = [
        (
            "PodReadyToStartContainers",
            if sandbox { Verdict::yes() } else { Verdict::no(None, None) },
        ),
        ("Initialized", initialized(observed, phase)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::yes()),
    ];
    for (type_, verdict) in own {
        conditions.push(condition(type_, verdict, observed.pod.metadata.generation, before, now));
    }
    let eviction = observed.state.eviction.as_ref();
    if let Some(disruption) = eviction.and_then(|eviction| eviction.disruption.clone())
        && !conditions.iter().any(|one| one.type_ == "DisruptionTarget")
    {
        let verdict = Verdict {
            holds: true,
            reason: Some("TerminationByKubelet"),
            message: Some(disruption),
        };
        conditions.push(condition(
            "DisruptionTarget",
            verdict,
            observed.pod.metadata.generation,
            before,
            now,
        ));
    }
    conditions
}

fn condition(
    type_: &str,
    verdict: Verdict,
    generation: Option<i64>,
    before: &PodStatus,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let since = before
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == type_ && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: since.or(Some(Time(whole(now)))),
        observed_generation: generation,
        ..Default::default()
    }
}

fn names(list: &[&Declared]) -> String {
    let names: Vec<&str> = list.iter().map(|declared| declared.name()).collect();
    format!("[{}]", names.join(" "))
}

fn initialized(observed: &Observed, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::yes() };
    }
    let begun = super::begun(observed);
    let incomplete: Vec<&Declared> = observed
        .declared
        .iter()
        .filter(|declared| match declared.role {
            Role::Init => {
                !begun
                    && !matches!(
                        observed.latest(declared.name()).and_then(|one| one.exit()),
                        Some((0, _))
                    )
            }
            Role::Sidecar => !begun && !observed.started(declared),
            _ => false,
        })
        .collect();
    if incomplete.is_empty() {
        Verdict::yes()
    } else {
        let message = format!("containers with incomplete status: {}", names(&incomplete));
        Verdict::no(Some("ContainersNotInitialized"), Some(message))
    }
}

fn containers_ready(observed: &Observed, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no(Some("PodCompleted"), None),
        "Failed" => return Verdict::no(Some("PodFailed"), None),
        _ => {}
    }
    let unready: Vec<&Declared> = observed
        .declared
        .iter()
        .filter(|declared| matches!(declared.role, Role::App | Role::Sidecar))
        .filter(|declared| !observed.ready(declared))
        .collect();
    if unready.is_empty() {
        Verdict::yes()
    } else {
        let message = format!("containers with unready status: {}", names(&unready));
        Verdict::no(Some("ContainersNotReady"), Some(message))
    }
}

fn ready(observed: &Observed, containers: &Verdict, foreign: &[PodCondition]) -> Verdict {
    if !containers.holds {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    for gate in observed.pod.spec_ref().readiness_gates.iter().flatten() {
        let type_ = &gate.condition_type;
        let message = match foreign.iter().find(|one| one.type_ == *type_) {
            Some(one) if one.status == "True" => continue,
            Some(_) => {
                format!("the status of pod readiness gate \"{type_}\" is not \"True\", but False")
            }
            None => {
                format!("corresponding condition of pod readiness gate \"{type_}\" does not exist.")
            }
        };
        return Verdict::no(Some("ReadinessGatesNotReady"), Some(message));
    }
    Verdict::yes()
}
