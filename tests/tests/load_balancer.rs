//! Services of type LoadBalancer on three nodes: who reaches their addresses, which node announces
//! them, and what happens when it fails.

#[path = "load_balancer/failures.rs"]
mod failures;
#[path = "load_balancer/holder.rs"]
mod holder;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions, PatchKind};
use failures::{
    an_address_moves_when_a_process_of_its_node_fails, an_address_moves_when_its_cable_is_pulled,
    an_address_moves_when_its_node_loses_power,
};
use holder::holder;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use serde_json::{Value, json};
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use testkit::{Cluster, Options, manifest, scenarios, suite};
use tests::web::Load;
use tests::{pods, web};

/// Requests per second during an update.
const RATE: u32 = 200;

fn main() -> ExitCode {
    suite::run(
        Options { nodes: 3, ..Options::default() },
        &["busybox", "testserver-v1", "testserver-v2"],
        scenarios![
            an_address_is_reached_from_everywhere,
            datagrams_reach_an_address_like_connections,
            addresses_are_shared_and_those_of_nodes_used_on_request,
            local_traffic_follows_its_endpoints,
            an_update_behind_an_address_loses_no_request,
            deleted_rules_are_restored,
            a_pool_that_overlaps_is_refused,
            an_address_moves_when_a_process_of_its_node_fails,
            an_address_moves_when_its_cable_is_pulled,
            an_address_moves_when_its_node_loses_power,
        ],
    )
}

/// A Service `web`, and a pod `server-NODE` behind it on each of the nodes. Returns its address.
async fn start(fixture: &Fixture, nodes: &[&str], policy: &str) -> anyhow::Result<String> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    });
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, &service.to_string()).await?;
    for node in nodes {
        server(fixture, node).await?;
    }
    address(fixture).await
}

/// A pod `server-NODE` on the node.
async fn server(fixture: &Fixture, node: &str) -> anyhow::Result<()> {
    let name = format!("server-{node}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "server", "image": "skiff.test/testserver:v1",
                "args": ["serve", "--port", "8080", "--drain", "1000"],
                "env": [{"name": "NODE", "value": node}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
            }],
        },
    });
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, &pod.to_string()).await?;
    pods::ready(fixture, &name).await.map(drop)
}

fn services(fixture: &Fixture) -> Api<Service> {
    Api::namespaced(fixture.cluster.client(), &fixture.namespace)
}

async fn patch(fixture: &Fixture, change: Value) -> anyhow::Result<()> {
    services(fixture).patch("web", PatchKind::Merge, &change).await.map(drop)?;
    Ok(())
}

/// The Service's address, once it has one and it answers.
async fn address(fixture: &Fixture) -> anyhow::Result<String> {
    let of = |service: &Service| {
        let ingress = service.status.clone()?.load_balancer?.ingress?;
        ingress.first()?.ip.clone()
    };
    let selection = Selection::namespace(&fixture.namespace).name("web");
    let has = |all: &BTreeMap<String, Service>| all.get("web").and_then(of).is_some();
    let what = "the Service has an address";
    let all = wait::until::<Service>(fixture.cluster.client(), selection, what, has).await?;
    let address = all.get("web").and_then(of).context("it has just been seen")?;
    let url = format!("http://{address}/version");
    wait::eventually("the address answers", async || web::get(&fixture.cluster, &url)).await?;
    Ok(address)
}

/// Whether a connection from this machine succeeds, soon.
fn connects(address: &str, port: u16) -> std::io::Result<()> {
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).map(drop)
}

/// Runs a program as another machine on the nodes' link: in the namespace of their bridge.
fn elsewhere(cluster: &Cluster, program: &[&str]) -> anyhow::Result<String> {
    let namespace = format!("--net=/run/netns/skiff.{}.fabric", cluster.name());
    let output = std::process::Command::new("nsenter").arg(&namespace).args(program).output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program:?}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits until the program gets an answer on the node: each one's proxy writes its own rules.
async fn node_gets(cluster: &Cluster, node: &str, program: &[&str]) -> anyhow::Result<()> {
    wait::eventually(&format!("{node} gets an answer"), async || {
        let answer = cluster.on_node(node, program)?;
        ensure!(answer.trim() == "v1", "{answer}");
        Ok(())
    })
    .await
}

/// Gives the namespace of the nodes' bridge an address, as another machine has; returns it.
fn another_machine(cluster: &Cluster) -> anyhow::Result<String> {
    let gateway = cluster.gateway();
    let (network, _) = gateway.rsplit_once('.').context("an IPv4 address")?;
    let address = format!("{network}.5");
    elsewhere(cluster, &["ip", "address", "replace", &format!("{address}/24"), "dev", "br0"])?;
    Ok(address)
}

