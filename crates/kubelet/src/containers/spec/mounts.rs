//! Mounts of a container: the standard ones, then the caller's, outermost first.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use crate::containers::container::{ContainerConfig, Mount as VolumeMount, MountPropagation};
use crate::containers::pod::PodSandbox;

/// All mounts. A mount of the caller replaces a standard one at the same path.
pub(super) fn list(sandbox: &PodSandbox, config: &ContainerConfig) -> Vec<Mount> {
    let mut mounts = standard(sandbox, config);
    let taken = |path: &Path| {
        config.mounts.iter().any(|mount| Path::new(&normal(&mount.container_path)) == path)
    };
    mounts.retain(|mount| !taken(mount.destination()));
    let mut volumes: Vec<&VolumeMount> = config.mounts.iter().collect();
    volumes.sort_by_key(|mount| depth(&mount.container_path));
    mounts.extend(volumes.into_iter().map(bind));
    mounts
}

/// The propagation of mounts between the node and the container's root.
pub(super) fn rootfs_propagation(config: &ContainerConfig) -> Option<String> {
    let any = |propagation| config.mounts.iter().any(|mount| mount.propagation == propagation);
    if any(MountPropagation::Bidirectional) {
        Some("rshared".to_string())
    } else if any(MountPropagation::HostToContainer) {
        Some("rslave".to_string())
    } else {
        None
    }
}

fn standard(sandbox: &PodSandbox, config: &ContainerConfig) -> Vec<Mount> {
    let access = if config.security.privileged { "rw" } else { "ro" };
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
        mount("/dev/shm", "bind", &sandbox.shm, &["rbind", "nosuid", "noexec", "nodev", "rw"]),
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
    let mut options = vec!["rbind", propagation, access];
    options.extend(volume.no_exec.then_some("noexec"));
    options.extend(&volume.locked_options);
    mount(&normal(&volume.container_path), "bind", &volume.host_path, &options)
}

pub(in crate::containers) fn mount(
    destination: &str,
    kind: &str,
    source: impl Into<PathBuf>,
    options: &[&str],
) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_string()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
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
