//! Ports of pods, forwarded to this machine: `skiff` over gRPC, kubectl over SPDY in a WebSocket
//! and over SPDY alone, kube-rs over WebSocket channels.

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use testkit::manifest;
use testkit::suite::Fixture;
use tests::{pods, web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Tool;

/// Number of concurrent connections.
const CONNECTIONS: usize = 8;

/// A tool that forwards ports; dropping it kills the tool.
pub struct Forward {
    child: Child,
    pub url: String,
}

impl Forward {
    /// Starts it and waits until it listens.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        // Drain the rest of its output, so that it never blocks on a full pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()).ok());
        let mut words = line.split_whitespace();
        let Some(address) = words.find(|word| word.starts_with("127.0.0.1:")) else {
            child.kill()?;
            let mut errors = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut errors)?;
            }
            bail!("{line:?}: {errors}");
        };
        let url = format!("http://{address}");
        Ok(Self { child, url })
    }

    /// Kills the tool; returns its standard error.
    fn finish(mut self) -> anyhow::Result<String> {
        self.child.kill()?;
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors)?;
        }
        Ok(errors)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub async fn skiff_forwards_ports(fixture: &Fixture) -> anyhow::Result<()> {
    forwards_ports(fixture, Tool::Skiff).await
}

pub async fn kubectl_forwards_ports(fixture: &Fixture) -> anyhow::Result<()> {
    forwards_ports(fixture, Tool::Kubectl).await
}

async fn forwards_ports(fixture: &Fixture, tool: Tool) -> anyhow::Result<()> {
    let pod = create(fixture).await?;
    for (target, ports) in [
        (format!("pod/{pod}"), ":8080"),
        ("service/web".to_owned(), ":80"),
        ("deployment/web".to_owned(), ":8080"),
    ] {
        let forward = Forward::start(tool.command(fixture, &["port-forward", &target, ports]))?;
        ensure!(web::get(&fixture.cluster, &format!("{}/hostname", forward.url))? == pod);
        answers_at_once(fixture, &forward).await?;
    }

    // Nothing listens there: the connection fails, and the reason is reported.
    let target = format!("pod/{pod}");
    let forward = Forward::start(tool.command(fixture, &["port-forward", &target, ":81"]))?;
    ensure!(web::get(&fixture.cluster, &forward.url).is_err());
    if let Tool::Skiff = tool {
        // kubectl gives up after the first failure.
        ensure!(web::get(&fixture.cluster, &forward.url).is_err());
    }
    let errors = forward.finish()?;
    ensure!(errors.contains("forwarding") && errors.contains("refused"), "{errors}");

    let output = tool.attempt(fixture, &["port-forward", "pod/missing", ":80"])?;
    ensure!(!output.success && output.stderr.contains("not found"), "{}", output.stderr);
    Ok(())
}

/// Several connections, none of which has to wait for another.
async fn answers_at_once(fixture: &Fixture, forward: &Forward) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for index in 0..CONNECTIONS {
        let (cluster, url) = (fixture.cluster.clone(), forward.url.clone());
        running.push(tokio::task::spawn_blocking(move || {
            web::get(&cluster, &format!("{url}/slow/{}", 500 + index))
        }));
    }
    for (index, answer) in running.into_iter().enumerate() {
        ensure!(answer.await?? == format!("after {} ms", 500 + index));
    }
    Ok(())
}

pub async fn legacy_clients_use_spdy(fixture: &Fixture) -> anyhow::Result<()> {
    let pod = create(fixture).await?;
    let target = format!("pod/{pod}");
    let mut command = Tool::Kubectl.command(fixture, &["port-forward", &target, ":8080"]);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
    let forward = Forward::start(command)?;
    ensure!(web::get(&fixture.cluster, &format!("{}/hostname", forward.url))? == pod);
    answers_at_once(fixture, &forward).await?;
    let script = "read line; echo out $line; echo err >&2; exit 3";
    let mut child = Tool::Kubectl
        .command(fixture, &["exec", "-i", &pod, "-c", "shell", "--", "sh", "-c", script])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("piped")?, b"hello\n")?;
    let output = child.wait_with_output()?;
    ensure!(output.stdout == b"out hello\n", "{output:?}");
    ensure!(output.stderr.starts_with(b"err\n"), "{output:?}");
    ensure!(output.status.code() == Some(3), "{output:?}");
    Ok(())
}

pub async fn kube_rs_forwards_ports(fixture: &Fixture) -> anyhow::Result<()> {
    let pod = create(fixture).await?;
    let file = Kubeconfig::read_from(fixture.cluster.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let api: kube::Api<Pod> =
        kube::Api::namespaced(kube::Client::try_from(config)?, &fixture.namespace);
    let mut forward = api.portforward(&pod, &[8080, 81]).await?;
    let error = forward.take_error(81).context("port 81 has errors")?.await;
    ensure!(error.is_some_and(|error| error.contains("refused")));
    let mut stream = forward.take_stream(8080).context("port 8080 has a stream")?;
    stream.write_all(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    // The server keeps the connection open; this side closes it.
    let mut answer = Vec::new();
    while !answer.ends_with(pod.as_bytes()) {
        ensure!(stream.read_buf(&mut answer).await? > 0, "{answer:?}");
    }
    drop(stream);
    forward.join().await?;
    Ok(())
}

/// Creates a pod of a web server and a shell, with a Service; returns the pod's name.
pub async fn create(fixture: &Fixture) -> anyhow::Result<String> {
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, APPLICATION).await?;
    let ready = |pods: &std::collections::BTreeMap<String, Pod>| {
        pods.len() == 1 && pods.values().all(pods::is_ready)
    };
    let pods = pods::until(fixture, "app=web", "the pod is Ready", ready).await?;
    pods.into_keys().next().context("there is one")
}

const APPLICATION: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: server
        image: skiff.test/testserver:v1
        args: [serve]
        ports: [{containerPort: 8080, name: http}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
      - name: shell
        image: skiff.test/busybox:1
        command: [sleep, infinity]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http, name: http}]
";
