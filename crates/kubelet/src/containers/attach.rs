//! Attaching to a container's own process: output from its log writer's socket, input into its
//! FIFO.

use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use containerd_client::services::v1::ResizePtyRequest;
use futures::{Stream, StreamExt};
use tokio::io::AsyncWrite;

use super::stdin::StdinWriter;
use super::task::is_gone;
use super::{ContainerId, ContainerState, Result, Runtime, RuntimeError};
use crate::logs::{LogStream, attach_output, attach_socket};

/// Which streams to attach to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttachRequest {
    /// Write to standard input (the container must have been created with it).
    pub stdin: bool,
    /// Read standard output from now on.
    pub stdout: bool,
    /// Read standard error from now on.
    pub stderr: bool,
}

/// What a container writes, in pieces, and to which stream.
pub type AttachOutput = Pin<Box<dyn Stream<Item = Result<(LogStream, Bytes)>> + Send>>;

/// An attached client.
pub struct AttachSession {
    /// Write its standard input here. Dropping it closes the container's standard input only if
    /// `stdin_once` was set. `None` if it was not requested or the container has none.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Output from now on, until the container exits.
    pub output: AttachOutput,
}

impl Runtime {
    /// Attaches to a running container.
    pub async fn attach(&self, id: &ContainerId, request: AttachRequest) -> Result<AttachSession> {
        let status = self.status(id).await?;
        if !matches!(status.state, ContainerState::Running { .. }) {
            return Err(RuntimeError::NotRunning { id: id.to_string() });
        }
        let directory = self.inner.pod_paths(&status.pod.uid).streams(&id.0);
        let stdin = if request.stdin && status.stdin {
            let task = self.inner.task(&id.0).await?;
            let task = task.ok_or_else(|| RuntimeError::NotRunning { id: id.to_string() })?;
            let fifo = PathBuf::from(task.stdio.stdin);
            let writer =
                StdinWriter::open(&self.inner.containerd, &id.0, "", &fifo, status.stdin_once)
                    .await
                    .map_err(RuntimeError::io("open standard input", &fifo))?;
            Some(Box::new(writer) as Box<dyn AsyncWrite + Send + Unpin>)
        } else {
            None
        };
        let socket = attach_socket(&directory);
        let output =
            attach_output(&socket).await.map_err(RuntimeError::io("attach to", &socket))?;
        let output = output.filter_map(move |item| {
            let wanted = match &item {
                Ok((LogStream::Stdout, _)) => request.stdout,
                Ok((LogStream::Stderr, _)) => request.stderr,
                Err(_) => true,
            };
            let failed = RuntimeError::io("read output from", socket.clone());
            futures::future::ready(wanted.then(|| item.map_err(failed)))
        });
        Ok(AttachSession { stdin, output: Box::pin(output) })
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_tty(&self, id: &ContainerId, width: u16, height: u16) -> Result<()> {
        let request = ResizePtyRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
            width: width.into(),
            height: height.into(),
        };
        match self.inner.containerd.tasks().resize_pty(request).await {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Ok(()),
            Err(status) => Err(RuntimeError::from_status("resize terminal", &status)),
        }
    }
}
