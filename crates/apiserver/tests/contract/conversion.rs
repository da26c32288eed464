//! Versions of a custom resource that a webhook converts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use crate::custom::{DEFINITIONS, define, definition, widget};
use crate::server::{Answer, Rest, Server};

const V1: &str = "/apis/example.com/v1/namespaces/default/widgets";
const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";

/// Two versions, of which the second calls the size `width`, and counts in tenths.
fn converted(webhook: &Webhook) -> Value {
    let mut definition = definition();
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    for version in versions.iter_mut() {
        version.as_object_mut().unwrap().remove("selectableFields");
    }
    let second = &mut versions[1];
    second["name"] = "v2".into();
    let spec = &mut second["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["required"] = json!(["width"]);
    let properties = spec["properties"].as_object_mut().unwrap();
    properties.remove("size");
    properties.insert("width".to_owned(), json!({"type": "integer"}));
    second["additionalPrinterColumns"] =
        json!([{"name": "Width", "type": "integer", "jsonPath": ".spec.width"}]);
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v9", "v1"], "clientConfig": webhook.client_config()}});
    definition
}

/// A review's objects, as they should be.
fn objects(review: &Value) -> Vec<Value> {
    let wanted = &review["request"]["desiredAPIVersion"];
    let objects = review["request"]["objects"].as_array().unwrap().iter();
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.clone();
        let spec = object["spec"].as_object_mut().unwrap();
        if wanted == "example.com/v2" {
            let size = spec.remove("size").unwrap().as_i64().unwrap();
            spec.insert("width".to_owned(), (10 * size).into());
        } else {
            let width = spec.remove("width").unwrap().as_i64().unwrap();
            spec.insert("size".to_owned(), (width / 10).into());
        }
        object
    };
    objects.map(convert).collect()
}

fn review(request: &Value, objects: &[Value]) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": request["request"]["uid"], "result": {"status": "Success"},
        "convertedObjects": objects}})
}

fn honest(request: &Value) -> Reply {
    Reply::Json(review(request, &objects(request)))
}

fn wide(name: &str, width: i64) -> Value {
    json!({"apiVersion": "example.com/v2", "kind": "Widget", "metadata": {"name": name},
        "spec": {"width": width}})
}

pub async fn start() -> (Server, Rest, Webhook) {
    let (server, webhook) =
        (Server::start().await, Webhook::start("127.0.0.1", &["127.0.0.1"], honest).await.unwrap());
    let rest = server.admin();
    define(&rest, &converted(&webhook)).await;
    (server, rest, webhook)
}

