//! Events through both of their groups.

use serde_json::{Value, json};

use crate::server::Server;

const CORE: &str = "/api/v1/namespaces/default/events";
const NEWER: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const TIME: &str = "2026-01-02T03:04:05.123456Z";

fn event(name: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "labels": {"a": "b"}},
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Tested", "note": "it works",
        "action": "Test", "type": "Normal", "eventTime": TIME, "reportingController": "example.com/tester",
        "reportingInstance": "tester-1",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_groups_show_the_same_events() {
    let server = Server::start().await;
    let rest = server.admin();
    let made = rest.post(NEWER, &event("e")).await.expect(201);
    assert_eq!(made["apiVersion"], "events.k8s.io/v1");
    assert_eq!(made["note"], "it works");
    let core = rest.get(&format!("{CORE}/e")).await.expect(200);
    assert_eq!(core["apiVersion"], "v1");
    assert_eq!(core["message"], "it works");
    assert_eq!(core["involvedObject"]["name"], "p");
    assert_eq!(core["reportingComponent"], "example.com/tester");
    assert_eq!(core["eventTime"], TIME);
    assert_eq!(core["metadata"]["uid"], made["metadata"]["uid"]);

    let old = json!({"metadata": {"name": "old"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "message": "m", "reason": "r", "type": "Warning", "count": 3, "source": {"component": "c"}});
    rest.post(CORE, &old).await.expect(201);
    let list = rest.get(NEWER).await.expect(200);
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"][1]["deprecatedCount"], 3);
    assert_eq!(list["items"][1]["deprecatedSource"]["component"], "c");
    assert_eq!(list["items"][1]["note"], "m");

    let one = format!("{NEWER}/e");
    let series = json!({"series": {"count": 2, "lastObservedTime": TIME}});
    let patched = rest.patch(&one, "strategic-merge", &series);
    let patched = patched.await.expect(200);
    assert_eq!(patched["series"]["count"], 2);
    let core = rest.get(&format!("{CORE}/e")).await.expect(200);
    assert_eq!(core["series"]["lastObservedTime"], TIME);

    let mut put = patched.clone();
    put["note"] = "changed".into();
    let put = rest.send("PUT", &one, &put);
    assert_eq!(put.await.expect(200)["note"], "changed");

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = rest.ask("GET", NEWER, &table, Vec::new()).await.expect(200);
    assert_eq!(table["rows"][0]["cells"][3], "pod/p");

    rest.delete(&format!("{NEWER}?labelSelector=a%3Db")).await.expect(200);
    assert_eq!(rest.get(&format!("{CORE}/e")).await.code, 404);
    let gone = rest.get(&format!("{NEWER}/e")).await.expect(404);
    assert_eq!(gone["message"], "events.events.k8s.io \"e\" not found");
    rest.get(&format!("{CORE}/old")).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sends_events_of_its_group() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.post(NEWER, &event("first")).await.expect(201);
    let mut watch = rest.watch(&format!("{NEWER}?watch=1")).await;
    rest.post(NEWER, &event("second")).await.expect(201);
    rest.delete(&format!("{CORE}/first")).await.expect(200);
    let mut reported = Vec::new();
    for _ in 0..3 {
        reported.push(watch.next().await.unwrap());
    }
    assert!(reported.iter().all(|one| one["object"]["note"] == "it works"), "{reported:?}");
    assert_eq!(reported[2]["type"], "DELETED");
    assert_eq!(reported[2]["object"]["apiVersion"], "events.k8s.io/v1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_group_requires_more() {
    let server = Server::start().await;
    let rest = server.admin();
    let refused = [
        ("eventTime", Value::Null, "eventTime"),
        ("type", "Odd".into(), "type"),
        ("reportingController", "".into(), "reportingController"),
        ("action", "".into(), "action"),
        ("series", json!({"count": 1, "lastObservedTime": TIME}), "series.count"),
        ("deprecatedCount", 1.into(), "count"),
    ];
    for (field, value, cause) in refused {
        let mut bad = event("x");
        bad[field] = value;
        let answer = rest.post(NEWER, &bad).await.expect(422);
        assert_eq!(answer["details"]["causes"][0]["field"], cause, "{answer}");
    }
    let strict = format!("{NEWER}?fieldValidation=Strict");
    let mut unknown = event("x");
    unknown["message"] = "old name".into();
    let answer = rest.post(&strict, &unknown).await.expect(400);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .ends_with("strict decoding error: unknown field \"message\"")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_group_selects_by_its_own_fields() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.post(NEWER, &event("e")).await.expect(201);
    let mut other = event("other");
    other["regarding"]["name"] = "q".into();
    other["reason"] = "Other".into();
    other["reportingController"] = "example.com/other".into();
    other["type"] = "Warning".into();
    rest.post(NEWER, &other).await.expect(201);
    let both = [
        ("regarding.name", "involvedObject.name", "p"),
        ("reportingController", "reportingComponent", "example.com/tester"),
        ("reason", "reason", "Tested"),
        ("type", "type", "Normal"),
    ];
    for (newer, core, value) in both {
        for (path, field) in [(NEWER, newer), (CORE, core)] {
            let list = format!("{path}?fieldSelector={field}%3D{value}");
            let list = rest.get(&list).await.expect(200);
            let names: Vec<_> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| &one["metadata"]["name"])
                .collect();
            assert_eq!(names, ["e"], "{path} {field}");
        }
        for (path, field) in [(NEWER, core), (CORE, newer)].into_iter().filter(|_| newer != core) {
            let list = format!("{path}?fieldSelector={field}%3D{value}");
            let message = format!("field label not supported: {field}");
            assert_eq!(rest.get(&list).await.expect(400)["message"], message);
        }
    }
    rest.delete(&format!("{NEWER}?fieldSelector=regarding.name%3Dp")).await.expect(200);
    let left = rest.get(NEWER).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    server.stop().await;
}
