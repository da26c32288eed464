//! `skiff top`: the resource usage of nodes and pods, from each kubelet's summary.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context;
use client::{Api, Client, Config, ListOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use rpc::kubelet_v1::StatsRequest;
use serde_json::Value;

use crate::output::tabwriter::align;
use crate::request::{Connection, kubelet};

/// How long CPU usage is measured.
const INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    /// Nodes
    #[command(alias = "node", alias = "no")]
    Nodes {
        #[command(flatten)]
        flags: TopFlags,
    },
    /// Pods
    #[command(alias = "pod", alias = "po")]
    Pods {
        #[command(flatten)]
        flags: TopFlags,
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Show a line per container
        #[arg(long)]
        containers: bool,
        /// Field selector: metadata.name=web
        #[arg(long, default_value = "")]
        field_selector: String,
        /// Show the sums in a last line
        #[arg(long)]
        sum: bool,
    },
}

/// Which rows are shown, and how.
#[derive(clap::Args)]
struct TopFlags {
    /// Only this one
    name: Option<String>,
    /// Label selector: a=b,c!=d
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// cpu or memory, in descending order
    #[arg(long, value_parser = ["cpu", "memory"])]
    sort_by: Option<String>,
    #[arg(long)]
    no_headers: bool,
}

impl TopFlags {
    fn options(&self, field_selector: &str) -> ListOptions {
        let by_name = self.name.as_ref().map(|name| format!("metadata.name={name}"));
        ListOptions {
            label_selector: self.selector.clone(),
            field_selector: by_name.unwrap_or(field_selector.to_owned()),
        }
    }

    /// Sorts and prints the rows, aligned as in kubectl: every cell, including the last, is padded.
    fn print(&self, headers: &[&str], mut rows: Vec<Row>) {
        match self.sort_by.as_deref() {
            Some("cpu") => rows.sort_by_key(|row| std::cmp::Reverse(row.millicores)),
            Some(_) => rows.sort_by_key(|row| std::cmp::Reverse(row.bytes)),
            None => rows.sort_by(|left, right| left.cells.cmp(&right.cells)),
        }
        let mut text = String::new();
        if !self.no_headers {
            text.push_str(&format!("{}\n", headers.join("\t")));
        }
        for row in rows {
            text.push_str(&format!("{}\t\n", row.cells.join("\t")));
        }
        print!("{}", align(&text, 6, 3));
    }
}

