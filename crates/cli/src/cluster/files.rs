//! Files that are replaced atomically: a reader sees the old content or the new, never a part.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

/// Creates a folder and its parents, with mode 0700 where they are new.
///
/// # Errors
/// Names the folder.
pub fn make_private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the folder {}", path.display()))
}

/// Lets everybody go through a folder, without seeing what is in it: the root of a pod with a user
/// namespace is somebody else on the machine, and its root file system is below containerd's folder.
///
/// # Errors
/// Names the folder.
pub fn make_passable(path: &Path) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o711))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}

/// Replaces a file by a rename, creating its folder; `mode` is the new file's.
///
/// # Errors
/// Names the file.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let folder = path.parent().context("the path has no folder")?;
        make_private_dir(folder)?;
        let mut name = path.file_name().context("the path has no file name")?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = folder.join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces a file only when its content differs; returns whether it did.
///
/// # Errors
/// Names the file.
pub fn replace_if_changed(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    replace(path, content, mode)?;
    Ok(true)
}

/// A file's content, or `None` when the file does not exist.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
