//! Executes the actions of a plan. Each is a future that owns what it needs and resolves to an
//! [`Outcome`]; all are idempotent.

mod image;
mod image_volume;
mod sandbox;
mod start;

use std::sync::Arc;

use client::{Api, DeleteOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::admission::Rejection;
use super::backoff::{Backoff, Policy};
use super::context::Context;
use super::declared::find;
use super::pod_ext::PodExt;
use super::worker::handle::WorkerHandle;
use super::worker::state::{Failure, ReadySandbox, Work};
use super::{container_config, files, resources};
use crate::containers::ContainerId;
use crate::volume::MountedVolumes;
use runtime::errors::cause_chain;

pub use image::INSPECT_ERROR;
pub use start::StartRequest;

/// A reason and a message, for a waiting state or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: String,
    pub message: String,
}

impl Problem {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// How an action ended.
#[derive(Debug)]
pub enum Outcome {
    /// Why the pod is rejected, if it is.
    Devices(Result<(), Rejection>),
    Sandbox(Result<Box<ReadySandbox>, Problem>),
    Volumes(Result<MountedVolumes, Problem>),
    Image {
        container: String,
        attempt: u32,
        /// The image's id, or the name of the image that failed: its own, or that of a volume.
        result: Result<String, (String, Problem)>,
    },
    Start {
        container: String,
        restart: Option<Backoff>,
        result: Result<(), Problem>,
    },
    Resized {
        id: ContainerId,
        fingerprint: String,
        result: Result<(), Problem>,
    },
    Removed(ContainerId),
    TornDown(Result<(), Problem>),
    PodRemoved(Result<(), Problem>),
    ObjectDeleted(Result<(), Problem>),
    StatusWritten(super::status::Written),
    Stopped(ContainerId),
}

impl Outcome {
    /// The work that this finishes.
    pub fn work(&self) -> Option<Work> {
        Some(match self {
            Self::Devices(_) => Work::Devices,
            Self::Sandbox(_) => Work::Sandbox,
            Self::Volumes(_) => Work::Volumes,
            Self::Image { container, .. } => Work::Image(container.clone()),
            Self::Start { container, .. } => Work::Start(container.clone()),
            Self::Resized { id, .. } => Work::Resize(id.clone()),
            Self::Removed(id) => Work::Remove(id.clone()),
            Self::TornDown(_) => Work::TearDown,
            Self::PodRemoved(_) => Work::RemovePod,
            Self::ObjectDeleted(_) => Work::DeleteObject,
            Self::StatusWritten(_) | Self::Stopped(_) => return None,
        })
    }
}

/// Actions on one pod.
#[derive(Clone)]
pub struct PodActions {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    pub worker: Arc<WorkerHandle>,
}

impl PodActions {
    pub async fn allocate_devices(self) -> Outcome {
        let allocated = self.context.devices.allocate(&self.pod).await;
        Outcome::Devices(allocated.map_err(|error| Rejection::without_devices(&error)))
    }

    pub async fn sync_volumes(self, sandbox: Option<ReadySandbox>) -> Outcome {
        let runtime_fields =
            container_config::runtime_fields(&self.context, &self.pod, sandbox.as_ref());
        let synced = self.context.volumes.sync(&self.pod, &runtime_fields, &self.worker).await;
        Outcome::Volumes(synced.map_err(|error| Problem::new("FailedMount", cause_chain(&error))))
    }

    pub async fn remove_container(self, id: ContainerId) -> Outcome {
        if let Err(error) = self.context.runtime.delete(&id).await {
            tracing::warn!(%error, container = %id, "cannot remove an exited container");
        }
        Outcome::Removed(id)
    }

