//! The helper process that creates a pod's namespaces inside its user namespace.
//!
//! It asks for its ids to be mapped, and waits until its namespaces are pinned: a word on its standard
//! output for each step, a line on its standard input when it may go on. Then it exits.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use runtime::program::Program;
use serde::{Deserialize, Serialize};

use super::super::error::{Result, RuntimeError};
use super::super::namespaces::{Kind, PodPaths, own_kinds, pin, set_up};
use super::super::pod::PodConfig;
use super::{IDS, allocate};

/// The first argument that makes our executable a helper; the second is a [`Request`].
const ARGUMENT: &str = "pod-namespaces";
/// It is in a user namespace without a mapping.
const MAP: &str = "map";
/// The namespaces are as they should be.
const MADE: &str = "made";

#[derive(Serialize, Deserialize)]
struct Request {
    pod: String,
    hostname: String,
    host_uts: bool,
    host_network: bool,
    host_ipc: bool,
    sysctls: BTreeMap<String, String>,
}

/// Creates the namespaces of a pod that has a user namespace, and pins them. `program` is one whose
/// `main` calls [`run_if_asked`]. Blocks.
pub(in crate::containers) fn make(
    paths: &PodPaths,
    config: &PodConfig,
    program: &Path,
) -> Result<()> {
    let first = allocate(paths)?;
    let failed = |step: &str, source: io::Error| RuntimeError::Namespace {
        pod: config.pod.uid.clone(),
        step: step.to_string(),
        source,
    };
    let mut helper = Helper::start(program, config).map_err(|error| failed("start", error))?;
    helper.expect(MAP).map_err(|error| failed("make a user namespace", error))?;
    let pid = helper.child.id();
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), format!("0 {first} {IDS}"))
            .map_err(|error| failed("map ids", error))?;
    }
    helper.go_on().map_err(|error| failed("go on", error))?;
    helper.expect(MADE).map_err(|error| failed("make them", error))?;
    for kind in own_kinds(config) {
        let source = format!("/proc/{pid}/ns/{}", kind.name);
        pin(Path::new(&source), &paths.namespace(kind.name))
            .map_err(|errno| failed(&format!("pin {}", kind.name), errno.into()))?;
    }
    Ok(())
}

struct Helper {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    input: Option<ChildStdin>,
}

impl Helper {
    fn start(program: &Path, config: &PodConfig) -> io::Result<Self> {
        let request = Request {
            pod: config.pod.uid.clone(),
            hostname: config.hostname.clone(),
            host_uts: config.host_uts,
            host_network: config.host_network,
            host_ipc: config.host_ipc,
            sysctls: config.sysctls.clone(),
        };
        let request = serde_json::to_string(&request)?;
        let mut command = Program::new(program).option_with_value(ARGUMENT, request).into_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let output = child.stdout.take().expect("it is piped");
        let input = child.stdin.take();
        Ok(Self { child, output: BufReader::new(output), input })
    }

    /// Waits for a word; anything else is why it has failed.
    fn expect(&mut self, word: &str) -> io::Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.trim() {
            found if found == word => Ok(()),
            "" => Err(io::Error::other("the helper has ended")),
            error => Err(io::Error::other(error.to_owned())),
        }
    }

    fn go_on(&mut self) -> io::Result<()> {
        self.input.as_mut().expect("it is piped, and dropped with the helper").write_all(b"\n")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "cannot wait for the helper of a user namespace");
        }
    }
}

/// Runs the helper if the arguments ask for it. `main` calls it before there are other threads.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let request = arguments.next().unwrap_or_default();
    match run(&request) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            println!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn run(request: &str) -> io::Result<()> {
    let request: Request = serde_json::from_str(request)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    say(MAP)?;
    wait()?;
    // Its root: sysctls belong to it.
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    let mut config = PodConfig {
        hostname: request.hostname,
        host_uts: request.host_uts,
        host_network: request.host_network,
        host_ipc: request.host_ipc,
        sysctls: request.sysctls,
        ..Default::default()
    };
    config.pod.uid = request.pod;
    let kinds: Vec<Kind> = own_kinds(&config);
    set_up(&config, &kinds).map_err(io::Error::other)?;
    say(MADE)?;
    wait()
}

fn say(word: &str) -> io::Result<()> {
    println!("{word}");
    io::stdout().flush()
}

/// Until a line, or the end, of standard input.
fn wait() -> io::Result<()> {
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}
