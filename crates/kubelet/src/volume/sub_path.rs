//! `subPath`: a path below a volume, opened step by step without following links, so that a
//! container that can write into the volume cannot make the node mount something else
//! (CVE-2017-1002101, CVE-2021-25741). Blocks on the file system.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::{VolumeError, mount};

/// Attempts to mount a file that is replaced at that moment.
const ATTEMPTS: usize = 3;

/// Bind-mounts what is `volume/sub_path` now onto `target` (created as needed) and returns
/// `target`. Missing directories are created. A target where something else is mounted (the file
/// that a ConfigMap had before it changed, which cannot be mounted into another container any
/// more) is mounted anew: containers that run keep what they have.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, VolumeError> {
    let mut attempts = 1;
    loop {
        match bind_present(volume, sub_path, target) {
            Err(error) if error.is_missing_file() && attempts < ATTEMPTS => attempts += 1,
            result => return result.map(|()| target.to_owned()),
        }
    }
}

fn bind_present(volume: &Path, sub_path: &str, target: &Path) -> Result<(), VolumeError> {
    let found = open(volume, sub_path)?;
    let wanted = fstat(&found).map_err(|errno| VolumeError::io("stat", volume)(errno.into()))?;
    let is_directory = SFlag::from_bits_truncate(wanted.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    if let Ok(mounted) = fs::symlink_metadata(target)
        && (mounted.dev(), mounted.ino()) == (wanted.st_dev, wanted.st_ino)
    {
        return Ok(());
    }
    mount::unmount_stack(target)?;
    if let Some(parent) = target.parent() {
        mount::make_mount_point(parent)?;
    }
    make_target(target, is_directory)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    mount::bind(&through, target)
}

/// Creates an empty directory or file to mount onto.
fn make_target(target: &Path, is_directory: bool) -> Result<(), VolumeError> {
    match fs::symlink_metadata(target) {
        Ok(before) if before.is_dir() == is_directory => return Ok(()),
        Ok(before) => {
            let remove = if before.is_dir() { fs::remove_dir } else { fs::remove_file };
            remove(target).map_err(VolumeError::io("remove", target))?;
        }
        Err(_) => {}
    }
    if is_directory {
        return mount::make_mount_point(target);
    }
    fs::write(target, b"").map_err(VolumeError::io("create", target))
}

/// Opens `sub_path` below `volume`. Links are followed only if they stay inside.
fn open(volume: &Path, sub_path: &str) -> Result<OwnedFd, VolumeError> {
    let bad = || VolumeError::BadPath(sub_path.to_owned());
    // Links in an atomically written volume (`name -> ..data/name`) are legitimate: resolve them
    // once, check that the result is inside, and walk that without following links.
    let wanted = volume.join(sub_path);
    let parts: Vec<_> = Path::new(sub_path).components().collect();
    if parts.iter().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(bad());
    }
    let root = fs::canonicalize(volume).map_err(VolumeError::io("resolve", volume))?;
    let inside = match fs::canonicalize(&wanted) {
        Ok(real) => real.strip_prefix(&root).map(Path::to_owned).map_err(|_| bad())?,
        Err(_) => PathBuf::from(sub_path),
    };
    let failed = |errno: Errno| VolumeError::io("open", &wanted)(errno.into());
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut here = nix::fcntl::open(&root, flags, Mode::empty()).map_err(failed)?;
    // With the permissions of the volume itself, whatever this process' umask.
    let mode = Mode::from_bits_truncate(fstat(&here).map_err(failed)?.st_mode);
    for part in inside.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let mut next = openat(&here, name, flags, Mode::empty());
        let mut made = false;
        if matches!(next, Err(Errno::ENOENT)) {
            // Someone else created it in between: that is fine unless it is a link.
            match mkdirat(&here, name, mode) {
                Ok(()) => made = true,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            next = openat(&here, name, flags, Mode::empty());
        }
        let next = next.map_err(failed)?;
        let kind = SFlag::from_bits_truncate(fstat(&next).map_err(failed)?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFLNK {
            return Err(bad());
        }
        if made && kind == SFlag::S_IFDIR {
            let through = format!("/proc/self/fd/{}", next.as_raw_fd());
            let permissions = fs::Permissions::from_mode(mode.bits());
            fs::set_permissions(&through, permissions)
                .map_err(VolumeError::io("chmod", &wanted))?;
        }
        here = next;
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn real(volume: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
        let found = open(volume, sub_path)?;
        Ok(fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap())
    }

    #[test]
    fn created_directories_have_the_volumes_permissions() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().canonicalize().unwrap();
        for mode in [0o777, 0o2770] {
            fs::set_permissions(&volume, fs::Permissions::from_mode(mode)).unwrap();
            let made = real(&volume, &format!("{mode:o}/below")).unwrap();
            for directory in [&*made, made.parent().unwrap()] {
                let found = fs::metadata(directory).unwrap().permissions().mode();
                assert_eq!(found & 0o7777, mode, "{}", directory.display());
            }
        }
    }

    #[test]
    fn stays_inside() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().canonicalize().unwrap();
        let volume = base.join("volume");
        fs::create_dir_all(volume.join("..data")).unwrap();
        fs::write(volume.join("..data/key"), "x").unwrap();
        fs::write(base.join("secret"), "s").unwrap();
        symlink("..data/key", volume.join("key")).unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink("/", volume.join("slash")).unwrap();
        symlink("gone", volume.join("dangling")).unwrap();
        assert_eq!(real(&volume, "key").unwrap(), volume.join("..data/key"));
        assert_eq!(real(&volume, "a/b").unwrap(), volume.join("a/b"));
        assert!(volume.join("a/b").is_dir());
        for bad in ["out", "slash", "slash/etc", "../secret", "/etc", "dangling", "dangling/x"] {
            assert!(real(&volume, bad).is_err(), "{bad}");
        }
    }
}
