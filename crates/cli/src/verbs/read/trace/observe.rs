//! Reads the API's objects around what is traced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::ListRequest;
use serde_json::Value;

use super::compare::{Observed, Traced, selecting};
use super::expect::{Node, Port, ServiceFrontend, without_rules};
use super::tables::Frontend;
use crate::describe::text::{fields, items, or, word};
use crate::discovery::Resources;
use crate::request::failure::usage;
use crate::request::selection::list_values;

/// With more pods than this, elements about their own addresses are not asked for.
const PODS_ASKED_MAX: usize = 100;
/// Connections whose verdict is asked for at most: they are part of the query.
const CONNECTIONS_MAX: usize = 64;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Service { name: String, port: Option<String> },
    Pod { name: String },
    Address { at: SocketAddr, protocol: Option<String> },
}

impl Target {
    /// # Errors
    /// For a kind that cannot be traced.
    pub fn parse(text: &str, resources: &Resources) -> anyhow::Result<Self> {
        let (address, protocol) = match text.rsplit_once('/') {
            Some((address, protocol)) => (address, Some(protocol.to_uppercase())),
            None => (text, None),
        };
        if let Ok(at) = address.parse() {
            let known = ["TCP", "UDP", "SCTP"];
            if protocol.as_deref().is_some_and(|protocol| !known.contains(&protocol)) {
                bail!("unknown protocol in {text:?}: it must be TCP, UDP or SCTP");
            }
            return Ok(Self::Address { at, protocol });
        }
        let wrong =
            || usage("trace", format!("{text:?} is not svc/NAME[:PORT], pod/NAME or IP:PORT"));
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        let resource = resources.find(kind)?;
        let (name, port) = match name.split_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (name, None),
        };
        match (resource.group.as_str(), resource.kind.as_str(), &port) {
            _ if name.is_empty() => Err(wrong()),
            ("", "Service", _) => Ok(Self::Service { name: name.to_owned(), port }),
            ("", "Pod", None) => Ok(Self::Pod { name: name.to_owned() }),
            _ => Err(wrong()),
        }
    }
}

/// A pod or node that connects.
struct From {
    title: String,
    node: String,
    /// The pod, if it is one.
    pod: Option<Value>,
}

/// All that was read.
pub struct Snapshot {
    pub title: String,
    pub notes: Vec<String>,
    pub nodes: Vec<Node>,
    pub observed: Observed,
    /// The node of the client, if one was named.
    from: Option<String>,
    /// The client's connections to the endpoints, which policies judge.
    connections: Vec<String>,
}

impl Snapshot {
    /// Whether all clients are of interest, so that all nodes are asked.
    pub fn is_for_all(&self) -> bool {
        self.from.is_none()
    }

    /// Whether clients on the node are of interest.
    pub fn is_client(&self, index: usize) -> bool {
        self.from.as_ref().is_none_or(|from| *from == self.nodes[index].name)
    }

    /// The nodes to ask: those of clients, and those of pods that NetworkPolicies select.
    pub fn asked(&self) -> Vec<usize> {
        let policies = &self.observed.policies;
        let is_selected = |pod: &&Value| {
            ["Ingress", "Egress"].iter().any(|way| !selecting(policies, pod, way).is_empty())
        };
        let restricted: BTreeSet<String> = self
            .observed
            .pods
            .values()
            .filter(is_selected)
            .map(|pod| word(&pod["spec"]["nodeName"]))
            .collect();
        let wanted =
            |index: &usize| self.is_client(*index) || restricted.contains(&self.nodes[*index].name);
        (0..self.nodes.len()).filter(wanted).collect()
    }

    /// The query for elements about what is traced; `None` if there is nothing to ask for.
    pub fn query(&self) -> Option<String> {
        let mut ips: BTreeSet<IpAddr> = BTreeSet::new();
        let mut ports: BTreeSet<u16> = BTreeSet::new();
        let services = self.observed.services.iter().flat_map(|traced| &traced.frontends);
        let frontends = services.map(|one| &one.frontend).chain(&self.observed.stray);
        for frontend in frontends {
            match frontend {
                Frontend::Address { ip, .. } => drop(ips.insert(*ip)),
                Frontend::NodePort { port, .. } => drop(ports.insert(*port)),
            }
        }
        ips.extend(self.observed.pod.iter().flatten());
        if self.observed.pods.len() <= PODS_ASKED_MAX {
            ips.extend(self.observed.pods.values().flat_map(addresses));
        }
        if ips.is_empty() && ports.is_empty() {
            return None;
        }
        let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let connections = match self.connections.as_slice() {
            [] => String::new(),
            some => format!("&connections={}", some.join(",")),
        };
        Some(format!("addresses={}&ports={}{connections}", ips.join(","), ports.join(",")))
    }
}

