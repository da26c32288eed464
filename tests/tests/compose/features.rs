//! Volumes on demand, NetworkPolicies and preemption on the cluster of containers.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::wait;

use super::docker::Docker;

/// A namespace of their own: the application is not disturbed.
const NAMESPACE: &str = "features";
/// The node with the volume, which the suite restarts.
const NODE: &str = "node-2";

fn apply(docker: &Docker, objects: &[Value]) -> anyhow::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = docker.file("features.json", &list.to_string())?;
    docker.kubectl(&["apply", "-n", NAMESPACE, "-f", &file]).map(drop)
}

fn pod(name: &str, node: &str, container: Value, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn ready(docker: &Docker, pod: &str) -> anyhow::Result<()> {
    let pod = format!("pod/{pod}");
    docker.skiff(&["wait", "-n", NAMESPACE, "--for=condition=Ready", &pod, "--timeout=60s"])?;
    Ok(())
}

/// A claim without any set-up, and a row in it.
pub fn claim(docker: &Docker) -> anyhow::Result<()> {
    docker.skiff(&["create", "namespace", NAMESPACE])?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    let wait = "trap 'exit 0' TERM; while true; do sleep 1; done";
    let container = json!({
        "name": "main", "image": "skiff.test/busybox:1", "command": ["sh", "-c", wait],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    apply(docker, &[claim, pod("keeper", NODE, container, json!({"volumes": volumes}))])?;
    ready(docker, "keeper")?;
    let write = "echo kept > /data/row; sync";
    docker.kubectl(&["exec", "-n", NAMESPACE, "keeper", "--", "sh", "-c", write])?;
    Ok(())
}

/// The row is still there.
pub async fn row_is_kept(docker: &Docker) -> anyhow::Result<()> {
    wait::eventually("the row is read again", async || {
        let read = ["exec", "-n", NAMESPACE, "keeper", "--", "cat", "/data/row"];
        let row = docker.kubectl(&read)?;
        ensure!(row.trim() == "kept", "{row:?}");
        Ok(())
    })
    .await
}

/// A policy closes a pod, and another one opens it for the application's namespace.
pub async fn policies(docker: &Docker) -> anyhow::Result<()> {
    let container = json!({"name": "main", "image": "skiff.test/testserver:v1"});
    apply(docker, &[pod("server", "node-3", container, json!({}))])?;
    ready(docker, "server")?;
    let path = "jsonpath={.status.podIP}";
    let address = docker.kubectl(&["get", "pod", "-n", NAMESPACE, "server", "-o", path])?;
    let page = format!("http://{address}:8080/version");
    let client = "deployment/web";
    let timeout = ["timeout", "2", "wget", "-q", "-O", "-", &page];
    let ask = [&["exec", "-n", "web", client, "-c", "sidecar", "--"][..], &timeout].concat();
    let expect = async |what: &str, open: bool| {
        wait::eventually(what, async || {
            let answer = docker.kubectl(&ask);
            ensure!(answer.is_ok() == open, "{answer:?}");
            Ok(())
        })
        .await
    };
    let policy = |name: &str, ingress: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}},
                "policyTypes": ["Ingress"], "ingress": ingress},
        })
    };
    expect("it is open without a policy", true).await?;
    apply(docker, &[policy("closed", json!([]))])?;
    expect("it is closed", false).await?;
    let web = json!({"matchLabels": {"kubernetes.io/metadata.name": "web"}});
    apply(docker, &[policy("from-web", json!([{"from": [{"namespaceSelector": web}]}]))])?;
    expect("it is open for the namespace", true).await
}

/// A pod of high priority takes the place of one of low priority.
pub async fn preemption(docker: &Docker) -> anyhow::Result<()> {
    let path = "jsonpath={.status.allocatable.cpu}";
    let cpu = docker.kubectl(&["get", "node", "node-1", "-o", path])?;
    let cpu: api::quantity::Quantity = cpu.parse().ok().context("the node's CPU")?;
    let request = format!("{}m", cpu.millis() * 3 / 5);
    let class = |name: &str, value: i32| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value})
    };
    let pod = |class: &str| {
        let container = json!({"name": "main", "image": "skiff.test/testserver:v1",
            "resources": {"requests": {"cpu": request}}});
        pod(class, "node-1", container, json!({"priorityClassName": class}))
    };
    apply(docker, &[class("low", 1), class("high", 1000), pod("low")])?;
    ready(docker, "low")?;
    apply(docker, &[pod("high")])?;
    ready(docker, "high")?;
    wait::eventually("the pod of low priority is gone", async || {
        let names = docker.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"])?;
        ensure!(!names.lines().any(|name| name == "pod/low"), "{names}");
        Ok(())
    })
    .await?;
    let events = docker.kubectl(&["get", "events", "-n", NAMESPACE])?;
    ensure!(events.contains("Preempted"), "{events}");
    Ok(())
}

/// Datagrams reach the address of a load balancer from the host of the containers.
pub async fn datagrams(docker: &Docker) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "datagrams"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "server"},
            "ports": [{"port": 53, "targetPort": 8080, "protocol": "UDP"}]},
    });
    // From outside, which the policy for the namespace does not allow.
    docker.kubectl(&["delete", "networkpolicy", "-n", NAMESPACE, "--all"])?;
    apply(docker, &[service])?;
    wait::eventually("a datagram is answered", async || {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        let service = ["get", "service", "-n", NAMESPACE, "datagrams", "-o", path];
        let address = docker.kubectl(&service)?;
        let answer = docker.test_server(&["ask", &format!("{address}:53")])?;
        ensure!(answer.trim() == "v1", "{address}: {answer:?}");
        Ok(())
    })
    .await
}
