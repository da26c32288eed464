use super::*;

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn bytes(tag: u64, content: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

/// A Service as kubectl sends it: every field that is not a pointer is written.
#[test]
fn a_service() {
    let labels = [bytes(1, b"app"), bytes(2, b"web")].concat();
    let metadata =
        [bytes(1, b"web"), bytes(2, b""), bytes(3, b"default"), bytes(8, b""), bytes(11, &labels)]
            .concat();
    let target = [number(1, 1), number(2, 0), bytes(3, b"http")].concat();
    let port =
        [bytes(1, b"http"), bytes(2, b"TCP"), number(3, 80), bytes(4, &target), number(5, 0)]
            .concat();
    let spec = [bytes(1, &port), bytes(2, &labels), bytes(3, b""), bytes(4, b"NodePort")].concat();
    let raw = [bytes(1, &metadata), bytes(2, &spec), bytes(3, &bytes(1, b""))].concat();
    let object = to_json(&body("v1", "Service", &raw)).unwrap();
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
                "selector": {"app": "web"},
                "type": "NodePort",
            },
        })
    );
}

/// A volume's source is a struct that Go embeds, and quantities and zeros keep their meaning.
#[test]
fn a_deployment() {
    let quantity = bytes(1, b"64Mi");
    let limit = [bytes(1, b"memory"), bytes(2, &quantity)].concat();
    let container = [bytes(1, b"main"), bytes(2, b"image"), bytes(8, &bytes(1, &limit))].concat();
    let config = bytes(1, &bytes(1, b"settings"));
    let volume = [bytes(1, b"config"), bytes(2, &bytes(19, &config))].concat();
    let pod = [bytes(1, &volume), bytes(2, &container)].concat();
    let template = [bytes(1, &bytes(8, b"")), bytes(2, &pod)].concat();
    let spec = [number(1, 0), bytes(3, &template)].concat();
    let raw = bytes(2, &spec);
    let object = to_json(&body("apps/v1", "Deployment", &raw)).unwrap();
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 0);
    assert_eq!(
        spec["template"],
        json!({
            "spec": {
                "volumes": [{"name": "config", "configMap": {"name": "settings"}}],
                "containers": [{
                    "name": "main", "image": "image", "resources": {"limits": {"memory": "64Mi"}},
                }],
            },
        })
    );
}

#[test]
fn a_secrets_data_and_times() {
    let entry = [bytes(1, b"password"), bytes(2, b"\x00\xff")].concat();
    let time = [number(1, 1_700_000_000), number(2, 0)].concat();
    let raw = [bytes(1, &bytes(8, &time)), bytes(2, &entry)].concat();
    let object = to_json(&body("v1", "Secret", &raw)).unwrap();
    assert_eq!(object["data"]["password"], "AP8=");
    assert_eq!(object["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
}

#[test]
fn hostile_bodies_are_errors() {
    let deep = (0..200).fold(Vec::new(), |inner, _| bytes(1, &inner));
    for body in [
        b"".to_vec(),
        b"{}".to_vec(),
        MAGIC.to_vec(),
        body("v1", "Nothing", b""),
        body("v1", "Pod", &[0x0a, 0xff]),
        body("v1", "Pod", &[0xff; 20]),
        body("v1", "Pod", &number(1, 5)),
    ] {
        to_json(&body).unwrap_err();
    }
    // Unknown fields are not errors, however deep they are.
    to_json(&body("v1", "ConfigMap", &bytes(100, &deep))).unwrap();
}

#[test]
fn what_is_written_reads_back() {
    for object in [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web", "empty": ""}, "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 3},
            "spec": {
                "replicas": 0, "paused": true, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    "securityContext": {"supplementalGroups": [1, 70000], "runAsUser": -1},
                    "volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}],
                    "containers": [{
                        "name": "c", "image": "nginx", "args": ["-a", ""],
                        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}}],
                        "resources": {"limits": {"cpu": "500m"}},
                        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3},
                    }],
                }},
            },
        }),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "AAEC", "b": ""}}),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "revision": 3, "data": {"spec": {"x": [1]}}}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {"name": "t"}, "spec": {"token": "x"},
            "status": {"authenticated": true, "user": {"username": "u", "extra": {"k": ["a", "b"]}}}}),
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {"resourceVersion": "1"}, "status": "Failure", "code": 404, "reason": "NotFound",
            "details": {"name": "x", "causes": [{"field": "spec", "reason": "FieldValueInvalid"}]}}),
    ] {
        assert_eq!(to_json(&from_json(&object).unwrap()).unwrap(), object);
    }
}

#[test]
fn objects_and_lists_on_the_wire() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let item =
        [bytes(1, &bytes(1, b"a")), bytes(2, &[bytes(1, b"k"), bytes(2, b"v")].concat())].concat();
    assert_eq!(from_json(&object).unwrap(), body("v1", "ConfigMap", &item));
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9"}, "items": [object]});
    let raw = [bytes(1, &bytes(2, b"9")), bytes(2, &item)].concat();
    assert_eq!(from_json(&list).unwrap(), body("v1", "ConfigMapList", &raw));
}
