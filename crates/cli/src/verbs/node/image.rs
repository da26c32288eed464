//! `skiff image load`: loads a docker or OCI archive onto every node.
//!
//! The archive goes straight to each node's kubelet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Api, Config, ListOptions};
use k8s_openapi::api::core::v1::Node;
use rpc::kubelet_v1::LoadImageRequest;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::request::{Connection, kubelet};

/// Bytes sent at once, and chunks in flight.
const CHUNK: usize = 1 << 20;
const QUEUE: usize = 4;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Load archives (docker save, OCI; may be gzipped) onto every node
    Load {
        #[arg(required = true, value_name = "FILE.tar")]
        files: Vec<PathBuf>,
        /// Only these nodes
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<String>,
    },
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let config = connection.config()?;
    let client = client::Client::new(&config)?;
    let Action::Load { files, nodes: wanted } = args.action;
    for file in &files {
        if !file.is_file() {
            bail!("{}: no such file", file.display());
        }
    }
    let nodes: Vec<Node> = Api::<Node>::all(&client).list(&ListOptions::default()).await?.items;
    let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
    for wanted in &wanted {
        if !nodes.iter().any(|node| name(node) == *wanted) {
            bail!("nodes {wanted:?} not found");
        }
    }
    let chosen: Vec<&Node> =
        nodes.iter().filter(|node| wanted.is_empty() || wanted.contains(&name(node))).collect();
    if chosen.is_empty() {
        bail!("the cluster has no nodes");
    }
    for file in &files {
        let loads = chosen.iter().map(|node| async {
            let images =
                load(&config, node, file).await.with_context(|| format!("node {}", name(node)))?;
            for image in images {
                println!("{}: {image}", name(node));
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(loads).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends one archive to one node; returns the names of the images loaded.
async fn load(config: &Config, node: &Node, file: &Path) -> anyhow::Result<Vec<String>> {
    let mut kubelet = kubelet::connect(config, node)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut archive =
        tokio::fs::File::open(file).await.with_context(|| file.display().to_string())?;
    let reading = tokio::spawn(async move {
        loop {
            let mut data = Vec::with_capacity(CHUNK);
            if archive.read_buf(&mut data).await? == 0 {
                return std::io::Result::Ok(());
            }
            // The node ended the call early; its answer says why.
            if sender.send(LoadImageRequest { data: data.into() }).await.is_err() {
                return Ok(());
            }
        }
    });
    let answer = kubelet.load_image(ReceiverStream::new(receiver)).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    reading.await?.with_context(|| file.display().to_string())?;
    Ok(answer.into_inner().images)
}
