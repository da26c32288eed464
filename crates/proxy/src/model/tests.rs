use api::Kind;

use super::*;

fn service(spec: &str, rest: &str) -> Service {
    let json = format!(r#"{{"metadata":{{"namespace":"ns","name":"web"}},"spec":{spec}{rest}}}"#);
    Service::from_object(&core::Service::decode(json.as_bytes()).unwrap())
}

#[test]
fn services() {
    let full = service(
        r#"{
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "odd", "port": 1, "protocol": "QUIC"}
            ],
            "externalIPs": ["203.0.113.1", "not an address"],
            "loadBalancerSourceRanges": ["198.51.100.0/24", " 192.0.2.0/24"],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000
        }"#,
        r#","status":{"loadBalancer":{"ingress":[
            {"ip": "203.0.113.7"}, {"hostname": "lb.example.org"}, {"ip": "203.0.113.8", "ipMode": "Proxy"}
        ]}}"#,
    );
    let port = |name: &str, protocol, port, node_port| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port,
    };
    let ips = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    assert_eq!(
        full,
        Service {
            namespace: "ns".into(),
            name: "web".into(),
            cluster_ips: ips(&["10.96.0.1", "fd00::1"]),
            external_ips: ips(&["203.0.113.1"]),
            load_balancer_ips: ips(&["203.0.113.7"]),
            load_balancer_uid: None,
            source_ranges: vec![
                "198.51.100.0/24".parse().unwrap(),
                "192.0.2.0/24".parse().unwrap()
            ],
            ports: vec![
                port("http", Protocol::Tcp, 80, Some(30_080)),
                port("dns", Protocol::Udp, 53, None),
            ],
            affinity_s: Some(60),
            internal_local: true,
            external_local: true,
            health_check_port: Some(32_000),
        }
    );
    let plain = service(
        r#"{"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}"#,
        "",
    );
    assert_eq!(plain.cluster_ips, ips(&["10.96.0.1"]));
    assert_eq!((plain.affinity_s, plain.external_local), (Some(10_800), false));
}

