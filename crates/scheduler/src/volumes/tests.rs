use std::sync::Arc;

use api::Kind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::waiting::{Waiter, Waiting};
use super::*;

fn read<K: Kind>(json: &Value) -> K {
    K::decode(json.to_string().as_bytes()).unwrap()
}

fn claim(annotations: Value, spec: Value, revision: u64) -> PersistentVolumeClaim {
    let mut whole = json!({"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let phase = if whole["volumeName"].is_string() { "Bound" } else { "Pending" };
    read(
        &json!({"metadata": {"name": "data", "namespace": "ns", "uid": "u", "annotations": annotations,
        "resourceVersion": revision.to_string()}, "spec": whole, "status": {"phase": phase}}),
    )
}

fn class(more: Value) -> StorageClass {
    let mut class = json!({"metadata": {"name": "late"}, "provisioner": "skiff.dev/local-path",
        "volumeBindingMode": "WaitForFirstConsumer"});
    for (key, value) in more.as_object().unwrap() {
        class[key] = value.clone();
    }
    read(&class)
}

/// Nodes with disks of 1, 10 and 100 GiB, the last two in zone `b`.
fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::new();
    for (name, zone, disk) in [("n1", "a", "1Gi"), ("n2", "b", "10Gi"), ("n3", "b", "100Gi")] {
        let labels = json!({"zone": zone, "kubernetes.io/hostname": name});
        let node: Node = read(&json!({"metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "1", "ephemeral-storage": disk}}}));
        snapshot.set_node(&node);
    }
    snapshot
}

fn pod(uid: &str) -> PodInfo {
    PodInfo {
        uid: uid.into(),
        namespace: "ns".into(),
        claims: vec!["data".into()],
        ..Default::default()
    }
}

/// The names of the nodes where the pod's claim can be bound, and of those with room.
fn nodes(volumes: &Volumes) -> [Vec<String>; 2] {
    let snapshot = snapshot();
    let needs = volumes.needs(&pod("p")).unwrap();
    let (found, large) = needs.unbound_nodes[0].filter(&snapshot);
    [found, large].map(|nodes| nodes.iter().map(|node| snapshot.name(node).to_string()).collect())
}

fn volumes(claim: &PersistentVolumeClaim, class: &StorageClass) -> Volumes {
    let mut volumes = Volumes::default();
    volumes.set_claim(claim);
    volumes.set_class(class);
    volumes
}

#[test]
fn a_volume_is_made_where_the_class_and_the_disks_allow_it() {
    let plain = claim(json!({}), json!({}), 1);
    let made = volumes(&plain, &class(json!({})));
    assert_eq!(nodes(&made), [vec!["n1", "n2", "n3"], vec!["n2", "n3"]]);
    let in_b = json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]});
    assert_eq!(nodes(&volumes(&plain, &class(in_b)))[0], ["n2", "n3"]);
    let elsewhere = volumes(&plain, &class(json!({"provisioner": "example.com/disk"})));
    assert_eq!(nodes(&elsewhere)[1], ["n1", "n2", "n3"], "not on the nodes' disks");
    let selected = claim(json!({SELECTED_NODE: "n3"}), json!({}), 1);
    assert_eq!(nodes(&volumes(&selected, &class(json!({}))))[0], ["n3"]);
}

#[test]
fn a_driver_that_says_what_room_it_has_is_believed() {
    let driver = |tracks: bool| -> CSIDriver {
        read(
            &json!({"metadata": {"name": "example.com/disk"}, "spec": {"storageCapacity": tracks}}),
        )
    };
    let capacity = |name: &str, nodes: Value, more: Value| -> CSIStorageCapacity {
        let mut capacity = json!({"metadata": {"name": name, "namespace": "d"},
            "storageClassName": "late", "capacity": "10Gi", "nodeTopology": nodes});
        for (key, value) in more.as_object().unwrap() {
            capacity[key] = value.clone();
        }
        read(&capacity)
    };
    let class = class(json!({"provisioner": "example.com/disk"}));
    let mut volumes = volumes(&claim(json!({}), json!({}), 1), &class);
    let room = |volumes: &Volumes| nodes(volumes)[1].clone();
    assert!(!volumes.set_driver(&driver(false)));
    assert_eq!(room(&volumes), ["n1", "n2", "n3"], "it says nothing");
    assert!(volumes.set_driver(&driver(true)) && !volumes.set_driver(&driver(true)));
    assert_eq!(room(&volumes), [""; 0], "it has none");
    let in_zone = |zone: &str| json!({"matchLabels": {"zone": zone}});
    for (name, nodes, more) in [
        ("small", in_zone("a"), json!({"capacity": "4Gi"})),
        ("pieces", in_zone("a"), json!({"maximumVolumeSize": "1Gi"})),
        ("unknown", in_zone("a"), json!({"capacity": null})),
        ("other", in_zone("a"), json!({"storageClassName": "other"})),
        ("nowhere", Value::Null, json!({})),
    ] {
        assert!(volumes.set_capacity(&capacity(name, nodes, more)), "{name}");
        assert_eq!(room(&volumes), [""; 0], "{name}");
    }
    volumes.set_capacity(&capacity("large", in_zone("b"), json!({})));
    assert_eq!(room(&volumes), ["n2", "n3"]);
    volumes.set_capacity(&capacity("everywhere", json!({}), json!({})));
    assert_eq!(room(&volumes), ["n1", "n2", "n3"]);
    volumes.remove_capacity("d/everywhere");
    volumes.remove_capacity("d/large");
    assert_eq!(room(&volumes), [""; 0]);
    assert_eq!(volumes.classes_of("example.com/disk"), ["late"]);
    assert!(volumes.remove_driver("example.com/disk"));
    assert_eq!(room(&volumes), ["n1", "n2", "n3"]);
}

#[test]
fn an_existing_volume_has_to_suit_the_claim() {
    let none = class(json!({"provisioner": "kubernetes.io/no-provisioner"}));
    let mut volumes = volumes(&claim(json!({}), json!({}), 1), &none);
    assert_eq!(nodes(&volumes)[0], Vec::<String>::new());
    let volume = |name: &str, node: &str, more: Value| -> PersistentVolume {
        let host = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
        let mut spec = json!({"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "5Gi"}, "local": {"path": "/x"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": host}]}}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        read(&json!({"metadata": {"name": name}, "spec": spec}))
    };
    for (name, more) in [
        ("small", json!({"capacity": {"storage": "4Gi"}})),
        ("block", json!({"volumeMode": "Block"})),
        ("other", json!({"storageClassName": "other"})),
        ("modes", json!({"accessModes": ["ReadOnlyMany"]})),
        ("taken", json!({"claimRef": {"namespace": "ns", "name": "else"}})),
        ("former", json!({"claimRef": {"namespace": "ns", "name": "data", "uid": "old"}})),
    ] {
        volumes.set_volume(&volume(name, "n1", more));
    }
    assert_eq!(nodes(&volumes)[0], Vec::<String>::new());
    volumes.set_volume(&volume("free", "n1", json!({})));
    volumes.set_volume(&volume(
        "reserved",
        "n2",
        json!({"claimRef": {"namespace": "ns", "name": "data"}}),
    ));
    assert_eq!(nodes(&volumes), [vec!["n1", "n2"], vec!["n1", "n2", "n3"]]);
}

