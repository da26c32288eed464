//! What this machine's kernel may lack, in an emulated machine with Debian's: NFS, AppArmor.

use anyhow::{Context, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::{cluster, suite, tools};
use tests::PROGRAMS;

/// Everything takes ten times as long there.
const TIMEOUT: Duration = Duration::from_secs(420);
const MEMORY_MIB: &str = "2048";

/// What the machine finds beside the programs.
const FILES: [&str; 5] = ["run.sh", "nfs.sh", "nfs.yaml", "apparmor.sh", "apparmor.yaml"];

#[test]
fn pods_use_what_debians_kernel_has() -> anyhow::Result<()> {
    let emulator = Command::new("qemu-system-x86_64").arg("--version").output();
    if cfg!(not(target_arch = "x86_64")) || emulator.is_err() {
        return tools::missing(
            "vm",
            "qemu-system-x86_64 is not installed, or emulates another machine",
        );
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(suite::within(TIMEOUT, async { run() }));
    if outcome.is_err() {
        eprintln!("{}", std::fs::read_to_string(console()?).unwrap_or_default());
    }
    outcome
}

/// The disk, kernel and ramdisk of the machines, and what the last one has printed.
fn base() -> anyhow::Result<PathBuf> {
    let programs = cluster::built_programs()?;
    Ok(programs.parent().context("not in a target folder")?.join("vm"))
}

fn console() -> anyhow::Result<PathBuf> {
    Ok(base()?.join("console.log"))
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm")
}

/// Boots a machine that runs this suite's scripts and powers off.
fn run() -> anyhow::Result<()> {
    let programs = cluster::built_programs()?;
    let base = base()?;
    completed(Command::new(scripts().join("base.sh")).arg(&base))?;
    let folder = tempfile::Builder::new().prefix("skiff-vm-").tempdir()?;
    let content = folder.path().join("content");
    std::fs::create_dir_all(content.join("bin"))?;
    for program in PROGRAMS {
        let copy = content.join("bin").join(program);
        completed(Command::new("strip").arg("-o").arg(copy).arg(programs.join(program)))?;
    }
    for file in FILES {
        std::fs::copy(scripts().join(file), content.join(file))?;
    }
    std::fs::copy(base.with_file_name("images").join("busybox.tar"), content.join("busybox.tar"))?;
    let second = folder.path().join("second.img");
    let format = ["-q", "-F", "-d"];
    completed(Command::new("mkfs.ext4").args(format).arg(&content).arg(&second).arg("600M"))?;
    let disk = |path: &Path, options: &str| {
        format!("file={},if=virtio,format=raw,{options}", path.display())
    };
    let mut machine = Command::new("qemu-system-x86_64");
    machine
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY_MIB])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(base.join("vmlinuz"))
        .arg("-initrd")
        .arg(base.join("initrd"))
        .args(["-append", "console=ttyS0 root=/dev/vda rw quiet panic=-1"])
        .args(["-drive", &disk(&base.join("disk.img"), "snapshot=on")])
        .args(["-drive", &disk(&second, "readonly=on")])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(File::create(console()?)?);
    completed(&mut machine)?;
    let said = std::fs::read_to_string(console()?)?;
    ensure!(said.contains("exit status: 0"), "the script has failed");
    Ok(())
}

fn completed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {stderr}");
    Ok(())
}
