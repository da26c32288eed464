//! Removes what killed tests leave on the machine: processes, mounts, folders.
//!
//! A run has a folder, which its tests get as `$TMPDIR`, and a name, which every program that it
//! starts inherits in its environment. The next run removes what is marked with the name of a run
//! that has ended.

use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable that holds the run's name.
const VARIABLE: &str = "SKIFF_TEST_RUN";
/// Where the runs' folders are: a short path, since sockets are created below it.
const PARENT: &str = "/tmp";
const PREFIX: &str = "skiff-run-";

/// A run of the tests. Dropping it removes what it has left behind.
pub struct Run {
    name: String,
}

impl Run {
    /// Cleans up after runs that have ended, and creates a folder for this one.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn start() -> anyhow::Result<Self> {
        for entry in std::fs::read_dir(PARENT)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(run) = name.strip_prefix(PREFIX)
                && !is_running(run)
            {
                println!("cleaning up after an earlier run: {}", entry.path().display());
                sweep(run);
            }
        }
        let pid = std::process::id();
        let started = start_time(pid).context("this process is not in /proc")?;
        let run = Self { name: format!("{pid}-{started}") };
        std::fs::create_dir_all(folder(&run.name))?;
        Ok(run)
    }

    /// Makes a command and its children part of the run.
    pub fn adopt(&self, command: &mut Command) {
        command.env(VARIABLE, &self.name).env("TMPDIR", folder(&self.name));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        sweep(&self.name);
    }
}

fn folder(run: &str) -> PathBuf {
    Path::new(PARENT).join(format!("{PREFIX}{run}"))
}

/// Whether the process that the run is named after is still running.
fn is_running(run: &str) -> bool {
    let parsed = run
        .split_once('-')
        .and_then(|(pid, started)| Some((pid.parse::<u32>().ok()?, started.parse::<u64>().ok()?)));
    parsed.is_some_and(|(pid, started)| start_time(pid) == Some(started))
}

/// When a process was started, in clock ticks since boot.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain any character.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Kills the run's processes, unmounts what is mounted below its folder, and removes that.
fn sweep(run: &str) {
    let marked = marked(run);
    if !marked.is_empty() {
        println!("killing processes that the tests left behind: {marked:?}");
        execute(Command::new("kill").arg("-KILL").args(marked.iter().map(u32::to_string)));
    }
    let folder = folder(run);
    let mut mounts = mounts_below(&folder);
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.len()));
    for mount in mounts {
        execute(Command::new("umount").args(["--lazy", &mount]));
    }
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", folder.display());
    }
}

/// The pids of the processes with the run's name in their environment, and of those whose file
/// systems are in its folder (containers), except this one.
fn marked(run: &str) -> Vec<u32> {
    let marker = format!("{VARIABLE}={run}");
    let folder = format!("={}/", folder(run).display());
    let own_mounts = std::fs::read_link("/proc/self/ns/mnt").ok();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_marked = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let marked = environment.split(|byte| *byte == 0).any(|text| text == marker.as_bytes());
        let mounts = || std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        let contained = || {
            std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() != own_mounts
                && mounts().is_ok_and(|mounts| mounts.contains(&folder))
        };
        marked || contained()
    };
    pids.filter(|pid| *pid != std::process::id()).filter(is_marked).collect()
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
}

fn execute(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{command:?}: {status}"),
        Err(error) => eprintln!("{command:?}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn only_what_a_run_leaves_behind_is_removed() {
        let run = Run::start().unwrap();
        assert!(is_running(&run.name));
        let spawn = |command: &mut Command| command.stdout(Stdio::null()).spawn().unwrap();
        let mut left = Command::new("sleep");
        run.adopt(left.arg("4712"));
        let mut left = spawn(&mut left);
        let mut other = spawn(Command::new("sleep").arg("4713"));
        // The environment is set once the process has executed its program.
        while marked(&run.name) != [left.id()] {
            std::thread::yield_now();
        }
        let folder = folder(&run.name);
        std::fs::create_dir(folder.join("data")).unwrap();
        drop(run);
        assert!(!left.wait().unwrap().success());
        assert!(!folder.exists());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_run_has_ended_when_its_pid_is_reused() {
        let pid = std::process::id();
        assert!(!is_running(&format!("{pid}-1")));
        assert!(!is_running("nonsense"));
    }
}
