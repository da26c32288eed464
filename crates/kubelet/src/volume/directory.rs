//! The directories of volumes: emptyDir, hostPath, and those with files made from objects. Blocks
//! on the file system.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::once::Once;
use super::{VolumeError, atomic, mount, ownership};

/// What an emptyDir is stored on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk,
    Memory { max_bytes: Option<u64> },
    HugePages { page_bytes: u64 },
}

/// Creates an emptyDir at `path` that any user may write to, or the group only. One that is set up
/// is kept as its containers left it.
pub fn empty_dir(
    path: &Path,
    medium: Medium,
    group: Option<u32>,
    set_up: &Once,
) -> Result<(), VolumeError> {
    let mounted = mount::is_tmpfs(path);
    let there = match medium {
        Medium::Disk => path.is_dir(),
        Medium::Memory { .. } => mounted,
        Medium::HugePages { .. } => mount::is_mount_point(path)?,
    };
    if there && set_up.is_done() {
        return Ok(());
    }
    set_up.forget()?;
    match medium {
        Medium::Disk => mount::make_directory(path, 0o777)?,
        Medium::Memory { max_bytes } => {
            if !mounted {
                mount::make_mount_point(path)?;
            }
            mount::tmpfs(path, max_bytes, 0o1777)?;
        }
        Medium::HugePages { page_bytes } => {
            if !there {
                mount::make_mount_point(path)?;
            }
            mount::huge_pages(path, page_bytes, 0o777)?;
        }
    }
    if let Some(group) = group {
        ownership::give_to_group(path, group, false)?;
    }
    set_up.done()
}

/// Creates the directory of files made from objects, which only this process writes to. Those
/// in memory are never on the node's disk.
pub fn contents(path: &Path, in_memory: bool) -> Result<(), VolumeError> {
    // One of an earlier version is on disk, where its containers look for renewed tokens: it stays
    // until its pod goes.
    if in_memory && !mount::is_tmpfs(path) && !atomic::is_written(path) {
        mount::make_mount_point(path)?;
        // The files that are, and those that replace them.
        return mount::tmpfs(path, Some(2 * atomic::PAYLOAD_MAX_BYTES), 0o755);
    }
    mount::make_directory(path, 0o755)
}

/// Checks (or creates) the path of a hostPath, according to its type.
pub fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = fs::metadata(&path).ok().map(|metadata| metadata.file_type());
    let refuse = |wanted| Err(VolumeError::HostPathType { path: source.path.clone(), wanted });
    match source.type_.as_deref().unwrap_or_default() {
        // No check; a missing path is created as a directory.
        "" if kind.is_none() => mount::make_directory(&path, 0o755)?,
        "" => {}
        "DirectoryOrCreate" if kind.is_none() => mount::make_directory(&path, 0o755)?,
        "Directory" | "DirectoryOrCreate" => {
            if !kind.is_some_and(|kind| kind.is_dir()) {
                return refuse("a directory");
            }
        }
        "FileOrCreate" if kind.is_none() => {
            // Not through a link that points nowhere: pods may write to the directory.
            let file = fs::File::create_new(&path).map_err(VolumeError::io("create", &path))?;
            file.set_permissions(Permissions::from_mode(0o644))
                .map_err(VolumeError::io("chmod", &path))?;
        }
        "File" | "FileOrCreate" => {
            if !kind.is_some_and(|kind| kind.is_file()) {
                return refuse("a file");
            }
        }
        "Socket" => {
            if !kind.is_some_and(|kind| kind.is_socket()) {
                return refuse("a socket");
            }
        }
        "CharDevice" => {
            if !kind.is_some_and(|kind| kind.is_char_device()) {
                return refuse("a character device");
            }
        }
        "BlockDevice" => {
            if !kind.is_some_and(|kind| kind.is_block_device()) {
                return refuse("a block device");
            }
        }
        other => return Err(VolumeError::HostPathKind(other.to_owned())),
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_types() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        let check = |name: &str, kind: &str| {
            let path = root.path().join(name).to_string_lossy().into_owned();
            let type_ = Some(kind.to_owned());
            host_path(&HostPathVolumeSource { path, type_ }).is_ok()
        };
        for (name, kind, ok) in [
            ("file", "File", true),
            ("file", "Directory", false),
            ("file", "", true),
            ("none", "File", false),
            ("none", "Directory", false),
            ("none", "Socket", false),
            ("made/dir", "DirectoryOrCreate", true),
            ("made/dir", "Directory", true),
            ("made/file", "FileOrCreate", true),
            ("made/file", "File", true),
            ("file", "Nonsense", false),
        ] {
            assert_eq!(check(name, kind), ok, "{name} as {kind}");
        }
        std::os::unix::fs::symlink(root.path().join("made/other"), root.path().join("dangling"))
            .unwrap();
        for kind in ["FileOrCreate", "DirectoryOrCreate", ""] {
            assert!(!check("dangling", kind), "{kind}");
        }
        assert!(!root.path().join("made/other").exists());
    }
}
