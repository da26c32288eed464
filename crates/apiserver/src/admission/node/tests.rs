use serde_json::{Value, json};

use super::*;

fn read<K: Kind>(json: &Value) -> K {
    K::decode(json.to_string().as_bytes()).unwrap()
}

#[test]
fn nodes_change_only_their_own_objects() {
    let node = |labels: Value, taints: Value| -> Node {
        read(&json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}}))
    };
    let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
    let plain = || node(json!({"kubernetes.io/os": "linux"}), json!([]));
    for (new, old, problem) in [
        (plain(), None, ""),
        (plain(), Some(plain()), ""),
        (
            node(
                json!({"example.com/a": "b", "node.kubernetes.io/x": "y", "a.kubelet.kubernetes.io/x": "y"}),
                json!([]),
            ),
            None,
            "",
        ),
        (node(json!({}), taint.clone()), None, ""),
        (
            node(json!({"kubernetes.io/os": "linux"}), taint),
            Some(plain()),
            "node \"n1\" is not allowed to modify taints",
        ),
        (
            node(
                json!({"node-role.kubernetes.io/control-plane": "", "a.node-restriction.kubernetes.io/x": "y"}),
                json!([]),
            ),
            None,
            "node \"n1\" is not allowed to set the following labels: a.node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane",
        ),
        (
            node(
                json!({"kubernetes.io/os": "linux", "node-restriction.kubernetes.io/x": "y"}),
                json!([]),
            ),
            Some(plain()),
            "is not allowed to modify labels: node-restriction.kubernetes.io/x",
        ),
        (
            node(json!({"kubernetes.io/os": "linux", "xnode-restriction.example": "y"}), json!([])),
            Some(plain()),
            "",
        ),
    ] {
        let checked = check_node("n1", "n1", Some(&new), old.as_ref());
        assert_eq!(checked.err().unwrap_or_default(), problem, "{new:?}");
    }
    let other = check_node("n2", "n1", Some(&plain()), None).unwrap_err();
    assert_eq!(other, "node \"n2\" is not allowed to modify node \"n1\"");
    assert_eq!(check_node("n1", "n1", None, Some(&plain())), Ok(()), "its deletion");
    let source = json!({"configMap": {"name": "a", "namespace": "b", "kubeletConfigKey": "c"}});
    let configured: Node =
        read(&json!({"metadata": {"name": "n1"}, "spec": {"configSource": source}}));
    let bare: Node = read(&json!({"metadata": {"name": "n1"}}));
    for (new, old, problem) in [
        (&configured, None, "create pods with a non-nil configSource"),
        (&configured, Some(&bare), "update configSource to a new non-nil configSource"),
        (&configured, Some(&configured), ""),
        (&bare, Some(&configured), ""),
    ] {
        let checked = check_node("n1", "n1", Some(new), old).err().unwrap_or_default();
        let expected = format!("node \"n1\" is not allowed to {problem}");
        assert_eq!(checked, if problem.is_empty() { "" } else { expected.as_str() });
    }
}

#[test]
fn kubelets_update_only_the_status_of_pods() {
    let pod = |node: &str, labels: Value, phase: &str| -> Pod {
        read(
            &json!({"metadata": {"labels": labels}, "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}}),
        )
    };
    let old = pod("n1", json!({}), "Pending");
    let new = pod("n1", json!({}), "Running");
    assert_eq!(check_status("n1", &new, &old), Ok(()));
    for (own, new, problem) in [
        ("n2", &new, "can only update pod status for pods with spec.nodeName set to itself"),
        ("n1", &pod("n1", json!({"a": "b"}), "Running"), "cannot update labels through pod status"),
    ] {
        let error = check_status(own, new, &old).unwrap_err();
        assert_eq!(error, format!("node {own:?} {problem}"));
    }
}

#[test]
fn kubelets_only_report_the_size_of_claims() {
    let claim = |status: Value, labels: Value| -> PersistentVolumeClaim {
        read(&json!({"metadata": {"name": "c", "labels": labels}, "spec": {}, "status": status}))
    };
    let old = claim(json!({"phase": "Bound"}), json!({}));
    let grown = claim(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}), json!({}));
    assert_eq!(check_claim("n", "status", Some(&grown), Some(&old)), Ok(()));
    assert!(check_claim("n", "", Some(&grown), Some(&old)).is_err());
    assert!(check_claim("n", "", Some(&grown), None).is_err());
    for other in [
        claim(json!({"phase": "Lost"}), json!({})),
        claim(json!({"phase": "Bound"}), json!({"a": "b"})),
    ] {
        assert!(check_claim("n", "status", Some(&other), Some(&old)).is_err());
    }
}