struct Reader<'a> {
    client: &'a Client,
    resources: &'a Resources,
}

/// Reads what is needed to trace the target.
///
/// # Errors
/// If it does not exist, or may not be read.
pub async fn observe(
    client: &Client,
    resources: &Resources,
    target: &Target,
    from: Option<&str>,
) -> anyhow::Result<Snapshot> {
    let reader = Reader { client, resources };
    let namespace = client.default_namespace();
    let nodes: Vec<Node> =
        reader.list("nodes", "", String::new()).await?.iter().map(Node::read).collect();
    let from = match from {
        Some(text) => Some(reader.from(text, namespace).await?),
        None => None,
    };
    let mut snapshot = Snapshot {
        title: String::new(),
        notes: Vec::new(),
        nodes,
        observed: Observed::default(),
        from: from.as_ref().map(|from| from.node.clone()),
        connections: Vec::new(),
    };
    match target {
        Target::Service { name, port } => {
            reader.service(&mut snapshot, namespace, name, port.as_deref()).await?;
        }
        Target::Pod { name } => reader.pod(&mut snapshot, namespace, name).await?,
        Target::Address { at, protocol } => {
            reader.address(&mut snapshot, *at, protocol.as_deref()).await?;
        }
    }
    reader.pods(&mut snapshot).await?;
    if let Some(from) = from {
        snapshot.title = format!("{}, from {}", snapshot.title, from.title);
        if let Some(pod) = from.pod {
            let metadata = &pod["metadata"];
            let name = format!("{}/{}", word(&metadata["namespace"]), word(&metadata["name"]));
            let traced = match target {
                Target::Pod { name } => snapshot.observed.pods.get(&format!("{namespace}/{name}")),
                Target::Service { .. } | Target::Address { .. } => None,
            };
            snapshot.connections = connections(&pod, &snapshot.observed, traced);
            snapshot.observed.pods.insert(name, pod);
        }
    }
    reader.policies(&mut snapshot).await?;
    let traced = &snapshot.observed.services;
    snapshot.notes.extend(traced.iter().filter_map(|traced| without_rules(&traced.service)));
    Ok(snapshot)
}

/// The connections of a pod that are traced, as the proxy takes them: to the endpoints of Services,
/// and to what a traced pod's containers say they serve. Policies do not
/// select a pod with the network of its node.
fn connections(from: &Value, observed: &Observed, traced: Option<&Value>) -> Vec<String> {
    if from["spec"]["hostNetwork"] == true {
        return Vec::new();
    }
    let mut found: BTreeSet<(IpAddr, IpAddr, String, u16)> = BTreeSet::new();
    for source in addresses(from) {
        for Traced { service, slices, frontends } in &observed.services {
            let headless = frontends.is_empty();
            let ports = items(&service["spec"]["ports"]);
            for port in ports.filter(|port| headless || frontends.iter().any(|f| f.port == **port))
            {
                let endpoints = Port::new(service, port, slices, source.is_ipv6()).endpoints;
                let counts = |ip: &IpAddr| {
                    observed.pod.as_ref().is_none_or(|addresses| addresses.contains(ip))
                };
                let counted = endpoints.keys().filter(|(ip, _)| counts(ip));
                let protocol = or(&port["protocol"], "TCP");
                found.extend(counted.map(|(ip, port)| (source, *ip, protocol.clone(), *port)));
            }
        }
        let Some(traced) = traced else { continue };
        let ports = items(&traced["spec"]["containers"]).flat_map(|one| items(&one["ports"]));
        for port in ports {
            let number = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
            let protocol = or(&port["protocol"], "TCP");
            let same_family = addresses(traced).filter(|ip| ip.is_ipv6() == source.is_ipv6());
            found
                .extend(same_family.filter_map(|ip| Some((source, ip, protocol.clone(), number?))));
        }
    }
    let shown = |(source, ip, protocol, port): (IpAddr, IpAddr, String, u16)| {
        format!("{source}-{ip}-{protocol}-{port}")
    };
    found.into_iter().map(shown).take(CONNECTIONS_MAX).collect()
}

