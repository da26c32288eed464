//! Stuck shims.
//!
//! A shim that starts opens the FIFO `log` in its task's directory and waits for containerd at the
//! other end. If its create is aborted just then, containerd 1.6 removes the directory and forgets
//! the shim, which waits forever. It holds the pod's socket, so the next task of the pod is sent to
//! it, and gets no answer either.

use std::fs;
use std::path::Path;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Inner;
use super::bundle::TASKS;

impl Inner {
    /// Kills the shims of this node's containerd that wait in a removed directory.
    pub(super) async fn kill_stuck_shims(&self) {
        let endpoint = &self.config.endpoint;
        let address = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_string();
        let killed = tokio::task::spawn_blocking(move || kill_stuck(&address)).await;
        for pid in killed.expect("inspecting processes does not panic") {
            tracing::warn!(pid, "killed a shim that was stuck in an aborted create");
        }
    }
}

/// Returns the ids of the killed processes. A process that exits meanwhile is not among them.
fn kill_stuck(address: &str) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| serves(*pid, address) && waits_in_removed_directory(*pid))
        .filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok())
        .collect()
}

/// Whether a process is a shim of the containerd at this socket.
fn serves(pid: i32, address: &str) -> bool {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&str> = line.split('\0').collect();
    words.windows(2).any(|pair| pair == ["-address", address])
}

/// Whether a process is opening `log` in a task's directory that has been removed.
fn waits_in_removed_directory(pid: i32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let log_flags: Vec<i32> = files
        .flatten()
        .filter(|file| fs::read_link(file.path()).is_ok_and(|path| is_removed_log(&path)))
        .filter_map(|file| flags(pid, file.file_name().to_str()?))
        .collect();
    !log_flags.is_empty() && log_flags.iter().all(|flags| flags & libc::O_PATH != 0)
}

fn is_removed_log(path: &Path) -> bool {
    let in_tasks = path.components().any(|part| part.as_os_str() == TASKS);
    in_tasks && path.file_name().is_some_and(|name| name == "log (deleted)")
}

/// What a file descriptor was opened with; see proc_pid_fdinfo(5).
fn flags(pid: i32, descriptor: &str) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(line.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that looks like a shim, with `log` as its standard output.
    fn shim(log: Stdio, address: &str) -> Child {
        Command::new("sh")
            .args(["-c", "read _", "shim", "-address", address])
            .stdin(Stdio::piped())
            .stdout(log)
            .spawn()
            .unwrap()
    }

    #[test]
    fn only_one_that_waits_in_a_removed_directory_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join(TASKS).join(".abc");
        let address = folder.path().join("c.sock");
        let address = address.to_str().unwrap();
        fs::create_dir_all(&bundle).unwrap();
        let log = bundle.join("log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = |options: &mut OpenOptions, flags| {
            Stdio::from(options.custom_flags(flags).open(&log).unwrap())
        };
        let waiting = || open(OpenOptions::new().read(true), libc::O_PATH);
        let serving = open(OpenOptions::new().read(true).write(true), 0);
        let mut stuck = shim(waiting(), address);
        let mut others = [shim(waiting(), "/another.sock"), shim(serving, address)];
        assert_eq!(kill_stuck(address), [0_i32; 0], "the directory is there");
        fs::remove_dir_all(&bundle).unwrap();
        assert_eq!(kill_stuck(address), [stuck.id() as i32]);
        assert_eq!(stuck.wait().unwrap().code(), None);
        for other in &mut others {
            assert_eq!(other.try_wait().unwrap(), None);
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }
}
