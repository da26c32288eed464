//! Decides what to do for a pod, from what is observed: pure.
//!
//! A pod is either synced ([`sync`]) or terminated ([`terminate`]). Actions of one plan are
//! independent and run concurrently; what has to wait is planned in a later round.

mod lifecycle;
mod sync;
mod terminate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::backoff::Backoff;
use super::observed::Observed;
use super::worker::state::Work;
use crate::containers::ContainerId;

pub use lifecycle::{DEADLINE_EXCEEDED, Lifecycle, Termination, completed, lifecycle};

/// An action of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the containers their devices, or reject the pod.
    AllocateDevices,
    /// Create (or find) the namespaces and the network.
    SetUpSandbox,
    /// Mount what is missing and bring the contents up to date.
    SyncVolumes,
    /// Ensure that the image of a container is on the node, for its next start.
    EnsureImage { container: String, attempt: u32 },
    StartContainer {
        container: String,
        attempt: u32,
        /// How long the next restart has to wait if this attempt exits too.
        restart: Option<Backoff>,
    },
    /// preStop, stop signal, and SIGKILL at the deadline. May be repeated with an earlier deadline.
    StopContainer { container: String, id: ContainerId, deadline: Timestamp, cause: StopCause },
    /// Apply changed limits to a running container.
    Resize { container: String, id: ContainerId },
    /// Remove an old attempt.
    RemoveContainer { id: ContainerId },
    /// Tear down the network and the volumes.
    TearDown,
    /// Remove containers, namespaces, cgroup and files.
    RemovePod,
    /// Delete the API object: the pod has terminated.
    DeleteObject,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The pod is terminated.
    PodTerminates,
    LivenessFailed,
    StartupFailed,
    /// Its definition has changed.
    Changed,
}

/// Why a container is not running yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// What to do now, when to plan again, and what the containers wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
    pub waiting: BTreeMap<String, Waiting>,
    /// Nothing of the pod is left; the worker may exit.
    pub done: bool,
}

impl Plan {
    /// Plan again at `at`, or earlier.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// Computes the plan.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match lifecycle(observed, now) {
        Lifecycle::Run { until } => {
            if let Some(until) = until {
                plan.wake(until);
            }
            sync::sync(observed, now, &mut plan);
        }
        Lifecycle::Terminate(termination) => {
            terminate::terminate(observed, &termination, now, &mut plan)
        }
    }
    forget_old_attempts(observed, &mut plan);
    plan
}

/// Keeps the latest attempt of each container and the one before it, for its last state and for
/// `logs --previous`.
fn forget_old_attempts(observed: &Observed, plan: &mut Plan) {
    for container in &observed.containers {
        let newer = observed
            .containers
            .iter()
            .filter(|other| other.name == container.name && other.attempt > container.attempt)
            .count();
        let work = Work::Remove(container.id.clone());
        if newer >= 2 && !observed.state.in_flight.contains(&work) && !observed.state.removed {
            plan.actions.push(Action::RemoveContainer { id: container.id.clone() });
        }
    }
}
