//! Which requests a webhook is asked about, in which order, and in which version.

use serde_json::{Value, json};
use testkit::webhook::Reply;

use super::{MAPS, Set, allow, map, patch, rule};
use crate::custom::{define, definition, widget};

#[tokio::test]
async fn selectors_and_conditions_select() {
    let set = Set::start(allow).await;
    let rest = &set.rest;
    for (name, team) in [("red", "red"), ("blue", "blue")] {
        let namespace = json!({"metadata": {"name": name, "labels": {"team": team}}});
        rest.post("/api/v1/namespaces", &namespace).await.expect(201);
    }
    let mut in_red = set.hook("in-red");
    in_red["namespaceSelector"] = json!({"matchLabels": {"team": "red"}});
    let rules = &mut in_red["rules"];
    rules.as_array_mut().unwrap().push(rule(&["*"], "", "v1", &["namespaces", "nodes"]));
    let mut marked = set.hook("marked");
    marked["objectSelector"] =
        json!({"matchExpressions": [{"key": "marked", "operator": "Exists"}]});
    let mut conditional = set.hook("conditional");
    conditional["matchConditions"] = json!([
        {"name": "create", "expression": "request.operation == 'CREATE' && oldObject == null"},
        {"name": "may", "expression": "authorizer.requestResource.check('delete').allowed()"},
        {"name": "data", "expression": "object.data.a == 'conditional'"},
    ]);
    set.validating("v", &[in_red, marked, conditional]).await;
    let mut all = set.hook("other");
    all["rules"] = json!([rule(&["*"], "", "v1", &["configmaps"])]);
    let asked = |what: &str| -> Vec<String> {
        // Their order is not that of the calls, which run at the same time.
        let _ = what;
        set.reviews().iter().map(|review| review["request"]["namespace"].to_string()).collect()
    };
    let maps = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps");
    rest.post(&maps("blue"), &map("one")).await.expect(201);
    assert!(asked("blue").is_empty());
    rest.post(&maps("red"), &map("one")).await.expect(201);
    assert_eq!(asked("red").len(), 1);
    let mut with = map("two");
    with["metadata"]["labels"] = json!({"marked": ""});
    rest.post(&maps("blue"), &with).await.expect(201);
    assert_eq!(asked("marked").len(), 1);
    // The former object counts as well.
    let two = format!("{}/two", maps("blue"));
    rest.patch(&two, "merge", &json!({"metadata": {"labels": null}})).await.expect(200);
    assert_eq!(asked("unmarked").len(), 1);
    rest.patch(&two, "merge", &json!({"data": {"x": "y"}})).await.expect(200);
    assert!(asked("no longer").is_empty());
    let mut right = map("three");
    right["data"]["a"] = "conditional".into();
    rest.post(&maps("blue"), &right).await.expect(201);
    assert_eq!(asked("conditional").len(), 1);
    // A namespace is selected by its own labels, and what is in none always.
    let green = json!({"metadata": {"name": "green", "labels": {"team": "green"}}});
    rest.post("/api/v1/namespaces", &green).await.expect(201);
    assert!(asked("green").is_empty());
    let label = json!({"metadata": {"labels": {"team": "red"}}});
    rest.patch("/api/v1/namespaces/green", "merge", &label).await.expect(200);
    assert_eq!(asked("namespace"), ["\"green\""]);
    rest.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await.expect(201);
    assert_eq!(asked("node").len(), 1);
    set.server.stop().await;
}

