//! What happens to an address when the node that announces it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::Cluster;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::web;

use super::holder::{answering, holder};
use super::{connects, elsewhere, start};

/// By then another node has to announce an address.
const MOVED: Duration = Duration::from_secs(2);
/// A kubelet that is away for this long counts as gone.
const AWAY: Duration = Duration::from_millis(800);
/// Pause between connections of the probe.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// Connects all the time, to measure interruptions.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Probe {
    fn start(address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, address) = (stop.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut last, mut longest) = (clock::monotonic(), Duration::ZERO);
            while !ends.load(Ordering::Relaxed) {
                if connects(&address, 80).is_ok() {
                    let now = clock::monotonic();
                    longest = longest.max(now - last);
                    last = now;
                }
                std::thread::sleep(PROBE_PAUSE);
            }
            longest.max(clock::monotonic() - last)
        });
        Self { stop, thread }
    }

    /// The longest time without a connection.
    fn finish(self) -> anyhow::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the probe panicked")
    }
}

/// Waits until another node than `before` has the address; returns it.
async fn moved(cluster: &Cluster, address: &str, before: &str) -> anyhow::Result<String> {
    wait::eventually("another node has the address", async || {
        let node = holder(cluster, address)?;
        ensure!(node != before, "it is still on {node}");
        Ok(node)
    })
    .await
}

fn within(what: &str, since: Instant) -> anyhow::Result<()> {
    let took = since.elapsed();
    println!("{what}: moved after {} ms", took.as_millis());
    ensure!(took < MOVED, "{what}: it took {took:?}");
    Ok(())
}

pub async fn an_address_moves_when_a_process_of_its_node_fails(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let address = start(fixture, &["node-1", "node-2", "node-3"], "Cluster").await?;
    let first = holder(cluster, &address)?;
    let probe = Probe::start(&address);

    // The proxy hangs: its node still translates, until another one announces the address.
    let proxy = Pid::from_raw(cluster.pid(&format!("proxy-{first}"))?);
    kill(proxy, Signal::SIGSTOP)?;
    let stopped = clock::monotonic();
    let result = moved(cluster, &address, &first).await;
    let timely = within("a proxy that hangs", stopped);
    kill(proxy, Signal::SIGCONT)?;
    result.and(timely)?;
    // For a moment, two announce it.
    wait::eventually("one of them has the address", async || {
        let nodes = answering(cluster, &address)?;
        ensure!(nodes.len() == 1, "{nodes:?} answer");
        Ok(())
    })
    .await?;

    let second = holder(cluster, &address)?;
    let proxy = Pid::from_raw(cluster.pid(&format!("proxy-{second}"))?);
    kill(proxy, Signal::SIGKILL)?;
    wait::eventually("the proxy runs again", async || {
        let pid = cluster.pid(&format!("proxy-{second}"))?;
        ensure!(pid != proxy.as_raw(), "it is still {pid}");
        Ok(())
    })
    .await?;
    wait::eventually("one node has the address", async || {
        let nodes = answering(cluster, &address)?;
        ensure!(nodes.len() == 1, "{nodes:?} answer");
        Ok(())
    })
    .await?;
    let gap = probe.finish()?;
    println!("proxies that fail: the longest time without a connection was {} ms", gap.as_millis());
    ensure!(gap < MOVED, "{gap:?} without a connection");

    // A kubelet that does not come back. It is restarted, later each time.
    let third = holder(cluster, &address)?;
    let kubelet = format!("kubelet-{third}");
    let test_server = cluster.test_server();
    let health = [&*test_server.to_string_lossy(), "get", "http://127.0.0.1:10248/healthz"];
    let mut killed = None;
    while holder(cluster, &address).ok().is_none_or(|node| node == third) {
        let is_gone = killed.is_some_and(|at: Instant| at.elapsed() >= AWAY);
        if !is_gone && cluster.on_node(&third, &health).is_ok() {
            kill(Pid::from_raw(cluster.pid(&kubelet)?), Signal::SIGKILL)?;
            killed = Some(clock::monotonic());
        }
        ensure!(killed.is_none_or(|at| at.elapsed() < MOVED), "it is still on {third}");
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    within("a kubelet that ends", killed.context("it moved without need")?)
}

pub async fn an_address_moves_when_its_cable_is_pulled(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let address = start(fixture, &["node-1", "node-2", "node-3"], "Cluster").await?;
    let victim = holder(cluster, &address)?;
    elsewhere(cluster, &["ip", "link", "set", &victim, "down"])?;
    let pulled = clock::monotonic();
    let second = moved(cluster, &address, &victim).await;
    let timely = within("a cable that is pulled", pulled);
    // The kernel may not even have told the proxy yet that the carrier is lost.
    elsewhere(cluster, &["ip", "link", "set", &victim, "up"])?;
    let second = second?;
    timely?;
    wait::eventually("only the new node has the address", async || {
        let nodes = answering(cluster, &address)?;
        ensure!(nodes == [second.clone()], "{nodes:?} answer");
        Ok(())
    })
    .await
}

pub async fn an_address_moves_when_its_node_loses_power(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let address = start(fixture, &["node-1", "node-2", "node-3"], "Cluster").await?;
    let victim = holder(cluster, &address)?;
    // Only the address is to fail, not an endpoint.
    let all: Api<Pod> = Api::namespaced(cluster.client(), &fixture.namespace);
    let name = format!("server-{victim}");
    all.delete(&name, &DeleteOptions::default()).await?;
    let selection = Selection::namespace(&fixture.namespace).name(&name);
    wait::until::<Pod>(cluster.client(), selection, "it is gone", |pods| pods.is_empty()).await?;
    let url = format!("http://{address}/env/NODE");
    wait::eventually("it gets no traffic", async || {
        for _ in 0..20 {
            let node = web::get(cluster, &url)?;
            ensure!(node != victim, "{node} still answers");
        }
        Ok(())
    })
    .await?;
    let probe = Probe::start(&address);
    cluster.skiff(&["node-process", "kill", &victim])?;
    let second = moved(cluster, &address, &victim).await;
    let gap = probe.finish()?;
    println!("power loss: {} ms without a connection", gap.as_millis());
    cluster.skiff(&["node-process", "start", &victim])?;
    let second = second?;
    ensure!(gap < MOVED, "{gap:?} without a connection");
    // It comes back without taking the address away.
    let selection = Selection::default().name(&victim);
    wait::until::<Node>(cluster.client(), selection, "it is Ready", |nodes| {
        let conditions = nodes.values().flat_map(|node| &node.status);
        let mut conditions = conditions.flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|one| one.type_ == "Ready" && one.status == "True")
    })
    .await?;
    ensure!(answering(cluster, &address)? == [second], "nothing moves without need");
    Ok(())
}
