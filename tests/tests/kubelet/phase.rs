//! A phase that somebody writes through the API.

use anyhow::{Context, ensure};
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::manifest;
use testkit::suite::Fixture;
use tests::pods;

/// A pod that has failed in the API never runs again: its containers are stopped, it stays as it is,
/// and its set makes another one.
pub async fn a_pod_that_the_api_says_has_failed_is_stopped_and_replaced(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: kept}
spec:
  replicas: 1
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}]
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    let first = pods::until(fixture, "app=kept", "the first pod is ready", |pods| {
        pods.values().any(pods::is_ready)
    })
    .await?;
    let first = first.into_keys().next().context("it was waited for")?;
    let api = Api::<Pod>::namespaced(fixture.cluster.client(), &fixture.namespace);
    let failed = json!({"status": {"phase": "Failed"}});
    api.patch_status(&first, PatchKind::Merge, &failed).await?;
    let all = pods::until(fixture, "app=kept", "it is stopped and replaced", |pods| {
        let stopped = pods.get(&first).is_none_or(|pod| {
            let status = pods::container(pod, "main").and_then(|status| status.state.as_ref());
            status.is_some_and(|state| state.terminated.is_some())
        });
        stopped && pods.iter().any(|(name, pod)| *name != first && pods::is_ready(pod))
    })
    .await?;
    // The kubelet has written its status, and left the phase as it is.
    if let Some(pod) = all.get(&first) {
        ensure!(pods::phase(pod) == "Failed", "{:?}", pod.status);
    }
    ensure!(all.values().filter(|pod| pods::is_ready(pod)).count() == 1, "one runs");
    Ok(())
}