#[tokio::test]
async fn a_condition_without_a_value_follows_the_policy() {
    let set = Set::start(allow).await;
    let mut hook = set.hook("c");
    let broken = json!({"name": "broken", "expression": "object.data.missing == 'x'"});
    hook["matchConditions"] = json!([broken]);
    set.validating("v", &[hook.clone()]).await;
    let refused = set.rest.post(MAPS, &map("one")).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps \"one\" is forbidden: expression 'object.data.missing == 'x'' resulted in error: no such key: missing"
    );
    hook["failurePolicy"] = "Ignore".into();
    set.validating("v", &[hook.clone()]).await;
    set.rest.post(MAPS, &map("one")).await.expect(201);
    // Any that does not hold decides.
    hook["failurePolicy"] = "Fail".into();
    hook["matchConditions"] = json!([broken, {"name": "no", "expression": "false"}]);
    set.validating("v", &[hook]).await;
    set.rest.post(MAPS, &map("two")).await.expect(201);
    assert!(set.reviews().is_empty());
    set.server.stop().await;
}

/// Appends the name of the webhook to a label, as sidecar injectors do.
fn append(review: &Value, name: &str) -> Reply {
    let before = review["request"]["object"]["data"]["calls"].as_str().unwrap_or_default();
    let calls = format!("{before}{name}");
    patch(review, &json!([{"op": "add", "path": "/data/calls", "value": calls}]))
}

