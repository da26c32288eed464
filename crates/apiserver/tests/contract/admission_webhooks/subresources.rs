//! Subresources, connections and reviews.

use serde_json::{Value, json};

use super::{Set, allow, deny, patch, rule};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i"}]}})
}

async fn start(rules: Value) -> Set {
    let set = Set::start(allow).await;
    set.server.default_account("default").await;
    let mut hook = set.hook("sub");
    hook["rules"] = rules;
    set.validating("v", &[hook]).await;
    set
}

/// What of a review matters here.
fn summary(review: &Value) -> [String; 6] {
    let request = &review["request"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    [
        text(&request["operation"]),
        text(&request["resource"]["resource"]),
        text(&request["subResource"]),
        text(&request["kind"]["kind"]),
        text(&request["object"]["kind"]),
        text(&request["name"]),
    ]
}

#[tokio::test]
async fn subresources_have_objects_of_their_own() {
    let set = start(json!([rule(&["*"], "*", "*", &["*/*"])])).await;
    let rest = &set.rest;
    let (one, token) = (format!("{PODS}/one"), json!({"spec": {"expirationSeconds": 3600}}));
    rest.post(PODS, &pod("one")).await.expect(201);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    rest.post(deployments, &deployment).await.expect(201);
    rest.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await.expect(201);
    set.reviews();
    let binding = json!({"metadata": {"name": "one"}, "target": {"kind": "Node", "name": "n"}});
    rest.post(&format!("{one}/binding"), &binding).await.expect(201);
    let ready = json!({"status": {"phase": "Pending"}});
    rest.patch(&format!("{one}/status"), "merge", &ready).await.expect(200);
    let scale = format!("{deployments}/d/scale");
    rest.patch(&scale, "merge", &json!({"spec": {"replicas": 2}})).await.expect(200);
    rest.post("/api/v1/namespaces/default/serviceaccounts/default/token", &token).await.expect(201);
    let eviction = json!({"metadata": {"name": "one"}});
    rest.post(&format!("{one}/eviction"), &eviction).await.expect(201);
    // Without these nobody could find out who somebody is and what he may do.
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    rest.post(reviews, &review).await.expect(201);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    rest.post(reviews, &json!({"spec": {"token": "unknown"}})).await.expect(201);
    rest.post(PODS, &pod("two")).await.expect(201);
    rest.post("/api/v1/namespaces/default/bindings", &{
        let mut binding = binding.clone();
        binding["metadata"]["name"] = "two".into();
        binding
    })
    .await
    .expect(201);
    let all = set.reviews();
    let seen: Vec<_> = all.iter().map(summary).collect();
    let expected = [
        ["CREATE", "pods", "binding", "Binding", "Binding", "one"],
        ["UPDATE", "pods", "status", "Pod", "Pod", "one"],
        ["UPDATE", "deployments", "scale", "Scale", "Scale", "d"],
        ["CREATE", "serviceaccounts", "token", "TokenRequest", "TokenRequest", "default"],
        ["CREATE", "pods", "eviction", "Eviction", "Eviction", "one"],
        ["CREATE", "pods", "", "Pod", "Pod", "two"],
        ["CREATE", "bindings", "", "Binding", "Binding", "two"],
    ];
    assert_eq!(seen, expected);
    let scale = &all[2]["request"];
    assert_eq!(
        (&scale["object"]["spec"]["replicas"], &scale["oldObject"]["spec"]["replicas"]),
        (&2.into(), &1.into())
    );
    set.server.stop().await;
}

#[tokio::test]
async fn subresources_are_changed_and_denied() {
    let set = Set::start(allow).await;
    set.server.default_account("default").await;
    let rest = &set.rest;
    let mut hook = set.hook("sub");
    hook["rules"] = json!([rule(&["*"], "*", "*", &["*/*"])]);
    set.mutating("m", &[hook]).await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    rest.post(deployments, &deployment).await.expect(201);
    rest.post(PODS, &pod("one")).await.expect(201);
    set.webhook.behave(|review| {
        patch(review, &json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]))
    });
    let scale = format!("{deployments}/d/scale");
    let scaled = rest.patch(&scale, "merge", &json!({"spec": {"replicas": 2}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let now = rest.get(&format!("{deployments}/d")).await.expect(200);
    assert_eq!(now["spec"]["replicas"], 5);
    set.webhook.behave(|review| {
        patch(review, &json!([{"op": "replace", "path": "/target/name", "value": "m"}]))
    });
    let binding = json!({"metadata": {"name": "one"}, "target": {"kind": "Node", "name": "n"}});
    rest.post(&format!("{PODS}/one/binding"), &binding).await.expect(201);
    let bound = rest.get(&format!("{PODS}/one")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "m");
    set.webhook.behave(deny);
    rest.patch(&scale, "merge", &json!({"spec": {"replicas": 3}})).await.expect(400);
    rest.post(&format!("{PODS}/one/eviction"), &json!({"metadata": {"name": "one"}}))
        .await
        .expect(400);
    rest.get(&format!("{PODS}/one")).await.expect(200);
    rest.patch(&format!("{PODS}/one/status"), "merge", &json!({"status": {"phase": "Running"}}))
        .await
        .expect(400);
    set.server.stop().await;
}

#[tokio::test]
async fn connections_are_judged() {
    let set = start(json!([rule(&["CONNECT"], "", "v1", &["*/*"])])).await;
    set.webhook.behave(deny);
    for (path, subresource, object) in [
        (
            "pods/p/exec?command=ls&command=-l&stdout=true&container=c",
            "exec",
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "c",
                "command": ["ls", "-l"]}),
        ),
        (
            "pods/p/attach?stdin=true&tty=1",
            "attach",
            json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "tty": true}),
        ),
        (
            "pods/p/portforward?ports=80,81",
            "portforward",
            json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 81]}),
        ),
        (
            "pods/p/proxy/a/b",
            "proxy",
            json!({"kind": "PodProxyOptions", "apiVersion": "v1", "path": "a/b"}),
        ),
        ("services/p/proxy", "proxy", json!({"kind": "ServiceProxyOptions", "apiVersion": "v1"})),
    ] {
        let refused = set.rest.get(&format!("/api/v1/namespaces/default/{path}")).await;
        assert_eq!(refused.code, 400, "{path}: {}", refused.text);
        assert!(refused.text.contains("denied the request: not like this"), "{path}");
        let request = &set.reviews()[0]["request"];
        assert_eq!(request["object"], object, "{path}");
        assert_eq!(request["kind"]["kind"], object["kind"], "{path}");
        assert_eq!(
            (&request["operation"], &request["subResource"]),
            (&"CONNECT".into(), &subresource.into())
        );
        assert_eq!((&request["name"], &request["options"]), (&"p".into(), &Value::Null), "{path}");
    }
    // A log is read, not connected to.
    set.rest.get(&format!("{PODS}/p/log")).await.expect(404);
    assert!(set.reviews().is_empty());
    set.server.stop().await;
}
