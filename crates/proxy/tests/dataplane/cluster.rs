//! Two nodes and another machine on one link, pods behind routed veths, and a proxy on each node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proxy::Family;
use proxy::apply::Applier;
use proxy::model::{EndpointSlice, Pod, Service, ServicePort, SliceEndpoint, SlicePort};
use proxy::plan::{Changes, Context, Desired, Owner};
use proxy::policy::Policies;
use proxy::table::{Layout, Protocol};

use crate::netns::Netns;

pub const NODES: [&str; 2] = ["192.168.7.11", "192.168.7.12"];
pub const MACHINE: &str = "192.168.7.1";

pub struct Cluster {
    pub machine: Netns,
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub netns: Netns,
    pub pods: BTreeMap<&'static str, Netns>,
    pub proxy: Proxy,
}

/// The proxy of a node without an apiserver: plans and applies the objects it is given.
pub struct Proxy {
    pub applier: Applier,
    pub desired: Desired,
    pub context: Context,
    pub policies: Policies,
    node: usize,
}

pub fn layouts(node: usize) -> Vec<Layout> {
    vec![
        Layout {
            family: Family::V4,
            cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
            node_ip: Some(NODES[node].parse().unwrap()),
        },
        Layout {
            family: Family::V6,
            cluster_cidr: Some("fd00:244::/32".parse().unwrap()),
            node_ip: None,
        },
    ]
}

