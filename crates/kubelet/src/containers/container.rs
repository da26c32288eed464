//! The configuration of a container. The caller fills [`ContainerConfig`] from the pod's spec, with
//! every reference (configMap, secret, downward API, `$(VAR)`) resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Resources;

/// One container to create.
#[derive(Debug, Clone, Default)]
pub struct ContainerConfig {
    /// The container's name in the pod.
    pub name: String,
    /// 0 at first, plus one for each restart. (pod uid, name, attempt) is the container's identity:
    /// its containerd id is computed from them, so creating it twice is harmless.
    pub attempt: u32,
    /// The caller's hash of the container's spec, returned by [`super::Runtime::list`].
    pub spec_hash: String,
    /// The image as [`crate::image::Image::id`] or as a reference known to the image store.
    pub image: String,
    /// The image as the pod names it, for the status; empty: `image`.
    pub image_name: String,
    /// `command`: replaces the image's ENTRYPOINT (and drops its CMD) when not empty.
    pub command: Vec<String>,
    /// `args`: replaces the image's CMD when not empty.
    pub args: Vec<String>,
    /// Added to the image's environment; replaces variables of the same name.
    pub env: Vec<(String, String)>,
    /// `workingDir`; `None` or empty: the image's, else `/`.
    pub working_dir: Option<String>,
    /// Mounts, in order. `/dev/shm`, `/proc`, `/sys`, `/dev` are added by the runtime.
    pub mounts: Vec<Mount>,
    /// Devices to pass through.
    pub devices: Vec<Device>,
    /// Its user and privileges.
    pub security: SecurityContext,
    /// Limits of the container's own cgroup.
    pub resources: Resources,
    /// Raised to the kubelet's own value if lower, since lowering needs CAP_SYS_RESOURCE.
    pub oom_score_adj: i32,
    /// `stdin`: keep standard input open for `attach`.
    pub stdin: bool,
    /// `stdinOnce`: close standard input when the first attached client has gone.
    pub stdin_once: bool,
    /// `tty`.
    pub tty: bool,
    /// The path of its log, see [`crate::logs::container_log_path`].
    pub log_path: PathBuf,
    /// A running container of the pod whose PID namespace this one joins (`targetContainerName`).
    pub process_target: Option<String>,
    /// Overrides the image's STOPSIGNAL (`SIGTERM`, `15`).
    pub stop_signal: Option<String>,
    /// Stored with the container and returned by [`super::Runtime::list`]. Of any size.
    pub annotations: BTreeMap<String, String>,
}

/// A file or directory of the node mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// Path on the node. Must exist.
    pub host_path: PathBuf,
    /// Absolute path in the container; created if missing.
    pub container_path: String,
    /// Read only (not recursive).
    pub read_only: bool,
    /// Read only with every mount below it (`recursiveReadOnly`); implies `read_only`.
    pub recursive_read_only: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// Options that it has on the node, and that a user namespace may not take away.
    pub locked_options: Vec<&'static str>,
    /// `mountPropagation`.
    pub propagation: MountPropagation,
}

/// `mountPropagation` of a volume mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountPropagation {
    /// `None`: private.
    #[default]
    None,
    /// Mounts on the node become visible in the container.
    HostToContainer,
    /// Mounts become visible both ways.
    Bidirectional,
}

/// A device to pass through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// The device on the node.
    pub host_path: PathBuf,
    /// Its path in the container.
    pub container_path: String,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
}

/// The user and privileges of a container: its and its pod's security contexts, merged by the
/// caller.
#[derive(Debug, Clone, Default)]
pub struct SecurityContext {
    /// `runAsUser`; else the image's USER.
    pub run_as_user: Option<u32>,
    /// `runAsGroup`; else the user's group in the image's `/etc/passwd`, else 0.
    pub run_as_group: Option<u32>,
    /// `runAsNonRoot`: creating fails with [`super::RuntimeError::RunAsNonRoot`] if the user is 0.
    pub run_as_non_root: bool,
    /// `supplementalGroups` and `fsGroup`.
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: leave out the groups of the image's `/etc/group`.
    pub strict_supplemental_groups: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root_filesystem: bool,
    /// `capabilities.add`, without `CAP_`; `ALL` means all.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`, without `CAP_`; `ALL` means all.
    pub drop_capabilities: Vec<String>,
    /// `seccompProfile`.
    pub seccomp: SeccompProfile,
    /// `appArmorProfile`; unset, the default one where the machine has AppArmor.
    pub app_armor: Option<AppArmorProfile>,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
}

/// `appArmorProfile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppArmorProfile {
    /// None.
    Unconfined,
    /// The default profile of this crate.
    RuntimeDefault,
    /// A profile that the node's kernel has.
    Localhost(String),
}

/// `seccompProfile`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SeccompProfile {
    /// No filter, which is also Kubernetes' default.
    #[default]
    Unconfined,
    /// The default profile of this crate.
    RuntimeDefault,
    /// A profile on the node, in docker's JSON format.
    Localhost(PathBuf),
}

/// The user that a container's process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Additional group ids.
    pub additional_gids: Vec<u32>,
}
