//! Requests that are forwarded: who sends them, and what arrives.

use serde_json::{Value, json};
use testkit::extension::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PATH, Set, THINGS};
use crate::server::{Rest, Server};

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

/// What a path means is decided once: no encoding of it is authorized as one object and read by the
/// other server as another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_authorized_is_what_is_forwarded() {
    let set = Set::start().await;
    allow(&set.rest, "jane", &["get", "update"]).await;
    let jane = set.server.rest_as("jane", &["dev"]);
    let things = format!("{PATH}/namespaces/n/things");
    set.extension.take("");
    let table = [
        (format!("{things}/%61?b=%2Fc"), 200, Some(format!("{things}/a?b=%2Fc"))),
        (format!("{things}/a%2Fscale"), 200, Some(format!("{things}/a/scale"))),
        (format!("{things}/a%20b:c*"), 200, Some(format!("{things}/a%20b:c%2A"))),
        (format!("{things}/a%2Fstatus"), 403, None),
        (format!("{things}/a%252Fstatus"), 200, Some(format!("{things}/a%252Fstatus"))),
        (format!("{things}/x%2F..%2F..%2F..%2Fm%2Fthings%2Fa"), 403, None),
        (format!("{things}/%2e%2e/scale"), 400, None),
        (format!("{things}/../scale"), 400, None),
    ];
    for (path, code, arrived) in table {
        let answer = jane.ask("PUT", &path, &[], b"{}".to_vec()).await;
        assert_eq!(answer.code, code, "{path} {}", answer.text);
        let seen = set.extension.take("/things").pop().map(|seen| seen.path);
        assert_eq!(seen, arrived, "{path}");
    }
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

/// A front-proxy certificate that is replaced is in force without a restart, also on connections that
/// are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_current_certificate_is_proved() {
    let set = Set::start().await;
    let thing = format!("{PATH}/things/a");
    let ask = || async {
        set.rest.get(&thing).await.expect(200);
        let seen = set.extension.requests.lock();
        seen.iter().rev().find(|seen| seen.path == thing).unwrap().peer.clone()
    };
    assert_eq!(ask().await.as_deref(), Some("front-proxy-client"));
    let write = |name: &str, text: &str| {
        let folder = set.server.folder.path();
        std::fs::write(folder.join("new"), text).unwrap();
        std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    };
    let (certificate, key) = set.server.proxy_identity("front-proxy-client-2");
    // A certificate beside the key of another one is not used.
    write("proxy.crt", &certificate);
    assert_eq!(ask().await.as_deref(), Some("front-proxy-client"));
    write("proxy.key", &key);
    let renewed = async {
        while ask().await.as_deref() != Some("front-proxy-client-2") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::SOON, renewed).await.expect("the new files are in force");
    set.server.stop().await;
}

/// The audit log has the code that the other server has answered with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_answers_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let [policy, log] = ["policy.yaml", "audit.log"].map(|name| folder.path().join(name));
    let rules = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "rules": [{"level": "Metadata", "resources": [{"group": "things.example.com"}]}]});
    std::fs::write(&policy, rules.to_string()).unwrap();
    let flags = [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
    ];
    let server = Server::start_with(&[&flags[0], &flags[1]]).await;
    let behave = |seen: &testkit::extension::Seen| match seen.path.contains("missing") {
        true => Reply::Status(404, "no such thing"),
        false => THINGS.answer(seen),
    };
    let extension = super::extension(&server, behave).await;
    let rest = server.admin();
    rest.post("/api/v1/namespaces/default/services", &super::service()).await.expect(201);
    rest.post(super::SERVICES, &super::registered(&extension)).await.expect(201);
    super::until_condition(&rest, super::NAME, "True", "Passed").await;
    for (name, code) in [("a", 200), ("missing", 404)] {
        let answer = rest.get(&format!("{PATH}/namespaces/n/things/{name}")).await;
        assert_eq!(answer.code, code);
        let id = answer.headers["audit-id"].to_str().unwrap();
        let of = |event: &Value| event["auditID"] == id && event["stage"] == "ResponseComplete";
        let recorded = async {
            loop {
                let text = std::fs::read_to_string(&log).unwrap();
                let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
                if let Some(event) = events.into_iter().find(of) {
                    return event;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let event = tokio::time::timeout(super::SOON, recorded).await.expect("it is recorded");
        assert_eq!(event["responseStatus"]["code"], code, "{event}");
        assert_eq!(event["objectRef"]["resource"], "things", "{event}");
    }
    server.stop().await;
}
