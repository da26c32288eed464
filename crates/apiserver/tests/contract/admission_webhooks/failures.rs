//! Webhooks that fail, hang, lie, and are asked in vain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use super::{MAPS, Set, allow, answer, deny, map, patch, touch};

type Behaviour = fn(&Value) -> Reply;

/// What is wrong with an answer, and how the error ends. Denials and patches that cannot be applied
/// are no failures, so that no policy lets them through.
const LIES: &[(&str, Behaviour, &str)] = &[
    (
        "an error",
        |_| Reply::Status(500, "out of order"),
        "an error on the server (\"out of order\") has prevented the request from succeeding",
    ),
    (
        "not there",
        |_| Reply::Status(404, ""),
        "failed to call webhook: the server could not find the requested resource",
    ),
    (
        "a redirect",
        |_| Reply::Redirect,
        "the server responded with the status code 307 but did not return more information",
    ),
    ("no JSON", |_| Reply::Status(200, "ok"), "expected value at line 1 column 1"),
    ("too long", |_| Reply::Long(10 << 20), "length limit exceeded"),
    (
        "nothing",
        |_| Reply::Json(json!({})),
        "received invalid webhook response: webhook response was absent",
    ),
    ("another uid", |review| answer(review, &json!({"uid": "u"})), ", got \"u\""),
    (
        "no kind",
        |review| {
            Reply::Json(json!({"response": {"uid": review["request"]["uid"], "allowed": true}}))
        },
        "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
    ),
    (
        "a patch without its type",
        |review| answer(review, &json!({"patch": "W10="})),
        "webhook returned response.patch but not response.patchType",
    ),
    (
        "a type without a patch",
        |review| answer(review, &json!({"patchType": "JSONPatch"})),
        "webhook returned response.patchType but not response.patch",
    ),
    (
        "another type",
        |review| answer(review, &json!({"patchType": "Merge", "patch": "W3sib3AiOiJhZGQifV0="})),
        "unsupported patch type \"Merge\"",
    ),
];

const WRONG_PATCHES: &[(&str, Behaviour, &str)] = &[
    (
        "no patch",
        |review| answer(review, &json!({"patchType": "JSONPatch", "patch": "e30="})),
        "Internal error occurred: invalid type: map",
    ),
    (
        "no such path",
        |review| patch(review, &json!([{"op": "remove", "path": "/none"}])),
        "Internal error occurred: ",
    ),
    (
        "no operation",
        |review| patch(review, &json!([{"op": "fly", "path": "/data"}])),
        "Internal error occurred: Unexpected kind: fly",
    ),
    (
        "another type",
        |review| patch(review, &json!([{"op": "replace", "path": "/data", "value": 1}])),
        "Internal error occurred: ",
    ),
    (
        "no object",
        |review| patch(review, &json!([{"op": "replace", "path": "", "value": []}])),
        "Internal error occurred: ",
    ),
    (
        "owners that are none",
        |review| patch(review, &json!([{"op": "add", "path": "/metadata", "value": "m"}])),
        "Internal error occurred: ",
    ),
];

#[tokio::test]
async fn lies_are_failures() {
    let set = Set::start(allow).await;
    let mut strict = set.hook("strict");
    strict["failurePolicy"] = "Fail".into();
    set.mutating("m", &[strict]).await;
    for (what, behave, expected) in LIES {
        set.webhook.behave(behave);
        let refused = set.rest.post(MAPS, &map("one")).await;
        let message = refused.body["message"].as_str().unwrap_or_default();
        assert_eq!(
            (refused.code, &refused.body["reason"]),
            (500, &"InternalError".into()),
            "{what}"
        );
        let start = "Internal error occurred: failed calling webhook \"strict.example.com\": ";
        assert!(message.starts_with(start) && message.ends_with(expected), "{what}: {message}");
    }
    for (what, behave, expected) in WRONG_PATCHES {
        set.webhook.behave(behave);
        let refused = set.rest.post(MAPS, &map("one")).await;
        let message = refused.body["message"].as_str().unwrap_or_default();
        assert_eq!(refused.code, 500, "{what}: {message}");
        assert!(message.starts_with(expected), "{what}: {message}");
    }
    set.rest.get(&format!("{MAPS}/one")).await.expect(404);

    let mut lax = set.hook("lax");
    lax["failurePolicy"] = "Ignore".into();
    set.mutating("m", &[lax.clone()]).await;
    for (index, (what, behave, _)) in LIES.iter().enumerate() {
        set.webhook.behave(behave);
        let made = set.rest.post(MAPS, &map(&format!("lax-{index}"))).await;
        assert_eq!(made.code, 201, "{what}: {}", made.text);
    }
    for (what, behave, _) in WRONG_PATCHES {
        set.webhook.behave(behave);
        let refused = set.rest.post(MAPS, &map("one")).await;
        assert_eq!(refused.code, 500, "{what}: {}", refused.text);
    }
    // A denial is a decision, whatever the policy.
    set.webhook.behave(deny);
    set.rest.post(MAPS, &map("one")).await.expect(400);
    let metrics = set.rest.get("/metrics").await.text;
    let open =
        "apiserver_admission_webhook_fail_open_count{name=\"lax.example.com\",type=\"admit\"}";
    let line = metrics.lines().find(|line| line.starts_with(open)).unwrap_or_default();
    assert!(line.ends_with(&format!(" {}", LIES.len())), "{line}");
    set.server.stop().await;
}

