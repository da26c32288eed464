//! One command of the tests, whose output is passed on and counted. It is killed when it has
//! been silent for too long, and a program of tests when one of them takes too long.

use super::Count;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long things may take before they are killed.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Without any output.
    pub silence: Duration,
    /// A test that libtest has reported as slow, from then on: libtest itself ends none.
    pub slow_test: Duration,
}

/// Longer than the limits of nextest (`.config/nextest.toml`) and of the suites' scenarios.
pub const LIMITS: Limits =
    Limits { silence: Duration::from_secs(600), slow_test: Duration::from_secs(300) };
/// How libtest ends its report of a test that has been running for long.
const SLOW: &str = " has been running for over 60 seconds";
/// Capacity of the queue of lines from the command.
const QUEUE: usize = 64;

/// The outcome of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub count: Count,
    /// Whether the command succeeded.
    pub success: bool,
}

/// Runs one command of a step; each line of its output is passed on with a prefix.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, prefix: &str, limits: Limits) -> std::io::Result<Outcome> {
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
    let mut last_at = clock::monotonic();
    let mut slow: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let silent_at = last_at + limits.silence;
        let overdue_at = slow.values().min().map_or(silent_at, |since| *since + limits.slow_test);
        let timeout = silent_at.min(overdue_at).saturating_duration_since(clock::monotonic());
        match lines.recv_timeout(timeout) {
            Ok(line) => {
                println!("{prefix}{line}");
                count.add(super::counted(&line));
                follow(&line, &mut slow);
                last = line;
                last_at = clock::monotonic();
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if overdue_at < silent_at => {
                let names: Vec<String> = std::mem::take(&mut slow).into_keys().collect();
                println!(
                    "{prefix}error: killed, with what it waits for, {} s later: {}",
                    limits.slow_test.as_secs(),
                    names.join(", ")
                );
                // cargo goes on with the next program.
                let mut processes = descendants(child.id());
                processes.remove(&child.id());
                kill(&processes);
                count.failed += names.len() as u64;
            }
            Err(RecvTimeoutError::Timeout) => {
                println!(
                    "{prefix}error: no output for {} s; killed. The last line was: {last}",
                    limits.silence.as_secs()
                );
                kill(&descendants(child.id()));
                count.failed += 1;
                break;
            }
        }
    }
    Ok(Outcome { count, success: child.wait()?.success() })
}

/// Keeps track of the tests that libtest has reported as slow.
fn follow(line: &str, slow: &mut BTreeMap<String, Instant>) {
    let Some(rest) = line.strip_prefix("test ") else {
        return;
    };
    if let Some(name) = rest.strip_suffix(SLOW) {
        slow.insert(name.to_owned(), clock::monotonic());
    } else if let Some((name, _)) = rest.split_once(" ... ") {
        slow.remove(name);
    } else if rest.starts_with("result: ") {
        slow.clear();
    }
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

/// Kills processes, and reports them.
fn kill(processes: &BTreeMap<u32, String>) {
    for (pid, command) in processes {
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

    const SHORT: Limits =
        Limits { silence: Duration::from_millis(500), slow_test: Duration::from_millis(200) };

    #[test]
    fn results_are_counted() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored' >&2";
        let outcome = run(&mut shell(script), "", LIMITS).unwrap();
        assert_eq!(outcome, Outcome { count: Count { passed: 2, failed: 0 }, success: true });
        assert!(!run(&mut shell("exit 3"), "", LIMITS).unwrap().success);
    }

    #[test]
    fn a_hanging_step_is_killed_with_its_descendants() {
        let outcome = run(&mut shell("echo begun; sleep 4714 & wait"), "", SHORT).unwrap();
        assert_eq!(outcome, Outcome { count: Count { passed: 0, failed: 1 }, success: false });
        assert!(ends("4714"), "sleep is still running");
    }

    #[test]
    fn a_hanging_test_is_killed_and_the_next_program_runs() {
        let script = "echo 'test a has been running for over 60 seconds'; \
            echo 'test b has been running for over 60 seconds'; echo 'test a ... ok'; \
            sleep 4715; echo 'test result: ok. 2 passed; 0 failed; 0 ignored'";
        let limits = Limits { silence: LIMITS.silence, ..SHORT };
        let outcome = run(&mut shell(script), "", limits).unwrap();
        assert_eq!(outcome, Outcome { count: Count { passed: 2, failed: 1 }, success: true });
        assert!(ends("4715"), "sleep is still running");
    }

    /// Whether `sleep SECONDS` ends soon: a killed process takes a moment, and is not a child of this
    /// one.
    fn ends(seconds: &str) -> bool {
        let wanted = format!("sleep\0{seconds}\0");
        let is_left = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                command == wanted.as_bytes()
            })
        };
        (0..1000).any(|_| {
            let left = is_left();
            if left {
                std::thread::sleep(Duration::from_millis(10));
            }
            !left
        })
    }
}
