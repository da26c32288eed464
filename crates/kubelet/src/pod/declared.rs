//! The containers that a pod declares, of all roles, in one list.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use sha2::{Digest, Sha256};

use super::pod_ext::{PodExt, RestartPolicy};

/// The role of a container in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then keeps running.
    Sidecar,
    App,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// One declared container.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub role: Role,
    pub container: Container,
    /// `targetContainerName` of an ephemeral container.
    pub target: Option<String>,
}

impl Declared {
    pub fn name(&self) -> &str {
        &self.container.name
    }

    pub fn image(&self) -> &str {
        self.container.image.as_deref().unwrap_or_default()
    }

    /// The pod's policy, unless the container's role or its own `restartPolicy` says otherwise.
    pub fn restart_policy(&self, pod: &Pod) -> RestartPolicy {
        match self.role {
            Role::Sidecar => RestartPolicy::Always,
            Role::Ephemeral => RestartPolicy::Never,
            // An init container that succeeded is done; a failed one is retried unless Never.
            Role::Init => match self.container.restart_policy.as_deref() {
                Some(own) => RestartPolicy::parse(Some(own)),
                None if pod.restart_policy() == RestartPolicy::Never => RestartPolicy::Never,
                None => RestartPolicy::OnFailure,
            },
            Role::App => match self.container.restart_policy.as_deref() {
                Some(own) => RestartPolicy::parse(Some(own)),
                None => pod.restart_policy(),
            },
        }
    }

    /// Changes when a running container must be replaced, because its image has changed.
    pub fn spec_hash(&self) -> String {
        let digest = Sha256::digest(format!("{}\n{}", self.name(), self.image()));
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// `spec.containers{name}`, as in the field path of events.
    pub fn field_path(&self) -> String {
        let list = match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::App => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }
}

/// Every container of the pod: init containers and sidecars in order, then the others.
pub fn declared(pod: &Pod) -> Vec<Declared> {
    let spec = pod.spec_ref();
    let init = spec.init_containers.iter().flatten().map(|container| Declared {
        role: if container.restart_policy.as_deref() == Some("Always") {
            Role::Sidecar
        } else {
            Role::Init
        },
        container: container.clone(),
        target: None,
    });
    let app = spec.containers.iter().map(|container| Declared {
        role: Role::App,
        container: container.clone(),
        target: None,
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| Declared {
        role: Role::Ephemeral,
        container: from_ephemeral(container),
        target: container.target_container_name.clone(),
    });
    init.chain(app).chain(ephemeral).collect()
}

/// The declared container of that name.
pub fn find(pod: &Pod, name: &str) -> Option<Declared> {
    declared(pod).into_iter().find(|one| one.name() == name)
}

fn from_ephemeral(from: &EphemeralContainer) -> Container {
    let from = from.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        name: from.name,
        resources: from.resources,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
        ..Default::default()
    }
}
