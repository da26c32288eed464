//! Addresses and node ports: each is allocated once.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::server::{Rest, Server};
use crate::shared::{Loss, Pair};

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
/// The allocation records, with their revisions.
async fn records(server: &Server) -> Vec<(bytes::Bytes, u64)> {
    let mut records = Vec::new();
    for prefix in ["/registry/ranges/", "/registry/networking.k8s.io/ipaddresses/"] {
        let prefix = bytes::Bytes::from_static(prefix.as_bytes());
        let options = store::ListOptions { prefix, ..store::ListOptions::default() };
        let listing = server.core().store.list(options).await.unwrap();
        let entries = listing.entries.into_iter();
        records.extend(entries.map(|entry| (entry.key, entry.mod_revision.get())));
    }
    records
}

#[tokio::test]
async fn a_dry_run_allocates_nothing() {
    let server = Server::start_with(&["--service-node-port-range=30000-30002"]).await;
    let rest = server.admin();
    let two = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let wanted = service("s", json!({"type": "NodePort", "ports": two}));
    let (dry, one) = (format!("{SERVICES}?dryRun=All"), format!("{SERVICES}/s"));
    let before = records(&server).await;
    for _ in 0..3 {
        let shown = rest.post(&dry, &wanted).await.expect(201);
        let address: std::net::IpAddr =
            shown["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(address.to_string().starts_with("10."), "{address}");
        let port = |index: usize| shown["spec"]["ports"][index]["nodePort"].as_i64().unwrap();
        assert_ne!(port(0), port(1));
    }
    assert_eq!(records(&server).await, before);

    rest.post(SERVICES, &service("s", json!({"ports": two}))).await.expect(201);
    let with_address = records(&server).await;
    let patch = json!({"spec": {"type": "NodePort"}});
    let shown = rest.patch(&format!("{one}?dryRun=All"), "merge", &patch).await.expect(200);
    assert!(shown["spec"]["ports"][1]["nodePort"].as_i64().unwrap() >= 30_000, "{shown}");
    assert_eq!(records(&server).await, with_address);
    let created = rest.patch(&one, "merge", &patch).await.expect(200);
    let all = records(&server).await;
    assert_eq!(all.len(), with_address.len() + 2);
    // What is taken is refused in a dry run as well, and what it would release is not released.
    let port = created["spec"]["ports"][0]["nodePort"].clone();
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    rest.post(&dry, &service("t", taken)).await.expect(422);
    let plain = json!({"spec": {"type": "ClusterIP"}});
    rest.patch(&format!("{one}?dryRun=All"), "merge", &plain).await.expect(200);
    rest.delete(&format!("{one}?dryRun=All")).await.expect(200);
    assert_eq!(records(&server).await, all);
    rest.delete(&one).await.expect(200);
    assert_eq!(records(&server).await, before);
    server.stop().await;
}

#[tokio::test]
async fn addresses_are_objects_and_ranges_can_be_added() {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
    let server = Server::start_with(&["--service-cluster-ip-range=10.9.0.0/29"]).await;
    let rest = server.admin();
    let own = rest.get(&format!("{RANGES}/kubernetes")).await.expect(200);
    assert_eq!(own["spec"]["cidrs"], json!(["10.9.0.0/29"]));
    let made = rest.post(SERVICES, &service("one", json!({}))).await.expect(201);
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    let record = rest.get(&format!("{ADDRESSES}/{address}")).await.expect(200);
    assert_eq!(
        record["spec"]["parentRef"],
        json!({"group": "", "resource": "services", "namespace": "default", "name": "one"})
    );
    assert_eq!(
        record["metadata"]["labels"],
        json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    // An address that somebody has made is taken, and no repair takes it away.
    let fixed = |name: &str, address: &str| service(name, json!({"clusterIP": address}));
    let theirs = json!({"metadata": {"name": "10.9.0.3"}, "spec": {"parentRef": {"resource": "pods", "name": "p"}}});
    if address != "10.9.0.3" {
        rest.post(ADDRESSES, &theirs).await.expect(201);
        rest.post(SERVICES, &fixed("theirs", "10.9.0.3")).await.expect(422);
    }
    // Whoever deletes a record gets it back; it goes with its Service.
    rest.delete(&format!("{ADDRESSES}/{address}")).await.expect(200);
    let core = server.core();
    for _ in 0..3 {
        core.allocator.repair(&core.cache, core.clock.now()).await.unwrap();
    }
    rest.get(&format!("{ADDRESSES}/{address}")).await.expect(200);
    if address != "10.9.0.3" {
        rest.get(&format!("{ADDRESSES}/10.9.0.3")).await.expect(200);
    }
    rest.delete(&format!("{SERVICES}/one")).await.expect(200);
    rest.get(&format!("{ADDRESSES}/{address}")).await.expect(404);

    let refused = rest.post(SERVICES, &fixed("more", "10.8.0.9")).await.expect(422);
    assert!(
        refused["message"].as_str().unwrap().ends_with(
            "failed to allocate IP 10.8.0.9: the provided network does not match the current range"
        ),
        "{refused}"
    );
    rest.post(RANGES, &json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.8.0.0/28"]}}))
        .await
        .expect(201);
    // Not before its controller has said that it is ready.
    rest.post(SERVICES, &fixed("more", "10.8.0.9")).await.expect(422);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
        "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}});
    rest.patch(&format!("{RANGES}/more/status"), "merge", &ready).await.expect(200);
    rest.get(RANGES).await.expect(200);
    rest.post(SERVICES, &fixed("more", "10.8.0.9")).await.expect(201);
    let mut outside = 0;
    for index in 0..10 {
        let made = rest.post(SERVICES, &service(&format!("s{index}"), json!({}))).await.expect(201);
        outside += usize::from(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.8."));
    }
    assert!(outside >= 5, "only {outside} addresses of the further range");
    server.stop().await;
}

/// Creates Services until there is no address or port left; returns their number.
async fn fill(rest: &Rest) -> usize {
    for index in 0.. {
        let body = service(&format!("fill-{index}"), json!({"type": "NodePort"}));
        let answer = rest.post(SERVICES, &body).await;
        if answer.code != 201 {
            assert!(answer.text.contains("range is full"), "{}", answer.text);
            return index;
        }
    }
    unreachable!("the ranges are small")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_write_keeps_what_it_was_allocated() {
    let flags = ["--service-cluster-ip-range=10.9.0.0/28", "--service-node-port-range=30000-30005"];
    let pair = Pair::start(&flags).await;
    let (rest, ambiguous) = (pair.first.admin(), pair.second.admin());
    let small = service("small", json!({}));
    rest.post(SERVICES, &small).await.expect(201);
    for loss in [Loss::Answer, Loss::Request] {
        pair.proxy.lose("services/default/lost", loss);
        let lost = service("lost", json!({"type": "NodePort"}));
        ambiguous.post(SERVICES, &lost).await.expect(503);
        assert!(pair.proxy.has_lost());
        pair.proxy.lose("services/default/small", loss);
        let grown = json!({"spec": {"type": "NodePort"}});
        ambiguous.patch(&format!("{SERVICES}/small"), "merge", &grown).await.expect(503);
        assert!(pair.proxy.has_lost());
        let there = if loss == Loss::Answer { 200 } else { 404 };
        assert_eq!(rest.get(&format!("{SERVICES}/lost")).await.code, there);

        // Four ports are left of six: two are kept, used or not.
        assert_eq!(fill(&rest).await, 4, "{loss:?}");
        let list = rest.get(SERVICES).await.expect(200);
        let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
        for service in list["items"].as_array().unwrap() {
            let spec = &service["spec"];
            assert!(addresses.insert(spec["clusterIP"].as_str().unwrap().to_owned()), "{service}");
            if let Some(port) = spec["ports"][0]["nodePort"].as_i64() {
                assert!(ports.insert(port), "{service}");
            }
        }
        // The repair releases what nobody uses, and only when it has stayed so for a while.
        let core = pair.first.core();
        for _ in 0..2 {
            core.allocator.repair(&core.cache, core.clock.now()).await.unwrap();
        }
        let full = service("more", json!({"type": "NodePort"}));
        rest.post(SERVICES, &full).await.expect(500);
        core.allocator.repair(&core.cache, core.clock.now()).await.unwrap();
        let free = if loss == Loss::Answer { 500 } else { 201 };
        assert_eq!(rest.post(SERVICES, &full).await.code, free, "{loss:?}");
        for service in list["items"].as_array().unwrap() {
            let name = service["metadata"]["name"].as_str().unwrap();
            if name.starts_with("fill-") || name == "lost" {
                rest.delete(&format!("{SERVICES}/{name}")).await.expect(200);
            }
        }
        let plain = json!({"spec": {"type": "ClusterIP"}});
        rest.patch(&format!("{SERVICES}/small"), "merge", &plain).await.expect(200);
    }
    pair.stop().await;
}
