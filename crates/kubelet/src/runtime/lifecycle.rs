//! Start, signal, update and delete.

use std::sync::Arc;

use containerd_client::services::v1::{
    Container, CreateTaskRequest, StartRequest, UpdateTaskRequest,
};
use jiff::Timestamp;
use prost_types::Any;
use runtime::clock::{Clock, SystemClock};
use tonic::{Code, Status};

use super::record::{self, Identity, exit_to_label};
use super::spec::linux_resources;
use super::status::{ContainerExit, ExitReason};
use super::task::{TaskState, is_dying_shim, is_gone};
use super::{ContainerId, Inner, Result, Runtime, RuntimeError, is_unreachable};
use crate::cgroup::Resources;

const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// Exit code of a container whose process could not be started.
const EXIT_CODE_START_ERROR: i32 = 128;
/// A shim that is just ending may be met once; more often is another fault.
const SHIM_TRIES: u32 = 3;

impl Runtime {
    /// Starts a created container and gives its process id. Already running: fine.
    ///
    /// Fails with [`RuntimeError::Start`] if its command cannot be run; the container is then `Exited`
    /// with code 128 and reason `StartError`.
    pub async fn start(&self, id: &ContainerId) -> Result<u32> {
        let inner = &self.inner;
        let container = inner
            .record(&id.0)
            .await?
            .ok_or_else(|| RuntimeError::NotFound { id: id.to_string() })?;
        let identity = Identity::from_labels(&container.labels)
            .ok_or_else(|| RuntimeError::NotFound { id: id.to_string() })?;
        if container.labels.contains_key(record::EXIT) {
            return Err(RuntimeError::Start {
                id: id.to_string(),
                message: "it has already ended".to_string(),
            });
        }
        // Before the call: a short process has ended when it returns.
        let started_at = SystemClock.now();
        let pid = match inner.task(&id.0).await?.map(|task| (task.state, task.pid)) {
            Some((TaskState::Running, pid)) => return Ok(pid),
            Some((TaskState::Stopped { .. }, _)) => {
                return Err(RuntimeError::Start {
                    id: id.to_string(),
                    message: "it has already ended".to_string(),
                });
            }
            Some((TaskState::Created, _)) => inner.start_task(&id.0).await,
            None => {
                inner
                    .create_and_start_task(&container, &identity.pod.uid)
                    .await
            }
        };
        match pid {
            Ok(pid) => {
                inner.note_start(id.clone(), started_at);
                Ok(pid)
            }
            Err(error @ RuntimeError::Start { .. }) => {
                inner
                    .note_start_failure(id, &identity.pod.uid, &error)
                    .await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to the container's first process (`all`: to every process). Gone: fine.
    pub async fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
        let number = u32::try_from(signal).map_err(|_| RuntimeError::InvalidConfig {
            message: format!("no signal has the number {signal}"),
        })?;
        self.inner.signal_task(&id.0, number, all).await?;
        Ok(())
    }

    /// Deletes a container with its root file system and logs; kills it first if it runs. Gone: fine.
    pub async fn delete(&self, id: &ContainerId) -> Result<()> {
        let Some(container) = self.inner.record(&id.0).await? else {
            return self.inner.remove_snapshot(&id.0).await;
        };
        let pod_uid = container
            .labels
            .get(record::POD_UID)
            .cloned()
            .unwrap_or_default();
        self.inner.remove_container(&id.0, &pod_uid).await?;
        if let Some(record) = super::list::record_of(&container) {
            let path = record.log_path;
            let removed =
                tokio::task::spawn_blocking(move || crate::logs::remove_logs(&path)).await;
            removed
                .expect("removing logs does not panic")
                .map_err(RuntimeError::io("remove logs of", id.0.as_str()))?;
        }
        Ok(())
    }

    /// Changes the limits of a running container in place.
    pub async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let value =
            serde_json::to_vec(&linux_resources(resources)).expect("numbers have a JSON form");
        let request = UpdateTaskRequest {
            container_id: id.0.clone(),
            resources: Some(Any {
                type_url: RESOURCES_TYPE.to_string(),
                value,
            }),
            ..UpdateTaskRequest::default()
        };
        match self.inner.containerd.tasks().update(request).await {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Err(RuntimeError::NotRunning { id: id.to_string() }),
            Err(status) => Err(RuntimeError::from_status(
                format!("update container {id}"),
                &status,
            )),
        }
    }
}

impl Inner {
    async fn create_and_start_task(&self, container: &Container, pod_uid: &str) -> Result<u32> {
        let id = container.id.as_str();
        let record = super::list::record_of(container)
            .ok_or_else(|| RuntimeError::NotFound { id: id.to_string() })?;
        let (stdio, rootfs) = tokio::try_join!(
            self.prepare_stdio(id, pod_uid, &record),
            self.snapshot_mounts(&container.snapshot_key)
        )?;
        let request = CreateTaskRequest {
            container_id: id.to_string(),
            rootfs,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: record.tty,
            ..CreateTaskRequest::default()
        };
        let lock = self.pod_lock(pod_uid);
        let mut tries = 0;
        loop {
            tries += 1;
            let creating = lock.read().await;
            let created = self.containerd.tasks().create(request.clone()).await;
            drop(creating);
            match created {
                Ok(_) => return self.start_task(id).await,
                Err(status) if status.code() == Code::AlreadyExists => {
                    return self.start_task(id).await;
                }
                Err(status) if tries < SHIM_TRIES && is_dying_shim(&status) => {
                    self.delete_stopped_task(id, pod_uid).await?;
                }
                Err(status) => return Err(start_error(id, &status)),
            }
        }
    }

