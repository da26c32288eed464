//! A real cluster on this machine, for one suite.

mod image;
mod slot;

use anyhow::{Context, bail};
use client::Client;
use serde_json::Value;
use slot::Slot;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the cluster stores its objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    #[default]
    Embedded,
    Etcd,
}

/// What a suite's cluster is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub nodes: u8,
    pub store: Store,
    /// Ports of registries on this machine that are reached without TLS.
    pub registry_ports: Vec<u16>,
    /// Folders below the cluster's that get file systems of their own, and their sizes in bytes.
    pub disks: Vec<(PathBuf, u64)>,
    /// Further flags of `skiff up`.
    pub flags: Vec<String>,
    /// The folder of the programs, if it is not the one that this test was built into.
    pub programs: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            store: Store::Embedded,
            registry_ports: Vec::new(),
            disks: Vec::new(),
            flags: Vec::new(),
            programs: None,
        }
    }
}

/// A running cluster; dropping it removes it.
pub struct Cluster {
    slot: Slot,
    programs: PathBuf,
    /// The target folder that this test was built into.
    target: PathBuf,
    options: Options,
    client: Client,
    up: AtomicBool,
}

/// The outcome of a program that has ended.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Cluster {
    /// Brings a cluster up and waits until its nodes are Ready.
    ///
    /// # Errors
    /// When the programs are not built, or `skiff up` fails; its output is in the error.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let built = built_programs()?;
        let target = built.parent().unwrap_or(&built).to_owned();
        let programs = options.programs.clone().unwrap_or(built);
        // Left behind by tests that were killed, in this slot or another.
        for abandoned in Slot::abandoned()? {
            skiff(&programs, &abandoned, "down", &["--no-kubeconfig"])?;
        }
        let slot = Slot::take()?;
        for (folder, bytes) in &options.disks {
            mount(&slot.folder().join(folder), &format!("size={bytes}"))?;
        }
        let output = up(&programs, &slot, &options, &[])?;
        if !output.success {
            let logs = keep_logs(&target, &slot);
            skiff(&programs, &slot, "down", &["--no-kubeconfig"])?;
            bail!("skiff up: {}\nlogs: {}", output.stderr, logs.display());
        }
        let config = client::Config::from_file(&kubeconfig(&slot), None)?;
        let client = Client::new(&config)?;
        Ok(Self { slot, programs, target, options, client, up: AtomicBool::new(true) })
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.slot)
    }

    /// The cluster's name.
    pub fn name(&self) -> String {
        self.slot.name()
    }

    /// The cluster's data folder.
    pub fn folder(&self) -> PathBuf {
        self.slot.folder()
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.options.nodes).map(|number| format!("node-{number}")).collect()
    }

    /// The address of a node.
    pub fn node_address(&self, node: &str) -> String {
        let number: u8 = node.trim_start_matches("node-").parse().unwrap_or(1);
        self.slot.node_address(number)
    }

    /// The machine's address in the node subnet, at which the nodes reach programs on the
    /// machine.
    pub fn gateway(&self) -> String {
        self.slot.gateway()
    }

    /// Runs `skiff` with these arguments, as the administrator.
    ///
    /// # Errors
    /// When it cannot be started. [`CommandOutput::success`] reports whether it succeeded.
    pub fn try_skiff(&self, arguments: &[&str]) -> anyhow::Result<CommandOutput> {
        output_of(self.skiff_command().args(arguments))
    }

    /// `skiff` as the administrator, not yet started.
    pub fn skiff_command(&self) -> Command {
        let mut command = Command::new(self.programs.join("skiff"));
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("SKIFF_CLUSTER", self.slot.name())
            .env("SKIFF_DATA_DIR", self.slot.folder());
        command
    }

    /// Runs `skiff`; returns its standard output.
    ///
    /// # Errors
    /// When it fails; the error holds its standard error.
    pub fn skiff(&self, arguments: &[&str]) -> anyhow::Result<String> {
        expect_success("skiff", arguments, self.try_skiff(arguments)?)
    }

    /// Runs `kubectl` as the administrator.
    ///
    /// # Errors
    /// Like [`Cluster::skiff`], or when kubectl is not installed.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        expect_success("kubectl", arguments, self.try_kubectl(arguments)?)
    }

    /// Like [`Cluster::kubectl`], but a command that fails is not an error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<CommandOutput> {
        output_of(self.kubectl_command().args(arguments))
    }

    /// The minor version of this machine's kubectl. Debian 12 has 1.20, which validates on the
    /// client, and uses SPDY and the beta versions of some kinds.
    ///
    /// # Errors
    /// When it cannot be run or does not report its version.
    pub fn kubectl_minor(&self) -> anyhow::Result<u32> {
        let version = self.kubectl(&["version", "--client", "-o", "json"])?;
        let version: serde_json::Value = serde_json::from_str(&version)?;
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let digits = minor.trim_end_matches(|last: char| !last.is_ascii_digit());
        digits.parse().with_context(|| format!("kubectl's minor version is {minor:?}"))
    }

    /// `kubectl` as the administrator, not yet started.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(crate::tools::kubectl());
        command.env("KUBECONFIG", self.kubeconfig());
        // Its discovery cache must not be that of another cluster that had the same address.
        command.env("HOME", self.slot.folder().join("home"));
        command
    }

    /// Runs `skiff up` again, with the options that the cluster was started with and additional
    /// flags. A command that fails is not an error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn up_again(&self, more: &[&str]) -> anyhow::Result<CommandOutput> {
        up(&self.programs, &self.slot, &self.options, more)
    }

    /// Makes one of [`Options::disks`] larger or smaller.
    ///
    /// # Errors
    /// When its contents no longer fit.
    pub fn resize_disk(&self, folder: &str, bytes: u64) -> anyhow::Result<()> {
        mount(&self.folder().join(folder), &format!("remount,size={bytes}"))
    }

    /// Runs a program in a node's network namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn on_node(&self, node: &str, program: &[&str]) -> anyhow::Result<String> {
        let namespace = format!("--net=/run/netns/skiff.{}.{node}", self.slot.name());
        let arguments = [&[namespace.as_str()], program].concat();
        let output = output_of(Command::new("nsenter").args(&arguments))?;
        expect_success("nsenter", &arguments, output)
    }

    /// Loads an image archive of `xtask images` (its file name without `.tar`) onto every node.
    ///
    /// # Errors
    /// When it is not built, or a node rejects it.
    pub async fn load_image(&self, name: &str) -> anyhow::Result<()> {
        let path = self.images().join(format!("{name}.tar"));
        for node in self.nodes() {
            image::load(&self.slot.folder(), &node, &self.node_address(&node), &path)
                .await
                .with_context(|| format!("cannot load {} onto {node}", path.display()))?;
        }
        Ok(())
    }

    /// The folder of the image archives.
    pub fn images(&self) -> PathBuf {
        self.target.join("images")
    }

    /// The path of one of the workspace's programs, such as `skiff`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The path of the test server.
    pub fn test_server(&self) -> PathBuf {
        self.program("testserver")
    }

    /// States of the cluster's processes, as reported by `skiff status --json`.
    ///
    /// # Errors
    /// When the cluster is not running.
    pub fn processes(&self) -> anyhow::Result<Vec<Value>> {
        let output = self.try_skiff(&["status", "--json"])?;
        serde_json::from_str(&output.stdout).with_context(|| output.stderr)
    }

    /// The pid of one process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pid(&self, process: &str) -> anyhow::Result<i32> {
        let states = self.processes()?;
        let state = states.iter().find(|state| state["name"] == process);
        let pid = state.and_then(|state| state["pid"].as_i64());
        pid.and_then(|pid| i32::try_from(pid).ok()).with_context(|| format!("{process} has no pid"))
    }

    /// Copies the logs to a folder that outlives the cluster; returns the folder.
    pub fn keep_logs(&self) -> PathBuf {
        keep_logs(&self.target, &self.slot)
    }

    /// Removes the cluster now.
    ///
    /// # Errors
    /// When part of it cannot be removed.
    pub fn stop(&self) -> anyhow::Result<()> {
        if !self.up.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let output = skiff(&self.programs, &self.slot, "down", &["--no-kubeconfig"])?;
        expect_success("skiff", &["down"], output).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

fn kubeconfig(slot: &Slot) -> PathBuf {
    slot.folder().join("kubeconfig/admin.yaml")
}

/// Mounts an in-memory file system; `skiff down` unmounts it.
fn mount(folder: &Path, options: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "skiff-test"]).arg(folder);
    expect_success("mount", &[options], output_of(&mut command)?).map(drop)
}

