//! Lists: selectors, pages, resource versions, and representations.

use serde_json::{Value, json};

use crate::server::{Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn five(rest: &Rest) {
    for name in ["a", "b", "c", "d", "e"] {
        let object =
            json!({"metadata": {"name": name, "labels": {"odd": (name < "c").to_string()}}});
        rest.post(MAPS, &object).await.expect(201);
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let server = Server::start().await;
    let rest = server.admin();
    five(&rest).await;
    let first = rest.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    rest.delete(&format!("{MAPS}/c")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = rest.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = rest.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"].get("continue").is_none());
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&rest.get(&exact).await.expect(200)), ["a", "b", "c", "d", "e"]);
    assert_eq!(names(&rest.get(&format!("{MAPS}?resourceVersion=0")).await.expect(200)).len(), 4);
    server.stop().await;
}

#[tokio::test]
async fn selectors_select_or_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    five(&rest).await;
    for (query, expected) in [
        ("labelSelector=odd%3Dtrue", vec!["a", "b"]),
        ("labelSelector=odd+notin+(true)", vec!["c", "d", "e"]),
        ("labelSelector=!odd", vec![]),
        ("fieldSelector=metadata.name%3Dd", vec!["d"]),
        ("fieldSelector=metadata.name!%3Dd,metadata.namespace%3Ddefault", vec!["a", "b", "c", "e"]),
        ("labelSelector=odd%3Dtrue&limit=1", vec!["a"]),
    ] {
        let list = rest.get(&format!("{MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    for query in [
        "fieldSelector=spec.x%3D1",
        "labelSelector=a%3D%3D%3Db",
        "labelSelector=(",
        "limit=x",
        "resourceVersion=x",
    ] {
        let error = rest.get(&format!("{MAPS}?{query}")).await.expect(400);
        assert_eq!(error["reason"], "BadRequest", "{query}");
    }
    rest.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.expect(422);
    rest.get(&format!("{MAPS}?continue=xyz")).await.expect(400);
    let future = rest.get(&format!("{MAPS}?resourceVersion=999999999")).await.expect(504);
    assert_eq!(future["reason"], "Timeout");
    server.stop().await;
}

#[tokio::test]
async fn representations_are_negotiated() {
    let server = Server::start().await;
    let rest = server.admin();
    five(&rest).await;
    let as_form =
        |form: &str| format!("application/json;as={form};v=v1;g=meta.k8s.io,application/json");
    let accept = as_form("Table");
    let table = rest.ask("GET", MAPS, &[("accept", &accept)], Vec::new()).await;
    assert_eq!(table.headers["content-type"], "application/json");
    let table = table.expect(200);
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let including = async |what: &str| {
        let path = format!("{MAPS}?limit=1&includeObject={what}");
        let headers = [("accept", accept.as_str())];
        rest.ask("GET", &path, &headers, Vec::new()).await
    };
    let whole = including("Object").await.expect(200);
    assert_eq!(whole["rows"][0]["object"]["kind"], "ConfigMap");
    let none = including("None").await.expect(200);
    assert_eq!(none["rows"][0]["object"], json!(null));
    including("Everything").await.expect(400);
    let accept = as_form("PartialObjectMetadataList");
    let partial = rest.ask("GET", MAPS, &[("accept", &accept)], Vec::new()).await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    let yaml =
        rest.ask("GET", &format!("{MAPS}/a"), &[("accept", "application/yaml")], Vec::new()).await;
    assert!(yaml.text.contains("kind: ConfigMap"), "{}", yaml.text);
    rest.ask("GET", MAPS, &[("accept", "image/png")], Vec::new()).await.expect(406);
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let table_only = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let headers = [("accept", table_only), ("content-type", "application/json")];
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    rest.ask("POST", path, &headers, review.to_string().into_bytes()).await.expect(406);
    server.stop().await;
}

#[tokio::test]
async fn discovery_names_every_resource() {
    let server = Server::start().await;
    let rest = server.admin();
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = rest.ask("GET", "/apis", &[("accept", accept)], Vec::new()).await;
    assert_eq!(aggregated.headers["content-type"], accept);
    let aggregated = aggregated.expect(200);
    for group in aggregated["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap();
        let version = group["versions"][0]["version"].as_str().unwrap();
        let legacy = rest.get(&format!("/apis/{name}/{version}")).await.expect(200);
        assert_eq!(legacy["groupVersion"], format!("{name}/{version}"));
        let reported = group["versions"][0]["resources"].as_array().unwrap();
        for resource in reported {
            let plural = &resource["resource"];
            assert!(
                legacy["resources"].as_array().unwrap().iter().any(|r| r["name"] == *plural),
                "{plural}"
            );
        }
        rest.get(&format!("/apis/{name}")).await.expect(200);
    }
    let version = rest.get("/version").await.expect(200);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
    let text = |field: &str| version[field].as_str().unwrap_or_default().to_owned();
    let date: jiff::Timestamp = text("buildDate").parse().unwrap();
    assert!(text("platform").starts_with("linux/"), "{version}");
    assert!(["clean", "dirty"].contains(&text("gitTreeState").as_str()), "{version}");
    // Built from an archive, it knows no commit.
    if std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.git")).exists() {
        let commit = text("gitCommit");
        assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{version}");
        assert!(date > jiff::Timestamp::UNIX_EPOCH, "{version}");
    }
    rest.get("/openapi/v3").await.expect(200);
    rest.get("/apis/nothing").await.expect(404);
    assert_eq!(rest.get("/readyz").await.text, "ok");
    server.stop().await;
}

#[tokio::test]
async fn documents_are_cached_by_their_hash() {
    let server = Server::start().await;
    let rest = server.admin();
    for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/apis"] {
        let first = rest.get(path).await;
        let tag = first.headers["etag"].to_str().unwrap();
        let again = [("if-none-match", tag)];
        let again = rest.ask("GET", path, &again, Vec::new()).await;
        assert_eq!((again.code, again.text.as_str()), (304, ""), "{path}");
        assert_eq!(again.headers["etag"], tag, "{path}");
        let other = [("if-none-match", "\"other\"")];
        rest.ask("GET", path, &other, Vec::new()).await.expect(200);
    }
    let index = rest.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str();
    let document = rest.get(url.unwrap()).await;
    let kept = document.headers["cache-control"].to_str().unwrap();
    assert!(kept.contains("immutable"), "{kept}");
    let stale = rest.get("/openapi/v3/apis/apps/v1?hash=00").await;
    assert_eq!(stale.code, 301);
    assert_eq!(stale.headers["location"], url.unwrap());
    server.stop().await;
}

