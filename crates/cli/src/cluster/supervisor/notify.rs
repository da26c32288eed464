//! Readiness by the sd_notify protocol: each process is given a datagram socket of its own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::net::UnixDatagram;

/// Largest datagram that is read; the rest is cut off.
const DATAGRAM_MAX: usize = 4096;

/// The socket on which one process announces its readiness.
pub struct Notifications {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notifications {
    /// Binds the process's socket in the run folder.
    ///
    /// # Errors
    /// When it cannot be bound, for example because the path is too long for a socket.
    pub fn bind(run: &Path, process: &str) -> anyhow::Result<Self> {
        let path = run.join(format!("{process}.notify"));
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        let socket = UnixDatagram::bind(&path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Self { socket, path })
    }

    /// The value of `$NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Drops the notifications of an earlier run of the process.
    pub fn drain(&self) {
        let mut buffer = [0; DATAGRAM_MAX];
        while self.socket.try_recv(&mut buffer).is_ok() {}
    }

    /// Waits until the process reports that it is ready.
    pub async fn ready(&self) {
        let mut buffer = [0; DATAGRAM_MAX];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) if says_ready(&buffer[..length]) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "cannot read readiness");
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

fn says_ready(datagram: &[u8]) -> bool {
    datagram.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_line_of_its_own() {
        assert!(says_ready(b"READY=1"));
        assert!(says_ready(b"STATUS=up\nREADY=1\n"));
        assert!(!says_ready(b"READY=10\nSTOPPING=1"));
    }
}
