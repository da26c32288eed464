//! The plan for a pod that terminates: containers first (sidecars last, in reverse order), then
//! network and volumes, then the container layer's data and files, then the API object.

use jiff::Timestamp;

use super::{Action, Plan, StopCause, Termination};
use crate::containers::ContainerStatus;
use crate::pod::declared::Role;
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::worker::state::{Failure, Work};

pub(super) fn terminate(
    observed: &Observed,
    termination: &Termination,
    now: Timestamp,
    plan: &mut Plan,
) {
    let state = &observed.state;
    if observed.any_running() && !state.removed {
        stop_containers(observed, termination, now, plan);
        return;
    }
    let busy = state
        .in_flight
        .iter()
        .any(|work| matches!(work, Work::Devices | Work::Start(_) | Work::Sandbox | Work::Volumes));
    if busy {
        return;
    }
    if !state.torn_down {
        if !state.in_flight.contains(&Work::TearDown)
            && due(state.tear_down_failure.as_ref(), now, plan)
        {
            plan.actions.push(Action::TearDown);
        }
        return;
    }
    if !termination.remove {
        return;
    }
    let gone = observed.vanished || state.deleted;
    if !state.removed {
        let status_written = state.status_written || gone;
        if status_written
            && !state.in_flight.contains(&Work::RemovePod)
            && due(state.tear_down_failure.as_ref(), now, plan)
        {
            plan.actions.push(Action::RemovePod);
        }
    } else if gone {
        plan.done = true;
    } else if !state.in_flight.contains(&Work::DeleteObject)
        && due(state.delete_failure.as_ref(), now, plan)
    {
        plan.actions.push(Action::DeleteObject);
    }
}

fn due(failure: Option<&Failure>, now: Timestamp, plan: &mut Plan) -> bool {
    match failure.map(|failure| failure.backoff.until()) {
        Some(until) if until > now => {
            plan.wake(until);
            false
        }
        _ => true,
    }
}

fn stop_containers(
    observed: &Observed,
    termination: &Termination,
    now: Timestamp,
    plan: &mut Plan,
) {
    let late = now >= termination.deadline;
    if !late {
        plan.wake(termination.deadline);
    }
    let sidecars: Vec<&str> = observed
        .declared
        .iter()
        .filter(|one| one.role == Role::Sidecar)
        .map(|one| one.name())
        .collect();
    let running = || observed.containers.iter().filter(|one| one.running());
    let mut others = false;
    for container in running().filter(|one| !sidecars.contains(&one.name.as_str())) {
        others = true;
        stop(observed, container, termination, plan);
    }
    for name in sidecars.iter().rev() {
        if others && !late {
            return;
        }
        for container in running().filter(|one| one.name == *name) {
            others = true;
            stop(observed, container, termination, plan);
        }
    }
}

fn stop(
    observed: &Observed,
    container: &ContainerStatus,
    termination: &Termination,
    plan: &mut Plan,
) {
    let later = observed
        .state
        .stops
        .get(&container.id)
        .is_none_or(|deadline| *deadline > termination.deadline);
    if later {
        plan.actions.push(Action::StopContainer {
            container: container.name.clone(),
            id: container.id.clone(),
            deadline: termination.deadline,
            cause: StopCause::PodTerminates,
        });
    }
}
