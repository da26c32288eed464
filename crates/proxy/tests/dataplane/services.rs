//! Basic functions: cluster IPs, node ports, external addresses, host ports.

use std::io::ErrorKind;

use proxy::model::{HostPort, Pod};
use proxy::table::Protocol;

use crate::cluster::{Cluster, MACHINE, NODES, answers, port, service, set, slice, tcp};
use crate::netns::{DROP_TIMEOUT, Netns};

/// Pods a and c on node 0 (10.244.0.1, .2), b on node 1 (10.244.1.1); a and b serve.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[("a", 0), ("c", 0), ("b", 1)]);
    cluster.pod("a").serve("0.0.0.0:8080", "a");
    cluster.pod("b").serve("0.0.0.0:8080", "b");
    cluster
}

#[test]
fn cluster_ip_from_pods_nodes_and_outside() {
    let mut cluster = cluster();
    cluster.apply(&service("web"), &tcp(&["10.244.0.1", "10.244.1.1"]));
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&["a", "b"]));
    assert_eq!(answers(cluster.pod("b"), "10.96.0.10:80"), set(&["a", "b"]));
    assert_eq!(answers(&cluster.nodes[0].netns, "10.96.0.10:80"), set(&["a", "b"]));
    assert_eq!(answers(&cluster.machine, "10.96.0.10:80"), set(&["a", "b"]));
    let only_a = tcp(&["10.244.0.1"]);
    cluster.apply(&service("web"), &only_a);
    assert_eq!(cluster.pod("c").ask("10.96.0.10:80").unwrap(), "a 10.244.0.2");
    assert_eq!(cluster.pod("b").ask("10.96.0.10:80").unwrap(), "a 10.244.1.1");
    let outside = cluster.machine.ask("10.96.0.10:80").unwrap();
    assert_eq!(outside, format!("a {}", NODES[0]), "traffic from outside is masqueraded");
    let hairpin = cluster.pod("a").ask("10.96.0.10:80").unwrap();
    assert_eq!(hairpin, format!("a {}", NODES[0]), "a pod reaches itself through its Service");
    let refused = cluster.pod("c").ask("10.96.0.10:81").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn without_endpoints_connections_are_refused() {
    let mut cluster = cluster();
    let mut web = service("web");
    web.ports[0].node_port = Some(30_080);
    cluster.apply(&web, &[]);
    let node_port = format!("{}:30080", NODES[0]);
    for (from, address) in [
        (cluster.pod("c"), "10.96.0.10:80"),
        (&cluster.nodes[0].netns, "10.96.0.10:80"),
        (&cluster.machine, "10.96.0.10:80"),
        (&cluster.machine, &*node_port),
        (&cluster.nodes[0].netns, "127.0.0.1:30080"),
    ] {
        let error = from.ask(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}: {error}");
    }
    cluster.apply(&web, &tcp(&["10.244.0.1"]));
    assert_eq!(cluster.pod("c").who("10.96.0.10:80"), "a");
    assert_eq!(cluster.machine.who(&node_port), "a");
}

#[test]
fn node_ports_on_every_address_of_every_node() {
    let mut cluster = cluster();
    let mut web = service("web");
    web.ports[0].node_port = Some(30_080);
    cluster.apply(&web, &tcp(&["10.244.0.1", "10.244.1.1"]));
    let both = set(&["a", "b"]);
    for node in NODES {
        let address = format!("{node}:30080");
        assert_eq!(answers(&cluster.machine, &address), both);
        assert_eq!(answers(cluster.pod("c"), &address), both);
        assert_eq!(answers(&cluster.nodes[0].netns, &address), both);
    }
    assert_eq!(answers(&cluster.nodes[0].netns, "127.0.0.1:30080"), both);
    web.ports[0].node_port = None;
    cluster.apply(&web, &tcp(&["10.244.0.1", "10.244.1.1"]));
    let gone = cluster.machine.ask(&format!("{}:30080", NODES[0])).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), both);
}

