//! What wakes a pod that each plugin has rejected, and what does not.

use super::*;
use api::Kind;

/// A change, and what it is.
type Changes = &'static [(&'static str, fn(&mut Engine))];

/// A pod that waits in a cluster, and changes of it. The last one helps; no other may.
struct Row {
    plugin: &'static str,
    cluster: fn(&mut Engine),
    pod: Pod,
    changes: Changes,
}

fn read<K: Kind>(object: serde_json::Value) -> K {
    K::decode(object.to_string().as_bytes()).unwrap()
}

fn put_node(engine: &mut Engine, labels: &[(&str, &str)], spec: serde_json::Value) {
    let mut node = node("a", "1", labels);
    node.spec = Some(serde_json::from_value(spec).unwrap());
    engine.set_node(&node, at(0));
}

fn put(engine: &mut Engine, name: &str, spec: serde_json::Value) {
    let mut pod = pod_with(name, spec);
    pod.spec.as_mut().unwrap().node_name = Some("a".into());
    engine.set_pod(&pod, at(0));
}

fn remove(engine: &mut Engine, name: &str) {
    engine.remove_pod(&format!("uid-{name}"), at(0));
}

fn with_claim(name: &str) -> serde_json::Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]})
}

fn with_port(port: u16) -> serde_json::Value {
    json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]})
}

fn requesting(cpu: &str, memory: &str) -> serde_json::Value {
    let requests = json!({"cpu": cpu, "memory": memory});
    json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
}

fn put_claim(engine: &mut Engine, name: &str, spec: serde_json::Value, bound: bool) {
    let phase = if bound { "Bound" } else { "Pending" };
    let claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": spec, "status": {"phase": phase}});
    engine.set_claim(&read(claim), at(0));
}

fn put_volume(engine: &mut Engine, name: &str, labels: serde_json::Value, spec: serde_json::Value) {
    let volume = json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
    engine.set_volume(&read(volume), at(0));
}

fn put_class(engine: &mut Engine, name: &str) {
    let class = json!({"metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer"});
    engine.set_class(&read(class), at(0));
}

fn of_class(class: &str, size: &str) -> serde_json::Value {
    json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}}})
}

fn volume_of_class(class: &str, size: &str) -> serde_json::Value {
    json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size}})
}

fn limit(engine: &mut Engine, driver: &str, count: u32) {
    let driver = json!({"name": driver, "nodeID": "a", "allocatable": {"count": count}});
    engine.set_node_limits(
        &read(json!({"metadata": {"name": "a"}, "spec": {"drivers": [driver]}})),
        at(0),
    );
}

fn anti_affine(term: serde_json::Value) -> serde_json::Value {
    let terms = json!([term]);
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
}

fn taint(key: &str) -> serde_json::Value {
    json!({"key": key, "effect": "NoSchedule"})
}

fn nodes_and_resources() -> Vec<Row> {
    vec![
        Row {
            plugin: "NodeUnschedulable",
            cluster: |engine| put_node(engine, &[], json!({"unschedulable": true})),
            pod: pod_with("waits", json!({})),
            changes: &[
                ("a pod comes", |engine| put(engine, "other", json!({}))),
                ("a pod goes", |engine| remove(engine, "other")),
                ("a label", |engine| {
                    put_node(engine, &[("x", "y")], json!({"unschedulable": true}))
                }),
                ("uncordoned", |engine| put_node(engine, &[("x", "y")], json!({}))),
            ],
        },
        Row {
            plugin: "TaintToleration",
            cluster: |engine| put_node(engine, &[], json!({"taints": [taint("k"), taint("l")]})),
            pod: pod_with("waits", json!({})),
            changes: &[
                ("one is gone", |engine| put_node(engine, &[], json!({"taints": [taint("k")]}))),
                ("both are gone", |engine| put_node(engine, &[], json!({}))),
            ],
        },
        Row {
            plugin: "NodeAffinity",
            cluster: |engine| put_node(engine, &[], json!({})),
            pod: pod_with("waits", json!({"nodeSelector": {"disk": "ssd"}})),
            changes: &[
                ("another label", |engine| put_node(engine, &[("disk", "hdd")], json!({}))),
                ("a taint", |engine| {
                    put_node(engine, &[("disk", "hdd")], json!({"taints": [taint("k")]}));
                }),
                ("its label", |engine| put_node(engine, &[("disk", "ssd")], json!({}))),
            ],
        },
        Row {
            plugin: "NodePorts",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                put(engine, "other", with_port(81));
                put(engine, "same", with_port(80));
            },
            pod: pod_with("waits", with_port(80)),
            changes: &[
                ("another port", |engine| remove(engine, "other")),
                ("its port", |engine| remove(engine, "same")),
            ],
        },
        Row {
            plugin: "NodeResourcesFit",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                put(engine, "other", requesting("800m", "2Gi"));
            },
            pod: pod_with(
                "waits",
                json!({"containers": [{"name": "c", "resources":
                {"requests": {"cpu": "500m"}}}]}),
            ),
            changes: &[
                ("less memory", |engine| put_resized(engine, "800m", "1Gi", 2)),
                ("more CPU", |engine| put_resized(engine, "900m", "1Gi", 3)),
                ("less CPU", |engine| put_resized(engine, "100m", "1Gi", 4)),
            ],
        },
    ]
}

