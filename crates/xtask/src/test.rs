//! `xtask test`: runs every test of the workspace, and counts them in the last line.

mod step;
mod sweep;

use anyhow::{Context, bail};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

/// How many commands of a step run at once: the end-to-end suites mostly wait for their clusters.
const LANES: usize = 3;
/// The end-to-end suites that take longest. They start first, so that none runs alone at the end.
const LONGEST: [&str; 4] = ["vm", "workloads", "machine", "network"];

/// Which tests to run, and what they need.
#[derive(clap::Args)]
pub struct TestArgs {
    /// Leave out the end-to-end suites, which need root, containerd and nftables
    #[arg(long)]
    no_end_to_end: bool,
    /// Python interpreter with the packages of docs/requirements.txt, for the client tests; a
    /// kubectl in the same folder is used too
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs all; the exit code is 1 when any test failed or did not build.
pub fn run(root: &Path, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let tests = sweep::Run::start()?;
    let mut total = Count::default();
    let mut broken = false;
    for (name, mut commands) in steps(root, args)? {
        println!("== {name}");
        for (_, command) in &mut commands {
            tests.adopt(command.current_dir(root));
        }
        for outcome in run_all(commands).with_context(|| format!("cannot run the {name}"))? {
            total.add(outcome.count);
            // A step can also fail because it does not build.
            broken |= !outcome.success && outcome.count.failed == 0;
        }
    }
    if broken {
        bail!("a step failed without reporting a failed test");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Commands with what their lines of output begin with.
type Commands = VecDeque<(String, Command)>;

/// Runs commands, some of them at once.
fn run_all(commands: Commands) -> std::io::Result<Vec<step::Outcome>> {
    let queue = Mutex::new(commands);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let lane = || {
        std::iter::from_fn(next)
            .map(|(prefix, mut command)| step::run(&mut command, &prefix, step::LIMITS))
            .collect::<std::io::Result<Vec<_>>>()
    };
    let outcomes = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let joined = lanes.into_iter().map(|lane| lane.join().expect("a lane does not panic"));
        joined.collect::<std::io::Result<Vec<_>>>()
    })?;
    Ok(outcomes.into_iter().flatten().collect())
}

/// The steps, as they are run one after the other. All commands select the whole workspace, so that
/// every crate has the same features in each and is compiled once.
fn steps(root: &Path, args: &TestArgs) -> anyhow::Result<Vec<(&'static str, Commands)>> {
    let cargo = env!("CARGO");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(cargo);
        command.args(arguments).args(["--workspace", "--no-fail-fast"]);
        if let Some(python) = &args.python {
            command.env("SKIFF_TEST_PYTHON", python);
            let kubectl = python.with_file_name("kubectl");
            if kubectl.exists() {
                command.env("SKIFF_TEST_KUBECTL", kubectl);
            }
        }
        command
    };
    let one = |command| Commands::from([(String::new(), command)]);
    let units = "unit, property and contract tests";
    if !has_nextest(cargo) {
        let mut all = command(&["test"]);
        if args.no_end_to_end {
            all.args(["--exclude", "tests"]);
            return Ok(vec![(units, one(all))]);
        }
        return Ok(vec![("all tests", one(all))]);
    }
    // One more than there are cores: some tests wait, for a server or for a moment.
    let threads = (std::thread::available_parallelism()?.get() + 1).to_string();
    let nextest =
        ["nextest", "run", "--test-threads", &threads, "--filterset", "not package(tests)"];
    let mut steps = vec![
        (units, one(command(&nextest))),
        // nextest does not run these.
        ("documentation examples", one(command(&["test", "--doc"]))),
    ];
    if !args.no_end_to_end {
        let suite = |name: String| (format!("{name}: "), command(&["test", "--test", &name]));
        steps.push(("end-to-end tests", suites_of(root)?.into_iter().map(suite).collect()));
    }
    Ok(steps)
}

/// The names of the end-to-end suites, the longest first.
fn suites_of(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut suites = Vec::new();
    for entry in std::fs::read_dir(root.join("tests/tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            suites.push(name.to_string_lossy().into_owned());
        }
    }
    suites.sort_by_cached_key(|suite| {
        let place = LONGEST.iter().position(|long| long == suite).unwrap_or(LONGEST.len());
        (place, suite.clone())
    });
    Ok(suites)
}

fn has_nextest(cargo: &str) -> bool {
    let version = Command::new(cargo).args(["nextest", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// The counts in a summary line of libtest or nextest; zero for any other line.
fn counted(line: &str) -> Count {
    let plain = strip_colours(line);
    let text = plain.trim();
    // The output of failed tests that nextest repeats is indented, and already counted.
    let is_summary = plain.starts_with("test result:")
        || (text.starts_with("Summary [") && text.contains("tests run:"));
    if !is_summary {
        return Count::default();
    }
    let before = |word: &str| {
        let words: Vec<&str> = text.split([' ', ',', ';']).filter(|w| !w.is_empty()).collect();
        words
            .windows(2)
            .filter(|pair| pair[1] == word)
            .filter_map(|pair| pair[0].parse::<u64>().ok())
            .sum::<u64>()
    };
    let timed_out = before("timed");
    Count { passed: before("passed"), failed: before("failed") + timed_out }
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('\u{1b}') {
        plain.push_str(&rest[..start]);
        rest = rest[start..].find('m').map_or("", |end| &rest[start + end + 1..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_summaries_are_counted() {
        let libtest = "test result: ok. 28 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counted(libtest), Count { passed: 28, failed: 1 });
        let nextest = "\u{1b}[32m     Summary\u{1b}[0m [   1.2s] 10 tests run: 9 passed (1 slow), 1 failed, 2 skipped";
        assert_eq!(counted(nextest), Count { passed: 9, failed: 1 });
        assert_eq!(counted("the 5 passed tests"), Count::default());
        assert_eq!(counted("    test result: FAILED. 0 passed; 1 failed"), Count::default());
    }
}