/// One row, and what it is sorted by.
struct Row {
    cells: Vec<String>,
    millicores: u64,
    bytes: u64,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let config = connection.config()?;
    let client = Client::new(&config)?;
    match args.command {
        Subcommand::Nodes { flags } => {
            let api = Api::<Node>::all(&client);
            let nodes = api.list(&flags.options("")).await?.items;
            if let (Some(name), true) = (&flags.name, nodes.is_empty()) {
                api.get(name).await?;
            }
            let summaries = summaries(&config, &nodes).await?;
            let rows = nodes.iter().zip(&summaries);
            let rows = rows.map(|(node, summary)| node_row(node, &summary["node"]));
            let headers = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
            flags.print(&headers, rows.collect());
        }
        Subcommand::Pods { flags, all_namespaces, containers, field_selector, sum } => {
            let namespace = if all_namespaces { "" } else { client.default_namespace() };
            let api = Api::<Pod>::namespaced(&client, namespace);
            let pods = api.list(&flags.options(&field_selector)).await?.items;
            if let (Some(name), true) = (&flags.name, pods.is_empty()) {
                api.get(name).await?;
            }
            let wanted: BTreeSet<&str> =
                pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
            let nodes = Api::<Node>::all(&client);
            let nodes = nodes.list(&ListOptions::default()).await?.items;
            let mut rows = Vec::new();
            for summary in summaries(&config, &nodes).await? {
                for pod in items(&summary["pods"]) {
                    let uid = pod["podRef"]["uid"].as_str().unwrap_or_default();
                    if wanted.contains(uid) {
                        rows.extend(pod_rows(pod, all_namespaces, containers));
                    }
                }
            }
            if rows.is_empty() {
                let place = if all_namespaces {
                    String::new()
                } else {
                    format!(" in {namespace} namespace.")
                };
                eprintln!("No resources found{place}");
                return Ok(ExitCode::SUCCESS);
            }
            print_pods(&flags, rows, (all_namespaces, containers, sum));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_pods(flags: &TopFlags, rows: Vec<Row>, (namespaces, containers, sum): (bool, bool, bool)) {
    let mut headers = Vec::new();
    headers.extend(namespaces.then_some("NAMESPACE"));
    headers.extend(containers.then_some("POD"));
    headers.extend(["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    let totals = rows
        .iter()
        .fold((0, 0), |(millicores, bytes), row| (millicores + row.millicores, bytes + row.bytes));
    flags.print(&headers, rows);
    if sum {
        let (millicores, bytes) = totals;
        println!("________   ________\n{millicores}m   {}Mi", bytes >> 20);
    }
}

/// The stats summary of one node's kubelet.
async fn summary(config: &Config, node: &Node) -> anyhow::Result<Value> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let answer = kubelet::connect(config, node)?.stats(StatsRequest {}).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("node {name}: {}", status.message()))?;
    serde_json::from_slice(&answer.into_inner().json)
        .with_context(|| format!("the summary of node {name} is not JSON"))
}

/// The summaries of all nodes, with the CPU usage over [`INTERVAL`].
async fn summaries(config: &Config, nodes: &[Node]) -> anyhow::Result<Vec<Value>> {
    let ask = || futures::future::try_join_all(nodes.iter().map(|node| summary(config, node)));
    let before = ask().await?;
    tokio::time::sleep(INTERVAL).await;
    let mut after = ask().await?;
    for (before, after) in before.iter().zip(&mut after) {
        measure(before, after);
    }
    Ok(after)
}

/// Sets the CPU usage of each part of `after` to its CPU time since `before`, per second.
fn measure(before: &Value, after: &mut Value) {
    rate(&before["node"], &mut after["node"]);
    for pod in after["pods"].as_array_mut().into_iter().flatten() {
        let uid = pod["podRef"]["uid"].clone();
        let earlier = items(&before["pods"]).find(|pod| pod["podRef"]["uid"] == uid);
        let Some(earlier) = earlier else { continue };
        rate(earlier, pod);
        for container in pod["containers"].as_array_mut().into_iter().flatten() {
            let name = container["name"].clone();
            if let Some(earlier) = items(&earlier["containers"]).find(|one| one["name"] == name) {
                rate(earlier, container);
            }
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn rate(before: &Value, after: &mut Value) {
    let used = |stats: &Value| stats["cpu"]["usageCoreNanoSeconds"].as_u64();
    let time = |stats: &Value| stats["cpu"]["time"].as_str()?.parse::<jiff::Timestamp>().ok();
    let (Some(used_before), Some(used_after)) = (used(before), used(after)) else {
        return;
    };
    let (Some(from), Some(to)) = (time(before), time(after)) else {
        return;
    };
    let elapsed = u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0).max(1);
    let per_second = used_after.saturating_sub(used_before).saturating_mul(1000) / elapsed;
    after["cpu"]["usageNanoCores"] = per_second.into();
}

fn millicores(stats: &Value) -> u64 {
    stats["cpu"]["usageNanoCores"].as_u64().unwrap_or(0).div_ceil(1_000_000)
}

fn memory(stats: &Value) -> u64 {
    stats["memory"]["workingSetBytes"].as_u64().unwrap_or(0)
}

fn node_row(node: &Node, stats: &Value) -> Row {
    let allocatable = |name: &str| {
        let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        amounts
            .and_then(|amounts| amounts.get(name))
            .map(api::quantity::Quantity::of)
            .unwrap_or_default()
    };
    let percent = |used: u64, all: i64| match u64::try_from(all) {
        Ok(all @ 1..) => format!("{}%", used.saturating_mul(100) / all),
        _ => "<unknown>".to_owned(),
    };
    let (millicores, bytes) = (millicores(stats), memory(stats));
    Row {
        cells: vec![
            node.metadata.name.clone().unwrap_or_default(),
            format!("{millicores}m"),
            percent(millicores, allocatable("cpu").millis()),
            format!("{}Mi", bytes >> 20),
            percent(bytes, allocatable("memory").units()),
        ],
        millicores,
        bytes,
    }
}

fn pod_rows(pod: &Value, namespaces: bool, containers: bool) -> Vec<Row> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |name: Option<String>, stats: &Value| {
        let (millicores, bytes) = (millicores(stats), memory(stats));
        let mut cells = Vec::new();
        cells.extend(namespaces.then(|| word(&pod["podRef"]["namespace"])));
        cells.push(word(&pod["podRef"]["name"]));
        cells.extend(name);
        cells.extend([format!("{millicores}m"), format!("{}Mi", bytes >> 20)]);
        Row { cells, millicores, bytes }
    };
    if !containers {
        return vec![row(None, pod)];
    }
    items(&pod["containers"]).map(|stats| row(Some(word(&stats["name"])), stats)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cpu_usage_is_the_rate_between_two_samples() {
        let look = |second: u32, used: u64| {
            let cpu = json!({"time": format!("2026-01-01T00:00:{second:02}Z"), "usageCoreNanoSeconds": used});
            json!({"node": {"cpu": cpu}, "pods": [{"podRef": {"uid": "u"}, "cpu": cpu, "containers": [{"name": "c", "cpu": cpu}]}]})
        };
        let mut after = look(2, 3_000_000_000);
        measure(&look(0, 2_000_000_000), &mut after);
        let pod = &after["pods"][0];
        assert_eq!([&after["node"], pod, &pod["containers"][0]].map(millicores), [500; 3]);
        let mut new = look(2, 9);
        measure(&json!({"pods": []}), &mut new);
        assert_eq!(millicores(&new["pods"][0]), 0);
    }
}
