//! The status of one container.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use nix::sys::signal::Signal;

use super::whole;
use crate::containers::{ContainerExit, ContainerState, ContainerStatus as Runtime};
use crate::pod::declared::{Declared, Role};
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::plan::Plan;

pub(super) fn container_status(
    observed: &Observed,
    plan: &Plan,
    before: &PodStatus,
    declared: &Declared,
) -> ContainerStatus {
    let name = declared.name();
    let latest = observed.latest(name).filter(|one| !matches!(one.state, ContainerState::Created));
    let Some(latest) = latest else {
        return never_started(observed, plan, before, declared);
    };
    let waiting = plan.waiting.get(name).filter(|_| latest.exit().is_some());
    let limit = MESSAGES_BYTES / observed.declared.len().max(1);
    let state = |container| state(container, limit);
    let (state, last_state) = match waiting {
        // It will run again: its state becomes its last state.
        Some(waiting) => (
            State {
                waiting: Some(ContainerStateWaiting {
                    reason: Some(waiting.reason.clone()),
                    message: Some(waiting.message.clone()),
                }),
                ..Default::default()
            },
            Some(state(latest)),
        ),
        None => (state(latest), observed.previous(name).map(state)),
    };
    let started = observed.started(declared);
    ContainerStatus {
        name: name.to_owned(),
        image: declared.image().to_owned(),
        image_id: latest.image_ref.clone(),
        container_id: Some(latest.id.to_status()),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        ready: match declared.role {
            Role::Init => matches!(latest.exit(), Some((0, _))),
            Role::Sidecar | Role::App | Role::Ephemeral => observed.ready(declared),
        },
        started: match declared.role {
            Role::Ephemeral => None,
            Role::Init => Some(latest.running()),
            _ => Some(started),
        },
        state: Some(state),
        last_state: last_state.or_else(|| Some(State::default())),
        allocated_resources: declared
            .container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone()),
        resources: declared.container.resources.clone(),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: latest.user.uid.into(),
                gid: latest.user.gid.into(),
                supplemental_groups: (!latest.user.additional_gids.is_empty()).then(|| {
                    latest.user.additional_gids.iter().map(|gid| i64::from(*gid)).collect()
                }),
            }),
        }),
        volume_mounts: mounts(declared),
        allocated_resources_status: observed.state.devices.get(name).cloned(),
        stop_signal: Signal::try_from(latest.stop_signal)
            .ok()
            .map(|signal| signal.as_str().to_owned()),
    }
}

fn never_started(
    observed: &Observed,
    plan: &Plan,
    before: &PodStatus,
    declared: &Declared,
) -> ContainerStatus {
    let initializing =
        observed.declared.iter().any(|one| matches!(one.role, Role::Init | Role::Sidecar));
    let name = declared.name();
    let waiting = plan.waiting.get(name);
    let reason = waiting.map_or_else(
        || {
            if initializing && declared.role != Role::Ephemeral {
                "PodInitializing"
            } else {
                "ContainerCreating"
            }
            .to_owned()
        },
        |waiting| waiting.reason.clone(),
    );
    // A container that was lost (the node's disk was replaced) keeps its restart count.
    let known = before
        .container_statuses
        .iter()
        .chain(&before.init_container_statuses)
        .flatten()
        .find(|one| one.name == name);
    ContainerStatus {
        name: name.to_owned(),
        image: declared.image().to_owned(),
        restart_count: known.map_or(0, |known| known.restart_count),
        started: (declared.role != Role::Ephemeral).then_some(false),
        state: Some(State {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason),
                message: waiting.map(|waiting| waiting.message.clone()),
            }),
            ..Default::default()
        }),
        last_state: Some(State::default()),
        volume_mounts: mounts(declared),
        allocated_resources_status: observed.state.devices.get(name).cloned(),
        ..Default::default()
    }
}

fn mounts(declared: &Declared) -> Option<Vec<VolumeMountStatus>> {
    let mounts = declared.container.volume_mounts.as_ref()?;
    let one = |mount: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.unwrap_or(false).then(|| {
            match mount.recursive_read_only.as_deref() {
                Some("Enabled" | "IfPossible") => "Enabled".to_owned(),
                _ => "Disabled".to_owned(),
            }
        }),
        ..Default::default()
    };
    (!mounts.is_empty()).then(|| mounts.iter().map(one).collect())
}

/// `limit`: maximum bytes of its message.
fn state(container: &Runtime, limit: usize) -> State {
    match &container.state {
        ContainerState::Created => State {
            waiting: Some(ContainerStateWaiting {
                reason: Some("ContainerCreating".to_owned()),
                message: None,
            }),
            ..Default::default()
        },
        ContainerState::Running { started_at, .. } => State {
            running: Some(ContainerStateRunning { started_at: Some(Time(whole(*started_at))) }),
            ..Default::default()
        },
        ContainerState::Exited(exit) => {
            State { terminated: Some(terminated(container, exit, limit)), ..Default::default() }
        }
    }
}

fn terminated(container: &Runtime, exit: &ContainerExit, limit: usize) -> ContainerStateTerminated {
    let mut end = exit.message.len().min(limit);
    while !exit.message.is_char_boundary(end) {
        end -= 1;
    }
    let message = &exit.message[..end];
    ContainerStateTerminated {
        container_id: Some(container.id.to_status()),
        exit_code: exit.exit_code,
        reason: Some(exit.reason.as_str().to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        started_at: exit.started_at.map(|at| Time(whole(at))),
        finished_at: Some(Time(whole(exit.finished_at))),
        signal: None,
    }
}

/// Maximum length of a termination message, from the file and from the log, in bytes.
pub const MESSAGE_FILE_BYTES: usize = 4096;
/// See [`MESSAGE_FILE_BYTES`].
pub const MESSAGE_LOG_BYTES: usize = 2048;
/// The total over all containers of a pod.
const MESSAGES_BYTES: usize = 12 * 1024;
/// Maximum lines from the log.
pub const MESSAGE_LOG_LINES: usize = 80;

/// The path on the node of the file behind `terminationMessagePath`, for one attempt.
pub fn message_file(container_directory: &Path, attempt: u32) -> std::path::PathBuf {
    container_directory.join(format!("{attempt}.termination"))
}