fn put_resized(engine: &mut Engine, cpu: &str, memory: &str, generation: i64) {
    let mut pod = pod_with("other", requesting(cpu, memory));
    pod.metadata.generation = Some(generation);
    pod.spec.as_mut().unwrap().node_name = Some("a".into());
    engine.set_pod(&pod, at(0));
}

fn volumes() -> Vec<Row> {
    vec![
        Row {
            plugin: "VolumeRestrictions",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                for name in ["data", "more"] {
                    let modes = json!({"accessModes": ["ReadWriteOncePod"], "volumeName": name});
                    put_claim(engine, name, modes, true);
                    put_volume(engine, name, json!({}), json!({}));
                    put(engine, name, with_claim(name));
                }
            },
            pod: pod_with("waits", with_claim("data")),
            changes: &[
                ("another claim is free", |engine| remove(engine, "more")),
                ("its claim is free", |engine| remove(engine, "data")),
            ],
        },
        Row {
            plugin: "VolumeBinding",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                put_class(engine, "local");
                put_claim(engine, "data", of_class("local", "2Gi"), false);
            },
            pod: pod_with("waits", with_claim("data")),
            changes: &[
                ("another class", |engine| put_class(engine, "other")),
                ("another claim", |engine| {
                    put_claim(engine, "other", of_class("local", "1Gi"), false);
                }),
                ("a volume of another class", |engine| {
                    put_volume(engine, "other", json!({}), volume_of_class("other", "2Gi"));
                }),
                ("too small a volume", |engine| {
                    put_volume(engine, "small", json!({}), volume_of_class("local", "1Gi"));
                }),
                ("a volume for another claim", |engine| {
                    let mut spec = volume_of_class("local", "2Gi");
                    spec["claimRef"] = json!({"namespace": "default", "name": "other"});
                    put_volume(engine, "taken", json!({}), spec);
                }),
                ("a volume that suits", |engine| {
                    put_volume(engine, "suits", json!({}), volume_of_class("local", "2Gi"));
                }),
            ],
        },
        Row {
            plugin: "VolumeZone",
            cluster: |engine| {
                put_node(engine, &[("topology.kubernetes.io/zone", "a")], json!({}));
                put_claim(engine, "data", json!({"volumeName": "data"}), true);
                put_volume(engine, "data", zone("b"), json!({}));
            },
            pod: pod_with("waits", with_claim("data")),
            changes: &[
                ("another volume", |engine| put_volume(engine, "other", zone("a"), json!({}))),
                ("its volume", |engine| put_volume(engine, "data", zone("a"), json!({}))),
            ],
        },
        Row {
            plugin: "NodeVolumeLimits",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                limit(engine, "csi", 1);
                for name in ["data", "used"] {
                    put_claim(engine, name, json!({"volumeName": name}), true);
                    let csi = json!({"csi": {"driver": "csi", "volumeHandle": name}});
                    put_volume(engine, name, json!({}), csi);
                }
                put(engine, "used", with_claim("used"));
                put(engine, "plain", json!({}));
            },
            pod: pod_with("waits", with_claim("data")),
            changes: &[
                ("a pod without volumes goes", |engine| remove(engine, "plain")),
                ("another claim", |engine| {
                    put_claim(engine, "other", json!({"volumeName": "other"}), true);
                }),
                ("the same limit", |engine| limit(engine, "csi", 1)),
                ("a lower limit", |engine| limit(engine, "csi", 0)),
                ("a volume goes", |engine| remove(engine, "used")),
            ],
        },
        Row {
            plugin: "NodeVolumeLimits",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                limit(engine, "csi", 1);
                put_claim(engine, "data", json!({"volumeName": "data"}), true);
                for name in ["data", "left"] {
                    let csi = json!({"csi": {"driver": "csi", "volumeHandle": name}});
                    put_volume(engine, name, json!({}), csi);
                }
                attach(engine, "one", "left");
            },
            pod: pod_with("waits", with_claim("data")),
            changes: &[
                ("another attachment", |engine| attach(engine, "two", "none")),
                ("one that is not there", |engine| engine.remove_attachment("none", at(0))),
                ("what was left goes", |engine| engine.remove_attachment("one", at(0))),
            ],
        },
        Row {
            plugin: "NodeVolumeLimits",
            cluster: |engine| {
                put_node(engine, &[], json!({}));
                limit(engine, "ebs.csi.aws.com", 1);
                put(engine, "used", with_disk("used"));
            },
            pod: pod_with("waits", with_disk("data")),
            changes: &[
                ("another driver", |engine| engine.remove_attachment("none", at(0))),
                ("a higher limit", |engine| limit(engine, "ebs.csi.aws.com", 2)),
            ],
        },
    ]
}

