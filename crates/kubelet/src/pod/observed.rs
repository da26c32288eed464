//! The input of every decision about a pod.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::declared::Declared;
use super::pod_ext::PodExt;
use super::worker::state::{Work, WorkerState};
use crate::containers::{ContainerState, ContainerStatus};

/// A pod, as observed once.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object as the apiserver last sent it.
    pub pod: Arc<Pod>,
    /// The apiserver no longer has the object.
    pub vanished: bool,
    pub declared: Vec<Declared>,
    /// The pod's containers, oldest first.
    pub containers: Vec<ContainerStatus>,
    pub state: WorkerState,
    /// Whether pods can get addresses.
    pub network_available: bool,
    pub host_ips: Vec<IpAddr>,
}

impl Observed {
    /// The latest attempt of a container.
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers
            .iter()
            .filter(|container| container.name == name)
            .max_by_key(|container| container.attempt)
    }

    /// The attempt before the latest, if it is still known.
    pub fn previous(&self, name: &str) -> Option<&ContainerStatus> {
        let latest = self.latest(name)?.attempt;
        self.containers
            .iter()
            .filter(|container| container.name == name && container.attempt < latest)
            .max_by_key(|container| container.attempt)
    }

    /// Whether the pod is, or has been, in a terminal phase: whoever wrote it, nothing of the pod
    /// runs again.
    pub fn is_terminal(&self) -> bool {
        self.state.terminal.is_some() || self.pod.is_terminal()
    }

    pub fn is_running(&self, name: &str) -> bool {
        self.latest(name).is_some_and(ContainerStatusExt::running)
    }

    /// Whether some attempt of it is running or has run.
    pub fn has_run(&self, name: &str) -> bool {
        self.latest(name).is_some_and(|one| !matches!(one.state, ContainerState::Created))
    }

    pub fn any_running(&self) -> bool {
        self.containers.iter().any(ContainerStatusExt::running)
    }

    /// Whether the startup probe has passed (or there is none) and the postStart hook has ended.
    pub fn started(&self, declared: &Declared) -> bool {
        let Some(container) = self.latest(declared.name()) else {
            return false;
        };
        container.running()
            && !self.starting(declared.name())
            && (declared.container.startup_probe.is_none()
                || self
                    .state
                    .probes
                    .get(&container.id)
                    .is_some_and(|probes| probes.startup == Some(true)))
    }

    /// Whether it is still starting: the postStart hook is running.
    pub fn starting(&self, name: &str) -> bool {
        self.state.in_flight.contains(&Work::Start(name.to_owned()))
    }

    /// Whether it has started, and its readiness probe (if there is one) passes.
    pub fn ready(&self, declared: &Declared) -> bool {
        self.started(declared)
            && (declared.container.readiness_probe.is_none()
                || self.latest(declared.name()).is_some_and(|container| {
                    self.state
                        .probes
                        .get(&container.id)
                        .is_some_and(|probes| probes.readiness == Some(true))
                }))
    }
}

/// Accessors of a container's state.
pub trait ContainerStatusExt {
    fn running(&self) -> bool;
    /// Exit code and time, if it has exited.
    fn exit(&self) -> Option<(i32, Timestamp)>;
}

impl ContainerStatusExt for ContainerStatus {
    fn running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    fn exit(&self) -> Option<(i32, Timestamp)> {
        match &self.state {
            ContainerState::Exited(exit) => Some((exit.exit_code, exit.finished_at)),
            _ => None,
        }
    }
}
