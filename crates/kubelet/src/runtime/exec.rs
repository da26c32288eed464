//! Running commands in containers.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{ContainerId, Result, Runtime, RuntimeError};

/// A command to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Give it standard input.
    pub stdin: bool,
    /// Pass its standard output back.
    pub stdout: bool,
    /// Pass its standard error back (with `tty` everything is standard output).
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
}

/// A command that runs in a container. Dropping the session kills the command.
pub struct ExecSession {
    /// Write its standard input here; drop it to close.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output, to its end.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its standard error, to its end.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Resize, signal, wait.
    pub control: ExecControl,
}

/// Controls a command that runs in a container.
pub struct ExecControl {
    id: ContainerId,
}

impl ExecControl {
    /// Sets the terminal's size in characters.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (_, _) = (width, height);
        Err(not_wired(&self.id))
    }

    /// Sends a signal to the command.
    pub async fn kill(&self, signal: i32) -> Result<()> {
        let _ = signal;
        Err(not_wired(&self.id))
    }

    /// Waits for the end and gives the exit code. Read the output at the same time: a command whose
    /// output nobody reads does not end.
    pub async fn wait(&mut self) -> Result<i32> {
        Err(not_wired(&self.id))
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
        let _ = request;
        Err(not_wired(id))
    }

    /// Runs a command to its end, for probes and hooks. At most `output_limit` bytes of each stream are
    /// kept. After `timeout` it is killed and the call fails with [`RuntimeError::ExecTimeout`].
    pub async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
        output_limit: usize,
    ) -> Result<ExecOutput> {
        let (_, _, _) = (command, timeout, output_limit);
        Err(not_wired(id))
    }
}

pub(super) fn not_wired(id: &ContainerId) -> RuntimeError {
    RuntimeError::NotFound { id: id.to_string() }
}
