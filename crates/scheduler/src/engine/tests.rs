mod hints;
mod plugins;
mod preemption;
mod properties;

use super::*;
use k8s_openapi::api::core::v1::{
    Container, NodeSpec, NodeStatus, PodSpec, ResourceRequirements, Taint,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(name: &str, cpu: &str, labels: &[(&str, &str)]) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.into());
    node.metadata.labels =
        Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
    let amounts = [("cpu", cpu), ("memory", "8Gi"), ("pods", "110")];
    node.status = Some(NodeStatus {
        allocatable: Some(
            amounts
                .iter()
                .map(|(name, amount)| ((*name).into(), Quantity((*amount).into())))
                .collect(),
        ),
        ..Default::default()
    });
    node
}

fn pod(name: &str, cpu: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("default".into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.labels =
        Some([("app".to_owned(), name.split('-').next().unwrap().to_owned())].into());
    pod.spec = Some(PodSpec {
        containers: vec![Container {
            resources: Some(ResourceRequirements {
                requests: Some([("cpu".to_owned(), Quantity(cpu.into()))].into()),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    });
    pod
}

/// A pod with parts of its spec as JSON.
fn pod_with(name: &str, spec: serde_json::Value) -> Pod {
    let mut whole = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"),
        "labels": {"app": name.split('-').next().unwrap()}}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    api::Kind::decode(whole.to_string().as_bytes()).unwrap()
}

fn engine(nodes: &[Node]) -> Engine {
    let mut engine = Engine::new(vec![Profile::new("default-scheduler")], Backoff::default());
    for node in nodes {
        engine.set_node(node, at(0));
    }
    engine
}

/// The node of the pod, or why there is none.
fn decide(engine: &mut Engine, pod: &Pod) -> String {
    engine.set_pod(pod, at(0));
    match engine.next(at(0)) {
        Some(Decision::Bind { node, .. }) => node.to_string(),
        Some(Decision::Unschedulable { message, .. }) => message,
        None => "nothing".into(),
    }
}

#[test]
fn the_least_allocated_node_that_fits_is_chosen() {
    let mut engine = engine(&[node("small", "1", &[]), node("large", "4", &[])]);
    assert_eq!(decide(&mut engine, &pod("a", "2")), "large");
    assert_eq!(decide(&mut engine, &pod("b", "500m")), "small");
    assert_eq!(
        decide(&mut engine, &pod("c", "3")),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn equal_nodes_share_equal_pods() {
    let nodes: Vec<Node> = (0..4).map(|index| node(&format!("n{index}"), "4", &[])).collect();
    let mut engine = engine(&nodes);
    let mut counts = std::collections::BTreeMap::new();
    for index in 0..40 {
        *counts.entry(decide(&mut engine, &pod(&format!("p{index}"), "100m"))).or_insert(0) += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|count| *count == 10), "{counts:?}");
}

#[test]
fn selectors_taints_cordons_and_ports_filter_nodes() {
    let mut tainted = node("tainted", "4", &[("disk", "ssd")]);
    tainted.spec = Some(NodeSpec {
        taints: Some(vec![Taint {
            key: "gpu".into(),
            value: Some("yes".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        }]),
        ..Default::default()
    });
    let mut cordoned = node("cordoned", "4", &[("disk", "ssd")]);
    cordoned.spec = Some(NodeSpec { unschedulable: Some(true), ..Default::default() });
    let mut engine = engine(&[tainted, cordoned, node("plain", "4", &[("disk", "hdd")])]);
    assert_eq!(
        decide(&mut engine, &pod_with("a", json!({"nodeSelector": {"disk": "ssd"}}))),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let tolerant = json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]});
    assert_eq!(decide(&mut engine, &pod_with("b", tolerant)), "tainted");
    let by_name = json!({"tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["cordoned"]}]}]}}}});
    assert_eq!(decide(&mut engine, &pod_with("c", by_name)), "cordoned");
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    assert_eq!(decide(&mut engine, &pod_with("d", port("127.0.0.1"))), "plain");
    assert_eq!(decide(&mut engine, &pod_with("e", port("127.0.0.2"))), "plain");
    assert!(
        decide(&mut engine, &pod_with("f", port(""))).contains("1 node(s) didn't have free ports")
    );
}

#[test]
fn pod_affinity_and_anti_affinity() {
    let nodes = [
        node("a", "4", &[("zone", "1")]),
        node("b", "4", &[("zone", "1")]),
        node("c", "4", &[("zone", "2")]),
    ];
    let mut engine = engine(&nodes);
    let term = |app: &str| json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"}]);
    let near = |app: &str| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}});
    let far = |app: &str| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}});
    assert!(
        decide(&mut engine, &pod_with("web-1", near("db")))
            .contains("3 node(s) didn't match pod affinity rules")
    );
    let first = decide(&mut engine, &pod_with("db-1", near("db")));
    assert!(
        ["a", "b", "c"].contains(&first.as_str()),
        "the first pod of a group can go anywhere: {first}"
    );
    let second = decide(&mut engine, &pod_with("db-2", far("db")));
    assert_ne!(first == "c", second == "c", "the other zone");
    let none = decide(&mut engine, &pod_with("db-3", json!({})));
    assert!(
        none.contains("didn't satisfy existing pods anti-affinity rules")
            || ["a", "b", "c"].contains(&none.as_str())
    );
}