#[test]
fn external_addresses_and_source_ranges() {
    let mut cluster = cluster();
    let mut web = service("web");
    web.external_ips = vec!["203.0.113.1".parse().unwrap()];
    web.load_balancer_ips = vec!["203.0.113.2".parse().unwrap()];
    cluster.apply(&web, &tcp(&["10.244.1.1"]));
    for address in ["203.0.113.1:80", "203.0.113.2:80"] {
        assert_eq!(cluster.machine.who(address), "b");
        assert_eq!(cluster.pod("c").who(address), "b");
        assert_eq!(cluster.nodes[0].netns.who(address), "b");
    }
    web.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    cluster.apply(&web, &tcp(&["10.244.1.1"]));
    assert_eq!(cluster.machine.who("203.0.113.1:80"), "b");
    let dropped = cluster.machine.ask("203.0.113.2:80").unwrap_err();
    assert_eq!(dropped.kind(), ErrorKind::TimedOut, "{dropped}");
    web.source_ranges.push(format!("{MACHINE}/32").parse().unwrap());
    cluster.apply(&web, &tcp(&["10.244.1.1"]));
    assert_eq!(cluster.machine.who("203.0.113.2:80"), "b");
}

#[test]
fn external_addresses_for_datagrams() {
    let mut cluster = cluster();
    let mut dns = service("dns");
    dns.ports = vec![port("", Protocol::Udp, 53)];
    dns.external_ips = vec!["203.0.113.1".parse().unwrap()];
    dns.load_balancer_ips = vec!["203.0.113.2".parse().unwrap()];
    let endpoints = [slice("dns", "", Protocol::Udp, &["10.244.1.1"])];
    cluster.apply(&dns, &endpoints);
    let ask = |from: &Netns, ip: &str| from.udp(&format!("{ip}:53")).ask(DROP_TIMEOUT);
    for ip in ["203.0.113.1", "203.0.113.2"] {
        // Whoever asks, the answer goes through the node that the packets arrive at.
        assert_eq!(ask(&cluster.machine, ip).unwrap(), format!("b {}", NODES[0]));
        assert_eq!(ask(cluster.pod("c"), ip).unwrap(), format!("b {}", NODES[0]));
        assert!(ask(&cluster.nodes[0].netns, ip).unwrap().starts_with("b "));
    }
    assert!(cluster.machine.ask("203.0.113.2:53").is_err(), "TCP has another Service");
    // Answers of this Service have to be let through again, too.
    dns.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    cluster.apply(&dns, &endpoints);
    assert!(ask(&cluster.machine, "203.0.113.1").is_ok());
    assert!(ask(&cluster.machine, "203.0.113.2").is_err());
    dns.source_ranges.push(format!("{MACHINE}/32").parse().unwrap());
    cluster.apply(&dns, &endpoints);
    assert!(ask(&cluster.machine, "203.0.113.2").is_ok());
}

