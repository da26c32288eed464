//! Running commands in containers.
//!
//! The shim connects a command to FIFOs in a directory of the pod; we read and write them without a
//! thread. A command survives a restart of containerd: the shim holds its FIFOs, and waiting is
//! retried.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest,
    WaitRequest,
};
use oci_spec::runtime::Process;
use prost_types::Any;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::unix::pipe;
use tonic::Status;

use super::spec::exec_process;
use super::stdin::StdinWriter;
use super::stdio::{make_fifo, stdin_fifo};
use super::task::{exit_code, is_gone};
use super::{
    ContainerId, Containerd, Inner, Result, Runtime, RuntimeError, is_unreachable, record,
};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: i32 = 9;
/// How long to wait for a killed command to exit before leaving it to the removal of its container.
const ABANDONED_WAIT: Duration = Duration::from_secs(10);
/// Pause between attempts to wait for a command while containerd is down.
const WAIT_RETRY: Duration = Duration::from_millis(200);
/// Buffer size for discarded output.
const DISCARD_BYTES: usize = 16 << 10;

/// A command to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Attach its standard input.
    pub stdin: bool,
    /// Return its standard output.
    pub stdout: bool,
    /// Return its standard error (with `tty` everything is standard output).
    pub stderr: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Width and height of the terminal in characters, if known before the command starts.
    pub size: Option<(u16, u16)>,
}

/// A command running in a container.
pub struct ExecSession {
    /// Its standard input; drop it to close it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output, until the end.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its standard error, until the end.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Resize, signal, wait. Dropping it before the command has ended kills the command.
    pub control: ExecControl,
}

/// Controls a command running in a container.
pub struct ExecControl {
    containerd: Containerd,
    container: String,
    exec: String,
    directory: PathBuf,
    /// Its exit code, once it is known.
    exit: Option<i32>,
    ended: bool,
}

impl ExecControl {
    /// Sets the terminal's size in characters.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let request = ResizePtyRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            width: width.into(),
            height: height.into(),
        };
        match self.containerd.tasks().resize_pty(request).await {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Ok(()),
            Err(status) => Err(RuntimeError::from_status("resize terminal", &status)),
        }
    }

    /// Waits for the command to exit and returns its exit code. Read the output meanwhile: a
    /// command whose output nobody reads does not exit. Cancel safe.
    pub async fn wait(&mut self) -> Result<i32> {
        let code = match self.exit {
            Some(code) => code,
            None => self.wait_for_exit().await?,
        };
        self.exit = Some(code);
        if !self.ended {
            clean_up(&self.containerd, &self.container, &self.exec, &self.directory).await;
            self.ended = true;
        }
        Ok(code)
    }

    async fn wait_for_exit(&mut self) -> Result<i32> {
        let request =
            WaitRequest { container_id: self.container.clone(), exec_id: self.exec.clone() };
        loop {
            match self.containerd.tasks().wait(request.clone()).await {
                Ok(response) => return Ok(exit_code(response.into_inner().exit_status)),
                Err(status) if is_unreachable(&status) => tokio::time::sleep(WAIT_RETRY).await,
                Err(status) if is_gone(&status) => {
                    self.ended = true;
                    return Err(RuntimeError::NotRunning { id: self.container.clone() });
                }
                Err(status) => return Err(RuntimeError::from_status("wait for command", &status)),
            }
        }
    }
}

impl Drop for ExecControl {
    fn drop(&mut self) {
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.ended {
            return;
        }
        let (containerd, container, exec) =
            (self.containerd.clone(), self.container.clone(), self.exec.clone());
        let directory = self.directory.clone();
        handle.spawn(async move {
            if let Err(error) = kill_process(&containerd, &container, &exec, SIGKILL).await {
                tracing::warn!(%container, %error, "cannot kill an abandoned command");
            }
            let wait = WaitRequest { container_id: container.clone(), exec_id: exec.clone() };
            // Whether it has exited, never started or is stuck: clean up.
            tokio::time::timeout(ABANDONED_WAIT, containerd.tasks().wait(wait)).await.ok();
            clean_up(&containerd, &container, &exec, &directory).await;
        });
    }
}