    async fn start_task(&self, id: &str) -> Result<u32> {
        let request = StartRequest {
            container_id: id.to_string(),
            exec_id: String::new(),
        };
        match self.containerd.tasks().start(request).await {
            Ok(response) => Ok(response.into_inner().pid),
            Err(status) => Err(start_error(id, &status)),
        }
    }

    /// Writes down when a container was started; the caller need not wait for it.
    fn note_start(self: &Arc<Self>, id: ContainerId, started_at: Timestamp) {
        let inner = self.clone();
        tokio::spawn(async move {
            if let Err(error) = inner
                .set_label(&id.0, record::STARTED_AT, started_at.to_string())
                .await
            {
                tracing::warn!(container = %id, %error, "the container's start time could not be recorded");
            }
        });
    }

    async fn note_start_failure(
        &self,
        id: &ContainerId,
        pod_uid: &str,
        error: &RuntimeError,
    ) -> Result<()> {
        let exit = ContainerExit {
            exit_code: EXIT_CODE_START_ERROR,
            started_at: None,
            finished_at: SystemClock.now(),
            reason: ExitReason::StartError,
            message: error.to_string(),
        };
        self.set_label(&id.0, record::EXIT, exit_to_label(&exit))
            .await?;
        self.delete_task(&id.0, pod_uid).await?;
        self.remove_streams(&id.0, pod_uid).await
    }

    /// Removes a container with its task, streams and snapshot. Gone: fine.
    pub(super) async fn remove_container(&self, id: &str, pod_uid: &str) -> Result<()> {
        self.delete_task(id, pod_uid).await?;
        self.delete_record(id).await?;
        self.remove_snapshot(id).await?;
        self.remove_streams(id, pod_uid).await?;
        self.pod_of.lock().remove(id);
        Ok(())
    }
}

/// A failed create or start: the OCI runtime's refusal, unless containerd itself is away.
fn start_error(id: &str, status: &Status) -> RuntimeError {
    match status.code() {
        _ if is_unreachable(status) => {
            RuntimeError::from_status(format!("start container {id}"), status)
        }
        Code::NotFound | Code::DeadlineExceeded | Code::Cancelled => {
            RuntimeError::from_status(format!("start container {id}"), status)
        }
        _ => RuntimeError::Start {
            id: id.to_string(),
            message: status.message().to_string(),
        },
    }
}
