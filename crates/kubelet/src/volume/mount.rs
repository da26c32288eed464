//! Mounts on the node. All functions are idempotent and blocking.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::VolumeError;

/// Mount points below `directory`, deepest first.
pub fn below(directory: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let table = "/proc/self/mountinfo";
    let text = fs::read_to_string(table).map_err(VolumeError::io("read", table))?;
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(directory))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    points.reverse();
    Ok(points)
}

pub fn is_mount_point(path: &Path) -> Result<bool, VolumeError> {
    Ok(below(path)?.iter().any(|point| point == path))
}

/// Decodes `\040` and the like, as mountinfo writes blanks.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())
        {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Mounts a tmpfs of at most `size_bytes`.
pub fn tmpfs(path: &Path, size_bytes: Option<u64>) -> Result<(), VolumeError> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let options = match size_bytes {
        Some(size) => format!("size={size},mode=0777"),
        None => "mode=0777".to_owned(),
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| VolumeError::io("mount tmpfs on", path)(errno.into()))
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

/// Mounts an export of an NFS server, version 4 unless `options` say otherwise.
pub fn nfs(server: &str, export: &str, path: &Path, options: &[String]) -> Result<(), VolumeError> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let source = format!("{server}:{export}");
    let mut command = std::process::Command::new("mount");
    command.args(["-t", "nfs"]);
    if !options.is_empty() {
        command.arg("-o").arg(options.join(","));
    }
    let output =
        command.arg(&source).arg(path).output().map_err(VolumeError::io("run mount for", path))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(VolumeError::io("mount nfs on", path)(std::io::Error::other(said)))
}

/// Unmounts `path` and everything below it. It need not be a mount point.
pub fn unmount_all(path: &Path) -> Result<(), VolumeError> {
    for point in below(path)? {
        match umount2(&point, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            // Still in use: detach it now; it goes away with its last user.
            Err(Errno::EBUSY) => umount2(&point, MntFlags::MNT_DETACH)
                .map_err(|errno| VolumeError::io("unmount", &point)(errno.into()))?,
            Err(errno) => return Err(VolumeError::io("unmount", &point)(errno.into())),
        }
    }
    Ok(())
}

/// Bind-mounts what `from` points to onto the file or directory `to`.
pub fn bind(from: &Path, to: &Path) -> Result<(), VolumeError> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| VolumeError::io("bind to", to)(errno.into()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn blanks_in_mountinfo() {
        assert_eq!(super::unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(super::unescape("/plain\\x"), "/plain\\x");
    }
}
