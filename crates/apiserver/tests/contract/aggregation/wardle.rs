//! Upstream's end-to-end test of the aggregator, step by step, with a server that does what its
//! sample-apiserver does: it is told whom to believe, and asks the cluster who may do what.

use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::extension::Extension;
use testkit::wardle::{GROUP, PATH, Reviews, SERVICE, Trust, VERSION, Wardle};
use tokio::runtime::{Handle, Runtime};

use super::{SERVICES, SOON, condition, service, until, until_condition};
use crate::server::{Answer, Rest, Server};

const NAMESPACE: &str = "sample-system";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

struct Set {
    server: Server,
    admin: Rest,
    extension: Extension,
    /// Those of the server.
    threads: Option<Runtime>,
}

impl Set {
    async fn start() -> Self {
        let server = Server::start().await;
        let admin = server.admin();
        let token = account(&admin).await;
        let map = format!(
            "/api/v1/namespaces/kube-system/configmaps/{}",
            "extension-apiserver-authentication"
        );
        let map =
            ask(&server.rest_anonymous(), &token, "GET", &map, &Value::Null).await.expect(200);
        let (rest, handle) = (server.rest_anonymous(), Handle::current());
        let reviews: Reviews = Box::new(move |path, review| {
            let asking = ask(&rest, &token, "POST", path, review);
            tokio::task::block_in_place(|| handle.block_on(asking)).expect(201)
        });
        let wardle = Wardle::new(Trust::new(&map), reviews);
        // It answers while the cluster waits for it, and the other way round.
        let threads =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let threads = threads.unwrap();
        let (name, proxies) = (format!("sample-api.{NAMESPACE}.svc"), server.proxy_ca_pem.clone());
        let starting = async move {
            Extension::start("127.0.0.1", &[&name], &proxies, move |seen| wardle.answer(seen)).await
        };
        let extension = threads.spawn(starting).await.unwrap().unwrap();
        Self { server, admin, extension, threads: Some(threads) }
    }

    fn registered(&self) -> Value {
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": SERVICE}, "spec": {"group": GROUP, "version": VERSION,
                "groupPriorityMinimum": 2000, "versionPriority": 200,
                "caBundle": self.extension.ca_bundle(),
                "service": {"namespace": NAMESPACE, "name": "sample-api",
                    "port": self.extension.port}}})
    }

    async fn register(&self) {
        let mut service = service();
        service["metadata"]["name"] = "sample-api".into();
        let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
        self.admin.post(&services, &service).await.expect(201);
        self.admin.post(SERVICES, &self.registered()).await.expect(201);
        until_condition(&self.admin, SERVICE, "True", "Passed").await;
    }

    async fn stop(mut self) {
        self.server.stop().await;
        self.threads.take().unwrap().shutdown_background();
    }
}

/// The account of the server, with what it needs; its token.
async fn account(admin: &Rest) -> String {
    admin.post("/api/v1/namespaces", &json!({"metadata": {"name": NAMESPACE}})).await.expect(201);
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    admin.post(&accounts, &json!({"metadata": {"name": "sample"}})).await.expect(201);
    let subjects = json!([{"kind": "ServiceAccount", "name": "sample", "namespace": NAMESPACE}]);
    let role = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let delegates = json!({"metadata": {"name": "wardler:auth-delegator"}, "subjects": subjects,
        "roleRef": role("ClusterRole", "system:auth-delegator")});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &delegates).await.expect(201);
    let reads = json!({"metadata": {"name": "wardler-auth-reader"}, "subjects": subjects,
        "roleRef": role("Role", "extension-apiserver-authentication-reader")});
    let bindings = format!("{RBAC}/namespaces/kube-system/rolebindings");
    admin.post(&bindings, &reads).await.expect(201);
    let asked =
        json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}});
    let granted = admin.post(&format!("{accounts}/sample/token"), &asked).await.expect(201);
    granted["status"]["token"].as_str().unwrap().to_owned()
}

async fn ask(rest: &Rest, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    rest.ask(method, path, &headers, body).await
}

