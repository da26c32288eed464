//! Whether a pod keeps running or terminates, and how.

use jiff::{SignedDuration, Timestamp};

use crate::pod::declared::Role;
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::pod_ext::PodExt;

/// Minimum grace period, even when a pod is force-deleted.
const SHORTEST_GRACE_SECONDS: i64 = 1;

/// Reason of a pod that has exceeded its `activeDeadlineSeconds`.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// Whether a pod runs or terminates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It runs, until its active deadline if it has one.
    Run {
        until: Option<Timestamp>,
    },
    Terminate(Termination),
}

/// How a pod terminates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// When the remaining containers are killed.
    pub deadline: Timestamp,
    /// Whether to remove everything, including the API object.
    pub remove: bool,
    /// Reason and message of a pod that fails for a reason other than its containers.
    pub outcome: Option<(String, String)>,
}

/// See [`Lifecycle`].
pub fn lifecycle(observed: &Observed, now: Timestamp) -> Lifecycle {
    let pod = &observed.pod;
    let since = observed.state.terminating_since.unwrap_or(now);
    let terminate = |seconds: i64, remove: bool, outcome: Option<(String, String)>| {
        let grace = SignedDuration::from_secs(seconds.max(SHORTEST_GRACE_SECONDS));
        Lifecycle::Terminate(Termination {
            deadline: since.saturating_add(grace).unwrap_or(Timestamp::MAX),
            remove,
            outcome,
        })
    };
    let outcome = failure(observed, now);
    if observed.vanished || pod.deletion_deadline().is_some() {
        let seconds = pod.deletion_grace_seconds().unwrap_or_else(|| pod.spec_grace_seconds());
        return terminate(seconds, true, outcome);
    }
    if let Some(eviction) = &observed.state.eviction {
        return terminate(eviction.grace_seconds, false, outcome);
    }
    if outcome.is_some() || observed.is_terminal() || completed(observed) {
        return terminate(pod.spec_grace_seconds(), false, outcome);
    }
    Lifecycle::Run { until: active_deadline(observed) }
}

/// Reason and message if the pod has failed for a reason other than its containers.
fn failure(observed: &Observed, now: Timestamp) -> Option<(String, String)> {
    if let Some(eviction) = &observed.state.eviction {
        return Some((eviction.reason.clone(), eviction.message.clone()));
    }
    let exceeded = !observed.is_terminal()
        && !completed(observed)
        && active_deadline(observed).is_some_and(|deadline| deadline <= now);
    exceeded.then(|| {
        (
            DEADLINE_EXCEEDED.to_owned(),
            "Pod was active on the node longer than the specified deadline".to_owned(),
        )
    })
}

fn active_deadline(observed: &Observed) -> Option<Timestamp> {
    let seconds = observed.pod.spec_ref().active_deadline_seconds?;
    let start = observed.pod.status_ref().start_time.as_ref()?.0;
    start.saturating_add(SignedDuration::from_secs(seconds)).ok()
}

/// Whether the pod has succeeded or failed: no container of it will be started again.
pub fn completed(observed: &Observed) -> bool {
    let mut apps = 0;
    let mut done = 0;
    for declared in &observed.declared {
        let exit = observed.latest(declared.name()).and_then(|one| one.exit());
        let for_good =
            exit.is_some_and(|(code, _)| !declared.restart_policy(&observed.pod).restarts(code));
        match declared.role {
            Role::Init if for_good && exit.is_some_and(|(code, _)| code != 0) => return true,
            Role::App => {
                apps += 1;
                done += usize::from(for_good);
            }
            _ => {}
        }
    }
    apps > 0 && apps == done
}
