//! Admission plugins one by one: what each refuses and changes, and that it does neither where it is
//! disabled.

#[path = "admission_plugins/nodes.rs"]
mod nodes;
#[path = "admission_plugins/optional.rs"]
mod optional;
#[path = "admission_plugins/quotas.rs"]
mod quotas;
#[path = "admission_plugins/usual.rs"]
mod usual;

use serde_json::{Value, json};

use crate::server::{Rest, Server};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

/// A creation that a plugin refuses or changes.
struct Case {
    plugin: &'static str,
    path: String,
    object: Value,
    effect: Effect,
}

enum Effect {
    Refused {
        code: u16,
        reason: &'static str,
        message: String,
    },
    /// What the plugin sets, by its place.
    Set(&'static str, Value),
}

fn forbidden(plugin: &'static str, path: &str, object: Value, message: &str) -> Case {
    refused(plugin, path, object, (403, "Forbidden"), message)
}

fn refused(
    plugin: &'static str,
    path: &str,
    object: Value,
    (code, reason): (u16, &'static str),
    message: &str,
) -> Case {
    let effect = Effect::Refused { code, reason, message: message.to_owned() };
    Case { plugin, path: path.to_owned(), object, effect }
}

fn set(
    plugin: &'static str,
    path: &str,
    object: Value,
    pointer: &'static str,
    value: Value,
) -> Case {
    Case { plugin, path: path.to_owned(), object, effect: Effect::Set(pointer, value) }
}

/// Does the plugin's work where it is enabled, and nothing where it is not.
async fn check(rest: &Rest, case: &Case, enabled: bool) {
    let Case { plugin, path, object, effect } = case;
    let answer = rest.post(&format!("{path}?dryRun=All"), object).await;
    match effect {
        Effect::Refused { code, reason, message } if enabled => {
            let refused = answer.expect(*code);
            assert_eq!(refused["message"], *message, "{plugin}");
            assert_eq!(refused["reason"].as_str().unwrap_or_default(), *reason, "{plugin}");
        }
        Effect::Refused { .. } => {
            assert_eq!(answer.code, 201, "{plugin} is disabled: {}", answer.text);
        }
        Effect::Set(pointer, value) => {
            let made = answer.expect(201);
            let found = made.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(found == *value, enabled, "{plugin}: {found} at {pointer}");
        }
    }
}

fn pod(name: &str, change: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}],
        "automountServiceAccountToken": false});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

/// A server with an AdmissionConfiguration.
async fn configured(flags: &[&str], plugins: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admission.yaml");
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
    std::fs::write(&path, format!("{head}plugins:\n{plugins}")).unwrap();
    let file = format!("--admission-control-config-file={}", path.display());
    let flags: Vec<&str> = flags.iter().copied().chain([file.as_str()]).collect();
    Server::start_with(&flags).await
}

#[tokio::test]
async fn flags_name_plugins_that_there_are() {
    for (flags, problem) in [
        (
            &["--enable-admission-plugins=PodSecurity,Nothing"][..],
            "admission: enable-admission-plugins plugin \"Nothing\" is unknown",
        ),
        (
            &["--disable-admission-plugins=PodPreset"],
            "admission: disable-admission-plugins plugin \"PodPreset\" is unknown",
        ),
        (
            &["--enable-admission-plugins=Priority", "--disable-admission-plugins=Priority"],
            "admission: [Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
        ),
    ] {
        assert_eq!(Server::refusal(flags).await, problem);
    }
}

#[tokio::test]
async fn nothing_passes_always_deny() {
    let server = Server::start_with(&["--enable-admission-plugins=AlwaysDeny"]).await;
    let rest = server.admin();
    let why = "is forbidden: admission control is denying all modifications";
    let map = json!({"metadata": {"name": "m"}});
    let answer = rest.post(&format!("{NAMESPACE}/configmaps"), &map).await;
    assert_eq!(answer.expect(403)["message"], format!("configmaps \"m\" {why}"));
    let answer = rest.patch(NAMESPACE, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(answer.expect(403)["message"], format!("namespaces \"default\" {why}"));
    let answer = rest.delete(&format!("{NAMESPACE}/services/kubernetes")).await;
    assert_eq!(answer.expect(403)["message"], format!("services \"kubernetes\" {why}"));
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    rest.post(reviews, &review).await.expect(403);
    rest.get(NAMESPACE).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn metrics_say_how_long_plugins_take() {
    let server = Server::start().await;
    let rest = server.admin();
    let map = json!({"metadata": {"name": "m"}});
    rest.post("/api/v1/namespaces/gone/configmaps", &map).await.expect(404);
    rest.post(&format!("{NAMESPACE}/configmaps"), &map).await.expect(201);
    let metrics = rest.get("/metrics").await.text;
    for line in [
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"true\",type=\"admit\"} 1",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"true\",type=\"admit\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let counted = "apiserver_admission_controller_admission_duration_seconds_count{name=\"ResourceQuota\",operation=\"CREATE\",rejected=\"false\",type=\"validate\"}";
    assert!(metrics.contains(counted));
    server.stop().await;
}
