//! A Docker daemon of the test's own, and the commands that are run against it.

use anyhow::{Context, bail, ensure};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tests::PROGRAMS;

/// Prefix of the network namespaces' names; the pid of the test follows.
const NAMESPACE: &str = "skiff-compose-";
const IMAGES: [&str; 3] = ["busybox", "testserver-v1", "testserver-v2"];

/// The repository's folder.
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Whether a program is on the path.
pub fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// The command that reads docker-compose.yml: Compose v2, a Docker plugin, if it is installed, else
/// the standalone program that preceded it.
pub fn compose_command() -> Option<&'static [&'static str]> {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if plugin.is_ok_and(|output| output.status.success()) {
        return Some(&["docker", "compose"]);
    }
    has("docker-compose").then_some(&["docker-compose"])
}

/// Removes the namespaces of tests that were killed, and kills what still runs in them.
fn remove_abandoned_namespaces() -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Ok(()); // no namespace has ever been named here
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(NAMESPACE) else { continue };
        if Path::new("/proc").join(pid).exists() {
            continue;
        }
        let pids = run(Command::new("ip").args(["netns", "pids", &name]))?;
        if !pids.trim().is_empty() {
            run(Command::new("kill").arg("-KILL").args(pids.split_whitespace()))?;
        }
        run(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    Ok(())
}

/// The Docker daemon; dropping it stops the daemon and removes everything.
pub struct Docker {
    folder: tempfile::TempDir,
    /// The network namespace in which everything runs.
    namespace: String,
    /// The built programs, and the target folder that they and the images are in.
    programs: PathBuf,
    target: PathBuf,
}

impl Docker {
    /// Creates the namespace, the base image and the stripped programs; starts nothing.
    pub fn prepare() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let programs = own.ancestors().nth(2).context("not in a target folder")?.to_owned();
        let target = programs.parent().context("not in a target folder")?.to_owned();
        remove_abandoned_namespaces()?;
        let folder = tempfile::Builder::new().prefix("skiff-compose-").tempdir()?;
        let namespace = format!("{NAMESPACE}{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &namespace]))?;
        let docker = Self { folder, namespace, programs, target };
        docker.inside("ip", &["link", "set", "lo", "up"])?;
        // Outside the namespace, from which Debian's packages cannot be reached.
        let mut base = Command::new(repository().join("deploy/compose.sh"));
        run(base.arg("base").env("CARGO_TARGET_DIR", &docker.target))?;
        let own_target = docker.path("target");
        std::fs::create_dir(&own_target)?;
        let archive = "compose-base.tar";
        std::os::unix::fs::symlink(docker.target.join(archive), own_target.join(archive))?;
        std::fs::create_dir(docker.path("programs"))?;
        for program in PROGRAMS {
            let copy = docker.path("programs").join(program);
            let mut strip = Command::new("strip");
            run(strip.arg("-o").arg(copy).arg(docker.programs.join(program)))?;
        }
        Ok(docker)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// A command in the namespace that uses this daemon and this cluster.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let folder = self.folder.path().display();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg(program)
            .current_dir(repository())
            .env("HOME", self.path("home"))
            .env("KUBECONFIG", self.kubeconfig())
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env("SKIFF_PROGRAMS", self.path("programs"))
            .env("SKIFF_COMPOSE_CONTEXT", self.path("target/compose"))
            .env("DOCKER_HOST", format!("unix://{folder}/docker.sock"))
            .env(
                "SKIFF_DOCKERD_FLAGS",
                format!(
                    "-H unix://{folder}/docker.sock --data-root {folder}/docker --exec-root {folder}/exec"
                ),
            );
        command
    }

