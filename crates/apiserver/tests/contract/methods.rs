//! Every method with every content type on every kind of path: there is an answer, it says the right
//! thing, and it arrives however long the body is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::custom::define;
use crate::server::{Answer, Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"];

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const OBJECTS: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const OTHERS: [&str; 4] = ["", "text/plain", "application/cbor", "nonsense"];

/// Paths, and the methods that they have besides HEAD, which all have that have GET.
const PATHS: &[(&str, &[&str])] = &[
    ("/api/v1/namespaces/default/configmaps/m", &["GET", "PUT", "PATCH", "DELETE"]),
    ("/api/v1/namespaces/default/configmaps", &["GET", "POST", "DELETE"]),
    ("/api/v1/configmaps", &["GET"]),
    ("/api/v1/nodes", &["GET", "POST", "DELETE"]),
    ("/api/v1/namespaces", &["GET", "POST"]),
    ("/apis/apps/v1/namespaces/default/deployments/d/scale", &["GET", "PUT", "PATCH"]),
    ("/apis/apps/v1/namespaces/default/deployments/d/status", &["GET", "PUT", "PATCH"]),
    ("/api/v1/namespaces/default/pods/p/eviction", &["POST"]),
    ("/api/v1/namespaces/default/serviceaccounts/default/token", &["POST"]),
    ("/api/v1/namespaces/n/finalize", &["PUT"]),
    ("/api/v1/namespaces/default/bindings", &["POST"]),
    ("/api/v1/componentstatuses", &["GET"]),
    ("/api/v1/componentstatuses/scheduler", &["GET"]),
    ("/apis/metrics.k8s.io/v1beta1/nodes", &["GET"]),
    ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &["POST"]),
    ("/apis/example.com/v1/namespaces/default/widgets", &["GET", "POST", "DELETE"]),
    ("/apis/example.com/v1/namespaces/default/widgets/w", &["GET", "PUT", "PATCH", "DELETE"]),
    ("/healthz", &["GET"]),
    ("/version", &["GET"]),
    ("/api", &["GET"]),
    ("/apis/apps", &["GET"]),
    ("/apis/apps/v1", &["GET"]),
];

const UNKNOWN: [&str; 6] = [
    "/nothing",
    "/api/v1/nothings",
    "/apis/none.example.com",
    "/apis/none.example.com/v1/things",
    "/api/v1/namespaces/default/configmaps/m/nothing",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x",
];

/// What is refused before anybody looks at objects: code, reason and message.
type Refusal = (u16, &'static str, String);

fn refusal(methods: &[&str], path: &str, method: &str, kind: &str) -> Option<Refusal> {
    if !methods.contains(&if method == "HEAD" { "GET" } else { method }) {
        let text = "the server does not allow this method on the requested resource";
        return Some((405, "MethodNotAllowed", text.to_owned()));
    }
    let mut accepted = match method {
        "PATCH" => PATCHES.to_vec(),
        "POST" | "PUT" | "DELETE" => OBJECTS.to_vec(),
        _ => return None,
    };
    // Custom kinds have neither a strategic merge nor a protobuf form; the latter is not mentioned to
    // whoever sends it.
    if path.contains("/widgets") {
        let unknown = |one: &str| one.contains("strategic") || (one == PROTOBUF && one == kind);
        accepted.retain(|one| !unknown(one));
    }
    if accepted.contains(&kind) || (kind.is_empty() && method != "PATCH") {
        return None;
    }
    let text = "the body of the request was in an unknown format - accepted media types include: ";
    Some((415, "UnsupportedMediaType", format!("{text}{}", accepted.join(", "))))
}

async fn ask(rest: &Rest, method: &str, path: &str, kind: &str) -> Answer {
    let header = [("content-type", kind)];
    let headers = if kind.is_empty() { &header[..0] } else { &header[..] };
    rest.ask(method, path, headers, b"{}".to_vec()).await
}

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_and_content_type_is_answered_on_every_path() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let mut wrong = Vec::new();
    let kinds: Vec<&str> = OBJECTS.into_iter().chain(PATCHES).chain(OTHERS).collect();
    let unknown = (404, "NotFound", "the server could not find the requested resource".to_owned());
    for method in METHODS {
        for kind in &kinds {
            for (path, methods) in PATHS {
                let expected = refusal(methods, path, method, kind);
                let answer = ask(&rest, method, path, kind).await;
                wrong.extend(check(&answer, method, expected.as_ref()).map(|why| {
                    format!("{method} {path} {kind:?}: {why}: {} {}", answer.code, answer.text)
                }));
            }
            for path in UNKNOWN {
                let answer = ask(&rest, method, path, kind).await;
                wrong.extend(check(&answer, method, Some(&unknown)).map(|why| {
                    format!("{method} {path} {kind:?}: {why}: {} {}", answer.code, answer.text)
                }));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    server.stop().await;
}

/// What is wrong with an answer.
fn check(answer: &Answer, method: &str, expected: Option<&Refusal>) -> Option<String> {
    match expected {
        Some((code, ..)) if answer.code != *code => return Some(format!("wanted {code}")),
        None if [405, 415].contains(&answer.code) => return Some("it is refused".to_owned()),
        _ if answer.code >= 500 => return Some("it fails".to_owned()),
        _ => {}
    }
    if answer.code < 400 || method == "HEAD" {
        return None;
    }
    let is_status = answer.body["kind"] == "Status" && answer.body["code"] == answer.code;
    let (_, reason, message) = expected?;
    let says = answer.body["reason"] == *reason && answer.body["message"] == *message;
    (!is_status || !says).then(|| format!("wanted {reason} {message}"))
}

/// What is refused without a look at its body is answered when the body has arrived: the stream is
/// not reset under a client that is still sending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_nobody_wants_is_received() {
    const PIECES: usize = 256;
    let server = Server::start().await;
    let mut senders = Vec::new();
    for identity in [None, Some(server.identity("kubernetes-admin", &["system:masters"]))] {
        let stream = TokioIo::new(server.tls_with(identity).await.unwrap());
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        senders.push(sender);
    }
    // Whoever may not ask learns nothing but that.
    for (method, path, kind, accept, codes) in [
        ("PUT", MAPS, "application/json", "", [403, 405]),
        ("PUT", MAPS, "application/merge-patch+json", "", [403, 405]),
        ("PUT", "/api/v1/componentstatuses", "application/merge-patch+json", "", [403, 405]),
        ("POST", "/nothing", "text/plain", "", [403, 404]),
        ("POST", MAPS, "application/json", "", [403, 400]),
        ("POST", MAPS, "application/json", "image/png", [403, 406]),
    ] {
        for (sender, code) in senders.iter_mut().zip(codes) {
            let sent = Arc::new(AtomicUsize::new(0));
            let count = sent.clone();
            let pieces = futures::stream::iter(0..PIECES).map(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; 4 << 10])))
            });
            let mut request = http::Request::builder()
                .method(method)
                .uri(format!("https://localhost{path}"))
                .header("content-type", kind);
            if !accept.is_empty() {
                request = request.header("accept", accept);
            }
            sender.ready().await.unwrap();
            let request = request.body(StreamBody::new(pieces)).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let case = format!("{method} {path} {kind} {accept}");
            assert_eq!((status.as_u16(), &body["code"]), (code, &json!(code)), "{case}: {body}");
            assert_eq!(sent.load(Ordering::Relaxed), PIECES, "{case}");
        }
    }
    server.stop().await;
}