/// Deletes an exited command from the shim, which ends its output, and removes its FIFOs.
async fn clean_up(containerd: &Containerd, container: &str, exec: &str, directory: &Path) {
    let request =
        DeleteProcessRequest { container_id: container.to_string(), exec_id: exec.to_string() };
    if let Err(status) = containerd.tasks().delete_process(request).await
        && !is_gone(&status)
    {
        tracing::debug!(%container, message = status.message(), "a command's record remains until its container is deleted");
    }
    if let Err(error) = tokio::fs::remove_dir_all(directory).await {
        tracing::debug!(directory = %directory.display(), %error, "a command's FIFOs remain until its pod is deleted");
    }
}

async fn kill_process(
    containerd: &Containerd,
    container: &str,
    exec: &str,
    signal: i32,
) -> Result<()> {
    let signal = u32::try_from(signal).map_err(|_| RuntimeError::InvalidConfig {
        message: format!("{signal} is not a signal number"),
    })?;
    let request = KillRequest {
        container_id: container.to_string(),
        exec_id: exec.to_string(),
        signal,
        all: false,
    };
    match containerd.tasks().kill(request).await {
        Ok(_) => Ok(()),
        Err(status) if is_gone(&status) => Ok(()),
        Err(status) => Err(RuntimeError::from_status("signal command", &status)),
    }
}

/// The result of [`Runtime::exec_sync`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// Exit code.
    pub exit_code: i32,
    /// Standard output, cut at the limit.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the limit.
    pub stderr: Vec<u8>,
}

impl Runtime {
    /// Starts a command in a running container. Any number may run at once.
    pub async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<ExecSession> {
        let container = self
            .inner
            .record(&id.0)
            .await?
            .ok_or_else(|| RuntimeError::NotFound { id: id.to_string() })?;
        let pod_uid = container.labels.get(record::POD_UID).cloned().unwrap_or_default();
        let spec = container.spec.map(|spec| spec.value).unwrap_or_default();
        let process = added_process(id, &spec, &request)?;
        let exec = format!("exec-{:016x}", rand::random::<u64>());
        let directory = self.inner.pod_paths(&pod_uid).streams(&exec);
        tokio::fs::create_dir_all(&directory)
            .await
            .map_err(RuntimeError::io("create", &directory))?;
        let control = ExecControl {
            containerd: self.inner.containerd.clone(),
            container: id.0.clone(),
            exec,
            directory,
            exit: None,
            ended: true,
        };
        match self.inner.start_exec(control, &request, process).await {
            Ok(session) => Ok(session),
            Err((control, error)) => {
                clean_up(
                    &control.containerd,
                    &control.container,
                    &control.exec,
                    &control.directory,
                )
                .await;
                Err(error)
            }
        }
    }

    /// Runs a command until it exits, for probes and hooks. At most `output_limit` bytes of each
    /// stream are kept. After `timeout` it is killed, and the call fails with
    /// [`RuntimeError::ExecTimeout`].
    pub async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
        output_limit: usize,
    ) -> Result<ExecOutput> {
        let run = self.run_command(id, command, output_limit);
        let Some(timeout) = timeout else {
            return run.await;
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(output) => output,
            // Dropping the future has killed the command, if it had been started.
            Err(_) => Err(RuntimeError::ExecTimeout { command: command.join(" "), timeout }),
        }
    }

    async fn run_command(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: usize,
    ) -> Result<ExecOutput> {
        let request = ExecRequest {
            command: command.to_vec(),
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let ExecSession { stdout, stderr, mut control, .. } = self.exec(id, request).await?;
        let (stdout, stderr, exit_code) =
            tokio::join!(read_up_to(stdout, limit), read_up_to(stderr, limit), control.wait());
        Ok(ExecOutput { exit_code: exit_code?, stdout: stdout?, stderr: stderr? })
    }
}

type Failed = (ExecControl, RuntimeError);

/// The process to add to a container: its own, with another command.
fn added_process(id: &ContainerId, spec: &[u8], request: &ExecRequest) -> Result<Process> {
    #[derive(serde::Deserialize)]
    struct HasProcess {
        process: Process,
    }
    let failed = |message: String| RuntimeError::Exec { id: id.to_string(), message };
    if request.command.is_empty() {
        return Err(failed("no command specified".to_string()));
    }
    let spec: HasProcess =
        serde_json::from_slice(spec).map_err(|error| failed(error.to_string()))?;
    Ok(exec_process(spec.process, request))
}

