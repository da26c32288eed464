//! Field selectors: every kind selects by the fields that Kubernetes documents for it, and by no
//! others, and each field has its value.

use api::kind::KINDS;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::every_form::{authority, signing_request};
use crate::server::Server;

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/>, and the
/// conversion functions of field labels for what is not there; beside the name and the namespace.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "v1 Pod",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    ("v1 Node", &["spec.unschedulable"]),
    ("v1 Namespace", &["status.phase"]),
    ("v1 Secret", &["type"]),
    ("v1 Service", &["spec.clusterIP", "spec.type"]),
    (
        "v1 Event",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    (
        "events.k8s.io/v1 Event",
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
    ),
    ("certificates.k8s.io/v1 CertificateSigningRequest", &["spec.signerName"]),
    ("certificates.k8s.io/v1 ClusterTrustBundle", &["spec.signerName"]),
    (
        "certificates.k8s.io/v1 PodCertificateRequest",
        &["spec.signerName", "spec.podName", "spec.nodeName"],
    ),
    ("v1 ReplicationController", &["status.replicas"]),
    ("apps/v1 ReplicaSet", &["status.replicas"]),
    ("batch/v1 Job", &["status.successful"]),
    ("resource.k8s.io/v1 ResourceSlice", &["spec.nodeName", "spec.driver"]),
];

#[test]
fn every_kind_selects_by_upstreams_fields() {
    for row in KINDS {
        let name = format!("{} {}", row.api_version(), row.kind);
        let wanted = FIELDS.iter().find(|(kind, _)| *kind == name).map_or(&[][..], |row| row.1);
        assert_eq!(row.selectable, wanted, "{name}");
    }
    for (name, _) in FIELDS {
        let is = |row: &&&api::KindRow| format!("{} {}", row.api_version(), row.kind) == *name;
        assert!(KINDS.iter().any(|row| is(&row)), "{name}");
    }
}

/// Fields with their values.
type Fields = Vec<(&'static str, &'static str)>;

