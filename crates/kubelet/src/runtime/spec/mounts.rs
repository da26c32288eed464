//! Mounts of a container: the standard ones, then the caller's, outermost first.

use crate::runtime::container::{ContainerConfig, Mount as VolumeMount, MountPropagation};
use crate::runtime::pod::PodSandbox;

use super::oci::Mount;

/// All mounts. A mount of the caller's takes the place of a standard one at the same path.
pub(super) fn list(sandbox: &PodSandbox, config: &ContainerConfig) -> Vec<Mount> {
    let mut mounts = standard(sandbox, config);
    let taken =
        |path: &str| config.mounts.iter().any(|mount| normal(&mount.container_path) == path);
    mounts.retain(|mount| !taken(&mount.destination));
    let mut volumes: Vec<&VolumeMount> = config.mounts.iter().collect();
    volumes.sort_by_key(|mount| depth(&mount.container_path));
    mounts.extend(volumes.into_iter().map(bind));
    mounts
}

/// How mounts pass between the node and the container's root.
pub(super) fn rootfs_propagation(config: &ContainerConfig) -> Option<&'static str> {
    let any = |propagation| config.mounts.iter().any(|mount| mount.propagation == propagation);
    if any(MountPropagation::Bidirectional) {
        Some("rshared")
    } else if any(MountPropagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

fn standard(sandbox: &PodSandbox, config: &ContainerConfig) -> Vec<Mount> {
    let access = if config.security.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.to_string(),
        kind: kind.to_string(),
        source: source.to_string(),
        options: options.iter().map(ToString::to_string).collect(),
    };
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
        mount(
            "/dev/shm",
            "bind",
            &sandbox.shm.to_string_lossy(),
            &["rbind", "nosuid", "noexec", "nodev", "rw"],
        ),
    ]
}

fn bind(volume: &VolumeMount) -> Mount {
    let propagation = match volume.propagation {
        MountPropagation::None => "rprivate",
        MountPropagation::HostToContainer => "rslave",
        MountPropagation::Bidirectional => "rshared",
    };
    let access = match (volume.recursive_read_only, volume.read_only) {
        (true, _) => "rro",
        (false, true) => "ro",
        (false, false) => "rw",
    };
    Mount {
        destination: normal(&volume.container_path),
        kind: "bind".to_string(),
        source: volume.host_path.to_string_lossy().into_owned(),
        options: ["rbind", propagation, access]
            .into_iter()
            .chain(volume.no_exec.then_some("noexec"))
            .map(str::to_string)
            .collect(),
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn depth(path: &str) -> usize {
    parts(path).count()
}

fn normal(path: &str) -> String {
    format!("/{}", parts(path).collect::<Vec<_>>().join("/"))
}
