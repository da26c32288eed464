//! One step of the tests: a command whose output is passed on and counted, and which is killed
//! when it has been silent for too long.

use super::Count;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long a step may be silent; scenarios time out after four minutes.
pub const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Capacity of the queue of lines from the command.
const QUEUE: usize = 64;

/// The outcome of a step.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub count: Count,
    /// Whether the command succeeded.
    pub success: bool,
}

/// Runs one step; `limit` is how long it may be silent.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, limit: Duration) -> std::io::Result<Outcome> {
    // nextest writes its summary to standard error, libtest to standard output; both go through
    // one pipe.
    let (reader, writer) = std::io::pipe()?;
    let mut child =
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // Otherwise the command keeps its ends of the pipe open, and reading never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let lines = lines_of(reader);
    let mut count = Count::default();
    let mut last = String::new();
    loop {
        match lines.recv_timeout(limit) {
            Ok(line) => {
                println!("{line}");
                count.add(super::counted(&line));
                last = line;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!(
                    "error: no output for {} s; killed. The last line was: {last}",
                    limit.as_secs()
                );
                kill_tree(child.id());
                count.failed += 1;
                break;
            }
        }
    }
    Ok(Outcome { count, success: child.wait()?.success() })
}

fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Kills a process and all its descendants, and reports them.
fn kill_tree(root: u32) {
    let processes = descendants(root);
    for (pid, command) in &processes {
        println!("killed {pid}: {command}");
    }
    let killed =
        Command::new("kill").arg("-KILL").args(processes.keys().map(u32::to_string)).status();
    if let Err(error) = killed {
        eprintln!("cannot run kill: {error}");
    }
}

/// The process and all its descendants, with their commands.
fn descendants(root: u32) -> BTreeMap<u32, String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: BTreeMap<u32, u32> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let is_below = |pid: &u32| {
        std::iter::successors(Some(*pid), |pid| parents.get(pid).copied()).any(|pid| pid == root)
    };
    let command = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text.trim_end_matches('\0').replace('\0', " ")
    };
    parents.keys().copied().filter(is_below).map(|pid| (pid, command(pid))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn results_are_counted() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored' >&2";
        let outcome = run(&mut shell(script), SILENCE_MAX).unwrap();
        assert_eq!(outcome, Outcome { count: Count { passed: 2, failed: 0 }, success: true });
        assert!(!run(&mut shell("exit 3"), SILENCE_MAX).unwrap().success);
    }

    #[test]
    fn a_hanging_step_is_killed_with_its_descendants() {
        let limit = Duration::from_millis(500);
        let outcome = run(&mut shell("echo begun; sleep 4714 & wait"), limit).unwrap();
        assert_eq!(outcome, Outcome { count: Count { passed: 0, failed: 1 }, success: false });
        let is_left = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                command == b"sleep\x004714\0"
            })
        };
        // A killed process takes a moment to end, and is not a child of this one.
        for _ in 0..1000 {
            if !is_left() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sleep is still running");
    }
}
