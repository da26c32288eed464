//! The cluster of containers: `deploy/compose.sh` and `docker-compose.yml`, as `make compose-up`
//! and `make compose-down` use them.
//!
//! The cluster runs in a Docker daemon of its own, in a network namespace of its own, so that the
//! machine's Docker, its rules and its networks are not touched, and nothing is left behind.

#[path = "compose/docker.rs"]
mod docker;
#[path = "compose/features.rs"]
mod features;

use anyhow::{Context, ensure};
use docker::{Docker, compose_command, has, repository};
use std::process::Command;
use std::sync::Arc;
use testkit::{suite, tools, wait};

const NODES: [&str; 3] = ["172.29.0.11", "172.29.0.12", "172.29.0.13"];

/// Both generations of docker-compose check a file without `version` against the Compose
/// specification.
#[test]
fn the_compose_file_is_valid() -> anyhow::Result<()> {
    let Some([program, arguments @ ..]) = compose_command() else {
        return tools::missing("docker", "docker-compose is not installed");
    };
    let output = Command::new(program)
        .args(arguments)
        .arg("config")
        .env("SKIFF_COMPOSE_CONTEXT", repository())
        .current_dir(repository())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{stderr}");
    let config = String::from_utf8(output.stdout)?;
    ensure!(!config.contains("privileged"), "{config}");
    ensure!(config.contains("SYS_RESOURCE"), "{config}");
    let file = std::fs::read_to_string(repository().join("docker-compose.yml"))?;
    ensure!(!file.lines().any(|line| line.starts_with("version:")));
    Ok(())
}

