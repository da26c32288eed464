//! What plugins offer and what is allocated: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, ResourceHealth, ResourceStatus};
use rpc::deviceplugin_v1beta1 as pb;

use super::error::DeviceError;
use super::plugin::Plugin;
use super::topology::Wanted;
use crate::pod::resources;

/// `Device.health` of a device that can be used.
const HEALTHY: &str = "Healthy";

/// One device, as its plugin describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) healthy: bool,
    /// NUMA nodes that it is close to.
    pub(super) numa_nodes: Vec<i64>,
}

/// One resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Resource {
    pub(super) devices: BTreeMap<String, Device>,
    /// `None`: the plugin is gone, or has not registered since the kubelet started.
    pub(super) plugin: Option<Plugin>,
    /// Since when there has been no plugin.
    pub(super) stopped_at: Option<Instant>,
}

/// What one container has been given of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Allocation {
    /// Device ids, by NUMA node; -1 for those without one. A device may be at several.
    pub(super) devices: BTreeMap<i64, BTreeSet<String>>,
    pub(super) response: pb::ContainerAllocateResponse,
}

/// By resource name.
pub(super) type ByResource = BTreeMap<String, Allocation>;
/// By pod uid, then by container name.
pub(super) type Allocations = BTreeMap<String, BTreeMap<String, ByResource>>;

/// A device, for those who ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    pub resource: String,
    pub id: String,
    pub numa_nodes: Vec<i64>,
}

/// Number of devices, for the node's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub capacity: usize,
    pub allocatable: usize,
}

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) resources: BTreeMap<String, Resource>,
    pub(super) allocations: Allocations,
}

impl Allocation {
    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.devices.values().flatten().cloned().collect()
    }
}

impl State {
    /// After a restart: no plugin has registered yet.
    pub(super) fn restored(
        (allocations, resources): (Allocations, BTreeSet<String>),
        now: Instant,
    ) -> Self {
        let stopped = Resource { stopped_at: Some(now), ..Default::default() };
        let resources = resources.into_iter().map(|name| (name, stopped.clone())).collect();
        Self { resources, allocations }
    }

    pub(super) fn offers(&self, now: Instant, grace: Duration) -> BTreeMap<String, Offer> {
        let offer = |resource: &Resource| {
            if resource.stopped_at.is_some_and(|at| now.duration_since(at) > grace) {
                return Offer::default();
            }
            let healthy = resource.devices.values().filter(|device| device.healthy).count();
            Offer { capacity: resource.devices.len(), allocatable: healthy }
        };
        self.resources.iter().map(|(name, resource)| (name.clone(), offer(resource))).collect()
    }

    /// A plugin has registered; the devices of the one before it stay until it lists its own.
    pub(super) fn registered(&mut self, name: &str, plugin: Plugin) {
        let resource = self.resources.entry(name.to_owned()).or_default();
        resource.plugin = Some(plugin);
        resource.stopped_at = None;
    }

    /// Replaces the devices of a resource. Returns false if another plugin has registered since.
    pub(super) fn listed(&mut self, name: &str, plugin: u64, devices: Vec<pb::Device>) -> bool {
        let Some(resource) = self.current(name, plugin) else {
            return false;
        };
        let read = |device: pb::Device| {
            let topology = device.topology.into_iter().flat_map(|topology| topology.nodes);
            let numa_nodes = topology.map(|node| node.id).collect();
            (device.id, Device { healthy: device.health == HEALTHY, numa_nodes })
        };
        resource.devices = devices.into_iter().map(read).collect();
        true
    }

    /// The plugin is gone: none of its devices can be allocated.
    pub(super) fn stopped(&mut self, name: &str, plugin: u64, now: Instant) -> bool {
        let Some(resource) = self.current(name, plugin) else {
            return false;
        };
        resource.plugin = None;
        resource.stopped_at = Some(now);
        resource.devices.values_mut().for_each(|device| device.healthy = false);
        true
    }

    fn current(&mut self, name: &str, plugin: u64) -> Option<&mut Resource> {
        self.resources
            .get_mut(name)
            .filter(|one| one.plugin.as_ref().is_some_and(|it| it.number == plugin))
    }

    /// The devices that a container asks for: resources of plugins in its limits, and how many.
    pub(super) fn wanted(&self, container: &Container) -> Vec<(String, usize)> {
        let names = container.resources.iter().flat_map(|one| one.limits.iter().flatten());
        names
            .map(|(name, _)| name)
            .filter(|name| self.is_known(name))
            .filter_map(|name| {
                let limit = resources::limit(container.resources.as_ref(), name)?;
                Some((name.clone(), usize::try_from(limit.units()).ok()?))
            })
            .collect()
    }

