//! Resource use of containers and pods.

use jiff::Timestamp;

use super::{ContainerId, ContainerState, PodRef, Result, Runtime};
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
        let containers = self.list().await?;
        let cgroups = self.inner.config.cgroups.clone();
        let work = move || {
            let mut found = Vec::with_capacity(containers.len());
            for container in containers {
                let ContainerState::Running { started_at, .. } = container.state else {
                    continue;
                };
                let Some(usage) = cgroups.stats(&container.cgroup)? else {
                    continue;
                };
                let (id, pod, name) = (container.id, container.pod, container.name);
                found.push(ContainerStats {
                    id,
                    pod,
                    name,
                    started_at,
                    usage,
                });
            }
            Ok(found)
        };
        tokio::task::spawn_blocking(work)
            .await
            .expect("reading statistics does not panic")
    }

    /// Figures of any cgroup (a pod's, `kubepods`, `/` for the node); `None` if it does not exist.
    pub async fn cgroup_stats(&self, path: &CgroupPath) -> Result<Option<CgroupStats>> {
        let cgroups = self.inner.config.cgroups.clone();
        let path = path.clone();
        let stats = tokio::task::spawn_blocking(move || cgroups.stats(&path)).await;
        Ok(stats.expect("reading statistics does not panic")?)
    }
}