impl Cluster {
    /// Pods are given as name and node; their addresses are `10.244.<node>.<n>`, in order, with n
    /// starting at 1.
    pub fn new(pods: &[(&'static str, usize)]) -> Self {
        let machine = Netns::new();
        machine.ip("link add br0 type bridge");
        machine.ip(&format!("address add {MACHINE}/24 dev br0"));
        machine.ip("link set br0 up");
        let mut nodes: Vec<Node> = (0..2).map(|node| Node::new(node, &machine)).collect();
        for (index, other) in [(0, 1), (1, 0)] {
            let route = format!("route add 10.244.{other}.0/24 via {}", NODES[other]);
            nodes[index].netns.ip(&route);
        }
        machine.ip(&format!("route add 10.96.0.0/12 via {}", NODES[0]));
        machine.ip(&format!("route add 203.0.113.0/24 via {}", NODES[0]));
        for (name, node) in pods {
            nodes[*node].add_pod(name, *node);
        }
        Self { machine, nodes }
    }

    pub fn pod(&self, name: &str) -> &Netns {
        let found = self.nodes.iter().find_map(|node| node.pods.get(name));
        found.expect("the pod was made")
    }

    /// Applies a Service on both nodes.
    pub fn apply(&mut self, service: &Service, slices: &[EndpointSlice]) {
        for node in &mut self.nodes {
            node.proxy.apply(service, slices);
        }
    }
}

impl Node {
    fn new(index: usize, machine: &Netns) -> Self {
        let netns = Netns::new();
        netns.ip(&format!("link add up0 type veth peer name node{index} netns {}", machine.tid()));
        netns.ip(&format!("address add {}/24 dev up0", NODES[index]));
        netns.ip("link set up0 up");
        netns.ip(&format!("route add default via {MACHINE}"));
        machine.ip(&format!("link set node{index} master br0 up"));
        let proxy = netns.run(move || Proxy::start(index));
        Self { netns, pods: BTreeMap::new(), proxy }
    }

    fn add_pod(&mut self, name: &'static str, node: usize) {
        let pod = Netns::new();
        let number = self.pods.len() + 1;
        let (v4, v6) = (format!("10.244.{node}.{number}"), format!("fd00:244::{node}:{number}"));
        let host = &self.netns;
        let link = format!("veth{number}");
        host.ip(&format!(
            "link add {link} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}",
            pod.tid()
        ));
        host.ip(&format!("link set {link} up"));
        host.sysctl(&format!("ipv4/conf/{link}/rp_filter"), "1");
        host.sysctl(&format!("ipv4/conf/{link}/proxy_arp"), "1");
        pod.ip("link set eth0 up");
        host.ip(&format!("route add {v4} dev {link} src {}", NODES[node]));
        pod.ip(&format!("address add {v4}/32 dev eth0"));
        pod.ip("route add 169.254.1.1 dev eth0");
        pod.ip("neighbour add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0");
        pod.ip("route add default via 169.254.1.1");
        pod.ip(&format!("address add {v6}/128 dev eth0 nodad"));
        pod.ip("neighbour add fe80::1 lladdr ee:ee:ee:ee:ee:ee dev eth0");
        pod.ip("route add default via fe80::1 dev eth0");
        let mac = pod.ip("-oneline link show eth0");
        let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        host.ip(&format!("neighbour add {v6} lladdr {mac} dev {link}"));
        host.ip(&format!("route add {v6} dev {link}"));
        self.pods.insert(name, pod);
    }
}

impl Proxy {
    /// Must be called in the node's namespace.
    pub fn start(node: usize) -> Self {
        proxy::sysctl::prepare(&[Family::V4, Family::V6]).unwrap();
        let mut proxy = Self {
            applier: Applier::open(layouts(node)).unwrap(),
            desired: Desired::default(),
            context: Context { families: vec![Family::V4, Family::V6], ..Context::default() },
            policies: Policies::default(),
            node,
        };
        proxy.applier.resync(&proxy.desired).unwrap();
        proxy
    }

    pub fn apply(&mut self, service: &Service, slices: &[EndpointSlice]) {
        let slices: Vec<EndpointSlice> =
            slices.iter().map(|slice| on_node(slice, self.node)).collect();
        let slices: Vec<&EndpointSlice> = slices.iter().collect();
        let previous = |id: &_| self.desired.get(id);
        let elements = proxy::plan::service(&self.context, service, &slices, &previous);
        let owner = Owner::Service(format!("{}/{}", service.namespace, service.name).into());
        self.replace(&owner, elements);
    }

    pub fn apply_pod(&mut self, name: &str, pod: &Pod) {
        let elements = proxy::plan::pod(&self.context, pod);
        self.replace(&Owner::Pod(name.into()), elements);
    }

    pub fn apply_node(&mut self, name: &str, node: &proxy::model::Node) {
        let elements = proxy::plan::node(&self.context, node);
        self.replace(&Owner::Node(name.into()), elements);
    }

    /// Applies changes of policies, and of the pods that they are about.
    pub fn change_policies(&mut self, change: impl FnOnce(&mut Policies)) {
        change(&mut self.policies);
        let mut changes = Changes::new();
        self.policies.replan(&self.context.families, &mut self.desired, &mut changes);
        self.applier.apply(&self.desired, &changes).unwrap();
    }

    fn replace(&mut self, owner: &Owner, elements: proxy::plan::Elements) {
        let mut changes = Changes::new();
        self.desired.replace(owner, elements, &mut changes);
        self.applier.apply(&self.desired, &changes).unwrap();
        if proxy::conntrack::may_leave_stale_flows(&changes) {
            self.applier.clean_conntrack(&self.desired, &changes).unwrap();
        }
    }
}

/// The node of an endpoint is part of its address.
fn on_node(slice: &EndpointSlice, node: usize) -> EndpointSlice {
    let mut slice = slice.clone();
    for endpoint in &mut slice.endpoints {
        endpoint.local = match endpoint.ip {
            IpAddr::V4(ip) => usize::from(ip.octets()[2]) == node,
            IpAddr::V6(ip) => usize::from(ip.segments()[6]) == node,
        };
    }
    slice
}

/// A Service on port 80 (TCP) of 10.96.0.10.
pub fn service(name: &str) -> Service {
    Service {
        namespace: "default".into(),
        name: name.into(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        ports: vec![port("", Protocol::Tcp, 80)],
        ..Service::default()
    }
}

pub fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port, node_port: None }
}

/// Ready endpoints on port 8080 for the given port name and protocol.
pub fn slice(service: &str, port: &str, protocol: Protocol, ips: &[&str]) -> EndpointSlice {
    let endpoint = |ip: &&str| SliceEndpoint {
        ip: ip.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        local: false,
        for_this_node: None,
        for_zones: Box::default(),
    };
    let endpoints: Vec<SliceEndpoint> = ips.iter().map(endpoint).collect();
    let v6 = endpoints.first().is_some_and(|endpoint| endpoint.ip.is_ipv6());
    EndpointSlice {
        service: format!("default/{service}").into(),
        family: if v6 { Family::V6 } else { Family::V4 },
        ports: vec![SlicePort { name: port.into(), protocol, port: 8080 }],
        endpoints,
    }
}

pub fn tcp(ips: &[&str]) -> Vec<EndpointSlice> {
    vec![slice("web", "", Protocol::Tcp, ips)]
}

/// The servers that answer, over many connections.
pub fn answers(from: &Netns, address: &str) -> BTreeSet<String> {
    (0..40).map(|_| from.who(address)).collect()
}

pub fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
