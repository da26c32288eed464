use serde_json::{Value, json};

use super::core::object;
use super::{check, check_updates, stored, update_errors, with};

#[test]
fn storage() {
    let claim = object(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    check(
        &claim,
        &[
            (
                "/spec/accessModes",
                json!([]),
                &["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            ("/spec/resources", json!({}), &["spec.resources[storage]: Required value"]),
        ],
    );
    check_updates(
        &claim,
        &[
            ("/spec/volumeName", json!("v"), &[]),
            (
                "/spec/accessModes",
                json!(["ReadWriteMany"]),
                &[
                    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
                ],
            ),
        ],
    );
    let volume = object(
        "v1",
        "PersistentVolume",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}),
    );
    check(
        &volume,
        &[
            ("/spec/hostPath", Value::Null, &["spec: Required value: must specify a volume type"]),
            ("/spec/capacity", json!({}), &["spec.capacity: Required value"]),
        ],
    );
    check_updates(
        &volume,
        &[(
            "/spec/hostPath/path",
            json!("/y"),
            &[
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            ],
        )],
    );
    check_updates(
        &object("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "a/b"})),
        &[(
            "/provisioner",
            json!("c/d"),
            &["provisioner: Forbidden: updates to provisioner are forbidden."],
        )],
    );
}

/// What may change of a claim depends on whether it is bound, and its class may be named once.
#[test]
fn updates_of_claims() {
    const SPEC: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    let immutable = |value: &str| {
        format!("metadata.annotations.{ANNOTATION}: Invalid value: {value:?}: field is immutable")
    };
    let claim = |annotation: &str, class: Value| {
        let mut claim = object(
            "v1",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "volumeAttributesClassName": "gold",
                "resources": {"requests": {"storage": "2Gi"}, "limits": {"storage": "9Gi"}}}}),
        );
        if !annotation.is_empty() {
            claim["metadata"]["annotations"] = json!({ANNOTATION: annotation});
        }
        stored(&claim)
    };
    let status = |status: Value| with(&claim("", "fast".into()), "/status", status);
    let pending = claim("", "fast".into());
    let bound = status(json!({"phase": "Bound", "capacity": {"storage": "1Gi"}}));
    let applied = status(json!({"phase": "Bound", "currentVolumeAttributesClassName": "gold"}));
    let (size, limit) = ("/spec/resources/requests/storage", "/spec/resources/limits/storage");
    let class = "/spec/volumeAttributesClassName";
    let current = |what: &str| {
        format!(
            "spec.volumeAttributesClassName: Forbidden: update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
        )
    };
    let table: Vec<(&Value, &str, Value, Vec<String>)> = vec![
        (&pending, size, json!("3Gi"), vec![SPEC.to_owned()]),
        (&pending, class, json!("silver"), vec![SPEC.to_owned()]),
        (&bound, size, json!("3Gi"), vec![]),
        (&bound, limit, json!("3Gi"), vec![SPEC.to_owned()]),
        (&bound, "/spec/resources/limits", Value::Null, vec![SPEC.to_owned()]),
        (&bound, class, json!("silver"), vec![]),
        (&bound, class, Value::Null, vec![]),
        (&applied, class, json!("silver"), vec![]),
        (&applied, class, Value::Null, vec![current("nil")]),
        (&applied, class, json!(""), vec![current("empty string")]),
        (
            &bound,
            "/metadata/annotations",
            json!({ANNOTATION: "growing"}),
            vec![immutable("growing")],
        ),
    ];
    for (old, pointer, value, expected) in table {
        let new = with(old, pointer, value.clone());
        assert_eq!(update_errors(old, &new), expected, "{pointer}: {value} of {old}");
    }
    let unnamed = Value::Null;
    let names: [(&str, Value, &str, Value, Vec<String>); 6] = [
        ("", unnamed.clone(), "", "fast".into(), vec![]),
        ("fast", unnamed.clone(), "fast", "fast".into(), vec![]),
        ("fast", unnamed.clone(), "", "fast".into(), vec![]),
        ("fast", unnamed.clone(), "", unnamed.clone(), vec![immutable("")]),
        ("fast", unnamed.clone(), "fast", "slow".into(), vec![SPEC.to_owned()]),
        ("fast", unnamed.clone(), "slow", "fast".into(), vec![immutable("slow")]),
    ];
    for (was, field, annotation, named, expected) in names {
        let (old, new) = (claim(was, field), claim(annotation, named));
        assert_eq!(update_errors(&old, &new), expected, "{old} {new}");
    }
    let volume = object(
        "v1",
        "PersistentVolume",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/x"}, "volumeAttributesClassName": "gold"}}),
    );
    check_updates(
        &volume,
        &[
            (class, json!("silver"), &[]),
            (
                class,
                Value::Null,
                &[
                    "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden",
                ],
            ),
        ],
    );
}

