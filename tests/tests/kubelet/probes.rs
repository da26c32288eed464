//! Probes over gRPC and HTTPS.

use anyhow::ensure;
use testkit::suite::Scene;
use tests::{pods, web};

use super::create;

pub async fn probes_speak_grpc(scene: &Scene) -> anyhow::Result<()> {
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
    create(scene, yaml).await?;
    let pod = pods::ready(scene, "grpc").await?;
    let page = |path: &str| format!("http://{}:8080/{path}", pods::address(&pod));
    web::get(&scene.cluster, &page("ready/off"))?;
    pods::one(scene, "grpc", "the pod is not Ready", |pod| !pods::is_ready(pod)).await?;
    web::get(&scene.cluster, &page("ready/on"))?;
    pods::ready(scene, "grpc").await?;
    Ok(())
}

/// The one server with TLS that is there anyway is the apiserver.
pub async fn probes_speak_https(scene: &Scene) -> anyhow::Result<()> {
    let gateway = scene.cluster.gateway();
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
    create(scene, &yaml).await?;
    pods::ready(scene, "secure").await?;
    // A server without TLS fails such a probe.
    pods::one(scene, "plain", "it is started again", |pod| pods::restarts(pod, "main") > 0).await?;
    let secure = pods::ready(scene, "secure").await?;
    ensure!(pods::restarts(&secure, "main") == 0);
    Ok(())
}