#[test]
fn a_cluster_of_containers_serves_an_application() -> anyhow::Result<()> {
    if !has("dockerd") || !has("docker") || compose_command().is_none() {
        return tools::missing("docker", "dockerd, docker or docker-compose is not installed");
    }
    let docker = Arc::new(Docker::prepare()?);
    let test = {
        let docker = docker.clone();
        async move { life_cycle(&docker).await }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(suite::within(suite::SCENARIO_TIMEOUT, test));
    if outcome.is_err() {
        eprintln!("{}", docker.logs());
    }
    outcome
}

async fn life_cycle(docker: &Docker) -> anyhow::Result<()> {
    docker.compose_sh("up")?;
    docker.load_images()?;
    docker.skiff(&["create", "namespace", "web"])?;
    let manifest = docker.file("web.yaml", &tests::web::manifest(3, "v1"))?;
    docker.kubectl(&["apply", "-n", "web", "-f", &manifest])?;
    rolled_out(docker)?;
    let nodes = docker.kubectl(&[
        "get",
        "pods",
        "-n",
        "web",
        "-o",
        "jsonpath={.items[*].spec.nodeName}",
    ])?;
    for node in ["node-1", "node-2", "node-3"] {
        ensure!(nodes.contains(node), "the pods are on {nodes}");
        ask_from(docker, node)?;
    }
    let node_port = node_port(docker)?;
    answers(docker, &node_port).await?;
    balanced(docker).await?;
    commands(docker)?;
    update(docker, &node_port)?;
    features::claim(docker)?;
    features::policies(docker).await?;
    features::datagrams(docker).await?;
    features::preemption(docker).await?;

    docker.compose(&["restart", "--timeout", "15", "node-2"])?;
    rolled_out(docker)?;
    answers(docker, &node_port).await?;
    features::row_is_kept(docker).await?;

    // Containers and network are removed; the volumes, and so the cluster's data, stay.
    docker.compose(&["down", "--timeout", "15"])?;
    docker.compose(&["up", "-d"])?;
    wait::eventually("the apiserver answers", async || docker.kubectl(&["get", "nodes"])).await?;
    rolled_out(docker)?;
    answers(docker, &node_port).await?;
    features::row_is_kept(docker).await?;

    docker.compose_sh("down")?;
    nothing_is_left(docker)
}

fn rolled_out(docker: &Docker) -> anyhow::Result<()> {
    let wait = ["rollout", "status", "deployment/web", "-n", "web", "--timeout=60s"];
    docker.kubectl(&wait)?;
    Ok(())
}

fn node_port(docker: &Docker) -> anyhow::Result<String> {
    let path = "jsonpath={.spec.ports[0].nodePort}";
    docker.kubectl(&["get", "service", "web", "-n", "web", "-o", path])
}

/// Waits until the node port answers on every node.
async fn answers(docker: &Docker, node_port: &str) -> anyhow::Result<()> {
    for node in NODES {
        let url = format!("http://{node}:{node_port}/env/GREETING");
        wait::eventually(&url, async || {
            let body = docker.test_server(&["get", &url])?;
            ensure!(body.trim() == "hello", "{url}: {body:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The address of a load balancer answers on the host of the containers.
async fn balanced(docker: &Docker) -> anyhow::Result<()> {
    let change = r#"{"spec": {"type": "LoadBalancer"}}"#;
    docker.kubectl(&["patch", "service", "web", "-n", "web", "-p", change])?;
    wait::eventually("the load balancer's address answers", async || {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        let address = docker.kubectl(&["get", "service", "web", "-n", "web", "-o", path])?;
        ensure!(address.starts_with("172.29.0."), "the address is {address:?}");
        let body = docker.test_server(&["get", &format!("http://{address}/env/GREETING")])?;
        ensure!(body.trim() == "hello", "{address}: {body:?}");
        Ok(())
    })
    .await
}

/// A pod on the node reaches the Service at its address and by its names.
fn ask_from(docker: &Docker, node: &str) -> anyhow::Result<()> {
    let path = "jsonpath={.spec.clusterIP}";
    let address = docker.kubectl(&["get", "service", "web", "-n", "web", "-o", path])?;
    let urls = [address.as_str(), "web", "web.web.svc.cluster.local"]
        .map(|host| format!("timeout 10 wget -q -O - http://{host}/file/config/page.txt"));
    let name = format!("ask-{node}");
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "web"},
        "spec": {
            "nodeName": node, "restartPolicy": "Never",
            "containers": [{
                "name": "ask", "image": "skiff.test/busybox:1",
                "command": ["sh", "-c", urls.join(" && ")],
            }],
        },
    });
    let file = docker.file(&format!("{name}.json"), &pod.to_string())?;
    docker.skiff(&["apply", "-f", &file])?;
    let pod = format!("pod/{name}");
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    docker.skiff(&["wait", "-n", "web", ended, &pod, "--timeout=60s"])?;
    let log = docker.kubectl(&["logs", "-n", "web", &name])?;
    ensure!(log == "from the config map\n".repeat(3), "{node}: {log:?}");
    Ok(())
}

/// Logs, exec and port-forward go through the apiserver into the nodes.
fn commands(docker: &Docker) -> anyhow::Result<()> {
    let path = "jsonpath={.items[0].metadata.name}";
    let pod = docker.kubectl(&["get", "pods", "-n", "web", "-l", "app=web", "-o", path])?;
    let log = docker.kubectl(&["logs", "-n", "web", &pod, "-c", "server"])?;
    ensure!(log.contains("serving on port 8080"), "{log:?}");
    for hostname in [
        docker.kubectl(&["exec", "-n", "web", &pod, "-c", "sidecar", "--", "hostname"])?,
        docker.skiff(&["exec", "-n", "web", &pod, "-c", "sidecar", "--", "hostname"])?,
    ] {
        ensure!(hostname.trim() == pod, "{hostname:?}");
    }
    let body = docker.through_port_forward(&pod, 8080, "hostname")?;
    ensure!(body.trim() == pod, "{body:?}");
    Ok(())
}

/// A rolling update loses no request.
fn update(docker: &Docker, node_port: &str) -> anyhow::Result<()> {
    let url = format!("http://{}:{node_port}/version", NODES[0]);
    let load = docker.start_load(&url, 50)?;
    let image = "server=skiff.test/testserver:v2";
    docker.kubectl(&["set", "image", "deployment/web", "-n", "web", image])?;
    rolled_out(docker)?;
    let report = load.finish()?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    ensure!(report["failed"] == 0, "{report}");
    let sent = report["sent"].as_u64().context("no report")?;
    ensure!(sent > 20, "{report}");
    Ok(())
}

/// `compose.sh down` has removed everything and stopped the daemon that it had started.
fn nothing_is_left(docker: &Docker) -> anyhow::Result<()> {
    ensure!(docker.docker(&["info"]).is_err(), "the daemon is still running");
    let links = docker.inside("ip", &["-o", "link"])?;
    ensure!(links.lines().count() == 1 && links.contains("lo:"), "{links}");
    let rules = docker.inside("iptables-save", &[])?;
    ensure!(!rules.contains("DOCKER"), "{rules}");
    let kubeconfig = std::fs::read_to_string(docker.kubeconfig())?;
    ensure!(!kubeconfig.contains("skiff-compose"), "{kubeconfig}");
    let left = docker.images_and_volumes()?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
