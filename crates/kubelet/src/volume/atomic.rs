//! Writes a set of files atomically, so that readers see either the old set or the new one: the
//! files are in a directory named after the time, `..data` is a link to it that is replaced by
//! rename, and every top-level name is a link through `..data` (`pkg/volume/util/atomic_writer` in
//! Kubernetes).
//!
//! Blocks on the file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

use super::{VolumeError, tree};

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projected {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, if different from the volume's.
    pub owner: Option<u32>,
}

/// Largest volume that is made from objects: the objects are small, but a volume may list the same
/// one many times, and the node pays for the memory.
pub const PAYLOAD_MAX_BYTES: u64 = 64 << 20;
/// Files in memory occupy whole pages.
const PAGE_BYTES: u64 = 4096;

/// Files by their relative path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    files: BTreeMap<String, Projected>,
    bytes: u64,
}

impl Payload {
    /// Adds a file, or replaces it.
    pub fn insert(&mut self, path: String, file: Projected) -> Result<(), VolumeError> {
        let size = |file: &Projected| (file.data.len() as u64).next_multiple_of(PAGE_BYTES);
        self.bytes += size(&file);
        if let Some(before) = self.files.insert(path, file) {
            self.bytes -= size(&before);
        }
        if self.bytes > PAYLOAD_MAX_BYTES {
            return Err(VolumeError::TooLarge { max_bytes: PAYLOAD_MAX_BYTES });
        }
        Ok(())
    }

    /// Adds all files of another.
    pub fn extend(&mut self, other: Self) -> Result<(), VolumeError> {
        other.files.into_iter().try_for_each(|(path, file)| self.insert(path, file))
    }
}

impl Deref for Payload {
    type Target = BTreeMap<String, Projected>;

    fn deref(&self) -> &Self::Target {
        &self.files
    }
}

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
    // What an interrupted write left takes space that this one needs.
    let old = old.unwrap_or_default();
    let is_left = |name: &str| name.starts_with("..") && name != DATA && Path::new(name) != old;
    remove_others(directory, |name| !is_left(name))?;
    let name = fresh_name(directory, now);
    let fresh = directory.join(&name);
    make_directory(&fresh, group)?;
    for (path, file) in payload.iter() {
        write_file(&fresh, path, file, group)?;
    }
    let next = directory.join(DATA_NEXT);
    remove_file(&next)?;
    symlink(&name, &next).map_err(VolumeError::io("link", &next))?;
    fs::rename(&next, &data).map_err(VolumeError::io("rename", &data))?;
    link_names(directory, payload)?;
    let names: BTreeSet<&str> = payload.keys().map(|path| top(path)).collect();
    remove_others(directory, |other| other == DATA || other == name || names.contains(other))?;
    Ok(true)
}

/// Whether there has been a [`write()`] to this directory.
pub fn is_written(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(DATA)).is_ok()
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
                    metadata.mode() & 0o777 == mode_of(file, group)
                        && file.owner.is_none_or(|owner| metadata.uid() == owner)
                        && group.is_none_or(|group| metadata.gid() == group)
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
        match fs::symlink_metadata(&link) {
            Ok(found) if found.is_symlink() => continue,
            // A container had a `subPath` there before the object had the key.
            Ok(_) => tree::remove(&link).map_err(VolumeError::io("remove", &link))?,
            Err(_) => {}
        }
        let target = format!("{DATA}/{name}");
        symlink(target, &link).map_err(VolumeError::io("link", &link))?;
    }
    Ok(())
}

/// Removes everything but what is to be kept, by name.
fn remove_others(directory: &Path, keep: impl Fn(&str) -> bool) -> Result<(), VolumeError> {
    for entry in fs::read_dir(directory).map_err(VolumeError::io("read", directory))? {
        let entry = entry.map_err(VolumeError::io("read", directory))?;
        if !keep(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            tree::remove(&path).map_err(VolumeError::io("remove", &path))?;
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
