//! CertificateSigningRequests and ClusterTrustBundles: who may ask, approve, sign and attest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::server::{Answer, Rest, Server};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

impl Rest {
    async fn replace_with(&self, path: &str, object: &Value) -> Answer {
        self.send("PUT", path, object).await
    }
}

/// A request in PEM.
fn pem(name: &str, group: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn request(name: &str, signer: &str, pem: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"signerName": signer, "request": BASE64.encode(pem),
        "usages": ["client auth", "digital signature"]}})
}

fn condition(type_: &str) -> Value {
    json!({"type": type_, "status": "True", "reason": "Test", "message": "m"})
}

/// The object with another status.
async fn with_status(admin: &Rest, name: &str, status: Value) -> Value {
    let mut object = admin.get(&format!("{REQUESTS}/{name}")).await.expect(200);
    object["status"] = status;
    object
}

/// Lets a user do something with requests and their subresources, and something for signers.
async fn allow(admin: &Rest, user: &str, verb: &str, signers: &[&str]) {
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "resources": ["*"], "verbs": ["create", "get", "update"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb], "resourceNames": signers}]);
    let role = json!({"metadata": {"name": user}, "rules": rules});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_says_who_sent_it_whatever_the_sender_says() {
    let server = Server::start().await;
    let admin = server.admin();
    allow(&admin, "asker", "none", &[]).await;
    let asker = server.rest_as("asker", &["people"]);
    let mut forged = request("forged", CLIENT, &pem("someone", "people"));
    forged["spec"]["username"] = "system:node:other".into();
    forged["spec"]["groups"] = json!(["system:masters"]);
    forged["spec"]["uid"] = "1".into();
    forged["spec"]["extra"] = json!({"a": ["b"]});
    forged["status"] = json!({"conditions": [condition("Approved")], "certificate": "AQ=="});
    let stored = asker.post(REQUESTS, &forged).await.expect(201);
    assert_eq!(stored["spec"]["username"], "asker");
    assert_eq!(stored["spec"]["groups"], json!(["people", "system:authenticated"]));
    let extra = stored["spec"]["extra"].as_object().unwrap();
    let own = ["authentication.kubernetes.io/credential-id"];
    assert!(stored["spec"]["uid"].is_null() && extra.keys().eq(own), "{stored}");
    let status = &stored["status"];
    assert!(status["conditions"].is_null() && status["certificate"].is_null(), "{status}");
    // Nor does an update.
    let mut changed = stored.clone();
    changed["spec"]["username"] = "system:node:other".into();
    changed["spec"]["request"] = BASE64.encode(pem("other", "people")).into();
    changed["status"] = json!({"conditions": [condition("Approved")]});
    changed["metadata"]["labels"] = json!({"a": "b"});
    let updated = asker.replace_with(&format!("{REQUESTS}/forged"), &changed).await.expect(200);
    assert_eq!(updated["spec"], stored["spec"]);
    assert_eq!(updated["metadata"]["labels"]["a"], "b");
    assert!(updated["status"]["conditions"].is_null());
    // Requests are found by their signer.
    let of = |signer: &str| format!("{REQUESTS}?fieldSelector=spec.signerName%3D{signer}");
    let found = admin.get(&of("kubernetes.io%2Fkube-apiserver-client")).await.expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let none = admin.get(&of("example.com%2Fother")).await.expect(200);
    assert_eq!(none["items"], json!([]));
    // A stranger sees and does nothing.
    let stranger = server.rest_as("stranger", &[]);
    stranger.get(REQUESTS).await.expect(403);
    stranger.post(REQUESTS, &request("mine", CLIENT, &pem("a", "b"))).await.expect(403);
    server.rest_anonymous().get(REQUESTS).await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_in_upstreams_words() {
    let server = Server::start().await;
    let admin = server.admin();
    let good = pem("someone", "people");
    let refused = async |change: &dyn Fn(&mut Value), message: &str| {
        let mut object = request("bad", "example.com/signer", &good);
        change(&mut object);
        let answer = admin.post(REQUESTS, &object).await.expect(422);
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
    };
    let set = |field: &'static str, value: Value| {
        move |object: &mut Value| object["spec"][field] = value.clone()
    };
    refused(&set("signerName", json!("")), "spec.signerName: Required value").await;
    refused(
        &set("signerName", json!("nothing")),
        "must be a fully qualified domain and path of the form 'example.com/signer-name'",
    )
    .await;
    refused(
        &set("signerName", json!("one/two")),
        "should be a domain with at least two segments separated by dots",
    )
    .await;
    refused(
        &set("signerName", json!("a_b.com/two")),
        "spec.signerName: Invalid value: \"a_b.com\": validating label \"a_b\"",
    )
    .await;
    refused(
        &set("signerName", json!("kubernetes.io/legacy-unknown")),
        "the legacy signerName is not allowed via this API version",
    )
    .await;
    refused(&set("usages", json!([])), "spec.usages: Required value").await;
    refused(
        &set("usages", json!(["client auth", "fun"])),
        "spec.usages[1]: Unsupported value: \"fun\": supported values: \"any\", \"cert sign\"",
    )
    .await;
    refused(&set("usages", json!(["any", "any"])), "spec.usages[1]: Duplicate value: \"any\"")
        .await;
    refused(&set("expirationSeconds", json!(599)), "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)").await;
    let encoded = |text: &str| json!(BASE64.encode(text));
    refused(
        &set("request", encoded("")),
        "spec.request: Invalid value: []byte{}: PEM block type must be CERTIFICATE REQUEST",
    )
    .await;
    refused(&set("request", encoded("ab")), "[]byte{0x61, 0x62}: PEM block type").await;
    // The first block counts, whatever follows.
    let certificate = server.ca_pem.clone();
    refused(&set("request", encoded(&format!("{certificate}{good}"))), "PEM block type must be")
        .await;
    // A request with the key of another.
    let mut forged: Vec<u8> = BASE64
        .decode(good.lines().filter(|line| !line.starts_with('-')).collect::<String>())
        .unwrap();
    let at = forged.windows(7).position(|part| part == b"someone").unwrap();
    forged[at..at + 7].copy_from_slice(b"another");
    let forged = api::pem::encode("CERTIFICATE REQUEST", &forged);
    refused(&set("request", encoded(&forged)), "spec.request: Invalid value").await;
    // A megabyte of nothing, of blocks that do not end, and of text after a good request.
    refused(&set("request", encoded(&"a".repeat(1 << 20))), "...}: PEM block type").await;
    refused(
        &set("request", encoded(&"-----BEGIN CERTIFICATE REQUEST-----\n".repeat(29_000))),
        "PEM block type",
    )
    .await;
    let mut long = request("long", "example.com/signer", &format!("{good}{}", "b".repeat(1 << 20)));
    long["spec"]["expirationSeconds"] = 600.into();
    admin.post(REQUESTS, &long).await.expect(201);
    // Nobody is made an administrator.
    let masters = request("masters", CLIENT, &pem("someone", "system:masters"));
    let answer = admin.post(REQUESTS, &masters).await.expect(403);
    assert_eq!(
        answer["message"],
        "certificatesigningrequests.certificates.k8s.io \"masters\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    admin
        .post(REQUESTS, &request("masters", "example.com/signer", &pem("a", "system:masters")))
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approval_and_certificates_have_their_own_doors_and_rights() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(REQUESTS, &request("one", "example.com/signer", &pem("a", "b"))).await.expect(201);
    for (user, verb, signers) in [
        ("other", "approve", &["example.com/another", "example.org/*"][..]),
        ("approver", "approve", &["example.com/*"]),
        ("signer", "sign", &["example.com/signer"]),
    ] {
        allow(&admin, user, verb, signers).await;
    }
    let [other, approver, signer] =
        ["other", "approver", "signer"].map(|user| server.rest_as(user, &[]));
    let (approval, status) = (format!("{REQUESTS}/one/approval"), format!("{REQUESTS}/one/status"));
    let approved = with_status(
        &admin,
        "one",
        json!({"conditions": [condition("Approved")], "certificate": BASE64.encode("x")}),
    )
    .await;
    for user in [&other, &signer] {
        let answer = user.replace_with(&approval, &approved).await.expect(403);
        let message = answer["message"].as_str().unwrap();
        assert!(message.ends_with("is forbidden: user not permitted to approve requests with signerName \"example.com/signer\""), "{message}");
    }
    // Signers do not approve, and approvers do not sign.
    let chain = BASE64.encode(&server.ca_pem);
    let both = with_status(&admin, "one", json!({"conditions": [condition("Approved")]})).await;
    let answer = signer.replace_with(&status, &both).await.expect(422);
    assert_eq!(
        answer["message"],
        "CertificateSigningRequest.certificates.k8s.io \"one\" is invalid: status.conditions: Forbidden: updates may not add a condition of type \"Approved\""
    );
    let now = approver.replace_with(&approval, &approved).await.expect(200);
    assert!(now["status"]["certificate"].is_null());
    let condition_now = &now["status"]["conditions"][0];
    assert!(
        condition_now["lastUpdateTime"].is_string()
            && condition_now["lastTransitionTime"].is_string()
    );
    let refused = async |user: &Rest, path: &str, status: Value, message: &str| {
        let object = with_status(&admin, "one", status).await;
        let answer = user.replace_with(path, &object).await.expect(422);
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
    };
    let conditions = now["status"]["conditions"].clone();
    let plus = |extra: Value| {
        let mut all = conditions.clone();
        all.as_array_mut().unwrap().push(extra);
        all
    };
    refused(
        &approver,
        &approval,
        json!({"conditions": []}),
        "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"",
    )
    .await;
    refused(
        &approver,
        &approval,
        json!({"conditions": plus(condition("Denied"))}),
        "Approved and Denied conditions are mutually exclusive",
    )
    .await;
    refused(
        &approver,
        &approval,
        json!({"conditions": plus(condition("Approved"))}),
        "Duplicate value: \"Approved\"",
    )
    .await;
    refused(
        &approver,
        &approval,
        json!({"conditions": plus(json!({"type": "Failed", "status": "False"}))}),
        "status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\"",
    )
    .await;
    refused(
        &approver,
        &approval,
        json!({"conditions": plus(json!({"type": "Other", "status": "Maybe"}))}),
        "Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
    )
    .await;
    let with = |certificate: &str| json!({"conditions": conditions, "certificate": certificate});
    refused(&signer, &status, with(&BASE64.encode("x")), "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block").await;
    refused(
        &signer,
        &status,
        with(&BASE64.encode(pem("a", "b"))),
        "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"",
    )
    .await;
    let answer = approver
        .replace_with(&status, &with_status(&admin, "one", with(&chain)).await)
        .await
        .expect(403);
    assert!(
        answer["message"].as_str().unwrap().ends_with(
            "user not permitted to sign requests with signerName \"example.com/signer\""
        )
    );
    signer.replace_with(&status, &with_status(&admin, "one", with(&chain)).await).await.expect(200);
    // What is issued stays.
    let twice = BASE64.encode(format!("{0}{0}", server.ca_pem));
    for again in [twice.as_str(), ""] {
        refused(
            &signer,
            &status,
            with(again),
            "status.certificate: Forbidden: updates may not modify existing certificate content",
        )
        .await;
    }
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", REQUESTS, &table, Vec::new()).await.expect(200);
    assert_eq!(table["columnDefinitions"][2]["name"], "SignerName");
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[2..],
        [
            json!("example.com/signer"),
            json!("kubernetes-admin"),
            json!("<none>"),
            json!("Approved,Issued")
        ]
    );
}

