//! A task's bundle directory that containerd was killed while creating, and can neither use nor
//! remove.
//!
//! containerd 1.6 cleans up a half-created task by running the shim's `delete`, which needs the
//! file `runtime` that the shim writes first when it creates the container. A directory without it
//! stays forever, and no task with its name can be created: "mkdir DIRECTORY: file exists".

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{Inner, Result, RuntimeError};

/// The directory of containerd's tasks.
pub(super) const TASKS: &str = "io.containerd.runtime.v2.task";
/// Written by the shim before it mounts or starts anything.
const RUNTIME_FILE: &str = "runtime";

impl Inner {
    /// Removes the directory that containerd's error names, if it is such a bundle. Returns whether
    /// it did.
    pub(super) async fn remove_broken_bundle(&self, id: &str, refusal: &str) -> Result<bool> {
        let Some(directory) = refused_directory(refusal, id) else {
            return Ok(false);
        };
        // containerd takes care of a task that it knows.
        if self.task(id).await?.is_some() {
            return Ok(false);
        }
        let path = directory.clone();
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
        removed
            .expect("removing a directory does not panic")
            .map_err(RuntimeError::io("remove a task's broken bundle", directory))
    }
}

/// The directory in "mkdir DIRECTORY: file exists", if it is this task's.
fn refused_directory(refusal: &str, id: &str) -> Option<PathBuf> {
    let (_, rest) = refusal.split_once("mkdir /")?;
    let (path, _) = rest.split_once(": file exists")?;
    let path = Path::new("/").join(path);
    let of_task = path.ancestors().nth(2)?.file_name()? == TASKS;
    (of_task && path.file_name()? == id).then_some(path)
}

fn remove(directory: &Path) -> io::Result<bool> {
    if directory.join(RUNTIME_FILE).exists() {
        return Ok(false);
    }
    // Nothing is mounted before that file exists. Were it otherwise, the image's files would be
    // removed.
    match umount2(&directory.join("rootfs"), MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    std::fs::remove_dir_all(directory)?;
    tracing::warn!(directory = %directory.display(), "removed the incomplete bundle of a task");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tasks_own_directory_matches() {
        let of = |path: &str| {
            let refusal = format!("failed to start shim: mkdir {path}: file exists");
            refused_directory(&refusal, "abc")
        };
        let tasks = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
        assert_eq!(of(&format!("{tasks}/abc")), Some(format!("{tasks}/abc").into()));
        assert_eq!(of(&format!("{tasks}/abd")), None);
        assert_eq!(of("/etc/abc"), None);
        assert_eq!(refused_directory("no such container", "abc"), None);
    }

    #[test]
    fn a_directory_that_containerd_can_clean_up_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("abc");
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        std::fs::write(bundle.join(RUNTIME_FILE), "runc").unwrap();
        assert!(!remove(&bundle).unwrap());
        std::fs::remove_file(bundle.join(RUNTIME_FILE)).unwrap();
        assert!(remove(&bundle).unwrap());
        assert!(!bundle.exists());
    }
}
