//! `xtask test`: every test of the workspace, and one line that counts them.

use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Tests and what they need, as they are run one after the other.
#[derive(clap::Args)]
pub struct TestArgs {
    /// Leave out the end-to-end suites, which need root, containerd and nftables
    #[arg(long)]
    no_end_to_end: bool,
    /// Program of a Python that has the packages of docs/requirements.txt, for the client tests
    #[arg(long)]
    python: Option<PathBuf>,
}

/// What one step has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Runs all; the exit code is 1 when any test failed or did not build.
pub fn run(root: &Path, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let cargo = env!("CARGO");
    let with_nextest = has_nextest(cargo);
    let mut steps: Vec<(&str, Command)> = Vec::new();
    let all = ["--workspace", "--exclude", "tests", "--no-fail-fast"];
    let mut units = Command::new(cargo);
    if with_nextest {
        units.args(["nextest", "run"]).args(all);
        let mut documents = Command::new(cargo);
        documents.args(["test", "--doc"]).args(all);
        steps.push(("documentation examples", documents));
    } else {
        units.arg("test").args(all);
    }
    steps.insert(0, ("unit, property and contract tests", units));
    if !args.no_end_to_end {
        let mut suites = Command::new(cargo);
        suites.args(["test", "-p", "tests", "--no-fail-fast"]);
        if let Some(python) = &args.python {
            suites.env("SKIFF_TEST_PYTHON", python);
        }
        steps.push(("end-to-end tests", suites));
    }
    let mut total = Count::default();
    let mut broken = false;
    for (name, mut command) in steps {
        println!("== {name}");
        let (count, success) = run_step(command.current_dir(root))
            .with_context(|| format!("cannot run the {name}"))?;
        total.passed += count.passed;
        total.failed += count.failed;
        // A step can also fail because it does not build.
        broken |= !success && count.failed == 0;
    }
    if broken {
        bail!("a step failed without saying which test did");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn has_nextest(cargo: &str) -> bool {
    let version = Command::new(cargo).args(["nextest", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// Runs one step, its output passed on as it comes.
fn run_step(command: &mut Command) -> anyhow::Result<(Count, bool)> {
    // nextest writes its summary to standard error, libtest to standard output; both go through
    // one pipe.
    let (reader, writer) = std::io::pipe()?;
    let mut child =
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command keeps its ends of the pipe open otherwise, and the reading never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = Count::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        let found = counted(&line);
        count.passed += found.passed;
        count.failed += found.failed;
    }
    Ok((count, child.wait()?.success()))
}

/// What a line of libtest's or nextest's summary counts; other lines count nothing.
fn counted(line: &str) -> Count {
    let plain = strip_colours(line);
    let text = plain.trim();
    // What nextest repeats of a failed test is indented, and counted in its own summary.
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
