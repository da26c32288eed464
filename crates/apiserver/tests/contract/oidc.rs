//! Tokens of other issuers.

#[path = "oidc/changes.rs"]
mod changes;
#[path = "oidc/distributed.rs"]
mod distributed;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use crate::server::{Answer, Server};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A key of an issuer.
#[derive(Clone)]
struct Signer {
    id: String,
    pair: Arc<EcdsaKeyPair>,
}

impl Signer {
    fn new(id: &str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { id: id.to_owned(), pair: Arc::new(pair) }
    }

    fn key(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kid": self.id, "kty": "EC", "crv": "P-256", "use": "sig",
            "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])})
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signed = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signed.as_ref()))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": self.id}).to_string(), &claims.to_string())
    }
}

/// What an issuer does when it is asked for its keys.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Honest,
    Gone,
    Silent,
    Endless,
    Elsewhere,
}

struct TestIssuer {
    url: String,
    ca_pem: String,
    keys: Arc<Mutex<Vec<Signer>>>,
    mood: Arc<Mutex<Mood>>,
    asked: Webhook,
}

impl TestIssuer {
    async fn start(key: &Signer) -> Self {
        let keys = Arc::new(Mutex::new(vec![key.clone()]));
        let mood = Arc::new(Mutex::new(Mood::Honest));
        let asked = Webhook::start("127.0.0.1", &["127.0.0.1"], |_| Reply::Hang).await.unwrap();
        let url = format!("https://127.0.0.1:{}", asked.port);
        let issuer = Self { ca_pem: asked.ca_pem.clone(), url, keys, mood, asked };
        let (keys, mood, url) = (issuer.keys.clone(), issuer.mood.clone(), issuer.url.clone());
        issuer.asked.behave(move |request| match request["path"].as_str() {
            Some("/.well-known/openid-configuration") => {
                Reply::Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
            }
            Some("/keys") => match *mood.lock() {
                Mood::Honest => {
                    let keys: Vec<Value> = keys.lock().iter().map(Signer::key).collect();
                    Reply::Json(json!({ "keys": keys }))
                }
                Mood::Gone => Reply::Status(503, "gone"),
                Mood::Silent => Reply::Hang,
                Mood::Endless => Reply::Long(8 << 20),
                Mood::Elsewhere => Reply::Redirect,
            },
            _ => Reply::Status(404, "no such document"),
        });
        issuer
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "skiff", "sub": "ann", "exp": now() + 600, "jti": "j1",
            "groups": ["dev", "ops"], "email": "ann@example.com", "email_verified": true,
            "team": "blue", "roles": ["r1"]})
    }

    /// A section of `jwt`, in YAML's flow form.
    fn section(&self, rest: &str) -> String {
        let authority = serde_json::to_string(&self.ca_pem).unwrap();
        format!(
            "{{issuer: {{url: '{}', audiences: [skiff, other], audienceMatchPolicy: MatchAny, certificateAuthority: {authority}}}, {rest}}}",
            self.url
        )
    }
}

fn now() -> i64 {
    clock::now().as_second()
}

fn configuration(sections: &[String], rest: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{}]\n{rest}",
        sections.join(", ")
    )
}

const BY_CLAIM: &str =
    "claimMappings: {username: {claim: sub, prefix: 'x:'}, groups: {claim: groups, prefix: 'g:'}}";

/// A folder with a configuration, and the flag that names it.
fn configured(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authentication.yaml");
    std::fs::write(&path, text).unwrap();
    let flag = format!("--authentication-config={}", path.display());
    (folder, flag)
}

async fn ask(server: &Server, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    server.rest_anonymous().ask("POST", WHO, &headers, body.to_string().into_bytes()).await
}

async fn user(server: &Server, token: &str) -> Value {
    ask(server, token).await.expect(201)["status"]["userInfo"].clone()
}