    /// Runs a program in the namespace; returns its standard output.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command(program).args(arguments))
    }

    pub fn compose_sh(&self, verb: &str) -> anyhow::Result<String> {
        run(self.command(repository().join("deploy/compose.sh")).arg(verb))
    }

    /// Runs docker-compose as users do: in the repository, with nothing but its files.
    pub fn compose(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let command = compose_command().context("there is no docker-compose")?;
        self.inside(command[0], &[&command[1..], arguments].concat())
    }

    pub fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.inside("docker", arguments)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command(testkit::tools::kubectl()).args(arguments))
    }

    pub fn skiff(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command(self.path("programs/skiff")).args(arguments))
    }

    fn test_server_program(&self) -> PathBuf {
        self.programs.join("testserver")
    }

    pub fn test_server(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command(self.test_server_program()).args(arguments))
    }

    /// Writes a file for a command to read; returns its path.
    pub fn file(&self, name: &str, content: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        std::fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    }

    pub fn load_images(&self) -> anyhow::Result<()> {
        let mut load = self.command(self.path("programs/skiff"));
        load.args(["image", "load"]);
        for image in IMAGES {
            load.arg(self.target.join("images").join(format!("{image}.tar")));
        }
        run(&mut load).map(drop)
    }

    /// Requests a page of a pod through `kubectl port-forward`.
    pub fn through_port_forward(&self, pod: &str, port: u16, page: &str) -> anyhow::Result<String> {
        let mut command = self.command(testkit::tools::kubectl());
        command.args(["port-forward", "-n", "web", pod, &format!(":{port}")]);
        let mut child = KillOnDrop(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
        let output = child.0.stdout.take().context("its output is a pipe")?;
        // "Forwarding from 127.0.0.1:PORT -> 8080"
        let mut line = String::new();
        // Kept open until the end: kubectl writes a line for each connection.
        let mut output = BufReader::new(output);
        output.read_line(&mut line)?;
        let address = line.split_whitespace().nth(2);
        let address = address.with_context(|| format!("kubectl port-forward: {line:?}"))?;
        self.test_server(&["get", &format!("http://{address}/{page}")])
    }

    /// Starts requests at a steady rate.
    pub fn start_load(&self, url: &str, rate: u32) -> anyhow::Result<RunningLoad> {
        let mut command = self.command(self.test_server_program());
        command.args(["load", "--url", url, "--rps", &rate.to_string()]);
        command.args(["--seconds", "120", "--until", "eof"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(RunningLoad(child))
    }

    /// The images, volumes and containers that the stopped daemon has left in its folder.
    pub fn images_and_volumes(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for folder in
            ["docker/image/overlay2/imagedb/content/sha256", "docker/volumes", "docker/containers"]
        {
            for entry in std::fs::read_dir(self.path(folder))? {
                let entry = entry?;
                // The volumes' index, and a device.
                let of_docker = ["metadata.db", "backingFsBlockDev"].map(std::ffi::OsString::from);
                if !of_docker.contains(&entry.file_name()) {
                    left.push(entry.path());
                }
            }
        }
        Ok(left)
    }

    /// States, events and logs, for the report of a failure.
    pub fn logs(&self) -> String {
        let ask =
            |outcome: anyhow::Result<String>| outcome.unwrap_or_else(|error| format!("{error:#}"));
        [
            ask(self.compose(&["ps"])),
            ask(self.kubectl(&["get", "pods,events", "-A", "-o", "wide"])),
            ask(self.compose(&["logs", "--tail", "40"])),
            std::fs::read_to_string(self.path("target/docker/dockerd.log")).unwrap_or_default(),
        ]
        .join("\n")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.docker(&["info"]).is_ok()
            && let Err(error) = self.compose_sh("down")
        {
            eprintln!("{error:#}");
        }
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.namespace])) {
            eprintln!("{error:#}");
        }
    }
}

/// A client that sends requests in the background.
pub struct RunningLoad(Child);

impl RunningLoad {
    /// Stops it; returns its report.
    pub fn finish(self) -> anyhow::Result<String> {
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "the client failed");
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// A process that is killed when it is no longer needed.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot kill a process: {error}");
        }
    }
}

/// Runs a command; returns its standard output.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!("{}: {}{}", arguments.join(" "), text(&output.stderr), text(&output.stdout));
    }
    Ok(text(&output.stdout))
}
