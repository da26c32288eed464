//! Gives pods their devices.

use std::collections::{BTreeMap, BTreeSet};

use api::pod::Side;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::choice::candidates;
use super::error::DeviceError;
use super::injection::Injection;
use super::state::Allocation;
use super::topology::{Nodes, Scope, Wanted};
use super::{DeviceManager, containers};
use crate::pod::pod_ext::PodExt;

/// Devices that the pod's next containers can have, by resource.
type Reusable = BTreeMap<String, BTreeSet<String>>;

impl DeviceManager {
    /// Allocates what the pod's containers lack. What one init container has, the next ones and the
    /// pod's containers get first; a sidecar keeps its own.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), DeviceError> {
        let _one_pod = self.0.allocating.lock().await;
        let topology = self.0.topology;
        let nodes = match topology.scope {
            Scope::Pod if topology.is_followed() => self.nodes_of_pod(pod)?,
            _ => None,
        };
        let mut reusable = Reusable::new();
        for (container, ends) in containers(pod) {
            let nodes = match topology.scope {
                Scope::Container if topology.is_followed() => {
                    self.nodes_of_container(pod.uid(), container, &reusable)?
                }
                _ => nodes,
            };
            self.allocate_container(pod.uid(), container, &reusable, nodes).await?;
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

    /// The NUMA nodes of all containers of a pod.
    fn nodes_of_pod(&self, pod: &Pod) -> Result<Option<Nodes>, DeviceError> {
        let state = self.0.state.lock();
        let mut wanted = Vec::new();
        for (name, amount) in api::pod::resources(pod.spec_ref(), Side::Limits) {
            let number = usize::try_from(amount.units()).unwrap_or(0);
            if number == 0 || !state.is_known(&name) {
                continue;
            }
            let all = state.of_pod(pod.uid()).filter_map(|(_, has)| has.get(&name));
            let mut has = Allocation::default();
            for (node, ids) in all.flat_map(|allocation| &allocation.devices) {
                has.devices.entry(*node).or_default().extend(ids.iter().cloned());
            }
            let has = Some(&has).filter(|has| !has.devices.is_empty());
            wanted.push(state.wanted_of(&name, number, &BTreeSet::new(), has));
        }
        self.0.topology.choose(&wanted).map_err(|()| DeviceError::Topology)
    }

    fn nodes_of_container(
        &self,
        pod: &str,
        container: &Container,
        reusable: &Reusable,
    ) -> Result<Option<Nodes>, DeviceError> {
        let (state, none) = (self.0.state.lock(), BTreeSet::new());
        let has = state.allocated(pod, &container.name);
        let wanted: Vec<Wanted<'_>> = state
            .wanted(container)
            .into_iter()
            .filter(|(_, number)| *number > 0)
            .map(|(name, number)| {
                let reusable = reusable.get(&name).unwrap_or(&none);
                state.wanted_of(&name, number, reusable, has.and_then(|has| has.get(&name)))
            })
            .collect();
        self.0.topology.choose(&wanted).map_err(|()| DeviceError::Topology)
    }

    async fn allocate_container(
        &self,
        pod: &str,
        container: &Container,
        reusable: &Reusable,
        nodes: Option<Nodes>,
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
                let candidates = candidates(&state, &resource, wanted, reusable, nodes)?;
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