#[test]
fn spread_constraints_keep_domains_balanced() {
    let nodes =
        [node("a", "4", &[("host", "a")]), node("b", "4", &[("host", "b")]), node("c", "4", &[])];
    let mut engine = engine(&nodes);
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let mut counts = std::collections::BTreeMap::new();
    for index in 0..6 {
        *counts
            .entry(decide(&mut engine, &pod_with(&format!("web-{index}"), spread.clone())))
            .or_insert(0) += 1;
    }
    assert_eq!(counts, [("a".to_owned(), 3), ("b".to_owned(), 3)].into());
}

#[test]
fn a_failed_binding_frees_its_resources_and_a_change_reactivates_waiting_pods() {
    let mut engine = engine(&[node("n", "1", &[])]);
    assert_eq!(decide(&mut engine, &pod("a", "1")), "n");
    assert!(
        decide(&mut engine, &pod("b", "1"))
            .starts_with("0/1 nodes are available: 1 Insufficient cpu.")
    );
    engine.bind_failed("uid-a", at(10));
    let next = engine.next(at(10));
    assert!(matches!(&next, Some(Decision::Bind { pod, .. }) if pod.name == "b"), "{next:?}");
    engine.bound("uid-b");
    engine.remove_pod("uid-b", at(20));
    let next = engine.next(at(20));
    assert!(matches!(&next, Some(Decision::Bind { pod, .. }) if pod.name == "a"), "{next:?}");
}

#[test]
fn a_bound_pod_is_not_bound_again_and_unknown_nodes_keep_their_pods() {
    let mut engine = engine(&[]);
    let mut bound = pod("a", "1");
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    engine.set_pod(&bound, at(0));
    engine.set_node(&node("n", "1", &[]), at(0));
    assert!(decide(&mut engine, &pod("b", "1")).contains("Insufficient cpu"));
    engine.remove_node("n", at(5));
    engine.set_node(&node("n", "1", &[]), at(9));
    assert!(matches!(engine.next(at(9)), Some(Decision::Unschedulable { .. })));
}

