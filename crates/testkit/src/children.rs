//! The running child processes of a test: what it waits for when it hangs, and what has to be
//! killed to end it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child process of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub pid: i32,
    /// Start time, in clock ticks since boot.
    pub started: u64,
    pub command: String,
}

/// This process's children, oldest first.
pub fn running() -> Vec<Child> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut children: Vec<Child> = pids.filter_map(|pid| child_of(&own, pid)).collect();
    children.sort_by_key(|child| (child.started, child.pid));
    children
}

fn child_of(parent: &str, pid: i32) -> Option<Child> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain any character.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let [state, ppid] = [*fields.first()?, *fields.get(1)?];
    if ppid != parent || state == "Z" {
        return None;
    }
    let started = fields.get(19)?.parse().ok()?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let command = command.trim_end_matches('\0').replace('\0', " ");
    Some(Child { pid, started, command })
}

/// Kills the children that are not among `before`; returns them.
pub fn kill_others(before: &[Child]) -> Vec<Child> {
    let mut others = running();
    others.retain(|child| !before.contains(child));
    for child in &others {
        // It may have ended in the meantime.
        kill(Pid::from_raw(child.pid), Signal::SIGKILL).ok();
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_hanging_program_is_listed_and_killed() {
        let before = running();
        let mut sleep = Command::new("sleep").arg("4711").spawn().unwrap();
        let ours = |children: &[Child]| {
            children.iter().any(|child| i64::from(child.pid) == i64::from(sleep.id()))
        };
        assert!(!ours(&before));
        // Until exec, it still has the command line of this process.
        while !running().iter().any(|child| child.command == "sleep 4711") {
            std::thread::yield_now();
        }
        assert!(ours(&kill_others(&before)));
        assert!(!sleep.wait().unwrap().success());
    }
}