#[test]
fn several_ports_with_names_and_protocols() {
    let mut cluster = cluster();
    cluster.pod("a").serve("0.0.0.0:9090", "a-metrics");
    let mut web = service("web");
    web.ports = vec![
        port("http", Protocol::Tcp, 80),
        port("metrics", Protocol::Tcp, 9000),
        port("dns-tcp", Protocol::Tcp, 53),
        port("dns", Protocol::Udp, 53),
        port("sctp", Protocol::Sctp, 80),
    ];
    let mut metrics = slice("web", "metrics", Protocol::Tcp, &["10.244.0.1"]);
    metrics.ports[0].port = 9090;
    let slices = [
        slice("web", "http", Protocol::Tcp, &["10.244.0.1"]),
        metrics,
        slice("web", "dns-tcp", Protocol::Tcp, &["10.244.0.1"]),
        slice("web", "dns", Protocol::Udp, &["10.244.1.1"]),
        slice("web", "sctp", Protocol::Sctp, &["10.244.1.1"]),
    ];
    cluster.apply(&web, &slices);
    let client = cluster.pod("c");
    assert_eq!(client.who("10.96.0.10:80"), "a");
    assert_eq!(client.who("10.96.0.10:9000"), "a-metrics");
    assert_eq!(client.who("10.96.0.10:53"), "a");
    let answer = client.udp("10.96.0.10:53").ask(std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(answer, "b 10.244.0.2");
}

#[test]
fn dual_stack() {
    let mut cluster = cluster();
    cluster.pod("a").serve("[fd00:244::1]:8080", "a6");
    let mut web = service("web");
    web.cluster_ips.push("fd00:96::10".parse().unwrap());
    let ips = ["fd00:244::1"];
    let mut slices = tcp(&["10.244.0.1"]);
    slices.push(slice("web", "", Protocol::Tcp, &ips));
    cluster.nodes[0].proxy.apply(&web, &slices);
    // The pods' addresses are fd00:244::0:1 (a) and fd00:244::0:2 (c).
    assert_eq!(cluster.pod("c").ask("[fd00:96::10]:80").unwrap(), "a6 fd00:244::2");
    assert_eq!(cluster.pod("c").who("10.96.0.10:80"), "a");
    let refused = cluster.pod("c").ask("[fd00:96::10]:81").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn host_ports() {
    let mut cluster = cluster();
    let host_port = |host_ip: Option<&str>, protocol| HostPort {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        protocol,
        host_port: 54_323,
        container_port: 8080,
    };
    let pod =
        |ip: &str, host_ports| Pod { ips: vec![ip.parse().unwrap()], host_ports, ..Pod::default() };
    cluster.pod("c").serve("0.0.0.0:8080", "c");
    let node = &mut cluster.nodes[0];
    node.proxy.apply_pod(
        "default/a",
        &pod("10.244.0.1", vec![host_port(Some("127.0.0.1"), Protocol::Tcp)]),
    );
    node.proxy.apply_pod(
        "default/c",
        &pod(
            "10.244.0.2",
            vec![host_port(Some(NODES[0]), Protocol::Tcp), host_port(None, Protocol::Udp)],
        ),
    );
    let address = format!("{}:54323", NODES[0]);
    assert_eq!(node.netns.who("127.0.0.1:54323"), "a");
    assert_eq!(node.netns.who(&address), "c");
    assert_eq!(from_address(&node.netns, NODES[0], "127.0.0.1:54323"), "a");
    assert_eq!(cluster.machine.ask(&address).unwrap(), format!("c {MACHINE}"));
    assert_eq!(cluster.pod("a").who(&address), "c");
    assert_eq!(cluster.pod("c").who(&address), "c", "a pod reaches itself through its host port");
    let udp = cluster.machine.udp(&address).ask(std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(udp, format!("c {MACHINE}"));
    let node = &mut cluster.nodes[0];
    node.proxy.apply_pod("default/c", &Pod::default());
    let gone = cluster.machine.ask(&address).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
}

/// Connects from one of the node's addresses, like `curl --interface`.
fn from_address(netns: &Netns, source: &str, address: &str) -> String {
    let (source, address): (std::net::IpAddr, std::net::SocketAddr) =
        (source.parse().unwrap(), address.parse().unwrap());
    let bound = netns.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(std::net::SocketAddr::new(source, 0))?;
            let stream = socket.connect(address).await?;
            stream.writable().await?;
            stream.try_write(b"?")?;
            stream.readable().await?;
            let mut buffer = [0; 64];
            let length = stream.try_read(&mut buffer)?;
            std::io::Result::Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    });
    let answer = bound.expect("connected");
    answer.split(' ').next().unwrap().to_owned()
}

#[test]
fn traffic_leaving_the_cluster_is_masqueraded() {
    let cluster = cluster();
    cluster.machine.serve("0.0.0.0:8080", "machine");
    let answer = cluster.pod("a").ask(&format!("{MACHINE}:8080")).unwrap();
    assert_eq!(answer, format!("machine {}", NODES[0]));
    cluster.pod("c").serve("0.0.0.0:8080", "c");
    assert_eq!(cluster.pod("b").ask("10.244.0.2:8080").unwrap(), "c 10.244.1.1");
}

#[test]
fn the_loopback_range_is_unreachable_from_outside() {
    let cluster = cluster();
    cluster.nodes[0].netns.serve("127.9.0.1:8080", "secret");
    cluster.machine.ip("route del local 127.0.0.0/8 table local");
    let route = format!("route add 127.9.0.0/16 via {} src {MACHINE}", NODES[0]);
    cluster.machine.ip(&route);
    cluster.machine.sysctl("ipv4/conf/all/route_localnet", "1");
    let error = cluster.machine.ask("127.9.0.1:8080").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}
