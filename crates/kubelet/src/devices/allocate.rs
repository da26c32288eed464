//! Gives pods their devices.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::choice::candidates;
use super::error::DeviceError;
use super::injection::Injection;
use super::{DeviceManager, containers};
use crate::pod::pod_ext::PodExt;

/// Devices that the pod's next containers can have, by resource.
type Reusable = BTreeMap<String, BTreeSet<String>>;

impl DeviceManager {
    /// Allocates what the pod's containers lack. What one init container has, the next ones and the
    /// pod's containers get first; a sidecar keeps its own.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), DeviceError> {
        let _one_pod = self.0.allocating.lock().await;
        let mut reusable = Reusable::new();
        for (container, ends) in containers(pod) {
            self.allocate_container(pod.uid(), container, &reusable).await?;
            let state = self.0.state.lock();
            for (name, allocation) in
                state.allocated(pod.uid(), &container.name).into_iter().flatten()
            {
                let known = reusable.entry(name.clone()).or_default();
                if ends {
                    known.extend(allocation.ids());
                } else {
                    known.retain(|id| !allocation.ids().contains(id));
                }
            }
        }
        Ok(())
    }

    async fn allocate_container(
        &self,
        pod: &str,
        container: &Container,
        reusable: &Reusable,
    ) -> Result<(), DeviceError> {
        let wanted = self.0.state.lock().wanted(container);
        for (resource, wanted) in wanted {
            let none = BTreeSet::new();
            let reusable = reusable.get(&resource).unwrap_or(&none);
            let (candidates, plugin) = {
                let state = self.0.state.lock();
                if state.has(pod, &container.name, &resource, wanted)? {
                    continue;
                }
                let candidates = candidates(&state, &resource, wanted, reusable)?;
                let known = state.resources.get(&resource);
                (candidates, known.and_then(|known| known.plugin.clone()))
            };
            let mut plugin = plugin.ok_or_else(|| DeviceError::Stopped(resource.clone()))?;
            let preferred = plugin.preferred(&candidates, wanted).await?;
            let chosen = candidates.choose(&preferred);
            let response = plugin.allocate(&resource, &chosen).await?;
            self.update(|state| {
                state.insert(pod, &container.name, &resource, &chosen, response);
                true
            })?;
        }
        Ok(())
    }

    /// What a container that is about to start gets with its devices. Has their plugins prepare
    /// them, and allocates them if that has not been done: their plugin registered after the pod's
    /// admission.
    pub async fn prepare(&self, pod: &Pod, container: &str) -> Result<Injection, DeviceError> {
        if self.is_wanted(pod) {
            self.allocate(pod).await?;
        }
        let has = match self.0.state.lock().allocated(pod.uid(), container) {
            Some(has) => has.clone(),
            None => return Ok(Injection::default()),
        };
        for (resource, allocation) in &has {
            let known = self.0.state.lock().resources.get(resource).cloned();
            if let Some(mut plugin) = known.and_then(|known| known.plugin) {
                plugin.pre_start(allocation.ids()).await?;
            }
        }
        Injection::of(&has)
    }
}
