//! Bad input: both front ends refuse each case with Kubernetes' code, reason, message and causes,
//! and nothing is changed.

#[path = "bad_input/ask.rs"]
mod ask;
#[path = "bad_input/bodies.rs"]
mod bodies;
#[path = "bad_input/credentials.rs"]
mod credentials;
#[path = "bad_input/http.rs"]
mod http;
#[path = "bad_input/kinds.rs"]
mod kinds;
#[path = "bad_input/objects.rs"]
mod objects;
#[path = "bad_input/options.rs"]
mod options;

use ask::Case;
use serde_json::json;

use crate::server::{Rest, Server};

/// Creates the objects that the cases refer to.
async fn create_fixtures(rest: &Rest) {
    let spaced = "/api/v1/namespaces/default";
    rest.post(
        &format!("{spaced}/configmaps"),
        &json!({"metadata": {"name": "fixed"}, "data": {"k": "v"}, "immutable": true}),
    )
    .await
    .expect(201);
    rest.post(
        &format!("{spaced}/configmaps"),
        &json!({"metadata": {"name": "plain"}, "data": {"k": "v"}}),
    )
    .await
    .expect(201);
    rest.post(
        &format!("{spaced}/secrets"),
        &json!({"metadata": {"name": "typed"}, "type": "Opaque"}),
    )
    .await
    .expect(201);
    rest.post(
        &format!("{spaced}/services"),
        &json!({"metadata": {"name": "svc"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.50"}}),
    )
    .await
    .expect(201);
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    rest.post(
        "/apis/apps/v1/namespaces/default/deployments",
        &json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": template,
        }}),
    )
    .await
    .expect(201);
    rest.post(
        "/apis/batch/v1/namespaces/default/jobs",
        &json!({"metadata": {"name": "once"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        }}}}),
    )
    .await
    .expect(201);
    rest.post(
        &format!("{spaced}/pods"),
        &json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await
    .expect(201);
}

/// The store's revision, and every object in it.
async fn state(server: &Server, rest: &Rest) -> (String, Vec<String>) {
    let mut all = Vec::new();
    let mut revision = String::new();
    for row in api::kind::KINDS.iter().filter(|row| row.stored) {
        let root = if row.group.is_empty() { "api" } else { "apis" };
        let path = format!("/{root}/{}/{}", row.api_version(), row.plural);
        let list = rest.get(&path).await.expect(200);
        let stored = list["metadata"]["resourceVersion"].as_str().unwrap();
        stored.clone_into(&mut revision);
        for item in list["items"].as_array().unwrap() {
            let metadata = &item["metadata"];
            all.push(format!(
                "{} {} {}",
                row.plural, metadata["name"], metadata["resourceVersion"]
            ));
        }
    }
    assert!(server.port > 0);
    (revision, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    create_fixtures(&rest).await;
    let before = state(&server, &rest).await;
    let mut wrong = Vec::new();
    let cases: Vec<Case> =
        [bodies::cases(), kinds::cases(), objects::cases(), options::cases()].concat();
    for case in &cases {
        case.ask_both(&server, &mut wrong).await;
    }
    http::ask_all(&rest, &mut wrong).await;
    credentials::ask_all(&server, &mut wrong).await;
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(state(&server, &rest).await, before);
    server.stop().await;
}
