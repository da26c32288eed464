//! Admission policies: what validating ones deny, and in which words.

#[path = "policies/mutating.rs"]
mod mutating;

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
/// How soon a binding is in force.
const IN_FORCE: Duration = Duration::from_secs(1);

/// A policy about ConfigMaps that are created or changed.
fn policy(name: &str, spec: &Value) -> Value {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": {
        "resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["configmaps"]}]}}});
    for (name, value) in spec.as_object().unwrap() {
        policy["spec"][name] = value.clone();
    }
    policy
}

fn binding(policy: &str, spec: &Value) -> Value {
    let mut binding = json!({"metadata": {"name": format!("{policy}-b")},
        "spec": {"policyName": policy, "validationActions": ["Deny"]}});
    for (name, value) in spec.as_object().unwrap() {
        binding["spec"][name] = value.clone();
    }
    binding
}

fn map(name: &str, data: &Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

/// Creates a policy with a binding, and waits until it is in force.
async fn enforce(server: &Server, policy: &Value, binding: &Value) {
    let rest = server.admin();
    rest.post(POLICIES, policy).await.expect(201);
    rest.post(BINDINGS, binding).await.expect(201);
    let name = binding["metadata"]["name"].as_str().unwrap();
    until(server, |names| names.iter().any(|known| known == name)).await;
}

async fn until(server: &Server, holds: impl Fn(&[String]) -> bool) {
    let waiting = async {
        while !holds(&server.core().admission.webhooks.policies.names()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(IN_FORCE, waiting).await.expect("it is in force within a second");
}

/// The message of a refusal with this code.
async fn refused(rest: &Rest, object: &Value, code: u16) -> String {
    let refused = rest.post(MAPS, object).await.expect(code);
    refused["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn requests_are_denied_in_the_words_of_the_policy() {
    let server = Server::start().await;
    let rest = server.admin();
    let validations = json!([
        {"expression": "object.data.a != 'plain'"},
        {"expression": "object.data.a != 'fixed'", "message": "not this", "reason": "Forbidden"},
        {"expression": "variables.a != 'made'", "message": "unused",
            "messageExpression": "'not ' + variables.a + ' by ' + request.userInfo.username"},
        {"expression": "object.data.a != 'empty'", "message": "fallback", "messageExpression": "' '"},
        {"expression": "request.operation == 'CREATE' || oldObject.data.a == object.data.a"},
        {"expression": "namespaceObject.metadata.name == 'default'"},
    ]);
    let variables = json!([{"name": "a", "expression": "object.data.a"}]);
    let first = policy("p", &json!({"validations": validations, "variables": variables}));
    // A policy without a binding is not in force.
    rest.post(POLICIES, &policy("q", &json!({"validations": [{"expression": "false"}]})))
        .await
        .expect(201);
    enforce(&server, &first, &binding("p", &json!({}))).await;
    let start = "ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: ";
    for (value, code, reason, why) in [
        ("plain", 422, "Invalid", "failed expression: object.data.a != 'plain'"),
        ("fixed", 403, "Forbidden", "not this"),
        ("made", 422, "Invalid", "not made by kubernetes-admin"),
        ("empty", 422, "Invalid", "fallback"),
    ] {
        let answer = rest.post(MAPS, &map("one", &json!({"a": value}))).await.expect(code);
        let text = format!("{start}{why}");
        assert_eq!(answer["message"], format!("configmaps \"one\" is forbidden: {text}"));
        assert_eq!(
            (&answer["reason"], &answer["details"]["causes"][0]["message"]),
            (&reason.into(), &text.into())
        );
    }
    rest.post(MAPS, &map("one", &json!({"a": "good"}))).await.expect(201);
    let one = format!("{MAPS}/one");
    rest.patch(&one, "merge", &json!({"data": {"b": "c"}})).await.expect(200);
    rest.patch(&one, "merge", &json!({"data": {"a": "other"}})).await.expect(422);
    // An expression without a value follows the failure policy, which is to fail.
    let error = refused(&rest, &map("two", &json!({})), 422).await;
    assert!(
        error.contains("resulted in error: no such key: data") || error.contains("no such key: a"),
        "{error}"
    );
    rest.delete(&format!("{BINDINGS}/p-b")).await.expect(200);
    until(&server, <[String]>::is_empty).await;
    rest.post(MAPS, &map("two", &json!({}))).await.expect(201);
    server.stop().await;
}

#[tokio::test]
async fn bindings_say_what_is_done() {
    let server = Server::start().await;
    let rest = server.admin();
    let never = json!({"validations": [{"expression": "false", "message": "never"}]});
    let warn = binding("warn", &json!({"validationActions": ["Warn", "Audit"]}));
    enforce(&server, &policy("warn", &never), &warn).await;
    let answer = rest.post(MAPS, &map("one", &json!({}))).await;
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().collect();
    assert_eq!(answer.code, 201);
    assert_eq!(
        warnings,
        [
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn-b': never\""
        ]
    );
    // Only where the binding matches, too, and only what is not excluded.
    let matched = json!({"matchResources": {"objectSelector": {"matchLabels": {"strict": ""}}}});
    let mut strict = policy("strict", &never);
    strict["spec"]["matchConstraints"]["excludeResourceRules"] = json!([{"operations": ["*"],
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        "resourceNames": ["free"]}]);
    strict["spec"]["matchConditions"] =
        json!([{"name": "c", "expression": "!('skip' in object.metadata.labels)"}]);
    enforce(&server, &strict, &binding("strict", &matched)).await;
    let labelled = |name: &str, labels: Value| {
        let mut map = map(name, &json!({}));
        map["metadata"]["labels"] = labels;
        map
    };
    rest.post(MAPS, &labelled("two", json!({"lax": ""}))).await.expect(201);
    rest.post(MAPS, &labelled("free", json!({"strict": ""}))).await.expect(201);
    rest.post(MAPS, &labelled("three", json!({"strict": "", "skip": ""}))).await.expect(201);
    rest.post(MAPS, &labelled("four", json!({"strict": ""}))).await.expect(422);
    let metrics = rest.get("/metrics").await.text;
    let line = "apiserver_validating_admission_policy_check_total{enforcement_action=\"deny\",error_type=\"no_error\",policy=\"strict\",policy_binding=\"strict-b\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn policies_are_evaluated_with_parameters() {
    let server = Server::start().await;
    let rest = server.admin();
    let kind = json!({"apiVersion": "v1", "kind": "Secret"});
    let rules = json!({"paramKind": kind, "validations": [
        {"expression": "params == null || int(object.data.n) <= int(string(base64.decode(params.data.max)))",
            "messageExpression": "'at most ' + params.metadata.name"}]});
    let refused_function = rest.post(POLICIES, &policy("base64", &rules)).await.expect(422);
    assert!(refused_function.to_string().contains("undeclared reference"), "{refused_function}");
    let kind = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let mut limited = policy(
        "limits",
        &json!({"paramKind": kind, "validations": [
        {"expression": "params == null || int(object.data.n) <= int(params.data.max)",
            "messageExpression": "'at most ' + string(params.data.max)"}]}),
    );
    limited["spec"]["matchConditions"] = json!([{"name": "n", "expression": "has(object.data.n)"}]);
    // The limits themselves are not limited.
    limited["spec"]["matchConstraints"]["excludeResourceRules"] = json!([{"operations": ["*"],
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        "resourceNames": ["limit-3", "limit-5"]}]);
    let by_label = json!({"selector": {"matchLabels": {"limit": ""}},
        "parameterNotFoundAction": "Deny"});
    enforce(&server, &limited, &binding("limits", &json!({"paramRef": by_label}))).await;
    let missing = refused(&rest, &map("one", &json!({"n": "1"})), 422).await;
    let expected = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(missing.ends_with(expected), "{missing}");
    for max in ["5", "3"] {
        let mut limit = map(&format!("limit-{max}"), &json!({"max": max}));
        limit["metadata"]["labels"] = json!({"limit": ""});
        rest.post(MAPS, &limit).await.expect(201);
    }
    server.core().cache.fresh().await.unwrap();
    rest.post(MAPS, &map("three", &json!({"n": "3"}))).await.expect(201);
    let four = refused(&rest, &map("four", &json!({"n": "4"})), 422).await;
    assert!(four.ends_with("denied request: at most 3"), "{four}");
    // Whoever binds a policy has to be able to read its parameters.
    let bob = server.rest_as("bob", &["writers"]);
    let grant = json!({"metadata": {"name": "w"}, "rules": [{"apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["*"], "verbs": ["*"]}]});
    rest.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &grant).await.expect(201);
    let bound = json!({"metadata": {"name": "w"}, "roleRef": {"kind": "ClusterRole", "name": "w",
        "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "Group", "name": "writers", "apiGroup": "rbac.authorization.k8s.io"}]});
    rest.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &bound).await.expect(201);
    server.core().cache.fresh().await.unwrap();
    limited["metadata"]["name"] = "bobs".into();
    let refused = bob.post(POLICIES, &limited).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("user bob must have \"get\" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)"), "{refused}");
    let mut other =
        binding("limits", &json!({"paramRef": {"name": "n", "parameterNotFoundAction": "Allow"}}));
    other["metadata"]["name"] = "bobs".into();
    bob.post(BINDINGS, &other).await.expect(422);
    rest.post(BINDINGS, &other).await.expect(201);
    server.stop().await;
}

#[tokio::test]
async fn failures_follow_the_policy() {
    let server = Server::start().await;
    let rest = server.admin();
    for (name, failure, code) in [("lax", "Ignore", 201), ("strict", "Fail", 422)] {
        let rules = json!({"failurePolicy": failure,
            "validations": [{"expression": "object.data.missing == ''"}]});
        enforce(&server, &policy(name, &rules), &binding(name, &json!({}))).await;
        let answer = rest.post(MAPS, &map(name, &json!({"a": "b"}))).await;
        assert_eq!(answer.code, code, "{}", answer.text);
    }
    for name in ["lax", "strict"] {
        rest.delete(&format!("{POLICIES}/{name}")).await.expect(200);
    }
    until(&server, <[String]>::is_empty).await;
    // Policies are about connections and deletions, too, and never about reviews or themselves.
    let all = json!({"resourceRules": [{"operations": ["DELETE", "CONNECT", "UPDATE", "CREATE"],
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    let rules = json!({"matchConstraints": all,
        "validations": [{"expression": "request.operation == 'CREATE' && request.resource.resource == 'secrets'"}]});
    enforce(&server, &policy("all", &rules), &binding("all", &json!({}))).await;
    rest.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}}))
        .await
        .expect(201);
    rest.delete("/api/v1/namespaces/default/secrets/s").await.expect(422);
    let exec = rest.get("/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=true").await;
    assert!(exec.text.contains("denied request: failed expression"), "{}", exec.text);
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    rest.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await.expect(201);
    rest.delete(&format!("{BINDINGS}/all-b")).await.expect(200);
    server.stop().await;
}

/// An expression that would take for ever ends, and so do many that cost much together.
#[tokio::test]
async fn policies_that_never_end_are_stopped() {
    let server = Server::start().await;
    let rest = server.admin();
    let digits = "[1,2,3,4,5,6,7,8,9,0]";
    let nested =
        (0..8).fold("true".to_owned(), |inner, depth| format!("{digits}.all(v{depth}, {inner})"));
    let rules = json!({"validations": [{"expression": nested}]});
    enforce(&server, &policy("loop", &rules), &binding("loop", &json!({}))).await;
    let why = refused(&rest, &map("one", &json!({})), 422).await;
    assert!(why.ends_with("operation cancelled: actual cost limit exceeded"), "{why}");
    rest.delete(&format!("{BINDINGS}/loop-b")).await.expect(200);
    until(&server, <[String]>::is_empty).await;
    // Each of these costs less than one may, and all of them more than a policy may.
    let costly = "authorizer.requestResource.check('get').allowed() && authorizer.requestResource.check('list').allowed()";
    let many: Vec<_> = (0..20).map(|_| json!({"expression": costly})).collect();
    let rules = json!({"validations": many});
    enforce(&server, &policy("many", &rules), &binding("many", &json!({}))).await;
    let why = refused(&rest, &map("one", &json!({})), 422).await;
    assert!(why.contains("running out of cost budget"), "{why}");
    rest.get(&format!("{MAPS}/one")).await.expect(404);
    server.stop().await;
}

/// Wrong policies and bindings, and the errors that they lead to.
#[tokio::test]
async fn wrong_policies_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    let validation = |members: Value| {
        let mut validation = json!({"expression": "true"});
        for (name, value) in members.as_object().unwrap() {
            validation[name] = value.clone();
        }
        json!({"validations": [validation]})
    };
    let with = |name: &str, value: Value| {
        let mut spec = validation(json!({}));
        spec[name] = value;
        spec
    };
    let cases: Vec<(Value, &str)> = vec![
        (
            json!({}),
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
        ),
        (
            with("failurePolicy", "Maybe".into()),
            "spec.failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
        ),
        (with("matchConstraints", Value::Null), "spec.matchConstraints: Required value"),
        (
            with("matchConstraints", json!({})),
            "spec.matchConstraints.resourceRules: Required value",
        ),
        (
            with(
                "matchConstraints",
                json!({"resourceRules": [{"operations": ["GET"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}),
            ),
            "spec.matchConstraints.resourceRules[0].operations[0]: Unsupported value: \"GET\"",
        ),
        (
            with(
                "matchConstraints",
                json!({"resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "resourceNames": ["a", "a"]}]}),
            ),
            "spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
        ),
        (
            with("paramKind", json!({"apiVersion": "a/b/c", "kind": "K"})),
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
        ),
        (with("paramKind", json!({"apiVersion": "v1"})), "spec.paramKind.kind: Required value"),
        (
            with("paramKind", json!({"apiVersion": "v1", "kind": "a b"})),
            "spec.paramKind.kind: Invalid value: \"a b\": may have mixed case, but should otherwise match: a DNS-1035 label",
        ),
        (
            with("variables", json!([{"name": "a b", "expression": "1"}])),
            "spec.variables[0].name: Invalid value: \"a b\": name is not a valid CEL identifier",
        ),
        (
            with("variables", json!([{"name": "in", "expression": "1"}])),
            "spec.variables[0].name: Invalid value: \"in\": name is not a valid CEL identifier",
        ),
        (
            with("variables", json!([{"name": "a", "expression": ""}])),
            "spec.variables[0].expression: Required value: expression is not specified",
        ),
        (
            with(
                "variables",
                json!([{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]),
            ),
            "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed",
        ),
        (
            validation(json!({"expression": " "})),
            "spec.validations[0].expression: Required value: expression is not specified",
        ),
        (
            validation(json!({"expression": "1"})),
            "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
        ),
        (
            validation(json!({"expression": "params.x"})),
            "spec.validations[0].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
        ),
        (
            validation(json!({"messageExpression": " "})),
            "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
        ),
        (
            validation(json!({"messageExpression": "1"})),
            "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
        ),
        (
            validation(json!({"message": " "})),
            "spec.validations[0].message: Invalid value: \" \": message must be non-empty if specified",
        ),
        (
            validation(json!({"message": "a\nb"})),
            "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
        ),
        (
            validation(json!({"reason": "Because"})),
            "spec.validations[0].reason: Unsupported value: \"Because\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
        ),
        (
            json!({"auditAnnotations": [{"key": "a b", "valueExpression": "'x'"}]}),
            "spec.auditAnnotations[0].key: Invalid value: \"p/a b\": name part must consist of",
        ),
        (
            json!({"auditAnnotations": [{"key": "a", "valueExpression": "1"}]}),
            "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
        ),
        (
            json!({"auditAnnotations": [{"key": "a", "valueExpression": ""}]}),
            "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
        ),
    ];
    for (spec, expected) in cases {
        let refused = rest.post(POLICIES, &policy("p", &spec)).await.expect(422);
        assert!(found(&refused).starts_with(expected), "{}\n{expected}", found(&refused));
    }
    for (spec, expected) in [
        (json!({"policyName": ""}), "spec.policyName: Required value"),
        (
            json!({"policyName": "A"}),
            "spec.policyName: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
        ),
        (
            json!({"validationActions": []}),
            "spec.validationActions: Required value: at least one validation action is required",
        ),
        (
            json!({"validationActions": ["Deny", "Warn"]}),
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn",
        ),
        (
            json!({"validationActions": ["Shout"]}),
            "spec.validationActions[0]: Unsupported value: \"Shout\": supported values: \"Audit\", \"Deny\", \"Warn\"",
        ),
        (
            json!({"paramRef": {"parameterNotFoundAction": "Deny"}}),
            "spec.paramRef: Required value: one of name or selector must be specified",
        ),
        (
            json!({"paramRef": {"name": "n"}}),
            "spec.paramRef.parameterNotFoundAction: Required value",
        ),
        (
            json!({"paramRef": {"name": "n", "selector": {}, "parameterNotFoundAction": "Deny"}}),
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
        ),
        (
            json!({"matchResources": {"matchPolicy": "Some"}}),
            "spec.matchResouces.matchPolicy: Unsupported value: \"Some\"",
        ),
    ] {
        let refused = rest.post(BINDINGS, &binding("p", &spec)).await.expect(422);
        assert!(found(&refused).starts_with(expected), "{}\n{expected}", found(&refused));
    }
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    rest.post(POLICIES, &policy("good", &validation(json!({})))).await.expect(201);
    let table = rest.ask("GET", POLICIES, &table, Vec::new()).await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("good"), json!(1), json!("<unset>")]
    );
    server.stop().await;
}

/// The first cause of a refusal.
fn found(refused: &Value) -> String {
    let cause = &refused["details"]["causes"][0];
    let text = |name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", text("field"), text("message"))
}
