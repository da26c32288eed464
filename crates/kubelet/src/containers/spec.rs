//! From a [`ContainerConfig`] to the specification that the OCI runtime gets
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md>). What it needs to know
//! about the machine comes in as [`Machine`], what it needs from the image as [`ImageConfig`].

mod capabilities;
mod devices;
mod machine;
mod mounts;
mod process;
mod resources;
mod seccomp;
#[cfg(test)]
mod tests;
mod user;

pub(super) use machine::Machine;
pub(super) use mounts::mount;
pub(super) use process::{apply_user_policy, bare_process, exec_process};
pub(super) use resources::linux_resources;
pub(super) use user::{Accounts, resolve_user};

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Mount, Process, Root, Spec,
    User,
};

use super::container::{ContainerConfig, ContainerUser};
use super::error::Result;
use super::pod::PodSandbox;
use super::user_namespace::IDS;
use crate::cgroup::{CgroupPath, Resources};
use crate::image::ImageConfig;

/// The version of the specification that containerd 1.6 and runc 1.1 know.
const OCI_VERSION: &str = "1.0.2";
/// Containers with the same value of this annotation share one shim.
const SHIM_GROUP: &str = "io.kubernetes.cri.sandbox-id";

/// Files of `/proc` and `/sys` that are masked in a container, unless it is privileged or unmasked.
const MASKED_PATHS: [&str; 13] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];
/// Files of `/proc` that are read-only in a container, unless it is privileged or unmasked.
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything that determines a container's specification.
pub(super) struct SpecInput<'a> {
    pub(super) sandbox: &'a PodSandbox,
    pub(super) config: &'a ContainerConfig,
    pub(super) image: &'a ImageConfig,
    pub(super) user: &'a ContainerUser,
    pub(super) cgroup: &'a CgroupPath,
    pub(super) machine: &'a Machine,
    /// The PID namespace of another container, to join.
    pub(super) pidns: Option<&'a Path>,
}

/// Builds the specification. Fails on what cannot be run: no command, an unknown capability, a
/// missing device, seccomp or AppArmor profile.
pub(super) fn build(input: SpecInput<'_>) -> Result<Spec> {
    let SpecInput { sandbox, config, image, user, cgroup, machine, pidns } = input;
    let security = &config.security;
    let unmasked = security.privileged || security.unmasked_proc;
    let paths = |paths: &[&str]| {
        if unmasked { Vec::new() } else { paths.iter().map(ToString::to_string).collect() }
    };
    let devices = devices::list(config)?;
    let mut resources = linux_resources(&config.resources);
    resources.set_devices(Some(devices.rules));
    if !machine.limits_huge_pages {
        resources.set_hugepage_limits(None);
    }
    if machine.unified_cgroups {
        // Running out of memory ends the whole container, as in Kubernetes, not one process of it.
        let group_kill = ("memory.oom.group".to_string(), "1".to_string());
        resources.set_unified(Some([group_kill].into()));
    }
    let capabilities = capabilities::of_container(security, &machine.bounding)?;
    let mut linux = bare_linux(cgroup, namespaces(sandbox, machine, pidns));
    linux
        .set_resources(Some(resources))
        .set_devices(Some(devices.nodes))
        .set_rootfs_propagation(mounts::rootfs_propagation(config))
        .set_masked_paths(Some(paths(&MASKED_PATHS)))
        .set_readonly_paths(Some(paths(&READONLY_PATHS)));
    if !security.privileged {
        linux.set_seccomp(seccomp::load_profile(&security.seccomp, &capabilities)?);
    }
    let process = process::build(sandbox, config, image, user, capabilities, machine)?;
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(security.read_only_root_filesystem));
    Ok(assemble(sandbox, root, process, mounts::list(sandbox, config), linux))
}

/// The specification of a container of the pod. Every member that oci-spec has a default for is
/// set.
pub(super) fn assemble(
    sandbox: &PodSandbox,
    root: Root,
    process: Process,
    mounts: Vec<Mount>,
    linux: Linux,
) -> Spec {
    let group = (SHIM_GROUP.to_string(), sandbox.config.pod.uid.clone());
    let mut linux = linux;
    if let Some(namespace) = &sandbox.user_namespace {
        let mapping = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(namespace.first_id)
            .size(IDS)
            .build()
            .expect("all members are given");
        linux.set_uid_mappings(Some(vec![mapping])).set_gid_mappings(Some(vec![mapping]));
    }
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_string())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_hostname(None)
        .set_mounts(Some(mounts))
        .set_annotations(Some([group].into()))
        .set_linux(Some(linux));
    spec
}

/// `linux` with a cgroup and namespaces only.
pub(super) fn bare_linux(cgroup: &CgroupPath, namespaces: Vec<LinuxNamespace>) -> Linux {
    let mut linux = Linux::default();
    linux
        .set_cgroups_path(Some(cgroup.to_string().into()))
        .set_namespaces(Some(namespaces))
        .set_resources(Some(linux_resources(&Resources::default())))
        .set_devices(Some(Vec::new()))
        .set_masked_paths(Some(Vec::new()))
        .set_readonly_paths(Some(Vec::new()));
    linux
}

pub(super) fn oci_user(uid: u32, gid: u32, additional_gids: &[u32]) -> User {
    let mut user = User::default();
    user.set_uid(uid).set_gid(gid);
    if !additional_gids.is_empty() {
        user.set_additional_gids(Some(additional_gids.to_vec()));
    }
    user
}

/// The namespaces of a container: the pod's, by path, and its own.
fn namespaces(
    sandbox: &PodSandbox,
    machine: &Machine,
    pidns: Option<&Path>,
) -> Vec<LinuxNamespace> {
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    namespaces.extend(pod_namespaces(sandbox));
    if let Some(path) = pidns.or(sandbox.pidns.as_deref()) {
        namespaces.push(namespace(LinuxNamespaceType::Pid, Some(path.to_owned())));
    } else if !sandbox.config.host_pid {
        namespaces.push(namespace(LinuxNamespaceType::Pid, None));
    }
    if machine.unified_cgroups {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

/// The pinned namespaces that all containers of a pod join.
pub(super) fn pod_namespaces(sandbox: &PodSandbox) -> impl Iterator<Item = LinuxNamespace> {
    let user = sandbox.user_namespace.as_ref().map(|namespace| namespace.path.clone());
    let shared = [
        (LinuxNamespaceType::User, user),
        (LinuxNamespaceType::Network, sandbox.netns.clone()),
        (LinuxNamespaceType::Ipc, sandbox.ipcns.clone()),
        (LinuxNamespaceType::Uts, sandbox.utsns.clone()),
    ];
    shared.into_iter().filter_map(|(kind, path)| Some(namespace(kind, Some(path?))))
}

/// Without a path: a new namespace of the container's own.
pub(super) fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}