/// A collection, an object of it, its status, and the value of each field.
fn samples() -> Vec<(&'static str, Value, Value, Fields)> {
    let containers = json!([{"name": "c", "image": "i"}]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
    let selector = json!({"matchLabels": {"a": "b"}});
    let ending = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    let named = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    let reference = json!({"kind": "Pod", "namespace": "default", "name": "p", "uid": "u", "apiVersion": "v1",
        "resourceVersion": "7", "fieldPath": "spec.f"});
    vec![
        (
            "/api/v1/namespaces/default/pods",
            named(json!({"nodeName": "n", "restartPolicy": "Never", "schedulerName": "s",
                "serviceAccountName": "default", "hostNetwork": true, "containers": containers})),
            json!({"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
                "nominatedNodeName": "m"}),
            vec![
                ("spec.nodeName", "n"),
                ("spec.restartPolicy", "Never"),
                ("spec.schedulerName", "s"),
                ("spec.serviceAccountName", "default"),
                ("spec.hostNetwork", "true"),
                ("status.phase", "Running"),
                ("status.podIP", "10.0.0.7"),
                // Accepted, but without a value.
                ("status.podIPs", ""),
                ("status.nominatedNodeName", "m"),
            ],
        ),
        (
            "/api/v1/nodes",
            named(json!({"unschedulable": true})),
            Value::Null,
            vec![("spec.unschedulable", "true")],
        ),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            named(json!({"driver": "d.example.com", "nodeName": "n",
                "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}})),
            Value::Null,
            vec![("spec.nodeName", "n"), ("spec.driver", "d.example.com")],
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            named(json!({"signerName": "example.com/s", "usages": ["client auth"],
                "request": BASE64.encode(signing_request())})),
            Value::Null,
            vec![("spec.signerName", "example.com/s")],
        ),
        (
            "/apis/certificates.k8s.io/v1/clustertrustbundles",
            json!({"metadata": {"name": "example.com:t:x"},
                "spec": {"signerName": "example.com/t", "trustBundle": authority()}}),
            Value::Null,
            vec![("spec.signerName", "example.com/t")],
        ),
        ("/api/v1/namespaces", named(json!({})), Value::Null, vec![("status.phase", "Active")]),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "x"}, "type": "example.com/t"}),
            Value::Null,
            vec![("type", "example.com/t")],
        ),
        (
            "/api/v1/namespaces/default/services",
            named(json!({"clusterIP": "None", "selector": {"a": "b"}})),
            Value::Null,
            vec![("spec.clusterIP", "None"), ("spec.type", "ClusterIP")],
        ),
        (
            "/api/v1/namespaces/default/events",
            json!({"metadata": {"name": "x"}, "involvedObject": reference, "reason": "R", "type": "Normal",
                "reportingComponent": "c", "reportingInstance": "i", "source": {"component": "s"}}),
            Value::Null,
            vec![
                ("involvedObject.kind", "Pod"),
                ("involvedObject.namespace", "default"),
                ("involvedObject.name", "p"),
                ("involvedObject.uid", "u"),
                ("involvedObject.apiVersion", "v1"),
                ("involvedObject.resourceVersion", "7"),
                ("involvedObject.fieldPath", "spec.f"),
                ("reason", "R"),
                ("reportingComponent", "c"),
                ("source", "s"),
                ("type", "Normal"),
            ],
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            json!({"metadata": {"name": "y"}, "regarding": reference, "reason": "S", "type": "Warning",
                "reportingController": "example.com/c", "reportingInstance": "i", "action": "a",
                "eventTime": "2026-01-01T00:00:00.000000Z"}),
            Value::Null,
            vec![
                ("regarding.kind", "Pod"),
                ("regarding.namespace", "default"),
                ("regarding.name", "p"),
                ("regarding.uid", "u"),
                ("regarding.apiVersion", "v1"),
                ("regarding.resourceVersion", "7"),
                ("regarding.fieldPath", "spec.f"),
                ("reason", "S"),
                ("reportingController", "example.com/c"),
                ("type", "Warning"),
            ],
        ),
        (
            "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests",
            crate::pod_certificates::request("x"),
            Value::Null,
            vec![
                ("spec.signerName", "example.com/pods"),
                ("spec.podName", "p"),
                ("spec.nodeName", "n1"),
            ],
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            named(json!({"selector": {"a": "b"}, "template": template})),
            json!({"replicas": 4}),
            vec![("status.replicas", "4")],
        ),
        (
            "/apis/apps/v1/namespaces/default/replicasets",
            named(json!({"selector": selector, "template": template})),
            json!({"replicas": 5}),
            vec![("status.replicas", "5")],
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            named(json!({"template": ending})),
            json!({"succeeded": 2}),
            vec![("status.successful", "2")],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_selects_its_value() {
    let server = Server::start().await;
    let rest = server.admin();
    server.default_account("default").await;
    let samples = samples();
    assert_eq!(samples.len(), FIELDS.len());
    for (path, object, status, fields) in samples {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        rest.post(path, &object).await.expect(201);
        if !status.is_null() {
            let status = json!({"status": status});
            rest.patch(&format!("{path}/{name}/status"), "merge", &status).await.expect(200);
        }
        let known = FIELDS.iter().map(|(_, fields)| fields.to_vec());
        let tried: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
        assert!(known.into_iter().any(|known| known == tried), "{path}: {tried:?}");
        for (field, value) in fields {
            for (operator, there) in [("%3D", true), ("!%3D", false)] {
                let list = format!("{path}?fieldSelector={field}{operator}{value}");
                let list = rest.get(&list).await.expect(200);
                let names = list["items"].as_array().unwrap().iter();
                let found = names.filter(|one| one["metadata"]["name"] == *name).count();
                assert_eq!(found, usize::from(there), "{path} {field} {operator} {value}");
            }
        }
        let unknown = rest.get(&format!("{path}?fieldSelector=spec.unknown%3Dx")).await.expect(400);
        assert!(unknown["message"].as_str().unwrap().contains("field label not supported"));
    }
    server.stop().await;
}