    pub async fn resize(self, container: String, id: ContainerId) -> Outcome {
        let declared = find(&self.pod, &container);
        let Some(declared) = declared else {
            return Outcome::Resized { id, fingerprint: String::new(), result: Ok(()) };
        };
        let limits = resources::container_cgroup(&self.pod, &declared.container);
        let pod_limits = resources::pod_cgroup(&self.pod);
        let path = self.context.cgroups.pod_path(super::qos::qos_class(&self.pod), self.pod.uid());
        let cgroups = self.context.cgroups.clone();
        let of_pod = tokio::task::spawn_blocking(move || cgroups.update(&path, &pod_limits)).await;
        let updated = self.context.runtime.update(&id, &limits).await;
        let result = match (of_pod, updated) {
            (Ok(Err(error)), _) => Err(Problem::new("Failed", error.to_string())),
            (_, Err(error)) => Err(Problem::new("Failed", error.to_string())),
            _ => Ok(()),
        };
        Outcome::Resized { id, fingerprint: resources::fingerprint(&declared.container), result }
    }

    /// Tears down network and volumes, and frees the devices.
    pub async fn tear_down(self) -> Outcome {
        let uid = self.pod.uid().to_owned();
        let addressed = self.pod.status_ref().pod_ip.is_some() && !self.pod.host_network();
        let network = async {
            match self.context.network() {
                Some(network) => {
                    let down = network.teardown(&uid).await;
                    down.map_err(|error| cause_chain(&error))
                }
                None if addressed => Err("the pod network is not open yet".to_owned()),
                None => Ok(()),
            }
        };
        let volumes = async {
            let down = self.context.volumes.tear_down(&uid).await;
            down.map_err(|error| cause_chain(&error))
        };
        let (network, volumes) = tokio::join!(network, volumes);
        self.context.objects.release(&self.worker);
        let devices = || self.context.devices.release(&uid).map_err(|error| error.to_string());
        let result = network.and(volumes).and_then(|()| devices());
        Outcome::TornDown(result.map_err(|message| Problem::new("FailedKillPod", message)))
    }

    /// Removes the containers, the logs and the pod's directory.
    pub async fn remove_pod(self) -> Outcome {
        let removed = remove_remains(&self.context, self.pod.uid()).await;
        let result = match removed {
            Ok(()) => remove_logs(&self.context, &self.pod).await,
            Err(error) => Err(error),
        };
        Outcome::PodRemoved(result.map_err(|message| Problem::new("FailedKillPod", message)))
    }

    pub async fn delete_object(self) -> Outcome {
        let pods: Api<Pod> = Api::namespaced(&self.context.client, self.pod.pod_namespace());
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            precondition_uid: Some(self.pod.uid().to_owned()),
            ..Default::default()
        };
        let result = match pods.delete(self.pod.pod_name(), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                Err(Problem::new("FailedDelete", error.to_string()))
            }
            _ => Ok(()),
        };
        Outcome::ObjectDeleted(result)
    }
}

/// Removes the containers, namespaces, cgroup and files of a pod.
pub async fn remove_remains(context: &Context, uid: &str) -> Result<(), String> {
    let gone = context.runtime.remove_pod(uid).await;
    gone.map_err(|error| cause_chain(&error))?;
    let directory = context.directories.pod(uid);
    run_blocking(move || {
        crate::volume::mount::unmount_all(&directory).map_err(|error| error.to_string())?;
        files::remove_directory(&directory).map_err(|error| error.to_string())
    })
    .await
}

async fn remove_logs(context: &Context, pod: &Pod) -> Result<(), String> {
    let directory = crate::logs::pod_log_directory(&context.directories.logs(), &pod.pod_ref());
    run_blocking(move || files::remove_directory(&directory).map_err(|error| error.to_string()))
        .await
}

async fn run_blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(error.to_string()),
    }
}

/// The failure with its back-off, at `now`.
pub(super) fn after(
    previous: Option<&Failure>,
    problem: Problem,
    policy: Policy,
    now: Timestamp,
) -> Failure {
    Failure {
        reason: problem.reason,
        message: problem.message,
        backoff: Backoff::next(previous.map(|failure| failure.backoff), policy, now),
    }
}
