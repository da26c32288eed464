//! Warnings that clients get with the answer.

use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::{Answer, Server};

const NAMESPACE: &str = "/api/v1/namespaces/default";

fn warnings(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all("warning").iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn deployment(env: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "env": env}], "nodeSelector": {"beta.kubernetes.io/os": "linux"}},
        },
    }})
}

#[tokio::test]
async fn warnings_are_sent_through_both_front_ends() {
    let server = Server::start().await;
    let (rest, mut grpc) = (server.admin(), server.grpc());
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let expected = [
        "299 - \"spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \\\"kubernetes.io/os\\\" instead\"",
        "299 - \"spec.template.spec.containers[0].env[1]: hides previous definition of \\\"A\\\", which may be dropped when using apply\"",
    ];
    let made = rest.post(path, &deployment(twice.clone())).await;
    assert_eq!(warnings(&made), expected);
    made.expect(201);
    let path = format!("{path}/web");
    let scaled = rest.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert!(warnings(&scaled).is_empty(), "what did not change is not reported again");
    let create = pb::CreateRequest {
        target: Some(pb::Target {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            namespace: "default".into(),
            ..pb::Target::default()
        }),
        json: {
            let mut other = deployment(twice);
            other["metadata"]["name"] = "other".into();
            other.to_string().into()
        },
        options: None,
    };
    let answer = grpc.create(create).await.unwrap();
    let reported = answer.metadata().get_all("warning").iter().count();
    assert_eq!(reported, 2);
    let endpoints = rest.get(&format!("{NAMESPACE}/endpoints")).await;
    assert_eq!(
        warnings(&endpoints),
        ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]
    );
    let headless = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}});
    let made = rest.post(&format!("{NAMESPACE}/services"), &headless).await;
    assert_eq!(
        warnings(&made),
        ["299 - \"spec.externalIPs is ignored when spec.clusterIP is \\\"None\\\"\""]
    );
    server.stop().await;
}

/// Server-side apply to subresources owns the fields that they can change.
#[tokio::test]
async fn subresources_can_be_applied() {
    let server = Server::start().await;
    let rest = server.admin();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    rest.post(path, &deployment(json!([]))).await.expect(201);
    let headers = [("content-type", "application/apply-patch+yaml")];
    let apply = async |subresource: &str, manager: &str, body: Value| {
        let path = format!("{path}/web{subresource}?fieldManager={manager}");
        rest.ask("PATCH", &path, &headers, body.to_string().into_bytes()).await
    };
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 1}});
    let applied = apply("/status", "controller", status).await.expect(200);
    assert_eq!(applied["status"]["replicas"], 1);
    let owners = applied["metadata"]["managedFields"].as_array().unwrap();
    let own = owners.iter().find(|own| own["manager"] == "controller").unwrap();
    assert_eq!(own["subresource"], "status");
    assert_eq!(own["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));

    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    apply("/scale", "scaler", scale(3)).await.expect(409);
    let scaled = apply("/scale", "scaler&force=true", scale(3)).await.expect(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let whole = rest.get(&format!("{path}/web")).await.expect(200);
    let owners = whole["metadata"]["managedFields"].as_array().unwrap();
    let own = owners.iter().find(|own| own["manager"] == "scaler").unwrap();
    assert_eq!(
        (&own["subresource"], &own["operation"], &own["fieldsV1"]),
        (&json!("scale"), &json!("Apply"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    let refused = apply("/scale", "other", scale(5)).await.expect(409);
    assert!(refused["message"].as_str().unwrap().contains(".spec.replicas"), "{refused}");
    let forced = apply("/scale", "other&force=true", scale(5)).await.expect(200);
    assert_eq!(forced["spec"]["replicas"], 5);
    apply("/scale", "other", scale(-1)).await.expect(422);
    apply("/scale", "other", json!({"spec": {"nope": 1}})).await.expect(500);
    server.stop().await;
}
