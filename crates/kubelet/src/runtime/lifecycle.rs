//! Start, signal, update and delete.

use super::exec::not_wired;
use super::{ContainerId, Result, Runtime};
use crate::cgroup::Resources;

impl Runtime {
    /// Starts a created container and gives its process id. Already running: fine.
    ///
    /// Fails with [`super::RuntimeError::Start`] if its command cannot be run; the container is then
    /// `Exited` with code 128 and reason `StartError`.
    pub async fn start(&self, id: &ContainerId) -> Result<u32> {
        Err(not_wired(id))
    }

    /// Sends a signal to the container's first process (`all`: to every process). Gone: fine.
    pub async fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
        let (_, _) = (signal, all);
        Err(not_wired(id))
    }

    /// Deletes a container with its root file system and logs; kills it first if it runs. Gone: fine.
    pub async fn delete(&self, id: &ContainerId) -> Result<()> {
        Err(not_wired(id))
    }

    /// Changes the limits of a running container in place.
    pub async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let _ = resources;
        Err(not_wired(id))
    }
}
