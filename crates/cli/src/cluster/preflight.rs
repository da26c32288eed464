//! What has to be so before a cluster is started. Every check runs, so that one look shows all
//! that is wrong; each problem comes with what to do about it. Nothing is changed.

mod addresses;
mod kernel;
mod programs;

use super::layout::Layout;
use super::options::Options;
use super::processes::Programs;
use nix::sys::statfs::{self, statfs};
use std::fmt;
use std::path::Path;

/// Free space below which a cluster is not started.
const SPACE_MIN_BYTES: u64 = 1 << 30;
/// Longest path of a unix socket, its closing zero not counted.
const SOCKET_PATH_MAX: usize = 107;

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
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
    if !nix::unistd::geteuid().is_root() {
        // Without root the other checks would say what is not so.
        let remedy = "run it again as root: sudo skiff up";
        return Err(vec![Problem::new("skiff up needs root", remedy)]);
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

/// Finds the programs of a node that is a container; the rest of the machine is the image's affair.
pub fn node_programs(problems: &mut Vec<Problem>) -> Option<Programs> {
    programs::check_node(problems)
}

fn check_folder(layout: &Layout, problems: &mut Vec<Problem>) {
    let longest = layout.run().join("controller-manager.notify");
    let nodes = layout
        .containerd_socket("node-64")
        .with_extension("sock.ttrpc");
    let length = longest.as_os_str().len().max(nodes.as_os_str().len());
    if length > SOCKET_PATH_MAX {
        problems.push(Problem::new(
            format!(
                "the data folder's path is {} characters too long",
                length - SOCKET_PATH_MAX
            ),
            "sockets below it could not be made; choose a shorter --data-dir",
        ));
    }
    let Some(existing) = layout.root().ancestors().find(|path| path.exists()) else {
        return;
    };
    let Ok(status) = statfs(existing) else { return };
    if status.filesystem_type() == statfs::OVERLAYFS_SUPER_MAGIC {
        problems.push(Problem::new(
            format!("{} is on an overlay file system", existing.display()),
            "containers need their layers on another one; choose --data-dir on a disk or volume",
        ));
    }
    let free = status.blocks_available() * u64::try_from(status.block_size()).unwrap_or(0);
    if free < SPACE_MIN_BYTES {
        problems.push(Problem::new(
            format!("{} has {} MB left", existing.display(), free >> 20),
            format!(
                "make at least {} MB free, or choose --data-dir elsewhere",
                SPACE_MIN_BYTES >> 20
            ),
        ));
    }
}

/// Whether a folder is there and has something in it.
pub fn in_use(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
