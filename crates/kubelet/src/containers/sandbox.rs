//! Pods: their cgroup, namespaces and shared memory.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use containerd_client::services::v1::{
    CreateNamespaceRequest, CreateTaskRequest, Namespace, StartRequest,
};
use containerd_client::types;
use oci_spec::runtime::{LinuxNamespaceType, Root, Spec};
use tonic::Code;

use super::namespaces::{self, PodPaths};
use super::record::{self, Identity};
use super::spec::{self, Machine};
use super::user_namespace::UserNamespace;
use super::{
    Containerd, Inner, PodConfig, PodRef, PodSandbox, Result, Runtime, RuntimeConfig, RuntimeError,
    pause,
};
use crate::cgroup::CgroupPath;
use crate::image::ImageStore;

/// Name of the process that holds a shared PID namespace; upper case, so that no container can have
/// it.
const PAUSE_NAME: &str = "POD";
/// User and group of that process: nobody.
const PAUSE_USER: u32 = 65535;
/// Back-off while containerd does not answer.
const CONNECT_BACKOFF_MIN: Duration = Duration::from_millis(20);
const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(1);

impl Runtime {
    /// Sets up the runtime: the root directory, containerd's namespace, and the clean-up after a
    /// crash. Waits for containerd to answer, with back-off, for as long as it takes. Only one
    /// runtime may be connected for a root directory and namespace at a time.
    pub async fn connect(config: RuntimeConfig) -> Result<Self> {
        let containerd = Containerd::new(&config.endpoint, &config.containerd_namespace)?;
        let pods = config.root_dir.join("pods");
        tokio::fs::create_dir_all(&pods).await.map_err(RuntimeError::io("create", &pods))?;
        let backoff = ExponentialBuilder::default()
            .with_min_delay(CONNECT_BACKOFF_MIN)
            .with_max_delay(CONNECT_BACKOFF_MAX)
            .without_max_times();
        (|| create_namespace(&containerd))
            .retry(backoff)
            .when(RuntimeError::is_unavailable)
            .notify(
                |error, delay| tracing::debug!(%error, ?delay, "containerd does not answer yet"),
            )
            .await?;
        let machine = Machine::read(&config.cgroups);
        let images = ImageStore::new(containerd.clone(), &config.snapshotter);
        let runtime = Runtime { inner: Arc::new(Inner::new(config, containerd, machine, images)) };
        runtime.inner.heal().await?;
        runtime.start_event_pump();
        Ok(runtime)
    }

    /// containerd's version, for the node's status; an answer also means that it is healthy.
    pub async fn version(&self) -> Result<String> {
        let response = self.inner.containerd.version().version(()).await;
        Ok(response
            .map_err(|status| RuntimeError::from_status("version", &status))?
            .into_inner()
            .version)
    }

    /// Creates (or finds) the pod's cgroup, namespaces and shared memory. What exists is kept;
    /// [`PodSandbox::created`] says whether the namespaces are new, so that the network must be set
    /// up.
    pub async fn ensure_pod(&self, config: &PodConfig) -> Result<PodSandbox> {
        let paths = self.inner.pod_paths(&config.pod.uid);
        let cgroups = self.inner.config.cgroups.clone();
        let (path, resources) = (config.cgroup.clone(), config.resources.clone());
        let cgroup = tokio::task::spawn_blocking(move || cgroups.ensure(&path, &resources));
        let (own_paths, own_config) = (paths.clone(), config.clone());
        let program = self.inner.config.logs.logger.clone();
        let made = tokio::task::spawn_blocking(move || {
            let created = namespaces::ensure(&own_paths, &own_config, &program)?;
            let shm = namespaces::ensure_shm(&own_paths, &own_config)?;
            let user = UserNamespace::of(&own_paths)?;
            Ok::<_, RuntimeError>((created, shm, namespaces::id(&own_paths)?, user))
        });
        let (cgroup, made) = tokio::join!(cgroup, made);
        cgroup.expect("creating a cgroup does not panic")?;
        let (created, shm, id, user_namespace) =
            made.expect("creating namespaces does not panic")?;
        let pinned = |kind: &str, own: bool| own.then(|| paths.namespace(kind));
        let mut sandbox = PodSandbox {
            netns: pinned("net", !config.host_network),
            utsns: pinned("uts", !config.host_uts),
            ipcns: pinned("ipc", !config.host_ipc),
            pidns: None,
            user_namespace,
            shm,
            id,
            created,
            config: config.clone(),
        };
        if config.share_process_namespace && !config.host_pid {
            sandbox.pidns = Some(self.inner.ensure_pause(&sandbox, &paths).await?);
        }
        Ok(sandbox)
    }

    /// Removes everything of a pod in this layer: containers (killing them), pins, shared memory,
    /// cgroup. Tear down the network first. Volumes and logs are up to the caller. Repeat until it
    /// succeeds.
    pub async fn remove_pod(&self, pod_uid: &str) -> Result<()> {
        let containers = self.inner.records_of_pod(pod_uid).await?;
        let removals =
            containers.iter().map(|container| self.inner.remove_container(&container.id, pod_uid));
        futures::future::try_join_all(removals).await?;
        self.inner.release_images(pod_uid).await?;
        let cgroups = self.inner.config.cgroups.clone();
        let paths = self.inner.pod_paths(pod_uid);
        let uid = pod_uid.to_string();
        let work = move || {
            for (pod, path) in cgroups.pods()? {
                if pod == uid {
                    cgroups.remove(&path)?;
                }
            }
            namespaces::remove(&paths)
        };
        tokio::task::spawn_blocking(work).await.expect("removing a pod does not panic")?;
        self.inner.forget_pod(pod_uid);
        Ok(())
    }