fn flunder(name: &str) -> Value {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Flunder",
        "metadata": {"name": name, "labels": {"sample-label": "true"}}, "spec": {}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_upstreams_test_of_a_sample_server() {
    let set = Set::start().await;
    set.register().await;
    let flunders = format!("{PATH}/namespaces/{NAMESPACE}/flunders");
    let admin = &set.admin;
    // Discovered among the preferred resources.
    let found = until(admin, PATH, |list| list["resources"].is_array()).await;
    assert!(found["resources"].as_array().unwrap().iter().any(|one| one["name"] == "flunders"));
    // Create, list, get, patch and delete.
    let created = admin.post(&flunders, &flunder("rest-flunder")).await.expect(201);
    assert_eq!(created["kind"], "Flunder");
    admin.post(&flunders, &flunder("dynamic-flunder")).await.expect(201);
    let listed =
        admin.get(&format!("{flunders}?labelSelector=sample-label%3Dtrue")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let one = format!("{flunders}/rest-flunder");
    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}});
    let patched = admin.patch(&one, "merge", &patch).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "yes");
    admin.post(&flunders, &flunder("rest-flunder")).await.expect(409);
    admin.delete(&one).await.expect(200);
    admin.get(&one).await.expect(404);
    // Its own admission.
    let fischer = json!({"metadata": {"name": "f"}, "disallowedFlunders": ["bad"]});
    admin.post(&format!("{PATH}/fischers"), &fischer).await.expect(201);
    admin.post(&flunders, &flunder("bad")).await.expect(403);
    // The APIService's status: read, patched, updated.
    let service = format!("{SERVICES}/{SERVICE}");
    let read = admin.get(&format!("{service}/status")).await.expect(200);
    assert_eq!(condition(&read)[..2], ["True", "Passed"]);
    let label = json!({"metadata": {"labels": {"apiservice": "patched"}}});
    admin.patch(&service, "merge", &label).await.expect(200);
    let conditions = json!({"status": {"conditions": [{"type": "StatusPatched",
        "status": "True", "reason": "E2E", "message": "Set by e2e test"}]}});
    let patched = admin.patch(&format!("{service}/status"), "merge", &conditions).await.expect(200);
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatched");
    // The server's own condition comes back beside it.
    until_condition(admin, SERVICE, "True", "Passed").await;
    let selected = format!("{SERVICES}?labelSelector=apiservice%3Dpatched");
    let selected = admin.get(&selected).await.expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    // Deleted as a collection, and registered again.
    let all = format!("{SERVICES}?labelSelector=apiservice%3Dpatched");
    admin.delete(&all).await.expect(200);
    until(admin, &service, |answer| answer["code"] == 404).await;
    admin.get(&flunders).await.expect(404);
    admin.post(SERVICES, &set.registered()).await.expect(201);
    until_condition(admin, SERVICE, "True", "Passed").await;
    let listed = until(admin, &flunders, |list| list["kind"] == "FlunderList").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    set.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_server_decides_who_may() {
    let set = Set::start().await;
    set.register().await;
    let flunders = format!("{PATH}/namespaces/{NAMESPACE}/flunders");
    set.admin.post(&flunders, &flunder("a")).await.expect(201);
    let bob = set.server.rest_as("bob", &["dev"]);
    bob.get(&flunders).await.expect(403);
    let role = json!({"metadata": {"name": "reads"}, "rules": [{"apiGroups": [GROUP],
        "resources": ["flunders"], "verbs": ["get", "list", "watch"]}]});
    set.admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reads"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    set.admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
    until(&bob, &flunders, |list| list["kind"] == "FlunderList").await;
    bob.post(&flunders, &flunder("b")).await.expect(403);
    bob.delete(&format!("{flunders}/a")).await.expect(403);
    // Whoever comes to it directly has to prove who they are.
    let seen = testkit::extension::Seen {
        method: "GET".into(),
        path: flunders.clone(),
        headers: Default::default(),
        body: Default::default(),
        peer: Some("somebody-else".into()),
    };
    let refused = Wardle::new(
        Trust::new(&json!({"metadata": {"name": "extension-apiserver-authentication"}, "data": {
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]"}})),
        Box::new(|_, _| Value::Null),
    )
    .answer(&seen);
    assert!(matches!(refused, testkit::extension::Reply::Json(401, _)));
    set.stop().await;
}

/// Messages that are admitted before they are received as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_of_other_servers_are_written_over_grpc() {
    let set = Set::start().await;
    set.register().await;
    let mut grpc = set.server.grpc();
    let target = |resource: &str, name: &str| {
        Some(pb::Target {
            group: GROUP.into(),
            version: VERSION.into(),
            resource: resource.into(),
            namespace: NAMESPACE.into(),
            name: name.into(),
            subresource: String::new(),
        })
    };
    let long = "x".repeat(100 << 10);
    let json = |name: &str| {
        let mut large = flunder(name);
        large["metadata"]["annotations"] = json!({"long": long});
        large.to_string()
    };
    let options = None;
    // Clients that know the name send it.
    for name in ["", "a"] {
        let (target, json) = (target("flunders", name), json(&format!("a{name}")).into());
        grpc.create(pb::CreateRequest { target, json, options: None }).await.unwrap();
    }
    let (place, json_of) = (target("flunders", "a"), json("a").into());
    let updated = pb::UpdateRequest { target: place.clone(), json: json_of, options: None };
    grpc.update(updated.clone()).await.unwrap();
    let patch: bytes::Bytes = json("a").into();
    let kind = pb::PatchType::MergePatch.into();
    let patched = pb::PatchRequest { target: place.clone(), r#type: kind, patch, options };
    grpc.patch(patched).await.unwrap();
    let options_json: bytes::Bytes = json!({"ignored": long}).to_string().into();
    // Whoever may not is refused, and so is what nobody has.
    let refused = set.server.grpc_as("bob", &[]).update(updated).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    let nothing = pb::UpdateRequest {
        target: target("nothings", "a"),
        json: json("a").into(),
        options: None,
    };
    let refused = grpc.update(nothing).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
    let deletion = pb::DeleteRequest { target: place.clone(), options_json, dry_run: false };
    grpc.delete(deletion).await.unwrap();
    let get = pb::GetRequest { target: place, ..Default::default() };
    assert_eq!(grpc.get(get).await.unwrap_err().code(), tonic::Code::NotFound);
    set.stop().await;
}

/// The other front end serves its objects as its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_other_servers_are_served_over_grpc() {
    let set = Set::start().await;
    set.register().await;
    let mut grpc = set.server.grpc();
    let target = |name: &str| pb::Target {
        group: GROUP.into(),
        version: VERSION.into(),
        resource: "flunders".into(),
        namespace: NAMESPACE.into(),
        name: name.into(),
        subresource: String::new(),
    };
    let create = |name: &str| pb::CreateRequest {
        target: Some(target(name)),
        json: flunder(name).to_string().into(),
        options: None,
    };
    let created = grpc.create(create("a")).await.unwrap().into_inner();
    assert_eq!((created.namespace.as_str(), created.name.as_str()), (NAMESPACE, "a"));
    assert!(created.revision > 0 && !created.uid.is_empty());
    let list = pb::ListRequest { target: Some(target("")), ..Default::default() };
    let mut pages = grpc.list(list).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    assert_eq!(page.items.len(), 1);
    let item: Value = serde_json::from_slice(&page.items[0].json).unwrap();
    assert_eq!((&item["kind"], &item["metadata"]["name"]), (&json!("Flunder"), &json!("a")));
    // The current state, its end, and what happens then.
    let watch = pb::WatchRequest {
        target: Some(target("")),
        send_initial_events: true,
        allow_watch_bookmarks: true,
        resource_version_match: "NotOlderThan".into(),
        representation: pb::Representation::PartialMetadata.into(),
        ..Default::default()
    };
    let mut events = grpc.watch(watch).await.unwrap().into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(SOON, events.message()).await.expect("an event");
        let event = message.unwrap().unwrap().events.remove(0);
        let name = event.object.as_ref().map(|object| object.name.clone()).unwrap_or_default();
        (event.r#type(), name, event.initial_events_end)
    };
    assert_eq!(next().await, (pb::EventType::Added, "a".to_owned(), false));
    assert_eq!(next().await, (pb::EventType::Bookmark, String::new(), true));
    // The watch may have begun after the object was created: it is told in either case.
    grpc.create(create("b")).await.unwrap();
    assert_eq!(next().await, (pb::EventType::Added, "b".to_owned(), false));
    let patch = pb::PatchRequest {
        target: Some(target("b")),
        r#type: pb::PatchType::MergePatch.into(),
        patch: json!({"metadata": {"labels": {"x": "y"}}}).to_string().into(),
        options: None,
    };
    let patched = grpc.patch(patch).await.unwrap().into_inner();
    let patched: Value = serde_json::from_slice(&patched.json).unwrap();
    assert_eq!(patched["metadata"]["labels"]["x"], "y");
    loop {
        if next().await == (pb::EventType::Modified, "b".to_owned(), false) {
            break;
        }
    }
    let delete =
        |name: &str| pb::DeleteRequest { target: Some(target(name)), ..Default::default() };
    grpc.delete(delete("b")).await.unwrap();
    assert_eq!(next().await, (pb::EventType::Deleted, "b".to_owned(), false));
    let get = pb::GetRequest { target: Some(target("b")), ..Default::default() };
    let missing = grpc.get(get).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    // Nobody gets around authorization.
    let list = pb::ListRequest { target: Some(target("")), ..Default::default() };
    let refused = set.server.grpc_as("bob", &[]).list(list.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    // A server that is away is said to be.
    set.extension.behave(|_| testkit::extension::Reply::Status(500, "out of order"));
    let service = format!("{SERVICES}/{SERVICE}/status");
    let overwritten = json!({"status": {"conditions": [{"type": "Available",
        "status": "Unknown", "reason": "Me", "message": ""}]}});
    set.admin.patch(&service, "merge", &overwritten).await.expect(200);
    until_condition(&set.admin, SERVICE, "False", "FailedDiscoveryCheck").await;
    let away = async {
        loop {
            let refused = grpc.list(list.clone()).await.map(|_| ());
            if refused.is_err_and(|status| status.code() == tonic::Code::Unavailable) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, away).await.expect("503");
    set.stop().await;
}
