//! A Deployment that grows under load and shrinks again.

use std::time::Duration;

use anyhow::ensure;
use client::Api;
use k8s_openapi::api::apps::v1::Deployment;
use testkit::suite::Fixture;
use tests::pods;

/// Longest time until it has grown, or shrunk: a pod's usage counts a window after it was started,
/// and both the figures and the autoscaler are made every 15 s.
const WITHIN: Duration = Duration::from_secs(150);

/// Its pods work if the ConfigMap is there when they start.
const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: worker
spec:
  replicas: 1
  selector:
    matchLabels: {app: worker}
  template:
    metadata:
      labels: {app: worker}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: worker
        image: skiff.test/busybox:1
        command: ["sh", "-c", "while :; do if [ -e /work/busy ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else sleep 1; fi; done"]
        resources:
          requests: {cpu: 50m}
          limits: {cpu: 100m}
        volumeMounts:
        - {name: work, mountPath: /work}
      volumes:
      - name: work
        configMap: {name: work, optional: true}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: worker
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: Resource
    resource:
      name: cpu
      target: {type: AverageValue, averageValue: 25m}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 5
"#;

/// Waits until the Deployment wants a number of pods.
async fn until(fixture: &Fixture, holds: impl Fn(i32) -> bool) -> anyhow::Result<()> {
    let api = Api::<Deployment>::namespaced(fixture.cluster.client(), &fixture.namespace);
    let until = clock::instant() + WITHIN;
    loop {
        let deployment = api.get("worker").await?;
        let replicas = deployment.spec.replicas.unwrap_or(1);
        if holds(replicas) {
            return Ok(());
        }
        ensure!(clock::instant() < until, "{replicas} replicas: {:?}", deployment.status);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub async fn a_deployment_grows_under_load_and_shrinks_again(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let file = cluster.folder().join("autoscaling.yaml").to_string_lossy().into_owned();
    std::fs::write(&file, MANIFEST)?;
    let kubectl = |arguments: &[&str]| -> anyhow::Result<String> {
        let arguments = [&["-n", &fixture.namespace], arguments].concat();
        let output = cluster.try_kubectl(&arguments)?;
        ensure!(output.success, "{arguments:?}: {}{}", output.stderr, output.stdout);
        Ok(output.stdout)
    };
    kubectl(&["create", "configmap", "work", "--from-literal=busy=yes"])?;
    kubectl(&["apply", "-f", &file])?;
    until(fixture, |replicas| replicas >= 2).await?;
    let events = kubectl(&["get", "events", "--field-selector=reason=SuccessfulRescale"])?;
    ensure!(events.contains("New size: "), "{events}");
    let table = kubectl(&["get", "hpa", "worker"])?;
    ensure!(table.contains("Deployment/worker"), "{table}");
    kubectl(&["delete", "configmap", "work"])?;
    kubectl(&["delete", "pods", "-l", "app=worker", "--wait=false"])?;
    until(fixture, |replicas| replicas == 1).await?;
    pods::until(fixture, "app=worker", "one pod is left", |pods| pods.len() == 1).await?;
    // Both command lines make autoscalers.
    let flags = ["autoscale", "deployment/worker", "--max=4", "--cpu-percent=50"];
    kubectl(&[&flags[..], &["--name=by-kubectl"]].concat())?;
    let namespace = format!("--namespace={}", fixture.namespace);
    let skiff = [&flags[..], &["--name=by-skiff", &namespace]].concat();
    let output = cluster.try_skiff(&skiff)?;
    ensure!(output.success, "{}{}", output.stderr, output.stdout);
    let path = "-o=jsonpath={.items[*].spec.metrics[0].resource.target.averageUtilization}";
    let targets = kubectl(&["get", "hpa.v2.autoscaling", path])?;
    ensure!(targets == "50 50", "{targets}");
    Ok(())
}
