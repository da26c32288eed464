//! Admission webhooks as operators have them: behind a Service, in a pod, on kube-rs' types.

use anyhow::{Context, ensure};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::{Value, json};
use testkit::suite::Fixture;
use testkit::wait;
use testkit::webhook::{Reply, Webhook};
use tests::pods;
use tokio::runtime::Handle;

use super::conversion::behind_a_service;
use super::kubectl::{kubectl, write_manifest};

/// Notes who has made a ConfigMap, and keeps those that are marked.
fn judge(review: &Value) -> Reply {
    let judged = || -> anyhow::Result<AdmissionReview<DynamicObject>> {
        let review: AdmissionReview<DynamicObject> = serde_json::from_value(review.clone())?;
        let request: AdmissionRequest<DynamicObject> = review.try_into()?;
        let response = AdmissionResponse::from(&request);
        let Some(object) = &request.object else {
            let old = request.old_object.as_ref().context("nothing is deleted")?;
            let keep = old.metadata.labels.as_ref().is_some_and(|all| all.contains_key("keep"));
            let response = if keep { response.deny("it is marked") } else { response };
            return Ok(response.into_review());
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        let by = format!("{} for {name}", request.user_info.username.unwrap_or_default());
        let add = json!([{"op": "add", "path": "/data/by", "value": by}]);
        Ok(response.with_patch(serde_json::from_value(add)?)?.into_review())
    };
    match judged().and_then(|review| Ok(serde_json::to_value(review)?)) {
        Ok(review) => Reply::Json(review),
        Err(_) => Reply::Status(400, "no review"),
    }
}

pub async fn a_webhook_in_a_pod_changes_and_denies(fixture: &Fixture) -> anyhow::Result<()> {
    // The webhook has to answer while the scenario waits for kubectl.
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = changes_and_denies(fixture, threads.handle()).await;
    threads.shutdown_background();
    outcome
}

async fn changes_and_denies(fixture: &Fixture, threads: &Handle) -> anyhow::Result<()> {
    let namespace = &fixture.namespace;
    let name = format!("hook.{namespace}.svc");
    let gateway = fixture.cluster.gateway();
    let (address, own) = (gateway.clone(), name.clone());
    let starting = async move { Webhook::start(&address, &[&own], judge).await };
    let webhook = threads.spawn(starting).await??;
    let [pod, service] = behind_a_service(&gateway, webhook.port);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod, service]});
    let path = write_manifest(fixture, "hook", &list.to_string())?;
    kubectl(fixture, &["apply", "-f", &path])?;
    pods::until(fixture, "app=hook", "the webhook's pod is ready", |all| {
        all.values().any(pods::is_ready)
    })
    .await?;
    let own = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let configuration = |kind: &str, operations: &[&str]| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": name},
            "webhooks": [{"name": "hook.example.com", "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "namespaceSelector": own,
                "clientConfig": {"caBundle": webhook.ca_bundle(),
                    "service": {"namespace": namespace, "name": "hook", "path": "/admit"}},
                "rules": [{"operations": operations, "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["configmaps"]}]}]})
    };
    let items = [
        configuration("Mutating", &["CREATE", "UPDATE"]),
        configuration("Validating", &["DELETE"]),
    ];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let path = write_manifest(fixture, "configurations", &list.to_string())?;
    kubectl(fixture, &["apply", "-f", &path])?;
    let outcome = exercise(fixture).await;
    // They concern the whole cluster.
    kubectl(fixture, &["delete", "-f", &path])?;
    outcome?;
    kubectl(fixture, &["delete", "configmap", "marked"])?;
    Ok(())
}

async fn exercise(fixture: &Fixture) -> anyhow::Result<()> {
    let by = |name: &str| {
        let path = "-o=jsonpath={.data.by}";
        kubectl(fixture, &["get", "configmap", name, path])
    };
    wait::eventually("the webhook is reached", async || {
        let create = ["create", "configmap", "first", "--from-literal=a=b"];
        kubectl(fixture, &[&create[..], &["--dry-run=server"]].concat())?;
        kubectl(fixture, &create).map(|_| ())
    })
    .await?;
    ensure!(by("first")? == "kubernetes-admin for first", "{}", by("first")?);
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "marked", "labels": {"keep": ""}}, "data": {"a": "b"}});
    let path = write_manifest(fixture, "marked", &manifest.to_string())?;
    for arguments in [&["apply", "-f"][..], &["apply", "--server-side", "--force-conflicts", "-f"]]
    {
        kubectl(fixture, &[arguments, &[&path]].concat())?;
        ensure!(by("marked")? == "kubernetes-admin for marked", "{}", by("marked")?);
    }
    let denied = kubectl(fixture, &["delete", "configmap", "marked"]);
    let denied = denied.err().context("the webhook has not denied it")?.to_string();
    let text = "admission webhook \"hook.example.com\" denied the request: it is marked";
    ensure!(denied.contains(text), "{denied}");
    kubectl(fixture, &["delete", "configmap", "first"])?;
    let mutating = kubectl(fixture, &["get", "mutatingwebhookconfigurations", "--no-headers"])?;
    ensure!(mutating.split_whitespace().nth(1) == Some("1"), "{mutating}");
    Ok(())
}
