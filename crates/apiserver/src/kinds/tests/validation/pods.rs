use serde_json::{Value, json};

use super::{check, check_updates, errors, with};

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {
        "containers": [{"name": "c", "image": "web:1", "ports": [{"name": "http", "containerPort": 80}],
            "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "1"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "livenessProbe": {"httpGet": {"port": "http"}}}],
        "volumes": [{"name": "v", "emptyDir": {}}]
    }})
}

#[test]
fn containers() {
    let other = json!({"name": "c", "image": "x"});
    check(
        &pod(),
        &[
            ("/spec/containers", json!([]), &["spec.containers: Required value"]),
            ("/spec/containers/0/name", json!(""), &["spec.containers[0].name: Required value"]),
            (
                "/spec/containers/0/name",
                json!("C"),
                &[
                    "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            ("/spec/containers/0/image", json!(""), &["spec.containers[0].image: Required value"]),
            (
                "/spec/containers/0/image",
                json!(" a"),
                &[
                    "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
                ],
            ),
            (
                "/spec/containers",
                json!([other, other]),
                &["spec.containers[1].name: Duplicate value: \"c\""],
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Sometimes"),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                "/spec/containers/0/ports/0/containerPort",
                json!(70000),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/ports/0/protocol",
                json!("ICMP"),
                &[
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"name": "http", "containerPort": 1}, {"name": "http", "containerPort": 2}]),
                &["spec.containers[0].ports[1].name: Duplicate value: \"http\""],
            ),
            (
                "/spec/containers/0/volumeMounts/0/name",
                json!("w"),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]),
                &[
                    "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique",
                ],
            ),
            (
                "/spec/containers/0/env/0/valueFrom",
                json!({"fieldRef": {"fieldPath": "metadata.name"}}),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                "/spec/containers/0/env/0/name",
                json!(""),
                &["spec.containers[0].env[0].name: Required value"],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "-1"}}),
                &[
                    "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                    "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"example.com/gpu": "1"}}),
                &[
                    "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({}),
                &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"tcpSocket": {"port": 0}, "successThreshold": 2}),
                &[
                    "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                "/spec/initContainers",
                json!([{"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["x"]}}}]),
                &[
                    "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                "/spec/initContainers",
                json!([{"name": "c", "image": "x"}]),
                &["spec.initContainers[0].name: Duplicate value: \"c\""],
            ),
        ],
    );
}

#[test]
fn specs() {
    check(
        &pod(),
        &[
            (
                "/spec/restartPolicy",
                json!("Often"),
                &[
                    "spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                &[
                    "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
                ],
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"operator": "Equal"}]),
                &[
                    "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]),
                &[
                    "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"runAsUser": -1}),
                &[
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "emptyDir": {}}, {"name": "v", "configMap": {"name": ""}}]),
                &[
                    "spec.volumes[1].name: Duplicate value: \"v\"",
                    "spec.volumes[1].configMap.name: Required value",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "nfs": {"server": "-iT/tmp/fstab", "path": "/export"}}]),
                &[
                    "spec.volumes[0].nfs.server: Invalid value: \"-iT/tmp/fstab\": must be a host name or an IP address",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "nfs": {"server": "", "path": "export"}}]),
                &[
                    "spec.volumes[0].nfs.server: Required value",
                    "spec.volumes[0].nfs.path: Invalid value: \"export\": must be an absolute path",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "v", "hostPath": {"path": "/a/../b"}}]),
                &[
                    "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                ],
            ),
            (
                "/spec/affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
                &[
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                ],
            ),
        ],
    );
}

const ONLY: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: ";

#[test]
fn updates() {
    let base = with(&pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    let refused = |field: &str| format!("{ONLY}`spec.{field}`");
    check_updates(
        &base,
        &[
            ("/spec/containers/0/image", json!("web:2"), &[]),
            ("/spec/activeDeadlineSeconds", json!(10), &[]),
            ("/spec/hostNetwork", json!(false), &[]),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]),
                &[],
            ),
            (
                "/spec/tolerations",
                json!([]),
                &[
                    "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                ],
            ),
            ("/spec/containers/0/env/0/value", json!("2"), &[&refused("containers")]),
            ("/spec/nodeName", json!("other"), &[&refused("nodeName")]),
            (
                "/spec/containers",
                json!([pod()["spec"]["containers"][0], {"name": "d", "image": "x"}]),
                &["spec.containers: Forbidden: pod updates may not add or remove containers"],
            ),
        ],
    );
}

#[test]
fn sidecars_have_probes() {
    let pod = with(
        &pod(),
        "/spec/initContainers",
        json!([{"name": "s", "image": "x", "restartPolicy": "Always", "startupProbe": {"grpc": {"port": 1}}}]),
    );
    assert_eq!(errors(&pod, None), Vec::<String>::new());
}

/// Admission sets fields after defaulting; the next update must not take that for a change.
#[test]
fn defaults_of_what_admission_adds_are_not_changes() {
    let stored = with(
        &super::stored(&pod()),
        "/spec/volumes",
        json!([{"name": "v", "emptyDir": {}}, {"name": "t", "projected": {"sources": []}}]),
    );
    let stored = with(&stored, "/spec/serviceAccountName", json!("default"));
    let (old, strategy) = super::super::object(&stored);
    let (mut new, _) = super::super::object(&with(&stored, "/metadata/labels", json!({"a": "b"})));
    strategy.default(&mut *new);
    strategy.prepare_update(&mut *new, &*old, &super::super::context());
    assert_eq!(strategy.validate_update(&*new, &*old), []);
}
