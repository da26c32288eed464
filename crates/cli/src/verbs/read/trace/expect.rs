//! What a node's tables should contain for a Service, from the API's objects alone: a second opinion
//! that shares no code with the proxy. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::tables::{Clients, Endpoint, Frontend, Outcome};
use crate::describe::text::{items, or, word};

/// A node, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub name: String,
    pub zone: String,
    pub addresses: Vec<IpAddr>,
}

impl Node {
    pub fn read(node: &Value) -> Self {
        let addresses = items(&node["status"]["addresses"]);
        Self {
            name: word(&node["metadata"]["name"]),
            zone: word(&node["metadata"]["labels"]["topology.kubernetes.io/zone"]),
            addresses: addresses.filter_map(|one| word(&one["address"]).parse().ok()).collect(),
        }
    }
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub pod: String,
    pub node: String,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    nodes: Vec<String>,
    zones: Vec<String>,
}

impl SliceEndpoint {
    fn read(endpoint: &Value) -> Self {
        let conditions = &endpoint["conditions"];
        let ready = conditions["ready"].as_bool().unwrap_or(true);
        let target = &endpoint["targetRef"];
        let names = |list: &Value| items(list).map(|hint| word(&hint["name"])).collect();
        Self {
            pod: if target["kind"] == "Pod" { word(&target["name"]) } else { String::new() },
            node: word(&endpoint["nodeName"]),
            ready,
            serving: conditions["serving"].as_bool().unwrap_or(ready),
            terminating: conditions["terminating"].as_bool().unwrap_or(false),
            nodes: names(&endpoint["hints"]["forNodes"]),
            zones: names(&endpoint["hints"]["forZones"]),
        }
    }

    /// The state in a word.
    pub fn state(&self) -> &'static str {
        match (self.ready, self.terminating, self.serving) {
            (true, ..) => "ready",
            (false, true, true) => "terminating, serving",
            (false, true, false) => "terminating",
            (false, false, _) => "not ready",
        }
    }

    fn rank(&self) -> u8 {
        match self.state() {
            "ready" => 2,
            "terminating, serving" => 1,
            _ => 0,
        }
    }
}

/// A port of a Service, and the endpoints of one family behind it.
#[derive(Clone, Debug)]
pub struct Port<'a> {
    service: &'a Value,
    pub endpoints: BTreeMap<Endpoint, SliceEndpoint>,
}

impl<'a> Port<'a> {
    pub fn new(service: &'a Value, port: &Value, slices: &[Value], v6: bool) -> Self {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let mut endpoints: BTreeMap<Endpoint, SliceEndpoint> = BTreeMap::new();
        let protocol = |port: &Value| or(&port["protocol"], "TCP");
        for slice in slices.iter().filter(|slice| slice["addressType"] == family) {
            let same = |one: &&Value| {
                word(&one["name"]) == word(&port["name"]) && protocol(one) == protocol(port)
            };
            for number in items(&slice["ports"]).filter(same).filter_map(|one| number(one, "port"))
            {
                for endpoint in items(&slice["endpoints"]) {
                    let address = items(&endpoint["addresses"]).next().map(word);
                    let Some(ip) = address.and_then(|address| address.parse().ok()) else {
                        continue;
                    };
                    let read = SliceEndpoint::read(endpoint);
                    // While an endpoint moves between slices, it is in both.
                    let best = endpoints.entry((ip, number)).or_insert_with(|| read.clone());
                    if read.rank() > best.rank() {
                        *best = read;
                    }
                }
            }
        }
        Self { service, endpoints }
    }

    /// What should happen to connections on that node.
    pub fn outcome(&self, frontend: &ServiceFrontend, clients: Clients, node: &Node) -> Outcome {
        let spec = &self.service["spec"];
        let internal_local = spec["internalTrafficPolicy"] == "Local";
        let only_local = match (frontend.kind, clients) {
            (FrontendKind::ClusterIp, _) => internal_local,
            // The policy does not apply to clients in the cluster.
            (_, Clients::Any) => false,
            (_, Clients::Outside) => true,
        };
        let cluster = self.for_cluster(node);
        if cluster.is_empty() {
            let nothing = clients == Clients::Outside;
            return if nothing { Outcome::Nothing } else { Outcome::Reject };
        }
        if !only_local {
            return Outcome::Balance(cluster.into_iter().collect());
        }
        let local = self.usable(|endpoint| endpoint.node == node.name);
        match local.is_empty() {
            true => Outcome::Drop,
            false => Outcome::Balance(local.into_iter().map(|(key, _)| key).collect()),
        }
    }

