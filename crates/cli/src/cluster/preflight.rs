//! Checks before a cluster is started. Every check runs, so that all problems are shown at once,
//! each with a remedy. Nothing is changed.

mod addresses;
mod kernel;
mod programs;

use std::fmt;
use std::path::Path;

use nix::sys::statfs::{self, FsType, statfs};
use nix::unistd::Uid;

use crate::cluster::layout::Layout;
use crate::cluster::options::Options;
use crate::cluster::processes::Programs;

/// Free space below which a cluster is not started.
const SPACE_MIN_BYTES: u64 = 1 << 30;
/// Longest path of a Unix socket, without its terminating zero.
const SOCKET_PATH_MAX: usize = 107;

/// Something that prevents a cluster from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n      {}", self.what, self.remedy)
    }
}

/// Runs every check; returns where the programs are, or all problems.
pub fn check(layout: &Layout, options: &Options) -> Result<Programs, Vec<Problem>> {
    let mut problems = Vec::new();
    if let Some(problem) = not_root(nix::unistd::geteuid()) {
        // Without root the other checks would report false problems.
        return Err(vec![problem]);
    }
    let programs = programs::check(options, &mut problems);
    kernel::check(&mut problems);
    addresses::check(layout, options, &mut problems);
    check_folder(layout, &mut problems);
    match programs {
        Some(programs) if problems.is_empty() => Ok(programs),
        _ => Err(problems),
    }
}

/// Finds the programs of a node that is a container, whose image provides everything else.
pub fn node_programs(problems: &mut Vec<Problem>) -> Option<Programs> {
    programs::check_node(problems)
}

fn not_root(user: Uid) -> Option<Problem> {
    (!user.is_root()).then(|| {
        let remedy = "run it again as root: sudo skiff up";
        Problem::new("skiff up needs root", remedy)
    })
}

fn check_folder(layout: &Layout, problems: &mut Vec<Problem>) {
    problems.extend(path_too_long(layout));
    let Some(existing) = layout.root().ancestors().find(|path| path.exists()) else {
        return;
    };
    let Ok(status) = statfs(existing) else { return };
    let free = status.blocks_available() * u64::try_from(status.block_size()).unwrap_or(0);
    problems.extend(disk_unfit(existing, status.filesystem_type(), free));
}

fn path_too_long(layout: &Layout) -> Option<Problem> {
    let longest = layout.run().join("controller-manager.notify");
    let nodes = layout.containerd_socket("node-64").with_extension("sock.ttrpc");
    let length = longest.as_os_str().len().max(nodes.as_os_str().len());
    let excess = length.checked_sub(SOCKET_PATH_MAX).filter(|excess| *excess > 0)?;
    Some(Problem::new(
        format!("the data folder's path is {excess} characters too long"),
        "sockets below it could not be created; choose a shorter --data-dir",
    ))
}

fn disk_unfit(folder: &Path, kind: FsType, free_bytes: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    if kind == statfs::OVERLAYFS_SUPER_MAGIC {
        problems.push(Problem::new(
            format!("{} is on an overlay file system", folder.display()),
            "containers need their layers on another one; choose --data-dir on a disk or volume",
        ));
    }
    if free_bytes < SPACE_MIN_BYTES {
        problems.push(Problem::new(
            format!("{} has {} MB left", folder.display(), free_bytes >> 20),
            format!(
                "make at least {} MB free, or choose --data-dir elsewhere",
                SPACE_MIN_BYTES >> 20
            ),
        ));
    }
    problems
}

/// Whether a folder exists and is not empty.
pub fn in_use(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_required() {
        assert_eq!(not_root(Uid::from_raw(0)), None);
        let problem = not_root(Uid::from_raw(1000)).unwrap();
        assert!(problem.remedy.contains("sudo skiff up"), "{problem}");
    }

    #[test]
    fn a_folder_too_deep_for_sockets() {
        let layout = |path: &str| Layout::new("skiff", path.into());
        assert_eq!(path_too_long(&layout("/var/lib/skiff")), None);
        let deep = format!("/{}", "x".repeat(100));
        let problem = path_too_long(&layout(&deep)).unwrap();
        assert!(problem.remedy.contains("shorter --data-dir"), "{problem}");
    }

    #[test]
    fn a_disk_without_room_or_of_the_wrong_kind() {
        let folder = Path::new("/data");
        let disk = |kind, free| disk_unfit(folder, kind, free);
        assert!(disk(statfs::EXT4_SUPER_MAGIC, SPACE_MIN_BYTES).is_empty());
        let problems = disk(statfs::OVERLAYFS_SUPER_MAGIC, 5 << 20);
        assert_eq!(problems[0].what, "/data is on an overlay file system");
        assert_eq!(problems[1].what, "/data has 5 MB left");
    }
}
