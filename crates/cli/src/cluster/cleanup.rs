//! Removes what a cluster leaves on the machine, whether or not its supervisor is still running.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::layout::Layout;
use crate::cluster::supervisor::record;
use crate::cluster::{cgroup, loops, mounts, network, proc};

/// Where containerd's shims create their sockets, regardless of containerd's own folders.
const SHIM_SOCKETS: &str = "/run/containerd/s";
/// How long a killed process may take to disappear.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);
const GONE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Kills every remaining process of the cluster: those in its control groups, those with a record,
/// and the shims of its containerds.
pub fn kill_processes(layout: &Layout) -> anyhow::Result<()> {
    let shims = shims(&layout.root().join("nodes"));
    let sockets = shim_sockets(&shims);
    for (_, record) in record::read_all(&layout.run())? {
        record.signal(Signal::SIGKILL);
    }
    cgroup::kill_all(&layout.cgroup());
    kill_shims(&shims);
    for socket in sockets {
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
            }
            _ => {}
        }
    }
    record::clear(&layout.run())
}

/// Kills the containers and shims of one node.
pub fn kill_node(layout: &Layout, node: &str) {
    let shims = shims(&layout.node(node));
    cgroup::kill_all(&layout.node_cgroup(node));
    kill_shims(&shims);
}

/// Removes what the cluster created outside its folder: mounts, loop devices, network, control
/// groups.
pub fn remove_from_machine(layout: &Layout) -> anyhow::Result<()> {
    let steps = [
        mounts::unmount_below(layout.root()),
        loops::detach_below(layout.root()),
        network::remove(layout),
        cgroup::remove(&layout.cgroup()),
    ];
    cgroup::remove_if_empty("/skiff");
    crate::cluster::join_errors(steps.into_iter().filter_map(Result::err).collect())
}

/// The shims whose containerd listens on a socket below the folder.
fn shims(folder: &Path) -> Vec<u32> {
    proc::all()
        .into_iter()
        .filter(|(_, arguments)| is_shim_below(arguments, folder))
        .map(|(pid, _)| pid)
        .collect()
}

fn is_shim_below(arguments: &[String], folder: &Path) -> bool {
    let [program, rest @ ..] = arguments else {
        return false;
    };
    let is_shim = Path::new(program)
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("containerd-shim"));
    let address =
        rest.windows(2).find(|pair| pair[0] == "-address").map(|pair| Path::new(&pair[1]));
    is_shim && address.is_some_and(|address| address.starts_with(folder))
}

/// The files of the sockets that these shims listen on.
fn shim_sockets(shims: &[u32]) -> Vec<PathBuf> {
    let inodes: BTreeSet<String> = shims
        .iter()
        .filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            let name = link.to_string_lossy().into_owned();
            Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(6);
            let (inode, path) = (fields.next()?, fields.next()?);
            (inodes.contains(inode) && path.starts_with(SHIM_SOCKETS)).then(|| path.into())
        })
        .collect()
}

fn kill_shims(shims: &[u32]) {
    for pid in shims {
        if let Err(error) = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL) {
            tracing::debug!(pid, %error, "cannot kill a shim");
        }
    }
    let until = clock::monotonic() + GONE_TIMEOUT;
    let alive = |pid: &u32| proc::stat(*pid).is_some_and(|stat| !stat.zombie);
    while shims.iter().any(alive) && clock::monotonic() < until {
        std::thread::sleep(GONE_POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_of_the_folder_are_ours() {
        let shim = |address: &str| {
            ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-address", address]
                .map(str::to_owned)
        };
        let folder = Path::new("/var/lib/skiff/nodes");
        let own = "/var/lib/skiff/nodes/node-1/containerd/containerd.sock";
        assert!(is_shim_below(&shim(own), folder));
        assert!(!is_shim_below(&shim("/run/containerd/containerd.sock"), folder));
        assert!(!is_shim_below(&shim("/var/lib/skiff/nodes-2/containerd.sock"), folder));
        let other = ["grep", "-address", own].map(str::to_owned);
        assert!(!is_shim_below(&other, folder));
    }
}
