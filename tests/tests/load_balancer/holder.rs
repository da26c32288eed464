//! Which node has an address, as machines on the link see it.

use anyhow::{Context, ensure};
use std::process::Command;
use testkit::Cluster;

/// The node whose MAC address this machine uses for the address.
///
/// # Errors
/// If it knows none, or that of no node.
pub fn holder(cluster: &Cluster, address: &str) -> anyhow::Result<String> {
    let output = Command::new("ip").args(["neighbour", "show", address]).output()?;
    let known = String::from_utf8_lossy(&output.stdout).into_owned();
    let mac = after(&known, "lladdr").with_context(|| format!("{address}: {known:?}"))?;
    for node in cluster.nodes() {
        let link = cluster.on_node(&node, &["ip", "link", "show", "eth0"])?;
        if after(&link, "link/ether") == Some(mac) {
            return Ok(node);
        }
    }
    anyhow::bail!("{mac} is the MAC address of no node")
}

/// The nodes that answer when this machine asks for the address.
///
/// # Errors
/// If nobody does.
pub fn answering(cluster: &Cluster, address: &str) -> anyhow::Result<Vec<String>> {
    let mut nodes = Vec::new();
    for _ in 0..5 {
        let flushed = Command::new("ip").args(["neighbour", "flush", "to", address]).status()?;
        ensure!(flushed.success(), "cannot flush the neighbours");
        super::connects(address, 80)?;
        nodes.push(holder(cluster, address)?);
    }
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|found| *found == word)?;
    words.next()
}
