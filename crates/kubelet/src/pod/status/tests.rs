use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, Pod, PodCondition, PodReadinessGate, PodSpec, PodStatus, Probe, ResourceStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::containers::{
    ContainerExit, ContainerId, ContainerState, ContainerStatus, ExitReason, PodSandbox,
};
use crate::pod::admission::Rejection;
use crate::pod::declared::declared;
use crate::pod::plan::plan;
use crate::pod::worker::state::{Eviction, ReadySandbox, WorkerState};
use crate::probe::ProbeView;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn observed(spec: PodSpec) -> Observed {
    let pod = Pod { spec: Some(spec), ..Default::default() };
    Observed {
        declared: declared(&pod),
        pod: Arc::new(pod),
        vanished: false,
        containers: Vec::new(),
        state: WorkerState::default(),
        network_available: true,
        host_ips: vec!["10.0.0.1".parse().unwrap()],
    }
}

fn one(policy: &str) -> PodSpec {
    PodSpec {
        restart_policy: Some(policy.into()),
        containers: vec![Container { name: "a".into(), ..Default::default() }],
        ..Default::default()
    }
}

fn container(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: ContainerId(format!("{name}-{attempt}")),
        pod: Default::default(),
        name: name.into(),
        attempt,
        spec_hash: String::new(),
        image: String::new(),
        image_id: "sha256:1".into(),
        image_ref: "image@sha256:2".into(),
        annotations: Default::default(),
        created_at: at(0),
        state,
        log_path: "/log".into(),
        cgroup: Default::default(),
        user: Default::default(),
        tty: false,
        stdin: false,
        stdin_once: false,
        stop_signal: 15,
    }
}

fn running(name: &str, attempt: u32) -> ContainerStatus {
    container(name, attempt, ContainerState::Running { pid: 1, started_at: at(0) })
}

fn exited(name: &str, attempt: u32, exit_code: i32) -> ContainerStatus {
    let exit = ContainerExit {
        exit_code,
        started_at: Some(at(0)),
        finished_at: at(1),
        reason: if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error },
        message: String::new(),
    };
    container(name, attempt, ContainerState::Exited(exit))
}

fn compute(observed: &Observed, before: &PodStatus, seconds: i64) -> PodStatus {
    let now = at(seconds);
    status(observed, &plan(observed, now), before, now)
}

fn holds(status: &PodStatus, type_: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|condition| condition.type_ == type_)
        .is_some_and(|condition| condition.status == "True")
}

fn phase_of(here: &Observed) -> String {
    compute(here, &PodStatus::default(), 2).phase.unwrap_or_default()
}

#[test]
fn phases() {
    let mut here = observed(one("Always"));
    assert_eq!(phase_of(&here), "Pending");
    here.containers = vec![running("a", 0)];
    assert_eq!(phase_of(&here), "Running");
    here.containers = vec![exited("a", 0, 1)];
    assert_eq!(phase_of(&here), "Running", "it will be restarted");
    for (policy, code, expected) in [
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 3, "Running"),
    ] {
        let mut here = observed(one(policy));
        here.containers = vec![exited("a", 0, code)];
        assert_eq!(phase_of(&here), expected, "{policy} {code}");
    }
}

/// Kubernetes' rule: a pod is Pending until each of its containers has run once.
#[test]
fn a_pod_is_pending_until_all_of_it_has_run() {
    let mut spec = one("Always");
    spec.containers.push(Container { name: "b".into(), ..Default::default() });
    spec.init_containers = Some(vec![Container {
        name: "s".into(),
        restart_policy: Some("Always".into()),
        ..Default::default()
    }]);
    let mut here = observed(spec);
    here.containers = vec![running("s", 0)];
    assert_eq!(phase_of(&here), "Pending");
    here.containers.push(running("a", 0));
    assert_eq!(phase_of(&here), "Pending");
    here.containers.push(container("b", 0, ContainerState::Created));
    assert_eq!(phase_of(&here), "Pending");
    here.containers[2] = exited("b", 0, 128);
    assert_eq!(phase_of(&here), "Running");
}

