//! NetworkPolicies with real packets.

use std::io::Write;
use std::net::IpAddr;

use client::mirror::Name;
use k8s_openapi::api::core::v1 as core;
use proxy::model::Pod;
use proxy::policy::cut;
use proxy::policy::model::Policy;
use proxy::table::{LinkName, Protocol};
use serde_json::{Value, json};

use crate::cluster::{Cluster, MACHINE, NODES, service, slice, tcp};
use crate::netns::{DROP_TIMEOUT, Netns};
use crate::probe::{self, Arrivals, Probe, TIMEOUT};
use crate::reference::{Attempt, Random, World, decode};

const PORTS: [u16; 2] = [8080, 8081];
/// Pods by name in the netns cluster: node, and number on the node.
const PODS: [(&str, usize, usize); 6] =
    [("x/p", 0, 1), ("x/q", 0, 2), ("y/p", 0, 3), ("y/q", 1, 1), ("z/p", 1, 2), ("z/q", 1, 3)];
/// A pod with the network of node 0, which has the node's address and is none to policies.
const HOST_POD: &str = "x/host";

struct Policed {
    cluster: Cluster,
    world: World,
    arrivals: Arrivals,
}

impl Policed {
    /// All pods serve all ports, and are known; the machine has a route to them.
    fn new() -> Self {
        let pods: Vec<(&'static str, usize)> =
            PODS.iter().map(|(name, node, _)| (*name, *node)).collect();
        let cluster = Cluster::new(&pods);
        for (node, ip) in NODES.iter().enumerate() {
            cluster.machine.ip(&format!("route add 10.244.{node}.0/24 via {ip}"));
        }
        for port in PORTS {
            for (name, ..) in PODS {
                cluster.pod(name).serve(&format!("[::]:{port}"), name);
            }
            cluster.machine.serve(&format!("0.0.0.0:{port}"), "machine");
            for node in &cluster.nodes {
                node.netns.serve(&format!("0.0.0.0:{port}"), "node");
            }
        }
        let arrivals = Arrivals::default();
        let pods = PODS.iter().map(|(name, ..)| cluster.pod(name));
        let nodes = cluster.nodes.iter().map(|node| &node.netns);
        for netns in pods.chain(nodes).chain([&cluster.machine]) {
            arrivals.listen(netns);
        }
        Self { cluster, world: World::default(), arrivals }
    }

    /// Everybody hears about a change.
    fn set_pod(&mut self, name: &str, pod: core::Pod) {
        let (_, own_node, number) = *PODS.iter().find(|(one, ..)| *one == name).unwrap();
        let mut reduced = Pod::from_object(&pod);
        reduced.link = Some(LinkName::new(&format!("veth{number}")));
        let key: Name = name.into();
        for (index, node) in self.cluster.nodes.iter_mut().enumerate() {
            node.proxy.change_policies(|policies| {
                policies.set_pod(&key, Some(&reduced));
                policies.set_local(&key, Some(&reduced).filter(|_| index == own_node));
            });
        }
        self.world.pods.insert(name.into(), pod);
    }

    fn set_policies(&mut self, policies: Vec<k8s_openapi::api::networking::v1::NetworkPolicy>) {
        let named = |policy: k8s_openapi::api::networking::v1::NetworkPolicy| {
            let metadata = &policy.metadata;
            let name = format!(
                "{}/{}",
                metadata.namespace.as_deref().unwrap(),
                metadata.name.as_deref().unwrap()
            );
            (name, policy)
        };
        let before = std::mem::take(&mut self.world.policies);
        self.world.policies = policies.into_iter().map(named).collect();
        for node in &mut self.cluster.nodes {
            node.proxy.change_policies(|policies| {
                for name in before.keys() {
                    policies.set_policy(&name.as_str().into(), None);
                }
                for (name, policy) in &self.world.policies {
                    let policy = Policy::from_object(policy);
                    policies.set_policy(&name.as_str().into(), Some(policy));
                }
            });
        }
    }

    fn set_namespace(&mut self, name: &str, random: &mut Random) {
        let labels = random.namespace(name);
        for node in &mut self.cluster.nodes {
            node.proxy.change_policies(|policies| {
                policies.set_namespace(name, Some(labels.clone().into()));
            });
        }
        self.world.namespaces.insert(name.into(), labels);
    }

    fn set_all(&mut self, random: &mut Random) {
        for namespace in ["x", "y", "z"] {
            self.set_namespace(namespace, random);
        }
        for (name, node, number) in PODS {
            let pod = random.pod(name, node, number);
            self.set_pod(name, pod);
        }
        self.set_host_pod(random);
    }

    fn set_host_pod(&mut self, random: &mut Random) {
        let mut pod = random.pod(HOST_POD, 0, 9);
        pod.spec.as_mut().unwrap().host_network = Some(true);
        let ips = json!([{"ip": NODES[0]}]);
        pod.status.as_mut().unwrap().pod_ips = serde_json::from_value(ips).unwrap();
        let reduced = Pod::from_object(&pod);
        for (index, node) in self.cluster.nodes.iter_mut().enumerate() {
            node.proxy.change_policies(|policies| {
                policies.set_pod(&HOST_POD.into(), Some(&reduced));
                policies.set_local(&HOST_POD.into(), Some(&reduced).filter(|_| index == 0));
            });
        }
        self.world.pods.insert(HOST_POD.into(), pod);
    }

    /// Cuts the connections of a node that are not allowed; returns their number.
    fn cut(&mut self, node: usize) -> usize {
        let node = &mut self.cluster.nodes[node];
        let own = node.netns.run(|| cut::own_addresses().unwrap());
        assert!(own.len() > 2, "{own:?}");
        node.proxy.applier.cut_connections(&node.proxy.policies, &own).unwrap()
    }

    /// Attempts all connections at once, and compares with the reference.
    fn probe(&mut self) -> (usize, usize) {
        // Clients may use ports again that earlier ones have used.
        for node in 0..NODES.len() {
            self.cut(node);
        }
        let v4 = |node: usize, number: usize| format!("10.244.{node}.{number}").parse().unwrap();
        let v6 = |node: usize, number: usize| format!("fd00:244::{node}:{number}").parse().unwrap();
        let machine: IpAddr = MACHINE.parse().unwrap();
        let nodes = NODES.map(|ip| -> IpAddr { ip.parse().unwrap() });
        // Between a node and its own pods, everything is allowed.
        let within_node = |source: IpAddr, destination: IpAddr| {
            PODS.iter().any(|(_, node, number)| {
                let ends = [v4(*node, *number), nodes[*node]];
                ends == [source, destination] || ends == [destination, source]
            })
        };
        let mut sources: Vec<(&Netns, Vec<Probe>)> = Vec::new();
        let mut add = |netns, ips: Vec<(IpAddr, IpAddr)>| {
            let mut probes = Vec::new();
            for (source, destination) in ips {
                for port in PORTS {
                    for protocol in ["TCP", "UDP", "SCTP"] {
                        let attempt = Attempt { source, destination, protocol, port };
                        let allowed =
                            within_node(source, destination) || self.world.allows(&attempt);
                        probes.push(Probe { to: (destination, port).into(), protocol, allowed });
                    }
                }
            }
            sources.push((netns, probes));
        };
        for (name, node, number) in PODS {
            let outside = [machine, nodes[0], nodes[1]];
            let mut ips: Vec<_> = outside.map(|ip| (v4(node, number), ip)).into();
            for (other, other_node, other_number) in PODS {
                if name != other {
                    ips.push((v4(node, number), v4(other_node, other_number)));
                    // The nodes have no IPv6 between them.
                    if node == other_node {
                        ips.push((v6(node, number), v6(other_node, other_number)));
                    }
                }
            }
            add(self.cluster.pod(name), ips);
        }
        let from = |ip: IpAddr| PODS.map(|(_, node, number)| (ip, v4(node, number))).to_vec();
        add(&self.cluster.machine, from(machine));
        for (node, ip) in self.cluster.nodes.iter().zip(nodes) {
            add(&node.netns, from(ip));
        }
        let count =
            |probes: &[Probe]| (probes.iter().filter(|probe| probe.allowed).count(), probes.len());
        let counts = sources.iter().map(|(_, probes)| count(probes));
        let total = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let arrivals = &self.arrivals;
            let run = |(netns, probes): (&Netns, Vec<Probe>)| {
                let arrivals = arrivals.clone();
                netns.run(move || probe::run(&probes, &arrivals))
            };
            let threads: Vec<_> =
                sources.into_iter().map(|source| scope.spawn(move || run(source))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(wrong.is_empty(), "{wrong:#?} in {:#?}", self.world);
        total
    }
}

/// Every pair of pods, the nodes and the machine, over TCP, UDP and SCTP, in generated policies.
#[test]
fn packets_pass_as_documented() {
    let mut policed = Policed::new();
    let mut random = Random(7);
    policed.set_all(&mut random);
    let open = policed.probe();
    assert_eq!(open.0, open.1, "everything is allowed without policies");
    let (mut allowed, mut total) = (0, 0);
    for round in 0..24 {
        let names = ["x/a", "x/b", "y/a", "y/b", "z/a", "z/b"];
        let count = 1 + random.below(names.len());
        let policies = names[..count].iter().map(|name| random.policy(name)).collect();
        policed.set_policies(policies);
        if round % 3 == 2 {
            policed.set_all(&mut random);
        }
        let (ok, all) = policed.probe();
        (allowed, total) = (allowed + ok, total + all);
    }
    println!("{allowed} of {total} connections were allowed");
    assert!(allowed > total / 10 && allowed < total * 9 / 10, "the policies make a difference");
    for node in &mut policed.cluster.nodes {
        let changes = node.proxy.applier.resync(&node.proxy.desired).unwrap();
        assert!(changes.is_empty(), "the tables are as planned: {changes:?}");
    }
    policed.set_policies(Vec::new());
    let open = policed.probe();
    assert_eq!(open.0, open.1, "everything is allowed again");
}

fn policy(namespace: &str, spec: Value) -> k8s_openapi::api::networking::v1::NetworkPolicy {
    decode(json!({"metadata": {"namespace": namespace, "name": "test"}, "spec": spec}))
}

fn closed(types: &[&str]) -> Value {
    json!({"podSelector": {}, "policyTypes": types})
}

#[test]
fn the_own_node_and_the_pod_itself_are_always_allowed() {
    let mut policed = Policed::new();
    policed.set_all(&mut Random(1));
    policed.set_policies(vec![policy("x", closed(&["Ingress", "Egress"]))]);
    let web = service("web");
    policed.cluster.apply(&web, &tcp(&["10.244.0.1"]));
    let cluster = &policed.cluster;
    cluster.nodes[0].netns.serve("192.168.7.11:9090", "node");
    cluster.nodes[1].netns.serve("192.168.7.12:9090", "other");
    assert_eq!(cluster.nodes[0].netns.who("10.244.0.1:8080"), "x/p", "like probes of the kubelet");
    assert_eq!(cluster.nodes[0].netns.who("10.96.0.10:80"), "x/p", "a process of the node");
    assert_eq!(cluster.pod("x/p").who("192.168.7.11:9090"), "node");
    assert_eq!(cluster.pod("x/p").who("10.96.0.10:80"), "x/p", "itself, through a Service");
    let refused = |from: &Netns, to: &str| {
        let error = from.ask(to).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{to}: {error}");
    };
    refused(cluster.pod("x/q"), "10.96.0.10:80");
    refused(cluster.pod("x/p"), "192.168.7.12:9090");
    refused(&cluster.nodes[1].netns, "10.244.0.1:8080");
}

/// Services are judged by the endpoint and its port, and by the client.
#[test]
fn services_are_judged_by_their_endpoints() {
    let mut policed = Policed::new();
    policed.set_all(&mut Random(1));
    let mut web = service("web");
    web.ports[0].node_port = Some(30_080);
    policed.cluster.apply(&web, &tcp(&["10.244.1.1"]));
    let to_8080 = |cidr: &str| {
        let ports = json!([{"port": 8080}]);
        json!([{"to": [{"ipBlock": {"cidr": cidr}}], "ports": ports}])
    };
    let egress = |rules: Value| {
        policy("x", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules}))
    };
    policed.set_policies(vec![egress(to_8080("10.244.1.1/32"))]);
    let client = || policed.cluster.pod("x/p").who("10.96.0.10:80");
    assert_eq!(client(), "y/q");
    policed.set_policies(vec![egress(to_8080("10.96.0.0/12"))]);
    let error = policed.cluster.pod("x/p").ask("10.96.0.10:80").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let ingress = |from: &str| {
        let rules = json!([{"from": [{"ipBlock": {"cidr": from}}]}]);
        policy("y", json!({"podSelector": {}, "ingress": rules, "policyTypes": ["Ingress"]}))
    };
    policed.set_policies(vec![ingress("10.244.0.1/32")]);
    assert_eq!(policed.cluster.pod("x/p").who("10.96.0.10:80"), "y/q", "the client's address");
    policed.cluster.pod("x/q").ask("10.96.0.10:80").unwrap_err();
    policed.set_policies(vec![ingress("192.168.7.1/32")]);
    let direct = format!("{}:30080", NODES[1]);
    assert_eq!(policed.cluster.machine.who(&direct), "y/q", "before translation of the source");
}

