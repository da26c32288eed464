//! Device nodes of a container, and the cgroup rules that allow it to use them.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup};

use crate::containers::container::{ContainerConfig, Device};
use crate::containers::error::{Result, RuntimeError};

use super::machine::device_at;

/// Directories of `/dev` that each container has its own of.
const OWN_DIRECTORIES: [&str; 5] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.udev"];
/// Nodes that the OCI runtime creates itself.
const OWN_NODES: [&str; 2] = ["/dev/console", "/dev/ptmx"];

/// Nodes and rules.
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// The devices of `config`, or every device of the node if it is privileged. The standard ones
/// (null, zero, tty, ...) are added by the OCI runtime.
pub(super) fn list(config: &ContainerConfig) -> Result<Devices> {
    let privileged = config.security.privileged;
    let mut nodes = Vec::new();
    if privileged {
        walk(Path::new("/dev"), "/dev", &mut nodes);
    }
    let mut rules = vec![rule_for_all(privileged)];
    for device in &config.devices {
        for node in nodes_of(device)? {
            let mut rule = LinuxDeviceCgroup::from(&node);
            if !device.permissions.is_empty() {
                rule.set_access(Some(device.permissions.clone()));
            }
            if !privileged {
                rules.push(rule);
            }
            nodes.retain(|other| other.path() != node.path());
            nodes.push(node);
        }
    }
    Ok(Devices { nodes, rules })
}

/// One node, or those below a directory.
fn nodes_of(device: &Device) -> Result<Vec<LinuxDevice>> {
    let (host, path) = (&device.host_path, &device.container_path);
    if let Some(node) = device_at(host, path).map_err(RuntimeError::io("inspect device", host))? {
        return Ok(vec![node]);
    }
    let mut nodes = Vec::new();
    walk(host, path, &mut nodes);
    if nodes.is_empty() {
        let message = format!("{} is not a device", host.display());
        return Err(RuntimeError::InvalidConfig { message });
    }
    Ok(nodes)
}

fn rule_for_all(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_access(Some("rwm".to_string()));
    rule
}

/// Collects device nodes below a directory, which a container has at `inside`. What cannot be read
/// (a device that was just removed) is left out.
fn walk(directory: &Path, inside: &str, nodes: &mut Vec<LinuxDevice>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let text = format!("{}/{name}", inside.trim_end_matches('/'));
        let mut own = OWN_DIRECTORIES.iter().chain(&OWN_NODES);
        if own.any(|own| *own == text) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            walk(&path, &text, nodes);
        } else if let Ok(Some(node)) = device_at(&path, &text) {
            nodes.push(node);
        }
    }
}
