//! What exists.

use super::exec::not_wired;
use super::{ContainerId, ContainerStatus, Result, Runtime};

impl Runtime {
    /// Every container of this node's namespace, running or not, oldest first.
    pub async fn list(&self) -> Result<Vec<ContainerStatus>> {
        Ok(Vec::new())
    }

    /// The containers of one pod, oldest first.
    pub async fn list_pod(&self, pod_uid: &str) -> Result<Vec<ContainerStatus>> {
        let _ = pod_uid;
        Ok(Vec::new())
    }

    /// One container.
    pub async fn status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        Err(not_wired(id))
    }
}
