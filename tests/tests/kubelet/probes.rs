//! Probes over gRPC and HTTPS.

use anyhow::ensure;
use testkit::suite::Fixture;
use tests::{pods, web};

use super::create;

pub async fn probes_use_grpc(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = "
apiVersion: v1
kind: Pod
metadata: {name: grpc}
spec:
  containers:
  - name: main
    image: skiff.test/testserver:v1
    args: [serve, --grpc-port, '9000']
    readinessProbe: {grpc: {port: 9000}, periodSeconds: 1, failureThreshold: 1}
";
    create(fixture, yaml).await?;
    let pod = pods::ready(fixture, "grpc").await?;
    let page = |path: &str| format!("http://{}:8080/{path}", pods::address(&pod));
    web::get(&fixture.cluster, &page("ready/off"))?;
    pods::one(fixture, "grpc", "the pod is not Ready", |pod| !pods::is_ready(pod)).await?;
    web::get(&fixture.cluster, &page("ready/on"))?;
    pods::ready(fixture, "grpc").await?;
    Ok(())
}

/// The only TLS server that every cluster has is the apiserver.
pub async fn probes_use_https(fixture: &Fixture) -> anyhow::Result<()> {
    let gateway = fixture.cluster.gateway();
    let yaml = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: secure}}
spec:
  containers:
  - name: main
    image: skiff.test/testserver:v1
    args: [serve]
    startupProbe: {{httpGet: {{scheme: HTTPS, host: {gateway}, port: 6443, path: /healthz}}, periodSeconds: 1}}
    readinessProbe: {{httpGet: {{scheme: HTTPS, host: {gateway}, port: 6443, path: /livez}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: plain}}
spec:
  containers:
  - name: main
    image: skiff.test/testserver:v1
    args: [serve]
    livenessProbe: {{httpGet: {{scheme: HTTPS, port: 8080, path: /healthz}}, periodSeconds: 1, failureThreshold: 1}}
"
    );
    create(fixture, &yaml).await?;
    pods::ready(fixture, "secure").await?;
    // A server without TLS fails such a probe.
    pods::one(fixture, "plain", "it is restarted", |pod| pods::restarts(pod, "main") > 0).await?;
    let secure = pods::ready(fixture, "secure").await?;
    ensure!(pods::restarts(&secure, "main") == 0);
    Ok(())
}
