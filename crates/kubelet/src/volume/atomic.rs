//! Writes a set of files atomically, so that readers see either the old set or the new one: the
//! files are in a directory named after the time, `..data` is a link to it that is replaced by
//! rename, and every top-level name is a link through `..data` (`pkg/volume/util/atomic_writer` in
//! Kubernetes).
//!
//! Blocks on the file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

use super::VolumeError;

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projected {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, if different from the volume's.
    pub owner: Option<u32>,
}

/// Files by their relative path.
pub type Payload = BTreeMap<String, Projected>;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Replaces the contents of `directory` with `payload`. Returns whether anything was written.
pub fn write(
    directory: &Path,
    payload: &Payload,
    group: Option<u32>,
    now: Timestamp,
) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        check(path)?;
    }
    let data = directory.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && current(&data, payload, group) {
        link_names(directory, payload)?;
        return Ok(false);
    }
    let name = fresh_name(directory, now);
    let fresh = directory.join(&name);
    make_directory(&fresh, group)?;
    for (path, file) in payload {
        write_file(&fresh, path, file, group)?;
    }
    let next = directory.join(DATA_NEXT);
    remove_file(&next)?;
    symlink(&name, &next).map_err(VolumeError::io("link", &next))?;
    fs::rename(&next, &data).map_err(VolumeError::io("rename", &data))?;
    link_names(directory, payload)?;
    remove_stale(directory, payload, &name)?;
    Ok(true)
}

/// A path must not leave the volume or use the names that this writer needs.
fn check(path: &str) -> Result<(), VolumeError> {
    let mut parts = Path::new(path).components();
    let relative = parts.clone().all(|part| matches!(part, Component::Normal(_)));
    let first_ok = matches!(parts.next(), Some(Component::Normal(first)) if !first.to_string_lossy().starts_with(".."));
    if relative && first_ok && !path.ends_with('/') {
        Ok(())
    } else {
        Err(VolumeError::BadPath(path.to_owned()))
    }
}

/// Whether the directory behind `..data` holds exactly `payload`.
fn current(data: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut found = BTreeSet::new();
    if list(data, "", &mut found).is_err() {
        return false;
    }
    found.len() == payload.len()
        && payload.iter().all(|(path, file)| {
            let path = data.join(path);
            fs::read(&path).is_ok_and(|data| data == file.data)
                && fs::metadata(&path).is_ok_and(|metadata| {
                    metadata.permissions().mode() & 0o777 == mode_of(file, group)
                })
        })
}

fn list(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.insert(name);
        }
    }
    Ok(())
}

fn fresh_name(directory: &Path, now: Timestamp) -> String {
    let base = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let nanos = now.subsec_nanosecond();
    (0_u32..)
        .map(|n| format!("{base}.{:010}", i64::from(nanos) + i64::from(n)))
        .find(|name| !directory.join(name).exists())
        .expect("one of four billion names is free")
}

fn make_directory(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::io("create", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(VolumeError::io("chmod", path))?;
    if group.is_some() {
        chown(path, None, group).map_err(VolumeError::io("chown", path))?;
    }
    Ok(())
}

fn write_file(
    root: &Path,
    path: &str,
    file: &Projected,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    let target = root.join(path);
    let mut parent = root.to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        parent.push(part);
        make_directory(&parent, group)?;
    }
    fs::write(&target, &file.data).map_err(VolumeError::io("write", &target))?;
    fs::set_permissions(&target, Permissions::from_mode(mode_of(file, group)))
        .map_err(VolumeError::io("chmod", &target))?;
    if group.is_some() || file.owner.is_some() {
        chown(&target, file.owner, group).map_err(VolumeError::io("chown", &target))?;
    }
    Ok(())
}

/// If the volume has a group, owner and group may read (`fsGroup` on read-only volumes).
fn mode_of(file: &Projected, group: Option<u32>) -> u32 {
    let readable = if group.is_some() { 0o440 } else { 0 };
    (file.mode | readable) & 0o777
}

fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn link_names(directory: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for name in payload.keys().map(|path| top(path)).collect::<BTreeSet<_>>() {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) {
            continue;
        }
        let target = format!("{DATA}/{name}");
        symlink(target, &link).map_err(VolumeError::io("link", &link))?;
    }
    Ok(())
}

/// Removes links to names that are gone, and earlier directories.
fn remove_stale(directory: &Path, payload: &Payload, fresh: &str) -> Result<(), VolumeError> {
    let names: BTreeSet<&str> = payload.keys().map(|path| top(path)).collect();
    let entries = fs::read_dir(directory).map_err(VolumeError::io("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(VolumeError::io("read", directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == DATA || name == fresh || names.contains(name.as_str()) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(&path).map_err(VolumeError::io("remove", &path))?;
        } else {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(VolumeError::io("remove", path)),
    }
}

#[cfg(test)]
mod tests;