    /// The uids of pods that have containers, pinned namespaces or a cgroup.
    pub async fn pods(&self) -> Result<Vec<String>> {
        let cgroups = self.inner.config.cgroups.clone();
        let root = self.inner.config.root_dir.clone();
        let work = move || -> Result<BTreeSet<String>> {
            let mut pods: BTreeSet<String> = namespaces::pinned_pods(&root)?.into_iter().collect();
            pods.extend(cgroups.pods()?.into_iter().map(|(uid, _)| uid));
            Ok(pods)
        };
        let mut pods =
            tokio::task::spawn_blocking(work).await.expect("listing pods does not panic")?;
        for container in self.inner.all_records().await? {
            pods.extend(container.labels.get(record::POD_UID).cloned());
        }
        Ok(pods.into_iter().collect())
    }
}

async fn create_namespace(containerd: &Containerd) -> Result<()> {
    let namespace = Namespace { name: containerd.namespace().to_string(), ..Namespace::default() };
    match containerd
        .namespaces()
        .create(CreateNamespaceRequest { namespace: Some(namespace) })
        .await
    {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(RuntimeError::from_status("create containerd namespace", &status)),
    }
}

impl Inner {
    /// Starts the pod's pause process unless it is running, and pins its PID namespace.
    async fn ensure_pause(&self, sandbox: &PodSandbox, paths: &PodPaths) -> Result<PathBuf> {
        let pod = &sandbox.config.pod;
        let id = super::id::container_id(&pod.uid, PAUSE_NAME, 0);
        let pin = paths.namespace("pid");
        if namespaces::is_pinned(&pin)
            && self.task(&id.0).await?.is_some_and(|task| task.is_running())
        {
            return Ok(pin);
        }
        self.remove_container(&id.0, &pod.uid).await?;
        namespaces::unpin(&pin)?;
        let root = paths.pause();
        write_pause(&root).await?;
        let mut labels =
            Identity { pod: pod.clone(), name: PAUSE_NAME.to_string(), attempt: 0 }.to_labels();
        labels.insert(record::PAUSE.to_string(), "true".to_string());
        let spec = pause_spec(sandbox, &sandbox.config.cgroup.child(&id.0));
        let handler = &sandbox.config.runtime_handler;
        self.create_record(self.container_record(&id.0, &spec, labels, None, handler, "")?).await?;
        let pid = self.start_pause(&id.0, pod, &root).await?;
        let ns = PathBuf::from(format!("/proc/{pid}/ns/pid"));
        namespaces::pin(&ns, &pin).map_err(|errno| RuntimeError::Namespace {
            pod: pod.uid.clone(),
            step: "pin pid".to_string(),
            source: errno.into(),
        })?;
        Ok(pin)
    }

    async fn start_pause(&self, id: &str, pod: &PodRef, root: &Path) -> Result<u32> {
        let failed = |status: tonic::Status| {
            RuntimeError::from_status(format!("start pause process of pod {}", pod.uid), &status)
        };
        // The pod's directory is private: a process with other users cannot enter it.
        let root = types::Mount {
            r#type: "bind".to_string(),
            source: root.display().to_string(),
            options: vec!["bind".to_string(), "ro".to_string()],
            ..Default::default()
        };
        let create = CreateTaskRequest {
            container_id: id.to_string(),
            rootfs: vec![root],
            ..CreateTaskRequest::default()
        };
        let start = StartRequest { container_id: id.to_string(), exec_id: String::new() };
        let started = async {
            self.containerd.tasks().create(create).await?;
            self.containerd.tasks().start(start).await
        };
        Ok(self.with_shim(&pod.uid, started).await.map_err(failed)?.into_inner().pid)
    }
}

/// Writes the pause process's root file system: one executable.
async fn write_pause(root: &Path) -> Result<()> {
    let program = pause::executable().ok_or_else(|| RuntimeError::InvalidConfig {
        message: format!("shareProcessNamespace is not supported on {}", std::env::consts::ARCH),
    })?;
    let path = root.join("pause");
    for directory in ["", "proc", "dev"] {
        let directory = root.join(directory);
        tokio::fs::create_dir_all(&directory)
            .await
            .map_err(RuntimeError::io("create", &directory))?;
        // The process is nobody's, whatever our umask.
        set_mode(&directory, 0o755).await?;
    }
    tokio::fs::write(&path, program).await.map_err(RuntimeError::io("write", &path))?;
    set_mode(&path, 0o555).await
}

async fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = std::fs::Permissions::from_mode(mode);
    tokio::fs::set_permissions(path, mode).await.map_err(RuntimeError::io("set mode of", path))
}

/// The pause process: the pod's namespaces, a PID namespace of its own, no privileges at all.
pub(super) fn pause_spec(sandbox: &PodSandbox, cgroup: &CgroupPath) -> Spec {
    let own = [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid];
    let own = own.into_iter().map(|kind| spec::namespace(kind, None));
    let namespaces = own.chain(spec::pod_namespaces(sandbox)).collect();
    let user = spec::oci_user(PAUSE_USER, PAUSE_USER, &[]);
    let process = spec::bare_process(user, vec!["/pause".to_string()]);
    let mounts =
        vec![spec::mount("/proc", "proc", "proc", &[]), spec::mount("/dev", "tmpfs", "tmpfs", &[])];
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(true));
    spec::assemble(sandbox, root, process, mounts, spec::bare_linux(cgroup, namespaces))
}
