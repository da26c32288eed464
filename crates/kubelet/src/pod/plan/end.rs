//! The plan of a pod that ends: containers first (sidecars last, in reverse order), then network and
//! volumes, then what the runtime keeps, then the API object.

use jiff::Timestamp;

use super::{Action, Ending, Plan, StopCause};
use crate::pod::containers::Role;
use crate::pod::memory::{Failure, Work};
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::runtime::ContainerStatus;

pub(super) fn end(observed: &Observed, ending: &Ending, now: Timestamp, plan: &mut Plan) {
    let memory = &observed.memory;
    if observed.any_running() && !memory.removed {
        stop_containers(observed, ending, now, plan);
        return;
    }
    let busy = memory
        .in_flight
        .iter()
        .any(|work| matches!(work, Work::Start(_) | Work::Sandbox | Work::Volumes));
    if busy {
        return;
    }
    if !memory.torn_down {
        if !memory.in_flight.contains(&Work::TearDown)
            && due(memory.tear_down_failure.as_ref(), now, plan)
        {
            plan.actions.push(Action::TearDown);
        }
        return;
    }
    if !ending.remove {
        return;
    }
    let gone = observed.vanished || memory.deleted;
    if !memory.removed {
        let told = memory.status_written || gone;
        if told
            && !memory.in_flight.contains(&Work::RemovePod)
            && due(memory.tear_down_failure.as_ref(), now, plan)
        {
            plan.actions.push(Action::RemovePod);
        }
    } else if gone {
        plan.done = true;
    } else if !memory.in_flight.contains(&Work::DeleteObject)
        && due(memory.delete_failure.as_ref(), now, plan)
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

fn stop_containers(observed: &Observed, ending: &Ending, now: Timestamp, plan: &mut Plan) {
    let late = now >= ending.deadline;
    if !late {
        plan.wake(ending.deadline);
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
        stop(observed, container, ending, plan);
    }
    for name in sidecars.iter().rev() {
        if others && !late {
            return;
        }
        for container in running().filter(|one| one.name == *name) {
            others = true;
            stop(observed, container, ending, plan);
        }
    }
}

fn stop(observed: &Observed, container: &ContainerStatus, ending: &Ending, plan: &mut Plan) {
    let later =
        observed.memory.stops.get(&container.id).is_none_or(|deadline| *deadline > ending.deadline);
    if later {
        plan.actions.push(Action::StopContainer {
            container: container.name.clone(),
            id: container.id.clone(),
            deadline: ending.deadline,
            cause: StopCause::PodEnds,
        });
    }
}