#[tokio::test]
async fn validating_webhooks_change_nothing() {
    let set = Set::start(touch).await;
    set.validating("v", &[set.hook("v")]).await;
    let refused = set.rest.post(MAPS, &map("one")).await;
    let message = refused.expect(500)["message"].to_string();
    assert!(message.contains("validating webhook may not return response.patch"), "{message}");
    set.server.stop().await;
}

#[tokio::test]
async fn servers_that_are_not_who_they_should_be() {
    let set = Set::start(allow).await;
    let other = Webhook::start("127.0.0.1", &["localhost"], allow).await.unwrap();
    let url = |port: u16| format!("https://127.0.0.1:{port}/");
    // Another authority; another name; nobody there.
    let clients = [
        json!({"url": url(set.webhook.port), "caBundle": other.ca_bundle()}),
        other.client_config(),
        json!({"url": "https://127.0.0.1:1/", "caBundle": set.webhook.ca_bundle()}),
        json!({"service": {"namespace": "default", "name": "nobody"}}),
    ];
    for (index, client) in clients.into_iter().enumerate() {
        let mut hook = set.hook(&format!("n{index}"));
        hook["clientConfig"] = client;
        set.validating("v", &[hook.clone()]).await;
        let refused = set.rest.post(MAPS, &map("one")).await.expect(500);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("failed to call webhook: Post \"https://"), "{message}");
        hook["failurePolicy"] = "Ignore".into();
        set.validating("v", &[hook]).await;
        set.rest.post(MAPS, &map(&format!("n{index}"))).await.expect(201);
    }
    assert!(set.reviews().is_empty() && other.requests.lock().is_empty());
    set.server.stop().await;
}

/// A webhook that hangs holds up nobody but those that it matches, and those not for long.
#[tokio::test]
async fn time_is_limited() {
    let set = Set::start(|_: &Value| Reply::Hang).await;
    let mut hook = set.hook("slow");
    hook["timeoutSeconds"] = 1.into();
    set.mutating("m", &[hook.clone()]).await;
    let started = clock::monotonic();
    let (slow, other) = (map("slow"), json!({"metadata": {"name": "s"}}));
    let slow = set.rest.post(MAPS, &slow);
    let other = async {
        let answer = set.rest.post("/api/v1/namespaces/default/secrets", &other).await;
        (answer, started.elapsed())
    };
    let (slow, (other, took)) = tokio::join!(slow, other);
    other.expect(201);
    assert!(took < Duration::from_millis(900), "{took:?}");
    let message = slow.expect(500)["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("?timeout=1s\": context deadline exceeded"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(5));
    hook["failurePolicy"] = "Ignore".into();
    set.mutating("m", &[hook.clone()]).await;
    set.rest.post(MAPS, &map("ignored")).await.expect(201);
    // The request's own time ends before the webhook's.
    hook["timeoutSeconds"] = 30.into();
    set.mutating("m", &[hook]).await;
    let started = clock::monotonic();
    let late = set.rest.post(&format!("{MAPS}?timeout=1s"), &map("late")).await;
    assert_eq!(late.body["reason"], "Timeout", "{}", late.text);
    assert!(started.elapsed() < Duration::from_secs(5));
    set.rest.get(&format!("{MAPS}/late")).await.expect(404);
    set.server.stop().await;
}

#[tokio::test]
async fn dry_runs_ask_only_webhooks_without_side_effects() {
    let set = Set::start(touch).await;
    set.mutating("m", &[set.hook("clean")]).await;
    let dry = format!("{MAPS}?dryRun=All");
    let made = set.rest.post(&dry, &map("one")).await.expect(201);
    assert_eq!(made["data"]["touched"], "yes");
    let request = &set.reviews()[0]["request"];
    assert_eq!(
        (&request["dryRun"], &request["options"]["dryRun"]),
        (&true.into(), &json!(["All"]))
    );
    set.rest.get(&format!("{MAPS}/one")).await.expect(404);
    set.server.stop().await;
}

