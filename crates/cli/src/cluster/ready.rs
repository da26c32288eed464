//! Waits until the apiserver reports the nodes as Ready.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use client::informer::{Event, InformerOptions, informer};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;

use crate::cluster::layout::Layout;
use crate::cluster::options::Options;
use crate::cluster::progress::Progress;

/// Waits until every node of the cluster is Ready.
///
/// # Errors
/// When that takes longer than `wait`, with the reason for each node.
pub async fn wait_for_nodes(
    layout: &Layout,
    options: &Options,
    progress: &Progress,
    wait: Duration,
) -> anyhow::Result<()> {
    let config = client::Config::from_file(&layout.kubeconfig("admin"), None)?;
    let names = options.nodes().into_iter().map(|node| node.name).collect();
    wait_for(&config, names, progress, wait).await
}

/// Waits until the named nodes of any cluster are Ready.
///
/// # Errors
/// As [`wait_for_nodes`].
pub async fn wait_for(
    config: &client::Config,
    names: Vec<String>,
    progress: &Progress,
    wait: Duration,
) -> anyhow::Result<()> {
    let client =
        client::Client::new(config).context("cannot use the administrator's kubeconfig")?;
    let mut missing: BTreeMap<String, String> =
        names.into_iter().map(|name| (name, "has not registered".to_owned())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all_ready = async {
        let mut events = pin!(informer::<Node>(client, InformerOptions::default()));
        while let Some(event) = events.next().await {
            let (Event::InitApply(node) | Event::Apply(node)) = event else {
                continue;
            };
            let name = node.metadata.name.clone().unwrap_or_default();
            match not_ready(&node) {
                None if missing.remove(&name).is_some() => {
                    progress.done(&format!("{name} is Ready"));
                }
                Some(reason) if missing.contains_key(&name) => {
                    missing.insert(name, reason);
                }
                _ => {}
            }
            if missing.is_empty() {
                return Ok(());
            }
            let names: Vec<&str> = missing.keys().map(String::as_str).collect();
            progress.doing(&format!("waiting for {} to be Ready", names.join(", ")));
        }
        bail!("the watch of nodes ended")
    };
    match tokio::time::timeout(wait, all_ready).await {
        Ok(result) => result,
        Err(_) => {
            let lines: Vec<String> =
                missing.iter().map(|(name, reason)| format!("\n  {name}: {reason}")).collect();
            bail!("nodes are not Ready after {} s:{}", wait.as_secs(), lines.concat())
        }
    }
}

/// Why the node is not Ready; `None` when it is.
fn not_ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    match conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(condition.message.clone().unwrap_or_else(|| "not Ready".into())),
        None => Some("has not reported its status".to_owned()),
    }
}
