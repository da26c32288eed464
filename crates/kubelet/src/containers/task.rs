//! containerd's tasks: the running side of a container.

use std::time::Duration;

use containerd_client::services::v1::{
    DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest, WaitRequest,
};
use containerd_client::types::v1::{Process, Status as ProcessStatus};
use jiff::Timestamp;
use tonic::Code;

use super::stdio::TaskStdio;
use super::{Inner, Result, RuntimeError};

/// How long a killed process may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
const SIGKILL: u32 = 9;

/// A task, as containerd reports it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) state: TaskState,
    /// The paths of its standard streams, as it was created with.
    pub(super) stdio: TaskStdio,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TaskState {
    Created,
    Running,
    Stopped { exit_code: i32, exited_at: Option<Timestamp> },
}

impl Task {
    pub(super) fn is_running(&self) -> bool {
        self.state == TaskState::Running
    }

    fn from_process(process: Process) -> Self {
        let state = match process.status() {
            ProcessStatus::Created => TaskState::Created,
            ProcessStatus::Stopped => TaskState::Stopped {
                exit_code: exit_code(process.exit_status),
                exited_at: process.exited_at.as_ref().and_then(timestamp),
            },
            // Paused tasks are alive; an unknown state means that the shim did not answer in time.
            _ => TaskState::Running,
        };
        Task {
            id: if process.container_id.is_empty() { process.id } else { process.container_id },
            pid: process.pid,
            state,
            stdio: TaskStdio {
                stdin: process.stdin,
                stdout: process.stdout,
                stderr: process.stderr,
            },
        }
    }
}

/// containerd's unsigned exit status as Kubernetes shows it.
pub(super) fn exit_code(status: u32) -> i32 {
    i32::try_from(status).unwrap_or(255)
}

/// A protobuf time; `None` if it is out of range or unset.
pub(super) fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    if time.seconds <= 0 {
        return None;
    }
    Timestamp::new(time.seconds, time.nanos).ok()
}

impl Inner {
    /// The task of a container; `None` if it has none.
    pub(super) async fn task(&self, id: &str) -> Result<Option<Task>> {
        let request = GetRequest { container_id: id.to_string(), exec_id: String::new() };
        match self.containerd.tasks().get(request).await {
            Ok(response) => Ok(response.into_inner().process.map(Task::from_process)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(RuntimeError::from_status(format!("get task {id}"), &status)),
        }
    }

    /// All tasks.
    pub(super) async fn tasks(&self) -> Result<Vec<Task>> {
        let response =
            self.containerd.tasks().list(ListTasksRequest { filter: String::new() }).await;
        let response =
            response.map_err(|status| RuntimeError::from_status("list tasks", &status))?;
        Ok(response.into_inner().tasks.into_iter().map(Task::from_process).collect())
    }

    /// Sends a signal to a task. Returns false if it has exited.
    pub(super) async fn signal_task(&self, id: &str, signal: u32, all: bool) -> Result<bool> {
        let request =
            KillRequest { container_id: id.to_string(), exec_id: String::new(), signal, all };
        match self.containerd.tasks().kill(request).await {
            Ok(_) => Ok(true),
            Err(status) if is_gone(&status) => Ok(false),
            Err(status) => Err(RuntimeError::from_status(format!("kill task {id}"), &status)),
        }
    }

    /// Kills a task if it is running, waits for its exit and deletes it. It need not exist.
    pub(super) async fn delete_task(&self, id: &str, pod_uid: &str) -> Result<()> {
        let Some(task) = self.task(id).await? else {
            return Ok(());
        };
        if !matches!(task.state, TaskState::Stopped { .. })
            && self.signal_task(id, SIGKILL, true).await?
        {
            self.wait_task(id).await?;
        }
        self.delete_stopped_task(id, pod_uid).await
    }

    /// Deletes a task that has exited; the shim exits with its last one.
    pub(super) async fn delete_stopped_task(&self, id: &str, pod_uid: &str) -> Result<()> {
        let lock = self.pod_lock(pod_uid);
        let mut has_shim = lock.write().await;
        // It exits with its last task.
        *has_shim = false;
        match self
            .containerd
            .tasks()
            .delete(DeleteTaskRequest { container_id: id.to_string() })
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Ok(()),
            Err(status) => Err(RuntimeError::from_status(format!("delete task {id}"), &status)),
        }
    }

    async fn wait_task(&self, id: &str) -> Result<()> {
        let request = WaitRequest { container_id: id.to_string(), exec_id: String::new() };
        let mut tasks = self.containerd.tasks();
        match tokio::time::timeout(KILL_TIMEOUT, tasks.wait(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if is_gone(&status) => Ok(()),
            Ok(Err(status)) => {
                Err(RuntimeError::from_status(format!("wait for task {id}"), &status))
            }
            Err(_) => Err(RuntimeError::Containerd {
                operation: format!("kill task {id}"),
                message: format!("still running {KILL_TIMEOUT:?} after SIGKILL"),
                code: Code::DeadlineExceeded,
            }),
        }
    }
}

/// Whether a call reached a shim that was just exiting with its last task.
pub(super) fn is_dying_shim(status: &tonic::Status) -> bool {
    let message = status.message();
    ["ttrpc: closed", "ttrpc: client shutting down", "connection refused"]
        .iter()
        .any(|text| message.contains(text))
}

/// containerd's several ways of saying that a process has exited.
pub(super) fn is_gone(status: &tonic::Status) -> bool {
    let message = status.message();
    status.code() == Code::NotFound
        || message.contains("process already finished")
        || message.contains("no such process")
        || is_dying_shim(status)
}
