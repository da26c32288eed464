//! MutatingAdmissionPolicies: what they change, and what becomes of requests when they cannot.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use super::{MAPS, found, map, until};
use crate::custom::{WIDGETS, define, definition};
use crate::server::{Rest, Server};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn rules(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": ["*"], "apiGroups": [group], "apiVersions": ["v1"],
        "resources": [resource]}]})
}

/// A policy about ConfigMaps.
fn policy(name: &str, mutations: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"matchConstraints": rules("", "configmaps"),
        "reinvocationPolicy": "Never", "mutations": mutations}})
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// Creates a policy with a binding, and waits until it is in force.
async fn enforce_with(server: &Server, policy: &Value, reference: Value) {
    let rest = server.admin();
    rest.post(POLICIES, policy).await.expect(201);
    let name = policy["metadata"]["name"].as_str().unwrap();
    let bound = format!("{name}-b");
    let mut binding = json!({"metadata": {"name": bound}, "spec": {"policyName": name}});
    if !reference.is_null() {
        binding["spec"]["paramRef"] = reference;
    }
    rest.post(BINDINGS, &binding).await.expect(201);
    until(server, |names| names.contains(&bound)).await;
}

async fn enforce(server: &Server, policy: &Value) {
    enforce_with(server, policy, Value::Null).await;
}

async fn remove(server: &Server, name: &str) {
    let rest = server.admin();
    rest.delete(&format!("{BINDINGS}/{name}-b")).await.expect(200);
    rest.delete(&format!("{POLICIES}/{name}")).await.expect(200);
    until(server, |names| !names.iter().any(|known| *known == format!("{name}-b"))).await;
}

async fn create(rest: &Rest, name: &str) -> Value {
    rest.post(MAPS, &map(name, &json!({"a": "b"}))).await.expect(201)
}

/// The code, reason and message of a refusal.
async fn refusal(rest: &Rest, name: &str) -> (u64, String, String) {
    let refused = rest.post(MAPS, &map(name, &json!({"a": "b"}))).await;
    let status: Value = serde_json::from_str(&refused.text).unwrap();
    rest.get(&format!("{MAPS}/{name}")).await.expect(404);
    let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
    (status["code"].as_u64().unwrap_or_default(), text("reason"), text("message"))
}

#[tokio::test]
async fn objects_are_changed_through_both_front_ends() {
    let server = Server::start().await;
    let rest = server.admin();
    server.default_account("default").await;
    let mut pods = policy(
        "pods",
        &[
            apply("Object{metadata: Object.metadata{labels: {'by': request.userInfo.username}}}"),
            apply(
                "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'sidecar', image: variables.image}]}}",
            ),
            patch(
                "[JSONPatch{op: 'test', path: '/metadata/labels/by', value: 'kubernetes-admin'}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/team'), value: namespaceObject.metadata.name}]",
            ),
            patch(
                "[JSONPatch{op: 'test', path: '/metadata/labels/by', value: 'nobody'}, JSONPatch{op: 'remove', path: '/spec'}]",
            ),
        ],
    );
    pods["spec"]["matchConstraints"] = rules("", "pods");
    pods["spec"]["variables"] = json!([{"name": "image", "expression": "'side:' + object.spec.containers[0].image.split(':')[1]"}]);
    pods["spec"]["matchConditions"] =
        json!([{"name": "new", "expression": "request.operation == 'CREATE'"}]);
    enforce(&server, &pods).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rest"},
        "spec": {"containers": [{"name": "main", "image": "main:2"}]}});
    let mut answers = vec![rest.post(PODS, &pod).await.expect(201)];
    let mut other = pod.clone();
    other["metadata"]["name"] = "grpc".into();
    let target = pb::Target {
        version: "v1".to_owned(),
        resource: "pods".to_owned(),
        namespace: "default".to_owned(),
        ..pb::Target::default()
    };
    let request =
        pb::CreateRequest { target: Some(target), json: other.to_string().into(), options: None };
    server.grpc().create(request).await.unwrap();
    answers.push(rest.get(&format!("{PODS}/grpc")).await.expect(200));
    for answer in answers {
        let labels = &answer["metadata"]["labels"];
        assert_eq!(labels, &json!({"by": "kubernetes-admin", "example.com/team": "default"}));
        let containers = answer["spec"]["containers"].as_array().unwrap();
        let names: Vec<_> = containers.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["main", "sidecar"]);
        // What a policy adds has its defaults, too.
        assert_eq!(containers[1]["image"], "side:2");
        assert_eq!(containers[1]["terminationMessagePath"], "/dev/termination-log");
    }
    // A dry run shows the change.
    let dry = format!("{PODS}?dryRun=All");
    other["metadata"]["name"] = "dry".into();
    let answer = rest.post(&dry, &other).await.expect(201);
    assert_eq!(answer["metadata"]["labels"]["by"], "kubernetes-admin");
    let metrics = rest.get("/metrics").await.text;
    let line = "apiserver_mutating_admission_policy_check_total{error_type=\"no_error\",policy=\"pods\",policy_binding=\"pods-b\"}";
    assert!(metrics.contains(line), "{metrics}");
    // What results is validated.
    let mut wrong =
        policy("wrong", &[apply("Object{metadata: Object.metadata{labels: {'a b': 'c'}}}")]);
    wrong["spec"]["matchConstraints"] = rules("", "pods");
    enforce(&server, &wrong).await;
    other["metadata"]["name"] = "wrong".into();
    let refused = rest.post(PODS, &other).await.expect(422);
    assert!(
        refused["message"].as_str().unwrap().contains("metadata.labels: Invalid value"),
        "{refused}"
    );
    server.stop().await;
}

