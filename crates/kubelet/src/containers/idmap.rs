//! Mounts with mapped ids (`mount_setattr(2)`): the only module with system calls that no crate
//! offers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Binds `source` with everything mounted below it (if `recursive`) to the existing `target`. Ids
/// there are those that the processes of `user_namespace` see: what root owns at `source`, their
/// root owns at `target`. Fails on file systems that cannot map ids, for example NFS.
pub(super) fn bind_mapped(
    source: &Path,
    target: &Path,
    user_namespace: &File,
    recursive: bool,
) -> io::Result<()> {
    let (source, target) = (text(source)?, text(target)?);
    let below = if recursive { libc::AT_RECURSIVE.cast_unsigned() } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | below;
    // SAFETY: the path is a string that ends in a zero byte and outlives the call.
    let tree = checked(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags)
    })?;
    let tree = i32::try_from(tree).expect("file descriptors are small");
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(user_namespace.as_raw_fd()).expect("an open file has one"),
    };
    let empty = c"";
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | below;
    // SAFETY: all pointers are to values that outlive the call, and the size is theirs.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    // SAFETY: both paths are strings that end in a zero byte and outlive the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