#[test]
fn termination_messages_share_a_limit() {
    let mut spec = one("Always");
    let others =
        (0..11).map(|number| Container { name: format!("c{number}"), ..Default::default() });
    spec.containers.extend(others);
    let mut here = observed(spec);
    let mut ended = exited("a", 0, 1);
    if let ContainerState::Exited(exit) = &mut ended.state {
        exit.message = "ä".repeat(2000);
    }
    here.containers = vec![ended];
    let status = compute(&here, &PodStatus::default(), 1);
    let state = status.container_statuses.unwrap()[0].state.clone();
    let message = state.unwrap().terminated.unwrap().message.unwrap();
    assert_eq!(message.len(), 1024);
}

#[test]
fn a_pod_is_pending_while_it_initializes_and_fails_with_its_init_container() {
    let mut spec = one("Never");
    spec.init_containers = Some(vec![Container { name: "i".into(), ..Default::default() }]);
    let mut here = observed(spec);
    here.containers = vec![running("i", 0)];
    let status = compute(&here, &PodStatus::default(), 1);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert!(!holds(&status, "Initialized"));
    let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
    here.containers = vec![exited("i", 0, 1)];
    assert_eq!(phase_of(&here), "Failed");
}

#[test]
fn a_deleted_pods_phase_depends_on_its_containers() {
    let mut here = observed(one("Always"));
    let mut pod = (*here.pod).clone();
    pod.metadata.deletion_timestamp = Some(Time(at(0)));
    here.pod = Arc::new(pod);
    here.containers = vec![exited("a", 0, 0)];
    assert_eq!(phase_of(&here), "Succeeded");
    here.containers = vec![exited("a", 0, 143)];
    assert_eq!(phase_of(&here), "Failed");
}

#[test]
fn an_evicted_pod_has_reason_and_message() {
    let mut here = observed(one("Always"));
    here.state.eviction = Some(Eviction::evicted("The node was low on resource: memory. ".into()));
    here.containers = vec![running("a", 0)];
    let status = compute(&here, &PodStatus::default(), 1);
    assert_eq!((status.phase.as_deref(), status.reason), (Some("Running"), None));
    here.containers = vec![exited("a", 0, 137)];
    let status = compute(&here, &PodStatus::default(), 1);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert!(holds(&status, "DisruptionTarget"));
}

#[test]
fn a_preempted_pod_was_disrupted_and_a_rejected_one_was_not() {
    let rejection = Rejection { reason: "OutOfcpu".into(), message: "too much".into() };
    for (eviction, reason, message, disruption) in [
        (
            Eviction::preempted(30),
            "Preempting",
            "Preempted in order to admit critical pod",
            Some("Pod was preempted by Kubelet to accommodate a critical pod."),
        ),
        (Eviction::rejected(rejection), "OutOfcpu", "Pod was rejected: too much", None),
    ] {
        let mut here = observed(one("Always"));
        here.state.eviction = Some(eviction);
        here.containers = vec![exited("a", 0, 137)];
        let status = compute(&here, &PodStatus::default(), 1);
        assert_eq!(status.reason.as_deref(), Some(reason));
        assert_eq!(status.message.as_deref(), Some(message));
        let mut conditions = status.conditions.iter().flatten();
        let found = conditions.find(|condition| condition.type_ == "DisruptionTarget");
        assert_eq!(found.and_then(|found| found.message.as_deref()), disruption);
        assert!(found.is_none_or(|found| found.reason.as_deref() == Some("TerminationByKubelet")));
    }
}

