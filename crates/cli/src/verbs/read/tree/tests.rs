//! Trees of a small cluster, built by hand.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::gather::Gathered;
use super::graph::{Entry, Graph, Relation, Shown};
use super::show;
use super::state::{Reference, State, containers, references, state};

/// An object whose uid is its name, owned by those of these names.
fn object(kind: &str, name: &str, owners: &[(&str, &str)]) -> Entry {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(kind, name)| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": name}))
        .collect();
    let metadata = json!({
        "name": name, "namespace": "default", "uid": name,
        "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": owners,
    });
    Entry::read("v1", kind, &json!({"metadata": metadata}))
}

fn gathered(entries: &[Entry], states: &[(&str, &str, &str)]) -> Gathered {
    let mut graph = Graph::default();
    entries.iter().for_each(|entry| graph.add(entry.clone()));
    let states = states.iter().map(|(uid, ready, status)| {
        let state = State { ready: (*ready).to_owned(), status: (*status).to_owned() };
        ((*uid).to_owned(), state)
    });
    Gathered { graph, states: states.collect(), ..Gathered::default() }
}

fn text(gathered: &Gathered, named: &str) -> String {
    let now = "2026-01-01T00:05:00Z".parse().unwrap();
    let lines = show::lines(gathered, &gathered.graph.trees(named), named, now);
    show::render(&lines, true)
}

