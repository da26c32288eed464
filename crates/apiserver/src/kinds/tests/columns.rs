use serde_json::{Value, json};

use super::{context, object};

fn cells(json: &Value) -> Vec<String> {
    let (object, strategy) = object(json);
    let cells = strategy.cells(&*object, context().now);
    assert_eq!(cells.len(), strategy.columns().len(), "a cell per column");
    cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect()
}

/// READY, STATUS and RESTARTS of a pod with one sidecar, one init container and two containers.
fn pod(status: Value) -> [String; 3] {
    let deleted = status["deleted"].as_bool().unwrap_or_default();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": status,
        "spec": {"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b"}]}});
    if deleted {
        pod["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z".into();
    }
    let cells = cells(&pod);
    [cells[1].clone(), cells[2].clone(), cells[3].clone()]
}

#[test]
fn the_status_of_pods() {
    let container = |name: &str, ready: bool, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "started": ready, "state": state});
    let done =
        || container("i", true, json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
    let running = |name: &str| container(name, true, json!({"running": {}}));
    let waiting =
        |name: &str, reason: &str| container(name, false, json!({"waiting": {"reason": reason}}));
    let of = |phase: &str, init: Vec<Value>, main: Vec<Value>| json!({"phase": phase, "initContainerStatuses": init, "containerStatuses": main});
    let check = |status: Value, ready: &str, reason: &str, restarts: &str| {
        assert_eq!(pod(status), [ready, reason, restarts]);
    };
    check(of("Pending", vec![], vec![]), "0/3", "Pending", "0");
    check(
        of(
            "Pending",
            vec![waiting("i", "PodInitializing"), waiting("s", "PodInitializing")],
            vec![],
        ),
        "0/3",
        "Init:0/2",
        "0",
    );
    check(
        of("Pending", vec![done(), waiting("s", "ErrImagePull")], vec![]),
        "0/3",
        "Init:ErrImagePull",
        "0",
    );
    check(
        of("Pending", vec![container("i", false, json!({"terminated": {"exitCode": 3}}))], vec![]),
        "0/3",
        "Init:ExitCode:3",
        "0",
    );
    let up = of("Running", vec![done(), running("s")], vec![running("a"), running("b")]);
    check(up.clone(), "3/3", "Running", "0");
    let mut leaving = up.clone();
    leaving["deleted"] = true.into();
    check(leaving, "3/3", "Terminating", "0");
    let mut crashing = of(
        "Running",
        vec![done(), running("s")],
        vec![running("a"), waiting("b", "CrashLoopBackOff")],
    );
    crashing["containerStatuses"][1]["restartCount"] = 3.into();
    crashing["containerStatuses"][1]["lastState"] =
        json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T03:02:05Z"}});
    check(crashing, "2/3", "CrashLoopBackOff", "3 (2m ago)");
    let ended = |name: &str| {
        container(name, false, json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))
    };
    check(
        of("Succeeded", vec![done(), done()], vec![ended("a"), ended("b")]),
        "0/3",
        "Completed",
        "0",
    );
    check(
        of("Running", vec![done(), running("s")], vec![ended("a"), running("b")]),
        "2/3",
        "NotReady",
        "0",
    );
    check(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        "0/3",
        "SchedulingGated",
        "0",
    );
}

#[test]
fn other_kinds() {
    let created = "2026-01-02T03:00:05Z";
    assert_eq!(
        cells(
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "creationTimestamp": created},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}})
        ),
        ["d", "2/3", "3", "1", "4m", "c,d", "i,j", "a=b"]
    );
    assert_eq!(
        cells(
            &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "creationTimestamp": created},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}})
        ),
        ["s", "LoadBalancer", "10.0.0.1", "<pending>", "80:30080/TCP,53/UDP", "4m", "<none>"]
    );
    assert_eq!(
        cells(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "creationTimestamp": created,
                "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]}})
        ),
        [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "4m",
            "",
            "10.0.0.2",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>"
        ]
    );
    assert_eq!(
        cells(
            &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "creationTimestamp": created},
            "spec": {"completions": 2, "template": {"spec": {"containers": []}}},
            "status": {"succeeded": 2, "startTime": "2026-01-02T03:00:05Z", "completionTime": "2026-01-02T03:00:15Z",
                "conditions": [{"type": "Complete", "status": "True"}]}})
        ),
        ["j", "Complete", "2/2", "10s", "4m", "", "", "<none>"]
    );
}

#[test]
fn every_kind_has_a_cell_per_column() {
    for row in api::kind::KINDS.iter().filter(|row| row.has_objects()) {
        let cells = cells(
            &json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": {"name": "x"}}),
        );
        assert!(cells.iter().any(|cell| cell == "x"), "{row}");
    }
}