#[tokio::test]
async fn every_answer_has_an_audit_id() {
    let server = Server::start().await;
    let rest = server.admin();
    for path in ["/api/v1/pods", "/version", "/nope"] {
        let own = rest.get(path).await.headers["audit-id"].clone();
        assert_eq!(own.len(), 36, "{path}");
        let given = [("audit-id", "mine")];
        let given = rest.ask("GET", path, &given, Vec::new()).await;
        assert_eq!(given.headers["audit-id"], "mine", "{path}");
    }
    let health = rest.get("/readyz?verbose&exclude=etcd&exclude=odd").await;
    let begin = "[+]ping ok\n[+]etcd excluded: ok\n[+]watch-cache ok\n[+]poststarthook/";
    assert!(health.text.starts_with(begin), "{}", health.text);
    for hook in ["config-consumer", "filter", "config-producer"] {
        let line = format!("[+]poststarthook/priority-and-fairness-{hook} ok\n");
        assert!(health.text.contains(&line), "{}", health.text);
        rest.get(&format!("/livez/poststarthook/priority-and-fairness-{hook}")).await.expect(200);
    }
    let end = "warn: some health checks cannot be excluded: no matches for \"odd\"\nreadyz check passed\n";
    assert!(health.text.ends_with(end), "{}", health.text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_get_readable_json() {
    let server = Server::start().await;
    let rest = server.admin();
    for (query, agent, pretty) in [
        ("", "kubectl/v1.37.0", false),
        ("?pretty=true", "kubectl/v1.37.0", true),
        ("?pretty=1", "kubectl/v1.37.0", true),
        ("?pretty=", "kubectl/v1.37.0", false),
        ("", "curl/8.5.0", true),
        ("", "Wget/1.21", true),
        ("", "Mozilla/5.0 (X11)", true),
        ("?pretty=false", "curl/8.5.0", false),
    ] {
        for (path, code) in [("/api/v1/namespaces/default", 200), ("/api/v1/namespaces/no", 404)] {
            let path = format!("{path}{query}");
            let answer = rest.ask("GET", &path, &[("user-agent", agent)], Vec::new()).await;
            assert_eq!(answer.code, code);
            assert_eq!(answer.text.starts_with("{\n  \""), pretty, "{path} {agent}");
        }
    }
    let list = rest.get("/api/v1/namespaces?pretty=true").await;
    let (start, end) = ("{\n  \"kind\": \"NamespaceList\",\n", "\n    }\n  ]\n}");
    assert!(list.text.starts_with(start) && list.text.ends_with(end), "{}", list.text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_is_printed_as_a_table() {
    let server = Server::start().await;
    let rest = server.admin();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({"app": "web"});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    rest.post(path, &web).await.expect(201);
    let scale = format!("{path}/web/scale");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = rest.ask("GET", &scale, &accept, Vec::new()).await.expect(200);
    let columns: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(columns, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        json!(["web", 2, 0]).as_array().unwrap()[..]
    );
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "web");
    assert_eq!(rest.get(&scale).await.expect(200)["kind"], "Scale");
    server.stop().await;
}

/// Everything that `/` lists is served, to those who may read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_of_the_process_are_served_to_those_who_may() {
    let server = Server::spawn(&[]).await;
    let (admin, anonymous) = (server.admin(), server.rest_anonymous());
    let monitor = server.rest_as("prometheus", &["system:monitoring"]);
    let index = admin.get("/").await.expect(200);
    let paths: Vec<_> =
        index["paths"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for path in ["/statusz", "/flagz", "/livez/etcd", "/healthz/poststarthook/rbac/bootstrap-roles"]
    {
        assert!(paths.contains(&path), "{path}: {paths:?}");
        anonymous.get(path).await.expect(403);
        assert_eq!(monitor.get(path).await.code, 200, "{path}");
    }
    for path in paths {
        assert_eq!(admin.get(path).await.code, 200, "{path}");
    }
    admin.get("/livez/poststarthook/unknown").await.expect(404);

    let status = admin.get("/statusz").await;
    assert!(status.text.starts_with("kube-apiserver statusz\nWarning: "), "{}", status.text);
    assert!(status.text.contains("\nEmulation version: 1.37\nPaths: /api "), "{}", status.text);
    let flags = admin.get("/flagz").await;
    assert!(flags.text.contains("\nlog-level=error\n"), "{}", flags.text);
    for (page, kind) in [("/statusz", "Statusz"), ("/flagz", "Flagz")] {
        let accept = format!("application/json;v=v1beta1;g=config.k8s.io;as={kind}");
        let object = admin.ask("GET", page, &[("accept", &accept)], Vec::new()).await.expect(200);
        assert_eq!(object["kind"], kind);
        assert_eq!(object["apiVersion"], "config.k8s.io/v1beta1");
        assert_eq!(object["metadata"]["name"], "kube-apiserver");
        let shown =
            if kind == "Flagz" { &object["flags"]["anonymous-auth"] } else { &object["paths"][0] };
        assert_eq!(shown, if kind == "Flagz" { "true" } else { "/api" });
        admin.ask("GET", page, &[("accept", "application/json")], Vec::new()).await.expect(406);
    }
}
