//! The systemd units for real machines: systemd accepts them, and the programs know their flags.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::tools;

const INSTALLED: &str = "/usr/local/bin/";

/// Names and contents of the units.
fn units() -> anyhow::Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let mut units = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "service") {
            let name = path.file_name().context("it has a name")?;
            let text = std::fs::read_to_string(&path)?;
            units.push((name.to_string_lossy().into_owned(), text));
        }
    }
    ensure!(units.len() == 6, "there are {} units", units.len());
    Ok(units)
}

/// The folder of the built programs.
fn built() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("not in a target folder")?;
    Ok(folder.to_owned())
}

#[test]
fn systemd_accepts_the_units() -> anyhow::Result<()> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return tools::missing("systemd-analyze", "it is not installed");
    }
    let folder = tempfile::tempdir()?;
    let built = format!("{}/", built()?.display());
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for (name, text) in units()? {
        ensure!(text.contains("Type=notify"), "{name}");
        let path = folder.path().join(&name);
        std::fs::write(&path, text.replace(INSTALLED, &built))?;
        verify.arg(path);
    }
    let output = verify.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Complaints about units of other packages on this machine do not count.
    let complaints: Vec<&str> = stderr.lines().filter(|line| line.contains("skiff-")).collect();
    ensure!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

/// Secrets and tokens are below the kubelet's directory, and other units may write keys.
#[test]
fn nobody_else_reads_what_a_unit_writes() -> anyhow::Result<()> {
    for (name, text) in units()? {
        let settings: Vec<&str> = text.lines().collect();
        let has = |setting: &str| settings.contains(&setting);
        if name == "skiff-kubelet.service" {
            ensure!(has("StateDirectoryMode=0700"), "{name}");
            ensure!(has("StateDirectory=kubelet") && text.contains("--root-dir=/var/lib/kubelet"));
            // These give a unit a mount namespace of its own, which containerd does not see.
            for setting in ["Private", "Protect", "ReadOnlyPaths", "InaccessiblePaths"] {
                ensure!(!settings.iter().any(|line| line.starts_with(setting)), "{setting}");
            }
        }
        ensure!(has("UMask=0077"), "{name}");
    }
    Ok(())
}

#[test]
fn programs_know_their_flags() -> anyhow::Result<()> {
    for (name, text) in units()? {
        let program = name.trim_end_matches(".service");
        let output = Command::new(built()?.join(program)).arg("--help").output()?;
        let help = String::from_utf8(output.stdout)?;
        let known: Vec<&str> = help
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|word| word.starts_with("--"))
            .collect();
        let flags: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("--"))
            .map(|flag| flag.split(['=', ' ']).next().unwrap_or(flag))
            .collect();
        ensure!(!flags.is_empty(), "{name} has no flags");
        for flag in flags {
            ensure!(known.contains(&format!("--{flag}").as_str()), "{program} has no --{flag}");
        }
    }
    Ok(())
}
