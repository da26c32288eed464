//! The verbs through both front ends, which must give the same results.

use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn target(name: &str) -> Option<pb::Target> {
    Some(pb::Target {
        version: "v1".into(),
        resource: "configmaps".into(),
        namespace: "default".into(),
        name: name.into(),
        ..pb::Target::default()
    })
}

fn body(object: &pb::Object) -> Value {
    serde_json::from_slice(&object.json).unwrap()
}

#[tokio::test]
async fn each_front_end_reads_what_the_other_writes() {
    let server = Server::start().await;
    let (rest, mut grpc) = (server.admin(), server.grpc());
    let json = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let request =
        pb::CreateRequest { target: target(""), json: json.to_string().into(), options: None };
    let created = grpc.create(request).await.unwrap().into_inner();
    assert_eq!((created.namespace.as_str(), created.name.as_str()), ("default", "a"));
    let read = rest.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(read, body(&created));
    assert_eq!(read["metadata"]["resourceVersion"], created.revision.to_string());

    let patched = rest
        .patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"k": null, "l": "m"}}))
        .await
        .expect(200);
    let get = pb::GetRequest { target: target("a"), ..pb::GetRequest::default() };
    let got = grpc.get(get).await.unwrap().into_inner();
    assert_eq!(body(&got), patched);
    assert_eq!(patched["data"], json!({"l": "m"}));

    let patch = pb::PatchRequest {
        target: target("a"),
        r#type: pb::PatchType::JsonPatch.into(),
        patch: r#"[{"op":"add","path":"/data/x","value":"y"}]"#.into(),
        options: None,
    };
    let twice = body(&grpc.patch(patch).await.unwrap().into_inner());
    assert_eq!(twice["data"], json!({"l": "m", "x": "y"}));

    let mut stale = created.clone();
    stale.json = body(&created).to_string().into();
    let update = pb::UpdateRequest { target: target("a"), json: stale.json.clone(), options: None };
    let status = grpc.update(update).await.unwrap_err();
    let error = rpc::status::from_grpc(&status).unwrap();
    let answer = rest.send("PUT", &format!("{MAPS}/a"), &body(&stale)).await;
    assert_eq!(answer.code, 409);
    assert_eq!(answer.body["message"], error.message());
    assert!(error.message().contains("the object has been modified"), "{error}");

    let delete = pb::DeleteRequest { target: target("a"), ..pb::DeleteRequest::default() };
    let deleted = body(&grpc.delete(delete).await.unwrap().into_inner());
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
    rest.get(&format!("{MAPS}/a")).await.expect(404);
    server.stop().await;
}

#[tokio::test]
async fn lists_pages_and_watches_over_grpc() {
    let server = Server::start().await;
    let mut grpc = server.grpc();
    for name in ["a", "b", "c"] {
        let json = json!({"metadata": {"name": name, "labels": {"own": name}}}).to_string();
        let create = pb::CreateRequest { target: target(""), json: json.into(), options: None };
        grpc.create(create).await.unwrap();
    }
    let list = pb::ListRequest { target: target(""), limit: 2, ..pb::ListRequest::default() };
    let mut pages = grpc.list(list).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    assert_eq!(page.items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(page.remaining_item_count, 1);
    let watch = pb::WatchRequest {
        target: target(""),
        label_selector: "own=c".into(),
        send_initial_events: true,
        allow_watch_bookmarks: true,
        ..pb::WatchRequest::default()
    };
    let mut events = grpc.watch(watch).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(events.message().await.unwrap().unwrap().events);
    }
    assert_eq!(
        (seen[0].r#type(), seen[0].object.as_ref().unwrap().name.as_str()),
        (pb::EventType::Added, "c")
    );
    assert!(seen[1].initial_events_end);
    server.stop().await;
}

#[tokio::test]
async fn the_server_sets_its_own_fields() {
    let server = Server::start().await;
    let rest = server.admin();
    let object = json!({"metadata": {"generateName": "web-", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z",
        "generation": 77, "managedFields": [{"manager": "x"}], "deletionTimestamp": "2001-01-01T00:00:00Z"}, "data": {}});
    let created = rest.post(MAPS, &object).await.expect(201);
    let metadata = &created["metadata"];
    let name = metadata["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9);
    assert_ne!(metadata["uid"], "mine");
    assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
    assert!(metadata.get("generation").is_none());
    let owners = metadata["managedFields"].as_array().unwrap();
    assert!(owners.len() == 1 && owners[0]["manager"] != "x", "{owners:?}");
    assert!(metadata.get("deletionTimestamp").is_none());

    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let created = rest.post(path, &deployment).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let scaled = rest
        .patch(&format!("{path}/d/scale"), "merge", &json!({"spec": {"replicas": 4}}))
        .await
        .expect(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    let after = rest.get(&format!("{path}/d")).await.expect(200);
    assert_eq!(
        (&after["metadata"]["generation"], &after["spec"]["replicas"]),
        (&json!(2), &json!(4))
    );
    let status = json!({"status": {"replicas": 4}, "spec": {"replicas": 9}});
    let after = rest.patch(&format!("{path}/d/status"), "merge", &status).await.expect(200);
    assert_eq!((&after["status"]["replicas"], &after["spec"]["replicas"]), (&json!(4), &json!(4)));
    let same = rest.patch(&format!("{path}/d/status"), "merge", &status).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    let merged = rest
        .patch(
            &format!("{path}/d"),
            "strategic-merge",
            &json!({"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "f"}]}}}}),
        )
        .await
        .expect(200);
    assert_eq!(merged["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::start().await;
    let rest = server.admin();
    let object = json!({"metadata": {"name": "dry"}, "data": {"a": "b"}});
    rest.post(&format!("{MAPS}?dryRun=All"), &object).await.expect(201);
    rest.get(&format!("{MAPS}/dry")).await.expect(404);
    rest.post(MAPS, &object).await.expect(201);
    rest.post(&format!("{MAPS}?dryRun=All"), &object).await.expect(409);
    let patch = json!({"data": {"a": "c"}});
    let dry = rest.patch(&format!("{MAPS}/dry?dryRun=All"), "merge", &patch).await.expect(200);
    assert_eq!(dry["data"]["a"], "c");
    rest.delete(&format!("{MAPS}/dry?dryRun=All")).await.expect(200);
    assert_eq!(rest.get(&format!("{MAPS}/dry")).await.expect(200)["data"]["a"], "b");
    rest.post(&format!("{MAPS}?dryRun=Some"), &object).await.expect(422);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_patches_are_neither_lost_nor_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.post(MAPS, &json!({"metadata": {"name": "many"}})).await.expect(201);
    let one = format!("{MAPS}/many");
    let patches: Vec<_> = (0..64).map(|i| json!({"data": {format!("k{i}"): "v"}})).collect();
    let all = patches.iter().map(|patch| rest.patch(&one, "merge", patch));
    for answer in futures::future::join_all(all).await {
        answer.expect(200);
    }
    let map = rest.get(&one).await.expect(200);
    assert_eq!(map["data"].as_object().unwrap().len(), 64);
    server.stop().await;
}