#[tokio::test]
async fn custom_objects_and_subresources_are_changed() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let mut parts = policy(
        "parts",
        &[
            apply("Object{spec: Object.spec{parts: [Object.spec.parts{name: 'made', count: 3}]}}"),
            patch("[JSONPatch{op: 'replace', path: '/spec/size', value: object.spec.size + 1}]"),
        ],
    );
    parts["spec"]["matchConstraints"] = rules("example.com", "widgets");
    enforce(&server, &parts).await;
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "w"}, "spec": {"size": 1, "replicas": 1, "parts": [{"name": "own"}]}});
    let made = rest.post(WIDGETS, &widget).await.expect(201);
    assert_eq!(made["spec"]["parts"], json!([{"name": "own"}, {"count": 3, "name": "made"}]));
    assert_eq!(made["spec"]["size"], 2);
    // The same objects in another version, which the rules do not name.
    let mut beta = widget.clone();
    (beta["apiVersion"], beta["metadata"]["name"]) = ("example.com/v1beta1".into(), "beta".into());
    let made = rest.post(&WIDGETS.replace("/v1/", "/v1beta1/"), &beta).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["size"]),
        (&"example.com/v1beta1".into(), &2.into())
    );
    let mut phase = policy("phase", &[apply("Object{status: Object.status{phase: 'set'}}")]);
    phase["spec"]["matchConstraints"] = rules("example.com", "widgets/status");
    enforce(&server, &phase).await;
    let mut status = rest.get(&format!("{WIDGETS}/w")).await.expect(200);
    status["status"] = json!({"replicas": 1});
    let answer = rest.send("PUT", &format!("{WIDGETS}/w/status"), &status).await.expect(200);
    assert_eq!(answer["status"], json!({"phase": "set", "replicas": 1}));
    // What results is what the schema says, or it is refused.
    let large = patch("[JSONPatch{op: 'replace', path: '/spec/size', value: 99}]");
    let mut large = policy("large", &[large]);
    large["spec"]["matchConstraints"] = rules("example.com", "widgets");
    enforce(&server, &large).await;
    let mut other = widget.clone();
    other["metadata"]["name"] = "large".into();
    rest.post(WIDGETS, &other).await.expect(422);
    remove(&server, "large").await;
    // A scale is of a kind of its own.
    let mut scale = policy("scale", &[apply("Object{spec: Object.spec{replicas: 7}}")]);
    scale["spec"]["matchConstraints"] = rules("example.com", "widgets/scale");
    enforce(&server, &scale).await;
    let patched = rest
        .patch(&format!("{WIDGETS}/w/scale"), "merge", &json!({"spec": {"replicas": 2}}))
        .await
        .expect(200);
    assert_eq!(patched["spec"]["replicas"], 7);
    server.stop().await;
}

