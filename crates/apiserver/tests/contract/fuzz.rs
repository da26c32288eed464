//! Whatever is sent, the server handles or refuses it: it never answers 5xx, and stays up.
//!
//! The requests are generated from a seed that a failure prints; `FUZZ_SEED` and `FUZZ_ROUNDS` set
//! another seed and more rounds.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rpc::api_v1 as pb;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Rest, Server};

/// Requests in an ordinary run.
const ROUNDS: u64 = 1_500;
const SEED: u64 = 0x5eed;

/// The path of a collection, and a valid object of it.
pub fn samples() -> Vec<(&'static str, Value)> {
    let template = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "initContainers": [{"name": "i", "image": "i", "command": ["x"], "restartPolicy": "Always"}],
            "containers": [{
                "name": "c", "image": "i:1", "args": ["$(X)"], "workingDir": "/w",
                "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "Y", "value": "z"}],
                "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "p"}],
                "ports": [{"name": "web", "containerPort": 80, "hostPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
                "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
                "securityContext": {"runAsUser": 1, "capabilities": {"add": ["NET_ADMIN"]}},
            }],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "w", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "t", "labelSelector": {"matchLabels": {"a": "b"}}}]}},
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}}],
            "nodeSelector": {"n": "m"}, "terminationGracePeriodSeconds": 5, "dnsPolicy": "ClusterFirst", "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}],
        },
    });
    let mut pod = template.clone();
    pod["metadata"]["name"] = "x".into();
    let mut ending = template.clone();
    ending["spec"]["restartPolicy"] = "Never".into();
    let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]});
    let named = |spec: Value| json!({"metadata": {"name": "x", "labels": {"l": "v"}, "annotations": {"a": "v"}}, "spec": spec});
    let job = json!({"template": ending, "completions": 3, "parallelism": 2, "backoffLimit": 1, "completionMode": "Indexed"});
    let core = "/api/v1/namespaces/default";
    let claim =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let path =
        |suffix: &str| -> &'static str { Box::leak(format!("{core}/{suffix}").into_boxed_str()) };
    vec![
        (path("pods"), pod),
        (
            path("configmaps"),
            json!({"metadata": {"name": "x"}, "data": {"k": "v"}, "binaryData": {"b": "AAAA"}}),
        ),
        (
            path("secrets"),
            json!({"metadata": {"name": "x"}, "type": "Opaque", "data": {"k": "AAAA"}, "stringData": {"s": "t"}}),
        ),
        (
            path("services"),
            named(
                json!({"type": "LoadBalancer", "selector": {"a": "b"}, "ports": [{"name": "p", "port": 80, "targetPort": "web", "nodePort": 30080}],
            "sessionAffinity": "ClientIP", "externalIPs": ["192.0.2.1"], "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            ),
        ),
        (path("persistentvolumeclaims"), named(claim)),
        (
            path("resourcequotas"),
            named(
                json!({"hard": {"pods": "5", "requests.cpu": "1"}, "scopes": ["NotTerminating"]}),
            ),
        ),
        (
            path("limitranges"),
            named(
                json!({"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1m"}, "default": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}}]}),
            ),
        ),
        (
            path("endpoints"),
            json!({"metadata": {"name": "x"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "p", "port": 80}]}]}),
        ),
        (
            path("events"),
            json!({"metadata": {"name": "x"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "r", "count": 1}),
        ),
        (
            path("replicationcontrollers"),
            named(json!({"replicas": 1, "selector": {"a": "b"}, "template": template})),
        ),
        (
            path("serviceaccounts"),
            json!({"metadata": {"name": "x"}, "imagePullSecrets": [{"name": "s"}]}),
        ),
        ("/api/v1/namespaces", named(json!({"finalizers": ["kubernetes"]}))),
        (
            "/api/v1/nodes",
            named(
                json!({"podCIDR": "10.244.0.0/24", "taints": [{"key": "k", "effect": "NoSchedule"}]}),
            ),
        ),
        (
            "/api/v1/persistentvolumes",
            named(
                json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "claimRef": {"name": "c", "namespace": "default"}}),
            ),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            named(json!({"replicas": 1, "selector": selector, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}})),
        ),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            named(json!({"serviceName": "s", "selector": selector, "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]})),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            named(json!({"selector": selector, "template": template})),
        ),
        ("/apis/batch/v1/namespaces/default/jobs", named(job.clone())),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            named(
                json!({"schedule": "*/5 * * * *", "timeZone": "Europe/Zurich", "jobTemplate": {"spec": job}}),
            ),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            named(
                json!({"rules": [{"host": "h.example", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}], "tls": [{"hosts": ["h.example"]}]}),
            ),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            named(json!({"podSelector": selector, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}]})),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            named(json!({"minAvailable": "50%", "selector": selector})),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "x"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"metadata": {"name": "x"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}]}),
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"metadata": {"name": "x"}, "value": 5, "preemptionPolicy": "Never"}),
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": {"name": "x"}, "provisioner": "p", "volumeBindingMode": "Immediate", "parameters": {"a": "b"}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            named(
                json!({"holderIdentity": "h", "leaseDurationSeconds": 5, "renewTime": "2026-01-01T00:00:00.000000Z"}),
            ),
        ),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            json!({"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        ),
    ]
}