#[test]
fn unbound_claims_keep_a_pod_waiting() {
    let mut engine = engine(&[node("n", "4", &[])]);
    let claims =
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    let waiting = pod_with("a", claims);
    assert_eq!(
        decide(&mut engine, &waiting),
        "0/1 nodes are available: persistentvolumeclaim \"data\" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    let claim = json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    let volume = json!({"metadata": {"name": "pv"}, "spec": {}});
    engine.set_volume(&api::Kind::decode(volume.to_string().as_bytes()).unwrap(), at(5));
    engine.set_claim(&api::Kind::decode(claim.to_string().as_bytes()).unwrap(), at(5));
    assert!(matches!(engine.next(at(5)), Some(Decision::Bind { .. })));
}

/// A bound pod with labels.
fn bound(name: &str, node: &str, labels: serde_json::Value) -> Pod {
    let mut pod = pod_with(name, json!({"nodeName": node}));
    pod.metadata.labels = serde_json::from_value(labels).unwrap();
    pod
}

#[test]
fn pods_of_one_set_are_spread_even_if_other_nodes_are_less_allocated() {
    let mut engine = engine(&[
        node("idle", "8", &[("kubernetes.io/hostname", "idle")]),
        node("busy", "8", &[("kubernetes.io/hostname", "busy")]),
    ]);
    let mut load = pod("load", "2");
    load.spec.as_mut().unwrap().node_name = Some("busy".into());
    engine.set_pod(&load, at(0));
    let member = |name: &str, kind: &str| {
        let mut member = pod(name, "100m");
        let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": format!("u-{kind}"), "controller": true}]);
        let metadata = json!({"metadata": {"ownerReferences": owner}});
        let metadata: Pod = api::Kind::decode(metadata.to_string().as_bytes()).unwrap();
        member.metadata.owner_references = metadata.metadata.owner_references;
        member
    };
    assert_eq!(decide(&mut engine, &member("web-1", "ReplicaSet")), "idle");
    assert_eq!(decide(&mut engine, &member("web-2", "ReplicaSet")), "busy");
    assert_eq!(decide(&mut engine, &member("job-1", "Job")), "idle");
    assert_eq!(decide(&mut engine, &member("job-2", "Job")), "idle");
    // A pod that is being deleted does not count.
    let mut deleted = member("web-1", "ReplicaSet");
    deleted.spec.as_mut().unwrap().node_name = Some("idle".into());
    deleted.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    engine.set_pod(&deleted, at(1));
    assert_eq!(decide(&mut engine, &member("web-3", "ReplicaSet")), "idle");
}

#[test]
fn changed_labels_are_considered() {
    let mut engine = engine(&[node("n", "4", &[("host", "n")])]);
    let term = |app: &str| json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "host"}]);
    let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("db")}}});
    engine.set_pod(&bound("other", "n", json!({"app": "x"})), at(0));
    let waiting = pod_with("web-1", near);
    assert!(decide(&mut engine, &waiting).contains("didn't match pod affinity rules"));
    engine.set_pod(&bound("other", "n", json!({"app": "db"})), at(5));
    assert!(matches!(engine.next(at(5)), Some(Decision::Bind { .. })));

    // The waiting pod's own labels: the anti-affinity of the other pod no longer matches.
    let far = json!({"nodeName": "n", "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("loud")}}});
    engine.set_pod(&pod_with("quiet", far), at(5));
    let mut loud = pod_with("loud-1", json!({}));
    assert!(decide(&mut engine, &loud).contains("existing pods anti-affinity rules"));
    loud.metadata.labels = Some([("app".to_owned(), "silent".to_owned())].into());
    engine.set_pod(&loud, at(6));
    assert!(matches!(engine.next(at(6)), Some(Decision::Bind { .. })));
}

#[test]
fn match_label_keys_take_values_from_the_pod_itself() {
    let mut engine = engine(&[node("a", "4", &[("host", "a")]), node("b", "4", &[("host", "b")])]);
    engine.set_pod(&bound("old", "a", json!({"app": "web", "v": "1"})), at(0));
    engine.set_pod(&bound("new", "b", json!({"app": "web", "v": "2"})), at(0));
    for (keys, place) in [("matchLabelKeys", "b"), ("mismatchLabelKeys", "a")] {
        let term = json!([{"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "host", keys: ["v"]}]);
        let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
        let mut pod = pod_with(&format!("web-{place}"), near);
        let labels = [("app", "other"), ("v", "2")];
        pod.metadata.labels = Some(labels.map(|(key, value)| (key.into(), value.into())).into());
        assert_eq!(decide(&mut engine, &pod), place, "{keys}");
    }
}