/// The two names of a source do not contradict one another.
#[test]
fn sources_of_claims() {
    let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
    let claim = object(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "dataSource": source,
            "dataSourceRef": source, "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    check(
        &claim,
        &[
            (
                "/spec/dataSourceRef/name",
                json!("b"),
                &["spec: Invalid value: {}: must match dataSourceRef"],
            ),
            (
                "/spec/dataSourceRef/namespace",
                json!("other"),
                &[
                    "spec: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified",
                ],
            ),
            ("/spec/dataSource", Value::Null, &[]),
        ],
    );
}

#[test]
fn nodes_of_csi_drivers() {
    let driver = json!({"name": "csi.example.com", "nodeID": "n1", "topologyKeys": ["zone"],
        "allocatable": {"count": 3}});
    let node = object("storage.k8s.io/v1", "CSINode", json!({"spec": {"drivers": [driver]}}));
    check(
        &node,
        &[
            ("/spec/drivers/0/name", json!(""), &["spec.drivers[0].name: Required value"]),
            ("/spec/drivers/0/nodeID", json!(""), &["spec.drivers[0].nodeID: Required value"]),
            (
                "/spec/drivers/0/allocatable/count",
                json!(-1),
                &["spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or \
                   equal to 0"],
            ),
            (
                "/spec/drivers/0/topologyKeys",
                json!(["zone", "zone"]),
                &["spec.drivers[0].topologyKeys: Duplicate value: \"zone\""],
            ),
            (
                "/spec/drivers",
                json!([driver, driver]),
                &["spec.drivers[1].name: Duplicate value: \"csi.example.com\""],
            ),
        ],
    );
    check_updates(
        &node,
        &[(
            "/spec/drivers/0/nodeID",
            json!("n2"),
            &["spec.drivers: Invalid value: field is immutable"],
        )],
    );
}

#[test]
fn csi_drivers() {
    let driver = object(
        "storage.k8s.io/v1",
        "CSIDriver",
        json!({"spec": {"tokenRequests": [{"audience": "a"}]}}),
    );
    let requests = "/spec/tokenRequests";
    check(
        &driver,
        &[
            (
                "/spec/fsGroupPolicy",
                json!("Some"),
                &[
                    "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                ],
            ),
            (
                requests,
                json!([{"audience": "a"}, {"audience": "a"}]),
                &["spec.tokenRequests[1].audience: Duplicate value: \"a\""],
            ),
            (
                requests,
                json!([{"audience": "a", "expirationSeconds": 599}]),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
                ],
            ),
            (
                requests,
                json!([{"audience": "a", "expirationSeconds": 4_294_967_297_u64}]),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
                ],
            ),
            (
                "/spec/volumeLifecycleModes",
                json!(["Persistent", "Long"]),
                &[
                    "spec.volumeLifecycleModes: Unsupported value: \"Long\": supported values: \"Persistent\", \"Ephemeral\"",
                ],
            ),
            (
                "/spec/nodeAllocatableUpdatePeriodSeconds",
                json!(9),
                &[
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                ],
            ),
            (
                "/spec/preventPodSchedulingIfMissing",
                json!(true),
                &[
                    "spec.preventPodSchedulingIfMissing: Forbidden: preventPodSchedulingIfMissing requires the VolumeLimitScaling feature gate to be enabled",
                ],
            ),
        ],
    );
    let without = with(&driver, requests, json!([]));
    check(
        &without,
        &[(
            "/spec/serviceAccountTokenInSecrets",
            json!(false),
            &[
                "spec.serviceAccountTokenInSecrets: Invalid value: false: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            ],
        )],
    );
    check_updates(
        &driver,
        &[
            (
                "/spec/attachRequired",
                json!(false),
                &["spec.attachedRequired: Invalid value: false: field is immutable"],
            ),
            (
                "/spec/volumeLifecycleModes",
                json!(["Ephemeral"]),
                &["spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable"],
            ),
            ("/spec/podInfoOnMount", json!(true), &[]),
        ],
    );
}

