//! Writing to a process's standard input.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use containerd_client::services::v1::CloseIoRequest;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;

use super::Containerd;

/// How long a shim may take to open its end of a process's standard input.
const READER_WAIT: Duration = Duration::from_secs(5);

/// The writing end of a process's standard input. The shim keeps the FIFO open, so that the kubelet
/// can be restarted; closing it takes a call, made when this is dropped (if requested).
pub(super) struct StdinWriter {
    sender: Option<pipe::Sender>,
    containerd: Containerd,
    container: String,
    exec: String,
    close: bool,
}

impl StdinWriter {
    /// Opens the FIFO. `exec` is empty for the container's own process. With `close`, the process
    /// sees the end of its input when this is shut down or dropped.
    pub(super) async fn open(
        containerd: &Containerd,
        container: &str,
        exec: &str,
        fifo: &Path,
        close: bool,
    ) -> io::Result<Self> {
        Ok(StdinWriter {
            sender: Some(open_read_fifo(fifo).await?),
            containerd: containerd.clone(),
            container: container.to_string(),
            exec: exec.to_string(),
            close,
        })
    }

    /// Closes the FIFO and asks the shim to do the same.
    fn end(&mut self) {
        if self.sender.take().is_none() || !self.close {
            return;
        }
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut tasks = self.containerd.tasks();
        let request = CloseIoRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            stdin: true,
        };
        handle.spawn(async move {
            if let Err(status) = tasks.close_io(request).await {
                tracing::debug!(
                    message = status.message(),
                    "cannot close standard input; the process has exited"
                );
            }
        });
    }

    fn sender(&mut self) -> io::Result<Pin<&mut pipe::Sender>> {
        self.sender.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Opens a FIFO for writing, once it is open for reading: the shim may open its end only after it
/// has reported that the process is running. Anything written before would be lost.
async fn open_read_fifo(fifo: &Path) -> io::Result<pipe::Sender> {
    match pipe::OpenOptions::new().open_sender(fifo) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => {}
        opened => return opened,
    }
    let path = fifo.to_owned();
    // This blocks until the other end is opened.
    let opening = tokio::task::spawn_blocking(move || File::options().write(true).open(path));
    match tokio::time::timeout(READER_WAIT, opening).await {
        Ok(opened) => pipe::Sender::from_file(opened.map_err(io::Error::other)??),
        Err(_) => {
            // Nobody reads: opening the other end for a moment unblocks the thread.
            drop(pipe::OpenOptions::new().open_receiver(fifo)?);
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

impl Drop for StdinWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsyncWrite for StdinWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.sender() {
            Ok(sender) => sender.poll_write(context, bytes),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.sender() {
            Ok(sender) => sender.poll_flush(context),
            Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}