fn with_disk(id: &str) -> serde_json::Value {
    json!({"volumes": [{"name": "v", "awsElasticBlockStore": {"volumeID": id}}]})
}

fn attach(engine: &mut Engine, name: &str, volume: &str) {
    let attachment = json!({"metadata": {"name": name}, "spec": {"attacher": "csi", "nodeName": "a",
        "source": {"persistentVolumeName": volume}}});
    engine.snapshot.storage.set_attachment(&read(attachment));
}

fn zone(name: &str) -> serde_json::Value {
    json!({"topology.kubernetes.io/zone": name})
}

fn pods() -> Vec<Row> {
    let select = |app: &str| json!({"matchLabels": {"app": app}});
    let host = "kubernetes.io/hostname";
    let spread = json!([{"maxSkew": 1, "topologyKey": host, "whenUnsatisfiable": "DoNotSchedule",
        "minDomains": 3, "labelSelector": select("waits")}]);
    vec![
        Row {
            plugin: "PodTopologySpread",
            cluster: two_domains,
            pod: pod_with("waits-1", json!({"topologySpreadConstraints": spread.clone()})),
            changes: &[
                ("a pod that does not count", |engine| put(engine, "other", json!({}))),
                ("a label that does not count", |engine| {
                    put_labelled(engine, "waits-0", "waits", "x", 2)
                }),
                ("another label of the node", |engine| {
                    put_node(engine, &[("kubernetes.io/hostname", "a"), ("k", "v")], json!({}));
                }),
                ("a node without the key", |engine| engine.set_node(&node("c", "0", &[]), at(0))),
                ("which is tainted", |engine| {
                    let mut tainted = node("c", "0", &[]);
                    let taints = serde_json::from_value(json!([taint("k")])).unwrap();
                    tainted.spec = Some(NodeSpec { taints, ..Default::default() });
                    engine.set_node(&tainted, at(0));
                }),
                ("and goes", |engine| engine.remove_node("c", at(0))),
                ("a pod of another namespace goes", |engine| {
                    let mut pod = pod_with("waits-2", json!({"nodeName": "a"}));
                    pod.metadata.namespace = Some("other".into());
                    engine.set_pod(&pod, at(0));
                    engine.remove_pod("uid-waits-2", at(0));
                }),
                ("one that counts is gone", |engine| remove(engine, "waits-0")),
            ],
        },
        spread_row(
            spread.clone(),
            &[("a label that counts", |engine| {
                put_labelled(engine, "waits-0", "other", "x", 2);
            })],
        ),
        spread_row(
            spread.clone(),
            &[("its node leaves the domain", |engine| {
                put_node(engine, &[("kubernetes.io/hostname", "c")], json!({}));
            })],
        ),
        spread_row(
            spread.clone(),
            &[("its node loses the key", |engine| {
                put_node(engine, &[], json!({}));
            })],
        ),
        spread_row(
            spread.clone(),
            &[("its node is tainted", |engine| {
                put_node(
                    engine,
                    &[("kubernetes.io/hostname", "a")],
                    json!({"taints": [taint("k")]}),
                );
            })],
        ),
        spread_row(
            spread.clone(),
            &[("a node with the key", |engine| {
                engine.set_node(&node("c", "0", &[("kubernetes.io/hostname", "c")]), at(0));
            })],
        ),
        spread_row(
            spread.clone(),
            &[("a node of the domains goes", |engine| engine.remove_node("b", at(0)))],
        ),
        spread_row(
            spread,
            &[("a pod that counts comes", |engine| put(engine, "waits-3", json!({})))],
        ),
        Row {
            plugin: "InterPodAffinity",
            cluster: |engine| {
                put_node(engine, &[("kubernetes.io/hostname", "a")], json!({}));
                put(engine, "db", json!({}));
            },
            pod: pod_with(
                "waits",
                anti_affine(json!({"topologyKey": host,
                "labelSelector": select("db")})),
            ),
            changes: &[
                ("another pod comes", |engine| put(engine, "other", json!({}))),
                ("another pod goes", |engine| remove(engine, "other")),
                ("a namespace", |engine| {
                    engine.set_namespace("n", [("k".to_owned(), "v".to_owned())].into(), at(0));
                }),
                ("the pod goes", |engine| remove(engine, "db")),
            ],
        },
        Row {
            plugin: "InterPodAffinity",
            cluster: |engine| {
                put_node(engine, &[("kubernetes.io/hostname", "a")], json!({}));
                engine.set_namespace("default", [("k".to_owned(), "v".to_owned())].into(), at(0));
                put(engine, "db", json!({}));
            },
            pod: pod_with(
                "waits",
                anti_affine(json!({"topologyKey": host,
                "labelSelector": select("db"),
                "namespaceSelector": {"matchLabels": {"k": "v"}}})),
            ),
            changes: &[
                ("the same labels", |engine| {
                    engine.set_namespace(
                        "default",
                        [("k".to_owned(), "v".to_owned())].into(),
                        at(0),
                    );
                }),
                ("others", |engine| engine.set_namespace("default", [].into(), at(0))),
            ],
        },
    ]
}

