//! From a declared container to its configuration for the container layer, with everything
//! resolved.

mod environment;
pub mod expansion;
mod security_context;

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, VolumeMount};

use super::context::Context;
use super::declared::Declared;
use super::downward_api::RuntimeFields;
use super::files::{self, SharedFiles};
use super::pod_ext::PodExt;
use super::resources;
use super::worker::handle::WorkerHandle;
use super::worker::state::ReadySandbox;
use crate::containers::{ContainerConfig, Device, Mount, MountPropagation};
use crate::devices::{DeviceError, Injection};
use crate::logs::container_log_path;
use crate::volume::{MountedVolumes, VolumeError, sub_path};
use environment::{EnvironmentError, Sources, environment, references};
use expansion::{expand, expand_reporting};

/// Annotation: the sandbox that a container was created for.
pub const SANDBOX_ANNOTATION: &str = "skiff.dev/sandbox";

/// Why a container cannot be created (`CreateContainerConfigError`).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error("services have not yet been read at least once, cannot construct envvars")]
    NoServices,
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("volume {0:?} is not mounted")]
    NoVolume(String),
    #[error(
        "failed to prepare subPath for volumeMount {volume:?} of container {container:?}: {source}"
    )]
    SubPath {
        volume: String,
        container: String,
        #[source]
        source: VolumeError,
    },
    #[error("missing value for {0:?} in subPathExpr")]
    SubPathVariable(String),
    #[error("{operation}: {source}")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// Everything needed to start a container.
pub struct Start<'a> {
    pub context: &'a Context,
    pub pod: &'a Pod,
    pub declared: &'a Declared,
    pub attempt: u32,
    pub sandbox: &'a ReadySandbox,
    pub volumes: &'a MountedVolumes,
    pub image_id: &'a str,
    pub worker: &'a Arc<WorkerHandle>,
}

/// The runtime fields of a pod, for its containers and volumes.
pub fn runtime_fields(
    context: &Context,
    pod: &Pod,
    sandbox: Option<&ReadySandbox>,
) -> RuntimeFields {
    // A container without a limit can use what the pod or else the node allows.
    let mut allocatable = context.node.allocatable.clone();
    for (name, amount) in &mut allocatable {
        let limit = resources::limit(pod.spec_ref().resources.as_ref(), name);
        *amount = limit.map_or(*amount, |limit| limit.min(*amount));
    }
    RuntimeFields {
        pod_ips: sandbox.map(|sandbox| sandbox.ips.clone()).unwrap_or_default(),
        host_ips: context.node.ips.clone(),
        allocatable,
    }
}

/// Resolves everything and creates the files that the container needs.
pub async fn container_config(
    start: &Start<'_>,
    shared: &SharedFiles,
) -> Result<ContainerConfig, ConfigError> {
    let container = &start.declared.container;
    let (context, pod) = (start.context, start.pod);
    let Injection { mut env, mounts, mut devices, annotations } =
        context.devices.prepare(pod, &container.name).await?;
    devices.extend(volume_devices(start)?);
    // The pod's own variables come later, and so replace those of the devices.
    env.extend(environment(pod, container, &sources(start).await?)?);
    let lookup = |name: &str| {
        env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let directory = context.directories.container(pod.uid(), container.name.as_str());
    let io = |operation| move |source| ConfigError::Io { operation, source };
    let message_file = files::make_message_file(&directory, start.attempt)
        .map_err(io("create the termination message file"))?;
    let mut mounts = volume_mounts(start, &directory, lookup, mounts)?;
    let message_path =
        container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push(file_mount(&message_file, message_path, false));
    for (file, path) in [
        (&shared.hosts, "/etc/hosts"),
        (&shared.resolv_conf, "/etc/resolv.conf"),
        (&shared.hostname, "/etc/hostname"),
    ] {
        if !mounts.iter().any(|mount| mount.container_path == path) {
            mounts.push(file_mount(file, path, false));
        }
    }
    let seccomp = context.directories.root().join("seccomp");
    let fingerprint = resources::fingerprint(container);
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: start.attempt,
        spec_hash: start.declared.spec_hash(),
        image: start.image_id.to_owned(),
        image_name: start.declared.image().to_owned(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        env: env.clone(),
        working_dir: container.working_dir.clone().filter(|directory| !directory.is_empty()),
        mounts,
        devices,
        security: security_context::security_context(pod, container, &seccomp),
        resources: resources::container_cgroup(pod, container),
        oom_score_adj: resources::oom_score_adj(pod, container, context.node.memory_bytes),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        process_target: start.declared.target.clone().filter(|target| !target.is_empty()),
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.clone()),
        log_path: container_log_path(
            &context.directories.logs(),
            &pod.pod_ref(),
            &container.name,
            start.attempt,
        ),
        annotations: annotations
            .into_iter()
            .chain([
                (resources::ANNOTATION.to_owned(), fingerprint),
                (SANDBOX_ANNOTATION.to_owned(), start.sandbox.sandbox.id.clone()),
            ])
            .collect(),
    })
}

