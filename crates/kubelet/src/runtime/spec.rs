//! From a [`ContainerConfig`] to an OCI runtime specification. Pure: what it needs to know of the machine
//! comes in as [`Machine`], what it needs of the image as [`ImageConfig`].

mod capabilities;
mod devices;
mod machine;
mod mounts;
pub(super) mod oci;
mod process;
mod resources;
mod seccomp;
#[cfg(test)]
mod tests;
mod user;

pub(super) use machine::Machine;
pub(super) use oci::Spec;
pub(super) use process::{apply_user_policy, exec_process};
pub(super) use resources::linux_resources;
pub(super) use seccomp::load_profile;
pub(super) use user::{Accounts, resolve_user};

use std::path::Path;

use super::container::{ContainerConfig, ContainerUser};
use super::error::Result;
use super::pod::PodSandbox;
use crate::cgroup::CgroupPath;
use crate::image::ImageConfig;

/// The shim puts containers with the same value of this annotation under one process.
pub(super) const SHIM_GROUP: &str = "io.kubernetes.cri.sandbox-id";

/// Files of `/proc` and `/sys` that a container sees empty, unless privileged or unmasked.
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
/// Files of `/proc` that a container cannot write.
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything that decides a container's specification.
pub(super) struct SpecInput<'a> {
    pub(super) sandbox: &'a PodSandbox,
    pub(super) config: &'a ContainerConfig,
    pub(super) image: &'a ImageConfig,
    pub(super) user: &'a ContainerUser,
    pub(super) cgroup: &'a CgroupPath,
    pub(super) machine: &'a Machine,
    /// The PID namespace of another container, to be in.
    pub(super) pidns: Option<&'a Path>,
}

/// Builds the specification, but for the seccomp filter ([`load_profile`] needs its capabilities). Fails on
/// what cannot be run: no command, an unknown capability.
pub(super) fn build(input: SpecInput<'_>) -> Result<Spec> {
    let SpecInput { sandbox, config, image, user, cgroup, machine, pidns } = input;
    let security = &config.security;
    let unmasked = security.privileged || security.unmasked_proc;
    let paths = |paths: &[&str]| {
        if unmasked { Vec::new() } else { paths.iter().map(ToString::to_string).collect() }
    };
    let devices = devices::list(config)?;
    let mut resources = linux_resources(&config.resources);
    resources.devices = devices.rules;
    if machine.unified_cgroups {
        // Out of memory ends the whole container, as Kubernetes has it, not one process of it.
        resources.unified.insert("memory.oom.group".to_string(), "1".to_string());
    }
    Ok(Spec {
        oci_version: "1.0.2",
        process: process::build(sandbox, config, image, user, machine)?,
        root: oci::Root {
            path: "rootfs".to_string(),
            readonly: security.read_only_root_filesystem,
        },
        hostname: None,
        mounts: mounts::list(sandbox, config),
        annotations: [(SHIM_GROUP.to_string(), sandbox.config.pod.uid.clone())].into(),
        linux: oci::Linux {
            cgroups_path: cgroup.to_string(),
            namespaces: namespaces(sandbox, machine, pidns),
            resources,
            devices: devices.nodes,
            seccomp: None,
            rootfs_propagation: mounts::rootfs_propagation(config),
            masked_paths: paths(&MASKED_PATHS),
            readonly_paths: paths(&READONLY_PATHS),
        },
    })
}

/// The namespaces of a container: the pod's, by path, and its own.
fn namespaces(
    sandbox: &PodSandbox,
    machine: &Machine,
    pidns: Option<&Path>,
) -> Vec<oci::Namespace> {
    let mut namespaces = vec![oci::Namespace::new("mount")];
    let shared = [("network", &sandbox.netns), ("ipc", &sandbox.ipcns), ("uts", &sandbox.utsns)];
    for (kind, path) in shared {
        if let Some(path) = path {
            namespaces.push(oci::Namespace { kind, path: Some(path.clone()) });
        }
    }
    if let Some(path) = pidns.or(sandbox.pidns.as_deref()) {
        namespaces.push(oci::Namespace { kind: "pid", path: Some(path.to_owned()) });
    } else if !sandbox.config.host_pid {
        namespaces.push(oci::Namespace::new("pid"));
    }
    if machine.unified_cgroups {
        namespaces.push(oci::Namespace::new("cgroup"));
    }
    namespaces
}