/// Nodes `a` and `b`, each with a pod of a kind.
fn two_domains(engine: &mut Engine) {
    put_node(engine, &[("kubernetes.io/hostname", "a")], json!({}));
    engine.set_node(&node("b", "1", &[("kubernetes.io/hostname", "b")]), at(0));
    put(engine, "waits-0", json!({}));
    engine.set_pod(&pod_with("waits-9", json!({"nodeName": "b"})), at(0));
}

/// A pod of that kind, which would need a third domain.
fn spread_row(constraints: serde_json::Value, changes: Changes) -> Row {
    Row {
        plugin: "PodTopologySpread",
        cluster: two_domains,
        pod: pod_with("waits-1", json!({"topologySpreadConstraints": constraints})),
        changes,
    }
}

fn put_labelled(engine: &mut Engine, name: &str, app: &str, more: &str, generation: i64) {
    let mut pod = pod_with(name, json!({"nodeName": "a"}));
    let labels = [("app", app), ("more", more)].map(|(key, value)| (key.into(), value.into()));
    pod.metadata.labels = Some(labels.into());
    pod.metadata.generation = Some(generation);
    engine.set_pod(&pod, at(0));
}

#[test]
fn each_plugin_is_asked_what_helps() {
    let rows = nodes_and_resources().into_iter().chain(volumes()).chain(pods());
    for Row { plugin, cluster, pod, changes } in rows {
        let mut engine = engine(&[]);
        cluster(&mut engine);
        let refusal = decide(&mut engine, &pod);
        assert!(refusal.starts_with("0/"), "{plugin}: {refusal}");
        for (index, (what, change)) in changes.iter().enumerate() {
            change(&mut engine);
            let second = 20 * (i64::try_from(index).unwrap() + 1);
            let wakes = engine.next(at(second)).is_some();
            assert_eq!(wakes, index + 1 == changes.len(), "{plugin}: {what}");
        }
    }
}
