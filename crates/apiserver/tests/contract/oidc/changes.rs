//! Issuers that change, fail or are slow, and configurations that change.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn keys_are_asked_for_when_a_token_names_another_one() {
    let (first, second) = (Signer::new("one"), Signer::new("two"));
    let issuer = TestIssuer::start(&first).await;
    let (_folder, flag) = configured(&configuration(&[issuer.section(BY_CLAIM)], ""));
    let server = Server::start_with(&[&flag]).await;
    accepted(&server, &first.token(&issuer.claims())).await;
    let fresh = |key: &Signer, name: &str| {
        let mut claims = issuer.claims();
        claims["sub"] = name.into();
        key.token(&claims)
    };
    issuer.keys.lock().push(second.clone());
    accepted(&server, &fresh(&second, "rotated")).await;
    // Without its keys, the issuer's known keys still count; others are refused, and nobody else is.
    let unknown = Signer::new("three");
    for mood in [Mood::Gone, Mood::Endless, Mood::Elsewhere] {
        *issuer.mood.lock() = mood;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        issuer.keys.lock().push(unknown.clone());
        assert_eq!(ask(&server, &fresh(&unknown, "unknown")).await.code, 401);
        assert_eq!(ask(&server, &fresh(&first, "known")).await.code, 201);
        server.admin().get("/api/v1/namespaces").await.expect(200);
    }
    let before = issuer.asked.requests.lock().len();
    for number in 0..20 {
        let code = ask(&server, &fresh(&unknown, &format!("u{number}"))).await.code;
        assert_eq!(code, 401);
    }
    assert!(issuer.asked.requests.lock().len() - before < 15, "each token asks for the keys");
    server.stop().await;
}

#[tokio::test]
async fn a_slow_issuer_holds_up_only_its_users() {
    let (slow_key, key) = (Signer::new("s"), Signer::new("k"));
    let (slow, issuer) = (TestIssuer::start(&slow_key).await, TestIssuer::start(&key).await);
    let sections = [slow.section(BY_CLAIM), issuer.section(BY_CLAIM)];
    let (_folder, flag) = configured(&configuration(&sections, ""));
    let server = Server::start_with(&[&flag]).await;
    accepted(&server, &slow_key.token(&slow.claims())).await;
    accepted(&server, &key.token(&issuer.claims())).await;
    *slow.mood.lock() = Mood::Silent;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let waiting = async {
        let stranger = Signer::new("z").token(&slow.claims());
        ask(&server, &stranger).await.code
    };
    let others = async {
        let begun = clock::instant();
        for number in 0..10 {
            let mut claims = issuer.claims();
            claims["sub"] = format!("u{number}").into();
            assert_eq!(ask(&server, &key.token(&claims)).await.code, 201);
            server.admin().get("/api/v1/namespaces").await.expect(200);
        }
        begun.elapsed()
    };
    let (code, took) = tokio::join!(waiting, others);
    assert_eq!(code, 401);
    assert!(took < Duration::from_secs(8), "{took:?}");
    server.stop().await;
}

#[tokio::test]
async fn changes_of_the_file_are_used() {
    let key = Signer::new("k");
    let issuer = TestIssuer::start(&key).await;
    let (folder, flag) = configured(&configuration(
        &[],
        "anonymous: {enabled: true, conditions: [{path: /livez}]}\n",
    ));
    let refused = Server::refusal(&[&flag, "--anonymous-auth=false"]).await;
    let why = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file";
    assert!(refused.contains(why), "{refused}");
    let server = Server::start_with(&[&flag]).await;
    let anonymous = server.rest_anonymous();
    assert_eq!(anonymous.get("/livez").await.code, 200);
    for path in ["/readyz", "/version", "/api/v1/namespaces"] {
        assert_eq!(anonymous.get(path).await.code, 401, "{path}");
    }
    let token = key.token(&issuer.claims());
    assert_eq!(ask(&server, &token).await.code, 401);
    let write = |text: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, folder.path().join("authentication.yaml")).unwrap();
    };
    write(&configuration(&[issuer.section(BY_CLAIM)], ""));
    accepted(&server, &token).await;
    assert_eq!(anonymous.get("/version").await.code, 200);
    // What cannot be used changes nothing; what is gone is not accepted any more.
    write("kind: Other");
    accepted(&server, &token).await;
    write(&configuration(&[], "anonymous: {enabled: false}\n"));
    let waiting = async {
        while ask(&server, &token).await.code != 401 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(testkit::wait::TIMEOUT, waiting).await.unwrap();
    assert_eq!(anonymous.get("/livez").await.code, 401);
    server.stop().await;
}

#[tokio::test]
async fn the_authority_of_the_flags_is_the_one_in_its_file() {
    let key = Signer::new("k");
    let (issuer, other) = (TestIssuer::start(&key).await, TestIssuer::start(&key).await);
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, &other.ca_pem).unwrap();
    let server = Server::start_with(&[
        &format!("--oidc-issuer-url={}", issuer.url),
        "--oidc-client-id=skiff",
        &format!("--oidc-ca-file={}", authority.display()),
        "--oidc-signing-algs=ES256",
    ])
    .await;
    let token = key.token(&issuer.claims());
    assert_eq!(ask(&server, &token).await.code, 401);
    let new = folder.path().join("new");
    std::fs::write(&new, &issuer.ca_pem).unwrap();
    std::fs::rename(&new, &authority).unwrap();
    accepted(&server, &token).await;
    server.stop().await;
}
