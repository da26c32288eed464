//! Groups that a token does not name, but says where they are.

use serde_json::{Value, json};
use testkit::webhook::Reply;

use super::{BY_CLAIM, Signer, TestIssuer, accepted, ask, configuration, configured, now, user};
use crate::server::Server;

/// The issuer's documents, and what it answers at `/claims`.
fn answer(issuer: &TestIssuer, key: &Signer, claims: String) {
    let (url, key) = (issuer.url.clone(), key.clone());
    // As long as the test.
    let claims: &'static str = Box::leak(claims.into_boxed_str());
    issuer.asked.behave(move |request| match request["path"].as_str() {
        Some("/.well-known/openid-configuration") => {
            Reply::Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
        }
        Some("/keys") => Reply::Json(json!({"keys": [key.key()]})),
        Some("/claims") => Reply::Status(200, claims),
        _ => Reply::Status(404, "no such document"),
    });
}

#[tokio::test]
async fn groups_may_be_elsewhere() {
    let key = Signer::new("k");
    let issuer = TestIssuer::start(&key).await;
    let (_folder, flag) = configured(&configuration(&[issuer.section(BY_CLAIM)], ""));
    let server = Server::start_with(&[&flag]).await;
    accepted(&server, &key.token(&issuer.claims())).await;
    let number = std::cell::Cell::new(0);
    // Each is another token: those that were accepted are remembered.
    let token = |source: Value| {
        number.set(number.get() + 1);
        let mut claims = issuer.claims();
        claims.as_object_mut().unwrap().remove("groups");
        claims["jti"] = format!("d{}", number.get()).into();
        claims["_claim_names"] = json!({"groups": "there"});
        claims["_claim_sources"] = json!({ "there": source });
        key.token(&claims)
    };
    let there = json!({"endpoint": format!("{}/claims", issuer.url), "access_token": "secret"});
    let found = |aud: &str, ends: i64, groups: Value| {
        key.token(&json!({"iss": issuer.url, "aud": aud, "exp": now() + ends, "groups": groups}))
    };
    answer(&issuer, &key, found("skiff", 600, json!(["far"])));
    let groups = user(&server, &token(there.clone())).await["groups"].clone();
    assert_eq!(groups, json!(["g:far", "system:authenticated"]));
    // An aggregated claim is not looked at.
    let groups = user(&server, &token(json!({"JWT": "x"}))).await["groups"].clone();
    assert_eq!(groups, json!(["system:authenticated"]));
    // What cannot be had or believed is not left out.
    let stranger = Signer::new("k");
    for claims in [
        found("skiff", -600, json!(["late"])),
        found("others", 600, json!(["foreign"])),
        key.token(&json!({"iss": issuer.url, "aud": "skiff", "exp": now() + 600})),
        stranger.token(
            &json!({"iss": issuer.url, "aud": "skiff", "exp": now() + 600, "groups": ["forged"]}),
        ),
        "nonsense".to_owned(),
    ] {
        answer(&issuer, &key, claims);
        ask(&server, &token(there.clone())).await.expect(401);
    }
    let nowhere = json!({"endpoint": format!("{}/nowhere", issuer.url)});
    ask(&server, &token(nowhere)).await.expect(401);
    server.stop().await;
}
