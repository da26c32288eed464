//! What priority and fairness costs reads, and what it does for a node's heartbeat while others
//! flood the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clock::monotonic;
use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::pairs::{self, Load, Request};
use crate::server::{Rest, Server};
use crate::{CONFIG_MAPS, MAPS};

/// Objects of a list.
const LISTED: usize = 100;
const FLOODERS: usize = 100;
const ACCOUNT: (&str, &[&str]) =
    ("system:serviceaccount:default:flood", &["system:serviceaccounts"]);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// What the flood lists.
const EVERYTHING: [&str; 4] = [
    "/api/v1/configmaps",
    "/api/v1/pods",
    "/api/v1/services",
    "/apis/rbac.authorization.k8s.io/v1/roles",
];
/// Quiet and flooded stretches alternate.
const STRETCHES: usize = 3;
const STRETCH: Duration = Duration::from_secs(2);
/// Until the flood has all that it can have.
const RISE: Duration = Duration::from_millis(500);
/// Nodes that renew their Leases, and how long each waits before it does so again.
const NODES: usize = 10;
const BETWEEN_RENEWALS: Duration = Duration::from_millis(50);

pub async fn measure() {
    let on = start(&[]).await;
    let off = start(&["--enable-priority-and-fairness=false"]).await;
    for (what, path) in [("get", format!("{MAPS}/l-0")), ("list of 100", MAPS.to_owned())] {
        let loads = [&on, &off].map(|server| {
            let path = &path;
            Load::new(server, ACCOUNT, move |_| Request {
                method: "GET",
                path: path.clone(),
                body: Vec::new(),
            })
        });
        let [on_rates, off_rates] = pairs::alternate(loads).await;
        pairs::report(&format!("{what}, priority and fairness on"), &on_rates, &off_rates);
    }
    on.stop().await;
    off.stop().await;
}

/// Renewals of nodes' Leases under a flood, with the default number of seats and with few.
pub async fn heartbeats() {
    let few = ["--max-requests-inflight=20", "--max-mutating-requests-inflight=10"];
    for (seats, flags) in [(600, &[][..]), (30, &few)] {
        let server = start(flags).await;
        renewals_under_flood(&server, seats).await;
        server.stop().await;
    }
}

/// A server with objects, which accounts may read.
async fn start(flags: &[&str]) -> Server {
    let server = Server::spawn(flags).await;
    let admin = server.admin();
    let data = "x".repeat(700);
    for number in 0..LISTED {
        let object = (CONFIG_MAPS.object)(format!("l-{number}"), &data);
        admin.post(MAPS, &object).await.expect(201);
    }
    let group = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
        "name": ACCOUNT.1[0]});
    let binding = json!({"metadata": {"name": "readers"}, "subjects": [group],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "cluster-admin"}});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(bindings, &binding).await.expect(201);
    server
}

/// Renewals with and without a flood, in alternating stretches.
async fn renewals_under_flood(server: &Server, seats: usize) {
    for number in 0..NODES {
        let name = format!("n-{number}");
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
        node(server, number).post(LEASES, &lease).await.expect(201);
    }
    let (mut quiet, mut flooded, mut lists) = (Vec::new(), Vec::new(), 0);
    for _ in 0..STRETCHES {
        quiet.extend(renewals(server));
        let (stopped, flood) = begin_flood(server);
        tokio::time::sleep(RISE).await;
        flooded.extend(renewals(server));
        stopped.store(true, Ordering::Relaxed);
        for flooder in flood {
            lists += flooder.await.unwrap();
        }
    }
    let rate = lists as f64 / ((STRETCH + RISE) * STRETCHES as u32).as_secs_f64();
    let (quiet_ms, flooded_ms) = (p99(&mut quiet), p99(&mut flooded));
    println!(
        "{:<48} {flooded_ms:>10.1} ms  {quiet_ms:>9.1} ms  {:>6.1} x  ({} and {} renewals, {rate:.0} lists/s)",
        format!("Lease renewal, p99, {FLOODERS} flooding, {seats} seats"),
        flooded_ms / quiet_ms,
        flooded.len(),
        quiet.len(),
    );
}

/// Clients of one account that list everything until they are stopped, and then say how often they
/// have.
fn begin_flood(server: &Server) -> (Arc<AtomicBool>, Vec<JoinHandle<usize>>) {
    let stopped = Arc::new(AtomicBool::new(false));
    let flooders = (0..FLOODERS).map(|number| {
        let (rest, stopped) = (server.rest_as(ACCOUNT.0, ACCOUNT.1), stopped.clone());
        tokio::spawn(async move {
            let mut count = 0;
            for path in EVERYTHING.iter().cycle().skip(number) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (parts, _) = rest.exchange("GET", path, &[], Vec::new()).await;
                count += usize::from(parts.status == 200);
            }
            count
        })
    });
    let flood = flooders.collect();
    (stopped, flood)
}

fn node(server: &Server, number: usize) -> Rest {
    server.rest_as(&format!("system:node:n-{number}"), &["system:nodes"])
}

/// The durations of renewals. They come from a thread of their own, where the flood's clients do
/// not delay them.
fn renewals(server: &Server) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let renewing = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(join_all((0..NODES).map(|number| renew(server, number))))
        });
        renewing.join().unwrap().concat()
    })
}

/// A node's renewals, one after the other.
async fn renew(server: &Server, number: usize) -> Vec<Duration> {
    let node = node(server, number);
    let path = format!("{LEASES}/n-{number}");
    let mut lease = node.get(&path).await.expect(200);
    let (begun, mut times) = (monotonic(), Vec::new());
    while begun.elapsed() < STRETCH {
        lease["spec"]["leaseTransitions"] = times.len().into();
        let start = monotonic();
        lease = node.send("PUT", &path, &lease).await.expect(200);
        times.push(start.elapsed());
        tokio::time::sleep(BETWEEN_RENEWALS).await;
    }
    times
}

/// In milliseconds.
fn p99(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() * 99 / 100].as_secs_f64() * 1e3
}
