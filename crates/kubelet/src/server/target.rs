//! Resolves the container that a call names.

use k8s_openapi::api::core::v1::Pod;
use rpc::kubelet_v1::ContainerRef;
use tonic::Status;

use super::service::Service;
use crate::containers::{ContainerState, ContainerStatus, RuntimeError};
use crate::pod::declared::declared;
use crate::pod::manager::ManagedPod;
use crate::pod::pod_ext::PodExt;

/// Annotation that names the container to use if a call names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

impl Service {
    pub(super) fn pod(&self, namespace: &str, name: &str, uid: &str) -> Result<ManagedPod, Status> {
        let found = self.pods.find(namespace, name, uid);
        found.ok_or_else(|| Status::not_found(format!("pod \"{name}\" not found")))
    }

    /// The attempts of the container, oldest first; none if it has not been created yet.
    pub(super) async fn attempts(
        &self,
        container: &ContainerRef,
    ) -> Result<(ManagedPod, String, Vec<ContainerStatus>), Status> {
        let known = self.pod(&container.namespace, &container.pod, &container.uid)?;
        let name = container_name(&known.pod, &container.container)?;
        let listed = self.context.runtime.list_pod(known.pod.uid()).await;
        let mut attempts = listed.map_err(|error| status(&error))?;
        attempts.retain(|one| one.name == name);
        attempts.sort_by_key(|one| one.attempt);
        Ok((known, name, attempts))
    }

    /// The running container.
    pub(super) async fn running(
        &self,
        container: Option<ContainerRef>,
    ) -> Result<ContainerStatus, Status> {
        let container =
            container.ok_or_else(|| Status::invalid_argument("container is missing"))?;
        let (_, name, mut attempts) = self.attempts(&container).await?;
        let latest = attempts.pop();
        latest
            .filter(|one| matches!(one.state, ContainerState::Running { .. }))
            .ok_or_else(|| Status::not_found(format!("container not found (\"{name}\")")))
    }
}

/// The named container, or the default one, or the only one.
fn container_name(pod: &Pod, name: &str) -> Result<String, Status> {
    let declared = declared(pod);
    let annotated = pod.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CONTAINER));
    let name = match (name, annotated) {
        ("", Some(name)) => name.as_str(),
        ("", None) => pod.spec_ref().containers.first().map_or("", |first| first.name.as_str()),
        (name, _) => name,
    };
    if declared.iter().any(|one| one.name() == name) {
        Ok(name.to_owned())
    } else {
        Err(Status::not_found(format!("container {name} is not valid for pod {}", pod.pod_name())))
    }
}

/// Maps a runtime error to a gRPC status.
pub(super) fn status(error: &RuntimeError) -> Status {
    let text = error.to_string();
    match error {
        RuntimeError::Unavailable { .. } => Status::unavailable(text),
        RuntimeError::NotFound { .. } => Status::not_found(text),
        RuntimeError::NotRunning { .. } => Status::failed_precondition(text),
        RuntimeError::InvalidConfig { .. } | RuntimeError::Exec { .. } => {
            Status::invalid_argument(text)
        }
        _ => Status::internal(text),
    }
}
