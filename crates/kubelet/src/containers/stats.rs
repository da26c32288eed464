//! Resource usage of containers and pods.

use containerd_client::services::v1::Container;
use jiff::Timestamp;

use super::list::{record_of, started_at};
use super::record::{self, Identity, Record};
use super::{ContainerId, PodRef, Result, Runtime};
use crate::cgroup::{CgroupPath, CgroupStats};

/// The resource usage of a container.
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
    /// Statistics of every running container. No shim is asked: a container runs if its cgroup has
    /// processes.
    pub async fn stats(&self) -> Result<Vec<ContainerStats>> {
        let records = self.inner.all_records().await?;
        let cgroups = self.inner.config.cgroups.clone();
        let work = move || {
            let mut found = Vec::with_capacity(records.len());
            for container in &records {
                let Some((identity, record)) = running(container) else {
                    continue;
                };
                let Some(usage) = cgroups.stats(&CgroupPath::new(&record.cgroup))? else {
                    continue;
                };
                if usage.pids == 0 {
                    continue;
                }
                let started_at = started_at(container);
                let id = ContainerId(container.id.clone());
                found.push(ContainerStats {
                    id,
                    pod: identity.pod,
                    name: identity.name,
                    started_at,
                    usage,
                });
            }
            Ok(found)
        };
        tokio::task::spawn_blocking(work).await.expect("reading statistics does not panic")
    }

    /// Bytes that a container has written to its root file system.
    pub async fn written_bytes(&self, id: &ContainerId) -> Result<u64> {
        self.inner.snapshot_bytes(&id.0).await
    }

    /// Statistics of any cgroup (a pod's, `kubepods`, `/` for the node); `None` if it does not
    /// exist.
    pub async fn cgroup_stats(&self, path: &CgroupPath) -> Result<Option<CgroupStats>> {
        let cgroups = self.inner.config.cgroups.clone();
        let path = path.clone();
        let stats = tokio::task::spawn_blocking(move || cgroups.stats(&path)).await;
        Ok(stats.expect("reading statistics does not panic")?)
    }
}

/// A container whose exit is not recorded; `None` for pause processes and containers that are not
/// ours.
fn running(container: &Container) -> Option<(Identity, Record)> {
    if container.labels.contains_key(record::PAUSE) || container.labels.contains_key(record::EXIT) {
        return None;
    }
    Some((Identity::from_labels(&container.labels)?, record_of(container)?))
}