#[tokio::test]
async fn mutating_webhooks_are_asked_in_order_and_again() {
    let set = Set::start(|review: &Value| append(review, "a")).await;
    let other = testkit::webhook::Webhook::start("127.0.0.1", &["127.0.0.1"], |review: &Value| {
        append(review, "b")
    })
    .await
    .unwrap();
    let (mut a, mut b) = (set.hook("a"), set.hook("b"));
    b["clientConfig"] = other.client_config();
    // By the names of their configurations, not by their age.
    set.mutating("second", &[b.clone()]).await;
    set.mutating("first", &[a.clone()]).await;
    let calls = async |name: &str| {
        let made = set.rest.post(MAPS, &map(name)).await.expect(201);
        made["data"]["calls"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(calls("one").await, "ab");
    // The first is asked again, because the second has changed the object.
    a["reinvocationPolicy"] = "IfNeeded".into();
    set.mutating("first", &[a.clone()]).await;
    assert_eq!(calls("two").await, "aba");
    b["reinvocationPolicy"] = "IfNeeded".into();
    set.mutating("second", &[b]).await;
    // Now it is, because the first has changed the object after it.
    assert_eq!(calls("three").await, "abab");
    // Nothing changes: nobody is asked again.
    other.behave(allow);
    set.webhook.behave(allow);
    set.reviews();
    set.rest.post(MAPS, &map("four")).await.expect(201);
    assert_eq!(set.reviews().len(), 1);
    set.server.stop().await;
}

/// What a webhook adds to a pod is completed by the server's own plugins, which run once more.
#[tokio::test]
async fn plugins_see_what_webhooks_add() {
    let set = Set::start(|review: &Value| {
        let containers =
            review["request"]["object"]["spec"]["containers"].as_array().unwrap().len();
        if containers > 1 {
            return allow(review);
        }
        let sidecar = json!({"name": "sidecar", "image": "i"});
        patch(review, &json!([{"op": "add", "path": "/spec/containers/-", "value": sidecar}]))
    })
    .await;
    set.server.default_account("default").await;
    let mut hook = set.hook("inject");
    hook["rules"] = json!([rule(&["CREATE"], "", "v1", &["pods"])]);
    set.mutating("m", &[hook]).await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = set.rest.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let sidecar = &made["spec"]["containers"][1];
    assert_eq!(sidecar["name"], "sidecar");
    assert_eq!(
        sidecar["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(sidecar["imagePullPolicy"], "Always");
    set.server.stop().await;
}

#[tokio::test]
async fn custom_resources_are_converted_to_the_version_that_is_named() {
    let set = Set::start(allow).await;
    let rest = &set.rest;
    let mut definition = definition();
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    let served: Vec<String> =
        versions.iter().map(|version| version["name"].as_str().unwrap().to_owned()).collect();
    define(rest, &definition).await;
    let paths: Vec<String> = served
        .iter()
        .map(|version| format!("/apis/example.com/{version}/namespaces/default/widgets"))
        .collect();
    let mut hook = set.hook("first");
    hook["rules"] = json!([rule(&["*"], "example.com", &served[0], &["widgets"])]);
    set.mutating("m", &[hook.clone()]).await;
    let mut other = widget("other", json!({"size": 1}));
    other["apiVersion"] = format!("example.com/{}", served[1]).into();
    set.webhook.behave(|review| {
        patch(review, &json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]))
    });
    let made = rest.post(&paths[1], &other).await.expect(201);
    assert_eq!(made["metadata"]["labels"]["seen"], "yes");
    assert_eq!(made["apiVersion"], other["apiVersion"]);
    let request = &set.reviews()[0]["request"];
    assert_eq!(request["object"]["apiVersion"], format!("example.com/{}", served[0]));
    assert_eq!(request["kind"]["version"], served[0].as_str());
    assert_eq!(request["resource"]["version"], served[0].as_str());
    assert_eq!(request["requestKind"]["version"], served[1].as_str());
    assert_eq!(request["requestResource"]["version"], served[1].as_str());
    // As it is written, if it is named so.
    hook["matchPolicy"] = "Exact".into();
    set.mutating("m", &[hook.clone()]).await;
    other["metadata"]["name"] = "exact".into();
    rest.post(&paths[1], &other).await.expect(201);
    assert!(set.reviews().is_empty());
    hook["rules"] = json!([rule(&["*"], "example.com", "*", &["widgets", "widgets/*"])]);
    set.mutating("m", &[hook]).await;
    other["metadata"]["name"] = "any".into();
    set.webhook.behave(allow);
    rest.post(&paths[1], &other).await.expect(201);
    rest.patch(&format!("{}/any/status", paths[1]), "merge", &json!({"status": {"phase": "up"}}))
        .await
        .expect(200);
    rest.delete(&format!("{}/any", paths[0])).await.expect(200);
    let reviews = set.reviews();
    let seen: Vec<_> = reviews
        .iter()
        .map(|review| {
            let request = &review["request"];
            let object = if request["object"].is_null() { "oldObject" } else { "object" };
            (
                request["operation"].as_str().unwrap(),
                request[object]["apiVersion"].as_str().unwrap(),
            )
        })
        .collect();
    let (first, second) =
        (format!("example.com/{}", served[0]), format!("example.com/{}", served[1]));
    assert_eq!(seen, [("CREATE", &*second), ("UPDATE", &*second), ("DELETE", &*first)]);
    set.server.stop().await;
}

/// Events have two forms, and a webhook gets the one that its rules name.
#[tokio::test]
async fn events_are_shown_in_the_form_that_is_named() {
    let set = Set::start(allow).await;
    let mut hook = set.hook("events");
    hook["rules"] = json!([rule(&["CREATE"], "events.k8s.io", "v1", &["events"])]);
    set.validating("v", &[hook.clone()]).await;
    let event = |name: &str| {
        json!({"metadata": {"name": name}, "reason": "R", "message": "text", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}})
    };
    let path = "/api/v1/namespaces/default/events";
    set.rest.post(path, &event("one")).await.expect(201);
    let request = &set.reviews()[0]["request"];
    assert_eq!(
        (&request["object"]["note"], &request["kind"]["group"]),
        (&"text".into(), &"events.k8s.io".into())
    );
    assert_eq!(request["requestKind"]["group"], "");
    hook["rules"] = json!([rule(&["CREATE"], "", "v1", &["events"])]);
    hook["matchPolicy"] = "Exact".into();
    set.validating("v", &[hook]).await;
    set.rest.post(path, &event("two")).await.expect(201);
    assert_eq!(set.reviews()[0]["request"]["object"]["message"], "text");
    let newer = json!({"metadata": {"name": "three"}, "reason": "R", "note": "text", "type": "Normal", "action": "A",
        "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "c.io/c", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    set.rest.post("/apis/events.k8s.io/v1/namespaces/default/events", &newer).await.expect(201);
    assert!(set.reviews().is_empty());
    set.server.stop().await;
}
