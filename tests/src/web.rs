//! The application that several suites run: a web server with a sidecar, configuration, a
//! secret, and a Service in front of it.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use testkit::Cluster;

/// Its manifest; the objects go into the namespace of the scenario that creates them.
pub fn manifest(replicas: u8, version: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data: {{greeting: hello, page.txt: "from the config map\n"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: web}}
type: Opaque
stringData: {{password: open sesame}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{type: RollingUpdate, rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 10
      tolerations:
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      containers:
      - name: server
        image: skiff.test/testserver:{version}
        args: [serve, --port, "8080", --drain, "1500"]
        ports: [{{name: http, containerPort: 8080}}]
        env:
        - {{name: GREETING, valueFrom: {{configMapKeyRef: {{name: web, key: greeting}}}}}}
        - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: web, key: password}}}}}}
        - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 1}}
        livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 5}}
        resources: {{requests: {{cpu: 10m, memory: 16Mi}}, limits: {{memory: 64Mi}}}}
        volumeMounts:
        - {{name: shared, mountPath: /shared}}
        - {{name: config, mountPath: /config}}
      - name: sidecar
        image: skiff.test/busybox:1
        command: [sh, -c, "echo from the sidecar > /shared/page.txt; trap 'exit 0' TERM; while true; do sleep 1; done"]
        volumeMounts: [{{name: shared, mountPath: /shared}}]
      volumes:
      - {{name: shared, emptyDir: {{}}}}
      - {{name: config, configMap: {{name: web}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"#
    )
}

/// Requests a page from this machine.
///
/// # Errors
/// When there is no response.
pub fn get(cluster: &Cluster, url: &str) -> anyhow::Result<String> {
    let output = Command::new(cluster.test_server()).args(["get", url]).output()?;
    let body = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(body.trim().to_owned())
}

/// Requests at a steady rate from this machine, in the background.
pub struct Load(Child);

impl Load {
    /// Starts sending.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn start(cluster: &Cluster, url: &str, rate: u32, seconds: u32) -> anyhow::Result<Self> {
        let child = Command::new(cluster.test_server())
            .args(["load", "--url", url, "--rps", &rate.to_string()])
            .args(["--seconds", &seconds.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the client")?;
        Ok(Self(child))
    }

    /// Starts sending until [`Load::finish`] is called, at most for `max_seconds`.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn until_finished(
        cluster: &Cluster,
        url: &str,
        rate: u32,
        max_seconds: u32,
    ) -> anyhow::Result<Self> {
        let child = Command::new(cluster.test_server())
            .args(["load", "--url", url, "--rps", &rate.to_string()])
            .args(["--seconds", &max_seconds.to_string(), "--until", "eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the client")?;
        Ok(Self(child))
    }

    /// Stops the client, or waits until it ends by itself; returns its report.
    ///
    /// # Errors
    /// When it fails.
    pub async fn finish(self) -> anyhow::Result<Value> {
        let output = tokio::task::spawn_blocking(|| self.0.wait_with_output()).await??;
        ensure!(output.status.success(), "the client failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
