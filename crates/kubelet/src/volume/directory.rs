//! emptyDir and hostPath. Blocks on the file system.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource};

use super::{VolumeError, mount};

/// Creates an emptyDir at `path`, in memory if `medium` says so. An existing one is kept.
pub fn empty_dir(path: &Path, source: &EmptyDirVolumeSource) -> Result<(), VolumeError> {
    let new = !path.exists();
    fs::create_dir_all(path).map_err(VolumeError::io("create", path))?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().map(Quantity::of);
        let size = limit
            .filter(|limit| !limit.is_zero())
            .and_then(|limit| u64::try_from(limit.units()).ok());
        mount::tmpfs(path, size)?;
    }
    if new {
        fs::set_permissions(path, Permissions::from_mode(0o777))
            .map_err(VolumeError::io("chmod", path))?;
    }
    Ok(())
}

/// Checks (or creates) the path of a hostPath, according to its type.
pub fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = fs::metadata(&path).ok().map(|metadata| metadata.file_type());
    let refuse = |wanted| Err(VolumeError::HostPathType { path: source.path.clone(), wanted });
    match source.type_.as_deref().unwrap_or_default() {
        // No check; a missing path is created as a directory.
        "" if kind.is_none() => make_directory(&path)?,
        "" => {}
        "DirectoryOrCreate" if kind.is_none() => make_directory(&path)?,
        "Directory" | "DirectoryOrCreate" => {
            if !kind.is_some_and(|kind| kind.is_dir()) {
                return refuse("a directory");
            }
        }
        "FileOrCreate" if kind.is_none() => {
            fs::write(&path, b"").map_err(VolumeError::io("create", &path))?;
            fs::set_permissions(&path, Permissions::from_mode(0o644))
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

fn make_directory(path: &Path) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::io("create", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(VolumeError::io("chmod", path))
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
    }
}