#[test]
fn a_pod_waits_until_its_claim_is_bound_or_its_node_is_taken_back() {
    let now = Timestamp::UNIX_EPOCH;
    let selected = || json!({SELECTED_NODE: "n1"});
    let ended = |later: &PersistentVolumeClaim| {
        // What is in the cache is older than the selection.
        let mut volumes = volumes(&claim(json!({}), json!({}), 4), &class(json!({})));
        let mut waiting = Waiting::default();
        let claims = vec![("ns/data".to_owned(), 5)];
        let waiter = Waiter { pod: Arc::new(pod("p")), node: "n1".into(), claims };
        waiting.add(waiter, &volumes, now);
        assert!(waiting.next().is_none());
        volumes.set_claim(&claim(selected(), json!({}), 5));
        waiting.claim_changed("ns/data", &volumes);
        assert!(waiting.next().is_none());
        volumes.set_claim(later);
        waiting.claim_changed("ns/data", &volumes);
        waiting.next().map(|ended| ended.bound)
    };
    let bound = claim(selected(), json!({"volumeName": "v"}), 6);
    assert_eq!(ended(&bound), Some(Ok(())));
    let reset = Some(Err("selectedNode annotation reset for PVC \"data\"".to_owned()));
    assert_eq!(ended(&claim(json!({}), json!({}), 6)), reset);
    assert_eq!(ended(&claim(selected(), json!({}), 6)), None);

    let volumes = volumes(&claim(selected(), json!({}), 5), &class(json!({})));
    let mut waiting = Waiting::default();
    let add = |waiting: &mut Waiting| {
        let claims = vec![("ns/data".to_owned(), 5)];
        let waiter = Waiter { pod: Arc::new(pod("p")), node: "n1".into(), claims };
        waiting.add(waiter, &volumes, now);
    };
    add(&mut waiting);
    waiting.node_removed("n2");
    assert!(waiting.next().is_none());
    waiting.node_removed("n1");
    assert!(waiting.next().unwrap().bound.is_err());
    add(&mut waiting);
    let deadline = waiting.next_timer(now).unwrap();
    waiting.expire(deadline);
    assert!(waiting.next().unwrap().bound.unwrap_err().contains("timed out"));
    add(&mut waiting);
    waiting.remove("p");
    assert_eq!(waiting.next_timer(now), None);
}