fn authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_have_authorities_only_and_are_attested() {
    let server = Server::start().await;
    let admin = server.admin();
    allow(&admin, "attester", "attest", &["example.com/signer"]).await;
    let attester = server.rest_as("attester", &[]);
    let bundle = |name: &str, signer: &str, text: &str| json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": text}});
    let (one, two) = (authority(), authority());
    let leaf = server.identity("a", &[]).0;
    for (object, message) in [
        (
            bundle("a:b", "", &one),
            "ClusterTrustBundle without signer name must not have \\\":\\\" in its name",
        ),
        (bundle("a", "example.com/signer", &one), "must be named with prefix example.com:signer:"),
        (
            bundle("a", "", ""),
            "spec.trustBundle: Invalid value: \\\"<value omitted>\\\": at least one trust anchor must be provided",
        ),
        (bundle("a", "", &leaf), "entry 0 does not have the CA bit set"),
        (bundle("a", "", &pem("a", "b")), "entry 0 has bad block type: CERTIFICATE REQUEST"),
        (bundle("a", "", &format!("{one}{two}{one}")), "duplicate trust anchor (indices [0 2])"),
        (bundle("a", "", &"a".repeat((1 << 20) + 1)), "spec.trustBundle: Too long"),
    ] {
        let answer = admin.post(BUNDLES, &object).await;
        assert!(answer.code == 422 && answer.text.contains(message), "{}", answer.text);
    }
    attester.post(BUNDLES, &bundle("plain", "", &one)).await.expect(201);
    attester
        .post(BUNDLES, &bundle("example.com:signer:a", "example.com/signer", &one))
        .await
        .expect(201);
    let answer = attester
        .post(BUNDLES, &bundle("example.com:more:a", "example.com/more", &one))
        .await
        .expect(403);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .ends_with("user not permitted to attest for signerName \"example.com/more\"")
    );
    let mut object = admin.get(&format!("{BUNDLES}/example.com:signer:a")).await.expect(200);
    object["spec"]["trustBundle"] = format!("{one}{two}").into();
    server
        .rest_as("stranger", &[])
        .replace_with(&format!("{BUNDLES}/example.com:signer:a"), &object)
        .await
        .expect(403);
    attester.replace_with(&format!("{BUNDLES}/example.com:signer:a"), &object).await.expect(200);
    let mut object = admin.get(&format!("{BUNDLES}/plain")).await.expect(200);
    object["spec"]["signerName"] = "example.com/signer".into();
    attester.replace_with(&format!("{BUNDLES}/plain"), &object).await.expect(422);
    // Every ServiceAccount may read them.
    let account = server.rest_as("system:serviceaccount:default:a", &["system:serviceaccounts"]);
    let found = account
        .get(&format!("{BUNDLES}?fieldSelector=spec.signerName%3Dexample.com%2Fsigner"))
        .await
        .expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
}
