//! Flags, read once and validated.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use proxy::sync::Settings;
use runtime::flags::CommonFlags;

/// Flags of `skiff-proxy`; names are Kubernetes'.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "skiff-proxy",
    version,
    about = "Makes Services reachable on a node.",
    args_conflicts_with_subcommands = true
)]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    #[command(flatten)]
    pub serve: Serve,

    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Remove the nftables tables and routes that the proxy made in this network namespace.
    Cleanup,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// Kubeconfig with the apiserver's address and our credentials.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The name of this node.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// The range of all pods; two, separated by a comma, for dual stack. Connections that leave it
    /// are masqueraded.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,

    /// The address of the DNS server that runs on each node: no rules are made for it.
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
}

impl Serve {
    /// # Errors
    /// When a flag is missing, or two ranges are of one family.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let node_name = self.node_name.clone().context("--node-name is required")?;
        let v4 = self.cluster_cidr.iter().filter(|range| matches!(range, IpNet::V4(_))).count();
        let v6 = self.cluster_cidr.len() - v4;
        anyhow::ensure!(
            v4 <= 1 && v6 <= 1,
            "--cluster-cidr takes at most one range of each family"
        );
        Ok(Settings {
            node_name,
            cluster_cidrs: self.cluster_cidr.clone(),
            cluster_dns: self.cluster_dns.clone(),
        })
    }
}
