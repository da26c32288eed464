//! The Pod Security Standards that namespaces ask for.

use serde_json::{Value, json};

use crate::server::{Answer, Rest, Server};

const PREFIX: &str = "pod-security.kubernetes.io";

fn warnings(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all("warning").iter();
    let plain = |text: &str| {
        let quoted = text.strip_prefix("299 - \"").and_then(|rest| rest.strip_suffix('"'));
        quoted.unwrap_or(text).replace("\\\"", "\"")
    };
    values.map(|value| plain(value.to_str().unwrap())).collect()
}

fn labels(given: &[(&str, &str)]) -> Value {
    given.iter().map(|(mode, level)| (format!("{PREFIX}/{mode}"), Value::from(*level))).collect()
}

async fn namespace(server: &Server, rest: &Rest, name: &str, given: &[(&str, &str)]) {
    let object = json!({"metadata": {"name": name, "labels": labels(given)}});
    rest.post("/api/v1/namespaces", &object).await.expect(201);
    server.default_account(name).await;
}

fn pod(name: &str, context: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i", "securityContext": context}]}})
}

fn hardened() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"}})
}

const PRIVILEGED: &str =
    "privileged (container \"c\" must not set securityContext.privileged=true)";

#[tokio::test]
async fn a_namespace_enforces_its_level() {
    let server = Server::start().await;
    let rest = server.admin();
    namespace(&server, &rest, "tight", &[("enforce", "restricted"), ("enforce-version", "v1.30")])
        .await;
    let pods = "/api/v1/namespaces/tight/pods";
    let refused = rest.post(pods, &pod("p", json!({"privileged": true}))).await.expect(403);
    assert_eq!(refused["reason"], "Forbidden");
    assert_eq!(
        refused["message"],
        format!(
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:v1.30\": {PRIVILEGED}, \
             allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        )
    );
    rest.get(&format!("{pods}/p")).await.expect(404);
    rest.post(&format!("{pods}?dryRun=All"), &pod("p", json!({}))).await.expect(403);
    rest.post(pods, &pod("p", hardened())).await.expect(201);
    // Debugging containers are pods' containers as well.
    let path = format!("{pods}/p/ephemeralcontainers");
    let debugger = |context: Value| json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i", "securityContext": context}]}});
    rest.patch(&path, "strategic-merge", &debugger(json!({"privileged": true}))).await.expect(403);
    rest.patch(&path, "strategic-merge", &debugger(hardened())).await.expect(200);
    // A template is not refused, but it is warned of.
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("", json!({"privileged": true}))["spec"]});
    let workload = json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = rest.post("/apis/apps/v1/namespaces/tight/deployments", &workload).await;
    let text = warnings(&made);
    assert_eq!(text.len(), 1, "{text:?}");
    let start = format!("would violate PodSecurity \"restricted:v1.30\": {PRIVILEGED}, ");
    assert!(text[0].starts_with(&start), "{text:?}");
    made.expect(201);
    let metrics = rest.get("/metrics").await.text;
    for part in [
        "pod_security_evaluations_total{decision=\"deny\",mode=\"enforce\",policy_level=\"restricted\",policy_version=\"v1.30\",request_operation=\"create\",resource=\"pod\",subresource=\"\"} 2",
        "mode=\"warn\",policy_level=\"restricted\",policy_version=\"v1.30\",request_operation=\"create\",resource=\"controller\"",
    ] {
        assert!(metrics.contains(part), "{part} is not in {metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn warnings_and_audits_let_pods_through() {
    let server = Server::start().await;
    let rest = server.admin();
    namespace(&server, &rest, "loose", &[("warn", "baseline"), ("audit", "baseline")]).await;
    let pods = "/api/v1/namespaces/loose/pods";
    let made = rest.post(pods, &pod("p", json!({"privileged": true}))).await;
    assert_eq!(
        warnings(&made),
        [format!("would violate PodSecurity \"baseline:latest\": {PRIVILEGED}")]
    );
    made.expect(201);
    let metrics = rest.get("/metrics").await.text;
    assert!(
        metrics.contains("decision=\"deny\",mode=\"audit\",policy_level=\"baseline\""),
        "{metrics}"
    );
    // Only what may be checked anew is.
    let label = rest
        .patch(&format!("{pods}/p"), "merge", &json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    assert!(warnings(&label).is_empty());
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "j"}]);
    let image = rest.patch(&format!("{pods}/p"), "json", &image).await;
    assert_eq!(warnings(&image).len(), 1, "{}", image.text);
    image.expect(200);
    // An existing pod stays when the namespace gets strict, and its owner is told.
    let path = "/api/v1/namespaces/loose";
    let strict = json!({"metadata": {"labels": labels(&[("enforce", "baseline")])}});
    let told = rest.patch(path, "merge", &strict).await;
    assert_eq!(
        warnings(&told),
        [
            "existing pods in namespace \"loose\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "p: privileged",
        ]
    );
    told.expect(200);
    let status = json!({"status": {"phase": "Running"}});
    rest.patch(&format!("{pods}/p/status"), "merge", &status).await.expect(200);
    rest.patch(&format!("{pods}/p"), "merge", &json!({"metadata": {"labels": {"a": "c"}}}))
        .await
        .expect(200);
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "k"}]);
    rest.patch(&format!("{pods}/p"), "json", &image).await.expect(403);
    server.stop().await;
}

