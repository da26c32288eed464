//! What admission webhooks and policies cost the creation of ConfigMaps.

use std::time::Duration;

use serde_json::{Value, json};

use crate::pairs::{self, Load, Request};
use crate::server::{Rest, Server};
use crate::{CONFIG_MAPS, MAPS, Sample};

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
/// Mutating webhooks, validating ones, and policies.
const REGISTERED: usize = 50;
/// How soon they are in force.
const IN_FORCE: Duration = Duration::from_secs(1);

pub async fn measure() {
    let none = Server::spawn(&[]).await;
    let others = Server::spawn(&[]).await;
    register_others(&others.admin()).await;
    let one = Server::spawn(&[]).await;
    register_one(&one.admin()).await;
    let loads = [&none, &others, &one].map(|server| creates(server, &CONFIG_MAPS));
    let [none_rates, others_rates, one_rates] = pairs::alternate(loads).await;
    let what = format!("create, {REGISTERED} webhooks and policies, none matching");
    pairs::report(&what, &others_rates, &none_rates);
    pairs::report("create, one matching policy", &one_rates, &none_rates);
    pairs::report_difference("evaluation of one policy", &one_rates, &none_rates);
    for server in [none, others, one] {
        server.stop().await;
    }
}

/// Creates of objects of 1 KB.
pub fn creates<'a>(server: &'a Server, sample: &'a Sample) -> Load<'a> {
    let data = "x".repeat(700);
    Load::new(server, ("kubernetes-admin", &["system:masters"]), move |number| {
        let object = (sample.object)(format!("p-{number}"), &data);
        Request {
            method: "POST",
            path: sample.path.to_owned(),
            body: object.to_string().into_bytes(),
        }
    })
}

/// Webhooks about Secrets, and policies about LimitRanges.
async fn register_others(rest: &Rest) {
    for number in 0..REGISTERED {
        for kind in ["Mutating", "Validating"] {
            let path = format!("{REGISTRATION}/{}webhookconfigurations", kind.to_lowercase());
            let configuration = json!({"metadata": {"name": format!("w-{number}")}, "webhooks": [{
                "name": format!("w-{number}.example.com"), "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "rules": [rule("secrets")],
                "clientConfig": {"url": "https://127.0.0.1:1/"}}]});
            rest.post(&path, &configuration).await.expect(201);
        }
        enforce(rest, &format!("p-{number}"), "limitranges").await;
    }
    tokio::time::sleep(IN_FORCE).await;
    let range = json!({"metadata": {"name": "refused"}, "spec": {"limits": []}});
    rest.post("/api/v1/namespaces/default/limitranges", &range).await.expect(422);
}

/// A policy about ConfigMaps.
async fn register_one(rest: &Rest) {
    enforce(rest, "p", "configmaps").await;
    tokio::time::sleep(IN_FORCE).await;
    rest.post(MAPS, &json!({"metadata": {"name": "refused"}})).await.expect(422);
}

fn rule(resource: &str) -> Value {
    json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": [resource]})
}

/// Creates a policy with a binding.
async fn enforce(rest: &Rest, name: &str, resource: &str) {
    let policy = json!({"metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [rule(resource)]},
        "variables": [{"name": "data", "expression": "has(object.data) ? object.data : {}"}],
        "validations": [
            {"expression": "size(variables.data) > 0 && variables.data.all(key, size(key) < 64)"},
            {"expression": "!object.metadata.name.startsWith('system-')",
                "messageExpression": "'reserved: ' + object.metadata.name"}]}});
    rest.post(&format!("{REGISTRATION}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding = json!({"metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]}});
    let bindings = format!("{REGISTRATION}/validatingadmissionpolicybindings");
    rest.post(&bindings, &binding).await.expect(201);
}
