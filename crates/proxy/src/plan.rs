//! Maps objects to elements: those of a single Service with its endpoint slices, of a pod with host
//! ports, or of a node. Pure; conflicts between owners of an element are resolved by [`Desired`].

mod desired;
mod endpoints;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{EndpointSlice, Node, Pod, Service, ServicePort};
use crate::nft::Family;
use crate::table::{Chain, Data, Endpoint, Frontend, Key, LOCAL_SLOTS, Map, Source, Target};

pub use desired::{Change, Changes, Desired, Owner};
use endpoints::{Candidates, slots};

/// The id of an element: its table, map and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementId {
    pub family: Family,
    pub map: Map,
    pub key: Key,
}

/// The elements of an owner.
pub type Elements = Vec<(ElementId, Data)>;

/// The inputs of a plan besides the objects.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The families that have tables.
    pub families: Vec<Family>,
    /// The zone of this node.
    pub zone: Option<Box<str>>,
    /// The address that each node's DNS server listens on, which the proxy ignores.
    pub cluster_dns: Vec<IpAddr>,
    /// The pool of load balancers' addresses.
    pub pool: Vec<ipnet::IpNet>,
}

/// The elements of a Service. `previous` returns the current data of an element, so that endpoints
/// can keep their slots.
pub fn service(
    context: &Context,
    service: &Service,
    slices: &[&EndpointSlice],
    previous: &dyn Fn(&ElementId) -> Option<Data>,
) -> Elements {
    let mut elements = Elements::new();
    if service.cluster_ips.iter().any(|ip| context.cluster_dns.contains(ip)) {
        return elements;
    }
    for family in &context.families {
        for port in &service.ports {
            let plan = PortPlan::new(context, *family, service, port, slices, previous);
            plan.write(&mut elements);
        }
        if !service.ports.is_empty() {
            // Addresses of a pool are nobody else's, so their other ports are refused as well.
            let pooled = of_family(&service.load_balancer_ips, *family)
                .filter(|ip| context.pool.iter().any(|range| range.contains(ip)));
            let ips = of_family(&service.cluster_ips, *family).chain(pooled);
            elements.extend(
                ips.map(|ip| element(*family, Map::ClusterIps, Key::Address(ip), Data::None)),
            );
        }
    }
    elements.sort_unstable();
    elements.dedup();
    elements
}

