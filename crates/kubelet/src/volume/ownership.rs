//! `fsGroup`: the pod's group owns the volume. Blocks on the file system.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::VolumeError;

/// The group may read and write; directories are searchable and setgid.
const FILE_BITS: u32 = 0o660;
const DIRECTORY_BITS: u32 = 0o2770;

/// Changes the group of `root` and everything in it. With `only_if_needed` (`OnRootMismatch`)
/// nothing is done if the root has the group already.
pub fn give_to_group(root: &Path, group: u32, only_if_needed: bool) -> Result<(), VolumeError> {
    if only_if_needed {
        let metadata = fs::metadata(root).map_err(VolumeError::io("stat", root))?;
        if metadata.gid() == group && metadata.mode() & DIRECTORY_BITS == DIRECTORY_BITS {
            return Ok(());
        }
    }
    give(root, group)
}

fn give(path: &Path, group: u32) -> Result<(), VolumeError> {
    let metadata = fs::symlink_metadata(path).map_err(VolumeError::io("stat", path))?;
    lchown(path, None, Some(group)).map_err(VolumeError::io("chown", path))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let bits = if metadata.is_dir() { DIRECTORY_BITS } else { FILE_BITS };
    let mode = metadata.mode() | bits;
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))
        .map_err(VolumeError::io("chmod", path))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(VolumeError::io("read", path))? {
            give(&entry.map_err(VolumeError::io("read", path))?.path(), group)?;
        }
    }
    Ok(())
}