impl Inner {
    async fn start_exec(
        &self,
        mut control: ExecControl,
        request: &ExecRequest,
        process: Process,
    ) -> std::result::Result<ExecSession, Failed> {
        let streams = match open_output(&control.directory, request) {
            Ok(streams) => streams,
            Err(error) => return Err((control, error)),
        };
        let id = control.container.clone();
        let ended =
            |status: &Status| is_gone(status) || status.message().contains("cannot exec in a");
        let failed = |status: Status| match ended(&status) {
            true => RuntimeError::NotRunning { id: id.clone() },
            false if is_unreachable(&status) => RuntimeError::from_status("exec", &status),
            false => RuntimeError::Exec { id: id.clone(), message: status.message().to_string() },
        };
        let create = ExecProcessRequest {
            container_id: control.container.clone(),
            exec_id: control.exec.clone(),
            stdin: streams.stdin_path.clone(),
            stdout: streams.stdout_path,
            stderr: streams.stderr_path,
            terminal: request.tty,
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_string(),
                value: serde_json::to_vec(&process).expect("a process can be written as JSON"),
            }),
        };
        if let Err(status) = self.containerd.tasks().exec(create).await {
            return Err((control, failed(status)));
        }
        let start =
            StartRequest { container_id: control.container.clone(), exec_id: control.exec.clone() };
        // From here on, dropping this future kills the command.
        control.ended = false;
        if let Err(status) = self.containerd.tasks().start(start).await {
            control.ended = true;
            return Err((control, failed(status)));
        }
        let stdin = if request.stdin {
            let path = PathBuf::from(&streams.stdin_path);
            match StdinWriter::open(
                &self.containerd,
                &control.container,
                &control.exec,
                &path,
                true,
            )
            .await
            {
                Ok(writer) => Some(Box::new(writer) as Box<dyn AsyncWrite + Send + Unpin>),
                // It exited before it read anything.
                Err(_) => None,
            }
        } else {
            None
        };
        let stdout = wanted(streams.stdout, request.stdout || request.tty);
        let stderr = streams.stderr.and_then(|stderr| wanted(stderr, request.stderr));
        Ok(ExecSession { stdin, stdout, stderr, control })
    }
}

struct OutputStreams {
    stdin_path: String,
    stdout_path: String,
    stderr_path: String,
    stdout: pipe::Receiver,
    stderr: Option<pipe::Receiver>,
}

/// Creates the FIFOs and opens our ends; the shim opens its ends while the command starts, and we
/// read only after that, so that "no writer yet" is not mistaken for the end.
fn open_output(directory: &Path, request: &ExecRequest) -> Result<OutputStreams> {
    let open = |name: &str| {
        let path = directory.join(name);
        let text = make_fifo(&path)?;
        let receiver = pipe::OpenOptions::new()
            .open_receiver(&path)
            .map_err(RuntimeError::io("open FIFO", &path))?;
        Ok::<_, RuntimeError>((text, receiver))
    };
    let stdin_path = if request.stdin { make_fifo(&stdin_fifo(directory))? } else { String::new() };
    let (stdout_path, stdout) = open("stdout")?;
    let (stderr_path, stderr) = match request.tty {
        true => (String::new(), None),
        false => open("stderr").map(|(path, receiver)| (path, Some(receiver)))?,
    };
    Ok(OutputStreams { stdin_path, stdout_path, stderr_path, stdout, stderr })
}

/// Returns the output, or reads it to its end in the background if nobody wants it.
fn wanted(receiver: pipe::Receiver, wanted: bool) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
    if wanted {
        return Some(Box::new(receiver));
    }
    tokio::spawn(discard(receiver));
    None
}

async fn discard(mut receiver: pipe::Receiver) {
    let mut buffer = vec![0; DISCARD_BYTES];
    while receiver.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Reads to the end, keeping at most `limit` bytes.
async fn read_up_to(
    stream: Option<Box<dyn AsyncRead + Send + Unpin>>,
    limit: usize,
) -> Result<Vec<u8>> {
    let Some(mut stream) = stream else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    let mut buffer = vec![0; DISCARD_BYTES];
    loop {
        let count = stream
            .read(&mut buffer)
            .await
            .map_err(RuntimeError::io("read output of", "command"))?;
        if count == 0 {
            return Ok(kept);
        }
        let room = limit.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
}
