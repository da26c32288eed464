//! Creating containers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_client::services::v1::container::Runtime as OciRuntime;
use containerd_client::services::v1::{Container, CreateContainerRequest, DeleteContainerRequest};
use containerd_client::types::Mount;
use oci_spec::runtime::Spec;
use prost::Message;
use prost_types::Any;
use tonic::Code;

use super::id::container_id;
use super::record::{EXTENSION, Identity, Record};
use super::signal::signal_number;
use super::spec::{self, SpecInput};
use super::{
    ContainerConfig, ContainerId, ContainerState, Inner, PodRef, PodSandbox, Result, Runtime,
    RuntimeError, user_namespace,
};
use crate::image::{Contents, ImageError};

/// containerd's type name for an OCI runtime specification.
pub(super) const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const SHIM: &str = "io.containerd.runc.v2";
const DEFAULT_RUNTIME: &str = "runc";
const SIGTERM: i32 = 15;

/// `containerd.runc.v1.Options`, as far as we set it: which OCI runtime the shim executes.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

impl Runtime {
    /// Creates the root file system of a future container, while volumes and network are still
    /// being set up. Optional: [`Runtime::create`] does it otherwise.
    pub async fn prepare_rootfs(
        &self,
        pod: &PodRef,
        name: &str,
        attempt: u32,
        image: &str,
    ) -> Result<()> {
        let id = container_id(&pod.uid, name, attempt);
        let contents = self.inner.image_contents(image).await?;
        self.inner.ensure_snapshot(&id.0, &contents).await?;
        Ok(())
    }

    /// Creates a container. A container with the same (pod, name, attempt) that was never started
    /// is replaced; one that was started is kept, and its id is returned.
    pub async fn create(&self, pod: &PodSandbox, config: &ContainerConfig) -> Result<ContainerId> {
        let id = container_id(&pod.config.pod.uid, &config.name, config.attempt);
        let contents = self.inner.image_contents(&config.image).await?;
        let mounts = self.inner.ensure_snapshot(&id.0, &contents).await?;
        let pidns = match &config.process_target {
            Some(target) => Some(self.pid_namespace(&pod.config.pod, target).await?),
            None => None,
        };
        let config = self.inner.mapped(&id, pod, config).await?;
        let container =
            self.inner.describe(&id, pod, &config, &contents, &mounts, pidns.as_deref()).await?;
        self.inner.remember(&id, &pod.config.pod.uid);
        match self.inner.create_record(container.clone()).await {
            Ok(()) => return Ok(id),
            Err(error) if error.code() == Some(Code::AlreadyExists) => {}
            Err(error) => return Err(error),
        }
        if !matches!(self.status(&id).await?.state, ContainerState::Created) {
            return Ok(id);
        }
        self.inner.delete_task(&id.0, &pod.config.pod.uid).await?;
        self.inner.delete_record(&id.0).await?;
        self.inner.create_record(container).await?;
        Ok(id)
    }

    /// The path of the PID namespace of a running container of the pod.
    async fn pid_namespace(&self, pod: &PodRef, container: &str) -> Result<PathBuf> {
        let running = self.list_pod(&pod.uid).await?.into_iter().find_map(|one| match one.state {
            ContainerState::Running { pid, .. } if one.name == container => Some(pid),
            _ => None,
        });
        let pid = running.ok_or_else(|| RuntimeError::InvalidConfig {
            message: format!("target container {container:?} is not running"),
        })?;
        Ok(PathBuf::from(format!("/proc/{pid}/ns/pid")))
    }
}

