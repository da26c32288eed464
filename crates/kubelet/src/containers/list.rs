//! Listing containers.

use std::collections::HashMap;
use std::sync::Arc;

use containerd_client::services::v1::{Container, GetContainerRequest, ListContainersRequest};
use jiff::Timestamp;
use tonic::Code;

use super::record::{self, EXTENSION, Identity, Record};
use super::task::{Task, TaskState, timestamp};
use super::{ContainerId, ContainerState, ContainerStatus, Inner, Result, Runtime, RuntimeError};
use crate::cgroup::CgroupPath;

impl Runtime {
    /// Every container of this node's namespace, running or not, oldest first.
    pub async fn list(&self) -> Result<Vec<ContainerStatus>> {
        // Tasks first: one that is deleted in between has left its exit in the record.
        let tasks = self.inner.tasks().await?;
        let containers = self.inner.all_records().await?;
        let tasks: HashMap<String, Task> =
            tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        let mut found = Vec::with_capacity(containers.len());
        for container in containers {
            let task = tasks.get(&container.id).cloned();
            found.extend(self.inner.status_of(&container, task).await);
        }
        sort(&mut found);
        Ok(found)
    }

    /// The containers of one pod, oldest first.
    pub async fn list_pod(&self, pod_uid: &str) -> Result<Vec<ContainerStatus>> {
        let containers = self.inner.records_of_pod(pod_uid).await?;
        let looks = containers.iter().map(|container| self.inner.look_at(&container.id));
        let mut found: Vec<ContainerStatus> =
            futures::future::try_join_all(looks).await?.into_iter().flatten().collect();
        sort(&mut found);
        Ok(found)
    }

    /// One container.
    pub async fn status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let found = self.inner.look_at(&id.0).await?;
        found.ok_or_else(|| RuntimeError::NotFound { id: id.to_string() })
    }
}

fn sort(found: &mut [ContainerStatus]) {
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
}

impl Inner {
    /// A container's status. The task is read first: if it is deleted in between, its exit is in
    /// the record.
    async fn look_at(self: &Arc<Self>, id: &str) -> Result<Option<ContainerStatus>> {
        let task = self.task(id).await?;
        match self.record(id).await? {
            Some(container) => Ok(self.status_of(&container, task).await),
            None => Ok(None),
        }
    }

    /// containerd's record of a container.
    pub(super) async fn record(&self, id: &str) -> Result<Option<Container>> {
        match self.containerd.containers().get(GetContainerRequest { id: id.to_string() }).await {
            Ok(response) => Ok(response.into_inner().container),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(RuntimeError::from_status(format!("get container {id}"), &status)),
        }
    }

    /// All records, including those of pause processes.
    pub(super) async fn all_records(&self) -> Result<Vec<Container>> {
        self.filtered_records(Vec::new()).await
    }

    /// A pod's records, including that of its pause process.
    pub(super) async fn records_of_pod(&self, pod_uid: &str) -> Result<Vec<Container>> {
        self.filtered_records(vec![format!("labels.\"{}\"=={pod_uid:?}", record::POD_UID)]).await
    }

    async fn filtered_records(&self, filters: Vec<String>) -> Result<Vec<Container>> {
        let response = self.containerd.containers().list(ListContainersRequest { filters }).await;
        Ok(response
            .map_err(|status| RuntimeError::from_status("list containers", &status))?
            .into_inner()
            .containers)
    }

    /// The status of a container, from its record and task; `None` if it is not a pod's container.
    /// The exit of a stopped task is recorded in the background.
    async fn status_of(
        self: &Arc<Self>,
        container: &Container,
        task: Option<Task>,
    ) -> Option<ContainerStatus> {
        if container.labels.contains_key(record::PAUSE) {
            return None;
        }
        let identity = Identity::from_labels(&container.labels)?;
        let record = record_of(container)?;
        let id = ContainerId(container.id.clone());
        self.remember(&id, &identity.pod.uid);
        let label = |key: &str| container.labels.contains_key(key);
        let ended = match &task {
            Some(task) => matches!(task.state, TaskState::Stopped { .. }),
            // Its exit has yet to be recorded.
            None => label(record::STARTED_AT) && !label(record::EXIT),
        };
        if ended {
            self.reap_in_background(id.0.clone());
        }
        Some(ContainerStatus {
            id,
            pod: identity.pod,
            name: identity.name,
            attempt: identity.attempt,
            spec_hash: record.spec_hash,
            image: record.image,
            image_id: record.image_id,
            image_ref: record.image_ref,
            annotations: record.annotations,
            created_at: created_at(container),
            state: self.state_of(container, task).await,
            log_path: record.log_path,
            cgroup: CgroupPath::new(&record.cgroup),
            user: record.user,
            tty: record.tty,
            stdin: record.stdin,
            stdin_once: record.stdin_once,
            stop_signal: record.stop_signal,
        })
    }

    async fn state_of(&self, container: &Container, task: Option<Task>) -> ContainerState {
        let label = |key: &str| container.labels.get(key);
        match &task {
            Some(Task { state: TaskState::Running, pid, .. }) => {
                ContainerState::Running { pid: *pid, started_at: started_at(container) }
            }
            Some(Task { state: TaskState::Created, .. }) => ContainerState::Created,
            None if label(record::EXIT).is_none() && label(record::STARTED_AT).is_none() => {
                ContainerState::Created
            }
            Some(Task { state: TaskState::Stopped { .. }, .. }) | None => {
                ContainerState::Exited(self.exit_of(container, task.as_ref()).await)
            }
        }
    }
}

/// Our part of containerd's record; `None` if the container is not ours.
pub(super) fn record_of(container: &Container) -> Option<Record> {
    serde_json::from_slice(&container.extensions.get(EXTENSION)?.value).ok()
}

/// When a container was started, or created if the start was not recorded.
pub(super) fn started_at(container: &Container) -> Timestamp {
    let label = container.labels.get(record::STARTED_AT);
    label.and_then(|label| label.parse().ok()).unwrap_or_else(|| created_at(container))
}

fn created_at(container: &Container) -> Timestamp {
    container.created_at.as_ref().and_then(timestamp).unwrap_or(Timestamp::UNIX_EPOCH)
}
