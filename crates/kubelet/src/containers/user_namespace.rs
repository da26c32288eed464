//! Pods with a user namespace of their own (`hostUsers: false`).
//!
//! A pod's ids 0 to 65535 are a range of the node's that no other pod has. Its other namespaces belong
//! to its user namespace, so they are created in it, by a process with one thread: a helper, which is
//! this same program ([`run_if_asked`]). Neither containerd 1.6 nor runc 1.1 can mount with mapped ids;
//! so what the containers see is mounted mapped here, and they get that: image layers ([`rootfs`]) and
//! volumes ([`mounts`]). On the node, files of pods are owned as the pods see them.

mod helper;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use containerd_client::types;
use nix::sys::statvfs::{FsFlags, statvfs};
use parking_lot::Mutex;

use super::container::Mount;
use super::error::{Result, RuntimeError};
use super::idmap::bind_mapped;
use super::namespaces::{PodPaths, is_pinned, unmount};

pub(super) use helper::make;
pub use helper::run_if_asked;

/// Number of ids of a pod, as upstream.
pub(super) const IDS: u32 = 65_536;
/// Ranges that there are for pods: the first is the node's own.
const RANGES: std::ops::RangeInclusive<u32> = 1..=65_534;

/// Restrictions of a mount that stay in a user namespace.
const LOCKED: [(FsFlags, &str); 4] = [
    (FsFlags::ST_RDONLY, "ro"),
    (FsFlags::ST_NOSUID, "nosuid"),
    (FsFlags::ST_NODEV, "nodev"),
    (FsFlags::ST_NOEXEC, "noexec"),
];

/// A pod's user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNamespace {
    /// Path that pins it.
    pub path: PathBuf,
    /// The node's id for its root.
    pub first_id: u32,
}

impl UserNamespace {
    /// That of a pod, if it has one.
    pub(super) fn of(paths: &PodPaths) -> Result<Option<Self>> {
        let path = paths.namespace("user");
        if !is_pinned(&path) {
            return Ok(None);
        }
        let first_id = read_range(&range_file(&paths.base))?;
        Ok(first_id.map(|first_id| Self { path, first_id }))
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(RuntimeError::io("open", &self.path))
    }
}

/// The file with the first id of a pod's range.
fn range_file(pod: &Path) -> PathBuf {
    pod.join("userns")
}

fn read_range(path: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RuntimeError::io("read", path)(error)),
    }
}

/// The first id of the pod's range: the one it has, or the first that is free. It is the pod's until
/// its files are removed.
fn allocate(paths: &PodPaths) -> Result<u32> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    let own = range_file(&paths.base);
    if let Some(first) = read_range(&own)? {
        return Ok(first);
    }
    let pods = paths.base.parent().unwrap_or(&paths.base);
    let mut taken = Vec::new();
    for entry in fs::read_dir(pods).map_err(RuntimeError::io("list", pods))?.flatten() {
        taken.extend(read_range(&range_file(&entry.path()))?);
    }
    let free = RANGES.map(|number| number * IDS).find(|first| !taken.contains(first));
    let first = free.ok_or_else(|| RuntimeError::InvalidConfig {
        message: "no range of ids is left for a user namespace".to_string(),
    })?;
    fs::write(&own, first.to_string()).map_err(RuntimeError::io("write", &own))?;
    Ok(first)
}

/// Where the mapped mounts of a container are, or of the image layers.
fn mapped(paths: &PodPaths, name: &str) -> PathBuf {
    paths.base.join("idmap").join(name)
}

/// Mounts what a container mounts with mapped ids, and has it mount that. Blocks.
pub(super) fn mounts(
    paths: &PodPaths,
    namespace: &UserNamespace,
    container: &str,
    mounts: &mut [Mount],
) -> Result<()> {
    let directory = mapped(paths, container);
    release(&directory)?;
    let file = namespace.open()?;
    for (index, mount) in mounts.iter_mut().enumerate() {
        let target = directory.join(index.to_string());
        bind(&mount.host_path, &target, &file, true)?;
        let found = statvfs(&target).map_err(io::Error::from);
        let flags = found.map_err(RuntimeError::io("inspect", &target))?.flags();
        let options = LOCKED.iter().filter(|(flag, _)| flags.contains(*flag));
        mount.locked_options = options.map(|(_, option)| *option).collect();
        mount.host_path = target;
    }
    Ok(())
}

