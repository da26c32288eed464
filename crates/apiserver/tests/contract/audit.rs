//! The audit log: what is in it about requests of both front ends.

use std::collections::BTreeMap;
use std::path::Path;

use rpc::api_v1 as pb;
use serde_json::{Value, json};

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
