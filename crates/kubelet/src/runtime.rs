//! Containers, through containerd's native gRPC API (no CRI, no pause container).
//!
//! A pod's network, IPC and UTS namespaces are made once and pinned by bind mounts under the root
//! directory (`<root>/pods/<uid>/ns/{net,ipc,uts}`); each container joins them by path. All containers of
//! a pod share one shim. Everything is found again after a restart of the kubelet or of containerd: the
//! containers from containerd's labels, the namespaces from the pins, exits from the stopped tasks.
//!
//! How a pod worker uses it:
//! 1. [`Runtime::ensure_pod`], then the network is set up in [`PodSandbox::netns`] if `created`;
//!    meanwhile images are pulled and [`Runtime::prepare_rootfs`] makes the root file systems.
//! 2. [`Runtime::create`] and [`Runtime::start`] for each container.
//! 3. [`Runtime::list`] on every [`RuntimeEvent`] (and slowly, as a net) tells what is.
//! 4. [`Runtime::kill`], [`Runtime::delete`], and at the end [`Runtime::remove_pod`].
//!
//! Every call may be repeated: what is there already is kept, what is gone is gone. A call made while
//! containerd is down fails with [`RuntimeError::Unavailable`]; the connection heals by itself.

mod attach;
mod client;
mod container;
mod create;
mod error;
mod events;
mod exec;
mod id;
mod lifecycle;
mod list;
mod namespaces;
mod pause;
mod pod;
mod record;
mod sandbox;
mod signal;
mod spec;
mod stats;
mod status;

use std::path::PathBuf;
use std::sync::Arc;

pub use attach::{AttachRequest, AttachSession};
pub use container::{
    ContainerConfig, ContainerUser, Device, Mount, MountPropagation, Rlimit, SeccompProfile,
    SecurityContext,
};
pub use error::{Result, RuntimeError};
pub use exec::{ExecControl, ExecOutput, ExecRequest, ExecSession};
pub use pod::{PodConfig, PodRef, PodSandbox};
pub use stats::ContainerStats;
pub use status::{
    ContainerEventKind, ContainerExit, ContainerId, ContainerState, ContainerStatus, ExitReason,
    RuntimeEvent,
};

pub(crate) use client::Containerd;

use crate::cgroup::Cgroups;
use crate::logs::LogConfig;

/// Where containerd is and where the runtime keeps its own files.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// containerd's socket: a path, or `unix://` and a path.
    pub endpoint: String,
    /// containerd's namespace for this node's containers, for example `k8s.io`.
    pub containerd_namespace: String,
    /// The kubelet's root directory; `pods/<uid>/` below it is used.
    pub root_dir: PathBuf,
    /// Where pods' cgroups live.
    pub cgroups: Cgroups,
    /// How logs are written.
    pub logs: LogConfig,
    /// The snapshotter: `overlayfs` unless the machine cannot.
    pub snapshotter: String,
}

/// Runs containers. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    config: RuntimeConfig,
    containerd: Containerd,
}
