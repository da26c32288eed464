use api::Kind;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// Warnings about a pod with annotations and `spec`, without the path of the spec.
fn warnings(annotations: Value, spec: Value) -> Vec<String> {
    let json = json!({"metadata": {"annotations": annotations}, "spec": spec});
    let pod = Pod::decode(json.to_string().as_bytes()).unwrap();
    super::pod(pod.spec.as_ref().unwrap(), &pod.metadata)
}

#[test]
fn questionable_pods_cause_warnings() {
    let env = json!([
        {"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B", "value": "1"}, {"name": "B", "value": "$(B)2"},
        {"name": "B", "value": "$(B)"},
    ]);
    let ports = json!([
        {"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 8080},
        {"containerPort": 81, "protocol": "TCP", "hostIP": "10.0.0.1"}, {"containerPort": 80, "protocol": "TCP"},
    ]);
    for (spec, expected) in [
        (json!({"containers": [{"name": "c"}]}), vec![]),
        (
            json!({"containers": [{"name": "c", "env": env}]}),
            vec![
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].env[4]: hides previous definition of \"B\", which may be dropped when using apply",
            ],
        ),
        (
            json!({"containers": [{"name": "c", "ports": ports}]}),
            vec![
                "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:81 Protocol:TCP HostIP:10.0.0.1}",
                "spec.containers[0].ports[3]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[3]: overlapping port definition with spec.containers[0].ports[1]",
            ],
        ),
        (
            json!({"containers": [{"name": "c", "resources": {"limits": {"memory": "1500m", "cpu": "1500m"}}}]}),
            vec![
                "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
            ],
        ),
        (
            json!({"containers": [], "nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1}),
            vec![
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ],
        ),
        (
            json!({"containers": [], "volumes": [{"name": "v", "gitRepo": {"repository": "r"}}], "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}]}),
            vec![
                "spec.volumes[0].gitRepo: deprecated in v1.11",
                "spec.imagePullSecrets[1].name: duplicate name \"s\"",
                "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            ],
        ),
        (
            json!({"containers": [], "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone", "whenUnsatisfiable": "x"}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "t"}]}}}),
            vec![
                "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
            ],
        ),
    ] {
        assert_eq!(warnings(json!({}), spec), expected);
    }
    let old = json!({"scheduler.alpha.kubernetes.io/critical-pod": "", "container.seccomp.security.alpha.kubernetes.io/c": "x"});
    assert_eq!(
        warnings(old, json!({"containers": [{"name": "c"}]})),
        [
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
        ]
    );
}
