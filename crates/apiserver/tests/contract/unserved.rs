//! What is not served, through both front ends: no verb that a resource or subresource does not have
//! gets any further than its refusal, and no refusal comes before the sender is known and allowed to
//! ask.

use std::collections::BTreeSet;

use rpc::api_v1 as pb;
use rpc::api_v1::resources_client::ResourcesClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::server::{Rest, Server};

type Grpc = ResourcesClient<Channel>;

/// A resource or subresource of discovery.
#[derive(Clone, Debug)]
struct Served {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    kind: String,
    namespaced: bool,
    verbs: BTreeSet<String>,
}

/// All that discovery lists.
async fn discovered(admin: &Rest) -> Vec<Served> {
    let groups = admin.get("/apis").await.expect(200);
    let versions = groups["groups"].as_array().unwrap().iter();
    let versions = versions.flat_map(|group| group["versions"].as_array().unwrap());
    let mut all: Vec<String> =
        versions.map(|one| one["groupVersion"].as_str().unwrap().to_owned()).collect();
    all.push("v1".to_owned());
    let mut found = Vec::new();
    for group_version in all {
        let (group, version) = group_version.split_once('/').unwrap_or(("", &group_version));
        let path = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        for one in admin.get(&path).await.expect(200)["resources"].as_array().unwrap() {
            let name = one["name"].as_str().unwrap();
            let (resource, subresource) = name.split_once('/').unwrap_or((name, ""));
            found.push(Served {
                group: group.to_owned(),
                version: version.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                kind: one["kind"].as_str().unwrap().to_owned(),
                namespaced: one["namespaced"].as_bool().unwrap(),
                verbs: serde_json::from_value(one["verbs"].clone()).unwrap(),
            });
        }
    }
    found
}

/// An object that would be stored if somebody let it.
fn smuggled(served: &Served) -> Value {
    let version = match served.group.as_str() {
        "" => served.version.clone(),
        group => format!("{group}/{}", served.version),
    };
    let security = json!({"privileged": true});
    json!({"apiVersion": version, "kind": served.kind, "metadata": {"name": "smuggled"},
        "spec": {"containers": [{"name": "c", "image": "i", "securityContext": security}]}})
}

const METHODS: [&str; 9] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "stream"];

