//! Names and Services on three nodes: DNS from pods, node ports by traffic policy, session affinity,
//! host ports, NetworkPolicies, and that all of it survives when the processes that maintain it are
//! killed.

#[path = "network/policies.rs"]
mod policies;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use client::Api;
use k8s_openapi::api::core::v1::{Pod, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::suite::Fixture;
use testkit::{Options, manifest, scenarios, suite, wait};
use tests::web::Load;
use tests::{pods, web};

use self::policies::{
    a_new_pod_is_isolated_from_the_start, policies_limit_what_pods_reach,
    policies_select_by_labels_and_ports,
};

fn main() -> ExitCode {
    suite::run(
        Options { nodes: 3, ..Options::default() },
        &["busybox", "testserver-v1"],
        scenarios![
            names_resolve_to_services_and_pods,
            traffic_policies_and_affinity_are_respected,
            host_ports_reach_their_pod,
            traffic_survives_killed_processes,
            policies_select_by_labels_and_ports,
            policies_limit_what_pods_reach,
            a_new_pod_is_isolated_from_the_start,
            pods_of_the_host_network_have_the_name_of_their_node,
        ],
    )
}

/// Starts a server and a client pod on each node, and waits until they are Ready.
async fn start(fixture: &Fixture) -> anyhow::Result<()> {
    let mut yaml = String::from(
        r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: members}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {type: ExternalName, externalName: web}
"#,
    );
    yaml = yaml.replace(
        "externalName: web",
        &format!("externalName: web.{}.svc.cluster.local", fixture.namespace),
    );
    for node in fixture.cluster.nodes() {
        yaml.push_str(&format!(
            r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: server-{node}, labels: {{app: web}}}}
spec:
  nodeName: {node}
  hostname: on-{node}
  subdomain: members
  containers:
  - name: server
    image: skiff.test/testserver:v1
    args: [serve, --port, "8080"]
    ports: [{{name: http, containerPort: 8080}}]
    env: [{{name: NODE, value: {node}}}]
    readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: box-{node}, labels: {{app: box}}}}
spec:
  nodeName: {node}
  containers:
  - {{name: box, image: "skiff.test/busybox:1", command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 1; done"]}}
"#
        ));
    }
    manifest::create(fixture.cluster.client(), &fixture.namespace, &yaml).await?;
    for labels in ["app=web", "app=box"] {
        let all_ready = |found: &std::collections::BTreeMap<String, Pod>| {
            let nodes = fixture.cluster.nodes().len();
            found.len() == nodes && found.values().all(pods::is_ready)
        };
        pods::until(fixture, labels, "all pods are Ready", all_ready).await?;
    }
    Ok(())
}

/// The output of a command in the client pod of a node.
fn in_box(fixture: &Fixture, node: &str, command: &str) -> anyhow::Result<String> {
    let pod = format!("box-{node}");
    let start = ["exec", "-n", &fixture.namespace, &pod, "--", "sh", "-c", command];
    fixture.cluster.skiff(&start)
}

async fn service(fixture: &Fixture) -> anyhow::Result<(String, i32)> {
    let api: Api<Service> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let spec = api.get("web").await?.spec.context("the Service has no spec")?;
    let port = spec.ports.iter().flatten().find_map(|port| port.node_port);
    let address = spec.cluster_ip.context("the Service has no address")?;
    Ok((address, port.context("the Service has no node port")?))
}

async fn patch(fixture: &Fixture, change: serde_json::Value) -> anyhow::Result<()> {
    let api: Api<Service> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.patch("web", client::PatchKind::Merge, &change).await?;
    Ok(())
}

async fn names_resolve_to_services_and_pods(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let (address, _) = service(fixture).await?;
    let found = pods::until(fixture, "app=web", "any", |_| true).await?;
    let zone = format!("{}.svc.cluster.local", fixture.namespace);
    for node in fixture.cluster.nodes() {
        let lookup = |name: &str| in_box(fixture, &node, &format!("nslookup {name} || true"));
        for name in ["web", &format!("web.{zone}"), "other"] {
            wait::eventually("the name resolves", async || {
                let answer = lookup(name)?;
                ensure!(answer.contains(&format!("Address: {address}")), "{name}: {answer}");
                Ok(())
            })
            .await?;
        }
        let members = lookup(&format!("members.{zone}"))?;
        for (name, pod) in &found {
            let ip = pods::address(pod);
            ensure!(members.contains(ip), "{members}");
            let own = format!("on-{}.members.{zone}", pods::node(pod));
            let answer = lookup(&own)?;
            ensure!(answer.contains(ip), "{name}: {answer}");
            let back = lookup(ip)?;
            ensure!(back.contains(&own), "{ip}: {back}");
        }
        let missing = lookup(&format!("nothing.{zone}"))?;
        ensure!(missing.contains("NXDOMAIN"), "{missing}");
        for name in ["other", &format!("web.{}", fixture.namespace)] {
            let page =
                in_box(fixture, &node, &format!("timeout 10 wget -q -O - http://{name}/version"))?;
            ensure!(page.trim() == "v1", "{name}: {page:?}");
        }
    }
    Ok(())
}

/// The nodes whose servers answer over several connections.
fn answering(cluster: &testkit::Cluster, url: &str) -> anyhow::Result<BTreeSet<String>> {
    (0..30).map(|_| web::get(cluster, url)).collect()
}

