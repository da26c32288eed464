//! One object of every kind, whatever the form in which a client sends it: what is stored is the
//! same.

use api::KindRow;
use api::kind::KINDS;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::{Rest, Server};

const FORMS: [&str; 5] = ["json", "yaml", "protobuf", "apply", "grpc"];

/// A request that is signed by its key and says nothing else, in DER.
const SIGNED_REQUEST: &str = "MIG5MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFRBfqmvHlVVqb1EqeHqyHgo0mWaVwn6NxF9qErhDmWV/RCghQy/6fWSKDoquaHMBV+F9qEJkYGgJQ5lezBmwTygADAKBggqhkjOPQQDAgNHADBEAiAxc7DQjQHkF4eJ8TxRGZUTas1sx1Dh31uskvJVzEb+JAIgGaEM41T1M0AIBdXPJo58GktVa0fcnMcJz8u+NDZYMww=";

/// A valid object of every kind that is stored, without what has to be unique in a cluster.
fn samples() -> Vec<(&'static KindRow, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut further = vec![
        ("podtemplates", json!({"template": template})),
        (
            "replicasets",
            json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        ("controllerrevisions", json!({"revision": 3, "data": {"spec": {"b": 1, "a": [true]}}})),
        ("ingressclasses", json!({"spec": {"controller": "example.com/c"}})),
        (
            "roles",
            json!({"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}]}),
        ),
        (
            "clusterrolebindings",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "default"}]}),
        ),
        (
            "csinodes",
            json!({"spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n",
                "topologyKeys": ["zone"], "allocatable": {"count": 3}}]}}),
        ),
        ("servicecidrs", json!({"spec": {"cidrs": ["10.200.0.0/24"]}})),
        (
            "ipaddresses",
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
        ),
        (
            "deviceclasses",
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'd.example.com'"}}],
                "config": [{"opaque": {"driver": "d.example.com", "parameters": {"a": [1]}}}]}}),
        ),
        ("resourceclaims", json!({"spec": claim()})),
        (
            "resourceclaimtemplates",
            json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": claim()}}),
        ),
        (
            "resourceslices",
            json!({"spec": {"driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "m"}, "version": {"version": "1.2.3"}},
                    "capacity": {"memory": {"value": "1024Mi"}}}]}}),
        ),
        (
            "devicetaintrules",
            json!({"spec": {"deviceSelector": {"driver": "d.example.com"}, "taint": {"key": "broken", "effect": "NoExecute",
                "timeAdded": "2026-01-02T03:04:05Z"}}}),
        ),
        (
            "storageversionmigrations",
            json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}}),
        ),
        (
            "csidrivers",
            json!({"spec": {"attachRequired": false, "tokenRequests": [{"audience": "a", "expirationSeconds": 600}]}}),
        ),
        (
            "csistoragecapacities",
            json!({"storageClassName": "s", "capacity": "1024Mi", "nodeTopology": {"matchLabels": {"a": "b"}}}),
        ),
        (
            "volumeattachments",
            json!({"spec": {"attacher": "csi.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        (
            "volumeattributesclasses",
            json!({"driverName": "csi.example.com", "parameters": {"a": "b"}}),
        ),
        (
            "runtimeclasses",
            json!({"handler": "h", "scheduling": {"tolerations": [{"operator": "Exists"}]}}),
        ),
        (
            "customresourcedefinitions",
            json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "NAME", "kind": "KNAME"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "string", "maxLength": 5}}}}}]}}),
        ),
        (
            "apiservices",
            json!({"spec": {"group": "example.com", "version": "NAME", "groupPriorityMinimum": 5,
                "versionPriority": 7, "caBundle": "YWJj",
                "service": {"namespace": "default", "name": "s"}}}),
        ),
        (
            "flowschemas",
            json!({"spec": {"matchingPrecedence": 9_000, "priorityLevelConfiguration": {"name": "workload-low"},
                "distinguisherMethod": {"type": "ByUser"}, "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "nobody"}},
                        {"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "none"}}],
                    "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"],
                        "clusterScope": true, "namespaces": ["n"]}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/x/*"]}]}]}}),
        ),
        (
            "prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0,
                "lendablePercent": 50, "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue",
                    "queuing": {"queues": 16, "handSize": 4, "queueLengthLimit": 10}}}}}),
        ),
        (
            "mutatingadmissionpolicies",
            json!({"spec": {"matchConstraints": {"resourceRules": [{"operations": ["CREATE"],
                "apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["nothings"]}]},
                "reinvocationPolicy": "IfNeeded", "variables": [{"name": "x", "expression": "1"}],
                "mutations": [
                    {"patchType": "ApplyConfiguration", "applyConfiguration": {
                        "expression": "Object{spec: Object.spec{x: variables.x}}"}},
                    {"patchType": "JSONPatch", "jsonPatch": {
                        "expression": "[JSONPatch{op: 'remove', path: '/spec/y'}]"}}]}}),
        ),
        (
            "mutatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p",
                "paramRef": {"name": "n", "parameterNotFoundAction": "Allow"}}}),
        ),
        (
            "validatingadmissionpolicies",
            json!({"spec": {"matchConstraints": {"resourceRules": [{"operations": ["CREATE"],
                "apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["nothings"]}]},
                "variables": [{"name": "x", "expression": "1"}],
                "validations": [{"expression": "variables.x == 1", "reason": "Forbidden"}]}}),
        ),
        (
            "validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"],
                "paramRef": {"name": "n", "parameterNotFoundAction": "Allow"}}}),
        ),
        (
            "horizontalpodautoscalers",
            json!({"spec": {"minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "100m"}}}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5, "tolerance": "50m"}}}}),
        ),
        (
            "certificatesigningrequests",
            json!({"spec": {"signerName": "example.com/s", "expirationSeconds": 600,
                "usages": ["client auth"], "request": BASE64.encode(signing_request())}}),
        ),
        (
            "podcertificaterequests",
            json!({"spec": {"signerName": "example.com/s", "podName": "p", "podUID": "1",
                "serviceAccountName": "a", "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3",
                "stubPKCS10Request": SIGNED_REQUEST}}),
        ),
        ("clustertrustbundles", json!({"spec": {"trustBundle": authority()}})),
        ("mutatingwebhookconfigurations", webhooks()),
        ("validatingwebhookconfigurations", webhooks()),
        (
            "services",
            json!({"spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"name": "p", "port": 80, "targetPort": "web"}]}}),
        ),
    ];
    for (path, mut sample) in crate::fuzz::samples() {
        let plural = path.rsplit('/').next().unwrap();
        // The name of its token's volume is random.
        if plural == "pods" {
            sample["spec"]["automountServiceAccountToken"] = false.into();
        }
        further.push((plural, sample));
    }
    let mut all = Vec::new();
    for row in KINDS.iter().copied().filter(|row| row.stored) {
        let of_row = further.iter().find(|(plural, _)| *plural == &*row.plural);
        let (_, sample) = of_row.unwrap_or_else(|| panic!("no sample of {}", row.plural));
        let mut sample = sample.clone();
        sample["apiVersion"] = row.api_version().into();
        sample["kind"] = (*row.kind).into();
        all.push((row, sample));
    }
    // They change what is created after them.
    all.sort_by_key(|(row, _)| matches!(&*row.plural, "resourcequotas" | "limitranges"));
    all
}

/// A request for a certificate, in PEM.
pub fn signing_request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// The certificate of an authority, in PEM.
pub fn authority() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn claim() -> Value {
    json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c",
        "selectors": [{"cel": {"expression": "true"}}]}}],
        "constraints": [{"requests": ["r"], "matchAttribute": "d.example.com/model"}]}})
}

fn webhooks() -> Value {
    json!({"webhooks": [{"name": "a.example.com", "sideEffects": "None", "timeoutSeconds": 3,
        "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
        "clientConfig": {"caBundle": "YWJj", "service": {"namespace": "n", "name": "s"}},
        "matchConditions": [{"name": "c", "expression": "object.metadata.name == 'x'"}],
        "rules": [{"operations": ["CREATE"], "apiGroups": ["none.example.com"],
            "apiVersions": ["*"], "resources": ["nothings"], "scope": "Namespaced"}]}]})
}

/// Whether its name has a group.
fn is_grouped(row: &KindRow) -> bool {
    matches!(&*row.kind, "CustomResourceDefinition" | "APIService")
}

fn named(row: &KindRow, sample: &Value, name: &str) -> Value {
    let mut object: Value =
        serde_json::from_str(&sample.to_string().replace("NAME", name)).unwrap();
    let full = if is_grouped(row) { ".example.com" } else { "" };
    object["metadata"]["name"] = format!("{name}{full}").into();
    if row.namespaced() {
        object["metadata"]["namespace"] = "default".into();
    }
    if &*row.kind == "IPAddress" {
        let form = FORMS.iter().position(|form| name.ends_with(form)).unwrap();
        object["metadata"]["name"] = format!("10.200.0.{}", form + 1).into();
    }
    object
}

/// Creates the object in one of the forms.
async fn create(server: &Server, rest: &Rest, row: &KindRow, form: &str, object: &Value) -> u16 {
    let root = if row.group.is_empty() { "api".to_owned() } else { format!("apis/{}", row.group) };
    let namespace = if row.namespaced() { "namespaces/default/" } else { "" };
    let path = format!("/{root}/{}/{namespace}{}", row.version, row.plural);
    let text = object.to_string().into_bytes();
    let send = async |method: &str, path: &str, media: &str, body: Vec<u8>| {
        let answer = rest.ask(method, path, &[("content-type", media)], body).await;
        if answer.code != 201 {
            println!("{} as {form}: {}", row.plural, answer.text);
        }
        answer.code
    };
    match form {
        "json" => send("POST", &path, "application/json", text).await,
        "yaml" => send("POST", &path, "application/yaml", yaml(object).into_bytes()).await,
        "protobuf" => {
            let bytes = api::protobuf::from_json(object).unwrap();
            send("POST", &path, "application/vnd.kubernetes.protobuf", bytes).await
        }
        "apply" => {
            let name = object["metadata"]["name"].as_str().unwrap();
            let path = format!("{path}/{name}?fieldManager=m");
            send("PATCH", &path, "application/apply-patch+yaml", text).await
        }
        _ => {
            let target = pb::Target {
                group: row.group.to_string(),
                version: row.version.to_string(),
                resource: row.plural.to_string(),
                namespace: if row.namespaced() { "default".into() } else { String::new() },
                ..pb::Target::default()
            };
            let request =
                pb::CreateRequest { target: Some(target), json: text.into(), options: None };
            let created = server.grpc().create(request).await;
            created.map_or_else(|status| panic!("{}: {status}", row.plural), |_| 201)
        }
    }
}

/// As YAML that is no JSON: one block, with quoted strings.
fn yaml(value: &Value) -> String {
    fn block(value: &Value, indent: usize, out: &mut String) {
        let margin = " ".repeat(indent);
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    out.push_str(&format!("\n{margin}{}:", Value::from(key.as_str())));
                    block(value, indent + 2, out);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    out.push_str(&format!("\n{margin}-"));
                    block(item, indent + 2, out);
                }
            }
            scalar => out.push_str(&format!(" {scalar}")),
        }
    }
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// The bytes in the store, without what differs from one object to the next.
async fn stored(server: &Server, row: &KindRow, name: &str) -> String {
    let options = store::ListOptions {
        prefix: Bytes::from_static(b"/registry/"),
        ..store::ListOptions::default()
    };
    let all = server.core().store.list(options).await.unwrap();
    let found = all.entries.iter().find(|entry| {
        let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        object["kind"] == *row.kind && object["metadata"]["name"] == name
    });
    let found = found.unwrap_or_else(|| panic!("{} {name} is not stored", row.plural));
    let mut object: Value = serde_json::from_slice(&found.value).unwrap();
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
    let metadata = object["metadata"].as_object_mut().unwrap();
    assert!(metadata.remove("managedFields").is_some(), "{} has no managers", row.plural);
    metadata.remove("creationTimestamp");
    // No form of a new object sets it, and the server's controllers may have written it since.
    if row.has_subresource("status") {
        object.as_object_mut().unwrap().remove("status");
    }
    // The certificate that the request came with: each front end's client has its own.
    if let Some(spec) = object["spec"].as_object_mut().filter(|spec| spec.contains_key("username"))
    {
        spec.remove("extra");
    }
    let is_address = &*row.kind == "IPAddress";
    let short = if is_address { name } else { name.split('.').next().unwrap() };
    object.to_string().replace(&uid, "UID").replace(short, "NAME")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_stored_alike_in_every_form() {
    let server = Server::start().await;
    let rest = server.admin();
    server.default_account("default").await;
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (row, sample) in samples() {
        let mut first: Option<String> = None;
        for form in FORMS {
            let object = named(row, &sample, &format!("form{form}"));
            let code = create(&server, &rest, row, form, &object).await;
            assert_eq!(code, 201, "{} as {form}", row.plural);
            let name = object["metadata"]["name"].as_str().unwrap();
            let stored = stored(&server, row, name).await;
            compared += 1;
            let first = first.get_or_insert_with(|| stored.clone());
            if stored != *first {
                wrong.push(format!("{} as {form}:\n{stored}\nas json:\n{first}", row.plural));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(compared >= 5 * 30, "only {compared} objects");
    server.stop().await;
}