async fn an_address_is_reached_from_everywhere(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let nodes = cluster.nodes();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let address = start(fixture, &names, "Cluster").await?;
    let url = format!("http://{address}/version");
    let test_server = cluster.test_server();
    let get = [&*test_server.to_string_lossy(), "get", &url];
    for node in &nodes {
        node_gets(cluster, node, &get).await?;
        let pod = format!("ask-{node}");
        let asks = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
            "spec": {"nodeName": node, "restartPolicy": "Never", "containers": [{
                "name": "ask", "image": "skiff.test/busybox:1",
                "command": ["sh", "-c", format!("timeout 10 wget -q -O - {url}")],
            }]},
        });
        manifest::create(cluster.client(), &fixture.namespace, &asks.to_string()).await?;
        let ended = |pod: &Pod| matches!(pods::phase(pod), "Succeeded" | "Failed");
        let pod = pods::one(fixture, &pod, "it has ended", ended).await?;
        ensure!(pods::phase(&pod) == "Succeeded", "from a pod on {node}: {:?}", pod.status);
    }
    let other = another_machine(cluster)?;
    ensure!(elsewhere(cluster, &get)? == "v1", "from another machine");
    let refused = connects(&address, 81).err().context("another port is open")?;
    ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, "another port: {refused}");

    patch(fixture, json!({"spec": {"loadBalancerSourceRanges": [format!("{other}/32")]}})).await?;
    wait::eventually("this machine may not connect", async || {
        ensure!(connects(&address, 80).is_err());
        Ok(())
    })
    .await?;
    ensure!(elsewhere(cluster, &get)? == "v1", "the other machine may");
    patch(fixture, json!({"spec": {"loadBalancerSourceRanges": null}})).await?;
    wait::eventually("this machine may connect again", async || web::get(cluster, &url)).await?;

    let node = holder(cluster, &address)?;
    let namespace = format!("--namespace={}", fixture.namespace);
    wait::eventually("a trace tells which node has it", async || {
        let trace = cluster.skiff(&["trace", "svc/web", &namespace])?;
        ensure!(trace.contains(&format!("{address} is announced by {node}\n")), "{trace}");
        Ok(())
    })
    .await?;
    let message = format!("announcing {address} from node {node:?}");
    let selection = Selection::namespace(&fixture.namespace);
    wait::until::<Event>(cluster.client(), selection, "the event of its node", |events| {
        events.values().any(|event| event.message.as_deref() == Some(&message))
    })
    .await?;
    services(fixture).delete("web", &DeleteOptions::default()).await?;
    wait::eventually("nobody has the address any more", async || {
        elsewhere(cluster, &["ip", "neighbour", "flush", "to", &address])?;
        ensure!(elsewhere(cluster, &get).is_err());
        Ok(())
    })
    .await
}

async fn datagrams_reach_an_address_like_connections(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let address = start(fixture, &["node-1"], "Cluster").await?;
    let ports = json!([
        {"name": "tcp", "port": 80, "targetPort": 8080},
        {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"},
    ]);
    patch(fixture, json!({"spec": {"ports": ports}})).await?;
    let target = format!("{address}:80");
    let test_server = cluster.test_server();
    let ask = [&*test_server.to_string_lossy(), "ask", &target];
    wait::eventually("this machine gets an answer", async || {
        let output = std::process::Command::new(ask[0]).args(&ask[1..]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.stdout == b"v1\n", "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    })
    .await?;
    web::get(cluster, &format!("http://{address}/version")).context("the same port of TCP")?;
    for node in cluster.nodes() {
        node_gets(cluster, &node, &ask).await?;
    }
    let another = another_machine(cluster)?;
    ensure!(elsewhere(cluster, &ask)? == "v1", "from another machine");
    let asks = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ask"},
        "spec": {"nodeName": "node-2", "restartPolicy": "Never", "containers": [{
            "name": "ask", "image": "skiff.test/testserver:v1", "args": ["ask", target],
        }]},
    });
    manifest::create(cluster.client(), &fixture.namespace, &asks.to_string()).await?;
    let ended = |pod: &Pod| matches!(pods::phase(pod), "Succeeded" | "Failed");
    let pod = pods::one(fixture, "ask", "it has ended", ended).await?;
    ensure!(pods::phase(&pod) == "Succeeded", "from a pod: {:?}", pod.status);

    patch(fixture, json!({"spec": {"loadBalancerSourceRanges": [format!("{another}/32")]}}))
        .await?;
    wait::eventually("this machine gets none", async || {
        let status = std::process::Command::new(ask[0]).args(&ask[1..]).output()?.status;
        ensure!(!status.success(), "it still does");
        Ok(())
    })
    .await?;
    ensure!(elsewhere(cluster, &ask)? == "v1", "the other machine gets one");
    Ok(())
}

async fn addresses_are_shared_and_those_of_nodes_used_on_request(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let sharing = json!({"skiff.dev/allow-shared-ip": "web"});
    let first = start(fixture, &["node-1"], "Cluster").await?;
    patch(fixture, json!({"metadata": {"annotations": sharing}})).await?;
    let balanced = |name: &str, annotations: Value, port: u16| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
                "ports": [{"port": port, "targetPort": 8080}]},
        })
    };
    let own = json!({"skiff.dev/load-balancer-addresses": "nodes"});
    for service in [balanced("second", sharing, 8081), balanced("edge", own, 8082)] {
        manifest::create(cluster.client(), &fixture.namespace, &service.to_string()).await?;
    }
    let mut urls = vec![format!("http://{first}/version"), format!("http://{first}:8081/version")];
    urls.extend(
        cluster
            .nodes()
            .iter()
            .map(|node| format!("http://{}:8082/version", cluster.node_address(node))),
    );
    for url in urls {
        wait::eventually(&url, async || web::get(cluster, &url)).await?;
    }
    Ok(())
}

