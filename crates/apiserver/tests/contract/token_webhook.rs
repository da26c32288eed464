//! Tokens that a webhook knows.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use crate::server::{Answer, Server};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const OWN: &str = "https://kubernetes.default.svc.cluster.local";

/// A way to answer, by a name.
type Named = (&'static str, Box<dyn Fn(&Value) -> Reply + Send + Sync>);

/// Knows tokens that begin with `user-`; others are of nobody.
fn known(review: &Value) -> Reply {
    let token = review["spec"]["token"].as_str().unwrap();
    let status = match token.strip_prefix("user-") {
        Some(name) => json!({"authenticated": true, "user": {"username": name, "uid": "7",
            "groups": ["team"], "extra": {"example.com/a": ["b"]}}}),
        None => json!({"authenticated": false, "error": "no such token"}),
    };
    Reply::Json(
        json!({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}),
    )
}

async fn start(version: &str, more: &[&str]) -> (Server, Webhook, tempfile::TempDir) {
    let webhook = Webhook::start("127.0.0.1", &["127.0.0.1"], known).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("webhook.yaml");
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "w", "cluster": {"server": format!("https://127.0.0.1:{}/review", webhook.port),
            "certificate-authority-data": webhook.ca_bundle()}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "w", "user": "u"}}]});
    std::fs::write(&path, text.to_string()).unwrap();
    let file = format!("--authentication-token-webhook-config-file={}", path.display());
    let version = format!("--authentication-token-webhook-version={version}");
    let server = Server::start_with(&[&[file.as_str(), &version], more].concat()).await;
    (server, webhook, folder)
}

async fn ask(server: &Server, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    server.rest_anonymous().ask("POST", WHO, &headers, body.to_string().into_bytes()).await
}

#[tokio::test]
async fn a_webhook_says_whose_a_token_is() {
    for version in ["v1", "v1beta1"] {
        let (server, webhook, _folder) = start(version, &[]).await;
        let found = ask(&server, "user-ann").await.expect(201);
        let expected = json!({"username": "ann", "uid": "7", "groups": ["team", "system:authenticated"],
            "extra": {"example.com/a": ["b"]}});
        assert_eq!(found["status"]["userInfo"], expected);
        assert_eq!(ask(&server, "other").await.code, 401);
        let review = webhook.requests.lock()[0].clone();
        assert_eq!(review["apiVersion"], format!("authentication.k8s.io/{version}"));
        assert_eq!(review["spec"], json!({"token": "user-ann", "audiences": [OWN]}));
        // Answers of both kinds count for a while.
        for _ in 0..5 {
            ask(&server, "user-ann").await.expect(201);
            assert_eq!(ask(&server, "other").await.code, 401);
        }
        assert_eq!(webhook.requests.lock().len(), 2);
        // A ServiceAccount's token and a certificate need no webhook.
        server.admin().get("/api/v1/namespaces").await.expect(200);
        assert_eq!(webhook.requests.lock().len(), 2);
        let body = |audiences: Value| {
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": "user-ann", "audiences": audiences}})
        };
        let status =
            server.admin().post(REVIEWS, &body(json!([]))).await.expect(201)["status"].clone();
        assert_eq!(status["user"], expected);
        assert_eq!(status["audiences"], json!([OWN]));
        let status =
            server.admin().post(REVIEWS, &body(json!(["x"]))).await.expect(201)["status"].clone();
        assert_eq!(status["authenticated"], Value::Null);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_webhook_that_fails_lets_nobody_in() {
    let (server, webhook, _folder) = start("v1", &[]).await;
    let good = |review: &Value| match known(review) {
        Reply::Json(answer) => answer,
        _ => panic!("an answer"),
    };
    let behaviours: Vec<Named> = vec![
        ("status", Box::new(|_| Reply::Status(403, "no"))),
        ("redirect", Box::new(|_| Reply::Redirect)),
        ("huge", Box::new(|_| Reply::Long(4 << 20))),
        ("text", Box::new(|_| Reply::Status(200, "yes"))),
        (
            "version",
            Box::new(move |review| {
                let mut answer = good(review);
                answer["apiVersion"] = "authentication.k8s.io/v1beta1".into();
                Reply::Json(answer)
            }),
        ),
        (
            "nobody",
            Box::new(move |review| {
                let mut answer = good(review);
                answer["status"]["user"] = json!({});
                Reply::Json(answer)
            }),
        ),
        (
            "maybe",
            Box::new(move |review| {
                let mut answer = good(review);
                answer["status"]["authenticated"] = "true".into();
                Reply::Json(answer)
            }),
        ),
    ];
    for (what, behaviour) in behaviours {
        webhook.behave(behaviour);
        assert_eq!(ask(&server, &format!("user-{what}")).await.code, 401, "{what}");
    }
    // One that is slow holds up who needs it alone.
    webhook.behave(|_| Reply::Hang);
    let slow =
        async { tokio::time::timeout(Duration::from_secs(3), ask(&server, "user-slow")).await };
    let others = async {
        let begun = clock::instant();
        for _ in 0..10 {
            server.admin().get("/api/v1/namespaces").await.expect(200);
        }
        begun.elapsed()
    };
    let (slow, took) = tokio::join!(slow, others);
    assert!(slow.is_err() && took < Duration::from_secs(3), "{took:?}");
    // A failure is not remembered.
    webhook.behave(known);
    ask(&server, "user-status").await.expect(201);
    server.stop().await;
}