/// What was stored before validation is as strict as it is now is not judged anew, and its webhooks
/// are asked.
#[tokio::test]
async fn older_configurations_stay_as_they_are() {
    let set = Set::start(allow).await;
    let mut hook = set.hook("old");
    hook["sideEffects"] = "Some".into();
    hook["matchConditions"] = json!([{"name": "c", "expression": "object.nothing("}]);
    hook["failurePolicy"] = "Ignore".into();
    let mut clean = hook.clone();
    clean["matchConditions"] = json!([]);
    let stored = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "v", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "webhooks": [hook, clean]});
    let key = "/registry/admissionregistration.k8s.io/validatingwebhookconfigurations/v";
    let store = &set.server.core().store;
    let written = store.create(key.into(), stored.to_string().into()).await.unwrap();
    assert!(matches!(written, store::Outcome::Written(_)));
    set.until(|names| names.len() == 2).await;
    let dry = set.rest.post(&format!("{MAPS}?dryRun=All"), &map("one")).await.expect(400);
    assert_eq!(dry["message"], "admission webhook \"old.example.com\" does not support dry run");
    // The first has a condition that cannot be compiled, and ignores that.
    set.rest.post(MAPS, &map("one")).await.expect(201);
    assert_eq!(set.reviews().len(), 1);
    let path = format!("{}/validatingwebhookconfigurations/v", super::REGISTRATION);
    let slower = json!([{"op": "add", "path": "/webhooks/1/timeoutSeconds", "value": 7}]);
    set.rest.patch(&path, "json", &slower).await.expect(200);
    let other =
        json!([{"op": "replace", "path": "/webhooks/0/matchConditions/0/name", "value": "d"}]);
    let refused = set.rest.patch(&path, "json", &other).await.expect(422);
    assert!(refused.to_string().contains("matchConditions[0].expression"), "{refused}");
    let named = json!([{"op": "replace", "path": "/webhooks/0/sideEffects", "value": "Any"}]);
    set.rest.patch(&path, "json", &named).await.expect(422);
    set.server.stop().await;
}

/// Versions of AdmissionReview: the first that is known is spoken.
#[tokio::test]
async fn the_older_review_is_spoken_where_only_that_is_listed() {
    let set = Set::start(|review: &Value| {
        let mut reply = json!({"response": {"allowed": true}});
        if review["apiVersion"] == "admission.k8s.io/v1" {
            reply = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": {"uid": review["request"]["uid"], "allowed": true}});
        }
        Reply::Json(reply)
    })
    .await;
    for (versions, spoken) in [
        (json!(["v1beta1"]), "admission.k8s.io/v1beta1"),
        (json!(["v9", "v1beta1", "v1"]), "admission.k8s.io/v1beta1"),
        (json!(["v1", "v1beta1"]), "admission.k8s.io/v1"),
    ] {
        let mut hook = set.hook("old");
        hook["admissionReviewVersions"] = versions;
        set.validating("v", &[hook]).await;
        set.rest.post(&format!("{MAPS}?dryRun=All"), &map("one")).await.expect(201);
        assert_eq!(set.reviews()[0]["apiVersion"], spoken);
    }
    set.server.stop().await;
}

/// A configuration is in force within a second, and its connections are kept.
#[tokio::test]
async fn webhooks_are_asked_soon_and_over_few_connections() {
    let set = Set::start(deny).await;
    let configuration = json!({"metadata": {"name": "v"}, "webhooks": [set.hook("soon")]});
    let path = format!("{}/validatingwebhookconfigurations", super::REGISTRATION);
    set.rest.post(&path, &configuration).await.expect(201);
    let created = clock::monotonic();
    let mut number = 0;
    while set.rest.post(MAPS, &map(&format!("m{number}"))).await.code == 201 {
        assert!(created.elapsed() < super::IN_FORCE, "it is not in force");
        number += 1;
    }
    set.webhook.behave(allow);
    for number in 0..20 {
        set.rest.post(MAPS, &map(&format!("n{number}"))).await.expect(201);
    }
    assert!(set.webhook.connections.load(Ordering::Relaxed) <= 2);
    // Nothing is asked that no rule names.
    set.reviews();
    set.rest
        .post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}}))
        .await
        .expect(201);
    set.rest.delete(&format!("{MAPS}/n1")).await.expect(200);
    set.rest.get(MAPS).await.expect(200);
    assert!(set.reviews().is_empty());
    set.rest.delete(&format!("{path}/v")).await.expect(200);
    set.until(<[String]>::is_empty).await;
    set.rest.post(MAPS, &map("free")).await.expect(201);
    assert!(set.reviews().is_empty());
    set.server.stop().await;
}

/// Many validating webhooks take no longer than the slowest.
#[tokio::test]
async fn validating_webhooks_are_asked_at_once() {
    let set = Set::start(allow).await;
    let mut hooks = Vec::new();
    for index in 0..5 {
        let mut hook = set.hook(&format!("v{index}"));
        (hook["timeoutSeconds"], hook["failurePolicy"]) = (1.into(), "Ignore".into());
        hooks.push(hook);
    }
    set.validating("v", &hooks).await;
    set.webhook.behave(|_| Reply::Hang);
    let started = clock::monotonic();
    set.rest.post(MAPS, &map("one")).await.expect(201);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    set.server.stop().await;
}
