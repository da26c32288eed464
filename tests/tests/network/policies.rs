//! NetworkPolicies, applied with kubectl, between pods on three nodes.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, ensure};
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::Pod;
use testkit::suite::Fixture;
use testkit::{manifest, wait};
use tests::{pods, web};

use super::{in_box, start};

/// Longer than the first retransmission of a packet that was dropped.
const CONNECT_S: u32 = 2;
/// How often a pod that must not connect tries to from its first moment.
const FIRST_ATTEMPTS: u32 = 2;

/// Creates or changes a policy of that name.
fn apply(fixture: &Fixture, name: &str, spec: &str) -> anyhow::Result<()> {
    let yaml = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n{spec}"
    );
    let mut command = fixture.cluster.kubectl_command();
    command.args(["apply", "-n", &fixture.namespace, "-f", "-"]).stdin(Stdio::piped());
    let mut kubectl = command.stdout(Stdio::null()).spawn().context("start kubectl")?;
    kubectl.stdin.take().context("kubectl has no input")?.write_all(yaml.as_bytes())?;
    ensure!(kubectl.wait()?.success(), "kubectl cannot apply {yaml}");
    Ok(())
}

fn delete(fixture: &Fixture, name: &str) -> anyhow::Result<()> {
    fixture.cluster.kubectl(&["delete", "networkpolicy", "-n", &fixture.namespace, name])?;
    Ok(())
}

/// Which of these addresses the client pod of a node gets an answer from.
fn reached(fixture: &Fixture, node: &str, addresses: &[&str]) -> anyhow::Result<Vec<String>> {
    let attempt = |address: &&str| {
        format!(
            "(timeout {CONNECT_S} wget -q -O - http://{address}/version >/dev/null && echo {address}) &"
        )
    };
    let attempts: Vec<String> = addresses.iter().map(attempt).collect();
    let output = in_box(fixture, node, &format!("{} wait", attempts.join(" ")))?;
    Ok(output.split_whitespace().map(str::to_owned).collect())
}

/// Waits until exactly these clients reach these servers; both are named by their nodes.
async fn expect(
    fixture: &Fixture,
    what: &str,
    servers: &[(String, String)],
    allowed: impl Fn(&str, &str) -> bool,
) -> anyhow::Result<()> {
    let addresses: Vec<&str> = servers.iter().map(|(_, address)| &**address).collect();
    wait::eventually(what, async || {
        for client in fixture.cluster.nodes() {
            let reached = reached(fixture, &client, &addresses)?;
            for (server, address) in servers {
                let found = reached.contains(address);
                ensure!(found == allowed(&client, server), "{client} to {server}: {found}");
            }
        }
        Ok(())
    })
    .await
}

/// The addresses of the servers by node, with their port.
async fn servers(fixture: &Fixture) -> anyhow::Result<Vec<(String, String)>> {
    let found = pods::until(fixture, "app=web", "all have addresses", |found| {
        let nodes = fixture.cluster.nodes().len();
        found.len() == nodes && found.values().all(|pod| !pods::address(pod).is_empty())
    })
    .await?;
    let address = |pod: &Pod| (pods::node(pod).to_owned(), format!("{}:8080", pods::address(pod)));
    Ok(found.values().map(address).collect())
}

pub async fn policies_select_by_labels_and_ports(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let servers = servers(fixture).await?;
    let cluster = &fixture.cluster;
    expect(fixture, "everything is allowed without policies", &servers, |_, _| true).await?;

    apply(fixture, "closed", "  podSelector: {}\n  policyTypes: [Ingress]\n")?;
    expect(fixture, "nothing is allowed", &servers, |_, _| false).await?;
    let test_server = cluster.test_server();
    let test_server = test_server.to_string_lossy();
    for (node, address) in &servers {
        let url = format!("http://{address}/version");
        let body = cluster.on_node(node, &[&test_server, "get", &url])?;
        ensure!(body.trim() == "v1", "a pod's own node is always allowed: {body:?}");
    }

    let by_name = "
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: box}}}]
    ports: [{port: http}]
";
    apply(fixture, "web", by_name)?;
    expect(fixture, "clients reach the named port", &servers, |_, _| true).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client(), &fixture.namespace);
    let relabel = |app: &str| serde_json::json!({"metadata": {"labels": {"app": app}}});
    api.patch("box-node-2", PatchKind::Merge, &relabel("other")).await?;
    expect(fixture, "another label is not allowed", &servers, |client, _| client != "node-2")
        .await?;
    api.patch("box-node-2", PatchKind::Merge, &relabel("box")).await?;
    expect(fixture, "the label is allowed again", &servers, |_, _| true).await?;
    apply(fixture, "web", &by_name.replace("port: http", "port: 8000, endPort: 8079"))?;
    expect(fixture, "other ports are not enough", &servers, |_, _| false).await?;

    let of = |namespace: &str| {
        format!(
            "  podSelector: {{matchLabels: {{app: web}}}}
  ingress:
  - from:
    - namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
      podSelector: {{matchExpressions: [{{key: app, operator: In, values: [box]}}]}}
    ports: [{{port: 8000, endPort: 8080}}]
"
        )
    };
    apply(fixture, "web", &of("elsewhere"))?;
    expect(fixture, "another namespace is allowed", &servers, |_, _| false).await?;
    apply(fixture, "web", &of(&fixture.namespace))?;
    expect(fixture, "this namespace is allowed", &servers, |_, _| true).await?;

    // The rules do not depend on the proxy, and are repaired.
    let unlabelled = relabel("other");
    api.patch("box-node-1", PatchKind::Merge, &unlabelled).await?;
    let others = |client: &str, _: &str| client != "node-1";
    expect(fixture, "the label is missing", &servers, others).await?;
    for node in cluster.nodes() {
        let pid = cluster.pid(&format!("proxy-{node}"))?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)?;
    }
    expect(fixture, "it holds with new proxies", &servers, others).await?;
    cluster.on_node("node-2", &["nft", "flush", "ruleset"])?;
    expect(fixture, "it holds after the rules were flushed", &servers, others).await?;
    let described =
        cluster.skiff(&["describe", "networkpolicy", "-n", &fixture.namespace, "web"])?;
    ensure!(described.contains("Allowing ingress traffic"), "{described}");

    delete(fixture, "web")?;
    delete(fixture, "closed")?;
    expect(fixture, "everything is allowed again", &servers, |_, _| true).await
}

