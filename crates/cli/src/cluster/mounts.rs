//! Finds and removes mounts that a cluster leaves behind.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, umount2};

/// Unmounts everything at or below the folder, the most recent first.
///
/// # Errors
/// When the mounts cannot be read, or one cannot be unmounted.
pub fn unmount_below(folder: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mut problems = Vec::new();
    for path in parse(&text).into_iter().rev().filter(|path| path.starts_with(folder)) {
        let unmounted = umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        match unmounted {
            // Unmounting a peer has unmounted it as well.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => {
                let error = anyhow::Error::new(error);
                problems.push(error.context(format!("cannot unmount {}", path.display())));
            }
        }
    }
    crate::cluster::join_errors(problems)
}

/// The mount points, in the order in which they were mounted.
fn parse(mountinfo: &str) -> Vec<PathBuf> {
    let unescape = |path: &str| {
        let blanks = path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        PathBuf::from(blanks.replace("\\134", "\\"))
    };
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n";
        assert_eq!(parse(text), [PathBuf::from("/mnt/a b")]);
    }
}
