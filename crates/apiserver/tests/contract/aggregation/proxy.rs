//! Requests that are forwarded: who sends them, and what arrives.

use serde_json::{Value, json};
use testkit::extension::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PATH, Set, THINGS};
use crate::server::Rest;

/// Allows a user these verbs on things.
async fn allow(rest: &Rest, user: &str, verbs: &[&str]) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": user}, "rules": [{"apiGroups": ["things.example.com"],
        "resources": ["things", "things/scale"], "verbs": verbs}]});
    rest.post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    rest.post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_arrives_with_its_user() {
    let set = Set::start().await;
    let (things, one) =
        (format!("{PATH}/namespaces/n/things"), format!("{PATH}/namespaces/n/things/a"));
    let body = json!({"kind": "Thing", "metadata": {"name": "a"}});
    let table = [
        ("GET", format!("{things}?limit=5&labelSelector=a%3Db"), Value::Null, 200),
        ("GET", one.clone(), Value::Null, 200),
        ("POST", things.clone(), body.clone(), 201),
        ("PUT", one.clone(), body.clone(), 200),
        ("PATCH", one.clone(), body.clone(), 200),
        ("DELETE", one.clone(), Value::Null, 200),
        ("DELETE", things.clone(), Value::Null, 200),
        ("POST", format!("{one}/scale"), body.clone(), 201),
        ("OPTIONS", things.clone(), Value::Null, 200),
    ];
    for (method, path, body, code) in table {
        let sent = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        // Of a type that this server does not know.
        let headers = [("content-type", "application/strange"), ("accept", "text/strange")];
        let answer = set.rest.ask(method, &path, &headers, sent).await;
        assert_eq!(answer.headers.get("access-control-allow-origin"), None);
        assert!(answer.headers.contains_key("audit-id"));
        let answer = answer.expect(code);
        assert_eq!((&answer["method"], &answer["path"]), (&json!(method), &json!(path)));
        assert_eq!(answer["body"], body, "{method} {path}");
        assert_eq!(answer["user"], "kubernetes-admin");
        assert_eq!(answer["groups"], json!(["system:masters", "system:authenticated"]));
        assert_eq!(answer["peer"], "front-proxy-client");
    }
    let head = set.rest.ask("HEAD", &one, &[], Vec::new()).await;
    assert_eq!((head.code, head.text.as_str()), (200, ""));
    // Connections are kept.
    let before = set.extension.connections.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..20 {
        set.rest.get(&one).await.expect(200);
    }
    let after = set.extension.connections.load(std::sync::atomic::Ordering::Relaxed);
    assert!(after <= before + 7, "{before} {after}");
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_says_who_somebody_else_is() {
    let set = Set::start().await;
    allow(&set.rest, "jane", &["get", "list"]).await;
    let jane = set.server.rest_as("jane", &["dev"]);
    let things = format!("{PATH}/things");
    set.extension.take("");
    let headers = [
        ("x-remote-user", "system:admin"),
        ("x-remote-group", "system:masters"),
        ("x-remote-uid", "0"),
        ("x-remote-extra-scopes", "all"),
        ("x-mine", "kept"),
    ];
    jane.ask("GET", &things, &headers, Vec::new()).await.expect(200);
    let seen = set.extension.take("/things").pop().unwrap();
    assert_eq!(seen.all("x-remote-user"), ["jane"]);
    assert_eq!(seen.all("x-remote-group"), ["dev", "system:authenticated"]);
    assert_eq!(seen.all("x-remote-uid"), Vec::<&str>::new());
    assert_eq!(seen.all("x-remote-extra-scopes"), Vec::<&str>::new());
    assert_eq!(seen.header("x-mine"), "kept");
    assert!(seen.header("host").starts_with("extension.default.svc:"), "{}", seen.header("host"));
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    // What the administrator says about others is for this server.
    let headers = [
        ("impersonate-user", "bob"),
        ("impersonate-uid", "42"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-example.com%2fscope", "a b"),
    ];
    set.rest.ask("GET", &things, &headers, Vec::new()).await.expect(200);
    let seen = set.extension.take("/things").pop().unwrap();
    assert_eq!(seen.all("x-remote-user"), ["bob"]);
    assert_eq!(seen.all("x-remote-uid"), ["42"]);
    assert_eq!(seen.all("x-remote-extra-example.com%2Fscope"), ["a b"]);
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("impersonate-")));
    assert_eq!(seen.header("authorization"), "");
    // What is not allowed does not arrive.
    for (method, path) in
        [("POST", &things), ("DELETE", &things), ("GET", &format!("{PATH}/others"))]
    {
        let refused = jane.ask(method, path, &[], Vec::new()).await.expect(403);
        assert!(refused["message"].as_str().unwrap().contains("things.example.com"), "{refused}");
    }
    let stranger = set.server.rest_as("stranger", &[]);
    stranger.get(&things).await.expect(403);
    // Neither is anything else than things of the path.
    stranger.get(&format!("{PATH}//things")).await.expect(403);
    set.server.rest_anonymous().get(&things).await.expect(403);
    assert_eq!(set.extension.take("/things").len(), 0);
    // Discovery is for everybody who is known.
    stranger.get(PATH).await.expect(200);
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_other_protocols_pass_through() {
    let set = Set::start().await;
    let mut lines = set.rest.watch(&format!("{PATH}/things?watch=1")).await;
    for name in ["a", "b"] {
        let change = lines.next_change().await;
        assert_eq!(change, ("ADDED".to_owned(), name.to_owned()));
    }
    let mut stream = set.server.tls_as("root", &["system:masters"]).await.unwrap();
    let head = format!(
        "POST {PATH}/namespaces/n/things/a/exec?command=ls HTTP/1.1\r\nhost: x\r\n\
         connection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-remote-user: other\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("upgrade: spdy/3.1"), "{answer}");
    for text in ["one", "another"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut echo = vec![0; text.len()];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, text.as_bytes());
    }
    let seen = set.extension.take("/exec").pop().unwrap();
    assert_eq!(
        (seen.all("x-remote-user"), seen.peer.as_deref()),
        (vec!["root"], Some("front-proxy-client"))
    );
    // Whoever may not, may not by another protocol.
    let mut stream = set.server.tls_as("stranger", &[]).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 403");
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_front_end_reads_paths_of_other_servers() {
    let set = Set::start_with(|seen| match seen.path.contains("missing") {
        true => Reply::Json(
            404,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "reason": "NotFound", "code": 404, "message": "no such thing"}),
        ),
        false => THINGS.answer(seen),
    })
    .await;
    let get = async |user: &str, groups: &[&str], path: String| {
        let request = rpc::api_v1::GetPathRequest { path, accept: String::new() };
        set.server.grpc_as(user, groups).get_path(request).await
    };
    let masters = ["system:masters"];
    let answer = get("root", &masters, format!("{PATH}/things/a?b=c")).await.unwrap().into_inner();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&answer["user"], &answer["path"]),
        (&json!("root"), &json!(format!("{PATH}/things/a?b=c")))
    );
    let missing = get("root", &masters, format!("{PATH}/things/missing")).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (tonic::Code::NotFound, "no such thing"));
    let refused = get("stranger", &[], format!("{PATH}/things/a")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_front_proxy_certificate_is_presented() {
    let set = Set::start().await;
    let one = format!("{PATH}/namespaces/n/things/a");
    assert_eq!(set.rest.get(&one).await.expect(200)["peer"], "front-proxy-client");
    let folder = set.server.folder.path();
    let write = |name: &str, content: &str| {
        let new = folder.join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, folder.join(name)).unwrap();
    };
    let (certificate, key) = set.server.proxy_identity("renewed");
    write("proxy.crt", &certificate);
    // Without its key it is not used.
    assert_eq!(set.rest.get(&one).await.expect(200)["peer"], "front-proxy-client");
    write("proxy.key", &key);
    super::until(&set.rest, &one, |answer| answer["peer"] == "renewed").await;
    set.server.stop().await;
}