fn deployment() -> Gathered {
    let mut gathered = gathered(
        &[
            object("Deployment", "web", &[]),
            object("ReplicaSet", "web-1", &[("Deployment", "web")]),
            object("ReplicaSet", "web-2", &[("Deployment", "web")]),
            object("Pod", "web-2-a", &[("ReplicaSet", "web-2")]),
            object("Pod", "web-2-b", &[("ReplicaSet", "web-2")]),
            object("Pod", "other", &[]),
        ],
        &[
            ("web", "1/2", "MinimumReplicasUnavailable"),
            ("web-1", "0/0", ""),
            ("web-2", "1/2", ""),
            ("web-2-a", "2/2", "Running"),
            ("web-2-b", "0/1", "CrashLoopBackOff"),
        ],
    );
    let pod = json!({
        "spec": {"initContainers": [{"name": "init"}], "containers": [{"name": "main"}]},
        "status": {
            "initContainerStatuses": [{"name": "init", "ready": true,
                "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}],
            "containerStatuses": [{"name": "main", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
        },
    });
    gathered.containers.insert("web-2-b".into(), containers(&pod));
    gathered
}

#[test]
fn a_deployment_with_all_below_it() {
    assert_snapshot!(text(&deployment(), "web"), @r"
        OBJECT                     READY   STATUS                          AGE
        Deployment/web             1/2     MinimumReplicasUnavailable      5m
        ├─ReplicaSet/web-1         0/0                                     5m
        └─ReplicaSet/web-2         1/2                                     5m
          ├─Pod/web-2-a            2/2     Running                         5m
          └─Pod/web-2-b            0/1     CrashLoopBackOff                5m
            ├─InitContainer/init           Completed
            └─Container/main       0/1     CrashLoopBackOff (restarts 3)
        ");
}

#[test]
fn a_pod_with_its_owners_only() {
    assert_snapshot!(text(&deployment(), "web-2-b"), @r"
        OBJECT                     READY   STATUS                          AGE
        Deployment/web             1/2     MinimumReplicasUnavailable      5m
        └─ReplicaSet/web-2         1/2                                     5m
          └─Pod/web-2-b            0/1     CrashLoopBackOff                5m
            ├─InitContainer/init           Completed
            └─Container/main       0/1     CrashLoopBackOff (restarts 3)
        ");
}

#[test]
fn missing_owners_are_told() {
    let mut gathered = gathered(
        &[
            object("ReplicaSet", "web-1", &[("Deployment", "gone")]),
            object("Pod", "a", &[("ReplicaSet", "web-1"), ("ReplicaSet", "lost")]),
        ],
        &[("a", "1/1", "Running")],
    );
    let unknown = gathered.graph.unknown_owners("web-1");
    let names: Vec<&str> = unknown.iter().map(|(owner, _)| owner.name.as_str()).collect();
    assert_eq!(names, ["gone", "lost"]);
    for (owner, namespace) in unknown {
        gathered.graph.add(Entry::missing(&owner, &namespace, "it does not exist".into()));
    }
    assert_snapshot!(text(&gathered, "web-1"), @r"
        OBJECT               READY   STATUS                                             AGE
        Deployment/gone              missing: it does not exist
        └─ReplicaSet/web-1                                                              5m
          └─Pod/a            1/1     Running; also owned by ReplicaSet/lost (missing)   5m
        ");
}

#[test]
fn cycles_and_shared_dependents_end() {
    let gathered = gathered(
        &[
            object("A", "a", &[("B", "b")]),
            object("B", "b", &[("A", "a")]),
            object("C", "c", &[("A", "a"), ("B", "b")]),
            object("D", "d", &[("C", "c")]),
        ],
        &[],
    );
    assert_snapshot!(text(&gathered, "a"), @r"
        OBJECT    READY   STATUS                        AGE
        A/a                                             5m
        ├─B/b                                           5m
        │ └─A/a           (cycle: it is above itself)
        └─C/c                                           5m
          └─D/d                                         5m
        ");
}

/// A Service has slices, whose pods are those of another owner.
#[test]
fn relations_are_shown_like_owners() {
    let mut gathered = gathered(
        &[
            object("Service", "web", &[]),
            object("EndpointSlice", "web-x", &[("Service", "web")]),
            object("ReplicaSet", "web-1", &[]),
            object("Pod", "web-1-a", &[("ReplicaSet", "web-1")]),
        ],
        &[("web-1-a", "1/1", "Running"), ("web", "", "ClusterIP 10.96.0.10 80/TCP")],
    );
    gathered.graph.relate("web-x", Relation::Endpoint, "web-1-a");
    assert_snapshot!(text(&gathered, "web"), @r"
        OBJECT                  READY   STATUS                               AGE
        Service/web                     ClusterIP 10.96.0.10 80/TCP          5m
        └─EndpointSlice/web-x                                                5m
          └─Pod/web-1-a         1/1     Running; owned by ReplicaSet/web-1   5m
        ");
    let trees = gathered.graph.trees("web");
    assert_eq!(trees[0].below[0].below[0].shown, Shown::Whole);
    let value = show::value(&gathered, &trees[0]);
    assert_eq!(value["dependents"][0]["dependents"][0]["relation"], "endpoint");
    assert_eq!(value["dependents"][0]["dependents"][0]["otherOwners"], json!(["ReplicaSet/web-1"]));
}

#[test]
fn states_come_from_the_servers_columns() {
    let columns = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into()
    };
    let conditions = |kind: &str, status: &str, reason: &str| json!({"status": {"conditions": [{"type": kind, "status": status, "reason": reason}]}});
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["a/b"]}});
    let table = [
        (
            "Pod",
            &["Name", "Ready", "Status"][..],
            json!(["a", "1/2", "Running"]),
            json!({}),
            "1/2",
            "Running",
        ),
        ("ReplicaSet", &["Name", "Desired", "Ready"], json!(["a", 3, 1]), json!({}), "1/3", ""),
        (
            "Job",
            &["Status", "Completions"],
            json!(["Complete", "1/1"]),
            json!({}),
            "1/1",
            "Complete",
        ),
        (
            "Service",
            &["Type", "Cluster-IP", "Port(s)"],
            json!(["ClusterIP", "None", "80/TCP"]),
            json!({}),
            "",
            "ClusterIP None 80/TCP",
        ),
        (
            "Deployment",
            &["Ready"],
            json!(["0/1"]),
            conditions("Available", "False", "MinimumReplicasUnavailable"),
            "0/1",
            "MinimumReplicasUnavailable",
        ),
        ("Widget", &["Name"], json!(["a"]), conditions("Ready", "True", "Fine"), "", ""),
        ("Widget", &["Name"], json!(["a"]), conditions("Stalled", "True", ""), "", "Stalled"),
        ("Widget", &["Name"], json!(["a"]), deleting, "", "Terminating (finalizers a/b)"),
    ];
    for (kind, names, cells, object, ready, status) in table {
        let found = state(kind, &columns(names), &json!({"cells": cells, "object": object}));
        let expected = State { ready: ready.to_owned(), status: status.to_owned() };
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn references_to_claims_and_pods() {
    let set = json!({"metadata": {"name": "db"},
        "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
    let found = references("StatefulSet", &set);
    let is_to = |name| found.iter().any(|one| one.is_to("PersistentVolumeClaim", name));
    assert!(is_to("data-db-0") && is_to("data-db-12"));
    assert!(!is_to("data-db-") && !is_to("data-db-x") && !is_to("data-db2-0"));
    let pod = json!({"spec": {"volumes": [
        {"persistentVolumeClaim": {"claimName": "c"}}, {"emptyDir": {}}]}});
    let claim = Reference::Named {
        relation: Relation::Claim,
        kind: "PersistentVolumeClaim",
        name: "c".into(),
    };
    assert_eq!(references("Pod", &pod), [claim]);
    let slice = json!({"endpoints": [{"targetRef": {"kind": "Pod", "name": "p"}}, {}]});
    assert!(references("EndpointSlice", &slice)[0].is_to("Pod", "p"));
    assert_eq!(references("ConfigMap", &json!({})), []);
}
