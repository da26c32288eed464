//! `xtask test`: runs every test of the workspace, and counts them in the last line.

mod step;
mod sweep;

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

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
    for (name, mut command) in steps(root, args)? {
        println!("== {name}");
        tests.adopt(command.current_dir(root));
        let outcome = step::run(&mut command, step::LIMITS)
            .with_context(|| format!("cannot run the {name}"))?;
        total.add(outcome.count);
        // A step can also fail because it does not build.
        broken |= !outcome.success && outcome.count.failed == 0;
    }
    if broken {
        bail!("a step failed without reporting a failed test");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The commands, as they are run one after the other. All of them select the whole workspace, so
/// that every crate has the same features in each and is compiled once.
fn steps(root: &Path, args: &TestArgs) -> anyhow::Result<Vec<(&'static str, Command)>> {
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
    let units = "unit, property and contract tests";
    if !has_nextest(cargo) {
        let mut all = command(&["test"]);
        if args.no_end_to_end {
            all.args(["--exclude", "tests"]);
            return Ok(vec![(units, all)]);
        }
        return Ok(vec![("all tests", all)]);
    }
    let mut steps = vec![
        (units, command(&["nextest", "run", "--filterset", "not package(tests)"])),
        // nextest does not run these.
        ("documentation examples", command(&["test", "--doc"])),
    ];
    if !args.no_end_to_end {
        let mut suites = command(&["test"]);
        for suite in suites_of(root)? {
            suites.args(["--test", &suite]);
        }
        steps.push(("end-to-end tests", suites));
    }
    Ok(steps)
}

/// The names of the end-to-end suites.
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
    suites.sort();
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