#[test]
fn connections_that_policies_forbid_are_cut() {
    let mut policed = Policed::new();
    policed.set_all(&mut Random(1));
    let web = service("web");
    policed.cluster.apply(&web, &tcp(&["10.244.0.1"]));
    let cluster = &policed.cluster;
    let mut direct = cluster.pod("x/q").connect("10.244.0.1:8080").unwrap();
    let mut through_service = cluster.pod("y/p").connect("10.96.0.10:80").unwrap();
    let mut from_node = cluster.nodes[0].netns.connect("10.96.0.10:80").unwrap();
    let mut leaving = cluster.pod("x/p").connect(&format!("{MACHINE}:8080")).unwrap();
    let flow = cluster.pod("x/q").udp("10.244.0.1:8080");
    for connection in [&mut direct, &mut through_service, &mut from_node, &mut leaving] {
        connection.ask().unwrap();
    }
    flow.ask(TIMEOUT).unwrap();
    let only_y = json!({
        "podSelector": {}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "y"}
        }}]}]
    });
    policed.set_policies(vec![policy("x", only_y)]);
    assert_eq!(policed.cut(0), 2, "TCP and UDP from x/q");
    assert_eq!(policed.cut(0), 0);
    assert!(direct.ask_within(DROP_TIMEOUT).is_err());
    assert!(flow.ask(DROP_TIMEOUT).is_err());
    for connection in [&mut through_service, &mut from_node, &mut leaving] {
        connection.ask().unwrap();
    }
    policed.set_policies(vec![policy("x", closed(&["Egress"]))]);
    assert!(policed.cut(0) >= 1, "the connection to the machine");
    assert!(leaving.ask_within(DROP_TIMEOUT).is_err());
    through_service.ask().unwrap();
    // Whatever the ends still have to say arrives once it is allowed again.
    policed.set_policies(Vec::new());
    direct.ask_within(TIMEOUT).unwrap();
}

