//! PodCertificateRequests: what a kubelet may ask for, and what a signer may answer.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, IsCa,
    Issuer, KeyPair,
};
use serde_json::{Value, json};

use crate::server::{Rest, Server};

const GROUP: &str = "/apis/certificates.k8s.io/v1";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests";
const SIGNER: &str = "example.com/pods";

fn signed_request(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}

pub fn request(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"signerName": SIGNER,
        "podName": "p", "podUID": "1", "serviceAccountName": "default", "serviceAccountUID": "2",
        "nodeName": "n1", "nodeUID": "3", "stubPKCS10Request": BASE64.encode(signed_request(&KeyPair::generate().unwrap()))}})
}

fn condition(type_: &str) -> Value {
    json!({"type": type_, "status": "True", "reason": "Test", "message": "m"})
}

/// Somebody who may write every status, and sign for these signers.
async fn signer(server: &Server, user: &str, signers: &[&str]) -> Rest {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "resources": ["*"], "verbs": ["get", "list", "update", "patch"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["sign"], "resourceNames": signers}]);
    let role = json!({"metadata": {"name": user}, "rules": rules});
    server.admin().post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    server.admin().post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
    server.rest_as(user, &[])
}

/// An authority, and what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The status of an issued request: a certificate of two hours, from `ago` seconds ago.
    fn issue(&self, request: &Value, ago: i64, change: impl Fn(&mut CertificateParams)) -> Value {
        let der = BASE64.decode(request["spec"]["stubPKCS10Request"].as_str().unwrap()).unwrap();
        let mut asked = CertificateSigningRequestParams::from_der(&der.into()).unwrap();
        let start = Timestamp::from_second(clock::now().as_second() - ago).unwrap();
        let system = |at: Timestamp| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.as_second()).unwrap())
        };
        let end = start + SignedDuration::from_hours(2);
        asked.params.not_before = system(start).into();
        asked.params.not_after = system(end).into();
        change(&mut asked.params);
        let leaf = asked.signed_by(&self.issuer).unwrap().pem();
        json!({"conditions": [condition("Issued")], "certificateChain": format!("{leaf}{}", self.pem),
            "notBefore": start.to_string(), "notAfter": end.to_string(),
            "beginRefreshAt": (start + SignedDuration::from_hours(1)).to_string()})
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let refused = async |change: &dyn Fn(&mut Value), message: &str| {
        let mut object = request("bad");
        change(&mut object["spec"]);
        let answer = admin.post(REQUESTS, &object).await.expect(422);
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{message}: {text}");
    };
    for (field, value, message) in [
        ("signerName", json!(""), "spec.signerName: Required value"),
        ("podName", json!("A b"), "spec.podName: Invalid value: \"A b\": a lowercase RFC 1123"),
        ("nodeName", json!(""), "spec.nodeName: Invalid value: \"\""),
        ("podUID", json!(""), "spec.podUID: Invalid value: \"\": must not be empty"),
        (
            "nodeUID",
            json!("u".repeat(129)),
            "spec.nodeUID: Too long: may not be more than 128 bytes",
        ),
        (
            "maxExpirationSeconds",
            json!(3_599),
            "spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]",
        ),
        ("maxExpirationSeconds", json!(7_862_401), "must be in the range [3600, 7862400]"),
        (
            "unverifiedUserAnnotations",
            json!({"plain": "x"}),
            "spec.unverifiedUserAnnotations: Invalid value: \"plain\": must be a domain-prefixed key (such as \"acme.io/foo\")",
        ),
        (
            "unverifiedUserAnnotations",
            json!({"a.b/c": "x".repeat(1 << 18)}),
            "spec.unverifiedUserAnnotations: Too long: may not be more than 262144 bytes",
        ),
        ("stubPKCS10Request", json!(""), "spec.stubPKCS10Request: Required value"),
        (
            "stubPKCS10Request",
            json!("AQI="),
            "spec.stubPKCS10Request: Invalid value: []byte{0x1, 0x2}: must be a valid PKCS#10",
        ),
        (
            "stubPKCS10Request",
            json!(BASE64.encode([0; 10_241])),
            "spec.stubPKCS10Request: Too long: may not be more than 10240 bytes",
        ),
    ] {
        let set = |spec: &mut Value| spec[field] = value.clone();
        refused(&set, message).await;
    }
    // The signers of Kubernetes itself grant a day.
    let own = |spec: &mut Value| {
        spec["signerName"] = "kubernetes.io/pods".into();
        spec["maxExpirationSeconds"] = 86_401.into();
    };
    refused(&own, "must be in the range [3600, 86400]").await;
    // A request that its key has not signed.
    let mut forged = signed_request(&KeyPair::generate().unwrap());
    *forged.last_mut().unwrap() ^= 1;
    let set = |spec: &mut Value| spec["stubPKCS10Request"] = BASE64.encode(&forged).into();
    refused(&set, "spec.stubPKCS10Request: Invalid value").await;
    let stored = admin.post(REQUESTS, &request("good")).await.expect(201);
    assert_eq!(stored["spec"]["maxExpirationSeconds"], 86_400);
    // Nothing of it changes.
    let mut changed = stored.clone();
    changed["spec"]["podName"] = "other".into();
    changed["status"] = json!({"conditions": [condition("Denied")]});
    let path = format!("{REQUESTS}/good");
    let answer = admin.send("PUT", &path, &changed).await.expect(422);
    let text = answer["message"].as_str().unwrap();
    assert!(text.contains("spec: Invalid value: field is immutable"), "{text}");
    changed["spec"] = stored["spec"].clone();
    let updated = admin.send("PUT", &path, &changed).await.expect(200);
    assert!(updated["status"]["conditions"].is_null(), "{updated}");
    let selected = format!("{REQUESTS}?fieldSelector=spec.podName%3Dp,spec.nodeName%3Dn1");
    assert_eq!(admin.get(&selected).await.expect(200)["items"].as_array().unwrap().len(), 1);
    let none = format!("{REQUESTS}?fieldSelector=spec.nodeName%3Dn2");
    assert_eq!(admin.get(&none).await.expect(200)["items"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signers_answer_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let stranger = signer(&server, "stranger", &["example.com/other"]).await;
    let signer = signer(&server, "signer", &[SIGNER]).await;
    let authority = Authority::new();
    for name in ["denied", "issued"] {
        admin.post(REQUESTS, &request(name)).await.expect(201);
    }
    let put = async |user: &Rest, name: &str, status: &Value| {
        let mut object = admin.get(&format!("{REQUESTS}/{name}")).await.expect(200);
        object["status"] = status.clone();
        user.send("PUT", &format!("{REQUESTS}/{name}/status"), &object).await
    };
    let refused = async |name: &str, status: &Value, message: &str| {
        let answer = put(&signer, name, status).await.expect(422);
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{message}: {text}");
    };
    let denial = json!({"conditions": [condition("Denied")]});
    let answer = put(&stranger, "denied", &denial).await.expect(422);
    assert!(answer["message"].as_str().unwrap().ends_with(
        "is invalid: spec.signerName: Forbidden: User \"stranger\" is not permitted to \"sign\" for signer \"example.com/pods\""
    ), "{answer}");
    let both = json!({"conditions": [condition("Denied"), condition("Failed")]});
    refused("denied", &both, "status.conditions[1].type: Invalid value: \"Failed\": There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"").await;
    refused("denied", &json!({"conditions": [condition("Other")]}), "status.conditions[0].type: Unsupported value: \"Other\": supported values: \"Issued\", \"Denied\", \"Failed\"").await;
    let mut unsure = denial.clone();
    unsure["conditions"][0]["status"] = "Unknown".into();
    refused(
        "denied",
        &unsure,
        "status.conditions[0].status: Unsupported value: \"Unknown\": supported values: \"True\"",
    )
    .await;
    refused("denied", &json!({"notAfter": "2030-01-01T00:00:00Z"}), "status: Invalid value: status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"").await;
    let mut more = denial.clone();
    more["certificateChain"] = authority.pem.clone().into();
    refused("denied", &more, "status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest").await;
    let now = put(&signer, "denied", &denial).await.expect(200);
    assert!(now["status"]["conditions"][0]["lastTransitionTime"].is_string());
    let failed = json!({"conditions": [condition("Failed")]});
    refused(
        "denied",
        &failed,
        "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed",
    )
    .await;
    // What is issued belongs to the key, and the times to the certificate.
    let request = admin.get(&format!("{REQUESTS}/issued")).await.expect(200);
    let good = authority.issue(&request, 60, |_| {});
    let with = |field: &str, value: Value| {
        let mut status = good.clone();
        status[field] = value;
        status
    };
    let other = authority.issue(&self::request("other"), 60, |_| {});
    let late = authority.issue(&request, 301, |_| {});
    let short = authority.issue(&request, 60, |params| {
        params.not_after = params.not_before + Duration::from_secs(3_599);
    });
    let named = |name: &'static str| {
        authority.issue(&request, 60, |params| {
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
        })
    };
    let after = |status: &Value, seconds: i64| {
        let start: Timestamp = status["notBefore"].as_str().unwrap().parse().unwrap();
        json!((start + SignedDuration::from_secs(seconds)).to_string())
    };
    let at = |seconds: i64| after(&good, seconds);
    let mut shortened = short.clone();
    shortened["notAfter"] = after(&short, 3_599);
    for (status, message) in [
        (
            with("certificateChain", json!("")),
            "status.certificateChain: Invalid value: \"\": issued certificate chain must contain at least one certificate",
        ),
        (
            with("certificateChain", json!(api::pem::encode("KEY", &[1]))),
            "must consist entirely of CERTIFICATE PEM blocks",
        ),
        (
            with("certificateChain", json!(api::pem::encode("CERTIFICATE", &[1]))),
            "leaf certificate does not parse as valid X.509",
        ),
        (
            with("certificateChain", json!("x".repeat(102_401))),
            "status.certificateChain: Too long: may not be more than 102400 bytes",
        ),
        (
            with(
                "certificateChain",
                json!(format!(
                    "{}{}",
                    good["certificateChain"].as_str().unwrap(),
                    api::pem::encode("CERTIFICATE", &[1])
                )),
            ),
            "intermediate certificate does not parse as valid X.509",
        ),
        (other, "leaf certificate was not issued to the requested public key"),
        (named(".a.example"), "leaf certificate's DNSName should not start or end with '.'"),
        (named("a..example"), "\"a..example\": leaf certificate's DNSName should not contain '..'"),
        (
            with("notBefore", Value::Null),
            "status.notBefore: Required value: must be present and consistent with the issued certificate",
        ),
        (
            with("beginRefreshAt", Value::Null),
            "status.beginRefreshAt: Required value: must be present and in the range [notbefore+10min, notafter-10min]",
        ),
        (
            with("notBefore", at(1)),
            "must be set to the NotBefore time encoded in the leaf certificate",
        ),
        (
            with("notAfter", at(1)),
            "must be set to the NotAfter time encoded in the leaf certificate",
        ),
        (late, "must be set to within 5 minutes of kube-apiserver's current time"),
        (
            shortened,
            "status.certificateChain: Invalid value: 59m59s: leaf certificate lifetime must be >= 1 hour",
        ),
        (with("beginRefreshAt", at(599)), "must be at least 10 minutes after status.notBefore"),
        (with("beginRefreshAt", at(6_601)), "must be at least 10 minutes before status.notAfter"),
    ] {
        refused("issued", &status, message).await;
    }
    put(&stranger, "issued", &good).await.expect(422);
    let now = put(&signer, "issued", &good).await.expect(200);
    assert_eq!(now["status"]["certificateChain"], good["certificateChain"]);
    assert_eq!(now["spec"], request["spec"]);
    put(&signer, "issued", &now["status"]).await.expect(200);
    // A life that is longer than what was asked for.
    let mut hour = self::request("hour");
    hour["spec"]["maxExpirationSeconds"] = 3_600.into();
    let hour = admin.post(REQUESTS, &hour).await.expect(201);
    refused("hour", &authority.issue(&hour, 60, |_| {}), "status.certificateChain: Invalid value: 2h0m0s: leaf certificate lifetime must be <= spec.maxExpirationSeconds (3600)").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_asks_for_its_own_pods_at_their_signers() {
    let server = Server::start().await;
    server.default_account("default").await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let mut uids = Vec::new();
    for name in ["n1", "n2"] {
        let node =
            admin.post("/api/v1/nodes", &json!({"metadata": {"name": name}})).await.expect(201);
        uids.push(node["metadata"]["uid"].clone());
    }
    let base = "/api/v1/namespaces/default";
    admin
        .post(&format!("{base}/serviceaccounts"), &json!({"metadata": {"name": "other"}}))
        .await
        .expect(201);
    let account = admin.get(&format!("{base}/serviceaccounts/default")).await.expect(200);
    let mut pods = Vec::new();
    for (name, node) in [("mine", "n1"), ("other", "n2"), ("bare", "n1")] {
        let source =
            json!({"podCertificate": {"signerName": SIGNER, "keyType": "ED25519", "keyPath": "k"}});
        let volumes = json!([{"name": "v", "projected": {"sources": [source]}}]);
        let volumes = if name == "bare" { json!([]) } else { volumes };
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "volumes": volumes,
            "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}});
        pods.push(admin.post(&format!("{base}/pods"), &pod).await.expect(201));
    }
    let of = |pod: &Value, name: &str| {
        let mut object = request(name);
        let spec = &mut object["spec"];
        spec["podName"] = pod["metadata"]["name"].clone();
        spec["podUID"] = pod["metadata"]["uid"].clone();
        spec["serviceAccountUID"] = account["metadata"]["uid"].clone();
        spec["nodeUID"] = uids[0].clone();
        object
    };
    // What it has to know.
    kubelet.get(&format!("{base}/serviceaccounts/default")).await.expect(200);
    kubelet.get(&format!("{base}/serviceaccounts/other")).await.expect(403);
    let [mine, other, bare] = [&pods[0], &pods[1], &pods[2]];
    for (pod, field, value, code, message) in [
        (
            mine,
            "nodeName",
            json!("n2"),
            403,
            "PodCertificateRequest.Spec.NodeName=\"n2\", which is not the requesting node \"n1\"",
        ),
        (
            mine,
            "nodeUID",
            json!("x"),
            500,
            "PodCertificateRequest for pod \"default/mine\" names node UID \"x\", inconsistent with the running node",
        ),
        (
            mine,
            "podUID",
            json!("x"),
            500,
            "PodCertificateRequest for pod \"default/mine\" contains pod UID (\"x\") which differs from running pod",
        ),
        (
            mine,
            "podName",
            json!("gone"),
            500,
            "while retrieving pod \"default/gone\" named in the PodCertificateRequest: pods \"gone\" not found",
        ),
        (
            mine,
            "serviceAccountName",
            json!("other"),
            403,
            "PodCertificateRequest for pod \"default/mine\" contains serviceAccountName (\"other\") that differs from running pod (\"default\")",
        ),
        (
            mine,
            "serviceAccountUID",
            json!("x"),
            500,
            "names service account UID \"x\", which differs from the running service account",
        ),
        (
            mine,
            "signerName",
            json!("example.com/another"),
            403,
            "signer name \"example.com/another\" not found in pod spec volume",
        ),
        (
            other,
            "nodeName",
            json!("n1"),
            403,
            "pod \"default/other\" is not running on node \"n1\" named in the PodCertificateRequest",
        ),
        (
            bare,
            "signerName",
            json!(SIGNER),
            403,
            "signer name \"example.com/pods\" not found in pod spec volume",
        ),
    ] {
        let mut object = of(pod, "a");
        object["spec"][field] = value;
        let answer = kubelet.post(REQUESTS, &object).await.expect(code);
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{message}: {text}");
    }
    kubelet.post(REQUESTS, &of(mine, "a")).await.expect(201);
    let mut foreign = of(other, "b");
    foreign["spec"]["nodeName"] = "n2".into();
    admin.post(REQUESTS, &foreign).await.expect(201);
    // It sees the requests of its node, and answers none.
    kubelet.get(&format!("{REQUESTS}/a")).await.expect(200);
    kubelet.get(&format!("{REQUESTS}/b")).await.expect(403);
    kubelet.get(REQUESTS).await.expect(403);
    let all = format!("{GROUP}/podcertificaterequests?fieldSelector=spec.nodeName%3D");
    let own = kubelet.get(&format!("{all}n1")).await.expect(200);
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    kubelet.get(&format!("{all}n2")).await.expect(403);
    kubelet.delete(&format!("{REQUESTS}/a")).await.expect(403);
    let denial = json!({"status": {"conditions": [condition("Denied")]}});
    kubelet.patch(&format!("{REQUESTS}/a/status"), "merge", &denial).await.expect(403);
    // An administrator may grant it another signer for an account.
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["example.com:pods"],
        "resourceNames": ["default"], "verbs": ["request-serviceaccounts-podcertificate-signer"]}]);
    admin
        .post(&format!("{rbac}/roles"), &json!({"metadata": {"name": "ask"}, "rules": rules}))
        .await
        .expect(201);
    let binding = json!({"metadata": {"name": "ask"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ask"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:node:n1"}]});
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.expect(201);
    kubelet.post(REQUESTS, &of(bare, "c")).await.expect(201);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_of_certificates_are_checked_with_their_pod() {
    let server = Server::start().await;
    server.default_account("default").await;
    let admin = server.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |source: &Value| {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": source}]}}]}})
    };
    let good = json!({"signerName": SIGNER, "keyType": "ECDSAP521", "credentialBundlePath": "all.pem",
        "keyPath": "key.pem", "maxExpirationSeconds": 3_600, "userAnnotations": {"a.b/c": "d"}});
    for (field, value, message) in [
        (
            "signerName",
            json!("x"),
            "podCertificate.signerName: Invalid value: \"x\": must be a fully qualified domain",
        ),
        (
            "keyType",
            json!("RSA1024"),
            "podCertificate.keyType: Unsupported value: \"RSA1024\": supported values: \"RSA3072\", \"RSA4096\", \"ECDSAP256\", \"ECDSAP384\", \"ECDSAP521\", \"ED25519\"",
        ),
        (
            "maxExpirationSeconds",
            json!(60),
            "podCertificate.maxExpirationSeconds: Invalid value: 60: if provided, must be in the range [3600, 7862400]",
        ),
        (
            "userAnnotations",
            json!({"c": "d"}),
            "podCertificate.userAnnotations: Invalid value: \"c\": must be a domain-prefixed key",
        ),
        (
            "keyPath",
            json!("../key"),
            "podCertificate.keyPath: Invalid value: \"../key\": must not contain '..'",
        ),
        ("keyPath", json!("all.pem"), "Invalid value: \"all.pem\": conflicting duplicate paths"),
    ] {
        let mut source = good.clone();
        source[field] = value;
        let answer = admin.post(pods, &pod(&source)).await.expect(422);
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{message}: {text}");
    }
    let nowhere = json!({"signerName": SIGNER, "keyType": "ED25519"});
    let answer = admin.post(pods, &pod(&nowhere)).await.expect(422);
    let text = answer["message"].as_str().unwrap();
    assert!(text.contains("specify at least one of credentialBundlePath"), "{text}");
    admin.post(pods, &pod(&good)).await.expect(201);
    server.stop().await;
}
