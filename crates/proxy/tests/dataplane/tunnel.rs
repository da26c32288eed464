//! Nodes on different links, with a router between them that has no routes to pods.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy::model::Node;
use proxy::routes;

use crate::cluster::{Proxy, service, tcp};
use crate::netns::Netns;

pub const NODES: [&str; 2] = ["192.168.7.11", "192.168.8.12"];

/// A node with one pod, 10.244.<index>.1, behind the router.
pub fn node(index: usize, router: &Netns) -> (Netns, Netns) {
    let (node, pod) = (Netns::new(), Netns::new());
    let net = 7 + index;
    node.ip(&format!("link add up0 type veth peer name node{index} netns {}", router.tid()));
    node.ip(&format!("address add {}/24 dev up0", NODES[index]));
    node.ip("link set up0 up");
    node.ip(&format!("route add default via 192.168.{net}.1"));
    router.ip(&format!("address add 192.168.{net}.1/24 dev node{index}"));
    router.ip(&format!("link set node{index} up"));
    node.ip(&format!("link add veth1 type veth peer name eth0 netns {}", pod.tid()));
    node.ip("link set veth1 up");
    node.sysctl("ipv4/ip_forward", "1");
    node.sysctl("ipv4/conf/veth1/proxy_arp", "1");
    node.sysctl("ipv4/conf/all/rp_filter", "1");
    pod.ip("link set eth0 up");
    pod.ip(&format!("address add 10.244.{index}.1/32 dev eth0"));
    pod.ip("route add 169.254.1.1 dev eth0");
    pod.ip("route add default via 169.254.1.1 dev eth0");
    node.ip(&format!("route add 10.244.{index}.1 dev veth1 src {}", NODES[index]));
    (node, pod)
}

pub fn objects() -> Vec<(&'static str, Node)> {
    let object = |index: usize| Node {
        pod_cidrs: vec![format!("10.244.{index}.0/24").parse().unwrap()],
        internal_ips: vec![NODES[index].parse().unwrap()],
        ..Node::default()
    };
    vec![("a", object(0)), ("b", object(1))]
}

pub fn sync(node: &Netns, own_name: &'static str, objects: Vec<(&'static str, Node)>) {
    node.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let nodes: BTreeMap<&str, &Node> =
            objects.iter().map(|(name, node)| (*name, node)).collect();
        runtime.block_on(routes::sync(own_name, &nodes)).unwrap();
    });
}

#[test]
fn pods_and_services_through_the_tunnel() {
    let router = Netns::new();
    router.sysctl("ipv4/ip_forward", "1");
    let (a, pod_a) = node(0, &router);
    let (b, pod_b) = node(1, &router);
    for _ in 0..2 {
        sync(&a, "a", objects());
        sync(&b, "b", objects());
    }
    assert_eq!(
        a.ip("route show proto 173").trim(),
        "10.244.1.0/24 via 10.244.1.0 dev skiff-vxlan src 10.244.0.0 onlink"
    );
    pod_a.serve("0.0.0.0:8080", "a");
    pod_b.serve("0.0.0.0:8080", "b");
    assert_eq!(pod_a.ask("10.244.1.1:8080").unwrap(), "b 10.244.0.1");
    assert_eq!(pod_b.ask("10.244.0.1:8080").unwrap(), "a 10.244.1.1");
    assert_eq!(a.ask("10.244.1.1:8080").unwrap(), "b 10.244.0.0");

    let mut proxy = a.run(|| Proxy::start(0));
    objects().iter().for_each(|(name, node)| proxy.apply_node(name, node));
    let mut web = service("web");
    web.ports[0].node_port = Some(30_080);
    proxy.apply(&web, &tcp(&["10.244.1.1"]));
    assert_eq!(pod_a.ask("10.96.0.10:80").unwrap(), "b 10.244.0.1");
    assert_eq!(a.ask("10.96.0.10:80").unwrap(), "b 10.244.0.0");
    assert_eq!(a.ask("127.0.0.1:30080").unwrap(), "b 10.244.0.0");
    assert_eq!(router.ask("192.168.7.11:30080").unwrap(), "b 10.244.0.0");
    assert_eq!(pod_a.ask("192.168.7.11:30080").unwrap(), "b 10.244.0.0");
    let udp = pod_b.udp("10.244.0.1:8080").ask(Duration::from_secs(5)).unwrap();
    assert_eq!(udp, "a 10.244.1.1");

    sync(&a, "a", objects().into_iter().take(1).collect());
    assert_eq!(a.ip("route show proto 173"), "");
    assert!(!a.ip("link show").contains("skiff-vxlan"), "no peers, no tunnel");
}