/// Which expressions fail on a request, and how.
#[tokio::test]
async fn failures_follow_the_policy() {
    let server = Server::start().await;
    let rest = server.admin();
    let digits = "[1,2,3,4,5,6,7,8,9,0]";
    let nested =
        (0..8).fold("true".to_owned(), |inner, depth| format!("{digits}.all(v{depth}, {inner})"));
    let endless = format!("{nested} ? [JSONPatch{{op: 'remove', path: '/x'}}] : [JSONPatch{{}}]");
    let cases: Vec<(Value, u64, &str, &str)> = vec![
        (
            apply("Object{data: Object.data{x: object.data.none}}"),
            403,
            "Invalid",
            "resulted in error: no such key: none",
        ),
        (
            apply("Object{metadata: Object.metadata{labels: Object.metadata.wrong{a: 'b'}}}"),
            403,
            "Invalid",
            "type mismatch: unexpected type name \"Object.metadata.wrong\", expected \"Object.metadata.labels\", which matches field name path from root Object type",
        ),
        (
            apply("Object{spec: Object.spec{}}"),
            403,
            "Invalid",
            "error applying patch: failed to convert patch object to typed object: .spec: field not declared in schema",
        ),
        (
            apply("Object{data: {'x': 1}}"),
            403,
            "Invalid",
            ".data.x: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            patch("[JSONPatch{op: 'replace', path: '/data/none', value: 'x'}]"),
            403,
            "Invalid",
            "JSON Patch: replace operation does not apply: doc is missing key: /data/none: missing value",
        ),
        (
            patch("[JSONPatch{op: 'jump', path: '/data'}]"),
            403,
            "Invalid",
            "JSON Patch: Unexpected kind: jump",
        ),
        (
            patch("[JSONPatch{op: 'add', path: '/nothing', value: 'x'}]"),
            500,
            "InternalError",
            "strict decoding error: unknown field \"nothing\"",
        ),
        (patch("[JSONPatch{op: 'add', path: '/data', value: 'x'}]"), 500, "InternalError", "data"),
        (patch(&endless), 403, "Invalid", "operation cancelled: actual cost limit exceeded"),
    ];
    for (index, (mutation, code, reason, why)) in cases.into_iter().enumerate() {
        let name = format!("p{index}");
        let mut strict = policy(&name, &[mutation]);
        enforce(&server, &strict).await;
        let (found_code, found_reason, message) = refusal(&rest, "one").await;
        assert_eq!((found_code, found_reason.as_str()), (code, reason), "{message}");
        assert!(message.contains(why), "{message}");
        if code == 403 {
            let start = format!("policy '{name}' with binding '{name}-b' denied request: ");
            assert!(message.starts_with(&start), "{message}");
        }
        remove(&server, &name).await;
        if code == 403 {
            strict["spec"]["failurePolicy"] = "Ignore".into();
            enforce(&server, &strict).await;
            create(&rest, &format!("ignored-{index}")).await;
            remove(&server, &name).await;
        }
    }
    // A condition that fails denies, too; one that does not hold does nothing.
    let label = apply("Object{metadata: Object.metadata{labels: {'x': 'y'}}}");
    for (condition, denied) in [("object.data.none == ''", true), ("object.data.a == 'c'", false)] {
        let mut conditional = policy("conditional", std::slice::from_ref(&label));
        conditional["spec"]["matchConditions"] = json!([{"name": "c", "expression": condition}]);
        enforce(&server, &conditional).await;
        if denied {
            let (code, _, message) = refusal(&rest, "c").await;
            assert_eq!(code, 403);
            assert!(message.ends_with("no such key: none"), "{message}");
        } else {
            assert_eq!(create(&rest, "c").await["metadata"]["labels"], Value::Null);
        }
        remove(&server, "conditional").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn names_and_uids_stay_as_they_are() {
    let server = Server::start().await;
    let rest = server.admin();
    let own = create(&rest, "there").await;
    enforce(&server, &policy("uid", &[apply("Object{metadata: Object.metadata{uid: 'forged'}}")]))
        .await;
    let made = create(&rest, "new").await;
    assert_ne!(made["metadata"]["uid"], "forged");
    let answer = rest.patch(&format!("{MAPS}/there"), "merge", &json!({"data": {"c": "d"}})).await;
    assert_ne!(answer.code, 200, "{}", answer.text);
    let read = rest.get(&format!("{MAPS}/there")).await.expect(200);
    assert_eq!(read["metadata"]["uid"], own["metadata"]["uid"]);
    remove(&server, "uid").await;
    enforce(&server, &policy("name", &[apply("Object{metadata: Object.metadata{name: 'other'}}")]))
        .await;
    let answer = rest.patch(&format!("{MAPS}/there"), "merge", &json!({"data": {"c": "d"}})).await;
    assert_ne!(answer.code, 200, "{}", answer.text);
    rest.get(&format!("{MAPS}/there")).await.expect(200);
    rest.get(&format!("{MAPS}/other")).await.expect(404);
    server.stop().await;
}

#[tokio::test]
async fn policies_are_evaluated_with_parameters() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut labels = policy(
        "labels",
        &[apply(
            "Object{metadata: Object.metadata{labels: params == null ? {'none': ''} : params.data}}",
        )],
    );
    labels["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    labels["spec"]["matchConditions"] =
        json!([{"name": "other", "expression": "object.metadata.name != 'labels'"}]);
    let reference = |action: &str| json!({"name": "labels", "parameterNotFoundAction": action});
    enforce_with(&server, &labels, reference("Deny")).await;
    let (code, reason, message) = refusal(&rest, "one").await;
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "policy 'labels' with binding 'labels-b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    );
    remove(&server, "labels").await;
    enforce_with(&server, &labels, reference("Allow")).await;
    assert_eq!(create(&rest, "one").await["metadata"]["labels"], Value::Null);
    rest.post(MAPS, &map("labels", &json!({"team": "blue"}))).await.expect(201);
    server.core().cache.fresh().await.unwrap();
    assert_eq!(create(&rest, "two").await["metadata"]["labels"], json!({"team": "blue"}));
    remove(&server, "labels").await;
    enforce(&server, &labels).await;
    assert_eq!(create(&rest, "three").await["metadata"]["labels"], json!({"none": ""}));
    // Whoever writes a policy must be able to read its parameters.
    let bob = server.rest_as("bob", &["writers"]);
    let grant = json!({"metadata": {"name": "w"}, "rules": [{"apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["*"], "verbs": ["*"]}]});
    rest.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &grant).await.expect(201);
    let bound = json!({"metadata": {"name": "w"}, "roleRef": {"kind": "ClusterRole", "name": "w",
        "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "Group", "name": "writers", "apiGroup": "rbac.authorization.k8s.io"}]});
    rest.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &bound).await.expect(201);
    server.core().cache.fresh().await.unwrap();
    labels["metadata"]["name"] = "bobs".into();
    let refused = bob.post(POLICIES, &labels).await.expect(422);
    assert!(found(&refused).contains("user bob must have \"get\" permission"), "{refused}");
    let binding = json!({"metadata": {"name": "bobs"}, "spec": {"policyName": "labels",
        "paramRef": reference("Allow")}});
    let refused = bob.post(BINDINGS, &binding).await.expect(422);
    assert!(found(&refused).starts_with("spec.paramRef: Forbidden"), "{refused}");
    server.stop().await;
}

/// Policies come before webhooks, in the order of their names, and run again when something else has
/// changed the object, if they say so.
#[tokio::test]
async fn policies_run_again_after_others() {
    let server = Server::start().await;
    let rest = server.admin();
    let webhook = Webhook::start("127.0.0.1", &["127.0.0.1"], |review| {
        let seen = &review["request"]["object"]["data"]["policies"];
        let patch = json!([{"op": "add", "path": "/data/seen", "value": seen}]).to_string();
        Reply::Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], "allowed": true,
                "patchType": "JSONPatch", "patch": BASE64.encode(patch)}}))
    })
    .await
    .unwrap();
    let append = |name: &str| {
        patch(&format!(
            "[JSONPatch{{op: 'add', path: '/data/policies', value: (has(object.data.policies) ? object.data.policies : '') + '{name}'}}]"
        ))
    };
    let mut again = policy("a-again", &[append("a")]);
    again["spec"]["reinvocationPolicy"] = "IfNeeded".into();
    enforce(&server, &again).await;
    enforce(&server, &policy("b-once", &[append("b")])).await;
    let hook = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "w.example.com",
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": webhook.client_config(), "rules": [{"operations": ["CREATE"],
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]});
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    rest.post(path, &hook).await.expect(201);
    let in_force = async {
        while server.core().admission.webhooks.names().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(super::IN_FORCE, in_force).await.unwrap();
    let made = create(&rest, "one").await;
    assert_eq!(made["data"]["policies"], "aba");
    // The webhook has seen what the policies had done before it.
    assert_eq!(made["data"]["seen"], "ab");
    server.stop().await;
}