impl Inner {
    /// The configuration with what the pod's user namespace, if it has one, can see.
    async fn mapped<'a>(
        &self,
        id: &ContainerId,
        pod: &PodSandbox,
        config: &'a ContainerConfig,
    ) -> Result<Cow<'a, ContainerConfig>> {
        let Some(namespace) = pod.user_namespace.clone() else {
            return Ok(Cow::Borrowed(config));
        };
        let paths = self.pod_paths(&pod.config.pod.uid);
        let (id, mut config) = (id.0.clone(), config.clone());
        let work = move || {
            user_namespace::mounts(&paths, &namespace, &id, &mut config.mounts)?;
            Ok(Cow::Owned(config))
        };
        tokio::task::spawn_blocking(work).await.expect("mounting does not panic")
    }

    /// The contents of an image on this node.
    pub(super) async fn image_contents(&self, image: &str) -> Result<Arc<Contents>> {
        match self.images.find(image).await {
            Ok(Some(stored)) => Ok(stored.contents),
            Ok(None) => Err(RuntimeError::ImageMissing { image: image.to_string() }),
            Err(ImageError::Unavailable { message }) => Err(RuntimeError::Unavailable { message }),
            Err(error) => Err(RuntimeError::InvalidConfig { message: error.to_string() }),
        }
    }

    /// Builds containerd's record of a container: specification, labels, our own record.
    async fn describe(
        &self,
        id: &ContainerId,
        pod: &PodSandbox,
        config: &ContainerConfig,
        contents: &Contents,
        mounts: &[Mount],
        pidns: Option<&Path>,
    ) -> Result<Container> {
        let image = &contents.config;
        let accounts = super::rootfs::read_accounts(mounts).await;
        let user = spec::resolve_user(&config.security, &image.user, &accounts)?;
        spec::apply_user_policy(&config.security, &image.user, &user)?;
        let cgroup = pod.config.cgroup.child(&id.0);
        let spec = spec::build(SpecInput {
            sandbox: pod,
            config,
            image,
            user: &user,
            cgroup: &cgroup,
            machine: &self.machine,
            pidns,
        })?;
        let stop_signal = [config.stop_signal.as_deref(), Some(image.stop_signal.as_str())];
        let asked = match config.image_name.as_str() {
            "" => &config.image,
            _ => &config.image_name,
        };
        let record = Record {
            spec_hash: config.spec_hash.clone(),
            image: asked.clone(),
            image_id: contents.id.clone(),
            image_ref: self.image_ref(asked, contents).await?,
            annotations: config.annotations.clone(),
            log_path: config.log_path.clone(),
            cgroup: cgroup.to_string(),
            user,
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            stop_signal: stop_signal
                .into_iter()
                .flatten()
                .find_map(signal_number)
                .unwrap_or(SIGTERM),
        };
        let identity = Identity {
            pod: pod.config.pod.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
        };
        self.container_record(
            &id.0,
            &spec,
            identity.to_labels(),
            Some(&record),
            &pod.config.runtime_handler,
            &config.image,
        )
    }

    /// A container for containerd. Without a record it has no snapshot (its root is in its spec).
    pub(super) fn container_record(
        &self,
        id: &str,
        spec: &Spec,
        labels: HashMap<String, String>,
        record: Option<&Record>,
        runtime_handler: &str,
        image: &str,
    ) -> Result<Container> {
        let json =
            |error: serde_json::Error| RuntimeError::InvalidConfig { message: error.to_string() };
        let mut extensions = HashMap::new();
        if let Some(record) = record {
            let value = serde_json::to_vec(record).map_err(json)?;
            extensions
                .insert(EXTENSION.to_string(), Any { type_url: EXTENSION.to_string(), value });
        }
        let handler = if runtime_handler.is_empty() { DEFAULT_RUNTIME } else { runtime_handler };
        let options = RuncOptions { binary_name: handler.to_string() }.encode_to_vec();
        Ok(Container {
            id: id.to_string(),
            labels,
            image: image.to_string(),
            runtime: Some(OciRuntime {
                name: SHIM.to_string(),
                options: Some(Any {
                    type_url: "containerd.runc.v1.Options".to_string(),
                    value: options,
                }),
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_string(),
                value: serde_json::to_vec(spec).map_err(json)?,
            }),
            snapshotter: if record.is_some() {
                self.config.snapshotter.clone()
            } else {
                String::new()
            },
            snapshot_key: if record.is_some() { id.to_string() } else { String::new() },
            extensions,
            ..Container::default()
        })
    }

    /// The `imageID` of the pod's status: a name with the digest if the store has one, else the id.
    async fn image_ref(&self, image: &str, contents: &Contents) -> Result<String> {
        let found = self.images.image_ref(image, contents).await;
        found.map_err(|error| RuntimeError::InvalidConfig { message: error.to_string() })
    }

    pub(super) async fn create_record(&self, container: Container) -> Result<()> {
        let id = container.id.clone();
        let response = self
            .containerd
            .containers()
            .create(CreateContainerRequest { container: Some(container) })
            .await;
        response.map_err(|status| {
            RuntimeError::from_status(format!("create container {id}"), &status)
        })?;
        Ok(())
    }

    /// Deletes containerd's record of a container. It may be gone already.
    pub(super) async fn delete_record(&self, id: &str) -> Result<()> {
        match self
            .containerd
            .containers()
            .delete(DeleteContainerRequest { id: id.to_string() })
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => {
                Err(RuntimeError::from_status(format!("delete container {id}"), &status))
            }
        }
    }
}