fn addresses(pod: &Value) -> impl Iterator<Item = IpAddr> {
    items(&pod["status"]["podIPs"]).filter_map(|one| word(&one["ip"]).parse().ok())
}

impl Reader<'_> {
    async fn get(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let resource = self.resources.find(kind)?;
        let object = self.client.get_object(resource.target(namespace, name, "")).await?;
        serde_json::from_slice(&object.json).context("the server's object is not JSON")
    }

    async fn list(
        &self,
        kind: &str,
        namespace: &str,
        label_selector: String,
    ) -> anyhow::Result<Vec<Value>> {
        let target = Some(self.resources.find(kind)?.target(namespace, "", ""));
        let request = ListRequest { target, label_selector, ..Default::default() };
        list_values(self.client, request).await
    }

    async fn from(&self, text: &str, namespace: &str) -> anyhow::Result<From> {
        let wrong = || usage("trace", format!("--from {text:?} is not pod/NAME or node/NAME"));
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        match self.resources.find(kind)?.kind.as_str() {
            "Node" => {
                self.get("nodes", "", name).await?;
                let (title, node) = (format!("node {name}"), name.to_owned());
                Ok(From { title, node, pod: None })
            }
            "Pod" => {
                let pod = self.get("pods", namespace, name).await?;
                let node = word(&pod["spec"]["nodeName"]);
                if node.is_empty() {
                    bail!("pod {name} is on no node yet");
                }
                let ip = or(&pod["status"]["podIP"], "no address yet");
                let title = format!("pod {namespace}/{name} ({ip}) on {node}");
                Ok(From { title, node, pod: Some(pod) })
            }
            _ => Err(wrong()),
        }
    }

    async fn slices(&self, service: &Value) -> anyhow::Result<Vec<Value>> {
        let metadata = &service["metadata"];
        let selector = format!("{SERVICE_NAME}={}", word(&metadata["name"]));
        let kind = "endpointslices.discovery.k8s.io";
        self.list(kind, &word(&metadata["namespace"]), selector).await
    }

    async fn service(
        &self,
        snapshot: &mut Snapshot,
        namespace: &str,
        name: &str,
        port: Option<&str>,
    ) -> anyhow::Result<()> {
        let service = self.get("services", namespace, name).await?;
        let slices = self.slices(&service).await?;
        let mut traced = Traced::new(service, slices);
        if let Some(port) = port {
            let is = |one: &ServiceFrontend| {
                word(&one.port["name"]) == port || word(&one.port["port"]) == port
            };
            traced.frontends.retain(is);
            if traced.frontends.is_empty() && without_rules(&traced.service).is_none() {
                bail!("service {name} has no port {port}");
            }
        }
        snapshot.title = format!("Service {}", traced.name());
        snapshot.observed.services.push(traced);
        Ok(())
    }

    /// The Services of a pod: those that select it, or have its addresses as endpoints.
    async fn pod(
        &self,
        snapshot: &mut Snapshot,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        let pod = self.get("pods", namespace, name).await?;
        let ips: Vec<IpAddr> = addresses(&pod).collect();
        let selects = |service: &Value| {
            let mut labels = fields(&service["spec"]["selector"]).peekable();
            let of_pod = &pod["metadata"]["labels"];
            labels.peek().is_some() && labels.all(|(key, value)| of_pod[key.as_str()] == *value)
        };
        let has_it = |slice: &&Value| {
            let mut addresses =
                items(&slice["endpoints"]).flat_map(|endpoint| items(&endpoint["addresses"]));
            addresses.any(|one| word(one).parse().is_ok_and(|ip| ips.contains(&ip)))
        };
        let slices = self.list("endpointslices.discovery.k8s.io", namespace, String::new()).await?;
        for service in self.list("services", namespace, String::new()).await? {
            let own = |slice: &&Value| {
                slice["metadata"]["labels"][SERVICE_NAME] == service["metadata"]["name"]
            };
            let own: Vec<Value> = slices.iter().filter(own).cloned().collect();
            if selects(&service) || own.iter().any(|slice| has_it(&slice)) {
                snapshot.observed.services.push(Traced::new(service, own));
            }
        }
        let node = or(&pod["spec"]["nodeName"], "no node");
        let addresses: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        snapshot.title = format!("Pod {namespace}/{name} ({}) on {node}", addresses.join(", "));
        if snapshot.observed.services.is_empty() {
            snapshot.notes.push("no Service selects the pod".to_owned());
        }
        snapshot.observed.pod = Some(ips);
        snapshot.observed.pods.insert(format!("{namespace}/{name}"), pod);
        Ok(())
    }

    /// The Services with that frontend.
    async fn address(
        &self,
        snapshot: &mut Snapshot,
        at: SocketAddr,
        protocol: Option<&str>,
    ) -> anyhow::Result<()> {
        let is_node = snapshot.nodes.iter().any(|node| node.addresses.contains(&at.ip()));
        let matches = |one: &ServiceFrontend| match &one.frontend {
            Frontend::Address { ip, protocol: own, port } => {
                (*ip, *port) == (at.ip(), at.port()) && protocol.is_none_or(|wanted| wanted == own)
            }
            Frontend::NodePort { v6, protocol: own, port } => {
                let here = is_node && at.is_ipv6() == *v6 && at.port() == *port;
                here && protocol.is_none_or(|wanted| wanted == own)
            }
        };
        let text = protocol.map(|protocol| format!("/{protocol}")).unwrap_or_default();
        snapshot.title = format!("Address {at}{text}");
        for service in self.list("services", "", String::new()).await? {
            let mut traced = Traced::new(service, Vec::new());
            traced.frontends.retain(&matches);
            if !traced.frontends.is_empty() {
                traced.slices = self.slices(&traced.service).await?;
                snapshot.observed.services.push(traced);
            }
        }
        if snapshot.observed.services.is_empty() {
            self.stray(snapshot, at, protocol, is_node).await?;
        }
        Ok(())
    }

    /// An address that is no Service's: the tables should have nothing for it.
    async fn stray(
        &self,
        snapshot: &mut Snapshot,
        at: SocketAddr,
        protocol: Option<&str>,
        is_node: bool,
    ) -> anyhow::Result<()> {
        for name in
            ["TCP", "UDP", "SCTP"].iter().filter(|one| protocol.is_none_or(|it| it == **one))
        {
            let (protocol, port) = ((*name).to_owned(), at.port());
            snapshot.observed.stray.push(match is_node {
                true => Frontend::NodePort { v6: at.is_ipv6(), protocol, port },
                false => Frontend::Address { ip: at.ip(), protocol, port },
            });
        }
        snapshot.notes.push("no Service has this address and port".to_owned());
        for pod in self.list("pods", "", String::new()).await? {
            let own = items(&pod["status"]["podIPs"]);
            if own.map(|one| word(&one["ip"])).any(|ip| ip.parse() == Ok(at.ip())) {
                let metadata = &pod["metadata"];
                let name = format!("{}/{}", word(&metadata["namespace"]), word(&metadata["name"]));
                let node = word(&pod["spec"]["nodeName"]);
                snapshot.notes.push(format!(
                    "it is the address of pod {name} on {node}, which clients reach without rules"
                ));
                snapshot.observed.pods.insert(name, pod);
            }
        }
        Ok(())
    }

    /// The pods behind the Services.
    async fn pods(&self, snapshot: &mut Snapshot) -> anyhow::Result<()> {
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for traced in &snapshot.observed.services {
            let namespace = word(&traced.service["metadata"]["namespace"]);
            let of_slice = traced.slices.iter().flat_map(|slice| items(&slice["endpoints"]));
            let targets = of_slice.map(|endpoint| &endpoint["targetRef"]);
            let pods = targets.filter(|target| target["kind"] == "Pod");
            wanted.entry(namespace).or_default().extend(pods.map(|target| word(&target["name"])));
        }
        for (namespace, names) in wanted.iter().filter(|_| snapshot.observed.pod.is_none()) {
            for pod in self.list("pods", namespace, String::new()).await? {
                let name = word(&pod["metadata"]["name"]);
                if names.contains(&name) {
                    snapshot.observed.pods.insert(format!("{namespace}/{name}"), pod);
                }
            }
        }
        Ok(())
    }

    async fn policies(&self, snapshot: &mut Snapshot) -> anyhow::Result<()> {
        let namespaces: BTreeSet<String> = snapshot
            .observed
            .pods
            .values()
            .map(|pod| word(&pod["metadata"]["namespace"]))
            .collect();
        for namespace in namespaces {
            let kind = "networkpolicies.networking.k8s.io";
            let found = self.list(kind, &namespace, String::new()).await?;
            snapshot.observed.policies.extend(found);
        }
        Ok(())
    }
}
