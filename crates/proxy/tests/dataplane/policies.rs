//! Traffic policies, session affinity, terminating endpoints, established connections.

use std::io::ErrorKind;

use proxy::model::Service;

use crate::cluster::{Cluster, MACHINE, NODES, answers, service, set, tcp};

/// Pods a and c on node 0 (10.244.0.1, .2), b on node 1 (10.244.1.1); all serve.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[("a", 0), ("c", 0), ("b", 1)]);
    for name in ["a", "b", "c"] {
        cluster.pod(name).serve("0.0.0.0:8080", name);
    }
    cluster
}

#[test]
fn external_traffic_policy_local_keeps_the_client() {
    let mut cluster = cluster();
    let mut web = service("web");
    web.ports[0].node_port = Some(30_080);
    web.load_balancer_ips = vec!["203.0.113.2".parse().unwrap()];
    web.external_local = true;
    cluster.apply(&web, &tcp(&["10.244.1.1"]));
    let there = cluster.machine.ask(&format!("{}:30080", NODES[1])).unwrap();
    assert_eq!(there, format!("b {MACHINE}"), "the client's address is kept");
    let here = cluster.machine.ask(&format!("{}:30080", NODES[0])).unwrap_err();
    assert_eq!(here.kind(), ErrorKind::TimedOut, "{here}");
    let balanced = cluster.machine.ask("203.0.113.2:80").unwrap_err();
    assert_eq!(balanced.kind(), ErrorKind::TimedOut, "{balanced}");
    // Inside the cluster the location of the endpoints does not matter.
    for address in ["10.96.0.10:80", "203.0.113.2:80", "192.168.7.11:30080"] {
        assert_eq!(cluster.pod("c").who(address), "b", "{address}");
        assert_eq!(cluster.nodes[0].netns.who(address), "b", "{address}");
    }
    cluster.apply(&web, &tcp(&["10.244.0.1", "10.244.1.1"]));
    assert_eq!(answers(&cluster.machine, "203.0.113.2:80"), set(&["a"]));
    assert_eq!(answers(cluster.pod("c"), "203.0.113.2:80"), set(&["a", "b"]));
}

#[test]
fn internal_traffic_policy_local_stays_on_the_node() {
    let mut cluster = cluster();
    let mut web = service("web");
    web.internal_local = true;
    web.ports[0].node_port = Some(30_080);
    cluster.apply(&web, &tcp(&["10.244.0.1", "10.244.0.2", "10.244.1.1"]));
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&["a", "c"]));
    assert_eq!(answers(cluster.pod("b"), "10.96.0.10:80"), set(&["b"]));
    assert_eq!(answers(&cluster.machine, "192.168.7.11:30080"), set(&["a", "b", "c"]));
    cluster.apply(&web, &tcp(&["10.244.1.1"]));
    let dropped = cluster.pod("c").ask("10.96.0.10:80").unwrap_err();
    assert_eq!(dropped.kind(), ErrorKind::TimedOut, "{dropped}");
}

#[test]
fn session_affinity_holds_until_disabled() {
    let mut cluster = cluster();
    let mut web = service("web");
    web.ports[0].node_port = Some(30_080);
    web.affinity_s = Some(10_800);
    let all = ["10.244.0.1", "10.244.0.2", "10.244.1.1"];
    cluster.apply(&web, &tcp(&all));
    for address in ["10.96.0.10:80", "192.168.7.11:30080"] {
        for client in [cluster.pod("c"), cluster.pod("a"), &cluster.machine] {
            assert_eq!(answers(client, address).len(), 1, "{address}");
        }
    }
    // A restart of the proxy does not change it.
    let first = cluster.pod("c").who("10.96.0.10:80");
    let proxy = &mut cluster.nodes[0].proxy;
    let changes = proxy.applier.resync(&proxy.desired).unwrap();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&[&*first]));
    // Its endpoint goes away and comes back: the client stays with the new one.
    let ip = |name: &str| match name {
        "a" => "10.244.0.1",
        "c" => "10.244.0.2",
        _ => "10.244.1.1",
    };
    let rest: Vec<&str> = all.into_iter().filter(|other| *other != ip(&first)).collect();
    cluster.apply(&web, &tcp(&rest));
    let second = cluster.pod("c").who("10.96.0.10:80");
    assert_ne!(first, second);
    cluster.apply(&web, &tcp(&all));
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&[&*second]));
    // The other endpoints go away: the client stays with its endpoint, whatever its slot.
    let only = [ip(&second)];
    cluster.apply(&web, &tcp(&only));
    cluster.apply(&web, &tcp(&all));
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&[&*second]));
    web.affinity_s = None;
    cluster.apply(&web, &tcp(&all));
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&["a", "b", "c"]));
}

#[test]
fn an_affinity_times_out() {
    let mut cluster = cluster();
    let with_affinity = |affinity_s| Service { affinity_s, ..service("web") };
    let slices = tcp(&["10.244.0.1", "10.244.1.1"]);
    cluster.apply(&with_affinity(None), &slices);
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&["a", "b"]));
    cluster.apply(&with_affinity(Some(3600)), &slices);
    let sticky = answers(cluster.pod("c"), "10.96.0.10:80");
    assert_eq!(sticky.len(), 1);
    let elements = |cluster: &Cluster| {
        let nodes = cluster.nodes.iter();
        let sets = nodes.map(|node| node.netns.nft("list set ip skiff-proxy affinity"));
        sets.filter(|text| text.contains("elements")).collect::<String>()
    };
    assert!(elements(&cluster).contains("timeout 1h"), "{}", elements(&cluster));

    cluster.apply(&with_affinity(Some(1)), &slices);
    let first = cluster.pod("c").who("10.96.0.10:80");
    // This depends on the kernel's clock: after each timeout the chance of a change is one half.
    let changed = (0..20).any(|_| {
        while !elements(&cluster).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        cluster.pod("c").who("10.96.0.10:80") != first
    });
    assert!(changed);
}

#[test]
fn terminating_endpoints_serve_when_there_are_no_others() {
    let mut cluster = cluster();
    let web = service("web");
    let mut slices = tcp(&["10.244.0.1", "10.244.1.1"]);
    slices[0].endpoints[0].ready = false;
    slices[0].endpoints[0].terminating = true;
    cluster.apply(&web, &slices);
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&["b"]));
    slices[0].endpoints[1].ready = false;
    cluster.apply(&web, &slices);
    assert_eq!(answers(cluster.pod("c"), "10.96.0.10:80"), set(&["a"]));
    slices[0].endpoints[0].serving = false;
    cluster.apply(&web, &slices);
    let refused = cluster.pod("c").ask("10.96.0.10:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn established_connections_outlive_their_endpoint() {
    let mut cluster = cluster();
    let web = service("web");
    cluster.apply(&web, &tcp(&["10.244.0.1"]));
    let mut local = cluster.pod("c").connect("10.96.0.10:80").unwrap();
    let mut outside = cluster.machine.connect("10.96.0.10:80").unwrap();
    assert_eq!(local.ask().unwrap(), "a 10.244.0.2");
    outside.ask().unwrap();
    cluster.apply(&web, &tcp(&["10.244.1.1"]));
    assert_eq!(cluster.pod("c").who("10.96.0.10:80"), "b");
    assert_eq!(local.ask().unwrap(), "a 10.244.0.2");
    cluster.apply(&web, &[]);
    assert_eq!(local.ask().unwrap(), "a 10.244.0.2");
    assert!(outside.ask().unwrap().starts_with("a "));
}