#[test]
fn services_of_the_clusters_own_load_balancer() {
    let balanced = |type_: &str, class: &str| {
        let json = format!(
            r#"{{"metadata": {{"namespace": "ns", "name": "web", "uid": "u"}}, "spec": {{
                "type": "{type_}", "clusterIP": "10.96.0.1", {class} "ports": [{{"port": 80}}]}}}}"#
        );
        Service::from_object(&core::Service::decode(json.as_bytes()).unwrap()).load_balancer_uid
    };
    assert_eq!(balanced("LoadBalancer", "").as_deref(), Some("u"));
    assert_eq!(balanced("LoadBalancer", r#""loadBalancerClass": "example.com/x","#), None);
    assert_eq!(balanced("NodePort", ""), None);
}

#[test]
fn nodes_excluded_from_load_balancers() {
    let node = |json: &str| Node::from_object(&core::Node::decode(json.as_bytes()).unwrap());
    let label = r#"{"metadata": {"name": "n", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}"#;
    let taint = r#"{"metadata": {"name": "n"}, "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}"#;
    assert!(node(label).excluded_from_balancers && node(taint).excluded_from_balancers);
    assert!(!node(r#"{"metadata": {"name": "n"}}"#).excluded_from_balancers);
}

#[test]
fn ignored_services() {
    let ports = r#""ports": [{"port": 80}]"#;
    for spec in [
        format!(r#"{{"clusterIP": "None", {ports}}}"#),
        format!(
            r#"{{"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.1", {ports}}}"#
        ),
        format!("{{{ports}}}"),
    ] {
        let found = service(&spec, "");
        assert!(found.ports.is_empty() && found.cluster_ips.is_empty(), "{spec}");
    }
    let other = r#"{"metadata":{"name":"a","labels":{"service.kubernetes.io/service-proxy-name":"x"}},
        "spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}"#;
    let other = Service::from_object(&core::Service::decode(other.as_bytes()).unwrap());
    assert!(other.ports.is_empty());
}

#[test]
fn slices() {
    let decode = |json: &str| {
        let object = discovery::EndpointSlice::decode(json.as_bytes()).unwrap();
        EndpointSlice::from_object(&object, "here")
    };
    let metadata = r#""metadata":{"namespace":"ns","name":"web-1","labels":{"kubernetes.io/service-name":"web"}}"#;
    let slice = decode(&format!(
        r#"{{{metadata}, "addressType": "IPv4",
            "ports": [{{"name": "http", "port": 8080}}, {{"name": "any"}}],
            "endpoints": [
                {{"addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "here"}},
                {{"addresses": ["10.0.0.2"], "nodeName": "there",
                    "conditions": {{"ready": false, "serving": true, "terminating": true}},
                    "hints": {{"forZones": [{{"name": "a"}}], "forNodes": [{{"name": "there"}}]}}}},
                {{"addresses": ["10.0.0.3"], "conditions": {{"ready": false}}}}
            ]}}"#
    ))
    .unwrap();
    assert_eq!(&*slice.service, "ns/web");
    assert_eq!(slice.ports.len(), 1);
    let states: Vec<_> = slice
        .endpoints
        .iter()
        .map(|one| (one.ip.to_string(), one.ready, one.serving, one.terminating, one.local))
        .collect();
    assert_eq!(
        states,
        [
            ("10.0.0.1".to_owned(), true, true, false, true),
            ("10.0.0.2".to_owned(), false, true, true, false),
            ("10.0.0.3".to_owned(), false, false, false, false),
        ]
    );
    assert_eq!(slice.endpoints[1].for_this_node, Some(false));
    assert_eq!(&*slice.endpoints[1].for_zones[0], "a");
    assert!(
        decode(&format!(r#"{{{metadata}, "addressType": "FQDN", "endpoints": []}}"#)).is_none()
    );
    assert!(
        decode(r#"{"metadata":{"name":"a"}, "addressType": "IPv4", "endpoints": []}"#).is_none()
    );
}

#[test]
fn pods_and_nodes() {
    let decode = |spec: &str, phase: &str| {
        let json = format!(
            r#"{{"metadata":{{"name":"a"}},"spec":{spec},
                "status":{{"phase":"{phase}","podIPs":[{{"ip":"10.0.0.1"}}]}}}}"#
        );
        Pod::from_object(&core::Pod::decode(json.as_bytes()).unwrap())
    };
    let containers = r#""containers":[{"name":"c","ports":[
        {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "0.0.0.0"},
        {"containerPort": 81}
    ]}],"initContainers":[
        {"name":"side","restartPolicy":"Always","ports":[{"containerPort": 90, "hostPort": 9090}]},
        {"name":"init","ports":[{"containerPort": 91, "hostPort": 9191}]}
    ]"#;
    let pod = decode(&format!("{{{containers}}}"), "Running");
    let ports: Vec<_> = pod
        .host_ports
        .iter()
        .map(|port| (port.host_ip.map(|ip| ip.to_string()), port.protocol, port.host_port))
        .collect();
    assert_eq!(
        ports,
        [
            (Some("127.0.0.1".to_owned()), Protocol::Tcp, 8080),
            (None, Protocol::Udp, 53),
            (None, Protocol::Tcp, 9090),
        ]
    );
    assert_eq!(decode(&format!("{{{containers}}}"), "Succeeded"), Pod::default());
    let host_network = format!(r#"{{"hostNetwork": true, {containers}}}"#);
    assert_eq!(decode(&host_network, "Running"), Pod::default());

    let node = br#"{"metadata":{"name":"n","labels":{"topology.kubernetes.io/zone":"a"}},
        "spec":{"podCIDR":"10.244.1.0/24"},
        "status":{"addresses":[{"type":"Hostname","address":"n"},{"type":"InternalIP","address":"192.0.2.1"}]}}"#;
    let node = Node::from_object(&core::Node::decode(node).unwrap());
    assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
    assert_eq!(node.internal_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.zone.as_deref(), Some("a"));
}
