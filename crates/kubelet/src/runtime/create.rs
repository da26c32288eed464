//! Making containers.

use super::exec::not_wired;
use super::{ContainerConfig, ContainerId, PodRef, PodSandbox, Result, Runtime};

impl Runtime {
    /// The id of a container, computed from its identity.
    pub fn container_id(&self, pod: &PodRef, name: &str, attempt: u32) -> ContainerId {
        super::id::container_id(&pod.uid, name, attempt)
    }

    /// Makes the root file system of a container to be, so that this can go on while volumes and
    /// network are set up. Optional: [`Runtime::create`] does it if it was not done.
    pub async fn prepare_rootfs(
        &self,
        pod: &PodRef,
        name: &str,
        attempt: u32,
        image: &str,
    ) -> Result<()> {
        let _ = image;
        Err(not_wired(&self.container_id(pod, name, attempt)))
    }

    /// Creates a container. A container with the same (pod, name, attempt) that was never started is
    /// replaced; one that was started is kept and its id returned.
    pub async fn create(&self, pod: &PodSandbox, config: &ContainerConfig) -> Result<ContainerId> {
        Err(not_wired(&self.container_id(
            &pod.config.pod,
            &config.name,
            config.attempt,
        )))
    }
}
