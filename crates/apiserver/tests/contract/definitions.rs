//! Definitions that ask too much, or too much at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::custom::{DEFINITIONS, WIDGETS, define, definition, widget};
use crate::server::{Rest, Server};
use crate::shared::Pair;

const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";

/// A definition with one more field, of this schema.
fn with(field: Value) -> Value {
    let mut definition = definition();
    definition["spec"]["versions"].as_array_mut().unwrap().truncate(1);
    definition.pointer_mut(SPEC).unwrap()["field"] = field;
    definition
}

/// The time of a request that has nothing to do with it.
async fn others(rest: &Rest) -> Duration {
    let start = clock::instant();
    let config = json!({"metadata": {"generateName": "other-"}});
    rest.post("/api/v1/namespaces/default/configmaps", &config).await.expect(201);
    start.elapsed()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}}),
    )
}

#[tokio::test]
async fn large_and_deep_schemas_get_an_answer() {
    let server = Server::start().await;
    let rest = server.admin();
    let text = "x".repeat(1 << 10);
    let many: serde_json::Map<_, _> = (0..1_000)
        .map(|field| (format!("f{field}"), json!({"type": "string", "description": text})))
        .collect();
    let name = format!("{DEFINITIONS}/widgets.example.com");
    let cases = [
        ("1 MB", json!({"type": "object", "properties": many}), 201),
        ("20 deep", nested(20), 201),
        ("deeper than JSON may be", nested(100), 400),
        (
            "beyond the largest request",
            json!({"type": "string", "description": "x".repeat(4 << 20)}),
            413,
        ),
    ];
    for (what, field, code) in cases {
        let made = rest.post(DEFINITIONS, &with(field)).await;
        assert_eq!(made.code, code, "{what}: {:.300}", made.text);
        others(&rest).await;
        if code == 201 {
            let until = clock::instant() + Duration::from_secs(20);
            while rest.post(WIDGETS, &widget("a", json!({"size": 3}))).await.code != 201 {
                assert!(clock::instant() < until, "{what} is not served");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            rest.delete(&name).await.expect(200);
            while rest.get(&name).await.code != 404 {
                assert!(clock::instant() < until, "{what} is not deleted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    server.stop().await;
}

/// Patterns that make others backtrack, and rules that never end, cost what they are allowed.
#[tokio::test]
async fn costly_patterns_and_rules_do_not_stop_the_server() {
    let server = Server::start().await;
    let rest = server.admin();
    let forever = "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d != -1))))";
    let list = |rule: &str| {
        with(json!({"type": "object", "properties": {
            "pattern": {"type": "string", "pattern": "^(a+)+$"},
            "list": {"type": "array", "maxItems": 1_100, "items": {"type": "integer"},
                "x-kubernetes-validations": [{"rule": rule, "message": "long"}]}}}))
    };
    let refused = rest.post(DEFINITIONS, &list(forever)).await.expect(422);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(
        text.contains("estimated rule cost exceeds budget by factor of more than 100x"),
        "{text}"
    );
    // It may be written, but is stopped.
    define(&rest, &list("self.all(a, self.all(b, a + b != -1))")).await;
    let evil = format!("{}!", "a".repeat(100_000));
    let list: Vec<_> = (0..1_100).collect();
    for (field, expected) in
        [(json!({"pattern": evil}), "should match '^(a+)+$'"), (json!({"list": list}), "cost")]
    {
        let object = widget("a", json!({"size": 3, "field": field}));
        let asked = tokio::spawn({
            let rest = rest.clone();
            async move { rest.post(WIDGETS, &object).await }
        });
        others(&rest).await;
        let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap().unwrap();
        assert_eq!(answer.code, 422, "{:.300}", answer.text);
        assert!(answer.text.contains(expected), "{:.300}", answer.text);
    }
    server.stop().await;
}

/// What is built in stays as it is, whatever a definition says.
#[tokio::test]
async fn a_definition_takes_no_built_in_kind() {
    let server = Server::start().await;
    let rest = server.admin();
    let over = |group: &str, plural: &str, kind: &str| {
        let mut over = definition();
        over["metadata"] = json!({"name": format!("{plural}.{group}"), "annotations":
            {"api-approved.kubernetes.io": "https://example.com/approved"}});
        over["spec"]["group"] = group.into();
        over["spec"]["names"] =
            json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind});
        over
    };
    let refused = rest.post(DEFINITIONS, &over("apps", "deployments", "Deployment")).await;
    let text = refused.expect(422)["message"].as_str().unwrap().to_owned();
    assert!(text.contains("should be a domain with at least one dot"), "{text}");
    rest.post(DEFINITIONS, &over("networking.k8s.io", "ingresses", "Ingress")).await.expect(201);
    let class = json!({"metadata": {"name": "c"}, "spec": {"controller": "example.com/c"}});
    rest.post("/apis/networking.k8s.io/v1/ingressclasses", &class).await.expect(201);
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"size": 3}});
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses?fieldValidation=Strict";
    let refused = rest.post(path, &ingress).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("unknown field \"spec.size\""));
    server.stop().await;
}

