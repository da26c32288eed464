use serde_json::json;

use super::*;

fn service(more: Value) -> Value {
    let mut spec = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"],
        "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
    });
    let more = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(more);
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn pod(more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    json_patch::merge(&mut pod, &more);
    pod
}

fn slice(ip: &str, port: u16, ready: bool) -> Value {
    json!({
        "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}],
    })
}

fn reasons(service: &Value, pods: &[Value], slices: &[Value]) -> Vec<(String, String)> {
    let found = missing(&Observed { service, pods, others: &[], slices });
    found.into_iter().map(|one| (one.port, one.why)).collect()
}

#[test]
fn a_ready_endpoint_is_not_missing() {
    let published = [slice("10.244.0.5", 8080, true)];
    assert_eq!(reasons(&service(json!({})), &[pod(json!({}))], &published), []);
    let external = service(json!({"type": "ExternalName"}));
    assert_eq!(reasons(&external, &[], &[]), []);
}

#[test]
fn every_reason_is_named() {
    let table = [
        (
            json!({}),
            json!({}),
            "http",
            "not in an IPv4 EndpointSlice yet, although the pod is ready",
        ),
        (
            json!({}),
            json!({"status": {"phase": "Failed"}}),
            "<all>",
            "the pod has terminated: Failed",
        ),
        (
            json!({}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            "<all>",
            "the pod is terminating; it serves as long as no other endpoint is ready",
        ),
        (
            json!({}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                   "status": {"conditions": []}}),
            "<all>",
            "the pod is terminating",
        ),
        (
            json!({}),
            json!({"status": {"phase": "Pending", "podIP": null, "podIPs": null, "conditions": [
                {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}}),
            "<all>",
            "the pod has no address: 0/1 nodes are available",
        ),
        (
            json!({}),
            json!({"status": {"phase": "Pending", "podIP": null, "podIPs": null, "containerStatuses": [
                {"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]}}),
            "<all>",
            "the pod has no address: ContainerCreating",
        ),
        (
            json!({}),
            json!({"status": {
                "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady",
                                "message": "containers with unready status: [main]"}],
                "containerStatuses": [
                    {"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            "<all>",
            "the pod is not ready: containers with unready status: [main]; main: CrashLoopBackOff",
        ),
        (
            json!({"publishNotReadyAddresses": true}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            "http",
            "not in an IPv4 EndpointSlice yet, although the pod is ready",
        ),
        (
            json!({}),
            json!({"spec": {"containers": [{"name": "main"}]}}),
            "http",
            "no container port is named \"web\"",
        ),
        (
            json!({"ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "UDP"}]}),
            json!({}),
            "http",
            "the container port \"web\" is for TCP, not UDP",
        ),
    ];
    for (spec, change, port, why) in table {
        let found = reasons(&service(spec), &[pod(change)], &[]);
        assert_eq!(found, [(port.to_owned(), why.to_owned())]);
    }
}

#[test]
fn each_family_is_looked_at() {
    let service = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let found = reasons(&service, &[pod(json!({}))], &[slice("10.244.0.5", 8080, true)]);
    assert_eq!(found, [("<all>".to_owned(), "the pod has no IPv6 address".to_owned())]);
}

/// An endpoint of another port, or one that is not ready, is not the one that is missing.
#[test]
fn endpoints_are_compared_with_port_and_readiness() {
    for published in [slice("10.244.0.5", 80, true), slice("10.244.0.5", 8080, false)] {
        assert_eq!(reasons(&service(json!({})), &[pod(json!({}))], &[published]).len(), 1);
    }
    // A number needs no name; none is the Service's own port; a sidecar's ports count.
    for (target, port) in [(json!(8080), 8080), (json!(null), 80), (json!("side"), 9)] {
        let service =
            service(json!({"ports": [{"name": "http", "port": 80, "targetPort": target}]}));
        let pod = pod(json!({"spec": {"initContainers": [
            {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9}]}]}}));
        assert_eq!(reasons(&service, &[pod], &[slice("10.244.0.5", port, true)]), []);
    }
}

#[test]
fn the_label_that_no_pod_has_is_named() {
    let service = service(json!({"selector": {"app": "web", "tier": "front"}}));
    let other = |app: &str, tier: &str| json!({"metadata": {"labels": {"app": app, "tier": tier}}});
    let others = [other("web", "back"), other("web", "x"), other("db", "front"), other("a", "b")];
    let found = missing(&Observed { service: &service, pods: &[], others: &others, slices: &[] });
    let row = Missing {
        pod: "<none>".into(),
        port: "<all>".into(),
        why: "no pod is labelled app=web,tier=front; but for app=web, 1 pod is; but for \
              tier=front, 2 pods are"
            .into(),
    };
    assert_eq!(found, [row]);
}

#[test]
fn a_service_without_selector_needs_slices_of_its_own() {
    let service = service(json!({"selector": null}));
    assert_eq!(reasons(&service, &[], &[]).len(), 1);
    assert_eq!(reasons(&service, &[], &[slice("192.0.2.1", 80, true)]), []);
}

#[test]
fn a_long_list_is_shortened() {
    let one = Missing { pod: "a".into(), port: "b".into(), why: "c".into() };
    let rows = table(&vec![one; SHOWN + 2]);
    assert_eq!(rows.len(), SHOWN + 3);
    assert_eq!(rows.last().unwrap()[0], "+ 2 more...");
}
