//! UDP, where conntrack keeps a flow alive as long as the client sends.

use std::time::Duration;

use proxy::table::Protocol;

use crate::cluster::{Cluster, port, service, slice};
use crate::netns::{DROP_TIMEOUT, UdpFlow};

/// Pods a and c on node 0 (10.244.0.1, .2), b on node 1 (10.244.1.1); a and b serve.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[("a", 0), ("c", 0), ("b", 1)]);
    cluster.pod("a").serve("0.0.0.0:8080", "a");
    cluster.pod("b").serve("0.0.0.0:8080", "b");
    cluster
}

fn ask(flow: &UdpFlow) -> String {
    flow.ask(Duration::from_secs(5)).unwrap()
}

#[test]
fn a_flow_follows_its_service() {
    let mut cluster = cluster();
    let mut dns = service("dns");
    dns.ports = vec![port("dns", Protocol::Udp, 53), port("dns-tcp", Protocol::Tcp, 53)];
    dns.ports[0].node_port = Some(30_053);
    let udp = |ips: &[&str]| slice("dns", "dns", Protocol::Udp, ips);
    let tcp = slice("dns", "dns-tcp", Protocol::Tcp, &["10.244.0.1"]);
    let flow = cluster.pod("c").udp("10.96.0.10:53");
    let node_port = cluster.machine.udp("192.168.7.11:30053");
    // No endpoints yet: rejected, and no entry remains that would later keep the flow from its
    // endpoint.
    cluster.apply(&dns, &[]);
    assert!(flow.ask(DROP_TIMEOUT).is_err());
    cluster.apply(&dns, &[udp(&["10.244.0.1"]), tcp.clone()]);
    assert_eq!(ask(&flow), "a 10.244.0.2");
    assert_eq!(ask(&node_port), "a 192.168.7.11");
    cluster.apply(&dns, &[udp(&["10.244.1.1"]), tcp.clone()]);
    assert_eq!(ask(&flow), "b 10.244.0.2");
    assert_eq!(ask(&node_port), "b 192.168.7.11");
    // A second endpoint does not move the flow.
    cluster.apply(&dns, &[udp(&["10.244.0.1", "10.244.1.1"]), tcp.clone()]);
    for _ in 0..20 {
        assert_eq!(ask(&flow), "b 10.244.0.2");
    }
    // The UDP port is removed, the TCP port with the same number stays.
    dns.ports.remove(0);
    cluster.apply(&dns, &[tcp]);
    assert!(flow.ask(DROP_TIMEOUT).is_err());
    assert!(node_port.ask(DROP_TIMEOUT).is_err());
    assert_eq!(cluster.pod("c").who("10.96.0.10:53"), "a");
}

#[test]
fn a_flow_older_than_the_service_is_redirected() {
    let mut cluster = cluster();
    let flow = cluster.pod("c").udp("10.96.0.10:53");
    let host = cluster.pod("c").udp("192.168.7.11:30053");
    assert!(flow.ask(DROP_TIMEOUT).is_err());
    assert!(host.ask(DROP_TIMEOUT).is_err());
    let mut dns = service("dns");
    dns.ports = vec![port("", Protocol::Udp, 53)];
    cluster.apply(&dns, &[slice("dns", "", Protocol::Udp, &["10.244.0.1"])]);
    assert_eq!(ask(&flow), "a 10.244.0.2");
}
