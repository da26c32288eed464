//! `xtask tidy`: the rules of the code base that no other tool checks.

mod bounds;
mod direction;
mod text;

use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A violation of a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub location: String,
    pub rule: String,
}

/// Checks every file that git knows, and the dependencies between the packages.
///
/// # Errors
/// When a rule is broken, or a file or cargo's metadata cannot be read.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let files = tracked(root)?;
    let (mut functions, mut architecture) = (BTreeSet::new(), String::new());
    for file in &files {
        // A tracked file may have been deleted since the last commit; binary files are not checked.
        let Ok(content) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        findings.extend(text::check(file, &content));
        if file.extension().is_some_and(|extension| extension == "rs") {
            bounds::functions(&content, &mut functions);
        }
        if file == Path::new(bounds::DOCUMENT) {
            architecture = content;
        }
    }
    findings.extend(bounds::check(&architecture, &functions));
    findings.extend(direction::check(root)?);
    for finding in &findings {
        println!("{}: {}", finding.location, finding.rule);
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files", findings.len(), files.len());
    }
    println!("tidy: {} files are in order", files.len());
    Ok(())
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}
