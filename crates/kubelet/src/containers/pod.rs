//! The identity of a pod, and the configuration of its shared namespaces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::user_namespace::UserNamespace;
use crate::cgroup::{CgroupPath, Resources};

/// Identifies a pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PodRef {
    /// `metadata.uid`; the only field that decides identity.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// What a pod's containers share. The caller fills it from the pod's spec.
#[derive(Debug, Clone, Default)]
pub struct PodConfig {
    /// The pod.
    pub pod: PodRef,
    /// The host name inside the pod.
    pub hostname: String,
    /// Use the machine's UTS namespace, whose host name it is.
    pub host_uts: bool,
    /// `spec.hostNetwork`: use the node's network namespace.
    pub host_network: bool,
    /// `spec.hostIPC`.
    pub host_ipc: bool,
    /// `spec.hostPID`.
    pub host_pid: bool,
    /// `spec.hostUsers: false`: a user namespace of its own.
    pub user_namespace: bool,
    /// `spec.shareProcessNamespace`: one PID namespace, held by a pause process.
    pub share_process_namespace: bool,
    /// `spec.securityContext.sysctls`, set once when the namespaces are created.
    pub sysctls: BTreeMap<String, String>,
    /// Size of the pod's `/dev/shm` in bytes; `None` is 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// The pod's cgroup, from [`crate::cgroup::Cgroups::pod_path`].
    pub cgroup: CgroupPath,
    /// Limits of the pod's cgroup as a whole.
    pub resources: Resources,
    /// The OCI runtime: `""` or `runc`, or another binary's name (`crun`), from the runtime class.
    pub runtime_handler: String,
}

/// A pod whose cgroup, namespaces and `/dev/shm` exist. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PodSandbox {
    /// Its configuration.
    pub config: PodConfig,
    /// Path that pins the network namespace; `None` with `host_network`.
    pub netns: Option<PathBuf>,
    /// Path that pins the IPC namespace; `None` with `host_ipc`.
    pub ipcns: Option<PathBuf>,
    /// Path that pins the UTS namespace; `None` with `host_uts`.
    pub utsns: Option<PathBuf>,
    /// Path that pins the shared PID namespace; `None` unless `share_process_namespace`.
    pub pidns: Option<PathBuf>,
    /// The user namespace that the others belong to, if it is the pod's own.
    pub user_namespace: Option<UserNamespace>,
    /// The directory that is mounted at `/dev/shm` in each container.
    pub shm: PathBuf,
    /// Changes whenever the namespaces are created: after a reboot of the node.
    pub id: String,
    /// Whether this call created the namespaces, so that the network must be set up in them.
    pub created: bool,
}

impl PodSandbox {
    /// The network namespace to set up the pod's network in; `None` with `hostNetwork`.
    pub fn netns(&self) -> Option<&Path> {
        self.netns.as_deref()
    }
}
