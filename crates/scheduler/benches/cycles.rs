//! Scheduling cycles without a cluster: how long the engine takes for each pod, from the moment at
//! which it sees the pod until it sees the pod bound. Processor time, so that other programs disturb
//! it less.

use api::Kind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::engine::{Decision, Engine, Nomination};
use scheduler::profile::Profile;
use scheduler::queue::Backoff;
use serde_json::{Value, json};

/// Number of pods of one set.
const SET: usize = 100;
/// Number of zones.
const ZONES: usize = 3;

fn main() {
    println!("{:<58}{:>10}{:>12}", "", "us a pod", "pods a s");
    for (nodes, pods) in [(200, 2_000), (5_000, 10_000)] {
        let label = |what: &str| format!("{pods} pods on {nodes} nodes, {what}");
        measure(&label("plain"), nodes, pods, |_| json!({}));
        measure(&label("of sets, spread by default"), nodes, pods, |_| json!({"owner": true}));
        measure(&label("spread over zones"), nodes, pods, |index| {
            json!({"topologySpreadConstraints": [{
                "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": format!("app-{}", index / SET)}},
            }]})
        });
        measure(&label("apart from one another"), nodes, pods, |index| {
            let term = json!({"topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"app": format!("app-{}", index / SET)}}});
            json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
        });
    }
    for preempts in [true, false] {
        unschedulable(200, 2_000, preempts);
    }
    preemption(200, 2_000);
}

/// Seconds of processor time that the only thread has used.
fn used() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("Linux keeps statistics");
    let nanoseconds = text.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    nanoseconds.expect("the first is the time on a processor") / 1e9
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn engine(nodes: usize, cpu: &str, preempts: bool) -> Engine {
    let profile = Profile { preempts, ..Profile::new("default-scheduler") };
    let mut engine = Engine::new(vec![profile], Backoff::default());
    for index in 0..nodes {
        let name = format!("node-{index}");
        let node = json!({
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": format!("zone-{}", index % ZONES),
            }},
            "status": {"allocatable": {"cpu": cpu, "memory": "256Gi", "pods": "1000"}},
        });
        engine.set_node(&decode::<Node>(&node), now());
    }
    engine
}

fn decode<K: Kind>(value: &Value) -> K {
    K::decode(value.to_string().as_bytes()).expect("the object is valid")
}

fn pod(index: usize, cpu: &str, mut spec: Value) -> Pod {
    let owned = spec.as_object_mut().and_then(|spec| spec.remove("owner")).is_some();
    let set = index / SET;
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": format!("set-{set}"), "controller": true}]);
    spec["containers"] = json!([{"name": "main", "image": "example.com/app:1",
        "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]);
    decode(&json!({
        "metadata": {"name": format!("pod-{index}"), "namespace": "default", "uid": format!("uid-{index}"),
            "labels": {"app": format!("app-{set}")}, "ownerReferences": if owned { owner } else { json!([]) }},
        "spec": spec,
    }))
}

fn measure(what: &str, nodes: usize, count: usize, spec: impl Fn(usize) -> Value) {
    let mut engine = engine(nodes, "64", true);
    let pods: Vec<Pod> = (0..count).map(|index| pod(index, "100m", spec(index))).collect();
    let started = used();
    for pod in &pods {
        engine.set_pod(pod, now());
    }
    let mut bound = 0;
    while let Some(decision) = engine.next(now()) {
        if let Decision::Bind { pod, node, .. } = decision {
            engine.bound(&pod.uid);
            let index: usize = pod.uid["uid-".len()..].parse().expect("uids have numbers");
            let mut placed = pods[index].clone();
            placed.spec.get_or_insert_default().node_name = Some(node.to_string());
            engine.set_pod(&placed, now());
            bound += 1;
        }
    }
    report(what, started, count);
    assert_eq!(bound, count, "every pod fits");
}

/// No pod fits, and none may displace another: all have the same priority.
fn unschedulable(nodes: usize, count: usize, preempts: bool) {
    let mut engine = engine(nodes, "10", preempts);
    for index in 0..nodes {
        engine.set_pod(&pod(index, "9500m", json!({"nodeName": format!("node-{index}")})), now());
    }
    let pods: Vec<Pod> = (nodes..nodes + count).map(|index| pod(index, "1", json!({}))).collect();
    let started = used();
    for pod in &pods {
        engine.set_pod(pod, now());
    }
    let mut refused = 0;
    while let Some(Decision::Unschedulable { .. }) = engine.next(now()) {
        refused += 1;
    }
    let with = if preempts { "on" } else { "off" };
    report(&format!("{count} pods fit none of {nodes} nodes, preemption {with}"), started, count);
    assert_eq!(refused, count, "no pod fits");
}

/// Every node is full of pods of low priority.
fn preemption(nodes: usize, count: usize) {
    let mut engine = engine(nodes, "10", true);
    for index in 0..count {
        let node = format!("node-{}", index % nodes);
        engine.set_pod(&pod(index, "1", json!({"nodeName": node, "priority": 1})), now());
    }
    let high = (count..2 * count).map(|index| pod(index, "1", json!({"priority": 9})));
    let high: Vec<Pod> = high.collect();
    let started = used();
    for pod in &high {
        engine.set_pod(pod, now());
    }
    let mut victims = 0;
    while let Some(decision) = engine.next(now()) {
        if let Decision::Unschedulable { pod, nomination: Nomination::Preempt(made), .. } = decision
        {
            victims += made.victims.len();
            for victim in &made.victims {
                engine.remove_pod(&victim.uid, now());
            }
            engine.preempted(&pod.uid, false, now());
        }
    }
    report(&format!("{count} pods preempt on {nodes} nodes"), started, count);
    assert!(victims > 0, "somebody is preempted");
}

fn report(what: &str, started: f64, count: usize) {
    let seconds = used() - started;
    println!("{what:<58}{:>10.1}{:>12.0}", seconds * 1e6 / count as f64, count as f64 / seconds);
}