async fn sources(start: &Start<'_>) -> Result<Sources, ConfigError> {
    let (context, pod) = (start.context, start.pod);
    let namespace = pod.pod_namespace();
    let links = pod.spec_ref().enable_service_links.unwrap_or(true);
    let services = match pod.is_static() {
        true => Some(context.services.known_variables(namespace, links)),
        false => context.services.variables(namespace, links).await,
    };
    let mut sources = Sources {
        services: services.ok_or(ConfigError::NoServices)?,
        runtime_fields: runtime_fields(context, pod, Some(start.sandbox)),
        ..Default::default()
    };
    let wanted = references(&start.declared.container);
    for name in wanted.config_maps {
        if let Some(map) = context.objects.config_map(namespace, &name, start.worker).await? {
            sources.config_maps.insert(name, map);
        }
    }
    for name in wanted.secrets {
        if let Some(secret) = context.objects.secret(namespace, &name, start.worker).await? {
            sources.secrets.insert(name, secret);
        }
    }
    Ok(sources)
}

fn file_mount(host: &Path, container: &str, read_only: bool) -> Mount {
    Mount {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        read_only,
        ..Default::default()
    }
}

fn volume_mounts(
    start: &Start<'_>,
    directory: &Path,
    lookup: impl Fn(&str) -> Option<String> + Copy,
    of_devices: Vec<Mount>,
) -> Result<Vec<Mount>, ConfigError> {
    let mut mounts = of_devices;
    let all = start.declared.container.volume_mounts.iter().flatten();
    for (index, mount) in all.enumerate() {
        let volume = start
            .volumes
            .by_name
            .get(&mount.name)
            .ok_or_else(|| ConfigError::NoVolume(mount.name.clone()))?;
        let host_path = match sub_path_of(mount, lookup)? {
            None => volume.path.clone(),
            Some(path) => {
                let target = directory.join("subpaths").join(format!("{}-{index}", mount.name));
                sub_path::bind(&volume.path, &path, &target).map_err(|source| {
                    ConfigError::SubPath {
                        volume: mount.name.clone(),
                        container: start.declared.name().to_owned(),
                        source,
                    }
                })?
            }
        };
        let declared = start.pod.spec_ref().volumes.iter().flatten();
        let no_exec = declared.filter(|one| one.name == mount.name).any(|one| one.image.is_some());
        let read_only = volume.read_only || mount.read_only.unwrap_or(false);
        mounts.push(Mount {
            host_path,
            container_path: absolute(&mount.mount_path),
            read_only,
            no_exec,
            locked_options: Vec::new(),
            recursive_read_only: read_only
                && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::None,
            },
        });
    }
    // A mount inside another one has to come after it.
    mounts.sort_by_key(|mount| mount.container_path.matches('/').count());
    Ok(mounts)
}

/// The volumes that are block devices.
fn volume_devices(start: &Start<'_>) -> Result<Vec<Device>, ConfigError> {
    let all = start.declared.container.volume_devices.iter().flatten();
    all.map(|device| {
        let volume = start.volumes.by_name.get(&device.name);
        let volume = volume.ok_or_else(|| ConfigError::NoVolume(device.name.clone()))?;
        Ok(Device {
            host_path: volume.path.clone(),
            container_path: absolute(&device.device_path),
            permissions: if volume.read_only { "mr" } else { "mrw" }.to_owned(),
        })
    })
    .collect()
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn sub_path_of(
    mount: &VolumeMount,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, ConfigError> {
    if let Some(text) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        let (path, unknown) = expand_reporting(text, lookup);
        return match unknown.first() {
            None => Ok(Some(path)),
            Some(name) => Err(ConfigError::SubPathVariable(name.clone())),
        };
    }
    Ok(mount.sub_path.clone().filter(|path| !path.is_empty()))
}