    /// What a container could get of a resource; what `has` names, it has already.
    pub(super) fn wanted_of<'a>(
        &'a self,
        resource: &str,
        number: usize,
        reusable: &BTreeSet<String>,
        has: Option<&Allocation>,
    ) -> Wanted<'a> {
        static UNKNOWN: LazyLock<Resource> = LazyLock::new(Resource::default);
        let known = self.resources.get(resource).unwrap_or(&UNKNOWN);
        if let Some(has) = has {
            let (available, reusable) = (has.ids(), BTreeSet::new());
            return Wanted { resource: known, number, available, reusable };
        }
        let in_use = self.in_use(resource);
        let free = known.devices.iter().filter(|(id, one)| one.healthy && !in_use.contains(*id));
        let available = free.map(|(id, _)| id.clone()).collect();
        Wanted { resource: known, number, available, reusable: reusable.clone() }
    }

    /// What each container of a pod has.
    pub(super) fn of_pod(&self, pod: &str) -> impl Iterator<Item = (&String, &ByResource)> {
        self.allocations.get(pod).into_iter().flatten()
    }

    /// The devices of a container, with the NUMA nodes that they had when it was given them.
    pub(super) fn known(&self, has: &ByResource) -> Vec<KnownDevice> {
        let of_resource = |(resource, allocation): (&String, &Allocation)| {
            let nodes = |id: &String| {
                let all = allocation.devices.iter().filter(|(_, ids)| ids.contains(id));
                all.map(|(node, _)| *node).filter(|node| *node >= 0).collect()
            };
            let ids = allocation.ids().into_iter();
            let known = ids.map(|id| KnownDevice {
                resource: resource.clone(),
                numa_nodes: nodes(&id),
                id,
            });
            known.collect::<Vec<_>>()
        };
        has.iter().flat_map(of_resource).collect()
    }

    pub(super) fn healthy(&self) -> Vec<KnownDevice> {
        let devices = self.resources.iter().flat_map(|(resource, known)| {
            known.devices.iter().map(move |(id, device)| (resource, id, device))
        });
        devices
            .filter(|(_, _, device)| device.healthy)
            .map(|(resource, id, device)| KnownDevice {
                resource: resource.clone(),
                id: id.clone(),
                numa_nodes: device.numa_nodes.clone(),
            })
            .collect()
    }

    /// Whether devices of this resource are, or have been, a plugin's.
    pub(super) fn is_known(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
            || self.every_allocation().any(|(name, _)| name == resource)
    }

    fn every_allocation(&self) -> impl Iterator<Item = (&String, &Allocation)> {
        self.allocations.values().flat_map(BTreeMap::values).flatten()
    }

    pub(super) fn allocated(&self, pod: &str, container: &str) -> Option<&ByResource> {
        self.allocations.get(pod)?.get(container)
    }

    pub(super) fn lacks(&self, pod: &str, container: &Container) -> bool {
        let has = self.allocated(pod, &container.name);
        let wanted = self.wanted(container);
        wanted.iter().any(|(name, _)| !has.is_some_and(|has| has.contains_key(name)))
    }

    /// Whether the container already has what it wants of a resource.
    pub(super) fn has(
        &self,
        pod: &str,
        container: &str,
        resource: &str,
        wanted: usize,
    ) -> Result<bool, DeviceError> {
        let Some(found) = self.allocated(pod, container).and_then(|has| has.get(resource)) else {
            return Ok(false);
        };
        let had = found.ids().len();
        if had == wanted {
            return Ok(true);
        }
        let (pod, container) = (pod.to_owned(), container.to_owned());
        let resource = resource.to_owned();
        Err(DeviceError::RequestChanged { pod, container, resource, had, wanted })
    }

    /// The devices of a resource that some container has.
    pub(super) fn in_use(&self, resource: &str) -> BTreeSet<String> {
        self.every_allocation()
            .filter(|(name, _)| *name == resource)
            .flat_map(|(_, allocation)| allocation.ids())
            .collect()
    }

    pub(super) fn insert(
        &mut self,
        pod: &str,
        container: &str,
        resource: &str,
        ids: &BTreeSet<String>,
        response: pb::ContainerAllocateResponse,
    ) {
        let mut devices: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        let known = self.resources.get(resource).map(|one| &one.devices);
        for id in ids {
            let device = known.and_then(|known| known.get(id));
            let nodes = device.map(|device| device.numa_nodes.clone()).unwrap_or_default();
            let nodes = if nodes.is_empty() { vec![-1] } else { nodes };
            for node in nodes {
                devices.entry(node).or_default().insert(id.clone());
            }
        }
        let of_pod = self.allocations.entry(pod.to_owned()).or_default();
        let of_container = of_pod.entry(container.to_owned()).or_default();
        of_container.insert(resource.to_owned(), Allocation { devices, response });
    }

    /// Returns whether anything has changed.
    pub(super) fn release(&mut self, pod: &str) -> bool {
        self.allocations.remove(pod).is_some()
    }

    /// Returns whether anything has changed.
    pub(super) fn retain(&mut self, pods: &BTreeSet<String>) -> bool {
        let before = self.allocations.len();
        self.allocations.retain(|uid, _| pods.contains(uid));
        self.allocations.len() != before
    }

    pub(super) fn health(&self, pod: &str) -> BTreeMap<String, Vec<ResourceStatus>> {
        let of_device = |resource: &str, id: String| {
            let device = self.resources.get(resource).and_then(|one| one.devices.get(&id));
            let health = match device {
                Some(Device { healthy: true, .. }) => HEALTHY,
                Some(_) => "Unhealthy",
                None => "Unknown",
            };
            ResourceHealth {
                resource_id: id,
                health: Some(health.to_owned()),
                ..Default::default()
            }
        };
        let of_resource = |(name, allocation): (&String, &Allocation)| ResourceStatus {
            name: name.clone(),
            resources: Some(allocation.ids().into_iter().map(|id| of_device(name, id)).collect()),
        };
        let containers = self.allocations.get(pod).into_iter().flatten();
        containers
            .map(|(name, has)| (name.clone(), has.iter().map(of_resource).collect()))
            .collect()
    }
}
