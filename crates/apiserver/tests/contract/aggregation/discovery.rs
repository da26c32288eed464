//! Discovery and OpenAPI of everything that is served, by whomever.

use serde_json::{Value, json};
use testkit::extension::{Reply, Things};

use super::{NAME, PATH, Set, THINGS, until, until_condition};
use crate::server::Rest;

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The versions of the group in aggregated discovery, once they are so.
async fn until_versions(rest: &Rest, is_so: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let all = rest.ask("GET", "/apis", &[("accept", ACCEPT)], Vec::new()).await.expect(200);
            let groups = all["items"].as_array().unwrap().iter();
            let mut named = groups.filter(|group| group["metadata"]["name"] == THINGS.group);
            let versions = named.next().map(|group| group["versions"].clone()).unwrap_or_default();
            if is_so(&versions) {
                return versions;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::SOON, waiting).await.expect("discovery becomes so")
}

fn things(freshness: &str) -> Value {
    json!([{"version": "v1", "freshness": freshness, "resources": [{
        "resource": "things", "scope": "Namespaced", "singularResource": "thing",
        "responseKind": {"group": "things.example.com", "version": "v1", "kind": "Thing"},
        "verbs": ["get", "list", "watch", "create"]}]}])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_other_servers_are_discovered_among_our_own() {
    let set = Set::start().await;
    let groups = set.rest.get("/apis").await.expect(200);
    let groups = groups["groups"].as_array().unwrap();
    let names: Vec<_> = groups.iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
    let end = ["resource.k8s.io", "things.example.com", "metrics.k8s.io"];
    assert_eq!(names[names.len() - 3..], end);
    let group = set.rest.get("/apis/things.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "things.example.com/v1");
    // The list of resources is the server's own.
    let list = set.rest.get(PATH).await.expect(200);
    assert_eq!(list["resources"][0]["name"], "things");
    assert_eq!(until_versions(&set.rest, |now| *now == things("Current")).await, things("Current"));
    // What is there stays when the server has gone, but is no longer said to be so.
    set.rest.delete("/api/v1/namespaces/default/services/extension").await.expect(200);
    until_condition(&set.rest, NAME, "False", "ServiceNotFound").await;
    until_versions(&set.rest, |now| *now == things("Stale")).await;
    let group = set.rest.get("/apis/things.example.com").await.expect(200);
    assert_eq!(group["versions"].as_array().unwrap().len(), 1);
    set.rest.get(PATH).await;
    let path = format!("{}/{NAME}", super::SERVICES);
    set.rest.delete(&path).await.expect(200);
    until_versions(&set.rest, Value::is_null).await;
    set.rest.get("/apis/things.example.com").await.expect(404);
    set.rest.get(&format!("{PATH}/things")).await.expect(404);
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_without_aggregated_discovery_are_discovered_too() {
    let set = Set::start_with(|seen| Things { aggregated: false, ..THINGS }.answer(seen)).await;
    until_versions(&set.rest, |now| *now == things("Current")).await;
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openapi_of_other_servers_is_a_part_of_ours() {
    let set = Set::start().await;
    let key = PATH.trim_start_matches('/');
    let index = until(&set.rest, "/openapi/v3", |index| index["paths"][key].is_object()).await;
    let url = index["paths"][key]["serverRelativeURL"].as_str().unwrap();
    let document = set.rest.get(url).await.expect(200);
    assert_eq!(document["info"]["title"], "things");
    let path = format!("{PATH}/things");
    let whole = until(&set.rest, "/openapi/v2", |whole| whole["paths"][&path].is_object()).await;
    assert_eq!(whole["definitions"]["com.example.Thing"], json!({"type": "object"}));
    assert!(whole["paths"]["/apis/apps/v1/deployments"]["get"].is_object(), "still our own");
    assert!(whole["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let protobuf = set.rest.ask("GET", "/openapi/v2", &[("accept", accept)], Vec::new()).await;
    assert_eq!(protobuf.code, 200);
    assert!(protobuf.text.contains("com.example.Thing"));
    set.server.stop().await;
}

/// metrics-server, as its manifest registers it, in place of our own figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_the_server_that_is_named_for_them() {
    const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
    let set = Set::start_with(|seen| {
        let path = seen.path.split('?').next().unwrap_or_default();
        let item = json!({"metadata": {"name": "theirs", "namespace": "n"}, "containers": [],
            "timestamp": "2026-01-01T00:00:00Z", "window": "30s"});
        match path {
            "/apis/metrics.k8s.io/v1beta1/namespaces/n/pods" => Reply::Json(
                200,
                json!({
                "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {},
                "items": [item], "asked": seen.path}),
            ),
            METRICS => Reply::Json(
                200,
                json!({"kind": "APIResourceList", "resources": [],
                "groupVersion": "theirs"}),
            ),
            _ => THINGS.answer(seen),
        }
    })
    .await;
    let path = format!("{}/v1beta1.metrics.k8s.io", super::SERVICES);
    let own = set.rest.get(&path).await.expect(200);
    assert_eq!(super::condition(&own)[..2], ["True", "Local"]);
    let manifest = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": "metrics-server"}},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "insecureSkipTLSVerify": true,
            "service": {"name": "extension", "namespace": "default", "port": set.extension.port}}});
    set.rest.patch(&path, "merge", &manifest).await.expect(200);
    until_condition(&set.rest, "v1beta1.metrics.k8s.io", "True", "Passed").await;
    until(&set.rest, METRICS, |list| list["groupVersion"] == "theirs").await;
    let pods = set.rest.get(&format!("{METRICS}/namespaces/n/pods")).await.expect(200);
    assert_eq!(pods["items"][0]["metadata"]["name"], "theirs");
    // The other front end asks the same server.
    let target = rpc::api_v1::Target {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        resource: "pods".to_owned(),
        namespace: "n".to_owned(),
        ..Default::default()
    };
    let request = rpc::api_v1::ListRequest {
        target: Some(target),
        label_selector: "a=b".to_owned(),
        ..Default::default()
    };
    set.extension.take("");
    let mut pages = set.server.grpc().list(request).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    let item: Value = serde_json::from_slice(&page.items[0].json).unwrap();
    assert_eq!(item["metadata"]["name"], "theirs");
    let seen = set.extension.take("/pods").pop().unwrap();
    assert_eq!(
        (seen.path.split_once('?').unwrap().1, seen.header("x-remote-user")),
        ("labelSelector=a%3Db", "kubernetes-admin")
    );
    let groups = set.rest.get("/apis").await.expect(200);
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "metrics.k8s.io");
    // Without it, our own are back.
    set.rest.delete(&path).await.expect(200);
    until(&set.rest, METRICS, |list| list["groupVersion"] == "metrics.k8s.io/v1beta1").await;
    until_condition(&set.rest, "v1beta1.metrics.k8s.io", "True", "Local").await;
    set.server.stop().await;
}