/// The answer's code; 200: it is not refused.
async fn call(grpc: &mut Grpc, method: &str, target: pb::Target, body: &Value) -> u16 {
    let (json, target) = (body.to_string(), Some(target));
    let answer = match method {
        "get" => grpc.get(pb::GetRequest { target, ..Default::default() }).await.map(drop),
        "list" => grpc.list(pb::ListRequest { target, ..Default::default() }).await.map(drop),
        "watch" => grpc.watch(pb::WatchRequest { target, ..Default::default() }).await.map(drop),
        "create" => {
            let request = pb::CreateRequest { target, json: json.into(), options: None };
            grpc.create(request).await.map(drop)
        }
        "update" => {
            let request = pb::UpdateRequest { target, json: json.into(), options: None };
            grpc.update(request).await.map(drop)
        }
        "patch" => {
            let (kind, patch) = (pb::PatchType::ApplyPatch.into(), json.into());
            let request = pb::PatchRequest { target, r#type: kind, patch, options: None };
            grpc.patch(request).await.map(drop)
        }
        "delete" => grpc.delete(pb::DeleteRequest { target, ..Default::default() }).await.map(drop),
        "deletecollection" => {
            let request = pb::DeleteCollectionRequest { target, ..Default::default() };
            grpc.delete_collection(request).await.map(drop)
        }
        "stream" => {
            let open = pb::StreamOpen { target, parameters: Vec::new() };
            let open = pb::StreamRequest { kind: Some(pb::stream_request::Kind::Open(open)) };
            grpc.stream(tokio_stream::once(open)).await.map(drop)
        }
        other => unreachable!("{other}"),
    };
    answer.map_or_else(|status| rpc::status::from_grpc(&status).map_or(0, |e| e.code()), |()| 200)
}

/// How a call is refused; `None`: the resource has the verb.
fn refusal(served: &Served, method: &str, namespace: &str, name: &str) -> Option<u16> {
    // The body of a creation names the object.
    let creates = method == "create" && served.subresource.is_empty();
    let named = !name.is_empty() && !creates;
    let everywhere = served.namespaced && namespace.is_empty();
    if everywhere && named {
        return Some(400);
    }
    let streams = ["attach", "exec", "log", "portforward"];
    let has = match method {
        "stream" => served.resource == "pods" && streams.contains(&served.subresource.as_str()),
        // These are streams, and nothing else.
        "get" | "create" | "update" | "patch" | "delete"
            if streams.contains(&served.subresource.as_str()) || served.subresource == "proxy" =>
        {
            false
        }
        verb => served.verbs.contains(verb),
    };
    let fits = match method {
        "list" | "deletecollection" => !named,
        "create" => creates || named,
        "watch" => true,
        _ => named,
    };
    let reads = ["get", "list", "watch"].contains(&method);
    (!has || !fits || (everywhere && !reads)).then_some(405)
}

/// Every method of gRPC on every row of the kind table and each of its subresources.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_serves_what_discovery_lists_and_nothing_else() {
    let server = Server::start().await;
    let (admin, mut grpc) = (server.admin(), server.grpc());
    server.default_account("default").await;
    let all = discovered(&admin).await;
    let subresources: BTreeSet<&str> = all.iter().map(|one| one.subresource.as_str()).collect();
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for served in &all {
        for method in METHODS {
            for (namespace, name) in [("", ""), ("", "x"), ("default", ""), ("default", "x")] {
                let Some(code) = refusal(served, method, namespace, name) else { continue };
                let target = pb::Target {
                    group: served.group.clone(),
                    version: served.version.clone(),
                    resource: served.resource.clone(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    subresource: served.subresource.clone(),
                };
                refused += 1;
                let found = call(&mut grpc, method, target.clone(), &smuggled(served)).await;
                if found != code {
                    wrong.push(format!("{method} {target:?}: {found} instead of {code}"));
                }
            }
        }
    }
    for served in all.iter().filter(|one| one.subresource.is_empty()) {
        let own: BTreeSet<&str> = all
            .iter()
            .filter(|one| one.resource == served.resource)
            .filter(|one| (&one.group, &one.version) == (&served.group, &served.version))
            .map(|one| one.subresource.as_str())
            .collect();
        for subresource in subresources.difference(&own) {
            let target = pb::Target {
                group: served.group.clone(),
                version: served.version.clone(),
                resource: served.resource.clone(),
                namespace: "default".to_owned(),
                name: String::new(),
                subresource: (*subresource).to_owned(),
            };
            refused += 1;
            let found = call(&mut grpc, "create", target.clone(), &smuggled(served)).await;
            if found != 404 {
                wrong.push(format!("create {target:?}: {found} instead of 404"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {refused}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 2_000, "{refused}");
    for served in all.iter().filter(|one| one.subresource.is_empty() && one.verbs.contains("list"))
    {
        let path = match served.group.as_str() {
            "" => format!("/api/{}/{}", served.version, served.resource),
            group => format!("/apis/{group}/{}/{}", served.version, served.resource),
        };
        let list = admin.get(&path).await.expect(200);
        let items = list["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item["metadata"]["name"] != "smuggled"), "{path}");
    }
    server.stop().await;
}

/// Other calls that name their target themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_with_a_target_of_their_own_need_all_of_it() {
    let server = Server::start().await;
    let mut grpc = server.grpc();
    for (namespace, name) in [("", ""), ("default", ""), ("", "p")] {
        let request = pb::ExplainRequest { namespace: namespace.into(), name: name.into() };
        let status = grpc.explain(request).await.unwrap_err();
        assert_eq!(rpc::status::from_grpc(&status).unwrap().code(), 405, "{namespace}/{name}");
        let request = pb::BindRequest {
            namespace: namespace.into(),
            name: name.into(),
            node: "n".into(),
            ..Default::default()
        };
        let mut answers = grpc.bind(tokio_stream::once(request)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.code, 405, "{namespace}/{name}");
    }
    server.stop().await;
}

/// Method, path, header, and the answer to whoever may ask.
type Asked = (&'static str, &'static str, (&'static str, &'static str), u16);

const JSON: (&str, &str) = ("content-type", "application/json");

/// Requests that are refused for what their head says.
const REFUSED: [Asked; 22] = [
    ("GET", "/nothing", JSON, 404),
    ("HEAD", "/nothing", JSON, 404),
    ("POST", "/nothing", JSON, 404),
    ("POST", "/metrics", JSON, 405),
    ("GET", "/apis/none.io", JSON, 404),
    ("GET", "/api/v1/nothings", JSON, 404),
    ("HEAD", "/api/v1/nothings", JSON, 404),
    ("GET", "/apis/none.io/v1/things", JSON, 404),
    ("GET", "/apis/none.io/v1/namespaces/default/things/a", JSON, 404),
    ("PATCH", "/api/v1/namespaces/default/pods/p/nothing", JSON, 404),
    ("GET", "/api/v1/namespaces//configmaps", JSON, 404),
    ("PUT", "/api/v1/namespaces/default/configmaps", JSON, 405),
    ("BREW", "/api/v1/namespaces/default/configmaps", JSON, 405),
    ("POST", "/api/v1/configmaps", JSON, 405),
    ("POST", "/api/v1/namespaces/default/pods/p/log", JSON, 405),
    ("PUT", "/api/v1/namespaces/default/pods/p/exec", JSON, 405),
    ("POST", "/api/v1/namespaces/default/configmaps", ("content-type", "text/plain"), 415),
    ("GET", "/api/v1/secrets", ("accept", "image/png"), 406),
    ("GET", "/api/v1/secrets?labelSelector=,", JSON, 400),
    ("GET", "/api/v1/secrets?timeout=never", JSON, 400),
    ("DELETE", "/api/v1/namespaces/default/secrets/s?dryRun=Some", JSON, 422),
    ("GET", "/api/v1/secrets", ("impersonate-group", "a"), 400),
];

async fn ask(rest: &Rest, (method, path, header, _): Asked) -> crate::server::Answer {
    rest.ask(method, path, &[header], b"{}".to_vec()).await
}

/// Nobody learns what there is before it is known who asks, and that they may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_tell_nobody_more_than_they_may_know() {
    let server = Server::start().await;
    let closed = Server::start_with(&["--anonymous-auth=false"]).await;
    let bad_token = ("authorization", "Bearer x");
    let mut wrong = Vec::new();
    for asked @ (method, path, header, code) in REFUSED {
        let impersonates = header.0 == "impersonate-group";
        let denied = if impersonates { 400 } else { 403 };
        let anonymous = server.rest_anonymous();
        let with_token = anonymous.ask(method, path, &[header, bad_token], b"{}".to_vec()).await;
        for (who, answer, expected) in [
            ("the administrator", ask(&server.admin(), asked).await, code),
            ("anonymous", ask(&anonymous, asked).await, denied),
            ("bob", ask(&server.rest_as("bob", &[]), asked).await, denied),
            ("a bad token", with_token, 401),
            ("nobody", ask(&closed.rest_anonymous(), asked).await, 401),
        ] {
            // Discovery is open to whoever is known.
            let open = who == "bob" && path == "/apis/none.io";
            let expected = if open { code } else { expected };
            if answer.code != expected {
                let text = answer.text;
                wrong.push(format!(
                    "{who} {method} {path}: {} instead of {expected}: {text}",
                    answer.code
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let refused = server.rest_anonymous().get("/nothing").await.expect(403);
    assert_eq!(
        refused["message"],
        "forbidden: User \"system:anonymous\" cannot get path \"/nothing\""
    );
    let path = "/apis/none.io/v1/namespaces/default/things/a";
    let refused = server.rest_anonymous().get(path).await.expect(403);
    assert_eq!(
        refused["message"],
        "things.none.io \"a\" is forbidden: User \"system:anonymous\" cannot get resource \"things\" \
         in API group \"none.io\" in the namespace \"default\""
    );
    closed.stop().await;
    server.stop().await;
}

/// The same over gRPC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_refused_as_late() {
    let server = Server::start().await;
    let closed = Server::start_with(&["--anonymous-auth=false"]).await;
    let target = |resource: &str| pb::Target {
        version: "v1".into(),
        resource: resource.into(),
        namespace: "default".into(),
        ..Default::default()
    };
    let mut wrong = Vec::new();
    let body = json!({"metadata": {"name": "m"}});
    for (method, target, code) in [
        ("get", pb::Target::default(), 404),
        ("get", target("nothings"), 404),
        ("list", target("nothings"), 404),
        ("create", target("nothings"), 404),
        ("deletecollection", target("nothings"), 404),
        ("stream", target("nothings"), 404),
        ("stream", target("pods"), 405),
        ("get", target("pods"), 405),
        ("create", pb::Target { subresource: "status".into(), ..target("pods") }, 405),
        ("create", pb::Target { subresource: "nothing".into(), ..target("pods") }, 404),
        (
            "update",
            pb::Target { name: "p".into(), namespace: String::new(), ..target("pods") },
            400,
        ),
    ] {
        for (who, mut grpc, expected) in [
            ("the administrator", server.grpc(), code),
            ("anonymous", server.grpc_anonymous(), 403),
            ("bob", server.grpc_as("bob", &[]), 403),
            ("nobody", closed.grpc_anonymous(), 401),
        ] {
            let found = call(&mut grpc, method, target.clone(), &body).await;
            if found != expected {
                wrong.push(format!("{who} {method} {target:?}: {found} instead of {expected}"));
            }
        }
    }
    let list = || pb::ListRequest {
        target: Some(target("configmaps")),
        label_selector: ",".into(),
        ..Default::default()
    };
    for (who, mut grpc, expected) in [
        ("the administrator", server.grpc(), 400),
        ("anonymous", server.grpc_anonymous(), 403),
        ("nobody", closed.grpc_anonymous(), 401),
    ] {
        let status = grpc.list(list()).await.map(drop).unwrap_err();
        let found = rpc::status::from_grpc(&status).unwrap().code();
        if found != expected {
            wrong.push(format!("{who} bad selector: {found} instead of {expected}"));
        }
        // Larger than what is received before the target is looked at.
        let large = json!({"metadata": {"name": "m"}, "data": {"a": "x".repeat(100_000)}});
        let found = call(&mut grpc, "create", target("nothings"), &large).await;
        let expected = if expected == 400 { 404 } else { expected };
        if found != expected {
            wrong.push(format!("{who} large: {found} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut request = tonic::Request::new(list());
    request.metadata_mut().insert("impersonate-group", "a".parse().unwrap());
    request.metadata_mut().insert("authorization", "Bearer x".parse().unwrap());
    let status = server.grpc_anonymous().list(request).await.map(drop).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    closed.stop().await;
    server.stop().await;
}

/// What is refused by its head is recorded and counted as anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_recorded_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]});
    std::fs::write(file("policy.yaml"), policy.to_string()).unwrap();
    let flags = [
        format!("--audit-policy-file={}", file("policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
    ];
    let server = Server::start_with(&[&flags[0], &flags[1]]).await;
    let admin = server.admin();
    for asked @ (method, path, _, code) in REFUSED {
        let answer = ask(&admin, asked).await;
        let id = answer.headers["audit-id"].to_str().unwrap();
        let log = std::fs::read_to_string(file("audit.log")).unwrap();
        let mut events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let event = events
            .find(|event| event["auditID"] == id && event["stage"] == "ResponseComplete")
            .unwrap_or_else(|| panic!("{method} {path} is not recorded"));
        assert_eq!(event["responseStatus"]["code"], code, "{method} {path}: {event}");
        assert_eq!(event["requestURI"], path);
        assert_eq!(event["user"]["username"], "kubernetes-admin", "{event}");
    }
    let metrics = admin.get("/metrics").await.text;
    for (code, group, resource, scope, verb, version) in [
        (404, "", "", "", "GET", ""),
        (404, "", "", "", "PATCH", ""),
        (405, "", "", "", "PUT", ""),
        (405, "", "configmaps", "resource", "POST", "v1"),
        (406, "", "secrets", "cluster", "LIST", "v1"),
        (415, "", "configmaps", "resource", "POST", "v1"),
        (400, "", "secrets", "cluster", "LIST", "v1"),
        (422, "", "secrets", "resource", "DELETE", "v1"),
    ] {
        let line = format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"{group}\",\
             resource=\"{resource}\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"{version}\"}}"
        );
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    // Whatever is asked for, the number of labels is bounded.
    assert!(!metrics.contains("nothings") && !metrics.contains("none.io"));
    server.stop().await;
}