/// The number of local endpoints, for the health check port.
pub fn local_endpoints(slices: &[&EndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let local = endpoints.filter(|endpoint| endpoint.local && endpoint.ready);
    local.map(|endpoint| endpoint.ip).collect::<BTreeSet<_>>().len()
}

/// Whether this node can serve traffic that must stay on it: it has ready endpoints, or there are
/// none anywhere, but it has one that terminates and is still serving.
pub fn can_serve(slices: &[&EndpointSlice]) -> bool {
    let endpoints = || slices.iter().flat_map(|slice| &slice.endpoints);
    let serving = endpoints().any(|endpoint| endpoint.local && endpoint.serving);
    local_endpoints(slices) > 0 || (serving && !endpoints().any(|endpoint| endpoint.ready))
}

/// The elements of the host ports of a pod on this node.
pub fn pod(context: &Context, pod: &Pod) -> Elements {
    let mut elements = Elements::new();
    for family in &context.families {
        for ip in of_family(&pod.ips, *family) {
            for port in &pod.host_ports {
                if port.host_ip.is_some_and(|host_ip| family_of(host_ip) != *family) {
                    continue;
                }
                let (map, target) = match port.host_ip {
                    Some(ip) => {
                        let (protocol, port) = (port.protocol, port.host_port);
                        (Map::HostPorts, Target::Frontend(Frontend { ip, protocol, port }))
                    }
                    None => (Map::AnyHostPorts, Target::NodePort(port.protocol, port.host_port)),
                };
                let endpoint = Data::Endpoint(Endpoint { ip, port: port.container_port });
                elements.push(element(*family, map, Key::Target(target), endpoint));
                elements.push(element(*family, Map::Hairpin, Key::Pair(ip), Data::None));
            }
        }
    }
    elements.sort_unstable();
    elements.dedup();
    elements
}

/// The elements of a node.
pub fn node(context: &Context, node: &Node) -> Elements {
    let of = |family| {
        let ips = of_family(&node.internal_ips, family);
        ips.map(move |ip| element(family, Map::Nodes, Key::Address(ip), Data::None))
    };
    let mut elements: Elements = context.families.iter().copied().flat_map(of).collect();
    elements.sort_unstable();
    elements.dedup();
    elements
}

fn element(family: Family, map: Map, key: Key, data: Data) -> (ElementId, Data) {
    (ElementId { family, map, key }, data)
}

pub(crate) fn family_of(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn of_family(ips: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> {
    ips.iter().copied().filter(move |ip| family_of(*ip) == family)
}

/// The map with the endpoints of a target.
pub(crate) fn endpoints_of(target: Target) -> Map {
    match target {
        Target::Frontend(_) => Map::Endpoints,
        Target::NodePort(..) => Map::NodePortEndpoints,
    }
}

/// What happens to connections to a frontend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Balanced over this number of endpoints.
    Balance(Source, u32),
    /// Rejected: there are no endpoints anywhere.
    Reject,
    /// Dropped: there are endpoints, but none on this node, as the policy requires.
    Drop,
}

/// A port of a Service in one family.
struct PortPlan<'a> {
    family: Family,
    service: &'a Service,
    port: &'a ServicePort,
    cluster_ips: Vec<IpAddr>,
    /// External and load balancer addresses.
    external_ips: Vec<IpAddr>,
    /// The endpoints for the Cluster and for the Local policy, indexed by slot.
    cluster: Vec<Endpoint>,
    local: Vec<Endpoint>,
    /// Addresses of endpoints on this node.
    hairpin: Vec<IpAddr>,
}

impl<'a> PortPlan<'a> {
    fn new(
        context: &Context,
        family: Family,
        service: &'a Service,
        port: &'a ServicePort,
        slices: &[&EndpointSlice],
        previous: &dyn Fn(&ElementId) -> Option<Data>,
    ) -> Self {
        let candidates = Candidates::of(family, port, slices);
        let external_ips = service.external_ips.iter().chain(&service.load_balancer_ips);
        let mut plan = Self {
            family,
            service,
            port,
            cluster_ips: of_family(&service.cluster_ips, family).collect(),
            external_ips: external_ips.copied().filter(|ip| family_of(*ip) == family).collect(),
            cluster: Vec::new(),
            local: Vec::new(),
            hairpin: candidates.local_ips(),
        };
        let targets: Vec<Target> = plan.internal().into_iter().chain(plan.external()).collect();
        let at = |slot: u32| {
            targets.iter().find_map(|target| match previous(&plan.slot(*target, slot)) {
                Some(Data::Endpoint(endpoint)) => Some(endpoint),
                _ => None,
            })
        };
        let cluster = slots(candidates.for_cluster(context.zone.as_deref()), at);
        let local = slots(candidates.for_local(), |slot| at(LOCAL_SLOTS + slot));
        (plan.cluster, plan.local) = (cluster, local);
        plan
    }

    fn write(&self, elements: &mut Elements) {
        let service = self.service;
        let internal = self.outcome(Source::Cluster, service.internal_local);
        for target in self.internal() {
            self.balance(elements, target, internal);
            self.write_endpoints(elements, target, !service.internal_local, service.internal_local);
        }
        let external = match service.external_local {
            // The policy does not apply to clients inside the cluster.
            true => self.outcome(Source::Cluster, false),
            false => self.outcome(Source::External, false),
        };
        for target in self.external() {
            self.balance(elements, target, external);
            self.write_endpoints(elements, target, true, service.external_local);
        }
        if service.external_local {
            self.write_external_local(elements);
        }
        self.write_firewall(elements);
        let pairs = self.hairpin.iter().map(|ip| Key::Pair(*ip));
        elements.extend(pairs.map(|key| element(self.family, Map::Hairpin, key, Data::None)));
    }

    fn internal(&self) -> Vec<Target> {
        self.cluster_ips.iter().map(|ip| Target::Frontend(self.at(*ip))).collect()
    }

    fn external(&self) -> Vec<Target> {
        let node_port = self.port.node_port;
        let node_port = node_port.map(|port| Target::NodePort(self.port.protocol, port));
        let frontends = self.external_ips.iter().map(|ip| Target::Frontend(self.at(*ip)));
        frontends.chain(node_port).collect()
    }

    /// The elements that take precedence for traffic from outside with
    /// `externalTrafficPolicy: Local`.
    fn write_external_local(&self, elements: &mut Elements) {
        let data = match self.outcome(Source::Local, true) {
            Outcome::Balance(source, count) => self.chain(source, count),
            Outcome::Drop => Data::Drop,
            // Rejected for all sources anyway.
            Outcome::Reject => return,
        };
        for target in self.external() {
            let map = match target {
                Target::Frontend(_) => Map::ExternalLocal,
                Target::NodePort(..) => Map::ExternalLocalNodePorts,
            };
            elements.push(element(self.family, map, Key::Target(target), data));
        }
    }

    fn write_firewall(&self, elements: &mut Elements) {
        if self.service.source_ranges.is_empty() {
            return;
        }
        for ip in of_family(&self.service.load_balancer_ips, self.family) {
            let frontend = self.at(ip);
            elements.push(element(
                self.family,
                Map::Firewalled,
                Key::Target(Target::Frontend(frontend)),
                Data::None,
            ));
            let ranges = ipnet::IpNet::aggregate(&self.service.source_ranges);
            let ranges = ranges.into_iter().filter(|range| family_of(range.addr()) == self.family);
            let keys = ranges.map(|range| Key::Range(frontend, range));
            elements.extend(keys.map(|key| element(self.family, Map::Allowed, key, Data::None)));
        }
    }

    fn write_endpoints(&self, elements: &mut Elements, to: Target, cluster: bool, local: bool) {
        let cluster = (0..).zip(self.cluster.iter().filter(|_| cluster));
        let local = (LOCAL_SLOTS..).zip(self.local.iter().filter(|_| local));
        for (slot, endpoint) in cluster.chain(local) {
            elements.push((self.slot(to, slot), Data::Endpoint(*endpoint)));
        }
    }

    fn slot(&self, target: Target, slot: u32) -> ElementId {
        ElementId { family: self.family, map: endpoints_of(target), key: Key::Slot(target, slot) }
    }

    fn outcome(&self, source: Source, only_local: bool) -> Outcome {
        let count = |endpoints: &[Endpoint]| {
            u32::try_from(endpoints.len()).expect("a Service has fewer than four billion endpoints")
        };
        let (cluster, local) = (count(&self.cluster), count(&self.local));
        match (only_local, cluster, local) {
            (true, _, 1..) => Outcome::Balance(Source::Local, local),
            (true, 1.., 0) => Outcome::Drop,
            (false, 1.., _) => Outcome::Balance(source, cluster),
            (_, 0, _) => Outcome::Reject,
        }
    }

    fn balance(&self, elements: &mut Elements, target: Target, outcome: Outcome) {
        let (chains, refusals) = match target {
            Target::Frontend(_) => (Map::Services, Map::NoEndpoints),
            Target::NodePort(..) => (Map::NodePorts, Map::NoEndpointNodePorts),
        };
        let (map, data) = match outcome {
            Outcome::Balance(source, count) => (chains, self.chain(source, count)),
            Outcome::Reject => (refusals, Data::Goto(Chain::Reject)),
            Outcome::Drop => (refusals, Data::Drop),
        };
        elements.push(element(self.family, map, Key::Target(target), data));
    }

    fn chain(&self, source: Source, count: u32) -> Data {
        Data::Goto(Chain::Balance { source, count, affinity_s: self.service.affinity_s })
    }

    fn at(&self, ip: IpAddr) -> Frontend {
        Frontend { ip, protocol: self.port.protocol, port: self.port.port }
    }
}