    /// The ready endpoints, or if there are none, those that terminate and still serve.
    fn usable(&self, select: impl Fn(&SliceEndpoint) -> bool) -> Vec<(Endpoint, &SliceEndpoint)> {
        let of = |rank: u8| -> Vec<(Endpoint, &SliceEndpoint)> {
            let all = self.endpoints.iter().map(|(key, endpoint)| (*key, endpoint));
            all.filter(|(_, endpoint)| endpoint.rank() == rank && select(endpoint)).collect()
        };
        let ready = of(2);
        if ready.is_empty() { of(1) } else { ready }
    }

    /// Those for connections that may go to any node: hints narrow them, if all have some.
    fn for_cluster(&self, node: &Node) -> Vec<Endpoint> {
        let usable = self.usable(|_| true);
        let hinted = |hints: fn(&SliceEndpoint) -> &Vec<String>, name: &str| {
            let all = usable.iter().all(|(_, endpoint)| !hints(endpoint).is_empty());
            let chosen: Vec<Endpoint> = usable
                .iter()
                .filter(|(_, endpoint)| hints(endpoint).iter().any(|hint| hint == name))
                .map(|(key, _)| *key)
                .collect();
            (all && !name.is_empty() && !chosen.is_empty()).then_some(chosen)
        };
        hinted(|endpoint| &endpoint.nodes, &node.name)
            .or_else(|| hinted(|endpoint| &endpoint.zones, &node.zone))
            .unwrap_or_else(|| usable.iter().map(|(key, _)| *key).collect())
    }
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendKind {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    NodePort,
}

impl FrontendKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::ExternalIp => "ExternalIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        }
    }
}

/// A frontend of a Service.
#[derive(Clone, Debug)]
pub struct ServiceFrontend {
    pub kind: FrontendKind,
    pub frontend: Frontend,
    /// The Service's port.
    pub port: Value,
}

/// All frontends of a Service; none if nodes have no rules for it.
pub fn frontends(service: &Value) -> Vec<ServiceFrontend> {
    let spec = &service["spec"];
    if without_rules(service).is_some() {
        return Vec::new();
    }
    let ip = |value: &Value| word(value).parse::<IpAddr>().ok();
    let direct = |ingress: &&Value| ingress["ipMode"] != "Proxy";
    let balanced = items(&service["status"]["loadBalancer"]["ingress"]).filter(direct);
    let mut addresses: Vec<(FrontendKind, IpAddr)> = Vec::new();
    let mut add = |kind, ip: Option<IpAddr>| addresses.extend(ip.map(|ip| (kind, ip)));
    items(&spec["clusterIPs"]).for_each(|one| add(FrontendKind::ClusterIp, ip(one)));
    items(&spec["externalIPs"]).for_each(|one| add(FrontendKind::ExternalIp, ip(one)));
    balanced.for_each(|one| add(FrontendKind::LoadBalancer, ip(&one["ip"])));
    let mut found = Vec::new();
    for port in items(&spec["ports"]) {
        let protocol = or(&port["protocol"], "TCP");
        let number_of = |key: &str| number(port, key);
        for (kind, ip) in &addresses {
            let protocol = protocol.clone();
            found.extend(number_of("port").map(|number| ServiceFrontend {
                kind: *kind,
                frontend: Frontend::Address { ip: *ip, protocol, port: number },
                port: port.clone(),
            }));
        }
        for family in items(&spec["ipFamilies"]) {
            let (v6, protocol) = (family == "IPv6", protocol.clone());
            found.extend(number_of("nodePort").map(|number| ServiceFrontend {
                kind: FrontendKind::NodePort,
                frontend: Frontend::NodePort { v6, protocol, port: number },
                port: port.clone(),
            }));
        }
    }
    found
}

/// Why no node has rules for the Service.
pub fn without_rules(service: &Value) -> Option<String> {
    let spec = &service["spec"];
    let proxy = &service["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"];
    if spec["type"] == "ExternalName" {
        return Some(format!(
            "the Service is only a DNS name, for {}; no node has rules for it",
            word(&spec["externalName"])
        ));
    }
    if spec["clusterIP"] == "None" {
        let text = "the Service is headless: its name resolves to its pods, and no node has rules";
        return Some(text.to_owned());
    }
    proxy.as_str().map(|name| format!("another proxy is responsible for the Service: {name}"))
}

/// Whether connections from outside have rules of their own.
pub fn is_external_local(service: &Value) -> bool {
    service["spec"]["externalTrafficPolicy"] == "Local"
}

fn number(value: &Value, key: &str) -> Option<u16> {
    value[key].as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0)
}