#[test]
fn a_new_pod_is_closed_until_it_is_known() {
    let mut policed = Policed::new();
    policed.set_policies(vec![policy("z", closed(&["Ingress"]))]);
    {
        let cluster = &policed.cluster;
        assert_eq!(cluster.nodes[0].netns.who("10.244.0.1:8080"), "x/p");
        assert!(cluster.pod("x/p").ask("10.244.1.1:8080").is_err(), "from a new pod");
        assert!(cluster.machine.ask("10.244.0.1:8080").is_err(), "to a new pod");
        let flow = cluster.pod("x/p").udp("10.244.0.2:8080");
        assert!(flow.ask(DROP_TIMEOUT).is_err());
    }
    policed.set_all(&mut Random(1));
    policed.cluster.pod("x/p").ask("10.244.1.1:8080").unwrap();
    policed.cluster.machine.ask("10.244.0.1:8080").unwrap();
    assert!(policed.cluster.machine.ask("10.244.1.2:8080").is_err(), "isolated from the start");
    policed.set_policies(Vec::new());
    policed.cluster.machine.ask("10.244.1.2:8080").unwrap();
}

#[test]
fn sctp_is_judged_by_its_ports() {
    let mut policed = Policed::new();
    policed.set_all(&mut Random(1));
    let ports = json!([{"protocol": "SCTP", "port": 7000, "endPort": 7010}]);
    let spec =
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]});
    policed.set_policies(vec![policy("x", spec)]);
    let to = |port: u16| (IpAddr::from([10, 244, 0, 2]), port).into();
    let probes = [(6999, false), (7000, true), (7010, true), (7011, false)]
        .map(|(port, allowed)| Probe { to: to(port), protocol: "SCTP", allowed });
    let arrivals = policed.arrivals.clone();
    let wrong = policed.cluster.pod("x/p").run(move || probe::run(&probes, &arrivals));
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Everything in the tables can be displayed, and damage is repaired.
#[test]
fn tables_with_policies_are_displayed_and_repaired() {
    let mut policed = Policed::new();
    policed.set_all(&mut Random(1));
    let spec = json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [{"podSelector": {}}, {"ipBlock": {
                "cidr": "192.168.0.0/16", "except": ["192.168.1.0/24"]
            }}],
            "ports": [{"port": 80}, {"protocol": "UDP", "port": 1000, "endPort": 65535}]
        }],
        "egress": [{"ports": [{"port": "http"}]}]
    });
    policed.set_policies(vec![policy("x", spec)]);
    let node = &mut policed.cluster.nodes[0];
    let whole = node.netns.nft("list ruleset");
    println!("{whole}");
    assert!(whole.contains("\"veth1\" : goto ingress-"), "links are displayed");
    let chain = whole.lines().find_map(|line| line.trim().strip_prefix("chain ingress-")).unwrap();
    let chain = format!("ingress-{}", chain.trim_end_matches(" {"));
    for damage in [
        "flush chain ip skiff-proxy policy-ingress".to_owned(),
        format!("flush chain ip skiff-proxy {chain}"),
        "flush set ip skiff-proxy peers".to_owned(),
        "flush set ip skiff-proxy peer-ranges".to_owned(),
        "flush set ip skiff-proxy policy-ports".to_owned(),
        "flush set ip skiff-proxy named-peers".to_owned(),
        "flush map ip skiff-proxy guard".to_owned(),
        "flush map ip6 skiff-proxy egress-links".to_owned(),
    ] {
        node.netns.nft(&damage);
        assert!(!node.proxy.applier.resync(&node.proxy.desired).unwrap().is_empty(), "{damage}");
        let changes = node.proxy.applier.resync(&node.proxy.desired).unwrap();
        assert!(changes.is_empty(), "{damage}: {changes:?}");
    }
    let slices = [slice("web", "", Protocol::Tcp, &["10.244.0.1"])];
    policed.cluster.apply(&service("web"), &slices);
    let mut connection = policed.cluster.nodes[0].netns.connect("10.96.0.10:80").unwrap();
    connection.ask().unwrap();
    std::io::stdout().flush().unwrap();
}