#[tokio::test]
async fn every_verb_works_in_every_version() {
    let (server, rest, webhook) = start().await;
    let made = rest.post(V2, &wide("a", 30)).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["width"]),
        (&"example.com/v2".into(), &30.into())
    );
    // Defaults are those of the version that was written.
    assert_eq!(made["spec"]["color"], "red");
    let (one, other) = (format!("{V1}/a"), format!("{V2}/a"));
    let stored = rest.get(&one).await.expect(200);
    assert_eq!(
        (&stored["apiVersion"], &stored["spec"]["size"]),
        (&"example.com/v1".into(), &3.into())
    );
    assert_eq!(stored["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert!(stored["spec"].get("width").is_none());
    // What was stored needs no conversion; the stored version is never asked about.
    let asked = webhook.requests.lock().len();
    rest.post(V1, &widget("b", json!({"size": 5}))).await.expect(201);
    rest.get(V1).await.expect(200);
    assert_eq!(webhook.requests.lock().len(), asked);

    let wider = rest.patch(&other, "merge", &json!({"spec": {"width": 40}})).await.expect(200);
    assert_eq!(
        (&wider["spec"]["width"], &wider["metadata"]["generation"]),
        (&40.into(), &2.into())
    );
    let test = json!([{"op": "test", "path": "/spec/width", "value": 40},
        {"op": "replace", "path": "/spec/width", "value": 60}]);
    rest.patch(&other, "json", &test).await.expect(200);
    rest.patch(&format!("{other}/status"), "merge", &json!({"status": {"phase": "up"}}))
        .await
        .expect(200);
    let mut whole = rest.get(&other).await.expect(200);
    assert_eq!(whole["status"]["phase"], "up");
    whole["spec"]["replicas"] = 1.into();
    rest.send("PUT", &other, &whole).await.expect(200);
    let (scale, two) = (format!("{other}/scale"), json!({"spec": {"replicas": 2}}));
    let scaled = rest.patch(&scale, "merge", &two).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
    let applied = json!({"apiVersion": "example.com/v2", "kind": "Widget",
        "metadata": {"name": "a"}, "spec": {"width": 70}});
    let path = format!("{other}?fieldManager=me&force=true");
    let headers = [("content-type", "application/apply-patch+yaml")];
    rest.ask("PATCH", &path, &headers, applied.to_string().into_bytes()).await.expect(200);
    let now = rest.get(&one).await.expect(200);
    assert_eq!((&now["spec"]["size"], &now["spec"]["replicas"]), (&7.into(), &2.into()));
    // A wrong value is judged in the version it was written in.
    rest.patch(&other, "merge", &json!({"spec": {"width": "x"}})).await.expect(422);
    // Nothing changes: nothing is written.
    let same = rest.patch(&other, "merge", &json!({"spec": {"width": 70}})).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);
    // A dry run is converted, too.
    let dry = rest.post(&format!("{V2}?dryRun=All"), &wide("dry", 90)).await.expect(201);
    assert_eq!(dry["spec"]["width"], 90);
    rest.get(&format!("{V1}/dry")).await.expect(404);

    let target = pb::Target {
        group: "example.com".to_owned(),
        version: "v2".to_owned(),
        resource: "widgets".to_owned(),
        namespace: "default".to_owned(),
        name: "a".to_owned(),
        ..pb::Target::default()
    };
    let request = pb::GetRequest { target: Some(target), ..pb::GetRequest::default() };
    let answer = server.grpc().get(request).await.unwrap().into_inner();
    let object: Value = serde_json::from_slice(&answer.json).unwrap();
    assert_eq!(object["spec"]["width"], 70);

    // With a finalizer it is written once more before it goes.
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    rest.patch(&other, "merge", &held).await.expect(200);
    let terminating = rest.delete(&other).await.expect(200);
    assert!(terminating["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(terminating["spec"]["width"], 70);
    rest.patch(&other, "merge", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    rest.get(&one).await.expect(404);
    let left = rest.delete(V2).await.expect(200);
    assert_eq!(left["items"][0]["spec"]["width"], 50);
    assert_eq!(rest.get(V1).await.expect(200)["items"], json!([]));
    // All of it over a few connections.
    let connections = webhook.connections.load(std::sync::atomic::Ordering::Relaxed);
    assert!(connections <= 8, "{connections}");
    server.stop().await;
}

#[tokio::test]
async fn lists_and_watches_are_converted_together() {
    let (server, rest, webhook) = start().await;
    for number in 1..=9 {
        rest.post(V1, &widget(&format!("n{number}"), json!({"size": number}))).await.expect(201);
    }
    webhook.requests.lock().clear();
    let list = rest.get(V2).await.expect(200);
    assert_eq!(list["apiVersion"], "example.com/v2");
    let widths = |list: &Value| -> Vec<i64> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["spec"]["width"].as_i64().unwrap()).collect()
    };
    assert_eq!(widths(&list), [10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!(webhook.requests.lock().len(), 1, "a list is one review");
    let page = rest.get(&format!("{V2}?limit=4")).await.expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest_of = rest.get(&format!("{V2}?limit=9&continue={token}")).await.expect(200);
    assert_eq!((widths(&page).len(), widths(&rest_of).len()), (4, 5));
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let table = rest.ask("GET", V2, &[("accept", table)], Vec::new()).await.expect(200);
    assert_eq!(table["rows"][2]["cells"], json!(["n3", 30]));

    let mut changes = rest.watch(&format!("{V2}?watch=1")).await;
    for number in 1..=9 {
        let event = changes.next().await.unwrap();
        assert_eq!(event["object"]["spec"]["width"], 10 * number);
    }
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut later = rest.watch(&format!("{V2}?watch=1&resourceVersion={from}")).await;
    rest.patch(&format!("{V1}/n3"), "merge", &json!({"spec": {"size": 8}})).await.expect(200);
    rest.delete(&format!("{V1}/n3")).await.expect(200);
    for changes in [&mut changes, &mut later] {
        for (kind, width) in [("MODIFIED", 80), ("DELETED", 80)] {
            let event = changes.next().await.unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["spec"]["width"]),
                (&kind.into(), &width.into())
            );
            assert_eq!(event["object"]["apiVersion"], "example.com/v2");
        }
    }
    // A watch whose objects cannot be converted says so, and ends.
    webhook.behave(|_| Reply::Status(500, "out of order"));
    rest.delete(&format!("{V1}/n4")).await.expect(200);
    let event = changes.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert!(event["object"]["message"].as_str().unwrap().contains("out of order"), "{event}");
    server.stop().await;
}

/// Objects stay in the version that they were written in, until they are written again.
#[tokio::test]
async fn the_storage_version_changes() {
    let (server, rest, _webhook) = start().await;
    rest.post(V1, &widget("old", json!({"size": 3}))).await.expect(201);
    let swap = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let name = format!("{DEFINITIONS}/widgets.example.com");
    let changed = rest.patch(&name, "json", &swap).await.expect(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    rest.post(V1, &widget("new", json!({"size": 4}))).await.expect(201);
    for (name, size) in [("old", 3), ("new", 4)] {
        let one = rest.get(&format!("{V1}/{name}")).await.expect(200);
        let other = rest.get(&format!("{V2}/{name}")).await.expect(200);
        assert_eq!(
            (&one["spec"]["size"], &other["spec"]["width"]),
            (&size.into(), &(10 * size).into())
        );
    }
    assert_eq!(rest.get(V2).await.expect(200)["items"].as_array().unwrap().len(), 2);
    rest.patch(&format!("{V1}/old"), "merge", &json!({"spec": {"size": 9}})).await.expect(200);
    assert_eq!(rest.get(&format!("{V2}/old")).await.expect(200)["spec"]["width"], 90);
    server.stop().await;
}

/// A write that changes nothing stores what would be stored otherwise now, once: in another
/// version, or with another default. Through whichever version it comes.
#[tokio::test]
async fn what_is_stored_otherwise_is_written_anew_once() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let other = "/apis/example.com/v1beta1/namespaces/default/widgets";
    for name in ["a", "b"] {
        rest.post(V1, &widget(name, json!({"size": 3}))).await.expect(201);
    }
    let touch = async |path: &str| -> String {
        let same = rest.patch(path, "merge", &json!({})).await.expect(200);
        same["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    };
    let definition = format!("{DEFINITIONS}/widgets.example.com");
    let storage = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let place = |version: usize| {
        json!({"op": "add", "value": {"type": "string", "default": "here"}, "path":
            format!("/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties/place")})
    };
    let default = json!([place(0), place(1)]);
    for (change, paths) in [(storage, [V1, other]), (default, [other, other])] {
        let before =
            [touch(&format!("{}/a", paths[0])).await, touch(&format!("{}/b", paths[1])).await];
        assert_eq!(before[0], touch(&format!("{}/a", paths[0])).await);
        rest.patch(&definition, "json", &change).await.expect(200);
        for (path, before) in
            [format!("{}/a", paths[0]), format!("{}/b", paths[1])].iter().zip(before)
        {
            let written = touch(path).await;
            assert_ne!(written, before, "{path} after {change}");
            for path in [path.replace("v1beta1", "v1"), path.replace("/v1/", "/v1beta1/")] {
                assert_eq!(touch(&path).await, written, "{path} after {change}");
            }
        }
    }
    server.stop().await;
}

type Wrong = fn(&Value) -> Reply;

/// A converted object that `change` has made wrong.
fn lie(request: &Value, change: fn(&mut Value)) -> Reply {
    let mut objects = objects(request);
    change(&mut objects[0]);
    Reply::Json(review(request, &objects))
}

const WRONG: &[(Wrong, &str)] = &[
    (
        |_| Reply::Status(500, "boom"),
        r#"failed: an error on the server ("boom") has prevented the request from succeeding"#,
    ),
    (|_| Reply::Status(404, ""), "failed: the server could not find the requested resource"),
    (
        |_| Reply::Redirect,
        "failed: the server responded with the status code 307 but did not return more information",
    ),
    (|_| Reply::Long(10 << 20), "length limit exceeded"),
    (|_| Reply::Json(json!("garbage")), "failed: invalid type"),
    (
        |_| Reply::Json(json!({})),
        "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got ",
    ),
    (
        |_| {
            Reply::Json(
                json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}),
            )
        },
        "failed: no response provided",
    ),
    (
        |request| {
            let mut wrong = review(request, &objects(request));
            wrong["response"]["uid"] = "other".into();
            Reply::Json(wrong)
        },
        r#"got "other""#,
    ),
    (
        |request| {
            let mut wrong = review(request, &[]);
            wrong["response"]["result"] = json!({"status": "Failed", "message": "not today"});
            Reply::Json(wrong)
        },
        "failed: not today",
    ),
    (
        |request| {
            let mut wrong = review(request, &[]);
            wrong["response"]["result"] = json!({"status": "Failed"});
            Reply::Json(wrong)
        },
        "failed: response.result.status was 'Failed', not 'Success'",
    ),
    (|request| Reply::Json(review(request, &[])), "returned 0 objects, expected 1"),
    (
        |request| {
            let twice = [objects(request), objects(request)].concat();
            Reply::Json(review(request, &twice))
        },
        "returned 2 objects, expected 1",
    ),
    (|request| Reply::Json(review(request, &[json!(7)])), "returned invalid object: "),
    (
        |request| lie(request, |object| object["apiVersion"] = "example.com/v7".into()),
        "invalid groupVersion (expected ",
    ),
    (
        |request| lie(request, |object| object["kind"] = "Gadget".into()),
        "invalid kind (expected Widget, received Gadget)",
    ),
    (
        |request| lie(request, |object| object["metadata"]["name"] = "z".into()),
        "returned invalid object: must have the same name: a != z",
    ),
    (
        |request| lie(request, |object| object["metadata"]["namespace"] = "z".into()),
        "returned invalid object: must have the same namespace: default != z",
    ),
    (
        |request| lie(request, |object| object["metadata"]["uid"] = "z".into()),
        "returned invalid object: must have the same UID: ",
    ),
    (
        |request| lie(request, |object| object["metadata"] = Value::Null),
        "returned invalid metadata: invalid metadata",
    ),
    (
        |request| {
            lie(request, |object| {
                object.as_object_mut().unwrap().remove("metadata");
            })
        },
        "returned invalid metadata: missing metadata in converted object",
    ),
    (
        |request| lie(request, |object| object["metadata"]["labels"] = json!({"a": 1})),
        "returned invalid metadata: metadata.labels[a] must be a string",
    ),
    (
        |request| lie(request, |object| object["metadata"]["labels"] = json!({"a b": "c"})),
        "returned invalid metadata: metadata.labels: Invalid value: \"a b\"",
    ),
    (
        |request| lie(request, |object| object["metadata"]["annotations"] = json!([])),
        "returned invalid metadata: invalid metadata.annotations",
    ),
];

fn message(answer: &Answer) -> &str {
    assert_eq!(answer.code, 500, "{}", answer.text);
    answer.body["message"].as_str().unwrap()
}

/// Whatever a webhook answers, nothing wrong is stored or shown, and the stored version is served.
#[tokio::test]
async fn a_webhook_that_fails_or_lies_changes_nothing() {
    let (server, rest, webhook) = start().await;
    let before = rest.post(V1, &widget("a", json!({"size": 3}))).await.expect(201);
    for (behaviour, expected) in WRONG {
        webhook.behave(*behaviour);
        let answers = [
            rest.get(&format!("{V2}/a")).await,
            rest.patch(&format!("{V2}/a"), "merge", &json!({"spec": {"width": 90}})).await,
            rest.delete(&format!("{V2}/a")).await,
        ];
        for answer in answers {
            let text = message(&answer);
            assert!(
                text.starts_with("conversion webhook for example.com/v1, Kind=Widget "),
                "{text}"
            );
            assert!(text.contains(expected), "{text}\n{expected}");
        }
        assert_eq!(rest.get(V2).await.code, 500, "{expected}");
        assert_eq!(rest.get(&format!("{V1}/a")).await.expect(200), before);
    }
    // On the way to the store and back.
    for fails_at in [0, 1] {
        webhook.requests.lock().clear();
        let asked = webhook.requests.clone();
        webhook.behave(move |request| {
            if asked.lock().len() == fails_at { Reply::Status(500, "no") } else { honest(request) }
        });
        message(&rest.post(V2, &wide("b", 30)).await);
        rest.get(&format!("{V1}/b")).await.expect(404);
    }
    // What it says of metadata other than labels and annotations is ignored.
    webhook.behave(|request| {
        lie(request, |object| {
            object["metadata"]["generation"] = 99.into();
            object["metadata"]["finalizers"] = json!(["example.com/x"]);
            object["metadata"]["labels"] = json!({"new": "label"});
        })
    });
    let shown = rest.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(shown["metadata"]["labels"], json!({"new": "label"}));
    assert_eq!(shown["metadata"]["generation"], 1);
    assert!(shown["metadata"].get("finalizers").is_none());
    server.stop().await;
}

/// Calls of a webhook that does not answer: what they have sent and may receive is bounded, others
/// wait, and their places come back.
#[tokio::test]
async fn what_calls_of_a_webhook_hold_is_bounded() {
    const HELD_MAX: usize = 64 << 20;
    const CALLS: usize = 80;
    let (server, rest, webhook) = start().await;
    for number in 0..8 {
        let mut large = widget(&format!("n{number}"), json!({"size": 3}));
        large["metadata"]["annotations"] = json!({"text": "x".repeat(250_000)});
        rest.post(V1, &large).await.expect(201);
    }
    let calls = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counted = calls.clone();
    webhook.behave(move |review| {
        // What is sent, and place for an answer that is not large.
        let held = review.to_string().len() + (64 << 10);
        counted.0.fetch_add(1, Ordering::Relaxed);
        counted.1.fetch_add(held, Ordering::Relaxed);
        Reply::Hang
    });
    let waiting: Vec<_> = (0..CALLS)
        .map(|_| {
            let rest = rest.clone();
            tokio::spawn(async move { rest.get(&format!("{V2}?timeout=4s")).await.code })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (called, held) = (calls.0.load(Ordering::Relaxed), calls.1.load(Ordering::Relaxed));
    // A call is counted in whole KiB.
    assert!(called < CALLS && held <= HELD_MAX + HELD_MAX / 50, "{called} calls hold {held}");
    assert!(held + 2 * held / called > HELD_MAX, "{called} calls hold {held}");
    for request in waiting {
        assert_eq!(request.await.unwrap(), 504);
    }
    webhook.behave(honest);
    rest.get(V2).await.expect(200);
    server.stop().await;
}

/// A webhook that does not answer holds up only the requests that need it.
#[tokio::test]
async fn a_webhook_that_hangs_holds_up_nobody_else() {
    let (server, rest, webhook) = start().await;
    rest.post(V1, &widget("a", json!({"size": 3}))).await.expect(201);
    webhook.behave(|_| Reply::Hang);
    let hanging: Vec<_> = (0..20)
        .map(|_| {
            let rest = rest.clone();
            tokio::spawn(async move { rest.get(&format!("{V2}/a?timeout=2s")).await.code })
        })
        .collect();
    let others = async {
        for number in 0..20 {
            let name = format!("n{number}");
            rest.post(V1, &widget(&name, json!({"size": 3}))).await.expect(201);
            let config = json!({"metadata": {"name": name}});
            rest.post("/api/v1/namespaces/default/configmaps", &config).await.expect(201);
            rest.get(V1).await.expect(200);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), others).await.unwrap();
    for request in hanging {
        assert_eq!(request.await.unwrap(), 504);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_webhook_has_to_be_who_it_should_be() {
    let (server, rest, webhook) = start().await;
    rest.post(V1, &widget("a", json!({"size": 3}))).await.expect(201);
    rest.get(&format!("{V2}/a")).await.expect(200);
    let other = Webhook::start("127.0.0.1", &["127.0.0.1"], honest).await.unwrap();
    let wrong = [
        // Another authority, the machine's authorities, another name, nobody there.
        json!({"url": webhook.client_config()["url"], "caBundle": other.client_config()["caBundle"]}),
        json!({"url": webhook.client_config()["url"], "caBundle": null}),
        json!({"url": format!("https://127.0.0.2:{}/", webhook.port)}),
        json!({"url": "https://127.0.0.1:1/convert"}),
        json!({"url": null, "service": {"namespace": "default", "name": "hook"}}),
    ];
    let name = format!("{DEFINITIONS}/widgets.example.com");
    for client in wrong {
        let patch = json!({"spec": {"conversion": {"webhook": {"clientConfig": client}}}});
        rest.patch(&name, "merge", &patch).await.expect(200);
        let answer = rest.get(&format!("{V2}/a")).await;
        let text = message(&answer);
        let start = "conversion webhook for example.com/v1, Kind=Widget failed: Post \"https://";
        assert!(text.starts_with(start) && text.contains("timeout=30s\": "), "{text}");
    }
    server.stop().await;
}
