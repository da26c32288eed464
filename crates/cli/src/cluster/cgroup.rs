//! Control groups of the cluster: joining one, ending what runs in them, removing them.
//! Works on version 2, on version 1, and on both mounted side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Rounds of killing the processes of a group: one may fork while they are being listed.
const KILL_ROUNDS: u32 = 100;
/// Pause between rounds; the kernel needs a moment to reap.
const KILL_PAUSE: Duration = Duration::from_millis(20);

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub path: PathBuf,
    pub version: u8,
    /// Mount options; on version 1 they name the controllers.
    pub options: Vec<String>,
}

/// The mounted hierarchies.
pub fn hierarchies() -> Vec<Hierarchy> {
    parse_mounts(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn parse_mounts(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, path, kind, options, ..] = fields.as_slice() else {
                return None;
            };
            let version = match *kind {
                "cgroup" => 1,
                "cgroup2" => 2,
                _ => return None,
            };
            let options = options.split(',').map(str::to_owned).collect();
            Some(Hierarchy { path: PathBuf::from(path), version, options })
        })
        .collect()
}

/// Moves the calling process into a group of the hierarchy that accounts for memory, so that
/// its descendants can be found.
///
/// # Errors
/// When no hierarchy is mounted, or the group cannot be created or joined.
pub fn join(group: &str) -> anyhow::Result<()> {
    let all = hierarchies();
    let hierarchy = all
        .iter()
        .find(|h| h.version == 1 && h.options.iter().any(|option| option == "memory"))
        .or_else(|| all.iter().find(|h| h.version == 2))
        .context("no cgroup hierarchy is mounted")?;
    let path = below(&hierarchy.path, group);
    fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let file = path.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string())
        .with_context(|| format!("cannot join {}", path.display()))
}

/// Kills every process in a group and below it, in every hierarchy, except the caller.
pub fn kill_all(group: &str) {
    for hierarchy in hierarchies() {
        let root = below(&hierarchy.path, group);
        for _ in 0..KILL_ROUNDS {
            let members = members(&root);
            if members.is_empty() {
                break;
            }
            for pid in members {
                // It may have ended in the meantime, which is fine.
                if let Err(error) = kill(pid, Signal::SIGKILL) {
                    tracing::debug!(%pid, %error, "cannot kill");
                }
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }
}

/// Removes a group and all below it, in every hierarchy.
///
/// # Errors
/// When a group exists and cannot be removed.
pub fn remove(group: &str) -> anyhow::Result<()> {
    let problems = hierarchies()
        .iter()
        .filter_map(|hierarchy| remove_tree(&below(&hierarchy.path, group)).err())
        .collect();
    crate::cluster::join_errors(problems)
}

/// Removes a group if nothing is in or below it.
pub fn remove_if_empty(group: &str) {
    for hierarchy in hierarchies() {
        if let Err(error) = fs::remove_dir(below(&hierarchy.path, group)) {
            tracing::debug!(%error, group, "the group is kept");
        }
    }
}

fn below(root: &Path, group: &str) -> PathBuf {
    root.join(group.trim_start_matches('/'))
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

fn members(path: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id() as i32;
    let mut pids: Vec<Pid> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        // Zero stands for a process of another pid namespace, which cannot be signalled from here.
        .filter(|pid| *pid != own && *pid > 0)
        .map(Pid::from_raw)
        .collect();
    pids.extend(children(path).iter().flat_map(|child| members(child)));
    pids
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    for _ in 0..KILL_ROUNDS {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => {
                std::thread::sleep(KILL_PAUSE);
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => return Ok(()),
        }
    }
    let holders = members(path);
    anyhow::bail!("cannot remove {}: processes {holders:?} are still in it", path.display())
}

/// The available controllers, in any hierarchy.
pub fn controllers() -> Vec<String> {
    let mut names = Vec::new();
    for hierarchy in hierarchies() {
        if hierarchy.version == 1 {
            names.extend(hierarchy.options);
        } else if let Ok(text) = fs::read_to_string(hierarchy.path.join("cgroup.controllers")) {
            names.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = parse_mounts(mounts);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].version, 1);
        assert!(found[0].options.contains(&"memory".to_owned()));
        assert_eq!(found[1].path, Path::new("/sys/fs/cgroup/unified"));
    }
}
