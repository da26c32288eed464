//! Front proxies, who say in headers whose requests they forward; and what extension servers are told
//! about that.

use serde_json::{Value, json};

use super::until;
use crate::server::{Rest, Server};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const MAP: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const JANE: [(&str, &str); 6] = [
    ("x-remote-user", "jane"),
    ("x-remote-group", "dev"),
    ("x-remote-group", "ops"),
    ("x-remote-uid", "42"),
    ("x-remote-extra-example.com%2fscope", "all"),
    ("content-type", "application/json"),
];

async fn review(rest: &Rest, headers: &[(&str, &str)]) -> (u16, Value) {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = rest.ask("POST", REVIEW, headers, body.to_string().into_bytes()).await;
    (answer.code, answer.body["status"]["userInfo"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_proxy_speaks_for_others_and_nobody_else_does() {
    let server = Server::start().await;
    let masters = ["system:masters"];
    let proxy = server.rest_as_proxy("front-proxy-client", &masters);
    let (code, user) = review(&proxy, &JANE).await;
    assert_eq!(code, 201);
    let groups = json!(["dev", "ops", "system:authenticated"]);
    assert_eq!(
        user,
        json!({"username": "jane", "uid": "42", "groups": groups,
            "extra": {"example.com/scope": ["all"]}})
    );
    // Without a name it is nobody: its authority is not that of clients.
    assert_eq!(review(&proxy, &JANE[1..]).await.0, 401);
    assert_eq!(review(&proxy, &[("x-remote-user", "")]).await.0, 401);
    // Neither is somebody else of that authority.
    let other = server.rest_as_proxy("somebody", &masters);
    assert_eq!(review(&other, &JANE).await.0, 401);
    // The headers of others mean nothing, whoever they are.
    let bob = server.rest_as("bob", &[]);
    assert_eq!(review(&bob, &JANE).await.1["username"], "bob");
    let impostor = server.rest_as("front-proxy-client", &masters);
    assert_eq!(review(&impostor, &JANE).await.1["username"], "front-proxy-client");
    let path = "/api/v1/namespaces";
    let answer = server.rest_anonymous().ask("GET", path, &JANE, Vec::new()).await.expect(403);
    assert!(answer["message"].as_str().unwrap().contains("system:anonymous"), "{answer}");
    // It is authorized as the user.
    let answer = proxy.ask("GET", path, &JANE, Vec::new()).await.expect(403);
    assert!(answer["message"].as_str().unwrap().contains("\"jane\""), "{answer}");
    let root = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    proxy.ask("GET", path, &root, Vec::new()).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_header_that_is_configured_can_name_the_user() {
    let server = Server::start_with(&["--requestheader-username-headers=X-Other"]).await;
    let proxy = server.rest_as_proxy("front-proxy-client", &[]);
    let headers = [("x-other", "jane"), ("content-type", "application/json")];
    assert_eq!(review(&proxy, &headers).await.1["username"], "jane");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extension_servers_are_told_whom_to_trust() {
    let server = Server::start().await;
    let rest = server.admin();
    let map = rest.get(MAP).await.expect(200);
    let lines = |pem: &str| pem.replace('\r', "");
    assert_eq!(map["data"]["client-ca-file"], lines(&server.ca_pem));
    assert_eq!(map["data"]["requestheader-client-ca-file"], lines(&server.proxy_ca_pem));
    for (key, names) in [
        ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
    ] {
        assert_eq!(map["data"][key], names, "{key}");
    }
    // It is restored, and what others have added stays.
    let changed =
        json!({"data": {"client-ca-file": "x", "requestheader-allowed-names": "[\"me\"]"}});
    rest.patch(MAP, "merge", &changed).await.expect(200);
    let restored =
        until(&rest, MAP, |now| now["data"]["client-ca-file"] == map["data"]["client-ca-file"])
            .await;
    let names = &restored["data"]["requestheader-allowed-names"];
    assert_eq!(names, r#"["me","front-proxy-client"]"#);
    rest.delete(MAP).await.expect(200);
    until(&rest, MAP, |now| now["data"] == map["data"]).await;
    server.stop().await;
}
