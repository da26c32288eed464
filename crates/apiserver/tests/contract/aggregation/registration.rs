//! The APIServices of this server's own groups.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{SERVICES, UNAVAILABLE, condition, until, until_condition};
use crate::custom::{DEFINITIONS, define, definition};
use crate::server::{Rest, Server};

const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Label, group priority and version priority of each, by name.
async fn all(rest: &Rest) -> BTreeMap<String, (String, i64, i64)> {
    let list = rest.get(SERVICES).await.expect(200);
    let of = |one: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_i64().unwrap();
        let spec = &one["spec"];
        assert!(spec["service"].is_null());
        assert_eq!(condition(one), ["True", "Local", "Local APIServices are always available"]);
        let values = (
            text(&one["metadata"]["labels"][LABEL]),
            number(&spec["groupPriorityMinimum"]),
            number(&spec["versionPriority"]),
        );
        (text(&one["metadata"]["name"]), values)
    };
    list["items"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_group_version_is_registered() {
    let server = Server::start().await;
    let rest = server.admin();
    let own = all(&rest).await;
    let names: Vec<_> = own.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "v1.",
            "v1.admissionregistration.k8s.io",
            "v1.apiextensions.k8s.io",
            "v1.apps",
            "v1.authentication.k8s.io",
            "v1.authorization.k8s.io",
            "v1.autoscaling",
            "v1.batch",
            "v1.certificates.k8s.io",
            "v1.coordination.k8s.io",
            "v1.discovery.k8s.io",
            "v1.events.k8s.io",
            "v1.flowcontrol.apiserver.k8s.io",
            "v1.networking.k8s.io",
            "v1.node.k8s.io",
            "v1.policy",
            "v1.rbac.authorization.k8s.io",
            "v1.resource.k8s.io",
            "v1.scheduling.k8s.io",
            "v1.storage.k8s.io",
            "v1.storagemigration.k8s.io",
            "v1beta1.metrics.k8s.io",
            "v2.autoscaling",
        ]
    );
    let of = |name: &str| own[name].clone();
    assert_eq!(of("v1."), ("onstart".to_owned(), 18_000, 1));
    assert_eq!(of("v2.autoscaling"), ("onstart".to_owned(), 17_500, 30));
    assert_eq!(of("v1beta1.metrics.k8s.io"), ("true".to_owned(), 100, 100));
    // Those of definitions come and go with them.
    define(&rest, &definition()).await;
    let custom =
        until(&rest, &format!("{SERVICES}/v1.example.com"), |one| one["kind"] == "APIService")
            .await;
    assert_eq!(custom["metadata"]["labels"][LABEL], "true");
    assert_eq!(
        (&custom["spec"]["groupPriorityMinimum"], &custom["spec"]["versionPriority"]),
        (&json!(1_000), &json!(100))
    );
    let path = format!("{SERVICES}/v1.example.com");
    rest.patch(&path, "merge", &json!({"spec": {"versionPriority": 5}})).await.expect(200);
    until(&rest, &path, |one| one["spec"]["versionPriority"] == 100).await;
    rest.delete(&path).await.expect(200);
    until(&rest, &path, |one| one["kind"] == "APIService").await;
    rest.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    until(&rest, &path, |one| one["code"] == 404).await;
    server.stop().await;
}

/// While it runs, the server leaves those of its built-in groups as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_built_in_group_can_be_replaced_until_the_next_start() {
    let mut server = Server::spawn(&[]).await;
    let rest = server.admin();
    let path = format!("{SERVICES}/v1.scheduling.k8s.io");
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    rest.get(classes).await.expect(200);
    let named = json!({"spec": {"service": {"namespace": "default", "name": "gone"}}});
    let named = rest.patch(&path, "merge", &named).await.expect(200);
    assert_eq!(named["spec"]["service"]["port"], 443);
    until_condition(&rest, "v1.scheduling.k8s.io", "False", "ServiceNotFound").await;
    let refused = rest.get(classes).await;
    assert_eq!((refused.code, refused.text.as_str()), (503, UNAVAILABLE));
    let other = format!("{SERVICES}/v1.batch");
    rest.delete(&other).await.expect(200);
    rest.get("/apis/batch/v1/jobs").await.expect(200);
    // That of metrics yields, also to the next start.
    let metrics = format!("{SERVICES}/v1beta1.metrics.k8s.io");
    let named = json!({"spec": {"service": {"namespace": "default", "name": "gone"}}});
    rest.patch(&metrics, "merge", &named).await.expect(200);
    server.restart().await;
    let rest = server.admin();
    rest.get(classes).await.expect(200);
    let restored = rest.get(&path).await.expect(200);
    assert!(restored["spec"]["service"].is_null(), "{restored}");
    until_condition(&rest, "v1.scheduling.k8s.io", "True", "Local").await;
    rest.get(&other).await.expect(200);
    let metrics = rest.get(&metrics).await.expect(200);
    assert_eq!(metrics["spec"]["service"]["name"], "gone");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_front_end_serves_them_too() {
    let server = Server::start().await;
    let target = rpc::api_v1::Target {
        group: "apiregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        resource: "apiservices".to_owned(),
        name: "v1.apps".to_owned(),
        ..Default::default()
    };
    let request = rpc::api_v1::GetRequest { target: Some(target), ..Default::default() };
    let answer = server.grpc().get(request.clone()).await.unwrap().into_inner();
    let object: Value = serde_json::from_slice(&answer.json).unwrap();
    assert_eq!(object["spec"]["groupPriorityMinimum"], 17_800);
    let refused = server.grpc_as("stranger", &[]).get(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    server.stop().await;
}
