//! What to do for a pod, from what is observed: pure.
//!
//! A pod takes one of two courses: it runs ([`sync`]) or it ends ([`terminate`]). Actions of one plan do
//! not depend on one another and go on together; what has to wait is planned on the next look.

mod lifecycle;
mod sync;
mod terminate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::backoff::Backoff;
use super::observed::Observed;
use crate::containers::ContainerId;

pub use lifecycle::{DEADLINE_EXCEEDED, Lifecycle, Termination, completed, lifecycle};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make (or find) the namespaces and the network.
    SetUpSandbox,
    /// Mount what is missing and bring the contents up to date.
    SyncVolumes,
    /// Have the image of a container here, for its next start.
    EnsureImage { container: String, attempt: u32 },
    StartContainer {
        container: String,
        attempt: u32,
        /// How long the next restart has to wait if this one ends too.
        restart: Option<Backoff>,
    },
    /// preStop, stop signal, and SIGKILL at the deadline; again with an earlier deadline shortens it.
    StopContainer { container: String, id: ContainerId, deadline: Timestamp, cause: StopCause },
    /// Put changed limits into force in a running container.
    Resize { container: String, id: ContainerId },
    /// Forget an old attempt.
    RemoveContainer { id: ContainerId },
    /// Take the network and the volumes down.
    TearDown,
    /// Remove containers, namespaces, cgroup and files.
    RemovePod,
    /// Tell the apiserver that the pod has ended here.
    DeleteObject,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The pod ends.
    PodTerminates,
    LivenessFailed,
    StartupFailed,
    /// Its definition has changed.
    Changed,
}

/// Why a container does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// What to do now, when to look again, and what the containers wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
    pub waiting: BTreeMap<String, Waiting>,
    /// Nothing of the pod is left; the worker may go.
    pub done: bool,
}

impl Plan {
    /// Look again at `at`, or before.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// Decides. See the module.
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

/// Of each container the latest attempt and the one before it are kept: for its last state and for
/// the log of `previous`.
fn forget_old_attempts(observed: &Observed, plan: &mut Plan) {
    use super::worker::state::Work;
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