/// Of definitions that want one name at the same moment, through two servers, one gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_definitions_gets_a_name() {
    let pair = Pair::start(&[]).await;
    let servers = [pair.first.admin(), pair.second.admin()];
    let wants = |plural: &str| {
        let mut wants = definition();
        wants["metadata"]["name"] = format!("{plural}.example.com").into();
        wants["spec"]["names"] = json!({"plural": plural, "singular": plural, "kind": "Widget"});
        wants
    };
    for round in 0..20 {
        let plurals = [format!("ones{round}"), format!("others{round}")];
        let made = [wants(&plurals[0]), wants(&plurals[1])];
        let (one, other) = tokio::join!(
            servers[0].post(DEFINITIONS, &made[0]),
            servers[1].post(DEFINITIONS, &made[1])
        );
        one.expect(201);
        other.expect(201);
        let until = clock::instant() + Duration::from_secs(20);
        let settled = loop {
            let mut accepted = Vec::new();
            for plural in &plurals {
                let found = servers[0].get(&format!("{DEFINITIONS}/{plural}.example.com")).await;
                let found = found.expect(200);
                let conditions = found["status"]["conditions"].as_array().cloned();
                let all = conditions.unwrap_or_default();
                let named = all.iter().find(|condition| condition["type"] == "NamesAccepted");
                accepted.extend(named.map(|condition| condition["status"] == "True"));
            }
            if accepted.len() == 2 {
                break accepted;
            }
            assert!(clock::instant() < until, "they are not settled");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(settled[0] != settled[1], "{settled:?}");
        for server in &servers {
            for plural in &plurals {
                server.delete(&format!("{DEFINITIONS}/{plural}.example.com")).await;
            }
        }
        for plural in &plurals {
            while servers[0].get(&format!("{DEFINITIONS}/{plural}.example.com")).await.code != 404 {
                assert!(clock::instant() < until, "{plural} is not deleted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    pair.stop().await;
}

/// JSON that nests deeper than it may is refused in every form, as Go refuses what is deeper than its
/// own limit; what nests less is kept.
#[tokio::test]
async fn objects_nest_as_deep_as_json_may() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &with(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})))
        .await;
    rest.post(WIDGETS, &widget("there", json!({"size": 1}))).await.expect(201);
    let there = format!("{WIDGETS}/there");
    let body = |depth: usize| {
        let field = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        format!(
            r#"{{"apiVersion":"example.com/v1","kind":"Widget","metadata":{{"name":"NAME"}},"spec":{{"size":2,"field":{field}}}}}"#
        )
    };
    let patch = |depth: usize| {
        let value = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        format!(r#"[{{"op":"add","path":"/spec/field","value":{value}}}]"#)
    };
    let apply = format!("{there}?fieldManager=me&force=true");
    for (depth, fits) in [(1, true), (100, true), (130, false), (9_990, false), (250_000, false)] {
        let named = |name: &str| body(depth).replace("NAME", name);
        let cases = [
            ("POST", WIDGETS, "application/json", named(&format!("deep{depth}"))),
            ("POST", WIDGETS, "application/yaml", named(&format!("yaml{depth}"))),
            ("PATCH", &there, "application/merge-patch+json", named("there")),
            ("PATCH", &there, "application/json-patch+json", patch(depth)),
            ("PATCH", &apply, "application/apply-patch+yaml", named("there")),
        ];
        for (method, path, kind, body) in cases {
            let headers = [("content-type", kind)];
            let answer = rest.ask(method, path, &headers, body.into_bytes()).await;
            let what = format!("{method} {kind}, {depth} deep: {:.300}", answer.text);
            assert_eq!(answer.code < 300, fits, "{what}");
            assert!(fits || matches!(answer.code, 400 | 413 | 422), "{what}");
        }
    }
    let found = rest.get(&there).await.expect(200);
    let mut at = &found["spec"]["field"];
    for _ in 0..100 {
        at = &at["a"];
    }
    assert_eq!(*at, 1);
    server.stop().await;
}
