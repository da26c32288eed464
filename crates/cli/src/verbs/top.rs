//! `skiff top`: what nodes and pods use, from each kubelet's summary.

use std::process::ExitCode;

use anyhow::Context;
use client::{Api, Client, Config, ListOptions};
use k8s_openapi::api::core::v1::Node;
use rpc::kubelet_v1::StatsRequest;
use serde_json::Value;

use super::output::table::Text;
use super::{Connection, kubelet};

/// How long CPU use is measured.
const INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Nodes
    #[command(alias = "node", alias = "no")]
    Nodes,
    /// Pods
    #[command(alias = "pod", alias = "po")]
    Pods {
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// A line for every container
        #[arg(long)]
        containers: bool,
    },
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let config = connection.config()?;
    let client = Client::new(&config)?;
    let nodes = Api::<Node>::all(&client)
        .list(&ListOptions::default())
        .await?
        .items;
    let mut text = Text::default();
    match args.what {
        What::Nodes => {
            text.headers = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
                .map(str::to_owned)
                .into();
            for (node, summary) in nodes.iter().zip(summaries(&config, &nodes).await?) {
                text.rows.push(node_row(node, &summary["node"]));
            }
        }
        What::Pods {
            all_namespaces,
            containers,
        } => {
            let headers = [
                ("NAMESPACE", all_namespaces),
                ("POD", true),
                ("NAME", containers),
                ("CPU(cores)", true),
                ("MEMORY(bytes)", true),
            ];
            text.headers = headers
                .iter()
                .filter(|(_, shown)| *shown)
                .map(|(name, _)| (*name).to_owned())
                .collect();
            let namespace = if all_namespaces {
                ""
            } else {
                client.default_namespace()
            };
            for summary in summaries(&config, &nodes).await? {
                for pod in summary["pods"].as_array().into_iter().flatten() {
                    let own = pod["podRef"]["namespace"].as_str().unwrap_or_default();
                    if namespace.is_empty() || namespace == own {
                        text.rows.extend(pod_rows(pod, all_namespaces, containers));
                    }
                }
            }
            text.rows.sort();
        }
    }
    print!("{}", text.render(true, &mut Vec::new()));
    Ok(ExitCode::SUCCESS)
}

/// What one node's kubelet says of itself and its pods.
async fn summary(config: &Config, node: &Node) -> anyhow::Result<Value> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let answer = kubelet::connect(config, node)?.stats(StatsRequest {}).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("node {name}: {}", status.message()))?;
    serde_json::from_slice(&answer.into_inner().json)
        .with_context(|| format!("the summary of node {name} is not JSON"))
}

/// The summaries of all nodes, with the CPU use over [`INTERVAL`].
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

/// Writes into each part of `after` the CPU time it used since `before`, per second.
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
    let time = |stats: &Value| {
        stats["cpu"]["time"]
            .as_str()?
            .parse::<jiff::Timestamp>()
            .ok()
    };
    let (Some(used_before), Some(used_after)) = (used(before), used(after)) else {
        return;
    };
    let (Some(from), Some(to)) = (time(before), time(after)) else {
        return;
    };
    let elapsed = u64::try_from(to.duration_since(from).as_millis())
        .unwrap_or(0)
        .max(1);
    let per_second = used_after.saturating_sub(used_before).saturating_mul(1000) / elapsed;
    after["cpu"]["usageNanoCores"] = per_second.into();
}

fn millicores(stats: &Value) -> u64 {
    stats["cpu"]["usageNanoCores"]
        .as_u64()
        .unwrap_or(0)
        .div_ceil(1_000_000)
}

fn memory(stats: &Value) -> u64 {
    stats["memory"]["workingSetBytes"].as_u64().unwrap_or(0)
}

fn node_row(node: &Node, stats: &Value) -> Vec<String> {
    let allocatable = |name: &str| {
        let amounts = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        amounts
            .and_then(|amounts| amounts.get(name))
            .map(api::quantity::Quantity::of)
            .unwrap_or_default()
    };
    let percent = |used: u64, all: i64| match u64::try_from(all) {
        Ok(all @ 1..) => format!("{}%", used.saturating_mul(100) / all),
        _ => "<unknown>".to_owned(),
    };
    vec![
        node.metadata.name.clone().unwrap_or_default(),
        format!("{}m", millicores(stats)),
        percent(millicores(stats), allocatable("cpu").millis()),
        format!("{}Mi", memory(stats) >> 20),
        percent(memory(stats), allocatable("memory").units()),
    ]
}

fn pod_rows(pod: &Value, namespaces: bool, containers: bool) -> Vec<Vec<String>> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |name: Option<String>, stats: &Value| {
        let mut cells = Vec::new();
        cells.extend(namespaces.then(|| word(&pod["podRef"]["namespace"])));
        cells.push(word(&pod["podRef"]["name"]));
        cells.extend(name);
        cells.extend([
            format!("{}m", millicores(stats)),
            format!("{}Mi", memory(stats) >> 20),
        ]);
        cells
    };
    if !containers {
        return vec![row(None, pod)];
    }
    pod["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|stats| row(Some(word(&stats["name"])), stats))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cpu_use_is_what_came_to_it_between_two_looks() {
        let look = |second: u32, used: u64| {
            let cpu = json!({"time": format!("2026-01-01T00:00:{second:02}Z"), "usageCoreNanoSeconds": used});
            json!({"node": {"cpu": cpu}, "pods": [{"podRef": {"uid": "u"}, "cpu": cpu, "containers": [{"name": "c", "cpu": cpu}]}]})
        };
        let mut after = look(2, 3_000_000_000);
        measure(&look(0, 2_000_000_000), &mut after);
        let pod = &after["pods"][0];
        assert_eq!(
            [&after["node"], pod, &pod["containers"][0]].map(millicores),
            [500; 3]
        );
        let mut new = look(2, 9);
        measure(&json!({"pods": []}), &mut new);
        assert_eq!(millicores(&new["pods"][0]), 0);
    }
}