async fn traffic_policies_and_affinity_are_respected(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let (address, node_port) = service(fixture).await?;
    let cluster = &fixture.cluster;
    let at = |node: &str| format!("http://{}:{node_port}/env/NODE", cluster.node_address(node));
    let all: BTreeSet<String> = cluster.nodes().into_iter().collect();
    let expect = async |what: &str, url: String, expected: BTreeSet<String>| {
        wait::eventually(what, async || {
            let found = answering(cluster, &url)?;
            ensure!(found == expected, "{url}: {found:?}");
            Ok(())
        })
        .await
    };
    let just = |node: &str| BTreeSet::from([node.to_owned()]);
    for node in cluster.nodes() {
        expect("all servers answer", at(&node), all.clone()).await?;
    }
    expect("all servers answer", format!("http://{address}/env/NODE"), all.clone()).await?;

    patch(fixture, serde_json::json!({"spec": {"externalTrafficPolicy": "Local"}})).await?;
    for node in cluster.nodes() {
        expect("the node's own server answers", at(&node), just(&node)).await?;
    }
    patch(fixture, serde_json::json!({"spec": {"internalTrafficPolicy": "Local"}})).await?;
    for node in cluster.nodes() {
        let pages =
            "for i in 1 2 3 4 5 6 7 8; do timeout 10 wget -q -O - http://web/env/NODE; echo; done";
        wait::eventually("the node's own server answers its pods", async || {
            let found = in_box(fixture, &node, pages)?;
            let found: BTreeSet<&str> = found.split_whitespace().collect();
            ensure!(found == BTreeSet::from([&*node]), "{found:?}");
            Ok(())
        })
        .await?;
    }
    let spread = serde_json::json!({"spec": {
        "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "ClientIP",
    }});
    patch(fixture, spread).await?;
    wait::eventually("one server answers this client", async || {
        let found = answering(cluster, &at("node-1"))?;
        ensure!(found.len() == 1, "{found:?}");
        Ok(())
    })
    .await?;
    patch(fixture, serde_json::json!({"spec": {"sessionAffinity": "None"}})).await?;
    expect("affinity ends", at("node-1"), all).await
}

async fn host_ports_reach_their_pod(fixture: &Fixture) -> anyhow::Result<()> {
    const PORT: u16 = 18_080;
    let yaml = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: server}}
spec:
  nodeName: node-2
  containers:
  - name: server
    image: skiff.test/testserver:v1
    args: [serve, --port, "8080"]
    ports: [{{containerPort: 8080, hostPort: {PORT}}}]
    readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}
"#
    );
    let cluster = &fixture.cluster;
    manifest::create(cluster.client(), &fixture.namespace, &yaml).await?;
    pods::ready(fixture, "server").await?;
    let page = |node: &str| format!("http://{}:{PORT}/hostname", cluster.node_address(node));
    wait::eventually("the host port answers", async || {
        let body = web::get(cluster, &page("node-2"))?;
        ensure!(body == "server", "{body:?}");
        Ok(())
    })
    .await?;
    let server = cluster.test_server();
    let server = server.to_string_lossy();
    let own = format!("http://127.0.0.1:{PORT}/hostname");
    let body = cluster.on_node("node-2", &[&server, "get", &own])?;
    ensure!(body.trim() == "server", "{body:?}");
    ensure!(web::get(cluster, &page("node-1")).is_err(), "another node has no such port");
    let api: Api<Pod> = Api::namespaced(cluster.client(), &fixture.namespace);
    api.delete("server", &client::DeleteOptions::default()).await?;
    wait::eventually("the host port is gone", async || {
        ensure!(web::get(cluster, &page("node-2")).is_err());
        Ok(())
    })
    .await
}

async fn traffic_survives_killed_processes(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let (_, node_port) = service(fixture).await?;
    let cluster = &fixture.cluster;
    let url = format!("http://{}:{node_port}/version", cluster.node_address("node-1"));
    wait::eventually("the node port answers", async || web::get(cluster, &url)).await?;
    let load = Load::start(cluster, &url, 50, 8)?;
    let victims = ["proxy-node-1", "dns-node-1", "kubelet-node-1", "kubelet-node-2"];
    let mut killed = Vec::new();
    for victim in victims {
        let pid = cluster.pid(victim)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        killed.push((victim, pid));
    }
    for (victim, old) in killed {
        wait::eventually("it has been restarted", async || {
            let pid = cluster.pid(victim)?;
            ensure!(pid != old, "{victim} is still {pid}");
            Ok(())
        })
        .await?;
    }
    let report = load.finish().await?;
    ensure!(report["failed"] == 0, "{report}");
    wait::eventually("names resolve again", async || {
        let answer = in_box(fixture, "node-1", "nslookup web || true")?;
        ensure!(answer.contains("Name:"), "{answer}");
        Ok(())
    })
    .await?;
    cluster.on_node("node-1", &["nft", "flush", "ruleset"])?;
    wait::eventually("a flushed ruleset is restored", async || web::get(cluster, &url)).await?;
    Ok(())
}

/// Nodes of one machine are network namespaces: two such pods can still be told apart.
async fn pods_of_the_host_network_have_the_name_of_their_node(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let nodes = fixture.cluster.nodes();
    for node in &nodes {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: host-{node}}}\nspec:\n  nodeName: {node}\n  \
             hostNetwork: true\n  containers:\n  - {{name: main, image: 'skiff.test/busybox:1', \
             command: [sleep, '1000']}}\n"
        );
        manifest::create(fixture.cluster.client(), &fixture.namespace, &pod).await?;
    }
    for node in &nodes {
        let name = format!("host-{node}");
        pods::ready(fixture, &name).await?;
        let arguments = ["exec", "-n", &fixture.namespace, &name, "--", "hostname"];
        let hostname = fixture.cluster.skiff(&arguments)?;
        ensure!(hostname.trim() == node, "{hostname:?} on {node}");
    }
    Ok(())
}
