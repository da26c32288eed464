//! Attaching to a container's own process.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use tokio::io::AsyncWrite;

use super::exec::not_wired;
use super::{ContainerId, Result, Runtime};
use crate::logs::LogStream;

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

/// An attached client.
pub struct AttachSession {
    /// Write its standard input here. Dropping it closes the container's standard input only if
    /// `stdin_once` was set. `None` if not asked for.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Output from now on, until the container ends.
    pub output: Pin<Box<dyn Stream<Item = Result<(LogStream, Bytes)>> + Send>>,
}

impl Runtime {
    /// Attaches to a running container.
    pub async fn attach(&self, id: &ContainerId, request: AttachRequest) -> Result<AttachSession> {
        let _ = request;
        Err(not_wired(id))
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_tty(&self, id: &ContainerId, width: u16, height: u16) -> Result<()> {
        let (_, _) = (width, height);
        Err(not_wired(id))
    }
}