/// From the sandbox with its network, until that is torn down; before all others of the kubelet's.
#[test]
fn containers_can_be_started_while_there_is_a_sandbox() {
    const READY: &str = "PodReadyToStartContainers";
    let mut here = observed(one("Always"));
    let status = compute(&here, &PodStatus::default(), 1);
    let types: Vec<String> =
        status.conditions.iter().flatten().map(|condition| condition.type_.clone()).collect();
    assert_eq!(types, [READY, "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
    assert!(!holds(&status, READY));
    here.state.sandbox = Some(ReadySandbox { sandbox: PodSandbox::default(), ips: vec![] });
    assert!(holds(&compute(&here, &status, 2), READY));
    here.state.torn_down = true;
    assert!(!holds(&compute(&here, &status, 3), READY));
}

#[test]
fn the_health_of_devices_is_in_the_status() {
    let mut here = observed(one("Always"));
    let gpu = ResourceStatus { name: "example.com/gpu".into(), ..Default::default() };
    here.state.devices.insert("a".into(), vec![gpu.clone()]);
    for containers in [vec![], vec![running("a", 0)]] {
        here.containers = containers;
        let status = compute(&here, &PodStatus::default(), 1);
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!(container.allocated_resources_status, Some(vec![gpu.clone()]));
    }
}

#[test]
fn restarts_and_last_states() {
    let mut here = observed(one("Always"));
    here.containers = vec![exited("a", 3, 1), running("a", 4)];
    let status = compute(&here, &PodStatus::default(), 1);
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.restart_count, 4);
    assert_eq!(container.container_id.as_deref(), Some("containerd://a-4"));
    assert!(container.state.as_ref().unwrap().running.is_some());
    let last = container.last_state.as_ref().unwrap();
    assert_eq!(last.terminated.as_ref().unwrap().exit_code, 1);
}

#[test]
fn readiness_by_probe_and_by_gate() {
    let mut spec = one("Always");
    spec.containers[0].readiness_probe = Some(Probe::default());
    spec.readiness_gates = Some(vec![PodReadinessGate { condition_type: "example.com/ok".into() }]);
    let mut here = observed(spec);
    here.containers = vec![running("a", 0)];
    let status = compute(&here, &PodStatus::default(), 1);
    assert!(!holds(&status, "ContainersReady") && !holds(&status, "Ready"));
    let passed = ProbeView { readiness: Some(true), ..Default::default() };
    here.state.probes.insert(ContainerId("a-0".into()), passed);
    let status = compute(&here, &status, 2);
    assert!(holds(&status, "ContainersReady") && !holds(&status, "Ready"));
    let mut pod = (*here.pod).clone();
    pod.status = Some(PodStatus {
        conditions: Some(vec![PodCondition {
            type_: "example.com/ok".into(),
            status: "True".into(),
            ..Default::default()
        }]),
        ..Default::default()
    });
    here.pod = Arc::new(pod);
    let status = compute(&here, &status, 3);
    assert!(holds(&status, "Ready") && holds(&status, "example.com/ok"));
}

#[test]
fn an_unchanged_pod_has_an_unchanged_status() {
    let mut here = observed(one("Always"));
    here.containers = vec![running("a", 0)];
    let first = compute(&here, &PodStatus::default(), 5);
    assert_eq!(compute(&here, &first, 500), first);
}

/// Whoever writes that a pod has failed: the kubelet never writes that it has not.
#[test]
fn a_terminal_phase_is_never_left() {
    let terminal = |phase: &str| PodStatus {
        phase: Some(phase.into()),
        reason: Some("Chaos".into()),
        ..Default::default()
    };
    for phase in ["Failed", "Succeeded"] {
        let mut here = observed(one("Always"));
        here.containers = vec![running("a", 0)];
        let mut reported = compute(&here, &PodStatus::default(), 1);
        assert_eq!(reported.phase.as_deref(), Some("Running"));
        // Written by somebody else, over what this kubelet has reported.
        let written = PodStatus { phase: Some(phase.into()), ..reported.clone() };
        let mut pod = (*here.pod).clone();
        pod.status = Some(PodStatus { reason: Some("Chaos".into()), ..written });
        here.pod = Arc::new(pod);
        for containers in [vec![running("a", 0)], vec![exited("a", 0, 137)], vec![]] {
            let stopped = containers.first().is_some_and(|one| one.exit().is_some());
            here.containers = containers;
            let status = compute(&here, &reported, 2);
            assert_eq!(status.phase.as_deref(), Some(phase));
            assert_eq!(status.reason.as_deref(), Some("Chaos"));
            if stopped {
                let container = &status.container_statuses.as_ref().unwrap()[0];
                let state = container.state.as_ref().unwrap();
                assert_eq!(state.terminated.as_ref().unwrap().exit_code, 137);
                assert!(!holds(&status, "Ready") && !holds(&status, "ContainersReady"));
                let mut pod = (*here.pod).clone();
                pod.status = Some(status.clone());
                here.pod = Arc::new(pod);
                assert_eq!(compute(&here, &status, 500), status, "it does not change again");
            }
            reported = status;
        }
        // Even if somebody takes it back.
        let mut here = observed(one("Always"));
        here.state.terminal = Some(Arc::new(terminal(phase)));
        here.containers = vec![exited("a", 0, 0)];
        assert_eq!(compute(&here, &PodStatus::default(), 3).phase.as_deref(), Some(phase));
    }
}
