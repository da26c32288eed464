use std::collections::BTreeMap;

use api::Kind;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value, json};

use super::*;
use crate::machinery::testing::at;

fn read<K: Kind>(json: &Value) -> K {
    K::decode(json.to_string().as_bytes()).unwrap()
}

fn claim(spec: Value, node: Option<&str>) -> PersistentVolumeClaim {
    let mut annotations =
        json!({"volume.kubernetes.io/storage-provisioner": "skiff.dev/local-path"});
    if let Some(node) = node {
        annotations["volume.kubernetes.io/selected-node"] = json!(node);
    }
    let mut whole = json!({"storageClassName": "standard", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    read(
        &json!({"metadata": {"name": "data", "namespace": "ns", "uid": "u", "annotations": annotations},
        "spec": whole}),
    )
}

fn class(more: Value) -> StorageClass {
    let mut class = json!({"metadata": {"name": "standard"}, "provisioner": "skiff.dev/local-path",
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"});
    for (key, value) in more.as_object().unwrap() {
        class[key] = value.clone();
    }
    read(&class)
}

fn nodes() -> Vec<Arc<Node>> {
    let node = |name: &str, zone: &str, disk: &str| {
        let labels = json!({"kubernetes.io/hostname": name, "zone": zone});
        Arc::new(read(&json!({"metadata": {"name": name, "labels": labels},
            "status": {"capacity": {"ephemeral-storage": disk}}})))
    };
    vec![node("n1", "a", "10Gi"), node("n2", "b", "100Gi")]
}

fn planned(claim: &PersistentVolumeClaim, class: &StorageClass) -> ProvisionPlan {
    plan_provision(&Observed { claim, class: Some(class), nodes: &nodes() })
}

fn created(plan: ProvisionPlan) -> Value {
    let ProvisionPlan::Create(volume) = plan else { panic!("{plan:?}") };
    serde_json::from_slice(&volume.encode()).unwrap()
}

fn why(plan: &ProvisionPlan) -> &str {
    match plan {
        ProvisionPlan::Fail(why) | ProvisionPlan::Reschedule(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_volume_is_on_the_selected_node_and_reserved_for_its_claim() {
    assert_eq!(planned(&claim(json!({}), None), &class(json!({}))), ProvisionPlan::Nothing);
    let volume = created(planned(&claim(json!({}), Some("n2")), &class(json!({}))));
    assert_eq!(volume["metadata"]["name"], "pvc-u");
    assert_eq!(volume["metadata"]["labels"]["skiff.dev/node"], "n2");
    assert_eq!(volume["metadata"]["finalizers"], json!(["skiff.dev/local-path"]));
    let spec = &volume["spec"];
    assert_eq!(spec["claimRef"]["uid"], "u");
    assert_eq!(spec["capacity"]["storage"], "1Gi");
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(spec["csi"]["volumeHandle"], "pvc-u");
    assert_eq!(spec["csi"]["volumeAttributes"], json!({"backing": "directory"}));
    assert_eq!(spec["csi"]["fsType"], Value::Null);
    assert_eq!(
        spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"],
        json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}])
    );
}

#[test]
fn parameters_and_modes_decide_what_a_volume_is() {
    let image = class(json!({"parameters": {"backing": "image", "fsType": "ext4"},
        "mountOptions": ["noatime"]}));
    let spec = |claim: Value, class: &StorageClass| {
        created(planned(&self::claim(claim, Some("n1")), class))["spec"].clone()
    };
    let found = spec(json!({"resources": {"requests": {"storage": "10000k"}}}), &image);
    assert_eq!(found["csi"]["volumeAttributes"]["backing"], "image");
    assert_eq!(found["csi"]["fsType"], "ext4");
    assert_eq!(found["capacity"]["storage"], "10002432", "whole blocks");
    assert_eq!(found["mountOptions"], json!(["noatime"]));
    let found = spec(json!({"volumeMode": "Block"}), &class(json!({})));
    assert_eq!(found["csi"]["volumeAttributes"]["backing"], "image");
    assert_eq!((&found["csi"]["fsType"], &found["volumeMode"]), (&Value::Null, &json!("Block")));
}

#[test]
fn what_cannot_be_had_is_refused() {
    let plain = || class(json!({}));
    for (claim, class, expected) in [
        (json!({"accessModes": ["ReadWriteMany"]}), plain(), "cannot be ReadWriteMany"),
        (json!({"selector": {}}), plain(), "Selector is not supported"),
        (
            json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}),
            plain(),
            "data source",
        ),
        (json!({}), class(json!({"parameters": {"backing": "tape"}})), "unknown backing \"tape\""),
        (json!({}), class(json!({"parameters": {"size": "1"}})), "unknown parameter \"size\""),
        (json!({}), class(json!({"parameters": {"fsType": "xfs"}})), "\"xfs\" is not supported"),
        (json!({}), class(json!({"mountOptions": ["noatime"]})), "mount options"),
    ] {
        let plan = planned(&self::claim(claim, Some("n1")), &class);
        assert!(matches!(plan, ProvisionPlan::Fail(_)), "{plan:?}");
        assert!(why(&plan).contains(expected), "{plan:?}");
    }
}

#[test]
fn another_node_is_asked_for_when_the_selected_one_cannot() {
    let large = || json!({"resources": {"requests": {"storage": "50Gi"}}});
    let in_b = class(
        json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]}),
    );
    for (claim, class, expected) in [
        (claim(large(), Some("n1")), class(json!({})), "the disk of node \"n1\" has 10Gi"),
        (claim(json!({}), Some("gone")), class(json!({})), "node \"gone\" not found"),
        (claim(json!({}), Some("n1")), in_b.clone(), "not in the topology"),
    ] {
        let plan = planned(&claim, &class);
        assert!(matches!(plan, ProvisionPlan::Reschedule(_)), "{plan:?}");
        assert!(why(&plan).contains(expected), "{plan:?}");
    }
    created(planned(&claim(large(), Some("n2")), &in_b));
    let at_once = class(json!({"volumeBindingMode": "Immediate"}));
    let volume = created(planned(&claim(large(), None), &at_once));
    assert_eq!(volume["metadata"]["labels"]["skiff.dev/node"], "n2", "the only one large enough");
    let plan =
        planned(&claim(json!({"resources": {"requests": {"storage": "1Ti"}}}), None), &at_once);
    assert_eq!(why(&plan), "no node can have the volume");
}

