//! `fsGroup`: the pod's group owns the volume. Blocks on the file system.
//!
//! Other containers may have the same volume and change it meanwhile: see [`tree`].

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::{Gid, fchownat};

use super::VolumeError;
use super::tree::{self, Visit};

/// The group may read and write; directories are searchable and setgid.
const FILE_BITS: u32 = 0o660;
const DIRECTORY_BITS: u32 = 0o2770;

/// Changes the group of `root` and everything in it, of `root` last: if it has the group, so has
/// the rest. With `only_if_needed` (`OnRootMismatch`) nothing is done then.
pub fn give_to_group(root: &Path, group: u32, only_if_needed: bool) -> Result<(), VolumeError> {
    // The administrator's path of a local volume may contain links.
    let tree = tree::open(root, true).map_err(VolumeError::io("open", root))?;
    let stat = fstat(&tree).map_err(|errno| VolumeError::io("stat", root)(errno.into()))?;
    if only_if_needed && has(&stat, group, DIRECTORY_BITS) {
        return Ok(());
    }
    tree::walk(tree, |visit| give(visit, group)).map_err(VolumeError::io("change group of", root))
}

fn has(stat: &FileStat, group: u32, bits: u32) -> bool {
    stat.st_gid == group && stat.st_mode & bits == bits
}

fn give(visit: &Visit<'_>, group: u32) -> io::Result<()> {
    let bits = match (visit.is_link(), visit.is_directory()) {
        (true, _) => 0,
        (false, true) => DIRECTORY_BITS,
        (false, false) => FILE_BITS,
    };
    if has(visit.stat, group, bits) {
        return Ok(());
    }
    fchownat(visit.file, "", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    if visit.is_link() {
        return Ok(());
    }
    // There is no fchmod of a file that is not open for reading; this is the file itself, too.
    let through = format!("/proc/self/fd/{}", visit.file.as_raw_fd());
    let mode = (visit.stat.st_mode | bits) & 0o7777;
    fs::set_permissions(through, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::fcntl::{RenameFlags, renameat2};

    /// A group that this process may give files to.
    fn group() -> u32 {
        if nix::unistd::geteuid().is_root() { 4711 } else { nix::unistd::getegid().as_raw() }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_directories_and_links() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("below")).unwrap();
        let (file, outside) = (volume.join("below/file"), root.path().join("outside"));
        for path in [&file, &outside] {
            fs::write(path, "x").unwrap();
            set_mode(path, 0o600);
        }
        set_mode(&volume, 0o1777);
        set_mode(&volume.join("below"), 0o700);
        symlink(&outside, volume.join("link")).unwrap();
        give_to_group(&volume, group(), false).unwrap();
        assert_eq!(mode(&volume), 0o3777, "the sticky bit is kept");
        assert_eq!(mode(&volume.join("below")), 0o2770);
        assert_eq!(mode(&file), 0o660);
        assert_eq!(mode(&outside), 0o600);
        for path in [&volume, &file, &volume.join("link")] {
            assert_eq!(fs::symlink_metadata(path).unwrap().gid(), group());
        }
    }

    #[test]
    fn on_root_mismatch_looks_at_the_root_which_is_changed_last() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let file = volume.join("file");
        fs::write(&file, "x").unwrap();
        set_mode(&file, 0o600);
        set_mode(&volume, 0o755);
        let mut order = Vec::new();
        let tree = tree::open(&volume, true).unwrap();
        tree::walk(tree, |visit| {
            order.push(visit.is_directory());
            Ok(())
        })
        .unwrap();
        assert_eq!(order, [false, true]);
        give_to_group(&volume, group(), true).unwrap();
        assert_eq!((mode(&volume), mode(&file)), (0o2775, 0o660));
        set_mode(&file, 0o600);
        give_to_group(&volume, group(), true).unwrap();
        assert_eq!(mode(&file), 0o600, "the root has the group and its bits");
        give_to_group(&volume, group(), false).unwrap();
        assert_eq!(mode(&file), 0o660);
    }

    /// While the volume is walked, a container swaps a directory of it for a link to the outside,
    /// which has entries of the same names.
    #[test]
    fn a_directory_that_becomes_a_link_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        let outside = root.path().join("outside");
        let (directory, link) = (volume.join("a"), volume.join("b"));
        for parent in [&directory, &outside] {
            fs::create_dir_all(parent.join("below")).unwrap();
            for number in 0..20 {
                let path = parent.join(format!("below/{number}"));
                fs::write(&path, "x").unwrap();
                set_mode(&path, 0o600);
            }
        }
        set_mode(&outside, 0o700);
        symlink(&outside, &link).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flags = RenameFlags::RENAME_EXCHANGE;
                while !done.load(Ordering::Relaxed) {
                    renameat2(nix::fcntl::AT_FDCWD, &directory, nix::fcntl::AT_FDCWD, &link, flags)
                        .unwrap();
                }
            });
            let walked = (0..300).try_for_each(|_| give_to_group(&volume, group(), false));
            done.store(true, Ordering::Relaxed);
            walked.unwrap();
        });
        assert_eq!(mode(&outside), 0o700);
        for number in 0..20 {
            assert_eq!(mode(&outside.join(format!("below/{number}"))), 0o600);
        }
    }
}
