//! The Table of pods, with kubectl's well-known STATUS.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, Pod, PodReadinessGate, PodStatus,
};
use serde_json::Value;

use crate::kinds::columns::{or_none, text, wide};
use crate::kinds::human_duration;
use crate::kinds::table::{Shown, age, name};

pub const COLUMNS: &[Shown<Pod>] = &[
    name(),
    text("Ready", "The aggregate readiness state of this pod for accepting traffic.").of(|pod| {
        let summary = Summary::of(pod);
        format!("{}/{}", summary.ready, summary.total).into()
    }),
    text("Status", "The aggregate status of the containers in this pod.")
        .of(|pod| Summary::of(pod).reason.into()),
    text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    )
    .now(|pod, now| Summary::of(pod).restarts_text(now).into()),
    age(),
    wide("IP", "IP address of the pod.")
        .of(|pod| or_none(pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()))),
    wide("Node", "Node that the pod is bound to.").of(|pod| or_none(api::pod::node_name(pod))),
    wide("Nominated Node", "Node that preemption made room on for this pod.").of(|pod| {
        or_none(pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()))
    }),
    wide("Readiness Gates", "How many of the pod's readiness gates are open.").of(readiness_gates),
];

fn readiness_gates(pod: &Pod) -> Value {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref());
    let gates = gates.unwrap_or_default();
    let is_open = |gate: &&PodReadinessGate| api::pod::condition_is_true(pod, &gate.condition_type);
    let text = format!("{}/{}", gates.iter().filter(is_open).count(), gates.len());
    or_none((!gates.is_empty()).then_some(&text))
}

/// The state of the containers in sum.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Pod) -> Self {
        let none = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&none);
        let reason = status.reason.as_deref().filter(|reason| !reason.is_empty());
        let mut summary = Self {
            ready: 0,
            total: pod.spec.as_ref().map_or(0, |spec| spec.containers.len()),
            reason: reason.or(status.phase.as_deref()).unwrap_or_default().to_owned(),
            restarts: 0,
            last_restart: None,
        };
        let gated = status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.reason.as_deref() == Some("SchedulingGated")
        });
        if gated {
            summary.reason = "SchedulingGated".to_owned();
        }
        let (initializing, sidecars) = summary.init(pod, status);
        if !initializing || api::pod::condition_is_true(pod, "Initialized") {
            (summary.restarts, summary.last_restart) = sidecars;
            summary.main(pod, status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if status.reason.as_deref() == Some("NodeLost") {
                summary.reason = "Unknown".to_owned();
            } else if !api::pod::is_terminal(pod) {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Whether initialization is still in progress, and the restarts of the sidecars alone.
    fn init(&mut self, pod: &Pod, status: &PodStatus) -> (bool, (i64, Option<Timestamp>)) {
        let spec = pod.spec.as_ref();
        let declared = || spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let sidecar = |name: &str| {
            declared().any(|container| container.name == name && api::pod::is_sidecar(container))
        };
        self.total += declared().filter(|container| api::pod::is_sidecar(container)).count();
        let mut sidecars = (0i64, None);
        for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
            let is_sidecar = sidecar(&container.name);
            let last = last_restart(container);
            self.restarts += i64::from(container.restart_count);
            self.last_restart = self.last_restart.max(last);
            if is_sidecar {
                sidecars = (sidecars.0 + i64::from(container.restart_count), sidecars.1.max(last));
            }
            let state = state(container);
            let terminated = state.terminated.as_ref();
            if terminated.is_some_and(|terminated| terminated.exit_code == 0) {
                continue;
            }
            if is_sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            let waiting = state
                .waiting
                .as_ref()
                .and_then(|waiting| waiting.reason.as_deref())
                .unwrap_or_default();
            self.reason = if terminated.is_some() {
                format!("Init:{}", ended(state).unwrap_or_default())
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", declared().count())
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn main(&mut self, pod: &Pod, status: &PodStatus) {
        let mut running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            self.restarts += i64::from(container.restart_count);
            self.last_restart = self.last_restart.max(last_restart(container));
            let state = state(container);
            let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
            if let Some(reason) = waiting.filter(|reason| !reason.is_empty()) {
                self.reason = reason;
            } else if let Some(reason) = ended(state) {
                self.reason = reason;
            } else if container.ready && state.running.is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = api::pod::condition_is_true(pod, "Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    /// `3 (2m ago)`
    fn restarts_text(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!(
                    "{} ({} ago)",
                    self.restarts,
                    human_duration(now.as_second() - last.as_second())
                )
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn state(container: &ContainerStatus) -> &ContainerState {
    static NONE: ContainerState = ContainerState { running: None, terminated: None, waiting: None };
    container.state.as_ref().unwrap_or(&NONE)
}

fn last_restart(container: &ContainerStatus) -> Option<Timestamp> {
    let terminated = container.last_state.as_ref()?.terminated.as_ref()?;
    terminated.finished_at.as_ref().map(|time| time.0)
}

/// How a container terminated: its reason, its signal or its exit code.
fn ended(state: &ContainerState) -> Option<String> {
    let terminated = state.terminated.as_ref()?;
    Some(match (terminated.reason.as_deref(), terminated.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated.exit_code),
    })
}
