//! Records of running processes: the pid and start time of each, so that `skiff down` or the next
//! supervisor can find and end it after this supervisor was killed. The start time distinguishes a
//! process from a later one with the same pid.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cluster::{files, proc};

/// Name of the supervisor's own record.
pub const SUPERVISOR: &str = "supervisor";
/// How often to check whether a process that is not a child has ended. Only while stopping.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub pid: u32,
    /// Clock ticks from the machine's boot to the process's start (`proc(5)`).
    pub start_time: u64,
}

impl Record {
    /// Whether the process still runs.
    pub fn alive(&self) -> bool {
        proc::stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.zombie)
    }

    /// Whether it runs a program whose file has been replaced since, as a build or an upgrade does.
    fn is_replaced(&self) -> bool {
        // The kernel's way to say that the file has no name any more.
        let link = std::fs::read_link(format!("/proc/{}/exe", self.pid));
        self.alive()
            && link.is_ok_and(|path| path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
    }

    /// Sends a signal if the process still runs.
    pub fn signal(&self, signal: Signal) {
        if self.alive()
            && let Err(error) = kill(Pid::from_raw(self.pid as i32), signal)
        {
            tracing::debug!(pid = self.pid, %error, "cannot signal");
        }
    }
}

fn folder(run: &Path) -> PathBuf {
    run.join("records")
}

/// Writes the record of a process that has just been started.
///
/// # Errors
/// When the file cannot be written.
pub fn write(run: &Path, name: &str, pid: u32) -> anyhow::Result<()> {
    // The process has ended already.
    let Some(stat) = proc::stat(pid) else {
        return Ok(());
    };
    let record = Record { pid, start_time: stat.start_time };
    let path = folder(run).join(format!("{name}.json"));
    files::make_private_dir(&folder(run))?;
    // Not synced to disk: records are void after a reboot.
    std::fs::write(&path, serde_json::to_vec(&record)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the record of a process that has ended.
pub fn remove(run: &Path, name: &str) {
    let path = folder(run).join(format!("{name}.json"));
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a record");
    }
}

/// Every record, by name; those that cannot be parsed are skipped.
///
/// # Errors
/// When the folder exists and cannot be read.
pub fn read_all(run: &Path) -> anyhow::Result<Vec<(String, Record)>> {
    let entries = match std::fs::read_dir(folder(run)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("cannot read the records"),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_stem().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if let Some(text) = files::read_if_there(&path)?
            && let Ok(record) = serde_json::from_str(&text)
        {
            records.push((name, record));
        }
    }
    records.sort_by(|a: &(String, Record), b| a.0.cmp(&b.0));
    Ok(records)
}

/// Whether a recorded process runs a program whose file has been replaced since.
///
/// # Errors
/// As [`read_all`].
pub fn any_replaced(run: &Path) -> anyhow::Result<bool> {
    Ok(read_all(run)?.iter().any(|(_, record)| record.is_replaced()))
}

/// Kills the supervisor and waits until it has ended; its processes go on.
///
/// # Errors
/// As [`read_all`].
pub async fn kill_supervisor(run: &Path) -> anyhow::Result<()> {
    for (_, record) in read_all(run)?.into_iter().filter(|(name, _)| name == SUPERVISOR) {
        record.signal(Signal::SIGKILL);
        while record.alive() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    Ok(())
}

/// Removes all records.
///
/// # Errors
/// When the folder exists and cannot be removed.
pub fn clear(run: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder(run)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the records")
        }
        _ => Ok(()),
    }
}

/// Ends the recorded processes: SIGTERM, and SIGKILL for those left after `grace`.
///
/// # Errors
/// When the records cannot be read or removed.
pub async fn take_over(run: &Path, grace: Duration) -> anyhow::Result<()> {
    let own = std::process::id();
    let mut left: Vec<Record> = read_all(run)?
        .into_iter()
        .map(|(_, record)| record)
        .filter(|record| record.pid != own && record.alive())
        .collect();
    if !left.is_empty() {
        tracing::info!(count = left.len(), "ending the processes of an earlier supervisor");
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        left.iter().for_each(|record| record.signal(signal));
        let ended = async {
            while left.iter().any(Record::alive) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_ok() {
            break;
        }
        left.retain(Record::alive);
    }
    clear(run)
}
