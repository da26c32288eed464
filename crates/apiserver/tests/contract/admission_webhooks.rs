//! Admission webhooks: what they are asked, what they may change, and what becomes of requests when
//! they deny, fail or lie.

#[path = "admission_webhooks/failures.rs"]
mod failures;
#[path = "admission_webhooks/objects.rs"]
mod objects;
#[path = "admission_webhooks/selection.rs"]
mod selection;
#[path = "admission_webhooks/subresources.rs"]
mod subresources;
#[path = "admission_webhooks/validation.rs"]
mod validation;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use testkit::webhook::{Reply, Webhook};

use crate::server::{Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
/// How soon a configuration is in force.
const IN_FORCE: Duration = Duration::from_secs(1);

/// A server and a webhook.
struct Set {
    server: Server,
    rest: Rest,
    webhook: Webhook,
}

impl Set {
    async fn start(behave: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let server = Server::start().await;
        let webhook = Webhook::start("127.0.0.1", &["127.0.0.1"], behave).await.unwrap();
        Self { rest: server.admin(), server, webhook }
    }

    /// A webhook of a configuration, about the creation and change of ConfigMaps.
    fn hook(&self, name: &str) -> Value {
        json!({"name": format!("{name}.example.com"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": self.webhook.client_config(),
            "rules": [rule(&["CREATE", "UPDATE"], "", "v1", &["configmaps"])]})
    }

    async fn mutating(&self, name: &str, hooks: &[Value]) {
        self.configure("Mutating", name, hooks).await;
    }

    async fn validating(&self, name: &str, hooks: &[Value]) {
        self.configure("Validating", name, hooks).await;
    }

    /// Creates a configuration, or replaces it, and waits until it is in force.
    async fn configure(&self, kind: &str, name: &str, hooks: &[Value]) {
        let path = format!("{REGISTRATION}/{}webhookconfigurations", kind.to_lowercase());
        let one = format!("{path}/{name}");
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": name},
            "webhooks": hooks});
        if self.rest.get(&one).await.code == 200 {
            self.rest.delete(&one).await.expect(200);
            let gone = |names: &[String]| !hooks.iter().any(|hook| is_among(names, hook));
            self.until(gone).await;
        }
        self.rest.post(&path, &configuration).await.expect(201);
        self.until(|names| hooks.iter().all(|hook| is_among(names, hook))).await;
    }

    async fn until(&self, holds: impl Fn(&[String]) -> bool) {
        let waiting = async {
            while !holds(&self.server.core().admission.webhooks.names()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(IN_FORCE, waiting).await.expect("it is in force within a second");
    }

    /// The reviews that have arrived since the last time.
    fn reviews(&self) -> Vec<Value> {
        std::mem::take(&mut *self.webhook.requests.lock())
    }
}

fn is_among(names: &[String], hook: &Value) -> bool {
    names.iter().any(|name| hook["name"] == name.as_str())
}

fn rule(operations: &[&str], group: &str, version: &str, resources: &[&str]) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": [version],
        "resources": resources})
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"a": "b"}})
}

/// An answer with these members in its response.
fn answer(review: &Value, members: &Value) -> Reply {
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    for (name, value) in members.as_object().unwrap() {
        response[name] = value.clone();
    }
    Reply::Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": response}))
}

fn allow(review: &Value) -> Reply {
    answer(review, &json!({}))
}

fn deny(review: &Value) -> Reply {
    answer(review, &json!({"allowed": false, "status": {"message": "not like this"}}))
}

/// A JSON patch.
fn patch(review: &Value, operations: &Value) -> Reply {
    let patch = BASE64.encode(operations.to_string());
    answer(review, &json!({"patchType": "JSONPatch", "patch": patch}))
}

/// Sets `data.touched`.
fn touch(review: &Value) -> Reply {
    let touched = json!([{"op": "add", "path": "/data/touched", "value": "yes"}]);
    patch(review, &touched)
}
