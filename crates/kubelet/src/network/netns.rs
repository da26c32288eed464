//! A netlink connection into another network namespace. A socket belongs to the namespace of the
//! thread that opens it, forever; so a dedicated thread enters the namespace, opens the socket and
//! exits. No thread of the async runtime ever changes its namespace.

use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use super::NetworkError;

/// A connection whose background task is aborted with it.
pub(super) struct Connection {
    pub(super) handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects to the namespace of this process.
    pub(super) fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Socket)?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// Connects to the namespace of `file`, which was opened from `path`.
    pub(super) async fn enter(file: File, path: &Path) -> Result<Self, NetworkError> {
        let runtime = tokio::runtime::Handle::current();
        let (reply, opened) = tokio::sync::oneshot::channel();
        let open = move || {
            let _guard = runtime.enter();
            setns(&file, CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)
                .and_then(|()| rtnetlink::new_connection())
        };
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                // The receiver is gone only when `setup` was cancelled; the socket closes with the
                // value.
                drop(reply.send(open()));
            })
            .map_err(NetworkError::Socket)?;
        let failed = |source| NetworkError::Namespace { path: path.to_owned(), source };
        let (connection, handle, _) = opened
            .await
            .map_err(|_| failed(std::io::Error::other("the thread that entered it failed")))?
            .map_err(failed)?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}
