//! Benchmarks of a load balancer's address: connections compared with the pod's own address, and
//! how long the address takes to move when its node falls silent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use testkit::wait::{self, Selection};
use testkit::{Cluster, Options, manifest};
use tests::pods;

/// Connections per measurement, one after the other.
const CONNECTIONS: u32 = 3000;
/// How often the address is moved.
const MOVES: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between looks at the neighbour table.
const LOOK: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    tests::bench::run(run())
}

async fn run() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options { nodes: 2, ..Options::default() })?;
    cluster.load_image("testserver-v1").await?;
    let (pod, balanced) = start(&cluster).await?;
    wait::eventually("the address answers", async || Ok(connect(&balanced)?)).await?;
    let own = rate(&pod)?;
    let through = rate(&balanced)?;
    println!("connections, to the pod          {own:>8.0} /s");
    println!("connections, load balancer       {through:>8.0} /s   {:.2} x", own / through);
    let mut times = Vec::new();
    for _ in 0..MOVES {
        times.push(move_away(&cluster, balanced.ip().to_string()).await?);
    }
    times.sort_by(f64::total_cmp);
    println!("address moved, median            {:>8.0} ms", times[MOVES / 2]);
    println!("address moved, longest           {:>8.0} ms", times[MOVES - 1]);
    Ok(())
}

/// The addresses of a pod and of a load balancer in front of it.
async fn start(cluster: &Cluster) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let client = cluster.client();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{
            "name": "server", "image": "skiff.test/testserver:v1", "args": ["serve", "--port", "8080"],
        }]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}]},
    });
    for object in [pod, service] {
        manifest::create(client, "default", &object.to_string()).await?;
    }
    let web = || Selection::namespace("default").name("web");
    let ready = |found: &BTreeMap<String, Pod>| found.values().any(pods::is_ready);
    let found = wait::until::<Pod>(client, web(), "the pod is Ready", ready).await?;
    let pod = pods::address(found.get("web").context("it is Ready")?).to_owned();
    let of = |service: &Service| {
        let ingress = service.status.clone()?.load_balancer?.ingress?;
        ingress.first()?.ip.clone()
    };
    let has = |found: &BTreeMap<String, Service>| found.values().any(|one| of(one).is_some());
    let found = wait::until::<Service>(client, web(), "it has an address", has).await?;
    let balanced = found.get("web").and_then(of).context("it has an address")?;
    Ok((format!("{pod}:8080").parse()?, format!("{balanced}:80").parse()?))
}

/// One connection with one request: without an answer, the server's queue would overflow.
fn connect(address: &SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map(drop)
}

/// Connections per second.
fn rate(address: &SocketAddr) -> anyhow::Result<f64> {
    let started = clock::monotonic();
    for _ in 0..CONNECTIONS {
        connect(address)?;
    }
    Ok(f64::from(CONNECTIONS) / started.elapsed().as_secs_f64())
}

/// The MAC address that this machine uses for an address.
fn neighbour(address: &str) -> anyhow::Result<String> {
    let output = Command::new("ip").args(["neighbour", "show", address]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mac = text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    mac.map(str::to_owned).with_context(|| format!("{address}: {text:?}"))
}

/// Stops the proxy of the announcing node; the milliseconds until another one has the address.
async fn move_away(cluster: &Cluster, address: String) -> anyhow::Result<f64> {
    let before = neighbour(&address)?;
    let mut victim = None;
    for node in cluster.nodes() {
        if cluster.on_node(&node, &["ip", "link", "show", "eth0"])?.contains(&before) {
            victim = Some(node);
        }
    }
    let victim = victim.context("a node has the address")?;
    let proxy = Pid::from_raw(cluster.pid(&format!("proxy-{victim}"))?);
    kill(proxy, Signal::SIGSTOP)?;
    let started = clock::monotonic();
    let mut moved = false;
    while !moved && started.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(LOOK).await;
        moved = neighbour(&address)? != before;
    }
    let took = started.elapsed();
    // It ends, since two would have the address if it continued.
    kill(proxy, Signal::SIGKILL)?;
    ensure!(moved, "the address did not move");
    wait::eventually("the proxy runs again", async || {
        let pid = cluster.pid(&format!("proxy-{victim}"))?;
        ensure!(pid != proxy.as_raw(), "it is still {pid}");
        Ok(())
    })
    .await?;
    Ok(took.as_secs_f64() * 1000.0)
}
