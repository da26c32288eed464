//! The audit log: what is in it about requests of both front ends.

use std::collections::BTreeMap;
use std::path::Path;

use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    /// With a policy file.
    fn new(policy: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.yaml"), policy.to_string()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn flags(&self) -> [String; 2] {
        [
            format!("--audit-policy-file={}", self.path("policy.yaml")),
            format!("--audit-log-path={}", self.path("audit.log")),
        ]
    }

    /// The flag that names a webhook.
    fn webhook(&self, hook: &Webhook) -> String {
        let server = format!("https://127.0.0.1:{}/events", hook.port);
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "a", "cluster": {"server": server,
                "certificate-authority-data": hook.ca_bundle()}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "a", "user": "u"}}]});
        std::fs::write(self.path("hook.yaml"), kubeconfig.to_string()).unwrap();
        format!("--audit-webhook-config-file={}", self.path("hook.yaml"))
    }

    async fn start(&self, more: &[&str]) -> Server {
        let flags = self.flags();
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Server::start_with(&flags).await
    }

    fn text(&self) -> String {
        std::fs::read_to_string(Path::new(&self.path("audit.log"))).unwrap()
    }

    /// The events of a request, by stage.
    fn of(&self, id: &str) -> BTreeMap<String, Value> {
        let events = self.text();
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let own = events.filter(|event| event["auditID"] == id);
        own.map(|event| (event["stage"].as_str().unwrap().to_owned(), event)).collect()
    }
}

