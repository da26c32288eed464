//! Configurations that are refused, and what they are completed by.

use serde_json::{Value, json};

use super::{REGISTRATION, Set, allow, rule};

/// A webhook with other members.
fn with(set: &Set, members: &Value) -> Value {
    let mut hook = set.hook("a");
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => {
                hook.as_object_mut().unwrap().remove(name);
            }
            value => hook[name] = value.clone(),
        }
    }
    hook
}

fn rules(members: &Value) -> Value {
    let mut rule = rule(&["CREATE"], "", "v1", &["pods"]);
    for (name, value) in members.as_object().unwrap() {
        rule[name] = value.clone();
    }
    json!({"rules": [rule]})
}

/// Changes of a good webhook, and the errors that they lead to.
fn table() -> Vec<(Value, Vec<&'static str>)> {
    let client = |client: Value| json!({"clientConfig": client});
    let service = |members: Value| {
        let mut service = json!({"namespace": "n", "name": "s"});
        for (name, value) in members.as_object().unwrap() {
            service[name] = value.clone();
        }
        json!({"clientConfig": {"service": service}})
    };
    let condition = |name: &str, expression: &str| json!({"matchConditions": [{"name": name, "expression": expression}]});
    vec![
        (json!({"name": ""}), vec!["webhooks[0].name: Required value"]),
        (
            json!({"name": "a.b"}),
            vec![
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ],
        ),
        (
            json!({"name": "A.b.c"}),
            vec!["webhooks[0].name: Invalid value: \"A.b.c\": a lowercase RFC 1123 subdomain"],
        ),
        (
            json!({"sideEffects": "Some"}),
            vec![
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ],
        ),
        (
            json!({"sideEffects": null}),
            vec!["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        ),
        (
            json!({"failurePolicy": "Maybe"}),
            vec![
                "webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
            ],
        ),
        (
            json!({"matchPolicy": "Some"}),
            vec![
                "webhooks[0].matchPolicy: Unsupported value: \"Some\": supported values: \"Equivalent\", \"Exact\"",
            ],
        ),
        (
            json!({"reinvocationPolicy": "Always"}),
            vec![
                "webhooks[0].reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\"",
            ],
        ),
        (
            json!({"timeoutSeconds": 0}),
            vec![
                "webhooks[0].timeoutSeconds: Invalid value: 0: the timeout value must be between 1 and 30 seconds",
            ],
        ),
        (
            json!({"timeoutSeconds": 31}),
            vec![
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ],
        ),
        (
            json!({"admissionReviewVersions": []}),
            vec![
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            ],
        ),
        (
            json!({"admissionReviewVersions": ["v1", "v1"]}),
            vec![
                "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version",
            ],
        ),
        (
            json!({"admissionReviewVersions": ["v9"]}),
            vec![
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ],
        ),
        (
            json!({"admissionReviewVersions": ["1", "v1"]}),
            vec!["webhooks[0].admissionReviewVersions[0]: Invalid value: \"1\": a DNS-1035 label"],
        ),
        (
            rules(&json!({"operations": []})),
            vec!["webhooks[0].rules[0].operations: Required value"],
        ),
        (
            rules(&json!({"operations": ["*", "CREATE"]})),
            vec![
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ],
        ),
        (
            rules(&json!({"operations": ["GET"]})),
            vec![
                "webhooks[0].rules[0].operations[0]: Unsupported value: \"GET\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ],
        ),
        (rules(&json!({"apiGroups": []})), vec!["webhooks[0].rules[0].apiGroups: Required value"]),
        (
            rules(&json!({"apiGroups": ["*", "apps"]})),
            vec![
                "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"apps\"]: if '*' is present, must not specify other API groups",
            ],
        ),
        (
            rules(&json!({"apiVersions": [""]})),
            vec!["webhooks[0].rules[0].apiVersions[0]: Required value"],
        ),
        (
            rules(&json!({"apiVersions": ["*", "v1"]})),
            vec![
                "webhooks[0].rules[0].apiVersions: Invalid value: [\"*\",\"v1\"]: if '*' is present, must not specify other API versions",
            ],
        ),
        (rules(&json!({"resources": []})), vec!["webhooks[0].rules[0].resources: Required value"]),
        (
            rules(&json!({"resources": [""]})),
            vec!["webhooks[0].rules[0].resources[0]: Required value"],
        ),
        (
            rules(&json!({"resources": ["*/*", "pods"]})),
            vec![
                "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources",
            ],
        ),
        (
            rules(&json!({"resources": ["*", "pods"]})),
            vec![
                "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
            ],
        ),
        (
            rules(&json!({"resources": ["pods/*", "pods/log"]})),
            vec![
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ],
        ),
        (
            rules(&json!({"resources": ["*/scale", "pods/scale"]})),
            vec![
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/scale\": if '*/scale' is present, must not specify pods/scale",
            ],
        ),
        (
            rules(&json!({"scope": "Galaxy"})),
            vec![
                "webhooks[0].rules[0].scope: Unsupported value: \"Galaxy\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ],
        ),
        (
            client(json!({})),
            vec![
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ],
        ),
        (
            client(json!({"url": "https://a", "service": {"namespace": "n", "name": "s"}})),
            vec![
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ],
        ),
        (
            client(json!({"url": "http://a"})),
            vec![
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ],
        ),
        (
            client(json!({"url": "https://u@a/?q#f"})),
            vec![
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
            ],
        ),
        (
            service(json!({"name": ""})),
            vec!["webhooks[0].clientConfig.service.name: Required value"],
        ),
        (
            service(json!({"namespace": ""})),
            vec!["webhooks[0].clientConfig.service.namespace: Required value"],
        ),
        (
            service(json!({"port": 0})),
            vec![
                "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            service(json!({"path": "a"})),
            vec![
                "webhooks[0].clientConfig.service.path: Invalid value: \"a\": must start with a '/'",
            ],
        ),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            vec![
                "webhooks[0].namespaceSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
            ],
        ),
        (
            json!({"objectSelector": {"matchLabels": {"a": "b c"}}}),
            vec![
                "webhooks[0].objectSelector.matchLabels: Invalid value: \"b c\": a valid label must be",
            ],
        ),
        (condition("a", " "), vec!["webhooks[0].matchConditions[0].expression: Required value"]),
        (condition("", "true"), vec!["webhooks[0].matchConditions[0].name: Required value"]),
        (
            condition("a b", "true"),
            vec![
                "webhooks[0].matchConditions[0].name: Invalid value: \"a b\": name part must consist of",
            ],
        ),
        (
            condition("a", "1"),
            vec![
                "webhooks[0].matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
            ],
        ),
        (
            condition("a", "params.x"),
            vec![
                "webhooks[0].matchConditions[0].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
            ],
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
            vec!["webhooks[0].matchConditions[1].name: Duplicate value: \"a\""],
        ),
    ]
}

#[tokio::test]
async fn wrong_configurations_are_refused() {
    let set = Set::start(allow).await;
    for kind in ["mutating", "validating"] {
        let path = format!("{REGISTRATION}/{kind}webhookconfigurations");
        let refused = async |hooks: &[Value]| -> Vec<String> {
            let body = json!({"metadata": {"name": "c"}, "webhooks": hooks});
            let refused = set.rest.post(&path, &body).await.expect(422);
            let causes = refused["details"]["causes"].as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            causes
                .map(|cause| format!("{}: {}", text(&cause["field"]), text(&cause["message"])))
                .collect()
        };
        for (members, expected) in table() {
            if kind == "validating" && members.get("reinvocationPolicy").is_some() {
                continue;
            }
            let found = refused(&[with(&set, &members)]).await;
            assert_eq!(found.len(), expected.len(), "{members}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{members}:\n{found}\n{expected}");
            }
        }
        let hook = set.hook("a");
        let twice = refused(&[hook.clone(), hook.clone()]).await;
        assert_eq!(twice, ["webhooks[1].name: Duplicate value: \"a.example.com\""]);
        let conditions: Vec<_> =
            (0..65).map(|n| json!({"name": format!("n{n}"), "expression": "true"})).collect();
        let many = refused(&[with(&set, &json!({"matchConditions": conditions}))]).await;
        assert_eq!(many, ["webhooks[0].matchConditions: Too many: 65: must have at most 64 items"]);
    }
    set.server.stop().await;
}

#[tokio::test]
async fn configurations_are_completed_and_counted() {
    let set = Set::start(allow).await;
    let path = format!("{REGISTRATION}/mutatingwebhookconfigurations");
    let mut hook = set.hook("a");
    hook["clientConfig"] = json!({"service": {"namespace": "n", "name": "s"}});
    let body = json!({"metadata": {"name": "c"}, "webhooks": [hook]});
    let made = set.rest.post(&path, &body).await.expect(201);
    let hook = &made["webhooks"][0];
    for (pointer, expected) in [
        ("/failurePolicy", json!("Fail")),
        ("/matchPolicy", json!("Equivalent")),
        ("/namespaceSelector", json!({})),
        ("/objectSelector", json!({})),
        ("/timeoutSeconds", json!(10)),
        ("/reinvocationPolicy", json!("Never")),
        ("/rules/0/scope", json!("*")),
        ("/clientConfig/service/port", json!(443)),
    ] {
        assert_eq!(hook.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert_eq!(made["metadata"]["generation"], 1);
    let one = format!("{path}/c");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let labelled = set.rest.patch(&one, "merge", &labelled).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let slower = json!([{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 20}]);
    let slower = set.rest.patch(&one, "json", &slower).await.expect(200);
    assert_eq!(slower["metadata"]["generation"], 2);
    // A strategic patch merges webhooks by their names.
    let merged = json!({"webhooks": [{"name": "a.example.com", "timeoutSeconds": 5}]});
    let merged = set.rest.patch(&one, "strategic-merge", &merged).await.expect(200);
    assert_eq!(merged["webhooks"][0]["timeoutSeconds"], 5);
    assert_eq!(merged["webhooks"][0]["sideEffects"], "None");
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = set.rest.ask("GET", &path, &table, Vec::new()).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let names: Vec<_> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Webhooks", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 1);
    let mut unconditional = body.clone();
    unconditional["webhooks"] = json!([]);
    set.rest.send("PUT", &one, &unconditional).await.expect(422);
    set.server.stop().await;
}