fn volume(more: Value) -> PersistentVolume {
    let ProvisionPlan::Create(volume) =
        planned(&claim(json!({}), Some("n1")), &class(json!({"parameters": {"backing": "image"}})))
    else {
        panic!()
    };
    let mut json: Value = serde_json::from_slice(&volume.encode()).unwrap();
    for (pointer, value) in more.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    read(&json)
}

#[test]
fn a_released_volume_goes_by_its_policy() {
    let deleting = json!("2026-01-01T00:00:00Z");
    let released = json!({"phase": "Released"});
    for (more, node, expected) in [
        (json!({"/status": {"phase": "Bound"}}), true, ReclaimPlan::Nothing),
        (json!({"/status": released}), true, ReclaimPlan::Delete),
        (
            json!({"/status": released, "/spec/persistentVolumeReclaimPolicy": "Retain"}),
            true,
            ReclaimPlan::Nothing,
        ),
        (
            json!({"/status": released, "/metadata/deletionTimestamp": deleting}),
            true,
            ReclaimPlan::Nothing,
        ),
        (
            json!({"/status": released, "/metadata/deletionTimestamp": deleting, "/spec/persistentVolumeReclaimPolicy": "Retain"}),
            true,
            ReclaimPlan::Forget(None),
        ),
        (
            json!({"/status": {"phase": "Bound"}, "/metadata/deletionTimestamp": deleting}),
            false,
            ReclaimPlan::Nothing,
        ),
        (json!({"/status": released, "/metadata/annotations": {}}), true, ReclaimPlan::Nothing),
    ] {
        assert_eq!(plan_reclaim(&volume(more.clone()), node), expected, "{more}");
    }
    let orphan = volume(json!({"/status": released, "/metadata/deletionTimestamp": deleting}));
    assert!(matches!(plan_reclaim(&orphan, false), ReclaimPlan::Forget(Some(_))));
}

fn text(size: &str) -> Text {
    Text(size.into())
}

/// A bound claim of 1Gi that asks for more.
fn asking(size: &str) -> PersistentVolumeClaim {
    let mut claim = claim(json!({"resources": {"requests": {"storage": size}}}), Some("n1"));
    let status = claim.status.get_or_insert_default();
    status.phase = Some("Bound".into());
    status.capacity = Some([("storage".to_owned(), text("1Gi"))].into());
    claim
}