#[test]
fn storage_capacities() {
    let capacity = object(
        "storage.k8s.io/v1",
        "CSIStorageCapacity",
        json!({"storageClassName": "fast",
        "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}),
    );
    check(
        &capacity,
        &[
            (
                "/storageClassName",
                json!(""),
                &[
                    "storageClassName: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                "/capacity",
                json!("-1"),
                &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                "/nodeTopology/matchExpressions",
                json!([{"key": "zone", "operator": "In"}]),
                &[
                    "nodeTopology.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
        ],
    );
    check_updates(
        &capacity,
        &[
            (
                "/storageClassName",
                json!("slow"),
                &["storageClassName: Invalid value: \"slow\": field is immutable"],
            ),
            (
                "/nodeTopology",
                json!({"matchLabels": {"zone": "b"}}),
                &[
                    "nodeTopology: Invalid value: {\"matchLabels\":{\"zone\":\"b\"}}: field is immutable",
                ],
            ),
            ("/capacity", json!("2Gi"), &[]),
        ],
    );
}

#[test]
fn volume_attachments() {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let attachment = object(
        "storage.k8s.io/v1",
        "VolumeAttachment",
        json!({"spec": {"attacher": "csi.example.com",
        "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
    );
    let inline = json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "csi.example.com", "volumeHandle": "h"}});
    let both = json!({"persistentVolumeName": "v", "inlineVolumeSpec": inline});
    check(
        &attachment,
        &[
            ("/spec/attacher", json!(""), &["spec.attacher: Required value"]),
            (
                "/spec/attacher",
                json!("a".repeat(64)),
                &[&format!(
                    "spec.attacher: Invalid value: \"{}\": must be no more than 63 bytes",
                    "a".repeat(64)
                )],
            ),
            ("/spec/source", json!({}), &[&format!("spec.source: Required value: {ONE}")]),
            ("/spec/source", both, &[&format!("spec.source: Forbidden: {ONE}")]),
            ("/spec/source", json!({"inlineVolumeSpec": inline}), &[]),
            (
                "/spec/source/persistentVolumeName",
                json!(""),
                &[
                    "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
                ],
            ),
            (
                "/spec/source",
                json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "hostPath": {"path": "/a"}}}),
                &[
                    "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                ],
            ),
        ],
    );
    check_updates(
        &attachment,
        &[("/spec/nodeName", json!("m"), &["spec: Invalid value: field is immutable"])],
    );
}

#[test]
fn volume_attributes_classes() {
    let class = object(
        "storage.k8s.io/v1",
        "VolumeAttributesClass",
        json!({"driverName": "csi.example.com", "parameters": {"iops": "1"}}),
    );
    check(
        &class,
        &[
            ("/driverName", json!(""), &["driverName: Required value"]),
            (
                "/parameters",
                json!({}),
                &["parameters: Required value: must contain at least one key/value pair"],
            ),
            (
                "/parameters",
                json!({"": "1"}),
                &["parameters: Invalid value: \"\": field can not be empty."],
            ),
        ],
    );
    check_updates(
        &class,
        &[
            (
                "/driverName",
                json!("other.example.com"),
                &["driverName: Forbidden: updates to driverName are forbidden."],
            ),
            (
                "/parameters",
                json!({"iops": "2"}),
                &["parameters: Forbidden: updates to parameters are forbidden."],
            ),
        ],
    );
}
