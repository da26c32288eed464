//! The machine's side of the cluster's network: a namespace for each node, a bridge in a
//! namespace of its own that joins them, the machine's link into it, and the way out.
//!
//! ```text
//!   machine ── sk-<name> ═ uplink ─┐
//!                                  ├─ br0 (fabric namespace)
//!   node-1 ──── eth0 ═══ node-1 ───┤
//!   node-2 ──── eth0 ═══ node-2 ───┘
//! ```
//! The bridge is not on the machine itself because a firewall there (docker's forward policy,
//! for one) would drop traffic between nodes.

mod links;
pub mod namespace;
mod outside;

use std::net::Ipv4Addr;

use anyhow::Context;
use ipnet::Ipv4Net;

use crate::cluster::layout::Layout;
use crate::cluster::options::Options;

/// Largest MTU of the fabric, which is Ethernet's.
const MTU_MAX: u32 = 1500;

/// Creates whatever is missing of the network.
///
/// # Errors
/// Names the step that failed.
pub fn ensure(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let mtu = outside::mtu().unwrap_or(MTU_MAX).min(MTU_MAX);
    ensure_fabric(layout, options, mtu).context("cannot create the nodes' bridge")?;
    for node in options.nodes() {
        ensure_node(layout, options, &node.name, node.address, mtu)
            .with_context(|| format!("cannot create the network of {}", node.name))?;
    }
    route_cluster(layout, options).context("cannot route the cluster's ranges")?;
    outside::ensure(layout, options).context("cannot give the nodes access to the outside")
}

/// Removes the network: namespaces (and with them every link in them), the machine's link and
/// routes, and the nft table. What does not exist is skipped.
///
/// # Errors
/// When something exists and cannot be removed; the rest is removed nevertheless.
pub fn remove(layout: &Layout) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let link = layout.machine_link();
    let removal = run(async move { links::connect()?.delete(&link).await });
    problems.extend(removal.err());
    match namespace::with_prefix(&layout.namespace_prefix()) {
        Ok(paths) => {
            for path in paths {
                problems.extend(namespace::unpin(&path).err());
            }
        }
        Err(error) => problems.push(error),
    }
    problems.extend(outside::remove(layout).err());
    crate::cluster::join_errors(problems)
}

/// Cuts a node off by taking its link down. [`ensure`] brings it up again.
///
/// # Errors
/// When there is no such node.
pub fn cut(layout: &Layout, node: &str) -> anyhow::Result<()> {
    namespace::within(&layout.node_namespace(node), || {
        run(async { links::connect()?.down("eth0").await })
    })
    .with_context(|| format!("cannot cut {node} off"))
}

fn ensure_fabric(layout: &Layout, options: &Options, mtu: u32) -> anyhow::Result<()> {
    let fabric = layout.fabric_namespace();
    namespace::pin(&fabric)?;
    namespace::within(&fabric, move || {
        run(async move {
            let links = links::connect()?;
            links.up("lo").await?;
            links.bridge("br0", mtu).await
        })
    })?;
    let (link, gateway) = (layout.machine_link(), options.gateway());
    let prefix = options.node_cidr.prefix_len();
    run(async move {
        let links = links::connect()?;
        if !links.exists(&link).await? {
            links.veth(&link, "uplink", mtu, &fabric).await?;
        }
        attach(&fabric, "uplink".to_owned())?;
        links.address(&link, gateway, prefix).await?;
        links.up(&link).await
    })?;
    namespace::sysctl(&format!("net/ipv4/conf/{}/rp_filter", layout.machine_link()), "0")
}

fn ensure_node(
    layout: &Layout,
    options: &Options,
    node: &str,
    address: Ipv4Addr,
    mtu: u32,
) -> anyhow::Result<()> {
    let (fabric, path) = (layout.fabric_namespace(), layout.node_namespace(node));
    namespace::pin(&path)?;
    let port = node.to_owned();
    let gateway = options.gateway();
    let prefix = options.node_cidr.prefix_len();
    namespace::within(&path, move || {
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/all/route_localnet", "1"),
        ] {
            namespace::sysctl(key, value)?;
        }
        run(async move {
            let links = links::connect()?;
            links.up("lo").await?;
            if !links.exists("eth0").await? {
                links.veth("eth0", &port, mtu, &fabric).await?;
            }
            attach(&fabric, port)?;
            links.address("eth0", address, prefix).await?;
            links.up("eth0").await?;
            links.route(Ipv4Net::default(), gateway).await
        })
    })
}

/// Attaches a link of the fabric's namespace to its bridge.
fn attach(fabric: &std::path::Path, port: String) -> anyhow::Result<()> {
    namespace::within(fabric, move || {
        run(async move {
            let links = links::connect()?;
            links.join_bridge(&port, "br0").await?;
            links.up(&port).await
        })
    })
}

/// Routes the machine's traffic for pods and services through a node. One is enough: every node has
/// routes to the others' pods, and a node's namespace forwards whether or not its processes run.
fn route_cluster(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let ranges = [options.pod_cidr, options.service_cidr];
    let Some(node) = options.nodes().into_iter().next() else {
        return Ok(());
    };
    let link = layout.machine_link();
    run(async move {
        let links = links::connect()?;
        links.up(&link).await?;
        for range in ranges {
            links.route(range, node.address).await?;
        }
        Ok(())
    })
}

/// Runs a future to completion on a thread of its own, which is in the caller's network
/// namespace: netlink sockets belong to the namespace of the thread that opens them.
fn run<T: Send>(future: impl Future<Output = anyhow::Result<T>> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(future)
        });
        thread.join().expect("the network thread does not panic")
    })
}