/// Waits until a token is accepted: issuers are asked in the background.
async fn accepted(server: &Server, token: &str) {
    let waiting = async {
        while ask(server, token).await.code != 201 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(testkit::wait::TIMEOUT, waiting).await;
    assert!(waited.is_ok(), "the token is never accepted");
}

#[tokio::test]
async fn tokens_become_users_as_the_configuration_says() {
    let key = Signer::new("k");
    let issuer = TestIssuer::start(&key).await;
    let (_folder, flag) = configured(&configuration(&[issuer.section(BY_CLAIM)], ""));
    let server = Server::start_with(&[&flag]).await;
    let token = key.token(&issuer.claims());
    accepted(&server, &token).await;
    let credential = json!({"authentication.kubernetes.io/credential-id": ["JTI=j1"]});
    let expected = json!({"username": "x:ann", "groups": ["g:dev", "g:ops", "system:authenticated"], "extra": credential});
    assert_eq!(user(&server, &token).await, expected);
    // Reviews say the same, for the apiserver's own audience alone.
    let review = async |audiences: Value| {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences}});
        server.admin().post(REVIEWS, &body).await.expect(201)["status"].clone()
    };
    let own = "https://kubernetes.default.svc.cluster.local";
    for audiences in [json!([]), json!([own, "x"])] {
        let status = review(audiences).await;
        assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([own])));
        assert_eq!(status["user"], expected);
    }
    assert_eq!(review(json!(["skiff"])).await["authenticated"], Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn expressions_map_and_judge_claims() {
    let key = Signer::new("k");
    let issuer = TestIssuer::start(&key).await;
    let rest = "claimMappings: {username: {expression: 'claims.email_verified ? claims.email : \"nobody\"'}, \
        groups: {expression: 'claims.roles.map(r, \"role:\" + r)'}, uid: {claim: sub}, \
        extra: [{key: example.com/team, valueExpression: claims.team}]}, \
        claimValidationRules: [{claim: team, requiredValue: blue}, {expression: 'claims.exp - claims.iat <= 86400', message: 'too long'}], \
        userValidationRules: [{expression: '!user.username.startsWith(\"system:\")', message: 'reserved'},
            {expression: 'user.groups.all(group, !group.startsWith(\"system:\"))', message: 'reserved groups'}]";
    let (_folder, flag) = configured(&configuration(&[issuer.section(rest)], ""));
    let server = Server::start_with(&[&flag]).await;
    let with = |changes: Value| {
        let mut claims = issuer.claims();
        claims["iat"] = now().into();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        key.token(&claims)
    };
    accepted(&server, &with(json!({}))).await;
    let found = user(&server, &with(json!({}))).await;
    assert_eq!(found["username"], "ann@example.com");
    assert_eq!(found["uid"], "ann");
    assert_eq!(found["groups"], json!(["role:r1", "system:authenticated"]));
    assert_eq!(found["extra"]["example.com/team"], json!(["blue"]));
    for refused in [
        json!({"team": "red"}),
        json!({"exp": now() + 90_000}),
        json!({"email": "system:masters"}),
        json!({"email": ""}),
        json!({"email": 1}),
        json!({"roles": 1}),
        json!({"roles": [1]}),
        json!({"sub": null}),
        json!({"team": null}),
    ] {
        assert_eq!(ask(&server, &with(refused.clone())).await.code, 401, "{refused}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let (key, stranger) = (Signer::new("k"), Signer::new("k"));
    let issuer = TestIssuer::start(&key).await;
    let (_folder, flag) = configured(&configuration(&[issuer.section(BY_CLAIM)], ""));
    let server = Server::start_with(&[&flag]).await;
    let good = issuer.claims();
    accepted(&server, &key.token(&good)).await;
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        key.token(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        key.token(&claims)
    };
    let text = good.to_string();
    let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(&text));
    // Symmetric, with what everybody knows as the key.
    let point = key.pair.public_key().as_ref();
    let message =
        format!("{}.{}", BASE64.encode(r#"{"alg":"HS256","kid":"k"}"#), BASE64.encode(&text));
    let symmetric = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, point);
    let tag = ring::hmac::sign(&symmetric, message.as_bytes());
    let symmetric = format!("{message}.{}", BASE64.encode(tag.as_ref()));
    let twice = format!("{},\"sub\":\"root\"}}", text.strip_suffix('}').unwrap());
    for (what, token) in [
        ("none", unsigned),
        ("symmetric", symmetric),
        ("another key", stranger.token(&good)),
        ("unknown key", key.sign(r#"{"alg":"ES256","kid":"z"}"#, &text)),
        ("another algorithm", key.sign(r#"{"alg":"RS256","kid":"k"}"#, &text)),
        ("critical header", key.sign(r#"{"alg":"ES256","kid":"k","crit":["x"]}"#, &text)),
        ("another issuer", with("iss", "https://other".into())),
        ("no issuer", without("iss")),
        ("expired", with("exp", (now() - 1).into())),
        ("no end", without("exp")),
        ("an end that is none", with("exp", "soon".into())),
        ("of the future", with("nbf", (now() + 400).into())),
        ("another audience", with("aud", "z".into())),
        ("no audience", without("aud")),
        ("audience of numbers", with("aud", json!([1]))),
        ("no subject", without("sub")),
        ("subject that is no text", with("sub", json!(["ann"]))),
        ("groups that are none", with("groups", json!({"a": 1}))),
        ("repeated claims", key.sign(r#"{"alg":"ES256","kid":"k"}"#, &twice)),
        ("an array", key.sign(r#"{"alg":"ES256","kid":"k"}"#, "[]")),
        ("cut", key.token(&good).rsplit_once('.').unwrap().0.to_owned()),
    ] {
        assert_eq!(ask(&server, &token).await.code, 401, "{what}");
    }
    assert_eq!(user(&server, &with("aud", json!(["z", "other"]))).await["username"], "x:ann");
    assert_eq!(user(&server, &with("nbf", (now() + 100).into())).await["username"], "x:ann");
    server.stop().await;
}

#[tokio::test]
async fn flags_name_one_issuer() {
    let key = Signer::new("k");
    let issuer = TestIssuer::start(&key).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, &issuer.ca_pem).unwrap();
    let flags = [
        format!("--oidc-issuer-url={}", issuer.url),
        "--oidc-client-id=skiff".to_owned(),
        format!("--oidc-ca-file={}", authority.display()),
        "--oidc-groups-claim=groups".to_owned(),
        "--oidc-required-claim=team=blue".to_owned(),
        "--oidc-signing-algs=ES256".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start_with(&flags).await;
    let token = key.token(&issuer.claims());
    accepted(&server, &token).await;
    let found = user(&server, &token).await;
    assert_eq!(found["username"], format!("{}#ann", issuer.url));
    assert_eq!(found["groups"], json!(["dev", "ops", "system:authenticated"]));
    let mut claims = issuer.claims();
    claims["team"] = "red".into();
    assert_eq!(ask(&server, &key.token(&claims)).await.code, 401);
    server.stop().await;
    // The default algorithm is RS256 alone.
    let server = Server::start_with(&flags[..5]).await;
    assert_eq!(ask(&server, &token).await.code, 401);
    server.stop().await;
    let (_folder, both) = configured(&configuration(&[], ""));
    for (flags, why) in [
        (
            vec![flags[0]],
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set",
        ),
        (
            vec![flags[0], flags[1], &both],
            "authentication-config file and oidc-* flags are mutually exclusive",
        ),
    ] {
        assert!(Server::refusal(&flags).await.contains(why), "{why}");
    }
}
