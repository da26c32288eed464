//! Start, signal, update and delete.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, SystemClock};
use containerd_client::services::v1::{
    Container, CreateTaskRequest, StartRequest, UpdateTaskRequest,
};
use jiff::Timestamp;
use prost_types::Any;
use tonic::{Code, Status};

use super::list::record_of;
use super::record::{self, Identity, Record, exit_to_label};
use super::spec::linux_resources;
use super::status::{ContainerExit, ExitReason};
use super::stdio::read_waiting_fifos;
use super::task::{TaskState, is_dying_shim, is_gone};
use super::user_namespace::{self, UserNamespace};
use super::{ContainerId, Inner, Result, Runtime, RuntimeError, is_unreachable};
use crate::cgroup::Resources;

const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// Exit code of a container whose process could not be started.
const EXIT_CODE_START_ERROR: i32 = 128;
/// Upstream's default timeout for a call to the container runtime.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A create that takes longer may have reached a shim that will never answer.
const LOOK_FOR_STUCK_SHIMS: Duration = Duration::from_secs(1);
/// Pauses before creating a task again: ten seconds in all.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(5200);
/// Once the pauses are this long, containerd has cleaned up what it can.
const UNDONE_BY: Duration = Duration::from_millis(300);

impl Runtime {
    /// Starts a created container and returns its process id. It may be running already.
    ///
    /// Fails with [`RuntimeError::Start`] if its command cannot be executed; the container is then
    /// `Exited` with code 128 and reason `StartError`.
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
                message: "it has already exited".to_string(),
            });
        }
        // Before the call: a short-lived process may have exited when it returns.
        let started_at = SystemClock.now();
        let pid = match inner.task(&id.0).await?.map(|task| (task.state, task.pid)) {
            Some((TaskState::Running, pid)) => return Ok(pid),
            Some((TaskState::Stopped { .. }, _)) => {
                return Err(RuntimeError::Start {
                    id: id.to_string(),
                    message: "it has already exited".to_string(),
                });
            }
            Some((TaskState::Created, _)) => {
                let pod_uid = &identity.pod.uid;
                if let Some(record) = record_of(&container) {
                    inner.read_made_task(&id.0, pod_uid, &record).await?;
                }
                inner.start_task(&id.0).await
            }
            None => inner.create_and_start_task(&container, &identity.pod.uid).await,
        };
        match pid {
            Ok(pid) => {
                inner.note_start(id.clone(), started_at);
                Ok(pid)
            }
            Err(error @ RuntimeError::Start { .. }) => {
                inner.note_start_failure(id, &identity.pod.uid, &error).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to the container's first process (`all`: to every process). It may be gone
    /// already.
    pub async fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
        let number = u32::try_from(signal).map_err(|_| RuntimeError::InvalidConfig {
            message: format!("{signal} is not a signal number"),
        })?;
        self.inner.signal_task(&id.0, number, all).await?;
        Ok(())
    }

    /// Deletes a container with its root file system and logs, killing it first if it is running.
    /// It may be gone already.
    pub async fn delete(&self, id: &ContainerId) -> Result<()> {
        let Some(container) = self.inner.record(&id.0).await? else {
            return self.inner.remove_snapshot(&id.0).await;
        };
        let pod_uid = container.labels.get(record::POD_UID).cloned().unwrap_or_default();
        self.inner.remove_container(&id.0, &pod_uid).await?;
        if let Some(record) = record_of(&container) {
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
        let mut limits = linux_resources(resources);
        // They do not change, and the machine may not have them.
        limits.set_hugepage_limits(None);
        let value = serde_json::to_vec(&limits).expect("numbers can be written as JSON");
        let request = UpdateTaskRequest {
            container_id: id.0.clone(),
            resources: Some(Any { type_url: RESOURCES_TYPE.to_string(), value }),
            ..UpdateTaskRequest::default()
        };
        match self.inner.containerd.tasks().update(request).await {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Err(RuntimeError::NotRunning { id: id.to_string() }),
            Err(status) => {
                Err(RuntimeError::from_status(format!("update container {id}"), &status))
            }
        }
    }
}

impl Inner {
    async fn create_and_start_task(&self, container: &Container, pod_uid: &str) -> Result<u32> {
        let id = container.id.as_str();
        let record =
            record_of(container).ok_or_else(|| RuntimeError::NotFound { id: id.to_string() })?;
        let rootfs = self.snapshot_mounts(&container.snapshot_key).await?;
        let paths = self.pod_paths(pod_uid);
        let map = move || match UserNamespace::of(&paths)? {
            Some(namespace) => user_namespace::rootfs(&paths, &namespace, rootfs),
            None => Ok(rootfs),
        };
        let rootfs = tokio::task::spawn_blocking(map).await.expect("mounting does not panic")?;
        let mut pause = RETRY_MIN;
        loop {
            // An aborted start that waits for a reader of its FIFOs would never be cleaned up.
            let _released = read_waiting_fifos(&self.pod_paths(pod_uid).streams(id));
            let stdio = self.prepare_stdio(id, pod_uid, &record).await?;
            let request = CreateTaskRequest {
                container_id: id.to_string(),
                rootfs: rootfs.clone(),
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                terminal: record.tty,
                ..CreateTaskRequest::default()
            };
            let made = match self.create_task(request, pod_uid).await {
                Err(status) if status.code() == Code::AlreadyExists => {
                    self.read_made_task(id, pod_uid, &record).await?;
                    Ok(())
                }
                made => made,
            };
            let started = match made {
                Ok(()) => self.call_start(id).await,
                Err(status) => Err(status),
            };
            match started {
                Ok(pid) => return Ok(pid),
                // The shim was just exiting, or containerd is still cleaning up after an earlier,
                // aborted create.
                Err(status)
                    if pause < RETRY_MAX && (is_dying_shim(&status) || is_half_made(&status)) =>
                {
                    tracing::debug!(container = %id, message = status.message(), "creating a task again");
                    self.delete_stopped_task(id, pod_uid).await?;
                    if pause >= UNDONE_BY {
                        self.remove_broken_bundle(id, status.message()).await?;
                    }
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(status) => return Err(start_error(id, &status)),
            }
        }
    }

    /// Lets the log writer read the FIFOs of a task that an earlier kubelet created: its writer may
    /// be gone, or may have given way to one that reads FIFOs of ours.
    async fn read_made_task(&self, id: &str, pod_uid: &str, record: &Record) -> Result<()> {
        match self.task(id).await? {
            Some(task) if record.has_output_fifos() => {
                self.start_log_writer(id, pod_uid, record, &task.stdio)
            }
            _ => Ok(()),
        }
    }

    async fn create_task(
        &self,
        request: CreateTaskRequest,
        pod_uid: &str,
    ) -> std::result::Result<(), Status> {
        let mut tasks = self.containerd.tasks();
        let look_for_stuck_shims = async {
            loop {
                tokio::time::sleep(LOOK_FOR_STUCK_SHIMS).await;
                self.kill_stuck_shims().await;
            }
        };
        let create = async {
            let created = tokio::select! {
                created = tokio::time::timeout(CALL_TIMEOUT, tasks.create(request)) => created,
                () = look_for_stuck_shims => unreachable!("the loop does not end"),
            };
            let late = |_| Status::deadline_exceeded(format!("no answer in {CALL_TIMEOUT:?}"));
            created.map_err(late)?.map(|_| ())
        };
        self.with_shim(pod_uid, create).await
    }

    async fn start_task(&self, id: &str) -> Result<u32> {
        let started = self.call_start(id).await;
        started.map_err(|status| start_error(id, &status))
    }

    async fn call_start(&self, id: &str) -> std::result::Result<u32, Status> {
        let request = StartRequest { container_id: id.to_string(), exec_id: String::new() };
        let mut tasks = self.containerd.tasks();
        match tokio::time::timeout(CALL_TIMEOUT, tasks.start(request)).await {
            Ok(started) => Ok(started?.into_inner().pid),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer in {CALL_TIMEOUT:?}"))),
        }
    }

    /// Records when a container was started, in the background.
    fn note_start(self: &Arc<Self>, id: ContainerId, started_at: Timestamp) {
        let inner = self.clone();
        tokio::spawn(async move {
            if let Err(error) =
                inner.set_label(&id.0, record::STARTED_AT, started_at.to_string()).await
            {
                tracing::warn!(container = %id, %error, "cannot record the container's start time");
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
            // It never ran; upstream shows the beginning of Unix time.
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: SystemClock.now(),
            reason: ExitReason::StartError,
            message: error.to_string(),
        };
        self.set_label(&id.0, record::EXIT, exit_to_label(&exit)).await?;
        self.delete_task(&id.0, pod_uid).await?;
        self.remove_streams(&id.0, pod_uid).await
    }

    /// Removes a container with its task, streams and snapshot. It may be gone already.
    pub(super) async fn remove_container(&self, id: &str, pod_uid: &str) -> Result<()> {
        self.delete_task(id, pod_uid).await?;
        self.delete_record(id).await?;
        self.remove_snapshot(id).await?;
        self.remove_streams(id, pod_uid).await?;
        let (paths, container) = (self.pod_paths(pod_uid), id.to_owned());
        let forget = move || user_namespace::forget(&paths, &container);
        tokio::task::spawn_blocking(forget).await.expect("unmounting does not panic")?;
        self.pod_of.lock().remove(id);
        Ok(())
    }
}

/// Maps a failed create or start. Only an error of the OCI runtime itself is the container's fault;
/// all else may be tried again.
fn start_error(id: &str, status: &Status) -> RuntimeError {
    if is_unreachable(status) || is_half_made(status) || !status.message().contains("OCI runtime") {
        return RuntimeError::from_status(format!("start container {id}"), status);
    }
    RuntimeError::Start { id: id.to_string(), message: status.message().to_string() }
}

/// Whether something of an incomplete task is still there: its directory, or the OCI runtime's
/// record.
fn is_half_made(status: &Status) -> bool {
    let message = status.message();
    // The third: containerd has just removed the directory that this one was using. The last:
    // containerd, restarted, has found the shim of a task that it was killed while creating.
    [
        "failed to start shim",
        "given ID already exists",
        "unable to retrieve OCI runtime error",
        "container not created",
    ]
    .iter()
    .any(|text| message.contains(text))
}