/// The mounts of a container's root file system, from layers with mapped ids. Blocks.
pub(super) fn rootfs(
    paths: &PodPaths,
    namespace: &UserNamespace,
    mut mounts: Vec<types::Mount>,
) -> Result<Vec<types::Mount>> {
    let file = namespace.open()?;
    for mount in &mut mounts {
        if mount.r#type != "overlay" {
            let message = format!("user namespaces need overlay snapshots, not {}", mount.r#type);
            return Err(RuntimeError::InvalidConfig { message });
        }
        for option in &mut mount.options {
            if let Some(lower) = option.strip_prefix("lowerdir=") {
                let layers: Result<Vec<String>> =
                    lower.split(':').map(|layer| map_layer(paths, &file, layer)).collect();
                *option = format!("lowerdir={}", layers?.join(":"));
            } else if let Some(upper) = option.strip_prefix("upperdir=") {
                let owner = Some(namespace.first_id);
                std::os::unix::fs::chown(upper, owner, owner)
                    .map_err(RuntimeError::io("give away", upper))?;
            }
        }
    }
    Ok(mounts)
}

/// Once per pod: its containers share layers.
fn map_layer(paths: &PodPaths, namespace: &File, layer: &str) -> Result<String> {
    // `snapshots/17/fs`
    let number = Path::new(layer).parent().and_then(Path::file_name);
    let number = number.and_then(|number| number.to_str()).unwrap_or("layer");
    let target = mapped(paths, "layers").join(number);
    let mounted = crate::volume::mount::is_mount_point(&target).map_err(io::Error::other);
    if !mounted.map_err(RuntimeError::io("look for mounts at", &target))? {
        bind(Path::new(layer), &target, namespace, false)?;
    }
    Ok(target.display().to_string())
}

fn bind(source: &Path, target: &Path, namespace: &File, recursive: bool) -> Result<()> {
    let directory = target.parent().unwrap_or(target);
    fs::create_dir_all(directory).map_err(RuntimeError::io("create", directory))?;
    let kind = fs::metadata(source).map_err(RuntimeError::io("inspect", source))?;
    let made = match kind.is_dir() {
        true => fs::create_dir(target),
        false => File::create_new(target).map(drop),
    };
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(RuntimeError::io("create", target)(error));
        }
        _ => {}
    }
    let bound = bind_mapped(source, target, namespace, recursive);
    bound.map_err(RuntimeError::io("mount with mapped ids", source))
}

/// Unmounts what a container had, if anything. Blocks.
pub(super) fn forget(paths: &PodPaths, container: &str) -> Result<()> {
    release(&mapped(paths, container))
}

/// Unmounts everything of a pod, and frees its range. Blocks.
pub(super) fn remove(paths: &PodPaths) -> Result<()> {
    let all = paths.base.join("idmap");
    for directory in entries(&all)? {
        release(&directory)?;
    }
    for (path, gone) in [
        (all.clone(), fs::remove_dir(&all)),
        (range_file(&paths.base), fs::remove_file(range_file(&paths.base))),
    ] {
        ignore_missing(gone).map_err(RuntimeError::io("remove", &path))?;
    }
    Ok(())
}

/// Unmounts and removes the mount points in a directory, and the directory. What is still mounted is
/// never removed.
fn release(directory: &Path) -> Result<()> {
    for target in entries(directory)? {
        unmount(&target)?;
        let gone = if target.is_dir() { fs::remove_dir(&target) } else { fs::remove_file(&target) };
        ignore_missing(gone).map_err(RuntimeError::io("remove", &target))?;
    }
    ignore_missing(fs::remove_dir(directory)).map_err(RuntimeError::io("remove", directory))
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(RuntimeError::io("list", directory)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_a_range_of_its_own_until_it_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let pod = |uid: &str| {
            let paths = PodPaths::new(root.path(), uid);
            fs::create_dir_all(&paths.base).unwrap();
            paths
        };
        let (a, b, c) = (pod("a"), pod("b"), pod("c"));
        assert_eq!(allocate(&a).unwrap(), 65_536);
        assert_eq!(allocate(&b).unwrap(), 131_072);
        assert_eq!(allocate(&a).unwrap(), 65_536);
        remove(&a).unwrap();
        assert_eq!(allocate(&c).unwrap(), 65_536);
        assert_eq!(allocate(&a).unwrap(), 196_608);
    }
}