/// Runs `skiff up` with these options and additional flags, which take precedence.
fn up(
    programs: &Path,
    slot: &Slot,
    options: &Options,
    more: &[&str],
) -> anyhow::Result<CommandOutput> {
    let mut flags: Vec<String> = ["--no-kubeconfig", "--wait=90"].map(str::to_owned).into();
    flags.push(format!("--node-cidr={}", slot.node_cidr()));
    flags.push(format!("--pod-cidr={}", slot.pod_cidr()));
    flags.push(format!("--service-cidr={}", slot.service_cidr()));
    if !more.contains(&"--nodes") {
        flags.push(format!("--nodes={}", options.nodes));
    }
    if options.store == Store::Etcd {
        flags.push("--store=etcd".to_owned());
    }
    for port in &options.registry_ports {
        flags.push(format!("--insecure-registry={}:{port}", slot.gateway()));
    }
    flags.extend_from_slice(&options.flags);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    skiff(programs, slot, "up", &flags)
}

fn skiff(
    programs: &Path,
    slot: &Slot,
    verb: &str,
    flags: &[&str],
) -> anyhow::Result<CommandOutput> {
    let mut command = Command::new(programs.join("skiff"));
    command.args([verb, "--name", &slot.name(), "--data-dir"]).arg(slot.folder()).args(flags);
    output_of(&mut command)
}

fn output_of(command: &mut Command) -> anyhow::Result<CommandOutput> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output: Output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(CommandOutput {
        success: output.status.success(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    })
}

fn expect_success(
    program: &str,
    arguments: &[&str],
    output: CommandOutput,
) -> anyhow::Result<String> {
    if !output.success {
        bail!("{program} {}: {}{}", arguments.join(" "), output.stderr, output.stdout);
    }
    Ok(output.stdout)
}

/// The folder of the programs that were built with this test: `target/debug` for a test in
/// `target/debug/deps`.
pub fn built_programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("this program is not in a target folder")?;
    let skiff = folder.join("skiff");
    if !skiff.is_file() {
        bail!("{} is missing: cargo build --workspace --bins", skiff.display());
    }
    Ok(folder.to_owned())
}

fn keep_logs(target: &Path, slot: &Slot) -> PathBuf {
    let target = target.join("test-logs").join(slot.name());
    let copy = || -> std::io::Result<()> {
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
        std::fs::create_dir_all(&target)?;
        for entry in std::fs::read_dir(slot.folder().join("logs"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), target.join(entry.file_name()))?;
        }
        Ok(())
    };
    if let Err(error) = copy() {
        eprintln!("cannot keep the logs: {error}");
    }
    target
}
