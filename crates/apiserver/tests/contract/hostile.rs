//! Nothing a client sends panics the server: each is refused with its code, and the server goes on.

use serde_json::json;

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn bad_bodies_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    let json_type = "application/json";
    let deep = [
        b"{\"data\":".repeat(50_000),
        b"1".to_vec(),
        b"}".repeat(50_000),
    ]
    .concat();
    let huge = format!(
        r#"{{"metadata":{{"name":"h"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(4 << 20)
    );
    let cases: &[(&str, Vec<u8>, u16)] = &[
        (json_type, Vec::new(), 400),
        (json_type, b"{".to_vec(), 400),
        (json_type, b"[]".to_vec(), 400),
        (json_type, b"null".to_vec(), 422),
        (json_type, b"\xff\xfe{}".to_vec(), 400),
        (json_type, deep, 400),
        (json_type, huge.into_bytes(), 413),
        (json_type, br#"{"metadata":{"name":5}}"#.to_vec(), 400),
        (
            json_type,
            br#"{"kind":"Pod","metadata":{"name":"x"}}"#.to_vec(),
            400,
        ),
        (
            json_type,
            br#"{"apiVersion":"v2","metadata":{"name":"x"}}"#.to_vec(),
            400,
        ),
        (
            json_type,
            br#"{"metadata":{"name":"x","namespace":"elsewhere"}}"#.to_vec(),
            400,
        ),
        (
            json_type,
            br#"{"metadata":{"name":"x","resourceVersion":"5"}}"#.to_vec(),
            400,
        ),
        (json_type, br#"{"metadata":{}}"#.to_vec(), 422),
        (
            json_type,
            br#"{"metadata":{"name":"Not_Good"}}"#.to_vec(),
            422,
        ),
        (
            json_type,
            br#"{"metadata":{"name":"x","labels":{"a b":"c"}}}"#.to_vec(),
            422,
        ),
        ("application/yaml", b"a: [".to_vec(), 400),
        ("application/yaml", b"a: &x [*x, *x]".to_vec(), 400),
        (
            "application/vnd.kubernetes.protobuf",
            b"k8s\0\xff\xff".to_vec(),
            400,
        ),
        ("application/cbor", b"x".to_vec(), 415),
    ];
    for (kind, body, code) in cases {
        let answer = rest
            .ask("POST", MAPS, &[("content-type", kind)], body.clone())
            .await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(answer.code, *code, "{kind} {shown}: {}", answer.text);
        assert_eq!(answer.body["kind"], "Status", "{shown}");
    }
    rest.post(MAPS, &json!({"metadata": {"name": "still-there"}}))
        .await
        .expect(201);
    server.stop().await;
}

#[tokio::test]
async fn strictness_is_as_asked() {
    let server = Server::start().await;
    let rest = server.admin();
    let body = br#"{"metadata":{"name":"s"},"nope":1,"data":{"a":"b","a":"c"}}"#.to_vec();
    let headers = [("content-type", "application/json")];
    let strict = rest
        .ask(
            "POST",
            &format!("{MAPS}?fieldValidation=Strict"),
            &headers,
            body.clone(),
        )
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
        [
            "299 - \"unknown field \\\"nope\\\"\"",
            "299 - \"duplicate field \\\"data.a\\\"\""
        ]
    );
    warned.expect(201);
    let ignored = rest
        .ask(
            "PUT",
            &format!("{MAPS}/s?fieldValidation=Ignore"),
            &headers,
            body,
        )
        .await;
    assert!(ignored.headers.get("warning").is_none());
    ignored.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn bad_patches_and_paths_are_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.post(MAPS, &json!({"metadata": {"name": "p"}}))
        .await
        .expect(201);
    let cases = [
        ("json", json!([{"op": "remove", "path": "/nothing"}]), 422),
        ("json", json!({"op": "add"}), 400),
        ("json", json!([{"op": "fly", "path": "/"}]), 400),
        ("merge", json!([1]), 400),
        ("merge", json!({"metadata": {"name": "other"}}), 400),
        ("merge", json!({"metadata": {"uid": "other"}}), 409),
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
    rest.get(&format!("{MAPS}?labelSelector={selector}"))
        .await
        .expect(414);
    rest.get(&format!("{MAPS}?limit=9223372036854775807"))
        .await
        .expect(200);
    server.stop().await;
}