#[test]
fn kubelets_create_only_mirror_pods() {
    let base = json!({
        "metadata": {
            "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
    });
    assert_eq!(mirror::owner("n1", &read(&base)), Ok("u"));
    for (pointer, value, problem) in [
        ("/metadata/annotations", json!({}), "can only create mirror pods"),
        ("/spec/nodeName", json!("n2"), "spec.nodeName set to itself"),
        ("/metadata/ownerReferences", json!([]), "an owner reference set to itself"),
        ("/metadata/ownerReferences/0/name", json!("n2"), "an owner reference set to itself"),
        ("/metadata/ownerReferences/0/controller", json!(false), "a controller owner reference"),
        (
            "/metadata/ownerReferences/0",
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true, "blockOwnerDeletion": true}),
            "blockOwnerDeletion",
        ),
        (
            "/spec",
            json!({"nodeName": "n1", "containers": [], "serviceAccountName": "s"}),
            "a service account",
        ),
        (
            "/spec/containers/0",
            json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}),
            "secrets",
        ),
        (
            "/spec/containers/0",
            json!({"name": "c", "env": [{"name": "a", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}}]}),
            "configmaps",
        ),
        (
            "/spec",
            json!({"nodeName": "n1", "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            "persistentvolumeclaims",
        ),
        (
            "/spec",
            json!({"nodeName": "n1", "containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
            "secrets",
        ),
    ] {
        let mut pod = base.clone();
        *pod.pointer_mut(pointer).unwrap() = value;
        let pod: Pod = read(&pod);
        let checked = mirror::owner("n1", &pod);
        let checked = checked.and_then(|_| mirror::refers_to_nothing("n1", &pod));
        let error = checked.unwrap_err();
        assert!(error.contains(problem), "{pointer}: {error}");
    }
}

/// Whatever the node authorizer grants a kubelet because of its pods, a mirror pod may not name.
#[test]
fn a_mirror_pod_refers_to_nothing() {
    for (way, place, mut spec) in crate::references::tests::generated() {
        let has_containers = spec["containers"].is_array();
        spec["nodeName"] = json!("n1");
        if !has_containers {
            spec["containers"] = json!([{"name": "c"}]);
        }
        let pod = json!({
            "metadata": {
                "annotations": {"kubernetes.io/config.mirror": "hash"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}],
            },
            "spec": spec,
        });
        let Ok(pod) = Pod::decode(pod.to_string().as_bytes()) else {
            panic!("{way}: cannot be decoded: {pod}");
        };
        let error = mirror::refers_to_nothing("n1", &pod).unwrap_err();
        let begins = |resource: &str| {
            error.starts_with(&format!("node \"n1\" can not create pods that reference {resource}"))
        };
        // Of some, it also says by way of what.
        let is_account = place.resource == "serviceaccounts" && begins("a service account");
        assert!(is_account || begins(place.resource), "{way}: {error}");
    }
}

#[test]
fn nodes_report_on_the_volumes_that_they_keep() {
    let volume = |change: &dyn Fn(&mut Value)| -> PersistentVolume {
        let mut json = json!({
            "metadata": {"name": "v", "labels": {"skiff.dev/node": "n1"}, "finalizers": ["skiff.dev/local-path", "other"]},
            "spec": {"capacity": {"storage": "1Gi"}},
        });
        change(&mut json);
        read(&json)
    };
    let plain = || volume(&|_| {});
    let deleting = |json: &mut Value| {
        json["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    };
    let made = |json: &mut Value| {
        json["metadata"]["annotations"] = json!({"skiff.dev/volume-made": "true"});
    };
    let released = |json: &mut Value| json["metadata"]["finalizers"] = json!(["other"]);
    let check = |new: &PersistentVolume, old: &PersistentVolume| {
        check_volume("n1", "", Some(new), Some(old)).is_ok()
    };
    assert!(check(&volume(&made), &plain()));
    let gone = volume(&|json| {
        deleting(json);
        released(json);
    });
    assert!(check(&gone, &volume(&deleting)));
    for refused in [
        volume(&released),
        volume(&deleting),
        volume(&|json| json["spec"]["capacity"]["storage"] = json!("2Gi")),
        volume(&|json| json["metadata"]["labels"]["skiff.dev/node"] = json!("n2")),
        volume(&|json| json["metadata"]["annotations"] = json!({"other": "x"})),
    ] {
        assert!(!check(&refused, &plain()), "{refused:?}");
    }
    assert!(!check(&plain(), &volume(&made)), "what is made stays made");
    let everything = volume(&|json| {
        deleting(json);
        json["metadata"]["finalizers"] = json!([]);
    });
    assert!(!check(&everything, &volume(&deleting)), "the other finalizer is not its own");
    assert!(check_volume("n2", "", Some(&volume(&made)), Some(&plain())).is_err());
    assert!(check_volume("n1", "status", Some(&volume(&made)), Some(&plain())).is_err());
    assert!(check_volume("n1", "", Some(&plain()), None).is_err());
}
