//! `skiff top`: what nodes and pods use, from each kubelet's summary.

use std::process::ExitCode;

use anyhow::Context;
use client::{Api, Client, ListOptions};
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::Connection;
use super::output::table::Text;

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
    let client = connection.client()?;
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
            for node in &nodes {
                let summary = summary(&client, node).await?;
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
            for node in &nodes {
                let summary = summary(&client, node).await?;
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

/// A kubelet's stats/summary, through the apiserver.
async fn summary(client: &Client, node: &Node) -> anyhow::Result<Value> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let body = client
        .get_path(&format!("/api/v1/nodes/{name}/proxy/stats/summary"), "")
        .await?;
    serde_json::from_slice(&body).with_context(|| format!("the summary of node {name} is not JSON"))
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
