//! Nothing a client sends panics the server: each request is refused with its code, and the server
//! stays up.

use std::time::Duration;

use rpc::api_v1 as pb;
use serde_json::json;

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What the worst body may take, in a debug build on a busy machine: less than a request's minute, at
/// the end of which it would be answered as well.
const ANSWERED: Duration = Duration::from_secs(45);

#[tokio::test]
async fn bad_bodies_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    let json_type = "application/json";
    let deep = [b"{\"data\":".repeat(50_000), b"1".to_vec(), b"}".repeat(50_000)].concat();
    let huge = format!(r#"{{"metadata":{{"name":"h"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    let cases: &[(&str, Vec<u8>, u16)] = &[
        (json_type, Vec::new(), 400),
        (json_type, b"{".to_vec(), 400),
        (json_type, b"[]".to_vec(), 400),
        (json_type, b"null".to_vec(), 422),
        (json_type, b"\xff\xfe{}".to_vec(), 400),
        (json_type, deep, 400),
        (json_type, huge.into_bytes(), 413),
        (json_type, br#"{"metadata":{"name":5}}"#.to_vec(), 400),
        (json_type, br#"{"kind":"Pod","metadata":{"name":"x"}}"#.to_vec(), 400),
        (json_type, br#"{"apiVersion":"v2","metadata":{"name":"x"}}"#.to_vec(), 400),
        (json_type, br#"{"metadata":{"name":"x","namespace":"elsewhere"}}"#.to_vec(), 400),
        (json_type, br#"{"metadata":{"name":"x","resourceVersion":"5"}}"#.to_vec(), 400),
        (json_type, br#"{"metadata":{}}"#.to_vec(), 422),
        (json_type, br#"{"metadata":{"name":"Not_Good"}}"#.to_vec(), 422),
        (json_type, br#"{"metadata":{"name":"x","labels":{"a b":"c"}}}"#.to_vec(), 422),
        ("application/yaml", b"a: [".to_vec(), 400),
        ("application/yaml", b"a: &x [*x, *x]".to_vec(), 400),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff".to_vec(), 400),
        ("application/cbor", b"x".to_vec(), 415),
    ];
    for (kind, body, code) in cases {
        let answer = rest.ask("POST", MAPS, &[("content-type", kind)], body.clone()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(answer.code, *code, "{kind} {shown}: {}", answer.text);
        assert_eq!(answer.body["kind"], "Status", "{shown}");
    }
    rest.post(MAPS, &json!({"metadata": {"name": "still-there"}})).await.expect(201);
    server.stop().await;
}

#[tokio::test]
async fn field_validation_is_as_requested() {
    let server = Server::start().await;
    let rest = server.admin();
    let body = br#"{"metadata":{"name":"s"},"nope":1,"data":{"a":"b","a":"c"}}"#.to_vec();
    let headers = [("content-type", "application/json")];
    let strict = rest
        .ask("POST", &format!("{MAPS}?fieldValidation=Strict"), &headers, body.clone())
        .await
        .expect(400);
    assert_eq!(
        strict["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nope\", duplicate field \"data.a\""
    );
    let warned = rest.ask("POST", MAPS, &headers, body.clone()).await;
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().collect();
    assert_eq!(
        warnings,
        ["299 - \"unknown field \\\"nope\\\"\"", "299 - \"duplicate field \\\"data.a\\\"\""]
    );
    warned.expect(201);
    let ignored =
        rest.ask("PUT", &format!("{MAPS}/s?fieldValidation=Ignore"), &headers, body).await;
    assert!(ignored.headers.get("warning").is_none());
    ignored.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn bad_patches_and_paths_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.post(MAPS, &json!({"metadata": {"name": "p"}})).await.expect(201);
    let cases = [
        ("json", json!([{"op": "remove", "path": "/nothing"}]), 422),
        ("json", json!({"op": "add"}), 400),
        ("json", json!([{"op": "fly", "path": "/"}]), 422),
        ("merge", json!([1]), 400),
        ("merge", json!({"metadata": {"name": "other"}}), 400),
        ("merge", json!({"metadata": {"uid": "other"}}), 422),
        ("merge", json!({"data": 5}), 422),
        ("strategic-merge", json!({"$patch": "fly"}), 400),
        ("apply", json!({}), 415),
    ];
    for (kind, body, code) in cases {
        let answer = rest.patch(&format!("{MAPS}/p"), kind, &body).await;
        assert_eq!(answer.code, code, "{kind} {body}: {}", answer.text);
    }
    for (method, path, code) in [
        ("GET", "/api/v1/nothings", 404),
        ("GET", "/api/v2/pods", 404),
        ("GET", "/api/v1/namespaces/default/pods/p/nothing", 404),
        ("GET", "/api/v1/namespaces//pods", 404),
        ("GET", "/api/v1/namespaces/default/pods/%2e%2e%2fx", 404),
        ("GET", "/api/v1/namespaces/default/pods/%ff%00", 404),
        ("POST", "/api/v1/namespaces/default/pods/p", 405),
        ("PUT", "/api/v1/namespaces/default/pods", 405),
        ("BREW", "/api/v1/namespaces/default/pods", 405),
        ("GET", "/nothing", 404),
    ] {
        let answer = rest.ask(method, path, &[], Vec::new()).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text);
    }
    let selector = "a%3Db%2C".repeat(7_000);
    rest.get(&format!("{MAPS}?labelSelector={selector}")).await.expect(414);
    rest.get(&format!("{MAPS}?limit=9223372036854775807")).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    let long = |bytes: usize| "x".repeat(bytes);
    rest.ask("GET", "/version", &[("x-long", &long(32 << 10))], Vec::new()).await.expect(200);
    let refused = rest.ask("GET", "/version", &[("x-long", &long(70 << 10))], Vec::new()).await;
    assert_eq!(refused.code, 431, "{}", refused.text);
    rest.get("/version").await.expect(200);
    server.stop().await;
}

/// Bodies that are large within the limits, and crafted so that a careless loop over them would
/// never end, are answered, and their warnings stay within what headers can carry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_answered_in_time() {
    let server = Server::start().await;
    let rest = server.admin();
    let many = |make: &dyn Fn(usize) -> String| {
        let all: Vec<String> = (0..60_000).map(make).collect();
        all.join(",")
    };
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let web = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    rest.post(deployments, &web).await.expect(201);
    let env = many(&|number| format!(r#"{{"name":"N{number}"}}"#));
    let env = format!(
        r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"c","env":[{env}]}}]}}}}}}}}"#
    );
    let unknown =
        format!(r#"{{"metadata":{{"name":"u"}},{}}}"#, many(&|number| format!(r#""u{number}":1"#)));
    let twice = format!(
        r#"{{"metadata":{{"name":"t"}},"data":{{{}}}}}"#,
        many(&|number| format!(r#""k{}":"v""#, number / 2))
    );
    let labels = format!(
        r#"{{"metadata":{{"name":"l","labels":{{{}}}}}}}"#,
        many(&|number| format!(r#""-{number}":"-""#))
    );
    let laughs: String = (0..12)
        .map(|level| {
            let before = if level == 0 { "x".to_owned() } else { format!("*a{}", level - 1) };
            format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(","))
        })
        .collect();
    let json_type = "application/json";
    let strategic = "application/strategic-merge-patch+json";
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let web = format!("{deployments}/web");
    let applied = format!("{web}?fieldManager=m");
    // With their managers, the variables are more than the store takes.
    for (method, path, kind, body, code) in [
        ("PATCH", web.as_str(), strategic, env.clone(), 413),
        ("PATCH", applied.as_str(), "application/apply-patch+yaml", env, 413),
        ("POST", MAPS, json_type, unknown.clone(), 201),
        ("POST", strict.as_str(), json_type, unknown, 400),
        ("POST", MAPS, json_type, twice, 201),
        ("POST", MAPS, json_type, labels, 422),
        ("POST", MAPS, "application/yaml", laughs, 400),
    ] {
        let headers = [("content-type", kind)];
        let begun = clock::instant();
        let answer = rest.ask(method, path, &headers, body.into_bytes()).await;
        let shown = format!("{method} {path} {kind}: {:.500}", answer.text);
        assert_eq!(answer.code, code, "{shown}");
        assert!(begun.elapsed() < ANSWERED, "{:?}: {shown}", begun.elapsed());
        let warnings: usize = answer.headers.get_all("warning").iter().map(|one| one.len()).sum();
        assert!(warnings < 16 << 10, "{warnings} bytes of warnings");
        assert!(answer.text.len() < 4 << 20, "{} bytes of answer", answer.text.len());
    }
    server.stop().await;
}

/// A `Status` that is longer than headers usually are passes through gRPC too.
#[tokio::test]
async fn long_refusals_pass_through_grpc() {
    let server = Server::start().await;
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..300).map(|number| (format!("-{number}"), json!("-"))).collect();
    let object = json!({"metadata": {"name": "l", "labels": labels}});
    let create = |json: String| pb::CreateRequest {
        target: Some(pb::Target {
            version: "v1".into(),
            resource: "configmaps".into(),
            namespace: "default".into(),
            ..pb::Target::default()
        }),
        json: json.into(),
        options: None,
    };
    let mut grpc = server.grpc();
    for number in [300, 3_000] {
        let mut object = object.clone();
        if number > 300 {
            object["metadata"]["annotations"] = json!({"-": "x".repeat(number)});
        }
        let status = grpc.create(create(object.to_string())).await.unwrap_err();
        let error = rpc::status::from_grpc(&status).expect("a Status");
        assert_eq!((error.code(), error.reason()), (422, "Invalid"));
        assert!(error.message().len() > 16 << 10, "{}", error.message().len());
    }
    server.stop().await;
}

#[tokio::test]
async fn log_options_are_validated() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    rest.post(pods, &pod).await.expect(201);
    let asked = "tailLines=-1&limitBytes=0&sinceSeconds=5&sinceTime=2020-01-01T00:00:00Z";
    let refused = rest.get(&format!("{pods}/p/log?{asked}")).await.expect(422);
    assert_eq!(
        refused["message"],
        "PodLogOptions \"p\" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, \
         limitBytes: Invalid value: 0: must be greater than 0, \
         : Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified]"
    );
    rest.get(&format!("{pods}/p/log?tailLines=x")).await.expect(400);
    server.stop().await;
}