/// Takes the steps; returns what they are.
fn take(
    claim: &mut PersistentVolumeClaim,
    volume: &mut PersistentVolume,
    number: usize,
) -> Vec<String> {
    let steps = plan_resize(claim, volume, Some(&nodes()[0]), &Time(at(0)));
    let mut taken = Vec::new();
    for step in steps.into_iter().take(number) {
        taken.push(match step {
            ResizeStep::Fail { status, .. } | ResizeStep::Status { status, .. } => {
                let state = status.allocated_resource_statuses.as_ref();
                let state = state.and_then(|states| states.get("storage").cloned());
                let of = |list: &Option<BTreeMap<String, Text>>| {
                    list.as_ref().and_then(|all| all.get("storage")).map(|size| size.0.clone())
                };
                let told = format!("done {}", of(&status.capacity).unwrap_or_default());
                let to = of(&status.allocated_resources).unwrap_or_default();
                let kinds: Vec<&str> =
                    status.conditions.iter().flatten().map(|one| one.type_.as_str()).collect();
                let text = state.map(|state| format!("{state} {to} {}", kinds.join(",")));
                claim.status = Some(*status);
                text.unwrap_or(told)
            }
            ResizeStep::Grow(resized) => {
                let capacity = resized.0.spec.as_ref().unwrap().capacity.as_ref().unwrap();
                let text = format!("volume {}", capacity["storage"].0);
                *volume = resized.0;
                text
            }
        });
    }
    taken
}

const ALL: usize = usize::MAX;

#[test]
fn a_resize_takes_the_steps_that_are_left() {
    let image = volume(json!({}));
    let directory = volume(json!({"/spec/csi/volumeAttributes": {"backing": "directory"}}));
    let begun = "ControllerResizeInProgress 2Gi Resizing";
    let of_image = [begun, "NodeResizePending 2Gi FileSystemResizePending", "volume 2Gi"];
    let of_directory = [begun, "volume 2Gi", "done 2Gi"];
    for (volume, expected) in [(&image, of_image), (&directory, of_directory)] {
        assert_eq!(take(&mut asking("1Gi"), &mut volume.clone(), ALL), [""; 0]);
        // Killed after some of them.
        for number in 0..=expected.len() {
            let (mut claim, mut volume) = (asking("2Gi"), volume.clone());
            let mut taken = take(&mut claim, &mut volume, number);
            taken.extend(take(&mut claim, &mut volume, ALL));
            assert_eq!(taken, expected, "killed after {number}");
            assert_eq!(take(&mut claim, &mut volume, ALL), [""; 0], "the rest is the node's");
        }
    }
}

#[test]
fn a_size_that_is_infeasible_is_given_up_for_a_smaller_one() {
    let ask = |claim: &mut PersistentVolumeClaim, size: &str| {
        let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
        resources.requests = Some([("storage".to_owned(), text(size))].into());
    };
    let (mut claim, mut volume) = (asking("20Gi"), volume(json!({})));
    let expected = [
        "ControllerResizeInProgress 20Gi Resizing",
        "ControllerResizeInfeasible 20Gi ControllerResizeError",
    ];
    assert_eq!(take(&mut claim, &mut volume, ALL), expected);
    assert_eq!(take(&mut claim, &mut volume, ALL), [""; 0], "reported once");
    ask(&mut claim, "5Gi");
    let expected = [
        "ControllerResizeInProgress 5Gi Resizing",
        "NodeResizePending 5Gi FileSystemResizePending",
        "volume 5Gi",
    ];
    assert_eq!(take(&mut claim, &mut volume, ALL), expected);

    ask(&mut claim, "6Gi");
    assert_eq!(take(&mut claim, &mut volume, ALL), [""; 0], "the node has begun");
    let node_says = |claim: &mut PersistentVolumeClaim, state: &str| {
        let states = claim.status.get_or_insert_default();
        let states = states.allocated_resource_statuses.get_or_insert_default();
        states.insert("storage".to_owned(), state.to_owned());
    };
    node_says(&mut claim, "NodeResizeInProgress");
    assert_eq!(take(&mut claim, &mut volume, ALL), [""; 0]);
    node_says(&mut claim, "NodeResizeInfeasible");
    ask(&mut claim, "5Gi");
    assert_eq!(take(&mut claim, &mut volume, ALL), [""; 0], "it is for the node to try again");
    ask(&mut claim, "2Gi");
    let expected = [
        "ControllerResizeInProgress 2Gi Resizing",
        "NodeResizePending 2Gi FileSystemResizePending",
        "volume 2Gi",
    ];
    // Killed before the volume is what its claim was promised.
    let mut taken = take(&mut claim, &mut volume, 2);
    taken.extend(take(&mut claim, &mut volume, ALL));
    assert_eq!(taken, expected, "the volume promises less");
}