fn policy(rules: &Value) -> Value {
    json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_say_how_much_is_kept() {
    let log = Log::new(&policy(&json!([
        {"level": "None", "nonResourceURLs": ["/version"]},
        {"level": "Metadata", "resources": [{"resources": ["secrets", "serviceaccounts/token"]}]},
        {"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}], "omitManagedFields": true},
        {"level": "Request"}
    ])));
    let server = log.start(&[]).await;
    let admin = server.admin();
    let id =
        |answer: &crate::server::Answer| answer.headers["audit-id"].to_str().unwrap().to_owned();

    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    let created = admin.post(SECRETS, &secret).await;
    let events = log.of(&id(&created));
    created.expect(201);
    assert_eq!(events.keys().collect::<Vec<_>>(), ["RequestReceived", "ResponseComplete"]);
    let done = &events["ResponseComplete"];
    assert_eq!(done["kind"], "Event");
    assert_eq!(done["apiVersion"], "audit.k8s.io/v1");
    assert_eq!((&done["level"], &done["verb"]), (&json!("Metadata"), &json!("create")));
    assert_eq!(done["requestURI"], SECRETS);
    assert_eq!(done["user"]["username"], "kubernetes-admin");
    assert_eq!(done["user"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(done["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(
        done["objectRef"],
        json!({"resource": "secrets", "namespace": "default", "name": "s", "apiVersion": "v1"})
    );
    assert_eq!(done["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(
        done["annotations"],
        json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
    );
    assert!(!log.text().contains("hunter2"), "bodies are only kept if the policy asks for them");

    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}});
    let created = admin.post(MAPS, &map).await;
    let done = log.of(&id(&created)).remove("ResponseComplete").unwrap();
    assert_eq!(done["requestObject"], map);
    assert_eq!(done["responseObject"]["data"], map["data"]);
    assert!(done["responseObject"]["metadata"]["uid"].is_string());
    assert!(done["responseObject"]["metadata"]["managedFields"].is_null());
    let listed = admin.get(MAPS).await;
    let done = log.of(&id(&listed)).remove("ResponseComplete").unwrap();
    assert_eq!(done["responseObject"]["kind"], "ConfigMapList");
    let missing = admin.get(&format!("{MAPS}/none?pretty=1")).await;
    let done = log.of(&id(&missing)).remove("ResponseComplete").unwrap();
    assert_eq!(done["requestURI"], format!("{MAPS}/none?pretty=1"));
    let status = &done["responseStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(404), &json!("NotFound")));
    assert_eq!(done["responseObject"]["kind"], "Status");

    let patch = json!({"spec": {"finalizers": []}});
    let patched = admin.patch("/api/v1/namespaces/none", "merge", &patch).await;
    let done = log.of(&id(&patched)).remove("ResponseComplete").unwrap();
    assert_eq!(done["requestObject"], patch);
    assert!(done["responseObject"].is_null());
    let version = admin.get("/version").await;
    assert!(log.of(&id(&version)).is_empty());
    let metrics = admin.get("/metrics").await.text;
    for part in ["apiserver_audit_event_total ", "apiserver_audit_level_total{level=\"Metadata\"} "]
    {
        assert!(metrics.contains(part), "{part} is not in {metrics}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_named() {
    let log = Log::new(&policy(&json!([{"level": "Metadata"}])));
    let server = log.start(&[]).await;
    let (admin, own) = (server.admin(), "own-id-7");
    // Refused by RBAC; the client's own id.
    let bob = server.rest_as("bob", &["dev"]);
    let (head, _) = bob.exchange("GET", MAPS, &[("audit-id", own)], Vec::new()).await;
    assert_eq!((head.status.as_u16(), head.headers["audit-id"].as_bytes()), (403, own.as_bytes()));
    let events = log.of(own);
    let done = &events["ResponseComplete"];
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&done["user"]["username"], &done["responseStatus"]["code"]),
        (&json!("bob"), &json!(403))
    );
    // Impersonated.
    let headers = [
        ("audit-id", "as"),
        ("impersonate-user", "alice"),
        ("impersonate-group", "system:masters"),
    ];
    let (head, _) = admin.exchange("GET", MAPS, &headers, Vec::new()).await;
    assert_eq!(head.status, 200);
    let events = log.of("as");
    assert!(events["RequestReceived"]["impersonatedUser"].is_null());
    let done = &events["ResponseComplete"];
    assert_eq!(done["user"]["username"], "kubernetes-admin");
    assert_eq!(done["impersonatedUser"]["username"], "alice");
    // Nobody: the token is not in the log.
    let headers = [("audit-id", "none"), ("authorization", "Bearer very-secret-token")];
    let nobody = server.rest_anonymous();
    let (head, _) = nobody.exchange("GET", MAPS, &headers, Vec::new()).await;
    assert_eq!(head.status, 401);
    let events = log.of("none");
    assert_eq!(events.keys().collect::<Vec<_>>(), ["ResponseStarted"]);
    let status = &events["ResponseStarted"]["responseStatus"];
    assert_eq!(status["code"], 401);
    assert_eq!(status["message"], "Authentication failed, attempted: bearer");
    assert!(!log.text().contains("very-secret-token"));
    // Over gRPC.
    let target = pb::Target {
        version: "v1".into(),
        resource: "configmaps".into(),
        namespace: "default".into(),
        name: "m".into(),
        ..pb::Target::default()
    };
    let mut get =
        tonic::Request::new(pb::GetRequest { target: Some(target), ..Default::default() });
    get.metadata_mut().insert("audit-id", "grpc".parse().unwrap());
    let status = server.grpc().get(get).await.unwrap_err();
    assert_eq!(status.metadata().get("audit-id").unwrap(), "grpc");
    let done = log.of("grpc").remove("ResponseComplete").unwrap();
    assert_eq!(done["requestURI"], format!("{MAPS}/m"));
    assert_eq!((&done["verb"], &done["responseStatus"]["code"]), (&json!("get"), &json!(404)));
    assert_eq!(done["sourceIPs"], json!(["127.0.0.1"]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_complete_when_it_ends() {
    let mut omitting =
        policy(&json!([{"level": "Metadata", "resources": [{"resources": ["configmaps"]}]}]));
    omitting["omitStages"] = json!(["RequestReceived"]);
    let log = Log::new(&omitting);
    let server = log.start(&["--audit-log-mode=batch"]).await;
    let watch = server.admin().watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
    let stages = || -> Vec<String> {
        let text = log.text();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let watches = events.filter(|event| event["verb"] == "watch");
        watches.map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    };
    let stages = &stages;
    let wait = |wanted: &'static [&'static str]| async move {
        for _ in 0..200 {
            if stages() == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{:?} and not {wanted:?}", stages());
    };
    wait(&["ResponseStarted"]).await;
    drop(watch);
    wait(&["ResponseStarted", "ResponseComplete"]).await;
    server.stop().await;
}

#[tokio::test]
async fn wrong_flags_are_refused_at_start() {
    let log = Log::new(&policy(&json!([{"level": "Everything"}])));
    let policy_file = log.path("policy.yaml");
    let path = format!("--audit-log-path={}", log.path("audit.log"));
    for (flags, expected) in [
        (
            vec![format!("--audit-policy-file={policy_file}")],
            format!(
                "loading audit policy file: rules[0].level: Unsupported value: \"Everything\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\": from file {policy_file}"
            ),
        ),
        (
            vec![path.clone(), "--audit-log-mode=slow".to_owned()],
            "invalid audit log mode slow, allowed modes are \"batch,blocking,blocking-strict\""
                .to_owned(),
        ),
        (
            vec![path.clone(), "--audit-log-maxage=-1".to_owned()],
            "--audit-log-maxage -1 can't be a negative number".to_owned(),
        ),
        (
            vec![path, "--audit-log-format=xml".to_owned()],
            "invalid audit log format xml, allowed formats are \"legacy,json\"".to_owned(),
        ),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let error = Server::try_start(&flags).await.err().unwrap();
        assert_eq!(format!("{error:#}"), expected);
    }
}

/// A log that must not lose anything refuses requests when the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_requests_in_strict_mode_alone() {
    let log = Log::new(&policy(&json!([{"level": "Metadata", "users": ["bob"]}])));
    for (mode, code) in [("blocking", 403), ("batch", 403), ("blocking-strict", 500)] {
        let flags = [
            format!("--audit-policy-file={}", log.path("policy.yaml")),
            "--audit-log-path=/dev/full".to_owned(),
            "--audit-log-maxsize=0".to_owned(),
            format!("--audit-log-mode={mode}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = Server::start_with(&flags).await;
        let answer = server.rest_as("bob", &[]).get(MAPS).await;
        assert_eq!(answer.code, code, "{mode}: {}", answer.text);
        if code == 500 {
            assert!(answer.text.contains("failed to store audit event"), "{}", answer.text);
        }
        let part = "apiserver_audit_error_total{plugin=\"log\"} ";
        let mut text = String::new();
        for _ in 0..100 {
            text = server.admin().get("/metrics").await.text;
            if text.contains(part) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(text.contains(part), "{mode}: {text}");
        let rejected = "apiserver_audit_requests_rejected_total 1";
        assert_eq!(text.contains(rejected), code == 500, "{mode}: {text}");
        server.stop().await;
    }
}

/// Events are sent in batches, again after a failure, and lost after the last attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_batches() {
    let log = Log::new(&policy(
        &json!([{"level": "Metadata", "resources": [{"resources": ["configmaps"]}]}]),
    ));
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let hook = Webhook::start("127.0.0.1", &["127.0.0.1"], move |_: &Value| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::Status(500, "not yet"),
            _ => Reply::Json(json!({})),
        }
    })
    .await
    .unwrap();
    let config = log.webhook(&hook);
    let more =
        [&config, "--audit-webhook-batch-max-wait=300ms", "--audit-webhook-initial-backoff=50ms"];
    let server = log.start(&more).await;
    let admin = server.admin();
    for _ in 0..5 {
        admin.get(MAPS).await.expect(200);
    }
    let items = || -> usize {
        let requests = hook.requests.lock();
        // The first one was refused.
        let lists = requests.iter().skip(1);
        lists.map(|list| list["items"].as_array().unwrap().len()).sum()
    };
    for _ in 0..200 {
        if items() == 10 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(items(), 10, "two stages of each request");
    let first = hook.requests.lock()[1].clone();
    assert_eq!(
        (&first["kind"], &first["apiVersion"]),
        (&json!("EventList"), &json!("audit.k8s.io/v1"))
    );
    assert!(first["items"].as_array().unwrap().len() > 1, "{first}");
    hook.behave(|_| Reply::Status(500, "never"));
    admin.get(MAPS).await.expect(200);
    let lost = "apiserver_audit_error_total{plugin=\"webhook\"} 2";
    let mut text = String::new();
    for _ in 0..200 {
        text = admin.get("/metrics").await.text;
        if text.contains(lost) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(text.contains(lost), "{text}");
    server.stop().await;
}

/// A webhook that does not answer costs events, but neither requests nor time: so many batches are on
/// their way, so many events wait, and the rest is lost and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_hangs_holds_nothing_up() {
    const REQUESTS: usize = 60;
    /// Batches that are being sent, and what waits before them.
    const HELD: usize = 64 + 4 + 2;
    let log = Log::new(&policy(
        &json!([{"level": "Metadata", "resources": [{"resources": ["configmaps"]}]}]),
    ));
    let hook = Webhook::start("127.0.0.1", &["127.0.0.1"], |_: &Value| Reply::Hang).await.unwrap();
    let more = [
        &*log.webhook(&hook),
        "--audit-webhook-batch-buffer-size=4",
        "--audit-webhook-batch-max-size=1",
        "--audit-webhook-batch-throttle-enable=false",
    ];
    let server = log.start(&more).await;
    let admin = server.admin();
    let begun = clock::monotonic();
    for _ in 0..REQUESTS {
        admin.get(MAPS).await.expect(200);
    }
    // One attempt of the webhook has half a minute.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    let text = admin.get("/metrics").await.text;
    let number = |name: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).trim().parse().unwrap()
    };
    assert_eq!(number("apiserver_audit_event_total "), 2 * REQUESTS);
    let lost = number("apiserver_audit_error_total{plugin=\"buffered\"} ");
    assert!((2 * REQUESTS - HELD..2 * REQUESTS).contains(&lost), "{lost} events are lost");
    assert!(hook.requests.lock().len() <= 64);
    // The log has them all the same.
    let kept = log.text().lines().count();
    assert_eq!(kept, 2 * REQUESTS);
    server.stop().await;
}

/// What proves who somebody is, is in no event; bodies are as the policy says, as upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_not_recorded() {
    let log = Log::new(&policy(&json!([{"level": "RequestResponse"}])));
    let server = log.start(&[]).await;
    let admin = server.admin();
    let account = "/api/v1/namespaces/default/serviceaccounts";
    admin.post(account, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let asked =
        json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}});
    let granted = admin.post(&format!("{account}/robot/token"), &asked).await.expect(201);
    let token = granted["status"]["token"].as_str().unwrap();
    assert!(log.text().contains(token), "the answer is recorded at this level");
    let (before, anonymous) = (log.text().len(), server.rest_anonymous());
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("audit-id", "with-token")];
    anonymous.exchange("GET", MAPS, &headers, Vec::new()).await;
    let headers = [("authorization", "Bearer never-issued-token"), ("audit-id", "with-other")];
    anonymous.exchange("GET", MAPS, &headers, Vec::new()).await;
    let headers = [("authorization", "Basic aHVudGVyOmh1bnRlcjI="), ("audit-id", "with-password")];
    anonymous.exchange("GET", MAPS, &headers, Vec::new()).await;
    for id in ["with-token", "with-other", "with-password"] {
        assert!(!log.of(id).is_empty(), "{id}");
    }
    let events = log.of("with-token");
    assert_eq!(
        events["ResponseComplete"]["user"]["username"],
        "system:serviceaccount:default:robot"
    );
    let text = &log.text()[before..];
    for secret in [token, "never-issued-token", "aHVudGVyOmh1bnRlcjI=", "hunter2"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    admin.post(SECRETS, &secret).await.expect(201);
    assert!(log.text().contains("hunter2"), "only a policy says what is left out");
    server.stop().await;
}

/// What admission says for the log is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_of_admission_are_kept() {
    let log = Log::new(&policy(&json!([{"level": "Request", "verbs": ["create"]}])));
    let server = log.start(&[]).await;
    let admin = server.admin();
    server.default_account("default").await;
    let hook = Webhook::start("127.0.0.1", &["127.0.0.1"], |review: &Value| {
        let patch = r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#;
        let patch = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, patch);
        Reply::Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
                "patch": patch, "auditAnnotations": {"seen": "yes"}}}))
    })
    .await
    .unwrap();
    let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let configuration = json!({"metadata": {"name": "c"}, "webhooks": [{"name": "h.example.com",
        "clientConfig": hook.client_config(), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]});
    admin.post(webhooks, &configuration).await.expect(201);
    let api = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [{
        "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "false", "message": "never"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "string(object.metadata.name)"}]}});
    admin.post(&format!("{api}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    admin.post(&format!("{api}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    // Another one, with more rules than can be recorded.
    let (mut more, mut also) = (policy.clone(), binding.clone());
    more["metadata"]["name"] = "q".into();
    let rules = (0..60).map(|_| json!({"expression": "false", "message": "more"}));
    more["spec"]["validations"] = rules.collect();
    admin.post(&format!("{api}/validatingadmissionpolicies"), &more).await.expect(201);
    also["metadata"]["name"] = "c".into();
    also["spec"]["policyName"] = "q".into();
    admin.post(&format!("{api}/validatingadmissionpolicybindings"), &also).await.expect(201);
    let mut annotations = Value::Null;
    for number in 0..100 {
        let map = json!({"metadata": {"name": format!("m{number}")}});
        let answer = admin.post(MAPS, &map).await;
        let id = answer.headers["audit-id"].to_str().unwrap().to_owned();
        answer.expect(201);
        annotations = log.of(&id)["ResponseComplete"]["annotations"].clone();
        // Until all are in force.
        let names = ["h.example.com/seen", "p/name", "q/name"];
        if names.iter().all(|name| annotations[name].is_string()) {
            assert_eq!(annotations["p/name"], format!("m{number}"));
            break;
        }
    }
    assert_eq!(annotations["h.example.com/seen"], "yes");
    let mutation = &annotations["mutation.webhook.admission.k8s.io/round_0_index_0"];
    let mutation: Value = serde_json::from_str(mutation.as_str().unwrap()).unwrap();
    assert_eq!(
        mutation,
        json!({"configuration": "c", "webhook": "h.example.com", "mutated": true})
    );
    let patch = &annotations["patch.webhook.admission.k8s.io/round_0_index_0"];
    let patch: Value = serde_json::from_str(patch.as_str().unwrap()).unwrap();
    assert_eq!(
        (&patch["patch"][0]["op"], &patch["patchType"]),
        (&json!("add"), &json!("JSONPatch"))
    );
    let failures = &annotations["validation.policy.admission.k8s.io/validation_failure"];
    let failures: Value = serde_json::from_str(failures.as_str().unwrap()).unwrap();
    let failure = |message: &str, policy: &str, binding: &str, index: usize| {
        json!({"message": message, "policy": policy, "binding": binding, "expressionIndex": index,
            "validationActions": ["Audit"]})
    };
    let expected = (0..49).map(|index| failure("more", "q", "c", index));
    let expected: Vec<_> = std::iter::once(failure("never", "p", "b", 0)).chain(expected).collect();
    assert_eq!(failures, json!(expected));
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let answer = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    let id = answer.headers["audit-id"].to_str().unwrap().to_owned();
    answer.expect(201);
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/enforce": "baseline"}}});
    assert!(log.of(&id)["ResponseComplete"]["annotations"].is_object());
    let labelled = admin.patch("/api/v1/namespaces/default", "merge", &labels).await.expect(200);
    // Admission reads the cache, which follows.
    let version = labelled["metadata"]["resourceVersion"].as_str().unwrap();
    let known = format!("/api/v1/namespaces/default?resourceVersion={version}");
    admin.get(&known).await.expect(200);
    let pod =
        json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let answer = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    let id = answer.headers["audit-id"].to_str().unwrap().to_owned();
    answer.expect(201);
    let annotations = log.of(&id)["ResponseComplete"]["annotations"].clone();
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": "),
        "{violations}"
    );
    server.stop().await;
}
