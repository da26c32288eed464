//! Runs programs of the machine to completion.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Folders that are searched besides `$PATH`: an ordinary user's lacks them.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// The program's path, from `$PATH` and the system's folders.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether the program is installed.
pub fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Runs the program; returns what it wrote to its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error holds what it wrote to its standard error.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    feed(program, arguments, "")
}

/// As [`run`], with text on its standard input.
///
/// # Errors
/// As [`run`].
pub fn feed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let path = find(program).with_context(|| format!("{program} is not installed"))?;
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input.as_bytes())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(error).with_context(|| format!("cannot write to {program}"));
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {program}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), message.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