#[tokio::test]
async fn labels_must_be_valid() {
    let server = Server::start().await;
    let rest = server.admin();
    let object =
        |given: &[(&str, &str)]| json!({"metadata": {"name": "n", "labels": labels(given)}});
    for (label, value, detail) in [
        ("enforce", "strict", "must be one of privileged, baseline, restricted"),
        ("audit", "", "must be one of privileged, baseline, restricted"),
        ("warn", "Baseline", "must be one of privileged, baseline, restricted"),
        ("enforce-version", "v1", "must be \"latest\" or \"v1.x\""),
        ("audit-version", "1.30", "must be \"latest\" or \"v1.x\""),
        ("warn-version", "v1.01", "must be \"latest\" or \"v1.x\""),
    ] {
        let refused = rest.post("/api/v1/namespaces", &object(&[(label, value)])).await.expect(422);
        assert_eq!(
            refused["message"],
            format!(
                "Namespace \"n\" is invalid: metadata.labels[{PREFIX}/{label}]: Invalid value: \"{value}\": {detail}"
            )
        );
        let field = &refused["details"]["causes"][0]["field"];
        assert_eq!(field, &format!("metadata.labels[{PREFIX}/{label}]"));
        rest.get("/api/v1/namespaces/n").await.expect(404);
    }
    rest.post("/api/v1/namespaces", &object(&[("enforce", "baseline")])).await.expect(201);
    let bad = json!({"metadata": {"labels": labels(&[("enforce", "x")])}});
    rest.patch("/api/v1/namespaces/n", "merge", &bad).await.expect(422);
    let kept = rest.get("/api/v1/namespaces/n").await.expect(200);
    assert_eq!(kept["metadata"]["labels"][format!("{PREFIX}/enforce")], "baseline");
    server.stop().await;
}

#[tokio::test]
async fn a_configuration_has_defaults_and_exemptions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admission.yaml");
    let text = "apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults:
      enforce: baseline
    exemptions:
      usernames: [trusted]
      runtimeClasses: [sandbox]
      namespaces: [kube-system]
";
    std::fs::write(&file, text).unwrap();
    let flag = format!("--admission-control-config-file={}", file.display());
    let server = Server::start_with(&[&flag]).await;
    let rest = server.admin();
    for namespace in ["default", "kube-system"] {
        server.default_account(namespace).await;
    }
    let class = json!({"metadata": {"name": "sandbox"}, "handler": "h"});
    rest.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.expect(201);
    let trusted = server.rest_as("trusted", &["system:masters"]);
    let plain = pod("p", json!({"privileged": true}));
    let mut sandboxed = pod("s", json!({"privileged": true}));
    sandboxed["spec"]["runtimeClassName"] = "sandbox".into();
    rest.post("/api/v1/namespaces/default/pods", &plain).await.expect(403);
    rest.post("/api/v1/namespaces/default/pods", &sandboxed).await.expect(201);
    trusted.post("/api/v1/namespaces/default/pods", &plain).await.expect(201);
    rest.post("/api/v1/namespaces/kube-system/pods", &plain).await.expect(201);
    let strict = json!({"metadata": {"labels": labels(&[("enforce", "restricted")])}});
    let told = rest.patch("/api/v1/namespaces/kube-system", "merge", &strict).await;
    assert_eq!(
        warnings(&told),
        [
            "namespace \"kube-system\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored"
        ]
    );
    let metrics = rest.get("/metrics").await.text;
    assert!(metrics.contains("pod_security_exemptions_total{request_operation=\"create\",resource=\"pod\",subresource=\"\"} 3"), "{metrics}");
    server.stop().await;
}