/// Values that careless rules trip over.
fn hostile(rng: &mut StdRng) -> Value {
    let mut deep = json!(1);
    for _ in 0..rng.random_range(1..120) {
        deep = if rng.random() { json!([deep]) } else { json!({"x": deep}) };
    }
    let choices = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(70_000),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!("-"),
        json!("A"),
        json!("\u{0}"),
        json!("é\u{202e}💥"),
        json!("a".repeat(300)),
        json!("999999999999999999999999Gi"),
        json!("1e999"),
        json!("-5%"),
        json!("%s%n"),
        json!("../../etc"),
        json!("0001-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": ""}),
        json!({"a": null}),
        json!([[[]]]),
        deep,
    ];
    choices[rng.random_range(0..choices.len())].clone()
}

/// Replaces, drops or duplicates something somewhere inside.
fn mutate(value: &mut Value, rng: &mut StdRng) {
    let go_on = rng.random_range(0..10) < 8;
    match value {
        Value::Object(members) if !members.is_empty() && go_on => {
            let at = rng.random_range(0..members.len());
            let key = members.keys().nth(at).unwrap().clone();
            match rng.random_range(0..12) {
                0 => {
                    members.remove(&key);
                }
                1 => {
                    let own = members[&key].clone();
                    members.insert(format!("{key}x"), own);
                }
                _ => mutate(&mut members[&key], rng),
            }
        }
        Value::Array(items) if !items.is_empty() && go_on => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..8) {
                0 => {
                    items.remove(at);
                }
                1 => items.push(items[at].clone()),
                _ => mutate(&mut items[at], rng),
            }
        }
        value => *value = hostile(rng),
    }
}