pub async fn policies_limit_what_pods_reach(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let servers = servers(fixture).await?;
    let cluster = &fixture.cluster;
    let through = |name: &str| vec![("web".to_owned(), format!("{name}:80"))];
    let url = format!("http://{}:8080/version", cluster.node_address("node-1"));
    ensure!(web::get(cluster, &url).is_err(), "no host port: {url}");

    let closed = "  podSelector: {matchLabels: {app: box}}\n  policyTypes: [Egress]\n";
    apply(fixture, "box", closed)?;
    expect(fixture, "pods reach nothing", &servers, |_, _| false).await?;
    // Names are resolved by the own node, which is always allowed.
    let answer = in_box(fixture, "node-1", "nslookup web || true")?;
    ensure!(answer.contains("Name:"), "{answer}");
    expect(fixture, "nor through a Service", &through("web"), |_, _| false).await?;

    let to_pods = "
  podSelector: {matchLabels: {app: box}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: http, protocol: TCP}]
";
    apply(fixture, "box", to_pods)?;
    expect(fixture, "pods reach the named port", &servers, |_, _| true).await?;
    expect(fixture, "and through a Service", &through("web"), |_, _| true).await?;

    let (_, second) = servers.iter().find(|(node, _)| node == "node-2").context("node-2")?;
    let ip = second.trim_end_matches(":8080");
    let to_block = format!(
        "  podSelector: {{matchLabels: {{app: box}}}}
  policyTypes: [Egress]
  egress:
  - to: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{ip}/32]}}}}]
"
    );
    apply(fixture, "box", &to_block)?;
    expect(fixture, "all but the exception", &servers, |_, server| server != "node-2").await?;
    delete(fixture, "box")?;
    expect(fixture, "everything is allowed again", &servers, |_, _| true).await
}

/// A pod is never open before its policies are there: it tries from its first moment, on all nodes
/// and in an init container.
pub async fn a_new_pod_is_isolated_from_the_start(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let servers = servers(fixture).await?;
    let closed = "
  podSelector: {matchExpressions: [{key: app, operator: In, values: [fresh, box]}]}
  policyTypes: [Egress]
";
    apply(fixture, "fresh", closed)?;
    expect(fixture, "the policy is in force", &servers, |_, _| false).await?;
    let attempts = |count: u32| {
        let once = |address: &str| {
            format!("timeout 2 wget -q -O /dev/null http://{address}/version && echo OPEN")
        };
        let all: Vec<String> = servers.iter().map(|(_, address)| once(address)).collect();
        format!("for i in $(seq {count}); do {}; done; echo END", all.join("; "))
    };
    let pod = |name: &str, node: &str, app: &str, count: u32| {
        let command = attempts(count);
        format!(
            r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  initContainers:
  - {{name: init, image: "skiff.test/busybox:1", command: [sh, -c, "{command}"]}}
  containers:
  - {{name: box, image: "skiff.test/busybox:1", command: [sh, -c, "{command}"]}}
"#
        )
    };
    let cluster = &fixture.cluster;
    let mut yaml = String::new();
    for node in cluster.nodes() {
        yaml.push_str(&pod(&format!("free-{node}"), &node, "free", FIRST_ATTEMPTS));
    }
    manifest::create(cluster.client(), &fixture.namespace, &yaml).await?;
    let ended = |count: usize| {
        move |found: &std::collections::BTreeMap<String, Pod>| {
            found.len() == count && found.values().all(|pod| pods::phase(pod) == "Succeeded")
        }
    };
    pods::until(fixture, "app=free", "pods without policies end", ended(cluster.nodes().len()))
        .await?;
    yaml.clear();
    for node in cluster.nodes() {
        yaml.push_str(&pod(&format!("fresh-{node}"), &node, "fresh", FIRST_ATTEMPTS));
    }
    manifest::create(cluster.client(), &fixture.namespace, &yaml).await?;
    pods::until(fixture, "app=fresh", "isolated pods end", ended(cluster.nodes().len())).await?;
    for node in cluster.nodes() {
        for (app, open) in [("free", true), ("fresh", false)] {
            for container in ["init", "box"] {
                let name = format!("{app}-{node}");
                let log =
                    cluster.skiff(&["logs", "-n", &fixture.namespace, &name, "-c", container])?;
                ensure!(log.contains("END") && log.contains("OPEN") == open, "{name}: {log}");
            }
        }
    }
    delete(fixture, "fresh")
}