async fn local_traffic_follows_its_endpoints(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let address = start(fixture, &["node-2"], "Local").await?;
    ensure!(holder(cluster, &address)? == "node-2", "it has the only endpoint");
    let service = services(fixture).get("web").await?;
    let port = service.spec.and_then(|spec| spec.health_check_node_port).context("a port")?;
    let healthy = |node: &str| {
        let url = format!("http://{}:{port}/", cluster.node_address(node));
        web::get(cluster, &url).is_ok_and(|body| body.contains(r#""localEndpoints":1"#))
    };
    ensure!(healthy("node-2") && !healthy("node-1") && !healthy("node-3"), "the health checks");
    server(fixture, "node-3").await?;
    let all: Api<Pod> = Api::namespaced(cluster.client(), &fixture.namespace);
    all.delete("server-node-2", &DeleteOptions::default()).await?;
    wait::eventually("the address is where the endpoint is", async || {
        let node = holder(cluster, &address)?;
        ensure!(node == "node-3", "it is on {node}");
        let body = web::get(cluster, &format!("http://{address}/env/NODE"))?;
        ensure!(body == "node-3", "{body:?} answers");
        Ok(())
    })
    .await
}

async fn an_update_behind_an_address_loses_no_request(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let client = cluster.client();
    manifest::create(client, &fixture.namespace, &web::manifest(3, "v1")).await?;
    patch(fixture, json!({"spec": {"type": "LoadBalancer"}})).await?;
    let address = address(fixture).await?;
    pods::until(fixture, "app=web", "three pods are Ready", |pods| {
        pods.len() == 3 && pods.values().all(pods::is_ready)
    })
    .await?;
    let load = Load::until_finished(cluster, &format!("http://{address}/version"), RATE, 120)?;
    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "server", "image": "skiff.test/testserver:v2"}]}}}});
    let deployments: Api<Deployment> = Api::namespaced(client, &fixture.namespace);
    deployments.patch("web", PatchKind::Strategic, &image).await?;
    let updated = |pod: &Pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers.into_iter().any(|one| one.image.as_deref() == Some("skiff.test/testserver:v2"))
    };
    pods::until(fixture, "app=web", "all pods run the new version", |pods| {
        pods.len() == 3 && pods.values().all(|pod| updated(pod) && pods::is_ready(pod))
    })
    .await?;
    let report = load.finish().await?;
    println!("update behind a load balancer: {report}");
    ensure!(report["sent"].as_u64() > Some(u64::from(RATE)), "{report}");
    ensure!(report["failed"] == 0, "{report}");
    let seen = |version: &str| report["bodies"][version].as_u64().unwrap_or(0) > 0;
    ensure!(seen("v1") && seen("v2"), "{report}");
    Ok(())
}

async fn deleted_rules_are_restored(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let address = start(fixture, &["node-1"], "Cluster").await?;
    let node = holder(cluster, &address)?;
    cluster.on_node(&node, &["nft", "flush", "ruleset"])?;
    let url = format!("http://{address}/version");
    wait::eventually("the address answers again", async || web::get(cluster, &url)).await?;
    ensure!(holder(cluster, &address)? == node, "it did not have to move");
    Ok(())
}

async fn a_pool_that_overlaps_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let node = cluster.node_address("node-1");
    let pool = format!("--load-balancer-cidr={node}/32");
    let refused = cluster.up_again(&[&pool])?;
    let expected = format!("--load-balancer-cidr {node}/32 contains {node}, the address of node-1");
    ensure!(!refused.success && refused.stderr.contains(&expected), "{}", refused.stderr);
    Ok(())
}
