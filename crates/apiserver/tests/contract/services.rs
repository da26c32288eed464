//! Addresses and node ports: each is allocated once.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::server::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    service
}

#[tokio::test]
async fn concurrent_services_share_no_address_or_port() {
    let flags = ["--service-cluster-ip-range=10.9.0.0/26", "--service-node-port-range=30000-30040"];
    let server = Server::start_with(&flags).await;
    let rest = server.admin();
    let bodies: Vec<Value> =
        (0..40).map(|i| service(&format!("s{i}"), json!({"type": "NodePort"}))).collect();
    let created = join_all(bodies.iter().map(|body| rest.post(SERVICES, body))).await;
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for answer in created {
        let service = answer.expect(201);
        assert!(addresses.insert(service["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        assert!(ports.insert(service["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    }
    assert!(!addresses.contains("10.9.0.1") && !addresses.contains("10.9.0.10"));
    server.stop().await;
}

#[tokio::test]
async fn requested_addresses_are_allocated_refused_and_released() {
    let server = Server::start().await;
    let rest = server.admin();
    let fixed = json!({"clusterIP": "10.96.0.77", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]});
    rest.post(SERVICES, &service("a", fixed.clone())).await.expect(201);
    let taken = rest.post(SERVICES, &service("b", fixed.clone())).await.expect(422);
    assert!(
        taken["message"].as_str().unwrap().contains("provided IP is already allocated"),
        "{taken}"
    );
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]});
    let taken = rest.post(SERVICES, &service("b", port)).await.expect(422);
    assert!(
        taken["message"].as_str().unwrap().contains("provided port is already allocated"),
        "{taken}"
    );
    for wrong in [
        json!({"clusterIP": "1.2.3.4"}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
    ] {
        rest.post(SERVICES, &service("b", wrong)).await.expect(422);
    }
    rest.delete(&format!("{SERVICES}/a")).await.expect(200);
    rest.post(SERVICES, &service("b", fixed)).await.expect(201);
    let headless =
        rest.post(SERVICES, &service("h", json!({"clusterIP": "None"}))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIP"], "None");
    let plain = json!({"spec": {"type": "ClusterIP"}});
    let plain = rest.patch(&format!("{SERVICES}/b"), "merge", &plain).await.expect(200);
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none(), "{plain}");
    let again = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]});
    rest.post(SERVICES, &service("c", again)).await.expect(201);
    let own = rest.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(own["spec"]["clusterIP"], "10.96.0.1");
    server.stop().await;
}

#[tokio::test]
async fn a_service_can_become_an_external_name() {
    let server = Server::start().await;
    let rest = server.admin();
    let one = format!("{SERVICES}/a");
    // A PUT creates missing objects of the kinds for which Kubernetes does so.
    let put = rest.send("PUT", &one, &service("a", json!({}))).await;
    assert_eq!(put.expect(201)["status"], json!({"loadBalancer": {}}));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let body = json!({"metadata": {"name": "l"}, "spec": {}});
    rest.send("PUT", lease, &body).await.expect(201);
    rest.send("PUT", lease, &body).await.expect(422);
    let name = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": "", "clusterIPs": null}});
    let named = rest.patch(&one, "merge", &name).await.expect(200);
    assert_eq!(named["spec"]["clusterIP"], Value::Null);
    assert_eq!(named["spec"]["ipFamilies"], Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn tcp_and_udp_of_one_port_share_a_node_port() {
    let server = Server::start().await;
    let rest = server.admin();
    let port = |name: &str, number: u16, protocol: &str, node: Option<u16>| {
        let mut port = json!({"name": name, "port": number, "protocol": protocol});
        if let Some(node) = node {
            port["nodePort"] = node.into();
        }
        port
    };
    let numbers = |service: &Value| -> Vec<i64> {
        let ports = service["spec"]["ports"].as_array().unwrap().iter();
        ports.map(|port| port["nodePort"].as_i64().unwrap()).collect()
    };
    let ports = json!([
        port("t", 53, "TCP", None),
        port("u", 53, "UDP", None),
        port("m", 9153, "TCP", None)
    ]);
    let dns = service("dns", json!({"type": "NodePort", "ports": ports}));
    let made = numbers(&rest.post(SERVICES, &dns).await.expect(201));
    assert_eq!(made[0], made[1]);
    assert_ne!(made[0], made[2]);
    let ports = json!([port("t", 53, "TCP", None), port("u", 53, "UDP", Some(30_053))]);
    let fixed = service("fixed", json!({"type": "NodePort", "ports": ports}));
    let made = numbers(&rest.post(SERVICES, &fixed).await.expect(201));
    assert_eq!(made, [30_053, 30_053]);
    rest.delete(&format!("{SERVICES}/fixed")).await.expect(200);
    rest.post(SERVICES, &fixed).await.expect(201);
    let other = json!([port("t", 53, "TCP", Some(30_054)), port("u", 53, "UDP", Some(30_055))]);
    let apart = service("apart", json!({"type": "NodePort", "ports": other}));
    assert_eq!(numbers(&rest.post(SERVICES, &apart).await.expect(201)), [30_054, 30_055]);
    server.stop().await;
}
