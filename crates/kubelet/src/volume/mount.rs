//! Mounts on the node. All functions are idempotent and blocking.

mod nfs;
mod table;

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::VolumeError;
pub use nfs::nfs;

/// Mount points below `directory`, links resolved, those on top of others first.
pub fn below(directory: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    // The table has real paths.
    let directory = match fs::canonicalize(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(VolumeError::io("resolve", directory))?,
    };
    let table = "/proc/thread-self/mountinfo";
    let text = fs::read(table).map_err(VolumeError::io("read", table))?;
    let mut points = table::points(&text);
    points.retain(|point| point.starts_with(&directory));
    points.reverse();
    Ok(points)
}

pub fn is_mount_point(path: &Path) -> Result<bool, VolumeError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(true);
    };
    let points = below(parent)?;
    Ok(fs::canonicalize(parent).is_ok_and(|parent| points.contains(&parent.join(name))))
}

/// Whether a tmpfs is mounted at exactly this path. Cheaper than [`is_mount_point`].
pub fn is_tmpfs(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|own| Some(own) != parent)
        && statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Mounts a tmpfs of at most `size_bytes`, whose pages are never swapped out where the kernel can
/// promise that: they may be secrets. An existing one is kept.
pub fn tmpfs(path: &Path, size_bytes: Option<u64>, mode: u32) -> Result<(), VolumeError> {
    if is_tmpfs(path) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size_bytes {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let attempt = |options: &str| mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options));
    // Linux has it since 6.3.
    attempt(&format!("{options},noswap"))
        .or_else(|_| attempt(&options))
        .map_err(|errno| VolumeError::io("mount tmpfs on", path)(errno.into()))
}

/// Mounts a file system whose files are made of huge pages. An existing one is kept.
pub fn huge_pages(path: &Path, page_bytes: u64, mode: u32) -> Result<(), VolumeError> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let options = format!("pagesize={page_bytes},mode={mode:o}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("nodev"), path, Some("hugetlbfs"), flags, Some(options.as_str()))
        .map_err(|errno| VolumeError::io("mount hugetlbfs on", path)(errno.into()))
}

/// Mounts a file system of this kind, read-only and noexec, once. `options` are specific to the
/// kind.
pub fn read_only(
    kind: &str,
    source: &str,
    options: &[String],
    path: &Path,
) -> Result<(), VolumeError> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let failed = |errno: Errno| VolumeError::io("mount on", path)(errno.into());
    let closed = MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC;
    if kind == "bind" {
        bind(Path::new(source), path)?;
        let flags = closed | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        return mount(None::<&str>, path, None::<&str>, flags, None::<&str>).map_err(failed);
    }
    let own = options.iter().filter(|option| !matches!(option.as_str(), "ro" | "rw"));
    let data = own.map(String::as_str).collect::<Vec<_>>().join(",");
    mount(Some(source), path, Some(kind), closed, Some(data.as_str())).map_err(failed)
}

/// Unmounts `path` and everything below it. It need not be a mount point.
pub fn unmount_all(path: &Path) -> Result<(), VolumeError> {
    below(path)?.iter().try_for_each(|point| unmount(point))
}

/// Unmounts the topmost mount at `path`; there may be none.
pub fn unmount(path: &Path) -> Result<(), VolumeError> {
    match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        // Still in use: detach it now; it goes away with its last user.
        Err(Errno::EBUSY) => umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|errno| VolumeError::io("unmount", path)(errno.into())),
        Err(errno) => Err(VolumeError::io("unmount", path)(errno.into())),
    }
}

/// Unmounts everything that is mounted at exactly `path`, at once: those who use it keep it.
pub fn unmount_stack(path: &Path) -> Result<(), VolumeError> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(VolumeError::io("unmount", path)(errno.into())),
        }
    }
}

/// Bind-mounts what `from` points to onto the file or directory `to`.
pub fn bind(from: &Path, to: &Path) -> Result<(), VolumeError> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| VolumeError::io("bind to", to)(errno.into()))
}

/// Creates the directory that a mount will cover, for nobody else while it does not.
pub fn make_mount_point(path: &Path) -> Result<(), VolumeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o750).create(path).map_err(VolumeError::io("create", path))
}

/// Creates a directory, and what is missing above it, with exactly this mode, whatever this
/// process' umask. An existing one gets the mode.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), VolumeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(path).map_err(VolumeError::io("create", path))?;
    // Not through a link that somebody has put there meanwhile.
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let directory = fs::File::options().read(true).custom_flags(flags).open(path);
    let directory = directory.map_err(VolumeError::io("open", path))?;
    let found = directory.metadata().map_err(VolumeError::io("stat", path))?;
    if found.mode() & 0o7777 == mode {
        return Ok(());
    }
    directory.set_permissions(Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", path))
}