/// Wrong policies and bindings, and the errors that they lead to.
#[tokio::test]
async fn wrong_policies_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    let good = || vec![apply("Object{}")];
    let with = |name: &str, value: Value| {
        let mut policy = policy("p", &good());
        policy["spec"][name] = value;
        policy
    };
    let of = |mutation: Value| policy("p", &[mutation]);
    let cases: Vec<(Value, &str)> = vec![
        (
            policy("p", &[]),
            "spec.mutations: Required value: mutations must contain at least one item",
        ),
        (
            with("failurePolicy", "Maybe".into()),
            "spec.failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
        ),
        (with("reinvocationPolicy", Value::Null), "spec.reinvocationPolicy: Required value"),
        (
            with("reinvocationPolicy", "Often".into()),
            "spec.reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\"",
        ),
        (with("matchConstraints", Value::Null), "spec.matchConstraints: Required value"),
        (
            with(
                "matchConstraints",
                json!({"resourceRules": [{"operations": ["DELETE"],
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}),
            ),
            "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
        ),
        (
            of(json!({"applyConfiguration": {"expression": "Object{}"}})),
            "spec.mutations[0].patchType: Required value",
        ),
        (
            of(json!({"patchType": "Other"})),
            "spec.mutations[0].patchType: Unsupported value: \"Other\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
        ),
        (
            of(json!({"patchType": "JSONPatch"})),
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        ),
        (
            of(
                json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"},
                "jsonPatch": {"expression": "x"}}),
            ),
            "spec.mutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
        ),
        (of(apply(" ")), "spec.mutations[0].applyConfiguration.expression: Required value"),
        (
            of(apply("Object{")),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object{\": compilation failed: ERROR: <input>",
        ),
        (
            of(apply("'teapot'")),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"'teapot'\": must evaluate to Object but got string",
        ),
        (
            of(apply("Object.spec{}")),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object.spec{}\": must evaluate to Object but got Object.spec",
        ),
        (
            of(apply("Other{}")),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Other{}\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'Other' (in container '')",
        ),
        (
            of(patch("[]")),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"[]\": must evaluate to list(JSONPatch) but got list(dyn)",
        ),
        (
            of(patch("JSONPatch{}")),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"JSONPatch{}\": must evaluate to list(JSONPatch) but got JSONPatch",
        ),
        (
            of(patch("[JSONPatch{what: 1}]")),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"[JSONPatch{what: 1}]\": compilation failed: ERROR: <input>:1:12: undefined field 'what'",
        ),
        (
            of(patch("[JSONPatch{op: 1}]")),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"[JSONPatch{op: 1}]\": compilation failed: ERROR: <input>:1:12: expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        (
            with("variables", json!([{"name": "x", "expression": "Object{}"}])),
            "spec.variables[0].expression: Invalid value: \"Object{}\": compilation failed",
        ),
        (
            with(
                "matchConditions",
                json!([{"name": "x", "expression": "jsonpatch.escapeKey('') == ''"}]),
            ),
            "spec.matchConditions[0].expression: Invalid value: \"jsonpatch.escapeKey('') == ''\": compilation failed",
        ),
        (with("paramKind", json!({"apiVersion": "v1"})), "spec.paramKind.kind: Required value"),
    ];
    for (policy, expected) in cases {
        let refused = rest.post(POLICIES, &policy).await.expect(422);
        assert!(found(&refused).starts_with(expected), "{}\n{expected}", found(&refused));
    }
    for (spec, expected) in [
        (json!({}), "spec.policyName: Required value"),
        (json!({"policyName": "A"}), "spec.policyName: Invalid value: \"A\""),
        (
            json!({"policyName": "p", "paramRef": {"parameterNotFoundAction": "Deny"}}),
            "spec.paramRef: Required value: one of name or selector must be specified",
        ),
        (
            json!({"policyName": "p", "matchResources": {"resourceRules": [{"operations": ["DELETE"],
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}}),
            "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\"",
        ),
    ] {
        let binding = json!({"metadata": {"name": "b"}, "spec": spec});
        let refused = rest.post(BINDINGS, &binding).await.expect(422);
        assert!(found(&refused).starts_with(expected), "{}\n{expected}", found(&refused));
    }
    let made = rest.post(POLICIES, &policy("good", &good())).await.expect(201);
    assert_eq!(
        (&made["spec"]["failurePolicy"], &made["metadata"]["generation"]),
        (&"Fail".into(), &1.into())
    );
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = rest.ask("GET", POLICIES, &table, Vec::new()).await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("good"), json!(1), json!("<unset>")]
    );
    server.stop().await;
}

/// What a connection asks for is changed, too, but has no schema that could be applied.
#[tokio::test]
async fn connections_are_changed() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut exec = policy("exec", &[apply("Object{command: ['x']}")]);
    exec["spec"]["matchConstraints"] = rules("", "pods/exec");
    enforce(&server, &exec).await;
    let answer = rest.get("/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=true").await;
    let why = "error applying patch: failed to convert patch object to typed object: no corresponding type for /v1, Kind=PodExecOptions";
    assert!(answer.text.contains(why), "{}", answer.text);
    server.stop().await;
}
