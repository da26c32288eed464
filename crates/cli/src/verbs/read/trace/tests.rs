//! Traces of a small cluster, built by hand.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::announced::announcements;
use super::compare::{NodeReport, Observed, Traced, node};
use super::expect::Node;
use super::observe::Target;
use super::show::{Trace, render};
use super::tables::{Frontend, Tables};
use crate::discovery::{Resource, Resources};

fn on(name: &str) -> Node {
    Node { name: name.to_owned(), zone: String::new(), addresses: Vec::new() }
}

fn service(more: Value) -> Value {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    });
    json_patch::merge(&mut service, &more);
    service
}

fn endpoint(ip: &str, pod: &str, node: &str, conditions: Value) -> Value {
    json!({"addresses": [ip], "nodeName": node, "conditions": conditions,
        "targetRef": {"kind": "Pod", "name": pod}})
}

fn slice(endpoints: &[Value]) -> Value {
    json!({"addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}

/// Two ready endpoints on two nodes, and a terminating one.
fn slices() -> Vec<Value> {
    vec![slice(&[
        endpoint("10.244.0.5", "web-1", "node-1", json!({"ready": true})),
        endpoint("10.244.1.5", "web-2", "node-2", json!({"ready": true})),
        endpoint("10.244.1.6", "web-3", "node-2", json!({"ready": false, "terminating": true})),
    ])]
}

fn observed(service: Value, slices: Vec<Value>) -> Observed {
    Observed { services: vec![Traced::new(service, slices)], ..Observed::default() }
}

/// The tables of a node: maps with `key fields : verdict` or `key fields = value fields`.
fn tables(maps: &[(&str, &[&str])]) -> Tables {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let element = |text: &str| match (text.split_once(" : "), text.split_once(" = ")) {
        (Some((key, verdict)), _) => json!({"key": words(key), "verdict": verdict}),
        (None, Some((key, value))) => json!({"key": words(key), "value": words(value)}),
        (None, None) => json!({"key": words(text)}),
    };
    let map = |(name, elements): &(&str, &[&str])| {
        let elements: Vec<Value> = elements.iter().map(|text| element(text)).collect();
        json!({"name": name, "elements": elements})
    };
    let maps: Vec<Value> = maps.iter().map(map).collect();
    let table = json!({"name": "skiff-proxy", "family": "ip", "comment": "", "maps": maps});
    let answer = json!({"tables": [table], "truncated": false, "ignored": ["10.96.0.2"],
        "links": {"10.244.0.5": "veth5"}});
    serde_json::from_value(answer).unwrap()
}

fn balanced() -> Tables {
    tables(&[
        ("services", &["10.96.0.10 tcp 80 : goto cluster-2"]),
        (
            "endpoints",
            &["10.96.0.10 tcp 80 0 = 10.244.0.5 8080", "10.96.0.10 tcp 80 1 = 10.244.1.5 8080"],
        ),
    ])
}

fn text(results: &[(&str, Result<NodeReport, String>)]) -> String {
    let mut trace = Trace::new("Service default/web".into(), Vec::new());
    results.iter().for_each(|(node, result)| trace.add(node, result.clone()));
    let expected = if trace.is_as_expected() { "as expected" } else { "different" };
    format!("{}{expected}\n", render(&trace))
}

fn report(observed: &Observed, on_node: &str, tables: &Tables) -> NodeReport {
    node(observed, &on(on_node), tables, true)
}

#[test]
fn nodes_that_say_the_same_are_shown_together() {
    let observed = observed(service(json!({})), slices());
    let both = ["node-1", "node-2"].map(|name| (name, Ok(report(&observed, name, &balanced()))));
    assert_snapshot!(text(&both), @r"
        Service default/web

        node-1, node-2
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  services: goto cluster-2
            10.244.0.5:8080  pod web-1 on node-1  ready
            10.244.1.5:8080  pod web-2 on node-2  ready
        as expected
        ");
}

#[test]
fn one_node_announces_an_address() {
    let balancer = json!({
        "spec": {"type": "LoadBalancer"},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]},
            "conditions": [{"type": "LoadBalancerAddressAssigned", "status": "True"}],
        },
    });
    let observed = |more: Value, slices: Vec<Value>| {
        let mut changed = balancer.clone();
        json_patch::merge(&mut changed, &more);
        observed(service(changed), slices)
    };
    let announces = |announces: bool| {
        let announced = announces.then(|| "192.0.2.9".parse().unwrap()).into_iter().collect();
        Tables { announced, ..Tables::default() }
    };
    let text = |observed: &Observed, nodes: &[Node], on: [bool; 2], complete: bool| {
        let on = on.map(announces);
        let answers = [("node-1", &on[0]), ("node-2", &on[1])];
        let mut trace = Trace::new("Service default/web".into(), Vec::new());
        trace.announce(announcements(observed, nodes, &answers, complete));
        let expected = if trace.is_as_expected() { "" } else { "different\n" };
        render(&trace).replace("Service default/web\n", "") + expected
    };
    let nodes = [on("node-1"), on("node-2")];
    let cluster = observed(json!({}), slices());
    let by_one = "  192.0.2.9 is announced by node-2\n";
    assert_eq!(text(&cluster, &nodes, [false, true], true), by_one);
    assert_eq!(
        text(&cluster, &nodes, [true, true], true),
        "  ! 192.0.2.9 is announced by node-1 and node-2: machines on the nodes' link find \
         either, until one of them yields\ndifferent\n"
    );
    let by_none = "  192.0.2.9 is announced by no node";
    let lost =
        format!("  !{}: machines on the nodes' link cannot find it\ndifferent\n", &by_none[1..]);
    assert_eq!(text(&cluster, &nodes, [false, false], true), lost);
    assert_eq!(text(&cluster, &nodes, [false, false], false), format!("{by_none}\n"));
    // A node's own address, one of another implementation, and one that no node may announce.
    let own = Node { addresses: vec!["192.0.2.9".parse().unwrap()], ..on("node-1") };
    assert_eq!(text(&cluster, &[own], [false, false], true), "");
    let foreign = observed(json!({"status": {"conditions": null}}), slices());
    assert_eq!(text(&foreign, &nodes, [false, false], true), "");
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    assert_eq!(text(&observed(local.clone(), slices()), &nodes, [false, false], true), lost);
    assert_eq!(text(&observed(local, Vec::new()), &nodes, [false, false], true), "");
}

#[test]
fn a_table_that_differs_is_told() {
    let observed = observed(service(json!({})), slices());
    let stale = tables(&[
        ("services", &["10.96.0.10 tcp 80 : goto cluster-3"]),
        (
            "endpoints",
            &["10.96.0.10 tcp 80 0 = 10.244.0.5 8080", "10.96.0.10 tcp 80 1 = 10.244.1.6 8080"],
        ),
    ]);
    let results = [
        ("node-1", Ok(report(&observed, "node-1", &stale))),
        ("node-2", Ok(report(&observed, "node-2", &tables(&[])))),
        ("node-3", Err("error: the service proxy of this node does not answer".to_owned())),
    ];
    assert_snapshot!(text(&results), @r"
        Service default/web

        node-1
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  services: goto cluster-3
            10.244.0.5:8080  pod web-1 on node-1  ready
            10.244.1.5:8080  pod web-2 on node-2  ready
            10.244.1.6:8080  pod web-3 on node-2  terminating
            ! 10.244.1.5:8080 (ready) is not in the table
            ! 10.244.1.6:8080 is in the table, but it is terminating
            ! slot 2 has no endpoint: connections that get it fail

        node-2
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  no rule
            10.244.0.5:8080  pod web-1 on node-1  ready
            10.244.1.5:8080  pod web-2 on node-2  ready
            ! connections are left alone, but should be directed to 2 endpoints

        node-3
          ! error: the service proxy of this node does not answer
        different
        ");
}

#[test]
fn policies_of_traffic_decide_on_endpoints_of_the_node() {
    let local = service(json!({
        "spec": {"type": "NodePort", "externalTrafficPolicy": "Local",
                 "internalTrafficPolicy": "Local",
                 "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    }));
    let observed = observed(local, slices());
    let on_node = tables(&[
        ("services", &["10.96.0.10 tcp 80 : goto local-1"]),
        ("endpoints", &["10.96.0.10 tcp 80 65536 = 10.244.0.5 8080"]),
        ("node-ports", &["tcp 30080 : goto cluster-2-affinity-60"]),
        ("external-local-node-ports", &["tcp 30080 : goto local-1-affinity-60"]),
        (
            "node-port-endpoints",
            &[
                "tcp 30080 0 = 10.244.0.5 8080",
                "tcp 30080 1 = 10.244.1.5 8080",
                "tcp 30080 65536 = 10.244.0.5 8080",
            ],
        ),
    ]);
    let elsewhere = tables(&[
        ("no-endpoints", &["10.96.0.10 tcp 80 : drop"]),
        ("node-ports", &["tcp 30080 : goto cluster-2"]),
        ("external-local-node-ports", &["tcp 30080 : drop"]),
        (
            "node-port-endpoints",
            &["tcp 30080 0 = 10.244.0.5 8080", "tcp 30080 1 = 10.244.1.5 8080"],
        ),
    ]);
    let results = [
        ("node-1", Ok(report(&observed, "node-1", &on_node))),
        ("node-3", Ok(report(&observed, "node-3", &elsewhere))),
    ];
    assert_snapshot!(text(&results), @r"
        Service default/web

        node-1
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  services: goto local-1
            10.244.0.5:8080  pod web-1 on node-1  ready
          *:30080/TCP (NodePort of default/web:http)  node-ports: goto cluster-2-affinity-60
            10.244.0.5:8080  pod web-1 on node-1  ready
            10.244.1.5:8080  pod web-2 on node-2  ready
          *:30080/TCP (NodePort of default/web:http, clients outside the cluster)  external-local-node-ports: goto local-1-affinity-60
            10.244.0.5:8080  pod web-1 on node-1  ready

        node-3
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  no-endpoints: drop
          *:30080/TCP (NodePort of default/web:http)  node-ports: goto cluster-2
            10.244.0.5:8080  pod web-1 on node-1  ready
            10.244.1.5:8080  pod web-2 on node-2  ready
          *:30080/TCP (NodePort of default/web:http, clients outside the cluster)  external-local-node-ports: drop
        as expected
        ");
}

/// Without ready endpoints those that terminate are used; without any, connections are rejected.
#[test]
fn what_remains_serves_until_nothing_does() {
    let serving = endpoint(
        "10.244.1.6",
        "web-3",
        "node-2",
        json!({"ready": false, "serving": true, "terminating": true}),
    );
    let last = tables(&[
        ("services", &["10.96.0.10 tcp 80 : goto cluster-1"]),
        ("endpoints", &["10.96.0.10 tcp 80 0 = 10.244.1.6 8080"]),
    ]);
    let refused = tables(&[("no-endpoints", &["10.96.0.10 tcp 80 : goto refuse"])]);
    let of = |endpoints: &[Value], tables: &Tables| {
        report(&observed(service(json!({})), vec![slice(endpoints)]), "node-1", tables)
    };
    assert!(!of(std::slice::from_ref(&serving), &last).differs());
    assert!(!of(&[], &refused).differs());
    assert_eq!(
        of(&[serving], &refused).frontends[0].differences,
        ["connections are rejected, but should be directed to an endpoint"]
    );
    assert_eq!(
        of(&[], &last).frontends[0].differences,
        ["connections are directed to an endpoint, but should be rejected"]
    );
}

#[test]
fn hints_narrow_the_endpoints_if_all_have_some() {
    let hinted = |ip: &str, pod: &str, hints: Value| {
        let mut endpoint = endpoint(ip, pod, "node-1", json!({"ready": true}));
        endpoint["hints"] = hints;
        endpoint
    };
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    let one = tables(&[
        ("services", &["10.96.0.10 tcp 80 : goto cluster-1"]),
        ("endpoints", &["10.96.0.10 tcp 80 0 = 10.244.0.5 8080"]),
    ]);
    let differs = |hints: [Value; 2], tables: &Tables| {
        let [first, second] = hints;
        let slices = vec![slice(&[
            hinted("10.244.0.5", "web-1", first),
            hinted("10.244.1.5", "web-2", second),
        ])];
        let here = Node { zone: "a".into(), ..on("node-1") };
        node(&observed(service(json!({})), slices), &here, tables, true).differs()
    };
    assert!(!differs([zone("a"), zone("b")], &one));
    assert!(!differs([zone("a"), json!({})], &balanced()));
    assert!(!differs([zone("c"), zone("b")], &balanced()));
    let nodes = |name: &str| json!({"forNodes": [{"name": name}]});
    assert!(!differs([nodes("node-1"), nodes("node-2")], &one));
    assert!(differs([zone("a"), zone("a")], &one));
}

#[test]
fn a_pod_is_traced_backwards() {
    let traced = Traced::new(service(json!({})), slices());
    let pod = json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1"}, "status": {"podIPs": [{"ip": "10.244.0.5"}]},
    });
    let policy = json!({"metadata": {"name": "deny", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}});
    let observed = Observed {
        services: vec![traced],
        pod: Some(vec!["10.244.0.5".parse().unwrap()]),
        policies: vec![policy],
        pods: BTreeMap::from([("default/web-1".to_owned(), pod)]),
        ..Observed::default()
    };
    let mut maps: Vec<(&str, &[&str])> = vec![
        ("services", &["10.96.0.10 tcp 80 : goto cluster-2", "10.96.0.99 udp 53 : goto cluster-1"]),
        (
            "endpoints",
            &[
                "10.96.0.10 tcp 80 0 = 10.244.0.5 8080",
                "10.96.0.10 tcp 80 1 = 10.244.1.5 8080",
                "10.96.0.99 udp 53 0 = 10.244.0.5 53",
            ],
        ),
        ("hairpin", &["10.244.0.5 10.244.0.5"]),
    ];
    let first = report(&observed, "node-1", &tables(&maps));
    maps.push(("any-host-ports", &["udp 5999 = 10.244.0.5 80"]));
    maps.push(("policy-of-links", &["veth5 : goto deny", "veth6 : goto deny"]));
    let second = report(&observed, "node-1", &tables(&maps));
    assert_snapshot!(text(&[("node-1", Ok(first)), ("node-2", Ok(second))]), @r"
        Service default/web

        node-1
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  services: goto cluster-2
            10.244.0.5:8080  pod web-1 on node-1  ready  policies: deny
          ! 10.96.0.99:53/UDP leads to the pod, but no Service does
          ! no element is about pod default/web-1, so nothing enforces its NetworkPolicies for ingress: deny

        node-2
          10.96.0.10:80/TCP (ClusterIP of default/web:http)  services: goto cluster-2
            10.244.0.5:8080  pod web-1 on node-1  ready  policies: deny
          any-host-ports: udp . 5999 : 10.244.0.5 . 80
          policy-of-links: veth5 : goto deny
          ! 10.96.0.99:53/UDP leads to the pod, but no Service does
        different
        ");
}

#[test]
fn what_only_the_table_knows_is_told() {
    let stray =
        Frontend::Address { ip: "10.96.0.10".parse().unwrap(), protocol: "TCP".into(), port: 80 };
    let observed = Observed { stray: vec![stray], ..Observed::default() };
    assert_eq!(report(&observed, "node-1", &tables(&[])), NodeReport::default());
    assert_eq!(
        report(&observed, "node-1", &balanced()).differences,
        ["10.96.0.10:80/TCP: services: goto cluster-2, but no Service has this frontend"]
    );
}

#[test]
fn services_without_rules_have_no_frontends() {
    for spec in [
        json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}),
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "x"}}}),
    ] {
        let service = service(spec);
        assert!(super::expect::without_rules(&service).is_some());
        assert!(Traced::new(service, Vec::new()).frontends.is_empty());
    }
    let dns = service(json!({"spec": {"clusterIP": "10.96.0.2", "clusterIPs": ["10.96.0.2"]}}));
    let report = report(&observed(dns, slices()), "node-1", &tables(&[]));
    assert!(!report.differs());
    assert!(report.frontends[0].rule.contains("DNS"), "{}", report.frontends[0].rule);
}

