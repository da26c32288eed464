//! Bootstrap tokens: Secrets of `kube-system` with which new nodes ask for their certificates.

use serde_json::{Value, json};

use crate::server::{Answer, Server};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const SECRET: &str = "0123456789abcdef";

fn token(id: &str, change: Value) -> Value {
    let mut data =
        json!({"token-id": id, "token-secret": SECRET, "usage-bootstrap-authentication": "true"});
    for (key, value) in change.as_object().unwrap() {
        data[key] = value.clone();
    }
    json!({"type": "bootstrap.kubernetes.io/token", "stringData": data,
        "metadata": {"name": format!("bootstrap-token-{id}")}})
}

async fn who(server: &Server, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    server.rest_anonymous().ask("POST", REVIEWS, &headers, b"{}".to_vec()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_is_a_user_until_it_is_gone() {
    let server = Server::start_with(&["--enable-bootstrap-token-auth"]).await;
    let admin = server.admin();
    let extra = json!({"auth-extra-groups": "system:bootstrappers:workers", "expiration": "2220-01-01T00:00:00Z"});
    admin.post(SECRETS, &token("abcdef", extra)).await.expect(201);
    let good = format!("abcdef.{SECRET}");
    let user = who(&server, &good).await.expect(201)["status"]["userInfo"].clone();
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    let groups = ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    for (id, change) in [
        ("past00", json!({"expiration": "2020-01-01T00:00:00Z"})),
        ("weird0", json!({"expiration": "tomorrow"})),
        (
            "signer",
            json!({"usage-bootstrap-authentication": "false", "usage-bootstrap-signing": "true"}),
        ),
        ("master", json!({"auth-extra-groups": "system:masters"})),
        ("nodes0", json!({"auth-extra-groups": "system:bootstrappers:a,system:nodes"})),
        ("other0", json!({"token-id": "abcdef"})),
    ] {
        admin.post(SECRETS, &token(id, change)).await.expect(201);
        who(&server, &format!("{id}.{SECRET}")).await.expect(401);
    }
    // Nor a Secret of another type, or elsewhere.
    let mut opaque = token("opaque", json!({}));
    opaque["type"] = "Opaque".into();
    admin.post(SECRETS, &opaque).await.expect(201);
    admin.post("/api/v1/namespaces/default/secrets", &token("outer0", json!({}))).await.expect(201);
    for wrong in ["abcdef.0123456789abcdeg", "abcdef.", "nobody.0123456789abcdef"] {
        who(&server, wrong).await.expect(401);
    }
    for id in ["opaque", "outer0"] {
        who(&server, &format!("{id}.{SECRET}")).await.expect(401);
    }
    let review =
        |token: &str, audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = admin.post(reviews, &review(&good, json!([]))).await.expect(201);
    assert_eq!(reviewed["status"]["user"]["username"], "system:bootstrap:abcdef");
    let other = admin.post(reviews, &review(&good, json!(["vault"]))).await.expect(201);
    assert!(other["status"]["authenticated"].is_null(), "{other}");
    // It has no rights but those that somebody grants to its groups.
    let bearer = format!("Bearer {good}");
    let headers = [("authorization", bearer.as_str())];
    server.rest_anonymous().ask("GET", SECRETS, &headers, Vec::new()).await.expect(403);
    admin.delete(&format!("{SECRETS}/bootstrap-token-abcdef")).await.expect(200);
    who(&server, &good).await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_tokens_are_an_option() {
    let server = Server::start().await;
    server.admin().post(SECRETS, &token("abcdef", json!({}))).await.expect(201);
    who(&server, &format!("abcdef.{SECRET}")).await.expect(401);
}
