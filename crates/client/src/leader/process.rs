//! The process in a candidate's identity, so that a candidate on the same machine can detect that
//! the holder is dead, and need not wait for the Lease to expire.
//!
//! `BOOT-NAMESPACE-PID-START`: the machine's boot id, the inode of the pid namespace, the pid in
//! it, and the ticks from boot to the process's start (`proc(5)`), which distinguish it from a
//! later process with the same pid. A process counts as alive unless it is known to be dead.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::os::unix::fs::MetadataExt;

/// A process of a machine and boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// First part of the boot id.
    boot: String,
    namespace: u64,
    pid: i32,
    start: u64,
}

impl Process {
    /// This process; `None` if `/proc` does not have the information.
    pub fn own() -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let pid = i32::try_from(std::process::id()).ok()?;
        Some(Self {
            boot: boot.split('-').next()?.trim().to_owned(),
            namespace: std::fs::metadata("/proc/self/ns/pid").ok()?.ino(),
            pid,
            start: start(pid)?,
        })
    }

    /// The process at the end of an identity, if any.
    pub fn of_identity(identity: &str) -> Option<Self> {
        let mut parts = identity.rsplit('_').next()?.split('-');
        let process = Self {
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(process)
    }

    /// Whether the process is known to be dead. Only a process of the same boot and pid namespace
    /// as `own` can be.
    pub fn is_dead(&self, own: &Self) -> bool {
        if (&self.boot, self.namespace) != (&own.boot, own.namespace) || self.pid <= 0 {
            return false;
        }
        // Unlike /proc, which may be mounted with hidepid, this works for every process.
        if kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH) {
            return true;
        }
        start(self.pid).is_some_and(|start| start != self.start)
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { boot, namespace, pid, start } = self;
        write!(f, "{boot}-{namespace}-{pid}-{start}")
    }
}

/// Ticks from boot to the start of a process.
fn start(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character; the start time is field 22.
    let after_name = text.get(text.rfind(')')? + 1..)?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_its_process() {
        let own = Process::own().unwrap();
        let identity = format!("a_host-1_00ff_{own}");
        assert_eq!(Process::of_identity(&identity), Some(own));
        for other in ["", "host_00ff", "host_1-2-3", "host_a-1-2-3-4", "host_a-b-c-d"] {
            assert_eq!(Process::of_identity(other), None, "{other:?}");
        }
    }

    #[test]
    fn only_a_process_known_to_have_ended_is_dead() {
        let own = Process::own().unwrap();
        assert!(!own.is_dead(&own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = Process { pid: i32::try_from(child.id()).unwrap(), ..own.clone() };
        child.wait().unwrap();
        assert!(ended.is_dead(&own));
        let same_pid_later = Process { start: own.start + 1, ..own.clone() };
        assert!(same_pid_later.is_dead(&own));
        let elsewhere = Process { boot: "0badcafe".into(), ..ended.clone() };
        assert!(!elsewhere.is_dead(&own));
        let in_a_container = Process { namespace: own.namespace + 1, ..ended };
        assert!(!in_a_container.is_dead(&own));
    }
}