#[test]
fn targets() {
    let resource = |kind: &str, plural: &str, short: &str| Resource {
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        short_names: vec![short.into()],
        ..Resource::default()
    };
    let all = Resources(vec![
        resource("Service", "services", "svc"),
        resource("Pod", "pods", "po"),
        resource("Node", "nodes", "no"),
    ]);
    let service = |name: &str, port: Option<&str>| Target::Service {
        name: name.to_owned(),
        port: port.map(str::to_owned),
    };
    let address = |at: &str, protocol: Option<&str>| Target::Address {
        at: at.parse().unwrap(),
        protocol: protocol.map(str::to_owned),
    };
    for (text, expected) in [
        ("svc/web", service("web", None)),
        ("services/web:http", service("web", Some("http"))),
        ("po/web-1", Target::Pod { name: "web-1".into() }),
        ("10.96.0.10:80", address("10.96.0.10:80", None)),
        ("10.96.0.10:53/udp", address("10.96.0.10:53", Some("UDP"))),
        ("[fd00::1]:53", address("[fd00::1]:53", None)),
    ] {
        assert_eq!(Target::parse(text, &all).unwrap(), expected, "{text}");
    }
    for text in ["web", "svc/", "node/a", "po/a:80", "10.96.0.10", "10.96.0.10:80/icmp", "x/y"] {
        assert!(Target::parse(text, &all).is_err(), "{text}");
    }
}
