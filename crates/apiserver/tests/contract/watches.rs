//! Watches: order, selectors, bookmarks, resumption, expiry.

use serde_json::json;

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_selector_turns_modifications_into_additions_and_deletions() {
    let server = Server::start().await;
    let rest = server.admin();
    let before = rest.get(MAPS).await.expect(200);
    let version = before["metadata"]["resourceVersion"].as_str().unwrap();
    let mut all = rest.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    let mut some = rest
        .watch(&format!("{MAPS}?watch=true&labelSelector=on%3Dyes&resourceVersion={version}"))
        .await;
    let labels = |value: &str| json!({"metadata": {"labels": {"on": value}}});
    rest.post(MAPS, &json!({"metadata": {"name": "a", "labels": {"on": "no"}}})).await.expect(201);
    for value in ["yes", "yes!", "yes", "no"] {
        let patched = rest.patch(&format!("{MAPS}/a"), "merge", &labels(value)).await;
        assert_eq!(patched.code == 422, value == "yes!", "{}", patched.text);
    }
    let last = rest.patch(&format!("{MAPS}/a"), "merge", &labels("yes")).await.expect(200);
    rest.delete(&format!("{MAPS}/a")).await.expect(200);
    for expected in ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.next_change().await.0, expected);
    }
    for expected in ["ADDED", "DELETED", "ADDED"] {
        assert_eq!(some.next_change().await, (expected.to_owned(), "a".to_owned()));
    }
    let gone = some.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let (deleted, changed) = (&gone["object"]["metadata"], &last["metadata"]);
    assert!(number(&deleted["resourceVersion"]) > number(&changed["resourceVersion"]));
    server.stop().await;
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    let rest = server.admin();
    for name in ["a", "b"] {
        rest.post(MAPS, &json!({"metadata": {"name": name}})).await.expect(201);
    }
    let streaming =
        "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut lines = rest.watch(&format!("{MAPS}?{streaming}")).await;
    assert_eq!(lines.next_change().await, ("ADDED".into(), "a".into()));
    assert_eq!(lines.next_change().await, ("ADDED".into(), "b".into()));
    let bookmark = lines.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let metadata = &bookmark["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    rest.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.expect(422);

    let version = metadata["resourceVersion"].as_str().unwrap();
    rest.post(MAPS, &json!({"metadata": {"name": "c"}})).await.expect(201);
    let mut resumed = rest.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    assert_eq!(resumed.next_change().await, ("ADDED".into(), "c".into()));
    let mut short = rest
        .watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dz"))
        .await;
    assert!(short.next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_node_sees_its_pods_only() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let mut mine =
        rest.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1&resourceVersion=0").await;
    for name in ["a", "b"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        rest.post(pods, &pod).await.expect(201);
    }
    let bind = |node: &str| json!({"target": {"kind": "Node", "name": node}});
    rest.post(&format!("{pods}/a/binding"), &bind("n2")).await.expect(201);
    rest.post(&format!("{pods}/b/binding"), &bind("n1")).await.expect(201);
    rest.post(&format!("{pods}/b/binding"), &bind("n2")).await.expect(409);
    assert_eq!(mine.next_change().await, ("ADDED".into(), "b".into()));
    let list = rest.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await.expect(200);
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert_eq!(list["items"][0]["status"]["conditions"][0]["type"], "PodScheduled");
    server.stop().await;
}
