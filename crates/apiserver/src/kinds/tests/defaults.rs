use serde_json::{Value, json};

use super::{context, defaulted, object};

/// Every field of `expected` is in `actual` with that value.
fn contains(actual: &Value, expected: &Value, path: &str) {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            for (name, value) in expected {
                contains(
                    actual.get(name).unwrap_or(&Value::Null),
                    value,
                    &format!("{path}.{name}"),
                );
            }
        }
        (Value::Array(actual), Value::Array(expected)) => {
            assert_eq!(actual.len(), expected.len(), "{path}");
            for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
                contains(actual, expected, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(actual, expected, "{path}"),
    }
}

#[test]
fn pods() {
    let pod = defaulted(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "hostNetwork": true,
            "serviceAccountName": "robot",
            "containers": [{
                "name": "c", "image": "registry:5000/web", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}},
                "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
            }, {"name": "d", "image": "web:1"}, {"name": "e", "image": "web@sha256:00"}],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "x"}}, {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]
        }}),
    );
    contains(
        &pod,
        &json!({"spec": {
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            "serviceAccount": "robot",
            "containers": [{
                "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                "readinessProbe": {"httpGet": {"path": "/", "scheme": "HTTP"}, "periodSeconds": 2,
                    "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                "env": [{"valueFrom": {"fieldRef": {"apiVersion": "v1"}}}]
            }, {"imagePullPolicy": "IfNotPresent"}, {"imagePullPolicy": "IfNotPresent", "resources": {}}],
            "volumes": [{"emptyDir": {}}, {"configMap": {"defaultMode": 420}}, {"hostPath": {"type": ""}},
                {"projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3600}}]}}]
        }}),
        "",
    );
}

#[test]
fn workloads() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let of = |api_version: &str, kind: &str, rest: Value| {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "w"}, "spec": rest});
        object["spec"]["template"] = template.clone();
        defaulted(&object)
    };
    contains(
        &of("apps/v1", "Deployment", json!({})),
        &json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"spec": {"restartPolicy": "Always", "enableServiceLinks": null}}}}),
        "",
    );
    contains(
        &of(
            "apps/v1",
            "StatefulSet",
            json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}}]}),
        ),
        &json!({"spec": {"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "volumeClaimTemplates": [{"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]}}),
        "",
    );
    contains(
        &of("apps/v1", "DaemonSet", json!({})),
        &json!({"spec": {"revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}}),
        "",
    );
    contains(
        &of("batch/v1", "Job", json!({})),
        &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6,
            "completionMode": "NonIndexed", "suspend": false, "podReplacementPolicy": "TerminatingOrFailed"}}),
        "",
    );
    contains(
        &of("v1", "ReplicationController", json!({})),
        &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1, "selector": {"a": "b"}}}),
        "",
    );
}

#[test]
fn services() {
    let service = defaulted(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {
        "type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80}, {"port": 81, "targetPort": "web"}]}}),
    );
    contains(
        &service,
        &json!({"spec": {
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "ports": [{"protocol": "TCP", "targetPort": 80}, {"targetPort": "web"}]}}),
        "",
    );
}

fn created(json: &Value) -> Value {
    let (mut object, strategy) = object(json);
    strategy.default(&mut *object);
    strategy.prepare_create(&mut *object, &context());
    serde_json::from_slice(&object.encode()).unwrap()
}

#[test]
fn a_create_leaves_status_to_the_system() {
    let pod = created(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1"}}}]},
        "status": {"phase": "Running", "podIP": "1.2.3.4"}}));
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    let namespace =
        created(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}));
    contains(
        &namespace,
        &json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "n"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        "",
    );
    let job = created(
        &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "uid": "u"},
        "spec": {"template": {"spec": {"containers": []}}}}),
    );
    contains(
        &job,
        &json!({"spec": {"selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": {"metadata": {"labels": {"controller-uid": "u", "batch.kubernetes.io/job-name": "j"}}}}}),
        "",
    );
    let headless =
        created(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"clusterIP": "None", "selector": {"a": "b"}}}));
    contains(
        &headless,
        &json!({"spec": {"clusterIPs": ["None"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}),
        "",
    );
}
