//! Records exits: the exit is written to the container's labels, then its task is deleted, which
//! frees the shim, the mounts and the container's cgroup, and ends its log.

use std::collections::HashMap;
use std::sync::Arc;

use clock::{Clock, SystemClock};
use containerd_client::services::v1::{Container, UpdateContainerRequest};
use jiff::Timestamp;
use prost_types::FieldMask;

use super::record::{self, exit_to_label};
use super::status::{ContainerExit, ExitReason};
use super::task::{Task, TaskState};
use super::{Inner, Result, RuntimeError};
use crate::cgroup::CgroupPath;

/// Exit code of a container whose exit nobody saw.
const EXIT_CODE_UNKNOWN: i32 = 255;

impl Inner {
    /// Records the exit of a container in the background, once.
    pub(super) fn reap_in_background(self: &Arc<Self>, id: String) {
        if !self.reaping.lock().insert(id.clone()) {
            return;
        }
        let inner = self.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.reap(&id).await {
                tracing::warn!(container = %id, error = %error, "cannot record a container's exit; the next list tries again");
            }
            inner.reaping.lock().remove(&id);
        });
    }

    /// Records the exit of a container if it has exited. Idempotent.
    async fn reap(&self, id: &str) -> Result<()> {
        let Some(container) = self.record(id).await? else {
            return Ok(());
        };
        let pod_uid = container.labels.get(record::POD_UID).cloned().unwrap_or_default();
        let task = self.task(id).await?;
        let ended = match &task {
            Some(task) => matches!(task.state, TaskState::Stopped { .. }),
            // Started, but without a task: the machine went down.
            None => container.labels.contains_key(record::STARTED_AT),
        };
        if !ended {
            return Ok(());
        }
        if !container.labels.contains_key(record::EXIT) {
            let exit = self.exit_of(&container, task.as_ref()).await;
            self.set_label(id, record::EXIT, exit_to_label(&exit)).await?;
        }
        self.delete_stopped_task(id, &pod_uid).await
    }

    /// How a container exited: from its label if recorded, else from its task, else unknown.
    pub(super) async fn exit_of(
        &self,
        container: &Container,
        task: Option<&Task>,
    ) -> ContainerExit {
        if let Some(exit) =
            container.labels.get(record::EXIT).and_then(|label| record::exit_from_label(label))
        {
            return exit;
        }
        let started_at =
            container.labels.get(record::STARTED_AT).and_then(|label| label.parse().ok());
        let Some(Task { state: TaskState::Stopped { exit_code, exited_at }, .. }) = task else {
            return ContainerExit {
                exit_code: EXIT_CODE_UNKNOWN,
                started_at,
                // The time at which it was noticed.
                finished_at: SystemClock.now(),
                reason: ExitReason::Unknown,
                message: "The container could not be located when its end was to be recorded"
                    .to_string(),
            };
        };
        let reason = match exit_code {
            0 => ExitReason::Completed,
            _ if self.was_oom_killed(container).await => ExitReason::OomKilled,
            _ => ExitReason::Error,
        };
        ContainerExit {
            exit_code: *exit_code,
            started_at: started_at.or_else(|| Some(updated_at(container))),
            finished_at: exited_at.unwrap_or_else(|| SystemClock.now()),
            reason,
            message: String::new(),
        }
    }

    /// The count of OOM kills in the container's cgroup, which exists as long as the task.
    async fn was_oom_killed(&self, container: &Container) -> bool {
        let Some(record) = super::list::record_of(container) else {
            return false;
        };
        let cgroups = self.config.cgroups.clone();
        let path = CgroupPath::new(&record.cgroup);
        let stats = tokio::task::spawn_blocking(move || cgroups.stats(&path)).await;
        matches!(stats, Ok(Ok(Some(stats))) if stats.oom_kills > 0)
    }

    /// Sets one label of a container. It may be gone already.
    pub(super) async fn set_label(&self, id: &str, key: &str, value: String) -> Result<()> {
        let container = Container {
            id: id.to_string(),
            labels: HashMap::from([(key.to_string(), value)]),
            ..Container::default()
        };
        let request = UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(FieldMask { paths: vec![format!("labels.{key}")] }),
        };
        match self.containerd.containers().update(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(RuntimeError::from_status(format!("label container {id}"), &status)),
        }
    }
}

fn updated_at(container: &Container) -> Timestamp {
    container.updated_at.as_ref().and_then(super::task::timestamp).unwrap_or(Timestamp::UNIX_EPOCH)
}
