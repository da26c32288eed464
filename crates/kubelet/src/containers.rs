//! Containers, through containerd's native gRPC API (no CRI, no pause container).
//!
//! A pod's network, IPC and UTS namespaces are created once and pinned by bind mounts under the
//! root directory (`<root>/pods/<uid>/ns/{net,ipc,uts}`); each container joins them by path. All
//! containers of a pod share one shim. Everything is found again after a restart of the kubelet or
//! of containerd: the containers from containerd's labels, the namespaces from the pins, exits from
//! the stopped tasks.
//!
//! How a pod worker uses it:
//! 1. [`Runtime::ensure_pod`], then the network is set up in [`PodSandbox::netns`] if `created`;
//!    meanwhile images are pulled and [`Runtime::prepare_rootfs`] creates the root file systems.
//! 2. [`Runtime::create`] and [`Runtime::start`] for each container.
//! 3. [`Runtime::list`] on every [`RuntimeEvent`] (and periodically, in case one was lost).
//! 4. [`Runtime::kill`], [`Runtime::delete`], and at the end [`Runtime::remove_pod`].
//!
//! Every call is idempotent. A call made while containerd is down fails with
//! [`RuntimeError::Unavailable`]; the connection recovers by itself.

mod apparmor;
mod attach;
mod bundle;
mod client;
mod container;
mod create;
mod error;
mod events;
mod exec;
mod heal;
mod id;
mod idmap;
mod image_volume;
mod lifecycle;
mod list;
mod namespaces;
mod pause;
mod pod;
mod reap;
mod record;
mod rootfs;
mod sandbox;
mod shim;
mod signal;
mod spec;
mod stats;
mod status;
mod stdin;
mod stdio;
mod task;
mod user_namespace;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{RwLock, broadcast};
use tokio::task::AbortHandle;

pub use attach::{AttachOutput, AttachRequest, AttachSession};
pub use container::{
    AppArmorProfile, ContainerConfig, ContainerUser, Device, Mount, MountPropagation,
    SeccompProfile, SecurityContext,
};
pub use error::{Result, RuntimeError};
pub use exec::{ExecControl, ExecOutput, ExecRequest, ExecSession};
pub use pod::{PodConfig, PodRef, PodSandbox};
pub use stats::ContainerStats;
pub use status::{
    ContainerEventKind, ContainerExit, ContainerId, ContainerState, ContainerStatus, ExitReason,
    RuntimeEvent,
};

pub use user_namespace::{UserNamespace, run_if_asked};

pub(crate) use client::Containerd;
pub(crate) use error::is_unreachable;

use crate::cgroup::Cgroups;
use crate::image::ImageStore;
use crate::logs::LogConfig;

/// How to reach containerd, and where the runtime keeps its own files.
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
    /// The snapshotter: `overlayfs` unless the machine lacks it.
    pub snapshotter: String,
}

/// Runs containers. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

impl Runtime {
    /// The node's images, for the image service.
    pub(crate) fn image_store(&self) -> ImageStore {
        self.inner.images.clone()
    }

    /// Whether pods can have user namespaces of their own.
    pub fn supports_user_namespaces(&self) -> bool {
        self.inner.machine.user_namespaces && self.inner.config.snapshotter == "overlayfs"
    }

    /// Whether the kernel enforces AppArmor profiles.
    pub fn supports_app_armor(&self) -> bool {
        self.inner.machine.app_armor.is_enabled()
    }

    /// The kubelet's root directory.
    pub(crate) fn root_dir(&self) -> &Path {
        &self.inner.config.root_dir
    }
}

/// Events queued for a slow subscriber; when there are more, one [`RuntimeEvent::Resync`] replaces
/// them.
const EVENT_QUEUE: usize = 1024;

/// Holds whether the pod is known to have a shim.
type PodLock = Arc<RwLock<bool>>;

struct Inner {
    config: RuntimeConfig,
    containerd: Containerd,
    machine: spec::Machine,
    images: ImageStore,
    /// Pod uid of each container seen, so that an event's pod is known without a call.
    pod_of: Mutex<HashMap<String, String>>,
    /// One per pod: starting a task takes it shared, deleting one exclusively. A shim exits with
    /// its last task, so no task may be started on it meanwhile.
    pod_locks: Mutex<HashMap<String, PodLock>>,
    /// Containers whose exit is being recorded.
    reaping: Mutex<HashSet<String>>,
    events: broadcast::Sender<RuntimeEvent>,
    pump: OnceLock<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.get() {
            pump.abort();
        }
    }
}

impl Inner {
    fn new(
        config: RuntimeConfig,
        containerd: Containerd,
        machine: spec::Machine,
        images: ImageStore,
    ) -> Self {
        Inner {
            config,
            containerd,
            machine,
            images,
            pod_of: Mutex::default(),
            pod_locks: Mutex::default(),
            reaping: Mutex::default(),
            events: broadcast::channel(EVENT_QUEUE).0,
            pump: OnceLock::new(),
        }
    }

    fn pod_paths(&self, pod_uid: &str) -> namespaces::PodPaths {
        namespaces::PodPaths::new(&self.config.root_dir, pod_uid)
    }

    fn pod_lock(&self, pod_uid: &str) -> PodLock {
        self.pod_locks.lock().entry(pod_uid.to_string()).or_default().clone()
    }

    /// Creates a task of a pod. The first one starts the pod's shim, so it is created alone: two at
    /// once may each find no shim, and start one.
    async fn with_shim<T, E>(
        &self,
        pod_uid: &str,
        create: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let lock = self.pod_lock(pod_uid);
        let together = lock.read().await;
        if *together {
            return create.await;
        }
        drop(together);
        let mut alone = lock.write().await;
        let created = create.await;
        *alone |= created.is_ok();
        created
    }

    fn remember(&self, id: &ContainerId, pod_uid: &str) {
        self.pod_of.lock().insert(id.0.clone(), pod_uid.to_string());
    }

    fn forget_pod(&self, pod_uid: &str) {
        self.pod_locks.lock().remove(pod_uid);
        self.pod_of.lock().retain(|_, pod| pod != pod_uid);
    }
}
