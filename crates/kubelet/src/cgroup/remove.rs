//! Killing what is left in a cgroup, and removing it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hierarchy::list_directories;
use super::{CgroupError, CgroupPath, Cgroups, Result};

/// Attempts to remove a cgroup whose processes are dying, 5 ms apart: two seconds in all.
const REMOVE_TRIES: u32 = 400;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

impl Cgroups {
    /// Kills every process in the cgroup and below, and removes it from all hierarchies.
    ///
    /// Succeeds if the cgroup does not exist. Fails with [`CgroupError::Busy`] if processes survive
    /// SIGKILL (stuck in the kernel) for two seconds.
    pub fn remove(&self, path: &CgroupPath) -> Result<()> {
        for _ in 0..REMOVE_TRIES {
            let mut busy = false;
            for directory in self.directories(path)? {
                busy |= !remove_tree(&directory)?;
            }
            if !busy {
                return Ok(());
            }
            self.kill(path)?;
            // v1 has no event for "empty"; this loop runs only while processes die.
            std::thread::sleep(REMOVE_PAUSE);
        }
        Err(CgroupError::Busy(path.clone()))
    }

    /// Sends SIGKILL to every process in the cgroup and below.
    pub fn kill(&self, path: &CgroupPath) -> Result<()> {
        for directory in self.directories(path)? {
            kill_tree(&directory)?;
        }
        Ok(())
    }
}

fn kill_tree(directory: &Path) -> Result<()> {
    if directory.join("cgroup.kill").exists()
        && fs::write(directory.join("cgroup.kill"), "1").is_ok()
    {
        return Ok(());
    }
    let mut processes = Vec::new();
    collect_processes(directory, &mut processes)?;
    for process in processes {
        match kill(Pid::from_raw(process), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(CgroupError::Io {
                    operation: "kill processes of",
                    path: directory.to_path_buf(),
                    source: errno.into(),
                });
            }
        }
    }
    Ok(())
}

fn collect_processes(directory: &Path, found: &mut Vec<i32>) -> Result<()> {
    for child in list_directories(directory)? {
        collect_processes(&child, found)?;
    }
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => found.extend(
            text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0),
        ),
        Err(error) if is_gone(&error) => {}
        Err(source) => {
            return Err(CgroupError::Io {
                operation: "read processes of",
                path: directory.to_path_buf(),
                source,
            });
        }
    }
    Ok(())
}

/// Removes a tree of cgroups from the leaves up. Returns false if a level still has processes.
fn remove_tree(directory: &Path) -> Result<bool> {
    let mut removed = true;
    for child in list_directories(directory)? {
        removed &= remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(removed),
        Err(error) if is_gone(&error) => Ok(removed),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(source) => {
            Err(CgroupError::Io { operation: "remove", path: directory.to_path_buf(), source })
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}
