//! The status of a container, read from containerd at any time.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::container::ContainerUser;
use super::pod::PodRef;
use crate::cgroup::CgroupPath;

/// A container's id in containerd: 64 hexadecimal digits, computed from (pod uid, name, attempt).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

impl std::fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl ContainerId {
    /// As Kubernetes' status shows it: `containerd://<id>`.
    pub fn to_status(&self) -> String {
        format!("containerd://{}", self.0)
    }
}

/// A container as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub pod: PodRef,
    /// Its name in the pod.
    pub name: String,
    /// Its attempt number.
    pub attempt: u32,
    /// [`super::ContainerConfig::spec_hash`].
    pub spec_hash: String,
    /// The image as the pod names it.
    pub image: String,
    /// The image's id: `sha256:...` of its configuration.
    pub image_id: String,
    /// `repository@sha256:...` if known, else `image_id`: what the pod's status calls `imageID`.
    pub image_ref: String,
    /// [`super::ContainerConfig::annotations`].
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its state.
    pub state: ContainerState,
    /// Its log file.
    pub log_path: PathBuf,
    /// Its own cgroup, for statistics.
    pub cgroup: CgroupPath,
    /// Its user.
    pub user: ContainerUser,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input can be attached to.
    pub stdin: bool,
    /// Whether its standard input closes after the first attach.
    pub stdin_once: bool,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
}

/// The state of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerState {
    /// Created, never started.
    Created,
    /// Running.
    Running {
        /// Process id on the node.
        pid: u32,
        /// When it was started.
        started_at: Timestamp,
    },
    /// Exited, or could not be started.
    Exited(ContainerExit),
}

/// How a container exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// The exit code, 128 + n for signal n; 128 if it could not be started; 255 if its exit was not
    /// seen.
    pub exit_code: i32,
    /// When it was started; `None` if it never was.
    pub started_at: Option<Timestamp>,
    /// When it exited.
    pub finished_at: Timestamp,
    /// The reason.
    pub reason: ExitReason,
    /// Details, for example why it could not be started.
    pub message: String,
}

/// Kubernetes' reasons for a terminated container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Another exit code.
    Error,
    /// The OOM killer killed it.
    OomKilled,
    /// Its process could not be started (for example, a missing command).
    StartError,
    /// Its exit was not seen (the node was restarted).
    Unknown,
}

impl ExitReason {
    /// As in `status.containerStatuses[].state.terminated.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            ExitReason::Completed => "Completed",
            ExitReason::Error => "Error",
            ExitReason::OomKilled => "OOMKilled",
            ExitReason::StartError => "StartError",
            ExitReason::Unknown => "ContainerStatusUnknown",
        }
    }

    /// The inverse of [`ExitReason::as_str`]; anything else is `Unknown`.
    pub fn parse(word: &str) -> Self {
        match word {
            "Completed" => ExitReason::Completed,
            "Error" => ExitReason::Error,
            "OOMKilled" => ExitReason::OomKilled,
            "StartError" => ExitReason::StartError,
            _ => ExitReason::Unknown,
        }
    }
}

/// Something happened to a container. Level-triggered: a hint to list, not the truth.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeEvent {
    /// List everything: the stream has just been (re)connected, or events were dropped.
    Resync,
    /// A container of this pod started, exited, ran out of memory, or was deleted.
    Container {
        /// The container.
        id: ContainerId,
        /// Its pod's uid; empty if the container is no longer known.
        pod_uid: String,
        /// What happened.
        kind: ContainerEventKind,
    },
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerEventKind {
    /// Its process was started.
    Started,
    /// Its process exited.
    Exited {
        /// Exit code.
        exit_code: i32,
    },
    /// The OOM killer killed a process in it.
    Oom,
    /// It was deleted.
    Deleted,
}