fn bytes(rng: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..most)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A part of a path or a query: a valid one, or anything.
fn piece(rng: &mut StdRng) -> String {
    let known = [
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "pods",
        "status",
        "scale",
        "log",
        "exec",
        "proxy",
        "watch",
        "x",
        "deployments",
        "",
        "..",
        ".",
        "openapi",
        "v3",
        "version",
        "metrics",
        "healthz",
        "eviction",
        "binding",
        "token",
        "nodes",
        "finalize",
        "*",
        "events",
        "leases",
        "batch",
        "jobs",
        "bindings",
        "selfsubjectreviews",
        "componentstatuses",
        "limit",
        "continue",
    ];
    if rng.random_range(0..4) > 0 {
        return known[rng.random_range(0..known.len())].to_owned();
    }
    bytes(rng, 12)
        .iter()
        .map(|byte| {
            let letter = char::from(*byte);
            if letter.is_ascii_alphanumeric() || "-._~:@$&'()*+,;=".contains(letter) {
                letter.to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect()
}

fn query(rng: &mut StdRng) -> String {
    let names = [
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "labelSelector",
        "fieldSelector",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "gracePeriodSeconds",
        "propagationPolicy",
        "orphanDependents",
        "sendInitialEvents",
        "pretty",
        "container",
        "tailLines",
        "sinceTime",
        "sinceSeconds",
        "limitBytes",
        "command",
        "ports",
        "verbose",
    ];
    let values = [
        "1",
        "0",
        "-1",
        "x",
        "true",
        "All",
        "Strict",
        "Exact",
        "NotOlderThan",
        "a%3Db",
        "a%20in%20(b%2Cc)",
        "%21a",
        "metadata.name%3Dx",
        "%00",
        "%ff",
        "9223372036854775808",
        "Orphan",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJ4In0",
        "%5C",
        "a%5C%2Cb%3D1",
        "e%2Cx",
    ];
    let pairs: Vec<String> = (0..rng.random_range(0..4))
        .map(|_| {
            let name = names[rng.random_range(0..names.len())];
            let value = match rng.random_range(0..4) {
                0 => piece(rng),
                _ => values[rng.random_range(0..values.len())].to_owned(),
            };
            format!("{name}={value}")
        })
        .collect();
    pairs.join("&")
}

struct FuzzRequest {
    method: &'static str,
    path: String,
    kind: &'static str,
    body: Vec<u8>,
}

fn request(rng: &mut StdRng, samples: &[(&'static str, Value)]) -> FuzzRequest {
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let kinds = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "text/plain",
        "",
    ];
    let (collection, sample) = &samples[rng.random_range(0..samples.len())];
    let mut object = sample.clone();
    for _ in 0..rng.random_range(1..4) {
        mutate(&mut object, rng);
    }
    let text = object.to_string().into_bytes();
    let asked = |method, path: String, kind, body| FuzzRequest { method, path, kind, body };
    match rng.random_range(0..10) {
        0..=3 => asked("POST", format!("{collection}?{}", query(rng)), "application/json", text),
        4 => asked("PUT", format!("{collection}/x?{}", query(rng)), "application/json", text),
        5 => {
            let subresource =
                ["", "/status", "/scale", "/finalize", "/resize", "/ephemeralcontainers"];
            let subresource = subresource[rng.random_range(0..subresource.len())];
            let kind = kinds[rng.random_range(3..7)];
            let body = match kind {
                "application/json-patch+json" => {
                    let operations = ["add", "remove", "replace", "move", "copy", "test"];
                    let mut one = || {
                        let operation = operations[rng.random_range(0..operations.len())];
                        let pointers = [
                            "",
                            "/",
                            "/metadata",
                            "/metadata/labels/l",
                            "/spec",
                            "/spec/replicas",
                            "/data/k",
                            "/spec/template/spec/containers/0",
                            "/a~1b",
                            "/-",
                        ];
                        let (path, from) = (
                            pointers[rng.random_range(0..pointers.len())],
                            pointers[rng.random_range(0..pointers.len())],
                        );
                        json!({"op": operation, "path": path, "from": from, "value": hostile(rng)})
                    };
                    let operations = json!([one(), one(), one()]);
                    operations.to_string().into_bytes()
                }
                _ => text,
            };
            let query = if kind.contains("apply") {
                "fieldManager=f&force=true".to_owned()
            } else {
                query(rng)
            };
            asked("PATCH", format!("{collection}/x{subresource}?{query}"), kind, body)
        }
        6 => asked("GET", format!("{collection}?{}", query(rng)), "", Vec::new()),
        7 => {
            // The text with some of its bytes changed.
            let mut text = text;
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..text.len());
                text[at] = rng.random();
            }
            let kind = kinds[rng.random_range(0..3)];
            asked("POST", (*collection).to_owned(), kind, text)
        }
        8 => asked(
            methods[rng.random_range(0..methods.len())],
            format!("{collection}/x?{}", query(rng)),
            kinds[rng.random_range(0..kinds.len())],
            bytes(rng, 200),
        ),
        _ => {
            let path: String =
                (0..rng.random_range(1..8)).map(|_| format!("/{}", piece(rng))).collect();
            let method = methods[rng.random_range(0..methods.len())];
            asked(
                method,
                format!("{path}?{}", query(rng)),
                kinds[rng.random_range(0..kinds.len())],
                bytes(rng, 40),
            )
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether the server failed: any 5xx but for a feature that is not implemented, or a resource
/// version that it has not reached.
fn is_failure(code: u16, body: &Value) -> bool {
    let ahead = body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge";
    // Upstream's answer to a configuration with fields that there are not.
    let untyped =
        body["message"].as_str().unwrap_or_default().starts_with("failed to create typed");
    code >= 500 && code != 501 && !ahead && !untyped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_http_request_breaks_the_server() {
    let server = Server::start().await;
    server.default_account("default").await;
    let (rest, stranger) = (server.admin(), server.rest_anonymous());
    let samples = samples();
    for (path, object) in &samples {
        let answer = rest.post(path, object).await;
        assert!(answer.code == 201, "a sample is invalid: {path} {}", answer.text);
        if !path.contains("reviews") {
            rest.delete(&format!("{path}/x?gracePeriodSeconds=0")).await;
        }
    }
    let seed = number("FUZZ_SEED", SEED);
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..number("FUZZ_ROUNDS", ROUNDS) {
        let asked = request(&mut rng, &samples);
        // A watch has no end, and the namespace that everything is in must stay.
        if asked.path.contains("watch")
            || (asked.method == "DELETE" && asked.path.contains("/namespaces/default?"))
        {
            continue;
        }
        let headers = [("content-type", asked.kind)];
        let headers = if asked.kind.is_empty() { &headers[..0] } else { &headers[..] };
        // Who has no credentials gets no further, and breaks nothing either.
        if round % 4 == 0 {
            let answer = stranger.ask(asked.method, &asked.path, headers, asked.body.clone()).await;
            let what = format!("FUZZ_SEED={seed} round {round}: {} {}", asked.method, asked.path);
            assert!((400..500).contains(&answer.code), "{what}: {} {}", answer.code, answer.text);
        }
        let answer = rest.ask(asked.method, &asked.path, headers, asked.body.clone()).await;
        assert!(
            !is_failure(answer.code, &answer.body),
            "FUZZ_SEED={seed} round {round}: {} {} {} {:?}\n{} {}",
            asked.method,
            asked.path,
            asked.kind,
            String::from_utf8_lossy(&asked.body),
            answer.code,
            answer.text
        );
    }
    lives(&rest).await;
    server.stop().await;
}

/// The other front end: targets, options and bodies of any kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_grpc_call_breaks_the_server() {
    let server = Server::start().await;
    server.default_account("default").await;
    let samples = samples();
    let seed = number("FUZZ_SEED", SEED);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut grpc = server.grpc();
    for round in 0..number("FUZZ_ROUNDS", ROUNDS / 3) {
        let row = api::kind::KINDS[rng.random_range(0..api::kind::KINDS.len())];
        let odd = |rng: &mut StdRng, honest: &str| match rng.random_range(0..6) {
            0 => String::from_utf8_lossy(&bytes(rng, 8)).into_owned(),
            1 => ["", "..", "a/b", "\0", "é", "default/x"][rng.random_range(0..6)].to_owned(),
            _ => honest.to_owned(),
        };
        let subresources = ["", "", "", "status", "scale", "binding", "token", "log", "nope"];
        let target = Some(pb::Target {
            group: odd(&mut rng, &row.group),
            version: odd(&mut rng, &row.version),
            resource: odd(&mut rng, &row.plural),
            namespace: odd(&mut rng, "default"),
            name: odd(&mut rng, "x"),
            subresource: subresources[rng.random_range(0..subresources.len())].to_owned(),
        });
        let (_, mut object) = samples[rng.random_range(0..samples.len())].clone();
        mutate(&mut object, &mut rng);
        let json: bytes::Bytes = match rng.random_range(0..4) {
            0 => bytes(&mut rng, 60).into(),
            _ => object.to_string().into(),
        };
        let options = Some(pb::WriteOptions {
            dry_run: rng.random(),
            field_manager: odd(&mut rng, "m"),
            field_validation: odd(&mut rng, "Strict"),
            force: rng.random(),
        });
        let shown = format!("{target:?} {json:?} {options:?}");
        let outcome = match rng.random_range(0..6) {
            0 => grpc.create(pb::CreateRequest { target, json, options }).await.map(|_| ()),
            1 => grpc.update(pb::UpdateRequest { target, json, options }).await.map(|_| ()),
            2 => {
                let r#type = rng.random_range(0..6);
                let request = pb::PatchRequest { target, r#type, patch: json, options };
                grpc.patch(request).await.map(|_| ())
            }
            3 => {
                let request = pb::DeleteRequest { target, options_json: json, dry_run: true };
                grpc.delete(request).await.map(|_| ())
            }
            4 => {
                let (label_selector, field_selector) = (odd(&mut rng, "a=b"), odd(&mut rng, ""));
                let continue_token = odd(&mut rng, "");
                let request = pb::ListRequest {
                    target,
                    label_selector,
                    field_selector,
                    continue_token,
                    limit: rng.random(),
                    ..pb::ListRequest::default()
                };
                grpc.list(request).await.map(|_| ())
            }
            _ => {
                let representation = rng.random_range(-1..5);
                let resource_version = odd(&mut rng, "");
                let request = pb::GetRequest { target, resource_version, representation };
                grpc.get(request).await.map(|_| ())
            }
        };
        let Err(status) = outcome else { continue };
        let error = rpc::status::from_grpc(&status);
        let known = error.is_some_and(|error| {
            let body = serde_json::from_slice(&error.encode()).unwrap();
            !is_failure(error.code(), &body)
        });
        assert!(known, "FUZZ_SEED={seed} round {round}: {shown}\n{status:?}");
    }
    lives(&server.admin()).await;
    server.stop().await;
}

/// Bytes that are hardly HTTP, and some that are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_survives_arbitrary_bytes() {
    let server = Server::start().await;
    let seed = number("FUZZ_SEED", SEED);
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..200 {
        let mut noise = bytes(&mut rng, 2_000);
        if round % 2 == 0 {
            let mut start = b"GET /api/v1/pods HTTP/1.1\r\nhost: h\r\n".to_vec();
            start.append(&mut noise);
            noise = start;
        }
        if round % 4 == 1 {
            let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            start.append(&mut noise);
            noise = start;
        }
        if round % 3 == 0 {
            let mut plain =
                tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
            plain.write_all(&noise).await.ok();
            continue;
        }
        let Some(mut stream) = server.tls().await else {
            continue;
        };
        stream.write_all(&noise).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.1 5"), "FUZZ_SEED={seed} round {round}: {text}");
    }
    lives(&server.admin()).await;
    server.stop().await;
}

async fn lives(rest: &Rest) {
    let path = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "still-there"}});
    rest.post(path, &object).await.expect(201);
    rest.get("/readyz").await;
}
