//! Devices of the node that plugins offer as extended resources
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/>).
//!
//! A plugin registers at [`registration`]'s socket and lists its devices ([`plugin`]); the node's
//! status has their number. Before a pod's first container starts, its devices are chosen
//! ([`choice`] and [`topology`], pure) and allocated; what has been allocated is on disk ([`checkpoint`]) before it
//! is used, and stays the pod's until its volumes are torn down, however often the kubelet restarts.
//! The manager must not know pod workers, and keeps no queue: it is asked.

mod allocate;
mod checkpoint;
mod choice;
mod error;
mod injection;
mod plugin;
mod registration;
mod state;
#[cfg(test)]
mod tests;
pub mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pod::pod_ext::PodExt;
use state::State;

pub use error::DeviceError;
pub use injection::Injection;
pub use state::{KnownDevice, Offer};
pub use topology::Topology;

/// How long the devices of a plugin that is gone still count for the node's capacity, as upstream:
/// it may only be restarting.
const STOP_GRACE: Duration = Duration::from_secs(300);

/// See the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct DeviceManager(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    topology: Topology,
    state: Mutex<State>,
    /// One pod after the other, so that none is given what another is about to get.
    allocating: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
}

impl DeviceManager {
    /// Reads what was allocated, and lets plugins register until `shutdown`. Sockets of an earlier
    /// process are removed, which tells its plugins to register again. A node runs without devices
    /// rather than not at all.
    pub fn start(directory: PathBuf, topology: Topology, shutdown: CancellationToken) -> Self {
        let found = checkpoint::read(&directory).unwrap_or_else(|error| {
            tracing::error!(%error, "nobody knows which devices are allocated");
            Default::default()
        });
        let state = State::restored(found, clock::monotonic());
        let (changed, _) = watch::channel(0);
        let allocating = tokio::sync::Mutex::default();
        let state = Mutex::new(state);
        let manager = Self(Arc::new(Inner { directory, topology, state, allocating, changed }));
        let serving = registration::prepare(&manager.0.directory)
            .and_then(|()| registration::serve(manager.clone(), shutdown));
        if let Err(error) = serving {
            tracing::error!(%error, "device plugins cannot register");
        }
        manager
    }

    /// Changes when devices appear, disappear, or change their health.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// What the node offers now, by resource name.
    pub fn offers(&self) -> BTreeMap<String, Offer> {
        self.0.state.lock().offers(clock::monotonic(), STOP_GRACE)
    }

    /// Whether a container of the pod asks for devices that it has not been given yet.
    pub fn is_wanted(&self, pod: &Pod) -> bool {
        let state = self.0.state.lock();
        containers(pod).any(|(container, _)| state.lacks(pod.uid(), container))
    }

    /// The health of each container's devices, for its status.
    pub fn health(&self, pod_uid: &str) -> BTreeMap<String, Vec<ResourceStatus>> {
        self.0.state.lock().health(pod_uid)
    }

    /// What each container of a pod has.
    pub fn of_pod(&self, pod_uid: &str) -> BTreeMap<String, Vec<KnownDevice>> {
        let state = self.0.state.lock();
        let of_container = |(name, has): (&String, &_)| (name.clone(), state.known(has));
        state.of_pod(pod_uid).map(of_container).collect()
    }

    /// All healthy devices, in use or not.
    pub fn healthy(&self) -> Vec<KnownDevice> {
        self.0.state.lock().healthy()
    }

    /// Frees the devices of a pod.
    pub fn release(&self, pod_uid: &str) -> Result<(), DeviceError> {
        self.update(|state| state.release(pod_uid))
    }

    /// Frees the devices of all pods but these.
    pub fn retain(&self, pod_uids: &BTreeSet<String>) -> Result<(), DeviceError> {
        self.update(|state| state.retain(pod_uids))
    }

    /// Changes what is allocated: on disk first, so that a failure changes nothing.
    fn update(&self, change: impl FnOnce(&mut State) -> bool) -> Result<(), DeviceError> {
        let mut state = self.0.state.lock();
        let mut next = state.clone();
        if change(&mut next) {
            checkpoint::write(&self.0.directory, &next)?;
            *state = next;
        }
        Ok(())
    }

    fn notify(&self) {
        self.0.changed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

/// The containers that can have devices, in the order in which they get them, and whether each runs
/// to completion before the next one starts.
fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let spec = pod.spec_ref();
    let init = spec.init_containers.iter().flatten();
    init.map(|one| (one, !api::pod::is_sidecar(one)))
        .chain(spec.containers.iter().map(|one| (one, false)))
}
