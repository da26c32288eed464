//! Cleans up after a crash, when the runtime starts, before anything is created.

use std::collections::HashSet;

use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use tonic::Status;

use super::list::record_of;
use super::record;
use super::rootfs::GC_ROOT;
use super::task::TaskState;
use super::{Inner, Result, RuntimeError};

impl Inner {
    /// Removes root file systems that no container uses, kills orphaned shims, and restarts log
    /// writers that were killed.
    pub(super) async fn heal(&self) -> Result<()> {
        self.kill_stuck_shims().await;
        let containers = self.all_records().await?;
        let known: HashSet<&str> =
            containers.iter().map(|container| container.id.as_str()).collect();
        for key in self.own_snapshots().await? {
            if !known.contains(key.as_str()) {
                tracing::info!(snapshot = %key, "removing the root file system of a container that was never created");
                self.remove_snapshot(&key).await?;
            }
        }
        for task in self.tasks().await? {
            let container = containers.iter().find(|container| container.id == task.id);
            let Some((container, record)) =
                container.and_then(|found| Some((found, record_of(found)?)))
            else {
                continue;
            };
            if task.state == TaskState::Running && record.has_output_fifos() {
                let pod_uid = container.labels.get(record::POD_UID).cloned().unwrap_or_default();
                self.ensure_log_writer(&container.id, &pod_uid, &record, &task.stdio)?;
            }
        }
        Ok(())
    }

    /// Keys of the snapshots that were created for containers.
    async fn own_snapshots(&self) -> Result<Vec<String>> {
        let failed = |status: Status| RuntimeError::from_status("list snapshots", &status);
        let request = ListSnapshotsRequest {
            snapshotter: self.config.snapshotter.clone(),
            filters: vec![format!("labels.\"{GC_ROOT}\"==\"1\"")],
        };
        let mut pages =
            self.containerd.snapshots().list(request).await.map_err(failed)?.into_inner();
        let mut keys = Vec::new();
        while let Some(page) = pages.message().await.map_err(failed)? {
            keys.extend(page.info.into_iter().map(|info| info.name));
        }
        Ok(keys)
    }
}
