use serde_json::{Value, json};

use super::core::object;
use super::{check, check_updates};

fn workload(api_version: &str, kind: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "w", "namespace": "n"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    }})
}

#[test]
fn deployments() {
    let base = workload("apps/v1", "Deployment");
    check(
        &base,
        &[
            (
                "/spec/replicas",
                json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/template/metadata/labels",
                json!({"a": "c"}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "/spec/progressDeadlineSeconds",
                json!(0),
                &[
                    "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
                ],
            ),
            (
                "/spec/template/spec/containers",
                json!([]),
                &["spec.template.spec.containers: Required value"],
            ),
        ],
    );
    check_updates(
        &base,
        &[
            ("/spec/replicas", json!(3), &[]),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
                &[
                    "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Exists\",\"values\":null}]}: field is immutable",
                ],
            ),
        ],
    );
}

#[test]
fn other_workloads() {
    for kind in ["ReplicaSet", "StatefulSet", "DaemonSet"] {
        let base = workload("apps/v1", kind);
        check(
            &base,
            &[(
                "/spec/template/metadata/labels",
                json!({}),
                &[
                    "spec.template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`",
                ],
            )],
        );
    }
    check(
        &workload("apps/v1", "StatefulSet"),
        &[(
            "/spec/template/spec/containers/0/volumeMounts",
            json!([{"name": "of-a-claim", "mountPath": "/data"}]),
            &[],
        )],
    );
    check_updates(
        &workload("apps/v1", "StatefulSet"),
        &[
            ("/spec/replicas", json!(3), &[]),
            (
                "/spec/serviceName",
                json!("s"),
                &[
                    "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                ],
            ),
        ],
    );
}

/// What a class gives its pods has to be valid there.
#[test]
fn runtime_classes() {
    let toleration = json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"});
    let class = object(
        "node.k8s.io/v1",
        "RuntimeClass",
        json!({"handler": "h", "overhead": {"podFixed": {"cpu": "1", "example.com/foo": "1"}},
            "scheduling": {"tolerations": [toleration]}}),
    );
    let tolerations = "/scheduling/tolerations";
    check(
        &class,
        &[
            (
                "/overhead/podFixed",
                json!({"cpu": "-1"}),
                &[
                    "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/overhead/podFixed",
                json!({"foo": "1"}),
                &[
                    "overhead.limits[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
                    "overhead.limits[foo]: Invalid value: \"foo\": must be a standard resource for containers",
                ],
            ),
            (
                tolerations,
                json!([{"operator": "Equal", "value": "v"}]),
                &[
                    "scheduling.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                tolerations,
                json!([toleration, {"key": "b", "operator": "Exists"}, toleration]),
                &[
                    "scheduling.tolerations[2]: Duplicate value: {\"Key\":\"a\",\"Operator\":\"Exists\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\"TolerationSeconds\":null}",
                ],
            ),
        ],
    );
}
