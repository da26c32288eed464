//! The nodes' access to the outside: forwarding, and masquerading in an nft table of the cluster's
//! own.

use serde_json::Value;

use crate::cluster::command;
use crate::cluster::layout::Layout;
use crate::cluster::network::namespace;
use crate::cluster::options::Options;

/// The MTU of the link of the machine's default route, if there is one.
pub fn mtu() -> Option<u32> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let link = default_link(&routes)?;
    std::fs::read_to_string(format!("/sys/class/net/{link}/mtu")).ok()?.trim().parse().ok()
}

fn default_link(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (link, destination) = (fields.next()?, fields.next()?);
        let mask = fields.nth(5)?;
        (destination == "00000000" && mask == "00000000").then_some(link)
    })
}

/// Enables forwarding, masquerades what leaves the node subnet, and accepts it where another
/// firewall's forward policy drops by default (as docker's does).
pub fn ensure(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    namespace::sysctl("net/ipv4/ip_forward", "1")?;
    let (table, link) = (layout.nft_table(), layout.machine_link());
    let (nodes, pods) = (options.node_cidr, options.pod_cidr);
    let rules = format!(
        "add table ip {table}\n\
         flush table ip {table}\n\
         table ip {table} {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat;\n\
         \t\tip saddr {{ {nodes}, {pods} }} oifname != \"{link}\" oifname != \"lo\" masquerade\n\
         \t}}\n\
         }}\n"
    );
    command::feed("nft", &["-f", "-"], &rules)?;
    if forward_drops()? {
        remove_forward_rules(layout)?;
        for direction in ["iifname", "oifname"] {
            let comment = format!("\"{}\"", layout.nft_table());
            let chain = ["insert", "rule", "ip", "filter", "FORWARD"];
            let rule = [direction, link.as_str(), "accept", "comment", &comment];
            command::run("nft", &[&chain[..], &rule[..]].concat())?;
        }
    }
    Ok(())
}

/// Removes the table and the rules that let the cluster's traffic pass.
pub fn remove(layout: &Layout) -> anyhow::Result<()> {
    if !command::exists("nft") {
        return Ok(());
    }
    // Adding first makes the removal idempotent.
    let table = layout.nft_table();
    command::feed(
        "nft",
        &["-f", "-"],
        &format!("add table ip {table}\ndelete table ip {table}\n"),
    )?;
    remove_forward_rules(layout)
}

fn forward_chain() -> anyhow::Result<Vec<Value>> {
    match command::run("nft", &["-j", "-a", "list", "chain", "ip", "filter", "FORWARD"]) {
        Ok(output) => {
            let listing: Value = serde_json::from_str(&output)?;
            Ok(listing["nftables"].as_array().cloned().unwrap_or_default())
        }
        // There is no such chain, so nothing is dropped.
        Err(_) => Ok(Vec::new()),
    }
}

fn forward_drops() -> anyhow::Result<bool> {
    Ok(forward_chain()?.iter().any(|item| item["chain"]["policy"] == "drop"))
}

fn remove_forward_rules(layout: &Layout) -> anyhow::Result<()> {
    for handle in own_rules(&forward_chain()?, &layout.nft_table()) {
        let handle = handle.to_string();
        command::run("nft", &["delete", "rule", "ip", "filter", "FORWARD", "handle", &handle])?;
    }
    Ok(())
}

fn own_rules(listing: &[Value], comment: &str) -> Vec<u64> {
    listing
        .iter()
        .filter(|item| item["rule"]["comment"] == comment)
        .filter_map(|item| item["rule"]["handle"].as_u64())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_route_names_its_link() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_link(routes), Some("eth0"));
        assert_eq!(default_link("header\n"), None);
    }

    #[test]
    fn only_own_rules_are_removed() {
        let listing = [
            json!({"chain": {"policy": "drop"}}),
            json!({"rule": {"handle": 4}}),
            json!({"rule": {"handle": 5, "comment": "skiff-skiff"}}),
            json!({"rule": {"handle": 6, "comment": "skiff-other"}}),
        ];
        assert_eq!(own_rules(&listing, "skiff-skiff"), [5]);
    }
}
